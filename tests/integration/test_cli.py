"""The command `mauto` on a real database: each group does its work, says what is wrong in a line, and is audited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result as Ran
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError
from typer.testing import CliRunner

from mautolib.auth import users
from mautolib.campaigns import finishing, planning, sending
from mautolib.channels.null import Null
from mautolib.cli.app import app
from mautolib.ledger import check, installation
from mautolib.ledger.journal import journal_folder
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.builders import make_contact, make_event, make_order
from tests.integration.mailing import NOW, add_campaign, add_contacts, launched, null, rows, run_pump, states

Mauto = Callable[..., Ran]


@pytest.fixture
def mauto(settings: Settings, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Mauto:
    """Runs a command with the settings of the test."""
    for name, value in {
        "MAUTO_DATABASE_URL": fresh_database_url, "MAUTO_HOME": str(settings.home),
        "MAUTO_SECRET_KEYS": settings.secret_keys[0], "MAUTO_SUPPRESSION_PEPPER": settings.suppression_pepper,
        "MAUTO_ENVIRONMENT": "development", "MAUTO_DEFAULT_FROM_EMAIL": settings.default_from_email,
        "MAUTO_DEFAULT_FROM_NAME": settings.default_from_name, "MAUTO_POSTAL_ADDRESS": settings.postal_address,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    runner = CliRunner()

    def run(*words: str, code: int = 0, stdin: str | None = None) -> Ran:
        done = runner.invoke(app, list(words), input=stdin)
        assert done.exit_code == code, (done.output, done.exception)
        return done

    return run


def audited(engine: Engine) -> list[str]:
    found = rows(engine, "select action, actor_label from audit_log order by audit_id")
    assert all(row.actor_label.startswith("cli:") for row in found)
    return [row.action for row in found]


def test_users_are_made_changed_and_disabled_but_never_the_last_admin(fresh_engine: Engine, mauto: Mauto) -> None:
    password = "correct horse battery staple\n"
    mauto("users", "add", "boss@shop.example", "--role", "admin", "--password-stdin", stdin=password)
    mauto("users", "add", "ann@shop.example", "--password-stdin", stdin=password)
    assert "already exists" in mauto(
        "users", "add", "ANN@shop.example", "--password-stdin", stdin=password, code=1
    ).output
    assert "last active administrator" in mauto("users", "disable", "boss@shop.example", code=1).output
    mauto("users", "set-role", "ann@shop.example", "editor")
    mauto("users", "set-password", "ann@shop.example", "--password-stdin", stdin="another long password\n")
    mauto("users", "disable", "ann@shop.example")
    shown = {row["email"]: row for row in json.loads(mauto("users", "list", "--json").output)}
    assert shown["ann@shop.example"]["role"] == "editor"
    assert shown["ann@shop.example"]["active"] is False
    assert "there is no user" in mauto("users", "disable", "nobody@shop.example", code=1).output
    assert "10" in mauto("users", "set-password", "ann@shop.example", "--password-stdin", stdin="x\n", code=2).output
    with fresh_engine.connect() as tx:
        assert users.find_for_sign_in(tx, "boss@shop.example") is not None
    assert audited(fresh_engine) == [
        "users.create", "users.create", "users.role", "users.password", "users.disable"
    ]  # fmt: skip


def test_a_file_is_imported_and_followed(fresh_engine: Engine, mauto: Mauto, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("email,first_name\nann@mail.example,Ann\nnot an address,Bob\n", encoding="utf-8")
    said = mauto("import", str(file), "--here").output
    assert "completed: 2 rows, 1 created" in said and "1 rejected" in said
    assert [row.email for row in rows(fresh_engine, "select email from contacts")] == ["ann@mail.example"]
    assert "cannot be read" in mauto("import", str(tmp_path / "nothing.csv"), code=2).output


def test_campaigns_are_sent_paused_and_cancelled(fresh_engine: Engine, mauto: Mauto) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 2)
        number = str(add_campaign(tx).campaign_id)
    mauto("campaign", "send", number, code=1, stdin="n\n")
    mauto("campaign", "send", number, "--yes")
    mauto("campaign", "pause", number)
    assert "is sending" in mauto("campaign", "resume", number).output
    mauto("campaign", "cancel", number, "--yes")
    assert json.loads(mauto("campaign", "list", "--json").output)[0]["status"] == "cancelled"
    assert json.loads(mauto("campaign", "show", number, "--json").output)[0]["queued"] == 0
    assert "Cannot pause" in mauto("campaign", "pause", number, code=1).output
    assert "not found" in mauto("campaign", "show", "999", code=1).output


def test_while_sending_is_off_nothing_is_claimed(fresh_engine: Engine, settings: Settings, mauto: Mauto) -> None:
    number = launched(fresh_engine, settings, 3)
    mauto("sending", "off", "--reason", "the provider is ill")
    assert "OFF" in mauto("sending", "status", code=1).output
    done = run_pump(fresh_engine, settings)
    assert done.counts == {} and done.problems == ("sending is off: the provider is ill",)
    assert states(fresh_engine, number) == {"queued": 3}
    mauto("sending", "on")
    assert run_pump(fresh_engine, settings).counts == {"sent": 3}
    assert states(fresh_engine, number) == {"sent": 3}


def test_switching_off_stops_a_sender_at_work(fresh_engine: Engine, settings: Settings, mauto: Mauto) -> None:
    number = launched(fresh_engine, settings, 10)
    with fresh_engine.begin() as holding:
        assert installation.is_open(holding)
        command = [sys.executable, "-m", "mautolib.cli", "sending", "off"]
        switching = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.getcwd()}, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            switching.wait(3)
    assert switching.communicate()[0] == b"sending is off\n"
    run_pump(fresh_engine, settings)
    assert states(fresh_engine, number) == {"queued": 10}


def test_doubts_are_resolved_every_way(fresh_engine: Engine, settings: Settings, mauto: Mauto) -> None:
    number = launched(fresh_engine, settings, 4)
    doubt = Result(verdict=Verdict.UNKNOWN, stage=Stage.DOT)
    run_pump(fresh_engine, settings, null({1: doubt, 2: doubt, 3: doubt}))
    finishing.finish(fresh_engine, NOW)
    first, second, third = [row["message"] for row in json.loads(mauto("unknown", "list", "--json").output)]
    mauto("unknown", "resolve", "--as", "sent", "--message", str(first))
    mauto("unknown", "resolve", "--as", "not-sent", "--message", str(second))
    mauto("unknown", "resolve", "--as", "again", "--all", code=1, stdin="n\n")
    mauto("unknown", "resolve", "--as", "again", "--all", "--yes")
    mauto("unknown", "resolve", "--as", "sent", "--all", "--message", str(third), code=2)
    assert states(fresh_engine, number) == {"sent": 2, "failed": 1, "queued": 1}
    finishing.finish(fresh_engine, datetime.now(UTC))
    sending.pump(fresh_engine, settings, open_way=lambda _: Null())
    finishing.finish(fresh_engine, datetime.now(UTC))
    assert states(fresh_engine, number) == {"sent": 3, "failed": 1}
    assert "ledger clean" in mauto("ledger", "check").output
    assert audited(fresh_engine) == ["messages.resolve"] * 3


def test_the_ledger_check_finds_a_lie(fresh_engine: Engine, settings: Settings, mauto: Mauto) -> None:
    launched(fresh_engine, settings, 2)
    run_pump(fresh_engine, settings)
    with fresh_engine.begin() as tx:
        tx.execute(text("delete from events"))
    assert "every sent message is told once" in mauto("ledger", "check", code=1).output


def test_dead_letters_go_back_in_line(fresh_engine: Engine, mauto: Mauto) -> None:
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into webhook_endpoints (url, secret_encrypted, events) "
                        "values ('https://hooks.example/a', 'x', '{email.sent}')"))  # fmt: skip
        tx.execute(text("insert into webhook_deliveries (endpoint_id, event_type, webhook_message_id, payload, status, "
                        "attempt, next_attempt_at, finished_at) select endpoint_id, 'email.sent', 'msg_' || n, '{}', "
                        "'dead', 8, null, now() from webhook_endpoints, generate_series(1, 3) as n"))  # fmt: skip
    dead = json.loads(mauto("dead-letters", "list", "--json").output)
    assert len(dead) == 3
    mauto("dead-letters", "replay", code=2)
    mauto("dead-letters", "replay", "--delivery", str(dead[0]["delivery"]))
    assert "2 deliveries" in mauto("dead-letters", "replay", "--all").output
    assert {row.status for row in rows(fresh_engine, "select status from webhook_deliveries")} == {"pending"}
    assert mauto("dead-letters", "list").output == "none\n"


def test_partitions_migrations_status_and_doctor(fresh_engine: Engine, mauto: Mauto) -> None:
    mauto("partitions", "list", code=1)
    assert "partitions made" in mauto("partitions", "ensure").output
    mauto("partitions", "list")
    assert mauto("migrate", "--check").output == "the database is up to date\n"
    assert "sending_enabled" in mauto("status").output
    found = {row["check"]: row for row in json.loads(mauto("doctor", "--json", code=1).output)}
    assert found["migrations"]["state"] == found["partitions"]["state"] == found["settings"]["state"] == "ok"
    assert found["airflow"]["state"] == "NOT OK"
    assert "start scheduler" in found["airflow"]["what"]


def test_a_known_fault_is_a_line(mauto: Mauto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAUTO_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    done = mauto("users", "list", code=75)
    assert done.output == "not done: the database cannot be reached\n"
    monkeypatch.setenv("MAUTO_DATABASE_URL", "")
    assert "make up" in mauto("status", code=2).output


def test_a_restored_backup_sends_nothing_again(
    fresh_engine: Engine, settings: Settings, mauto: Mauto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backup with a campaign queued and another scheduled, send both, wipe, restore: the sink gets nothing twice."""
    from dataclasses import replace

    file, log = tmp_path / "mauto.dump", tmp_path / "sink"
    with MailSink(log) as sink:
        given = replace(settings, smtp_port=sink.smtp_port)
        queued = launched(fresh_engine, given, 5, now=datetime.now(UTC))
        with fresh_engine.begin() as tx:
            late = add_campaign(tx, name="Scheduled").campaign_id
            tx.execute(text("update campaigns set status = 'scheduled', scheduled_at = now(), plan_at = now() "
                            "where campaign_id = :id"), {"id": late})  # fmt: skip
        mauto("backup", str(file))
        planning.plan_due(fresh_engine, given, datetime.now(UTC))
        sending.pump(fresh_engine, given)
        finishing.finish(fresh_engine, datetime.now(UTC))
        before = check.read_sink_log(log)
        assert len(before) == 10 and set(before.values()) == {1}

        assert "--replace" in mauto("restore", str(file), code=1).output
        mauto("restore", str(file), "--replace", "--yes")
        fresh_engine.dispose()
        assert states(fresh_engine, queued) == {"queued": 5}, "the snapshot does not know what was sent"
        sending.pump(fresh_engine, given)
        assert check.read_sink_log(log) == before, "sending starts off"
        assert "campaigns that are due" in mauto("sending", "on", code=1).output, "not before all is in the queue"
        planning.plan_due(fresh_engine, given, datetime.now(UTC))
        assert "10 messages from before the restore are in doubt" in mauto("sending", "on").output
        sending.pump(fresh_engine, given)
        finishing.finish(fresh_engine, datetime.now(UTC))
        assert check.read_sink_log(log) == before
        said = mauto("unknown", "settle", "--sink-log", str(log), "--complete-until", "2027-01-01T00:00:00").output
        assert said == "10 were sent, 0 are queued again\n"
        finishing.finish(fresh_engine, datetime.now(UTC))
        sending.pump(fresh_engine, given)
        assert "ledger clean" in mauto("ledger", "check", "--sink-log", str(log)).output
        assert check.read_sink_log(log) == before
        number = launched(fresh_engine, given, 0, now=datetime.now(UTC))
        sending.pump(fresh_engine, given)
        assert states(fresh_engine, number) == {"sent": 5}, "new campaigns go"


