"""The one interpreter of segment rules: checked rules become conditions on table `contacts`.

Promise: identifiers come from fixed maps and every value of a rule is a bind parameter. Preview, count, explanation,
refresh and audience building all run what is made here. It opens no transaction and reads nothing itself.
A negation is carried down to the comparisons, so that everything above them is a plain AND or OR the planner can
turn into joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    true,
    union,
    union_all,
)

from mautolib.db import tables
from mautolib.db.tables import contacts
from mautolib.errors import InvalidInput
from mautolib.segments.comparing import Truth, certain, compare
from mautolib.segments.operators import COMPLEMENT, Kind, Operator
from mautolib.segments.rules import Definition, Leaf, MatchType, Node, fold, read
from mautolib.segments.sources import Sources

__all__ = ["Build", "Setting", "breakdown", "condition", "exclusions", "members"]

#: Most segments that rules may lead to, each counted once, and how many of them one behind the other.
MOST_SEGMENTS: Final = 100
MOST_CHAINED: Final = 20


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What rules are evaluated against.

    Args:
        now: the moment relative times count from.
        reporting_currency: ISO code revenue is counted in unless a rule names another.
        segments: definitions of all segments the rules may refer to, directly or by another segment.
        segment_ids_by_name: ids by `fold`ed name; names are not unique.
        tag_ids_by_name: the same of tags. Ids, because only of them the planner knows how many contacts have them:
            a join by name took 3 s for a tag of 200,000 contacts, by id 0.4 s.
    """

    now: datetime
    reporting_currency: str
    segments: Mapping[int, Definition] = field(default_factory=dict)
    segment_ids_by_name: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tag_ids_by_name: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def condition(definition: Definition, setting: Setting, *, segment_id: int | None = None) -> ColumnElement[bool]:
    """Whether the contact of table `contacts` satisfies the rules: true, else false or null. For a WHERE clause.

    Args:
        segment_id: the segment the rules belong to, if any.

    Raises:
        InvalidInput: a referenced segment is unknown, or segments refer to each other in a circle.
    """
    plain = Build(setting, contacts, segment_id=segment_id)
    found = plain.rules(definition)
    if not plain.sources.has_joins:
        return found
    build = Build(setting, segment_id=segment_id)
    found = build.rules(definition)
    return contacts.c.contact_id.in_(build.people(found))


def exclusions(definition: Definition, setting: Setting) -> dict[str, ColumnElement[bool]]:
    """By reason (`unsubscribed`, `suppressed`, `bounced`, `campaign`): whether the contact is kept out."""
    found: dict[str, ColumnElement[bool]] = {}
    blocked = tables.suppressions.alias()
    mine = blocked.c.email_key == contacts.c.email_key
    if definition.exclude_unsubscribed:
        left = exists().where(mine, blocked.c.reason == "unsubscribe").correlate(contacts)
        found["unsubscribed"] = or_(not_(contacts.c.subscribed), left)
    if definition.exclude_suppressed:
        found["suppressed"] = exists().where(mine).correlate(contacts)
    if definition.exclude_bounced:
        found["bounced"] = exists().where(mine, blocked.c.reason == "bounce").correlate(contacts)
    if definition.exclude_campaign_ids:
        sources = Sources(contacts, now=setting.now, currency=setting.reporting_currency)
        found["campaign"] = contacts.c.contact_id.in_(sources.sent(definition.exclude_campaign_ids))
    return found


def members(definition: Definition, setting: Setting, *, segment_id: int | None = None) -> Select[Any]:
    """Column `contact_id`, each once: rules or added by hand, minus kept out by hand, minus exclusions.

    Raises:
        InvalidInput: as `condition`.
    """
    return Build(setting, segment_id=segment_id).members(definition)


