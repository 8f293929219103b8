"""Tags over HTTP: status, body, the rows and events behind them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService

TAGS, CONTACTS = "/api/v1/tags/", "/api/v1/contacts/"
UNKNOWN = ("987654321", "0", "-1", "1.0", "x", "9" * 30)


def name() -> str:
    return f"tag {uuid4().hex}"


def created(client: httpx.Client, **values: Any) -> dict[str, Any]:
    answer = client.post(TAGS, json={"name": name(), **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def new_contact(client: httpx.Client, **values: Any) -> dict[str, Any]:
    answer = client.post(CONTACTS, json={"email": f"{uuid4().hex}@shop.example", **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def rows(service: LiveService, sql: str, **binds: Any) -> list[tuple[Any, ...]]:
    with service.engine.begin() as tx:
        return [tuple(row) for row in tx.execute(text(sql), binds)]


def events(service: LiveService, contact_id: str) -> list[tuple[Any, ...]]:
    sql = """
        select event_type, properties from events
        where contact_id = cast(:id as bigint) and event_type like 'tag%' order by event_id
    """
    return rows(service, sql, id=contact_id)


def test_a_created_tag_has_the_defaults_of_the_contract(editor: httpx.Client, viewer: httpx.Client) -> None:
    wanted = name()
    answer = editor.post(TAGS, json={"name": f"  {wanted} ", "id": "1", "created_at": "1999-01-01T00:00:00Z"})
    made = answer.json()
    assert answer.status_code == 201
    assert {**made, "id": "", "created_at": ""} == {"id": "", "name": wanted, "color": "#3B82F6", "created_at": ""}
    assert made["id"].isdecimal() and made["created_at"].startswith("20") and made["created_at"].endswith("Z")
    assert viewer.get(f"{TAGS}{made['id']}").json() == made


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"color": "red"}, "color"),
        ({"color": "#12345"}, "color"),
        ({"color": "#1234567"}, "color"),
        ({"color": "#12345g"}, "color"),
        ({"color": "#123456\n"}, "color"),
        ({"color": "#\uff11\uff12\uff13\uff14\uff15\uff16"}, "color"),
        ({"color": None}, "color"),
    ],
)
def test_a_bad_value_is_422_and_named(editor: httpx.Client, values: dict[str, Any], key: str) -> None:
    answer = editor.post(TAGS, json={"name": name(), **values})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", key])
    made = created(editor)
    answer = editor.patch(f"{TAGS}{made['id']}", json=values)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", key])


def test_one_tag_per_name_whatever_its_case(editor: httpx.Client) -> None:
    made, other = created(editor), created(editor)
    for answer in (
        editor.post(TAGS, json={"name": made["name"].upper()}),
        editor.patch(f"{TAGS}{other['id']}", json={"name": made["name"].title()}),
    ):
        assert answer.status_code == 409
        assert (answer.json()["detail"], answer.json()["code"]) == ("Tag with this name already exists", "duplicate")
    louder = editor.patch(f"{TAGS}{made['id']}", json={"name": made["name"].upper()})
    assert (louder.status_code, louder.json()) == (200, {**made, "name": made["name"].upper()})


def test_of_fifty_parallel_creations_exactly_one_succeeds(service: LiveService) -> None:
    wanted = name()
    with service.client("editor") as client, ThreadPoolExecutor(25) as pool:
        codes = list(pool.map(lambda _: client.post(TAGS, json={"name": wanted}).status_code, range(50)))
    assert sorted(codes) == [201] + [409] * 49
    assert rows(service, "select count(*) from tags where name = :name", name=wanted) == [(1,)]


def test_patch_changes_only_what_is_sent(editor: httpx.Client) -> None:
    made = created(editor, color="#abcDEF")
    path = f"{TAGS}{made['id']}"
    assert editor.patch(path, json={}).json() == made
    assert editor.patch(path, json={"color": "#000000", "id": "1"}).json() == {**made, "color": "#000000"}
    assert editor.get(path).json() == {**made, "color": "#000000"}


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_an_unknown_id_is_404(editor: httpx.Client, unknown: str) -> None:
    contact, tag = new_contact(editor), created(editor)
    answers = [editor.request(method, f"{TAGS}{unknown}", json={}) for method in ("GET", "PATCH", "DELETE")]
    carried = f"{CONTACTS}{contact['id']}/tags/{unknown}"
    answers += [editor.post(carried), editor.delete(carried)]
    assert [(answer.status_code, answer.json()["detail"]) for answer in answers] == [(404, "Tag not found")] * 5
    nobody = f"{CONTACTS}{unknown}/tags/{tag['id']}"
    for answer in (editor.post(nobody), editor.delete(nobody)):
        assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")


def test_the_list_is_by_name_and_pages_without_gaps(service: LiveService, editor: httpx.Client) -> None:
    stem = uuid4().hex
    for part in ("b", "A", "c", "D"):
        created(editor, name=f"{part} {stem}")
    seen: list[str] = []
    path = f"{TAGS}?limit=2"
    while path:
        answer = editor.get(path)
        assert len(answer.json()) <= 2
        seen += [tag["name"] for tag in answer.json()]
        path = answer.links.get("next", {}).get("url", "")
    assert [tag for tag in seen if stem in tag] == [f"{part} {stem}" for part in ("A", "b", "c", "D")]
    assert len(seen) == len(set(seen)) == rows(service, "select count(*) from tags")[0][0]
    assert [tag["name"] for tag in editor.get(TAGS, params={"skip": 1, "limit": 500}).json()] == seen[1:501]
    assert int(answer.headers["X-Total-Count"]) == len(seen)
    assert [editor.get(TAGS, params=bad).status_code for bad in ({"limit": 0}, {"limit": 501})] == [422, 422]


def test_a_tag_goes_on_and_off_once(service: LiveService, editor: httpx.Client) -> None:
    contact, tag = new_contact(editor), created(editor)
    path = f"{CONTACTS}{contact['id']}/tags/{tag['id']}"
    for _ in range(2):
        answer = editor.post(path)
        assert (answer.status_code, answer.json()) == (200, {"message": "Tag added"})
    carried = editor.get(f"{CONTACTS}{contact['id']}").json()["tags"]
    assert carried == [{"id": tag["id"], "name": tag["name"], "color": tag["color"]}]
    for _ in range(2):
        answer = editor.delete(path)
        assert (answer.status_code, answer.json()) == (200, {"message": "Tag removed"})
    assert editor.get(f"{CONTACTS}{contact['id']}").json()["tags"] == []
    properties = {"tag_id": tag["id"], "tag_name": tag["name"]}
    assert events(service, contact["id"]) == [("tag_added", properties), ("tag_removed", properties)]


def test_parallel_taggings_are_one_event(service: LiveService, editor: httpx.Client) -> None:
    contact, tag = new_contact(editor), created(editor)
    path = f"{CONTACTS}{contact['id']}/tags/{tag['id']}"
    with service.client("editor") as client, ThreadPoolExecutor(10) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: client.post(path), range(20))} == {200}
    assert [event[0] for event in events(service, contact["id"])] == ["tag_added"]


def test_deleting_a_tag_takes_it_off_everybody_and_keeps_the_past(service: LiveService, editor: httpx.Client) -> None:
    tag = created(editor)
    carriers = [new_contact(editor, tag_ids=[tag["id"]]) for _ in range(2)]
    assert [contact["tags"][0]["id"] for contact in carriers] == [tag["id"]] * 2
    answer = editor.delete(f"{TAGS}{tag['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert editor.delete(f"{TAGS}{tag['id']}").status_code == 404
    assert [editor.get(f"{CONTACTS}{contact['id']}").json()["tags"] for contact in carriers] == [[], []]
    sql = "select contact_id from contact_tag_history where tag_id = cast(:id as bigint) order by contact_id"
    assert rows(service, sql, id=tag["id"]) == [(int(contact["id"]),) for contact in carriers]


def test_a_viewer_changes_nothing(viewer: httpx.Client, editor: httpx.Client) -> None:
    tag, contact = created(editor), new_contact(editor)
    carried = f"{CONTACTS}{contact['id']}/tags/{tag['id']}"
    for method, path in (("POST", TAGS), ("PATCH", f"{TAGS}{tag['id']}"), ("DELETE", f"{TAGS}{tag['id']}"),
                         ("POST", carried), ("DELETE", carried)):  # fmt: skip
        assert viewer.request(method, path, json={"name": name()}).status_code == 403


def test_every_change_is_in_the_audit_log(service: LiveService, editor: httpx.Client) -> None:
    tag, contact = created(editor), new_contact(editor)
    editor.patch(f"{TAGS}{tag['id']}", json={"color": "#000000"})
    editor.post(f"{CONTACTS}{contact['id']}/tags/{tag['id']}")
    editor.delete(f"{TAGS}{tag['id']}")
    sql = "select action, status from audit_log where resource_type = 'tag' and resource_id = :id order by audit_id"
    assert rows(service, sql, id=tag["id"]) == [("tag.create", 201), ("tag.update", 200), ("tag.delete", 204)]
    sql = "select action, changes from audit_log where resource_id = :id and action = 'contact.tag'"
    assert rows(service, sql, id=contact["id"]) == [("contact.tag", {"tag_id": tag["id"], "changed": True})]
