"""What each DAG's tasks do: open the warehouse, call one verb of mautolib, say in one sentence what happened.

The DAG files stay declarations; every decision lives in the library. Returned values are small counts (XCom shows
them), never addresses.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from mauto_airflow import alerts, conventions, moments
from mauto_airflow.warehouse import warehouse
from mautolib.errors import InvalidInput, MautoError, TransientError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mautolib.contacts.imports import Import
    from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)

#: From so many new contacts on, an import indexes them for searching at once (a search looks at 1,000 in 1 ms).
_MANY_CONTACTS = 20_000
_COUNTS = ("created", "updated", "skipped", "rejected", "suppressed")
_FORM_OPTIONS = ("mapping", "update_policy", "preset", "dry_run")
#: So many runs plan and send; further ones only send what people wait for, and so never wait for a slot themselves.
_MOST_AT_WORK = 2
_UNFINISHED = ["scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred"]
#: A task begins no day of a recomputation after so long; its time-out is half an hour.
RECOMPUTING = timedelta(minutes=15)
#: What `maintenance` can be asked to do alone.
MAINTENANCE_TASKS = ("partitions", "search", "retention", "imports", "erasure", "ledger")


def take_imports(params: Mapping[str, Any], run_id: str, outlet: Any) -> dict[str, int]:
    """Run the imports that wait (or the file named in the form), tell each of them, and report the sums."""
    from mautolib.contacts import imports, searching

    totals = {"imports": 0, **dict.fromkeys(_COUNTS, 0)}
    with warehouse() as (engine, settings):
        wanted, finished = _wanted_imports(engine, params, run_id)
        try:
            for done in chain(finished, imports.run_waiting(engine, settings, clock=moments.now, only=wanted)):
                _tell_import(done, settings, outlet)
                totals["imports"] += 1
                for name in _COUNTS:
                    totals[name] += getattr(done, name)
                if wanted and done.status == "failed":
                    raise InvalidInput(f"import {done.import_id} failed: {done.error}")
        except TransientError as error:
            if not totals["imports"]:
                raise
            # What a failed task did is told to nobody; the import that was given back starts a run of its own.
            _LOG.warning("Left to the next run: %s", error)
        if totals["created"] >= _MANY_CONTACTS:
            # They are found before, too, but a search looks at each of them; maintenance would come within the hour.
            searching.extend_index(engine)
    _say("No import was waiting.", totals["imports"], f"Finished {totals['imports']} imports: {totals}.")
    return totals


def _wanted_imports(
    engine: Engine, params: Mapping[str, Any], run_id: str
) -> tuple[list[int] | None, list[Import]]:  # fmt: skip
    """Which imports to run (None: all that wait), and one that an earlier try of this run has finished already."""
    from mautolib.contacts import imports

    if not params.get("path"):
        return ([params["import_id"]] if params.get("import_id") else None), []
    options = {**params["options"], **{key: params[key] for key in _FORM_OPTIONS if params.get(key)}}
    actor = f"airflow:{run_id}"
    with engine.begin() as tx:
        known = imports.asked_for(tx, actor)
        if known is not None and known.status == "completed":
            _LOG.info("This run has imported the file already; trigger the DAG again to import it anew.")
            return [known.import_id], [known]
        if known is not None and known.finished_at is None:
            return [known.import_id], []
        return [imports.request_file(tx, params["path"], options, actor=actor, now=moments.now())], []


def _tell_import(done: Import, settings: Settings, outlet: Any) -> None:
    """One line and one asset event for an import that ended, and where its rejected rows are."""
    counts = {name: getattr(done, name) for name in _COUNTS}
    shown = ", ".join(f"{count} {name}" for name, count in counts.items())
    _LOG.info("Import %s %s: %s. %s", done.import_id, done.status, shown, done.error or "")
    if done.rejected:
        url = f"{settings.public_base_url}/api/v1/imports/{done.import_id}/errors.csv"
        _LOG.info("Rejected rows of import %s: %s", done.import_id, url)
    if done.status == "completed" and not done.options.get("dry_run"):
        told = {"import_id": str(done.import_id), "total_rows": done.total_rows, **counts}
        outlet.add(conventions.CONTACTS, extra=told)


def settle_scores(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settle what all buckets of a run have in common: the moment, and the version of the rules of this moment.

    Returns: the buckets; none for a run that a recomputation started.
    """
    from mautolib.scoring.rules import check_version

    if moments.is_asked_for_by_asset(context):
        return []
    params, as_of = context["params"], moments.as_of(context)
    with warehouse() as (engine, _), engine.begin() as tx:
        version = check_version(tx, params.get("rule_version"))
    _LOG.info("Scores as of %s by version %s of the rules.", as_of.isoformat(), version)
    # Of the past, or by other rules than today's: the current scores stay as they are.
    is_look_back = moments.is_past(context) or bool(params.get("rule_version"))
    common = {"as_of": as_of.isoformat(), "rule_version": version, "is_look_back": is_look_back,
              "buckets": params["buckets"], "dry_run": params["dry_run"]}  # fmt: skip
    return [{"bucket": bucket, **common} for bucket in range(params["buckets"])]


