"""Tracking links over HTTP, to the letter of the contract, and the rows they write."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from api.tracking import GIF, TRACKING_OPENAPI
from tests.tracked import BROWSER, Tracking, path_of, running_tracking, tracking

__all__ = ["running_tracking", "tracking"]

TARGET = "https://shop.example/sale?sku=1&size=m&q=ü#top"
WRONG = "A" * 40 + "0"


@pytest.fixture
def contact_id(tracking: Tracking) -> int:
    return tracking.contact(email="anna@shop.example")


def test_an_open_answers_the_pixel_and_is_kept(tracking: Tracking, contact_id: int) -> None:
    answer = tracking.client.get(path_of(tracking.links(contact_id, message_id=31).open()))
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "image/gif", GIF)
    assert len(GIF) == 43
    hit = tracking.rows("select * from hits join hit_verdicts using (hit_id)")[0]
    assert (hit.kind, hit.contact_id, hit.campaign_id, hit.message_id) == ("open", contact_id, 7, 31)
    assert (hit.user_agent, hit.network, hit.is_head, hit.verdict, hit.rule_version) == (
        BROWSER, "127.0.0.0/24", False, "human", 1)  # fmt: skip
    event = tracking.rows("select * from events")[0]
    assert (event.event_type, event.contact_id, event.campaign_id, event.message_id, event.source) == (
        "email_opened", contact_id, 7, 31, "mauto")  # fmt: skip
    assert event.external_id == f"hit:{hit.hit_id}"
    assert tracking.rows("select event_id, bucket from event_pending") == [(event.event_id, contact_id % 64)]


def test_a_click_redirects_to_the_very_address_and_is_kept(tracking: Tracking, contact_id: int) -> None:
    answer = tracking.client.get(path_of(tracking.links(contact_id, message_id=32).click(TARGET, position=4)))
    assert answer.status_code == 302
    assert answer.headers["location"] == TARGET.replace("ü", "%C3%BC")
    hit = tracking.rows("select kind, url, link_position, message_id from hits")[0]
    assert tuple(hit) == ("click", TARGET, 4, 32)
    event = tracking.rows("select event_type, properties from events")[0]
    assert tuple(event) == ("email_clicked", {"url": TARGET})


def test_a_workflow_message_is_joined_to_no_campaign(tracking: Tracking, contact_id: int) -> None:
    tracking.client.get(path_of(tracking.links(contact_id, campaign_id=None, workflow_id=7, message_id=33).open()))
    assert tracking.rows("select campaign_id, message_id from hits") == [(None, 33)]


@pytest.mark.parametrize("slash", ["", "/"])
def test_both_slash_forms_and_plain_ids_are_accepted(tracking: Tracking, contact_id: int, slash: str) -> None:
    s = tracking.links(contact_id).open().split("s=")[1]
    assert tracking.client.get(f"/api/v1/track/open/7/{contact_id}{slash}?s={s}").content == GIF
    assert tracking.rows("select contact_id, campaign_id from hits") == [(contact_id, 7)]


@pytest.mark.parametrize("path", ["open/1/1", "open/nonsense/%00", f"open/1/1?s={WRONG}", "open/ä/b?s=1&s=2&&=x"])
def test_the_pixel_is_always_the_pixel(tracking: Tracking, path: str) -> None:
    answer = tracking.client.get(f"/api/v1/track/{path}")
    assert (answer.status_code, answer.content) == (200, GIF)
    assert tracking.count("events") == 0


@pytest.mark.parametrize("s", ["", f"&s={WRONG}"])
def test_a_click_without_a_genuine_token_names_the_destination(tracking: Tracking, contact_id: int, s: str) -> None:
    url = quote("https://evil.example/?a=1&b=2", safe="")
    answer = tracking.client.get(f"/api/v1/track/click/7/{contact_id}?url={url}{s}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert '<p class="host">evil.example</p>' in answer.text
    assert "https://evil.example/?a=1&amp;b=2" in answer.text
    assert tracking.count("events") == 0


@pytest.mark.parametrize("url", [
    "javascript:alert(1)", "//evil.example", "ftp://x.example", "", "https:evil", "/a", "https://a b.example/",
    "https://x.example\\@y", "data:text/html,x", "http://", "https://x.example/\n", "https://" + "x" * 4100,
])  # fmt: skip
def test_only_web_addresses_are_redirected_to(tracking: Tracking, url: str) -> None:
    answer = tracking.client.get(f"/api/v1/track/click/7/1?url={quote(url, safe='')}")
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert (problem["detail"], problem["code"]) == ("Invalid redirect URL", "bad_request")


def test_a_click_without_url_is_unprocessable(tracking: Tracking) -> None:
    answer = tracking.client.get("/api/v1/track/click/7/1", headers={"X-Request-ID": "abc 1"})
    assert answer.status_code == 422
    assert answer.json() == {
        "type": "urn:problem:validation_error", "title": "Unprocessable Content", "status": 422,
        "detail": [{"type": "missing", "loc": ["query", "url"], "msg": "Field required"}],
        "code": "validation_error", "instance": "/api/v1/track/click/7/1", "request_id": "abc 1",
    }  # fmt: skip
    assert answer.headers["X-Request-ID"] == "abc 1"


def test_head_is_served_and_has_no_effect(tracking: Tracking, contact_id: int) -> None:
    links = tracking.links(contact_id)
    opened, clicked = tracking.client.head(path_of(links.open())), tracking.client.head(path_of(links.click(TARGET)))
    shown = tracking.client.head(path_of(links.unsubscribe()))
    assert (opened.status_code, opened.headers["content-length"], opened.content) == (200, "43", b"")
    assert (clicked.status_code, shown.status_code, shown.content) == (302, 200, b"")
    assert [row.verdict for row in tracking.rows("select verdict from hit_verdicts")] == ["prefetch"] * 2
    assert tracking.count("events") == 0


@pytest.mark.parametrize(("method", "what", "allow"), [
    ("POST", "open", "GET, HEAD"), ("PUT", "click", "GET, HEAD"), ("DELETE", "unsubscribe", "GET, HEAD, POST"),
    ("OPTIONS", "open", "GET, HEAD"),
])  # fmt: skip
def test_other_methods_are_told_which_ones_there_are(tracking: Tracking, method: str, what: str, allow: str) -> None:
    answer = tracking.client.request(method, f"/api/v1/track/{what}/1/1")
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/api/v1/track/open", "/api/v1/track/open/1", "/api/v1/track/open//1",
                                  "/api/v1/track/open/1/2/3", "/api/v1/track/other/1/2", "/health", "/"])  # fmt: skip
def test_everything_else_is_passed_on(tracking: Tracking, path: str) -> None:
    assert tracking.client.get(path).text == "inside"


def test_every_answer_carries_the_safe_headers(tracking: Tracking, contact_id: int) -> None:
    links = tracking.links(contact_id)
    for url in (links.open(), links.click(TARGET), links.unsubscribe()):
        headers = tracking.client.get(path_of(url)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert len(headers["X-Request-ID"]) == 24


def test_the_page_asks_and_only_the_form_acts(tracking: Tracking, contact_id: int) -> None:
    path = path_of(tracking.links(contact_id, message_id=40).unsubscribe())
    page = tracking.client.get(path, headers={"Accept-Language": "de-CH,de;q=0.9"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert '<html lang="de">' in page.text
    assert f'<form method="post" action="{path}">' in page.text
    assert "anna" not in page.text
    assert tracking.rows("select subscribed from contacts") == [(True,)]

    done = tracking.client.post(path, data={"List-Unsubscribe": "One-Click"})
    assert (done.status_code, "You have been unsubscribed" in done.text) == (200, True)
    assert tracking.rows("select subscribed, consent_status from contacts") == [(False, "withdrawn")]
    assert tracking.rows("select email_key, reason from suppressions") == [("anna@shop.example", "unsubscribe")]
    event = tracking.rows("select event_type, campaign_id, message_id from events")
    assert event == [("unsubscribed", 7, 40)]
    assert tracking.rows("select kind, message_id from hits") == [("unsubscribe", 40)]


def test_one_click_answers_json_where_asked_and_repeats_quietly(tracking: Tracking, contact_id: int) -> None:
    path = path_of(tracking.links(contact_id).unsubscribe())
    for _ in range(3):
        body, wants = {"List-Unsubscribe": "One-Click"}, {"Accept": "application/json"}
        answer = tracking.client.post(path, data=body, headers=wants)
        assert (answer.status_code, answer.json()) == (
            200, {"message": "You have been unsubscribed successfully."})  # fmt: skip
    assert (tracking.count("suppressions"), tracking.count("events"), tracking.count("consents")) == (
        1, 1, 1)  # fmt: skip


def test_the_token_may_come_in_the_form(tracking: Tracking, contact_id: int) -> None:
    path, s = path_of(tracking.links(contact_id).unsubscribe()).split("?s=")
    assert tracking.client.post(path, data={"s": s}).status_code == 200
    assert tracking.rows("select subscribed from contacts") == [(False,)]


@pytest.mark.parametrize("s", ["", f"?s={WRONG}"])
def test_without_a_genuine_token_nothing_changes(tracking: Tracking, contact_id: int, s: str) -> None:
    path = f"/api/v1/track/unsubscribe/7/{contact_id}{s}"
    page, posted = tracking.client.get(path), tracking.client.post(path, data={"List-Unsubscribe": "One-Click"})
    assert (page.status_code, posted.status_code) == (200, 200)
    assert "Nothing has been changed" in page.text
    assert page.text == posted.text
    told = tracking.client.post(path, headers={"Accept": "application/json"}).json()
    assert told == {"message": "This link is not complete; nothing has been changed."}
    assert tracking.rows("select subscribed from contacts") == [(True,)]


def test_a_large_body_is_refused(tracking: Tracking, contact_id: int) -> None:
    path = path_of(tracking.links(contact_id).unsubscribe())
    declared = tracking.client.post(path, content=b"x" * 9000)
    streamed = tracking.client.post(path, content=iter([b"x" * 5000, b"x" * 5000]))
    assert (declared.status_code, streamed.status_code) == (413, 413)
    assert streamed.json()["code"] == "too_large"


def test_the_document_describes_what_is_served(tracking: Tracking) -> None:
    json.dumps(TRACKING_OPENAPI)
    for path, operations in TRACKING_OPENAPI.items():
        concrete = path.replace("{cid}", "1").replace("{uid}", "1")
        for method, operation in operations.items():
            answer = tracking.client.request(method.upper(), concrete, params={"url": "https://x.example/"})
            assert str(answer.status_code) in operation["responses"]
            assert answer.headers["content-type"].split(";")[0] in operation["responses"]["200"]["content"]
