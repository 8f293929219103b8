"""The hold-out: what those mailed bought and those held out of all marketing mail, and what mail brought by that.

All figures are those of `mauto holdout report` as of the first refresh of the day; reading all contacts takes too
long for a page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from mautolib import statistics
from mautolib.analytics import incrementality
from mautolib.analytics.figures import percent
from mautolib.analytics.incrementality import Arm, Effect, Incrementality, Verdict
from mautolib.analytics.incrementality_sums import last_report
from mautolib.campaigns import holdout
from mautolib.campaigns.deciding import MINIMUMS
from mautolib.campaigns.holdout import Period
from mautolib.db.engine import Tx
from mautolib.pages.table import Column, Kind, Table, Whisker, scale_of
from mautolib.pages.view import Asked, Card, View

__all__ = ["build"]

_SAYS: Final = {
    Verdict.NO_HOLDOUT: "Nothing to compare", Verdict.NOT_LONG_ENOUGH: "Nothing to compare",
    Verdict.SRM_DETECTED: "These figures cannot be compared", Verdict.NOT_ENOUGH_DATA: "Too early to say",
}  # fmt: skip
_NOT_COUNTED: Final = ("Not counted yet", "The DAG cohort_analytics counts both groups at its next run, then daily.")


def build(tx: Tx, asked: Asked) -> View:
    """The page."""
    del asked
    known, found = holdout.periods(tx), last_report(tx)
    currency = (found and found.reporting_currency) or ""
    verdict, reason, tone = _verdict(found, currency)
    return View(
        template="holdout.html", title="Hold-out",
        tables=[_groups(found, currency), _effects(found, currency), _figures(found), _shares(known)],
        values={
            "known": known, "found": found, "verdict": verdict, "reason": reason, "tone": tone,
            "currency": currency, "cards": _cards(known, found, currency), "checks": _checks(found),
        },
    )  # fmt: skip


def _best(found: Incrementality | None) -> Effect | None:
    """The difference in revenue that is told first: the more exact one."""
    return None if found is None else found.adjusted or found.revenue


def _verdict(found: Incrementality | None, currency: str) -> tuple[str, str, str]:
    """What is said, why, and its tone."""
    if found is None:
        return (*_NOT_COUNTED, "open")
    effect = _best(found)
    if effect is None:
        return _SAYS[found.verdict], found.reason, "bad" if found.verdict is Verdict.SRM_DETECTED else "open"
    reach = f"{effect.low:+,.2f} to {effect.high:+,.2f} {currency} for each contact mailed"
    if effect.low > 0:
        return "Mail earns money", f"{reach}: more than chance", "good"
    if effect.high < 0:
        return "Mail costs money", f"{reach}: more than chance", "bad"
    return "It cannot be told yet", f"{reach}: nothing at all is possible, too", "open"


def _cards(known: Sequence[Period], found: Incrementality | None, currency: str) -> list[Card]:
    if not known:
        return []
    last = known[-1]
    until = f"until {_day(last.ended_at)}, nobody now" if last.ended_at else f"since {_day(last.begun_at)}"
    cards = [Card(label="Held out", value=f"{last.percent.normalize():f} %", note=until)]
    if found is None or found.mailed is None or found.held_out is None:
        return cards
    for label, arm in (("Per contact mailed", found.mailed), ("Per contact held out", found.held_out)):
        each = f"{arm.moments.mean:,.2f}" if arm.contacts else "–"
        cards.append(Card(label=label, value=each, note=f"{currency} of {arm.contacts:,} contacts"))
    effect = _best(found)
    if effect is not None:
        lift = _rate(effect.lift)
        label = "Lift" if found.adjusted is None else "Lift (CUPED)"
        cards.append(Card(label=label, value="–" if lift is None else f"{lift:+,.1f} %", note=_reach(effect)))
        cards.append(Card(
            label="Brought by mail", value=_money(found.total),
            note=f"{_money(found.total_low)} to {_money(found.total_high)} {currency}",
        ))  # fmt: skip
    return cards


def _day(moment: datetime) -> str:
    return f"{moment:%d %b %Y}"


def _money(value: float | None) -> str:
    return "–" if value is None else f"{value:+,.0f}"


def _rate(fraction: float | None) -> float | None:
    """A fraction in percent; None where it has no end."""
    return 100 * fraction if fraction is not None and math.isfinite(fraction) else None


def _reach(effect: Effect) -> str:
    low, high = _rate(effect.lift_low), _rate(effect.lift_high)
    return "no interval" if low is None or high is None else f"{low:+,.1f} to {high:+,.1f} %"


def _groups(found: Incrementality | None, currency: str) -> Table:
    arms = () if found is None else (("Mailed", found.mailed), ("Held out", found.held_out))
    rows = [_group(name, arm, place) for place, (name, arm) in enumerate(arms) if arm is not None]
    scale = scale_of([row[key] for row in rows for key in ("each", "ci_low", "ci_high")])
    return Table(
        name="groups", caption=f"Both groups and what they bought ({currency})" if currency else "Both groups",
        rows=[{**row, "scale": scale} for row in rows], empty=_NOT_COUNTED, is_titled=True, columns=(
            Column(key="group", label="Group", bold=True),
            Column(key="contacts", label="Contacts", kind=Kind.NUMBER),
            Column(key="customers", label="Ordered", kind=Kind.NUMBER),
            Column(key="rate", label="Of contacts", kind=Kind.PERCENT),
            Column(key="orders", label="Orders", kind=Kind.NUMBER),
            Column(key="revenue", label="Revenue", kind=Kind.DECIMAL),
            Column(key="each", label="Revenue each, with its interval", kind=Kind.DECIMAL,
                   whisker=Whisker(low="ci_low", high="ci_high", scale="scale", tone="tone")),
            Column(key="ci_low", label="From", kind=Kind.DECIMAL),
            Column(key="ci_high", label="To", kind=Kind.DECIMAL),
        ),
    )  # fmt: skip


def _group(name: str, arm: Arm, place: int) -> dict[str, Any]:
    is_enough = arm.contacts >= MINIMUMS.recipients_per_variant and arm.customers > 0
    ends = statistics.mean_interval(arm.moments) if is_enough else None
    return {
        "group": name, "contacts": arm.contacts, "customers": arm.customers, "orders": arm.orders,
        "rate": percent(arm.customers, arm.contacts) if arm.contacts else None, "revenue": arm.revenue,
        "each": arm.moments.mean if arm.contacts else None, "tone": place,
        "ci_low": ends and ends.low, "ci_high": ends and ends.high,
    }  # fmt: skip


def _effects(found: Incrementality | None, currency: str) -> Table:
    """Mailed less held out; money on one scale, the share who ordered on another."""
    each = f"{currency} each" if currency else "each"
    told = () if found is None else (
        ("Revenue", each, found.revenue, True),
        ("Revenue, allowing for the time before", f"{each}, CUPED", found.adjusted, True),
        ("Contacts who ordered", "percentage points", found.conversion, False),
    )  # fmt: skip
    shown = [(what, unit, effect, is_money) for what, unit, effect, is_money in told if effect is not None]
    ends: dict[bool, list[float]] = {True: [0], False: [0]}
    for _, _, effect, is_money in shown:
        ends[is_money] += [effect.low, effect.high]
    rows = [
        {"what": what, "unit": unit, "difference": effect.difference, "ci_low": effect.low, "ci_high": effect.high,
         "lift": _rate(effect.lift), "lift_low": _rate(effect.lift_low), "lift_high": _rate(effect.lift_high),
         "p_value": effect.p_value, "scale": scale_of(ends[is_money])}
        for what, unit, effect, is_money in shown
    ]  # fmt: skip
    return Table(
        name="effects", caption="Mailed less held out", rows=rows, is_titled=True,
        empty=("Nothing is compared", found.reason if found is not None else _NOT_COUNTED[1]), columns=(
            Column(key="what", label="Difference in", bold=True, note="unit"),
            Column(key="difference", label="With its interval", kind=Kind.CHANGE,
                   whisker=Whisker(low="ci_low", high="ci_high", scale="scale")),
            Column(key="ci_low", label="From", kind=Kind.CHANGE),
            Column(key="ci_high", label="To", kind=Kind.CHANGE),
            Column(key="lift", label="Lift in %", kind=Kind.CHANGE),
            Column(key="lift_low", label="Lift from", kind=Kind.CHANGE),
            Column(key="lift_high", label="Lift to", kind=Kind.CHANGE),
            Column(key="p_value", label="p", kind=Kind.CHANCE),
        ),
    )  # fmt: skip


def _figures(found: Incrementality | None) -> Table:
    """The report, name by name, as the command line tells it."""
    told: Mapping[str, Any] = {} if found is None else incrementality.figures(found)
    return Table(
        name="report", caption="The report", rows=[{"figure": name, "value": value} for name, value in told.items()],
        empty=_NOT_COUNTED, is_titled=True,
        columns=(Column(key="figure", label="Figure", bold=True), Column(key="value", label="Value")),
    )


def _shares(known: Sequence[Period]) -> Table:
    rows = [{"percent": each.percent, "begun_at": each.begun_at, "ended_at": each.ended_at} for each in reversed(known)]
    return Table(
        name="shares", caption="Shares held out", rows=rows, is_titled=True, columns=(
            Column(key="begun_at", label="Since (UTC)", kind=Kind.MOMENT, bold=True),
            Column(key="ended_at", label="Until", kind=Kind.MOMENT),
            Column(key="percent", label="Share", kind=Kind.DECIMAL),
        ),
    )  # fmt: skip


def _checks(found: Incrementality | None) -> list[tuple[str, str]]:
    """What stands behind the verdict, each as a name and a sentence."""
    if found is None or found.srm is None or found.mailed is None or found.held_out is None:
        return []
    said = "not as large as drawn" if found.srm.detected else "as large as chance makes them"
    chance = "p < 0.0001" if found.srm.p_value < 0.0001 else f"p = {found.srm.p_value:.4f}"
    checks = [
        ("Groups", f"{found.mailed.contacts:,} mailed, {found.held_out.contacts:,} held out: {said} ({chance})"),
        ("Least that is compared", f"{MINIMUMS.recipients_per_variant:,} contacts in each group and "
                                   f"{MINIMUMS.successes_in_total:,} who ordered in both"),
    ]  # fmt: skip
    if found.reduction is not None and found.theta is not None and found.before_from and found.before_to:
        checks.append((
            "The time before (CUPED)",
            f"What each bought from {_day(found.before_from)} to {_day(found.before_to)} explains "
            f"{100 * found.reduction:.1f} % of the variance (theta {found.theta:.3f})",
        ))  # fmt: skip
    return checks
