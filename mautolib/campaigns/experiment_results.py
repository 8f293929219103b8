"""What an A/B test has shown: its figures from the ledger, hits, orders and observations, and what they allow to say.

Promise: only the test slice is compared, never the rest that got the winner later; what the API, the lists and the
analysts' view show is counted by one view (`ab_variant_figures`). The statistics are in `deciding`. Callers: the API,
the automatic decision, the choice by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from mautolib.campaigns import deciding
from mautolib.campaigns.deciding import Counts, HeldOut, Results
from mautolib.campaigns.experiment_model import AbStatus, AbTest, AbTestType
from mautolib.db.statements import statement


@dataclass(frozen=True, kw_only=True)
class VariantFigures:
    """What is known of a variant; `waiting` is test mail not handed over yet, money is in the reporting currency."""

    variant_id: int
    assigned: int = 0
    waiting: int = 0
    attempted: int = 0
    sent: int = 0
    delivered: int = 0
    bounced: int = 0
    unique_opens: int = 0
    unique_clicks: int = 0
    conversions: int = 0
    revenue: Decimal = Decimal(0)
    revenue_squares: Decimal = Decimal(0)
    last_handover_at: datetime | None = None
    last_observed_at: datetime | None = None


_COUNTED = ("assigned", "attempted", "sent", "delivered", "unique_opens", "unique_clicks", "conversions", "revenue",
            "revenue_squares")  # fmt: skip
_FIELDS = tuple(item.name for item in dataclasses.fields(VariantFigures))


def figures_of(tx: Connection, test_ids: Iterable[int]) -> dict[int, VariantFigures]:
    """The figures of all variants of some tests, by variant, as they are now."""
    wanted = list(test_ids)
    if not wanted:
        return {}
    rows = tx.execute(statement("experiments.figures"), {"test_ids": wanted}).mappings()
    return {row["variant_id"]: VariantFigures(**{name: row[name] for name in _FIELDS}) for row in rows}


def last_counted(tx: Connection, test_ids: Iterable[int]) -> dict[int, VariantFigures]:
    """What a list shows of all variants of some tests, by variant: as last recounted, with what was seen elsewhere.

    Counting takes as long as tests are large; a list has many of them.
    """
    wanted = list(test_ids)
    if not wanted:
        return {}
    rows = tx.execute(statement("experiments.last_counted"), {"test_ids": wanted}).mappings()
    return {row["variant_id"]: VariantFigures(**row) for row in rows}


def recount(tx: Connection, now: datetime) -> None:
    """Count, for lists, the variants of tests whose campaign was recounted since, by whomever.

    Recounts wait for each other, as those of campaigns do: call it last in a transaction.
    """
    wanted = tx.scalars(statement("experiments.overtaken")).all()
    if wanted:
        tx.execute(statement("campaigns.lock_totals"))
        tx.execute(statement("experiments.recount"), {"test_ids": wanted, "now": now})


def deadline_of(test: AbTest, figures: Mapping[int, VariantFigures]) -> datetime | None:
    """When the test is decided: the last hand-over of test mail and the hours to wait; None while some waits.

    Hand-overs seen elsewhere count only where none of ours are planned.
    """
    own = [figures[each.variant_id] for each in test.variants]
    if any(each.waiting for each in own):
        return None
    if test.deadline_at is not None:
        # As the sender saw it: a doubt that is settled later moves no deadline.
        return test.deadline_at
    moments = [each.last_observed_at if test.planned_at is None else each.last_handover_at for each in own]
    last = max((moment for moment in moments if moment is not None), default=test.planned_at)
    return None if last is None else last + timedelta(hours=test.wait_hours)


def evaluate(tx: Connection, test: AbTest, *, now: datetime) -> Results:
    """What the figures say now, whatever was decided before."""
    return _decided(tx, test, figures_of(tx, [test.test_id]), now)


def results(tx: Connection, test: AbTest, *, now: datetime) -> Results:
    """The figures now, with the decision the test was completed with, if it was."""
    found = evaluate(tx, test, now=now)
    if test.status is not AbStatus.COMPLETED or test.decision is None:
        return found
    winner = None if test.winner_variant_id is None else str(test.winner_variant_id)
    return dataclasses.replace(
        found, decision=test.decision, reason=test.decision_reason or found.reason, winner_variant_id=winner
    )


def _decided(tx: Connection, test: AbTest, figures: Mapping[int, VariantFigures], now: datetime) -> Results:
    counts = []
    for each in test.variants:
        known = figures[each.variant_id]
        # While mail of a later hour waits, its share is not missing.
        is_due = test.test_type is not AbTestType.SEND_TIME or not known.waiting
        values: dict[str, Any] = {name: getattr(known, name) for name in _COUNTED}
        counts.append(Counts(variant_id=str(each.variant_id), name=each.name, due=is_due, **values))
    held_out = None
    if test.holdout_percentage:
        row = tx.execute(statement("experiments.held_out"), {"test_id": test.test_id}).mappings().one()
        held_out = HeldOut(**row)
    return deciding.decide(
        counts, test.winner_metric, as_of=now, deadline_at=deadline_of(test, figures), held_out=held_out
    )
