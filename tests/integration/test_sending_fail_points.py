"""Senders that kill themselves at each of nine points leave exactly the doubts that cannot be avoided.

The short version of `python -m tests.chaos --fail-points 50`: real processes, SIGKILL, a real SMTP sink.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from mautolib.campaigns import sending
from mautolib.ledger import check
from mautolib.ledger.settle import settle_from_log
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.chaos.ground import recipients_of
from tests.chaos.senders import FAIL_POINTS, Orders, order_to_die, start
from tests.integration.mailing import launched, rows, states

EACH = 15


def test_a_sender_may_kill_itself_anywhere(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    chance = random.Random(20261123)
    recipients = EACH * len(FAIL_POINTS)
    now = datetime.now(UTC)
    with MailSink(tmp_path / "sink") as sink:
        settings = replace(settings, smtp_port=sink.smtp_port)
        campaign_id = launched(fresh_engine, settings, recipients, now=now)
        orders = Orders(settings=settings, surprises=tmp_path / "surprises")
        doubts = {}
        for point in FAIL_POINTS:
            before = states(fresh_engine, campaign_id).get("unknown", 0)
            assert start(order_to_die(orders, point, chance)).die(), f"it did not come to {point}"
            # The next one settles what it left, from its journal.
            sending.pump(fresh_engine, settings, budget_seconds=0)
            doubts[point] = states(fresh_engine, campaign_id).get("unknown", 0) - before
        assert doubts == {point: int(leaves_doubt) for point, leaves_doubt in FAIL_POINTS.items()}
        sending.pump(fresh_engine, settings)
        with fresh_engine.begin() as tx:
            log = check.read_sink_log(tmp_path / "sink")
            settle_from_log(tx, list(log), complete_until=now + timedelta(hours=2), now=datetime.now(UTC))
        sending.pump(fresh_engine, settings)
    assert states(fresh_engine, campaign_id) == {"sent": recipients}
    assert not (tmp_path / "surprises").exists()
    times = Counter(recipients_of(tmp_path / "sink" / check.SINK_LOG))
    assert len(times) == recipients and set(times.values()) == {1}
    assert rows(fresh_engine, "select max(attempt_no) as n from messages")[0].n <= 2
    with fresh_engine.connect() as tx:
        found = check.check(tx, check.read_sink_log(tmp_path / "sink"))
    assert [one for one in found if not one.question.startswith(("2.", "7."))] == []
