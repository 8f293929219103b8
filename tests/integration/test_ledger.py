"""The ledger itself: born once, claimed by one, written by its holder only, doubts settled by evidence only."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.campaigns import control, planning
from mautolib.campaigns.recording import recover
from mautolib.ledger import claim, content, settle, skip
from mautolib.ledger.identity import message_identity
from mautolib.ledger.journal import Journal, dead_journals, journal_folder
from mautolib.ledger.model import (
    TRANSITIONS,
    Kind,
    NewContent,
    NewMessage,
    Outcome,
    Result,
    Skip,
    Stage,
    Status,
    Verdict,
)
from mautolib.ledger.queue import queue
from mautolib.ledger.record import record, record_sent
from mautolib.settings import Settings
from tests.integration.mailing import NOW, add_contacts, launched, rows, states

SENT = Result(verdict=Verdict.SENT, stage=Stage.DOT, code=250, reply="ok", provider_id="Q1")


def take(tx: Connection, settings: Settings, size: int = 10, **more: object) -> claim.Group:
    """Claim a group under a new attempt."""
    values = {"identity": message_identity(settings), "now": NOW, "size": size, **more}
    return claim.claim(tx, attempt_id=claim.new_attempt(tx), **values)  # type: ignore[arg-type]


def outcomes(group: claim.Group, result: Result = SENT) -> list[Outcome]:
    return [
        Outcome(contact_id=m.contact_id, message_id=m.message_id, attempt_id=group.attempt_id, result=result)
        for m in group.messages
    ]


def workflow_messages(tx: Connection, contacts: list[int], **more: object) -> list[NewMessage]:
    content_id = content.freeze(tx, NewContent(subject="s", html_body="h", workflow_id=1))
    values = {
        "kind": Kind.WORKFLOW, "content_id": content_id, "due_at": NOW, "give_up_at": NOW + timedelta(hours=1), **more
    }  # fmt: skip
    return [NewMessage(contact_id=c, dedupe_key=f"enrollment:{c}:step:0:visit:1", **values) for c in contacts]  # type: ignore[arg-type]


def test_the_same_content_is_frozen_once(tx: Connection) -> None:
    first = NewContent(subject="s", html_body="<a href='https://a.example'>a</a>", links=("https://a.example",))
    assert content.freeze(tx, first) == content.freeze(tx, first)
    assert content.load(tx, content.freeze(tx, first)) == first
    other = NewContent(subject="s", html_body="other")
    assert content.freeze(tx, other) != content.freeze(tx, first)
    run = NewContent(subject="s", html_body="h", campaign_id=7, occurrence=1, utm={"source": "news"})
    assert content.freeze(tx, run) == content.freeze(tx, run)
    assert content.load(tx, content.freeze(tx, run)) == run


def test_an_intention_is_queued_once(tx: Connection) -> None:
    contacts = add_contacts(tx, 3)
    messages = workflow_messages(tx, contacts, context={"event": {"cart": "ä"}})
    assert queue(tx, [*messages, messages[0]]) == 3, "the same key twice in one call"
    assert queue(tx, messages) == 0
    assert queue(tx, []) == 0
    found = tx.execute(text("select contact_id, context, status, next_try_at from messages order by contact_id")).all()
    assert [tuple(row) for row in found] == [(c, {"event": {"cart": "ä"}}, "queued", NOW) for c in contacts]


def test_an_intention_may_be_born_skipped(tx: Connection) -> None:
    queue(tx, workflow_messages(tx, add_contacts(tx, 1), skip=Skip.FREQUENCY_CAP))
    assert tuple(tx.execute(text("select status, reason from messages")).one()) == ("skipped", "frequency_cap")


def test_planning_in_parallel_makes_each_message_once(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 200)
    campaign_id = launched(fresh_engine, settings, 0)
    with fresh_engine.begin() as tx:
        tx.execute(text("update campaigns set planned_at = null, occurrence = 0"))

    def plan() -> None:
        planning.plan_due(fresh_engine, settings, NOW)

    run_together([plan] * 4)
    assert states(fresh_engine, campaign_id) == {"queued": 200}


def run_together(jobs: list[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_no_two_senders_hold_one_message(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 300)
    held: list[int] = []
    groups: list[int] = []

    def work() -> None:
        while True:
            with fresh_engine.begin() as tx:
                group = take(tx, settings, 7)
            if not group.messages:
                return
            groups.append(len(group.messages))
            held.extend(message.message_id for message in group.messages)

    run_together([work] * 6)
    assert len(held) == len(set(held)) == 300
    assert max(groups) == 7, "never more than asked for"


def test_a_claim_leases_and_numbers(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 2)
    with fresh_engine.begin() as tx:
        group = take(tx, settings)
    (one, two) = group.messages
    assert (one.attempt_no, one.kind, one.to_email) == (1, Kind.CAMPAIGN, "person1@mail.example")
    assert one.contact["first_name"] == "Ann1" and one.contact["custom_fields"] == {"size": 1}
    found = rows(fresh_engine, "select status, attempt_id, lease_until - clock_timestamp() as left from messages")
    assert {row.status for row in found} == {"sending"} and {row.attempt_id for row in found} == {group.attempt_id}
    assert all(timedelta(seconds=880) < row.left <= timedelta(seconds=900) for row in found)
    assert one.rfc_message_id != two.rfc_message_id


def test_a_claimed_contact_is_as_it_is_kept(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 1)
    with fresh_engine.begin() as tx:
        (one,) = take(tx, settings).messages
        row = tx.execute(text("select * from contacts")).mappings().one()
    expected = {"id": str(row["contact_id"]), **{name: row[name] for name in one.contact if name != "id"}}
    assert dict(one.contact) == expected and len(one.contact) == 12
    assert isinstance(one.contact["created_at"], datetime) and one.contact["created_at"].tzinfo is not None
    assert one.contact.get("nothing") is None and "nothing" not in one.contact


def test_the_message_id_is_a_keyed_hash_and_stays(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 1)
    deferred = Result(verdict=Verdict.DEFERRED, stage=Stage.RCPT, code=450, retry_after_seconds=0)
    seen = set()
    for _ in range(3):
        with fresh_engine.begin() as tx:
            group = take(tx, settings)
            record(tx, outcomes(group, deferred), now=NOW)
        seen.add(group.messages[0].rfc_message_id)
    (key,) = rows(fresh_engine, "select dedupe_key from messages")
    mac = hmac.new(settings.pepper("message-id"), key.dedupe_key.encode(), hashlib.sha256).hexdigest()[:32]
    assert seen == {f"{mac}@shop.example"}


def test_only_the_holder_may_write(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 2)
    with fresh_engine.begin() as tx:
        old = take(tx, settings, 1)
        tx.execute(text("update messages set status = 'queued', lease_until = null where status = 'sending'"))
    with fresh_engine.begin() as tx:
        new = take(tx, settings, 1)
    assert new.messages[0].message_id == old.messages[0].message_id
    with fresh_engine.begin() as tx:
        assert record(tx, outcomes(old), now=NOW) == []
    assert states(fresh_engine, campaign_id) == {"sending": 1, "queued": 1}
    with fresh_engine.begin() as tx:
        assert len(record(tx, outcomes(new), now=NOW)) == 1
        assert record(tx, outcomes(new), now=NOW) == [], "twice is once"
    assert rows(fresh_engine, "select count(*) as n from events")[0].n == 1


def test_a_lease_that_ran_out_is_a_doubt_that_its_holder_may_still_settle(
    fresh_engine: Engine, settings: Settings
) -> None:
    campaign_id = launched(fresh_engine, settings, 2)
    with fresh_engine.begin() as tx:
        group = take(tx, settings)
        assert settle.expire_leases(tx) == 0
        tx.execute(text("update messages set lease_until = clock_timestamp() - interval '1 s'"))
        assert settle.expire_leases(tx) == 2
    assert states(fresh_engine, campaign_id) == {"unknown": 2}
    with fresh_engine.begin() as tx:
        assert take(tx, settings).is_empty, "a doubt is not sent again by itself"
        record(tx, outcomes(group)[:1], now=NOW)
    assert states(fresh_engine, campaign_id) == {"unknown": 1, "sent": 1}


def test_a_complete_log_settles_doubts(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    with fresh_engine.begin() as tx:
        group = take(tx, settings, 3)
        tx.execute(text("update messages set lease_until = clock_timestamp() - interval '1 s'"))
        settle.expire_leases(tx)
        clock: datetime = tx.execute(text("select clock_timestamp()")).scalar_one()
        accepted = [group.messages[0].rfc_message_id]
        assert settle.settle_from_log(tx, [], complete_until=clock, now=NOW) == (0, 0), "not quiet long enough"
        later = clock + timedelta(seconds=901)
        assert settle.settle_from_log(tx, accepted, complete_until=clock, now=NOW) == (1, 0)
        assert settle.settle_from_log(tx, accepted, complete_until=later, now=NOW) == (0, 2)
    assert states(fresh_engine, campaign_id) == {"sent": 1, "queued": 2}
    with fresh_engine.begin() as tx:
        again = take(tx, settings, 3)
    assert [m.attempt_no for m in again.messages] == [2, 2]


def test_a_hit_on_its_links_proves_a_message(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    hit = "insert into hits (occurred_at, kind, contact_id, message_id) values (:now, 'open', :c, :m) returning hit_id"
    with fresh_engine.begin() as tx:
        group = take(tx, settings, 3)
        record(tx, outcomes(group, Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT)), now=NOW)
        for number, verdict in enumerate(("prefetch", "invalid")):
            message = group.messages[number]
            hit_id = tx.execute(
                text(hit), {"now": NOW, "c": message.contact_id, "m": message.message_id}
            ).scalar_one()
            tx.execute(
                text("insert into hit_verdicts (hit_id, rule_version, verdict) values (:id, 1, :verdict)"),
                {"id": hit_id, "verdict": verdict},
            )
        assert settle.settle_by_hits(tx, now=NOW) == 1
    assert states(fresh_engine, campaign_id) == {"sent": 1, "unknown": 2}


def test_only_mail_that_is_better_twice_than_never_is_sent_again_by_itself(
    fresh_engine: Engine, settings: Settings
) -> None:
    campaign_id = launched(fresh_engine, settings, 1)
    with fresh_engine.begin() as tx:
        contacts = add_contacts(tx, 1, prefix="buyer")
        queue(tx, workflow_messages(tx, contacts, kind=Kind.TRANSACTIONAL, workflow_id=None))
        group = take(tx, settings)
        record(tx, outcomes(group, Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT)), now=NOW)
        assert settle.requeue_overdue(tx, now=NOW) == 0
        assert settle.requeue_overdue(tx, now=NOW, quiet_seconds=0) == 1
    found = rows(fresh_engine, "select kind, status from messages order by kind")
    assert [tuple(row) for row in found] == [("campaign", "unknown"), ("transactional", "queued")]
    assert states(fresh_engine, campaign_id) == {"unknown": 1}


@pytest.mark.parametrize("ended", ["pause", "cancel"])
def test_a_stop_holds_from_its_answer_on(fresh_engine: Engine, settings: Settings, ended: str) -> None:
    """The claim shares the campaign's row: a stop waits for a claim under way, and no later claim gets anything."""
    campaign_id = launched(fresh_engine, settings, 20)
    answered = threading.Event()

    def stop() -> None:
        with fresh_engine.begin() as tx:
            getattr(control, ended)(tx, campaign_id, now=NOW)
        answered.set()

    with fresh_engine.begin() as tx:
        assert len(take(tx, settings, 5).messages) == 5
        thread = threading.Thread(target=stop)
        thread.start()
        assert not answered.wait(0.3), "the stop must wait for the claim that is under way"
    assert answered.wait(10)
    thread.join(10)
    with fresh_engine.begin() as tx:
        assert take(tx, settings, 5).is_empty
    left = "queued" if ended == "pause" else "skipped cancelled"
    assert states(fresh_engine, campaign_id) == {"sending": 5, left: 15}


