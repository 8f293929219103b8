"""Tell an address: `{"action": "webhook", "url": "https://crm.shop.example/hook", "payload": {"list": "vip"}}`.

Nothing is sent here: a delivery is queued, once per (enrollment, step, visit), and `webhook_delivery` makes the
attempts. What is sent is the payload as it is written - nothing in it is a template - with contact and event beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.webhooks.addresses import Policy, parse_url
from mautolib.webhooks.calls import Call, queue_calls
from mautolib.workflows.steps.fields import Fields, check_storable
from mautolib.workflows.steps.step import Outcome, Visit, acted

EVENT_TYPE: Final = "workflow.webhook"
_LONGEST_URL: Final = 2048
#: Everybody at the step has a copy.
_MOST_BYTES: Final = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Queues one delivery to `url`."""

    branches: ClassVar[tuple[str, ...]] = ()
    url: str
    payload: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """`url`, and `payload` (an object of at most 16 KiB) if wanted."""
        payload = fields.any("payload", {})
        check_storable(payload, (*fields.path, "payload"))
        if not isinstance(payload, Mapping) or len(json.dumps(payload).encode()) > _MOST_BYTES:
            raise fields.error("payload", f"'payload' must be an object of at most {_MOST_BYTES} bytes")
        return cls(url=fields.text("url", most=_LONGEST_URL), payload=payload)

    def check(self, tx: Connection, fields: Fields, *, starting: bool) -> None:
        """It refers to nothing here; `check_url` asks whether the address may be called."""

    def check_url(self, fields: Fields, policy: Policy) -> None:
        """See that the address may be called, as far as it says itself; every attempt looks where its name leads.

        Raises:
            InvalidInput: it may not; the path names `url`.
        """
        try:
            parse_url(self.url, policy)
        except InvalidInput as error:
            raise fields.error("url", str(error)) from None

    def run(self, visit: Visit) -> list[Outcome]:
        """Queue a delivery for every member whose contact still exists."""
        people = visit.members.people()
        known = set(visit.tx.scalars(statement("contacts.hold_existing"), {"contact_ids": people}))
        members, _ = visit.members.split(known)
        call = Call(
            url=self.url, event_type=EVENT_TYPE, caller="enrollment",
            step=f":step:{visit.path}:visit:{visit.number}",
            data={"workflow_id": str(visit.workflow_id), "step": visit.path, "payload": dict(self.payload)},
        )  # fmt: skip
        queue_calls(visit.tx, call, members.enrollment_ids, members.contact_ids, now=visit.now)
        return acted(visit, known, self._shown())

    def _shown(self) -> dict[str, Any]:
        return {"action": "webhook", "url": self.url}
