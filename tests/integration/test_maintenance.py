"""Housekeeping: partitions exist in time, and only what is past its use goes."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, event, text

from mautolib import maintenance
from mautolib.contacts import imports
from mautolib.errors import InvalidInput, Misconfigured
from mautolib.ledger import check
from mautolib.maintenance import ledger_proof, watch
from mautolib.settings import Settings

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def partitions_of(engine: Engine, table: str) -> set[str]:
    with engine.connect() as connection:
        names = connection.scalars(
            text(
                "select cast(cast(inhrelid as regclass) as text) from pg_inherits"
                " where inhparent = cast(:t as regclass)"
            ),
            {"t": table},
        )
        return set(names)


def ensure_months(engine: Engine, *days: str) -> None:
    with engine.begin() as tx:
        for day in days:
            tx.execute(text("select ensure_month_partition('hits', cast(:day as date))"), {"day": day})


def add_hit(engine: Engine, occurred_at: datetime) -> int:
    with engine.begin() as tx:
        hit_id = tx.scalar(
            text("insert into hits (occurred_at, kind) values (:at, 'open') returning hit_id"), {"at": occurred_at}
        )
        tx.execute(
            text("insert into hit_verdicts (hit_id, rule_version, verdict) values (:id, 1, 'human')"), {"id": hit_id}
        )
    assert isinstance(hit_id, int)
    return hit_id


def column(engine: Engine, sql: str) -> list[object]:
    with engine.connect() as connection:
        return list(connection.scalars(text(sql)))


def drop_hits(engine: Engine, settings: Settings, now: datetime, *, days: int) -> int:
    settings = dataclasses.replace(settings, raw_hit_days=days)
    return maintenance.run(engine, settings, now=now, task=maintenance.Task.RETENTION)["hit_months"]


def test_partitions_are_made_for_this_month_and_the_next_two(fresh_engine: Engine, settings: Settings) -> None:
    at = datetime(2031, 11, 30, 23, tzinfo=UTC)
    assert maintenance.run(fresh_engine, settings, now=at, task="partitions") == {"partitions": 9}
    for table in ("events", "hits", "score_history"):
        names = partitions_of(fresh_engine, table)
        assert {f"{table}_y2031m11", f"{table}_y2031m12", f"{table}_y2032m01"} <= names
        assert f"{table}_y2032m02" not in names
    assert maintenance.run(fresh_engine, settings, now=at, task="partitions") == {"partitions": 0}


def test_k8_only_whole_months_of_hits_are_dropped(fresh_engine: Engine, settings: Settings) -> None:
    # 100 days before NOON is 2026-08-14 12:00
    ensure_months(fresh_engine, "2026-06-01", "2026-07-01", "2026-08-01")
    june = add_hit(fresh_engine, datetime(2026, 6, 5, tzinfo=UTC))
    july = add_hit(fresh_engine, datetime(2026, 7, 31, tzinfo=UTC))
    old_in_august = add_hit(fresh_engine, datetime(2026, 8, 1, tzinfo=UTC))
    today = add_hit(fresh_engine, NOON)
    assert drop_hits(fresh_engine, settings, NOON, days=100) == 2
    kept = column(fresh_engine, "select hit_id from hits order by hit_id")
    assert kept == [old_in_august, today]
    assert column(fresh_engine, "select hit_id from hit_verdicts order by hit_id") == [old_in_august, today]
    assert june not in kept
    assert july not in kept
    names = partitions_of(fresh_engine, "hits")
    assert not {"hits_y2026m06", "hits_y2026m07"} & names
    assert {"hits_y2026m08", "hits_default"} <= names
    assert drop_hits(fresh_engine, settings, NOON, days=100) == 0


def test_a_month_ending_exactly_at_the_limit_is_over(fresh_engine: Engine, settings: Settings) -> None:
    ensure_months(fresh_engine, "2026-07-01")
    at = datetime(2026, 8, 2, tzinfo=UTC)
    assert drop_hits(fresh_engine, settings, at - timedelta(microseconds=1), days=1) == 0
    assert drop_hits(fresh_engine, settings, at, days=1) == 1


def test_old_hits_without_a_partition_go_by_the_same_rule(fresh_engine: Engine, settings: Settings) -> None:
    add_hit(fresh_engine, datetime(2019, 3, 1, tzinfo=UTC))
    kept = add_hit(fresh_engine, datetime(2026, 8, 1, tzinfo=UTC))  # its month is not over at the limit
    assert drop_hits(fresh_engine, settings, NOON, days=100) == 1
    assert column(fresh_engine, "select hit_id from hits") == [kept]


def test_hits_of_the_future_limit_are_refused(fresh_engine: Engine) -> None:
    with fresh_engine.connect() as connection, pytest.raises(Exception, match="hits are kept for a while"):
        connection.execute(text("select * from drop_oldest_hits(clock_timestamp() + interval '1 minute')"))


def test_a_busy_table_is_left_for_the_next_run(fresh_engine: Engine, settings: Settings) -> None:
    ensure_months(fresh_engine, "2026-06-01")
    with fresh_engine.begin() as reader:
        reader.execute(text("select count(*) from hits"))
        assert drop_hits(fresh_engine, settings, NOON, days=100) == 0
    assert drop_hits(fresh_engine, settings, NOON, days=100) == 1


def test_less_than_a_day_of_hits_is_refused(fresh_engine: Engine, settings: Settings) -> None:
    with pytest.raises(Misconfigured, match="MAUTO_RAW_HIT_DAYS"):
        drop_hits(fresh_engine, settings, NOON, days=0)


def test_the_worker_may_drop_hits_and_the_tracker_may_not(fresh_engine: Engine) -> None:
    with fresh_engine.connect() as connection:
        may = {
            role: connection.scalar(
                text("select has_function_privilege(:role, 'drop_oldest_hits(timestamptz)', 'execute')"), {"role": role}
            )
            for role in ("mauto_worker", "mauto_tracker", "mauto_api")
        }
        assert may == {"mauto_worker": True, "mauto_tracker": False, "mauto_api": False}
        ensure_worker_can_drop(connection)


def ensure_worker_can_drop(connection: Connection) -> None:
    connection.execute(text("select ensure_month_partition('hits', date '2020-01-01')"))
    connection.execute(text("set role mauto_worker"))
    dropped = connection.scalar(text("select dropped from drop_oldest_hits(timestamptz '2020-03-01 00:00:00+00')"))
    assert dropped == "hits_y2020m01"
    connection.execute(text("reset role"))
    connection.rollback()


def test_answers_tokens_and_sign_ins_end_with_their_use(fresh_engine: Engine, settings: Settings) -> None:
    day_ago = NOON - timedelta(days=1)
    moments = {"old": day_ago - timedelta(seconds=1), "young": day_ago + timedelta(seconds=1),
               "dead": NOON - timedelta(seconds=1), "alive": NOON + timedelta(seconds=1)}
    with fresh_engine.begin() as tx:
        user = tx.scalar(text("insert into users (email, email_key, password_hash)"
                              " values ('a@shop.example', 'a@shop.example', 'x') returning user_id"))
        for key in ("old", "young"):
            values = {"key": key, "at": moments[key]}
            tx.execute(text("insert into idempotency_keys (caller, method, path, idempotency_key, request_hash,"
                            " claimed_at) values ('user:1', 'POST', '/', :key, '', :at)"), values)
            tx.execute(text("insert into sign_in_failures (account_hash, network, failed_at)"
                            " values (cast(:key as bytea), :key, :at)"), values)
        for key in ("dead", "alive"):
            values = {"key": key, "at": moments[key], "user": user}
            tx.execute(text("insert into refresh_tokens (token_hash, family, user_id, access_jti, expires_at)"
                            " values (cast(:key as bytea), gen_random_uuid(), :user, gen_random_uuid(), :at)"), values)
            tx.execute(text("insert into revoked_tokens (jti, expires_at) values (gen_random_uuid(), :at)"), values)
    counts = maintenance.run(fresh_engine, settings, now=NOON)
    assert {name: counts[name] for name in ("idempotency_keys", "tokens", "sign_in_failures")} == {
        "idempotency_keys": 1, "tokens": 2, "sign_in_failures": 1}
    assert column(fresh_engine, "select idempotency_key from idempotency_keys") == ["young"]
    assert column(fresh_engine, "select network from sign_in_failures") == ["young"]
    assert column(fresh_engine, "select convert_from(token_hash, 'utf8') from refresh_tokens") == ["alive"]
    assert column(fresh_engine, "select expires_at from revoked_tokens") == [moments["alive"]]


def test_what_killed_imports_left_is_dropped(
    fresh_engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with fresh_engine.begin() as tx:
        ids = {
            status: tx.scalar(text(
                "insert into imports (status, attempt_id, finished_at) values (:status, 7, :at) returning import_id"
            ), {"status": status, "at": NOON if status == "cancelled" else None})
            for status in ("running", "queued", "cancelled")
        }  # fmt: skip
        attempts = [(status, one, 7) for status, one in ids.items()]
        tables = {
            name: tx.scalar(text("select make_import_rows(:id, :attempt)"), {"id": one, "attempt": attempt})
            for name, one, attempt in (*attempts, ("gone", 99, 1), ("begun anew", ids["running"], 6))
        }
        for status, one in ids.items():
            tx.execute(text(
                "insert into staging.import_checkpoints (import_id, rows_table, fingerprint, columns, blank_language, "
                "options) values (:id, :table, '', '{}', '', '{}')"), {"id": one, "table": tables[status]})  # fmt: skip
    with fresh_engine.begin() as reader:
        reader.execute(text(f"select count(*) from staging.{tables['gone']}"))
        assert maintenance.run(fresh_engine, settings, now=NOON, task="imports")["import_tables"] == 2
    assert maintenance.run(fresh_engine, settings, now=NOON, task="imports")["import_tables"] == 1
    assert maintenance.run(fresh_engine, settings, now=NOON, task="imports")["import_tables"] == 0
    left = column(fresh_engine, "select relname from pg_class where relname ~ '^import_[0-9]+_[0-9]+$' order by 1")
    assert left == sorted([tables["running"], tables["queued"]])
    kept = column(fresh_engine, "select import_id from staging.import_checkpoints order by 1")
    assert kept == sorted([ids["running"], ids["queued"]])
    assert [f"rows of an import ({why}) in {tables[which]}: {what}" in caplog.text for which, why, what in (
        ("cancelled", "cancelled", "dropped"), ("begun anew", "running", "dropped"), ("gone", "gone", "in use"),
        ("gone", "gone", "dropped"))] == [True] * 4  # fmt: skip


def test_nothing_else_is_dropped_in_the_name_of_an_import(fresh_engine: Engine) -> None:
    for name in ("event_rows", "import_checkpoints", "import_1_2; drop table contacts"):
        with fresh_engine.begin() as tx, pytest.raises(Exception, match="is no table of an import's rows"):
            tx.execute(text("select drop_import_rows(:name)"), {"name": name})


def test_uploads_that_nobody_wants_any_more_are_removed(
    fresh_engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stored = {name: imports.store_upload(settings, [name.encode()]) for name in ("old", "young", "waits", "over")}
    paths = {name: settings.storage_path / one.uri for name, one in stored.items()}
    other = settings.storage_path / "uploads" / "somebody-elses.csv"
    other.write_text("x")
    for name, hours in (("old", 25), ("young", 23), ("waits", 90), ("over", 0)):
        moment = (NOON - timedelta(hours=hours)).timestamp()
        os.utime(paths[name], (moment, moment))
    os.utime(other, (0, 0))
    with fresh_engine.begin() as tx:
        for name in ("waits", "over"):
            one = imports.request(tx, filename=None, uri=stored[name].uri, options={}, actor="t", now=NOON)
        imports.cancel(tx, one, now=NOON)
    assert maintenance.run(fresh_engine, settings, now=NOON, task="imports") == {"import_tables": 0, "uploads": 2}
    assert {name for name, path in paths.items() if path.exists()} == {"young", "waits"} and other.exists()
    assert f"{stored['old'].uri} (no import) was left behind: removed" in caplog.text
    assert f"{stored['over'].uri} (its import is over) was left behind: removed" in caplog.text
    assert maintenance.run(fresh_engine, settings, now=NOON, task="imports") == {"import_tables": 0, "uploads": 0}


def test_the_ledger_is_checked_once_a_day_or_when_asked(fresh_engine: Engine, settings: Settings) -> None:
    def checked(hours: float, task: str | None = None) -> int | None:
        counts = maintenance.run(fresh_engine, settings, now=NOON + timedelta(hours=hours), task=task)
        return counts.get("ledger_findings")

    assert [checked(hours) for hours in (0, 1, 23, 24, 25)] == [0, None, None, 0, None]
    assert checked(26, task="ledger") == 0
    assert [checked(hours) for hours in (48, 50)] == [None, 0]
    said = "select (detail ->> 'findings')::int from heartbeats where component = 'ledger_check'"
    assert column(fresh_engine, said) == [0]
    assert column(fresh_engine, "select beat_at from heartbeats") == [NOON + timedelta(hours=50)]


@pytest.mark.parametrize(("seconds", "days"), [(9.9, 1), (25.0, 2.5), (4000.0, 7)])
def test_a_check_of_a_long_ledger_comes_less_often(fresh_engine: Engine, seconds: float, days: float) -> None:
    with fresh_engine.begin() as tx:
        maintenance.heartbeat(tx, ledger_proof.LEDGER_CHECK, NOON, {"findings": 0, "seconds": seconds})
    due = [ledger_proof.is_due(fresh_engine, now=NOON + timedelta(days=days, hours=hours)) for hours in (-1, 0)]
    assert due == [False, True]


def test_findings_of_the_ledger_reach_the_watchdog(
    fresh_engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into message_keys values ('lost', 7, 8)"))
    # As a worker, who must be able to read all of it.
    as_worker = (fresh_engine, "begin", lambda connection: connection.exec_driver_sql("set local role mauto_worker"))
    event.listen(*as_worker)
    assert maintenance.run(fresh_engine, settings, now=NOON, task="ledger") == {"ledger_findings": 1}
    event.remove(*as_worker)
    assert "ledger check, 1. every intention has one message: dedupe key lost" in caplog.text
    with fresh_engine.begin() as tx:
        assert "ledger.unclean" in {one.name for one in watch.findings(tx, settings, now=NOON)}
    # What only the first look sees is what was at work just then.
    looks = [[check.Finding(question="7", what="campaign 1"), check.Finding(question="1", what="x")],
             [check.Finding(question="1", what="x")]]  # fmt: skip
    monkeypatch.setattr(check, "check", lambda tx: looks.pop(0))
    assert ledger_proof.prove(fresh_engine, now=NOON) == 1


def test_an_unknown_task_is_named_with_the_known_ones(fresh_engine: Engine, settings: Settings) -> None:
    known = "partitions, search, retention, imports, erasure, ledger"
    with pytest.raises(InvalidInput, match=f"no task 'hit'; choose one of {known}"):
        maintenance.run(fresh_engine, settings, now=NOON, task="hit")


def test_a_heartbeat_is_the_newest_sign_of_life(tx: Connection) -> None:
    maintenance.heartbeat(tx, "airflow.maintenance", NOON, {"run": 2})
    maintenance.heartbeat(tx, "airflow.maintenance", NOON - timedelta(minutes=5), {"run": 1})
    row = tx.execute(text("select component, beat_at, detail from heartbeats")).one()
    assert (row.component, row.beat_at, row.detail) == ("airflow.maintenance", NOON, {"run": 2})
    maintenance.heartbeat(tx, "airflow.maintenance", NOON + timedelta(minutes=1))
    assert tx.scalar(text("select detail from heartbeats")) == {}
