"""Queue a mail to the contact: `{"action": "send_email", "template_id": "3"}`, or with `subject` and `body`.

Nothing is sent here: a message row is queued, once per (enrollment, step, visit), and the senders take it from the
ledger. The text is the template's version at the time the person entered, frozen once and shared by everybody who
gets it. Who may not be mailed gets no message; the reason is in the log.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Self

from sqlalchemy import Connection, Row

from mautolib.campaigns.planning import static_links
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound
from mautolib.ledger import content, queue
from mautolib.ledger.model import Kind, NewContent, NewMessage
from mautolib.templates import catalogue
from mautolib.templates.compile import compile_template
from mautolib.workflows.model import LogStatus
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import Member, Outcome, Visit
from mautolib.workflows.steps.tag import NO_CONTACT

#: A mail that could not be handed over for so long is no longer wanted.
GIVES_UP_AFTER: Final = timedelta(hours=72)
#: Names other mail may use, but that of a workflow does not give.
_NOT_GIVEN: Final = ("campaign", "confirm_url")
_LONGEST_SUBJECT: Final = 500
_LONGEST_BODY: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class _Text:
    """What one version says, and since when."""

    subject: str
    html_body: str
    text_body: str = ""
    strict: bool = False
    variables: Sequence[str] = ()
    version: int | None = None
    since: datetime | None = None

    def problem(self) -> str | None:
        """What keeps it from being sent; None: nothing."""
        compiled = compile_template(
            self.subject, self.html_body, self.text_body, strict=self.strict, variables=self.variables
        )
        if not compiled.valid:
            first = compiled.problems[0]
            return f"{first.message} ({first.part}, line {first.line})"
        missing = [name for name in compiled.variables if name.split(".")[0] in _NOT_GIVEN]
        return f"Undefined variable: {missing[0]}; a workflow does not give it" if missing else None


@dataclass(frozen=True, kw_only=True)
class SendEmail:
    """Queues one mail; either `template_id` or `subject` with `body` is set."""

    branches: ClassVar[tuple[str, ...]] = ()
    template_id: int | None = None
    subject: str = ""
    body: str = ""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """A `template_id`, or `subject` and `body` (HTML)."""
        if fields.has("template_id"):
            return cls(template_id=fields.reference("template_id"))
        if not fields.has("subject") and not fields.has("body"):
            raise fields.error("", "send_email needs 'template_id', or 'subject' and 'body'")
        subject = fields.text("subject", most=_LONGEST_SUBJECT)
        return cls(subject=subject, body=fields.long_text("body", most=_LONGEST_BODY))

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """The template exists and, to start, has no problems; a text of its own never has any."""
        if self.template_id is None:
            problem = self._own_text().problem()
            if problem:
                raise InvalidInput(problem, path=fields.path)
            return
        try:
            template = catalogue.get(tx, self.template_id)
        except NotFound as error:
            raise fields.error("template_id", str(error)) from None
        names = ("subject", "html_body", "text_body", "strict", "variables")
        problem = _Text(**{name: getattr(template, name) for name in names}).problem() if starting else None
        if problem:
            raise fields.error("template_id", f"The template is faulty: {problem}")

    def run(self, visit: Visit) -> list[Outcome]:
        """Queue a mail for every member who may be mailed."""
        texts = self._texts(visit.tx)
        wanted = sorted({member.contact_id for member in visit.members if member.contact_id})
        rows = visit.tx.execute(
            statement("workflows.mail_facts"),
            {"contact_ids": wanted, "require_consent": visit.settings.require_consent},
        )
        facts = {row.contact_id: row for row in rows}
        frozen: dict[int | None, int | str] = {}
        messages: dict[int, NewMessage] = {}
        refused: dict[int, str] = {}
        for member in visit.members:
            text = _at_entry(texts, member.entered_at)
            reason = _refusal(facts.get(member.contact_id), text)
            if reason is None and text is not None:
                if text.version not in frozen:
                    frozen[text.version] = text.problem() or self._freeze(visit, text)
                found = frozen[text.version]
                if isinstance(found, int):
                    messages[member.enrollment_id] = _message(visit, member, found)
                    continue
                reason = found
            refused[member.enrollment_id] = reason or NO_CONTACT
        queue.queue(visit.tx, messages.values())
        numbers = _numbers(visit.tx, [message.dedupe_key for message in messages.values()])
        return [self._outcome(member, messages, refused, facts, numbers) for member in visit.members]

    def _own_text(self) -> _Text:
        return _Text(subject=self.subject, html_body=self.body)

    def _texts(self, tx: Connection) -> list[_Text]:
        if self.template_id is None:
            return [self._own_text()]
        rows = tx.execute(statement("workflows.template_texts"), {"template_id": self.template_id})
        return [_Text(**row) for row in rows.mappings()]

    def _freeze(self, visit: Visit, text: _Text) -> int:
        new = NewContent(
            workflow_id=visit.workflow_id, template_id=self.template_id, template_version=text.version,
            subject=text.subject, html_body=text.html_body, text_body=text.text_body, strict=text.strict,
            from_name=visit.settings.default_from_name, from_email=visit.settings.default_from_email,
            links=static_links(text.html_body),
        )  # fmt: skip
        return content.freeze(visit.tx, new)

    def _outcome(
        self,
        member: Member,
        messages: Mapping[int, NewMessage],
        refused: Mapping[int, str],
        facts: Mapping[int, Row[Any]],
        numbers: Mapping[str, int],
    ) -> Outcome:
        echo = {"subject": self.subject} if self.template_id is None else {"template_id": str(self.template_id)}
        shown: dict[str, Any] = {"action": "send_email", **echo}
        message = messages.get(member.enrollment_id)
        if message is None:
            result = {"success": False, **shown, "error": refused[member.enrollment_id]}
            return Outcome(status=LogStatus.FAILED, result=result)
        shown |= {"to": facts[member.contact_id].email, "queued": True}
        return Outcome(result={"success": True, **shown, "message_id": str(numbers[message.dedupe_key])})


def _at_entry(texts: Sequence[_Text], entered_at: datetime) -> _Text | None:
    """The version that was current when the person entered; the first one for whoever came before it."""
    if not texts:
        return None
    position = bisect_right([text.since or entered_at for text in texts], entered_at)
    return texts[max(position - 1, 0)]


def _refusal(fact: Row[Any] | None, text: _Text | None) -> str | None:
    if fact is None:
        return NO_CONTACT
    if text is None:
        return "Template not found"
    return str(fact.refusal) if fact.refusal else None


def _message(visit: Visit, member: Member, content_id: int) -> NewMessage:
    return NewMessage(
        kind=Kind.WORKFLOW,
        content_id=content_id,
        dedupe_key=f"enrollment:{member.enrollment_id}:step:{visit.path}:visit:{member.visit}",
        due_at=visit.now,
        give_up_at=visit.now + GIVES_UP_AFTER,
        contact_id=member.contact_id,
        workflow_id=visit.workflow_id,
        enrollment_id=member.enrollment_id,
        context={"event": dict(member.context)},
    )


def _numbers(tx: Connection, dedupe_keys: Sequence[str]) -> dict[str, int]:
    rows = tx.execute(statement("workflows.messages_of"), {"dedupe_keys": list(dedupe_keys)})
    return {row.dedupe_key: row.message_id for row in rows}