def test_a_drill_leaves_nothing_and_a_torn_backup_changes_nothing(
    fresh_engine: Engine, settings: Settings, mauto: Mauto, tmp_path: Path
) -> None:
    launched(fresh_engine, settings, 3)
    run_pump(fresh_engine, settings)
    file = tmp_path / "mauto.dump"
    mauto("backup", str(file))
    assert "is there already" in mauto("backup", str(file), code=2).output
    assert "restored 3 contacts; 0 findings" in mauto("drill", str(file)).output
    assert not rows(fresh_engine, "select from pg_database where datname like 'mauto_drill%'")
    torn = tmp_path / "torn.dump"
    torn.write_bytes(file.read_bytes()[:-2000])
    assert mauto("restore", str(torn), "--replace", "--yes", code=75).output.startswith("not done: the restore failed")
    torn.write_bytes(b"nothing")
    assert "is no backup" in mauto("restore", str(torn), "--replace", "--yes", code=2).output
    assert len(rows(fresh_engine, "select from messages where status = 'sent'")) == 3
    assert mauto("sending", "status").exit_code == 0


def test_a_database_that_went_back_in_time_switches_itself_off(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 3)
    run_pump(fresh_engine, settings)
    mark = installation.Mark(journal_folder(settings).parent)
    with fresh_engine.begin() as tx:
        here = installation.read(tx)
        assert mark.read(here.installation_id) > 0
        tx.execute(text("select setval('attempt_ids', 1)"))
    mark.raise_to(here.installation_id, 100)
    mark.raise_to(here.installation_id, 50)
    assert mark.read(here.installation_id) == 100
    assert run_pump(fresh_engine, settings).problems == (f"sending is off: {installation.WENT_BACK}",)
    with fresh_engine.begin() as tx:
        assert installation.read(tx).epoch == 2


