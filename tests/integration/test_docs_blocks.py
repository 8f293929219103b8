"""The SQL and Python blocks of the documents are run as they stand, or it is said here why they are not."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import workflows
from mautolib.db.engine import connect
from mautolib.db.localpg import temporary_cluster
from mautolib.db.migrate import migrate
from mautolib.scoring import rules
from mautolib.settings import Settings
from mautolib.stack.plan import LOGIN_ROLES
from mautolib.workflows import NewWorkflow
from tests.builders import make_contact, make_event, make_order
from tests.chaos.operations import environment

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(sql|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANALYST, API, OWNER = "mauto_analyst", "mauto_api", "mauto_owner"
#: The page's blocks in their order -> the role that asks, or which test runs it, or why nothing can.
BLOCKS = {
    "docs/ab-tests.md": (ANALYST,),
    "docs/analytics.md": ("test_the_notebook_reads_a_table",),
    "docs/campaigns.md": (ANALYST,),
    "docs/customer-value.md": (ANALYST,),
    "docs/feedback.md": (API,),
    "docs/lake-export.md": ("test_lake_export.py", "needs Spark", "needs Trino; its columns are compared below"),
    "docs/operations.md": ("test_a_server_of_ones_own",) * 2,
    "docs/scoring.md": (ANALYST, API, OWNER, "test_a_past_day_is_scored"),
    "docs/segments.md": (API,),
    "docs/webhooks.md": ("test_webhook_samples.py",),
    "docs/workflows.md": ("test_a_workflow_is_tried",),
    "sql/README.md": ("the form of a statement, not one",),
}
#: All its statements are run by test_analytics_documentation.py, however many there are.
_WALKED = "docs/analytics.md"
ASKED = [(page, place) for page, hows in BLOCKS.items() for place, how in enumerate(hows)
         if how in (ANALYST, API, OWNER)]  # fmt: skip


def blocks(page: str) -> list[str]:
    found = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [body for language, body in found if language == "python" or page != _WALKED]


def test_every_block_is_run_or_says_why_not() -> None:
    pages = (path for folder in (ROOT, ROOT / "docs", ROOT / "sql") for path in folder.glob("*.md"))
    pages = [*pages, *(ROOT / "docs").glob("*/*.md")]
    names = (path.relative_to(ROOT).as_posix() for path in pages)
    found = {name: count for name in names if (count := len(blocks(name)))}
    assert found == {page: len(hows) for page, hows in BLOCKS.items()}


@pytest.mark.parametrize(("page", "place"), ASKED, ids=lambda value: str(value))
def test_the_statements_run_for_whom_the_page_means(tx: Connection, page: str, place: int) -> None:
    role = BLOCKS[page][place]
    if role != OWNER:
        tx.execute(text(f"set local role {role}"))
    if role == ANALYST:  # as `make psql` sets it
        tx.execute(text("set local search_path = analytics, public"))
    block = re.sub(r"^\s*--.*$", "", blocks(page)[place], flags=re.MULTILINE)
    for statement in filter(str.strip, block.split(";")):
        tx.exec_driver_sql(statement)


def test_the_columns_shown_are_the_columns_there_are(tx: Connection) -> None:
    """What docs/scoring.md shows below its queries."""
    page = (ROOT / "docs/scoring.md").read_text(encoding="utf-8")
    tx.execute(text("set local search_path = public, analytics"))
    for block, shown in re.findall(r"```sql\n(.*?)```\n```\n(.*?)```", page, re.DOTALL):
        headings = [line for line, below in zip(shown.splitlines(), shown.splitlines()[1:], strict=False)
                    if re.fullmatch(r"[-+]+", below)]  # fmt: skip
        statements = [one for one in re.sub(r"^\s*--.*$", "", block, flags=re.MULTILINE).split(";") if one.strip()]
        assert len(headings) == len(statements)
        for heading, statement in zip(headings, statements, strict=True):
            assert list(tx.exec_driver_sql(statement).keys()) == [name.strip() for name in heading.split("|")]


def test_the_columns_told_to_trino_are_those_of_the_table(tx: Connection) -> None:
    told = blocks("docs/lake-export.md")[2].partition("fct_events (")[2].partition("\n) with")[0]
    names = re.findall(r"(?:^|, |\n)\s*(\w+) (?:bigint|varchar|timestamp|date)", told)
    there = tx.scalars(text("select column_name from information_schema.columns where table_schema = 'analytics' "
                            "and table_name = 'fct_events' order by ordinal_position")).all()  # fmt: skip
    assert names == [*there, "day"]


@pytest.fixture
def as_documented(settings: Settings, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings in the environment, as `python -m mautolib.stack run` sets them."""
    for name, value in environment(settings).items():
        if name.startswith("MAUTO_"):
            monkeypatch.setenv(name, value)
    return settings


def test_the_notebook_reads_a_table(
    fresh_engine: Engine, as_documented: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime(2026, 11, 15, 12, tzinfo=UTC)
    with fresh_engine.begin() as tx:
        make_order(tx, make_contact(tx), now)
    exec(compile(blocks("docs/analytics.md")[-1], "docs/analytics.md", "exec"), {})
    said = capsys.readouterr().out
    assert "count" in said and "2026-11" in said


def test_a_past_day_is_scored(
    fresh_engine: Engine, as_documented: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with fresh_engine.begin() as tx:
        make_contact(tx)
        new = rules.NewRule(name="Readers", event_type="page_viewed")
        rules.create_rule(tx, new, actor="test", now=datetime(2026, 1, 1, tzinfo=UTC))
        assert rules.current_version(tx) == 2
    exec(compile(blocks("docs/scoring.md")[-1], "docs/scoring.md", "exec"), {})
    assert "ScoreResult(" in capsys.readouterr().out


def test_a_workflow_is_tried(
    fresh_engine: Engine, as_documented: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    step = {"type": "action", "action": "tag", "tag_name": "Read"}
    with fresh_engine.begin() as tx:
        new = NewWorkflow(name="Readers", trigger_type="event", trigger_config={"event_type": "page_viewed"},
                          steps=(step,))  # fmt: skip
        assert workflows.create(tx, new, actor="test", now=now).workflow_id == 1
        make_event(tx, make_contact(tx), "page_viewed", now)
    exec(compile(blocks("docs/workflows.md")[-1], "docs/workflows.md", "exec"), {})
    assert "1 would enter; contact 1 ends completed" in capsys.readouterr().out


def test_a_server_of_ones_own() -> None:
    """The two blocks of docs/operations.md on a new server: owner and databases, the schema, then the five roles."""
    making, roles = (block.replace("'...'", "'a long password'") for block in blocks("docs/operations.md"))
    with temporary_cluster() as cluster:
        for statement in filter(str.strip, making.split(";")):
            cluster.run_psql("-qc", statement)
        owner = cluster.url("mauto", user=OWNER, password="a long password")
        engine = connect(owner)
        migrate(engine)
        giving, rest = roles.split("--")
        named = ["mauto_api", *re.findall(r"mauto_\w+", rest)]
        assert sorted(named) == sorted(f"mauto_{role}" for role in LOGIN_ROLES)
        with engine.begin() as tx:
            for role in named:
                tx.exec_driver_sql(giving.replace("mauto_api", role))
        engine.dispose()
        for role in named:
            with psycopg2.connect(cluster.url("mauto", user=role, password="a long password")) as signed_in:
                assert signed_in.info.user == role
            signed_in.close()

