"""One A/B test: what each variant brought, how sure that is, what was decided and why, and when what happens.

All figures and intervals are those of `experiment_results.results`, which the API's results are made of; rates are
rounded alike. Intervals are drawn into the cells of their table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from mautolib import statistics
from mautolib.analytics.figures import percent, rounded
from mautolib.campaigns import experiments
from mautolib.campaigns.deciding import Decision, Metric, Results
from mautolib.campaigns.experiment_model import AbStatus, AbTest, NoWinnerAction
from mautolib.campaigns.experiment_results import results
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.pages.ab_tests import DECISIONS, METRICS, TYPES
from mautolib.pages.table import Column, Kind, Table, Whisker, scale_of
from mautolib.pages.view import Asked, Card, View

__all__ = ["build"]

_SUCCESSES: Final = {
    Metric.OPEN_RATE: "unique_opens", Metric.CLICK_RATE: "unique_clicks", Metric.CONVERSION_RATE: "conversions"
}
_SAYS: Final = {
    Decision.NO_DIFFERENCE: "No winner: the variants may well be equally good",
    Decision.NOT_ENOUGH_DATA: "Too early to say",
    Decision.SRM_DETECTED: "These figures cannot be compared: the variants reached uneven parts",
}
#: How a p-value is made.
_TESTS: Final = {"z": "z test", "chi2": "chi-square test", "fisher": "Fisher's exact test", "welch": "Welch's t test"}
_RATE: Final = Whisker(low="ci_low", high="ci_high", scale="scale", tone="tone")
_DIFFERENCE: Final = Whisker(
    low="ci_low", high="ci_high", scale="scale", outer=("sequential_low", "sequential_high")
)


def build(tx: Tx, asked: Asked) -> View:
    """The page.

    Raises:
        NotFound: no such test.
    """
    test = experiments.get(tx, asked.subject_id)
    found = results(tx, test, now=asked.now)
    campaign = tx.execute(statement("pages.campaign"), {"campaign_id": test.campaign_id}).mappings().one()
    currency = tx.scalar(statement("pages.reporting_currency")) or ""
    names = {str(each.variant_id): each.name for each in test.variants}
    return View(
        template="ab_test.html", title=test.name,
        tables=[_rates(found), _earned(found, currency), _comparisons(found, names), _counts(found, currency),
                _timeline(test, found)],
        values={
            "test": test, "campaign": campaign, "asks": TYPES[test.test_type], "metric": METRICS[test.winner_metric],
            "cards": _cards(test, found), "verdict": _verdict(test, found, names), "reason": found.reason,
            "tone": _tone(test, found), "checks": _checks(found, currency), "confidence": 100 * found.confidence_level,
            "is_rate": test.winner_metric is not Metric.REVENUE_PER_RECIPIENT, "currency": currency,
        },
    )  # fmt: skip


def _verdict(test: AbTest, found: Results, names: Mapping[str, str]) -> str:
    if test.status is AbStatus.DRAFT:
        return "Not started"
    if found.winner_variant_id is not None:
        by_hand = test.status is AbStatus.COMPLETED and found.decision is not Decision.WINNER
        return f"{names.get(found.winner_variant_id, 'A variant')} {'was chosen by hand' if by_hand else 'wins'}"
    return "Cancelled" if test.status is AbStatus.CANCELLED else _SAYS[found.decision]


def _tone(test: AbTest, found: Results) -> str:
    if found.decision is Decision.SRM_DETECTED:
        return "bad"
    return "good" if found.winner_variant_id is not None else "open"


def _cards(test: AbTest, found: Results) -> list[Card]:
    sent = sum(each.counts.sent for each in found.variants)
    assigned = sum(each.counts.assigned for each in found.variants)
    srm = found.srm
    return [
        Card(label="Test mails", value=f"{sent:,}", note=f"{assigned:,} recipients drawn"),
        Card(label="Variants", value=str(len(test.variants)), note=f"on {test.test_percentage:g} % of the audience"),
        Card(label="Equal parts", value="no" if srm.detected else "yes", note=f"sample-ratio p = {_p(srm.p_value)}"),
        Card(label="Decision", value=DECISIONS[found.decision] if test.status is not AbStatus.DRAFT else "–",
             note="as it was completed" if test.status is AbStatus.COMPLETED else "as of now"),
    ]  # fmt: skip


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rates(found: Results) -> Table:
    """The rates of each variant with their intervals, the metric of the test first; all rows of one on one scale."""
    rows = []
    for metric in sorted(_SUCCESSES, key=lambda metric: metric is not found.winner_metric):
        of_metric = [_rate(found, metric, place) for place in range(len(found.variants))]
        scale = scale_of([row[key] for row in of_metric for key in ("rate", "ci_low", "ci_high")])
        rows += [{**row, "scale": scale} for row in of_metric]
    return Table(
        name="rates", caption="Percent of the mails sent", is_titled=True,
        rows=rows if any(each.counts.sent for each in found.variants) else [],
        empty=("Nothing sent yet", "Rates appear with the first test mail."), columns=(
            Column(key="metric", label="Who"),
            Column(key="variant", label="Variant", bold=True),
            Column(key="successes", label="People", kind=Kind.NUMBER),
            Column(key="rate", label="Rate with its interval", kind=Kind.PERCENT, whisker=_RATE),
            Column(key="ci_low", label="From", kind=Kind.PERCENT),
            Column(key="ci_high", label="To", kind=Kind.PERCENT),
        ),
    )  # fmt: skip


def _rate(found: Results, metric: Metric, place: int) -> dict[str, Any]:
    each = found.variants[place]
    known, low, high = each.counts, _number(each.ci_low), _number(each.ci_high)
    successes = getattr(known, _SUCCESSES[metric])
    if metric is not found.winner_metric:
        ends = statistics.wilson(min(successes, known.sent), known.sent) if known.sent else None
        low, high = (100 * ends.low, 100 * ends.high) if ends else (None, None)
    decides = " (decides)" if metric is found.winner_metric else ""
    return {
        "metric": METRICS[metric] + decides, "variant": known.name, "successes": successes, "tone": place,
        "rate": percent(min(successes, known.sent), known.sent) if known.sent else None,
        "ci_low": low, "ci_high": high,
    }  # fmt: skip


def _earned(found: Results, currency: str) -> Table:
    """Revenue per recipient, where it decides; without rows elsewhere."""
    is_asked = found.winner_metric is Metric.REVENUE_PER_RECIPIENT
    rows = [
        {"variant": each.counts.name, "revenue": each.counts.revenue, "tone": place,
         "each": rounded(each.counts.revenue / each.counts.sent, 4) if each.counts.sent else None,
         "ci_low": _number(each.ci_low), "ci_high": _number(each.ci_high)}
        for place, each in enumerate(found.variants)
    ]  # fmt: skip
    scale = scale_of([row[key] for row in rows for key in ("each", "ci_low", "ci_high")])
    return Table(
        name="earned", caption=f"Revenue per recipient ({currency}); this decides", is_titled=True,
        rows=[{**row, "scale": scale} for row in rows] if is_asked else [], columns=(
            Column(key="variant", label="Variant", bold=True),
            Column(key="revenue", label="Revenue", kind=Kind.DECIMAL),
            Column(key="each", label="Per recipient, with its interval", kind=Kind.DECIMAL,
                   whisker=Whisker(low="ci_low", high="ci_high", scale="scale", tone="tone")),
            Column(key="ci_low", label="From", kind=Kind.DECIMAL),
            Column(key="ci_high", label="To", kind=Kind.DECIMAL),
        ),
    )  # fmt: skip


def _comparisons(found: Results, names: Mapping[str, str]) -> Table:
    rows: list[dict[str, Any]] = []
    keys = ("difference", "ci_low", "ci_high", "p_value", "p_adjusted", "sequential_low", "sequential_high")
    for each in found.comparisons:
        pair = f"{names[each.variant_id]} less {names[each.other_variant_id]}"
        rows.append({"pair": pair, "test": _TESTS[each.test], **{key: _number(getattr(each, key)) for key in keys}})
    ends = ("difference", "ci_low", "ci_high", "sequential_low", "sequential_high")
    scale = scale_of([0, *(row[key] for row in rows for key in ends)])
    unit = "money per recipient" if found.winner_metric is Metric.REVENUE_PER_RECIPIENT else "percentage points"
    return Table(
        name="comparisons", caption=f"Differences in {unit}", is_titled=True,
        rows=[{**row, "scale": scale} for row in rows] if any(row["difference"] is not None for row in rows) else [],
        empty=("Nothing to compare yet", "Variants are compared when each was sent to somebody."), columns=(
            Column(key="pair", label="Difference", bold=True, note="test"),
            Column(key="difference", label="With its intervals", kind=Kind.CHANGE, whisker=_DIFFERENCE),
            Column(key="ci_low", label="One look: from", kind=Kind.CHANGE),
            Column(key="ci_high", label="to", kind=Kind.CHANGE),
            Column(key="sequential_low", label="Any look: from", kind=Kind.CHANGE),
            Column(key="sequential_high", label="to", kind=Kind.CHANGE),
            Column(key="p_value", label="p", kind=Kind.CHANCE),
            Column(key="p_adjusted", label="p (Holm)", kind=Kind.CHANCE),
        ),
    )  # fmt: skip


def _counts(found: Results, currency: str) -> Table:
    counted = ("assigned", "attempted", "sent", "delivered", "unique_opens", "unique_clicks", "conversions", "revenue")
    rows = [
        {"variant": each.counts.name,
         "role": "control" if each.counts.variant_id == found.control_variant_id else None,
         **{key: getattr(each.counts, key) for key in counted}}
        for each in found.variants
    ]  # fmt: skip
    return Table(
        name="counts", caption="What the test mail of each variant brought", rows=rows, is_titled=True, columns=(
            Column(key="variant", label="Variant", bold=True),
            Column(key="role", label="", kind=Kind.PILL),
            Column(key="assigned", label="Drawn", kind=Kind.NUMBER),
            Column(key="attempted", label="Attempted", kind=Kind.NUMBER),
            Column(key="sent", label="Sent", kind=Kind.NUMBER),
            Column(key="delivered", label="Delivered", kind=Kind.NUMBER),
            Column(key="unique_opens", label="Opened", kind=Kind.NUMBER),
            Column(key="unique_clicks", label="Clicked", kind=Kind.NUMBER),
            Column(key="conversions", label="Ordered", kind=Kind.NUMBER),
            Column(key="revenue", label=f"Revenue ({currency})" if currency else "Revenue", kind=Kind.DECIMAL),
        ),
    )  # fmt: skip


def _checks(found: Results, currency: str) -> list[tuple[str, str]]:
    """What stands behind the decision, each as a name and a sentence."""
    parts = " : ".join(f"{count:,}" for count in found.srm.observed)
    said = "far from equal" if found.srm.detected else "as equal as chance makes them"
    least = found.minimums
    checks = [
        ("Parts of the recipients", f"{parts}, {said} (chi² {found.srm.chi2:.2f}, p = {_p(found.srm.p_value)})"),
        ("Least that decides", f"{least.recipients_per_variant:,} recipients of each variant and "
                               f"{least.successes_in_total:,} successes in total"),
    ]  # fmt: skip
    omnibus = _number(found.omnibus_p_value)
    if omnibus is not None:
        checks.append(("All variants alike", f"p = {_p(omnibus)}"))
    if found.holdout is not None:
        kept = found.holdout
        lift, low, high = (_number(value) for value in (kept.lift, kept.lift_low, kept.lift_high))
        what = "revenue" if found.winner_metric is Metric.REVENUE_PER_RECIPIENT else "orders"
        told = "no lift can be told yet" if lift is None else f"lift in {what} {lift:+.1f} %"
        if low is not None and high is not None:
            told += f" ({low:+.1f} to {high:+.1f} %)"
        checks.append((
            "Kept back", f"{kept.recipients:,} got no mail, {kept.conversions:,} ordered for {kept.revenue:,.2f} "
                         f"{currency}: {told}",
        ))  # fmt: skip
    return checks


def _timeline(test: AbTest, found: Results) -> Table:
    drawn = sum(each.counts.assigned for each in found.variants)
    kept = f", {found.holdout.recipients:,} kept back" if found.holdout else ""
    is_passed = found.deadline_at is not None and found.deadline_at <= found.as_of
    ends = {
        AbStatus.COMPLETED: DECISIONS[test.decision].capitalize() if test.decision else "Completed",
        AbStatus.CANCELLED: "Cancelled",
    }.get(test.status, "Decided by itself" if test.auto_select_winner else "Waits for somebody to choose")
    waited = timedelta(hours=test.wait_hours)
    handed = test.last_handover_at if found.deadline_at is None else found.deadline_at - waited
    steps = (
        ("Started", test.started_at, "Armed: the next sending of the campaign takes part"),
        ("Recipients drawn", test.planned_at, f"{drawn:,} get a variant{kept}" if test.planned_at else "Waits"),
        ("Test mail sent", handed, "The last hand-over of test mail" if found.deadline_at else "Not through yet"),
        ("Waited", found.deadline_at, f"{test.wait_hours} hours{'' if is_passed else ', the deadline'}"),
        ("Decided", test.completed_at, ends),
        ("Rest released", test.released_at, _rest(test)),
    )  # fmt: skip
    return Table(
        name="timeline", caption="When what happens", is_titled=True,
        rows=[{"step": step, "at": at, "what": what} for step, at, what in steps], columns=(
            Column(key="step", label="Step", bold=True),
            Column(key="at", label="When (UTC)", kind=Kind.MOMENT),
            Column(key="what", label="What"),
        ),
    )  # fmt: skip


def _rest(test: AbTest) -> str:
    """What everybody gets who is not in the test."""
    winner = test.variant(test.winner_variant_id) if test.winner_variant_id else None
    if test.released_at is not None or test.status in (AbStatus.COMPLETED, AbStatus.CANCELLED):
        return f"Everybody else gets {winner.name if winner else test.control.name}"
    if test.no_winner_action is NoWinnerAction.HOLD:
        return "Everybody else gets the winner; without one they wait for somebody to choose"
    return "Everybody else gets the winner; without one the control"
