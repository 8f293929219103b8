"""Tracking links over HTTP, to the letter of the contract, and the rows they write."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest

from api.tracking import GIF, TRACKING_OPENAPI
from mautolib.classification.hit_verdicts import RULE_VERSION
from mautolib.contacts import confirmation, consent
from mautolib.contacts.model import SuppressionReason
from mautolib.ledger.model import NewContent
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
        BROWSER, "127.0.0.0/24", False, "human", RULE_VERSION)  # fmt: skip
    event = tracking.rows("select * from events")[0]
    assert (event.event_type, event.contact_id, event.campaign_id, event.message_id, event.source) == (
        "email_opened", contact_id, 7, 31, "mauto")  # fmt: skip
    assert event.external_id == f"hit:{hit.hit_id}"
    assert tracking.rows("select event_ids, bucket from event_pending") == [([event.event_id], contact_id % 64)]


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
    assert '<p class="host" dir="ltr">evil.example</p>' in answer.text
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
    ("OPTIONS", "open", "GET, HEAD"), ("PUT", "preferences", "GET, HEAD, POST"),
])  # fmt: skip
def test_other_methods_are_told_which_ones_there_are(tracking: Tracking, method: str, what: str, allow: str) -> None:
    answer = tracking.client.request(method, f"/api/v1/track/{what}/1/1")
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/api/v1/track/open", "/api/v1/track/open/1", "/api/v1/track/open//1",
                                  "/api/v1/track/open/1/2/3", "/api/v1/track/other/1/2", "/health", "/",
                                  "/api/v1/track/confirm", "/api/v1/track/confirm/", "/api/v1/track/confirm/1/2",
                                  "/api/v1/track/preferences/1", "/api/v1/track/open/1/2//"])  # fmt: skip
def test_everything_else_is_passed_on(tracking: Tracking, path: str) -> None:
    assert tracking.client.get(path).text == "inside"


def test_every_answer_carries_the_safe_headers(tracking: Tracking, contact_id: int) -> None:
    links = tracking.links(contact_id)
    for url in (links.open(), links.click(TARGET), links.unsubscribe(), links.preferences(), links.confirm()):
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
    assert '<html lang="de" dir="ltr">' in page.text
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


JSON = {"Accept": "application/json"}
STATE = "select subscribed, consent_status, language, timezone from contacts"


def asked(tracking: Tracking, contact_id: int, wording_version: str | None = None) -> str:
    """The path of a genuine confirmation link."""
    mail = NewContent(subject="?", html_body="{{ confirm_url }}")
    with tracking.engine.begin() as tx:
        done = confirmation.ask(
            tx, contact_id, mail, actor="test", now=datetime.now(UTC), wording_version=wording_version
        )
    return path_of(tracking.links(contact_id, campaign_id=None, message_id=done.message_id).confirm())


def choices(page: str) -> list[str]:
    """The names of the buttons that act."""
    return re.findall(r'name="action" value="([a-z]+)"', page)


def test_confirming_is_a_button_and_only_the_button_acts(tracking: Tracking, contact_id: int) -> None:
    path = asked(tracking, contact_id, "form 3")
    page = tracking.client.get(path, headers={"Accept-Language": "de"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f'<form method="post" action="{path}">' in page.text
    assert "anna" not in page.text
    assert tracking.client.head(path).status_code == 200
    assert tracking.rows("select consent_status from contacts") == [("pending",)]
    for _ in range(2):
        done = tracking.client.post(path)
        assert (done.status_code, "You are subscribed" in done.text) == (200, True)
    assert tracking.rows(STATE) == [(True, "granted", "en", "")]
    lines = tracking.rows("select status, source, wording_version, host(ip) || '/' || masklen(ip), actor "
                          "from consents order by consent_id")  # fmt: skip
    assert lines == [("pending", "double_opt_in", "form 3", None, "test"),
                     ("granted", "double_opt_in", "form 3", "127.0.0.0/24", "recipient")]  # fmt: skip


@pytest.mark.parametrize("how", ["plain", "slash", "form", "json", "multipart"])
def test_a_confirmation_may_be_posted_in_any_way(tracking: Tracking, contact_id: int, how: str) -> None:
    path = asked(tracking, contact_id)
    bare, s = path.split("?s=")
    asks: dict[str, dict[str, Any]] = {
        "plain": {"url": f"/api/v1/track/confirm/{contact_id}?s={s}"}, "slash": {"url": f"{bare}/?s={s}"},
        "form": {"url": bare, "data": {"s": s}}, "json": {"url": bare, "json": {"s": s}},
        "multipart": {"url": bare, "files": {"s": (None, s)}},
    }  # fmt: skip
    answer = tracking.client.post(headers=JSON, **asks[how])
    assert (answer.status_code, answer.json()) == (200, {"message": "Your subscription is confirmed."})
    assert tracking.rows("select consent_status from contacts") == [("granted",)]


def test_a_void_confirmation_leads_to_the_preferences(tracking: Tracking, contact_id: int) -> None:
    path = asked(tracking, contact_id)
    tracking.client.post(path_of(tracking.links(contact_id).unsubscribe()))
    page = tracking.client.post(path)
    assert (page.status_code, "no longer valid" in page.text) == (200, True)
    assert tracking.client.post(path, headers=JSON).json() == {
        "message": "This link is no longer valid; nothing has been changed."}  # fmt: skip
    assert tracking.rows("select subscribed, consent_status from contacts") == [(False, "withdrawn")]
    way = re.search(r'class="button" href="([^"]+)"', page.text)
    assert way is not None
    assert choices(tracking.client.get(path_of(unescape(way[1]))).text) == ["resubscribe", "update"]


def test_the_preference_page_shows_what_is_so(tracking: Tracking) -> None:
    contact_id = tracking.contact(email="anna@shop.example", language="pt-BR", timezone="Europe/Lisbon")
    path = path_of(tracking.links(contact_id).preferences())
    page = tracking.client.get(path, headers={"Accept-Language": "de"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "A sua inscrição nos nossos e-mails está ativa." in page.text and "anna" not in page.text
    assert page.text.count(f'<form method="post" action="{path}"') == 2
    assert '<option value="pt-BR" lang="pt-BR" selected>' in page.text
    assert '<option value="Europe/Lisbon" selected>' in page.text
    assert page.text.count(" selected>") == 2
    assert choices(page.text) == ["unsubscribe", "update"]
    told = tracking.client.get(path, headers=JSON)
    assert told.json() == {
        "subscribed": True, "standing": "subscribed", "language": "pt-BR", "timezone": "Europe/Lisbon"}  # fmt: skip
    assert tracking.client.head(path).content == b""
    assert (tracking.count("consents"), tracking.count("events")) == (0, 0)


def test_leaving_and_coming_back_on_the_preference_page(tracking: Tracking, contact_id: int) -> None:
    path = path_of(tracking.links(contact_id, message_id=40).preferences())
    for _ in range(3):
        left = tracking.client.post(path, data={"action": "unsubscribe"})
        assert (left.status_code, choices(left.text)) == (200, ["resubscribe", "update"])
        assert "You have been unsubscribed." in left.text
    assert tracking.rows("select email_key, reason, source from suppressions") == [
        ("anna@shop.example", "unsubscribe", "preference page")]  # fmt: skip
    assert tracking.rows("select event_type, campaign_id, message_id from events") == [("unsubscribed", 7, 40)]
    for _ in range(3):
        back = tracking.client.post(path, data={"action": "resubscribe"})
        assert (back.status_code, choices(back.text)) == (200, ["unsubscribe", "update"])
    assert tracking.count("suppressions") == 0
    assert tracking.rows("select status, source, actor, masklen(ip) from consents order by consent_id") == [
        ("withdrawn", "preference page", "recipient", 24), ("granted", "preference page", "recipient", 24)]  # fmt: skip
    assert tracking.rows(STATE) == [(True, "granted", "en", "")]


def test_language_and_time_zone_are_the_persons_choice(tracking: Tracking, contact_id: int) -> None:
    path = path_of(tracking.links(contact_id).preferences())
    wanted = {"action": "update", "language": "de", "timezone": "Europe/Berlin"}
    saved = tracking.client.post(path, data=wanted)
    assert (saved.status_code, "Ihre Auswahl wurde gespeichert." in saved.text) == (200, True)
    assert tracking.rows(STATE) == [(True, "unknown", "de", "Europe/Berlin")]
    told = tracking.client.post(path, json={"action": "update", "timezone": ""}, headers=JSON)
    assert told.json() == {"message": "Your choice has been saved.", "subscribed": True, "standing": "subscribed",
                           "language": "de", "timezone": ""}  # fmt: skip
    tracking.client.post(path, json={"action": "update", "timezone": ""})
    assert tracking.rows("select version from contacts") == [(3,)], "the same again changes nothing"
    assert tracking.count("consents") == 0


@pytest.mark.parametrize(("values", "field"), [
    ({"action": "update", "timezone": "Mars/Phobos"}, "timezone"),
    ({"action": "update", "timezone": "../../etc/passwd", "language": "de"}, "timezone"),
    ({"action": "update", "language": "klingon!"}, "language"),
    ({"action": "update", "language": "x" * 11}, "language"),
    ({"action": "update", "language": "de\nfr"}, "language"), ({"action": "update", "language": "\0"}, "language"),
    ({"action": "delete"}, "action"), ({}, "action"), ({"action": ["update"]}, "action"), ([], "action"),
])  # fmt: skip
def test_a_choice_there_is_not_changes_nothing(
    tracking: Tracking, contact_id: int, values: Any, field: str
) -> None:
    path = path_of(tracking.links(contact_id).preferences())
    told = tracking.client.post(path, json=values, headers=JSON)
    assert (told.status_code, told.json()["code"]) == (422, "validation_error")
    assert [item["loc"] for item in told.json()["detail"]] == [["body", field]]
    page = tracking.client.post(path, json=values)
    assert (page.status_code, 'role="alert"' in page.text) == (422, True)
    assert ('aria-invalid="true"' in page.text) == (field != "action")
    assert tracking.rows(f"{STATE.replace('select', 'select version,')}") == [(1, True, "unknown", "en", "")]


def test_a_complaint_is_not_taken_back_on_a_page(tracking: Tracking, contact_id: int) -> None:
    pending = asked(tracking, contact_id)
    with tracking.engine.begin() as tx:
        consent.suppress(tx, "anna@shop.example", SuppressionReason.COMPLAINT, actor="test", now=datetime.now(UTC))
    path = path_of(tracking.links(contact_id).preferences())
    for page in (tracking.client.get(path), tracking.client.post(path, data={"action": "resubscribe"})):
        assert (page.status_code, choices(page.text)) == (200, ["update"])
        assert "We do not write to this address" in page.text
    told = tracking.client.post(path, data={"action": "resubscribe"}, headers=JSON)
    assert (told.status_code, told.json()["code"]) == (409, "suppressed")
    confirmed = tracking.client.post(pending)
    assert (confirmed.status_code, "We do not write to this address" in confirmed.text) == (200, True)
    assert tracking.rows("select reason from suppressions") == [("complaint",)]
    assert tracking.rows("select subscribed from contacts") == [(False,)]


@pytest.mark.parametrize("what", ["preferences", "confirm"])
@pytest.mark.parametrize("s", ["", f"?s={WRONG}"])
def test_without_a_genuine_token_a_page_is_neutral(tracking: Tracking, contact_id: int, what: str, s: str) -> None:
    path = f"/api/v1/track/{what}/{'' if what == 'confirm' else '7/'}{contact_id}{s}"
    page, posted = tracking.client.get(path), tracking.client.post(path, data={"action": "unsubscribe"})
    assert (page.status_code, posted.status_code, page.text == posted.text) == (200, 200, True)
    assert "Nothing has been changed" in page.text
    told = tracking.client.post(path, data={"action": "unsubscribe"}, headers=JSON)
    assert told.json() == {"message": "This link is not complete; nothing has been changed."}
    assert tracking.rows("select subscribed, version from contacts") == [(True, 1)]
    assert tracking.client.post(path, content=b"x" * 9000).status_code == 413


def test_the_document_describes_what_is_served(tracking: Tracking) -> None:
    json.dumps(TRACKING_OPENAPI)
    for path, operations in TRACKING_OPENAPI.items():
        concrete = path.replace("{cid}", "1").replace("{uid}", "1")
        for method, operation in operations.items():
            answer = tracking.client.request(method.upper(), concrete, params={"url": "https://x.example/"})
            assert str(answer.status_code) in operation["responses"]
            assert answer.headers["content-type"].split(";")[0] in operation["responses"]["200"]["content"]
