"""The pump over the ledger: what is due is handed over once, and every way it can go wrong has its state."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from mautolib.campaigns import control, courier, finishing, launch, planning, sending, store
from mautolib.campaigns.building import Blueprint
from mautolib.campaigns.courier import finished
from mautolib.campaigns.model import Status
from mautolib.campaigns.totals import totals_of
from mautolib.channels.null import Null
from mautolib.channels.protocol import Outgoing, Pause, Watch
from mautolib.contacts import consent
from mautolib.contacts.model import SuppressionReason
from mautolib.db.engine import connect
from mautolib.db.statements import statement
from mautolib.errors import ProviderUnavailable
from mautolib.ledger.journal import journal_folder
from mautolib.ledger.model import Kind, NewMessage, Outcome, Result, Stage, Verdict
from mautolib.ledger.queue import queue
from mautolib.settings import Settings, variable
from tests.contracts.smtp_server import DROP, Script, SmtpServer
from tests.integration.mailing import NOW, add_campaign, add_contacts, launched, null, rows, run_pump, states

BOUNCED = Result(verdict=Verdict.BOUNCED, stage=Stage.RCPT, code=550, enhanced="5.1.1", reply="5.1.1 no such user")
BLOCKED = Result(verdict=Verdict.FAILED, stage=Stage.DOT, code=550, enhanced="5.7.1", reply="5.7.1 spam")
GREYLISTED = Result(verdict=Verdict.DEFERRED, stage=Stage.RCPT, code=450, enhanced="4.2.0", reply="4.2.0 later")
DOUBT = Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT, reply="the connection broke")
SENDER_REFUSED = Result(verdict=Verdict.RELEASED, stage=Stage.MAIL, code=550, enhanced="5.7.1", reply="5.7.1 not you")
SENDER_DEFERRED = Result(verdict=Verdict.RELEASED, stage=Stage.MAIL, code=451, reply="4.3.0 later")


def test_everybody_gets_one_message(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 25)
    channel = Null()
    result = run_pump(fresh_engine, settings, channel)
    assert result.counts == {"sent": 25} and result.problems == ()
    assert sorted(m.recipient for m in channel.accepted) == sorted(f"person{n}@mail.example" for n in range(1, 26))
    assert states(fresh_engine, campaign_id) == {"sent": 25}
    assert run_pump(fresh_engine, settings, channel).counts == {}
    assert len(channel.accepted) == 25
    assert list(journal_folder(settings).iterdir()) == [], "a journal the database knows is not kept"


def test_a_sent_message_is_logged_told_and_counted(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 2)
    run_pump(fresh_engine, settings)
    assert finishing.finish(fresh_engine, NOW) == [campaign_id]
    assert [tuple(row) for row in rows(fresh_engine, "select attempt_no, outcome, stage, code from message_attempts")] \
        == [(1, "sent", "dot", 250)] * 2  # fmt: skip
    events = rows(fresh_engine, "select contact_id, campaign_id, event_type, source from events order by contact_id")
    contacts = [row.contact_id for row in rows(fresh_engine, "select contact_id from contacts order by 1")]
    assert [tuple(event) for event in events] == [(c, campaign_id, "email_sent", "mauto") for c in contacts]
    assert rows(fresh_engine, "select sum(event_count) as n from event_pending")[0].n == 2
    facts = [row.event_name for row in rows(fresh_engine, "select event_name from outbox order by outbox_id")]
    assert facts == ["campaign.created", "campaign.sent", "email.sent", "email.sent", "campaign.completed"]
    with fresh_engine.connect() as tx:
        campaign, totals = store.get(tx, campaign_id), totals_of(tx, [campaign_id])[campaign_id]
    assert (campaign.status, campaign.sent_at, campaign.settled_at) == (Status.SENT, NOW, NOW)
    assert (totals.recipients, totals.attempted, totals.sent, totals.delivered) == (2, 2, 2, 2)


def test_each_outcome_has_its_state(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 6)
    channel = null({1: BOUNCED, 2: BLOCKED, 3: GREYLISTED, 4: DOUBT})
    result = run_pump(fresh_engine, settings, channel)
    assert result.counts == {"sent": 2, "bounced": 1, "failed": 1, "deferred": 1, "unknown": 1}
    assert states(fresh_engine, campaign_id) == {"sent": 2, "bounced": 1, "failed": 1, "queued": 1, "unknown": 1}
    (waiting,) = rows(fresh_engine, "select next_try_at, attempt_no, last_code from messages where status = 'queued'")
    assert NOW + timedelta(minutes=5) <= waiting.next_try_at <= NOW + timedelta(minutes=16)
    assert (waiting.attempt_no, waiting.last_code) == (1, 450)
    assert finishing.finish(fresh_engine, NOW) == [], "somebody still waits"
    assert run_pump(fresh_engine, settings, later=timedelta(minutes=1)).counts == {}
    assert run_pump(fresh_engine, settings, later=timedelta(minutes=20)).counts == {"sent": 1}
    assert finishing.finish(fresh_engine, NOW) == [campaign_id]
    with fresh_engine.connect() as tx:
        campaign, totals = store.get(tx, campaign_id), totals_of(tx, [campaign_id])[campaign_id]
    assert campaign.status is Status.SENT and campaign.settled_at is None, "a doubt is left"
    assert (totals.sent, totals.bounced, totals.failed, totals.unknown, totals.attempted) == (3, 1, 1, 1, 6)


def test_greylisting_waits_longer_each_time(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 1)
    waits, later = [], timedelta(0)
    for _ in range(6):
        run_pump(fresh_engine, settings, null({1: GREYLISTED}), later=later)
        (row,) = rows(fresh_engine, "select next_try_at from messages")
        waits.append((row.next_try_at - NOW - later).total_seconds())
        later = row.next_try_at - NOW
    for number, waited in enumerate(waits):
        assert min(300 * 2**number, 14400) <= waited <= min(900 * 2**number, 14400) + 30


def test_only_a_dead_address_is_suppressed(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 4)
    full = Result(verdict=Verdict.FAILED, stage=Stage.RCPT, code=552, enhanced="5.2.2", reply="5.2.2 mailbox full")
    run_pump(fresh_engine, settings, null({1: BOUNCED, 2: BLOCKED, 3: full}))
    found = rows(fresh_engine, "select email, reason, source, notes from suppressions")
    assert [tuple(row) for row in found] == [("person1@mail.example", "bounce", "smtp", "5.1.1 no such user")]
    (event,) = rows(fresh_engine, "select properties from events where event_type = 'email_bounced'")
    assert event.properties == {"kind": "campaign", "reason": "5.1.1 no such user"}


def test_an_opt_out_before_the_claim_is_honoured(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    (contact,) = rows(fresh_engine, "select contact_id from contacts where first_name = 'Ann2'")
    with fresh_engine.begin() as tx:
        consent.unsubscribe(tx, contact.contact_id, source="page", actor="person", now=NOW)
    assert states(fresh_engine, campaign_id) == {"queued": 2, "skipped unsubscribed": 1}
    channel = Null()
    run_pump(fresh_engine, settings, channel)
    assert sorted(m.recipient for m in channel.accepted) == ["person1@mail.example", "person3@mail.example"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("update contacts set subscribed = false where first_name = 'Ann2'", "unsubscribed"),
        ("update contacts set consent_status = 'pending' where first_name = 'Ann2'", "no_consent"),
        ("insert into suppressions (email, email_key, reason) select email, email_key, 'manual' from contacts"
         " where first_name = 'Ann2'", "suppressed"),
        ("delete from contacts where first_name = 'Ann2'", "erased"),
        ("update messages set give_up_at = now() - interval '1 year' where contact_id ="
         " (select contact_id from contacts where first_name = 'Ann2')", "expired"),
    ],
)  # fmt: skip
def test_the_claim_looks_again(fresh_engine: Engine, settings: Settings, change: str, reason: str) -> None:
    """Whatever reached the tables without the verb that skips queued rows."""
    campaign_id = launched(fresh_engine, settings, 3)
    with fresh_engine.begin() as tx:
        tx.execute(text(change))
    assert run_pump(fresh_engine, settings).counts == {"sent": 2, "skipped": 1}
    assert states(fresh_engine, campaign_id) == {"sent": 2, f"skipped {reason}": 1}


class _SlowAndInterrupted(Null):
    """Somebody opts out while the group is on its way."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._engine, self._patch = engine, monkeypatch

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        for number, message in enumerate(messages):
            if number == 1:
                with self._engine.begin() as tx:
                    contact = tx.execute(text("select contact_id from contacts where first_name = 'Ann3'")).scalar_one()
                    consent.unsubscribe(tx, contact, source="page", actor="person", now=NOW)
                self._patch.setattr("mautolib.campaigns.courier.RECHECK_SECONDS", -1.0)
            yield from super().deliver([message], watch)