def test_a_copy_switches_itself_off(fresh_engine: Engine, settings: Settings) -> None:
    launched(fresh_engine, settings, 3)
    with fresh_engine.begin() as tx:
        tx.execute(text("update installation set database_key = 'another/1'"))
    assert run_pump(fresh_engine, settings).problems == (f"sending is off: {installation.COPIED}",)


def test_who_is_sure_that_nothing_was_sent_sends_the_queue(
    fresh_engine: Engine, settings: Settings, mauto: Mauto, tmp_path: Path
) -> None:
    number = launched(fresh_engine, settings, 3)
    file = tmp_path / "mauto.dump"
    mauto("backup", str(file))
    mauto("restore", str(file), "--replace", "--yes")
    fresh_engine.dispose()
    assert mauto("sending", "on", "--nothing-was-sent").output == "sending is on\n"
    assert run_pump(fresh_engine, settings).counts == {"sent": 3}
    assert states(fresh_engine, number) == {"sent": 3}


def test_a_sender_needs_no_owner_and_the_api_may_not_switch(fresh_engine: Engine, tmp_path: Path) -> None:
    mark = installation.Mark(tmp_path)
    with fresh_engine.begin() as tx:
        tx.execute(text("update installation set database_key = 'another/1'"))
        tx.execute(text("set local role mauto_worker"))
        assert installation.is_open(tx)
        assert not installation.check(tx, mark, now=NOW).sending_enabled
    with fresh_engine.begin() as tx:
        tx.execute(text("set local role mauto_api"))
        assert installation.read(tx).epoch == 2
        with pytest.raises(ProgrammingError, match="permission denied"):
            installation.switch_off(tx, reason="no", by="api", now=NOW)


