"""`mauto run`: carry out in this process, without Airflow, what waits for it.

Promise: it calls the verbs that the DAGs call, so it may run beside them, twice at once, or be killed. Work that cannot
be done is a line and exit code 1; the rest is done all the same. Nightly scores and the analytics tables are not among
it: nothing waits for those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Engine

from mautolib import automations, dispatch, feedback, maintenance, segments, workflows
from mautolib.campaigns import experiment_steps, finishing, planning, sending
from mautolib.cli import desk
from mautolib.contacts import imports
from mautolib.errors import Conflict, MautoError
from mautolib.scoring import recomputations
from mautolib.settings import Settings
from mautolib.webhooks import delivery

commands = desk.group("Background work without Airflow.")


class Work(StrEnum):
    """A kind of background work."""

    IMPORTS = "imports"
    EVENTS = "events"
    WORKFLOWS = "workflows"
    SENDING = "sending"
    WEBHOOKS = "webhooks"
    FEEDBACK = "feedback"
    SCORES = "scores"
    MAINTENANCE = "maintenance"


@commands.command("run")
def run_work(
    work: Annotated[list[Work] | None, typer.Argument(help="Which work; none: all of it.")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="Begin nothing more of one kind after so long.")] = 300,
    as_json: desk.AsJson = False,
) -> None:
    """Do what waits here and now, as the DAGs would; exit code 1 if some of it is not possible."""
    given, rows, is_well = desk.settings(), [], True
    with desk.database(given) as engine:
        # What was sent meanwhile is an event, too.
        for kind in work or [*Work, Work.EVENTS]:
            try:
                counts = _VERBS[kind](engine, given, seconds)
                said = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing waited"
            except MautoError as error:
                is_well, said = False, f"NOT DONE: {error}"
            rows.append({"work": str(kind), "done": said})
        with engine.begin() as tx:
            desk.note(tx, "work.run", work=[row["work"] for row in rows])
    desk.show(rows, as_json=as_json)
    raise typer.Exit(0 if is_well else desk.NOT_POSSIBLE)


def _imports(engine: Engine, given: Settings, seconds: int) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for done in imports.run_waiting(engine, given, clock=desk.now):
        counts[str(done.status)] = counts.get(str(done.status), 0) + 1
    return counts


def _events(engine: Engine, given: Settings, seconds: int) -> Mapping[str, int]:
    taken = dispatch.run(engine, given, now=desk.now())
    evaluated = segments.evaluate_due(engine, given, now=desk.now())
    return {"events": taken.events, "enrolled": taken.enrolled, "segments": evaluated.evaluated}


def _workflows(engine: Engine, given: Settings, seconds: int) -> Mapping[str, int]:
    arrived = workflows.arrive(engine, given, now=desk.now())
    moved = workflows.advance(engine, given, now=desk.now())
    rules = automations.resume(engine, given, now=desk.now())
    return {"entered": arrived.total, "moved": moved.moved, "messages": moved.messages, "rules": rules.executed}


def _sending(engine: Engine, given: Settings, seconds: int) -> Mapping[str, int]:
    planned = planning.plan_due(engine, given, desk.now())
    done = sending.pump(engine, given, budget_seconds=float(seconds))
    steps = experiment_steps.step(engine, given, desk.now())
    finished = finishing.finish(engine, desk.now())
    if done.problems:
        raise Conflict("; ".join(done.problems))
    return {
        "campaigns planned": len(planned), **done.counts, "campaigns finished": len(finished),
        "tests decided": steps.decided,
    }  # fmt: skip


def _webhooks(engine: Engine, given: Settings, seconds: int) -> Mapping[str, int]:
    done = delivery.run(engine, given, budget_seconds=float(seconds))
    return {"told": done.made, "succeeded": done.succeeded, "failed": done.failed, "dead": done.dead,
            "disabled": len(done.disabled)}  # fmt: skip


def _feedback(engine: Engine, given: Settings, seconds: int) -> Mapping[str, int]:
    done = feedback.process(engine, given, now=desk.now())
    return {"applied": done.applied, "parked": done.parked, "ignored": done.ignored, "settled": done.settled}


def _scores(engine: Engine, given: Settings, seconds: int) -> Mapping[str, int]:
    worked = recomputations.run_waiting(engine, clock=desk.now, within=timedelta(seconds=seconds))
    return {"recomputations": len(worked)}


def _maintenance(engine: Engine, given: Settings, seconds: int) -> Mapping[str, int]:
    return maintenance.run(engine, given, now=desk.now())


_VERBS: Final[Mapping[Work, Callable[[Engine, Settings, int], Mapping[str, Any]]]] = {
    Work.IMPORTS: _imports, Work.EVENTS: _events, Work.WORKFLOWS: _workflows, Work.SENDING: _sending,
    Work.WEBHOOKS: _webhooks, Work.FEEDBACK: _feedback, Work.SCORES: _scores, Work.MAINTENANCE: _maintenance,
}  # fmt: skip
