"""Every DAG really runs, against a real warehouse: on nothing, on something, and again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib import recipes, segments, workflows
from mautolib.contacts import NewContact, confirmation, create
from mautolib.segments import NewSegment
from mautolib.segments.rules import Definition
from mautolib.templates.confirmation import confirmation_mail

ALL = ("contact_import", "score_recalculation", "campaign_send", "workflow_advance", "cohort_analytics", "maintenance",
       "feedback_processing", "webhook_delivery")  # fmt: skip


def scalar(engine: Engine, sql: str) -> Any:
    with engine.connect() as connection:
        return connection.scalar(text(sql))


@pytest.mark.parametrize("dag_id", ALL)
def test_a_run_on_an_empty_warehouse_says_there_was_nothing_to_do(run_dag: Any, dag_id: str) -> None:
    assert run_dag(dag_id).state == "success"


def test_an_import_takes_a_file_once(run_dag: Any, fresh_engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "contacts.csv"
    path.write_text("E-Mail;Vorname\nanna@shop.example;Anna\nbroken;Bo\nANNA@shop.example;Again\n", encoding="utf-8")
    assert run_dag("contact_import", path=str(path), mapping={"Vorname": "first_name"}).state == "success"
    assert run_dag("contact_import", path=str(path), mapping={"Vorname": "first_name"}).state == "success"
    with fresh_engine.connect() as connection:
        rows = connection.execute(
            text("select status, total_rows, created, updated, skipped, rejected from imports order by import_id")
        ).all()
        assert [tuple(row) for row in rows] == [("completed", 3, 1, 0, 2, 1), ("completed", 3, 0, 0, 3, 1)]
        found = connection.execute(text("select email, first_name from contacts")).all()
        assert found == [("anna@shop.example", "Anna")]


def test_a_file_that_cannot_be_read_fails_the_run_at_once(run_dag: Any, fresh_engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "contacts.csv"
    path.write_text("name,colour\nanna,red\n", encoding="utf-8")
    run = run_dag("contact_import", path=str(path))
    assert run.state == "failed"
    (task,) = run.get_task_instances()
    assert (task.state, task.try_number) == ("failed", 1), "no retry: the input is wrong"
    assert "email" in scalar(fresh_engine, "select error from imports")
    assert scalar(fresh_engine, "select count(*) from contacts") == 0


def test_scores_of_a_moment_are_the_same_however_often(run_dag: Any, fresh_engine: Engine, settings: Any) -> None:
    now = datetime.now(UTC)
    with fresh_engine.begin() as tx:
        create(tx, NewContact(email="anna@shop.example", first_name="Anna"), actor="test", now=now - timedelta(days=3))
    as_of = now.replace(microsecond=0).isoformat()
    assert run_dag("score_recalculation", as_of=as_of).state == "success"
    first = scalar(fresh_engine, "select array_agg(total_score order by contact_id) from score_history")
    assert run_dag("score_recalculation", as_of=as_of).state == "success"
    assert scalar(fresh_engine, "select array_agg(total_score order by contact_id) from score_history") == first
    assert first == [8.0], "4 for the address and 4 for the first name"


def test_other_rules_leave_the_current_scores_alone(run_dag: Any, fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        create(tx, NewContact(email="anna@shop.example"), actor="test", now=datetime.now(UTC) - timedelta(days=3))
    assert run_dag("score_recalculation", rule_version=1).state == "success"
    assert scalar(fresh_engine, "select array_agg(source || rule_version) from score_history") == ["recomputed1"]
    assert scalar(fresh_engine, "select count(*) from contact_scores") == 0
    assert run_dag("score_recalculation", rule_version=99).state == "failed"


def test_a_dry_run_returns_the_grades_and_writes_nothing(run_dag: Any, fresh_engine: Engine) -> None:
    now = datetime.now(UTC)
    with fresh_engine.begin() as tx:
        for number in range(3):
            create(tx, NewContact(email=f"c{number}@shop.example"), actor="test", now=now - timedelta(days=3))
    run = run_dag("score_recalculation", as_of=(now - timedelta(days=1)).isoformat(), dry_run=True)
    (told,) = [each.xcom_pull(task_ids="publish") for each in run.get_task_instances() if each.task_id == "publish"]
    assert (told["scored"], told["snapshots"], told["grades"]) == (3, 0, {"none": {"F": 3}})
    assert scalar(fresh_engine, "select count(*) from score_history") == 0


def test_all_buckets_of_a_run_use_the_rules_it_began_with(
    run_dag: Any, fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mautolib import scoring

    with fresh_engine.begin() as tx:
        for number in range(2):
            create(tx, NewContact(email=f"c{number}@shop.example"), actor="test", now=datetime.now(UTC))
    real = scoring.recalculate

    def edited_meanwhile(engine: Engine, **options: Any) -> Any:
        result = real(engine, **options)
        with engine.begin() as tx:
            scoring.create_rule(tx, scoring.NewRule(name="New", event_type="x"), actor="test", now=datetime.now(UTC))
        return result

    monkeypatch.setattr(scoring, "recalculate", edited_meanwhile)
    assert run_dag("score_recalculation", buckets=2).state == "success"
    assert scalar(fresh_engine, "select max(version) from scoring_rule_versions") == 3
    assert scalar(fresh_engine, "select array_agg(rule_version) from score_runs") == [1, 1]


def test_a_confirmed_sign_up_is_welcomed(run_dag: Any, fresh_engine: Engine, settings: Any) -> None:
    queued = "select array_agg(kind || ' ' || status order by message_id) from messages"
    now = datetime.now(UTC)
    with fresh_engine.begin() as tx:
        recipes.load(tx, settings, recipes.recipe("welcome-series"), activate=True, now=now)
        anna = create(tx, NewContact(email="anna@shop.example", subscribed=False), actor="test", now=now)
        mail, _ = confirmation_mail(tx, settings, language="en")
        asked = confirmation.ask(tx, anna.contact_id, mail, actor="test", now=now)
    assert run_dag("workflow_advance").state == "success"
    assert scalar(fresh_engine, queued) == ["confirmation queued"]
    with fresh_engine.begin() as tx:
        confirmation.confirm(tx, anna.contact_id, asked.message_id, now=datetime.now(UTC))
    assert run_dag("workflow_advance").state == "success"
    assert scalar(fresh_engine, "select count(*) from event_pending") == 0
    assert scalar(fresh_engine, queued) == ["confirmation queued", "workflow queued"]
    assert scalar(fresh_engine, "select status || ' at ' || step_path from enrollments") == "waiting at 0.then.1"


def test_a_pending_segment_is_made_ready_and_who_joins_enters_a_workflow(
    run_dag: Any, fresh_engine: Engine, settings: Any
) -> None:
    now = datetime.now(UTC)
    rule = {"field": "country", "operator": "eq", "value": "PT"}
    with fresh_engine.begin() as tx:
        made = segments.create(tx, settings, NewSegment(name="Portuguese", definition=Definition(rules=(rule,))),
                               now=now)  # fmt: skip
        where = {"event_type": "segment_entered", "where": {"segment_id": str(made.segment_id)}}
        new = workflows.NewWorkflow(name="Hello", trigger_type="event", trigger_config=where, active=True,
                                    steps=[{"type": "delay", "hours": 1}])  # fmt: skip
        workflows.create(tx, new, actor="test", now=now)
        create(tx, NewContact(email="anna@shop.example", country="PT"), actor="test", now=now)
        create(tx, NewContact(email="ben@shop.example", country="ES"), actor="test", now=now)
        segments.request(tx, made.segment_id, now=now)
    assert run_dag("workflow_advance", dry_run=True).state == "success"
    assert scalar(fresh_engine, "select evaluation_status from segments") == "pending", "a dry run changes nothing"
    assert run_dag("workflow_advance").state == "success"
    assert scalar(fresh_engine, "select evaluation_status from segments") == "ready"
    assert scalar(fresh_engine, "select count(*) from segment_memberships") == 1
    assert run_dag("workflow_advance").state == "success"
    inside = "select array_agg(email) from enrollments join contacts using (contact_id)"
    assert scalar(fresh_engine, inside) == ["anna@shop.example"]


def test_cohorts_count_the_contacts_of_a_week(run_dag: Any, fresh_engine: Engine) -> None:
    now = datetime.now(UTC)
    with fresh_engine.begin() as tx:
        for number in range(3):
            create(tx, NewContact(email=f"c{number}@shop.example"), actor="test", now=now)
    assert run_dag("cohort_analytics").state == "success"
    sizes = "select distinct cohort_size from analytics.contact_cohorts where granularity = 'week'"
    assert scalar(fresh_engine, sizes) == 3
    assert scalar(fresh_engine, "select count(*) from analytics.lifecycle_funnel") == 0, "nobody was scored"


def test_the_lake_is_written_where_one_is_set(
    run_dag: Any, fresh_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_engine.begin() as tx:
        create(tx, NewContact(email="c@shop.example"), actor="test", now=datetime.now(UTC))
    monkeypatch.setenv("MAUTO_LAKE_TARGET", str(tmp_path / "lake"))
    assert run_dag("cohort_analytics").state == "success"
    assert (tmp_path / "lake/_SUCCESS").exists()
    assert (tmp_path / "lake/dim_contacts/part-0.parquet").exists()
    monkeypatch.setenv("MAUTO_LAKE_TARGET", "relative/folder")
    run = run_dag("cohort_analytics")
    assert {one.task_id: one.state for one in run.get_task_instances()} == {"refresh": "success", "export": "failed"}


def test_analytics_follow_the_scores(run_dag: Any, fresh_engine: Engine) -> None:
    now = datetime.now(UTC)
    with fresh_engine.begin() as tx:
        create(tx, NewContact(email="c@shop.example"), actor="test", now=now - timedelta(days=3))
    for days in (2, 1):
        assert run_dag("score_recalculation", as_of=(now - timedelta(days=days)).isoformat()).state == "success"
    assert run_dag("cohort_analytics").state == "success"
    days = "select array_agg(distinct as_of order by as_of) from analytics.{} where contacts = 1"
    expected = [(now - timedelta(days=days)).date() for days in (2, 1)]
    assert scalar(fresh_engine, days.format("lifecycle_funnel")) == expected
    assert scalar(fresh_engine, days.format("score_distribution")) == expected


def test_maintenance_checks_the_ledger_and_says_what_it_found(run_dag: Any, fresh_engine: Engine) -> None:
    found = "select detail -> 'findings' from heartbeats where component = 'ledger_check'"
    assert run_dag("maintenance").state == "success"
    assert scalar(fresh_engine, found) == 0
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into message_keys values ('lost', 7, 8)"))
    assert run_dag("maintenance").state == "success"
    assert scalar(fresh_engine, found) == 0, "once a day"
    assert run_dag("maintenance", task="ledger").state == "success"
    assert scalar(fresh_engine, found) == 1