def recalculate_scores(part: Mapping[str, Any]) -> dict[str, Any]:
    """Score one bucket of the contacts as was settled; a dry run returns its matrix of grades."""
    from mautolib import scoring

    as_of, bucket = moments.moment("as_of", part["as_of"]), part["bucket"]
    with warehouse() as (engine, _):
        result = scoring.recalculate(
            engine,
            as_of=as_of,
            bucket=bucket,
            buckets=part["buckets"],
            source="recomputed" if part["is_look_back"] else "nightly",
            known_at=as_of if part["is_look_back"] else None,
            rule_version=part["rule_version"],
            dry_run=part["dry_run"],
        )
    counts = {"scored": result.scored, "changed": result.changed, "moved": result.moved, "snapshots": result.snapshots}
    _say("There is no contact to score.", result.scored, f"Bucket {bucket} as of {as_of:%Y-%m-%d %H:%M} UTC: {counts}.")
    if not part["dry_run"]:
        return counts
    grades = {before or "none": dict(after) for before, after in result.grades.items()}
    _LOG.info("Dry run, nothing written. Grades, stored -> new: %s.", grades)
    return {**counts, "grades": grades}


def publish_scores(results: list[dict[str, Any]], context: Mapping[str, Any], outlet: Any) -> dict[str, Any]:
    """Sum the buckets up and tell the followers which moment was computed."""
    totals: dict[str, Any] = _sum([{name: n for name, n in one.items() if name != "grades"} for one in results])
    outlet.extra = {**totals, "as_of": moments.as_of(context).isoformat()}
    if context["params"]["dry_run"]:
        totals["grades"] = _sum_grades([one.get("grades", {}) for one in results])
        _LOG.info("Grades, stored -> new:\n%s", _matrix(totals["grades"]))
    _say("There is no contact to score.", totals.get("scored", 0), f"Scores: {totals}.")
    return totals


def send_urgent(params: Mapping[str, Any], ti: Any) -> bool:
    """Send what people wait for; returns whether this run has more to do: something is due that not enough are at."""
    from mautolib.campaigns import sending

    if params["dry_run"]:
        return True
    trouble, counts = None, {}
    with warehouse() as (engine, settings):
        try:
            counts = dict(sending.pump(engine, settings, urgent_only=True, budget_seconds=60).counts)
        except MautoError as error:
            trouble = error
        is_due = sending.is_anything_to_do(engine, moments.now())
    goes_on = is_due and _at_work(ti, params["senders"]) < _MOST_AT_WORK
    if trouble is not None:
        if not goes_on:
            raise trouble
        # The senders of this run will meet the same, and say so.
        _LOG.warning("What people wait for is not sent: %s", trouble)
    _say("Nobody waits for a message.", sum(counts.values()), f"Sent at once: {counts}.")
    if not goes_on:
        _LOG.info("Other runs are at the rest." if is_due else "Nothing else is due.")
    return goes_on


