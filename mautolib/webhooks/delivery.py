"""The run: facts become deliveries, due deliveries are attempted, what came of them is recorded.

Promise: safe to run in any number of copies and to kill at any byte: what a dead run held is due again when its lease
ends, under the same message id. No endpoint waits for another one's receiver. Called by the DAG `webhook_delivery` and
by `python -m mautolib.webhooks.delivery`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import aiohttp
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError

from mautolib import log
from mautolib.db.engine import connect, is_unavailable
from mautolib.db.statements import statement
from mautolib.errors import MautoError, ProviderUnavailable, TransientError
from mautolib.settings import Settings
from mautolib.webhooks.attempting import TOTAL_SECONDS, attempt
from mautolib.webhooks.connecting import Gate, Reach, open_session
from mautolib.webhooks.desk import Desk, Turn
from mautolib.webhooks.lanes import Held, Lane, Lanes
from mautolib.webhooks.model import Outcome
from mautolib.webhooks.recording import judge, release

_LOG = logging.getLogger(__name__)
#: Longer than what a run holds of an endpoint may take to be begun, and the last of it to end.
LEASE_SECONDS: Final = 120.0
#: So many outcomes are worth a turn at the desk; fewer wait this long for company.
ENOUGH: Final = 256
PAUSE_SECONDS: Final = 0.05
#: With all attempts under way hanging, new work is looked for this often.
LOOK_SECONDS: Final = 0.25
#: How long a run waits for a database that went away.
PATIENCE_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What a run did.

    Args:
        facts, made: facts looked at, and deliveries made of them.
        succeeded, failed, dead: attempts by what they came to; failed ones are repeated.
        disabled: endpoints that were disabled, with the reason.
    """

    facts: int = 0
    made: int = 0
    succeeded: int = 0
    failed: int = 0
    dead: int = 0
    disabled: Mapping[int, str] = field(default_factory=dict)


def run(
    engine: Engine, settings: Settings, *, now: datetime | None = None, endpoint_id: int | None = None,
    budget_seconds: float = 60.0, reach: Reach | None = None, lease_seconds: float = LEASE_SECONDS,
) -> Delivered:  # fmt: skip
    """Deliver what is due, until nothing is or the time is up (then attempts under way are waited for, 20 s at most).

    Must not be called on a running event loop.

    Args:
        now: the present moment; None: the database's clock.
        endpoint_id: deliver only to this endpoint.
        reach: whom deliveries may reach; None: as the settings say.
    Raises:
        ProviderUnavailable: the database went away; nothing is lost.
    """
    begun = time.monotonic()
    if now is None:
        with engine.connect() as tx:
            now = tx.execute(select(func.clock_timestamp())).scalar_one()
    desk = Desk(engine=engine, settings=settings, lease=timedelta(seconds=lease_seconds), endpoint_id=endpoint_id)
    at_work = _Run(
        desk, Gate(reach or Reach.of(settings)), start=now, begun=begun, ends_at=begun + budget_seconds,
        hold_seconds=max(lease_seconds / 2, lease_seconds - TOTAL_SECONDS - 5.0),
    )  # fmt: skip
    with ThreadPoolExecutor(1, thread_name_prefix="webhook-desk") as thread:
        asyncio.run(at_work.work(thread))
    if time.monotonic() >= at_work.ends_at and is_anything_to_do(engine, at_work.now()):
        with engine.begin() as tx:
            tx.execute(statement("webhooks.wake"))
    done = Delivered(
        facts=at_work.counts["facts"], made=at_work.counts["made"], succeeded=at_work.counts["succeeded"],
        failed=at_work.counts["failed"], dead=at_work.counts["dead"], disabled=at_work.disabled,
    )  # fmt: skip
    _LOG.info("webhooks: %s", done)
    return done


def is_anything_to_do(engine: Engine, now: datetime) -> bool:
    """Whether a fact waits to be told or a delivery is due."""
    with engine.connect() as tx:
        due_at = tx.scalar(statement("queues.webhooks_due"))
    return due_at is not None and due_at <= now


