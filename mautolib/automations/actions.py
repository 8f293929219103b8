"""What a rule can do: the actions of workflows, and three of its own.

`ACTIONS` are known by `type`; each passes the contract suite of steps. `tag` of a workflow is `add_tag` here.
`WaitDelay` is none of them: it makes the actions behind it wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Final, Self

from sqlalchemy import Connection, select

from mautolib import scoring
from mautolib.automations.calling import CallWebhook
from mautolib.automations.mailing import SendMail
from mautolib.contacts import address_key
from mautolib.db import tables
from mautolib.ledger import content, queue
from mautolib.ledger.model import Kind, NewContent, NewMessage
from mautolib.scoring import Stage
from mautolib.workflows import steps
from mautolib.workflows.model import LogStatus
from mautolib.workflows.steps import Step
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Outcome, Visit, acted

__all__ = ["ACTIONS", "MoveLifecycle", "NotifyAdmin", "WaitDelay"]

_LONGEST_MINUTES: Final = 8760 * 60
_LONGEST_MESSAGE: Final = 10_000
_SUBJECT: Final = "Automation rule: {{ rule_name }}"
_BODY: Final = (
    "<p>{{ message }}</p>"
    "<p>Rule {{ rule_name }} ({{ rule_id }}){% if person %}, contact {{ person }}{% endif %}</p>"
)
_VARIABLES: Final = ("message", "rule_name", "rule_id", "person")
#: News of a rule is stale after a day.
_GIVES_UP_AFTER: Final = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class WaitDelay:
    """The actions behind it wait: `{"type": "wait_delay", "config": {"minutes": 30}}`."""

    minutes: float

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`minutes`, more than 0 and at most a year."""
        return cls(minutes=fields.number("minutes", above=0, most=_LONGEST_MINUTES))


@dataclass(frozen=True, kw_only=True)
class MoveLifecycle:
    """Moves the contact to a stage: `{"type": "move_lifecycle", "config": {"stage": "lead"}}`."""

    branches: ClassVar[tuple[str, ...]] = ()
    stage: Stage

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`stage`, any of the ten."""
        return cls(stage=Stage(fields.choice("stage", tuple(Stage))))

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """It refers to nothing."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Move everybody whose contact still exists."""
        before = scoring.move(
            visit.tx, visit.members.people(), self.stage, reason=f"Moved by {visit.origin.replace(':', ' ')}",
            actor=visit.origin, now=visit.now,
        )  # fmt: skip
        return acted(visit, set(before), {"action": "move_lifecycle", "stage": str(self.stage)})


@dataclass(frozen=True, kw_only=True)
class NotifyAdmin:
    """Mails the administrators: `{"type": "notify_admin", "config": {"message": "A big order"}}`."""

    branches: ClassVar[tuple[str, ...]] = ()
    message: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`message`, plain text of many lines."""
        return cls(message=fields.long_text("message", most=_LONGEST_MESSAGE))

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """Who is an administrator is looked up when it runs."""

    def run(self, visit: Visit) -> list[Outcome]:
        """Queue a mail to each active administrator for every run; it needs no contact."""
        users = tables.users.c
        admins = visit.tx.scalars(
            select(users.email).where(users.is_active, users.role == "admin").order_by(users.email_key)
        ).all()
        shown = {"action": "notify_admin"}
        if not admins:
            failed = {"success": False, **shown, "error": "There is no active administrator"}
            return [Outcome(members=visit.members, status=LogStatus.FAILED, result=failed)]
        if len(visit.members):
            self._queue(visit, list(admins))
        return [Outcome(members=visit.members, result={"success": True, **shown, "to": len(admins), "queued": True})]

    def _queue(self, visit: Visit, admins: list[str]) -> None:
        rules = tables.automation_rules.c
        name = visit.tx.scalar(select(rules.name).where(rules.rule_id == visit.rule_id)) or ""
        content_id = content.freeze(visit.tx, NewContent(
            subject=_SUBJECT, html_body=_BODY, from_name=visit.settings.default_from_name,
            from_email=visit.settings.default_from_email, track_opens=False, track_clicks=False,
        ))  # fmt: skip
        queue.queue(visit.tx, [
            NewMessage(
                kind=Kind.INTERNAL, content_id=content_id, due_at=visit.now, give_up_at=visit.now + _GIVES_UP_AFTER,
                dedupe_key=f"rule_run:{run}:action:{visit.path}:to:{address_key(email)}", to_email=email,
                to_key=address_key(email),
                context={"message": self.message, "rule_name": name, "rule_id": str(visit.rule_id),
                         "person": str(person) if person else ""},
            )
            for run, person in zip(visit.members.enrollment_ids, visit.members.contact_ids, strict=True)
            for email in admins
        ])  # fmt: skip


ACTIONS: Final[Mapping[str, type[Step] | type[WaitDelay]]] = {
    **{("add_tag" if name == "tag" else name): action for name, action in steps.ACTIONS.items()},
    "send_email": SendMail,
    "webhook": CallWebhook,
    "wait_delay": WaitDelay,
    "move_lifecycle": MoveLifecycle,
    "notify_admin": NotifyAdmin,
}
