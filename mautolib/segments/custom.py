"""The value of a custom field, read as text, number, time or bool; what cannot be read as that is missing.

Promise: whatever stands in the JSON, reading it raises no error. Keys are bind parameters. Called by `sources`.
Texts that look like a number, a moment (RFC 3339 with a zone), a date (midnight UTC) or true and false are read,
because files bring everything as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Boolean, ColumnElement, Date, Integer, Numeric, Text, case, cast, func, literal, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

from mautolib.segments.fields import Field
from mautolib.segments.operators import Kind

__all__ = ["custom_value"]

# Narrow enough that no cast behind them can fail.
_NUMBER: Final = r"^[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?$"
_DATE: Final = r"^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_CLOCK: Final = r"[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|[+-](0[0-9]|1[0-5]):[0-5][0-9])$"


class _Given(NamedTuple):
    """A JSON value: what kind it is, and its text."""

    kind: ColumnElement[str]
    text: ColumnElement[str]


def custom_value(fields: ColumnElement[Any], field: Field) -> ColumnElement[Any]:
    """The value at `field.keys` in a JSON column, as `field.kind`; null when it is missing or cannot be read so."""
    found = _Given(
        kind=func.jsonb_typeof(func.jsonb_extract_path(fields, *field.keys)),
        text=func.jsonb_extract_path_text(fields, *field.keys, type_=Text()),
    )
    return _READERS[field.kind](found)


def _as_text(given: _Given) -> ColumnElement[Any]:
    return case((given.kind.in_(("string", "number", "boolean")), func.nullif(given.text, "", type_=Text())))


def _as_number(given: _Given) -> ColumnElement[Any]:
    number = cast(given.text, Numeric())
    return case(
        (given.kind == "number", number),
        (given.kind == "string", case((given.text.regexp_match(_NUMBER), number))),
    )


def _as_time(given: _Given) -> ColumnElement[Any]:
    kind = TIMESTAMP(timezone=True)
    first = cast(func.left(given.text, 7).concat("-01"), Date())
    last_day = func.date_part("day", first + text("interval '1 month - 1 day'"))
    is_day = cast(func.substr(given.text, 9, 2), Integer()) <= last_day
    moment, date = given.text.regexp_match(_DATE + _CLOCK), given.text.regexp_match(_DATE + "$")
    readable = case(
        (moment, case((is_day, cast(given.text, kind)))),
        (date, case((is_day, cast(given.text.concat("T00:00:00Z"), kind)))),
    )
    return case((given.kind == "string", readable))


def _as_bool(given: _Given) -> ColumnElement[Any]:
    word = func.lower(given.text)
    readable = case((word == "true", literal(True, Boolean())), (word == "false", literal(False, Boolean())))
    return case((given.kind.in_(("boolean", "string")), readable))


_READERS: Final[Mapping[Kind, Callable[[_Given], ColumnElement[Any]]]] = {
    Kind.TEXT: _as_text, Kind.NUMBER: _as_number, Kind.TIME: _as_time, Kind.BOOL: _as_bool,
}  # fmt: skip
