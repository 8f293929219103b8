"""The runbooks of docs/operations.md about the mail provider, typed in as they stand: an hour away, and another one."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from mautolib import maintenance
from mautolib.campaigns import finishing, sending
from mautolib.channels.protocol import Channel, Outgoing, Watch
from mautolib.channels.registry import open_channel
from mautolib.cli import desk
from mautolib.cli.app import app
from mautolib.errors import ProviderUnavailable
from mautolib.ledger.model import Result
from mautolib.maintenance import watch
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.chaos.ground import recipients_of
from tests.chaos.operations import environment
from tests.integration.mailing import launched, states
from tests.integration.test_runbooks import found

PEOPLE, BROKEN_AFTER = 40, 7
MINUTE = timedelta(minutes=1)


@dataclass(kw_only=True)
class Shift:
    """An operator and the senders of a campaign to everybody, with a clock that a test moves."""

    engine: Engine
    settings: Settings
    now: datetime
    monkeypatch: pytest.MonkeyPatch

    def type(self, block: str, codes: Sequence[int]) -> list[str]:
        """What the commands of a block say, one after another; `make up` is left to the test."""
        for name, value in environment(self.settings).items():
            if name.startswith("MAUTO_"):
                self.monkeypatch.setenv(name, value)
        self.monkeypatch.setattr(desk, "now", lambda: self.now)
        said, left = [], list(codes)
        for words in (shlex.split(line, comments=True) for line in block.splitlines()):
            if words == ["make", "up"]:
                continue
            assert words[0] == "mauto"
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == left.pop(0), (words, done.output, done.exception)
            said.append(done.output)
        assert left == []
        return said

    def told(self, *words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.output)

    def pump(self) -> str | None:
        """One run of senders; what it fails with."""
        try:
            sending.pump(self.engine, self.settings, now=self.now, group_size=5)
        except ProviderUnavailable as error:
            return str(error)
        return None


class Breaking:
    """The way to a server that goes away when it has taken so many."""

    def __init__(self, way: Channel, sink: MailSink) -> None:
        self._way, self._sink, self._taken = way, sink, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._way, name)

    def deliver(self, messages: Iterable[Outgoing], looking: Watch) -> Iterator[Result]:
        for result in self._way.deliver(messages, looking):
            yield result
            self._taken += 1
            if self._taken == BROKEN_AFTER:
                self._sink.__exit__(None, None, None)


@pytest.fixture
def shift(fresh_engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shift:
    """The provider breaks after some of the campaign is sent."""
    now = datetime.now(UTC)
    sink = MailSink(tmp_path / "old").__enter__()
    given = replace(settings, smtp_port=sink.smtp_port)
    launched(fresh_engine, given, PEOPLE, now=now)
    with fresh_engine.begin() as tx:
        for dag in watch.DAGS:
            maintenance.heartbeat(tx, f"airflow.{dag}", now)
    with pytest.raises(ProviderUnavailable):
        sending.pump(
            fresh_engine, given, now=now, group_size=5, open_way=lambda asked: Breaking(open_channel(asked), sink)
        )  # fmt: skip
    assert len(recipients(tmp_path / "old")) >= BROKEN_AFTER
    return Shift(engine=fresh_engine, settings=given, now=now, monkeypatch=monkeypatch)


def recipients(*folders: Path) -> Counter[str]:
    return Counter(one for folder in folders for one in recipients_of(folder / "accepted.jsonl"))


def everybody() -> dict[str, int]:
    return {f"person{number}@mail.example": 1 for number in range(1, PEOPLE + 1)}


def together(folder: Path, names: Sequence[str]) -> Path:
    """One log of several."""
    (folder / "all").mkdir(exist_ok=True)
    logs = [(folder / name / "accepted.jsonl").read_bytes() for name in names]
    (folder / "all" / "accepted.jsonl").write_bytes(b"".join(logs))
    return folder / "all"


def settle(shift: Shift, folder: Path, *names: str) -> None:
    """Doubts by the logs of who took the mail, and the end of the campaign."""
    assert len(shift.told("unknown", "list")) <= 1
    log = together(folder, names)
    shift.now += timedelta(minutes=30)
    until = (shift.now + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S")
    done = CliRunner().invoke(app, ["unknown", "settle", "--sink-log", str(log), "--complete-until", until])
    assert done.exit_code == 0, done.output
    shift.pump()
    finishing.finish(shift.engine, shift.now)
    assert states(shift.engine, 1) == {"sent": PEOPLE}
    checked = CliRunner().invoke(app, ["ledger", "check", "--sink-log", str(together(folder, names))])
    assert checked.output == "ledger clean\n"


def test_an_hour_without_the_provider_loses_nothing_and_sends_nothing_twice(shift: Shift, tmp_path: Path) -> None:
    began, tries = shift.now, Counter[bool]()
    while shift.now < began + 61 * MINUTE:
        shift.now += MINUTE
        failed = shift.pump()
        assert failed is None or "tried again at" in failed or "cannot be reached" in failed, failed
        tries[failed is not None and "cannot be reached" in failed] += 1
    assert 4 <= tries[True] <= 10, "it is not asked again and again"
    with shift.engine.begin() as tx:
        for dag in watch.DAGS:
            if dag != "campaign_send":
                maintenance.heartbeat(tx, f"airflow.{dag}", shift.now)

    doctor, status, stuck = shift.type(found()["The mail provider"][0], (1, 0, 1))
    line = next(line for line in doctor.splitlines() if line.startswith("mail server"))
    assert "NOT OK" in line and f"127.0.0.1:{shift.settings.smtp_port} does not answer" in line
    waiting = {row["of"]: int(row["value"]) for row in shift.told("status") if row["what"] == "messages"}
    assert waiting["queued"] + waiting["unknown"] == PEOPLE - states(shift.engine, 1)["sent"]
    assert "messages_oldest_seconds" in status
    assert "stuck.campaigns_without_progress" in stuck and "dag_late.campaign_send" in stuck

    shift.now += timedelta(minutes=16)
    with MailSink(tmp_path / "old", smtp_port=shift.settings.smtp_port):
        assert shift.pump() is None
        settle(shift, tmp_path, "old")
    assert recipients(tmp_path / "old") == everybody()
    assert not {one["finding"] for one in shift.told("watch", code=1)} & {
        "stuck.campaigns_without_progress", "stuck.messages_in_flight", "stuck.messages_in_doubt",
    }  # fmt: skip


def test_another_provider_gets_what_the_first_has_not_taken(shift: Shift, tmp_path: Path) -> None:
    _, before, after = found()["The mail provider"]
    shift.now += MINUTE
    _, status = shift.type(before, (0, 0))
    assert [line.split() for line in status.splitlines() if line.startswith("messages ") and "sending" in line] == [
        ["messages", "sending", "0"]
    ]  # fmt: skip
    with MailSink(tmp_path / "new") as new:
        shift.settings = replace(shift.settings, smtp_port=new.smtp_port)
        shift.now += MINUTE
        assert shift.pump() is None and not new.count(), "sending is off"
        doctor, _ = shift.type(after, (1, 0))
        assert f"mail server     ok      127.0.0.1:{new.smtp_port} answers" in doctor
        # A pause of the old server does not hold for the new one; a message may have one of its own.
        shift.now += 2 * MINUTE
        assert shift.pump() is None
        settle(shift, tmp_path, "old", "new")
    assert recipients(tmp_path / "old", tmp_path / "new") == everybody()
    assert len(recipients(tmp_path / "old")) < PEOPLE / 2