def _at_work(ti: Any, senders: int) -> int:
    """How many runs are planning or sending, or wait for a slot to do so."""
    plans, sends = (
        ti.get_ti_count(dag_id=ti.dag_id, task_ids=[name], states=_UNFINISHED) for name in ("plan", "send")
    )
    return int(plans) + -(-int(sends) // senders)


def recompute_scores(params: Mapping[str, Any]) -> dict[str, int]:
    """Work on the recomputations that wait; a long one goes on in the next run."""
    from mautolib.scoring import recomputations

    if params["dry_run"]:
        return {"recomputations": 0}
    with warehouse() as (engine, _):
        worked = recomputations.run_waiting(engine, clock=moments.now, within=RECOMPUTING)
    for one in worked:
        _LOG.info("Recomputation %s of %s to %s is %s: done through %s, %s snapshots. %s", one.recomputation_id,
                  one.from_day, one.to_day, one.status, one.done_through, one.snapshots, one.error or "")  # fmt: skip
    _say("No recomputation was waiting.", len(worked), f"Worked on {len(worked)} recomputations.")
    return {"recomputations": len(worked)}


def _sum_grades(matrices: list[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for matrix in matrices:
        for before, counts in matrix.items():
            totals[before] = _sum([totals.get(before, {}), counts])
    return totals


def _matrix(grades: Mapping[str, Mapping[str, int]]) -> str:
    """Grades as a table: a line for each stored one, a column for each new one."""
    from mautolib.scoring import Grade

    names = [str(grade) for grade in Grade]
    stored = [before for before in (*names, "none") if before in grades]
    lines = [["", *names], *([before, *(str(grades[before].get(after, 0)) for after in names)] for before in stored)]
    return "\n".join("".join(f"{cell:>9}" for cell in line) for line in lines)


def plan_campaigns(params: Mapping[str, Any]) -> list[int]:
    """Plan what is due; returns the shards to run (none for a dry run)."""
    from mautolib.campaigns import planning

    with warehouse() as (engine, settings):
        if params["dry_run"]:
            for due in planning.count_due(engine, settings, moments.now(), campaign_id=params.get("campaign_id")):
                _LOG.info("Campaign %s would mail %s of %s.", due.campaign_id, due.mailable, due.candidates)
            return []
        plans = planning.plan_due(engine, settings, moments.now(), campaign_id=params.get("campaign_id"))
    for plan in plans:
        _LOG.info("Campaign %s planned: %s messages, %s skipped.", plan.campaign_id, plan.queued, plan.skipped)
    return list(range(params["senders"]))


def send_messages(shard: int, params: Mapping[str, Any]) -> dict[str, int]:
    """Run one sender for at most five minutes."""
    from mautolib.campaigns import sending

    with warehouse() as (engine, settings):
        result = sending.pump(
            engine, settings, shard=shard, shards=params["senders"], group_size=params["group_size"], budget_seconds=300
        )
    counts: dict[str, int] = dict(result.counts)
    _say("Nothing was due.", sum(counts.values()), f"Sender {shard}: {counts}.")
    return counts


def finish_campaigns(results: list[dict[str, int]], outlet: Any) -> dict[str, int]:
    """Decide A/B tests whose deadline is over, close campaigns that have nothing left and bring totals up to date."""
    from mautolib.campaigns import experiment_steps, finishing

    totals = _sum(results)
    with warehouse() as (engine, settings):
        steps = experiment_steps.step(engine, settings, moments.now())
        finished = finishing.finish(engine, moments.now())
    totals |= {"campaigns_finished": len(finished), "tests_decided": steps.decided, "tests_released": steps.released}
    outlet.extra = totals
    _say("There was nothing to send.", sum(totals.values()), f"All senders: {totals}.")
    return totals


def dispatch_events(params: Mapping[str, Any]) -> dict[str, int]:
    """Let new events take effect."""
    from mautolib import dispatch

    with warehouse() as (engine, settings):
        if params["dry_run"]:
            would = dispatch.rehearse(engine, settings, now=moments.now())
            _say("No new events.", would.events, f"Would dispatch {would.events} events or more; would enter, by "
                 f"workflow: {dict(would.entering)}; would leave: {would.exited}.")  # fmt: skip
            return {"events": 0}
        result = dispatch.run(engine, settings, now=moments.now())
    _say("No new events.", result.events, f"Dispatched {result.events} events: {result.enrolled} enrolled.")
    return {"events": result.events, "enrolled": result.enrolled}


def evaluate_segments(params: Mapping[str, Any]) -> dict[str, int]:
    """Bring the members of segments up to date that were asked for or are due again."""
    from mautolib import segments

    with warehouse() as (engine, settings):
        if params["dry_run"]:
            due = segments.count_due(engine, now=moments.now())
            _say("No segment was due.", due, f"Would evaluate {due} segments.")
            return {"segments": 0}
        result = segments.evaluate_due(engine, settings, now=moments.now())
    counts = {"segments": result.evaluated, "joined": result.joined, "left": result.left, "failed": result.failed}
    _say("No segment was due.", result.evaluated + result.failed, f"Evaluated segments: {counts}.")
    return counts


def advance_workflows(params: Mapping[str, Any], outlet: Any) -> dict[str, int]:
    """Move every enrollment that is due, and every run of a rule whose wait is over."""
    from mautolib import automations, workflows

    with warehouse() as (engine, settings):
        now, dry_run = moments.now(), params["dry_run"]
        arrived = workflows.arrive(engine, settings, now=now, dry_run=dry_run)
        result = workflows.advance(engine, settings, now=now, workflow_id=params.get("workflow_id"), dry_run=dry_run)
        if dry_run:
            _tell_ways(arrived.total, result)
        rules = automations.RuleResult()
        if not params["dry_run"] and params.get("workflow_id") is None:
            rules = automations.resume(engine, settings, now=moments.now())
    counts = {
        "entered": arrived.total, "moved": result.moved, "messages": result.messages, "completed": result.completed,
        "rules": rules.executed,
    }  # fmt: skip
    outlet.extra = counts
    _say("No enrollment was due.", sum(counts.values()), f"Advanced enrollments: {counts}.")
    return counts


def _tell_ways(entering: int, would: Any) -> None:
    _LOG.info("would enter by the clock: %d; would move: %d", entering, would.moved)
    for due in would.due:
        _LOG.info("would move %d from step %s of workflow %d, version %d",
                  due.count, due.step_path, due.workflow_id, due.version)  # fmt: skip
    for way in would.ways:
        _LOG.info("of the first ones: %d from step %s of workflow %d, version %d, to %s",
                  way.count, way.step_path, way.workflow_id, way.version, way.to)  # fmt: skip


def refresh_analytics(context: Mapping[str, Any], outlet: Any) -> dict[str, int]:
    """Bring the tables of schema `analytics` up to date."""
    from mautolib import analytics

    params, as_of = context["params"], moments.as_of(context)
    with warehouse() as (engine, settings):
        with engine.begin() as tx:
            windows = {"click_days": settings.attribution_click_days, "open_days": settings.attribution_open_days}
            analytics.orders.keep_windows(tx, **windows)
            analytics.refreshing.keep_timezone(tx, settings.reporting_timezone)
        first, last = _day(params.get("from")), _day(params.get("to"))
        counts = analytics.refreshing.refresh(
            engine, as_of=as_of, from_=first, to=last, rebuild=params["rebuild"]
        )
    outlet.extra = counts
    _say("There is nothing to count yet.", sum(counts.values()), f"Rows written: {counts}.")
    return counts


def keep_in_order(params: Mapping[str, Any]) -> dict[str, int]:
    """Partitions ahead, retention, erasures, and about once a day the ledger check."""
    from mautolib import maintenance

    with warehouse() as (engine, settings):
        counts: dict[str, int] = maintenance.run(engine, settings, now=moments.now(), task=params.get("task"))
    _say("Everything was in order.", sum(counts.values()), f"Maintenance: {counts}.")
    return counts


def process_feedback(params: Mapping[str, Any], outlet: Any) -> dict[str, int]:
    """Read the bounce mailbox, apply notices, settle doubts, and judge hits again where asked."""
    from mautolib import feedback

    with warehouse() as (engine, settings):
        again = _judge_again(engine, params)
        done = feedback.process(engine, settings, now=moments.now())
    counts = {
        "mails": done.mails.stored, "quarantined": done.mails.quarantined, "applied": done.applied,
        "parked": done.parked, "ignored": done.ignored, "settled": done.settled, "suppressed": done.suppressed,
        "broken": done.broken, **again,
    }  # fmt: skip
    outlet.extra = counts
    _say("No feedback had come in.", sum(counts.values()), f"Feedback: {counts}.")
    return counts


def deliver_webhooks(params: Mapping[str, Any]) -> dict[str, int]:
    """Deliver what is due for at most five minutes, and name the endpoints that were disabled."""
    from mautolib.webhooks import delivery

    with warehouse() as (engine, settings):
        done = delivery.run(engine, settings, endpoint_id=params.get("endpoint_id"), budget_seconds=300)
    counts = {"facts": done.facts, "told": done.made, "succeeded": done.succeeded, "failed": done.failed,
              "dead": done.dead, "disabled": len(done.disabled)}  # fmt: skip
    _say("Nothing was due.", sum(counts.values()), f"Webhooks: {counts}.")
    if done.disabled:
        alerts.report_disabled(done.disabled)
    return counts


def _judge_again(engine: Engine, params: Mapping[str, Any]) -> dict[str, int]:
    """The verdicts that changed since the day in the form; nothing without one."""
    from mautolib import feedback

    if not params.get("recompute_verdicts"):
        return {}
    since = datetime.combine(date.fromisoformat(params["recompute_verdicts"]), time(), UTC)
    found = feedback.recompute(engine, since=since, now=moments.now())
    _LOG.info("Judged %s hits since %s again: %s verdicts of %s campaigns changed.",
              found.judged, params["recompute_verdicts"], found.changed, found.campaigns)  # fmt: skip
    return {"judged": found.judged, "changed": found.changed}


def _sum(results: list[dict[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for result in results:
        for name, count in result.items():
            totals[name] = totals.get(name, 0) + count
    return totals


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _say(nothing: str, count: int, something: str) -> None:
    _LOG.info(something if count else nothing)
