"""Contacts in a real database: made, read, changed, deleted, listed; versions, events and facts beside."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import contacts
from mautolib.contacts import consent, store
from mautolib.contacts.model import ContactFilter, NewContact, SuppressionReason
from mautolib.errors import Conflict, InvalidInput, NotFound

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


def make(tx: Connection, email: str = "Anna@Shop.Example", *, now: datetime = NOW, **fields: Any) -> contacts.Contact:
    return contacts.create(tx, NewContact(email=email, **fields), actor="test", now=now)


def events(tx: Connection, contact_id: int) -> list[tuple[str, dict[str, Any]]]:
    query = "select event_type, properties from events where contact_id = :id order by event_id"
    return [tuple(row) for row in tx.execute(text(query), {"id": contact_id})]


def facts(tx: Connection) -> list[str]:
    return list(tx.scalars(text("select event_name from outbox order by outbox_id")))


def tag(tx: Connection, name: str) -> int:
    return int(tx.scalar(text("insert into tags (name) values (:n) returning tag_id"), {"n": name}) or 0)


def test_a_contact_is_made_with_defaults(tx: Connection) -> None:
    one = make(tx, " Anna@Shop.EXAMPLE ")
    assert (one.email, one.email_key, one.language, one.subscribed) == (
        "Anna@shop.example", "anna@shop.example", "en", True)  # fmt: skip
    assert (one.consent_status, one.consent_at, one.suppressed, one.version) == ("unknown", None, False, 1)
    assert (one.created_at, one.updated_at) == (NOW, None)
    assert events(tx, one.contact_id) == [("contact_created", {"source": "api"})]
    waiting = tx.execute(text("select event_ids, (select array_agg(event_id) from events) from event_pending")).one()
    assert waiting[0] == waiting[1]
    assert facts(tx) == ["contact.created"]
    assert contacts.get(tx, one.contact_id) == one


def test_an_address_has_one_contact_however_it_is_written(tx: Connection) -> None:
    one = make(tx, "a@münchen.example")
    for spelling in ("A@MÜNCHEN.example", "a@xn--mnchen-3ya.example", "ａ@münchen.example"):
        with pytest.raises(Conflict, match=r"^Contact with this email already exists$") as failure:
            make(tx, spelling)
        assert failure.value.code == "duplicate"
        found = contacts.find_by_email(tx, spelling)
        assert found is not None
        assert found.contact_id == one.contact_id
    assert contacts.find_by_email(tx, "b@münchen.example") is None


def test_risk_flags_are_set(tx: Connection) -> None:
    flags = {
        email: (one.is_disposable, one.is_free_provider, one.is_role_based)
        for email in ("a@mailinator.com", "b@gmail.com", "in.fo+x@shop.example", "anna@shop.example")
        if (one := make(tx, email))
    }
    assert flags == {
        "a@mailinator.com": (True, False, False), "b@gmail.com": (False, True, False),
        "in.fo+x@shop.example": (False, False, True), "anna@shop.example": (False, False, False),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "no address"), ("email", "a@b.co\n"), ("email", "x" * 321 + "@b.co"), ("first_name", "x" * 101),
        ("first_name", "a\nb"), ("last_name", "a\0b"), ("last_name", "\ud800"), ("phone", "1" * 31),
        ("country", "Germany"), ("language", "x" * 11), ("timezone", "Mars/Olympus"), ("currency", "EURO"),
        ("currency", "XXX"), ("custom_fields", {"a": float("nan")}), ("custom_fields", {"": 1}),
        ("custom_fields", {"k" * 101: 1}), ("custom_fields", {str(n): n for n in range(101)}),
        ("custom_fields", {"a": {"b": {"c": {"d": {}}}}}), ("custom_fields", {"a": "x" * 16400}),
        ("custom_fields", {"a": "\ud800"}), ("custom_fields", {"a\0": 1}), ("custom_fields", [1]),
        ("subscribed", "yes"), ("consent_status", "maybe"), ("consent_at", datetime(2026, 1, 1)),
        ("consent_at", datetime(1960, 1, 1, tzinfo=UTC)), ("consent_status", "granted"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_acceptable_is_named(tx: Connection, field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as failure:
        contacts.create(tx, replace(NewContact(email="a@b.co"), **{field: value}), actor="test", now=NOW)
    expected = "consent_source" if value == "granted" else field
    assert failure.value.path == ("body", expected)
    assert tx.scalar(text("select count(*) from contacts")) == 0


def test_all_problems_are_listed_at_once(tx: Connection) -> None:
    with pytest.raises(InvalidInput) as failure:
        make(tx, "nope", timezone="nowhere", currency="??")
    assert [failure.value.path, *(path for path, _ in failure.value.problems)] == [
        ("body", "email"), ("body", "timezone"), ("body", "currency")]  # fmt: skip


def test_a_change_makes_a_version_and_keeps_the_old_one(tx: Connection) -> None:
    one = make(tx, first_name="Ana", custom_fields={"size": "M", "old": 1})
    two = contacts.update(
        tx, one.contact_id, {"first_name": " Anna ", "custom_fields": {"size": "L"}, "id": 7, "version": 99},
        actor="test", now=LATER,
    )  # fmt: skip
    assert (two.first_name, two.custom_fields, two.version, two.updated_at) == ("Anna", {"size": "L"}, 2, LATER)
    old = tx.execute(text("select * from contact_history where contact_id = :id"), {"id": one.contact_id}).one()
    assert (old.version, old.first_name, old.custom_fields) == (1, "Ana", {"size": "M", "old": 1})
    assert (old.valid_from, old.valid_to) == (NOW, LATER)
    assert events(tx, one.contact_id)[1] == ("contact_updated", {"changed": ["custom_fields", "first_name"]})
    assert facts(tx) == ["contact.created", "contact.updated"]


def test_a_change_that_changes_nothing_leaves_no_trace(tx: Connection) -> None:
    one = make(tx, first_name="Anna")
    assert contacts.update(tx, one.contact_id, {"first_name": "Anna"}, actor="test", now=LATER) == one
    assert contacts.update(tx, one.contact_id, {}, actor="test", now=LATER) == one
    assert facts(tx) == ["contact.created"]


def test_an_address_can_be_changed_but_not_to_a_taken_one(tx: Connection) -> None:
    one = make(tx)
    make(tx, "ben@shop.example")
    moved = contacts.update(tx, one.contact_id, {"email": "Anna@mailinator.com"}, actor="test", now=LATER)
    assert (moved.email_key, moved.is_disposable) == ("anna@mailinator.com", True)
    with pytest.raises(Conflict) as failure:
        contacts.update(tx, one.contact_id, {"email": "BEN@shop.example"}, actor="test", now=LATER)
    assert failure.value.code == "duplicate"
    # The transaction is still usable, and the spelling of one's own address may change.
    assert contacts.update(tx, one.contact_id, {"email": "anna@mailinator.com"}, actor="t", now=LATER).version == 3


def test_unknown_contacts_are_not_found(tx: Connection) -> None:
    for call in (
        lambda: contacts.get(tx, 1),
        lambda: contacts.update(tx, 1, {}, actor="test", now=NOW),
        lambda: contacts.delete(tx, 1, actor="test", now=NOW),
        lambda: consent.set_subscribed(tx, 1, True, source="api", actor="test", now=NOW),
    ):
        with pytest.raises(NotFound, match=r"^Contact not found$"):
            call()


def test_deleting_takes_what_describes_the_person_and_leaves_facts(tx: Connection) -> None:
    one = make(tx, tag_ids=[tag(tx, "vip"), 999_999])
    contacts.update(tx, one.contact_id, {"first_name": "Anna"}, actor="test", now=LATER)
    consent.suppress(tx, one.email, SuppressionReason.MANUAL, actor="test", now=LATER)
    before = len(events(tx, one.contact_id))
    contacts.delete(tx, one.contact_id, actor="test", now=LATER)
    for table in ("contacts", "contact_history", "contact_tags"):
        query = f"select count(*) from {table} where contact_id = :id"
        assert tx.scalar(text(query), {"id": one.contact_id}) == 0, table
    assert len(events(tx, one.contact_id)) == before
    assert consent.suppression_of(tx, one.email_key) is SuppressionReason.MANUAL
    again = make(tx)
    assert again.contact_id > one.contact_id
    assert again.suppressed
    assert facts(tx)[-2:] == ["contact.deleted", "contact.created"]


def test_tags_are_shown_by_name_and_told_once(tx: Connection) -> None:
    vip, news = tag(tx, "vip"), tag(tx, "News")
    one = make(tx, tag_ids=[vip, vip])
    assert store.add_tags(tx, [one.contact_id], [vip, news], now=NOW) == 1
    assert [shown.name for shown in contacts.get(tx, one.contact_id).tags] == ["News", "vip"]
    assert store.remove_tag(tx, one.contact_id, vip, now=NOW)
    assert not store.remove_tag(tx, one.contact_id, vip, now=NOW)
    told = [(kind, properties["tag_name"]) for kind, properties in events(tx, one.contact_id)[1:]]
    assert told == [("tag_added", "vip"), ("tag_added", "News"), ("tag_removed", "vip")]


def test_filters_combine_and_texts_are_literal(tx: Connection) -> None:
    vip = tag(tx, "vip")
    anna = make(tx, first_name="Anna", tag_ids=[vip])
    ben = make(tx, "ben_50%@shop.example", last_name="O'Hara", subscribed=False, now=LATER)
    segment = tx.scalar(text("insert into segments (name) values ('s') returning segment_id"))
    tx.execute(
        text("""
            insert into segment_memberships (segment_id, contact_id, valid_from, valid_to)
            values (:s, :a, :n, 'infinity'), (:s, :b, :n, cast(:n as timestamptz) + interval '1 day')
        """),
        {"s": segment, "a": anna.contact_id, "b": ben.contact_id, "n": NOW},
    )

    def found(**filters: Any) -> list[int]:
        wanted = ContactFilter(**filters)
        rows = [one.contact_id for one in contacts.search(tx, wanted)]
        assert contacts.count(tx, wanted) == len(rows)
        return rows

    assert found() == [ben.contact_id, anna.contact_id]
    assert found(subscribed=True) == found(tag="vip") == found(q="ANN") == [anna.contact_id]
    assert found(q="_50%") == found(q="o'h") == found(updated_since=LATER) == [ben.contact_id]
    assert found(email="ANNA@shop.example", subscribed=True) == found(segment_id=segment) == [anna.contact_id]
    assert found(q="%") == [ben.contact_id]
    for nothing in ({"q": "\\"}, {"q": "a\0"}, {"email": "\ud800"}, {"tag": "VIP"}, {"lifecycle_stage": "lead"}):
        assert found(**nothing) == []
    assert [one.contact_id for one in contacts.search(tx, after=(ben.created_at, ben.contact_id))] == [anna.contact_id]
    assert contacts.count(tx, at_most=1) == 1
    assert [segment_ref.name for segment_ref in contacts.get(tx, anna.contact_id).segments] == ["s"]
    assert contacts.get(tx, ben.contact_id).segments == ()


def test_a_page_shows_who_was_deleted_while_it_was_read(tx: Connection) -> None:
    one, two = make(tx, "one@shop.example"), make(tx, "two@shop.example")
    rows = tx.execute(text("select * from contacts order by contact_id")).all()
    contacts.delete(tx, one.contact_id, actor="test", now=NOW)
    assert [found.contact_id for found in store.complete(tx, rows)] == [one.contact_id, two.contact_id]


def test_of_twelve_creators_of_one_address_one_wins(fresh_engine: Engine) -> None:
    outcomes: list[str] = []

    def attempt(number: int) -> None:
        try:
            with fresh_engine.begin() as own:
                make(own, "Race@Shop.example" if number % 2 else "race@shop.EXAMPLE")
            outcomes.append("made")
        except Conflict as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["duplicate"] * 11 + ["made"]
