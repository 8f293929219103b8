"""A mail server that cannot be reached is left alone, longer each time; an answer ends it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mautolib.campaigns import sending
from mautolib.campaigns.host_backoff import HostBackoff
from mautolib.channels.null import Null
from mautolib.channels.protocol import Channel
from mautolib.errors import Misconfigured, ProviderUnavailable
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings
from tests.integration.mailing import NOW, launched, null, rows, run_pump, states

DOWN = ProviderUnavailable("The mail server 127.0.0.1:1025 cannot be reached")


def backoff(path: Path, jitter: float = 0.0) -> HostBackoff:
    return HostBackoff(path / "host.json", random=lambda: jitter)


def test_pauses_double_up_to_a_quarter_of_an_hour_and_an_answer_ends_them(tmp_path: Path) -> None:
    now, pauses = NOW, []
    for _ in range(7):
        one = backoff(tmp_path)  # a new process each time
        assert not one.is_waiting(now)
        seconds = one.failed(now)
        pauses.append(seconds)
        assert one.is_waiting(now + timedelta(seconds=seconds - 1))
        now += timedelta(seconds=seconds)
    assert pauses == [60, 120, 240, 480, 900, 900, 900]
    backoff(tmp_path).answered()
    assert not backoff(tmp_path).is_waiting(now - timedelta(seconds=1))
    assert backoff(tmp_path).failed(now) == 60


def test_jitter_shortens_by_a_fifth_at_most(tmp_path: Path) -> None:
    for jitter, pause in ((0.0, 60), (0.5, 54), (1.0, 48)):
        (tmp_path / str(jitter)).mkdir()
        assert backoff(tmp_path / str(jitter), jitter).failed(NOW) == pause
    assert len({HostBackoff(tmp_path / f"real{n}").failed(NOW) for n in range(5)}) > 1


def test_senders_that_fail_together_count_once(tmp_path: Path) -> None:
    first, second = backoff(tmp_path), backoff(tmp_path)
    assert first.failed(NOW) == 60
    assert second.failed(NOW + timedelta(seconds=20)) == 40, "what is left of the same pause"
    assert backoff(tmp_path).failures == 1


def test_a_server_that_answered_in_between_begins_anew(tmp_path: Path) -> None:
    now = NOW
    for _ in range(4):
        now += timedelta(seconds=backoff(tmp_path).failed(now))
    assert backoff(tmp_path).failed(now, has_answered=True) == 60


@pytest.mark.parametrize("kept", [b"", b"{", b"[]", b"null", b'{"failures": 3}', b'{"failures": 3, "retry_at": 7}',
                                  b'{"failures": 3, "retry_at": "2026-11-22"}', b"\xff\x00"])  # fmt: skip
def test_what_cannot_be_read_stops_nobody(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "host.json").write_bytes(kept)
    one = backoff(tmp_path)
    assert not one.is_waiting(NOW) and one.failures == 0
    assert one.failed(NOW) == 60 and backoff(tmp_path).is_waiting(NOW)


def test_a_clock_that_was_set_back_makes_no_pause_of_hours(tmp_path: Path) -> None:
    backoff(tmp_path).failed(NOW)
    assert not backoff(tmp_path).is_waiting(NOW - timedelta(hours=5))


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one = HostBackoff(tmp_path / "file" / "host.json", random=lambda: 0)
    assert one.failed(NOW) == 60 and one.is_waiting(NOW)


def waits(engine: Engine) -> list[float]:
    """How long after `NOW` each queued message is tried again, in seconds."""
    found = rows(engine, "select next_try_at from messages where status = 'queued' order by 1")
    return [round((row.next_try_at - NOW).total_seconds()) for row in found]


def failing(engine: Engine, settings: Settings, later: float) -> str:
    with pytest.raises(ProviderUnavailable) as caught:
        run_pump(engine, settings, null({1: DOWN, 2: DOWN, 3: DOWN}), later=timedelta(seconds=later))
    return str(caught.value)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mautolib.campaigns.host_backoff.JITTER", 0.0)


@pytest.mark.usefixtures("steady")
def test_the_pump_comes_back_later_each_time_and_at_once_after_an_answer(
    fresh_engine: Engine, settings: Settings
) -> None:
    campaign_id = launched(fresh_engine, settings, 3)
    assert "127.0.0.1:1025" in failing(fresh_engine, settings, 0)
    assert waits(fresh_engine) == [60, 60, 90], "the one in hand comes after the others"
    failing(fresh_engine, settings, 100)
    assert waits(fresh_engine) == [220, 220, 250]
    failing(fresh_engine, settings, 300)
    assert waits(fresh_engine) == [540, 540, 570]
    assert rows(fresh_engine, "select max(attempt_no) as most from messages")[0].most == 0, "it costs no attempt"
    assert run_pump(fresh_engine, settings, later=timedelta(seconds=600)).counts == {"sent": 3}
    assert states(fresh_engine, campaign_id) == {"sent": 3}
    assert not HostBackoff.of(settings).failures


@pytest.mark.usefixtures("steady")
def test_nobody_connects_or_claims_while_a_pause_lasts(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 3)
    failing(fresh_engine, settings, 0)

    def no_way(_: Settings) -> Channel:
        raise AssertionError("nobody is to connect")

    # Nothing is due: nothing to say either.
    assert run_pump(fresh_engine, settings, later=timedelta(seconds=30)).counts == {}
    with fresh_engine.begin() as tx:
        tx.exec_driver_sql("update messages set next_try_at = next_try_at - interval '5 minutes'")
    with pytest.raises(ProviderUnavailable, match=r"1 times in a row; it is tried again at 2026-11-22 09:01:00 UTC"):
        sending.pump(fresh_engine, settings, now=NOW + timedelta(seconds=30), open_way=no_way)
    assert rows(fresh_engine, "select count(*) as n from messages where status = 'queued'")[0].n == 3
    # Other settings are another server.
    assert run_pump(fresh_engine, replace(settings, smtp_port=2525), later=timedelta(seconds=30)).counts == {"sent": 3}


@pytest.mark.usefixtures("steady")
def test_a_server_that_defers_every_sender_is_left_alone_longer_too(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 2)
    deferred = Result(verdict=Verdict.RELEASED, stage=Stage.MAIL, code=451, enhanced="4.7.1", reply="slow down")
    at = NOW
    for pause in (60, 120, 240):
        with pytest.raises(ProviderUnavailable, match="defers the sender"):
            run_pump(fresh_engine, settings, null({1: deferred, 2: deferred}), later=at - NOW)
        host = HostBackoff.of(settings)
        assert host.retry_at is not None and pause <= (host.retry_at - at).total_seconds() < pause + 1
        at = _later(host.retry_at)


def _later(moment: datetime) -> datetime:
    return moment + timedelta(seconds=40)


def test_a_wrong_setting_is_tried_again_as_soon_as_it_is_mended(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 2)

    class Refusing(Null):
        def deliver(self, messages: object, watch: object) -> object:  # type: ignore[override]
            raise Misconfigured("The mail server refuses the login")

    with pytest.raises(Misconfigured):
        run_pump(fresh_engine, settings, Refusing())
    assert not HostBackoff.of(settings).failures
