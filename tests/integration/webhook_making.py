"""Endpoints, facts and deliveries for tests of webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from mautolib import outbox, webhooks
from mautolib.settings import Settings

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def add_endpoint(
    tx: Connection, settings: Settings, url: str, *, events: Sequence[str] = ("*",), secret: str = SECRET,
    **columns: Any,
) -> int:  # fmt: skip
    """An endpoint that has listened for long; further columns as named."""
    given = {"listens_since": datetime(2020, 1, 1, tzinfo=UTC), **columns}
    names = "".join(f", {name}" for name in given)
    marks = "".join(f", :{name}" for name in given)
    return int(
        tx.execute(
            text(
                f"insert into webhook_endpoints (url, secret_encrypted, events{names}) "
                f"values (:url, :secret, :events{marks}) returning endpoint_id"
            ),
            {"url": url, "secret": webhooks.seal_secret(settings, secret), "events": list(events), **given},
        ).scalar_one()
    )


def tell(
    tx: Connection, count: int = 1, *, name: str = "contact.created", at: datetime = NOON,
    data: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """So many facts."""
    outbox.record_many(
        tx,
        [
            outbox.Fact(name=outbox.FactName(name), data=data or {"contact": {"id": str(n)}}, occurred_at=at)
            for n in range(count)
        ],
    )


def rows(engine: Engine, query: str, **values: Any) -> Sequence[Row[Any]]:
    """All rows of a query."""
    with engine.connect() as tx:
        return tx.execute(text(query), values).all()


def value(engine: Engine, query: str, **values: Any) -> Any:
    """The one value of a query."""
    with engine.connect() as tx:
        return tx.execute(text(query), values).scalar_one()
