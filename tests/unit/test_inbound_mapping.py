"""JSON paths of inbound sources: one value each, refused when saved, harmless when they lead nowhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib.errors import InvalidInput
from mautolib.webhooks.mapping import DEFAULT, apply_mapping, check_mapping, value_at

BODY: dict[str, Any] = {
    "a": {"b": [{"c d": 1}, {"it's": "x"}], "": 9}, "null": None, "list": [[1, 2], 3], "名": "ja", "a-b": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", BODY), ("$.a.b[0]['c d']", 1), ("$.a.b[1]['it\\'s']", "x"), ('$.a.b[1]["it\'s"]', "x"),
        ("$.list[0][1]", 2),
        ("$['名']", "ja"), ("$.名", "ja"), ("$.a-b", True), ("$.null", None), ("$.null.x", None), ("$.a.b[2]", None),
        ("$.a.b.c", None), ("$.list.0", None), ("$[0]", None), ("$.nothing[0].at['all']", None),
        ("$.list[999999]", None),
    ],
)  # fmt: skip
def test_a_path_leads_to_one_value_or_nowhere(path: str, value: object) -> None:
    assert value_at(BODY, path) == value


@pytest.mark.parametrize(
    "path",
    ["", "a", "$.", "$..a", "$.*", "$[*]", "$[-1]", "$[0:2]", "$[?(@.a)]", "$.a b", "$['a]", "$[']", "$['']", "$.a[",
     "$.a]", "$[1234567]", "$.a\n", " $", "$ .a", "$" + ".a" * 33, "$." + "a" * 500],
)  # fmt: skip
def test_what_is_no_single_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_mapping({"email": path})
    assert refused.value.path == ("body", "mapping", "email")


@pytest.mark.parametrize(
    ("mapping", "path"),
    [
        ({"name": "$.a"}, ("name",)), ({"type": 5}, ("type",)), ({"type": ""}, ("type",)),
        ({"email": None}, ("email",)),
        ({"properties": ["$.a"]}, ("properties",)), ({"properties": {"a": {"b": "$.c"}}}, ("properties", "a")),
        ({"properties": {"a": "$[*]"}}, ("properties", "a")), ({"external_id": "fixed"}, ("external_id",)),
        ({"properties": {str(n): "$.a" for n in range(101)}}, ("properties",)),
        ({"properties": {"": "$.a"}}, ("properties",)), ({"type": "x" * 501}, ("type",)),
    ],
)  # fmt: skip
def test_a_wrong_mapping_is_named(mapping: dict[str, Any], path: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_mapping(mapping)
    assert refused.value.path == ("body", "mapping", *path)


def test_a_mapping_makes_an_event() -> None:
    mapping = check_mapping({
        "type": "lead_created", "external_id": "$.lead.id", "email": "$.lead.mail", "occurred_at": "$.ts",
        "properties": {"form": "$.lead.form", "kind": "web", "gone": "$.no.where", "tags": "$.lead.tags"},
    })  # fmt: skip
    body = {"ts": 1777626000, "lead": {"id": 77, "mail": "ana@shop.example", "form": "trial", "tags": ["a"]}}
    assert apply_mapping(mapping, body) == {
        "type": "lead_created", "external_id": "77", "email": "ana@shop.example",
        "occurred_at": "2026-05-01T09:00:00+00:00", "properties": {"form": "trial", "kind": "web", "tags": ["a"]},
    }  # fmt: skip
    at = {"occurred_at": "$.t"}
    assert apply_mapping(at, {"t": 1777626000123})["occurred_at"].startswith("2026-05-01T09:00:00.12")
    assert apply_mapping(at, {"t": 1e300})["occurred_at"] == "1e+300"
    assert apply_mapping(at, {"t": True}) == {"occurred_at": True}
    assert apply_mapping(DEFAULT, {"type": "x", "source": "mauto", "other": 1}) == {"type": "x"}


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@settings(deadline=None, derandomize=True)
@given(st.lists(_NAMES | st.integers(0, 3), max_size=6), st.none() | st.integers() | st.text(max_size=5))
def test_every_quoted_name_and_index_is_found_again(steps: list[str | int], value: Any) -> None:
    body: Any = value
    path = "$"
    for step in reversed(steps):
        body = {step: body} if isinstance(step, str) else [*[None] * step, body]
    for step in steps:
        escaped = str(step).replace("\\", "\\\\").replace("'", "\\'")
        path += f"[{step}]" if isinstance(step, int) else f"['{escaped}']"
    assert value_at(body, path) == value


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(alphabet="$.[]'\"\\ab0*?@ 名", max_size=30))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        check_mapping({"email": text})
    except InvalidInput:
        return
    value_at(BODY, text)
    apply_mapping({"email": text}, json.loads(json.dumps(BODY)))
