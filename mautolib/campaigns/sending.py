"""The pump: claims due messages of every kind, has couriers carry them, records what became of them.

Promise: safe to run in any number of copies and to kill at any byte. One transaction records a group and claims the
next; what a dead pump leaves is settled by the next one from its journal. A mail server or database that is away
puts messages back without using up an attempt, and the pump ends by raising what was wrong. Called by the DAG
`campaign_send` and by `python -m mautolib.campaigns.sending`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from mautolib import log
from mautolib.campaigns import control, experiment_steps, finishing, planning, totals
from mautolib.campaigns.courier import Courier, Shift, finished
from mautolib.campaigns.host_backoff import HostBackoff
from mautolib.campaigns.pacing import Turnstile, give_back
from mautolib.campaigns.recording import recover, write_down
from mautolib.channels.protocol import Channel
from mautolib.channels.registry import open_channel
from mautolib.db.engine import connect, is_unavailable
from mautolib.db.statements import statement
from mautolib.errors import Conflict, InvalidInput, MautoError, NoRoom, NotFound, ProviderUnavailable, TransientError
from mautolib.events.links import LinkSigner
from mautolib.ledger import claim, installation
from mautolib.ledger.identity import message_identity
from mautolib.ledger.journal import Journal, journal_folder
from mautolib.ledger.model import Outcome, Verdict
from mautolib.ledger.settle import expire_leases
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
#: How long a turn waits for a database that went away, and the pauses in between.
PATIENCE_SECONDS: Final = 60.0
TOTALS_SECONDS: Final = 10.0
MAX_GROUP: Final = 500
#: So many new objects before the garbage collector looks for rings: about one group's.
GARBAGE: Final = 20_000
#: Others are deciding about the same people: they are done in a moment.
CONTENTION_SECONDS: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class PumpResult:
    """What one pump did: messages by outcome (`skipped` too), and what somebody has to look at."""

    counts: Mapping[str, int]
    problems: tuple[str, ...] = ()


def pump(
    engine: Engine,
    settings: Settings,
    *,
    shard: int = 0,
    shards: int = 1,
    budget_seconds: float = 60.0,
    group_size: int = 50,
    urgent_only: bool = False,
    now: datetime | None = None,
    open_way: Callable[[Settings], Channel] = open_channel,
) -> PumpResult:
    """Hand over what is due, until nothing is or the time is up.

    Args:
        shard, shards: take contacts whose id modulo `shards` is `shard`.
        group_size: messages per transaction; in doubt after a crash is at most one per connection.
        urgent_only: leave campaigns and workflows to others, and end when nothing else is due.
        now: the present moment; None: the database's clock.
        open_way: makes the channel.
    Raises:
        TransientError, PermanentError: the mail server or a setting keeps everything back; nothing is lost.
    """
    if not (0 <= shard < shards) or not (1 <= group_size <= MAX_GROUP):
        raise InvalidInput(f"A pump needs 0 <= shard < shards and a group of 1 to {MAX_GROUP}")
    begun_at = time.monotonic()
    mark = installation.Mark(journal_folder(settings).parent)
    with engine.begin() as tx:
        start = now or tx.execute(select(func.clock_timestamp())).scalar_one()
        expire_leases(tx)
        here = installation.check(tx, mark, now=start)
    recover(engine, settings, start)
    if not here.sending_enabled:
        _LOG.warning("sending is off: %s", here.reason)
        return PumpResult(counts={}, problems=(f"sending is off: {here.reason}",))
    host = _host(engine, settings, start)
    shift = Shift(
        engine=engine,
        settings=settings,
        signer=LinkSigner.from_settings(settings),
        journal=Journal.open(journal_folder(settings)),
        ends_at=begun_at + budget_seconds,
        host=host,
        clock=lambda: start + timedelta(seconds=time.monotonic() - begun_at),
    )
    run = _Run(
        shift, note=lambda attempt_id: mark.raise_to(here.installation_id, attempt_id), shard=shard, shards=shards,
        group_size=group_size, urgent_only=urgent_only,
    )  # fmt: skip
    return _carried_out(run, open_way)


def _carried_out(run: _Run, open_way: Callable[[Settings], Channel]) -> PumpResult:
    shift, connections = run.shift, max(1, run.shift.settings.smtp_connections)
    with _kept_until_settled(shift.journal), _quiet_collector():
        error = run.work([Courier(shift, open_way(shift.settings)) for _ in range(connections)])
    result = PumpResult(counts=dict(run.counts), problems=tuple(sorted(shift.problems)))
    _LOG.info("shard %s/%s: %s", run.shard, run.shards, result.counts)
    for problem in result.problems:
        _LOG.error("messages wait: %s", problem)
    if error is not None:
        raise error
    return result


def is_anything_to_do(engine: Engine, now: datetime) -> bool:
    """Whether a campaign is to be planned or closed, a message to be handed over, or a lease to be ended."""
    with engine.connect() as tx:
        due_at = tx.scalar(statement("queues.messages_due"))
    return due_at is not None and due_at <= now


def _host(engine: Engine, settings: Settings, now: datetime) -> HostBackoff:
    """What is known of the mail server; raises if it is left alone now, and anything is due."""
    host = HostBackoff.of(settings)
    if host.is_waiting(now):
        with engine.connect() as tx:
            if tx.scalar(statement("ledger.is_due"), {"now": now}):
                raise ProviderUnavailable(f"The mail server could not be reached {host.failures} times in a row; it is "
                                          f"tried again at {host.retry_at:%Y-%m-%d %H:%M:%S} UTC")  # fmt: skip
    return host


@contextlib.contextmanager
def _quiet_collector() -> Iterator[None]:
    """Spare the garbage collector what was there before, and let it look at the rest rarely.

    Nothing of the former is dropped while mail goes out, and a group makes hardly any rings.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GARBAGE, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextlib.contextmanager
