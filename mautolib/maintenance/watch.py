"""The watchdog: what waits longer than it should, which DAG is late, which proof is missing or bad.

Promise: `CHECKS` is the one list; each says how long is too long, which command shows or ends it, and where the
runbook is. Looking changes nothing and reads indexes of open work only. `mend` does just what is safe for anybody to do
at any time: it returns leases that ran out, and makes partitions. Called by the DAG `feedback_processing`, the command
line and `/metrics`; telling somebody is the business of `alerts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine

from mautolib.db.statements import statement
from mautolib.errors import Misconfigured
from mautolib.ledger.settle import expire_leases
from mautolib.maintenance.ledger_proof import LEDGER_CHECK
from mautolib.maintenance.tasks import Task, run
from mautolib.settings import Settings

__all__ = ["BACKUP", "CHECKS", "DAGS", "KINDS", "LEDGER_CHECK", "Check", "Finding", "Seen", "findings", "look", "mend"]

#: The component whose heartbeat proves that a backup was made.
BACKUP: Final = "backup"
_RUNBOOK: Final = "docs/operations.md"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that can be stuck. `after`: how long is too long; `advice`: the command, or where to look."""

    name: str
    what: str
    after: timedelta
    advice: str
    anchor: str = "watchdog"

    @property
    def runbook(self) -> str:
        """Where the operator reads on."""
        return f"{_RUNBOOK}#{self.anchor}"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one check saw: how many rows are stuck, and since when the oldest is; nothing stuck: 0 and None."""

    check: Check
    row_count: int
    since: datetime | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something an operator should know. `is_sure`: true at first sight; else only when it is seen a second time."""

    name: str
    summary: str
    advice: str
    row_count: int = 1
    is_sure: bool = True


def _check(name: str, minutes: int, what: str, advice: str, anchor: str = "watchdog") -> Check:
    return Check(name=name, what=what, after=timedelta(minutes=minutes), advice=advice, anchor=anchor)


_RUNS: Final = "look at the runs of {} in Airflow; `mauto doctor` says whether Airflow lives"
CHECKS: Final = (
    _check("imports_waiting", 30, "imports that nobody works on", _RUNS.format("contact_import"), "after-a-crash"),
    _check("campaigns_unplanned", 15, "campaigns that are due and not planned", _RUNS.format("campaign_send")),
    _check("campaigns_without_progress", 60, "campaigns with mail that is due and does not leave",
           "`mauto campaign list`; `mauto doctor` asks the mail server", "when-something-is-wrong"),
    _check("messages_overdue", 15, "mails of workflows, rules and shops that are due and do not leave",
           _RUNS.format("campaign_send"), "when-something-is-wrong"),
    _check("messages_in_flight", 30, "messages in the hands of a sender that is gone", "`mauto watch --mend`",
           "after-a-crash"),
    _check("messages_in_doubt", 60, "messages that may or may not have been accepted", "`mauto unknown list`",
           "when-something-is-wrong"),
    _check("tests_undecided", 60, "A/B tests past their deadline without a decision", _RUNS.format("campaign_send")),
    _check("events_without_effect", 15, "events without effect", _RUNS.format("workflow_advance")),
    _check("enrollments_overdue", 30, "people in workflows whose step is due", _RUNS.format("workflow_advance")),
    _check("rules_overdue", 30, "runs of rules whose wait is over", _RUNS.format("workflow_advance")),
    _check("segments_overdue", 60, "segments whose evaluation is due", _RUNS.format("workflow_advance")),
    _check("facts_untold", 30, "facts that no webhook was told", _RUNS.format("webhook_delivery")),
    _check("deliveries_overdue", 60, "deliveries of webhooks whose attempt is due", _RUNS.format("webhook_delivery")),
    _check("notices_unapplied", 60, "notices of the provider that nobody applied",
           _RUNS.format("feedback_processing")),
    _check("notices_parked", 1440, "notices that wait for their message",
           "another system may send through the same account; they are given up after three days"),
    _check("erasures_unfinished", 180, "erasures that are not carried out", _RUNS.format("maintenance")),
    _check("recomputations_waiting", 60, "recomputations of scores that nobody works on",
           _RUNS.format("score_recalculation")),
    _check("tables_not_refreshed", 180, "tables for analysts that were not refreshed",
           _RUNS.format("cohort_analytics")),
    _check("sending_off", 15, "sending is switched off", "`mauto sending status`, then `mauto sending on`",
           "backup-and-restore"),
)  # fmt: skip

