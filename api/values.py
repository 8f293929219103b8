"""The values of the contract as types: texts, names, moments, ids - checked the same way everywhere.

Called by the schemas of the route files.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mautolib.contacts.validation import CURRENCIES
from mautolib.errors import NotFound
from mautolib.events.money import amount_text, parse_amount, parse_rate, rate_text

INT_MAX = 2**31 - 1
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MONEY_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": r"^-?[0-9]{1,15}(\.[0-9]{1,4})?$"}, {"type": "number"}],
    "examples": ["59.90"],
}
_RATE_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,8})?$"}, {"type": "number", "exclusiveMinimum": 0},
    ],
    "examples": ["1.0842"],
}  # fmt: skip
_BIGINT_DIGITS = 19
_BIGINT_MAX = 2**63 - 1


class Model(BaseModel):
    """A body: unknown keys are ignored and never stored; strings are strings, numbers are numbers."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, value: Any) -> Any:
        # The framework also takes whatever has attributes of these names: a number has none, like an empty object.
        if not isinstance(value, dict | cls):
            raise PydanticCustomError("model_type", "Input should be an object")
        return value


class Answer(BaseModel):
    """Something the service answers with."""

    model_config = ConfigDict(from_attributes=True)


def _text(value: str) -> str:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise PydanticCustomError("text_invalid", "Text is valid Unicode without NUL characters")
    return value


def _line(value: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in value):
        raise PydanticCustomError("single_line", "This is a single line without control characters")
    return _text(value)


def _name(value: str) -> str:
    value = _line(value.strip())
    if not value:
        raise PydanticCustomError("name_empty", "A name is not empty")
    return value


def _one_mebibyte(value: str) -> str:
    if len(value.encode()) > 1024 * 1024:
        raise PydanticCustomError("too_large", "A body part has at most 1 MiB")
    return value


def _moment(value: Any) -> Any:
    # The parser behind also takes numbers, as text too, and bare dates.
    if isinstance(value, str) and not _RFC_3339.fullmatch(value):
        value = None
    if not isinstance(value, str | datetime):
        raise PydanticCustomError("datetime_type", "A moment is RFC 3339 text with Z or an offset")
    return value


def _zoned(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise PydanticCustomError("timezone_required", "A moment needs Z or an offset, as in 2026-05-01T09:00:00Z")
    try:
        value = value.astimezone(UTC)
    except OverflowError:
        value = _LAST
    if not _FIRST <= value < _LAST:
        raise PydanticCustomError("datetime_range", "A moment lies in the years 1970 to 2199")
    return value


def _money(value: object) -> Decimal:
    try:
        return parse_amount(value)
    except ValueError as error:
        raise PydanticCustomError("money", f"An amount {error}") from None


def _rate(value: object) -> Decimal:
    try:
        return parse_rate(value)
    except ValueError as error:
        raise PydanticCustomError("rate", f"A rate {error}") from None


def _day(value: object) -> date:
    day = None
    if isinstance(value, str) and _DAY.fullmatch(value):
        with suppress(ValueError):
            day = date.fromisoformat(value)
    if day is None or not _FIRST.date() <= day < _LAST.date():
        raise PydanticCustomError("date", "A day is YYYY-MM-DD in the years 1970 to 2199")
    return day


def _currency(value: str) -> str:
    code = value.upper()
    if code not in CURRENCIES:
        raise PydanticCustomError("currency", "This is not an ISO 4217 currency such as EUR")
    return code


def _id_text(value: object) -> object:
    # A number is taken for its text; true and false are numbers only to Python.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


#: One line of at most so many characters.
Line3 = Annotated[str, StringConstraints(max_length=3), AfterValidator(_line)]
Line10 = Annotated[str, StringConstraints(max_length=10), AfterValidator(_line)]
Line30 = Annotated[str, StringConstraints(max_length=30), AfterValidator(_line)]
Line50 = Annotated[str, StringConstraints(max_length=50), AfterValidator(_line)]
Line64 = Annotated[str, StringConstraints(max_length=64), AfterValidator(_line)]
Line100 = Annotated[str, StringConstraints(max_length=100), AfterValidator(_line)]
Line200 = Annotated[str, StringConstraints(max_length=200), AfterValidator(_line)]
Line320 = Annotated[str, StringConstraints(max_length=320), AfterValidator(_line)]
Line500 = Annotated[str, StringConstraints(max_length=500), AfterValidator(_line)]
#: Text that may have lines.
Text2000 = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_text)]
#: One line, trimmed and not empty.
Name100 = Annotated[str, StringConstraints(max_length=100), AfterValidator(_name)]
Name200 = Annotated[str, StringConstraints(max_length=200), AfterValidator(_name)]
Name300 = Annotated[str, StringConstraints(max_length=300), AfterValidator(_name)]
#: A body part of a mail: at most 1 MiB.
BodyPart = Annotated[str, AfterValidator(_text), AfterValidator(_one_mebibyte)]

Int32 = Annotated[int, Field(ge=-INT_MAX - 1, le=INT_MAX)]
Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    AfterValidator(_zoned),
    Field(strict=False, examples=["2026-05-01T09:00:00Z"], description="RFC 3339 with `Z` or an offset."),
]
#: Money: a JSON string or number in, exact; a string out.
Dec = Annotated[
    Decimal,
    BeforeValidator(_money),
    PlainSerializer(amount_text, return_type=str, when_used="json"),
    WithJsonSchema(_MONEY_SCHEMA, mode="validation"),
    WithJsonSchema({"type": "string", "examples": ["59.90"]}, mode="serialization"),
]
#: Money as the service answers it: a sum or a converted amount may be larger than what is taken in.
ShownDec = Annotated[
    Decimal,
    PlainSerializer(amount_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["59.90"]}),
]
#: An exchange rate, above zero with at most 8 decimals.
Rate8 = Annotated[
    Decimal,
    BeforeValidator(_rate),
    PlainSerializer(rate_text, return_type=str, when_used="json"),
    WithJsonSchema(_RATE_SCHEMA, mode="validation"),
    WithJsonSchema({"type": "string", "examples": ["1.0842"]}, mode="serialization"),
]
#: A day, YYYY-MM-DD.
Day = Annotated[
    date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-05-01"]})
]
#: An active code of ISO 4217; taken in any case, kept in capitals.
Currency = Annotated[str, StringConstraints(max_length=3), AfterValidator(_currency), Field(examples=["EUR"])]
#: An id as the API shows it.
Id = Annotated[str, BeforeValidator(_id_text), Field(examples=["42"])]
OptionalId = Annotated[str | None, BeforeValidator(_id_text), Field(examples=["42"])]
#: A moment as the API shows it.
Shown = Annotated[
    datetime,
    PlainSerializer(lambda value: value.astimezone(UTC).isoformat().replace("+00:00", "Z"), when_used="json"),
    Field(examples=["2026-05-01T09:00:00Z"]),
]


def parse_id(given: str) -> int | None:
    """The number behind an opaque id; None if no row can have it."""
    if not given.isascii() or not given.isdecimal() or len(given) > _BIGINT_DIGITS or given != str(int(given)):
        return None
    number = int(given)
    return number if 0 < number <= _BIGINT_MAX else None


def path_id(given: str, missing: str) -> int:
    """The number behind an id in a path.

    Raises:
        NotFound: with the resource's text, also for an id nothing can have.
    """
    number = parse_id(given)
    if number is None:
        raise NotFound(missing)
    return number
