"""Automation rules under parallel workers and kills: limits stay exact, and nothing runs twice or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib import automations, dispatch
from mautolib.automations import NewRule
from mautolib.events.append import NewEvent, append_many
from mautolib.settings import Settings

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
POINT = {"type": "update_score", "config": {"points": 1}}
TAG = {"type": "add_tag", "config": {"tag_name": "ran"}}
WORKER = """
import sys
from datetime import datetime
from mautolib import automations, dispatch
from mautolib.db.engine import connect
from mautolib.settings import Settings
print("ready", flush=True)
engine, now = connect(sys.argv[1]), datetime.fromisoformat(sys.argv[2])
if sys.argv[3] == "dispatch":
    dispatch.run(engine, Settings(), now=now, batch_size=20)
else:
    automations.resume(engine, Settings(), now=now, batch_size=10)
"""


def add_people(engine: Engine, count: int) -> list[int]:
    with engine.begin() as tx:
        return list(tx.scalars(
            text("insert into contacts (email, email_key) select n || '@shop.example', n || '@shop.example'"
                 " from generate_series(1, :count) as numbers (n) returning contact_id"), {"count": count},
        ))  # fmt: skip


def add_rule(engine: Engine, **fields: Any) -> int:
    usual: dict[str, Any] = {"name": "r", "trigger_type": "ping", "actions": [TAG]}
    with engine.begin() as tx:
        return automations.create(tx, NewRule(**{**usual, **fields}), actor="test", now=NOON).rule_id


def tell(engine: Engine, people: list[int], times: int) -> None:
    with engine.begin() as tx:
        append_many(tx, [
            NewEvent(event_type="ping", contact_id=person, occurred_at=NOON - timedelta(seconds=number), source="shop")
            for person in people for number in range(times)
        ], now=NOON, effects=True)  # fmt: skip


def statuses(engine: Engine, rule_id: int) -> dict[str, int]:
    with engine.connect() as tx:
        rows = tx.execute(text("select status, count(*) as log_count from automation_logs where rule_id = :id"
                               " group by status"),
                          {"id": rule_id})  # fmt: skip
        return {row.status: row.log_count for row in rows}


def test_parallel_buckets_never_pass_a_limit(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 100)
    limited = add_rule(fresh_engine, max_executions=37)
    cooling = add_rule(fresh_engine, cooldown_minutes=5, priority=1, actions=[])
    both = add_rule(fresh_engine, cooldown_minutes=5, max_executions=50, actions=[])
    tell(fresh_engine, people, 3)

    def work(number: int) -> None:
        if number % 4:
            dispatch.run(fresh_engine, settings, now=NOON, batch_size=7)
        else:
            with fresh_engine.begin() as tx:
                automations.fire(tx, settings, "ping", contact_id=people[number], data={}, now=NOON)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(20)))
    while dispatch.run(fresh_engine, settings, now=NOON).events:
        pass
    triggered = 300 + 5
    assert statuses(fresh_engine, limited) == {"success": 37, "skipped": triggered - 37}
    assert statuses(fresh_engine, cooling) == {"success": 100, "skipped": triggered - 100}, "once a contact"
    assert statuses(fresh_engine, both) == {"success": 50, "skipped": triggered - 50}
    with fresh_engine.connect() as tx:
        twice = text("select count(*) from (select from automation_logs where status = 'success' and rule_id = :id"
                     " group by contact_id having count(*) > 1) as found")  # fmt: skip
        assert [tx.scalar(twice, {"id": one}) for one in (cooling, both)] == [0, 0]
        totals = tx.execute(text("select rule_id, executions from automation_totals order by 1")).all()
        assert [tuple(row) for row in totals] == [(limited, 37), (cooling, 100), (both, 50)]


def kill(url: str, engine: Engine, now: datetime, what: str, left: str, until: int) -> None:
    """Let a worker run until at most so many are left, and kill it."""
    command = [sys.executable, "-c", WORKER, url, now.isoformat(), what]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 60
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
        while tx.scalar(text(left)) > until:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()


@pytest.mark.thorough
def test_killed_workers_lose_and_repeat_nothing(
    fresh_database_url: str, fresh_engine: Engine, settings: Settings
) -> None:
    people = add_people(fresh_engine, 60)
    rule_id = add_rule(fresh_engine, actions=[POINT, {"type": "wait_delay", "config": {"minutes": 5}}, POINT])
    tell(fresh_engine, people, 5)
    queue = "select coalesce(sum(event_count), 0) from event_pending where bucket < 64"
    for until in (250, 150):
        kill(fresh_database_url, fresh_engine, NOON, "dispatch", queue, until)
    while dispatch.run(fresh_engine, settings, now=NOON).events:
        pass
    assert statuses(fresh_engine, rule_id) == {"waiting": 300}
    later = NOON + timedelta(minutes=5)
    for until in (250, 150):
        kill(fresh_database_url, fresh_engine, later, "resume", "select count(*) from automation_waits", until)
    # The server needs a moment to see that the last worker is dead: until then its runs are held, and passed over.
    deadline = time.monotonic() + 30
    automations.resume(fresh_engine, settings, now=later)
    while "waiting" in statuses(fresh_engine, rule_id) and time.monotonic() < deadline:
        time.sleep(0.05)
        automations.resume(fresh_engine, settings, now=later)
    assert statuses(fresh_engine, rule_id) == {"success": 300}
    with fresh_engine.connect() as tx:
        assert tx.scalar(text("select count(distinct event_id) from automation_logs")) == 300
        assert tx.execute(text("select min(n), max(n) from (select count(*) as n from score_awards group by contact_id)"
                               " as given")).one() == (10, 10)  # fmt: skip
        assert tx.scalar(text("select count(*) from automation_waits")) == 0


def test_an_action_that_fails_undoes_itself_alone(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 5)
    with fresh_engine.begin() as tx:
        segment = tx.execute(text("insert into segments (name) values ('Soon gone') returning segment_id")).scalar_one()
    add = {"type": "add_to_segment", "config": {"segment_id": str(segment)}}
    rule_id = add_rule(fresh_engine, actions=[POINT, add, TAG])
    fine = add_rule(fresh_engine, actions=[POINT], priority=5)
    with fresh_engine.begin() as tx:
        tx.execute(text("delete from segments"))
    tell(fresh_engine, people, 2)
    assert dispatch.run(fresh_engine, settings, now=NOON).rules == 20
    assert (statuses(fresh_engine, rule_id), statuses(fresh_engine, fine)) == ({"failed": 10}, {"success": 10})
    with fresh_engine.connect() as tx:
        log = tx.execute(text("select error, actions from automation_logs where rule_id = :id limit 1"),
                         {"id": rule_id}).one()  # fmt: skip
        assert log.error == "Segment not found"
        assert [one["success"] for one in log.actions] == [True, False, True]
        assert tx.scalar(text("select count(*) from score_awards")) == 20
        assert tx.scalar(text("select count(*) from contact_tags")) == 5
