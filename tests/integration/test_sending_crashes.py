"""A pump ends in the middle, or its database does: what it knew is not lost and nothing is handed over again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, event, text

from mautolib.channels.null import Null
from mautolib.channels.protocol import Outgoing, Watch
from mautolib.errors import ProviderUnavailable
from mautolib.ledger.journal import journal_folder
from mautolib.ledger.model import Result
from mautolib.settings import Settings
from tests.integration.mailing import launched, rows, run_pump, states


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


class _Dying(Null):
    """Dies at a point of the message to person<at>."""

    def __init__(self, at: int, point: str) -> None:
        super().__init__()
        self._address, self._point = f"person{at}@mail.example", point

    def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
        for message in messages:
            dies = message.recipient == self._address
            if dies and self._point == "before":
                raise Killed
            if dies and self._point == "after the dot":
                assert watch.begins(message)
                self.accepted.append(message)
                raise Killed
            yield from super().deliver([message], watch)
            if dies and self._point == "after the answer":
                raise Killed


@pytest.mark.parametrize(
    ("point", "left", "doubts"),
    [("before", 3, 0), ("after the dot", 3, 1), ("after the answer", 4, 0)],
)
def test_a_pump_that_dies_leaves_at_most_one_doubt(
    fresh_engine: Engine, settings: Settings, point: str, left: int, doubts: int
) -> None:
    campaign_id = launched(fresh_engine, settings, 8)
    first = _Dying(4, point)
    with pytest.raises(Killed):
        run_pump(fresh_engine, settings, first)
    assert len(list(journal_folder(settings).iterdir())) == 1
    second = Null()
    run_pump(fresh_engine, settings, second, later=timedelta(minutes=1))
    accepted = Counter(message.recipient for message in [*first.accepted, *second.accepted])
    assert set(accepted.values()) == {1} and len(accepted) == 8, "each once, whatever happened"
    assert len(first.accepted) == left + doubts
    expected = {"sent": 8 - doubts} | ({"unknown": doubts} if doubts else {})
    assert states(fresh_engine, campaign_id) == expected
    assert list(journal_folder(settings).iterdir()) == []


class _CutCommit:
    """Cuts the connection at the commit of the nth pump transaction, before or after it happened."""

    def __init__(self, engine: Engine, number: int, *, is_done: bool) -> None:
        self.engine, self.number, self.is_done, self.seen = engine, number, is_done, 0

    def __enter__(self) -> _CutCommit:
        event.listen(self.engine, "commit", self._cut)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self.engine, "commit", self._cut)

    def _cut(self, connection: Connection) -> None:
        self.seen += 1
        if self.seen != self.number:
            return
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, psycopg2.extensions.connection)
        if self.is_done:
            raw.commit()
        raw.close()


@pytest.mark.parametrize("is_done", [True, False], ids=["committed", "not committed"])
@pytest.mark.parametrize("number", range(2, 6))
def test_a_commit_whose_answer_is_lost_is_looked_up(
    fresh_engine: Engine, settings: Settings, number: int, is_done: bool
) -> None:
    campaign_id = launched(fresh_engine, settings, 25)
    channel = Null()
    with _CutCommit(fresh_engine, number, is_done=is_done) as cut:
        result = run_pump(fresh_engine, settings, channel)
    assert cut.seen > number, "the pump went on"
    assert result.counts == {"sent": 25} and states(fresh_engine, campaign_id) == {"sent": 25}
    assert len(channel.accepted) == len({message.recipient for message in channel.accepted}) == 25
    assert rows(fresh_engine, "select count(*) as n from events")[0].n == 25
    assert {row.attempt_no for row in rows(fresh_engine, "select attempt_no from messages")} == {1}


def test_a_database_that_stays_away_leaves_the_journal(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = launched(fresh_engine, settings, 5)
    monkeypatch.setattr("mautolib.campaigns.sending.PATIENCE_SECONDS", 0.0)

    class Gone(Null):
        def deliver(self, messages: Iterable[Outgoing], watch: Watch) -> Iterator[Result]:
            yield from super().deliver(messages, watch)
            event.listen(fresh_engine, "begin", refuse)

    def refuse(_: Connection) -> None:
        raise psycopg2.OperationalError("the server is gone")

    try:
        with pytest.raises((ProviderUnavailable, psycopg2.OperationalError)):
            run_pump(fresh_engine, settings, Gone())
    finally:
        event.remove(fresh_engine, "begin", refuse)
    assert states(fresh_engine, campaign_id) == {"sending": 5}
    with fresh_engine.begin() as tx:
        tx.execute(text("update messages set lease_until = clock_timestamp() - interval '1 hour'"))
    channel = Null()
    run_pump(fresh_engine, settings, channel)
    assert channel.accepted == [] and states(fresh_engine, campaign_id) == {"sent": 5}
