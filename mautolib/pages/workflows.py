"""Workflows: all of them, and the funnel of one version of one, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from mautolib.analytics.figures import percent
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import NotFound
from mautolib.pages.charts import Drawn, chart_of
from mautolib.pages.table import Column, Kind, Table
from mautolib.pages.view import Asked, View

__all__ = ["build", "build_one"]

_MOST: Final = 500
_VERSIONS: Final = 12
_COUNTS: Final = ("reached", "completed", "failed", "skipped", "waiting", "exited")


def build(tx: Tx, asked: Asked) -> View:
    """All workflows with their enrollments."""
    del asked
    found = tx.execute(statement("pages.workflows"), {"limit": _MOST}).mappings()
    table = Table(
        name="workflows", caption="Workflows", rows=[dict(row) for row in found], sortable=True,
        is_titled=True,
        empty=("No workflows yet", "Create one with POST /api/v1/workflows/, or load one with make recipe."),
        columns=(
            Column(key="workflow_name", label="Workflow", link="workflows/{workflow_id}", bold=True),
            Column(key="status", label="State", kind=Kind.PILL),
            Column(key="trigger_type", label="Starts on"),
            Column(key="enrolled", label="Entered", kind=Kind.NUMBER),
            Column(key="going", label="Under way", kind=Kind.NUMBER),
            Column(key="completed", label="Completed", kind=Kind.NUMBER),
            Column(key="exited", label="Exited", kind=Kind.NUMBER),
            Column(key="failed", label="Failed", kind=Kind.NUMBER),
            Column(key="completion_rate", label="Completion", kind=Kind.PERCENT, meter="open"),
        ),
    )  # fmt: skip
    return View(template="workflows.html", title="Workflows", tables=[table], values={"most": _MOST})


def build_one(tx: Tx, asked: Asked) -> View:
    """One workflow: its steps as a funnel.

    Raises:
        NotFound: no such workflow, or no such version of it.
    """
    known = tx.scalars(statement("pages.workflow_versions"), {"workflow_id": asked.subject_id, "limit": _VERSIONS})
    versions = list(known)
    if not versions:
        raise NotFound("Workflow not found")
    version = asked.number("version", versions)
    binds = {"workflow_id": asked.subject_id, "version": version}
    row = dict(tx.execute(statement("pages.workflow"), binds).mappings().one())
    choices = asked.choices("version", {str(number): f"Version {number}" for number in versions}, str(version))
    table = _funnel(row, _step_counts(tx, asked.subject_id, version))
    return View(
        template="workflow.html", title=row["workflow_name"], tables=[table],
        charts=[chart_of(table, Drawn.FUNNEL, ["reached", "completed"])], values={"workflow": row, "choices": choices},
    )  # fmt: skip


def _step_counts(tx: Tx, workflow_id: int, version: int) -> dict[str, dict[str, int]]:
    """What became of the enrollments of a version at each step, by its path."""
    rows = tx.execute(statement("pages.workflow_steps"), {"workflow_id": workflow_id, "version": version}).mappings()
    return {row["step_path"]: {name: row[name] for name in _COUNTS} for row in rows}


def _funnel(workflow: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]]) -> Table:
    nothing = dict.fromkeys(_COUNTS, 0)
    rows = []
    for path, step in _flat(workflow["steps"]):
        counted = counts.get(path, nothing)
        rows.append({
            "step": f"{path} {_label(step)}", **counted,
            "reach_rate": percent(counted["reached"], workflow["enrolled"]) if workflow["enrolled"] else None,
        })  # fmt: skip
    return Table(
        name="steps", caption="Steps, in the order they are written", rows=rows,
        empty=("No steps", "This version does nothing."), columns=(
            Column(key="step", label="Step", bold=True),
            Column(key="reached", label="Reached", kind=Kind.NUMBER),
            Column(key="reach_rate", label="Of all", kind=Kind.PERCENT, meter="open"),
            Column(key="completed", label="Completed", kind=Kind.NUMBER),
            Column(key="waiting", label="Here now", kind=Kind.NUMBER),
            Column(key="exited", label="Left here", kind=Kind.NUMBER),
            Column(key="failed", label="Failed", kind=Kind.NUMBER),
            Column(key="skipped", label="Skipped", kind=Kind.NUMBER),
        ),
    )  # fmt: skip


def _flat(steps: Sequence[Mapping[str, Any]], before: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every step with its path as enrollments and logs name it (`1.then.0`), branches behind their condition."""
    for index, step in enumerate(steps):
        path = f"{before}{index}"
        yield path, step
        for branch in ("then", "else"):
            if step.get(branch):
                yield from _flat(step[branch], f"{path}.{branch}.")


def _label(step: Mapping[str, Any]) -> str:
    kind = str(step.get("type", "action"))
    what = str(step.get("name") or step.get("action") or step.get("event_type") or step.get("field") or "")
    if kind == "delay":
        what = next((f"{step[unit]} {unit}" for unit in ("hours", "minutes") if unit in step), "until a time of day")
    return f"{kind.replace('_', ' ')}: {what}" if what else kind.replace("_", " ")
