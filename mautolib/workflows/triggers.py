"""The triggers: what lets people into a workflow, read from `trigger_type` and `trigger_config`.

Promise: what `read` accepts as active can fire. An incomplete one is accepted until the workflow is to be active; keys
that no trigger knows are kept without effect. Called when a workflow is saved and by whoever looks for entries, which
may also read the JSON: the defaults here are those that hold there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from typing import Any, Final, Protocol, Self

from sqlalchemy import Connection

from mautolib.errors import InvalidInput
from mautolib.workflows.model import TriggerType
from mautolib.workflows.steps import references
from mautolib.workflows.steps.fields import MOST_WHERE, Fields

DEFAULT_AT: Final = "09:00"
DEFAULT_AFTER_MINUTES: Final = 60
CUSTOM: Final = "custom_fields."
#: The fields of a contact whose day comes round every year, beside `custom_fields.<key>`.
ANNIVERSARY_FIELDS: Final = ("created_at", "consent_at")
_LONGEST_SOURCE: Final = 50
_LONGEST_FIELD: Final = 150
_MOST_OFFSET_DAYS: Final = 365
#: A cart nobody touched for a month is not abandoned, but forgotten.
_MOST_MINUTES: Final = 30 * 24 * 60


class Trigger(Protocol):
    """A trigger, read and checked."""

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """Take the keys of this type; required ones only to be `active`."""
        ...

    def check(self, tx: Connection, fields: Fields) -> None:
        """See that what it refers to exists."""
        ...


class _RefersToNothing:
    def check(self, tx: Connection, fields: Fields) -> None:
        """It refers to nothing."""


@dataclass(frozen=True, kw_only=True)
class Manual(_RefersToNothing):
    """Nothing lets people in by itself."""

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """No key."""
        return cls()


@dataclass(frozen=True, kw_only=True)
class Signup(_RefersToNothing):
    """A contact was created; `source`: only by this door (`contacts.source`)."""

    source: str | None = None

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """`source`, if wanted."""
        return cls(source=fields.text("source", most=_LONGEST_SOURCE) if fields.has("source") else None)


@dataclass(frozen=True, kw_only=True)
class TagAdded(_RefersToNothing):
    """A tag was put on a contact; `tag_name`: only this one, in whatever case."""

    tag_name: str | None = None

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """`tag_name`, if wanted."""
        return cls(tag_name=fields.text("tag_name", most=100) if fields.has("tag_name") else None)


@dataclass(frozen=True, kw_only=True)
class SegmentEntered:
    """A contact joined a segment."""

    segment_id: int | None = None

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """`segment_id`."""
        return cls(segment_id=fields.reference("segment_id") if active or fields.has("segment_id") else None)

    def check(self, tx: Connection, fields: Fields) -> None:
        """The segment exists, and stays until the transaction ends."""
        if self.segment_id is not None:
            references.hold_segment(tx, fields, "segment_id", self.segment_id)


@dataclass(frozen=True, kw_only=True)
class Event(_RefersToNothing):
    """An event of `event_type` with the properties `where` happened to a contact."""

    event_type: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """`event_type`, and `where` if wanted."""
        return cls(
            event_type=fields.event_type("event_type") if active or fields.has("event_type") else None,
            where=fields.scalars("where", most=MOST_WHERE),
        )


@dataclass(frozen=True, kw_only=True)
class CartAbandoned(_RefersToNothing):
    """A cart of at least `min_total`, in its own currency, was left alone for `after_minutes`, and not ordered."""

    after_minutes: int = DEFAULT_AFTER_MINUTES
    min_total: Decimal | None = None

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """`after_minutes` (60; at most 43200) and `min_total`, if wanted."""
        return cls(
            after_minutes=fields.whole("after_minutes", least=1, most=_MOST_MINUTES, default=DEFAULT_AFTER_MINUTES),
            min_total=fields.amount("min_total") if fields.has("min_total") else None,
        )


@dataclass(frozen=True, kw_only=True)
class Date(_RefersToNothing):
    """A day has come: everybody enters when clocks in `DEFAULT_TIMEZONE` show `at` on the day `on`."""

    on: date | None = None
    at: time = time.fromisoformat(DEFAULT_AT)

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """`on`, and `at` ("09:00") if wanted."""
        return cls(on=fields.day("on") if active or fields.has("on") else None, at=fields.clock("at", DEFAULT_AT))


@dataclass(frozen=True, kw_only=True)
class Anniversary(_RefersToNothing):
    """The day in a contact's `field` comes round, `offset_days` later (or, negative, earlier).

    Args:
        local_time: by the contact's clock; else by that of `DEFAULT_TIMEZONE`.
    """

    field: str | None = None
    offset_days: int = 0
    at: time = time.fromisoformat(DEFAULT_AT)
    local_time: bool = True

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """`field`, and `offset_days`, `at`, `local_time` if wanted."""
        name = fields.text("field", most=_LONGEST_FIELD) if active or fields.has("field") else None
        if name is not None and name not in ANNIVERSARY_FIELDS and not (name.startswith(CUSTOM) and name != CUSTOM):
            raise fields.error("field", f"'field' must be {', '.join(ANNIVERSARY_FIELDS)} or {CUSTOM}<key>")
        return cls(
            field=name,
            offset_days=fields.whole("offset_days", least=-_MOST_OFFSET_DAYS, most=_MOST_OFFSET_DAYS, default=0),
            at=fields.clock("at", DEFAULT_AT),
            local_time=fields.flag("local_time", True),
        )


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """An event came from an inbound source; `source_id`: only from this one."""

    source_id: int | None = None

    @classmethod
    def read(cls, fields: Fields, *, active: bool) -> Self:
        """`source_id`, if wanted."""
        return cls(source_id=fields.reference("source_id") if fields.has("source_id") else None)

    def check(self, tx: Connection, fields: Fields) -> None:
        """The source exists, and stays until the transaction ends."""
        if self.source_id is not None:
            references.hold_source(tx, fields, "source_id", self.source_id)


TRIGGERS: Final[Mapping[TriggerType, type[Trigger]]] = {
    TriggerType.SIGNUP: Signup,
    TriggerType.TAG_ADDED: TagAdded,
    TriggerType.SEGMENT_ENTERED: SegmentEntered,
    TriggerType.EVENT: Event,
    TriggerType.CART_ABANDONED: CartAbandoned,
    TriggerType.DATE: Date,
    TriggerType.ANNIVERSARY: Anniversary,
    TriggerType.MANUAL: Manual,
    TriggerType.WEBHOOK: Webhook,
}


def read(trigger_type: object, config: object, *, active: bool) -> tuple[Trigger, Fields]:
    """The trigger, and the fields it was read from.

    Raises:
        InvalidInput: names the key.
    """
    if trigger_type not in list(TriggerType):
        message = f"Trigger type must be one of {', '.join(TriggerType)}"
        raise InvalidInput(message, path=("body", "trigger_type"))
    fields = Fields(config, ("body", "trigger_config"))
    return TRIGGERS[TriggerType(str(trigger_type))].read(fields, active=active), fields