def breakdown(
    definition: Definition, setting: Setting, *, segment_id: int | None = None, contact_id: int | None = None
) -> Select[Any]:
    """Everybody the rules match or who was added by hand, kept out or not, with boolean columns that say why.

    For counts: wrap it as a subquery and aggregate (`count(*) filter (where is_member)`). A condition inside a
    FILTER or CASE of one's own would be evaluated row by row, this is joined.

    Args:
        contact_id: this contact alone, and also if nothing brings them in.

    Returns: columns `contact_id, by_rules, is_added, is_kept_out, is_unsubscribed, is_suppressed, is_bounced,
    is_in_campaign, is_member`, none of them null. An exclusion that the definition does not ask for is false.

    Raises:
        InvalidInput: as `condition`.
    """
    build = Build(setting, segment_id=segment_id, only=contact_id)
    by_rules = func.coalesce(build.rules(definition), false())
    is_added, is_kept_out = build.by_hand()
    reasons = build.exclusions(definition)
    parts = {f"is_{name}": reasons[name].holds if name in reasons else false() for name in
             ("unsubscribed", "suppressed", "bounced", "in_campaign")}  # fmt: skip
    is_candidate = or_(by_rules, is_added)
    is_member = and_(is_candidate, not_(is_kept_out), *(truth.fails for truth in reasons.values()))
    query = select(
        build.sources.people.c.contact_id, by_rules.label("by_rules"), is_added.label("is_added"),
        is_kept_out.label("is_kept_out"), *(func.coalesce(part, false()).label(name) for name, part in parts.items()),
        is_member.label("is_member"),
    ).select_from(build.sources.joined())  # fmt: skip
    return query.where(build.sources.people.c.contact_id == contact_id if contact_id is not None else is_candidate)


class _Shared(NamedTuple):
    """What one statement has once: queries of referenced segments."""

    members: dict[int, FromClause]