class _Run:
    """One run: lanes, the session, and what has ended but is not recorded."""

    def __init__(
        self, desk: Desk, gate: Gate, *, start: datetime, begun: float, ends_at: float, hold_seconds: float
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.disabled: dict[int, str] = {}
        self._desk, self._gate = desk, gate
        self._start, self._begun, self.ends_at, self._hold = start, begun, ends_at, hold_seconds
        self._lanes = Lanes()
        self._ended: list[Outcome] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> datetime:
        """The run's clock: the moment it was begun at, and what has passed since."""
        return self._start + timedelta(seconds=time.monotonic() - self._begun)

    async def work(self, thread: ThreadPoolExecutor) -> None:
        """Turn after turn at the desk, attempts in between."""
        self._wake = asyncio.Event()
        async with open_session(self._gate) as session:
            self._session: aiohttp.ClientSession = session
            while True:
                is_over = time.monotonic() >= self.ends_at
                if is_over:
                    self._ended += [release(delivery, self.now()) for delivery in self._lanes.drain()]
                turn = await self._turn(thread, claims=not is_over)
                self._take(turn)
                if not self._ended and not self._lanes.held and (is_over or not (turn.claimed or turn.facts)):
                    return
                await self._pause()

    async def _turn(self, thread: ThreadPoolExecutor, *, claims: bool) -> Turn:
        """One turn at the desk, again and again while the database is away."""
        outcomes, self._ended = self._ended, []
        self._wake.clear()
        rooms = {endpoint_id: lane.room for endpoint_id, lane in self._lanes.by_endpoint.items()}
        gives_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    thread, lambda: self._desk.turn(outcomes, rooms, now=self.now(), claims=claims)
                )
            except DBAPIError as error:
                # Recorded or not: the attempt ids decide when it is written again.
                if not is_unavailable(error):
                    raise
                if time.monotonic() > gives_up_at:
                    raise ProviderUnavailable("The database went away") from error
                _LOG.warning("the database is away: %s", type(error.orig).__name__)
            await asyncio.sleep(0.5)

    def _take(self, turn: Turn) -> None:
        self.counts.update({"facts": turn.facts, "made": turn.made, **turn.recorded.counts})
        self.disabled.update(turn.recorded.disabled)
        begin_by = time.monotonic() + self._hold
        for lane in self._lanes.by_endpoint.values():
            lane.widen()
        for receiver in turn.receivers.values():
            self._lanes.add(receiver)
        for delivery in turn.claimed:
            # An endpoint deleted in this very moment took its deliveries along.
            if delivery.endpoint_id in turn.receivers:
                self._lanes.by_endpoint[delivery.endpoint_id].waiting.append(Held(delivery, begin_by))
        self._begin()

    def _begin(self) -> None:
        for lane in self._lanes.startable():
            self._begin_of(lane)

    def _begin_of(self, lane: Lane) -> None:
        while self._lanes.begin(lane):
            task = asyncio.create_task(self._carry(lane, lane.is_failing))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, lane: Lane, was_failing: bool) -> None:
        """Attempt deliveries of a lane, one after the other, while the lane may have so many under way."""
        try:
            while lane.waiting:
                held = lane.waiting.popleft()
                if time.monotonic() > held.begin_by:
                    self._ended.append(release(held.delivery, self.now()))
                    continue
                reply = await attempt(
                    self._session, self._gate, lane.receiver, held.delivery, self.now(),
                    keeps_open=self._lanes.keeps_open(lane),
                )  # fmt: skip
                self._ended.append(judge(held.delivery, reply, self.now()))
                lane.note(reply.is_success)
                if len(self._ended) >= ENOUGH or not lane.waiting:
                    self._wake.set()
                if lane.under_way > lane.at_once or lane.is_failing != was_failing:
                    break
                self._begin_of(lane)
        finally:
            self._lanes.end(lane, was_failing=was_failing)
            self._wake.set()
        self._begin()

    async def _pause(self) -> None:
        """Until enough has ended, or a little while after something has."""
        if not self._ended:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                return
        if len(self._ended) < ENOUGH and self._lanes.held:
            await asyncio.sleep(PAUSE_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: one run outside Airflow."""
    parser = argparse.ArgumentParser(
        prog="python -m mautolib.webhooks.delivery", description="Deliver the webhooks that are due."
    )
    parser.add_argument("--endpoint-id", type=int, help="deliver only to this endpoint")
    parser.add_argument("--budget-seconds", type=float, default=60.0, help="begin nothing after this long (60)")
    given = parser.parse_args(arguments)
    try:
        settings = Settings.from_env()
        log.setup(settings.log_level, settings.log_format)
        engine = connect(settings.url_for("worker"), application_name="mauto-webhooks")
        done = run(engine, settings, endpoint_id=given.endpoint_id, budget_seconds=given.budget_seconds)
    except TransientError as error:
        sys.stderr.write(f"{error} (the deliveries stay in line)\n")
        return 75  # EX_TEMPFAIL: try again later
    except MautoError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    shown = {"told": done.made, "succeeded": done.succeeded, "failed": done.failed, "dead": done.dead}
    sys.stdout.write(", ".join(f"{name} {number}" for name, number in shown.items()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