def test_skipping_takes_what_the_reason_forbids(tx: Connection) -> None:
    (contact,) = add_contacts(tx, 1)
    workflow = workflow_messages(tx, [contact])[0]
    receipt = NewMessage(
        kind=Kind.TRANSACTIONAL, contact_id=contact, content_id=workflow.content_id, dedupe_key="tx:1", due_at=NOW,
        give_up_at=NOW,
    )  # fmt: skip

    def skipped() -> list[str]:
        query = "select kind from messages where status = 'skipped' order by kind"
        return list(tx.scalars(text(query)))

    queue(tx, [workflow, receipt])
    assert skip.skip_queued(tx, [], Skip.UNSUBSCRIBED) == 0
    assert skip.skip_queued(tx, [contact], Skip.UNSUBSCRIBED) == 1 and skipped() == ["workflow"]
    assert skip.skip_queued(tx, [contact], Skip.SUPPRESSED) == 0, "a manual suppression does not stop a receipt"
    tx.execute(text("insert into suppressions (email_key, reason) values ('person1@mail.example', 'complaint')"))
    assert skip.skip_queued(tx, [contact], Skip.SUPPRESSED) == 1 and skipped() == ["transactional", "workflow"]


def test_an_erased_contact_leaves_nothing_waiting(tx: Connection) -> None:
    (contact,) = add_contacts(tx, 1)
    queue(tx, workflow_messages(tx, [contact]))
    assert skip.skip_queued(tx, [contact], Skip.ERASED) == 1


