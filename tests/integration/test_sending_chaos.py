"""Senders are killed and frozen in the middle of their work: nobody is lost, nobody is mailed twice, no doubt is left.

The short version of the chaos run: real processes, a real SMTP sink on disk, SIGKILL at any byte.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from mautolib.campaigns import finishing, planning, sending
from mautolib.ledger import check
from mautolib.ledger.settle import settle_from_log
from mautolib.settings import Settings, variable
from mautolib.stack.mailsink import MailSink
from tests.integration.mailing import launched, rows, states

RECIPIENTS, SENDERS, KILLS = 500, 3, 6
ROOT = Path(__file__).parents[2]


def environment(settings: Settings) -> dict[str, str]:
    names = ("database_url", "suppression_pepper", "environment", "public_base_url", "default_from_name",
             "default_from_email", "postal_address", "home", "smtp_port",
             "smtp_connections")  # fmt: skip
    values = {variable(name): str(getattr(settings, name)) for name in names}
    return {**os.environ, **values, "MAUTO_SECRET_KEYS": ",".join(settings.secret_keys), "MAUTO_LOG_LEVEL": "WARNING"}


def start(settings: Settings, shard: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mautolib.campaigns.sending", "--shard", f"{shard}/{SENDERS}", "--group-size", "7"]
    return subprocess.Popen(command, env=environment(settings), cwd=ROOT, stdout=subprocess.DEVNULL)


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.002)


@pytest.mark.parametrize("connections", [1, 3])
def test_killed_and_frozen_senders_lose_nobody_and_mail_nobody_twice(
    fresh_engine: Engine, settings: Settings, tmp_path: Path, connections: int
) -> None:
    chance = random.Random(20261122)
    with MailSink(tmp_path / "sink") as sink:
        settings = replace(settings, smtp_port=sink.smtp_port, smtp_connections=connections)
        campaign_id = launched(fresh_engine, settings, RECIPIENTS, now=datetime.now(UTC))
        killed = play(settings, sink, fresh_engine, chance)
        assert killed == KILLS
        finish(fresh_engine, settings, sink, campaign_id)
        assert states(fresh_engine, campaign_id) == {"sent": RECIPIENTS}
        received = sink.messages()
        assert Counter(mail.recipients[0] for mail in received) == {
            f"person{number}@mail.example": 1 for number in range(1, RECIPIENTS + 1)
        }
        log = check.read_sink_log(tmp_path / "sink")
        assert len(log) == RECIPIENTS and set(log.values()) == {1}
    with fresh_engine.connect() as tx:
        assert check.check(tx, log) == []


def play(settings: Settings, sink: MailSink, engine: Engine, chance: random.Random) -> int:
    """Senders at work; one is frozen past its lease, others are killed and started again. Returns the kills."""
    senders = [start(settings, shard) for shard in range(SENDERS)]
    killed = 0
    try:
        step = RECIPIENTS // (KILLS + 2)
        wait_until(lambda: sink.count() >= step)
        frozen = senders[0]
        while not freeze(frozen, engine):
            time.sleep(0.01)
        while killed < KILLS:
            shard = chance.randrange(1, SENDERS)
            before = sink.count()
            wait_until(lambda: senders[shard].poll() is not None or sink.count() > before + chance.randrange(20))  # noqa: B023
            senders[shard].kill()
            senders[shard].wait()
            killed += 1
            senders[shard] = start(settings, shard)
            wait_until(lambda: senders[shard].poll() is not None or sink.count() > before + 25)  # noqa: B023
        frozen.send_signal(signal.SIGCONT)
        for sender in senders:
            assert sender.wait(60) == 0
    finally:
        for sender in senders:
            sender.kill()
            sender.wait()
    return killed


def freeze(sender: subprocess.Popen[bytes], engine: Engine) -> bool:
    """Stop a sender and end its lease; False when it was stopped inside a transaction and had to go on.

    In there it holds its rows until idle_in_transaction_session_timeout, five minutes later: nothing to wait for.
    """
    sender.send_signal(signal.SIGSTOP)
    try:
        with engine.begin() as tx:
            tx.execute(text("set local lock_timeout = '300ms'"))
            tx.execute(text("update messages set lease_until = clock_timestamp() - interval '1 s' "
                            "where status = 'sending' and contact_id % :n = 0"), {"n": SENDERS})  # fmt: skip
    except OperationalError:
        sender.send_signal(signal.SIGCONT)
        return False
    return True


def finish(engine: Engine, settings: Settings, sink: MailSink, campaign_id: int) -> None:
    """What operators do afterwards: pumps run again, the log of the receiving side settles what is in doubt."""
    now = datetime.now(UTC)
    assert planning.plan_due(engine, settings, now) == []
    sending.pump(engine, settings, now=now + timedelta(hours=1))
    doubts = rows(engine, "select count(*) as n from messages where status = 'unknown'")[0].n
    assert doubts <= KILLS + 7, "at most one message per kill, and the frozen group"
    with engine.begin() as tx:
        accepted = [mail.message_id.strip("<>") for mail in sink.messages()]
        later = datetime.now(UTC) + timedelta(hours=1)
        settle_from_log(tx, accepted, complete_until=later, now=now + timedelta(hours=1))
    sending.pump(engine, settings, now=now + timedelta(hours=2))
    assert finishing.finish(engine, now + timedelta(hours=2)) == [campaign_id]
