"""The watchdog: every check sees its own stuck rows once they are overdue and not before, and mends what is safe."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import maintenance
from mautolib.errors import Misconfigured
from mautolib.maintenance import gauges, watch
from mautolib.settings import Settings
from tests.architecture.source import ROOT
from tests.integration.mailing import add_campaign, launched

AT = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
_MESSAGE = """insert into messages (contact_id, content_id, dedupe_key, due_at, give_up_at, kind, campaign_id, status,
    queued_at, next_try_at, attempt_id, lease_until)
    values (7, (select max(content_id) from message_contents), 'k', :at, :at, '{}', {}, '{}', :at, :at, {}, {})"""
_SENDING = "update campaigns set status = 'sending', requested_at = :at, planned_at = :at;"
_ENDPOINT = "insert into webhook_endpoints (url, secret_encrypted) values ('https://w.example', '');"
#: What makes one row stuck since `:at`.
PLANTED = {
    "imports_waiting": "insert into imports (storage_uri, status, attempt_id, lease_until, started_at) "
                       "values ('/x', 'running', 1, :at, :at)",
    "campaigns_unplanned": "update campaigns set status = 'sending', requested_at = :at, planned_at = null",
    "campaigns_without_progress": _SENDING + _MESSAGE.format(
        "campaign", "(select campaign_id from campaigns)", "queued", "null", "null"),
    "messages_overdue": _MESSAGE.format("workflow", "null", "queued", "null", "null"),
    "messages_in_flight": _MESSAGE.format("workflow", "null", "sending", "5", ":at"),
    "messages_in_doubt": _MESSAGE.format("workflow", "null", "unknown", "5", "null") + """;
        insert into message_attempts (contact_id, message_id, attempt_no, attempt_id, claimed_at, recorded_at, outcome)
        select contact_id, message_id, 1, 5, :at, :at, 'unknown' from messages""",
    "tests_undecided": """insert into ab_tests (campaign_id, name, status, started_at, planned_at, planned_occurrence,
        last_handover_at, deadline_at) select campaign_id, 't', 'running', :at, :at, 0, :at, :at from campaigns""",
    "events_without_effect": """insert into events (contact_id, occurred_at, received_at, event_type)
        values (7, timestamptz '2026-01-01', :at, 'page_viewed');
        insert into event_pending (bucket, occurred_at, first_event_id, event_ids, event_count)
        select 7, occurred_at, event_id, array[event_id], 1 from events where contact_id = 7""",
    "enrollments_overdue": """insert into enrollments (workflow_id, version, contact_id, entry_key, resume_at,
        caused_at, entered_at) values (1, 1, 7, 'k', :at, :at, :at)""",
    "rules_overdue": """insert into automation_waits (log_id, rule_id, resume_at, next_action, actions, depth,
        begun_at) values (1, 1, :at, 1, '[]', 0, :at)""",
    "segments_overdue": "insert into segments (name, evaluation_due_at) values ('s', :at)",
    "facts_untold": _ENDPOINT + """insert into outbox (event_name, occurred_at, data, created_at)
        values ('contact.created', :at, '{}', :at)""",
    "deliveries_overdue": _ENDPOINT + """insert into webhook_deliveries (endpoint_id, event_type, webhook_message_id,
        payload, next_attempt_at, created_at)
        select endpoint_id, 'x', 'm', '{}', :at, :at from webhook_endpoints""",
    "notices_unapplied": "insert into provider_notices (source, external_id, body, received_at, next_look_at) "
                         "values ('ses', 'n', '{}', :at, :at)",
    "notices_parked": "insert into provider_notices (source, external_id, body, status, received_at, next_look_at) "
                      "values ('ses', 'n', '{}', 'parked', :at, '2036-01-01')",
    "erasures_unfinished": "insert into erasures (contact_id, requested_by, requested_at, next_try_at) "
                           "values (7, 't', :at, :at)",
    "recomputations_waiting": "insert into score_recomputations (from_day, to_day, rule_version, due_at, created_at) "
                              "values ('2026-01-01', '2026-01-01', 1, :at, :at)",
    "tables_not_refreshed": "insert into rollups.states (table_name, snapshot, as_of, row_count, seconds, refreshed_at)"
                            " values ('t', pg_current_snapshot(), :at, 0, 0, :at)",
    "sending_off": "update installation set sending_enabled = false, reason = 'x', changed_at = :at",
}  # fmt: skip


def counts(tx: Connection, settings: Settings, now: datetime) -> dict[str, int]:
    return {seen.check.name: seen.row_count for seen in watch.look(tx, settings, now=now)}


def plant(tx: Connection, name: str) -> None:
    """One row of work since `AT`, whatever it refers to."""
    tx.execute(text("insert into message_contents (subject, html_body) values ('s', 'h')"))
    add_campaign(tx)
    for each in PLANTED[name].split(";"):
        tx.execute(text(each), {"at": AT} if ":at" in each else {})


def test_every_check_is_proven_here_and_explained_to_the_operator() -> None:
    names = [check.name for check in watch.CHECKS]
    assert sorted(PLANTED) == sorted(names) and len(set(names)) == len(names)
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    anchors = {re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-")
               for line in guide.splitlines() if line.startswith("## ")}  # fmt: skip
    for check in watch.CHECKS:
        assert check.anchor in anchors, f"{check.runbook} leads nowhere"
        minutes = int(check.after.total_seconds() // 60)
        assert f"| `{check.name}` | {minutes} |" in guide, "docs/operations.md names every check and its minutes"


@pytest.mark.parametrize("name", PLANTED)
def test_a_check_sees_what_is_overdue_and_nothing_before(tx: Connection, settings: Settings, name: str) -> None:
    after = next(check.after for check in watch.CHECKS if check.name == name)
    before = counts(tx, settings, AT + after + timedelta(minutes=1))
    plant(tx, name)
    assert counts(tx, settings, AT + after - timedelta(minutes=1))[name] == before[name] == 0
    seen = counts(tx, settings, AT + after + timedelta(minutes=1))
    assert {each for each, count in seen.items() if count != before[each]} - {"campaigns_unplanned"} <= {
        name, "notices_parked", "notices_unapplied"}  # fmt: skip
    assert seen[name] == 1


def test_a_campaign_that_its_pace_holds_back_or_that_moves_is_not_stuck(tx: Connection, settings: Settings) -> None:
    late = AT + timedelta(hours=2)
    plant(tx, "campaigns_without_progress")
    assert counts(tx, settings, late)["campaigns_without_progress"] == 1
    tx.execute(text("update installation set sending_enabled = false, reason = 'x'"))
    assert counts(tx, settings, late)["campaigns_without_progress"] == 0
    tx.execute(text("update installation set sending_enabled = true"))
    tx.execute(text("""update messages set status = 'sent', sent_at = :at where contact_id = 7"""),
               {"at": late - timedelta(minutes=5)})  # fmt: skip
    tx.execute(text(_MESSAGE.replace("'k'", "'l'").format(
        "campaign", "(select campaign_id from campaigns)", "queued", "null", "null")), {"at": AT})  # fmt: skip
    assert counts(tx, settings, late)["campaigns_without_progress"] == 0


@pytest.mark.parametrize("name", ["campaigns_without_progress", "messages_overdue"])
def test_mail_that_a_server_puts_off_again_and_again_waits_since_it_was_due(
    tx: Connection, settings: Settings, name: str
) -> None:
    plant(tx, name)
    late = AT + timedelta(hours=2)
    for changes, count in (
        ("next_try_at = :soon", 1),
        ("next_try_at = :soon, attempt_no = 1", 0),  # refused for now: that is the receiver's wish
        ("next_try_at = :soon, attempt_no = 0, held_for = 'window'", 0),
    ):
        tx.execute(text(f"update messages set {changes}"), {"soon": late + timedelta(minutes=10)})
        assert counts(tx, settings, late)[name] == count, changes


def test_minutes_may_be_set_and_a_wrong_name_is_refused(tx: Connection, settings: Settings) -> None:
    plant(tx, "segments_overdue")
    now = AT + timedelta(minutes=90)
    assert counts(tx, settings, now)["segments_overdue"] == 1
    patient = replace(settings, watch_minutes=("segments_overdue=120",))
    assert counts(tx, patient, now)["segments_overdue"] == 0
    for wrong in ("segment=5", "segments_overdue", "segments_overdue=soon", "segments_overdue=0"):
        with pytest.raises(Misconfigured, match="MAUTO_WATCH_MINUTES"):
            watch.look(tx, replace(settings, watch_minutes=(wrong,)), now=now)


def test_it_returns_a_lease_that_ran_out_and_makes_partitions(fresh_engine: Engine, settings: Settings) -> None:
    now = datetime.now(UTC)
    launched(fresh_engine, settings, 2, now=now)
    with fresh_engine.begin() as tx:
        tx.execute(text("""update messages set status = 'sending', attempt_id = nextval('attempt_ids'),
            lease_until = now() + case when contact_id % 2 = 0 then interval '5 min' else interval '-5 min' end"""))
    assert watch.mend(fresh_engine, settings, now=now)["leases"] == 1
    assert watch.mend(fresh_engine, settings, now=now) == {"leases": 0, "partitions": 0}
    with fresh_engine.begin() as tx:
        assert sorted(tx.scalars(text("select status from messages"))) == ["sending", "unknown"]


def test_a_dag_is_late_when_its_last_good_run_is_older_than_its_schedule_allows(
    tx: Connection, settings: Settings
) -> None:
    now = datetime.now(UTC)
    fresh = [one.name for one in watch.findings(tx, settings, now=now) if one.name.startswith("dag_late")]
    assert fresh == [], "just installed"
    late = now + timedelta(hours=4)
    for dag in watch.DAGS:
        maintenance.heartbeat(tx, f"airflow.{dag}", late if dag != "maintenance" else now)
    found = [one for one in watch.findings(tx, settings, now=late) if one.name.startswith("dag_late")]
    assert [(one.name, one.summary) for one in found] == [
        ("dag_late.maintenance", "the DAG maintenance has not ended well for 4 h")]  # fmt: skip
    families = {family.name: family for family in gauges.collect(tx, settings, now=late)}
    lag = {labels["dag"]: value for labels, value in families["mauto_dag_lag_seconds"].samples}
    assert lag.pop("maintenance") == 3600 and set(lag.values()) == {0}
    ages = {labels["dag"]: value for labels, value in families["mauto_dag_last_success_age_seconds"].samples}
    assert ages["maintenance"] == 4 * 3600 and ages["campaign_send"] == 0


def test_a_backup_too_old_and_an_unclean_ledger_are_findings(tx: Connection, settings: Settings) -> None:
    now = datetime.now(UTC)
    daily = replace(settings, backup_max_age_hours=24)

    def found() -> set[str]:
        return {one.name for one in watch.findings(tx, daily, now=now)} & {"backup.old", "ledger.unclean"}

    assert found() == {"backup.old"}
    maintenance.heartbeat(tx, watch.BACKUP, now - timedelta(hours=23))
    assert found() == set()
    maintenance.heartbeat(tx, watch.LEDGER_CHECK, now - timedelta(minutes=2), {"findings": 3})
    assert found() == {"ledger.unclean"}
    maintenance.heartbeat(tx, watch.LEDGER_CHECK, now, {"findings": 0})
    assert found() == set()


@pytest.mark.parametrize("role", ["mauto_api", "mauto_worker"])
def test_the_roles_of_service_and_workers_may_look(tx: Connection, settings: Settings, role: str) -> None:
    now = datetime.now(UTC)
    tx.execute(text(f"set local role {role}"))
    families = {family.name for family in gauges.collect(tx, settings, now=now)}
    assert {"mauto_dag_lag_seconds", "mauto_alerts_open"} <= families
    assert {family.name for family in gauges.watchdog(tx, settings, now=now)} == {
        "mauto_stuck", "mauto_stuck_oldest_seconds"}  # fmt: skip
