"""Group C: what people write into filters, rules and sort orders reaches SQL as values only, and in bounds."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from mautolib.db.engine import connect
from mautolib.errors import InvalidInput
from mautolib.segments import setting as setting_of
from mautolib.segments.compile import Setting, breakdown, condition, members
from mautolib.segments.fields import FIELDS
from mautolib.segments.operators import OPERATORS, Kind
from mautolib.segments.reading import ROLE, reading
from mautolib.segments.rules import Definition, check
from mautolib.settings import Settings
from tests.builders import make_contact, make_event, make_tag
from tests.live_service import as_role
from tests.unit.test_segment_rules import good

SETTING = Setting(now=datetime(2026, 3, 1, tzinfo=UTC), reporting_currency="USD")
INJECTIONS = ["' OR '1'='1", "\\'", "$1", "%s", "%(x)s", ":x", "{}", "{0}", "'; drop table contacts; --", "%", "_",
              "\\", "%%", "a\\", "E'\\x'", "a b", "🏴‍☠️", "--", "/*", "$$", "(a+)+$",
              "' || pg_sleep(9) || '"]  # fmt: skip


def found(tx: Connection, *rules: dict[str, Any]) -> list[int]:
    setting = setting_of.load(tx, Settings(), now=SETTING.now)
    return sorted(tx.scalars(members(Definition(rules=rules), setting)))


def refused(rule: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidInput) as error:
        check([rule])
    assert error.value.path == ("body", "rules", 0, key)


@pytest.mark.parametrize("field", [
    "email) OR 1=1--", "l.email", '"email"', "email::text", "Email", "ｅmail", "email ", "emаil", "contact_id",
    "email_key", "events.count", "users.password_hash", "custom_fields", "__class__", "score; drop table x",
    "total_score",
])  # fmt: skip
def test_c1_a_field_is_one_of_a_list(field: str) -> None:
    refused({"field": field, "operator": "eq", "value": "x"}, "field")


@pytest.mark.parametrize("operator", ["= ANY(select 1)", "IS NULL; drop", "like", "ilike", "~", "=", "EQ", "eq ", ""])
def test_c2_an_operator_is_one_of_a_list(operator: str) -> None:
    refused({"field": "email", "operator": operator, "value": "x"}, "operator")


@pytest.mark.parametrize("sort", ["asc, (select pg_sleep(5))", "email; drop table contacts", "1"])
@pytest.mark.parametrize("name", ["sort", "order", "order_by", "direction"])
def test_c3_no_list_can_be_sorted_by_what_a_caller_writes(viewer: httpx.Client, name: str, sort: str) -> None:
    """Lists have one fixed order: there is nothing to inject into, and an unknown parameter has no effect."""
    for path in ("/contacts/", "/tags/", "/segments/", "/events/"):
        begun = time.perf_counter()
        answer = viewer.get(f"/api/v1{path}", params={name: sort, "limit": 1})
        assert answer.status_code in (200, 422)
        assert time.perf_counter() - begun < 3, "it slept"


@pytest.mark.parametrize("value", INJECTIONS)
def test_c4_a_value_is_compared_literally(tx: Connection, value: str) -> None:
    mine, other = make_contact(tx, first_name=value), make_contact(tx, first_name=value + "x", last_name="plain")
    make_event(tx, mine, "custom_type", properties={"url": value, value: "key"})
    make_tag(tx, value, [mine])
    name = {"field": "first_name"}
    assert found(tx, {**name, "operator": "eq", "value": value}) == [mine]
    assert found(tx, {**name, "operator": "in", "value": [value, "nobody"]}) == [mine]
    assert found(tx, {**name, "operator": "starts_with", "value": value}) == [mine, other]
    assert found(tx, {"field": "tags", "operator": "has", "value": value}) == [mine]
    count = {"field": "event.count", "operator": "gte", "value": 1, "event": "custom_type"}
    assert found(tx, {**count, "where": {"url": value}}) == [mine]
    assert found(tx, {**count, "where": {value: "key"}}) == [mine]
    assert found(tx, {**count, "event": value}) == []


@pytest.mark.parametrize("operator", ["contains", "starts_with", "ends_with"])
@pytest.mark.parametrize("part", ["%", "_", "\\", "\\%", "a%c", "a_c", "[a-z]", ".*"])
def test_c5_wildcards_are_characters(tx: Connection, operator: str, part: str) -> None:
    with_it = make_contact(tx, first_name=part)
    make_contact(tx, first_name="abc")
    assert found(tx, {"field": "first_name", "operator": operator, "value": part}) == [with_it]


def test_c6_there_is_no_pattern_operator_and_a_slow_statement_ends(engine: Engine) -> None:
    operators = {operator for allowed in OPERATORS.values() for operator in allowed}
    assert not operators & {"regex", "matches", "like", "ilike", "similar_to"}
    begun = time.perf_counter()
    with pytest.raises(InvalidInput, match="longer than 2 seconds"), reading(engine) as tx:
        tx.execute(text("select pg_sleep(20)"))
    assert time.perf_counter() - begun < 10


def test_c6_long_texts_cost_no_more_than_their_length(tx: Connection) -> None:
    for number in range(50):
        make_contact(tx, first_name="a" * 100, custom_fields={"x": "a" * 10_000, "n": number})
    begun = time.perf_counter()
    assert found(tx, {"field": "custom_fields.x", "operator": "contains", "value": "a" * 999 + "b"}) == []
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("path", ["a'->>'b", "$", "$?(1==1)", "a,b", "{a}", '"a"', "%(x)s", "a b", "{a,b}", "::text"])
def test_c7_keys_of_custom_fields_are_binds(tx: Connection, path: str) -> None:
    mine = make_contact(tx, custom_fields={path: "yes"})
    make_contact(tx, custom_fields={"a": {"b": "yes"}, "b": "yes"})
    rule = {"field": f"custom_fields.{path}", "operator": "eq", "value": "yes"}
    assert found(tx, rule) == [mine]


def test_c7_paths_are_short() -> None:
    refused({"field": "custom_fields." + ".".join(["a"] * 200), "operator": "is_set"}, "field")


@pytest.mark.parametrize(("path", "name", "value"), [
    ("/analytics/cohorts", "weeks", "12; drop table contacts"), ("/analytics/cohorts", "weeks", "1 or 1=1"),
    ("/contacts/", "updated_since", "2024-01-01'::date"), ("/contacts/", "subscribed", "true or true"),
    ("/contacts/", "limit", "1;--"), ("/contacts/", "skip", "0 union select 1"),
])  # fmt: skip
def test_c8_parameters_of_lists_and_reports_are_typed(viewer: httpx.Client, path: str, name: str, value: str) -> None:
    assert viewer.get(f"/api/v1{path}", params={name: value}).status_code == 422


def nested(levels: int) -> list[Any]:
    rule: dict[str, Any] = {"field": "email", "operator": "is_set"}
    for _ in range(levels):
        rule = {"any": [rule]}
    return [rule]


@pytest.mark.parametrize("rules", [
    nested(1000), [{"field": "email", "operator": "is_set"}] * 10_000,
    [{"field": "email", "operator": "in", "value": ["x"] * 100_000}],
])  # fmt: skip
def test_c9_size_is_limited_before_anything_is_done(rules: Any) -> None:
    begun = time.perf_counter()
    with pytest.raises(InvalidInput):
        check(rules)
    assert time.perf_counter() - begun < 2


def test_c10_a_segment_cannot_lead_to_itself() -> None:
    def of(*ids: int) -> Definition:
        rule = {"field": "segments", "operator": "not_in", "value": [str(one) for one in ids]}
        return Definition(rules=({"none": [rule]},))

    setting = Setting(now=SETTING.now, reporting_currency="USD", segments={1: of(1), 2: of(3), 3: of(2)})
    for asked, own in ((of(1), 1), (of(1), None), (of(3), 2), (of(2), None)):
        with pytest.raises(InvalidInput, match="circle"):
            condition(asked, setting, segment_id=own)


#: One group for each field, with every operator.
EVERY_RULE = [{"any": [good(field, operator) for operator in OPERATORS[known.kind]
                       if known.kind != Kind.SEGMENTS or operator in ("is_set", "not_set")]}
              for field, known in FIELDS.items()]  # fmt: skip
ALLOWED = {"contacts", "contact_tags", "tags", "contact_scores", "contact_stages", "suppressions", "orders", "fx_rates",
           "segments", "segment_static_members", "segment_memberships", "messages"}  # fmt: skip


@pytest.fixture(scope="module")
def as_api(engine: Engine) -> Iterator[Engine]:
    """An engine with the rights of the API and no others."""
    with as_role(engine, "mauto_api") as url:
        own = connect(url)
        yield own
        own.dispose()


def tables_of(plan: Any) -> set[str]:
    """Every table a plan reads."""
    if isinstance(plan, list):
        return set().union(*map(tables_of, plan))
    if not isinstance(plan, dict):
        return set()
    own = {plan["Relation Name"]} if "Relation Name" in plan else set()
    return own.union(*map(tables_of, plan.values()))


def test_c11_every_query_reads_allowed_tables_as_a_role_that_can_do_no_more(as_api: Engine) -> None:
    custom = [{"field": "custom_fields.x", "as": kind, "operator": "eq" if kind != "time" else "before",
               "value": {"text": "x", "number": 1, "bool": True, "time": {"days_ago": 1}}[kind]}
              for kind in ("text", "number", "time", "bool")]  # fmt: skip
    money = [{"field": "order.revenue", "operator": "gt", "value": 1, "currency": "EUR"}]
    whole = {"exclude_unsubscribed": True, "exclude_suppressed": True, "exclude_bounced": True,
             "exclude_campaign_ids": (1,)}  # fmt: skip
    for rule in [*EVERY_RULE, *custom, *money]:
        asked = Definition(rules=(rule,), **whole)  # type: ignore[arg-type]
        for query in (members(asked, SETTING, segment_id=1), breakdown(asked, SETTING, segment_id=1)):
            with reading(as_api) as tx:
                assert tx.scalar(text("select current_user")) == ROLE
                statement = query.compile(tx, compile_kwargs={"render_postcompile": True})
                plan = tx.exec_driver_sql(f"explain (format json) {statement}", statement.params).scalar()
            read = {name for name in tables_of(plan) if not re.fullmatch(r"events(_\w+)?", name)}
            assert read <= ALLOWED, rule


@pytest.mark.parametrize("sql", [
    "select * from users", "select * from api_keys", "select * from audit_log", "select * from refresh_tokens",
    "select context from messages", "select * from message_contents", "select * from webhook_endpoints",
    "select * from idempotency_keys", "select * from imports", "select * from hits", "select * from schema_migrations",
    "select pg_read_file('/etc/passwd')", "select pg_ls_dir('.')", "select lo_import('/etc/passwd')",
    "copy contacts to '/tmp/x'", "copy contacts to program 'id'", "select dblink('x')", "select * from pg_authid",
    "insert into tags (name) values ('x')", "update contacts set first_name = ''", "delete from contacts",
    "drop table contacts", "create table mine (x int)", "select nextval('event_ids')",
])  # fmt: skip
def test_c11_the_role_can_read_nothing_else_and_write_nothing(as_api: Engine, sql: str) -> None:
    told = "permission denied|must be owner|read-only transaction|does not exist"
    with pytest.raises(DBAPIError, match=told), reading(as_api) as tx:
        tx.exec_driver_sql(sql)


def test_c11_its_privileges_are_this_list(engine: Engine) -> None:
    with engine.connect() as tx:
        rows = tx.execute(text(
            "select table_schema || '.' || table_name as name, privilege_type from information_schema.table_privileges "
            "where grantee = :role"), {"role": ROLE}).all()  # fmt: skip
        may_log_in = tx.scalar(text("select rolcanlogin or rolsuper or rolcreatedb or rolcreaterole or rolbypassrls "
                                    "from pg_roles where rolname = :role"), {"role": ROLE})  # fmt: skip
    assert {row.privilege_type for row in rows} == {"SELECT"}
    assert {row.name for row in rows} == {f"public.{name}" for name in (ALLOWED - {"messages"}) | {
        "events", "contact_mailability", "mailable_contacts"}}  # fmt: skip
    assert may_log_in is False


# C12 (random rules against a plain evaluation) is tests/integration/test_segment_rules.py; C13 (column aliases of an
# import) is test_i_import.py; C14 does not apply: there is no full-text search, lists look for literal parts of words.
@pytest.mark.parametrize("query", ["':* & !'", "& | !", "a:*b", "<->", "(("])
def test_c14_search_takes_any_text(viewer: httpx.Client, query: str) -> None:
    assert viewer.get("/api/v1/contacts/", params={"q": query}).status_code == 200