def test_an_opt_out_during_the_group_is_honoured(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = launched(fresh_engine, settings, 4)
    channel = _SlowAndInterrupted(fresh_engine, monkeypatch)
    assert run_pump(fresh_engine, settings, channel).counts == {"sent": 3, "skipped": 1}
    assert "person3@mail.example" not in [m.recipient for m in channel.accepted]
    assert states(fresh_engine, campaign_id) == {"sent": 3, "skipped unsubscribed": 1}


def test_a_mail_server_that_is_away_costs_no_attempt(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 5)
    down = ProviderUnavailable("The mail server 127.0.0.1:1025 cannot be reached")
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        run_pump(fresh_engine, settings, null({3: down}))
    assert states(fresh_engine, campaign_id) == {"sent": 2, "queued": 3}
    waiting = rows(fresh_engine, "select attempt_no, next_try_at, lease_until from messages where status = 'queued'")
    assert {(row.attempt_no, row.lease_until) for row in waiting} == {(0, None)}
    assert all(timedelta(0) < row.next_try_at - NOW < timedelta(minutes=2) for row in waiting)
    assert run_pump(fresh_engine, settings, later=timedelta(minutes=2)).counts == {"sent": 3}
    assert rows(fresh_engine, "select count(*) as n, max(attempt_no) as most from message_attempts")[0] == (5, 1)


def test_a_sender_refused_for_now_ends_the_pump(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    with pytest.raises(ProviderUnavailable, match="defers the sender: 451"):
        run_pump(fresh_engine, settings, null({1: SENDER_DEFERRED}))
    assert states(fresh_engine, campaign_id) == {"queued": 3}


def test_a_sender_refused_for_good_pauses_the_campaign(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 30)
    channel = null({5: SENDER_REFUSED})
    assert run_pump(fresh_engine, settings, channel).counts == {"sent": 4, "released": 6}
    with fresh_engine.begin() as tx:
        campaign = store.get(tx, campaign_id)
        assert campaign.status is Status.PAUSED
        assert campaign.status_reason == "The mail server refuses the sender: 550 5.7.1 not you"
        control.resume(tx, campaign_id, now=NOW)
    assert states(fresh_engine, campaign_id) == {"sent": 4, "queued": 26}, "nobody is marked bounced"
    assert run_pump(fresh_engine, settings, later=timedelta(seconds=30)).counts == {"sent": 26}


def test_too_many_policy_refusals_pause_the_campaign(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 60)
    result = run_pump(fresh_engine, settings, null(dict.fromkeys(range(1, 61, 2), BLOCKED)))
    with fresh_engine.connect() as tx:
        campaign = store.get(tx, campaign_id)
    assert campaign.status is Status.PAUSED and "refuses sender or content: 550" in (campaign.status_reason or "")
    assert result.counts["failed"] == 11 and states(fresh_engine, campaign_id)["queued"] >= 30


def test_ten_policy_refusals_in_two_hundred_do_not(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 60)
    run_pump(fresh_engine, settings, null(dict.fromkeys(range(1, 11), BLOCKED)))
    assert states(fresh_engine, campaign_id) == {"sent": 50, "failed": 10}


def test_a_paused_campaign_gives_nothing(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    with fresh_engine.begin() as tx:
        control.pause(tx, campaign_id, now=NOW)
    assert run_pump(fresh_engine, settings).counts == {}
    with fresh_engine.begin() as tx:
        control.resume(tx, campaign_id, now=NOW)
    assert run_pump(fresh_engine, settings).counts == {"sent": 3}


def test_a_cancelled_campaign_leaves_nothing_waiting(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    run_pump(fresh_engine, settings, null({1: GREYLISTED, 2: DOUBT}))
    with fresh_engine.begin() as tx:
        control.cancel(tx, campaign_id, now=NOW)
    assert states(fresh_engine, campaign_id) == {"sent": 1, "unknown": 1, "skipped cancelled": 1}
    assert run_pump(fresh_engine, settings, later=timedelta(hours=2)).counts == {}


def test_a_paused_campaign_does_not_hold_up_others(fresh_engine: Engine, settings: Settings) -> None:
    first = launched(fresh_engine, settings, 20)
    with fresh_engine.begin() as tx:
        control.pause(tx, first, now=NOW)
    second = launched(fresh_engine, settings, 0, name="Second")
    assert run_pump(fresh_engine, settings, group_size=5).counts == {"sent": 20}
    assert states(fresh_engine, second) == {"sent": 20} and states(fresh_engine, first) == {"queued": 20}


def test_messages_of_every_kind_are_sent(fresh_engine: Engine, settings: Settings) -> None:
    """Marketing needs consent, other mail only an address that lives; nobody we know needs no contact at all."""
    launched(fresh_engine, settings, 2)
    run_pump(fresh_engine, settings)
    (content,) = rows(fresh_engine, "select content_id from message_contents")
    one, two = (row.contact_id for row in rows(fresh_engine, "select contact_id from contacts order by 1"))
    with fresh_engine.begin() as tx:
        consent.unsubscribe(tx, one, source="page", actor="person", now=NOW)
        consent.suppress(tx, "gone@mail.example", SuppressionReason.COMPLAINT, actor="test", now=NOW)
        consent.suppress(tx, "full@mail.example", SuppressionReason.BOUNCE, actor="test", now=NOW)
        kinds = [Kind.WORKFLOW, Kind.AUTOMATION, Kind.TRANSACTIONAL, Kind.CONFIRMATION]
        common = {"content_id": content.content_id, "due_at": NOW, "give_up_at": NOW + timedelta(hours=1)}
        messages = [
            NewMessage(kind=kind, contact_id=contact, dedupe_key=f"{kind}:{contact}", **common)
            for kind in kinds for contact in (one, two)
        ]  # fmt: skip
        messages += [
            NewMessage(kind=Kind.TEST, to_email=address, to_key=address, dedupe_key=address, **common)
            for address in ("editor@mail.example", "gone@mail.example", "full@mail.example")
        ]
        assert queue(tx, messages) == 11
        assert queue(tx, messages) == 0
    channel = Null()
    assert run_pump(fresh_engine, settings, channel).counts == {"sent": 8, "skipped": 3}
    found = rows(fresh_engine, "select kind, contact_id, reason from messages where status = 'skipped' order by kind")
    assert [tuple(row) for row in found] == [
        ("automation", one, "unsubscribed"), ("test", 0, "suppressed"), ("workflow", one, "unsubscribed"),
    ]  # fmt: skip
    for message in channel.accepted:
        # A test looks as the campaign will, but the way out of it leads nobody out.
        assert (b"List-Unsubscribe:" in message.data) == (message.message_id in {
            row.message_id for row in rows(fresh_engine, "select message_id from messages where kind in"
                                           " ('workflow', 'automation', 'test') and status = 'sent'")})  # fmt: skip
    sent = rows(fresh_engine, "select contact_id from events where event_type = 'email_sent' and contact_id = 0")
    assert sent == [], "a test mail is nobody's history"


def test_a_message_that_cannot_be_written_fails_alone(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(
        fresh_engine, settings, 3,
        html_body="<p>{{ 10 // (contact.custom_fields.size - 2) }}</p>",
    )  # fmt: skip
    assert run_pump(fresh_engine, settings).counts == {"sent": 2, "failed": 1}
    (row,) = rows(fresh_engine, "select last_stage, last_code, last_error from messages where status = 'failed'")
    assert (row.last_stage, row.last_code) == ("build", None) and "html_body, line 1" in row.last_error
    assert states(fresh_engine, campaign_id) == {"sent": 2, "failed": 1}


def test_several_connections_share_a_group(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 40)
    made: list[Null] = []

    def open_way(_: Settings) -> Null:
        made.append(Null())
        return made[-1]

    several = replace(settings, smtp_connections=3)
    result = sending.pump(fresh_engine, several, now=NOW, group_size=10, open_way=open_way)
    assert result.counts == {"sent": 40}
    assert len(made) == 3 and all(channel.accepted for channel in made)
    assert len({m.recipient for channel in made for m in channel.accepted}) == 40


def test_several_smtp_connections_take_turns(fresh_engine: Engine, settings: Settings) -> None:
    """One of them breaks down after the dot: that message is in doubt, everybody else's is sent."""
    campaign_id = launched(fresh_engine, settings, 40)
    with SmtpServer(Script(dot=["250 ok"] * 7 + [DROP, "250 ok"])) as server:
        several = replace(settings, smtp_port=server.port, smtp_connections=3)
        result = sending.pump(fresh_engine, several, now=NOW, group_size=10)
    assert result.counts == {"sent": 39, "unknown": 1}
    assert states(fresh_engine, campaign_id) == {"sent": 39, "unknown": 1}
    assert len({message.recipient for message in server.accepted}) == len(server.accepted) == 39
    assert server.connections == 4, "three, and one more for the one that broke"


def test_a_fault_of_one_courier_is_raised_when_the_others_are_done() -> None:
    done: list[str] = []

    def work(name: str, fault: Exception | None = None) -> Generator[Pause, None, list[Outcome]]:
        yield Pause.BEGUN
        if fault is not None:
            raise fault
        yield Pause.WAITING
        done.append(name)
        return []

    with pytest.raises(ProviderUnavailable, match="first"):
        # The second round begins with the last of the first.
        finished([work("a"), work("b", ValueError("second")), work("c", ProviderUnavailable("first")), work("d")])
    assert done == ["a", "d"]


def test_shards_share_the_work(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 30)
    channels = [Null(), Null(), Null()]
    for shard, channel in enumerate(channels):
        run_pump(fresh_engine, settings, channel, shard=shard, shards=3)
    got = [{m.contact_id for m in channel.accepted} for channel in channels]
    assert sum(map(len, got)) == 30 and not (got[0] & got[1]) and all(got)
    assert all(contact % 3 == shard for shard, contacts in enumerate(got) for contact in contacts)


def test_the_time_budget_gives_back_what_was_not_begun(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 5)
    assert run_pump(fresh_engine, settings, budget_seconds=0).counts == {}
    assert states(fresh_engine, campaign_id) == {"queued": 5}


@pytest.mark.parametrize("limit", ["TO_BEGIN_SECONDS", "TO_END_SECONDS"])
def test_nothing_is_handed_over_near_the_end_of_the_lease(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """A sender that was held up stops by its own clock, at the begin of a message and again before its last byte."""
    campaign_id = launched(fresh_engine, settings, 5)
    monkeypatch.setattr(f"mautolib.campaigns.courier.{limit}", 901.0)
    channel = Null()
    assert set(run_pump(fresh_engine, settings, channel, budget_seconds=0.2).counts) == {"released"}
    assert channel.accepted == [] and states(fresh_engine, campaign_id) == {"queued": 5}


def test_a_missing_setting_keeps_messages_and_is_named(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 2)
    result = run_pump(fresh_engine, replace(settings, postal_address=""))
    assert result.counts == {"released": 2} and "MAUTO_POSTAL_ADDRESS" in result.problems[0]
    assert states(fresh_engine, campaign_id) == {"queued": 2}


def test_the_worker_role_is_enough(fresh_engine: Engine, fresh_database_url: str, settings: Settings) -> None:
    """Everything a sender does is allowed to the role it runs as; rewriting the log of attempts is not."""
    worker = connect(fresh_database_url)

    @event.listens_for(worker, "connect")
    def become(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("set role mauto_worker")
        connection.commit()

    with worker.connect() as tx:
        assert tx.execute(text("select current_user")).scalar_one() == "mauto_worker"
    campaign_id = launched(worker, settings, 4)
    run_pump(worker, settings, null({1: BOUNCED, 2: DOUBT}))
    assert finishing.finish(worker, NOW) == [campaign_id]
    assert states(worker, campaign_id) == {"sent": 2, "bounced": 1, "unknown": 1}
    with pytest.raises(DBAPIError, match="permission denied"), worker.begin() as tx:
        tx.execute(text("update message_attempts set outcome = 'sent'"))
    worker.dispose()


@pytest.fixture
def command(fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> int:
    """A campaign of three from now, and the environment of a sender; returns the campaign's id."""
    monkeypatch.setenv("MAUTO_SECRET_KEYS", settings.secret_keys[0])
    for name in ("database_url", "suppression_pepper", "environment", "default_from_email", "postal_address", "home"):
        monkeypatch.setenv(variable(name), str(getattr(settings, name)))
    monkeypatch.setattr("mautolib.log.setup", lambda *_: None)
    with fresh_engine.begin() as tx:
        add_contacts(tx, 3)
        campaign = add_campaign(tx)
        launch.request_send(tx, settings, campaign.campaign_id, now=datetime.now(UTC))
    return campaign.campaign_id


def test_the_command_plans_sends_and_finishes(
    fresh_engine: Engine, command: int, settings: Settings, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("MAUTO_CHANNEL", "console")
    assert sending.main(["--plan", "--finish", "--group-size", "2"]) == 0
    assert capsys.readouterr().out == "sent 3\n"
    assert states(fresh_engine, command) == {"sent": 3}
    assert (settings.storage_path / "console.mbox").read_text().count("\nFrom: ") == 3
    assert sending.main(["--shard", "0/1"]) == 0 and capsys.readouterr().out == "nothing due\n"


def test_the_command_says_in_one_line_that_the_mail_server_is_away(
    fresh_engine: Engine, command: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("MAUTO_SMTP_PORT", str(closed.getsockname()[1]))
    assert sending.main(["--plan"]) == 75
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be reached" in said and "stay queued" in said
    assert states(fresh_engine, command) == {"queued": 3}


def test_the_command_names_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("mautolib.log.setup", lambda *_: None)
    monkeypatch.setenv("MAUTO_DATABASE_URL", "")
    assert sending.main([]) == 1 and "MAUTO_DATABASE_URL is not set" in capsys.readouterr().err
    for wrong in ("2/2", "x", "1", "-1/2"):
        with pytest.raises(SystemExit):
            sending.main([f"--shard={wrong}"])


def test_a_sender_refused_for_now_does_not_pause_the_campaign(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    with pytest.raises(ProviderUnavailable, match="defers the sender: 451"):
        run_pump(fresh_engine, settings, null({1: SENDER_DEFERRED}))
    with fresh_engine.connect() as tx:
        assert store.get(tx, campaign_id).status is Status.SENDING
    assert run_pump(fresh_engine, settings, later=timedelta(minutes=2)).counts == {"sent": 3}


@pytest.mark.parametrize("answer", [ProviderUnavailable("closed at RCPT: 421 4.7.0 not now"), SENDER_DEFERRED])
def test_one_message_that_closes_the_way_does_not_hold_up_its_group(
    fresh_engine: Engine, settings: Settings, answer: Any
) -> None:
    campaign_id = launched(fresh_engine, settings, 5)
    channel = null({2: answer})
    for minutes in (0, 3):
        with pytest.raises(ProviderUnavailable):
            run_pump(fresh_engine, settings, channel, later=timedelta(minutes=minutes))
    assert states(fresh_engine, campaign_id) == {"sent": 4, "queued": 1}


def test_a_resumed_campaign_is_judged_by_what_comes_after(fresh_engine: Engine, settings: Settings) -> None:
    """The pump that paused it may still be at work when somebody resumes it."""
    campaign_id = launched(fresh_engine, settings, 60)

    class Resumed(Null):
        def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
            with fresh_engine.begin() as tx:
                if store.get(tx, campaign_id).status is Status.PAUSED:
                    control.resume(tx, campaign_id, now=NOW)
            yield from super().deliver(messages, watch)

    with fresh_engine.begin() as tx:
        others = add_contacts(tx, 40, prefix="other")
        other = add_campaign(tx, name="Other")
        launch.request_send(tx, settings, other.campaign_id, now=NOW)
    planning.plan_due(fresh_engine, settings, NOW)
    refused = {f"person{number}@mail.example": BLOCKED for number in range(1, 12)}
    run_pump(fresh_engine, settings, Resumed(refused))
    with fresh_engine.connect() as tx:
        campaign = store.get(tx, campaign_id)
    assert others and campaign.status is Status.SENDING, campaign.status_reason


def test_figures_that_cannot_be_recounted_do_not_repeat_a_turn(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = launched(fresh_engine, settings, 25)
    calls: list[int] = []

    def refresh(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise DBAPIError("select", {}, Exception("gone"), connection_invalidated=True)

    monkeypatch.setattr("mautolib.campaigns.sending.TOTALS_SECONDS", 0.0)
    monkeypatch.setattr("mautolib.campaigns.sending.totals.refresh_many", refresh)
    assert run_pump(fresh_engine, settings).counts == {"sent": 25}
    assert len(calls) > 2 and states(fresh_engine, campaign_id) == {"sent": 25}


def test_a_campaign_that_only_has_to_be_closed_is_due(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 1)
    with fresh_engine.begin() as tx:
        control.pause(tx, campaign_id, now=NOW)
        contact = tx.execute(text("select contact_id from contacts")).scalar_one()
        consent.unsubscribe(tx, contact, source="page", actor="person", now=NOW)
        assert tx.scalar(statement("queues.messages_due")) is None, "nothing to do while it is paused"
        control.resume(tx, campaign_id, now=NOW)
        assert tx.scalar(statement("queues.messages_due")) == NOW
    assert finishing.finish(fresh_engine, NOW) == [campaign_id]
    with fresh_engine.begin() as tx:
        assert tx.scalar(statement("queues.messages_due")) is None


class _MeanwhileChanged(Null):
    """Everybody gets another address, or is deleted, while the mail server answers."""

    def __init__(self, engine: Engine, change: str) -> None:
        super().__init__()
        self._engine, self._change = engine, change

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        for message in messages:
            with self._engine.begin() as tx:
                tx.execute(text(f"{self._change} where contact_id = :id"), {"id": message.contact_id})
            yield BOUNCED


@pytest.mark.parametrize(
    "change", ["update contacts set email = 'new@mail.example', email_key = 'new@mail.example'", "delete from contacts"]
)
def test_the_address_that_bounced_is_suppressed(fresh_engine: Engine, settings: Settings, change: str) -> None:
    """And not the one the contact has by now."""
    campaign_id = launched(fresh_engine, settings, 1)
    assert run_pump(fresh_engine, settings, _MeanwhileChanged(fresh_engine, change)).counts == {"bounced": 1}
    assert states(fresh_engine, campaign_id) == {"bounced": 1}
    found = rows(fresh_engine, "select email, reason from suppressions")
    assert [tuple(row) for row in found] == [("person1@mail.example", "bounce")]


def test_figures_follow_what_people_do_after_the_last_message(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    run_pump(fresh_engine, settings)
    finishing.finish(fresh_engine, NOW)
    opened = """
        with opened as (
            insert into hits (occurred_at, kind, contact_id, campaign_id, message_id)
            select :at, 'open', contact_id, campaign_id, message_id from messages order by message_id limit 2
            returning hit_id
        )
        insert into hit_verdicts (hit_id, rule_version, verdict) select hit_id, 1, 'human' from opened
    """
    with fresh_engine.begin() as tx:
        tx.execute(text(opened), {"at": NOW + timedelta(minutes=1)})
    finishing.finish(fresh_engine, NOW + timedelta(minutes=10))
    with fresh_engine.connect() as tx:
        assert totals_of(tx, [campaign_id])[campaign_id].unique_opens == 2


def test_figures_of_a_cancelled_campaign_count_what_was_in_flight(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)

    class Cancelled(Null):
        def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
            with fresh_engine.begin() as tx:
                control.cancel(tx, campaign_id, now=NOW)
            yield from super().deliver(messages, watch)

    assert run_pump(fresh_engine, settings, Cancelled()).counts == {"sent": 3}
    finishing.finish(fresh_engine, NOW + timedelta(minutes=10))
    with fresh_engine.connect() as tx:
        figures = totals_of(tx, [campaign_id])[campaign_id]
    assert (figures.sent, figures.in_flight) == (3, 0)


@pytest.mark.parametrize("utm", [{}, {"source": "news"}])
def test_a_link_that_is_no_url_does_not_stop_the_pump(
    fresh_engine: Engine, settings: Settings, utm: dict[str, str]
) -> None:
    html = "<p>{{ contact.email }} <a href='http://[x'>broken</a></p>"
    campaign_id = launched(fresh_engine, settings, 1, html_body=html, utm=utm)
    assert run_pump(fresh_engine, settings).counts == {"sent": 1}
    assert states(fresh_engine, campaign_id) == {"sent": 1}


def test_a_fault_of_ours_costs_one_message_and_not_all_mail(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    first = rows(fresh_engine, "select min(message_id) from messages")[0][0]
    write = Blueprint.write

    def faulty(self: Blueprint, message: Any, now: datetime) -> Outgoing:
        if message.message_id == first:
            raise RuntimeError("a fault nobody thought of")
        return write(self, message, now)

    monkeypatch.setattr(Blueprint, "write", faulty)
    result = run_pump(fresh_engine, settings)
    assert result.counts == {"failed": 1, "sent": 2}
    assert result.problems == (f"message {first} cannot be written: RuntimeError",)
    assert rows(fresh_engine, "select last_stage, last_error from messages where status = 'failed'") == [
        ("build", "unexpected RuntimeError")]  # fmt: skip
    assert states(fresh_engine, campaign_id) == {"failed": 1, "sent": 2}


class Ahead(Null):
    """Asks about the second message while the first is answered, which takes a while, as a pipelining channel does."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        first, second = messages
        assert watch.before(first) is None and watch.before(second) is None and watch.begins(first)
        self._meanwhile()
        yield Result(verdict=Verdict.SENT, stage=Stage.DOT, code=250)
        assert not watch.begins(second)
        yield Result(verdict=Verdict.RELEASED, stage=Stage.BODY, reply="stopped before the end")


def test_who_leaves_while_the_message_before_is_answered_gets_nothing(
    fresh_engine: Engine, settings: Settings
) -> None:
    campaign_id = launched(fresh_engine, settings, 2)

    def leave() -> None:
        with fresh_engine.begin() as tx:
            tx.execute(text("update contacts set subscribed = false where email like 'person2@%'"))
        time.sleep(courier.RECHECK_SECONDS + 0.1)

    assert run_pump(fresh_engine, settings, Ahead(leave), budget_seconds=1).counts["sent"] == 1
    run_pump(fresh_engine, settings, later=timedelta(minutes=30))
    assert states(fresh_engine, campaign_id) == {"sent": 1, "skipped unsubscribed": 1}
