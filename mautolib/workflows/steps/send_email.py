"""Queue a mail to the contact: `{"action": "send_email", "template_id": "3"}`, or with `subject` and `body`.

Nothing is sent here: a message row is queued, once per (enrollment, step, visit), and the senders take it from the
ledger. The text is the template's version at the time the person entered, frozen once and shared by everybody who
gets it. Who may not be mailed gets no message; the reason is in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final, Self

from sqlalchemy import Connection, Row

from mautolib.campaigns.planning import static_links
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.ledger import content, queue
from mautolib.ledger.model import NewContent
from mautolib.templates import catalogue
from mautolib.templates.compile import compile_template
from mautolib.workflows.model import LogStatus
from mautolib.workflows.steps import references
from mautolib.workflows.steps.fields import Fields
from mautolib.workflows.steps.step import NO_CONTACT, Members, Outcome, Visit

#: A mail that could not be handed over for so long is no longer wanted.
GIVES_UP_AFTER: Final = timedelta(hours=72)
#: Names other mail may use, but that of a workflow does not give.
_NOT_GIVEN: Final = ("campaign", "confirm_url")
_LONGEST_SUBJECT: Final = 500
_LONGEST_BODY: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class _Text:
    """What one version says."""

    subject: str
    html_body: str
    text_body: str = ""
    strict: bool = False
    variables: Sequence[str] = ()
    version: int | None = None

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
        references.hold_template(tx, fields, "template_id", self.template_id)
        template = catalogue.get(tx, self.template_id)
        names = ("subject", "html_body", "text_body", "strict", "variables")
        problem = _Text(**{name: getattr(template, name) for name in names}).problem() if starting else None
        if problem:
            raise fields.error("template_id", f"The template is faulty: {problem}")

    def run(self, visit: Visit) -> list[Outcome]:
        """Queue a mail for every member who may be mailed."""
        texts = self._texts(visit.tx)
        outcomes: list[Outcome] = []
        # By version, so that whoever freezes the same texts does it in the same order.
        for row in self._groups(visit):
            members = Members(row.enrollment_ids, row.contact_ids)
            refusal = row.refusal if row.exists else NO_CONTACT
            text = texts.get(row.version)
            if refusal is None and text is None:
                refusal = "Template not found"
            if refusal is None and text is not None:
                refusal = text.problem()
                if refusal is None:
                    outcomes += self._queue(visit, members, self._freeze(visit, text))
                    continue
            result = {"success": False, **self._shown(), "error": refusal}
            outcomes.append(Outcome(members=members, status=LogStatus.FAILED, result=result))
        return outcomes

    def _groups(self, visit: Visit) -> Sequence[Row[Any]]:
        """Members by the version they get and the reason why they get none."""
        values = {
            **visit.members.columns(), "template_id": self.template_id,
            "require_consent": visit.settings.require_consent,
        }  # fmt: skip
        return visit.tx.execute(statement("workflows.mail_groups"), values).all()

    def _own_text(self) -> _Text:
        return _Text(subject=self.subject, html_body=self.body)

    def _texts(self, tx: Connection) -> dict[int | None, _Text]:
        if self.template_id is None:
            return {None: self._own_text()}
        rows = tx.execute(statement("workflows.template_texts"), {"template_id": self.template_id})
        return {row["version"]: _Text(**row) for row in rows.mappings()}

    def _freeze(self, visit: Visit, text: _Text) -> int:
        new = NewContent(
            workflow_id=visit.workflow_id or None, template_id=self.template_id, template_version=text.version,
            subject=text.subject, html_body=text.html_body, text_body=text.text_body, strict=text.strict,
            from_name=visit.settings.default_from_name, from_email=visit.settings.default_from_email,
            links=static_links(text.html_body),
        )  # fmt: skip
        return content.freeze(visit.tx, new)

    def _queue(self, visit: Visit, members: Members, content_id: int) -> list[Outcome]:
        queue.queue_step(
            visit.tx, members.columns(), workflow_id=visit.workflow_id, step=f":step:{visit.path}:visit:{visit.number}",
            content_id=content_id, due_at=visit.now, give_up_at=visit.now + GIVES_UP_AFTER,
        )  # fmt: skip
        values = {**members.columns(), "step": f":step:{visit.path}:visit:{visit.number}"}
        found = visit.tx.execute(statement("workflows.mail_results"), values).one()
        queued = Members(found.enrollment_ids, found.contact_ids)
        result = {"success": True, **self._shown(), "queued": True}
        return [Outcome(members=queued, result=result, results=found.results)]

    def _shown(self) -> dict[str, Any]:
        echo = {"subject": self.subject} if self.template_id is None else {"template_id": str(self.template_id)}
        return {"action": "send_email", **echo}
