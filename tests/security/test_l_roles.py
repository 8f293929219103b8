"""Who may do what in the database (group L4): the grants themselves, read from the catalogue, not from their text.

A table that is added later is in these tests by itself. That each service works with its own role and no other is
shown where it works: the API in every test of `tests/api`, tracking in `tests/integration/test_hits_durable.py`, DAGs
in `tests/dags/test_canaries.py`, imports, erasure and webhooks with their own tests.
"""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from mautolib.db.engine import connect
from tests.live_service import as_role

ROLES = ("mauto_api", "mauto_worker", "mauto_tracker", "mauto_analyst", "mauto_eraser", "mauto_segments")
SCHEMAS = "('public', 'analytics', 'rollups', 'staging')"
#: Facts: appended, and changed by nobody but the task that erases people.
APPENDED = {"events", "hits", "hit_verdicts", "consents", "audit_log", "message_attempts", "score_history",
            "score_runs", "score_rule_awards", "stage_transitions", "erased_contacts"}  # fmt: skip
#: What may name or find a person; no column an analyst reads is one of them.
PERSONAL = [
    "address", "email", "email_key", "to_email", "to_key", "first_name", "last_name", "phone", "city", "region",
    "postal_code", "company", "birthday", "custom_fields", "properties", "context", "user_agent", "network", "ip",
    "subject", "html_body", "lines", "payload", "data", "note", "notes", "reason_text", "last_error", "to_name",
    "external_id", "token", "url_hash",
]  # fmt: skip


def rights(tx: Connection, role: str) -> dict[str, set[str]]:
    """What `role` holds itself, or by a role it always acts as: `schema.table` -> letters of r, a, w, d, D."""
    found: dict[str, set[str]] = {}
    letters = {"select": "r", "insert": "a", "update": "w", "delete": "d", "truncate": "D", "trigger": "t"}
    query = f"""
        select n.nspname || '.' || c.relname as name, right_of
        from pg_class c join pg_namespace n on n.oid = c.relnamespace,
            unnest(cast(:rights as text[])) as right_of
        where n.nspname in {SCHEMAS} and c.relkind in ('r', 'p', 'v', 'm')
            and has_table_privilege(:role, c.oid, right_of)"""
    for row in tx.execute(text(query), {"role": role, "rights": list(letters)}):
        found.setdefault(row.name, set()).add(letters[row.right_of])
    return found


def names(tx: Connection, query: str, **values: object) -> list[str]:
    return [str(value) for value in tx.scalars(text(query), values)]


@pytest.mark.parametrize("role", ROLES)
def test_l4_a_role_is_nobody_special_and_owns_nothing(tx: Connection, role: str) -> None:
    special = tx.execute(text("select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls"
                              " from pg_roles where rolname = :role"), {"role": role}).scalar_one()  # fmt: skip
    assert not special
    owned = f"""select c.oid::regclass from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where pg_get_userbyid(c.relowner) = :role and n.nspname in {SCHEMAS}
        union all select p.oid::regprocedure from pg_proc p where pg_get_userbyid(proowner) = :role
        union all select nspname::regnamespace from pg_namespace where pg_get_userbyid(nspowner) = :role"""
    assert names(tx, owned.replace("select c.oid::regclass", "select c.oid::regclass::text")
                 .replace("p.oid::regprocedure", "p.oid::regprocedure::text")
                 .replace("nspname::regnamespace", "nspname::text"), role=role) == []  # fmt: skip
    may_create = f"select nspname from pg_namespace where nspname in {SCHEMAS}" \
                 " and has_schema_privilege(:role, oid, 'create')"  # fmt: skip
    assert names(tx, may_create, role=role) == (["staging"] if role == "mauto_worker" else [])


