"""Transactional mail in the ledger: before everything else, at least once, and stopped where the law says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, TextClause, text

from mautolib.campaigns import finishing, single
from mautolib.campaigns.single import NewTransactional
from mautolib.channels.null import Null
from mautolib.channels.protocol import Outgoing, Watch
from mautolib.contacts import consent, erased
from mautolib.contacts.model import SuppressionReason
from mautolib.errors import Conflict, InvalidInput
from mautolib.ledger import claim
from mautolib.ledger.model import Kind, NewMessage, Result
from mautolib.ledger.queue import queue
from mautolib.settings import Settings
from mautolib.templates import catalogue
from mautolib.templates.model import NewTemplate
from tests.builders import make_content
from tests.integration.mailing import NOW, add_contacts, launched, null, rows, run_pump, states
from tests.integration.test_sending import DOUBT


def _order(engine: Engine, settings: Settings, email: str, **more: object) -> int:
    new = NewTransactional(email=email, subject="Order", html_body="<p>Thank you</p>", **more)  # type: ignore[arg-type]
    with engine.begin() as tx:
        return single.send_transactional(tx, settings, new, actor="key:1", now=NOW)


def _workflow_mails(tx: Connection, count: int) -> None:
    people = add_contacts(tx, count, prefix="flow")
    content_id = make_content(tx)
    queue(tx, [
        NewMessage(kind=Kind.WORKFLOW, content_id=content_id, dedupe_key=f"flow:{one}", contact_id=one,
                   due_at=NOW - timedelta(hours=1), give_up_at=NOW + timedelta(hours=9))
        for one in people
    ])  # fmt: skip


class _Asking(Null):
    """Has somebody order something while campaign mail goes out."""

    def __init__(self, after: int, ask: object) -> None:
        super().__init__()
        self._after, self._ask = after, ask

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        for result in super().deliver(messages, watch):
            yield result
            if len(self.accepted) == self._after:
                self._ask()  # type: ignore[operator]


@pytest.mark.parametrize("changes", [{}, {"frequency_cap": 100}], ids=["unpaced", "paced"])
def test_it_waits_behind_no_campaign_and_no_workflow(
    fresh_engine: Engine, settings: Settings, changes: dict[str, int]
) -> None:
    settings = replace(settings, **changes)  # type: ignore[arg-type]
    launched(fresh_engine, settings, 150)
    with fresh_engine.begin() as tx:
        _workflow_mails(tx, 150)
    _order(fresh_engine, settings, "first@buyer.example")
    channel = _Asking(95, lambda: _order(fresh_engine, settings, "later@buyer.example"))
    run_pump(fresh_engine, settings, channel)
    went = [mail.recipient for mail in channel.accepted]
    assert len(went) == 302
    # At most the groups that were claimed already, and one turn of the paced ones, come before it.
    assert went.index("first@buyer.example") < 20
    assert went.index("later@buyer.example") < 95 + 3 * 10


def test_a_campaign_that_is_just_planned_or_edited_keeps_nothing_else_waiting(
    fresh_engine: Engine, settings: Settings
) -> None:
    campaign_id = launched(fresh_engine, settings, 30)
    _order(fresh_engine, settings, "buyer@mail.example")
    channel = Null()
    with fresh_engine.begin() as held:
        held.execute(text("select from campaigns where campaign_id = :id for update"), {"id": campaign_id})
        sender = threading.Thread(
            target=run_pump, args=(fresh_engine, settings, channel), kwargs={"budget_seconds": 20.0}
        )
        sender.start()
        patience = time.monotonic() + 10
        while not channel.accepted and time.monotonic() < patience:
            time.sleep(0.01)
        assert [mail.recipient for mail in channel.accepted] == ["buyer@mail.example"]
    sender.join()
    assert len(channel.accepted) == 31, "the sender did not go home while somebody held the campaign"


def test_a_campaign_that_is_let_go_between_two_looks_is_not_left_behind(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = launched(fresh_engine, settings, 30)
    with fresh_engine.connect() as holder:
        holder.execute(text("select from campaigns where campaign_id = :id for update"), {"id": campaign_id})
        named = claim.statement

        def letting_go(name: str) -> TextClause:
            if name == "ledger.is_any_held":
                holder.rollback()
            return named(name)

        monkeypatch.setattr(claim, "statement", letting_go)
        assert run_pump(fresh_engine, settings).counts == {"sent": 30}


def test_a_doubt_is_settled_by_sending_again_after_the_quiet_period(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 1)
    message_id = _order(fresh_engine, settings, "person2@mail.example")
    first = null({1: DOUBT, 2: DOUBT})
    run_pump(fresh_engine, settings, first)
    finishing.finish(fresh_engine, NOW)
    assert run_pump(fresh_engine, settings).counts == {}, "the quiet period is not over"
    with fresh_engine.begin() as tx:
        tx.execute(text("update message_attempts set recorded_at = recorded_at - interval '16 minutes'"))
    finishing.finish(fresh_engine, NOW)
    again = Null()
    assert run_pump(fresh_engine, settings, again).counts == {"sent": 1}
    assert [mail.message_id for mail in again.accepted] == [message_id]
    before = next(mail for mail in first.accepted if mail.message_id == message_id) if first.accepted else None
    ids = [line for line in again.accepted[0].data.split(b"\r\n") if line.startswith(b"Message-ID:")]
    assert before is None or ids[0] in before.data, "the same Message-ID lets the other side see that it is the same"
    states = rows(fresh_engine, "select kind, status, attempt_no from messages order by kind")
    assert [tuple(row) for row in states] == [("campaign", "unknown", 1), ("transactional", "sent", 2)]
    assert campaign_id


@pytest.mark.parametrize("reason", [SuppressionReason.BOUNCE, SuppressionReason.COMPLAINT])
def test_a_suppression_after_queueing_stops_it(
    fresh_engine: Engine, settings: Settings, reason: SuppressionReason
) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 1)
    _order(fresh_engine, settings, "person1@mail.example")
    _order(fresh_engine, settings, "stranger@mail.example")
    with fresh_engine.begin() as tx:
        for email in ("person1@mail.example", "stranger@mail.example"):
            consent.suppress(tx, email, reason, actor="test", now=NOW)
    run_pump(fresh_engine, settings)
    found = rows(fresh_engine, "select status, reason from messages order by contact_id")
    assert [tuple(row) for row in found] == [("skipped", "suppressed")] * 2


def test_two_callers_with_one_external_id_at_once_make_one_message(fresh_engine: Engine, settings: Settings) -> None:
    made: list[int] = []
    ready = threading.Barrier(4)

    def ask() -> None:
        ready.wait()
        made.append(_order(fresh_engine, settings, "buyer@mail.example", external_id="order-1"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4 and len(set(made)) == 1
    assert len(rows(fresh_engine, "select 1 from messages")) == 1


def test_an_erased_complaint_stops_it_again(fresh_engine: Engine, settings: Settings) -> None:
    """The hash of the address becomes an entry again: it is known again by being written to."""
    with fresh_engine.begin() as tx:
        consent.suppress(tx, "gone@mail.example", SuppressionReason.COMPLAINT, actor="t", now=NOW, settings=settings)
        erased.forget(tx, "gone@mail.example", settings, now=NOW, must_stay=True)
    with pytest.raises(Conflict):
        _order(fresh_engine, settings, "gone@mail.example")
    assert rows(fresh_engine, "select 1 from messages") == []


@pytest.mark.parametrize("language", ['"><b>', "english", "", "de"])
def test_only_a_language_tag_of_the_contact_stands_in_the_mail(
    fresh_engine: Engine, settings: Settings, language: str
) -> None:
    with fresh_engine.begin() as tx:
        (one,) = add_contacts(tx, 1)
        tx.execute(text("update contacts set language = :language"), {"language": language})
        new = NewTransactional(contact_id=one, subject="Hi", html_body="<html><body>{{ 1.5|number }}</body></html>")
        single.send_transactional(tx, settings, new, actor="t", now=NOW)
    channel = Null()
    run_pump(fresh_engine, settings, channel)
    (mail,) = channel.accepted
    assert (b"<b>" in mail.data) is False
    assert (b"1,5" in mail.data) is (language == "de")


def test_a_strict_template_misses_what_was_not_given(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        body = NewTemplate(name="Receipt", subject="Hi", html_body="<p>{{ total }}</p>", strict=True)
        template = catalogue.create(tx, body, now=NOW)
        new = NewTransactional(email="a@mail.example", template_id=template.template_id)
        with pytest.raises(InvalidInput, match="Undefined variable: total"):
            single.send_transactional(tx, settings, new, actor="t", now=NOW)
        single.send_transactional(tx, settings, replace(new, variables={"total": 7}), actor="t", now=NOW)
    assert run_pump(fresh_engine, settings).counts == {"sent": 1}


def test_what_people_wait_for_belongs_to_no_shard(fresh_engine: Engine, settings: Settings) -> None:
    """The sender of its own shard may be waiting for a slot."""
    campaign_id = launched(fresh_engine, settings, 9)
    ids = [_order(fresh_engine, settings, f"person{number}@mail.example") for number in range(1, 7)]
    _order(fresh_engine, settings, "nobody-known@mail.example")
    channel = Null()
    result = run_pump(fresh_engine, settings, channel, shard=1, shards=3)
    assert result.counts == {"sent": 7 + 3}, "all that people wait for, and the campaign's third"
    assert rows(fresh_engine, "select count(*) as n from messages where message_id = any(:ids) and status = 'sent'",
                ids=ids)[0].n == 6  # fmt: skip
    assert states(fresh_engine, campaign_id) == {"sent": 3, "queued": 6}


def test_an_urgent_pump_leaves_campaigns_and_workflows_alone(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    with fresh_engine.begin() as tx:
        _workflow_mails(tx, 2)
    assert run_pump(fresh_engine, settings, urgent_only=True).counts == {}
    _order(fresh_engine, settings, "buyer@mail.example")
    assert run_pump(fresh_engine, settings, urgent_only=True).counts == {"sent": 1}
    assert run_pump(fresh_engine, replace(settings, frequency_cap=1), urgent_only=True).counts == {}
    assert states(fresh_engine, campaign_id) == {"queued": 3}
    assert run_pump(fresh_engine, settings).counts == {"sent": 5}
