"""Recalculating scores and stages: everybody as of a moment, or one contact now.

Promises that the same moment, events and rules give the same rows, and that a moment before the last full run only
adds snapshots. Both verbs run the one statement `scoring.recalculate`; for everybody's present score it reads what
`state` has folded instead of all events. Called by the `score_recalculation` DAG and by the API. What changed is told
by `following`, where current scores were written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, func, insert, select, update

from mautolib.db import tables
from mautolib.db.engine import Tx
from mautolib.db.prepared import execute_prepared
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.types import NOT_ENGAGEMENT
from mautolib.scoring import following, rules, state
from mautolib.scoring.model import OPPORTUNITY, ContactScore, Grade, ScoreResult, SnapshotSource, Stage
from mautolib.scoring.turns import take_turn

_LOG = logging.getLogger(__name__)

# The plan must not depend on statistics that a bulk load has made stale: nested loops over a million contacts are
# the one mistake that matters. Hashes of a million contacts fit in this memory; smaller runs use less.
_MEMORY_SETTINGS = {"work_mem": "128MB", "jit": "off"}
_BATCH_SETTINGS = {
    **_MEMORY_SETTINGS, "enable_nestloop": "off", "enable_mergejoin": "off", "enable_hashjoin": "on",
    "hash_mem_multiplier": "8",
}  # fmt: skip
# A night reads every table in the order of its key and never looks into a hash of a million rows. What is looked up in
# hashes are suppressions and customers: without the memory for them, they would be read once for each contact.
_NIGHT_SETTINGS = {
    **_MEMORY_SETTINGS, "enable_nestloop": "off", "enable_mergejoin": "on", "enable_hashjoin": "off",
    "hash_mem_multiplier": "100",
}  # fmt: skip


def recalculate(
    engine: Engine,
    *,
    as_of: datetime,
    bucket: int | None = None,
    buckets: int = 1,
    source: str = SnapshotSource.NIGHTLY,
    known_at: datetime | None = None,
    rule_version: int | None = None,
    dry_run: bool = False,
) -> ScoreResult:
    """Score every contact as of `as_of`, move lifecycle stages, add snapshots; a transaction per bucket.

    Args:
        bucket: contacts of every `buckets`-th of the 64 slices (`contact_id % 64`), from this one on; None runs all
            buckets one after the other.
        buckets: 1 to 64.
        source: what the snapshots are called, a `SnapshotSource`.
        known_at: ignore what was received later. Such a run, and one older than the last full run, adds snapshots
            only; current scores and stages stay.
        rule_version: a version of the rules; None takes the newest.
        dry_run: compute and count, write nothing.
    Raises:
        InvalidInput: a bucket outside `0..buckets - 1`, or an unknown source or version.
    """
    if not 1 <= buckets <= state.SLICES or (bucket is not None and not 0 <= bucket < buckets):
        raise InvalidInput(f"bucket {bucket} of {buckets} does not exist", path=("bucket",))
    if not dry_run:
        with engine.begin() as tx:
            tx.execute(statement("scoring.ensure_month"), {"as_of": as_of})
    results = []
    for number in range(buckets) if bucket is None else (bucket,):
        if known_at is None and not dry_run:
            state.aim(engine, as_of, _slices(number, buckets))
        with engine.begin() as tx:
            result = recalculate_within(
                tx, as_of=as_of, bucket=number, buckets=buckets, source=source, known_at=known_at,
                rule_version=rule_version, dry_run=dry_run,
            )  # fmt: skip
        results.append(result)
        # All buckets of one call use one version, whatever is edited meanwhile.
        rule_version = result.rule_version
    total = _sum(results)
    _LOG.info(
        "scores as of %s: %s scored, %s changed, %s moved, %s snapshots (rule version %s%s)",
        as_of.isoformat(), total.scored, total.changed, total.moved, total.snapshots, total.rule_version,
        ", dry run" if dry_run else "",
    )  # fmt: skip
    return total


def recalculate_within(
    tx: Tx,
    *,
    as_of: datetime,
    bucket: int = 0,
    buckets: int = 1,
    source: str = SnapshotSource.NIGHTLY,
    known_at: datetime | None = None,
    rule_version: int | None = None,
    dry_run: bool = False,
) -> ScoreResult:
    """One bucket of `recalculate`, inside the caller's transaction; from all events unless `state.aim` was told before.

    Raises:
        InvalidInput: an unknown source or rule version.
    """
    if source not in list(SnapshotSource):
        raise InvalidInput(f"{source!r} is no source of snapshots", path=("source",))
    version = rules.check_version(tx, rule_version)
    is_current = known_at is None and as_of >= (_last_full_run(tx) or as_of)
    binds = _binds(
        as_of=as_of, version=version, source=source, known_at=known_at, is_lifecycle=True,
        keep_current=is_current and not dry_run, keep_snapshots=not dry_run,
    )  # fmt: skip
    result = replace(_evaluate(tx, binds, _slices(bucket, buckets)), is_current=is_current)
    if not is_current:
        result = replace(result, changed=0, moved=0)
    elif not dry_run:
        following.tell(tx, as_of=as_of, slices=_few(_slices(bucket, buckets)))
    if not dry_run:
        tx.execute(
            insert(tables.score_runs).values(
                as_of=as_of, known_at=known_at, source=str(source), rule_version=version, bucket=bucket,
                buckets=buckets, is_current=is_current, scored_count=result.scored, changed_count=result.changed,
                moved_count=result.moved, snapshot_count=result.snapshots,
            )
        )  # fmt: skip
    return result


def _evaluate(tx: Tx, binds: Mapping[str, Any], slices: Sequence[int]) -> ScoreResult:
    """Score the contacts of `slices`: what is current from what is folded, everything else from all events."""
    parts: list[state.Folded] | None = None
    if binds["keep_current"]:
        # Folding looks up few events by their keys, or aggregates all of them: loops must stay allowed.
        _set(tx, _MEMORY_SETTINGS)
        parts = state.fold(tx, as_of=binds["as_of"], version=binds["rule_version"], slices=slices)
    if parts is None:
        _set(tx, _BATCH_SETTINGS)
        return _result(tx.execute(statement("scoring.recalculate"), {**binds, "slices": _few(slices)}), binds)
    _set(tx, _NIGHT_SETTINGS)
    folded = statement("scoring.recalculate_folded")
    result = _sum([_result(tx.execute(folded, {**binds, **_folded_binds(part)}), binds) for part in parts])
    _set(tx, _BATCH_SETTINGS)
    return result


def _set(tx: Tx, settings: Mapping[str, str]) -> None:
    """Settings of the planner, until the transaction ends."""
    for name, value in settings.items():
        tx.execute(select(func.set_config(name, value, True)))


def recalculate_contact(
    tx: Tx, contact_id: int, now: datetime, *, source: str = SnapshotSource.RECALCULATED
) -> ContactScore:
    """Score one contact as of `now` and move it along the ladder (churn and dormancy are left to the night).

    Args:
        source: what the snapshot is called, a `SnapshotSource`.
    Raises:
        NotFound: no such contact.
    """
    found = stored(tx, contact_id) if recalculate_contacts(tx, [contact_id], now, source=source) else None
    if found is None:
        raise NotFound(f"Contact {contact_id} not found")
    _LOG.info("score of contact %s recalculated", contact_id)
    return found


def recalculate_contacts(
    tx: Tx, contact_ids: Sequence[int], now: datetime, *, source: str, is_lifecycle: bool = False
) -> datetime | None:
    """Score some contacts as of `now` and keep it; who else would do that for one of them waits.

    Args:
        is_lifecycle: check churn and dormancy too, as the night does.
    Returns: the moment they were scored as of (see `take_turn`); None if none of them exists.
    """
    as_of = take_turn(tx, contact_ids, now)
    if as_of is None:
        return None
    binds = _binds(
        as_of=as_of, version=rules.current_version(tx), source=source, known_at=None, contact_ids=list(contact_ids),
        is_lifecycle=is_lifecycle, keep_current=True, keep_snapshots=True,
    )  # fmt: skip
    result = _result(execute_prepared(tx, "scoring.recalculate_few", binds), binds)
    if result.changed < result.scored:
        # Who asked for a score as of now sees that moment, also where it came out the same.
        scores = tables.contact_scores
        same = update(scores).where(scores.c.contact_id == func.any(list(contact_ids)), scores.c.as_of < as_of)
        tx.execute(same.values(as_of=as_of, updated_at=func.now()))
    if result.changed or result.moved:
        following.tell(tx, as_of=as_of, contact_ids=contact_ids, is_moved=result.moved > 0)
    return as_of


def stored(tx: Tx, contact_id: int) -> ContactScore | None:
    """The score of a contact as it is stored; None if there is none or the contact is gone."""
    scores, stages, contacts = tables.contact_scores, tables.contact_stages, tables.contacts
    row = tx.execute(
        select(scores, stages.c.lifecycle_stage)
        .join(contacts, contacts.c.contact_id == scores.c.contact_id)
        .outerjoin(stages, stages.c.contact_id == scores.c.contact_id)
        .where(scores.c.contact_id == contact_id)
    ).one_or_none()
    if row is None:
        return None
    return ContactScore(
        contact_id=row.contact_id, total_score=row.total_score, engagement_score=row.engagement_score,
        profile_score=row.profile_score, recency_score=row.recency_score, grade=Grade(row.grade),
        lifecycle_stage=Stage(row.lifecycle_stage or Stage.NEW), last_activity_at=row.last_activity_at,
        score_updated_at=row.updated_at, as_of=row.as_of, rule_version=row.rule_version,
    )  # fmt: skip


def _binds(
    *, as_of: datetime, version: int, source: str, known_at: datetime | None, is_lifecycle: bool, keep_current: bool,
    keep_snapshots: bool, contact_ids: list[int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "as_of": as_of, "known_at": known_at, "rule_version": version, "source": str(source),
        "contact_ids": contact_ids, "slices": None, "keep_profiles": False, "is_lifecycle": is_lifecycle,
        "checkouts_since": as_of - OPPORTUNITY,
        "keep_current": keep_current, "keep_snapshots": keep_snapshots,
        "not_engagement": sorted(str(kind) for kind in NOT_ENGAGEMENT),
    }  # fmt: skip


def _folded_binds(part: state.Folded) -> dict[str, Any]:
    return {"slices": _few(part.slices), "factors": list(part.factors), "rule_points": list(part.points),
            "keep_profiles": True}  # fmt: skip


def _slices(bucket: int, buckets: int) -> list[int]:
    return list(range(bucket, state.SLICES, buckets))


def _few(slices: Sequence[int]) -> list[int] | None:
    """None for all slices, so that nothing has to be compared."""
    return None if len(slices) == state.SLICES else list(slices)


def _last_full_run(tx: Tx) -> datetime | None:
    runs = tables.score_runs
    found: datetime | None = tx.scalar(select(func.max(runs.c.as_of)).where(runs.c.is_current))
    return found


def _result(rows: Iterable[Any], binds: Mapping[str, Any]) -> ScoreResult:
    grades: dict[str | None, dict[str, int]] = {}
    scored = changed = moved = snapshots = 0
    for row in rows:
        grades.setdefault(row.stored_grade, {})[row.grade] = row.contact_count
        scored += row.contact_count
        changed += row.changed_count
        moved += row.moved_count
        snapshots = row.snapshot_count
    return ScoreResult(
        as_of=binds["as_of"], rule_version=binds["rule_version"], scored=scored, changed=changed, moved=moved,
        snapshots=snapshots, grades=grades,
    )  # fmt: skip


def _sum(results: list[ScoreResult]) -> ScoreResult:
    grades: dict[str | None, dict[str, int]] = {}
    for result in results:
        for before, counts in result.grades.items():
            into = grades.setdefault(before, {})
            for after, count in counts.items():
                into[after] = into.get(after, 0) + count
    return replace(
        results[0],
        scored=sum(result.scored for result in results),
        changed=sum(result.changed for result in results),
        moved=sum(result.moved for result in results),
        snapshots=sum(result.snapshots for result in results),
        grades=grades,
    )
