"""The fields of segment rules: their names, what each holds, and which qualifiers it takes.

A field that is not listed here does not exist: names of columns never come from a request. To add one, add a line here
and its value in `compile`. Custom fields are addressed by a path, `custom_fields.address.city`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mautolib.contacts.model import ConsentStatus
from mautolib.errors import InvalidInput
from mautolib.segments.operators import Kind

__all__ = ["CUSTOM_KINDS", "FIELDS", "GRADES", "QUALIFIERS", "STAGES", "Field", "field_of"]

#: Grades and stages as `mautolib.scoring.model` defines them (a test proves both equal); scoring is a layer above.
GRADES: Final = ("A+", "A", "B+", "B", "C", "D", "F")
STAGES: Final = ("new", "subscriber", "lead", "mql", "sql", "opportunity", "customer", "evangelist", "dormant",
                 "churned")  # fmt: skip

_WINDOW: Final = frozenset({"within_days", "since", "until"})
_EVENT: Final = frozenset({"event", "campaign_id", "where"})
_ORDER: Final = _WINDOW | {"currency"}
#: Every qualifier of any field.
QUALIFIERS: Final = _WINDOW | _EVENT | _ORDER | {"as"}
#: What `as` may say.
CUSTOM_KINDS: Final = (Kind.TEXT, Kind.NUMBER, Kind.TIME, Kind.BOOL)

_CUSTOM: Final = "custom_fields"
_MOST_LEVELS: Final = 8
_LONGEST_KEY: Final = 100


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field.

    Args:
        keys: path into the custom fields, empty for all others.
        choices: the words a field of kind `choice` can hold.
        qualifiers: further keys its nodes may carry.
        is_zero_without: nothing recorded counts as 0 instead of a missing value.
    """

    name: str
    kind: Kind
    keys: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    qualifiers: frozenset[str] = frozenset()
    is_zero_without: bool = False


def _fields(kind: Kind, *names: str, qualifiers: frozenset[str] = frozenset()) -> dict[str, Field]:
    return {name: Field(name=name, kind=kind, qualifiers=qualifiers) for name in names}


def _choice(name: str, choices: tuple[str, ...]) -> dict[str, Field]:
    return {name: Field(name=name, kind=Kind.CHOICE, choices=choices)}


def _total(name: str, qualifiers: frozenset[str]) -> dict[str, Field]:
    return {name: Field(name=name, kind=Kind.NUMBER, qualifiers=qualifiers, is_zero_without=True)}


#: Every field but the custom ones.
FIELDS: Final[Mapping[str, Field]] = {
    **_fields(Kind.TEXT, "email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency",
              "consent_source"),
    **_fields(Kind.BOOL, "subscribed", "suppressed"),
    **_choice("consent_status", tuple(str(status) for status in ConsentStatus)),
    **_choice("lifecycle_stage", STAGES),
    **_choice("grade", GRADES),
    **_fields(Kind.NUMBER, "score", "engagement_score", "profile_score", "recency_score"),
    **_fields(Kind.TIME, "created_at", "updated_at", "consent_at"),
    **_fields(Kind.TAGS, "tags"),
    **_fields(Kind.SEGMENTS, "segments"),
    **_total("event.count", _EVENT | _WINDOW),
    **_fields(Kind.TIME, "event.first_at", "event.last_at", qualifiers=_EVENT),
    **_total("order.count", _ORDER),
    **_total("order.revenue", _ORDER),
    **_fields(Kind.NUMBER, "order.average_value", qualifiers=_ORDER),
    **_fields(Kind.TIME, "order.first_at", "order.last_at", qualifiers=_ORDER),
}  # fmt: skip


def field_of(given: object, kind: Kind = Kind.TEXT) -> Field:
    """The field called `given`; `kind` is what a custom field is read as.

    Raises:
        InvalidInput: there is none. The caller adds the path.
    """
    if isinstance(given, str) and given in FIELDS:
        return FIELDS[given]
    if isinstance(given, str) and given.startswith(f"{_CUSTOM}."):
        keys = tuple(given.split(".")[1:])
        if len(keys) > _MOST_LEVELS:
            raise InvalidInput(f"A path into custom_fields has at most {_MOST_LEVELS} levels")
        if not all(0 < len(key) <= _LONGEST_KEY for key in keys):
            raise InvalidInput(f"Each key of custom_fields has 1 to {_LONGEST_KEY} characters")
        return Field(name=given, kind=kind, keys=keys, qualifiers=frozenset({"as"}))
    shown = f" {given[:100]!r}" if isinstance(given, str) else ""
    raise InvalidInput(f"Unknown field{shown}; use {', '.join(FIELDS)} or {_CUSTOM}.<key>")
