"""What a run leaves behind: a sign of life when all of it went well, else an alert, and a note when that is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib.stack.mailsink import MailSink

_SECRET = "anna@secret.example"


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_dag: Any) -> Iterator[MailSink]:
    """Where alerts go; set after `run_dag` has set the rest."""
    with MailSink(tmp_path / "sink") as running:
        monkeypatch.setenv("MAUTO_SMTP_PORT", str(running.smtp_port))
        monkeypatch.setenv("MAUTO_ALERT_EMAIL", "ops@shop.example")
        yield running


def ended_well(engine: Engine) -> set[str]:
    with engine.connect() as tx:
        found = tx.scalars(text("select component from heartbeats where component like 'airflow.%'"))
        return {component.removeprefix("airflow.") for component in found}


def test_the_last_task_of_a_good_run_says_so(run_dag: Any, fresh_engine: Engine) -> None:
    for dag_id in ("maintenance", "campaign_send", "score_recalculation", "workflow_advance", "feedback_processing"):
        assert run_dag(dag_id).state == "success"
        assert dag_id in ended_well(fresh_engine), f"{dag_id} has several tasks or skips some"
    with fresh_engine.begin() as tx:
        tx.execute(text("delete from heartbeats"))
    assert run_dag("campaign_send", dry_run=True).state == "success"
    assert run_dag("score_recalculation", as_of="2026-03-01T00:00:00Z").state == "success"
    assert ended_well(fresh_engine) == set(), "neither says anything about the schedule"


def test_a_failure_is_told_without_what_it_says_and_is_over_with_the_next_good_run(
    run_dag: Any, fresh_engine: Engine, sink: MailSink, tmp_path: Path
) -> None:
    path = tmp_path / f"{_SECRET}.csv"
    path.write_text(f"name,{_SECRET}\nanna,red\n", encoding="utf-8")
    for _ in range(2):
        assert run_dag("contact_import", path=str(path)).state == "failed"
    assert ended_well(fresh_engine) == set()
    (mail,) = sink.wait_for(1)
    assert mail.subject == "[mauto] contact_import.take_imports failed: InvalidInput, try 1"
    assert _SECRET.encode() not in mail.raw
    assert run_dag("contact_import").state == "success"
    assert run_dag("feedback_processing").state == "success"
    assert {each.subject for each in sink.wait_for(2)} == {mail.subject, mail.subject.replace("] ", "] resolved: ")}


def test_a_channel_that_is_away_breaks_no_run(
    run_dag: Any, fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAUTO_SMTP_PORT", "9")
    monkeypatch.setenv("MAUTO_ALERT_EMAIL", "ops@shop.example")
    monkeypatch.setenv("MAUTO_BACKUP_MAX_AGE_HOURS", "24")
    assert run_dag("feedback_processing").state == "success"
    with fresh_engine.connect() as tx:
        waiting = tx.execute(text("select finding, channel, tries from alert_notes")).all()
    assert [tuple(row) for row in waiting] == [("backup.old", "mail", 1)]