def test_figures_are_brought_up_to_date_by_hand(fresh_engine: Engine, mauto: Mauto) -> None:
    assert {row["as_of"] for row in json.loads(mauto("analytics", "status", "--json").output)} == {None}
    with fresh_engine.begin() as tx:
        person = make_contact(tx, created_at=NOW)
        make_event(tx, person, "email_opened", NOW)
    ran = mauto("analytics", "refresh", "--table", "contact_period_activity")
    assert "contact_period_activity  1     " in ran.stdout
    assert "contact_period_activity: 1 rows" in ran.stderr, "progress does not mix with the result"
    with fresh_engine.begin() as tx:
        tx.execute(text("update analytics.contact_period_activity set human_opens = 9"))
    assert json.loads(mauto("analytics", "refresh", "--json", "--from", f"{NOW:%Y-%m-%d}").stdout)[0]["rows"] == 1
    assert [row.human_opens for row in rows(fresh_engine, "select * from analytics.contact_period_activity")] == [1]
    mauto("analytics", "refresh", "--rebuild")
    shown = json.loads(mauto("analytics", "status", "--json").output)
    assert {(row["table"], row["rows_written"], row["minutes_old"]) for row in shown} >= {
        ("contact_period_activity", 1, 0), ("attribution", 0, 0)
    }  # fmt: skip
    assert "There is no table nothing" in mauto("analytics", "refresh", "--table", "nothing", code=1).output
    assert "is not a day" in mauto("analytics", "refresh", "--to", "yesterday", code=2).output
    assert "leave out" in mauto("analytics", "refresh", "--rebuild", "--to", "2026-01-01", code=2).output
    assert audited(fresh_engine)[:3] == ["analytics.refresh"] * 3


