"""Opt-outs while a campaign is on its way: whoever left more than a second before the hand-over gets no mail."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mautolib.campaigns import sending
from mautolib.channels.null import Null
from mautolib.channels.protocol import Channel, Outgoing, Watch
from mautolib.channels.smtp_email import SmtpEmail
from mautolib.contacts import consent
from mautolib.contacts.model import SuppressionReason
from mautolib.ledger.model import Result
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.integration.mailing import NOW, launched, rows, states

RECIPIENTS, GROUP, PAUSE = 20, 10, 0.15


@dataclass
class _Slow:
    """A channel that takes its time with each message and notes when it hands one over."""

    inner: Channel
    name: str = "slow"
    handed: dict[str, float] = field(default_factory=dict)

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        return self.inner.deliver(self._slowly(messages), _Noting(watch, self.handed))

    def close(self) -> None:
        self.inner.close()

    def _slowly(self, messages: Iterable[Outgoing]) -> Iterator[Outgoing]:
        for message in messages:
            time.sleep(PAUSE)
            yield message


@dataclass
class _Noting:
    watch: Watch
    handed: dict[str, float]

    def before(self, message: Outgoing) -> Result | None:
        return self.watch.before(message)

    def begins(self, message: Outgoing) -> bool:
        may = self.watch.begins(message)
        if may:
            self.handed[message.recipient] = time.monotonic()
        return may


@pytest.mark.parametrize("kind", ["memory", "smtp"])
def test_nobody_is_mailed_who_left_more_than_a_second_before(
    fresh_engine: Engine, settings: Settings, tmp_path: Path, kind: str
) -> None:
    chance = random.Random(9)
    with MailSink(tmp_path / "sink") as sink:
        settings = replace(settings, smtp_port=sink.smtp_port)
        campaign_id = launched(fresh_engine, settings, RECIPIENTS)
        channel = _Slow(SmtpEmail.from_settings(settings) if kind == "smtp" else Null())
        left: dict[str, float] = {}
        is_over = threading.Event()

        def people() -> None:
            """Every moment somebody who has had no mail yet leaves, in one way or the other."""
            found = rows(fresh_engine, "select contact_id, email from contacts")
            contacts = {row.email: row.contact_id for row in found}
            while not is_over.wait(PAUSE * 1.5):
                waiting = sorted(set(contacts) - set(channel.handed) - set(left))
                if not waiting:
                    return
                email = chance.choice(waiting)
                with fresh_engine.begin() as tx:
                    if chance.random() < 0.5:
                        consent.unsubscribe(tx, contacts[email], source="page", actor="person", now=NOW)
                    else:
                        consent.suppress(tx, email, SuppressionReason.MANUAL, source="api", actor="admin", now=NOW,
                                         settings=settings)  # fmt: skip
                left[email] = time.monotonic()

        thread = threading.Thread(target=people)
        thread.start()
        try:
            result = sending.pump(
                fresh_engine, settings, now=NOW, open_way=lambda _: channel, group_size=GROUP
            )
        finally:
            is_over.set()
            thread.join()
    too_late = {email: channel.handed[email] - at for email, at in left.items() if email in channel.handed}
    assert [seconds for seconds in too_late.values() if seconds > 1.0] == []
    stopped = set(left) - set(channel.handed)
    assert len(stopped) >= 5, "enough left in time to be a test at all"
    found = rows(fresh_engine, "select email from messages join contacts using (contact_id) where status = 'skipped'")
    assert stopped == {row.email for row in found}
    assert states(fresh_engine, campaign_id)["sent"] == len(channel.handed) == RECIPIENTS - len(stopped)
    assert result.counts["sent"] == len(channel.handed)
