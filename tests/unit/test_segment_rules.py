"""What a list of segment rules may say, and how precisely what it may not say is refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib.contacts.model import ConsentStatus
from mautolib.errors import InvalidInput
from mautolib.scoring.model import Grade, Stage
from mautolib.segments.fields import FIELDS, GRADES, STAGES
from mautolib.segments.operators import COMPLEMENT, OPERATORS, Kind, Operator, Shape, shape_of
from mautolib.segments.rules import DaysAgo, MatchType, check, fold, leaves, names, read, references

GOOD_VALUES: dict[tuple[Kind, Shape], Any] = {
    (Kind.TEXT, Shape.ONE): "x", (Kind.TEXT, Shape.LIST): ["x", ""],
    (Kind.NUMBER, Shape.ONE): 1.5, (Kind.NUMBER, Shape.LIST): [1, 2.5], (Kind.NUMBER, Shape.PAIR): [1, 2],
    (Kind.TIME, Shape.ONE): "2026-02-01T00:00:00Z", (Kind.TIME, Shape.PAIR): [{"days_ago": 9}, {"days_ago": 2}],
    (Kind.TIME, Shape.DAYS): 7, (Kind.BOOL, Shape.ONE): True,
    (Kind.TAGS, Shape.ONE): "vip", (Kind.SEGMENTS, Shape.ONE): "Buyers",
}  # fmt: skip


def good(field: str, operator: Operator) -> dict[str, Any]:
    """A rule that is fine."""
    known = FIELDS[field]
    rule: dict[str, Any] = {"field": field, "operator": str(operator)}
    shape = shape_of(operator)
    if known.kind == Kind.CHOICE and shape in (Shape.ONE, Shape.LIST):
        rule["value"] = known.choices[0] if shape == Shape.ONE else list(known.choices)
    elif known.kind in (Kind.TAGS, Kind.SEGMENTS) and shape == Shape.LIST:
        rule["value"] = ["7", "8"] if operator in (Operator.IN, Operator.NOT_IN) else ["a", "B"]
    elif shape != Shape.NOTHING:
        rule["value"] = GOOD_VALUES[(known.kind, shape)]
    if "event" in known.qualifiers:
        rule["event"] = "page_viewed"
    return rule


def refusal(rules: Any, match_type: str = "all") -> tuple[tuple[Any, ...], str]:
    """Where and why rules are refused."""
    with pytest.raises(InvalidInput) as refused:
        check(rules, match_type)
    return refused.value.path, str(refused.value)


def rule(**changes: Any) -> dict[str, Any]:
    return {"field": "country", "operator": "eq", "value": "DE", **changes}


EVENT = {"field": "event.count", "operator": "gte", "value": 1, "event": "page_viewed"}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_takes_every_operator_of_its_kind(field: str) -> None:
    for operator in OPERATORS[FIELDS[field].kind]:
        leaf, = leaves(read([good(field, operator)]))
        assert (leaf.field.name, leaf.operator) == (field, operator)


@pytest.mark.parametrize("field", FIELDS)
def test_an_operator_of_another_kind_is_refused_and_the_right_ones_named(field: str) -> None:
    allowed = OPERATORS[FIELDS[field].kind]
    for operator in set(Operator) - set(allowed):
        path, message = refusal([{**good(field, allowed[0]), "operator": str(operator)}])
        assert path == ("body", "rules", 0, "operator")
        assert ", ".join(allowed) in message and field in message


@pytest.mark.parametrize(("field", "wrong"), [
    ("country", 5), ("country", True), ("country", ["DE"]), ("country", {"days_ago": 1}), ("country", "a\0b"),
    ("country", "\ud800"), ("country", "x" * 1001),
    ("score", "5"), ("score", True), ("score", math.nan), ("score", math.inf), ("score", 10**16), ("score", 10**400),
    ("subscribed", "true"), ("subscribed", 1), ("grade", "a+"), ("grade", ["A"]), ("consent_status", "yes"),
    ("tags", 5), ("tags", ""), ("tags", "x" * 201),
])  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused_at_its_place(field: str, wrong: Any) -> None:
    operator = "has" if field == "tags" else "eq"
    path, _ = refusal([{"field": field, "operator": operator, "value": wrong}])
    assert path == ("body", "rules", 0, "value")


@pytest.mark.parametrize(("given", "code"), [
    ("2026-02-01T00:00:00", "timezone_required"), ("2026-02-01", None), ("2026-02-30T00:00:00Z", None),
    ("2026-02-01T25:00:00Z", None), ("1969-12-31T23:59:59Z", None), ("2200-01-01T00:00:00Z", None), (0, None),
    ("2026-02-01T00:00:00+24:00", None), ("0001-01-01T00:00:00+10:00", None), ("now", None), ({"days_ago": -1}, None),
    ({"days_ago": "3"}, None), ({"days_ago": 1.5}, None), ({"days_ago": 36501}, None), ({"days_ago": True}, None),
    ({"hours_ago": 1}, None), ({"days_ago": 1, "x": 1}, None), ("٢٠٢٦-02-01T00:00:00Z", None),
])  # fmt: skip
def test_a_moment_is_rfc_3339_with_a_zone_or_days_ago(given: Any, code: str | None) -> None:
    with pytest.raises(InvalidInput) as refused:
        check([{"field": "created_at", "operator": "after", "value": given}])
    assert refused.value.code == (code or "validation_error")
    assert refused.value.path[:4] == ("body", "rules", 0, "value")


def test_moments_are_read_with_their_zone() -> None:
    tree = read([{"field": "created_at", "operator": "between",
                  "value": ["2026-02-01t01:00:00.250+02:00", {"days_ago": 3}]}])  # fmt: skip
    leaf, = leaves(tree)
    assert leaf.value[0].isoformat() == "2026-01-31T23:00:00.250000+00:00"
    assert leaf.value[1] == DaysAgo(3)


@pytest.mark.parametrize(("broken", "path", "says"), [
    (None, (0,), "object"), ("country = DE", (0,), "object"), ([], (0,), "object"), ({}, (0, "field"), "missing"),
    ({"field": "country"}, (0, "operator"), "missing"), (rule(value=None), (0, "value"), "needs a value"),
    (rule(operator="is_set"), (0, "value"), "takes no value"), (rule(valeu="DE"), (0,), "valeu"),
    (rule(event="x"), (0, "event"), "does not apply to country"), (rule(**{"as": "number"}), (0, "as"), "not apply"),
    (rule(operator="in"), (0, "value"), "list"), (rule(operator="in", value=[]), (0, "value"), "1 to 1000"),
    (rule(operator="in", value=["x"] * 1001), (0, "value"), "1 to 1000"),
    (rule(operator="in", value=["x", 5]), (0, "value", 1), "text"),
    ({"field": "score", "operator": "between", "value": [1]}, (0, "value"), "two"),
    ({"field": "score", "operator": "between", "value": [2, 1]}, (0, "value"), "lower value first"),
    ({"field": "created_at", "operator": "between", "value": [{"days_ago": 1}, {"days_ago": 2}]}, (0, "value"),
     "lower"),
    ({"field": "created_at", "operator": "within_last_days", "value": 0}, (0, "value"), "between 1 and"),
    ({"field": "tags", "operator": "in", "value": ["vip"]}, (0, "value", 0), "id"),
    ({"field": "tags", "operator": "in", "value": ["0"]}, (0, "value", 0), "id"),
    ({"field": "tags", "operator": "in", "value": [10**5000]}, (0, "value", 0), "id"),
    ({"field": "segments", "operator": "in", "value": ["9" * 30]}, (0, "value", 0), "id"),
    ({"all": [], "id": "x"}, (0, "all"), "one or more"), ({"any": {}}, (0, "any"), "one or more"),
    ({"all": [rule()], "any": [rule()]}, (0,), "'any'"), ({"none": [rule()], "field": "email"}, (0,), "'field'"),
    (rule(meta=[]), (0, "meta"), "object"), (rule(name=5), (0, "name"), "text"), (rule(id=[]), (0, "id"), "id"),
    (rule(meta={"a": {"b": ["x\0"]}}), (0, "meta"), "NUL"), (rule(meta={"a\ud800": 1}), (0, "meta"), "surrogate"),
    (rule(description="\udfff"), (0, "description"), "surrogate"), (rule(meta={"a": math.nan}), (0, "meta"), "finite"),
    ({k: v for k, v in EVENT.items() if k != "event"}, (0, "event"), "needs an 'event'"),
    ({**EVENT, "event": ""}, (0, "event"), "1 to 50"), ({**EVENT, "event": "x" * 51}, (0, "event"), "1 to 50"),
    ({**EVENT, "within_days": 0}, (0, "within_days"), "days"),
    ({**EVENT, "within_days": 2.5}, (0, "within_days"), "days"),
    ({**EVENT, "within_days": 7, "since": {"days_ago": 3}}, (0, "within_days"), "not both"),
    ({**EVENT, "since": {"days_ago": 3}, "until": {"days_ago": 4}}, (0, "until"), "after"),
    ({**EVENT, "since": "2026-02-01"}, (0, "since"), "RFC 3339"),
    ({**EVENT, "campaign_id": "x"}, (0, "campaign_id"), "id"),
    ({**EVENT, "where": []}, (0, "where"), "object"),
    ({**EVENT, "where": {"a": []}}, (0, "where", "a"), "text, a number"),
    ({**EVENT, "where": {"a": "\0"}}, (0, "where", "a"), "NUL"), ({**EVENT, "where": {"": 1}}, (0, "where"), "name"),
    ({**EVENT, "where": {str(n): n for n in range(21)}}, (0, "where"), "at most 20"),
    ({"field": "event.last_at", "operator": "is_set", "event": "x", "within_days": 1}, (0, "within_days"), "apply"),
    ({**EVENT, "currency": "EUR"}, (0, "currency"), "does not apply"),
    ({"field": "order.revenue", "operator": "gt", "value": 1, "currency": "XXX"}, (0, "currency"), "4217"),
    ({"field": "custom_fields.a", "operator": "gt", "value": 1}, (0, "operator"), "eq, neq, contains"),
    ({"field": "custom_fields.a", "as": "bool", "operator": "is_set"}, (0, "operator"), "eq, neq"),
    ({"field": "custom_fields.a", "as": "date", "operator": "eq", "value": 1}, (0, "as"), "text, number, time, bool"),
    ({"field": "custom_fields", "operator": "is_set"}, (0, "field"), "Unknown field"),
    ({"field": "custom_fields.", "operator": "is_set"}, (0, "field"), "1 to 100"),
    ({"field": "custom_fields.a..b", "operator": "is_set"}, (0, "field"), "1 to 100"),
    ({"field": "custom_fields." + ".".join("abcdefghi"), "operator": "is_set"}, (0, "field"), "8 levels"),
    ({"field": "custom_fields.a\0", "operator": "is_set"}, (0, "field"), "NUL"),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(broken: Any, path: tuple[Any, ...], says: str) -> None:
    at, message = refusal([broken])
    assert at == ("body", "rules", *path)
    assert says in message


def test_a_place_deep_inside_is_the_whole_path_and_every_problem_is_told() -> None:
    rules = [rule(), {"any": [rule(), {"none": [rule(value=3), rule(operator="like")]}]}]
    with pytest.raises(InvalidInput) as refused:
        check(rules, path=("query", "x"))
    assert refused.value.path == ("query", "x", 1, "any", 1, "none", 0, "value")
    assert [path for path, _ in refused.value.problems] == [("query", "x", 1, "any", 1, "none", 1, "operator")]


def test_notes_are_kept_without_effect() -> None:
    notes = {"id": "r-1", "name": "Germans", "description": "", "meta": {"color": "#fff", "deep": [{"a": None}]}}
    check([rule(**notes), {"any": [rule(id=7)], **notes}])


def test_rules_are_a_list_and_joined_in_one_of_three_ways() -> None:
    assert refusal({"field": "country"})[0] == ("body", "rules")
    assert refusal("[]")[0] == ("body", "rules")
    assert refusal([], "some")[0] == ("body", "match_type")
    for join in MatchType:
        check([rule()], join)
    check([])


def nested(levels: int) -> list[Any]:
    found: dict[str, Any] = rule()
    for _ in range(levels):
        found = {"all": [found]}
    return [found]


def test_groups_nest_eight_deep_and_no_deeper() -> None:
    check(nested(8))
    path, message = refusal(nested(9))
    assert "more than 8 deep" in message
    assert path == ("body", "rules", 0, *["all", 0] * 8)
    refusal(nested(500))


def test_there_are_a_hundred_comparisons_and_no_more() -> None:
    check([rule()] * 60 + [{"any": [rule()] * 40}])
    path, message = refusal([rule()] * 60 + [{"any": [rule()] * 41}])
    assert path == ("body", "rules", 60, "any", 40)
    assert "more than 100" in message
    refusal([rule()] * 10_000)


def test_many_problems_are_cut_short() -> None:
    with pytest.raises(InvalidInput) as refused:
        check([rule(value=n) for n in range(90)])
    assert len(refused.value.problems) == 19


def test_the_words_of_other_layers_are_the_same() -> None:
    assert set(GRADES) == set(Grade)
    assert set(STAGES) == set(Stage)
    assert FIELDS["consent_status"].choices == tuple(ConsentStatus)


def test_complements_are_operators_of_the_same_kinds() -> None:
    for negative, positive in COMPLEMENT.items():
        assert shape_of(negative) == shape_of(positive)
        assert all((negative in allowed) <= (positive in allowed) for allowed in OPERATORS.values())


def test_synonyms_of_events_mean_the_stored_name() -> None:
    leaf, = leaves(read([{**EVENT, "event": " page_visited "}]))
    assert leaf.qualifiers.event == "page_viewed"


def test_segments_named_by_rules_are_found_wherever_they_stand() -> None:
    rules = [{"field": "segments", "operator": "in", "value": ["3", 4]},
             {"none": [{"field": "segments", "operator": "not_in", "value": ["5"]},
                       {"field": "segments", "operator": "has_all", "value": ["Größe", "VIP"]},
                       {"field": "segments", "operator": "has", "value": "ΝΙΚΟΣ"}]},
             {"field": "segments", "operator": "is_set"},
             {"field": "tags", "operator": "in", "value": ["6"]}]  # fmt: skip
    assert references(rules) == {3, 4, 5}
    assert names(rules) == {"größe", "vip", "νικοσ"}
    assert references([]) == names([]) == frozenset()


def test_case_is_folded_letter_by_letter() -> None:
    assert fold("Νικος") == fold("ΝΙΚΟΣ")
    assert fold("STRASSE") != fold("Straße") == fold("STRAẞE")
    assert fold("İstanbul") == fold("ISTANBUL")
    assert fold("ﬃ") == "ﬃ"


def test_the_rules_in_the_documentation_are_rules() -> None:
    page = (Path(__file__).parents[2] / "docs" / "segments.md").read_text(encoding="utf-8")
    section = page[page.index("## Rules") : page.index("## Over HTTP")]
    examples = re.findall(r"```json\n(.*?)```", section, re.S)
    assert len(examples) == 4
    for example in examples:
        check(json.loads(example))
    told = set(re.findall(r"[a-z_.]+", section))
    assert set(FIELDS) <= told
    assert {str(operator) for operator in Operator} <= told


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
              st.sampled_from(["field", "operator", "value", "all", "eq", "in", "event.count", "custom_fields.a"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
        st.one_of(st.sampled_from(["field", "operator", "value", "all", "any", "none", "event", "where", "as", "meta"]),
                  st.text(max_size=3)), inner, max_size=5)),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(rules=json_values)
@pytest.mark.thorough
def test_anything_is_either_read_or_refused_with_a_place(rules: Any) -> None:
    try:
        read(rules)
    except InvalidInput as error:
        assert error.path[:2] == ("body", "rules")
        return
    json.dumps(rules, allow_nan=False)
