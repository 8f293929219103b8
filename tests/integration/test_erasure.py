"""Erasure: what goes at once, what maintenance cleans, what stays counted, and that it survives whatever happens."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, text

from mautolib import contacts, privacy
from mautolib.analytics import cohorts, readers
from mautolib.contacts import NewContact, consent, imports, listing
from mautolib.contacts.address import parse
from mautolib.contacts.imports import running
from mautolib.contacts.model import SuppressionReason
from mautolib.db import tables
from mautolib.db.engine import connect
from mautolib.db.statements import statement
from mautolib.errors import NotFound
from mautolib.events.append import NewEvent, append
from mautolib.privacy.model import ErasureStatus, Search, Traces
from mautolib.privacy.removal import CLEANED
from mautolib.settings import Settings
from tests.builders import (
    make_campaign,
    make_contact,
    make_event,
    make_hit,
    make_message,
    make_order,
    make_tag,
)
from tests.live_service import as_role

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
EMAIL = "Zoe.Quill@shop.example"
KEY = "zoe.quill@shop.example"


def person(tx: Connection, settings: Settings, email: str = EMAIL, **fields: Any) -> int:
    made = NewContact(email=email, **{"first_name": "Zoe", "last_name": "Quillfeather", **fields})
    return contacts.create(tx, made, actor="test", now=NOW - timedelta(days=40), settings=settings).contact_id


def erase(tx: Connection, contact_id: int, settings: Settings, now: datetime = NOW) -> privacy.Erasure:
    return privacy.erase(tx, contact_id, actor="user:1", now=now, settings=settings)


def scalar(tx: Connection | Engine, sql: str, **binds: Any) -> Any:
    if isinstance(tx, Engine):
        with tx.connect() as connection:
            return connection.scalar(text(sql), binds)
    return tx.scalar(text(sql), binds)


def finish(engine: Engine, settings: Settings, now: datetime = LATER) -> privacy.Carried:
    return privacy.carry_out(engine, settings, now=now)


def test_contact_and_address_are_gone_at_once(tx: Connection, settings: Settings) -> None:
    one = person(tx, settings, phone="+4930123456", country="DE")
    contacts.update(tx, one, {"first_name": "Zoë"}, actor="test", now=NOW, settings=settings)
    tag = make_tag(tx, "vip", [one])
    tx.execute(insert(tables.segment_memberships).values(segment_id=9, contact_id=one, valid_from=NOW))
    tx.execute(insert(tables.contact_stages).values(
        contact_id=one, lifecycle_stage="lead", since=NOW, evaluated_at=NOW))
    queued = make_message(tx, one, status="queued")
    done = erase(tx, one, settings)
    assert (done.status, done.contact_id, done.requested_by) == (ErasureStatus.RUNNING, one, "user:1")
    counts = {count.table: count.rows for count in done.tables}
    assert counts.pop("event_pending") >= 2
    assert counts == {
        "contacts": 1, "contact_history": 1, "contact_tags": 1, "contact_tag_history": 1, "segment_memberships": 1,
        "contact_stages": 1, "suppressions": 1,
    }  # fmt: skip
    with pytest.raises(NotFound):
        contacts.get(tx, one)
    assert scalar(tx, "select count(*) from contact_tag_history where tag_id = :tag", tag=tag) == 0
    assert tx.execute(
        text("select status, reason from messages where message_id = :id"), {"id": queued}
    ).one() == ("skipped", "erased")
    told = scalar(tx, "select data from outbox where event_name = 'contact.deleted' order by outbox_id desc limit 1")
    assert told == {"contact": {"id": str(one)}, "changed": []}
    with pytest.raises(NotFound, match="Contact not found"):
        erase(tx, one, settings)


def test_the_tombstone_knows_month_and_country_only(tx: Connection, settings: Settings) -> None:
    one = make_contact(tx, created_at=datetime(2026, 2, 28, 23, 30, tzinfo=UTC), country="PT")
    erase(tx, one, settings)
    assert tx.execute(text("select * from analytics.erased_contacts where contact_id = :id"), {"id": one}).one() == (
        one, date(2026, 2, 1), "PT", NOW.date())


@pytest.mark.parametrize(("reason", "kept"), [(None, "unsubscribe"), ("complaint", "complaint"), ("bounce", "bounce")])
def test_the_address_becomes_a_keyed_hash(
    tx: Connection, settings: Settings, reason: str | None, kept: str
) -> None:
    one = person(tx, settings)
    if reason:
        words = f"550 {KEY} unknown"
        consent.suppress(tx, EMAIL, SuppressionReason(reason), notes=words, actor="test", now=NOW, settings=settings)
    erase(tx, one, settings)
    entry = listing.find_suppression(tx, EMAIL, settings)
    assert entry is not None
    assert (entry.reason, entry.source, entry.notes) == (kept, "erasure", "")
    assert entry.email.startswith("erased:") and len(entry.email) == len("erased:") + 64
    assert "zoe" not in entry.email
    other = replace(settings, suppression_pepper="0d94e27a85f3b60e7924d1fa6b0358ee")
    assert listing.find_suppression(tx, EMAIL, other) is None, "another pepper gives another hash"
    assert scalar(tx, "select count(*) from suppressions where email_key = :key", key=KEY) == 0


@pytest.mark.parametrize(("reason", "subscribed"), [("unsubscribe", False), ("complaint", False), ("bounce", True)])
def test_a_person_who_comes_back_is_known_by_the_hash(
    tx: Connection, settings: Settings, reason: str, subscribed: bool
) -> None:
    one = person(tx, settings)
    consent.suppress(tx, EMAIL, SuppressionReason(reason), actor="test", now=NOW, settings=settings)
    erase(tx, one, settings)
    again = contacts.create(tx, NewContact(email=EMAIL.upper()), actor="test", now=LATER, settings=settings)
    assert again.contact_id != one
    assert (again.subscribed, again.suppressed) == (subscribed, True)
    entry = listing.find_suppression(tx, EMAIL, settings)
    assert entry is not None
    assert (entry.email, entry.reason, entry.source) == (KEY, reason, "erasure")
    assert scalar(tx, "select count(*) from mailable_contacts where contact_id = :id", id=again.contact_id) == 0


def test_a_contact_that_takes_over_an_erased_address_is_opted_out(tx: Connection, settings: Settings) -> None:
    erase(tx, person(tx, settings), settings)
    other = person(tx, settings, "other@shop.example")
    changed = contacts.update(tx, other, {"email": EMAIL}, actor="test", now=LATER, settings=settings)
    assert (changed.subscribed, changed.suppressed, changed.consent_status) == (False, True, "withdrawn")


def test_an_import_brings_an_erased_address_back_opted_out(tx: Connection, settings: Settings) -> None:
    erase(tx, person(tx, settings), settings)
    items = [NewContact(email=EMAIL), NewContact(email="fresh@shop.example")]
    done = imports.import_items(tx, items, actor="user:1", now=LATER, settings=settings)
    assert (done.created, done.suppressed) == (2, 1)
    rows = tx.execute(text("select email_key, subscribed from contacts where email_key in (:a, 'fresh@shop.example')"
                           " order by 1"), {"a": KEY}).all()  # fmt: skip
    assert rows == [("fresh@shop.example", True), (KEY, False)]


def test_an_event_about_an_erased_address_finds_the_hash(tx: Connection, settings: Settings) -> None:
    erase(tx, person(tx, settings), settings)
    (one,) = contacts.first_seen(tx, [parse(EMAIL)], source="event", now=LATER, settings=settings).values()
    again = contacts.get(tx, one)
    assert (again.subscribed, again.suppressed) == (False, True)


def test_maintenance_is_woken_by_the_commit(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        one = person(tx, settings)
    listening = fresh_engine.raw_connection()
    try:
        listening.cursor().execute("listen mauto_erasures")
        listening.commit()
        with fresh_engine.begin() as tx:
            erase(tx, one, settings)
        listening.cursor().execute("select 1")
        assert [note.channel for note in listening.driver_connection.notifies] == ["mauto_erasures"]
    finally:
        listening.close()
    due = statement("queues.erasures_due")
    with fresh_engine.connect() as tx:
        assert tx.scalar(due) == NOW
    assert finish(fresh_engine, settings).completed == 1
    with fresh_engine.connect() as tx:
        assert tx.scalar(due) is None


def test_while_nobody_is_erased_no_settings_are_needed_and_after_that_they_are(
    tx: Connection, settings: Settings
) -> None:
    assert contacts.create(tx, NewContact(email="a@shop.example"), actor="test", now=NOW).subscribed
    erase(tx, person(tx, settings), settings)
    with pytest.raises(ValueError, match="settings are needed"):
        contacts.create(tx, NewContact(email="b@shop.example"), actor="test", now=NOW)


def test_suppressing_an_erased_address_leaves_it_a_hash(tx: Connection, settings: Settings) -> None:
    erase(tx, person(tx, settings), settings)
    before = listing.find_suppression(tx, EMAIL, settings)
    assert before is not None
    weak = consent.suppress(tx, EMAIL, SuppressionReason.MANUAL, actor="test", now=LATER, settings=settings)
    assert weak == before
    strong = consent.suppress(
        tx, EMAIL, SuppressionReason.COMPLAINT, notes=f"from {EMAIL}", actor="test", now=LATER, settings=settings
    )
    assert (strong.suppression_id, strong.email, strong.reason) == (before.suppression_id, before.email, "complaint")
    assert strong.notes == ""
    many = consent.suppress_many(
        tx, [EMAIL, "new@shop.example"], SuppressionReason.MANUAL, actor="test", now=LATER, settings=settings
    )
    assert (many.suppressed, many.new, many.known) == (2, 1, 1)
    removed = consent.unsuppress(tx, EMAIL, actor="test", now=LATER, may_remove_any=True, settings=settings)
    assert removed.email == before.email
    assert listing.find_suppression(tx, EMAIL, settings) is None


def test_a_creation_that_waited_for_the_erasure_sees_it(fresh_engine: Engine, settings: Settings) -> None:
    """The unique key makes a creation wait for the erasure; it looked for the hash before that was there."""
    from threading import Thread

    with fresh_engine.begin() as tx:
        one = person(tx, settings)
    made: list[contacts.Contact] = []

    def create() -> None:
        with fresh_engine.begin() as other:
            made.append(contacts.create(other, NewContact(email=EMAIL), actor="t", now=LATER, settings=settings))

    with fresh_engine.begin() as tx:
        erase(tx, one, settings)
        thread = Thread(target=create)
        thread.start()
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'INSERT INTO c%'"
        for _ in range(200):
            if scalar(fresh_engine, waiting):
                break
            thread.join(0.05)
        assert thread.is_alive()
    thread.join(10)
    assert [(one.subscribed, one.suppressed) for one in made] == [(False, True)]


def test_an_address_somebody_else_has_now_is_theirs(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        one = person(tx, settings, "shared@shop.example")
        contacts.update(tx, one, {"email": EMAIL}, actor="t", now=NOW, settings=settings)
        other = person(tx, settings, "shared@shop.example")
        make_event(tx, other, "form_submitted", properties={"form": "f", "fields": {"mail": "shared@shop.example"}})
        erase(tx, one, settings)
    assert finish(fresh_engine, settings).completed == 1
    assert scalar(fresh_engine, "select email from contacts where contact_id = :id", id=other) == "shared@shop.example"
    assert scalar(fresh_engine, "select properties #>> '{fields,mail}' from events where contact_id = :id"
                  " and event_type = 'form_submitted'", id=other) == "shared@shop.example"  # fmt: skip


def test_other_stores_are_cleaned_and_others_rows_stay(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        one, other = person(tx, settings), make_contact(tx, email="juliana.zoe.quill@shop.example")
        event = make_event(tx, one, "form_submitted", properties={
            "form": "newsletter", "fields": {"name": "Zoe"}, "note": "call"}, external_id=f"form:{KEY}:1")  # fmt: skip
        referral = make_event(tx, other, "referred", properties={
            "who": EMAIL.upper(), "me": "juliana.zoe.quill@shop.example", "n": 12.50,
            "url": "https://x.example/?e=zoe.quill%40shop.example&f=1"})  # fmt: skip
        make_order(tx, one, lines=[{"sku": "A1", "name": "Ring for Zoe", "quantity": 2, "unit_price": "9.50"}],
                   total="19.00")  # fmt: skip
        sent = make_message(tx, one, status="sent", to_email=EMAIL, to_key=KEY, context={"name": "Zoe"},
                            last_error=f"451 {EMAIL}")  # fmt: skip
        loose = make_message(tx, 0, kind="transactional", to_email=EMAIL, to_key=KEY, context={"name": "Zoe"},
                             dedupe_key=f"api:{KEY}", status="queued")  # fmt: skip
        make_hit(tx, one, sent, "click", user_agent="Zoe's phone", network="192.0.2.0/24",
                 url="https://shop.example/a?email=zoe.quill%40shop.example")  # fmt: skip
        done = erase(tx, one, settings)
    assert finish(fresh_engine, settings) == privacy.Carried(completed=1)
    with fresh_engine.connect() as tx:
        shown = dict(tx.execute(text("select event_id, properties from events")).all())
        assert shown[event] == {"form": "newsletter"}
        token = f"erased-{done.erasure_id}"
        assert shown[referral] == {"who": token, "me": "juliana.zoe.quill@shop.example", "n": 12.50,
                                   "url": f"https://x.example/?e={token}&f=1"}  # fmt: skip
        assert scalar(tx, "select external_id from events where event_id = :id", id=event) == f"form:{token}:1"
        assert scalar(tx, "select lines from orders where contact_id = :id", id=one) == [
            {"sku": "A1", "name": "", "quantity": 2, "unit_price": "9.50"}]
        assert scalar(tx, "select total from orders where contact_id = :id", id=one) == 19
        query = "select to_email, to_key, context, last_error, dedupe_key, status from messages where message_id = :id"
        assert tx.execute(text(query), {"id": sent}).one()[:4] == (None, None, None, None)
        assert tx.execute(text(query), {"id": loose}).one() == (token, token, None, None, f"api:{token}", "skipped")
        assert tx.execute(text("select user_agent, network, url from hits")).one() == (
            "", "", "https://shop.example/a")
        finished = privacy.get_erasure(tx, done.erasure_id)
        assert scalar(tx, "select traces from erasures") is None
    assert (finished.status, finished.completed_at) == (ErasureStatus.COMPLETED, LATER)
    counts = {count.table: count.rows for count in finished.tables}
    assert {name: counts[name] for name in ("contacts", "orders", "hits")} == {"contacts": 1, "orders": 1, "hits": 1}
    assert finish(fresh_engine, settings) == privacy.Carried()


def test_the_eraser_may_do_it_and_the_worker_may_not(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        one = person(tx, settings)
        make_event(tx, one, "form_submitted", properties={"form": "f", "x": EMAIL})
        erase(tx, one, settings)
    with as_role(fresh_engine, "mauto_worker") as worker, as_role(fresh_engine, "mauto_eraser") as eraser:
        engine = connect(worker)
        with pytest.raises(Exception, match="permission denied"):
            privacy.carry_out(engine, replace(settings, database_url=""), now=LATER)
        assert scalar(fresh_engine, "select status from erasures") == "failed"
        assert finish(engine, replace(settings, eraser_database_url=eraser), LATER) == privacy.Carried()
        again = LATER + timedelta(hours=1)
        assert finish(engine, replace(settings, eraser_database_url=eraser), again).completed == 1
        engine.dispose()
    assert scalar(fresh_engine, "select status from erasures") == "completed"


def test_it_waits_for_mail_that_is_being_handed_over(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        one = person(tx, settings)
        held = make_message(tx, one, status="sending")
        erase(tx, one, settings)
    assert finish(fresh_engine, settings) == privacy.Carried(waiting=1)
    assert scalar(fresh_engine, "select status from erasures") == "running"
    with fresh_engine.begin() as tx:
        tx.execute(text("update messages set status = 'failed', lease_until = null, last_error = :words"
                        " where message_id = :id"), {"id": held, "words": f"550 {EMAIL}"})  # fmt: skip
    assert finish(fresh_engine, settings, LATER + timedelta(minutes=5)).completed == 1
    assert scalar(fresh_engine, "select last_error from messages") is None


def test_a_crash_half_way_is_made_good(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mautolib.privacy import removal

    with fresh_engine.begin() as tx:
        one = person(tx, settings)
        make_event(tx, one, "form_submitted", properties={"form": "f", "x": EMAIL})
        make_order(tx, one, lines=[{"sku": "A1", "name": EMAIL}])
        erase(tx, one, settings)

    def crash(*_: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(removal, "sweep", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            finish(fresh_engine, settings)
    assert scalar(fresh_engine, "select status from erasures") == "failed"
    assert finish(fresh_engine, settings, LATER + timedelta(hours=2)).completed == 1
    counts = scalar(fresh_engine, "select tables from erasures")
    assert (counts["events"], counts["orders"]) == (counts["events"], 1), "what was done is counted once"
    assert scalar(fresh_engine, "select count(*) from events where properties::text like '%quill%'") == 0


def test_who_came_back_keeps_what_is_new(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        one = person(tx, settings)
        make_event(tx, 0, "seen", properties={"mail": EMAIL}, received_at=NOW - timedelta(days=1))
        erase(tx, one, settings)
        again = contacts.create(tx, NewContact(email=EMAIL), actor="t", now=LATER, settings=settings)
        make_event(tx, again.contact_id, "seen", properties={"mail": EMAIL}, received_at=LATER)
    assert finish(fresh_engine, settings).completed == 1
    with fresh_engine.connect() as tx:
        assert contacts.get(tx, again.contact_id).email == again.email
        mails = tx.execute(text("select contact_id, properties ->> 'mail' from events where event_type = 'seen'"
                                " order by 1")).all()  # fmt: skip
    assert [(owner, "quill" in (mail or "").lower()) for owner, mail in mails] == [
        (0, False), (again.contact_id, True)]


def test_the_shops_own_address_stays_in_its_texts(fresh_engine: Engine, settings: Settings) -> None:
    own = settings.default_from_email
    with fresh_engine.begin() as tx:
        one = person(tx, settings, own)
        make_campaign(tx, name="A", subject="s", html_body=f"write to {own}", from_email=own)
        make_event(tx, 0, "seen", properties={"mail": own})
        erase(tx, one, settings)
    assert finish(fresh_engine, settings).completed == 1
    assert scalar(fresh_engine, "select html_body from campaigns") == f"write to {own}"
    assert "shop" not in scalar(fresh_engine, "select properties::text from events where event_type = 'seen'")


def test_past_totals_do_not_change(fresh_engine: Engine, settings: Settings) -> None:
    as_of = datetime(2026, 11, 20, tzinfo=UTC)
    with fresh_engine.begin() as tx:
        people = [make_contact(tx, created_at=datetime(2026, 9, 1 + n % 20, 5, tzinfo=UTC)) for n in range(30)]
        campaign = make_campaign(tx, name="A", subject="s", status="sent", requested_at=NOW, sent_at=NOW)
        for n, one in enumerate(people):
            sent = make_message(tx, one, campaign_id=campaign, sent_at=datetime(2026, 10, 1, tzinfo=UTC))
            for days in range(n % 5):
                at = datetime(2026, 10, 1 + days * 9, tzinfo=UTC)
                make_event(tx, one, "email_opened", at, campaign_id=campaign, message_id=sent)
                make_hit(tx, one, sent, "open", occurred_at=at)
            make_order(tx, one, datetime(2026, 10, 2, tzinfo=UTC), lines=[{"sku": "A", "name": "Zoe"}])

    def figures() -> dict[str, Any]:
        cohorts.refresh(fresh_engine, as_of=as_of)
        with fresh_engine.connect() as tx:
            cells = tx.execute(text(
                "select granularity, cohort_start, period_offset, cohort_size, active_count, retention_rate"
                " from analytics.contact_cohorts order by 1, 2, 3")).all()  # fmt: skip
            performance = tx.execute(text("select * from analytics.campaign_performance")).all()
            weeks = [(week["week_start"], week["total"]) for week in readers.signup_weeks(tx, weeks=20, now=NOW)]
            orders = tx.execute(text("select count(*), sum(net_revenue), sum(line_count) from analytics.fct_orders"))
            return {"cohorts": cells, "performance": performance, "weeks": weeks, "orders": orders.all()}

    before = figures()
    assert sum(active or 0 for *_, active, _ in before["cohorts"]) > 30
    with fresh_engine.begin() as tx:
        for one in people[:20]:
            erase(tx, one, settings)
    assert finish(fresh_engine, settings).completed == 20
    assert figures() == before


def test_files_under_storage_are_cleaned(fresh_engine: Engine, settings: Settings) -> None:
    storage = settings.storage_path
    rows = b"email,first_name\r\n" + EMAIL.encode() + b",Zoe\r\njuliana.zoe.quill@shop.example,Juliana\r\n"
    with fresh_engine.begin() as tx:
        one = person(tx, settings)
        uploads = {
            name: imports.store_upload(settings, [content])
            for name, content in {
                "waits": rows, "packed": gzip.compress(rows), "wide": rows.decode().encode("utf-16"), "over": rows,
            }.items()
        }  # fmt: skip
        ids = {
            name: imports.request(tx, filename=f"{KEY}.csv", uri=file.uri, format=file.format, options={}, actor="t",
                                  now=NOW - timedelta(hours=1))
            for name, file in uploads.items()
        }  # fmt: skip
        imports.cancel(tx, ids["over"], now=NOW)
        done = erase(tx, one, settings)
    (storage / "spool").mkdir(parents=True)
    (storage / "journal").mkdir()
    other = json.dumps({"key": "a", "rule": 1, "hits": [["2026-11-22", "open", "human", one + 1, None, None]]})
    both = json.dumps({"key": "b", "rule": 1, "hits": [["2026-11-22", "open", "human", one, None, None, None, None,
                       "Zoe's phone"], ["2026-11-22", "open", "human", one + 1]]})  # fmt: skip
    asked = json.dumps({"unsubscribe": one, "at": "2026-11-22", "source": "Zoe"})
    (storage / "spool" / "failed.ndjson").write_text(f"{other}\n{both}\n{asked}\n")
    (storage / "journal" / "1-a.journal").write_text(f'["boot","x"]\n["result","550 {EMAIL} unknown"]\n')
    mails = f"From news@shop.example\nTo: {EMAIL}\n\nHello Zoe\n\nFrom news@shop.example\nTo: b@shop.example\n\nHi\n"
    (storage / "console.mbox").write_text(mails)

    assert finish(fresh_engine, settings).completed == 1
    lines = (storage / "spool" / "failed.ndjson").read_text().splitlines()
    assert lines[0] == other
    assert json.loads(lines[1])["hits"] == [["2026-11-22", "open", "human", one + 1]]
    assert lines[2].strip() == ""
    journal = (storage / "journal" / "1-a.journal").read_text()
    assert [json.loads(line)[0] for line in journal.splitlines()] == ["boot", "result"]
    mbox = (storage / "console.mbox").read_text()
    assert "Zoe" not in mbox and "To: b@shop.example\n\nHi\n" in mbox and mbox.count("From news") == 2
    assert not (storage / uploads["over"].uri).exists()
    for path in (path for path in storage.rglob("*") if path.is_file()):
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        plain = content.replace(b"\0", b"").lower().replace(b"juliana.zoe.quill", b"")
        assert KEY.encode() not in plain, path
    for name in ("waits", "packed", "wide"):
        ended = imports.run(fresh_engine, settings, ids[name], now=LATER + timedelta(minutes=1))
        assert (ended.status, ended.total_rows, ended.rejected) == ("completed", 2, 1), name
    with fresh_engine.connect() as tx:
        assert tx.scalars(text("select email_key from contacts")).all() == ["juliana.zoe.quill@shop.example"]
        assert scalar(tx, "select count(*) from import_rejects where value ilike '%quill%'") == 0
        names = set(tx.scalars(text("select filename from imports")))
        assert names == {f"erased-{done.erasure_id}.csv"}


def staged_import(
    engine: Engine, settings: Settings, folder: Path, now: datetime = NOW - timedelta(hours=1)
) -> int:
    """An import whose worker died with all its rows kept: the person's, a neighbour's, and two that are refused."""
    path = folder / "list.csv"
    path.write_text(
        f"email,first_name,Note\n{EMAIL},Zoe,vip\njuliana.zoe.quill@shop.example,Zoe,\n"
        f"b@shop.example,Bo,knows {EMAIL}\nzoe.quill(at)shop.example,Quillfeather,\nbad,Ann\nc@shop.example,Zoe,\n"
    )
    with engine.begin() as tx:
        import_id = imports.request_file(tx, path, {}, actor="t", now=now)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "merge_or_try", die)
        with pytest.raises(KeyboardInterrupt):
            imports.run(engine, settings, import_id, now=NOW)
    return import_id


def staged_rows(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as tx:
        name = tx.scalar(text("select relname from pg_class where relname ~ '^import_[0-9]+_[0-9]+$'"))
        return [tuple(row) for row in tx.execute(text(
            f"select line, email_key, first_name, custom_fields, reject_code, reject_value from staging.{name} "
            "order by line"))]  # fmt: skip


def test_rows_that_wait_for_their_import_are_blotted_out(
    fresh_engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    with fresh_engine.begin() as tx:
        one = person(tx, settings)
    with as_role(fresh_engine, "mauto_worker") as worker, as_role(fresh_engine, "mauto_eraser") as eraser:
        engine = connect(worker)
        import_id = staged_import(engine, settings, tmp_path)
        with fresh_engine.begin() as tx:
            tx.execute(text("update imports set status = 'queued', attempt_id = null, lease_until = null"))
            erase(tx, one, settings)
        done = finish(engine, replace(settings, eraser_database_url=eraser))
        engine.dispose()
    assert done == privacy.Carried(completed=1)
    blank = (None, None, None, "invalid_email", "")
    assert staged_rows(fresh_engine) == [
        (2, *blank), (3, "juliana.zoe.quill@shop.example", "Zoe", None, None, None), (4, *blank),
        (5, None, None, None, "invalid_email", ""),  # A name in what would be quoted of a row that is not taken.
        (6, None, None, None, "ragged_row", "bad,Ann"), (7, "c@shop.example", "Zoe", None, None, None),
    ]  # fmt: skip
    assert scalar(fresh_engine, "select tables -> 'import_rows' from erasures") == 3
    ended = imports.run(fresh_engine, settings, import_id, now=LATER)
    assert (ended.status, ended.total_rows, ended.created, ended.rejected) == ("completed", 6, 2, 4)
    with fresh_engine.connect() as tx:
        found = list(tx.scalars(text("select email_key from contacts order by 1")))
    assert found == ["c@shop.example", "juliana.zoe.quill@shop.example"]


def test_an_erasure_waits_for_an_import_at_work(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    with fresh_engine.begin() as tx:
        one = person(tx, settings)
    import_id = staged_import(fresh_engine, settings, tmp_path)
    before = staged_rows(fresh_engine)
    with fresh_engine.begin() as tx:
        done = erase(tx, one, settings)
    assert finish(fresh_engine, settings) == privacy.Carried(waiting=1)
    assert staged_rows(fresh_engine) == before, "a merge reads the same rows from beginning to end"
    with fresh_engine.begin() as tx:
        tx.execute(text("update imports set lease_until = clock_timestamp() - interval '1 second'"))
    # Its rows are from before the erasure; the address is known again, as somebody who said no.
    assert imports.run(fresh_engine, settings, import_id, now=LATER).suppressed == 1
    assert not scalar(fresh_engine, "select subscribed from contacts where email_key = :key", key=KEY)
    assert finish(fresh_engine, settings, LATER + timedelta(minutes=5)).completed == 1
    with fresh_engine.connect() as tx:
        assert privacy.get_erasure(tx, done.erasure_id).status is ErasureStatus.COMPLETED
        assert scalar(tx, "select count(*) from pg_class where relname ~ '^import_[0-9]+_[0-9]+$'") == 0


def test_an_import_asked_for_after_the_erasure_is_left_alone(
    fresh_engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    with fresh_engine.begin() as tx:
        erase(tx, person(tx, settings), settings)
    staged_import(fresh_engine, settings, tmp_path, now=NOW + timedelta(seconds=1))
    before = staged_rows(fresh_engine)
    assert finish(fresh_engine, settings) == privacy.Carried(completed=1)
    assert staged_rows(fresh_engine) == before
    assert before[0][1] == KEY


def test_a_file_that_was_left_in_the_home_of_nobody_waits_an_hour(fresh_engine: Engine, settings: Settings) -> None:
    import os

    with fresh_engine.begin() as tx:
        erase(tx, person(tx, settings), settings)
    stored: Path = settings.storage_path / imports.store_upload(settings, [EMAIL.encode()]).uri
    for age, expected in ((timedelta(minutes=5), 0), (timedelta(hours=2), 1)):
        moment = (NOW - age).timestamp()
        os.utime(stored, (moment, moment))
        assert finish(fresh_engine, settings, LATER + age).completed == expected
    assert not stored.exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("zoe.quill@shop.example", True), ("<ZOE.QUILL@SHOP.EXAMPLE>", True), ("mailto:zoe.quill@shop.example?x", True),
        ("?e=zoe.quill%40shop.example&x", True), ("u%3Dzoe.quill%40shop.example", True),
        ("say zoe.quill@shop.example.", True), ("zoe.quill@shop.example.csv", True),
        ("signup-zoe.quill@shop.example", True), ("form_zoe.quill@shop.example:2", True),
        ("juliana.zoe.quill@shop.example", False), ("x-juliana.zoe.quill@shop.example", False),
        ("juliana.zoe.quill%40shop.example", False),
        ("zoe.quill@shop.example.org", False), ("zoe.quill@shop.examples", False), ("bzoe.quill@shop.example", False),
        ("7zoe.quill@shop.example", False), ("zoe-quill@shop.example", False),
    ],
)  # fmt: skip
def test_an_address_is_found_as_a_whole(words: str, found: bool) -> None:
    search = Search(erasure_id=7, contact_id=1, requested_at=NOW, traces=Traces(addresses=(EMAIL,)),
                    neighbours=frozenset({"juliana.zoe.quill@shop.example"}))  # fmt: skip
    assert search.holds(words) is found
    assert ("erased-7" in search.cleaned(words)) is found


def test_events_of_others_in_the_same_row_of_the_queue_wait_on(tx: Connection, settings: Settings) -> None:
    one = person(tx, settings)
    other = one + 64
    tx.execute(text("insert into contacts (contact_id, email, email_key) overriding system value "
                    "values (:id, 'o@x.example', 'o@x.example')"), {"id": other})  # fmt: skip
    tx.execute(text("delete from event_pending"))
    told = [NewEvent(event_type="x", contact_id=each, occurred_at=NOW) for each in (one, other, one, other, other)]
    entries = append(tx, told, now=NOW).entries
    theirs = [entry.event_id for event, entry in zip(told, entries, strict=True) if event.contact_id == other]
    append(tx, [NewEvent(event_type="y", contact_id=one, occurred_at=LATER)], now=NOW)
    counts = {count.table: count.rows for count in erase(tx, one, settings).tables}
    assert counts["event_pending"] == 3
    rows = tx.execute(text("select bucket, occurred_at, event_count, event_ids from event_pending")).all()
    assert [(row.bucket, row.occurred_at, row.event_count, sorted(row.event_ids)) for row in rows] == [
        (one % 64, NOW, 3, sorted(theirs))]  # fmt: skip


def test_every_table_with_a_contact_has_its_rule(tx: Connection) -> None:
    """A new table that names contacts is either emptied at once, cleaned, or kept for a reason given here."""
    at_once = {"contacts", "contact_history", "contact_tags", "contact_tag_history", "segment_memberships",
               "segment_static_members", "contact_scores", "score_states", "contact_stages", "contact_milestones",
               "enrollments", "automation_waits", "cart_timers"}
    kept = {
        "score_history": "numbers under the bare id", "score_stale": "a bare id until the next night",
        "message_keys": "a key under the bare id", "ab_test_observations": "seen elsewhere, under the bare id",
        "score_rule_awards": "points and names of rules under the bare id",
        "erasures": "the erasure itself", "erased_contacts": "the tombstone",
        "import_touched": "the pattern of a temporary table, always empty",
    }  # fmt: skip
    named = set(tx.scalars(text("""
        select relations.relname from pg_class as relations
        join pg_namespace as spaces on spaces.oid = relations.relnamespace and spaces.nspname = 'public'
        join pg_attribute as columns on columns.attrelid = relations.oid and columns.attname = 'contact_id'
        where relations.relkind in ('r', 'p') and not relations.relispartition""")))
    assert named == (at_once | set(CLEANED) | set(kept)) & named
    assert at_once | set(kept) <= named
