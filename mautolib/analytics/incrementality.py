"""What all marketing mail together earned: those who could be mailed against those held out, by intention to treat.

Promise: everybody who could have been mailed counts with the group their draw put them in, whatever became of them,
from the first moment on; nobody who was mailed for a part of the time only. Nothing is said from too little data, from
a time without one unbroken hold-out, or if the groups are not as large as drawn. The statistics are those of
docs/statistics.md. Called by the command line and `incrementality_sums`; docs/incrementality.md explains the figures.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import Connection

from mautolib import statistics
from mautolib.campaigns import holdout
from mautolib.campaigns.deciding import EXACT_BELOW, MINIMUMS
from mautolib.campaigns.holdout import DRAWS, Period
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.statistics import Moments, Pairs, SampleRatio

__all__ = ["PRE_DAYS", "Arm", "Effect", "Incrementality", "Verdict", "csv_of", "figures", "measure", "report",
           "stretch", "told"]  # fmt: skip

#: Days before the hold-out whose revenue CUPED takes into account.
PRE_DAYS: Final = 90
_MOST_PRE_DAYS: Final = 3650


class Verdict(StrEnum):
    """Whether anything is said, else why not."""

    MEASURED = "measured"
    NO_HOLDOUT = "no_holdout"
    NOT_LONG_ENOUGH = "holdout_not_long_enough"
    SRM_DETECTED = "srm_detected"
    NOT_ENOUGH_DATA = "not_enough_data"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of both groups: customers ordered at least once; `pairs` are their revenue in the time and before."""

    contacts: int
    customers: int
    orders: int
    pairs: Pairs

    @property
    def revenue(self) -> Decimal:
        """Net of refunds, in the reporting currency."""
        return Decimal(self.pairs.y)

    @property
    def moments(self) -> Moments:
        """Their revenue as sums for the statistics."""
        return Moments(n=self.contacts, total=self.pairs.y, squares=self.pairs.yy)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Mailed less held out, with the 95 % interval; `lift` is that over those held out, as a fraction."""

    difference: float
    low: float
    high: float
    p_value: float
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Incrementality:
    """A report. The effects are None unless it is `measured`; those of CUPED also without a time before.

    Args:
        percent: the smallest share held out in the time; who was held out for a part of it only is in no group.
        revenue, adjusted: money per contact, the second after CUPED with `theta` and the `reduction` of the variance.
        conversion: percentage points of contacts who ordered.
        total, total_low, total_high: the money that mail brought: the (adjusted) difference for everybody mailed.
    """

    from_at: datetime
    to_at: datetime
    verdict: Verdict
    reason: str
    percent: Decimal | None = None
    before_from: datetime | None = None
    before_to: datetime | None = None
    reporting_currency: str | None = None
    mailed: Arm | None = None
    held_out: Arm | None = None
    srm: SampleRatio | None = None
    revenue: Effect | None = None
    conversion: Effect | None = None
    adjusted: Effect | None = None
    theta: float | None = None
    reduction: float | None = None
    total: float | None = None
    total_low: float | None = None
    total_high: float | None = None


def stretch(known: Sequence[Period]) -> tuple[datetime, datetime | None] | None:
    """Since when, and until when, the newest hold-out lasts without a gap or a new draw; None: there never was one."""
    if not known:
        return None
    first = known[-1]
    for period in reversed(known[:-1]):
        if period.salt != first.salt or period.ended_at != first.begun_at:
            break
        first = period
    return first.begun_at, known[-1].ended_at


def report(
    tx: Connection, from_at: datetime, to_at: datetime, *, now: datetime, pre_days: int = PRE_DAYS
) -> Incrementality:
    """What mail earned in [from_at, to_at).

    Args:
        pre_days: how many days before the hold-out began tell about each contact; 0: none, and no CUPED.
    Raises:
        InvalidInput: the time is not over yet or ends before it begins, or `pre_days` is no such number.
    """
    if not from_at < to_at <= now:
        raise InvalidInput("A report is about a time that has begun before it ended, and has ended")
    if not 0 <= pre_days <= _MOST_PRE_DAYS:
        raise InvalidInput(f"The time before is 0 to {_MOST_PRE_DAYS} days")
    return told(
        holdout.periods(tx), from_at, to_at, pre_days=pre_days,
        sums=lambda binds: tx.execute(statement("holdout.sums"), binds).mappings().all(),
    )  # fmt: skip


def told(
    known: Sequence[Period], from_at: datetime, to_at: datetime, *, pre_days: int,
    sums: Callable[[Mapping[str, Any]], Sequence[Any]],
) -> Incrementality:  # fmt: skip
    """The report on [from_at, to_at) of the periods there were.

    Args:
        sums: gives both groups for the binds of `holdout.sums`; not called where there is nothing to compare.
    """
    within = [each for each in known if each.begun_at < to_at and (each.ended_at is None or each.ended_at > from_at)]
    if not within:
        return Incrementality(from_at=from_at, to_at=to_at, verdict=Verdict.NO_HOLDOUT,
                              reason="Nobody was held out in this time")  # fmt: skip
    if fault := _gap(within, from_at, to_at):
        return Incrementality(from_at=from_at, to_at=to_at, verdict=Verdict.NOT_LONG_ENOUGH, reason=fault)
    begun_at = min(each.begun_at for each in known if each.salt == within[0].salt)
    bounds = [each.bound for each in within]
    before = begun_at - timedelta(days=pre_days)
    rows = sums({
        "salt": within[0].salt, "held_below": min(bounds), "mailed_from": max(bounds), "from_at": from_at,
        "to_at": to_at, "before_from": before, "before_to": begun_at,
    })  # fmt: skip
    arms = {bool(row["is_held"]): _arm(row) for row in rows}
    return measure(
        arms.get(False, _NOBODY), arms.get(True, _NOBODY), shares=(DRAWS - max(bounds), min(bounds)),
        from_at=from_at, to_at=to_at, percent=min(each.percent for each in within),
        before=(before, begun_at) if pre_days else None,
        reporting_currency=next((row["reporting_currency"] for row in rows), None),
    )  # fmt: skip


def measure(
    mailed: Arm, held_out: Arm, *, shares: tuple[float, float], from_at: datetime, to_at: datetime, percent: Decimal,
    before: tuple[datetime, datetime] | None, reporting_currency: str | None = None,
) -> Incrementality:  # fmt: skip
    """The report on two groups. Pure.

    Args:
        shares: how large both should be, in any unit.
        before: the time that `pairs` say x of; None: it is not used.
    """
    srm = statistics.sample_ratio([mailed.contacts, held_out.contacts], shares)
    verdict, reason = _verdict(mailed, held_out, srm)
    known: dict[str, Any] = {
        "from_at": from_at, "to_at": to_at, "verdict": verdict, "reason": reason, "percent": percent,
        "before_from": before and before[0], "before_to": before and before[1], "mailed": mailed,
        "held_out": held_out, "srm": srm, "reporting_currency": reporting_currency,
    }  # fmt: skip
    if verdict is not Verdict.MEASURED:
        return Incrementality(**known)
    plain = statistics.welch(mailed.moments, held_out.moments)
    relative = None
    if held_out.moments.mean > 0:
        relative = statistics.lift_of_means(mailed.moments, held_out.moments)
    effect = found = _effect(plain, relative)
    if before is not None:
        after = statistics.cuped(mailed.pairs, held_out.pairs)
        found = _effect(after.test, after.lift)
        known |= {"adjusted": found, "theta": after.theta, "reduction": after.reduction}
    size = mailed.contacts
    return Incrementality(
        **known, revenue=effect, conversion=_conversion(mailed, held_out), total=found.difference * size,
        total_low=found.low * size, total_high=found.high * size,
    )  # fmt: skip


def csv_of(found: Incrementality) -> str:
    """The figures as CSV, one a line: name, value."""
    out = io.StringIO()
    lines = csv.writer(out)
    lines.writerow(["figure", "value"])
    lines.writerows((name, "" if value is None else value) for name, value in figures(found).items())
    return out.getvalue()


def figures(found: Incrementality) -> dict[str, Any]:
    """The report as flat names and plain values, in the order to be read."""
    shown: dict[str, Any] = {
        "from": found.from_at, "to": found.to_at, "verdict": found.verdict.value, "reason": found.reason,
        "holdout_percent": found.percent, "reporting_currency": found.reporting_currency,
    }  # fmt: skip
    for name, arm in (("mailed", found.mailed), ("held_out", found.held_out)):
        if arm is not None:
            shown |= {f"{name}_contacts": arm.contacts, f"{name}_customers": arm.customers,
                      f"{name}_orders": arm.orders, f"{name}_revenue": arm.revenue}  # fmt: skip
    if found.srm is not None:
        shown["srm_p_value"] = found.srm.p_value
    for name, effect in (("revenue", found.revenue), ("conversion", found.conversion), ("cuped", found.adjusted)):
        if effect is not None:
            shown |= {f"{name}_{key}": value for key, value in asdict(effect).items()}
    if found.adjusted is not None:
        shown |= {"cuped_theta": found.theta, "cuped_variance_reduction": found.reduction,
                  "before_from": found.before_from, "before_to": found.before_to}  # fmt: skip
    shown |= {"incremental_revenue": found.total, "incremental_revenue_low": found.total_low,
              "incremental_revenue_high": found.total_high}  # fmt: skip
    return {name: _plain(value) for name, value in shown.items()}


def _gap(within: Sequence[Period], from_at: datetime, to_at: datetime) -> str:
    """What keeps the periods that touch a time from being one hold-out throughout it."""
    first, last = within[0], within[-1]
    if any(later.salt != first.salt for later in within):
        return "Other people were drawn in this time"
    if any(later.begun_at != earlier.ended_at for earlier, later in pairwise(within)):
        return "Nobody was held out for a part of this time"
    if first.begun_at > from_at:
        return f"The hold-out began at {_shown(first.begun_at)}"
    if last.ended_at is not None and last.ended_at < to_at:
        return f"The hold-out ended at {_shown(last.ended_at)}"
    return ""


def _verdict(mailed: Arm, held_out: Arm, srm: SampleRatio) -> tuple[Verdict, str]:
    if srm.detected:
        return Verdict.SRM_DETECTED, (
            f"The groups are not as large as drawn (p = {srm.p_value:.2g}): contacts of one of them are missing"
        )
    least, most = MINIMUMS.recipients_per_variant, MINIMUMS.successes_in_total
    if min(mailed.contacts, held_out.contacts) < least:
        return Verdict.NOT_ENOUGH_DATA, f"A group has fewer than {least} contacts"
    if mailed.customers + held_out.customers < most:
        return Verdict.NOT_ENOUGH_DATA, f"Fewer than {most} contacts ordered"
    return Verdict.MEASURED, ""


def _effect(test: statistics.Welch, lift: statistics.Lift | None) -> Effect:
    interval = None if lift is None else lift.interval
    return Effect(
        difference=test.difference, low=test.interval.low, high=test.interval.high, p_value=test.p_value,
        lift=None if lift is None else lift.lift, lift_low=None if interval is None else interval.low,
        lift_high=None if interval is None else interval.high,
    )  # fmt: skip


def _conversion(mailed: Arm, held_out: Arm) -> Effect:
    """The difference of the shares who ordered, by the tests that variants are compared with."""
    counts = (mailed.customers, mailed.contacts, held_out.customers, held_out.contacts)
    interval = statistics.newcombe(*counts)
    smallest = statistics.smallest_expected([counts[0], counts[2]], [counts[1], counts[3]])
    p_value = statistics.fisher(*counts) if smallest < EXACT_BELOW else statistics.z_test(*counts).p_value
    lift = statistics.lift_of_rates(*counts) if held_out.customers else None
    reach = None if lift is None else lift.interval
    return Effect(
        difference=100 * (counts[0] / counts[1] - counts[2] / counts[3]), low=100 * interval.low,
        high=100 * interval.high, p_value=p_value, lift=None if lift is None else lift.lift,
        lift_low=None if reach is None else reach.low, lift_high=None if reach is None else reach.high,
    )  # fmt: skip


def _arm(row: Any) -> Arm:
    pairs = Pairs(n=row["contacts"], **{name: row[name] for name in ("y", "yy", "x", "xx", "xy")})
    return Arm(contacts=row["contacts"], customers=row["customers"], orders=row["orders"], pairs=pairs)


_NOBODY: Final = Arm(contacts=0, customers=0, orders=0, pairs=Pairs(n=0, y=0, yy=0, x=0, xx=0, xy=0))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, Decimal) else value


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
