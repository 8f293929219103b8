"""Who is in which part of an A/B test's audience, and who gets which variant: a hash of test and contact decides.

Promise: the same contact is in the same part and has the same variant for ever, whoever asks and however often; parts
and variants are independent of each other and between tests. Only who may be mailed is assigned at all. The draws are
the SQL function `ab_draw`; `draw` is the same in Python, and a property test compares both. Callers: planning, explain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Interval,
    Select,
    Text,
    case,
    cast,
    func,
    literal,
    null,
    select,
)

from mautolib.db import tables
from mautolib.ledger.model import AbPart, Skip

#: Numbers a draw can give: 13 hexadecimal digits.
DRAWS: Final = 16**13
_DIGITS: Final = 13
#: Which draw decides what.
_PART, _VARIANT = 0, 1


@dataclass(frozen=True, kw_only=True)
class Slices:
    """How an audience is divided.

    Args:
        variant_ids: of each variant, the control first.
        delays: how much later each variant is due.
        test_percentage, holdout_percentage: of those who may be mailed.
    """

    test_id: int
    variant_ids: Sequence[int]
    delays: Sequence[timedelta]
    test_percentage: float
    holdout_percentage: float = 0.0

    @property
    def bounds(self) -> tuple[int, int]:
        """Draws below the first are held out, those below the second are in the test."""
        ends = (self.holdout_percentage, self.holdout_percentage + self.test_percentage)
        held_out, tested = (min(DRAWS, round(end * DRAWS / 100)) for end in ends)
        return held_out, tested


def draw(test_id: int, contact_id: int, number: int) -> int:
    """The draw of a contact in a test, from 0 to DRAWS - 1: what the SQL function `ab_draw` gives."""
    digest = hashlib.sha256(f"ab_test:{test_id}:contact:{contact_id}".encode()).hexdigest()
    return int(digest[number * _DIGITS : (number + 1) * _DIGITS], 16)


def part_of(slices: Slices, contact_id: int) -> AbPart:
    """The part of the audience a contact is in, if it may be mailed."""
    held_out, tested = slices.bounds
    place = draw(slices.test_id, contact_id, _PART)
    return AbPart.HOLDOUT if place < held_out else AbPart.TEST if place < tested else AbPart.REST


def variant_of(slices: Slices, contact_id: int) -> int:
    """The variant a contact gets if it is in the test."""
    return slices.variant_ids[draw(slices.test_id, contact_id, _VARIANT) % len(slices.variant_ids)]


def is_held_out(slices: Slices, contact_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a contact is held out, in SQL."""
    return _draw(slices, contact_id, _PART) < slices.bounds[0]


def assigned(people: Select[Any], slices: Slices, content_ids: Sequence[Sequence[int]]) -> Select[Any]:
    """An audience with the part, variant, content and delay of everybody, as `ledger.queue.queue_audience` takes it.

    The rest has the control's content until the decision, and nobody's variant.

    Args:
        people: with the number of a language as content_id, from 0, and hold-outs by their reason.
        content_ids: by variant, then by that number.
    """
    # Each step is a subquery of its own (offset 0): flattened, every expression would be worked out a dozen times.
    who = people.offset(0).subquery("people")
    part = case(
        (who.c.reason == Skip.HOLDOUT.value, AbPart.HOLDOUT.value), (who.c.reason.is_not(None), null()),
        (_draw(slices, who.c.contact_id, _PART) < slices.bounds[1], AbPart.TEST.value), else_=AbPart.REST.value,
    )  # fmt: skip
    parts = select(*who.c, cast(part, Text).label("ab_part")).offset(0).subquery("parts")
    number = _draw(slices, parts.c.contact_id, _VARIANT) % len(slices.variant_ids)
    chosen = cast(case((parts.c.ab_part == AbPart.TEST.value, number), else_=0), Integer)
    drawn = select(*parts.c, chosen.label("variant_no")).offset(0).subquery("drawn").c
    is_tested = drawn.ab_part == AbPart.TEST.value
    id_type, languages = tables.messages.c.variant_id.type, len(content_ids[0])
    contents = [content_id for of_variant in content_ids for content_id in of_variant]
    delay = _item(slices.delays, Interval(), drawn.variant_no)
    return select(
        drawn.contact_id,
        _item(contents, id_type, drawn.variant_no * languages + drawn.content_id).label("content_id"),
        case((is_tested, _item(slices.variant_ids, id_type, drawn.variant_no))).label("variant_id"),
        drawn.timezone,
        drawn.reason,
        drawn.ab_part,
        case((is_tested, delay), else_=literal(timedelta(), Interval())).label("delay"),
    ).offset(0)


def _draw(slices: Slices, contact_id: ColumnElement[Any], number: int) -> ColumnElement[int]:
    return func.ab_draw(literal(slices.test_id, BigInteger), contact_id, number, type_=BigInteger)


def _item(items: Sequence[Any], kind: Any, number: ColumnElement[Any]) -> ColumnElement[Any]:
    """The item of a list by its number from 0, in SQL."""
    choices = {place: literal(item, kind) for place, item in enumerate(items)}
    return case(choices, value=number)
