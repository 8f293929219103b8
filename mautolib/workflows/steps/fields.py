"""Reading the keys of one step (or trigger) with errors that name their place.

`Fields` takes each key once; what nobody took is refused by `finish`, so a misspelt key is never silently ignored.
Used by the step types, triggers and re-entry policies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from mautolib.errors import InvalidInput

#: What any node may carry without effect.
NOTES: Final = frozenset({"id", "name", "description", "meta"})
_MISSING: Final = object()


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

    def number(self, key: str, *, above: float, most: float) -> float:
        """A finite number greater than `above` and at most `most`."""
        value = self.any(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.error(key, f"'{key}' must be a number")
        if not above < value <= most:
            raise self.error(key, f"'{key}' must be more than {above:g} and at most {most:g}")
        return value

    def reference(self, key: str) -> int:
        """The id of another thing: the decimal text the API shows, or a whole number."""
        value = self.any(key)
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**63:
            raise self.error(key, f"'{key}' must be an id")
        return int(text)

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
