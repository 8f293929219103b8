"""Telling an operator: one note when a finding opens, one when it is resolved, nothing in between.

Promise: a finding is a row as long as it is open, so however many processes see it, each channel gets it once; a
channel that is away gets its notes later, for three days. Nothing here raises because a channel or the database is
away: an alert must never hide or break what it is about. Without a database a note goes out directly, once an hour for
each finding. Callers: the watchdog's task, callbacks of Airflow, the command line.
"""

from __future__ import annotations

import hashlib
import logging
import smtplib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import SQLAlchemyError

from mautolib.db.statements import statement
from mautolib.errors import MautoError
from mautolib.maintenance import alert_channels, watch
from mautolib.maintenance.alert_channels import Note
from mautolib.maintenance.watch import Finding
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
#: A finding that is not sure at first sight is told when it is seen again this much later.
SURE_AFTER: Final = timedelta(minutes=1)
AGAIN: Final = timedelta(minutes=5)
TOO_OLD: Final = timedelta(days=3)
_UNSTORED_AGAIN: Final = timedelta(hours=1)
_AWAY = (OSError, MautoError, smtplib.SMTPException)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a round did: findings that opened (and were told of) and closed, notes that channels took or did not."""

    opened: int = 0
    resolved: int = 0
    delivered: int = 0
    undelivered: int = 0


def review(engine: Engine, settings: Settings, *, now: datetime) -> tuple[list[Finding], Told]:
    """Look at everything, remember what is new and what is over, and tell.

    Raises:
        Misconfigured: MAUTO_WATCH_MINUTES names no check, or no number.
    """
    with engine.begin() as tx:
        found = watch.findings(tx, settings, now=now)
        opened = _open(tx, settings, found, now)
        closed = [
            *tx.execute(statement("alerts.resolve_absent"), {
                "kinds": list(watch.KINDS), "findings": [one.name for one in found], "now": now}),
            *tx.execute(statement("alerts.resolve_succeeded")),
        ]  # fmt: skip
        resolved = [row for row in closed if row.is_told]
        _note(tx, settings, "resolved", resolved, now)
    for row in resolved:
        _LOG.warning("resolved: %s: %s", row.finding, row.summary)
    delivered, undelivered = deliver(engine, settings, now=now)
    return found, Told(opened=opened, resolved=len(resolved), delivered=delivered, undelivered=undelivered)


def report(engine: Engine | None, settings: Settings, finding: Finding, *, now: datetime, stays: bool = True) -> None:
    """Tell of one thing at once; never raises.

    Args:
        engine: None, or away: it is sent directly.
        stays: the finding is open until it is resolved, and not told again until then.
    """
    _LOG.error("%s: %s (%s)", finding.name, finding.summary, finding.advice)
    try:
        if engine is not None:
            with engine.begin() as tx:
                if stays:
                    _open(tx, settings, [finding], now)
                else:
                    _note(tx, settings, "told", [finding], now)
            deliver(engine, settings, now=now)
            return
    except SQLAlchemyError as error:
        _LOG.warning("the finding could not be stored (%s)", type(error).__name__)
    _send_unstored(settings, finding, now)


def deliver(engine: Engine, settings: Settings, *, now: datetime) -> tuple[int, int]:
    """Hand over the notes that are due; returns how many were taken and how many were not."""
    with engine.begin() as tx:
        claimed = tx.execute(statement("alerts.claim_notes"), {"now": now, "next_try_at": now + AGAIN}).all()
    taken: list[int] = []
    rows = sorted(claimed, key=lambda row: (row.channel, row.note_id))
    for channel, group in groupby(rows, key=lambda row: row.channel):
        taken += _hand_over(settings, channel, [_as_note(row) for row in group], now)
    with engine.begin() as tx:
        tx.execute(statement("alerts.forget_notes"), {
            "taken": taken, "channels": alert_channels.channels(settings), "older_than": now - TOO_OLD})  # fmt: skip
    return len(taken), len(claimed) - len(taken)


def test(settings: Settings, *, now: datetime) -> dict[str, str]:
    """Send a test note through every channel; returns what went wrong for each, an empty text if nothing did."""
    note = Note(kind="test", finding="alert.test", summary="alerts reach you here", advice="nothing to do",
                created_at=now)  # fmt: skip
    results = {}
    for channel in alert_channels.channels(settings):
        try:
            alert_channels.send(settings, channel, [note], now=now)
            results[channel] = ""
        except _AWAY as error:
            results[channel] = str(error) if isinstance(error, MautoError) else type(error).__name__
    return results


def open_findings(tx: Connection) -> Sequence[Row[Any]]:
    """The findings that are open, oldest first."""
    return tx.execute(statement("alerts.open_alerts")).all()


def _open(tx: Connection, settings: Settings, found: Sequence[Finding], now: datetime) -> int:
    """Remember findings; makes notes of those that are new and sure, and returns how many."""
    values = {**_columns(found), "row_counts": [one.row_count for one in found], "now": now}
    untold = tx.execute(statement("alerts.see"), values).all()
    sure = {one.name for one in found if one.is_sure}
    due = [row.finding for row in untold if row.finding in sure or now - row.opened_at >= SURE_AFTER]
    fresh = tx.execute(statement("alerts.mark_told"), {"findings": due}).all() if due else []
    for row in fresh:
        _LOG.error("found: %s: %s; %s", row.finding, row.summary, row.advice)
    _note(tx, settings, "opened", fresh, now)
    return len(fresh)


def _note(tx: Connection, settings: Settings, kind: str, news: Sequence[Any], now: datetime) -> None:
    if news:
        values = {**_columns(news), "kind": kind, "channels": alert_channels.channels(settings), "now": now}
        tx.execute(statement("alerts.add_notes"), values)


def _columns(news: Sequence[Any]) -> dict[str, list[str]]:
    return {
        "findings": [one.name if isinstance(one, Finding) else one.finding for one in news],
        "summaries": [one.summary for one in news],
        "advices": [one.advice for one in news],
    }


def _as_note(row: Row[Any]) -> Note:
    return Note(kind=row.kind, finding=row.finding, summary=row.summary, advice=row.advice, created_at=row.created_at,
                note_id=row.note_id)  # fmt: skip


def _hand_over(settings: Settings, channel: str, notes: list[Note], now: datetime) -> list[int]:
    """The notes a channel took. A mail holds all of them; of calls each counts for itself."""
    taken: list[int] = []
    bundles = [notes] if channel == alert_channels.MAIL else [[note] for note in notes]
    for bundle in bundles:
        try:
            if channel in alert_channels.channels(settings):
                alert_channels.send(settings, channel, bundle, now=now)
                taken += [note.note_id for note in bundle]
        except _AWAY as error:
            _LOG.warning("%d alerts wait: the %s did not take them (%s)", len(notes) - len(taken), channel,
                         type(error).__name__)  # fmt: skip
            break
    return taken


def _send_unstored(settings: Settings, finding: Finding, now: datetime) -> None:
    """Send without the database's memory: a file in the storage folder says when it was sent last."""
    note = Note(kind="told", finding=finding.name, summary=finding.summary, advice=finding.advice, created_at=now)
    mark = settings.storage_path / f"alert-{hashlib.sha256(finding.name.encode()).hexdigest()[:16]}"
    with suppress(OSError, ValueError):
        if now - datetime.fromisoformat(mark.read_text(encoding="ascii")) < _UNSTORED_AGAIN:
            return
    with suppress(OSError):
        mark.write_text(now.isoformat(), encoding="ascii")
    for channel in alert_channels.channels(settings):
        try:
            alert_channels.send(settings, channel, [note], now=now)
        except _AWAY as error:
            _LOG.warning("the %s did not take an alert (%s)", channel, type(error).__name__)