def test_the_diagram_is_closed() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert all(targets <= set(Status) for targets in TRANSITIONS.values())
    assert Status.SENDING not in TRANSITIONS[Status.UNKNOWN], "a doubt is queued again, never sent from itself"


# --- the journal: what is left by a sender that died ---


def dead(settings: Settings, attempt_id: int, *, begins: list[claim.Claimed], results: list[Outcome]) -> None:
    """A journal as a killed sender leaves it: nobody holds its lock."""
    journal = Journal.open(journal_folder(settings))
    journal.attempt(attempt_id)
    for message in begins:
        journal.begins(attempt_id, message.contact_id, message.message_id)
    for outcome in results:
        journal.result(outcome)
    journal.close(is_settled=False)


def test_a_dead_sender_leaves_only_what_it_had_begun_in_doubt(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 5)
    with fresh_engine.begin() as tx:
        group = take(tx, settings, 5)
    bounced = Result(verdict=Verdict.BOUNCED, stage=Stage.RCPT, code=550, enhanced="5.1.1", reply="5.1.1 gone")
    done = [outcomes(group)[0], outcomes(group, bounced)[1]]
    dead(settings, group.attempt_id, begins=[group.messages[0], group.messages[2]], results=done)
    found = recover(fresh_engine, settings, NOW)
    assert (found.journals, found.recorded, found.released) == (1, 3, 2)
    assert states(fresh_engine, campaign_id) == {"sent": 1, "bounced": 1, "unknown": 1, "queued": 2}
    (row,) = rows(fresh_engine, "select provider_id from messages where status = 'sent'")
    assert row.provider_id == "Q1"
    assert rows(fresh_engine, "select count(*) as n from suppressions")[0].n == 1
    waiting = rows(fresh_engine, "select attempt_no from messages where status = 'queued'")
    assert {row.attempt_no for row in waiting} == {0}, "what was not begun is not counted"
    assert list(dead_journals(journal_folder(settings))) == [], "a journal that was read is gone"


