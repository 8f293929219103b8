"""Running actions: runs of one rule that stand at the same action take it together.

Promise: an action that fails (a domain error, or a value the database refuses) is logged as failed with its reason and
the next one follows; anything else undoes the batch. Events that actions cause carry the depth of their runs. Called
by `triggering` and `waiting`; it writes no log.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mautolib.automations.actions import WaitDelay
from mautolib.automations.definition import Action
from mautolib.automations.mailing import RuleVisit
from mautolib.automations.model import RunStatus
from mautolib.errors import DomainError, PermanentError
from mautolib.settings import Settings
from mautolib.workflows.model import LogStatus
from mautolib.workflows.steps.step import Members, Outcome

_LOG = logging.getLogger(__name__)
#: Classes of errors that lie in a value, not in the world: they would come again and hold up everything else.
_ITS_OWN_FAULT: Final = ("22", "54")


class ActionRefused(Exception):
    """An action failed where nobody was careful: what was begun has to be undone."""


@dataclass(kw_only=True, slots=True)
class Run:
    """One run on its way.

    Args:
        log_id: its number; what it makes is made once by this number.
        event_id: what triggered it; None: it was fired by hand.
        depth: of the events it causes.
        results: of its actions, as they are logged.
        next_action: where it goes on once its time has come.
    """

    log_id: int
    rule_id: int
    contact_id: int
    event_id: int | None
    depth: int
    data: Mapping[str, Any]
    begun_at: datetime
    status: RunStatus = RunStatus.SUCCESS
    error: str | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    duration_ms: int = 0
    resume_at: datetime | None = None
    next_action: int = 0


@dataclass(kw_only=True)
class Runner:
    """Takes runs through the actions of their rules in one transaction; the caller marks the depth of their events.

    Args:
        is_careful: an action that fails is undone and logged; without, it raises `ActionRefused` and the caller begins
            again. Savepoints around every action are what costs most where few runs take each.
    """

    tx: Connection
    settings: Settings
    now: datetime
    is_careful: bool = True

    def act(self, actions: Sequence[Action], runs: Sequence[Run], *, first: int = 0) -> None:
        """Take runs of one rule from action `first` on, until they end or wait."""
        started = time.monotonic()
        for number in range(first, len(actions)):
            action = actions[number]
            if isinstance(action.step, WaitDelay):
                self._note(action.step, runs)
                if number + 1 < len(actions):
                    self._put_down(action.step, runs, number + 1)
                    break
            else:
                self._take(action, number, runs)
        spent = round((time.monotonic() - started) * 1000)
        for run in runs:
            run.duration_ms += spent
            if run.resume_at is None:
                run.status = RunStatus.SUCCESS if run.error is None else RunStatus.FAILED

    def _note(self, wait: WaitDelay, runs: Sequence[Run]) -> None:
        shown = (self.now + timedelta(minutes=wait.minutes)).isoformat(timespec="seconds").replace("+00:00", "Z")
        for run in runs:
            run.results.append({"type": "wait_delay", "success": True, "minutes": wait.minutes, "resume_at": shown})

    def _put_down(self, wait: WaitDelay, runs: Sequence[Run], following: int) -> None:
        for run in runs:
            run.status, run.next_action = RunStatus.WAITING, following
            run.resume_at = self.now + timedelta(minutes=wait.minutes)

    def _take(self, action: Action, number: int, runs: Sequence[Run]) -> None:
        by_id = {run.log_id: run for run in runs}
        visit = RuleVisit(
            tx=self.tx, settings=self.settings, now=self.now, workflow_id=0, version=0, path=str(number),
            members=Members([run.log_id for run in runs], [run.contact_id for run in runs]), rule_id=runs[0].rule_id,
            data={run.log_id: run.data for run in runs}, begun_at=tuple(run.begun_at for run in runs),
        )  # fmt: skip
        for outcome in self._run(action, visit):
            shown = {key: value for key, value in outcome.result.items() if key != "action"}
            extras = outcome.results or ["{}"] * len(outcome.members)
            for run_id, extra in zip(outcome.members.enrollment_ids, extras, strict=True):
                run = by_id[run_id]
                run.results.append({"type": action.name, **shown, **json.loads(extra)})
                if outcome.status is LogStatus.FAILED:
                    run.error = run.error or str(shown.get("error", "failed"))

    def _run(self, action: Action, visit: RuleVisit) -> list[Outcome]:
        if isinstance(action.step, WaitDelay):
            raise TypeError("a wait is no step")
        try:
            with self.tx.begin_nested() if self.is_careful else nullcontext():
                return action.step.run(visit)
        except (DomainError, PermanentError) as error:
            reason = str(error)
        except DBAPIError as error:
            code = str(getattr(error.orig, "pgcode", None) or "")
            if not code.startswith(_ITS_OWN_FAULT):
                raise
            reason = f"The database refused a value ({code})"
        if not self.is_careful:
            raise ActionRefused(reason)
        _LOG.warning("rule %s action %s: %s", visit.rule_id, visit.path, reason)
        failed = {"success": False, "error": reason}
        return [Outcome(members=visit.members, status=LogStatus.FAILED, result=failed)]
