"""Exchange rates: list them, and load them day by day."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import Depends, Query, Response
from pydantic import ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Currency, Day, Line100, Model, Rate8, Shown
from mautolib.auth.roles import Role
from mautolib.events import reading
from mautolib.events.orders import NewRate, load_rates
from mautolib.events.reading import RateFilter

router = Router("Orders")

_EXAMPLE: dict[str, JsonValue] = {
    "rates": [{"rate_date": "2026-05-01", "base": "EUR", "quote": "USD", "rate": "1.0842", "source": "ecb"}]
}


class ShownRate(Answer):
    """Units of `quote` for one unit of `base` on a day."""

    model_config = ConfigDict(title="Rate")

    rate_date: date
    base: str
    quote: str
    rate: Rate8
    source: str
    loaded_at: Shown


class RateBody(Model):
    """Units of `quote` for one unit of `base` on a day; at most 8 decimals."""

    model_config = ConfigDict(title="RateCreate")

    rate_date: Day
    base: Currency
    quote: Currency
    rate: Rate8
    source: Line100

    @model_validator(mode="after")
    def _two_currencies(self) -> RateBody:
        if self.base == self.quote:
            raise PydanticCustomError("same_currency", "base and quote are two currencies")
        return self


class RatesBody(Model):
    """Rates to store; one that is known for its day and pair is replaced."""

    model_config = ConfigDict(title="RatesUpsert", json_schema_extra={"example": _EXAMPLE})

    rates: Annotated[list[RateBody], Field(min_length=1, max_length=1000)]


class Upserted(Answer):
    """How many rates were stored; of two for one day and pair the later one given counts."""

    upserted: int


def shown(rate: reading.LoadedRate) -> ShownRate:
    """A rate as the API shows it."""
    return ShownRate.model_validate(rate)


def _filters(
    base: Annotated[Currency | None, Query(description="Rates of one unit of this currency.")] = None,
    quote: Annotated[Currency | None, Query(description="Rates in this currency.")] = None,
    since: Annotated[Day | None, Query(description="From this day on.")] = None,
    until: Annotated[Day | None, Query(description="Up to this day.")] = None,
) -> RateFilter:
    return RateFilter(base=base, quote=quote, since=since, until=until)


@router.get("/fx-rates/", response_model=list[ShownRate], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_fx_rates(
    call: CurrentCall, page: paging.SkipLimit, filters: Annotated[RateFilter, Depends(_filters)]
) -> Response:
    """List exchange rates.

    Newest day first. Filters combine with AND.
    """
    after = paging.position_as(page, date.fromisoformat, str, str)
    with call.engine.begin() as tx:
        rows = reading.search_rates(tx, filters, skip=page.skip, limit=page.limit + 1, after=after)
        total = reading.count_rates(tx, filters, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].rate_date.isoformat(), kept[-1].base, kept[-1].quote) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post("/fx-rates/", response_model=Upserted, responses=problems(401, 403, 422))
@allow(Role.ADMIN, action="fx_rate.upsert")
async def upsert_fx_rates(call: CurrentCall, body: RatesBody) -> Response:
    """Store exchange rates.

    A changed rate restates revenue at once: every order is converted with the last rate on or before its day.
    """
    rates = [NewRate(**rate.model_dump()) for rate in body.rates]

    def effect(tx: Connection) -> Outcome:
        done = load_rates(tx, rates, now=call.now)
        return Outcome(body=Upserted(upserted=done.given), changes={"given": done.given, "changed": done.changed})

    return await call.commit(effect)
