"""Mail of a rule: as `send_email` of a workflow, of kind `automation`, once a run and action.

The text is the version of the template when the run began, also where it has waited since. Templates read the data
that triggered the rule as `event`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from mautolib.db.statements import statement
from mautolib.ledger import queue
from mautolib.ledger.model import Kind, NewMessage
from mautolib.workflows.steps.send_email import GIVES_UP_AFTER, SendEmail
from mautolib.workflows.steps.step import Members, Outcome, Visit

__all__ = ["RuleVisit", "SendMail"]


@dataclass(frozen=True, kw_only=True)
class RuleVisit(Visit):
    """Runs of one rule at one of its actions; `members` are the runs.

    Args:
        data: by run, what triggered it.
        begun_at: when each run began, in their order.
    """

    data: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    begun_at: tuple[datetime, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SendMail(SendEmail):
    """Queues one mail to the contact of each run."""

    def _groups(self, visit: Visit) -> Sequence[Row[Any]]:
        begun = visit.begun_at if isinstance(visit, RuleVisit) and visit.begun_at else [visit.now] * len(visit.members)
        values = {
            "run_ids": list(visit.members.enrollment_ids), "contact_ids": list(visit.members.contact_ids),
            "begun_ats": list(begun), "template_id": self.template_id,
            "require_consent": visit.settings.require_consent,
        }  # fmt: skip
        return visit.tx.execute(statement("automations.mail_groups"), values).all()

    def _queue(self, visit: Visit, members: Members, content_id: int) -> list[Outcome]:
        data = visit.data if isinstance(visit, RuleVisit) else {}
        runs = list(members.enrollment_ids)
        keys = [f"rule_run:{run}:action:{visit.path}" for run in runs]
        queue.queue(visit.tx, [
            NewMessage(
                kind=Kind.AUTOMATION, content_id=content_id, dedupe_key=key, due_at=visit.now,
                give_up_at=visit.now + GIVES_UP_AFTER, contact_id=person, context={"event": dict(data.get(run, {}))},
            )
            for run, person, key in zip(runs, members.contact_ids, keys, strict=True)
        ])  # fmt: skip
        found = visit.tx.execute(statement("automations.mail_results"), {"dedupe_keys": keys}).all()
        results = [row.result for row in found]
        return [Outcome(members=members, result={"success": True, **self._shown(), "queued": True}, results=results)]
