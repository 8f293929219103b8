"""A/B tests at the API: their life, what is refused, results told from elsewhere, and one by hand from end to end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from mautolib.campaigns import experiment_steps
from tests.api.test_campaign_life import CAMPAIGNS, campaign, finished, person, planned, pumped, unique
from tests.builders import make_contact, make_hit, make_order
from tests.live_service import LiveService

TESTS = "/api/v1/ab-tests/"
TWO = [{"name": "Short", "subject": "Spring"}, {"name": "Long", "subject": "Spring, at last, is here"}]


def draft(client: httpx.Client, **values: Any) -> dict[str, Any]:
    body = {"name": f"test {unique()}", "variants": TWO, **values}
    if "campaign_id" not in body:
        body["campaign_id"] = campaign(client)["id"]
    answer = client.post(TESTS, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(answer: httpx.Response) -> tuple[int, str, Any]:
    body = answer.json()
    return answer.status_code, body["code"], body["detail"]


def observe(client: httpx.Client, test: dict[str, Any], position: int, event_type: str, count: int = 1) -> None:
    body = {"variant_id": test["variants"][position]["id"], "event_type": event_type}
    for _ in range(count):
        assert client.post(f"{TESTS}{test['id']}/events", json=body).status_code == 200


def told(service: LiveService, test: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    query = "select event_name, data from outbox where data ->> 'test_id' = :id order by outbox_id"
    with service.engine.begin() as tx:
        found = tx.execute(text(query), {"id": test["id"]}).all()
    return [(row.event_name, row.data["decision"], row.data["variant_id"]) for row in found]


def test_a_new_test_is_a_draft_with_the_defaults(editor: httpx.Client, viewer: httpx.Client) -> None:
    made = campaign(editor)
    test = draft(editor, campaign_id=made["id"], name="  Subjects  ")
    variants = [test["variants"][0].pop("id"), test["variants"][1].pop("id")]
    assert len(set(variants)) == 2
    none_yet = {
        "total_sent": 0, "total_opened": 0, "total_clicked": 0, "total_bounced": 0, "total_conversions": 0,
        "revenue": "0.00", "open_rate": 0.0, "click_rate": 0.0, "is_winner": False,
    }  # fmt: skip
    given = {"html_body": None, "locales": {}, "send_delay_minutes": 0, **none_yet}
    assert {name: value for name, value in test.items() if name not in ("id", "created_at")} == {
        "campaign_id": made["id"], "name": "Subjects", "test_type": "subject", "status": "draft",
        "winner_variant_id": None, "winner_metric": "open_rate", "auto_select_winner": True, "test_percentage": 20.0,
        "wait_hours": 4, "holdout_percentage": 0.0, "no_winner_action": "control", "decision": None,
        "variants": [{**TWO[0], "is_control": True, **given}, {**TWO[1], "is_control": False, **given}],
        "started_at": None, "completed_at": None,
    }  # fmt: skip
    shown = viewer.get(f"{TESTS}{test['id']}").json()
    assert [each["id"] for each in shown["variants"]] == variants
    assert viewer.get(TESTS, params={"campaign_id": made["id"]}).json() == [shown]


def test_everything_given_is_kept(editor: httpx.Client) -> None:
    variants = [
        {"name": "Same", "subject": None, "html_body": "<p>A</p>", "send_delay_minutes": 0},
        {"name": "Same", "html_body": "<p>B</p>", "send_delay_minutes": 10080,
         "locales": {"pt-BR": {"subject": "Olá", "html_body": "<p>C</p>"}}},
    ]  # fmt: skip
    test = draft(
        editor, variants=variants, test_type="content", winner_metric="conversion", auto_select_winner=False,
        test_percentage=50, wait_hours=72, holdout_percentage=0.5, no_winner_action="hold",
    )  # fmt: skip
    assert (test["winner_metric"], test["test_type"]) == ("conversion_rate", "content")
    assert test["no_winner_action"] == "hold" and test["auto_select_winner"] is False
    assert (test["test_percentage"], test["holdout_percentage"], test["wait_hours"]) == (50.0, 0.5, 72)
    assert [each["name"] for each in test["variants"]] == ["Same", "Same"]
    assert test["variants"][1]["locales"] == {"pt-BR": {"subject": "Olá", "html_body": "<p>C</p>"}}
    assert test["variants"][1]["send_delay_minutes"] == 10080


@pytest.mark.parametrize(
    "change",
    [
        {"variants": None}, {"variants": []}, {"variants": TWO[:1]}, {"variants": TWO * 3}, {"variants": "AB"},
        {"name": " "}, {"name": "x" * 301}, {"name": None}, {"test_type": "colour"}, {"winner_metric": "luck"},
        {"winner_metric": None}, {"test_percentage": 4.99}, {"test_percentage": 50.01}, {"test_percentage": "20"},
        {"wait_hours": 0}, {"wait_hours": 73}, {"wait_hours": 1.5}, {"holdout_percentage": -0.1},
        {"holdout_percentage": 50.5}, {"no_winner_action": "coin"}, {"auto_select_winner": "yes"},
        {"variants": [TWO[0], {"name": "x" * 101}]}, {"variants": [TWO[0], {"subject": "a\nb"}]},
        {"variants": [TWO[0], {"subject": "x" * 501}]}, {"variants": [TWO[0], {"html_body": "\0"}]},
        {"variants": [TWO[0], {"send_delay_minutes": 10081}]}, {"variants": [TWO[0], {"send_delay_minutes": -1}]},
        {"variants": [TWO[0], {"locales": {"<": {}}}]}, {"variants": [TWO[0], {"locales": {"de": {}, "DE": {}}}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_test_is_refused(editor: httpx.Client, change: dict[str, Any]) -> None:
    body = {"campaign_id": campaign(editor)["id"], "name": "test", "variants": TWO, **change}
    answer = editor.post(TESTS, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error"), answer.text


def test_two_to_five_variants_are_taken_and_a_missing_list_is_not(editor: httpx.Client) -> None:
    for count in (2, 3, 5):
        variants = [{"name": f"V{number}", "subject": f"S{number}"} for number in range(count)]
        assert len(draft(editor, variants=variants)["variants"]) == count
    body = {"campaign_id": campaign(editor)["id"], "name": "test"}
    assert editor.post(TESTS, json=body).status_code == 422


def test_the_campaign_must_be_there_and_not_sent_yet(service: LiveService, editor: httpx.Client) -> None:
    for given in ("987654321987", "x", "0", 7_000_000_000):
        answer = editor.post(TESTS, json={"campaign_id": given, "name": "test", "variants": TWO})
        assert refused(answer) == (404, "not_found", "Campaign not found")
    made = campaign(editor)
    assert editor.post(f"{CAMPAIGNS}{made['id']}/send").status_code == 202
    answer = editor.post(TESTS, json={"campaign_id": made["id"], "name": "test", "variants": TWO})
    assert refused(answer) == (400, "invalid_state", "Campaign must be in draft or scheduled status")


def test_a_test_goes_with_its_campaign(editor: httpx.Client) -> None:
    test = draft(editor)
    assert editor.post(f"{TESTS}{test['id']}/start").status_code == 200
    assert editor.delete(f"{CAMPAIGNS}{test['campaign_id']}").status_code == 204
    for answer in (
        editor.get(f"{TESTS}{test['id']}"), editor.patch(f"{TESTS}{test['id']}", json={}),
        editor.get(f"{TESTS}{test['id']}/results"), editor.post(f"{TESTS}{test['id']}/cancel"),
        editor.post(f"{TESTS}{test['id']}/select-winner"), editor.delete(f"{TESTS}{test['id']}"),
    ):
        assert refused(answer) == (404, "not_found", "A/B test not found")


def test_lists_are_filtered(editor: httpx.Client, viewer: httpx.Client) -> None:
    made = campaign(editor)
    one, two, three = (draft(editor, campaign_id=made["id"]) for _ in range(3))
    assert editor.post(f"{TESTS}{two['id']}/start").status_code == 200

    def listed(**params: Any) -> list[str]:
        answer = viewer.get(TESTS, params={"campaign_id": made["id"], **params})
        assert answer.headers["X-Total-Count"] == str(len(answer.json())) or params.get("limit")
        return [each["id"] for each in answer.json()]

    assert listed() == [three["id"], two["id"], one["id"]]
    assert listed(status="running") == [two["id"]] and listed(status="draft") == [three["id"], one["id"]]
    assert listed(limit=1, skip=2) == [one["id"]] and listed(status="completed") == []
    assert viewer.get(TESTS, params={"campaign_id": "x"}).json() == []
    assert viewer.get(TESTS, params={"status": "armed"}).status_code == 422


def test_a_draft_is_changed_and_nothing_else(editor: httpx.Client) -> None:
    test = draft(editor)
    path = f"{TESTS}{test['id']}"
    assert editor.patch(path, json={}).json() == test
    changes = {"name": "New", "winner_metric": "click_rate", "auto_select_winner": False, "test_percentage": 5,
               "wait_hours": 1, "holdout_percentage": 50, "no_winner_action": "hold"}  # fmt: skip
    changed = editor.patch(path, json={**changes, "status": "running", "test_type": "content", "variants": []})
    assert changed.json() == {**test, **changes, "test_percentage": 5.0, "holdout_percentage": 50.0}
    assert editor.patch(path, json={"winner_metric": "conversion"}).json()["winner_metric"] == "conversion_rate"
    for bad in ({"test_percentage": 51}, {"test_percentage": 4}, {"wait_hours": 0}, {"wait_hours": 73}, {"name": None},
                {"holdout_percentage": 51}, {"winner_metric": None}, {"name": ""}):  # fmt: skip
        assert editor.patch(path, json=bad).status_code == 422, bad
    assert editor.post(f"{path}/start").status_code == 200
    answer = editor.patch(path, json={"name": "Newer"})
    assert refused(answer) == (400, "invalid_state", "Can only update A/B tests in draft status")


def test_start_arms_it_once_and_tells_it(service: LiveService, editor: httpx.Client) -> None:
    test = draft(editor)
    path = f"{TESTS}{test['id']}"
    answer = editor.post(f"{path}/start")
    assert answer.json() == {"message": "A/B test started", "test_id": test["id"], "variants": 2}
    shown = editor.get(path).json()
    assert (shown["status"], shown["completed_at"]) == ("running", None) and shown["started_at"]
    assert refused(editor.post(f"{path}/start")) == (400, "invalid_state", "Cannot start test in 'running' status")
    assert refused(editor.delete(path)) == (400, "invalid_state", "Cannot delete a running test")
    assert told(service, test) == [("ab_test.started", None, None)]
    other = draft(editor, campaign_id=test["campaign_id"])
    answer = editor.post(f"{TESTS}{other['id']}/start")
    assert refused(answer) == (409, "invalid_state", "Another test of this campaign is running")
    assert editor.delete(f"{TESTS}{other['id']}").status_code == 204
    assert editor.delete(f"{TESTS}{other['id']}").status_code == 404


def test_start_is_too_late_once_the_campaign_is_sending(editor: httpx.Client) -> None:
    test = draft(editor)
    assert editor.post(f"{CAMPAIGNS}{test['campaign_id']}/send").status_code == 202
    status, code, _ = refused(editor.post(f"{TESTS}{test['id']}/start"))
    assert (status, code) == (409, "invalid_state")


def test_of_many_starts_one_succeeds(service: LiveService, editor: httpx.Client) -> None:
    made = campaign(editor)
    tests = [draft(editor, campaign_id=made["id"]) for _ in range(3)] * 2
    ready = threading.Barrier(len(tests))

    def start(test: dict[str, Any]) -> int:
        with service.client("editor") as client:
            ready.wait(30)
            return client.post(f"{TESTS}{test['id']}/start").status_code

    with ThreadPoolExecutor(len(tests)) as pool:
        found = sorted(pool.map(start, tests))
    # The other call for the same test finds it running; those for others find that one is.
    assert found == [200, 400, 409, 409, 409, 409]
    running = editor.get(TESTS, params={"campaign_id": made["id"], "status": "running"}).json()
    assert len(running) == 1 and len(told(service, running[0])) == 1


EQUAL: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("subject", {"subject": "A"}, {"subject": "A", "html_body": "<p>B</p>", "send_delay_minutes": 5}),
    ("subject", {}, {"subject": "Hi {{ contact.first_name }}"}),
    ("subject", {"subject": ""}, {}),
    ("content", {"html_body": "<p>A</p>"}, {"html_body": "<p>A</p>", "subject": "B"}),
    ("content", {"subject": "A"}, {"subject": "B"}),
    ("send_time", {"subject": "A"}, {"subject": "B"}),
    ("send_time", {"send_delay_minutes": 30}, {"send_delay_minutes": 30}),
    ("subject", {"locales": {"de": {"subject": "A"}}}, {"locales": {"DE": {"subject": "A"}}}),
]
DIFFERENT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("subject", {}, {"subject": "Other"}),
    ("subject", {}, {"locales": {"de": {"subject": "Anders"}}}),
    ("content", {}, {"html_body": "<p>Other</p>"}),
    ("content", {"locales": {"de": {"html_body": "<p>A</p>"}}}, {"locales": {"de": {"html_body": "<p>B</p>"}}}),
    ("send_time", {}, {"send_delay_minutes": 1}),
]


@pytest.mark.parametrize(("test_type", "one", "other"), EQUAL, ids=str)
def test_equal_variants_are_not_compared(
    editor: httpx.Client, test_type: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    third = {"subject": "C", "html_body": "<p>C</p>", "send_delay_minutes": 99}
    test = draft(editor, test_type=test_type, variants=[third, one, other])
    status, code, detail = refused(editor.post(f"{TESTS}{test['id']}/start"))
    assert (status, code) == (422, "variants_equal") and "Variants 2 and 3" in detail[0]["msg"]
    assert editor.get(f"{TESTS}{test['id']}").json()["status"] == "draft"


@pytest.mark.parametrize(("test_type", "one", "other"), DIFFERENT, ids=str)
def test_variants_that_differ_start(
    editor: httpx.Client, test_type: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    test = draft(editor, test_type=test_type, variants=[one, other])
    assert editor.post(f"{TESTS}{test['id']}/start").status_code == 200


def test_cancel_ends_a_draft_and_a_running_one(service: LiveService, editor: httpx.Client) -> None:
    for is_started in (False, True):
        test = draft(editor)
        path = f"{TESTS}{test['id']}"
        if is_started:
            assert editor.post(f"{path}/start").status_code == 200
        cancelled = editor.post(f"{path}/cancel").json()
        assert (cancelled["status"], cancelled["decision"], cancelled["winner_variant_id"]) == ("cancelled", None, None)
        assert cancelled["completed_at"] and refused(editor.post(f"{path}/cancel"))[:2] == (409, "invalid_state")
        assert refused(editor.post(f"{path}/start"))[0] == 400
        chosen = editor.post(f"{path}/select-winner", params={"variant_id": test["variants"][0]["id"]})
        assert refused(chosen)[:2] == (409, "invalid_state")
        assert [name for name, *_ in told(service, test)] == (["ab_test.started"] if is_started else [])
        # Another one may run now, and this one may be deleted.
        other = draft(editor, campaign_id=test["campaign_id"])
        assert editor.post(f"{TESTS}{other['id']}/start").status_code == 200
        assert editor.delete(path).status_code == 204


def test_results_seen_elsewhere_are_added(editor: httpx.Client, viewer: httpx.Client) -> None:
    test = draft(editor)
    path, (a, b) = f"{TESTS}{test['id']}", (each["id"] for each in test["variants"])
    observe(editor, test, 0, "sent", 3)
    observe(editor, test, 0, "opened", 2)
    observe(editor, test, 0, "clicked")
    observe(editor, test, 0, "bounced")
    reader = person(editor)["id"]
    for kind in ("sent", "opened", "opened", "clicked", "clicked"):
        body = {"variant_id": b, "event_type": kind, "contact_id": reader}
        assert editor.post(f"{path}/events", json=body).json() == {"message": "Event recorded", "variant": "Long"}
    shown = {each["id"]: each for each in viewer.get(path).json()["variants"]}
    names = ("total_sent", "total_opened", "total_clicked", "total_bounced", "open_rate", "click_rate")
    assert [shown[a][name] for name in names] == [3, 2, 1, 1, 66.67, 33.33]
    assert [shown[b][name] for name in names] == [1, 1, 1, 0, 100.0, 100.0]
    found = viewer.get(f"{path}/results").json()
    names = ("assigned", "attempted", "sent", "delivered", "unique_opens", "unique_clicks", "open_rate", "conversions")
    assert [[each[name] for name in names] for each in found["variants"]] == [
        [3, 3, 3, 2, 2, 1, 66.67, 0], [1, 1, 1, 1, 1, 1, 100.0, 0]
    ]  # fmt: skip
    assert found["srm"]["observed"] == [3, 1] and found["decision"] == "not_enough_data"
    # Told of as handed over elsewhere: from the last one on it is waited.
    deadline, as_of = (datetime.fromisoformat(found[name]) for name in ("deadline_at", "as_of"))
    assert timedelta(hours=3, minutes=58) < deadline - as_of <= timedelta(hours=4)


def test_a_click_nobody_names_is_an_open_too(editor: httpx.Client) -> None:
    test = draft(editor)
    observe(editor, test, 1, "sent", 2)
    observe(editor, test, 1, "clicked")
    shown = editor.get(f"{TESTS}{test['id']}").json()["variants"][1]
    assert (shown["total_opened"], shown["total_clicked"], shown["open_rate"]) == (1, 1, 50.0)


def test_what_cannot_have_been_seen_is_refused(editor: httpx.Client) -> None:
    test, other = draft(editor), draft(editor)
    path, variant_id = f"{TESTS}{test['id']}/events", test["variants"][0]["id"]
    for given in (other["variants"][0]["id"], "x", "0", "9" * 30):
        answer = editor.post(path, json={"variant_id": given, "event_type": "nonsense"})
        assert refused(answer) == (404, "not_found", "Variant not found")
    for kind in ("delivered", "", "SENT"):
        answer = editor.post(path, json={"variant_id": variant_id, "event_type": kind})
        assert refused(answer) == (400, "bad_request", f"Unknown event type: {kind}")
    for contact in ("987654321987", "x", "0"):
        answer = editor.post(path, json={"variant_id": variant_id, "event_type": "sent", "contact_id": contact})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "contact_id"])
    assert editor.get(f"{TESTS}{test['id']}").json()["variants"][0]["total_sent"] == 0
    missing = editor.post(f"{TESTS}x/events", json={"variant_id": variant_id, "event_type": "sent"})
    assert refused(missing) == (404, "not_found", "A/B test not found")


def test_a_contact_counts_once_however_many_tell_it(service: LiveService, editor: httpx.Client) -> None:
    test, reader = draft(editor), person(editor)["id"]
    body = {"variant_id": test["variants"][0]["id"], "event_type": "sent", "contact_id": reader}
    ready = threading.Barrier(4)

    def tell(_: int) -> int:
        with service.client("editor") as client:
            ready.wait(30)
            return client.post(f"{TESTS}{test['id']}/events", json=body).status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tell, range(4))) == [200] * 4
    assert editor.get(f"{TESTS}{test['id']}").json()["variants"][0]["total_sent"] == 1


def test_a_winner_is_chosen_by_hand(service: LiveService, editor: httpx.Client, viewer: httpx.Client) -> None:
    test = draft(editor)
    path, chosen = f"{TESTS}{test['id']}", test["variants"][1]["id"]
    assert editor.post(f"{path}/start").status_code == 200
    observe(editor, test, 1, "sent", 3)
    observe(editor, test, 1, "opened")
    foreign = editor.post(f"{path}/select-winner", params={"variant_id": draft(editor)["variants"][0]["id"]})
    assert refused(foreign) == (404, "not_found", "Variant not found")
    assert refused(editor.post(f"{path}/select-winner", params={"variant_id": "x"}))[2] == "Variant not found"
    status, code, _ = refused(editor.post(f"{path}/select-winner"))
    assert (status, code) == (409, "not_enough_data")
    answer = editor.post(f"{path}/select-winner", params={"variant_id": chosen})
    assert answer.json() == {
        "message": "Winner selected", "winner": {"id": chosen, "name": "Long", "open_rate": 33.33, "click_rate": 0.0}
    }  # fmt: skip
    again = editor.post(f"{path}/select-winner", params={"variant_id": chosen})
    assert refused(again) == (400, "invalid_state", "Test already completed")
    shown = viewer.get(path).json()
    assert (shown["status"], shown["winner_variant_id"], shown["decision"]) == ("completed", chosen, "not_enough_data")
    assert [each["is_winner"] for each in shown["variants"]] == [False, True]
    found = viewer.get(f"{path}/results").json()
    assert (found["decision"], found["winner_variant_id"], found["status"]) == ("not_enough_data", chosen, "completed")
    assert found["reason"].startswith("Long was chosen by hand; the figures said: ")
    assert told(service, test) == [
        ("ab_test.started", None, None), ("ab_test.completed", "not_enough_data", chosen),
        ("ab_test.winner_selected", "not_enough_data", chosen),
    ]  # fmt: skip
    assert refused(editor.post(f"{path}/cancel"))[0] == 409
    assert editor.delete(path).status_code == 204


def test_every_act_is_audited(editor: httpx.Client, admin: httpx.Client) -> None:
    test = draft(editor)
    path, variant_id = f"{TESTS}{test['id']}", test["variants"][0]["id"]
    editor.patch(path, json={"wait_hours": 5})
    editor.post(f"{path}/start")
    observe(editor, test, 0, "sent")
    editor.post(f"{path}/select-winner", params={"variant_id": variant_id})
    editor.delete(path)
    log = admin.get("/api/v1/audit-log", params={"limit": 100}).json()
    ours = [each for each in log if each["action"].startswith("ab_test.")]
    found = [each["action"] for each in ours if each["resource_id"] == test["id"]]
    assert found[::-1] == [
        "ab_test.create", "ab_test.update", "ab_test.start", "ab_test.record_event", "ab_test.select_winner",
        "ab_test.delete",
    ]  # fmt: skip


def test_a_test_by_hand_from_draft_to_the_rest(
    service: LiveService, editor: httpx.Client, viewer: httpx.Client
) -> None:
    source = f"ab-{unique()}"
    with service.engine.begin() as tx:
        contacts = [make_contact(tx, custom_fields={"shop": source}) for _ in range(700)]
    rules = [{"field": "custom_fields.shop", "operator": "eq", "value": source}]
    segment = editor.post("/api/v1/segments/", json={"name": source, "rules": rules}).json()["id"]
    made = campaign(editor, segment_id=segment)
    test = draft(editor, campaign_id=made["id"], test_percentage=50, holdout_percentage=10, winner_metric="conversion")
    path = f"{TESTS}{test['id']}"
    assert editor.post(f"{path}/start").status_code == 200
    planned(service, editor, made["id"])
    assert viewer.get(f"{path}/results").json()["deadline_at"] is None
    pumped(service)
    by_variant: dict[str | None, list[Any]] = {}
    with service.engine.begin() as tx:
        query = "select * from messages where campaign_id = cast(:id as bigint) order by message_id"
        for row in tx.execute(text(query), {"id": made["id"]}):
            by_variant.setdefault(row.variant_id and str(row.variant_id), []).append(row)
        a, b = (by_variant[each["id"]] for each in test["variants"])
        assert {row.status for row in a + b} == {"sent"} and len(a) > 100 and len(b) > 100
        for sent, opens, buyers in ((a, 40, 5), (b, 41, 40)):
            for row in sent[:opens]:
                make_hit(tx, row.contact_id, row.message_id, occurred_at=row.sent_at + timedelta(minutes=1))
            for row in sent[:buyers]:
                make_order(tx, row.contact_id, row.sent_at + timedelta(minutes=5), total="10.50")
        kept = [row for row in by_variant[None] if row.reason == "holdout"]
        make_order(tx, kept[0].contact_id, kept[0].due_at + timedelta(minutes=5), total="7")
    found = viewer.get(f"{path}/results").json()
    assert [(each["sent"], each["conversions"], each["revenue"]) for each in found["variants"]] == [
        (len(a), 5, "52.50"), (len(b), 40, "420.00")
    ]  # fmt: skip
    expected = round(100 * 40 / len(b), 4)
    assert found["variants"][1]["conversion_rate"] == pytest.approx(expected, abs=0.005)
    each_spent = Decimal(found["variants"][1]["revenue_per_recipient"])
    assert each_spent == pytest.approx(Decimal(420) / len(b), abs=Decimal("0.0001"))
    assert found["holdout"]["recipients"] == len(kept) and found["holdout"]["conversions"] == 1
    assert Decimal(found["holdout"]["revenue"]) == 7 and found["holdout"]["lift"] > 0
    last = max(row.sent_at for row in a + b)
    assert datetime.fromisoformat(found["deadline_at"]) == last + timedelta(hours=4)
    assert found["minimums"] == {"recipients_per_variant": 100, "successes_in_total": 10}
    assert found["comparisons"][0]["test"] == "z" and found["comparisons"][0]["p_adjusted"] < 0.001
    held = viewer.get(f"{CAMPAIGNS}{made['id']}/messages", params={"status": "queued", "limit": 1})
    rest = len(contacts) - len(a) - len(b) - len(kept)
    assert int(held.headers["X-Total-Count"]) == rest
    answer = editor.post(f"{path}/select-winner").json()
    winner = test["variants"][1]["id"]
    assert answer["winner"] == {
        "id": winner, "name": "Long", "click_rate": 0.0, "open_rate": pytest.approx(100 * 41 / len(b), abs=0.005)
    }  # fmt: skip
    experiment_steps.step(service.engine, service.settings, datetime.now(UTC))
    pumped(service)
    finished(service)
    assert viewer.get(f"{CAMPAIGNS}{made['id']}").json()["status"] == "sent"
    done = viewer.get(path).json()
    assert (done["status"], done["decision"], done["winner_variant_id"]) == ("completed", "winner", winner)
    assert viewer.get(TESTS, params={"campaign_id": made["id"]}).json() == [done]
    # The rest got the winner and is no part of the comparison.
    assert [each["total_sent"] for each in done["variants"]] == [len(a), len(b)]
    got = viewer.get(f"{CAMPAIGNS}{made['id']}/messages", params={"variant_id": winner, "limit": 1})
    assert int(got.headers["X-Total-Count"]) == len(b) + rest
    assert viewer.get(f"{path}/results").json()["decision"] == "winner"