def _kept_until_settled(journal: Journal) -> Iterator[None]:
    """Remove the journal if the block ends well; if it does not, the next pump reads it."""
    is_settled = False
    try:
        yield
        is_settled = True
    finally:
        journal.close(is_settled=is_settled)


@dataclass
class _Run:
    """One pump at work."""

    shift: Shift
    #: Told each attempt that is committed, before anything of it is handed over.
    note: Callable[[int], None]
    shard: int
    shards: int
    group_size: int
    urgent_only: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._turnstile = Turnstile(
            self.shift.settings, message_identity(self.shift.settings), self.group_size, self.shard, self.shards,
            urgent_only=self.urgent_only,
        )  # fmt: skip
        #: Under which limits the messages in hand were counted.
        self._tallied: Mapping[int, Sequence[tuple[int, str]]] = {}
        self._totals_at = time.monotonic()
        self._claimed_at: datetime | None = None

    def work(self, couriers: Sequence[Courier]) -> MautoError | None:
        """Group after group; returns what closed the way, if anything did."""
        outcomes: list[Outcome] = []
        error: MautoError | None = None
        try:
            with ThreadPoolExecutor(len(couriers)) as threads:
                while True:
                    goes_on = error is None and time.monotonic() < self.shift.ends_at
                    asked_at, asked = time.monotonic(), self.shift.clock()
                    try:
                        group = self._turn(outcomes, goes_on, asked)
                    except NoRoom as full:
                        # Nothing further is claimed; what was handed over is told to the database all the same.
                        self._turn(outcomes, False, asked)
                        return error or full
                    if group is None or group.is_empty:
                        return error
                    self.counts.update({"skipped": sum(group.skipped.values())} if group.skipped else {})
                    if group.is_contended:
                        time.sleep(CONTENTION_SECONDS)
                    outcomes = self._carry(threads, couriers, group, asked_at) if group.messages else []
                    error = next((courier.error for courier in couriers if courier.error is not None), None)
                    if error is None and any(outcome.result.code is not None for outcome in outcomes):
                        self.shift.host.answered()
        finally:
            for courier in couriers:
                courier.close()

    def _carry(
        self, threads: ThreadPoolExecutor, couriers: Sequence[Courier], group: claim.Group, asked_at: float
    ) -> list[Outcome]:
        number = len(couriers)
        takes_turns = number > 1 and all(courier.takes_turns for courier in couriers)
        works = [
            courier.carry(group.attempt_id, group.messages[n::number], asked_at, is_alone=not takes_turns)
            for n, courier in enumerate(couriers)
        ]
        if number == 1 or takes_turns:
            return finished(works)
        jobs = [threads.submit(finished, [work]) for work in works]
        return [outcome for job in jobs for outcome in job.result()]

    def _turn(self, outcomes: Sequence[Outcome], goes_on: bool, asked: datetime) -> claim.Group | None:
        """Record the last group and claim the next, in one transaction; None when it was the last.

        A commit whose answer was lost is looked up by its attempt before anything is done again.
        """
        if outcomes:
            with contextlib.nullcontext() if goes_on else contextlib.suppress(NoRoom):
                self.shift.journal.sync()
        attempt_id = 0
        waits_until = time.monotonic() + PATIENCE_SECONDS
        pause = 0.1
        while True:
            try:
                with self.shift.engine.begin() as tx:
                    if attempt_id and (held := claim.held(tx, attempt_id)):
                        break
                    self._record(tx, outcomes, asked)
                    if not goes_on:
                        group = None
                    else:
                        attempt_id = attempt_id or self._new_attempt(tx)
                        group = self._turnstile.next_group(tx, attempt_id, asked)
                self._recorded(outcomes, asked, {} if group is None else group.tallied)
                if group is not None and group.messages:
                    self.note(attempt_id)
                return group
            except DBAPIError as error:
                if not _may_pass(error) or time.monotonic() >= waits_until:
                    raise ProviderUnavailable("The database cannot be reached; the journal keeps the rest") from error
                _LOG.warning("the database does not answer, trying again: %s", type(error.orig).__name__)
                time.sleep(pause)
                pause = min(5.0, pause * 2)
        self._recorded(outcomes, asked, {})
        self.note(attempt_id)
        return claim.Group(attempt_id=attempt_id, messages=held)

    def _new_attempt(self, tx: Connection) -> int:
        attempt_id = claim.new_attempt(tx)
        self.shift.journal.attempt(attempt_id)
        return attempt_id

    def _record(self, tx: Connection, outcomes: Sequence[Outcome], now: datetime) -> None:
        write_down(tx, self.shift.settings, outcomes, now=now, claimed_at=self._claimed_at)
        for campaign_id, reason in sorted(self.shift.stopped.items()):
            # Somebody else may have stopped it already.
            with contextlib.suppress(Conflict, NotFound):
                control.pause(tx, campaign_id, now=now, reason=reason)

    def _recorded(
        self, outcomes: Sequence[Outcome], asked: datetime, tallied: Mapping[int, Sequence[tuple[int, str]]]
    ) -> None:
        self.counts.update(outcome.result.verdict.value for outcome in outcomes)
        self.shift.stopped.clear()
        self._give_back(outcomes)
        self._claimed_at, self._tallied = asked, tallied
        if self.shard == 0 and time.monotonic() - self._totals_at >= TOTALS_SECONDS:
            self._totals_at = time.monotonic()
            older_than = {"older_than": asked - timedelta(seconds=TOTALS_SECONDS)}
            try:
                with self.shift.engine.begin() as tx:
                    totals.refresh_many(tx, tx.scalars(statement("campaigns.stale_totals"), older_than).all(), asked)
            except DBAPIError as error:
                # The turn itself is committed and must not be counted again; the next recount makes up for this one.
                _LOG.warning("figures could not be recounted: %s", type(error.orig).__name__)


    def _give_back(self, outcomes: Sequence[Outcome]) -> None:
        """What was not handed over does not count for its limits."""
        unused = [
            outcome.message_id for outcome in outcomes
            if outcome.result.verdict in (Verdict.RELEASED, Verdict.SKIPPED)
        ]  # fmt: skip
        back = Counter(key for message_id in unused for key in self._tallied.get(message_id, ()))
        if not back or self._claimed_at is None:
            return
        try:
            with self.shift.engine.begin() as tx:
                give_back(tx, back, self._claimed_at)
        except DBAPIError as error:
            # They count although they were not sent: the limit is kept, only too well.
            _LOG.warning("limits were not given back: %s", type(error.orig).__name__)


