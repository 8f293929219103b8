"""What an operator watches, as numbers: queues and their ages, results, the last signs of life, the schema.

Promise: it reads indexes and counts to `MOST` at most, so it stays cheap however much there is. Everything comes from
the tables of this moment; nothing is incremented anywhere. Called by `/metrics`, `mauto status` and `mauto doctor`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from mautolib.db.statements import statement
from mautolib.events.spool import spool_folder
from mautolib.ledger import installation
from mautolib.maintenance import watch
from mautolib.settings import Settings

#: Where counting a queue stops.
MOST: Final = 100_000
Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One metric: `samples` are its values by labels; a counter only ever grows (but for erasures and restores)."""

    name: str
    help: str
    samples: tuple[Sample, ...]
    is_counter: bool = False


def collect(tx: Connection, settings: Settings, *, now: datetime) -> list[Family]:
    """All families at `now`; a moment without a value (an empty queue) has the age 0."""
    began = time.perf_counter()
    families = [
        *_messages(tx, now), *_queues(tx, now), *_results(tx), *_minute(tx, now), *_life(tx, now), *_spool(settings),
    ]  # fmt: skip
    took = time.perf_counter() - began
    families += _dags(tx, now)
    families.append(_one("mauto_collect_seconds", "How long reading these numbers took.", took))
    return families


def _messages(tx: Connection, now: datetime) -> list[Family]:
    rows = tx.execute(statement("gauges.messages")).all()
    here = installation.read(tx)
    return [
        _by("mauto_messages", f"Messages not at their end, by state; counted to {MOST}.", "state",
            {row.state: row.row_count for row in rows}),
        _by("mauto_messages_oldest_seconds", "Age of the oldest: since it is due, claimed, or (in doubt) queued.",
            "state", {row.state: _age(row.since, now) for row in rows}),
        _one("mauto_sending_enabled", "1 while mail may leave, 0 while it is switched off.",
             float(here.sending_enabled)),
        _one("mauto_epoch", "Raised whenever the database went back in time.", here.epoch),
    ]  # fmt: skip


def _queues(tx: Connection, now: datetime) -> list[Family]:
    rows = tx.execute(statement("gauges.queues")).all()
    campaigns = tx.execute(statement("gauges.campaigns")).all()
    return [
        _by("mauto_queue", f"What waits in each queue; counted to {MOST}.", "queue",
            {row.queue: row.row_count for row in rows}),
        _by("mauto_queue_oldest_seconds", "How long the oldest of a queue has been due.", "queue",
            {row.queue: _age(row.since, now) for row in rows}),
        _by("mauto_campaigns", "Campaigns by state.", "status", {row.status: row.row_count for row in campaigns}),
    ]  # fmt: skip


def _results(tx: Connection) -> list[Family]:
    campaigns = tx.execute(statement("gauges.campaign_results")).mappings().one()
    webhooks = tx.execute(statement("gauges.webhook_results")).one()
    return [
        _by("mauto_campaign_messages", "What became of the messages of all campaigns.", "result",
            {name: float(number) for name, number in campaigns.items()}, is_counter=True),
        _by("mauto_webhook_attempts", "Attempts of webhooks to endpoints that exist.", "result",
            {"succeeded": float(webhooks.attempts - webhooks.failures), "failed": float(webhooks.failures)},
            is_counter=True),
    ]  # fmt: skip


def _minute(tx: Connection, now: datetime) -> list[Family]:
    rows = tx.execute(statement("gauges.last_minute"), {"now": now}).all()
    return [_by("mauto_events_last_minute", f"Events of the last 60 s, by type; counted to {MOST} each.", "type",
                {row.event_type: row.row_count for row in rows})]  # fmt: skip


def _life(tx: Connection, now: datetime) -> list[Family]:
    beats = {row.component: _age(row.beat_at, now) for row in tx.execute(statement("gauges.beats"))}
    schema = tx.execute(statement("gauges.schema")).one()
    return [
        _by("mauto_heartbeat_age_seconds", "Since each part last gave a sign of life; airflow.<dag>: last good run.",
            "component", beats),
        _one("mauto_schema_version", "Number of the newest migration.", schema.newest),
    ]  # fmt: skip


def watchdog(tx: Connection, settings: Settings, *, now: datetime) -> list[Family]:
    """What the watchdog sees at `now`. Dearer than the rest: ask once a minute.

    Raises:
        Misconfigured: MAUTO_WATCH_MINUTES names no check, or no number.
    """
    seen = watch.look(tx, settings, now=now)
    return [
        _by("mauto_stuck", f"What waits longer than it should, by check of the watchdog; counted to {MOST}.", "check",
            {one.check.name: one.row_count for one in seen}),
        _by("mauto_stuck_oldest_seconds", "How long the oldest of a check has been waiting; 0: nothing is stuck.",
            "check", {one.check.name: _age(one.since if one.row_count else None, now) for one in seen}),
    ]  # fmt: skip


def _dags(tx: Connection, now: datetime) -> list[Family]:
    ages = {dag: age.total_seconds() for dag, age in watch.dag_ages(tx, now=now).items()}
    backup = tx.execute(statement("watch.beat_of"), {"component": watch.BACKUP}).one_or_none()
    ledger = tx.execute(statement("watch.beat_of"), {"component": watch.LEDGER_CHECK}).one_or_none()
    kept = [] if backup is None else [
        _one("mauto_backup_age_seconds", "Since the last `mauto backup`; missing: there was none.",
             _age(backup.beat_at, now)),
    ]  # fmt: skip
    if ledger is not None:
        kept.append(_one("mauto_ledger_findings", "Findings of the last ledger check; missing: there was none.",
                         float(ledger.detail.get("findings", 0))))  # fmt: skip
    return [
        _by("mauto_dag_last_success_age_seconds", "Since each DAG last had a run that ended well.", "dag", ages),
        _by("mauto_dag_lag_seconds", "How much longer that is than its schedule allows; 0: in time.", "dag",
            {dag: max(0.0, age - watch.DAGS[dag].total_seconds()) for dag, age in ages.items()}),
        _one("mauto_alerts_open", "Findings that are open: `mauto alert list`.",
             len(tx.execute(statement("alerts.open_alerts")).all())),
        *kept,
    ]  # fmt: skip


def _spool(settings: Settings) -> list[Family]:
    sizes = [_size(path) for path in spool_folder(settings).glob("*") if path.is_file()]
    return [_one("mauto_hits_spool_bytes", "Opens and clicks kept on disk until the database takes them.", sum(sizes))]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # replayed meanwhile
        return 0


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _one(name: str, text: str, value: float) -> Family:
    return Family(name=name, help=text, samples=(({}, float(value)),))


def _by(name: str, text: str, label: str, values: Mapping[str, float], *, is_counter: bool = False) -> Family:
    samples = tuple(({label: key}, float(value)) for key, value in sorted(values.items()))
    return Family(name=name, help=text, samples=samples, is_counter=is_counter)
