"""The rule language of segments: what a list of rules may say, read into typed nodes.

Promise: whatever `check` accepts can be compiled and run; everything else is refused with the path of the node and
key, e.g. `("body", "rules", 0, "any", 1, "value")`. Values keep their type: "5" is a text and never the number 5.
Called when a segment is saved or previewed, and by `compile`. It neither reads the database nor knows SQL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

from mautolib.contacts.validation import CURRENCIES, is_storable
from mautolib.errors import InvalidInput
from mautolib.events.types import canonical
from mautolib.segments.fields import CUSTOM_KINDS, QUALIFIERS, Field, field_of
from mautolib.segments.operators import Kind, Operator, Shape, operator_of, shape_of

__all__ = ["DaysAgo", "Definition", "Group", "Leaf", "MatchType", "Node", "Qualifiers", "check", "fold", "leaves",
           "names", "read", "references"]  # fmt: skip

MOST_DEPTH: Final = 8
MOST_LEAVES: Final = 100
MOST_VALUES: Final = 1000
MOST_DAYS: Final = 36500
_LARGEST: Final = 10**15
_LONGEST_TEXT: Final = 1000
_LONGEST_TYPE: Final = 50
_LONGEST_NAME: Final = 200
_MOST_WHERE: Final = 20
_MOST_PROBLEMS: Final = 20
_MOST_NESTING: Final = 32
#: What any node may carry without effect.
_NOTES: Final = ("id", "name", "description", "meta")
_BIGINT: Final = 2**63
_ID_DIGITS: Final = 19
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

Path: TypeAlias = tuple[str | int, ...]


class MatchType(StrEnum):
    """How the nodes of one list are joined."""

    ALL = "all"
    ANY = "any"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Who is in a segment, apart from those added or kept out by hand.

    Args:
        rules: nodes as they were given, checked and ready for JSON; none of them match nobody.
        match_type: how the nodes are joined.
        exclude_campaign_ids: contacts who have a handed-over message of these campaigns stay out.
    """

    rules: tuple[Any, ...] = ()
    match_type: MatchType = MatchType.ALL
    exclude_unsubscribed: bool = False
    exclude_suppressed: bool = False
    exclude_bounced: bool = False
    exclude_campaign_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class DaysAgo:
    """A moment so many days before now."""

    days: int


