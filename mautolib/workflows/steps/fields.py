"""Reading the keys of one step (or trigger) with errors that name their place.

`Fields` takes each key once; what nobody took is refused by `finish`, so a misspelt key is never silently ignored.
Used by the step types, triggers and re-entry policies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any, Final

from mautolib.contacts.validation import is_storable, is_timezone
from mautolib.errors import InvalidInput
from mautolib.events.money import parse_amount
from mautolib.events.types import canonical

#: What any node may carry without effect.
NOTES: Final = frozenset({"id", "name", "description", "meta"})
_MISSING: Final = object()
_CLOCK: Final = re.compile("([01][0-9]|2[0-3]):([0-5][0-9])")
_DAY: Final = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2199, 12, 31)
_LONGEST_ID: Final = 19
#: As deep as a JSON body may be.
_DEEPEST: Final = 32
LONGEST_TYPE: Final = 50
MOST_WHERE: Final = 20


class Fields:
    """The keys of one JSON object at `path`."""

    def __init__(self, raw: object, path: tuple[str | int, ...]) -> None:
        if not isinstance(raw, Mapping):
            raise InvalidInput("This must be an object", path=path)
        self._raw = raw
        self._taken: set[str] = set()
        self.path = path

    def error(self, key: str, message: str) -> InvalidInput:
        """An error at `key` (or at the object itself for an empty key)."""
        return InvalidInput(message, path=(*self.path, key) if key else self.path)

    def has(self, key: str) -> bool:
        """Whether the key is given at all."""
        return key in self._raw

    def any(self, key: str, default: Any = _MISSING) -> Any:
        """The value as it is; required unless there is a default."""
        self._taken.add(key)
        value = self._raw.get(key, default)
        if value is _MISSING:
            raise self.error(key, f"'{key}' is required")
        return value

    def text(self, key: str, *, most: int, default: str | None = None) -> str:
        """Trimmed text of 1 to `most` characters, without control characters."""
        value = self.any(key, _MISSING if default is None else default)
        if not isinstance(value, str):
            raise self.error(key, f"'{key}' must be text")
        value = value.strip()
        if not value and default is None:
            raise self.error(key, f"'{key}' must not be empty")
        if len(value) > most:
            raise self.error(key, f"'{key}' has more than {most} characters")
        if any(not character.isprintable() for character in value):
            raise self.error(key, f"'{key}' must be one line without control characters")
        return value

    def long_text(self, key: str, *, most: int) -> str:
        """Text of 1 to `most` characters on any number of lines."""
        value = self.any(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, f"'{key}' must be text and not empty")
        if len(value) > most:
            raise self.error(key, f"'{key}' has more than {most} characters")
        if "\0" in value:
            raise self.error(key, f"'{key}' contains a NUL character")
        return value

    def number(self, key: str, *, above: float, most: float, default: float | None = None) -> float:
        """A finite number greater than `above` and at most `most`; required unless there is a default."""
        value = self.any(key, _MISSING if default is None else default)
        # Compared before it is converted: a number of Python may be too large for a float.
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise self.error(key, f"'{key}' must be a number")
        if not above < value <= most:
            raise self.error(key, f"'{key}' must be more than {above:g} and at most {most:g}")
        return value

    def whole(self, key: str, *, least: int, most: int, default: int) -> int:
        """A whole number of `least` to `most`."""
        value = self.any(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"'{key}' must be a whole number")
        if not least <= value <= most:
            raise self.error(key, f"'{key}' must be {least} to {most}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.any(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"'{key}' must be true or false")
        return value

    def clock(self, key: str, default: str | None = None) -> time:
        """A time of day, `HH:MM`."""
        value = self.any(key, _MISSING if default is None else default)
        if not isinstance(value, str) or not _CLOCK.fullmatch(value):
            raise self.error(key, f"'{key}' must be a time of day from 00:00 to 23:59")
        return time.fromisoformat(value)

    def day(self, key: str) -> date:
        """A day, `YYYY-MM-DD`."""
        value, found = self.any(key), None
        if isinstance(value, str) and _DAY.fullmatch(value):
            try:
                found = date.fromisoformat(value)
            except ValueError:
                found = None
        if found is None or not _FIRST_DAY <= found <= _LAST_DAY:
            raise self.error(key, f"'{key}' must be a day, YYYY-MM-DD, in the years 1970 to 2199")
        return found

    def weekdays(self, key: str) -> frozenset[int]:
        """Days of the week, 1 (Monday) to 7; all of them where the key is missing."""
        value = self.any(key, list(range(1, 8)))
        if not isinstance(value, list) or not value or not all(type(item) is int and 1 <= item <= 7 for item in value):
            raise self.error(key, f"'{key}' must be a list of 1 (Monday) to 7 (Sunday)")
        return frozenset(value)

    def zone(self, key: str, *, default: str) -> str:
        """An IANA time zone, or the word `default`."""
        value = self.any(key, default)
        if value != default and not (isinstance(value, str) and is_timezone(value)):
            raise self.error(key, f"'{key}' must be {default} or an IANA time zone such as Europe/Berlin")
        return str(value)

    def amount(self, key: str) -> Decimal:
        """Money, not negative: text or a number with at most 4 decimals."""
        value = self.any(key)
        try:
            found = parse_amount(value)
        except ValueError as error:
            raise self.error(key, f"'{key}' {error}") from None
        if found < 0:
            raise self.error(key, f"'{key}' must not be negative")
        return found

    def event_type(self, key: str) -> str:
        """The type of an event, as events are stored: synonyms resolved."""
        return canonical(self.text(key, most=LONGEST_TYPE))

    def reference(self, key: str) -> int:
        """The id of another thing: the decimal text the API shows, or a whole number."""
        value = self.any(key)
        if isinstance(value, str):
            # Only as the API shows it, so that whoever looks for what an id is used by finds it. More digits than any
            # id has are not even converted.
            known = value.isascii() and value.isdigit() and len(value) <= _LONGEST_ID and not value.startswith("0")
            value = int(value) if known else None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
            raise self.error(key, f"'{key}' must be an id")
        return value

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """One of the words allowed."""
        value = self.any(key, _MISSING if default is None else default)
        if value not in allowed:
            raise self.error(key, f"'{key}' must be one of {', '.join(allowed)}")
        return str(value)

    def scalars(self, key: str, *, most: int) -> dict[str, Any]:
        """An optional object of at most `most` plain values."""
        value = self.any(key, {})
        if not isinstance(value, Mapping) or len(value) > most:
            raise self.error(key, f"'{key}' must be an object of at most {most} values")
        for name, item in value.items():
            if isinstance(item, Mapping | list):
                raise InvalidInput("This must be text, a number, true, false or null", path=(*self.path, key, name))
        return dict(value)

    def finish(self, *branches: str) -> None:
        """Refuse keys that nobody took."""
        unknown = [str(key) for key in self._raw if key not in self._taken | NOTES and key not in branches]
        if unknown:
            raise self.error(unknown[0], f"Unknown key '{unknown[0]}'")
        meta = self._raw.get("meta", {})
        if not isinstance(meta, Mapping):
            raise self.error("meta", "'meta' must be an object")


def check_storable(value: object, path: tuple[str | int, ...], depth: int = 1) -> None:
    """See that the database can hold a JSON value and everything in it.

    Raises:
        InvalidInput: a text with NUL or a lone surrogate, a number that is not finite, or nesting without end.
    """
    if isinstance(value, str) and not is_storable(value):
        raise InvalidInput("Text is valid Unicode without NUL characters", path=path)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput("A number must be finite", path=path)
    if not isinstance(value, Mapping | list | tuple):
        return
    if depth > _DEEPEST:
        raise InvalidInput(f"This is nested more than {_DEEPEST} deep", path=path)
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str) or not is_storable(name):
                raise InvalidInput("A key is valid Unicode without NUL characters", path=path)
            check_storable(item, (*path, name), depth + 1)
    else:
        for number, item in enumerate(value):
            check_storable(item, (*path, number), depth + 1)