#: How old the last good end of each DAG may be: its schedule, its longest ordinary run and some patience.
DAGS: Final[Mapping[str, timedelta]] = {
    "contact_import": timedelta(hours=3),
    "campaign_send": timedelta(minutes=45),
    "workflow_advance": timedelta(minutes=45),
    "webhook_delivery": timedelta(minutes=45),
    "feedback_processing": timedelta(minutes=30),
    "cohort_analytics": timedelta(hours=3),
    "maintenance": timedelta(hours=3),
    "score_recalculation": timedelta(hours=27),
}
#: The first words of the findings that `findings` finds; what begins otherwise is opened and closed elsewhere.
KINDS: Final = ("stuck", "dag_late", "backup", "ledger")


def look(tx: Connection, settings: Settings, *, now: datetime) -> list[Seen]:
    """Ask every check.

    Raises:
        Misconfigured: MAUTO_WATCH_MINUTES names no check, or no number.
    """
    own = _own_minutes(settings)
    seen = []
    for check in CHECKS:
        before = now - own.get(check.name, check.after)
        row = tx.execute(statement(f"watch.{check.name}"), {"before": before}).one()
        seen.append(Seen(check=check, row_count=int(row.row_count), since=row.since))
    return seen


def dag_ages(tx: Connection, *, now: datetime) -> dict[str, timedelta]:
    """Since when each DAG has had no run that ended well."""
    rows = tx.execute(statement("watch.dag_beats"), {"dags": list(DAGS)})
    return {row.dag: max(timedelta(), now - row.beat_at) for row in rows}


def findings(tx: Connection, settings: Settings, *, now: datetime) -> list[Finding]:
    """Everything that is not as it should be, as far as the database knows.

    Raises:
        Misconfigured: MAUTO_WATCH_MINUTES names no check, or no number.
    """
    found = [
        Finding(
            name=f"stuck.{seen.check.name}", summary=_sentence(seen, now), row_count=seen.row_count, is_sure=False,
            advice=f"{seen.check.advice} ({seen.check.runbook})",
        )
        for seen in look(tx, settings, now=now) if seen.row_count
    ]  # fmt: skip
    for dag, age in dag_ages(tx, now=now).items():
        if age > DAGS[dag]:
            found.append(Finding(
                name=f"dag_late.{dag}", summary=f"the DAG {dag} has not ended well for {_span(age)}",
                advice=f"{_RUNS.format(dag)}; is it paused? ({_RUNBOOK}#watchdog)",
            ))  # fmt: skip
    return [*found, *_proofs(tx, settings, now)]


def mend(engine: Engine, settings: Settings, *, now: datetime) -> dict[str, int]:
    """Do what is safe whoever does it and when: returns how many `leases` became doubts and `partitions` were made."""
    with engine.begin() as tx:
        leases = expire_leases(tx)
    made = run(engine, settings, now=now, task=Task.PARTITIONS)
    return {"leases": leases, "partitions": made["partitions"]}


def _proofs(tx: Connection, settings: Settings, now: datetime) -> list[Finding]:
    found = []
    hours = settings.backup_max_age_hours
    backup = tx.execute(statement("watch.beat_of"), {"component": BACKUP}).one_or_none()
    if hours and (backup is None or now - backup.beat_at > timedelta(hours=hours)):
        age = "there is none" if backup is None else f"the last one is {_span(now - backup.beat_at)} old"
        found.append(Finding(name="backup.old", summary=f"no backup within {hours} hours: {age}",
                             advice=f"`mauto backup FILE` ({_RUNBOOK}#backup-and-restore)"))  # fmt: skip
    ledger = tx.execute(statement("watch.beat_of"), {"component": LEDGER_CHECK}).one_or_none()
    if ledger is not None and ledger.detail.get("findings"):
        count = int(ledger.detail["findings"])
        found.append(Finding(name="ledger.unclean", summary=f"the last check of the send ledger had {count} findings",
                             advice=f"`mauto ledger check` ({_RUNBOOK}#watchdog)", row_count=count))  # fmt: skip
    return found


def _own_minutes(settings: Settings) -> dict[str, timedelta]:
    known, own = {check.name for check in CHECKS}, {}
    for item in settings.watch_minutes:
        name, _, minutes = item.partition("=")
        if name not in known or not minutes.isdecimal() or not 1 <= int(minutes[:9]) <= 100_000:
            raise Misconfigured(f"MAUTO_WATCH_MINUTES has {item!r}; it takes name=minutes, a name of `mauto watch`")
        own[name] = timedelta(minutes=int(minutes))
    return own


def _sentence(seen: Seen, now: datetime) -> str:
    since = f", since {_span(now - seen.since)}" if seen.since is not None else ""
    return f"{seen.check.what}: {seen.row_count}{since}"


def _span(age: timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"
