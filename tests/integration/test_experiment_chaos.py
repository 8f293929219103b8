"""An A/B test while senders and deciders are killed: nobody is mailed twice, and nobody what was not theirs."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mautolib.campaigns import experiment_steps, finishing, launch, planning, sending
from mautolib.campaigns.experiment_assignment import part_of, variant_of
from mautolib.campaigns.experiment_contents import slices
from mautolib.campaigns.experiment_model import AbTest, NewVariant
from mautolib.db.engine import connect
from mautolib.ledger import check
from mautolib.ledger.model import AbPart
from mautolib.ledger.settle import settle_from_log
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.chaos import senders
from tests.integration.experimenting import again, armed
from tests.integration.mailing import add_campaign, add_contacts, rows

pytestmark = pytest.mark.thorough

PEOPLE, KILLED_SENDERS, KILLED_DECIDERS = 600, 6, 6
VARIANTS = tuple(NewVariant(name=name, subject=f"Subject {name}") for name in "ABC")
_FORKS = multiprocessing.get_context("forkserver")


def decide(settings: Settings, now: datetime) -> None:
    """A decider of its own, in batches so small that a kill finds it half-way."""
    experiment_steps.step(connect(settings.database_url), settings, now, batch=5)


def test_killed_senders_and_deciders_mail_nobody_twice(
    fresh_engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    chance = random.Random(20261123)
    with MailSink(tmp_path / "sink") as sink:
        settings = replace(settings, smtp_port=sink.smtp_port)
        test = launched(fresh_engine, settings)
        send_killing(settings, tmp_path, chance, fresh_engine)
        settle(fresh_engine, settings, tmp_path / "sink")
        experiment_steps.step(fresh_engine, settings, datetime.now(UTC))
        with fresh_engine.begin() as tx:
            tx.execute(text("update ab_tests set deadline_at = deadline_at - interval '5 hours'"))
        assert decide_killing(fresh_engine, settings, chance), "some were killed half-way"
        send_killing(settings, tmp_path, chance, fresh_engine)
        settle(fresh_engine, settings, tmp_path / "sink")
        log = check.read_sink_log(tmp_path / "sink")
        received = mails(tmp_path / "sink" / check.SINK_LOG)
    assert set(log.values()) == {1}
    assert received == expected(again(fresh_engine, test), fresh_engine)
    assert finishing.finish(fresh_engine, datetime.now(UTC)) == [test.campaign_id]
    facts = "select count(*) as n from outbox where event_name = 'ab_test.completed'"
    assert rows(fresh_engine, facts)[0].n == 1
    with fresh_engine.connect() as tx:
        assert check.check(tx, log) == []
    assert not (tmp_path / "surprises").exists()


def launched(engine: Engine, settings: Settings) -> AbTest:
    now = datetime.now(UTC)
    with engine.begin() as tx:
        add_contacts(tx, PEOPLE)
        campaign = add_campaign(tx)
        test = armed(tx, settings, campaign.campaign_id, variants=VARIANTS, test_percentage=40, holdout_percentage=10)
        launch.request_send(tx, settings, campaign.campaign_id, now=now)
    planning.plan_due(engine, settings, now)
    return again(engine, test)


def send_killing(settings: Settings, folder: Path, chance: random.Random, engine: Engine) -> None:
    """Senders that kill themselves somewhere, one after the other, and a last one that does not."""
    orders = senders.Orders(settings=settings, lease_seconds=1.0, surprises=folder / "surprises")
    for point in chance.sample(sorted(senders.FAIL_POINTS), KILLED_SENDERS):
        senders.start(senders.order_to_die(orders, point, chance)).die(20)
    time.sleep(1.1)
    sending.pump(engine, settings)


def settle(engine: Engine, settings: Settings, sink: Path) -> None:
    """The log of the receiving side decides what is in doubt."""
    later = datetime.now(UTC) + timedelta(hours=1)
    with engine.begin() as tx:
        settle_from_log(tx, list(check.read_sink_log(sink)), complete_until=later, now=datetime.now(UTC))
    sending.pump(engine, settings)


def decide_killing(engine: Engine, settings: Settings, chance: random.Random) -> bool:
    """Deciders, two at a time and killed after a moment, then one that is not; whether any died half-way."""
    half_way, now = False, datetime.now(UTC)
    for _ in range(KILLED_DECIDERS):
        pair = [_FORKS.Process(target=decide, args=(settings, now), daemon=True) for _ in range(2)]
        for one in pair:
            one.start()
        waiting = "select count(*) as n from messages where held_for = 'ab_test' and status = 'queued'"
        before, ends = rows(engine, waiting)[0].n, time.monotonic() + 10
        while rows(engine, waiting)[0].n == before and any(one.is_alive() for one in pair) and time.monotonic() < ends:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.02)
        for one in pair:
            one.kill()
            one.join()
        half_way |= 0 < rows(engine, waiting)[0].n < before
    experiment_steps.step(engine, settings, now)
    return half_way


def mails(log: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        mail = json.loads(line)
        found.setdefault(mail["rcpt"][0], []).append(mail["subject"])
    return found


def expected(test: AbTest, engine: Engine) -> dict[str, list[str]]:
    """What everybody should have: nobody opened anything, so that the rest has the control."""
    how, says = slices(test), {each.variant_id: each.subject or "" for each in test.variants}
    found = {}
    for row in rows(engine, "select contact_id, email from contacts"):
        part = part_of(how, row.contact_id)
        if part is not AbPart.HOLDOUT:
            chosen = variant_of(how, row.contact_id) if part is AbPart.TEST else test.control.variant_id
            found[row.email] = [says[chosen]]
    return found
