"""Workflows over HTTP: drawn up and changed, started, looked into, and single enrollments taken by the hand."""

from __future__ import annotations

import itertools
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService

WORKFLOWS = "/api/v1/workflows/"
DELAY = {"type": "delay", "hours": 24}
TAG = {"action": "tag", "tag_name": "seen by a workflow"}
_NUMBERS = itertools.count()
_WAIT = text("select resume_at, until_at, resume_at <= now() as is_due from enrollments where enrollment_id = :id")


def contact(client: httpx.Client) -> str:
    made = client.post("/api/v1/contacts/", json={"email": f"w{uuid.uuid4().hex}@shop.example", "country": "PT"})
    return str(made.json()["id"])


def template(client: httpx.Client, **values: Any) -> str:
    body = {"name": f"t {uuid.uuid4()}", "subject": "Hello", "html_body": "<p>Hello</p>", **values}
    return str(client.post("/api/v1/templates/", json=body).json()["id"])


def segment(client: httpx.Client) -> str:
    return str(client.post("/api/v1/segments/", json={"name": f"s {uuid.uuid4()}"}).json()["id"])


def workflow(client: httpx.Client, *steps: dict[str, Any], **values: Any) -> dict[str, Any]:
    answer = client.post(WORKFLOWS, json={"name": f"w {next(_NUMBERS)}", "steps": list(steps), **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def trigger(client: httpx.Client, made: dict[str, Any], **body: Any) -> dict[str, Any]:
    answer = client.post(f"{WORKFLOWS}{made['id']}/trigger", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def inside(client: httpx.Client, made: dict[str, Any]) -> str:
    """The path of an enrollment that has just begun."""
    number = trigger(client, made, contact_id=contact(client))["enrollment_id"]
    return f"{WORKFLOWS}{made['id']}/enrollments/{number}"


def refused(answer: httpx.Response) -> list[tuple[list[Any], str]]:
    assert answer.status_code == 422, answer.text
    return [(item["loc"], item["msg"]) for item in answer.json()["detail"]]


# --- drawing up ---------------------------------------------------------------------------------------------------


def test_a_workflow_has_the_defaults_of_the_contract(editor: httpx.Client, viewer: httpx.Client) -> None:
    answer = editor.post(WORKFLOWS, json={"name": "  Bare  ", "id": "99", "version": 7, "colour": "red"})
    assert answer.status_code == 201
    made = answer.json()
    assert viewer.get(f"{WORKFLOWS}{made['id']}").json() == made
    assert made.pop("id").isdecimal() and made.pop("created_at").endswith("Z")
    assert made == {
        "name": "Bare", "trigger_type": "manual", "trigger_config": {}, "steps": [], "active": False,
        "re_entry": {"policy": "after_exit"}, "exit_on": [], "version": 1, "updated_at": None,
    }  # fmt: skip


def test_what_was_written_is_shown_again_with_notes_and_keys_no_trigger_knows(editor: httpx.Client) -> None:
    steps = [
        {"id": "a", "name": "Wait", "description": "a while", "meta": {"x": [1, {"y": None}]}, **DELAY},
        {"type": "condition", "field": "custom_fields.size", "operator": "in", "value": ["M", 5],
         "then": [{"type": "condition", "field": "score", "operator": "gte", "value": 10.5, "else": [TAG]}]},
    ]  # fmt: skip
    config = {"event_type": "order_placed", "where": {"currency": "EUR"}, "note": {"by": ["me"]}}
    re_entry = {"policy": "cooldown", "cooldown_hours": 1.5}
    made = workflow(editor, *steps, trigger_type="event", trigger_config=config, active=True, re_entry=re_entry,
                    exit_on=["unsubscribed", "own_type"])  # fmt: skip
    assert made["steps"] == steps and made["trigger_config"] == config and made["re_entry"] == re_entry
    assert made["exit_on"] == ["unsubscribed", "own_type"] and made["active"] is True


@pytest.mark.parametrize(
    ("body", "loc", "message"),
    [
        ({"name": " "}, ["name"], "not empty"),
        ({"name": "a" * 301}, ["name"], "300"),
        ({"name": "a\nb"}, ["name"], "single line"),
        ({"name": None}, ["name"], "string"),
        ({"trigger_type": "teleport"}, ["trigger_type"], "signup"),
        ({"trigger_type": None}, ["trigger_type"], "signup"),
        ({"trigger_config": []}, ["trigger_config"], "dictionary"),
        ({"trigger_type": "event", "active": True}, ["trigger_config", "event_type"], "required"),
        ({"trigger_type": "segment_entered", "active": True}, ["trigger_config", "segment_id"], "required"),
        ({"trigger_type": "segment_entered", "trigger_config": {"segment_id": "987654321"}},
         ["trigger_config", "segment_id"], "Segment not found"),
        ({"trigger_type": "date", "active": True}, ["trigger_config", "on"], "required"),
        ({"trigger_type": "anniversary", "active": True}, ["trigger_config", "field"], "required"),
        ({"active": "yes"}, ["active"], "boolean"),
        ({"re_entry": {"policy": "never"}}, ["re_entry", "policy"], "always, once, after_exit, cooldown"),
        ({"re_entry": {"policy": "cooldown"}}, ["re_entry", "cooldown_hours"], "required"),
        ({"exit_on": [""]}, ["exit_on", 0], "1 to 50"),
        ({"exit_on": [7]}, ["exit_on", 0], "1 to 50"),
        ({"steps": {}}, ["steps"], "list"),
        ({"steps": [DELAY, 5]}, ["steps", 1], "object"),
        ({"steps": [{"type": "teleport"}]}, ["steps", 0, "type"], "must be one of"),
        ({"steps": [{"action": "teleport"}]}, ["steps", 0, "action"], "must be one of"),
        ({"steps": [{**DELAY, "colour": 1}]}, ["steps", 0, "colour"], "Unknown key"),
        ({"steps": [{"action": "send_email", "template_id": "987654321"}]}, ["steps", 0, "template_id"],
         "Template not found"),
        ({"steps": [{"type": "condition", "field": "x", "value": 1, "else": [TAG, {"type": "delay", "hours": -1}]}]},
         ["steps", 0, "else", 1, "hours"], "more than 0"),
        ({"steps": [{"action": "send_email", "subject": "{{ x", "body": "b"}]}, ["steps", 0], ""),
        ({"steps": [DELAY] * 201}, ["steps", 200], "at most 200"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_at_its_place(
    editor: httpx.Client, body: dict[str, Any], loc: list[Any], message: str
) -> None:
    (found,) = refused(editor.post(WORKFLOWS, json={"name": "Faulty", **body}))
    assert found[0] == ["body", *loc]
    assert message in found[1]


def test_steps_nest_ten_deep(editor: httpx.Client) -> None:
    steps: list[Any] = [DELAY]
    for _ in range(9):
        steps = [{"type": "condition", "field": "x", "value": 1, "then": steps}]
    workflow(editor, *steps)
    deeper = [{"type": "condition", "field": "x", "value": 1, "then": steps}]
    ((loc, message),) = refused(editor.post(WORKFLOWS, json={"name": "Deep", "steps": deeper}))
    assert message == "Steps are nested more than 10 deep" and loc == ["body", "steps", *[0, "then"] * 10]


@pytest.mark.parametrize("value", ['"a\\u0000b"', '"\\ud800"', "1e999", "NaN", "[" * 40 + "]" * 40])
def test_hostile_values_are_refused(editor: httpx.Client, value: str) -> None:
    for body in ('"steps": [{"type": "exit", "meta": {"x": %s}}]', '"trigger_config": {"x": %s}',
                 '"re_entry": {"policy": %s}', '"exit_on": [%s]'):  # fmt: skip
        answer = editor.post(WORKFLOWS, content=f'{{"name": "Hostile", {body % value}}}')
        assert answer.status_code == 422, (body, answer.text)


# --- what it refers to --------------------------------------------------------------------------------------------


def test_a_template_of_an_active_workflow_is_in_use(editor: httpx.Client) -> None:
    number = template(editor)
    step = {"type": "condition", "field": "x", "value": 1, "else": [{"action": "send_email", "template_id": number}]}
    made = workflow(editor, step, active=True)
    path = f"/api/v1/templates/{number}"
    answer = editor.delete(path)
    assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    assert editor.patch(f"{WORKFLOWS}{made['id']}/deactivate").status_code == 200
    assert editor.delete(path).status_code == 204

    # What runs nevertheless says so; what is to start is refused; and the draft may still be renamed.
    done = trigger(editor, made, contact_id=contact(editor))
    assert done["results"][1]["error"] == "Template not found" and done["status"] == "completed"
    found = refused(editor.patch(f"{WORKFLOWS}{made['id']}/activate"))
    assert found == [(["body", "steps", 0, "else", 0, "template_id"], "Template not found")]
    assert editor.patch(f"{WORKFLOWS}{made['id']}", json={"name": "Renamed"}).json()["name"] == "Renamed"


def test_a_segment_of_an_active_workflow_is_in_use(editor: httpx.Client) -> None:
    number = segment(editor)
    config = {"segment_id": number}
    made = workflow(editor, trigger_type="segment_entered", trigger_config=config, active=True)
    answer = editor.delete(f"/api/v1/segments/{number}")
    assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    editor.patch(f"{WORKFLOWS}{made['id']}", json={"active": False})
    assert editor.delete(f"/api/v1/segments/{number}").status_code == 204
    found = refused(editor.patch(f"{WORKFLOWS}{made['id']}", json={"active": True}))
    assert found == [(["body", "trigger_config", "segment_id"], "Segment not found")]


def test_a_template_deleted_while_a_workflow_takes_it_is_found_out(service: LiveService, editor: httpx.Client) -> None:
    number = template(editor)
    body = {"name": "Race", "active": True, "steps": [{"action": "send_email", "template_id": number}]}
    with service.engine.begin() as tx, ThreadPoolExecutor(1) as pool:
        tx.execute(text("delete from templates where template_id = :id"), {"id": int(number)})
        answer = pool.submit(lambda: editor.post(WORKFLOWS, json=body))
        with pytest.raises(TimeoutError):
            answer.result(timeout=0.5)
        tx.commit()
        found = answer.result(timeout=10)
    assert refused(found) == [(["body", "steps", 0, "template_id"], "Template not found")]


def test_a_faulty_template_may_be_drawn_up_but_not_started(editor: httpx.Client) -> None:
    number = template(editor, html_body="{% if x %}")
    made = workflow(editor, {"action": "send_email", "template_id": number})
    ((loc, message),) = refused(editor.patch(f"{WORKFLOWS}{made['id']}/activate"))
    assert loc == ["body", "steps", 0, "template_id"] and message.startswith("The template is faulty")
    assert editor.patch(f"/api/v1/templates/{number}", json={"html_body": "<p>Better</p>"}).status_code == 200
    assert editor.patch(f"{WORKFLOWS}{made['id']}/activate").json()["active"] is True


def test_an_incomplete_trigger_is_refused_when_it_is_to_start(editor: httpx.Client) -> None:
    made = workflow(editor, trigger_type="event", trigger_config={"note": "later"})
    ((loc, _),) = refused(editor.patch(f"{WORKFLOWS}{made['id']}/activate"))
    assert loc == ["body", "trigger_config", "event_type"]
    editor.patch(f"{WORKFLOWS}{made['id']}", json={"trigger_config": {"event_type": "order_placed"}})
    started = editor.patch(f"{WORKFLOWS}{made['id']}/activate").json()
    assert (started["active"], started["version"]) == (True, 2)
    assert editor.patch(f"{WORKFLOWS}{made['id']}/deactivate").json()["active"] is False
    assert editor.get(f"{WORKFLOWS}{made['id']}").json()["version"] == 2


# --- changing -----------------------------------------------------------------------------------------------------


def test_versions_count_changes_of_trigger_and_steps_and_keep_who_is_inside(editor: httpx.Client) -> None:
    made = workflow(editor, DELAY)
    path = f"{WORKFLOWS}{made['id']}"
    first = inside(editor, made)
    assert editor.patch(path, json={"name": "Other", "exit_on": ["x"]}).json()["version"] == 1
    assert editor.patch(path, json={"steps": [DELAY, TAG]}).json()["version"] == 2
    inside(editor, made), inside(editor, made)
    assert editor.patch(path, json={"trigger_type": "signup"}).json()["version"] == 3
    assert editor.patch(path, json={"steps": [DELAY, TAG]}).json()["version"] == 3

    found = editor.get(f"{path}/versions")
    assert found.headers["x-total-count"] == "3"
    shown = [(item["version"], item["trigger_type"], len(item["steps"]), item["active_enrollments"])
             for item in found.json()]  # fmt: skip
    assert shown == [(3, "signup", 2, 0), (2, "manual", 2, 2), (1, "manual", 1, 1)]
    assert {item["created_by"] for item in found.json()} == {f"user:{editor.get('/api/v1/auth/me').json()['id']}"}
    assert editor.get(first).json()["version"] == 1
    editor.post(f"{first}/exit")
    assert editor.get(f"{path}/versions").json()[2]["active_enrollments"] == 0
    page = editor.get(f"{path}/versions", params={"limit": 1})
    rest = editor.get(f"{path}/versions", params={"limit": 1, "cursor": page.headers["x-next-cursor"]})
    assert [item["version"] for item in page.json() + rest.json()] == [3, 2]


def test_true_and_one_are_two_values(editor: httpx.Client) -> None:
    made = workflow(editor, {"type": "exit", "meta": {"x": 1}})
    changed = editor.patch(f"{WORKFLOWS}{made['id']}", json={"steps": [{"type": "exit", "meta": {"x": True}}]}).json()
    assert changed["steps"][0]["meta"]["x"] is True and changed["version"] == 2


def test_every_edit_has_its_own_tag_and_an_old_one_is_refused(editor: httpx.Client) -> None:
    made = workflow(editor, DELAY)
    path = f"{WORKFLOWS}{made['id']}"
    old = editor.get(path).headers["etag"]
    named = editor.patch(path, json={"name": "Newer"}, headers={"If-Match": old})
    assert named.status_code == 200 and named.headers["etag"] != old
    assert editor.patch(path, json={}).headers["etag"] == named.headers["etag"]
    stale = {"If-Match": old}
    for method, where in (("PATCH", path), ("PATCH", f"{path}/activate"), ("PATCH", f"{path}/deactivate"),
                          ("POST", f"{path}/trigger"), ("DELETE", path)):  # fmt: skip
        body = {} if where in (path, f"{path}/trigger") and method != "DELETE" else None
        assert editor.request(method, where, json=body, headers=stale).status_code == 412, (method, where)
    assert editor.get(path).json()["name"] == "Newer"
    assert editor.delete(path, headers={"If-Match": named.headers["etag"]}).status_code == 204


def test_twenty_edits_at_once_lose_nothing(service: LiveService, editor: httpx.Client) -> None:
    path = f"{WORKFLOWS}{workflow(editor)['id']}"

    def add(number: int) -> None:
        with service.client("editor") as client:
            while True:
                read = client.get(path)
                steps = [*read.json()["steps"], {"type": "exit", "reason": f"edit {number}"}]
                answer = client.patch(path, json={"steps": steps}, headers={"If-Match": read.headers["etag"]})
                if answer.status_code == 200:
                    return
                assert answer.status_code == 412, answer.text

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(add, range(20)))
    found = editor.get(path).json()
    assert sorted(step["reason"] for step in found["steps"]) == sorted(f"edit {number}" for number in range(20))
    assert found["version"] == 21
    versions = editor.get(f"{path}/versions").json()
    assert [len(item["steps"]) for item in versions] == list(range(20, -1, -1))


def test_edits_of_different_fields_at_once_are_all_kept(service: LiveService, editor: httpx.Client) -> None:
    path = f"{WORKFLOWS}{workflow(editor)['id']}"
    edits: list[dict[str, Any]] = [
        {"name": "Together"}, {"steps": [DELAY]}, {"trigger_type": "signup"}, {"trigger_config": {"source": "api"}},
        {"re_entry": {"policy": "once"}}, {"exit_on": ["x"]}, {"active": True},
    ]  # fmt: skip

    def edit(changes: dict[str, Any]) -> None:
        with service.client("editor") as client:
            assert client.patch(path, json=changes).status_code == 200

    with ThreadPoolExecutor(7) as pool:
        list(pool.map(edit, edits))
    found = editor.get(path).json()
    assert {name: found[name] for changes in edits for name in changes} == {
        name: value for changes in edits for name, value in changes.items()
    }
    assert found["version"] == 4


# --- by hand ------------------------------------------------------------------------------------------------------


def test_a_trigger_runs_up_to_the_first_wait_and_tells_the_results(service: LiveService, editor: httpx.Client) -> None:
    made = workflow(
        editor,
        {"type": "condition", "field": "country", "value": "pt", "then": [TAG]},
        {"type": "condition", "field": "coupon", "value": "X1", "else": [{"type": "exit"}]},
        DELAY, {"type": "exit"}, re_entry={"policy": "once"},
    )  # fmt: skip
    person = contact(editor)
    done = trigger(editor, made, contact_id=person, context={"coupon": "x1"}, colour="red")
    number = done.pop("enrollment_id")
    results = done.pop("results")
    assert done == {"workflow_id": made["id"], "contact_id": person, "steps_executed": 4, "status": "waiting"}
    assert [(item["step"], item["type"], item["path"]) for item in results] == [
        (0, "condition", "0"), (0, "action", "0.then.0"), (1, "condition", "1"), (2, "delay", "2"),
    ]  # fmt: skip
    assert results[0]["passed"] is True
    expected = {"success": True, "action": "tag", "tag_name": TAG["tag_name"]}
    assert expected.items() <= results[1].items()
    assert results[3]["hours"] == 24 and results[3]["noted"] is True

    found = editor.get(f"{WORKFLOWS}{made['id']}/enrollments/{number}").json()
    assert found.pop("results") == results
    # A day later; the log names the second.
    assert found.pop("resume_at")[:19] == results[3]["resume_at"][:19] != found.pop("entered_at")[:19]
    assert found == {
        "id": number, "workflow_id": made["id"], "version": 1, "contact_id": person, "status": "waiting",
        "step_path": "2", "waiting_for": None, "context": {"coupon": "x1"}, "exit_reason": None, "finished_at": None,
    }  # fmt: skip
    tags = [tag["name"] for tag in editor.get(f"/api/v1/contacts/{person}").json()["tags"]]
    assert tags == [TAG["tag_name"]]
    with service.engine.begin() as tx:
        facts = tx.execute(
            text("select event_name, data from outbox where data ->> 'enrollment_id' = :number"), {"number": number}
        ).all()
    data = {"workflow_id": made["id"], "enrollment_id": number, "contact_id": person}
    assert [tuple(fact) for fact in facts] == [("workflow.triggered", data)]
    # Once only counts for who comes by themselves.
    assert trigger(editor, made, contact_id=person)["enrollment_id"] != number


def test_a_trigger_without_a_contact_fails_what_needs_one(editor: httpx.Client) -> None:
    made = workflow(editor, TAG, {"type": "exit", "reason": "done"})
    done = trigger(editor, made)
    assert done["contact_id"] is None and done["status"] == "exited" and done["steps_executed"] == 2
    assert done["results"][0]["error"] == "Unknown action or no contact"
    found = editor.get(f"{WORKFLOWS}{made['id']}/enrollments/{done['enrollment_id']}").json()
    assert (found["contact_id"], found["exit_reason"], found["step_path"]) == (None, "done", "1")
    logs = editor.get(f"{WORKFLOWS}{made['id']}/logs").json()
    assert [(log["status"], log["step_path"], log["contact_id"]) for log in logs] == [
        ("completed", "1", None), ("failed", "0", None),
    ]  # fmt: skip


def test_a_condition_without_branches_skips_the_rest(editor: httpx.Client) -> None:
    made = workflow(editor, {"type": "condition", "field": "country", "value": "DE"}, TAG, {"type": "exit"})
    done = trigger(editor, made, contact_id=contact(editor))
    assert [item.get("skipped") for item in done["results"]] == [None, True, True]
    assert done["results"][0]["passed"] is False and done["status"] == "exited"
    logs = editor.get(f"{WORKFLOWS}{made['id']}/logs").json()
    assert sorted((log["step_index"], log["status"]) for log in logs) == [
        (0, "completed"), (1, "skipped"), (2, "skipped"),
    ]  # fmt: skip


def test_a_trigger_needs_a_body_a_workflow_and_a_contact_that_exist(editor: httpx.Client) -> None:
    made = workflow(editor, DELAY)
    path = f"{WORKFLOWS}{made['id']}/trigger"
    assert editor.post(path).status_code == 422
    for value in ("987654321", "x", "0", "-1", "٣"):
        answer = editor.post(path, json={"contact_id": value})
        assert (answer.status_code, answer.json()["detail"]) == (404, "Contact not found")
        answer = editor.post(f"{WORKFLOWS}{value}/trigger", json={"contact_id": value})
        assert (answer.status_code, answer.json()["detail"]) == (404, "Workflow not found")
    assert refused(editor.post(path, json={"context": []}))[0][0] == ["body", "context"]
    assert editor.get(f"{WORKFLOWS}{made['id']}/enrollments").json() == []


def test_a_trigger_repeated_under_its_key_takes_effect_once(editor: httpx.Client) -> None:
    made = workflow(editor, DELAY)
    path, headers = f"{WORKFLOWS}{made['id']}/trigger", {"Idempotency-Key": uuid.uuid4().hex}
    first, second = (editor.post(path, json={}, headers=headers) for _ in range(2))
    assert first.json() == second.json() and second.headers["idempotency-replayed"] == "true"
    assert len(editor.get(f"{WORKFLOWS}{made['id']}/enrollments").json()) == 1


# --- looking ------------------------------------------------------------------------------------------------------


def test_lists_are_filtered_counted_and_paged(editor: httpx.Client, viewer: httpx.Client) -> None:
    made = workflow(editor, DELAY, active=True)
    person = contact(editor)
    numbers = [trigger(editor, made, contact_id=person)["enrollment_id"] for _ in range(2)]
    numbers += [trigger(editor, made, contact_id=contact(editor))["enrollment_id"] for _ in range(3)]
    editor.patch(f"{WORKFLOWS}{made['id']}", json={"steps": [TAG]})
    numbers.append(trigger(editor, made, contact_id=contact(editor))["enrollment_id"])
    path = f"{WORKFLOWS}{made['id']}/enrollments"
    editor.post(f"{path}/{numbers[0]}/pause")

    def listed(**params: Any) -> list[str]:
        answer = viewer.get(path, params=params)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-total-count"] == str(len(answer.json()))
        return [item["id"] for item in answer.json()]

    assert listed() == numbers[::-1]
    assert listed(status="paused") == [numbers[0]]
    assert listed(status="completed") == [numbers[5]]
    assert listed(contact_id=person) == [numbers[1], numbers[0]]
    assert listed(contact_id=person, status="waiting") == [numbers[1]]
    assert listed(version=2) == [numbers[5]]
    assert listed(contact_id="0") == listed(contact_id="x") == listed(version=99) == []
    assert viewer.get(path, params={"status": "lost"}).status_code == 422
    pages, cursor = [], None
    while True:
        answer = viewer.get(path, params={"limit": 4, **({"cursor": cursor} if cursor else {})})
        assert answer.headers["x-total-count"] == "6"
        pages.append([item["id"] for item in answer.json()])
        cursor = answer.headers.get("x-next-cursor")
        if cursor is None:
            break
    assert pages == [numbers[:1:-1], numbers[1::-1]]
    assert viewer.get(f"{WORKFLOWS}987654321/enrollments").status_code == 404
    logs = viewer.get(f"{WORKFLOWS}{made['id']}/logs", params={"limit": 2})
    assert logs.headers["x-total-count"] == "6"
    assert [log["enrollment_id"] for log in logs.json()] == [numbers[5], numbers[4]]
    assert logs.json()[0].keys() == {
        "id", "workflow_id", "contact_id", "step_index", "status", "result", "created_at", "enrollment_id", "step_path"}


def test_workflows_are_listed_newest_first_by_activity(editor: httpx.Client, viewer: httpx.Client) -> None:
    active, idle = workflow(editor, active=True), workflow(editor)
    newest = viewer.get(WORKFLOWS, params={"limit": 2}).json()
    assert [item["id"] for item in newest] == [idle["id"], active["id"]]
    assert viewer.get(WORKFLOWS, params={"limit": 1, "active": True}).json() == [active]
    assert viewer.get(WORKFLOWS, params={"limit": 1, "active": False}).json() == [idle]


def test_an_enrollment_is_found_in_its_own_workflow_only(editor: httpx.Client) -> None:
    path = inside(editor, workflow(editor, DELAY))
    other = workflow(editor)
    number = path.rpartition("/")[2]
    for where in (f"{WORKFLOWS}{other['id']}/enrollments/{number}", f"{path}0", path.replace(number, "x")):
        for answer in (editor.get(where), editor.post(f"{where}/pause"), editor.post(f"{where}/exit", json={})):
            assert (answer.status_code, answer.json()["detail"]) == (404, "Enrollment not found")
    answer = editor.post(f"{WORKFLOWS}987654321/enrollments/{number}/resume")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Workflow not found")


# --- single enrollments -------------------------------------------------------------------------------------------


def test_pausing_keeps_what_is_waited_for_and_resuming_goes_on_with_it(editor: httpx.Client) -> None:
    path = inside(editor, workflow(editor, DELAY, {"type": "exit"}))
    before = editor.get(path).json()
    results = before.pop("results")
    paused = editor.post(f"{path}/pause", json={"reason": "holidays"})
    assert paused.json() == {**before, "status": "paused"}
    again = editor.post(f"{path}/pause")
    assert (again.status_code, again.json()["code"]) == (409, "invalid_state")
    assert editor.post(f"{path}/resume").json() == before
    assert editor.post(f"{path}/resume", json={}).status_code == 409
    assert editor.get(path).json() == {**before, "results": results}


def test_an_enrollment_whose_time_passed_while_it_was_paused_goes_on(
    service: LiveService, editor: httpx.Client
) -> None:
    path = inside(editor, workflow(editor, DELAY, {"type": "exit"}))
    number = int(path.rpartition("/")[2])
    for status in ("waiting", "running"):
        with service.engine.begin() as tx:
            tx.execute(
                text("update enrollments set status = :status, resume_at = now() - interval '2 days',"
                     " until_at = now() - interval '2 days' where enrollment_id = :id"),
                {"id": number, "status": status},
            )  # fmt: skip
        assert editor.post(f"{path}/pause").json()["status"] == "paused"
        resumed = editor.post(f"{path}/resume").json()
        assert resumed["status"] == status, "one that had not taken its step still has to"


def test_what_somebody_waits_for_is_looked_at_when_it_is_resumed(service: LiveService, editor: httpx.Client) -> None:
    wait = {"type": "wait_for_event", "event_type": "own_event", "timeout_hours": 48}
    path = inside(editor, workflow(editor, wait, {"type": "exit"}))
    before = editor.get(path).json()
    assert (before["status"], before["waiting_for"], before["results"]) == ("waiting", "own_event", [])
    editor.post(f"{path}/pause")
    with service.engine.begin() as tx:
        kept = tx.execute(_WAIT, {"id": int(path.rpartition("/")[2])}).one()
    assert kept.resume_at == kept.until_at
    resumed = editor.post(f"{path}/resume").json()
    assert (resumed["resume_at"], resumed["waiting_for"]) == (before["resume_at"], "own_event")
    with service.engine.begin() as tx:
        woken = tx.execute(_WAIT, {"id": int(path.rpartition("/")[2])}).one()
    assert (woken.is_due, woken.until_at) == (True, kept.until_at)


def test_ending_an_enrollment(editor: httpx.Client) -> None:
    path = inside(editor, workflow(editor, DELAY))
    ended = editor.post(f"{path}/exit", json={"reason": " bought on the phone "}).json()
    assert (ended["status"], ended["exit_reason"], ended["resume_at"]) == ("exited", "bought on the phone", None)
    assert ended["finished_at"] and ended["step_path"] == "0"
    for verb in ("exit", "pause", "resume"):
        answer = editor.post(f"{path}/{verb}", json={"reason": None})
        assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")
    paused = inside(editor, workflow(editor, DELAY))
    editor.post(f"{paused}/pause")
    assert editor.post(f"{paused}/exit").json()["exit_reason"] == "by hand"
    assert editor.post(f"{paused}/exit", json={"reason": "a" * 201}).status_code == 422
    assert editor.post(f"{paused}/exit", json={"reason": "a\nb"}).status_code == 422


def test_an_enrollment_that_is_being_moved_is_waited_for(service: LiveService, editor: httpx.Client) -> None:
    path = inside(editor, workflow(editor, DELAY))
    number = int(path.rpartition("/")[2])
    with ThreadPoolExecutor(1) as pool:
        with service.engine.begin() as tx:
            tx.execute(text("select 1 from enrollments where enrollment_id = :id for update"), {"id": number})
            answer = pool.submit(lambda: editor.post(f"{path}/exit", json={"reason": "late"}))
            with pytest.raises(TimeoutError):
                answer.result(timeout=0.5)
            tx.execute(
                text("update enrollments set status = 'completed', resume_at = null, finished_at = now()"
                     " where enrollment_id = :id"), {"id": number}
            )  # fmt: skip
        found = answer.result(timeout=10)
    assert (found.status_code, found.json()["detail"]) == (409, "An enrollment that is completed cannot be ended")
    shown = editor.get(path).json()
    assert (shown["status"], shown["exit_reason"], shown["step_path"]) == ("completed", None, None)


def test_of_many_who_end_it_at_once_one_does(service: LiveService, editor: httpx.Client) -> None:
    path = inside(editor, workflow(editor, DELAY))
    start = threading.Barrier(6)

    def end(number: int) -> int:
        with service.client("editor") as client:
            start.wait()
            return client.post(f"{path}/exit", json={"reason": f"by {number}"}).status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(end, range(6))) == [200, *[409] * 5]


# --- the end ------------------------------------------------------------------------------------------------------


def test_deleting_ends_enrollments_and_removes_logs(service: LiveService, editor: httpx.Client) -> None:
    made = workflow(editor, DELAY, active=True)
    path = f"{WORKFLOWS}{made['id']}"
    one, two, three = (inside(editor, made).rpartition("/")[2] for _ in range(3))
    editor.post(f"{path}/enrollments/{two}/pause")
    editor.post(f"{path}/enrollments/{three}/exit", json={"reason": "before"})
    assert len(editor.get(f"{path}/logs").json()) == 3
    assert editor.delete(path).status_code == 204
    assert editor.delete(path).status_code == 404
    assert editor.get(f"{path}/logs").json() == []
    for where in ("", "/versions", "/enrollments", f"/enrollments/{one}"):
        answer = editor.get(f"{path}{where}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "Workflow not found")
    assert editor.post(f"{path}/enrollments/{one}/resume").status_code == 404
    with service.engine.begin() as tx:
        ways = tx.execute(
            text("select enrollment_id, status, exit_reason, paused_from from enrollments where workflow_id = :id"
                 " order by 1"), {"id": int(made["id"])}
        ).all()  # fmt: skip
        logs = tx.scalar(text("select count(*) from workflow_logs where workflow_id = :id"), {"id": int(made["id"])})
    assert [tuple(way) for way in ways] == [
        (int(one), "exited", "workflow deleted", None), (int(two), "exited", "workflow deleted", None),
        (int(three), "exited", "before", None),
    ]  # fmt: skip
    assert logs == 0


def test_who_is_triggered_while_the_workflow_is_deleted_is_ended_too(
    service: LiveService, editor: httpx.Client
) -> None:
    made = workflow(editor, DELAY)
    person = contact(editor)
    start = threading.Barrier(5)

    def begin(number: int) -> int:
        with service.client("editor") as client:
            start.wait()
            if number == 0:
                return client.delete(f"{WORKFLOWS}{made['id']}").status_code
            return client.post(f"{WORKFLOWS}{made['id']}/trigger", json={"contact_id": person}).status_code

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(begin, range(5)))
    assert answers[0] == 204 and set(answers[1:]) <= {200, 404}
    with service.engine.begin() as tx:
        values = {"id": int(made["id"])}
        going = tx.scalar(text("select count(*) from enrollments where workflow_id = :id and finished_at is null"),
                          values)  # fmt: skip
        logs = tx.scalar(text("select count(*) from workflow_logs where workflow_id = :id"), values)
    assert (going, logs) == (0, 0)


@pytest.mark.parametrize(
    ("url", "said"),
    [("https://10.0.0.1/x", "not on the public internet"), ("http://shop.example/x", "https://"), ("x", "https://")],
)
def test_an_address_that_may_not_be_called_is_refused_with_its_place(
    editor: httpx.Client, url: str, said: str
) -> None:
    steps = [TAG, {"type": "condition", "field": "country", "value": "PT",
                   "then": [{"action": "webhook", "url": url}]}]  # fmt: skip
    rule = {"name": "r", "trigger_type": "ping", "actions": [{"type": "webhook", "config": {"url": url}}]}
    for path, body, loc in (
        (WORKFLOWS, {"name": "w", "steps": steps}, ["body", "steps", 1, "then", 0, "url"]),
        ("/api/v1/automation-rules/", rule, ["body", "actions", 0, "config", "url"]),
    ):
        answer = editor.post(path, json=body)
        assert answer.status_code == 422, answer.text
        [problem] = answer.json()["detail"]
        assert (problem["loc"], said in problem["msg"]) == (loc, True)


def test_a_call_is_in_line_after_the_trigger(service: LiveService, editor: httpx.Client) -> None:
    url = f"https://crm.shop.example/{uuid.uuid4()}"
    made = workflow(editor, {"action": "webhook", "url": url, "payload": {"n": 1}})
    person = contact(editor)
    done = editor.post(f"{WORKFLOWS}{made['id']}/trigger", json={"contact_id": person}).json()
    assert done["results"] == [
        {"step": 0, "type": "action", "path": "0", "success": True, "action": "webhook", "url": url}]  # fmt: skip
    nobody_s = editor.post(f"{WORKFLOWS}{made['id']}/trigger", json={}).json()
    assert nobody_s["results"][0]["error"] == "Unknown action or no contact"
    with service.engine.connect() as tx:
        [row] = tx.execute(text(
            "select deliveries.* from webhook_deliveries as deliveries inner join webhook_endpoints using (endpoint_id)"
            " where url = :url"), {"url": url}).all()  # fmt: skip
    assert (row.status, row.payload["data"]["contact"]["id"]) == ("pending", person)
    assert editor.get(f"/api/v1/webhooks/{row.endpoint_id}").status_code == 404
    assert all(one["url"] != url for one in editor.get("/api/v1/webhooks/?limit=200").json())