@dataclass(frozen=True, kw_only=True)
class Qualifiers:
    """Which events or orders count, where a node says it.

    Args:
        event: type, under the name it is stored by.
        where: properties and the values they must have.
        since, until: the first moment that counts and the first that does not any more.
        currency: of amounts; None is the reporting currency.
    """

    event: str = ""
    campaign_id: int | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    within_days: int | None = None
    since: datetime | DaysAgo | None = None
    until: datetime | DaysAgo | None = None
    currency: str | None = None


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One comparison. `path` is its place as text: `0.any.1`."""

    path: str
    field: Field
    operator: Operator
    value: Any
    qualifiers: Qualifiers


@dataclass(frozen=True, kw_only=True)
class Group:
    """Nodes joined; the list of rules itself is the group with an empty path."""

    path: str
    join: MatchType
    nodes: tuple[Node, ...]


Node: TypeAlias = Leaf | Group


def check(rules: object, match_type: str = MatchType.ALL, *, path: Path = ("body", "rules")) -> None:
    """See that rules can be compiled.

    Raises:
        InvalidInput: with the path of what cannot be accepted; further ones in `problems`.
    """
    read(rules, match_type, path=path)


def read(rules: object, match_type: str = MatchType.ALL, *, path: Path = ("body", "rules")) -> Group:
    """The typed tree of some rules.

    Raises:
        InvalidInput: as `check`.
    """
    if match_type not in list(MatchType):
        raise InvalidInput(f"match_type is one of {', '.join(MatchType)}", path=(*path[:-1], "match_type"))
    if not isinstance(rules, list | tuple):
        raise InvalidInput("Rules are a list", path=path)
    reader = _Reader()
    nodes = reader.nodes(rules, path, "", 0)
    reader.finish()
    return Group(path="", join=MatchType(match_type), nodes=nodes)


def leaves(node: Node) -> Iterator[Leaf]:
    """Every comparison below `node`, in the order they are written."""
    if isinstance(node, Leaf):
        yield node
        return
    for child in node.nodes:
        yield from leaves(child)


def references(rules: object) -> frozenset[int]:
    """The ids of the segments that checked rules name (`segments` with `in` or `not_in`)."""
    return frozenset(value for leaf in _about_segments(rules, Shape.LIST) for value in leaf.value
                     if isinstance(value, int))  # fmt: skip


def names(rules: object) -> frozenset[str]:
    """The names, folded, of the segments that checked rules name (`segments` with `has` and the like)."""
    found: set[str] = set()
    for leaf in _about_segments(rules, Shape.ONE, Shape.LIST):
        given = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        found |= {fold(value) for value in given if isinstance(value, str)}
    return frozenset(found)


def fold(text: str) -> str:
    """`text` without its case: one character for each, as `lower(upper(text))` in the database."""
    return "".join(map(_fold_one, text))


def _fold_one(character: str) -> str:
    upper = character.upper()
    character = upper if len(upper) == 1 else character
    return character.lower()[0]


def _about_segments(rules: object, *shapes: Shape) -> Iterator[Leaf]:
    for leaf in leaves(read(rules)):
        if leaf.field.kind == Kind.SEGMENTS and shape_of(leaf.operator) in shapes:
            yield leaf


class _Refused(Exception):
    """Something is wrong at a place; the reader notes it and goes on with the next node."""

    def __init__(self, path: Path, message: str, *, is_zone: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.is_zone = is_zone


class _TooMuch(_Refused):
    """A limit of the whole tree is passed; there is no point in reading on."""


class _Reader:
    """Reads nodes and collects what is wrong with them."""

    def __init__(self) -> None:
        self._problems: list[_Refused] = []
        self._leaves = 0

    def finish(self) -> None:
        if not self._problems:
            return
        first, *others = self._problems
        code = "timezone_required" if any(problem.is_zone for problem in self._problems) else None
        more = tuple((problem.path, str(problem)) for problem in others)
        raise InvalidInput(str(first), code=code, path=first.path, problems=more)

    def nodes(self, given: Any, path: Path, place: str, depth: int) -> tuple[Node, ...]:
        found = []
        for number, raw in enumerate(given):
            if len(self._problems) >= _MOST_PROBLEMS:
                break
            try:
                found.append(self._node(raw, (*path, number), f"{place}{number}", depth))
            except _TooMuch as problem:
                # Alone: what came before it would be read as the cause.
                self._problems = [problem]
                self.finish()
            except _Refused as problem:
                self._problems.append(problem)
        return tuple(found)

    def _node(self, raw: Any, path: Path, place: str, depth: int) -> Node:
        if not isinstance(raw, Mapping):
            raise _Refused(path, "A rule is an object with field and operator, or with all, any or none")
        _check_notes(raw, path)
        join = next((join for join in MatchType if join in raw), None)
        return self._leaf(raw, path, place) if join is None else self._group(raw, join, path, place, depth)

    def _group(self, raw: Mapping[str, Any], join: MatchType, path: Path, place: str, depth: int) -> Group:
        if depth >= MOST_DEPTH:
            raise _TooMuch(path, f"Rules are nested more than {MOST_DEPTH} deep")
        for key in raw:
            if key not in (join, *_NOTES):
                raise _Refused(path, f"A group with '{join}' has no {_shown(key)}")
        nodes = raw[join]
        if not isinstance(nodes, list | tuple) or not nodes:
            raise _Refused((*path, join.value), "A group is a list of one or more rules")
        found = self.nodes(nodes, (*path, join.value), f"{place}.{join}.", depth + 1)
        return Group(path=place, join=join, nodes=found)

    def _leaf(self, raw: Mapping[str, Any], path: Path, place: str) -> Leaf:
        self._leaves += 1
        if self._leaves > MOST_LEAVES:
            raise _TooMuch(path, f"There are more than {MOST_LEAVES} rules")
        known = _at((*path, "field"), lambda: field_of(_required(raw, "field", path), _kind_of(raw, path)))
        if not is_storable(known.name):
            raise _Refused((*path, "field"), "A path is valid Unicode without NUL")
        operator = _at(
            (*path, "operator"),
            lambda: operator_of(_required(raw, "operator", path), known.kind, known.name),
        )
        for key in raw:
            if key not in ("field", "operator", "value", *known.qualifiers, *_NOTES):
                what = f"does not apply to {known.name}" if key in QUALIFIERS else "is no key of a rule"
                raise _Refused((*path, key) if key in QUALIFIERS else path, f"{_shown(key)} {what}")
        value = _value_of(raw, known, operator, (*path, "value"))
        return Leaf(path=place, field=known, operator=operator, value=value,
                    qualifiers=_qualifiers(raw, known, path))  # fmt: skip


def _at(path: Path, work: Callable[[], Any]) -> Any:
    """Run `work`; what it refuses is refused at `path`."""
    try:
        return work()
    except InvalidInput as error:
        raise _Refused(path, str(error)) from None


def _shown(key: object) -> str:
    return repr(str(key)[:50])


def _required(raw: Mapping[str, Any], key: str, path: Path) -> Any:
    if raw.get(key) is None:
        raise _Refused((*path, key), f"'{key}' is missing")
    return raw[key]


def _check_notes(raw: Mapping[str, Any], path: Path) -> None:
    for key in _NOTES:
        value = raw.get(key)
        if value is None:
            continue
        if key == "meta" and not isinstance(value, Mapping):
            raise _Refused((*path, key), "'meta' is an object")
        if key in ("name", "description") and not isinstance(value, str):
            raise _Refused((*path, key), f"'{key}' is a text")
        if key == "id" and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise _Refused((*path, key), "'id' is a text or a whole number")
        if not _is_keepable(value, 0):
            raise _Refused((*path, key), f"'{key}' holds a NUL, an unpaired surrogate, a number that is not finite "
                           f"or more than {_MOST_NESTING} levels")  # fmt: skip


def _is_keepable(value: Any, depth: int) -> bool:
    if depth > _MOST_NESTING:
        return False
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_storable(key) and _is_keepable(item, depth + 1)
                   for key, item in value.items())  # fmt: skip
    if isinstance(value, list | tuple):
        return all(_is_keepable(item, depth + 1) for item in value)
    if isinstance(value, str):
        return is_storable(value)
    return math.isfinite(value) if isinstance(value, float) else value is None or isinstance(value, int)


def _kind_of(raw: Mapping[str, Any], path: Path) -> Kind:
    given = raw.get("as")
    if given is None:
        return Kind.TEXT
    if given not in CUSTOM_KINDS:
        raise _Refused((*path, "as"), f"'as' is one of {', '.join(CUSTOM_KINDS)}")
    return Kind(given)


def _value_of(raw: Mapping[str, Any], known: Field, operator: Operator, path: Path) -> Any:
    shape = shape_of(operator)
    value = raw.get("value")
    if shape == Shape.NOTHING:
        if value is not None:
            raise _Refused(path, f"'{operator}' takes no value")
        return None
    if value is None:
        raise _Refused(path, f"'{operator}' needs a value")
    if shape == Shape.DAYS:
        return _days(value, path, least=1)
    read_one = _reader_of(known, operator)
    if shape == Shape.ONE:
        return read_one(value, path)
    if not isinstance(value, list | tuple):
        raise _Refused(path, f"'{operator}' takes a list")
    if shape == Shape.PAIR and len(value) != 2:
        raise _Refused(path, f"'{operator}' takes a list of two values")
    if not 0 < len(value) <= MOST_VALUES:
        raise _Refused(path, f"'{operator}' takes a list of 1 to {MOST_VALUES} values")
    found = tuple(read_one(item, (*path, number)) for number, item in enumerate(value))
    if shape == Shape.PAIR and _is_backwards(*found):
        raise _Refused(path, f"'{operator}' takes the lower value first")
    return found


def _is_backwards(low: Any, high: Any) -> bool:
    if isinstance(low, DaysAgo) and isinstance(high, DaysAgo):
        return low.days < high.days
    return type(low) is not DaysAgo and type(high) is not DaysAgo and bool(low > high)


def _reader_of(known: Field, operator: Operator) -> Callable[[Any, Path], Any]:
    """What reads one value of a field."""
    if known.kind in (Kind.TAGS, Kind.SEGMENTS):
        return _id if operator in (Operator.IN, Operator.NOT_IN) else _name
    if known.kind == Kind.CHOICE:
        return lambda value, path: _choice(value, known, path)
    return {Kind.TEXT: _text, Kind.NUMBER: _number, Kind.TIME: _moment, Kind.BOOL: _flag}[known.kind]


def _text(value: Any, path: Path) -> str:
    if not isinstance(value, str):
        raise _Refused(path, "The value must be text")
    if len(value) > _LONGEST_TEXT:
        raise _Refused(path, f"The value has more than {_LONGEST_TEXT} characters")
    if not is_storable(value):
        raise _Refused(path, "The value holds a NUL or an unpaired surrogate")
    return value


def _name(value: Any, path: Path) -> str:
    if not 0 < len(_text(value, path)) <= _LONGEST_NAME:
        raise _Refused(path, f"A name has 1 to {_LONGEST_NAME} characters")
    return str(value)


def _number(value: Any, path: Path) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(path, "The value must be a number")
    if not -_LARGEST <= value <= _LARGEST:  # also false for NaN
        raise _Refused(path, "The value must be a number between -10^15 and 10^15")
    return value


def _flag(value: Any, path: Path) -> bool:
    if not isinstance(value, bool):
        raise _Refused(path, "The value must be true or false")
    return value


def _choice(value: Any, known: Field, path: Path) -> str:
    if value not in known.choices:
        raise _Refused(path, f"The value must be one of {', '.join(known.choices)}")
    return str(value)


def _id(value: Any, path: Path) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _ID_DIGITS:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _BIGINT:
        raise _Refused(path, "The value must be an id")
    return value


def _days(value: Any, path: Path, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_DAYS:
        raise _Refused(path, f"This must be a whole number of days between {least} and {MOST_DAYS}")
    return value


def _moment(value: Any, path: Path) -> datetime | DaysAgo:
    if isinstance(value, Mapping) and set(value) == {"days_ago"}:
        return DaysAgo(_days(value["days_ago"], (*path, "days_ago")))
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise _Refused(path, 'The value must be RFC 3339 such as 2026-05-01T09:00:00Z, or {"days_ago": 30}')
    try:
        moment = datetime.fromisoformat(value.upper())
        if moment.tzinfo is None:
            raise _Refused(path, "A moment needs Z or an offset, as in 2026-05-01T09:00:00Z", is_zone=True)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Refused(path, "There is no such date or time") from None
    if not _FIRST <= moment < _LAST:
        raise _Refused(path, "A moment lies in the years 1970 to 2199")
    return moment


def _qualifiers(raw: Mapping[str, Any], known: Field, path: Path) -> Qualifiers:
    def given(key: str, read_one: Callable[[Any, Path], Any]) -> Any:
        value = raw.get(key) if key in known.qualifiers else None
        return None if value is None else read_one(value, (*path, key))

    event = given("event", _event_type)
    if event is None and "event" in known.qualifiers:
        raise _Refused((*path, "event"), f"{known.name} needs an 'event', the type of event that counts")
    within = given("within_days", lambda value, at: _days(value, at, least=1))
    since, until = given("since", _moment), given("until", _moment)
    if within is not None and (since is not None or until is not None):
        raise _Refused((*path, "within_days"), "Give within_days, or since and until, not both")
    if since is not None and until is not None and (since == until or _is_backwards(since, until)):
        raise _Refused((*path, "until"), "'until' must be after 'since'")
    return Qualifiers(
        event=event or "", campaign_id=given("campaign_id", _id), where=given("where", _where) or {},
        within_days=within, since=since, until=until, currency=given("currency", _currency),
    )  # fmt: skip


def _event_type(value: Any, path: Path) -> str:
    value = _text(value, path).strip()
    if not 0 < len(value) <= _LONGEST_TYPE:
        raise _Refused(path, f"An event type has 1 to {_LONGEST_TYPE} characters")
    return str(canonical(value))


def _where(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, Mapping) or len(value) > _MOST_WHERE:
        raise _Refused(path, f"'where' is an object of at most {_MOST_WHERE} properties and their values")
    for key, item in value.items():
        if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_NAME or not is_storable(key):
            raise _Refused(path, f"A property has a name of 1 to {_LONGEST_NAME} characters without NUL")
        place = (*path, key)
        if isinstance(item, str):
            _text(item, place)
        elif isinstance(item, int | float) and not isinstance(item, bool):
            _number(item, place)
        elif item is not None and not isinstance(item, bool):
            raise _Refused(place, "The value must be text, a number, true, false or null")
    return dict(value)


def _currency(value: Any, path: Path) -> str:
    if not isinstance(value, str) or value.upper() not in CURRENCIES:
        raise _Refused(path, "The value must be an ISO 4217 currency such as EUR")
    return value.upper()