def test_l4_roles_are_members_of_no_stronger_role(tx: Connection) -> None:
    members = """select member::regrole::text || ' in ' || roleid::regrole::text from pg_auth_members
        where member::regrole::text like 'mauto\\_%' and member::regrole::text <> current_user
            and member::regrole::text not like 'mauto\\_test\\_%' order by 1"""
    assert names(tx, members) == [
        "mauto_api in mauto_analyst", "mauto_api in mauto_segments", "mauto_worker in mauto_segments",
    ]  # fmt: skip


def test_l4_everybody_has_no_right_by_himself(tx: Connection) -> None:
    """PUBLIC, to which every login of the server belongs."""
    held = f"""
        select 'schema ' || nspname
        from pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) as right_of
        where grantee = 0 and nspname in {SCHEMAS}
        union all
        select 'table ' || c.oid::regclass from pg_class c join pg_namespace n on n.oid = c.relnamespace,
            aclexplode(c.relacl) as right_of
        where grantee = 0 and n.nspname in {SCHEMAS}
        union all
        select 'function ' || p.oid::regprocedure from pg_proc p join pg_namespace n on n.oid = p.pronamespace,
            aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as right_of
        where grantee = 0 and p.prosecdef and n.nspname in {SCHEMAS}"""
    assert names(tx, held) == []


def test_l4_what_runs_with_its_owners_rights_has_a_fixed_path(tx: Connection) -> None:
    query = f"""select p.oid::regprocedure::text as name, p.proconfig from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace where p.prosecdef and n.nspname in {SCHEMAS}"""
    found = {row.name: row.proconfig or [] for row in tx.execute(text(query))}
    assert len(found) > 10
    # pg_temp is named last, or it would be searched first.
    assert {name for name, config in found.items() if "search_path=public, pg_temp" not in config} == set()
    callers = """select grantee::regrole::text from pg_proc, aclexplode(proacl)
        where oid = cast(:name as regprocedure) and grantee <> proowner order by 1"""
    called = {name: names(tx, callers, name=name) for name in found}
    assert {name: who for name, who in called.items() if who} == {
        "analytics.reporting_currency()": ["mauto_analyst", "mauto_api", "mauto_worker"],
        "analytics.reporting_timezone()": ["mauto_analyst", "mauto_api", "mauto_worker"],
        "drop_oldest_hits(timestamp with time zone)": ["mauto_worker"],
        "ensure_month_partition(regclass,date)": ["mauto_api", "mauto_worker"],
        "existing_contacts(bigint[])": ["mauto_api", "mauto_tracker", "mauto_worker"],
    }


@pytest.mark.parametrize("role", ["mauto_api", "mauto_worker"])
def test_l4_a_process_reads_and_writes_and_appends_facts(tx: Connection, role: str) -> None:
    held = rights(tx, role)
    everything = {name: letters for name, letters in held.items() if name.startswith("public.")}
    assert len(everything) > 80
    views = set(names(tx, "select schemaname || '.' || viewname from pg_views where schemaname = 'public'"))
    narrower = {f"public.{name}": {"r", "a"} for name in APPENDED}
    narrower |= {name: {"r"} for name in (*views, "public.schema_migrations", "public.holdout_periods")}
    narrower["public.installation"] = {"r"} if role == "mauto_api" else {"r", "w"}
    assert {name: letters for name, letters in everything.items() if letters != {"r", "a", "w", "d"}} == narrower


def test_l4_views_are_written_by_nobody(tx: Connection) -> None:
    """Else a process could delete events through `analytics.fct_events`, with the rights of the view's owner."""
    open_doors = names(tx, """select c.oid::regclass::text || ' ' || right_of.grantee::regrole::text
        from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) as right_of
        where c.relkind = 'v' and n.nspname in ('public', 'analytics', 'rollups')
            and right_of.grantee <> c.relowner and right_of.privilege_type <> 'SELECT'""")  # fmt: skip
    assert open_doors == []


def test_l4_the_tracker_only_appends(tx: Connection) -> None:
    told = ("hits", "hit_verdicts", "events", "event_pending", "event_keys")
    assert rights(tx, "mauto_tracker") == {f"public.{name}": {"a"} for name in told}


