"""Consent and suppression: what each change leaves behind, and that a person's own word is final."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import contacts
from mautolib.contacts import consent, listing
from mautolib.contacts.model import NewContact, SuppressionReason
from mautolib.errors import Conflict, InvalidInput, NotAllowed, NotFound
from mautolib.ledger.model import Kind, NewMessage
from mautolib.ledger.queue import queue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
EMAIL = "anna@shop.example"


def make(tx: Connection, email: str = EMAIL, **fields: Any) -> contacts.Contact:
    return contacts.create(tx, NewContact(email=email, **fields), actor="test", now=NOW)


def count(tx: Connection, table: str, condition: str = "true") -> int:
    return int(tx.scalar(text(f"select count(*) from {table} where {condition}")) or 0)


def mailable(tx: Connection) -> int:
    return count(tx, "mailable_contacts")


def queue_mail(tx: Connection, one: contacts.Contact) -> None:
    content = tx.scalar(
        text("insert into message_contents (subject, html_body) values ('Hello', '<p>Hello') returning content_id")
    )
    message = NewMessage(
        kind=Kind.CAMPAIGN, contact_id=one.contact_id, to_email=one.email, to_key=one.email_key, campaign_id=7,
        content_id=content, dedupe_key="campaign:7", due_at=NOW, give_up_at=LATER,
    )  # fmt: skip
    assert queue(tx, [message]) == 1


def unsubscribe(tx: Connection, contact_id: int) -> bool:
    return consent.unsubscribe(tx, contact_id, source="link", actor="public", now=LATER, campaign_id=7, message_id=8)


def test_unsubscribing_is_one_fact_however_often_it_is_said(tx: Connection) -> None:
    one = make(tx)
    queue_mail(tx, one)
    assert mailable(tx) == 1
    assert [unsubscribe(tx, one.contact_id) for _ in range(3)] == [True, False, False]
    after = contacts.get(tx, one.contact_id)
    assert (after.subscribed, after.consent_status, after.consent_source) == (False, "withdrawn", "link")
    assert (after.suppressed, after.version, after.updated_at, mailable(tx)) == (True, 2, LATER, 0)
    lines = listing.consents(tx, one.contact_id)
    assert [(line.status, line.source, line.actor) for line in lines] == [("withdrawn", "link", "public")]
    told = tx.execute(text("select * from events where event_type = 'unsubscribed'")).one()
    assert (told.contact_id, told.campaign_id, told.message_id) == (one.contact_id, 7, 8)
    assert count(tx, "suppressions", "reason = 'unsubscribe' and source = 'link'") == 1
    assert tx.execute(text("select status, reason from messages")).one() == ("skipped", "unsubscribed")
    names = list(tx.scalars(text("select event_name from outbox order by outbox_id")))
    assert names == ["contact.created", "contact.unsubscribed", "email.unsubscribed"]


def test_nobody_is_unsubscribed_when_the_contact_is_gone(tx: Connection) -> None:
    assert not unsubscribe(tx, 4711)
    assert count(tx, "suppressions") == count(tx, "events") == 0


def test_the_person_s_own_word_counts_after_an_editor_s(tx: Connection) -> None:
    one = make(tx)
    contacts.update(tx, one.contact_id, {"subscribed": False}, actor="user:1", now=NOW)
    assert unsubscribe(tx, one.contact_id)
    assert [line.source for line in listing.consents(tx, one.contact_id)] == ["link", "api"]
    assert count(tx, "events", "event_type = 'unsubscribed'") == 2


@pytest.mark.parametrize("reason", ["unsubscribe", "complaint", "compliance"])
def test_a_person_who_said_no_is_not_subscribed_again(tx: Connection, reason: str) -> None:
    one = make(tx)
    consent.suppress(tx, EMAIL.upper(), SuppressionReason(reason), source="desk", actor="test", now=LATER)
    assert not contacts.get(tx, one.contact_id).subscribed
    for call in (
        lambda: contacts.update(tx, one.contact_id, {"subscribed": True}, actor="test", now=LATER),
        lambda: consent.grant(tx, one.contact_id, source="form", actor="test", now=LATER),
    ):
        with pytest.raises(Conflict) as failure:
            call()
        assert failure.value.code == "suppressed"
    contacts.delete(tx, one.contact_id, actor="test", now=LATER)
    assert not make(tx, "Anna@SHOP.example").subscribed
    assert mailable(tx) == 0


def test_moving_to_a_suppressed_address_opts_out(tx: Connection) -> None:
    one = make(tx)
    consent.suppress(tx, "no@shop.example", SuppressionReason.COMPLAINT, actor="test", now=NOW)
    moved = contacts.update(tx, one.contact_id, {"email": "No@shop.example"}, actor="test", now=LATER)
    assert (moved.subscribed, moved.suppressed, moved.consent_status) == (False, True, "withdrawn")


@pytest.mark.parametrize("reason", ["bounce", "manual"])
def test_a_dead_address_is_no_withdrawn_consent(tx: Connection, reason: str) -> None:
    one = make(tx)
    queue_mail(tx, one)
    consent.suppress(tx, EMAIL, SuppressionReason(reason), actor="test", now=LATER)
    after = contacts.get(tx, one.contact_id)
    assert (after.subscribed, after.suppressed, after.version, mailable(tx)) == (True, True, 1, 0)
    assert tx.execute(text("select status, reason from messages")).one() == ("skipped", "suppressed")
    assert count(tx, "consents") == 0


def test_a_stronger_reason_replaces_a_weaker_one_only(tx: Connection) -> None:
    seen = []
    for reason in ("manual", "bounce", "unsubscribe", "complaint", "bounce", "compliance", "complaint"):
        entry = consent.suppress(tx, EMAIL, SuppressionReason(reason), source=reason, actor="test", now=NOW)
        seen.append((entry.reason, entry.source))
    words = ["manual", "bounce", "unsubscribe", "complaint", "complaint", "compliance", "compliance"]
    assert seen == [(word, word) for word in words]
    assert count(tx, "suppressions") == 1
    before = list(tx.scalars(text("select reason from suppression_history order by valid_to, reason")))
    assert sorted(before) == ["bounce", "complaint", "manual", "unsubscribe"]


def test_a_list_is_suppressed_at_once(tx: Connection) -> None:
    one = make(tx, "b@x.co")
    consent.suppress(tx, "c@x.co", SuppressionReason.COMPLIANCE, actor="test", now=NOW)
    done = consent.suppress_many(
        tx, ["a@x.co", "B@X.co", "b@x.co", "c@x.co"], SuppressionReason.COMPLAINT, actor="test", now=LATER
    )
    assert (done.suppressed, done.new, done.known) == (4, 2, 1)
    assert listing.suppression_counts(tx) == {"complaint": 2, "compliance": 1}
    assert [entry.email for entry in listing.suppressions(tx, reason=SuppressionReason.COMPLIANCE)] == ["c@x.co"]
    assert not contacts.get(tx, one.contact_id).subscribed
    with pytest.raises(InvalidInput) as failure:
        consent.suppress_many(tx, ["d@x.co", "nope"], SuppressionReason.MANUAL, actor="test", now=NOW)
    assert failure.value.path == ("body", "emails", 1)
    assert listing.find_suppression(tx, "d@x.co") is None
    assert listing.find_suppression(tx, " A@x.CO ") is not None
    assert listing.find_suppression(tx, "any \0 text") is None


def test_lifting_a_suppression_subscribes_nobody(tx: Connection) -> None:
    one = make(tx)
    unsubscribe(tx, one.contact_id)
    assert consent.unsuppress(tx, "Anna@shop.example", actor="test", now=LATER).reason == "unsubscribe"
    after = contacts.get(tx, one.contact_id)
    assert (after.subscribed, after.suppressed) == (False, False)
    with pytest.raises(NotFound, match=r"^Email not found in suppression list$"):
        consent.unsuppress(tx, EMAIL, actor="test", now=LATER)
    back = contacts.update(tx, one.contact_id, {"subscribed": True}, actor="test", now=LATER)
    assert (back.subscribed, back.consent_status, mailable(tx)) == (True, "granted", 1)
    consent.suppress(tx, EMAIL, SuppressionReason.COMPLAINT, actor="test", now=LATER)
    with pytest.raises(NotAllowed):
        consent.unsuppress(tx, EMAIL, actor="test", now=LATER)
    assert consent.unsuppress(tx, EMAIL, actor="test", now=LATER, may_remove_any=True).reason == "complaint"


@pytest.mark.parametrize("reason", list(SuppressionReason))
def test_lifting_mails_nobody_who_was_made_while_the_address_was_suppressed(
    fresh_engine: Engine, reason: SuppressionReason
) -> None:
    with fresh_engine.connect() as making, fresh_engine.connect() as suppressing:
        # Neither transaction sees the other's row.
        one = make(making)
        consent.suppress(suppressing, EMAIL, reason, source="support", actor="test", now=NOW)
        making.commit()
        suppressing.commit()
    is_own_word = reason not in (SuppressionReason.BOUNCE, SuppressionReason.MANUAL)
    with fresh_engine.begin() as tx:
        assert mailable(tx) == 0
        consent.unsuppress(tx, EMAIL, actor="test", now=LATER, may_remove_any=True)
        after = contacts.get(tx, one.contact_id)
        assert (mailable(tx), after.subscribed) == ((0, False) if is_own_word else (1, True))
        lines = [(line.status, line.source, line.actor) for line in listing.consents(tx, one.contact_id)]
    assert lines == ([("withdrawn", "support", "test")] if is_own_word else [])


def test_the_person_can_change_their_mind_but_not_undo_a_complaint(tx: Connection) -> None:
    one = make(tx)
    unsubscribe(tx, one.contact_id)
    assert consent.resubscribe(tx, one.contact_id, source="preferences", actor="public", now=LATER)
    after = contacts.get(tx, one.contact_id)
    assert (after.subscribed, after.consent_status, after.suppressed) == (True, "granted", False)
    assert not consent.resubscribe(tx, one.contact_id, source="preferences", actor="public", now=LATER)
    consent.suppress(tx, EMAIL, SuppressionReason.COMPLAINT, actor="test", now=LATER)
    with pytest.raises(Conflict):
        consent.resubscribe(tx, one.contact_id, source="preferences", actor="public", now=LATER)


def test_consent_is_recorded_with_its_source(tx: Connection) -> None:
    one = make(tx, consent_status="granted", consent_source="checkout", consent_at=NOW - timedelta(days=3))
    assert (one.consent_status, one.consent_source, one.consent_at) == ("granted", "checkout", NOW - timedelta(days=3))
    assert [(line.status, line.source) for line in listing.consents(tx, one.contact_id)] == [("granted", "checkout")]
    two = make(tx, "ben@shop.example", consent_status="pending")
    assert mailable(tx) == 1
    assert consent.grant(
        tx, two.contact_id, source="double opt-in", actor="public", now=LATER, wording_version="v2", ip="192.0.2.1"
    )
    assert not consent.grant(tx, two.contact_id, source="double opt-in", actor="public", now=LATER)
    line = listing.consents(tx, two.contact_id)[0]
    assert (line.status, line.wording_version, line.ip, line.source) == ("granted", "v2", "192.0.2.1", "double opt-in")
    assert mailable(tx) == 2


def test_parallel_unsubscribes_are_one(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        one = make(tx)
    results: list[bool] = []

    def click() -> None:
        with fresh_engine.begin() as own:
            results.append(unsubscribe(own, one.contact_id))

    threads = [threading.Thread(target=click) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]
    with fresh_engine.begin() as tx:
        assert count(tx, "events", "event_type = 'unsubscribed'") == count(tx, "suppressions") == 1
