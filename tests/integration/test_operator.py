"""An operator resolves every state a bad day leaves with `mauto` alone; `mauto upgrade` and the rest of its verbs."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Ran
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from mautolib.campaigns import control, launch, planning
from mautolib.cli.app import app
from mautolib.contacts import imports
from mautolib.db import dumps
from mautolib.ledger import check
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.chaos.ground import recipients_of
from tests.chaos.operations import environment
from tests.chaos.senders import FAIL_POINTS, Orders, order_to_die, start
from tests.integration.mailing import add_campaign, launched, rows
from tests.integration.webhook_making import add_endpoint
from tests.receivers import WebhookReceiver, receive

PEOPLE = 60
DEAD = 3


@dataclass(kw_only=True)
class Desk:
    """An operator with a terminal, and what is behind it."""

    engine: Engine
    settings: Settings
    sink: Path
    shop: WebhookReceiver

    def __call__(self, *words: str, code: int = 0) -> Ran:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == code, (done.output, done.exception)
        return done

    def told(self, *words: str, code: int = 0) -> Any:
        """What a command says as JSON."""
        return json.loads(self(*words, "--json", code=code).output)

    def later(self) -> None:
        """A quarter of an hour goes by: nobody holds a lease any more."""
        with self.engine.begin() as tx:
            for table in ("messages", "imports"):
                tx.execute(text(f"update {table} set lease_until = clock_timestamp() - interval '1 s' "
                                "where lease_until is not null"))  # fmt: skip


@pytest.fixture
def desk(
    fresh_engine: Engine, fresh_database_url: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    with MailSink(tmp_path / "sink") as sink, receive() as shop:
        given = replace(
            settings, database_url=fresh_database_url, smtp_port=sink.smtp_port, webhook_allow_http=True,
            webhook_allowed_hosts=(f"127.0.0.1:{shop.port}",),
        )  # fmt: skip
        for name, value in environment(given).items():
            if name.startswith("MAUTO_"):
                monkeypatch.setenv(name, value)
        yield Desk(engine=fresh_engine, settings=given, sink=tmp_path / "sink", shop=shop)


def test_an_operator_resolves_everything(desk: Desk, tmp_path: Path) -> None:
    campaign_id = launched(desk.engine, desk.settings, PEOPLE, now=datetime.now(UTC))
    doubts = kill_senders(desk, tmp_path)
    paused, unplanned = half_campaigns(desk)
    file = tmp_path / "people.csv"
    killed, gone, waiting = stuck_imports(desk, file)
    back, lost = dead_letters(desk)
    desk("sending", "off", "--reason", "the bad day")
    desk.later()

    # What is wrong, and the work that nobody did.
    found = {row["check"]: row["state"] for row in desk.told("doctor", code=1)}
    assert found["sending"] == "NOT OK" and found["mail server"] == found["migrations"] == "ok"
    desk("partitions", "ensure")
    assert "NOT DONE: sending is off: the bad day" in desk("run", "sending", code=1).output
    desk("sending", "on")
    desk("campaign", "resume", str(paused))
    assert {row["id"]: row["status"] for row in desk.told("imports", "list")} == {
        killed: "running", gone: "queued", waiting: "queued"
    }  # fmt: skip
    desk("imports", "cancel", str(waiting))
    desk("run")

    # Imports: the killed one went on, the one without a file says so, and is asked for again.
    done = {row["id"]: row for row in desk.told("imports", "list")}
    assert [done[one]["status"] for one in (killed, gone, waiting)] == ["completed", "failed", "cancelled"]
    file.with_name("late.csv").write_text("email\nlate@mail.example\n", encoding="utf-8")
    desk("imports", "again", str(gone))
    assert "completed: 1 rows, 1 created" in desk("imports", "run", str(max(done) + 1)).output
    assert "The import is completed" in desk("imports", "run", str(killed), code=1).output
    assert len(rows(desk.engine, "select from contacts where email like 'bulk%'")) == 300

    # Doubts: as many as there were deaths between the dot and its answer.
    unknown = desk.told("unknown", "list")
    assert {row["campaign"] for row in unknown} == {campaign_id} and len(unknown) == doubts
    until = (datetime.now(UTC) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S")
    said = desk("unknown", "settle", "--sink-log", str(desk.sink), "--complete-until", until).output
    assert said == "2 were sent, 1 are queued again\n"
    desk("run", "sending")

    # Webhooks: one comes back, what died goes out again; the other one is gone for good.
    assert [row["webhook"] for row in desk.told("webhooks", "list") if not row["active"]] == [back]
    desk("webhooks", "enable", str(back))
    assert f"{DEAD} deliveries are in line" in desk("dead-letters", "replay", "--webhook", str(back)).output
    desk("run", "webhooks")
    replayed = {one.headers["webhook-id"] for one in desk.shop.requests} & {f"msg_{n}" for n in range(1, DEAD + 1)}
    assert len(replayed) == DEAD
    assert "no dead delivery" in desk("dead-letters", "give-up", "--delivery", "1", "--yes", code=1).output
    assert f"{DEAD} deliveries" in desk("dead-letters", "give-up", "--webhook", str(lost), "--yes").output
    desk("webhooks", "disable", str(lost))
    assert [row["webhook"] for row in desk.told("webhooks", "list") if not row["active"]] == [lost]
    assert "is queued" in desk("imports", "again", str(killed)).output
    desk("imports", "cancel", str(max(done) + 2))

    desk("run")
    everything_is_in_order(desk, (campaign_id, paused, unplanned))


def kill_senders(desk: Desk, folder: Path) -> int:
    """Senders kill themselves at each of the nine points; returns how many messages that leaves in doubt."""
    orders, chance = Orders(settings=desk.settings, surprises=folder / "surprises"), random.Random(7)
    for point in FAIL_POINTS:
        orders_of_it = replace(order_to_die(orders, point, chance), nth=1, group_size=2)
        assert start(orders_of_it).die(), f"it did not come to {point}"
    assert rows(desk.engine, "select count(*) as n from messages where status = 'sending'")[0].n
    return sum(FAIL_POINTS.values())


def half_campaigns(desk: Desk) -> tuple[int, int]:
    """One that is paused with everything still queued, and one that nobody planned."""
    now, made = datetime.now(UTC), []
    for name in ("Paused", "Unplanned"):
        with desk.engine.begin() as tx:
            made.append(add_campaign(tx, name=name).campaign_id)
            launch.request_send(tx, desk.settings, made[-1], now=now)
        if name == "Paused":
            planning.plan_due(desk.engine, desk.settings, now)
            with desk.engine.begin() as tx:
                control.pause(tx, made[-1], now=now)
    return made[0], made[1]


def stuck_imports(desk: Desk, file: Path) -> tuple[int, int, int]:
    """One whose worker was killed, one whose file is not there, and one nobody wants any more."""
    file.write_text("email\n" + "".join(f"bulk{n}@mail.example\n" for n in range(300)), encoding="utf-8")
    late = file.with_name("late.csv")
    late.write_text("email\n", encoding="utf-8")
    with desk.engine.begin() as tx:
        ids = [
            imports.request_file(tx, path, {}, actor="test", now=datetime.now(UTC)) for path in (file, late, file)
        ]  # fmt: skip
    late.unlink()
    command = [sys.executable, "-m", "tests.import_worker", desk.settings.database_url, str(desk.settings.home), "100",
               "1000", "before drop table"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        until(lambda: rows(desk.engine, "select status from imports order by import_id")[0].status == "running")
        worker.kill()
    return ids[0], ids[1], ids[2]


def dead_letters(desk: Desk) -> tuple[int, int]:
    """Two webhooks with dead deliveries: one was disabled but is well again, one will never be."""
    with desk.engine.begin() as tx:
        reason = "10 deliveries failed"
        back = add_endpoint(tx, desk.settings, desk.shop.url, active=False, disabled_reason=reason)
        lost = add_endpoint(tx, desk.settings, "https://gone.example/hook", events=("list.cleaned",))
        for number, endpoint in enumerate((back, lost)):
            tx.execute(
                text("insert into webhook_deliveries (endpoint_id, event_type, webhook_message_id, payload, status, "
                     "attempt, next_attempt_at, finished_at) select :id, 'email.sent', 'msg_' || n + :first, '{}', "
                     "'dead', 8, null, now() from generate_series(1, :count) as n"),
                {"id": endpoint, "first": number * DEAD, "count": DEAD},
            )  # fmt: skip
    return back, lost


def everything_is_in_order(desk: Desk, campaigns: tuple[int, ...]) -> None:
    """By the ledger check, the queues, and what came out at the other side."""
    assert "ledger clean" in desk("ledger", "check", "--sink-log", str(desk.sink)).output
    shown = desk.told("status")
    open_ones = {(row["what"], row["of"]): row["value"] for row in shown if row["what"] in ("messages", "queue")}
    assert {one: value for one, value in open_ones.items() if value != "0"} == {}
    assert {row["id"]: row["status"] for row in desk.told("campaign", "list")} == dict.fromkeys(campaigns, "sent")
    times = Counter(recipients_of(desk.sink / check.SINK_LOG))
    assert {times[f"person{number}@mail.example"] for number in range(1, PEOPLE + 1)} == {len(campaigns)}
    assert set(check.read_sink_log(desk.sink).values()) == {1}
    left = {row["check"] for row in desk.told("doctor", code=1) if row["state"] != "ok"}
    assert left == {"airflow"}, "nothing but Airflow, which does not run here"
    actors = rows(desk.engine, "select distinct actor_label from audit_log")
    assert [row.actor_label.partition(":")[0] for row in actors] == ["cli"]


def until(holds: Callable[[], bool]) -> None:
    gives_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < gives_up, "it did not happen in time"
        time.sleep(0.02)


def test_an_upgrade_backs_up_migrates_and_checks(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "before.dump"
    with desk.engine.begin() as tx:
        newest = tx.scalar(text("select max(name) from schema_migrations where name like 'migrations/%'"))
    said = desk("upgrade", "--backup", str(file)).output
    assert said.endswith("0 files applied; 0 findings of the ledger check\n") and file.stat().st_size > 10_000
    assert "is there already" in desk("upgrade", "--backup", str(file), code=2).output
    # A view that was changed is applied again.
    with desk.engine.begin() as tx:
        tx.execute(text("delete from schema_migrations where name not like 'migrations/%'"))
    assert "0 findings" in desk("upgrade", "--backup", str(tmp_path / "second.dump")).output
    assert newest and desk("migrate", "--check").output == "the database is up to date\n"
    assert "0 findings" in desk("drill", str(file)).output


def test_a_restore_wipes_every_schema_there_is(desk: Desk) -> None:
    found = rows(desk.engine, "select nspname from pg_namespace where nspname !~ '^(pg_|information_schema)'")
    assert sorted(row.nspname for row in found) == sorted((*dumps.SCHEMAS, "public"))
