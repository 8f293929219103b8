"""Running imports: claimed under a lease, staged from the file, merged in one transaction, finished with counts.

Promises that a killed run is taken again after its lease, goes on where its rows were kept last, and gives the same
result; that a worker which lost its lease changes nothing; that an import which kills every worker ends; and that an
import ends completed, cancelled or failed with one sentence that says what to do. Called by the import DAG.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mautolib.contacts.imports import remote, requests, staging
from mautolib.contacts.imports.filling import LostImport, fill
from mautolib.contacts.imports.merging import Counts, drop_staging, merge_or_try, open_staging
from mautolib.contacts.imports.model import Import, ImportStatus
from mautolib.contacts.imports.places import is_remote
from mautolib.db.engine import is_unavailable
from mautolib.db.statements import statement
from mautolib.errors import Conflict, MautoError, ProviderUnavailable, TransientError
from mautolib.settings import Settings

__all__ = ["claim_next", "run", "run_waiting"]

_LOG = logging.getLogger(__name__)
LEASE_SECONDS = 60.0
BEAT_SECONDS = 3.0
_MERGE_TRIES = 4
#: Workers that may die of an import in a row without having kept more of it than was kept before.
_MOST_STALLED = 5
#: How long an import whose file cannot be fetched lets others go first; a task is tried again after 30 s.
_PAUSE_SECONDS = 20.0
Progress = Callable[[int], None]


class _Stop(Exception):
    """The run must not go on: cancelled, or another worker has the import."""


class Claim:
    """An import taken by this worker: keeps the lease alive from a thread and knows when to stop.

    Args:
        request: the import as it was when claimed.
        stalled: workers that took it since more of it was kept than ever before, this one included.
    """

    def __init__(self, engine: Engine, request: Import, attempt_id: int, stalled: int = 1) -> None:
        self._engine, self.request, self.attempt_id, self.stalled = engine, request, attempt_id, stalled
        self.status: ImportStatus | None = request.status
        self.rows = 0
        #: What is being done, for the log.
        self.phase = "begins"
        self.is_put_off = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"import-{request.import_id}", daemon=True)

    @property
    def keys(self) -> dict[str, int]:
        """What every later statement about this attempt says."""
        return {"import_id": self.request.import_id, "attempt_id": self.attempt_id}

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        """Raise `_Stop` when the import was cancelled or belongs to another worker."""
        if self.status is not ImportStatus.RUNNING:
            raise _Stop

    def _keep(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                with self._engine.begin() as tx:
                    binds = {**self.keys, "lease_seconds": LEASE_SECONDS, "total_rows": self.rows}
                    found = tx.scalar(statement("imports.beat"), binds)
            except SQLAlchemyError:
                # The lease outlives a short outage; the merge finds out by itself about a longer one.
                _LOG.warning("import %s: no sign of life could be given", self.request.import_id)
                continue
            self.status = ImportStatus(found) if found else None
            _LOG.info("import %s %s: %s rows so far", self.request.import_id, self.phase, self.rows)
            if self.status is not ImportStatus.RUNNING:
                return


def claim_next(engine: Engine, *, now: datetime, only: Sequence[int] | None = None) -> Claim | None:
    """Take the oldest import that waits or whose worker is gone (of `only`, where given); None: there is none."""
    ids = None if only is None else [int(one) for one in only]
    with engine.begin() as tx:
        row = tx.execute(statement("imports.claim"), {"only": ids, "now": now, "lease_seconds": LEASE_SECONDS})
        found = row.one_or_none()
        return Claim(engine, requests.to_import(found), found.attempt_id, found.stalled_attempts) if found else None


def run_waiting(
    engine: Engine,
    settings: Settings,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    only: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Iterator[Import]:
    """Run imports until none waits (of `only`, where given), giving each as it ends.

    Raises:
        TransientError: database or storage cannot be reached; the import was given back. One whose file cannot be
            fetched holds nobody up: it is put off, and the error raised when no other waits or it failed again.
    """
    failure: TransientError | None = None
    put_off: set[int] = set()
    while (claim := claim_next(engine, now=clock(), only=only)) is not None:
        try:
            ended = _carry_out(engine, settings, claim, clock, progress)
        except TransientError as error:
            if not claim.is_put_off or claim.request.import_id in put_off:
                raise
            failure = error
            put_off.add(claim.request.import_id)
            continue
        yield ended
    if failure is not None:
        raise failure


def run(
    engine: Engine, settings: Settings, import_id: int, *, now: datetime, progress: Progress | None = None
) -> Import:
    """Run one import that waits; returns it as it ended (completed, cancelled, or failed with its `error`).

    Args:
        now: of everything it writes.
        progress: called now and then with the number of rows read.

    Raises:
        NotFound: no such import.
        Conflict: it is finished, or another worker has it.
        TransientError: database or storage cannot be reached; the import was given back.
    """
    claim = claim_next(engine, now=now, only=[import_id])
    if claim is None:
        with engine.begin() as tx:
            raise Conflict(f"The import is {requests.get(tx, import_id).status}")
    return _carry_out(engine, settings, claim, lambda: now, progress)


def _carry_out(
    engine: Engine, settings: Settings, claim: Claim, clock: Callable[[], datetime], progress: Progress | None
) -> Import:
    request = claim.request
    try:
        with claim:
            counts = _work(engine, settings, claim, clock, progress)
        _LOG.info("import %s completed: %s", request.import_id, counts)
    except (_Stop, LostImport):
        _end(engine, claim, ImportStatus.CANCELLED, ImportStatus.CANCELLING, clock())
    except TransientError:
        claim.is_put_off = True
        _give_back(engine, claim, wait_seconds=_PAUSE_SECONDS)
        raise
    except MautoError as error:
        _fail(engine, claim, str(error), clock())
    except Exception as error:
        if is_unavailable(error):
            _give_back(engine, claim)
            raise ProviderUnavailable("The database cannot be reached; the import goes on when it is back") from error
        _fail(engine, claim, f"Unexpected {type(error).__name__}; the log of import {request.import_id} says more",
              clock())  # fmt: skip
        raise
    with engine.begin() as tx:
        ended = requests.get(tx, request.import_id)
    if ended.finished_at is not None:
        requests.forget_upload(settings, ended.storage_uri)
    return ended


def _work(
    engine: Engine, settings: Settings, claim: Claim, clock: Callable[[], datetime], progress: Progress | None
) -> Counts:
    now = clock()
    claim.check()
    if claim.stalled > _MOST_STALLED:
        raise Conflict(f"{_MOST_STALLED} workers in a row ended while they were at it and got no further; their logs "
                       "say why (memory, mostly). Mend that and ask for the import again")  # fmt: skip
    if is_remote(claim.request.storage_uri or ""):
        _fetch(engine, settings, claim)
    claim.phase = "reads"
    with engine.connect() as connection:
        try:
            kept = _read(connection, settings, claim, now, progress)
            claim.phase = "merges"
            with connection.begin():
                open_staging(connection, kept_in=kept.table)
            tries = iter(range(_MERGE_TRIES, 0, -1))
            while (counts := _merge_once(connection, settings, claim, kept, now, clock, left=next(tries))) is None:
                claim.check()
        finally:
            if not connection.invalidated:
                connection.rollback()
                with connection.begin():
                    drop_staging(connection)
    return counts


def _fetch(engine: Engine, settings: Settings, claim: Claim) -> None:
    """Put a copy of an object in S3 into storage, which the import has from now on, whoever works on it."""
    claim.phase = "fetches"
    stored = remote.fetch(settings, claim.request.storage_uri or "", check=claim.check)
    kept = None
    try:
        with engine.begin() as tx:
            kept = requests.keep_fetched(tx, **claim.keys, stored=stored)
    finally:
        if kept is None:
            requests.forget_upload(settings, stored.uri)
    if kept is None:
        raise _Stop
    claim.request = kept


def _read(
    connection: Connection, settings: Settings, claim: Claim, now: datetime, progress: Progress | None
) -> staging.Checkpoint:
    def heard(rows: int) -> None:
        claim.rows += rows
        claim.check()
        if rows and progress is not None:
            progress(claim.rows)

    heard(0)
    path = requests.location(settings, claim.request.storage_uri or "")
    return fill(
        connection, path, claim.request, attempt_id=claim.attempt_id, settings=settings, now=now, heard=heard
    )


def _merge_once(
    connection: Connection, settings: Settings, claim: Claim, kept: staging.Checkpoint, now: datetime,
    clock: Callable[[], datetime], *, left: int,
) -> Counts | None:  # fmt: skip
    """Merge and finish in one transaction; None when the database picked it to end a deadlock and tries are left."""
    try:
        with connection.begin() as transaction:
            counts = merge_or_try(
                connection, claim.request.import_id, kept.options, columns=kept.columns,
                blank_language=kept.blank_language, actor=claim.request.created_by, now=now, checkpoint=claim.check,
                settings=settings,
            )  # fmt: skip
            requests.note_options(connection, claim.request.import_id, kept.options)
            if not _finish(connection, claim, ImportStatus.COMPLETED, ImportStatus.RUNNING, clock(), counts):
                transaction.rollback()
                raise _Stop
            return counts
    except DBAPIError as error:
        # Others lock contacts in another order; the staged rows are still there.
        if left == 1 or getattr(error.orig, "pgcode", None) not in ("40001", "40P01"):
            raise
        _LOG.warning("import %s: deadlock, merging again", claim.request.import_id)
        return None


def _finish(
    tx: Connection, claim: Claim, status: ImportStatus, expected: ImportStatus, now: datetime, counts: Counts,
    error: str | None = None,
) -> bool:  # fmt: skip
    """End the import if it is still this worker's; what was kept of it goes in the same transaction."""
    binds = {**claim.keys, **asdict(counts), "status": str(status), "expected": str(expected), "now": now,
             "error": error}  # fmt: skip
    if tx.execute(statement("imports.finish"), binds).rowcount != 1:
        return False
    staging.drop_rows(tx, claim.request.import_id)
    return True


def _end(
    engine: Engine, claim: Claim, status: ImportStatus, expected: ImportStatus, now: datetime, error: str | None = None
) -> None:
    with engine.begin() as tx:
        ended = _finish(tx, claim, status, expected, now, Counts(total_rows=claim.rows), error)
    word = str(status) if ended else "left to another worker"
    _LOG.info("import %s: %s", claim.request.import_id, word)


def _fail(engine: Engine, claim: Claim, message: str, now: datetime) -> None:
    _LOG.warning("import %s failed: %s", claim.request.import_id, message)
    _end(engine, claim, ImportStatus.FAILED, ImportStatus.RUNNING, now, message[:2000])
    # Cancelled while it was failing: then it is cancelled.
    _end(engine, claim, ImportStatus.CANCELLED, ImportStatus.CANCELLING, now)


def _give_back(engine: Engine, claim: Claim, *, wait_seconds: float = 0.0) -> None:
    try:
        with engine.begin() as tx:
            tx.execute(statement("imports.give_back"), {**claim.keys, "wait_seconds": wait_seconds})
    except SQLAlchemyError:
        # Then the lease runs out and the import is taken all the same.
        _LOG.warning("import %s could not be given back; its lease will run out", claim.request.import_id)
