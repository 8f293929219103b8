"""Consent records and double opt-in under attack and accident (K5, K6).

K5: a record of consent says source, time, wording and network, and nobody can change it. K6: the link of a
confirmation confirms nothing by being looked at, nothing for somebody else, and nothing once it is void.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import markupsafe
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from mautolib import contacts
from mautolib.contacts import confirmation
from mautolib.contacts.confirmation import ASKED_AGAIN_AFTER
from mautolib.contacts.model import NewContact
from mautolib.db.engine import connect
from mautolib.ledger.model import NewContent
from mautolib.settings import Settings
from tests.builders import make_contact
from tests.live_service import LiveService, as_role
from tests.tracked import Gate, Tracking, count, links_of, path_of, rows, running_tracking, tracked, tracking, until

__all__ = ["running_tracking", "tracking"]

MAIL = NewContent(subject="?", html_body="{{ confirm_url }}")
SCANNERS = [
    {}, {"Purpose": "prefetch"}, {"Sec-Purpose": "prefetch"}, {"User-Agent": "GoogleImageProxy"},
    {"User-Agent": "Mozilla/5.0 (compatible; Barracuda Sentinel)"}, {"X-HTTP-Method-Override": "POST"},
    {"X-Method-Override": "POST", "Content-Type": "application/x-www-form-urlencoded"},
]  # fmt: skip


def ask(engine: Engine, contact_id: int, now: datetime | None = None) -> int:
    with engine.begin() as tx:
        return confirmation.ask(tx, contact_id, MAIL, actor="test", now=now or datetime.now(UTC)).message_id


def link(settings: Settings, contact_id: int, message_id: int) -> str:
    return path_of(links_of(settings, contact_id, campaign_id=None, message_id=message_id).confirm())


def sign_up(tracking: Tracking, **fields: str) -> tuple[int, str]:
    """A person who was asked, and the path of their link."""
    contact_id = tracking.contact(**fields)
    return contact_id, link(tracking.settings, contact_id, ask(tracking.engine, contact_id))


def statuses(tracking: Tracking) -> list[str]:
    return [row.consent_status for row in tracking.rows("select consent_status from contacts order by contact_id")]


def test_k5_a_record_says_source_time_wording_and_network(tracking: Tracking) -> None:
    contact_id = tracking.contact()
    began = datetime.now(UTC)
    with tracking.engine.begin() as tx:
        asked = confirmation.ask(
            tx, contact_id, MAIL, actor="user:7", now=began, wording_version="form 3", note="built-in text (en)"
        )
    tracking.client.post(
        link(tracking.settings, contact_id, asked.message_id), headers={"X-Forwarded-For": "203.0.113.9"}
    )
    question, answer = tracking.rows("select * from consents order by consent_id")
    assert (question.status, question.source, question.actor) == ("pending", "double_opt_in", "user:7")
    assert question.ip is None
    assert (answer.status, answer.source, answer.actor) == ("granted", "double_opt_in", "recipient")
    assert question.wording_version == answer.wording_version == "form 3"
    assert str(answer.ip) == "127.0.0.0/24", "a network, and not what a header claims"
    assert question.recorded_at == began <= answer.recorded_at <= datetime.now(UTC)
    assert answer.note == f"confirmed by message {asked.message_id}"


@pytest.mark.parametrize("role", ["mauto_api", "mauto_worker"])
@pytest.mark.parametrize("change", [
    "update consents set status = 'granted'", "delete from consents", "truncate consents",
])  # fmt: skip
def test_k5_no_process_can_change_a_record(fresh_engine: Engine, role: str, change: str) -> None:
    with fresh_engine.begin() as tx:
        contacts.create(tx, NewContact(email="a@shop.example", consent_status="pending"), actor="t",
                        now=datetime.now(UTC))  # fmt: skip
    with as_role(fresh_engine, role) as url:
        engine = connect(url)
        with pytest.raises(ProgrammingError, match="permission denied"), engine.begin() as tx:
            tx.execute(text(change))
        engine.dispose()
    assert rows(fresh_engine, "select status from consents") == [("pending",)]


def test_k5_the_api_has_no_way_to_change_a_record(editor: httpx.Client, service: LiveService) -> None:
    made = editor.post("/api/v1/contacts/", json={"email": f"{time.time_ns()}@shop.example", "subscribed": True}).json()
    path = f"/api/v1/contacts/{made['id']}/consents"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = editor.request(method, path, json={"status": "granted"})
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")


def test_k6_a_scanner_confirms_nothing(tracking: Tracking) -> None:
    _, path = sign_up(tracking)
    for headers in SCANNERS:
        for method in ("GET", "HEAD"):
            answer = tracking.client.request(method, path, headers=headers)
            assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
    for query in ("&action=confirm", "&_method=POST", "&confirm=1"):
        assert tracking.client.get(path + query).status_code == 200
    assert (statuses(tracking), tracking.count("consents")) == (["pending"], 1)


def test_k6_a_token_of_another_purpose_or_person_confirms_nothing(tracking: Tracking) -> None:
    contact_id, path = sign_up(tracking, email="anna@shop.example")
    other, _ = sign_up(tracking, email="ben@shop.example")
    message_id = tracking.rows("select min(message_id) as id from messages")[0].id
    links = links_of(tracking.settings, contact_id, campaign_id=None, message_id=message_id)
    bare, s = path.split("?s=")
    tokens = [path_of(url).split("s=")[1] for url in
              (links.open(), links.unsubscribe(), links.preferences(), links.click("https://x.example/"))]  # fmt: skip
    campaign = links_of(tracking.settings, contact_id, campaign_id=7, message_id=message_id)
    tokens += [path_of(campaign.confirm()).split("s=")[1], s[:-2], s[:10] + "!" + s[11:], "A" * 41, "%00", "x" * 7000]
    # A genuine token of a message that asked nothing, or asked somebody else.
    tokens += [link(tracking.settings, contact_id, number).split("s=")[1] for number in (message_id + 1, 10**12)]
    theirs = path_of(links_of(tracking.settings, other).confirm()).split("/")[-1].split("?")[0]
    foreign = [f"/api/v1/track/confirm/{uid}?s={s}" for uid in (other, theirs, 0, 10**18, "u" + "A" * 11)]
    for wrong in [*(f"{bare}?s={token}" for token in tokens), *foreign]:
        answer = tracking.client.post(wrong)
        assert (answer.status_code, "This link is not complete" in answer.text) == (200, True), wrong
        assert "shop.example" not in answer.text
    assert (statuses(tracking), tracking.count("consents")) == (["pending", "pending"], 2)
    assert tracking.client.post(path).status_code == 200
    assert statuses(tracking) == ["granted", "pending"]


def test_k6_a_confirmation_token_does_nothing_else(tracking: Tracking) -> None:
    contact_id, path = sign_up(tracking)
    s = path.split("s=")[1]
    for what in ("unsubscribe", "preferences", "open", "click"):
        for cid in ("0", "7", "n" + "A" * 11):
            tracking.client.post(f"/api/v1/track/{what}/{cid}/{contact_id}?s={s}", data={"action": "unsubscribe"})
            tracking.client.get(f"/api/v1/track/{what}/{cid}/{contact_id}?s={s}&url=https%3A%2F%2Fx.example")
    assert (tracking.count("suppressions"), tracking.count("events"), statuses(tracking)) == (0, 0, ["pending"])


def test_k6_a_link_used_many_times_at_once_is_one_consent(tracking: Tracking) -> None:
    _, path = sign_up(tracking)

    async def storm() -> list[int]:
        url = str(tracking.client.base_url)
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            return [answer.status_code for answer in await asyncio.gather(*(client.post(path) for _ in range(100)))]

    assert set(asyncio.run(storm())) == {200}
    assert [tuple(row) for row in tracking.rows("select status from consents order by consent_id")] == [
        ("pending",), ("granted",)]  # fmt: skip


def test_k6_an_old_link_does_not_undo_a_later_no(tracking: Tracking) -> None:
    contact_id, path = sign_up(tracking)
    tracking.client.post(path)
    tracking.client.post(path_of(tracking.links(contact_id).unsubscribe()))
    for _ in range(2):
        assert "no longer valid" in tracking.client.post(path).text
    assert statuses(tracking) == ["withdrawn"]
    assert tracking.rows("select reason from suppressions") == [("unsubscribe",)]
    with tracking.engine.begin() as tx:
        tx.execute(text("delete from suppressions"))
    later = datetime.now(UTC) + 2 * ASKED_AGAIN_AFTER
    newer = link(tracking.settings, contact_id, ask(tracking.engine, contact_id, later))
    tracking.client.post(path)
    assert statuses(tracking) == ["pending"]
    tracking.client.post(newer)
    assert statuses(tracking) == ["granted"]


def test_k6_links_of_a_deleted_person_are_neutral(tracking: Tracking) -> None:
    contact_id, path = sign_up(tracking)
    preferences = path_of(tracking.links(contact_id).preferences())
    with tracking.engine.begin() as tx:
        contacts.delete(tx, contact_id, actor="test", now=datetime.now(UTC))
    before = tracking.count("consents")
    for answer in (
        tracking.client.post(path), tracking.client.get(preferences),
        *(tracking.client.post(preferences, data={"action": action, "language": "de"})
          for action in ("resubscribe", "update")),
    ):  # fmt: skip
        assert (answer.status_code, "This link is not complete" in answer.text) == (200, True)
    assert (tracking.count("consents"), tracking.count("contacts")) == (before, 0)


def test_k6_a_link_outlives_a_year_and_the_rotation_of_keys(tracking: Tracking) -> None:
    contact_id = tracking.contact()
    message_id = ask(tracking.engine, contact_id)
    old = links_of(tracking.settings, contact_id, campaign_id=None, message_id=message_id, age_seconds=401 * 86400)
    rotated = dataclasses.replace(
        tracking.settings, secret_keys=("f3a9c0d17be2465890acbd3714e65f28", *tracking.settings.secret_keys)
    )
    with tracked(rotated) as client:
        assert client.get(path_of(links_of(tracking.settings, contact_id).preferences())).status_code == 200
        assert "You are subscribed" in client.post(path_of(old.confirm())).text
    assert statuses(tracking) == ["granted"]


def test_k6_a_person_cannot_be_written_to_through_the_mail_that_asks(tracking: Tracking) -> None:
    """Signing up many addresses with a text for a name sends nobody that text, and one mail a minute at most."""
    contact_id = tracking.contact(first_name="Win money at evil.example")
    numbers = {ask(tracking.engine, contact_id) for _ in range(20)}
    assert len(numbers) == 1
    assert tracking.count("messages") == 1


@pytest.fixture
def gate(fresh_database_url: str) -> Iterator[Gate]:
    gate = Gate(fresh_database_url)
    yield gate
    gate.close()


@pytest.mark.parametrize("how", ["shut", "freeze"])
def test_the_pages_say_soon_that_the_database_is_away(
    gate: Gate, settings: Settings, fresh_engine: Engine, how: str
) -> None:
    with fresh_engine.begin() as tx:
        contact_id = make_contact(tx)
    confirm = link(settings, contact_id, ask(fresh_engine, contact_id))
    preferences = path_of(links_of(settings, contact_id).preferences())
    with tracked(gate.through(settings)) as client:
        assert client.get(preferences).status_code == 200
        getattr(gate, how)()
        asked = [(method, path, accept) for method, path in (("GET", preferences), ("POST", confirm))
                 for accept in ("text/html", "application/json")]  # fmt: skip

        def ask_away(method: str, path: str, accept: str) -> None:
            began = time.monotonic()
            answer = client.request(method, path, headers={"Accept": accept})
            assert time.monotonic() - began < 2.5
            media_type = answer.headers["content-type"].split(";")[0]
            assert (answer.status_code, media_type) == (503, accept.replace("/json", "/problem+json"))
            assert answer.headers["Retry-After"] == "10"

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: ask_away(*one), asked))
        assert client.get(confirm).status_code == 200, "the question needs no database"
        # Leaving is never lost: it is kept on disk, and done when the database is back.
        left = client.post(preferences, data={"action": "unsubscribe"})
        assert (left.status_code, "You have been unsubscribed" in left.text) == (200, True)
        gate.reopen()
        until(lambda: count(fresh_engine, "suppressions") == 1)
    lines = rows(fresh_engine, "select status, source from consents order by consent_id")
    assert lines[-1] == ("withdrawn", "preference page")


def test_f13_the_links_tell_nothing_about_the_person(tracking: Tracking) -> None:
    contact_id, path = sign_up(tracking, email="carla@shop.example", first_name="Carla")
    preferences = path_of(tracking.links(contact_id, campaign_id=31337, message_id=424242).preferences())
    for one in (path, preferences):
        assert not any(word in one for word in ("carla", "31337", "424242", f"/{contact_id}?"))
        for answer in (tracking.client.get(one), tracking.client.post(one, data={"action": "update"})):
            assert "carla" not in answer.text.lower()
            assert (answer.headers["Referrer-Policy"], answer.headers["Cache-Control"]) == ("no-referrer", "no-store")
            assert "set-cookie" not in answer.headers
            assert "<script" not in answer.text and "http" not in answer.text.replace("http-equiv", "")


def test_f8_looking_at_the_preferences_changes_nothing(tracking: Tracking) -> None:
    contact_id = tracking.contact()
    path = path_of(tracking.links(contact_id).preferences())
    for query in ("", "&action=unsubscribe", "&action=update&language=de"):
        assert [tracking.client.get(path + query).status_code, tracking.client.head(path + query).status_code] == [
            200, 200]  # fmt: skip
    assert tracking.rows("select subscribed, language, version from contacts") == [(True, "en", 1)]


def test_f10_many_choices_at_once_are_one(tracking: Tracking) -> None:
    path = path_of(tracking.links(tracking.contact()).preferences())

    async def storm(action: str) -> set[int]:
        url = str(tracking.client.base_url)
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            posts = (client.post(path, data={"action": action}) for _ in range(50))
            return {answer.status_code for answer in await asyncio.gather(*posts)}

    for action in ("unsubscribe", "resubscribe"):
        statuses = asyncio.run(storm(action))  # a busy machine may turn some away, and says so
        assert 200 in statuses and statuses <= {200, 503}
    assert [row.status for row in tracking.rows("select status from consents order by consent_id")] == [
        "withdrawn", "granted"]  # fmt: skip
    assert [row.event_type for row in tracking.rows("select event_type from events order by event_id")] == [
        "unsubscribed", "contact_updated"]  # fmt: skip


@pytest.mark.parametrize("value", ['"><script>alert(1)</script>', "' onfocus=alert(1) x='", "{{ 7 * 7 }}", "</option>"])
def test_what_a_contact_says_is_text_on_the_page(tracking: Tracking, value: str) -> None:
    contact_id = tracking.contact(language=value, timezone=value)
    page = tracking.client.get(path_of(tracking.links(contact_id).preferences())).text
    assert str(markupsafe.escape(value)) in page
    assert "<script" not in page and ">49<" not in page
    assert page.count("</option>") == page.count("<option")


def test_f12_guessing_a_page_costs_no_database(tracking: Tracking) -> None:
    gate = Gate(tracking.settings.database_url)
    gate.shut()
    with tracked(gate.through(tracking.settings)) as client:
        for number in range(100):
            for path in (f"confirm/1?s={number:040d}0", f"preferences/7/1?s={number:040d}0"):
                assert client.post(f"/api/v1/track/{path}", data={"action": "resubscribe"}).status_code == 200
    gate.close()
