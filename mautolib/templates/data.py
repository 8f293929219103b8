"""What a template is given: plain copies of values, so that nothing it does can reach the program.

Promise: `plain` returns only exact str, int, float, bool, None, dict and list, of bounded depth and length; times
become ISO text, money becomes text, so no precision is lost. Called on every context before it is rendered.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from mautolib.errors import InvalidInput

MAX_DEPTH: Final = 12
MAX_ITEMS: Final = 1_000
_EXACT = frozenset({str, int, float, bool, type(None)})


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `values` in plain types; lists are cut after `MAX_ITEMS` items.

    Raises:
        InvalidInput: a value of another type, or nested deeper than `MAX_DEPTH`.
    """
    return _mapping(values, 0)


def _mapping(values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"Values for a template are nested more than {MAX_DEPTH} deep")
    return {
        key if type(key) is str else str(key): value if type(value) in _EXACT else _other(value, depth)
        for key, value in values.items()
    }


def _other(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return _mapping(value, depth + 1)
    if isinstance(value, (list, tuple)):
        if depth > MAX_DEPTH:
            raise InvalidInput(f"Values for a template are nested more than {MAX_DEPTH} deep")
        return [item if type(item) in _EXACT else _other(item, depth + 1) for item in value[:MAX_ITEMS]]
    if isinstance(value, str):  # a subclass: markup would otherwise pass for escaped
        return str.__str__(value)
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise InvalidInput(f"A value of type {type(value).__name__} cannot be used in a template")
