"""Templates over HTTP: versions, verdicts, previews, and who still needs one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService

TEMPLATES = "/api/v1/templates/"


def name() -> str:
    return f"t {uuid4().hex}"


def made(client: httpx.Client, **values: Any) -> dict[str, Any]:
    body = {"name": name(), "subject": "Hello {{ contact.first_name }}", "html_body": "<p>Hi</p>", **values}
    answer = client.post(TEMPLATES, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_template_has_the_defaults_of_the_contract(editor: httpx.Client, viewer: httpx.Client) -> None:
    given = {"name": f"  {name()} ", "subject": "s", "html_body": "<p>b</p>"}
    answer = editor.post(TEMPLATES, json=given)
    body = answer.json()
    assert answer.status_code == 201 and answer.headers["ETag"]
    shown = viewer.get(f"{TEMPLATES}{body['id']}")
    assert (shown.json(), shown.headers["ETag"]) == (body, answer.headers["ETag"])
    assert body.pop("id").isdecimal() and body.pop("created_at").endswith("Z")
    assert body == {
        "name": given["name"].strip(), "subject": "s", "html_body": "<p>b</p>", "text_body": "", "variables": [],
        "category": "general", "strict": False, "version": 1, "valid": True, "problems": [], "updated_at": None,
    }  # fmt: skip


def test_of_fifty_parallel_creations_exactly_one_succeeds(service: LiveService) -> None:
    body = {"name": name(), "subject": "s", "html_body": "b"}
    with service.client("editor") as client, ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda _: client.post(TEMPLATES, json=body), range(50)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 49
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["detail"] == "Template with this name already exists"


def test_a_faulty_template_is_kept_and_no_campaign_starts_with_it(editor: httpx.Client) -> None:
    faulty = made(editor, html_body="<p>\n{{ contact.first_name | shout }}</p>")
    assert faulty["valid"] is False
    assert [(one["part"], one["line"]) for one in faulty["problems"]] == [("html_body", 2)]
    assert "shout" in faulty["problems"][0]["message"]
    campaign = editor.post("/api/v1/campaigns/", json={"name": "n", "subject": "", "template_id": faulty["id"]})
    assert campaign.status_code == 201, campaign.text
    sent = editor.post(f"/api/v1/campaigns/{campaign.json()['id']}/send")
    assert (sent.status_code, sent.json()["code"]) == (422, "not_sendable")
    mended = editor.patch(f"{TEMPLATES}{faulty['id']}", json={"html_body": "<p>x</p>"}).json()
    assert (mended["valid"], mended["problems"], mended["version"]) == (True, [], 2)


@pytest.mark.parametrize(
    "change",
    [{"name": ""}, {"name": "  "}, {"name": "a\nb"}, {"name": "x" * 301}, {"subject": "a\r\nBcc: x"}, {"subject": None},
     {"html_body": "x" * (1024 * 1024 + 1)}, {"html_body": 3}, {"variables": "a"}, {"variables": [1]},
     {"category": "c" * 101}, {"strict": "yes"}, {"restore_version": 7}, {"restore_version": 0},
     {"restore_version": None}, {"text_body": "\ud800"}],
)  # fmt: skip
def test_a_bad_value_is_422_and_changes_nothing(editor: httpx.Client, change: dict[str, Any]) -> None:
    template = made(editor)
    path = f"{TEMPLATES}{template['id']}"
    answer = editor.patch(path, content=json.dumps(change).encode())
    assert answer.status_code == 422, answer.text
    assert editor.get(path).json() == template


def test_versions_are_kept_and_come_back(editor: httpx.Client, viewer: httpx.Client) -> None:
    template = made(editor, html_body="<p>one</p>", variables=["a"])
    path = f"{TEMPLATES}{template['id']}"
    assert editor.patch(path, json={"html_body": "<p>two</p>", "variables": []}).json()["version"] == 2
    renamed = editor.patch(path, json={"name": name(), "category": "x"}).json()
    assert (renamed["version"], renamed["html_body"]) == (2, "<p>two</p>")
    restored = editor.patch(path, json={"restore_version": 1}).json()
    assert (restored["version"], restored["html_body"], restored["variables"]) == (3, "<p>one</p>", ["a"])
    found = viewer.get(f"{path}/versions", params={"limit": 2})
    assert [(one["version"], one["html_body"]) for one in found.json()] == [(3, "<p>one</p>"), (2, "<p>two</p>")]
    assert found.json()[0]["created_by"].startswith("user:") and found.headers["X-Total-Count"] == "3"
    rest = viewer.get(found.headers["Link"].split(">")[0][1:]).json()
    assert [one["version"] for one in rest] == [1]
    assert editor.patch(path, json={}).json() == restored


def test_every_edit_changes_the_tag(editor: httpx.Client) -> None:
    template = made(editor)
    path = f"{TEMPLATES}{template['id']}"
    first = editor.get(path).headers["ETag"]
    second = editor.patch(path, json={"category": "other"}, headers={"If-Match": first}).headers["ETag"]
    assert first != second
    assert editor.patch(path, json={"category": "late"}, headers={"If-Match": first}).status_code == 412
    assert editor.delete(path, headers={"If-Match": first}).status_code == 412
    assert editor.delete(path, headers={"If-Match": second}).status_code == 204
    assert editor.delete(path).status_code == 404
    assert editor.get(path).json()["detail"] == "Template not found"


def test_the_list_is_by_name_and_pages_on(editor: httpx.Client, viewer: httpx.Client) -> None:
    category = uuid4().hex
    names = sorted(made(editor, name=f"{letter} {uuid4().hex}", category=category)["name"] for letter in "dbeac")
    page = viewer.get(TEMPLATES, params={"category": category, "limit": 2})
    assert page.headers["X-Total-Count"] == "5"
    found = [one["name"] for one in page.json()]
    while "Link" in page.headers:
        page = viewer.get(page.headers["Link"].split(">")[0][1:])
        found += [one["name"] for one in page.json()]
    assert found == names


def test_a_template_in_use_stays(service: LiveService, editor: httpx.Client) -> None:
    template = made(editor)
    path = f"{TEMPLATES}{template['id']}"
    campaign = editor.post(
        "/api/v1/campaigns/", json={"name": "Spring", "subject": "s", "template_id": template["id"]}
    ).json()
    refused = editor.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert "Spring" in refused.json()["detail"]
    with service.engine.begin() as tx:
        done = "update campaigns set status = 'cancelled' where campaign_id = cast(:id as bigint)"
        tx.execute(text(done), {"id": campaign["id"]})
        steps = json.dumps([{"type": "condition", "then": [{"action": "send_email", "template_id": template["id"]}]}])
        insert = "insert into workflows (name, active, steps) values ('W', true, cast(:steps as jsonb))"
        tx.execute(text(insert + " returning workflow_id"), {"steps": steps})
    assert "'W'" in editor.delete(path).json()["detail"]
    with service.engine.begin() as tx:
        tx.execute(text("update workflows set active = false where name = 'W'"))
    assert editor.delete(path).status_code == 204
    assert editor.get(f"/api/v1/campaigns/{campaign['id']}").json()["template_id"] is None


def test_rendering_shows_what_a_mail_would_show(editor: httpx.Client, viewer: httpx.Client) -> None:
    template = made(editor, html_body="<p>{{ contact.first_name }} {{ voucher }}</p>")
    path = f"{TEMPLATES}{template['id']}/render"
    body = {"variables": {"contact": {"first_name": "<b>Ana</b>"}}}
    answer = viewer.post(path, json=body)
    assert answer.status_code == 200
    found = answer.json()
    assert found["subject"] == "Hello <b>Ana</b>"
    assert "<p>&lt;b&gt;Ana&lt;/b&gt; </p>" in found["html_body"] and "<b>Ana</b>" in found["text_body"]
    assert any("voucher" in warning for warning in found["warnings"])
    strict = viewer.post(path, json={**body, "strict": True})
    assert (strict.status_code, strict.json()["code"]) == (400, "bad_request")
    assert strict.json()["detail"].startswith("Undefined variable: voucher")
    editor.patch(f"{TEMPLATES}{template['id']}", json={"html_body": "<p>new</p>"})
    assert "Ana" in viewer.post(path, json={**body, "version": 1}).json()["html_body"]
    assert "new" in viewer.post(path, json=body).json()["html_body"]
    assert viewer.post(path, json={**body, "version": 9}).status_code == 422
    assert viewer.post(path).status_code == 422


@pytest.mark.parametrize(
    ("html", "start"),
    [("{% if %}", "Template syntax error: "), ("{{ 1 / 0 }}", "Template error: "),
     ("{{ 'a' * 10**9 }}", "Template error: "), ("{% for x in range(99999999) %}x{% endfor %}", "Template error: ")],
)  # fmt: skip
def test_a_template_that_cannot_be_rendered_is_400(editor: httpx.Client, html: str, start: str) -> None:
    template = made(editor, html_body=html)
    answer = editor.post(f"{TEMPLATES}{template['id']}/render", json={})
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"].startswith(start)


def test_validation_names_part_and_line_and_saves_nothing(service: LiveService, viewer: httpx.Client) -> None:
    with service.engine.connect() as connection:
        before = connection.scalar(text("select count(*) from templates"))
    body = {"subject": "Hi {{ who }}", "html_body": "<p>\n\n{{ contact.nick }}", "text_body": "{% endif %}"}
    found = viewer.post(f"{TEMPLATES}validate", json=body).json()
    assert (found["valid"], [(one["part"], one["line"]) for one in found["errors"]]) == (False, [("text_body", 1)])
    body["text_body"] = ""
    found = viewer.post(f"{TEMPLATES}validate", json=body).json()
    assert (found["valid"], found["errors"], found["undeclared"]) == (True, [], ["contact.nick", "who"])
    found = viewer.post(f"{TEMPLATES}validate", json={**body, "strict": True}).json()
    assert [(one["part"], one["line"]) for one in found["errors"]] == [("html_body", 3), ("subject", 1)]
    found = viewer.post(f"{TEMPLATES}validate", json={**body, "variables": {"who": 1}}).json()
    assert found["undeclared"] == ["contact.nick"]
    found = viewer.post(f"{TEMPLATES}validate", json={"subject": "{{ 1 // 0 }}", "html_body": "x"}).json()
    assert (found["valid"], found["errors"][0]["part"]) == (False, "subject")
    with service.engine.connect() as connection:
        assert connection.scalar(text("select count(*) from templates")) == before
