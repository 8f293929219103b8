"""Deliverers of webhooks are killed in the middle of their work: nothing is lost, what comes twice comes with its id.

`python -m tests.chaos.webhooks` plays 20,000 deliveries with 50 SIGKILLs on a durable PostgreSQL of its own; the last
line is the verdict as JSON. A short version is in the default tests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import sys
import time
from multiprocessing.process import BaseProcess
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.ground.webhook_sink import reach_of, sink
from mautolib import webhooks
from mautolib.db.engine import connect
from mautolib.errors import TransientError
from mautolib.settings import Settings
from mautolib.webhooks import delivery
from tests.chaos.ground import ground

LEASE_SECONDS = 4.0
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.chaos.webhooks"])


def work(settings: Settings, port: int) -> None:
    """The life of a deliverer: run after run, until it is killed."""
    # Small steps, so that many deaths find work to interrupt.
    delivery.ENOUGH = 32  # type: ignore[misc]
    engine = connect(settings.database_url)
    while True:
        with contextlib.suppress(TransientError):
            delivery.run(engine, settings, reach=reach_of(port), lease_seconds=LEASE_SECONDS, budget_seconds=3.0)
        time.sleep(0.05)


def play(
    engine: Engine, settings: Settings, *, deliveries: int, kills: int, seed: int = 7, workers: int = 2,
    endpoints: int = 4,
) -> dict[str, Any]:  # fmt: skip
    """Deliver to a sink while deliverers are killed; returns the verdict."""
    chance = random.Random(seed)
    with sink() as receiver:
        with engine.begin() as tx:
            tx.execute(
                text("insert into webhook_endpoints (url, secret_encrypted) "
                     "select :url || n, :secret from generate_series(1, :n) as n"),
                {"url": receiver.url("/"), "secret": webhooks.seal_secret(settings, "secret"), "n": endpoints},
            )  # fmt: skip
        _tell(engine, deliveries // endpoints)
        args = (settings, receiver.port)
        crew: list[BaseProcess] = []
        for _ in range(workers):
            crew.append(_FORKS.Process(target=work, args=args, daemon=True))
            crew[-1].start()
        done, left = 0, deliveries
        while done < kills and left:
            left = _progress(engine, deliveries, left)
            time.sleep(chance.uniform(0.0, 0.1))
            place = chance.randrange(workers)
            crew[place].kill()
            crew[place].join()
            done += 1
            crew[place] = _FORKS.Process(target=work, args=args, daemon=True)
            crew[place].start()
        gives_up_at = time.monotonic() + 600
        while _left(engine, deliveries) and time.monotonic() < gives_up_at:
            time.sleep(0.2)
        for one in crew:
            one.kill()
            one.join()
        account = receiver.end()
    with engine.connect() as tx:
        ids = set(tx.scalars(text("select webhook_message_id from webhook_deliveries")))
        counted = tx.execute(text("select status, count(*) from webhook_deliveries group by 1"))
        states = {row[0]: row[1] for row in counted}
        logged = tx.scalar(text("select count(*) from webhook_attempts where response_status = 204"))
    return {
        "deliveries": deliveries, "kills": done, "lost": len(ids - account.ids.keys()) + deliveries - len(ids),
        "strangers": len(account.ids.keys() - ids), "came_again_with_the_same_id": _again(account.ids),
        "states": states, "logged": logged,
    }  # fmt: skip


def _again(ids: dict[str, int]) -> int:
    """How many requests carried an id that had come before."""
    return sum(count - 1 for count in ids.values())


def is_clean(verdict: dict[str, Any]) -> bool:
    """Whether nothing is lost, nothing made up, and everything is done and logged once."""
    wanted = verdict["deliveries"]
    return (
        not verdict["lost"] and not verdict["strangers"] and verdict["states"] == {"succeeded": wanted}
        and verdict["logged"] == wanted
    )  # fmt: skip


def _tell(engine: Engine, facts: int) -> None:
    with engine.begin() as tx:
        tx.execute(
            text("insert into outbox (event_name, occurred_at, data, created_at) select 'email.opened', now(), "
                 "jsonb_build_object('message_id', cast(n as text)), clock_timestamp() "
                 "from generate_series(1, :n) as n"),
            {"n": facts},
        )  # fmt: skip


def _left(engine: Engine, deliveries: int) -> int:
    with engine.connect() as tx:
        ended = tx.scalar(text("select count(*) from webhook_deliveries where status <> 'pending'"))
    return deliveries - int(ended or 0)


def _progress(engine: Engine, deliveries: int, before: int) -> int:
    """How much is left once it has become less: who is killed is at work."""
    gives_up_at = time.monotonic() + 30
    while (left := _left(engine, deliveries)) == before and time.monotonic() < gives_up_at:
        time.sleep(0.01)
    return left


def main() -> int:
    """Play the long version."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.webhooks", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with ground() as place:
        verdict = play(
            place.engine, place.settings, deliveries=given.deliveries, kills=given.kills, seed=given.seed
        )
    sys.stdout.write(json.dumps(verdict) + "\n")
    return 0 if is_clean(verdict) and verdict["kills"] == given.kills else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main())