class Build:
    """The conditions of one definition over one list of contacts.

    Args:
        people: `contacts` itself, or None for an alias of it.
        only: look at this contact alone.
        trail: the segments on the way here, for finding circles.
    """

    def __init__(
        self, setting: Setting, people: FromClause | None = None, *, segment_id: int | None = None,
        only: int | None = None, trail: tuple[int, ...] = (), shared: _Shared | None = None,
    ) -> None:  # fmt: skip
        self._setting = setting
        self._segment_id = segment_id
        self._only = only
        self._trail = trail if segment_id is None else (*trail, segment_id)
        self._shared = shared or _Shared({})
        self.sources = Sources(contacts.alias() if people is None else people, now=setting.now,
                               currency=setting.reporting_currency, only=only)  # fmt: skip

    def rules(self, definition: Definition) -> ColumnElement[bool]:
        """Whether the rules hold; null counts as no."""
        if not definition.rules:
            return false()
        return self.condition(read(definition.rules, definition.match_type))

    def condition(self, node: Node, *, negated: bool = False) -> ColumnElement[bool]:
        """Whether a node holds, or with `negated` does not; null counts as no."""
        if isinstance(node, Leaf):
            truth = self.truth(node)
            return truth.fails if negated else truth.holds
        inside = negated != (node.join == MatchType.NONE)
        parts = [self.condition(child, negated=inside) for child in node.nodes]
        # none = and of complements; its complement = or of the nodes.
        every = (node.join == MatchType.ANY) == negated
        return and_(true(), *parts) if every else or_(false(), *parts)

    def truth(self, leaf: Leaf) -> Truth:
        """Whether a comparison holds, and its complement."""
        operator = COMPLEMENT.get(leaf.operator, leaf.operator)
        if leaf.field.kind == Kind.TAGS:
            found = certain(self._tags(leaf, operator))
        elif leaf.field.kind == Kind.SEGMENTS:
            found = certain(self._segments(leaf, operator))
        elif leaf.field.name == "suppressed":
            found = certain(self.sources.value(leaf.field, leaf.qualifiers))
            found = found if leaf.value else Truth(found.fails, found.holds)
        else:
            value = self.sources.value(leaf.field, leaf.qualifiers)
            found = compare(value, leaf, operator, self._setting.now)
        return found if operator == leaf.operator else Truth(found.fails, found.holds)

    def by_hand(self) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        """Whether the contact was added to the segment by hand, and whether it was kept out; never null."""
        if self._segment_id is None:
            return false(), false()
        decided = self.sources.by_hand(self._segment_id).c.is_excluded
        return decided.is_(False), decided.is_(True)

    def exclusions(self, definition: Definition) -> dict[str, Truth]:
        """By reason: whether the definition keeps the contact out."""
        found: dict[str, Truth] = {}
        if definition.exclude_unsubscribed:
            subscribed, reason = self.sources.people.c.subscribed, self.sources.suppression().c.reason
            found["unsubscribed"] = Truth(or_(not_(subscribed), reason == "unsubscribe"),
                                          and_(subscribed, reason.is_distinct_from("unsubscribe")))  # fmt: skip
        if definition.exclude_suppressed:
            found["suppressed"] = certain(self.sources.suppression().c.email_key.is_not(None))
        if definition.exclude_bounced:
            reason = self.sources.suppression().c.reason
            found["bounced"] = Truth(reason == "bounce", reason.is_distinct_from("bounce"))
        if definition.exclude_campaign_ids:
            found["in_campaign"] = certain(self.sources.was_sent(definition.exclude_campaign_ids))
        return found

    def members(self, definition: Definition) -> Select[Any]:
        """The members of a definition, column `contact_id`, each once."""
        rules = self.rules(definition)
        stay = [truth.fails for truth in self.exclusions(definition).values()]
        if self._segment_id is None:
            return self.people(rules, *stay)
        # Two lists that have nobody in common: an OR over both would keep the planner from joining.
        untouched = self.sources.by_hand(self._segment_id).c.segment_id.is_(None)
        matched = self.people(rules, untouched, *stay)
        return select(union_all(matched, self._added(definition)).subquery().c.contact_id)

    def _added(self, definition: Definition) -> Select[Any]:
        other = Build(self._setting, segment_id=self._segment_id, only=self._only)
        added, _ = other.by_hand()
        return other.people(added, *(truth.fails for truth in other.exclusions(definition).values()))

    def people(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        """The contacts for whom all conditions hold, column `contact_id`."""
        people = self.sources.people
        query = select(people.c.contact_id).select_from(self.sources.joined()).where(*conditions)
        return query if self._only is None else query.where(people.c.contact_id == self._only)

    def _tags(self, leaf: Leaf, operator: Operator) -> ColumnElement[bool]:
        if operator == Operator.IS_SET:
            return self.sources.has_tags()
        if operator == Operator.IN:
            return self.sources.has_tags(ids=leaf.value)
        names = dict.fromkeys(map(fold, leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)))
        tags = [_called(name, self._setting.tag_ids_by_name) for name in names]
        if operator == Operator.HAS_ALL and not all(tags):
            return false()
        if operator != Operator.HAS_ALL:
            return self.sources.has_tags(ids=tuple(one for found in tags for one in found))
        if all(len(found) == 1 for found in tags):
            return self.sources.has_tags(ids=tuple(one for found in tags for one in found), every=True)
        # The few characters that have one case here and two in the database's index.
        return and_(*(self.sources.has_tags(ids=found) for found in tags))

    def _segments(self, leaf: Leaf, operator: Operator) -> ColumnElement[bool]:
        if operator == Operator.IS_SET:
            return self.sources.is_in_any_segment(self._segment_id)
        if operator == Operator.HAS_ALL:
            known = self._setting.segment_ids_by_name
            return and_(*(self.is_in_segments(_called(name, known)) for name in dict.fromkeys(map(fold, leaf.value))))
        return self.is_in_segments(self.named_segments(leaf))

    def named_segments(self, leaf: Leaf) -> tuple[int, ...]:
        """The ids of the segments that a comparison names, by id or by name."""
        given = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        known = self._setting.segment_ids_by_name
        found = {one for value in given for one in ((value,) if isinstance(value, int) else _called(value, known))}
        return tuple(sorted(found))

    def is_in_segments(self, segment_ids: Iterable[int]) -> ColumnElement[bool]:
        """Whether the contact is a member of one of some segments, evaluated now; never null."""
        wanted = tuple(sorted(set(segment_ids)))
        if not wanted:
            return false()

        def query() -> FromClause:
            sources = [self._members_of(segment_id) for segment_id in wanted]
            if len(sources) == 1:
                return sources[0].alias()
            return union(*(select(source.c.contact_id) for source in sources)).subquery()

        return self.sources.is_among(("segments", wanted), query)

    def _members_of(self, segment_id: int) -> FromClause:
        if segment_id in self._trail:
            raise InvalidInput("Segments refer to each other in a circle", path=("body", "rules"))
        if segment_id not in self._shared.members:
            definition = self._setting.segments.get(segment_id)
            if definition is None:
                raise InvalidInput(f"Segment {segment_id} does not exist", path=("body", "rules"))
            if len(self._shared.members) >= MOST_SEGMENTS or len(self._trail) > MOST_CHAINED:
                message = (f"Rules lead to more than {MOST_SEGMENTS} other segments, or to more than {MOST_CHAINED} "
                           "one behind the other")  # fmt: skip
                raise InvalidInput(message, path=("body", "rules"))
            build = Build(self._setting, segment_id=segment_id, only=self._only, trail=self._trail,
                          shared=self._shared)  # fmt: skip
            self._shared.members[segment_id] = build.members(definition).cte()
        return self._shared.members[segment_id]


def _called(name: str, ids_by_name: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The ids of a name; none of an unknown one."""
    return ids_by_name.get(fold(name), ())