def test_a_share_is_held_out_and_what_mail_earned_is_said(fresh_engine: Engine, mauto: Mauto, tmp_path: Path) -> None:
    assert "nobody was ever held out" in mauto("holdout", "status").output
    assert json.loads(mauto("holdout", "report", "--json", code=1).output)[0]["verdict"] == "no_holdout"
    for wrong in ("51", "-1", "a few", "0.001", "NaN"):
        mauto("holdout", "set", "--", wrong, code=2)
    assert mauto("holdout", "set", "10").output.startswith("10 % are held out since 20")
    mauto("holdout", "set", "12.5")
    mauto("holdout", "set", "12.5", "--reshuffle", code=1, stdin="n\n")
    known = json.loads(mauto("holdout", "status", "--json").output)
    assert [each["percent"] for each in known] == ["10", "12.5"] and known[0]["draw"] == known[1]["draw"]
    assert all(each["by"].startswith("cli:") for each in known)
    # Those of a month, begun long ago.
    with fresh_engine.begin() as tx:
        tx.execute(text("delete from holdout_periods where percent = 10"))
        tx.execute(text("update holdout_periods set begun_at = '2026-03-01T00:00:00Z'"))
        people = [make_contact(tx) for _ in range(1500)]
        for place, each in enumerate(people):
            if place % 5 == 0:
                placed_at = datetime(2026, 3, 1 + place % 28, 12, tzinfo=UTC)
                make_order(tx, each, placed_at, total=str(10 + place % 7))
    target = tmp_path / "lift.csv"
    month = ("--from", "2026-03-01", "--to", "2026-03-29")
    shown = json.loads(mauto("holdout", "report", *month, "--csv", str(target), "--json").output)[0]
    assert shown["verdict"] == "measured" and shown["mailed_orders"] + shown["held_out_orders"] == 300
    assert shown["incremental_revenue_low"] < shown["incremental_revenue"] < shown["incremental_revenue_high"]
    lines = dict(line.split(",", 1) for line in target.read_text(encoding="utf-8").splitlines())
    assert lines["mailed_contacts"] == str(shown["mailed_contacts"]) and lines["holdout_percent"] == "12.5"
    assert "mailed_contacts" in mauto("holdout", "report", *month, "--pre-days", "0").output
    mauto("holdout", "report", "--from", "2026-02-01", "--to", "2026-03-29", code=1)
    mauto("holdout", "report", "--from", "2026-03-29", "--to", "2026-03-01", code=2)
    assert mauto("holdout", "set", "0").output == "nobody is held out\n"
    assert audited(fresh_engine) == ["holdout.set"] * 3


def test_watch_and_alerts(
    fresh_engine: Engine, mauto: Mauto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mauto("watch").output.strip() == "nothing is stuck"
    assert "MAUTO_ALERT_EMAIL" in mauto("alert", "test", code=2).output
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into imports (storage_uri, created_at) values ('/x', now() - interval '2 hours')"))
        tx.execute(text("insert into heartbeats values ('ledger_check', now(), '{\"findings\": 2}')"))
    monkeypatch.setenv("MAUTO_BACKUP_MAX_AGE_HOURS", "24")
    with MailSink(tmp_path / "sink") as sink:
        monkeypatch.setenv("MAUTO_SMTP_PORT", str(sink.smtp_port))
        monkeypatch.setenv("MAUTO_ALERT_EMAIL", "ops@shop.example")
        assert mauto("alert", "test").output == "mail: taken\n"
        found = json.loads(mauto("watch", "--json", code=1).stdout)
        assert [one["finding"] for one in found] == ["stuck.imports_waiting", "backup.old", "ledger.unclean"]
        assert "docs/operations.md#after-a-crash" in found[0]["do"] and found[0]["what"].endswith("1, since 2 h")
        assert "2 new, 0 over, 0 notes wait" in mauto("watch", "--tell", "--mend", code=1).output
        shown = {row["finding"]: row["told"] for row in json.loads(mauto("alert", "list", "--json").stdout)}
        assert shown == {"stuck.imports_waiting": False, "backup.old": True, "ledger.unclean": True}
        mauto("backup", str(tmp_path / "mauto.dump"))
        mauto("ledger", "check")
        assert "0 new, 2 over" in mauto("watch", "--tell", code=1).output
        assert sorted(mail.subject.partition(":")[0] for mail in sink.wait_for(3)) == [
            "[mauto] no backup within 24 hours", "[mauto] resolved", "[mauto] test"]  # fmt: skip
    doctor = {row["check"]: row for row in json.loads(mauto("doctor", "--json", code=1).stdout)}
    assert doctor["watchdog"]["state"] == "NOT OK" and "imports that nobody works on: 1" in doctor["watchdog"]["what"]
    assert audited(fresh_engine) == ["watch.mend", "warehouse.backup"]
    monkeypatch.setenv("MAUTO_WATCH_MINUTES", "nothing=5")
    assert "MAUTO_WATCH_MINUTES" in mauto("watch", code=2).output
