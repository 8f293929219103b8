"""What time does to A/B tests: a schedule arms one, test mail is through, a decision is due, those who waited go.

Promise: safe to run at any time, in parallel and after a kill: each step is in one row of the database and follows from
what is there. A test that decides itself does so at its deadline, or stays as it is where it is to be held. Called by
planning and, after the senders, by the DAG `campaign_send`; it hands nothing over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from mautolib.campaigns import experiment_control, experiment_release, experiment_results, experiments
from mautolib.campaigns.deciding import Decision
from mautolib.campaigns.experiment_model import AbStatus, AbTest, NoWinnerAction
from mautolib.campaigns.schedules import Schedule
from mautolib.db.statements import statement
from mautolib.errors import NotFound
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How many tests were decided, and how many people who waited were given a variant."""

    decided: int = 0
    released: int = 0


def step(engine: Engine, settings: Settings, now: datetime, *, batch: int = experiment_release.BATCH) -> Steps:
    """Take every test as far as it can go now."""
    with engine.begin() as tx:
        test_ids = tx.scalars(statement("ab_sending.to_work_on")).all()
    decided = released = 0
    for test_id in test_ids:
        with engine.begin() as tx:
            is_due = _is_due(tx, test_id, now)
        if is_due:
            with engine.begin() as tx:
                decided += _decide(tx, settings, test_id, now)
        given = batch
        while given:
            with engine.begin() as tx:
                given = _release(tx, settings, test_id, now, batch)
            released += given
    if decided or released:
        _LOG.info("%s A/B tests decided, %s recipients released", decided, released)
    return Steps(decided=decided, released=released)


def arm(tx: Connection, settings: Settings, schedule: Schedule | None, now: datetime) -> None:
    """Arm the test a schedule names, at the first of its runs that begins, with the schedule's own way of deciding.

    A test that is deleted, over or was sent before is passed over.

    Raises:
        MautoError: it cannot be started: two variants are equal, or another test of the campaign is running.
    """
    if schedule is None or schedule.ab_test_id is None:
        return
    try:
        test = experiments.get(tx, schedule.ab_test_id)
    except NotFound:
        _LOG.warning("schedule %s: its A/B test is gone", schedule.schedule_id)
        return
    if test.planned_at is not None or test.status in (AbStatus.COMPLETED, AbStatus.CANCELLED):
        return
    if test.status is AbStatus.DRAFT:
        experiment_control.start(tx, settings, test.test_id, now=now)
    experiments.put(
        tx, test.test_id, now, auto_select_winner=schedule.auto_pick_winner, wait_hours=schedule.winner_wait_hours
    )


def _is_due(tx: Connection, test_id: int, now: datetime) -> bool:
    """Keep the deadline of a running test; returns whether a decision is due."""
    test = _locked(tx, test_id)
    if test is None or test.status is not AbStatus.RUNNING:
        return False
    given = {"test_id": test_id}
    if tx.scalar(statement("ab_sending.is_open"), given):
        tx.execute(statement("ab_sending.open_again"), given)
        return False
    if test.last_handover_at is None:
        tx.execute(statement("ab_sending.handed_over"), given)
        test = experiments.get(tx, test_id)
        _LOG.info("A/B test %s: all test mail is handed over, deadline %s", test_id, test.deadline_at)
    return _waits_for_nobody(test, now)


def _waits_for_nobody(test: AbTest, now: datetime) -> bool:
    """Whether a test decides itself now; one that was looked at and is to be held has a decision already."""
    return (
        test.status is AbStatus.RUNNING and test.auto_select_winner and test.decision is None
        and test.deadline_at is not None and test.deadline_at <= now
    )  # fmt: skip


def _decide(tx: Connection, settings: Settings, test_id: int, now: datetime) -> bool:
    """Decide a test whose deadline is over; false if somebody else did, or it is held for a choice by hand."""
    try:
        test = experiments.lock(tx, test_id)
    except NotFound:
        return False
    if not _waits_for_nobody(test, now):
        return False
    found = experiment_results.evaluate(tx, test, now=now)
    is_clear = found.decision is Decision.WINNER
    is_settled = found.decision is not Decision.SRM_DETECTED and test.no_winner_action is NoWinnerAction.CONTROL
    if is_clear or is_settled:
        experiment_control.complete(tx, test, found, now=now)
        return True
    # Somebody has to look at it: it is not decided again by itself.
    experiments.put(tx, test_id, now, decision=found.decision.value, decision_reason=found.reason)
    _LOG.warning("A/B test %s waits for a choice by hand: %s", test_id, found.reason)
    return False


def _release(tx: Connection, settings: Settings, test_id: int, now: datetime, size: int) -> int:
    """Release some of those who wait for a test that is over; returns how many, 0: nobody is left."""
    test = _locked(tx, test_id)
    if test is None or test.status is AbStatus.RUNNING:
        return 0
    released = experiment_release.release(tx, settings, test, now=now, size=size)
    if not released and not tx.scalar(statement("ab_sending.is_held"), {"test_id": test_id}):
        experiments.put(tx, test_id, now, released_at=now)
    return released


def _locked(tx: Connection, test_id: int) -> AbTest | None:
    """A test to work on; None: somebody is at it, or it is done."""
    found = tx.scalar(statement("ab_sending.lock"), {"test_id": test_id})
    return None if found is None else experiments.get(tx, test_id)
