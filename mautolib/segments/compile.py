"""The one interpreter of segment rules: checked rules become conditions on table `contacts`.

Promise: identifiers come from fixed maps and every value of a rule is a bind parameter. Preview, count, explanation,
refresh and audience building all run what is made here. It opens no transaction and reads nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, false, literal, select

from mautolib.db.tables import contacts
from mautolib.segments.rules import Definition


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What rules are evaluated against.

    Args:
        now: the moment relative times count from.
        reporting_currency: ISO code revenue is counted in unless a rule names another.
        segments: definitions of all segments the rules may refer to, directly or by another segment.
        segment_ids_by_name: ids by name, case-blind; names are not unique.
    """

    now: datetime
    reporting_currency: str
    segments: Mapping[int, Definition] = field(default_factory=dict)
    segment_ids_by_name: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def condition(definition: Definition, setting: Setting, *, segment_id: int | None = None) -> ColumnElement[bool]:
    """Whether the contact of table `contacts` satisfies the rules: true, else false or null. For a WHERE clause.

    Args:
        segment_id: the segment the rules belong to, if any.

    Raises:
        InvalidInput: a referenced segment is unknown, or segments refer to each other in a circle.
    """
    return false()


def exclusions(definition: Definition, setting: Setting) -> dict[str, ColumnElement[bool]]:
    """By reason (`unsubscribed`, `suppressed`, `bounced`, `campaign`): whether the contact is kept out."""
    return {}


def members(definition: Definition, setting: Setting, *, segment_id: int | None = None) -> Select[Any]:
    """Column `contact_id`, each once: rules or added by hand, minus kept out by hand, minus exclusions."""
    return select(contacts.c.contact_id).where(condition(definition, setting))


def breakdown(definition: Definition, setting: Setting, *, segment_id: int | None = None) -> Select[Any]:
    """Everybody the rules match or who was added by hand, kept out or not, with boolean columns that say why.

    For counts: wrap it as a subquery and aggregate (`count(*) filter (where is_member)`). A condition inside a
    FILTER or CASE of one's own would be evaluated row by row, this is joined.

    Returns: columns `contact_id, by_rules, is_added, is_kept_out, is_unsubscribed, is_suppressed, is_bounced,
    is_in_campaign, is_member`, none of them null. An exclusion that the definition does not ask for is false.
    """
    columns = [literal(False).label(name) for name in ("by_rules", "is_added", "is_kept_out", "is_unsubscribed",
               "is_suppressed", "is_bounced", "is_in_campaign", "is_member")]  # fmt: skip
    return select(contacts.c.contact_id, *columns)
