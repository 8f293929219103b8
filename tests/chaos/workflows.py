"""Workers that advance workflows are killed again and again, while people enter and the workflow is edited.

The command plays at full size and prints JSON; exit code 0 only if every (enrollment, step, visit) took effect once and
nobody was lost: `python -m tests.chaos.workflows`. A short game is among the default tests.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, text

from mautolib import dispatch, workflows
from mautolib.db.engine import connect
from mautolib.db.localpg import temporary_cluster
from mautolib.db.migrate import migrate
from mautolib.events.append import NewEvent, append
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow

SETTINGS = Settings(default_from_email="news@shop.example")
_SPAWN = multiprocessing.get_context("spawn")


def steps(edit: int) -> list[dict[str, Any]]:
    """Eight steps of every kind; the last one tells which edit somebody is on."""
    return [
        {"action": "tag", "tag_name": "first"},
        {"type": "delay", "minutes": 0.002},
        {"type": "condition", "field": "country", "value": "DE", "then": [{"action": "tag", "tag_name": "german"}]},
        {"action": "send_email", "subject": "Hello", "body": "<p>Hello</p>"},
        {"type": "wait_for_event", "event_type": "answer", "timeout_hours": 1000},
        {"type": "delay", "minutes": 0.001},
        {"action": "tag", "tag_name": f"edit {edit}"},
    ]


def work(url: str, seed: int) -> None:
    """Dispatch and advance for ever, in small batches; somebody will end it."""
    engine, chance = connect(url), random.Random(seed)
    while True:
        now = datetime.now(UTC)
        dispatch.run(engine, SETTINGS, now=now, batch_size=chance.choice([20, 200, 1000]), max_batches=3)
        workflows.advance(engine, SETTINGS, now=now, batch_size=chance.choice([7, 50, 400]))
        time.sleep(0.01)


class _Workers:
    def __init__(self, url: str, number: int, chance: random.Random) -> None:
        self.url, self.chance = url, chance
        self.players = [self._start() for _ in range(number)]

    def _start(self) -> Any:
        player = _SPAWN.Process(target=work, args=(self.url, self.chance.randrange(10**9)), daemon=True)
        player.start()
        return player

    def kill_one(self) -> None:
        number = self.chance.randrange(len(self.players))
        self.players[number].kill()
        self.players[number].join()
        self.players[number] = self._start()

    def clear(self) -> None:
        for player in self.players:
            player.kill()
            player.join()


def _tell(engine: Engine, kind: str, people: Sequence[int]) -> None:
    for start in range(0, len(people), 200):
        now = datetime.now(UTC)
        with engine.begin() as tx:
            append(tx, [NewEvent(event_type=kind, contact_id=person, occurred_at=now, source="chaos",
                                 external_id=f"{kind}:{person}")
                        for person in people[start : start + 200]], now=now)  # fmt: skip


def _edit(engine: Engine, workflow_id: int, number: int, together: threading.Barrier) -> None:
    together.wait()
    with engine.begin() as tx:
        workflows.update(tx, workflow_id, {"steps": steps(number)}, actor="chaos", now=datetime.now(UTC))


def _edit_at_once(engine: Engine, workflow_id: int, edits: int) -> None:
    together = threading.Barrier(edits)
    threads = [threading.Thread(target=_edit, args=(engine, workflow_id, n + 1, together)) for n in range(edits)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def play(people: int, kills: int, edits: int, workers: int, seed: int) -> dict[str, Any]:
    """One game; returns what happened and what is wrong."""
    chance = random.Random(seed)
    with temporary_cluster() as cluster:
        cluster.create_database("chaos")
        engine = connect(cluster.url("chaos"), pool_size=edits + 2)
        migrate(engine)
        with engine.begin() as tx:
            tx.execute(text("insert into contacts (email, email_key, country) select 'p' || n || '@shop.example', "
                            "'p' || n || '@shop.example', (array['DE', 'FR'])[1 + n % 2] "
                            "from generate_series(1, :n) as people (n)"), {"n": people})  # fmt: skip
            new = NewWorkflow(name="Chaos", trigger_type="event", trigger_config={"event_type": "join"}, active=True,
                              steps=steps(0))  # fmt: skip
            workflow_id = workflows.create(tx, new, actor="chaos", now=datetime.now(UTC)).workflow_id
        crowd = list(range(1, people + 1))
        chance.shuffle(crowd)
        half = people // 2
        players = _Workers(cluster.url("chaos"), workers, chance)
        try:
            _tell(engine, "join", crowd[:half])
            done = _disturb(players, kills // 2, chance)
            _wait(engine, "select count(*) from enrollments", half)
            editing = threading.Thread(target=_edit_at_once, args=(engine, workflow_id, edits))
            editing.start()
            _tell(engine, "join", crowd[half:])
            editing.join()
            done += _disturb(players, kills // 4, chance)
            _wait(engine, "select count(*) from enrollments where step_path = '4' and status = 'waiting'", people)
            _tell(engine, "answer", crowd)
            done += _disturb(players, kills - kills // 2 - kills // 4, chance)
            _wait(engine, "select count(*) from enrollments where status = 'completed'", people)
        finally:
            players.clear()
        told = {"people": people, "kills": done, "edits": edits, "workers": workers, **_verdict(engine, people, edits)}
        engine.dispose()
    return told


def _disturb(players: _Workers, kills: int, chance: random.Random) -> int:
    for _ in range(kills):
        time.sleep(chance.uniform(0.2, 1.2))
        players.kill_one()
    return kills


def _wait(engine: Engine, query: str, wanted: int) -> None:
    end = time.monotonic() + 60 + wanted / 20
    while _ask(engine, query) != wanted:
        if time.monotonic() > end:
            return
        time.sleep(0.05)


def _ask(engine: Engine, query: str) -> int:
    with engine.connect() as tx:
        return int(tx.execute(text(query)).scalar_one())


#: What has to be nothing, or what is wrong.
_WRONG = {
    "enrollments that did not complete": "select count(*) from enrollments where status <> 'completed'",
    "steps that were not taken once": """
        select count(*) from (
            select enrollments.enrollment_id
            from enrollments
            inner join contacts using (contact_id)
            left join workflow_logs using (enrollment_id)
            group by enrollments.enrollment_id, contacts.country
            having array_agg(workflow_logs.step_path order by workflow_logs.step_path) <> case contacts.country
                when 'DE' then array['0', '1', '2', '2.then.0', '3', '4', '5', '6']
                else array['0', '1', '2', '3', '4', '5', '6'] end
        ) as wrong""",
    "failed steps": "select count(*) from workflow_logs where status <> 'completed'",
    "people with another number of mails than one": """
        select count(*) from (
            select contacts.contact_id from contacts left join messages using (contact_id)
            group by contacts.contact_id having count(messages.message_id) <> 1) as wrong""",
    "tags told other than once": """
        select count(*) from (
            select contact_tags.contact_id, contact_tags.tag_id, count(events.event_id)
            from contact_tags
            left join events on events.contact_id = contact_tags.contact_id and events.event_type = 'tag_added'
                and events.properties ->> 'tag_id' = contact_tags.tag_id::text
            group by 1, 2 having count(events.event_id) <> 1) as wrong""",
    "people tagged by another version than theirs": """
        select count(*) from enrollments
        inner join workflow_versions using (workflow_id, version)
        where not exists (
            select from contact_tags inner join tags using (tag_id)
            where contact_tags.contact_id = enrollments.contact_id and tags.name = steps -> 6 ->> 'tag_name')""",
    "facts told other than once": """
        select count(*) from (
            select event_name, data ->> 'enrollment_id' from outbox
            where event_name in ('workflow.triggered', 'workflow.completed')
            group by 1, 2 having count(*) <> 1) as wrong""",
    "events left": "select count(*) from event_pending where depth = 0",
}  # fmt: skip


def _verdict(engine: Engine, people: int, edits: int) -> dict[str, Any]:
    wrong = {name: _ask(engine, query) for name, query in _WRONG.items()}
    wrong["people without an enrollment"] = people - _ask(engine, "select count(distinct contact_id) from enrollments")
    wrong["enrollments too many"] = _ask(engine, "select count(*) from enrollments") - people
    wrong["edits that made no version"] = edits + 1 - _ask(engine, "select count(*) from workflow_versions")
    versions = _ask(engine, "select count(distinct version) from enrollments")
    logs = _ask(engine, "select count(*) from workflow_logs")
    return {"versions_in_use": versions, "logs": logs, "wrong": {name: count for name, count in wrong.items() if count}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print what happened as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.workflows", description=__doc__)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs at random moments (100)")
    parser.add_argument("--edits", type=int, default=20, help="edits at once (20)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=20261123)
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    told = play(given.people, given.kills, given.edits, given.workers, given.seed)
    told["seconds"] = round(time.monotonic() - begun, 1)
    told["is_clean"] = not told["wrong"]
    print(json.dumps(told, indent=1))
    return 0 if told["is_clean"] else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main())
