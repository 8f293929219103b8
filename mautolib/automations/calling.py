"""Calls of a rule: as `webhook` of a workflow, once a run and action; what triggered the rule is told as `event`.

A run without a contact tells too: an address needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mautolib.automations.mailing import RuleVisit
from mautolib.webhooks.calls import Call, queue_calls
from mautolib.workflows.steps.step import Outcome, Visit
from mautolib.workflows.steps.webhook import Webhook

__all__ = ["CallWebhook"]

EVENT_TYPE: Final = "automation.webhook"


@dataclass(frozen=True, kw_only=True)
class CallWebhook(Webhook):
    """Queues one delivery for each run."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Queue a delivery for every run."""
        data = visit.data if isinstance(visit, RuleVisit) else {}
        runs = visit.members.enrollment_ids
        call = Call(
            url=self.url, event_type=EVENT_TYPE, caller="rule_run", step=f":action:{visit.path}",
            data={"rule_id": str(visit.rule_id), "action": visit.path, "payload": dict(self.payload)},
        )  # fmt: skip
        events = [data.get(run, {}) for run in runs]
        queue_calls(visit.tx, call, runs, visit.members.contact_ids, events, now=visit.now)
        return [Outcome(members=visit.members, result={"success": True, **self._shown()})]
