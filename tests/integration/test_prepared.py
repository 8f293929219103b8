"""Prepared statements give the rows of plain ones, whatever happened to the connection in between."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError

from mautolib.db.prepared import execute_prepared
from mautolib.db.statements import statement
from mautolib.scoring import NewRule
from mautolib.scoring.evaluating import binds
from mautolib.scoring.rules import create_rule, current_version
from tests.builders import NOW, ago, make_contact, make_event, make_suppression

PATH = "scoring_lists.stages_of_few"
_SETTINGS = "select current_setting('plan_cache_mode'), current_setting('enable_seqscan'), current_setting('jit')"


def prepared_count(tx: Connection) -> int:
    return int(tx.scalar(text("select count(*) from pg_prepared_statements")) or 0)


def both(tx: Connection, wanted: Mapping[str, Any], path: str = PATH) -> Sequence[Any]:
    """The rows, which are the same either way."""
    plain = tx.execute(statement(path), wanted).all()
    assert execute_prepared(tx, path, wanted).all() == plain
    return plain


def engaged(tx: Connection) -> dict[str, Any]:
    """A contact with a past, and the binds to score it."""
    create_rule(tx, NewRule(name="Form", event_type="form_submitted", points=30, decay_days=90, max_per_contact=9,
                            condition={"form": "100%"}), actor="test", now=NOW)  # fmt: skip
    contact = make_contact(tx, first_name="Ada's 100%", created_at=ago(days=200))
    for days in (1, 40, 100):
        make_event(tx, contact, "form_submitted", ago(days=days), properties={"form": "100%"})
    return binds(contact, as_of=NOW, rule_version=current_version(tx))


def test_prepared_rows_are_the_plain_ones(tx: Connection) -> None:
    """For every value of a bind, and for each of them null; a text is prepared once for each set of nulls."""
    wanted = engaged(tx)
    other = make_contact(tx)
    before = tx.execute(text(_SETTINGS)).one()
    (row,) = both(tx, wanted)
    assert row.engagement_score > 0
    assert both(tx, {**wanted, "as_of": ago(days=30)}) != [row]
    assert both(tx, {**wanted, "contact_ids": []}) == []
    assert {found.contact_id for found in both(tx, {**wanted, "contact_ids": [other, row.contact_id]})} == {
        other, row.contact_id}  # fmt: skip
    count = prepared_count(tx)
    assert both(tx, {**wanted, "known_at": ago(days=300)})[0].engagement_score == 0, "nothing was known"
    assert both(tx, {**wanted, "slices": [row.contact_id % 64]}) == [row]
    assert both(tx, {**wanted, "slices": [(row.contact_id + 1) % 64]}) == []
    assert prepared_count(tx) == count + 2
    assert tx.execute(text(_SETTINGS)).one() == before, "the settings of the session are back"


def test_an_opted_out_address_is_found_by_contact(tx: Connection) -> None:
    """The address a contact has, and one it had at the moment; other people's do not matter."""
    wanted = engaged(tx)
    make_suppression(tx, "somebody.else@example.com")
    assert not both(tx, wanted)[0].is_opted_out
    address = tx.scalar(
        text("select email_key from contacts where contact_id = any(:ids)"), {"ids": wanted["contact_ids"]}
    )
    make_suppression(tx, str(address), reason="complaint", created_at=ago(days=1))
    (now,) = both(tx, wanted)
    assert (now.is_opted_out, now.next_stage) == (True, "churned")
    assert not both(tx, {**wanted, "as_of": ago(days=2)})[0].is_opted_out
    tx.execute(text("update contacts set email = 'new@example.com', email_key = 'new@example.com',"
                    " version = version + 1, updated_at = :at where contact_id = any(:ids)"),
               {"at": ago(hours=2), "ids": wanted["contact_ids"]})  # fmt: skip
    assert not both(tx, wanted)[0].is_opted_out
    assert both(tx, {**wanted, "as_of": ago(hours=3)})[0].is_opted_out
    for moment in (NOW, ago(hours=3), ago(days=2)):
        at = {**wanted, "as_of": moment}
        everybody = tx.execute(statement("scoring.stages"), {**at, "contact_ids": None}).all()
        mine = [row for row in everybody if row.contact_id in wanted["contact_ids"]]
        (few,) = both(tx, at)
        assert [(row.is_opted_out, row.next_stage) for row in mine] == [(few.is_opted_out, few.next_stage)]


