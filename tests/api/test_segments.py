"""Segments over HTTP: status, body, members, figures, and what is refused where."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService

SEGMENTS, CONTACTS, CAMPAIGNS = "/api/v1/segments/", "/api/v1/contacts/", "/api/v1/campaigns/"
UNKNOWN = ("987654321", "0", "-1", "1.0", "x", "9" * 30)


def marker() -> str:
    return f"m{uuid4().hex}"


def rule(city: str, operator: str = "eq") -> dict[str, Any]:
    return {"field": "custom_fields.city", "operator": operator, "value": city}


def contact(client: httpx.Client, city: str = "", **values: Any) -> str:
    body = {"email": f"{uuid4().hex}@shop.example", "custom_fields": {"city": city} if city else {}, **values}
    answer = client.post(CONTACTS, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def created(client: httpx.Client, *rules: Any, **values: Any) -> dict[str, Any]:
    answer = client.post(SEGMENTS, json={"name": "Segment", "rules": list(rules), **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def path(segment: dict[str, Any], *more: str) -> str:
    return "/".join((f"{SEGMENTS}{segment['id']}", *more))


def members(client: httpx.Client, segment: dict[str, Any]) -> list[str]:
    answer = client.get(path(segment, "contacts"))
    assert answer.headers["X-Total-Count"] == str(len(answer.json()))
    return [row["id"] for row in answer.json()]


def rows(service: LiveService, sql: str, **binds: Any) -> list[tuple[Any, ...]]:
    with service.engine.begin() as tx:
        return [tuple(row) for row in tx.execute(text(sql), binds)]


def entered(service: LiveService, segment: dict[str, Any]) -> list[str]:
    sql = """
        select cast(contact_id as text) from events
        where event_type = 'segment_entered' and properties ->> 'segment_id' = :id order by event_id
    """
    return [row[0] for row in rows(service, sql, id=segment["id"])]


# --- keeping ---


def test_a_created_segment_has_the_defaults_of_the_contract(editor: httpx.Client, viewer: httpx.Client) -> None:
    answer = editor.post(SEGMENTS, json={"name": "  All  ", "id": "1", "contact_count": 7, "version": 9})
    made = answer.json()
    assert (answer.status_code, answer.headers["ETag"]) == (201, '"1"')
    moments = {name: made.pop(name) for name in ("id", "created_at", "evaluated_at")}
    assert moments["id"].isdecimal() and moments["created_at"].endswith("Z")
    assert made == {
        "name": "All", "description": "", "rules": [], "match_type": "all", "exclude_unsubscribed": False,
        "exclude_suppressed": False, "exclude_bounced": False, "exclude_campaign_ids": [], "contact_count": 0,
        "static_count": 0, "evaluation_status": "ready", "version": 1, "updated_at": None,
    }  # fmt: skip
    shown = viewer.get(f"{SEGMENTS}{moments['id']}")
    assert (shown.json(), shown.headers["ETag"]) == ({**made, **moments}, '"1"')


def test_a_segment_is_evaluated_with_its_creation(service: LiveService, editor: httpx.Client) -> None:
    city = marker()
    inside = [contact(editor, city) for _ in range(2)]
    contact(editor, marker())
    made = created(editor, rule(city.upper()))
    assert (made["contact_count"], made["evaluation_status"]) == (2, "ready") and made["evaluated_at"]
    assert members(editor, made) == inside[::-1], "newest first"
    assert sorted(entered(service, made)) == sorted(inside)
    reference = {"id": made["id"], "name": "Segment"}
    assert editor.get(f"{CONTACTS}{inside[0]}").json()["segments"] == [reference]
    listed = editor.get(CONTACTS, params={"segment_id": made["id"]}).json()
    assert [row["id"] for row in listed] == inside[::-1]


@pytest.mark.parametrize(
    ("values", "loc"),
    [
        ({"name": " "}, ["body", "name"]),
        ({"name": "x" * 201}, ["body", "name"]),
        ({"name": None}, ["body", "name"]),
        ({"description": "x" * 2001}, ["body", "description"]),
        ({"match_type": "some"}, ["body", "match_type"]),
        ({"rules": None}, ["body", "rules"]),
        ({"rules": {}}, ["body", "rules"]),
        ({"exclude_unsubscribed": "yes"}, ["body", "exclude_unsubscribed"]),
        ({"exclude_campaign_ids": ["987654321"]}, ["body", "exclude_campaign_ids", 0]),
        ({"exclude_campaign_ids": ["x"]}, ["body", "exclude_campaign_ids", 0]),
        ({"rules": [rule("x"), {"field": "shoe", "operator": "eq", "value": 1}]}, ["body", "rules", 1, "field"]),
        ({"rules": [{"any": [rule("x"), {**rule("x"), "operator": "like"}]}]},
         ["body", "rules", 0, "any", 1, "operator"]),
        ({"rules": [{"field": "segments", "operator": "in", "value": ["987654321"]}]},
         ["body", "rules", 0, "value", 0]),
    ],
)  # fmt: skip
def test_a_bad_value_is_422_and_named(editor: httpx.Client, values: dict[str, Any], loc: list[Any]) -> None:
    made = created(editor)
    for answer in (editor.post(SEGMENTS, json={"name": "s", **values}), editor.patch(path(made), json=values)):
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == loc
    assert editor.get(path(made)).json() == made


def test_patch_changes_only_what_is_sent_and_evaluates(service: LiveService, editor: httpx.Client) -> None:
    here, there = marker(), marker()
    one, other = contact(editor, here), contact(editor, there)
    made = created(editor, rule(here), description="Old")
    assert editor.patch(path(made), json={}).json() == made
    renamed = editor.patch(path(made), json={"name": "New"}).json()
    assert {**renamed, "updated_at": None} == {**made, "name": "New", "version": 2}
    answer = editor.patch(path(made), json={"rules": [rule(there)]})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"3"')
    assert (answer.json()["description"], answer.json()["contact_count"]) == ("Old", 1)
    assert members(editor, made) == [other]
    assert entered(service, made) == [one, other]


def test_a_number_that_becomes_a_truth_value_is_another_rule(editor: httpx.Client) -> None:
    def bought(gift: Any) -> dict[str, Any]:
        return {"field": "event.count", "event": "bought", "operator": "gte", "value": 1, "where": {"gift": gift}}

    made = created(editor, bought(1))
    answer = editor.patch(path(made), json={"rules": [bought(True)]})
    assert (answer.json()["version"], answer.json()["rules"][0]["where"]["gift"] is True) == (2, True)


def test_if_match_refuses_an_edit_of_an_old_copy(editor: httpx.Client) -> None:
    made = created(editor)
    old = {"If-Match": '"1"'}
    assert editor.patch(path(made), json={"description": "x"}, headers=old).status_code == 200
    assert editor.patch(path(made), json={"description": "y"}, headers=old).status_code == 412
    assert editor.post(path(made, "refresh"), headers=old).status_code == 412
    assert editor.delete(path(made), headers=old).status_code == 412
    assert editor.delete(path(made), headers={"If-Match": '"2"'}).status_code == 204


def test_the_list_is_newest_first_and_pages_without_gaps(service: LiveService, editor: httpx.Client) -> None:
    made = [created(editor)["id"] for _ in range(5)]
    seen: list[str] = []
    link = f"{SEGMENTS}?limit=2"
    while link and len(seen) < 5:
        answer = editor.get(link)
        seen += [row["id"] for row in answer.json()]
        link = answer.links.get("next", {}).get("url", "")
    assert seen[:5] == made[::-1]
    assert int(answer.headers["X-Total-Count"]) == rows(service, "select count(*) from segments")[0][0]
    assert editor.get(SEGMENTS, params={"limit": 201}).status_code == 422


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_an_unknown_id_is_404(editor: httpx.Client, unknown: str) -> None:
    made, someone = created(editor), contact(editor)
    answers = [editor.request(method, f"{SEGMENTS}{unknown}", json={}) for method in ("GET", "PATCH", "DELETE")]
    by_hand = f"{SEGMENTS}{unknown}/contacts/{someone}"
    answers += [editor.post(by_hand), editor.delete(by_hand), editor.post(f"{SEGMENTS}{unknown}/refresh")]
    answers += [editor.get(f"{SEGMENTS}{unknown}/{what}", params={"contact_id": someone})
                for what in ("contacts", "count", "explain")]  # fmt: skip
    pairs = ((made["id"], unknown), (unknown, made["id"]))
    answers += [editor.post(f"{SEGMENTS}overlap", json={"segment_a": a, "segment_b": b}) for a, b in pairs]
    assert {(answer.status_code, answer.json()["detail"]) for answer in answers} == {(404, "Segment not found")}
    nobody = path(made, "contacts", unknown)
    answers = [editor.post(nobody), editor.delete(nobody)]
    answers.append(editor.get(path(made, "explain"), params={"contact_id": unknown}))
    assert {(answer.status_code, answer.json()["detail"]) for answer in answers} == {(404, "Contact not found")}


def test_what_is_needed_is_not_deleted(editor: httpx.Client) -> None:
    made = created(editor)
    by_rule = created(editor, {"field": "segments", "operator": "in", "value": [made["id"]]})
    body = {"name": "c", "subject": "s", "html_body": "b", "segment_id": made["id"]}
    campaign = editor.post(CAMPAIGNS, json=body).json()["id"]
    answer = editor.delete(path(made))
    assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    assert editor.delete(f"{CAMPAIGNS}{campaign}").status_code == 204
    assert editor.delete(path(made)).json()["code"] == "in_use"
    assert [editor.delete(path(one)).status_code for one in (by_rule, made, made)] == [204, 204, 404]
    again = editor.post(CAMPAIGNS, json=body)
    assert (again.status_code, again.json()["detail"][0]["loc"]) == (422, ["body", "segment_id"])


def test_tags_and_campaigns_must_exist_when_they_are_named_first(editor: httpx.Client) -> None:
    opened = {"field": "event.count", "event": "email_opened", "operator": "gt", "value": 0, "campaign_id": "987654321"}
    tagged = {"any": [{"field": "tags", "operator": "not_in", "value": ["987654321"]}]}
    for target in (SEGMENTS, f"{SEGMENTS}preview"):
        answer = editor.post(target, json={"name": "Segment", "rules": [tagged, opened]})
        assert (answer.status_code, [one["loc"] for one in answer.json()["detail"]]) == (422, [
            ["body", "rules", 0, "any", 0, "value", 0], ["body", "rules", 1, "campaign_id"]])  # fmt: skip
    campaign = editor.post(CAMPAIGNS, json={"name": marker(), "subject": "s", "html_body": "<p>x</p>"}).json()["id"]
    tag = editor.post("/api/v1/tags/", json={"name": marker()}).json()["id"]
    rules = [{**opened, "campaign_id": campaign}, {"field": "tags", "operator": "in", "value": [tag]}]
    segment = created(editor, *rules, exclude_campaign_ids=[campaign])
    assert editor.delete(f"/api/v1/tags/{tag}").status_code == 204
    assert editor.delete(f"{CAMPAIGNS}{campaign}").status_code == 204
    # What was not sent is no reason to refuse what was.
    changed = editor.patch(path(segment), json={"match_type": "any"})
    assert (changed.status_code, changed.json()["match_type"]) == (200, "any")
    assert editor.patch(path(segment), json={"rules": [*rules, tagged]}).status_code == 422


def test_segments_in_a_circle_are_422(editor: httpx.Client) -> None:
    first = created(editor)
    to_first = {"field": "segments", "operator": "in", "value": [first["id"]]}
    second = created(editor, to_first)
    to_second = {"field": "segments", "operator": "not_in", "value": [second["id"]]}
    for rules in ([to_first], [{"none": [to_second]}]):
        answer = editor.patch(path(first), json={"rules": rules})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "rules"])
    assert editor.get(path(first)).json() == first


# --- by hand ---


def test_a_contact_is_added_and_removed_by_hand(service: LiveService, editor: httpx.Client) -> None:
    city = marker()
    by_rule, by_hand = contact(editor, city), contact(editor)
    made = created(editor, rule(city))
    for _ in range(2):
        answer = editor.post(path(made, "contacts", by_hand))
        assert (answer.status_code, answer.json()) == (200, {"message": "Contact added to segment"})
    assert members(editor, made) == [by_hand, by_rule]
    shown = editor.get(path(made)).json()
    assert (shown["contact_count"], shown["static_count"], shown["version"]) == (2, 1, 1)
    removed = {"message": "Contact removed from segment"}
    for who, params, still in ((by_hand, {}, False), (by_hand, {}, False), (by_rule, {}, True),
                               (by_rule, {"exclude": "true"}, False), (by_rule, {}, False)):  # fmt: skip
        answer = editor.delete(path(made, "contacts", who), params=params)
        assert (answer.status_code, answer.json()) == (200, {**removed, "still_member": still})
    assert members(editor, made) == []
    assert editor.post(path(made, "contacts", by_rule)).status_code == 200
    assert members(editor, made) == [by_rule]
    assert entered(service, made) == [by_rule, by_hand, by_rule]


def test_parallel_additions_are_one_event(service: LiveService, editor: httpx.Client) -> None:
    made, someone = created(editor), contact(editor)
    with service.client("editor") as client, ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: client.post(path(made, "contacts", someone)), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert entered(service, made) == [someone]
    assert members(editor, made) == [someone]


def test_the_members_page_by_cursor(editor: httpx.Client) -> None:
    city = marker()
    inside = [contact(editor, city) for _ in range(5)]
    made = created(editor, rule(city))
    seen: list[str] = []
    link = path(made, "contacts?limit=2")
    while link:
        answer = editor.get(link)
        seen += [row["id"] for row in answer.json()]
        link = answer.links.get("next", {}).get("url", "")
    assert seen == inside[::-1]
    foreign = path(created(editor), "contacts")
    cursor = editor.get(path(made, "contacts"), params={"limit": 2}).headers["X-Next-Cursor"]
    assert editor.get(foreign, params={"cursor": cursor}).json()["code"] == "invalid_cursor"


# --- looking ---


def test_a_preview_counts_and_saves_nothing(service: LiveService, viewer: httpx.Client, editor: httpx.Client) -> None:
    city = marker()
    inside = [contact(editor, city), contact(editor, city, subscribed=False), contact(editor, city)]
    before = rows(service, "select count(*) from segments")
    answer = viewer.post(f"{SEGMENTS}preview", json={"rules": [rule(city)], "sample": 2})
    found = answer.json()
    assert answer.status_code == 200
    assert (found["count"], found["mailable"]) == (3, 2)
    assert [row["id"] for row in found["sample"]] == inside[:0:-1]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(found["as_of"])).total_seconds()) < 60
    excluding = {"rules": [rule(city)], "exclude_unsubscribed": True, "sample": 0}
    found = viewer.post(f"{SEGMENTS}preview", json=excluding).json()
    assert (found["count"], found["mailable"], found["sample"]) == (2, 2, [])
    assert viewer.post(f"{SEGMENTS}preview", json={}).json()["count"] == 0, "no rules match nobody"
    assert rows(service, "select count(*) from segments") == before


@pytest.mark.parametrize(
    ("values", "loc"),
    [
        ({"sample": 51}, ["body", "sample"]),
        ({"sample": -1}, ["body", "sample"]),
        ({"rules": [{"field": "x"}]}, ["body", "rules", 0, "field"]),
        ({"exclude_campaign_ids": ["987654321"]}, ["body", "exclude_campaign_ids", 0]),
    ],
)
def test_a_bad_preview_is_422_and_named(viewer: httpx.Client, values: dict[str, Any], loc: list[Any]) -> None:
    answer = viewer.post(f"{SEGMENTS}preview", json={"rules": [], **values})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, loc)


def test_a_count_is_of_now_and_says_who_is_kept_out(viewer: httpx.Client, editor: httpx.Client) -> None:
    city = marker()
    plain, kept_out = contact(editor, city), contact(editor, city)
    contact(editor, city, subscribed=False)
    made = created(editor, rule(city), exclude_unsubscribed=True)
    editor.post(path(made, "contacts", contact(editor)))
    editor.delete(path(made, "contacts", kept_out), params={"exclude": "true"})
    contact(editor, city)
    found = viewer.get(path(made, "count")).json()
    assert found.pop("as_of").endswith("Z")
    assert found == {
        "segment_id": made["id"], "count": 3, "static_count": 1, "rule_count": 4,
        "excluded": {"static": 1, "unsubscribed": 1}, "mailable": 3,
    }  # fmt: skip
    assert len(members(editor, made)) == 2, "the list is of the last evaluation"
    assert plain in members(editor, made)


def test_an_explanation_says_why(viewer: httpx.Client, editor: httpx.Client) -> None:
    city = marker()
    inside, outside = contact(editor, city), contact(editor)
    made = created(editor, rule(city))
    found = viewer.get(path(made, "explain"), params={"contact_id": inside}).json()
    assert found.pop("as_of").endswith("Z")
    assert found == {
        "contact_id": inside, "member": True, "source": "rules", "static": None, "excluded_by": [],
        "nodes": [{"path": "0", "matched": True, "actual": city}],
    }  # fmt: skip
    editor.post(path(made, "contacts", outside))
    found = viewer.get(path(made, "explain"), params={"contact_id": outside}).json()
    assert (found["member"], found["source"], found["static"]) == (True, "static", "included")
    assert viewer.get(path(made, "explain")).status_code == 422


def test_a_refresh_is_queued(service: LiveService, editor: httpx.Client) -> None:
    city = marker()
    made = created(editor, rule(city))
    answer = editor.post(path(made, "refresh"))
    assert answer.status_code == 202
    assert answer.json() == {"message": "Segment queued for evaluation", "segment_id": made["id"]}
    shown = editor.get(path(made)).json()
    assert shown == {**made, "evaluation_status": "pending"}
    sql = "select evaluation_due_at <= now() from segments where segment_id = cast(:id as bigint)"
    assert rows(service, sql, id=made["id"]) == [(True,)]


def test_two_segments_are_compared(viewer: httpx.Client, editor: httpx.Client) -> None:
    city = marker()
    inside = [contact(editor, city) for _ in range(3)]
    one, other = created(editor, rule(city)), created(editor)
    for who in (inside[0], contact(editor)):
        editor.post(path(other, "contacts", who))
    answer = viewer.post(f"{SEGMENTS}overlap", json={"segment_a": one["id"], "segment_b": other["id"]})
    assert answer.status_code == 200
    assert answer.json() == {
        "audience_a": {"id": one["id"], "size": 3}, "audience_b": {"id": other["id"], "size": 2},
        "overlap": 1, "union": 4, "jaccard_index": 0.25,
    }  # fmt: skip


def test_every_change_and_every_look_by_post_is_in_the_audit_log(service: LiveService, editor: httpx.Client) -> None:
    made, someone = created(editor), contact(editor)
    editor.patch(path(made), json={"description": "x"})
    editor.post(path(made, "contacts", someone))
    editor.delete(path(made, "contacts", someone))
    editor.post(path(made, "refresh"))
    editor.delete(path(made))
    sql = "select action, status from audit_log where resource_type = 'segment' and resource_id = :id order by audit_id"
    assert rows(service, sql, id=made["id"]) == [
        ("segment.create", 201), ("segment.update", 200), ("segment.add_contact", 200),
        ("segment.remove_contact", 200), ("segment.refresh", 202), ("segment.delete", 204),
    ]  # fmt: skip
    count = "select count(*) from audit_log where action = 'segment.preview'"
    (before,), _ = rows(service, count)[0], editor.post(f"{SEGMENTS}preview", json={})
    assert rows(service, count) == [(before + 1,)]


def test_a_repeated_creation_with_one_key_is_one_segment(service: LiveService, editor: httpx.Client) -> None:
    name, key = marker(), {"Idempotency-Key": marker()}
    answers = [editor.post(SEGMENTS, json={"name": name}, headers=key) for _ in range(3)]
    assert len({answer.content for answer in answers}) == 1
    assert rows(service, "select count(*) from segments where name = :name", name=name) == [(1,)]