def test_a_journal_answers_doubts_that_came_first(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    with fresh_engine.begin() as tx:
        group = take(tx, settings, 3)
        tx.execute(text("update messages set lease_until = clock_timestamp() - interval '1 s'"))
        settle.expire_leases(tx)
    dead(settings, group.attempt_id, begins=list(group.messages[:2]), results=outcomes(group)[:1])
    recover(fresh_engine, settings, NOW)
    assert states(fresh_engine, campaign_id) == {"sent": 1, "unknown": 1, "queued": 1}


def test_a_living_sender_is_left_alone(fresh_engine: Engine, settings: Settings) -> None:
    """A frozen sender may wake: what it holds is not given to others on the strength of its silence."""
    campaign_id = launched(fresh_engine, settings, 2)
    with fresh_engine.begin() as tx:
        group = take(tx, settings, 2)
    journal = Journal.open(journal_folder(settings))
    journal.attempt(group.attempt_id)
    assert recover(fresh_engine, settings, NOW).journals == 0
    assert states(fresh_engine, campaign_id) == {"sending": 2}
    journal.close(is_settled=False)
    assert recover(fresh_engine, settings, NOW).released == 2


def test_after_a_power_cut_silence_proves_nothing(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines may be lost with the machine: what is written counts, what is missing is not concluded from."""
    campaign_id = launched(fresh_engine, settings, 3)
    with fresh_engine.begin() as tx:
        group = take(tx, settings, 3)
    dead(settings, group.attempt_id, begins=[group.messages[0]], results=outcomes(group)[:1])
    monkeypatch.setattr("mautolib.ledger.journal._boot_id", lambda: "another boot")
    assert recover(fresh_engine, settings, NOW).released == 0
    assert states(fresh_engine, campaign_id) == {"sent": 1, "sending": 2}


def test_a_torn_line_ends_the_reading(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 2)
    with fresh_engine.begin() as tx:
        group = take(tx, settings, 2)
    dead(settings, group.attempt_id, begins=[group.messages[0]], results=outcomes(group)[:1])
    (path,) = journal_folder(settings).iterdir()
    path.write_bytes(path.read_bytes() + b'["begins",1,\n["result"]\n')
    recover(fresh_engine, settings, NOW)
    assert states(fresh_engine, campaign_id) == {"sent": 1, "sending": 1}


def test_a_journal_of_settled_attempts_changes_nothing(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 2)
    with fresh_engine.begin() as tx:
        group = take(tx, settings, 2)
        record(tx, outcomes(group), now=NOW)
    dead(settings, group.attempt_id, begins=list(group.messages), results=[])
    assert recover(fresh_engine, settings, datetime.now(UTC)).recorded == 0
    assert states(fresh_engine, campaign_id) == {"sent": 2}


def test_accepted_messages_are_written_as_any_outcome_is(fresh_engine: Engine, settings: Settings) -> None:
    """The statement for what nearly every outcome is says the same as the one for all of them."""
    launched(fresh_engine, settings, 3)
    reply = 'ok "quoted" \\ back, {braces}, NULL'
    result = Result(verdict=Verdict.SENT, stage=Stage.DOT, code=251, reply=reply, provider_id="Q\\1")
    with fresh_engine.begin() as tx:
        queue(tx, workflow_messages(tx, [1, 2], workflow_id=9))
        group = take(tx, settings, 5)
        assert len(group.messages) == 5
    given = [outcome._replace(to_email=f"at{n}@mail.example") for n, outcome in enumerate(outcomes(group, result))]
    seen = []
    for write in (record, record_sent):
        with fresh_engine.connect() as tx:
            counted = write(tx, given, now=NOW, claimed_at=NOW - timedelta(seconds=3))
            assert (counted if isinstance(counted, int) else len(counted)) == 5
            tables = [
                tx.execute(text(query)).all()
                for query in (
                    "select message_id, status, reason, lease_until, last_stage, last_code, last_error, provider_id, "
                    "sent_at, attempt_no from messages order by message_id",
                    "select * from message_attempts order by message_id",
                    "select contact_id, occurred_at, received_at, event_type, source, external_id, properties, "
                    "campaign_id as of_campaign, message_id, order_key from events "
                    "where event_type = 'email_sent' order by message_id",
                    "select pending.bucket, events.contact_id, pending.occurred_at from event_pending as pending "
                    "inner join events on events.event_id = any(pending.event_ids) order by 2, 1, events.event_id",
                    "select event_name, occurred_at, data from outbox where event_name = 'email.sent' "
                    "order by outbox_id",
                )
            ]
            again = write(tx, given, now=NOW)
            assert (again if isinstance(again, int) else len(again)) == 0, "twice is once"
            tx.rollback()
        tables[1] = [tuple(row._mapping[name] for name in row._mapping if name != "recorded_at") for row in tables[1]]
        seen.append([[tuple(row) for row in table] for table in tables])
    assert seen[0] == seen[1]
    assert [len(table) for table in seen[0]][:3] == [5, 5, 5] and len(seen[0][4]) == 5
    with fresh_engine.begin() as tx:
        assert record_sent(tx, [outcome._replace(attempt_id=999) for outcome in given], now=NOW) == 0, "not its holder"
        assert record_sent(tx, [], now=NOW) == 0