def test_l4_an_analyst_only_reads_and_only_what_is_about_no_person(tx: Connection) -> None:
    held = rights(tx, "mauto_analyst")
    assert {name.split(".")[0] for name in held} == {"analytics"} and len(held) > 15
    assert set().union(*held.values()) == {"r"}
    columns = names(tx, "select table_name || '.' || column_name from information_schema.columns"
                        " where table_schema = 'analytics' order by 1")  # fmt: skip
    assert [name for name in columns if name.split(".")[1] in PERSONAL] == []
    # Text that is neither an id, a state nor a number, each looked at: written by the staff, or a mail provider.
    loose = names(tx, """select table_name || '.' || column_name from information_schema.columns
        where table_schema = 'analytics' and (column_name ~ 'name|url|label|domain|jsonb?' or data_type = 'jsonb')
        order by 1""")  # fmt: skip
    assert loose == [
        "ab_test_results.variant_name", "campaign_link_performance.url", "campaign_performance.campaign_name",
        "contact_cohorts.cohort_label", "deliverability_by_domain.domain", "dim_campaigns.campaign_name",
    ]  # fmt: skip


def test_l4_segment_rules_read_what_they_are_made_of(tx: Connection) -> None:
    held = rights(tx, "mauto_segments")
    assert set().union(*held.values()) == {"r"}
    others = "users sessions api_keys messages consents audit_log webhook_endpoints imports message_contents"
    assert not {f"public.{name}" for name in others.split()} & held.keys()
    assert len(held) < 20


def test_l4_the_eraser_changes_but_adds_nothing(tx: Connection) -> None:
    held = rights(tx, "mauto_eraser")
    assert not set().union(*held.values()) & {"a", "D", "t"}
    assert "public.schema_migrations" not in held and held["public.installation"] == {"r"}


ATTEMPTS = [
    "create table public.mine (n int)", "alter table public.contacts add mine int", "drop table public.contacts",
    "create function public.mine() returns int language sql as 'select 1'", "create schema mine",
    "create role mine", "alter role mauto_owner superuser", "create extension dblink schema analytics",
    "truncate public.events",
    "alter table public.contacts disable trigger all", "set role mauto_owner", "set session authorization mauto_owner",
    "select pg_read_file('/etc/passwd')", "copy (select 1) to program 'id'", "select pg_ls_dir('.')",
    "select lo_import('/etc/passwd')", "alter system set log_statement = 'all'", "delete from analytics.fct_events",
    "update analytics.erased_contacts set contact_id = 0", "grant mauto_owner to current_user",
    "alter function public.existing_contacts(bigint[]) reset search_path", "set role mauto_eraser",
]  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_l4_no_login_of_a_process_changes_the_schema_or_its_rights(engine: Engine, role: str) -> None:
    with as_role(engine, role) as url:
        mine = connect(url, pool_size=1).execution_options(isolation_level="AUTOCOMMIT")
        try:
            for attempt in ATTEMPTS:
                if attempt.endswith(f" {role}"):
                    continue
                with mine.connect() as tx, pytest.raises(DBAPIError) as caught:
                    tx.exec_driver_sql("set default_transaction_read_only = off")
                    tx.exec_driver_sql(attempt)
                assert caught.value.orig.pgcode == "42501", (attempt, caught.value)  # type: ignore[union-attr]
        finally:
            mine.dispose()


def test_l4_nobody_waits_for_ever(tx: Connection, engine: Engine) -> None:
    config = names(tx, "select unnest(rolconfig) from pg_roles where rolname = 'mauto_analyst' order by 1")
    assert config == ["default_transaction_read_only=on", "statement_timeout=5min"]
    # A worker that froze inside a transaction loses it; its statements take as long as they must.
    limits = ("idle_in_transaction_session_timeout", "statement_timeout")
    assert [names(tx, f"show {name}") for name in limits] == [["5min"], ["0"]]
    from api.app import STATEMENT_TIMEOUT_MS

    assert STATEMENT_TIMEOUT_MS == 30_000
