"""The list of A/B tests: what each asks, how far it is, what it decided; figures as the API's list has them."""

from __future__ import annotations

from typing import Any, Final

from mautolib.campaigns import experiments
from mautolib.campaigns.deciding import Decision, Metric
from mautolib.campaigns.experiment_model import AbStatus, AbTest, AbTestType
from mautolib.campaigns.experiment_results import last_counted
from mautolib.db.engine import Tx
from mautolib.pages.table import Column, Kind, Table
from mautolib.pages.view import Asked, View

__all__ = ["DECISIONS", "METRICS", "TYPES", "build"]

_MOST: Final = 200
_LABELS: Final = {"": "All", **{str(status): str(status).capitalize() for status in AbStatus}}
METRICS: Final = {
    Metric.OPEN_RATE: "Opened", Metric.CLICK_RATE: "Clicked", Metric.CONVERSION_RATE: "Ordered",
    Metric.REVENUE_PER_RECIPIENT: "Revenue each",
}  # fmt: skip
TYPES: Final = {AbTestType.SUBJECT: "Subject", AbTestType.CONTENT: "Content", AbTestType.SEND_TIME: "Send time"}
DECISIONS: Final = {
    Decision.WINNER: "winner", Decision.NO_DIFFERENCE: "no difference",
    Decision.NOT_ENOUGH_DATA: "not enough data", Decision.SRM_DETECTED: "uneven parts",
}  # fmt: skip
_EMPTY: Final = (
    "No A/B tests yet",
    "Create one with POST /api/v1/ab-tests/ for a campaign that is not sent yet, and start it.",
)


def build(tx: Tx, asked: Asked) -> View:
    """The page."""
    status = asked.word("status", list(_LABELS))
    found = experiments.list_tests(tx, status=AbStatus(status) if status else None, limit=_MOST)
    sent = {key: known.sent for key, known in last_counted(tx, [test.test_id for test in found]).items()}
    table = Table(
        name="ab_tests", caption="A/B tests", rows=[_row(test, sent) for test in found], sortable=True, is_titled=True,
        empty=_EMPTY if not status else (f"No test is {status}", ""), columns=(
            Column(key="name", label="Test", link="ab-tests/{test_id}", bold=True),
            Column(key="status", label="State", kind=Kind.PILL),
            Column(key="asks", label="Tries"),
            Column(key="metric", label="Judged by"),
            Column(key="variants", label="Variants", kind=Kind.NUMBER),
            Column(key="sent", label="Test mails", kind=Kind.NUMBER),
            Column(key="decision", label="Decision"),
            Column(key="winner", label="Winner"),
            Column(key="started_at", label="Started (UTC)", kind=Kind.MOMENT),
        ),
    )  # fmt: skip
    return View(template="ab_tests.html", title="A/B tests", tables=[table],
                values={"choices": asked.choices("status", _LABELS, status), "most": _MOST})  # fmt: skip


def _row(test: AbTest, sent: dict[int, int]) -> dict[str, Any]:
    winner = test.variant(test.winner_variant_id) if test.winner_variant_id else None
    return {
        "test_id": test.test_id, "name": test.name, "status": str(test.status), "asks": TYPES[test.test_type],
        "metric": METRICS[test.winner_metric], "variants": len(test.variants),
        "sent": sum(sent.get(each.variant_id, 0) for each in test.variants),
        "decision": DECISIONS[test.decision] if test.decision else None, "winner": winner.name if winner else None,
        "started_at": test.started_at,
    }  # fmt: skip
