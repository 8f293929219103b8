"""The one interpreter of segment rules: checked rules become conditions on table `contacts`.

Promise: identifiers come from fixed maps and every value of a rule is a bind parameter. Preview, count, explanation,
refresh and audience building all run what is made here. It opens no transaction and reads nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, false, select

from mautolib.db.tables import contacts
from mautolib.segments.rules import Definition


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What rules are evaluated against.

    Args:
        now: the moment relative times count from.
        reporting_currency: ISO code revenue is counted in unless a rule names another.
        segments: definitions of all segments the rules may refer to, directly or by another segment.
        segment_ids_by_name: ids by name in lower case; names are not unique.
    """

    now: datetime
    reporting_currency: str
    segments: Mapping[int, Definition] = field(default_factory=dict)
    segment_ids_by_name: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def condition(definition: Definition, setting: Setting) -> ColumnElement[bool]:
    """Whether the contact of table `contacts` satisfies the rules; never null.

    Raises:
        InvalidInput: a referenced segment is unknown, or segments refer to each other in a circle.
    """
    return false()


def exclusions(definition: Definition, setting: Setting) -> dict[str, ColumnElement[bool]]:
    """By reason (`unsubscribed`, `suppressed`, `bounced`, `campaign`): whether the contact is kept out."""
    return {}


def members(definition: Definition, setting: Setting, *, segment_id: int | None) -> Select[Any]:
    """Column `contact_id`: rules or added by hand, minus kept out by hand, minus exclusions."""
    return select(contacts.c.contact_id).where(condition(definition, setting))