def test_what_is_prepared_survives_a_rollback(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        wanted = engaged(tx)
    with fresh_engine.connect() as connection:
        before = connection.execute(text(_SETTINGS)).one()
        connection.rollback()
        with connection.begin() as ended:
            both(connection, wanted)
            ended.rollback()
        assert prepared_count(connection) == 1
        with pytest.raises(DataError):
            execute_prepared(connection, PATH, {**wanted, "rule_version": 10**12})
        connection.rollback()
        both(connection, wanted)
        with pytest.raises(DataError), connection.begin_nested():
            execute_prepared(connection, PATH, {**wanted, "rule_version": 10**12})
            assert connection.execute(text(_SETTINGS)).one() == before, "the savepoint took them back"
        both(connection, wanted)
        assert prepared_count(connection) == 1


def test_connections_and_their_resets(fresh_engine: Engine) -> None:
    """Each connection prepares for itself, again once it has forgotten or is another one."""
    with fresh_engine.begin() as tx:
        wanted = engaged(tx)
    with fresh_engine.connect() as first, fresh_engine.connect() as second:
        assert both(first, wanted) == both(second, wanted)
        assert (prepared_count(first), prepared_count(second)) == (1, 1)
        first.rollback()
        first.execution_options(isolation_level="AUTOCOMMIT").execute(text("discard all"))
    for _ in range(2):
        with fresh_engine.connect() as again:
            both(again, wanted)
            process = again.scalar(text("select pg_backend_pid()"))
            again.invalidate()
        with fresh_engine.connect() as again:
            assert again.scalar(text("select pg_backend_pid()")) != process
            both(again, wanted)


def test_a_plan_follows_the_schema(fresh_engine: Engine) -> None:
    """New columns, indexes and partitions, made by somebody else: the plan is made anew and finds what is there."""
    with fresh_engine.begin() as tx:
        wanted = engaged(tx)
    with fresh_engine.connect() as held:
        with held.begin():
            (before,) = both(held, wanted)
        with fresh_engine.begin() as other:
            other.execute(text("alter table events add column remark text"))
            other.execute(text("alter table contacts add column remark text"))
            other.execute(text("drop index suppressions_by_reason"))
            other.execute(text("select ensure_month_partition('events', cast(:day as date))"), {"day": ago(days=1)})
            make_event(other, wanted["contact_ids"][0], "form_submitted", ago(hours=5), properties={"form": "100%"})
        with held.begin():
            (after,) = both(held, wanted)
            assert after.engagement_score > before.engagement_score
            assert prepared_count(held) == 1


def test_a_plan_made_for_small_tables_goes_by_index(fresh_engine: Engine) -> None:
    """It is used for as long as the connection lives, so it may not read whole tables that were small once."""
    with fresh_engine.begin() as tx:
        wanted = engaged(tx)
        make_suppression(tx, "somebody@example.com")
        tx.execute(text("analyze contacts, contact_stages, suppressions, orders, events"))
        both(tx, wanted)
        prepared = tx.execute(text("select name, parameter_types from pg_prepared_statements")).one()
        values = ", ".join(["null"] * prepared.parameter_types.count(",") + ["null"])
        tx.execute(text("set local plan_cache_mode = force_generic_plan"))
        plan = "\n".join(tx.exec_driver_sql(f"explain execute {prepared.name} ({values})").scalars())
    assert "Index" in plan
    assert not re.search(r"Seq Scan on (contacts|contact_history|events\w*|orders|suppressions|contact_stages)\b", plan)


def test_a_bind_without_a_type_is_refused(tx: Connection) -> None:
    with pytest.raises(ValueError, match=r":limit.* has no type"):
        execute_prepared(tx, "lifecycle.longest_unevaluated", {"limit": 3})
    with pytest.raises(KeyError):
        execute_prepared(tx, PATH, {"as_of": NOW})