def _may_pass(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed when it is tried again."""
    return is_unavailable(error) or getattr(error.orig, "pgcode", None) in ("40001", "40P01")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: one pump outside Airflow, optionally with planning before and finishing after it."""
    parser = argparse.ArgumentParser(
        prog="python -m mautolib.campaigns.sending", description="Hand over the messages that are due."
    )
    parser.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="I/N", help="take contacts whose id modulo N is I (0/1: all)"
    )
    parser.add_argument("--budget-seconds", type=float, default=60.0, help="begin nothing after this long (60)")
    parser.add_argument("--group-size", type=int, default=50, help=f"messages per transaction, 1 to {MAX_GROUP} (50)")
    parser.add_argument("--plan", action="store_true", help="first plan the campaigns that are due")
    parser.add_argument("--finish", action="store_true", help="afterwards close the campaigns that are done")
    given = parser.parse_args(arguments)
    try:
        settings = Settings.from_env()
        log.setup(settings.log_level, settings.log_format)
        engine = connect(settings.url_for("worker"), application_name="mauto-sender")
        result = _run_once(engine, settings, given)
    except TransientError as error:
        sys.stderr.write(f"{error} (the messages stay queued)\n")
        return 75  # EX_TEMPFAIL: try again later
    except MautoError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(", ".join(f"{name} {number}" for name, number in sorted(result.counts.items())) or "nothing due")
    sys.stdout.write("\n")
    return 0


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; 0/4, 1/4, 2/4 and 3/4 share the work of four senders")
    return int(match[1]), int(match[2])


def _run_once(engine: Engine, settings: Settings, given: argparse.Namespace) -> PumpResult:
    shard, shards = given.shard
    if given.plan:
        planning.plan_due(engine, settings, datetime.now(UTC))
    result = pump(
        engine, settings, shard=shard, shards=shards, budget_seconds=given.budget_seconds, group_size=given.group_size
    )
    if given.finish:
        experiment_steps.step(engine, settings, datetime.now(UTC))
        finishing.finish(engine, datetime.now(UTC))
    return result


if __name__ == "__main__":
    sys.exit(main())
