"""Segment rules mean what they say: random rules over a small population, against a plain evaluation in Python.

The evaluation below is written from the language's description and shares nothing with the compiler. What it found
in a contact and what SQL found must be the same for every contact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, func, insert, select

from mautolib.db import tables
from mautolib.errors import InvalidInput, NotFound
from mautolib.segments.compile import Build, Setting, breakdown, condition, exclusions, members
from mautolib.segments.explain import Explanation, Source, explain
from mautolib.segments.rules import Definition, MatchType, fold, leaves, read
from tests.builders import make_contact, make_event, make_order, make_tag
from tests.integration.segment_population import (
    CAMPAIGNS,
    CURRENCIES,
    EVENT_TYPES,
    NAMES,
    NOW,
    OWN,
    PEOPLE,
    SEGMENTS,
    TAGS,
    WORDS,
    Population,
    Row,
    build,
    definition,
)

# ---------------------------------------------------------------------------------------------- the model

SPECIAL = {"ß": "ß", "ẞ": "ß", "İ": "i", "ı": "i", "ς": "σ", "ſ": "s"}


def plain(text: str) -> str:
    """A text without its case, letter by letter."""
    return "".join(SPECIAL.get(letter, letter.lower()) for letter in text)


def days(number: float) -> timedelta:
    return timedelta(days=number)


def instant(value: Any) -> datetime:
    return NOW - days(value["days_ago"]) if isinstance(value, dict) else datetime.fromisoformat(value)


def cents(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.0001"), ROUND_HALF_UP)


NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,2})?")


def custom(row: Row, rule: dict[str, Any]) -> Any:
    value: Any = row.custom
    for key in rule["field"].split(".")[1:]:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and re.fullmatch(r"-?\d+", key) and -len(value) <= int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    if value is None or isinstance(value, dict | list):
        return None
    kind = rule.get("as", "text")
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    if kind == "text":
        return text or None
    if kind == "bool":
        is_word = isinstance(value, bool | str)
        return {"true": True, "false": False}.get(text.lower()) if is_word else None
    if isinstance(value, bool):
        return None
    if kind == "number":
        return Decimal(text) if not isinstance(value, str) or NUMBER.fullmatch(text) else None
    try:
        if not isinstance(value, str):
            return None
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        found = datetime.fromisoformat(text.upper())
        return found if found.tzinfo and "W" not in text and len(text) > 19 else None
    except ValueError:
        return None


def in_window(at: datetime, rule: dict[str, Any]) -> bool:
    if rule.get("within_days") and not NOW - days(rule["within_days"]) <= at <= NOW:
        return False
    if rule.get("since") and at < instant(rule["since"]):
        return False
    return not (rule.get("until") and at >= instant(rule["until"]))


def event_value(row: Row, rule: dict[str, Any]) -> Any:
    wanted = {"page_visited": "page_viewed"}.get(rule["event"], rule["event"])
    found = sorted(
        event.at for event in row.events
        if event.type == wanted and in_window(event.at, rule)
        and (not rule.get("campaign_id") or event.campaign_id == int(rule["campaign_id"]))
        and all(key in event.properties and same_json(event.properties[key], value)
                for key, value in rule.get("where", {}).items())
    )  # fmt: skip
    if rule["field"] == "event.count":
        return len(found)
    return None if not found else found[0] if rule["field"] == "event.first_at" else found[-1]


def same_json(left: Any, right: Any) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def order_value(row: Row, rule: dict[str, Any], people: Population) -> Any:
    found = [order for order in row.orders if in_window(order.at, rule)]
    moments = sorted(order.at for order in found)
    amounts = [people.amount(order, rule.get("currency") or "USD") for order in found]
    known = [amount for amount in amounts if amount is not None]
    return {
        "order.count": len(found),
        "order.revenue": sum(known, Decimal(0)),
        "order.average_value": cents(sum(known, Decimal(0)) / len(known)) if known else None,
        "order.first_at": moments[0] if moments else None,
        "order.last_at": moments[-1] if moments else None,
    }[rule["field"]]


def value_of(row: Row, rule: dict[str, Any], people: Population) -> Any:
    field = rule["field"]
    if field.startswith("custom_fields."):
        return custom(row, rule)
    if field.startswith("event."):
        return event_value(row, rule)
    if field.startswith("order."):
        return order_value(row, rule, people)
    if field == "suppressed":
        return row.suppressed is not None
    value = row.columns[field]
    return None if value == "" else value


POSITIVE = {"neq": "eq", "not_contains": "contains", "not_in": "in", "not_set": "is_set", "has_none": "has_any",
            "not_within_last_days": "within_last_days"}  # fmt: skip


def leaf_holds(row: Row, rule: dict[str, Any], people: Population, own: int | None) -> bool:
    operator, wanted = rule["operator"], rule.get("value")
    if operator in POSITIVE:
        return not leaf_holds(row, {**rule, "operator": POSITIVE[operator]}, people, own)
    if rule["field"] in ("tags", "segments"):
        return set_holds(row, rule["field"], operator, wanted, people, own)
    value = value_of(row, rule, people)
    if value is None or operator == "is_set":
        return value is not None
    if operator == "within_last_days":
        return NOW - days(wanted) <= value <= NOW
    if isinstance(value, datetime):
        wanted = [instant(one) for one in wanted] if operator == "between" else instant(wanted)
    elif isinstance(value, str) and rule["field"] not in ("consent_status", "lifecycle_stage", "grade"):
        value = plain(value)
        wanted = [plain(one) for one in wanted] if isinstance(wanted, list) else plain(wanted)
        if operator == "contains":
            return wanted in value
        if operator in ("starts_with", "ends_with"):
            return bool(getattr(value, operator.replace("_", ""))(wanted))
    elif isinstance(value, Decimal):
        wanted = [Decimal(str(one)) for one in wanted] if isinstance(wanted, list) else Decimal(str(wanted))
    if operator == "between":
        return bool(wanted[0] <= value <= wanted[1])
    if operator == "in":
        return value in wanted
    return bool({
        "eq": lambda: value == wanted, "gte": lambda: value >= wanted,
        "gt": lambda: value > wanted, "after": lambda: value > wanted,
        "lt": lambda: value < wanted, "before": lambda: value < wanted, "lte": lambda: value <= wanted,
    }[operator]())  # fmt: skip


def set_holds(row: Row, field: str, operator: str, wanted: Any, people: Population, own: int | None) -> bool:
    if field == "tags":
        held = {plain(name) for name in row.tags}
        if operator == "in":
            return any(people.tag_ids[name] == int(one) for name in row.tags for one in wanted)
        if operator == "is_set":
            return bool(held)
        return ALL_OR_ANY[operator](plain(name) in held for name in ([wanted] if operator == "has" else wanted))
    if operator == "is_set":
        return bool(row.latest_segments - {own})
    if operator == "in":
        return any(is_member(row, int(one), people) for one in wanted)
    asked = [wanted] if operator == "has" else wanted
    return ALL_OR_ANY[operator](
        any(is_member(row, one, people) for one in people.segments_called(plain(name), plain)) for name in asked
    )


ALL_OR_ANY: dict[str, Any] = {"has": any, "has_any": any, "has_all": all}


def holds(row: Row, rule: dict[str, Any], people: Population, own: int | None) -> bool:
    for join in ("all", "any", "none"):
        if join in rule:
            results = [holds(row, child, people, own) for child in rule[join]]
            return {"all": all(results), "any": any(results), "none": not any(results)}[join]
    return leaf_holds(row, rule, people, own)


def by_rules(row: Row, asked: Definition, people: Population, own: int | None = None) -> bool:
    return bool(asked.rules) and holds(row, {str(asked.match_type): list(asked.rules)}, people, own)


def reasons(row: Row, asked: Definition) -> set[str]:
    found = set()
    if asked.exclude_unsubscribed and (not row.columns["subscribed"] or row.suppressed == "unsubscribe"):
        found.add("unsubscribed")
    if asked.exclude_suppressed and row.suppressed:
        found.add("suppressed")
    if asked.exclude_bounced and row.suppressed == "bounce":
        found.add("bounced")
    if row.sent_campaigns & set(asked.exclude_campaign_ids):
        found.add("campaign")
    return found


def is_in(row: Row, asked: Definition, people: Population, own: int | None = None) -> bool:
    if own in row.kept_out or reasons(row, asked):
        return False
    return own in row.added or by_rules(row, asked, people, own)


def is_member(row: Row, segment_id: int, people: Population) -> bool:
    return is_in(row, people.segments[segment_id], people, segment_id)


# ----------------------------------------------------------------------------------------- random rules

text_values = st.sampled_from([*WORDS, *(word[:2] for word in WORDS), *(word.swapcase() for word in WORDS), "", " "])
numbers = st.one_of(st.integers(-3, 60), st.sampled_from([0, 0.5, 12.5, 33.3333, 99.99, 1000000, -1, 50.0]))
offsets = st.sampled_from(["Z", "+00:00", "+05:30", "-08:00"])
moments = st.one_of(
    st.builds(lambda back, zone: (NOW - days(back)).strftime("%Y-%m-%dT%H:%M:%S") + zone,
              st.sampled_from([0, 0.25, 1, 6.9, 7, 7.25, 30, 31, 100, 400]), offsets),
    st.builds(lambda number: {"days_ago": number}, st.sampled_from([0, 1, 7, 30, 90, 365])),
)  # fmt: skip


def pair(values: st.SearchStrategy[Any], key: Any) -> st.SearchStrategy[Any]:
    return st.lists(values, min_size=2, max_size=2).map(lambda two: sorted(two, key=key))


def operands(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    def op(names: str, value: st.SearchStrategy[Any] | None) -> st.SearchStrategy[dict[str, Any]]:
        name = st.sampled_from(names.split())
        return st.fixed_dictionaries({"operator": name} if value is None else {"operator": name, "value": value})

    values = {"text": text_values, "number": numbers, "time": moments}[kind]
    found = [op("is_set not_set", None)]
    if kind == "text":
        found += [op("eq neq contains not_contains starts_with ends_with", values)]
    if kind in ("text", "number"):
        found += [op("in not_in", st.lists(values, min_size=1, max_size=4))]
    if kind == "number":
        found += [op("eq neq gt gte lt lte", values), op("between", pair(values, float))]
    if kind == "time":
        found += [op("before after gt gte lt lte", values), op("between", pair(values, instant)),
                  op("within_last_days not_within_last_days", st.sampled_from([1, 7, 8, 30, 365]))]  # fmt: skip
    return st.one_of(found)


def choice(words: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    one, some = st.sampled_from(words), st.lists(st.sampled_from(words), min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries({"operator": st.sampled_from(["eq", "neq"]), "value": one}),
        st.fixed_dictionaries({"operator": st.sampled_from(["in", "not_in"]), "value": some}),
        st.fixed_dictionaries({"operator": st.sampled_from(["is_set", "not_set"])}),
    )


def membership(names: list[str], ids: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    name = st.sampled_from([*names, *(one.swapcase() for one in names), "nobody has this"])
    return st.one_of(
        st.fixed_dictionaries({"operator": st.just("has"), "value": name}),
        st.fixed_dictionaries({"operator": st.sampled_from(["has_any", "has_all", "has_none"]),
                               "value": st.lists(name, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"operator": st.sampled_from(["in", "not_in"]),
                               "value": st.lists(ids, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"operator": st.sampled_from(["is_set", "not_set"])}),
    )  # fmt: skip


def merged(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})


def fields(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(names).map(lambda name: {"field": name})


flags = st.fixed_dictionaries({"operator": st.sampled_from(["eq", "neq"]), "value": st.booleans()})
window = st.one_of(
    st.just({}),
    st.builds(lambda number: {"within_days": number}, st.sampled_from([1, 7, 30, 365])),
    st.builds(lambda at: {"since": at}, moments),
    st.builds(lambda at: {"until": at}, moments),
    st.just({"since": {"days_ago": 90}, "until": "2026-02-20T12:00:00+01:00"}),
)
asked_events = merged(
    st.fixed_dictionaries({"event": st.sampled_from([*EVENT_TYPES, "page_visited", "never_seen"])}),
    st.one_of(st.just({}), st.sampled_from([{"campaign_id": str(one)} for one in CAMPAIGNS])),
    st.one_of(st.just({}), st.sampled_from([
        {"where": {"url": "/p/1"}}, {"where": {"url": "/P/1"}}, {"where": {"size": 3}}, {"where": {"size": "3"}},
        {"where": {"is_new": True}}, {"where": {"url": "/p/2", "size": 3.0}}, {"where": {"nothing": None}},
    ])),
)  # fmt: skip
paths = st.sampled_from(["plan", "Plan", "size", "since", "is_new", "address.city", "address", "list.0", "list.-1",
                         "list.x", "nowhere.at.all", "%", "a'->>'b", "quote\"d,{}"])  # fmt: skip


def custom_rule(kind: str, operands_of: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return merged(paths.map(lambda path: {"field": f"custom_fields.{path}", "as": kind}), operands_of)


leaf_rules = st.one_of(
    merged(fields("email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency",
                  "consent_source"), operands("text")),
    merged(fields("score", "engagement_score", "profile_score", "recency_score"), operands("number")),
    merged(fields("created_at", "updated_at", "consent_at"), operands("time")),
    merged(fields("subscribed", "suppressed"), flags),
    merged(fields("consent_status"), choice(["unknown", "pending", "granted", "withdrawn"])),
    merged(fields("lifecycle_stage"), choice(["new", "lead", "customer", "churned"])),
    merged(fields("grade"), choice(["A+", "B", "F"])),
    merged(fields("tags"), membership(TAGS, st.sampled_from(["1", "2", "3", "999999"]))),
    merged(fields("segments"), membership(NAMES, st.sampled_from([str(one) for one in SEGMENTS]))),
    custom_rule("text", operands("text")), custom_rule("number", operands("number")),
    custom_rule("time", operands("time")), custom_rule("bool", flags),
    merged(fields("event.count"), operands("number"), asked_events, window),
    merged(fields("event.first_at", "event.last_at"), operands("time"), asked_events),
    merged(fields("order.count", "order.revenue", "order.average_value"), operands("number"), window,
           st.sampled_from([{}, *({"currency": one} for one in CURRENCIES)])),
    merged(fields("order.first_at", "order.last_at"), operands("time"), window),
)  # fmt: skip
rules = st.recursive(
    leaf_rules,
    lambda inner: st.tuples(st.sampled_from(["all", "any", "none"]), st.lists(inner, min_size=1, max_size=3))
    .map(lambda made: {made[0]: made[1]}),
    max_leaves=6,
)  # fmt: skip
definitions = st.builds(
    definition,
    rules=st.lists(rules, max_size=3),
    match_type=st.sampled_from(list(MatchType)),
    exclude=st.sets(st.sampled_from(["exclude_unsubscribed", "exclude_suppressed", "exclude_bounced"])),
    campaigns=st.one_of(st.just(()), st.sampled_from([(1,), (1, 2)])),
)

# --------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def people(cluster: Any, template_database: str) -> Iterator[tuple[Engine, Population]]:
    from mautolib.db.engine import connect

    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    with engine.begin() as tx:
        population = build(tx)
    yield engine, population
    engine.dispose()
    cluster.drop(name)


def setting_of(population: Population) -> Setting:
    names: dict[str, tuple[int, ...]] = {}
    for segment_id, name in zip(SEGMENTS, NAMES, strict=True):
        names[fold(name)] = (*names.get(fold(name), ()), segment_id)
    return Setting(
        now=NOW, reporting_currency="USD", segments=population.segments, segment_ids_by_name=names,
        tag_ids_by_name={fold(name): (number,) for name, number in population.tag_ids.items()},
    )  # fmt: skip


def ids(tx: Connection, query: Any) -> list[int]:
    return sorted(tx.scalars(query))


def random_rules(examples: int) -> Any:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None,
                    suppress_health_check=list(HealthCheck))  # fmt: skip


def compare_members(engine: Engine, population: Population, asked: Definition, own: int | None) -> None:
    expected = [row.contact_id for row in population.rows if is_in(row, asked, population, own)]
    with engine.connect() as tx:
        assert ids(tx, members(asked, setting_of(population), segment_id=own)) == expected


@random_rules(200)
@given(asked=definitions, own=st.sampled_from([None, OWN]))
@pytest.mark.thorough
def test_sql_finds_whom_the_rules_describe(
    people: tuple[Engine, Population], asked: Definition, own: int | None
) -> None:
    compare_members(*people, asked, own)


@pytest.mark.slow
@random_rules(2000)
@given(asked=definitions, own=st.sampled_from([None, OWN]))
def test_sql_finds_whom_two_thousand_rules_describe(
    people: tuple[Engine, Population], asked: Definition, own: int | None
) -> None:
    compare_members(*people, asked, own)


@random_rules(40)
@given(asked=st.lists(leaf_rules, min_size=25, max_size=40))
@pytest.mark.thorough
def test_each_comparison_holds_for_whom_it_describes(
    people: tuple[Engine, Population], asked: list[dict[str, Any]]
) -> None:
    """Many at once, so that every operator of every field is met, and its complement with it."""
    engine, population = people
    build = Build(setting_of(population))
    truths = [build.truth(leaf) for leaf in leaves(read(asked))]
    columns = [func.coalesce(part, False) for truth in truths for part in truth]
    query = select(build.sources.people.c.contact_id, *columns).select_from(build.sources.joined())
    with engine.connect() as tx:
        found = {row[0]: row[1:] for row in tx.execute(query)}
    for row in population.rows:
        for number, rule in enumerate(asked):
            expected = holds(row, rule, population, None)
            assert found[row.contact_id][2 * number : 2 * number + 2] == (expected, not expected), rule


@random_rules(60)
@given(asked=definitions, own=st.sampled_from([None, OWN]), position=st.integers(0, PEOPLE - 1))
@pytest.mark.thorough
def test_explanations_counts_and_conditions_agree_with_the_members(
    people: tuple[Engine, Population], asked: Definition, own: int | None, position: int
) -> None:
    engine, population = people
    setting = setting_of(population)
    contacts = tables.contacts.c
    matching = {row.contact_id for row in population.rows if by_rules(row, asked, population, own)}
    row = population.rows[position]
    with engine.connect() as tx:
        wanted = condition(asked, setting, segment_id=own)
        assert set(tx.scalars(select(contacts.contact_id).where(wanted))) == matching
        for reason, kept_out in exclusions(asked, setting).items():
            expected = {row.contact_id for row in population.rows if reason in reasons(row, asked)}
            assert set(tx.scalars(select(contacts.contact_id).where(kept_out))) == expected, reason
        found = {one.contact_id: one for one in tx.execute(breakdown(asked, setting, segment_id=own))}
        told = explain(tx, asked, setting, contact_id=row.contact_id, segment_id=own)
    for one in population.rows:
        is_added, is_kept_out = own in one.added, own in one.kept_out
        assert (one.contact_id in found) == (is_added or one.contact_id in matching)
        if one.contact_id in found:
            why = reasons(one, asked)
            assert tuple(found[one.contact_id]) == (
                one.contact_id, one.contact_id in matching, is_added, is_kept_out, "unsubscribed" in why,
                "suppressed" in why, "bounced" in why, "campaign" in why, is_in(one, asked, population, own),
            )  # fmt: skip
    compare_explanation(told, row, asked, population, own, row.contact_id in matching)


def compare_explanation(
    told: Explanation, row: Row, asked: Definition, population: Population, own: int | None, matches: bool
) -> None:
    is_added = own in row.added
    assert told.member == is_in(row, asked, population, own)
    assert told.source == (Source.RULES if matches else Source.STATIC if is_added else Source.NONE)
    assert told.static == ("included" if is_added else "excluded" if own in row.kept_out else None)
    assert set(told.excluded_by) == reasons(row, asked)
    nodes = {node.path: node for node in told.nodes}
    expected = dict(every_node(asked.rules, ""))
    assert list(nodes) == list(expected)
    for path, rule in expected.items():
        assert nodes[path].matched == holds(row, rule, population, own), path
        if not {"all", "any", "none"} & rule.keys() and rule["field"] not in ("tags", "segments"):
            compare_actual(nodes[path].actual, value_of(row, rule, population))


def every_node(rules: Any, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, rule in enumerate(rules):
        yield f"{prefix}{number}", rule
        for join in ("all", "any", "none"):
            yield from every_node(rule.get(join, ()), f"{prefix}{number}.{join}.")


def compare_actual(actual: Any, expected: Any) -> None:
    if isinstance(expected, datetime):
        assert actual.endswith("Z") and datetime.fromisoformat(actual) == expected
    elif isinstance(expected, Decimal | float):
        assert actual == pytest.approx(float(expected))
    else:
        assert actual == expected


# --------------------------------------------------------------------------- one at a time, by their names

NOBODY = Setting(now=NOW, reporting_currency="USD")


def found(tx: Connection, *rules: dict[str, Any], setting: Setting = NOBODY, **more: Any) -> list[int]:
    return ids(tx, members(Definition(rules=rules, **more), setting))


def test_no_rules_match_nobody_whatever_joins_them(tx: Connection) -> None:
    make_contact(tx)
    for join in MatchType:
        assert found(tx, match_type=join) == []


def test_a_blank_is_a_missing_value_also_for_eq(tx: Connection) -> None:
    blank, named = make_contact(tx, first_name=""), make_contact(tx, first_name=" ")
    field = {"field": "first_name"}
    assert found(tx, {**field, "operator": "not_set"}) == [blank]
    assert found(tx, {**field, "operator": "is_set"}) == [named]
    assert found(tx, {**field, "operator": "eq", "value": ""}) == []
    assert found(tx, {**field, "operator": "neq", "value": ""}) == [blank, named]
    assert found(tx, {**field, "operator": "contains", "value": ""}) == [named]


@pytest.mark.parametrize("field", [
    {"field": "first_name"}, {"field": "custom_fields.n"}, {"field": "custom_fields.n", "as": "number"},
    {"field": "score"}, {"field": "order.count"},
])  # fmt: skip
@pytest.mark.parametrize("operator", ["in", "not_in"])
def test_a_long_list_finds_whom_short_ones_find(tx: Connection, field: dict[str, Any], operator: str) -> None:
    for number, name in ((0.1, "0.1"), (3, "νικος"), (1, ""), (None, "1")):
        custom = {} if number is None else {"n": number}
        contact = make_contact(tx, first_name=name, custom_fields=custom)
        if number is not None:
            tx.execute(insert(tables.contact_scores).values(
                contact_id=contact, total_score=number, engagement_score=0, profile_score=0, recency_score=0,
                grade="F", as_of=NOW, rule_version=1,
            ))  # fmt: skip
    is_number = field.get("as") == "number" or field["field"] in ("score", "order.count")
    few = [0.1, 3, 0] if is_number else ["0.1", "ΝΙΚΟΣ", "", "3"]
    others = [one / 8 + 100 for one in range(40)] if is_number else [f"n{one}" for one in range(40)]
    short = found(tx, {**field, "operator": operator, "value": few})
    assert found(tx, {**field, "operator": operator, "value": [*others, *few, *few]}) == short
    assert found(tx, {**field, "operator": operator, "value": others}) != short


def test_long_lists_are_one_bind_each() -> None:
    values = [str(one) for one in range(1000)]
    rules = [{"field": "custom_fields.a", "operator": "in", "value": values} for _ in range(99)]
    rules.append({"field": "tags", "operator": "has_all", "value": values})
    query = members(Definition(rules=tuple(rules), match_type=MatchType.ANY), NOBODY)
    assert len(query.compile().params) < 1000


def test_letters_with_several_small_forms_are_one(tx: Connection) -> None:
    upper, lower = make_contact(tx, first_name="ΝΙΚΟΣ"), make_contact(tx, first_name="Νικος")
    for value in ("νικος", "ΝΙΚΟΣ", "νικοσ"):
        assert found(tx, {"field": "first_name", "operator": "eq", "value": value}) == [upper, lower]


def test_revenue_is_net_of_refunds_and_converted_at_the_order_date(tx: Connection) -> None:
    one = make_contact(tx)
    make_order(tx, one, NOW - timedelta(days=20), total="100", currency="EUR", refunded_total="40", fx_rate="1.5")
    make_order(tx, one, NOW - timedelta(days=2), total="10")
    assert found(tx, {"field": "order.revenue", "operator": "eq", "value": 100}) == [one]
    assert found(tx, {"field": "order.revenue", "operator": "eq", "value": 10, "within_days": 7}) == [one]
    assert found(tx, {"field": "order.average_value", "operator": "eq", "value": 50}) == [one]
    # No rate from dollars to euros is known: that order adds nothing.
    assert found(tx, {"field": "order.revenue", "operator": "eq", "value": 60, "currency": "EUR"}) == [one]


def test_orders_converted_to_another_currency_are_converted_again(tx: Connection) -> None:
    one = make_contact(tx)
    tx.execute(insert(tables.fx_rates).values(base="EUR", quote="USD", rate="1.25", rate_date=NOW.date()))
    make_order(tx, one, NOW, total="80", currency="EUR", reporting_currency="GBP", fx_rate="0.8")
    assert found(tx, {"field": "order.revenue", "operator": "eq", "value": 100}) == [one]


def test_who_never_ordered_spent_nothing_but_has_no_average(tx: Connection) -> None:
    one = make_contact(tx)
    assert found(tx, {"field": "order.revenue", "operator": "lt", "value": 5}) == [one]
    assert found(tx, {"field": "order.average_value", "operator": "lt", "value": 5}) == []
    assert found(tx, {"field": "order.average_value", "operator": "not_set"}) == [one]
    assert found(tx, {"field": "order.last_at", "operator": "not_within_last_days", "value": 30}) == [one]


def test_a_window_of_time_has_its_first_moment_and_not_its_last(tx: Connection) -> None:
    one = make_contact(tx)
    make_event(tx, one, "page_viewed", NOW - timedelta(days=7))
    make_event(tx, one, "page_viewed", NOW + timedelta(minutes=3))
    count = {"field": "event.count", "event": "page_viewed", "operator": "eq", "value": 1}
    assert found(tx, {**count, "within_days": 7}) == [one]
    assert found(tx, {**count, "since": {"days_ago": 7}, "until": {"days_ago": 6}}) == [one]
    assert found(tx, {**count, "since": {"days_ago": 8}, "until": {"days_ago": 7}}) == []
    assert found(tx, {**count, "value": 2}) == [one]


def test_only_segments_that_exist_and_do_not_go_in_a_circle_can_be_compiled() -> None:
    def named(segment_id: int) -> Definition:
        return Definition(rules=({"field": "segments", "operator": "in", "value": [str(segment_id)]},))

    circle = Setting(now=NOW, reporting_currency="USD", segments={1: named(2), 2: named(1)})
    for asked, own in ((named(1), None), (named(2), 1), (named(1), 1)):
        with pytest.raises(InvalidInput, match="circle"):
            members(asked, circle, segment_id=own)
    with pytest.raises(InvalidInput, match="Segment 3 does not exist"):
        condition(named(3), circle)
    long = Setting(now=NOW, reporting_currency="USD",
                   segments={n: named(n + 1) for n in range(1, 60)} | {60: Definition()})  # fmt: skip
    with pytest.raises(InvalidInput, match="more than 20 one behind the other"):
        members(named(1), long)
    members(named(41), long)


def test_a_segment_named_twice_is_evaluated_once(tx: Connection) -> None:
    """Each level names the one below twice; written out that would be a million conditions."""
    levels = {0: Definition(rules=({"field": "country", "operator": "eq", "value": "XX"},))}
    for level in range(1, 20):
        below = {"field": "segments", "operator": "in", "value": [str(level)]}
        levels[level] = Definition(rules=(below, {"any": [below, {"none": [below]}]}))
    setting = Setting(now=NOW, reporting_currency="USD", segments={n + 1: one for n, one in levels.items()})
    one = make_contact(tx, country="xx")
    assert found(tx, {"field": "segments", "operator": "in", "value": ["20"]}, setting=setting) == [one]


def test_as_many_conditions_as_allowed_are_one_statement(tx: Connection) -> None:
    one = make_contact(tx)
    make_event(tx, one, "page_viewed", NOW - timedelta(hours=1))
    rules = [{"field": "event.count", "operator": "gte", "value": 1, "event": "page_viewed", "within_days": number}
             for number in range(1, 101)]  # fmt: skip
    assert found(tx, *rules) == [one]
    texts = {"field": "country", "operator": "not_in", "value": [f"c{number}" for number in range(1000)]}
    deep: dict[str, Any] = texts
    for _ in range(8):
        deep = {"none": [deep]}
    assert found(tx, deep) == [one]


def test_tags_are_told_by_their_names_and_an_unknown_contact_is_none(tx: Connection) -> None:
    one = make_contact(tx)
    known = {"vip": (make_tag(tx, "VIP", [one]),), "also": (make_tag(tx, "Also", [one]),)}
    setting = Setting(now=NOW, reporting_currency="USD", tag_ids_by_name=known)
    asked = Definition(rules=({"field": "tags", "operator": "has_all", "value": ["vip", "ALSO", "Vip"]},))
    node, = explain(tx, asked, setting, contact_id=one).nodes
    assert (node.path, node.matched, node.actual) == ("0", True, ["Also", "VIP"])
    with pytest.raises(NotFound, match="Contact not found"):
        explain(tx, asked, setting, contact_id=10**15)


def test_segments_are_told_by_the_ids_of_those_the_contact_is_in(tx: Connection) -> None:
    one = make_contact(tx, country="DE")
    segments = {8: Definition(rules=({"field": "country", "operator": "eq", "value": "de"},)), 9: Definition()}
    setting = Setting(now=NOW, reporting_currency="USD", segments=segments, segment_ids_by_name={"germans": (8,)})
    asked = Definition(rules=({"field": "segments", "operator": "not_in", "value": ["8", "9"]},
                              {"field": "segments", "operator": "has", "value": "GERMANS"},
                              {"field": "segments", "operator": "is_set"}))  # fmt: skip
    told = explain(tx, asked, setting, contact_id=one)
    assert [(node.matched, node.actual) for node in told.nodes] == [(False, ["8"]), (True, ["8"]), (False, [])]
    assert (told.member, told.source) == (False, Source.NONE)
