"""Which parts of a body become which parts of an event: `mapping` of an inbound source, by JSON path.

Promise: a path names exactly one value - `$`, `.name`, `['any name']` and `[0]`, the singular queries of RFC 9535 -
so nothing a mapping says can take long, and one that is wrong is refused when it is saved. A text that does not begin
with `$` stands for itself. Called by `sources` (check) and `arriving` (apply). No library: the rest of JSON path
(wildcards, filters, slices) finds any number of values, and there is no one right value among many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from mautolib.errors import InvalidInput

__all__ = ["DEFAULT", "FIELDS", "STANDARD_WEBHOOKS", "apply_mapping", "check_mapping", "value_at"]

#: What a mapping may name; all of them are parts of an event of `POST /events/`.
FIELDS: Final = ("type", "external_id", "contact_id", "email", "occurred_at", "properties")
#: A body that is an event already.
DEFAULT: Final[Mapping[str, Any]] = {name: f"$.{name}" for name in FIELDS}
#: The envelope of Standard Webhooks; the id is that of the header.
STANDARD_WEBHOOKS: Final[Mapping[str, Any]] = {
    "type": "$.type", "contact_id": "$.data.contact_id", "email": "$.data.email", "occurred_at": "$.timestamp",
    "properties": "$.data",
}  # fmt: skip
_MOST_PROPERTIES, _LONGEST_PATH, _LONGEST_NAME, _MOST_STEPS = 100, 500, 100, 32
_STEP = re.compile(
    r"""\.([^\s.\[\]'"$*@?]+)|\[([0-9]{1,6})\]|\['((?:[^'\\]|\\['\\])+)'\]|\["((?:[^"\\]|\\["\\])+)"\]"""
)
_ESCAPED = re.compile(r"\\(.)")
_MILLISECONDS_FROM = 100_000_000_000
_Path = tuple[str | int, ...]


def check_mapping(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as it may be stored.

    Raises:
        InvalidInput: names what is not a field of an event, not a path, or more than a mapping holds.
    """
    for name, source in mapping.items():
        where: _Path = ("body", "mapping", name)
        if name not in FIELDS:
            raise InvalidInput(f"A mapping names {', '.join(FIELDS)}", path=where)
        if name == "properties" and isinstance(source, Mapping):
            if len(source) > _MOST_PROPERTIES:
                raise InvalidInput(f"A mapping has at most {_MOST_PROPERTIES} properties", path=where)
            for key, one in source.items():
                if not 1 <= len(key) <= _LONGEST_NAME:
                    raise InvalidInput(f"A property has 1 to {_LONGEST_NAME} characters", path=where)
                _check_source(one, (*where, key), must_be_path=False)
        else:
            _check_source(source, where, must_be_path=name != "type")
    return dict(mapping)


def apply_mapping(mapping: Mapping[str, Any], body: object) -> dict[str, Any]:
    """The event a body tells of, as `ingestion.check` reads it; what a path does not find is left out."""
    found = {name: _taken(source, body) for name, source in mapping.items()}
    event = {name: value for name, value in found.items() if value is not None}
    if isinstance(event.get("external_id"), int) and not isinstance(event["external_id"], bool):
        event["external_id"] = str(event["external_id"])
    if "occurred_at" in event:
        event["occurred_at"] = _moment(event["occurred_at"])
    return event


def value_at(body: object, path: str) -> Any:
    """The value a path leads to, None where it leads nowhere.

    Raises:
        InvalidInput: it is not a path.
    """
    found: Any = body
    for step in _steps(path):
        if isinstance(step, int):
            found = found[step] if isinstance(found, list) and step < len(found) else None
        else:
            found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _check_source(source: object, where: _Path, *, must_be_path: bool) -> None:
    if not isinstance(source, str) or not source:
        raise InvalidInput("A mapping leads to a JSON path such as $.order.id", path=where)
    if source.startswith("$") or must_be_path:
        try:
            _steps(source)
        except InvalidInput as error:
            raise InvalidInput(str(error), path=where) from None
    elif len(source) > _LONGEST_PATH:
        raise InvalidInput(f"A value has at most {_LONGEST_PATH} characters", path=where)


def _taken(source: object, body: object) -> Any:
    if isinstance(source, Mapping):
        found = {name: _taken(one, body) for name, one in source.items()}
        return {name: value for name, value in found.items() if value is not None}
    if isinstance(source, str) and source.startswith("$"):
        return value_at(body, source)
    return source


def _moment(given: object) -> Any:
    """A moment as text; a number counts seconds, or milliseconds, since 1970."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return given
    seconds = given / 1000 if abs(given) >= _MILLISECONDS_FROM else given
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return str(given)


def _steps(path: str) -> list[str | int]:
    if not path.startswith("$") or len(path) > _LONGEST_PATH:
        raise InvalidInput(f"A JSON path begins with $ and has at most {_LONGEST_PATH} characters")
    steps: list[str | int] = []
    place = 1
    while place < len(path):
        found = _STEP.match(path, place)
        if found is None:
            raise InvalidInput("A JSON path is written with .name, ['any name'] and [0] only")
        name, index, single, double = found.groups()
        quoted = single or double
        steps.append(int(index) if index is not None else name or _ESCAPED.sub(r"\1", quoted))
        place = found.end()
    if len(steps) > _MOST_STEPS:
        raise InvalidInput(f"A JSON path has at most {_MOST_STEPS} steps")
    return steps
