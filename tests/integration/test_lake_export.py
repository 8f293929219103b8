"""The lake: what is written is what schema `analytics` holds, row by row; only what changed is written; never half."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyarrow import dataset, parquet
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from mautolib import maintenance, privacy
from mautolib.analytics import lake, readers_views, refreshing
from mautolib.analytics.lake import tables as lake_tables
from mautolib.analytics.lake import targets
from mautolib.cli.app import app
from mautolib.db.engine import connect
from mautolib.errors import InvalidInput, MautoError, Misconfigured, NotFound, ProviderUnavailable, TransientError
from mautolib.settings import Settings
from tests import s3_server
from tests.builders import make_contact, make_event, make_order, make_tag
from tests.dashboard_data import make_shop
from tests.live_service import as_role

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ODD = 'a "quoted", comma\nand line\\N \t é ™ 100%'
#: What most tests write; all of it only where that is the question.
SOME = ("dim_contacts", "dim_campaigns", "fct_events", "fct_orders", "erased_contacts")
Export = Callable[..., dict[str, lake.Exported]]


@pytest.fixture(scope="module")
def filled(cluster: Any, template_database: str) -> Iterator[str]:
    """Name of a filled database, with rows that are hard to carry; tests work on copies."""
    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    with engine.begin() as tx:
        make_shop(tx, now=NOW, contacts=25, campaigns=2)
        odd = make_contact(tx, email="odd@shop.example", created_at=NOW - 3 * DAY, country="", source=ODD)
        make_tag(tx, ODD, [odd])
        make_tag(tx, "Über", [odd])
        make_order(tx, odd, NOW - 2 * DAY, total="99999999999999.9999", order_id=ODD)
        make_order(tx, odd, NOW - 2 * DAY, total="0.0001", order_id="", fx_rate=None, fx_date=None, currency="JPY")
        make_order(tx, odd, NOW - 9 * DAY)
        make_event(tx, odd, "page_viewed", datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC), source=ODD)
        make_event(tx, 0, "page_viewed", datetime(2026, 2, 28, tzinfo=UTC))
    refreshing.refresh(engine, as_of=NOW)
    engine.dispose()
    yield name
    cluster.drop(name)


@pytest.fixture
def shop(cluster: Any, filled: str) -> Iterator[Engine]:
    """A copy of the filled database."""
    name = cluster.create(template=filled)
    engine = connect(cluster.url(name))
    yield engine
    engine.dispose()
    cluster.drop(name)


@pytest.fixture
def export(shop: Engine, settings: Settings, tmp_path: Path) -> Export:
    def run(target: str = str(tmp_path / "lake"), now: datetime = NOW, **options: Any) -> dict[str, lake.Exported]:
        options = {"tables": SOME, **options}
        return {one.table: one for one in lake.export(shop, settings, target=target, now=now, **options)}

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def source_rows(engine: Engine, table: str) -> list[Mapping[str, Any]]:
    with engine.connect() as tx:
        return [dict(row) for row in tx.execute(text(f"select * from analytics.{table}")).mappings()]


def lake_rows(folder: Path, table: str) -> list[Mapping[str, Any]]:
    import pyarrow as pa

    days = dataset.partitioning(pa.schema([("day", pa.date32())]), flavor="hive")
    files = sorted(str(path) for path in (folder / table).rglob("*.parquet"))
    found = dataset.dataset(files, partitioning=days, partition_base_dir=str(folder / table))
    return list(found.to_table().to_pylist())


def duck_rows(folder: Path, table: str) -> list[Mapping[str, Any]]:
    with duckdb.connect() as duck:
        where = f"read_parquet('{folder}/{table}/**/*.parquet', hive_partitioning = true)"
        return list(duck.sql(f"select * from {where}").to_arrow_table().to_pylist())


def told(rows: list[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    return sorted(repr([_plain(row[name]) for name in columns]) for row in rows)


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def relations(engine: Engine) -> dict[str, Mapping[str, str]]:
    with engine.connect() as tx:
        return {one.name: one.columns for one in readers_views.listed(tx)}


def stamps(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_ino for path in folder.rglob("*.parquet")}


def is_like_the_source(engine: Engine, folder: Path, *, but: tuple[str, ...] = ("refreshed_at",)) -> None:
    for table, columns in relations(engine).items():
        kept = {name: kind for name, kind in columns.items() if name not in but}
        rows = source_rows(engine, table)
        if not (folder / table).is_dir():
            continue
        found = lake_rows(folder, table) if any((folder / table).rglob("*.parquet")) else []
        assert told(found, kept) == told(rows, kept), table


def test_every_table_is_read_back_row_by_row_by_arrow_and_by_duckdb(
    shop: Engine, export: Export, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several queries a table, and several blocks and row groups a file.
    monkeypatch.setattr(lake_tables, "_CHUNK_ROWS", 50)
    monkeypatch.setattr("mautolib.analytics.lake.parquet._BLOCK_BYTES", 900)
    monkeypatch.setattr("mautolib.analytics.lake.parquet._GROUP_ROWS", 40)
    done = export(tables=())
    assert set(done) == set(relations(shop)) and done["fct_events"].files > 15
    is_like_the_source(shop, folder, but=())
    filled = 0
    for table, columns in relations(shop).items():
        rows = source_rows(shop, table)
        assert done[table].rows == len(rows)
        if rows:
            assert told(duck_rows(folder, table), columns) == told(rows, columns), table
            filled += 1
    assert filled >= 15
    assert json.loads((folder / "_SUCCESS").read_text())["tables"] == {name: one.files for name, one in done.items()}


def test_types_are_exact_and_days_are_folders(shop: Engine, export: Export, folder: Path) -> None:
    export(tables=[*SOME, "daily_email_metrics"])
    schema = parquet.read_schema(next((folder / "fct_orders").rglob("*.parquet")))
    kinds = {field.name: str(field.type) for field in schema}
    assert (kinds["total"], kinds["net_revenue"], kinds["fx_rate"]) == (
        "decimal128(19, 4)", "decimal128(18, 4)", "decimal128(18, 8)")  # fmt: skip
    assert (kinds["placed_at"], kinds["placed_month"], kinds["order_id"], kinds["order_number"]) == (
        "timestamp[us, tz=UTC]", "date32[day]", "int64", "string")  # fmt: skip
    people = parquet.read_schema(folder / "dim_contacts" / "part-0.parquet")
    assert str(people.field("tags").type) == "list<element: string>"
    assert str(people.field("is_subscribed").type) == "bool"
    (odd,) = [row for row in lake_rows(folder, "dim_contacts") if row["tags"]]
    assert (odd["tags"], odd["source"], odd["country"]) == (sorted([ODD, "Über"]), ODD, "")
    late = lake_rows(folder, "fct_events")
    assert {row["day"] for row in late if row["source"] == ODD} == {date(2026, 2, 28)}
    metrics = next((folder / "daily_email_metrics").rglob("*.parquet"))
    assert metrics.parent.name.startswith("day=2026-") and "day" not in parquet.read_schema(metrics).names
    (big,) = [row for row in lake_rows(folder, "fct_orders") if row["order_number"] == ODD]
    assert big["total"] == Decimal("99999999999999.9999")


def test_only_what_changed_is_written_again(shop: Engine, export: Export, folder: Path) -> None:
    export()
    before = stamps(folder)
    again = export(now=NOW + timedelta(hours=1))
    assert not any(one.written or one.removed for one in again.values())
    assert stamps(folder) == before
    with shop.begin() as tx:
        event = make_event(tx, 1, "page_viewed", datetime(2026, 1, 5, 8, tzinfo=UTC))
        tx.execute(text("update contacts set country = 'FR' where contact_id = 1"))
    late = export()
    assert {name: one.written for name, one in late.items() if one.written} == {"dim_contacts": 1, "fct_events": 1}
    after = stamps(folder)
    assert {name for name in after if after[name] != before.get(name)} == {
        "dim_contacts/part-0.parquet", "fct_events/day=2026-01-05/part-0.parquet"}  # fmt: skip
    is_like_the_source(shop, folder)
    with shop.begin() as tx:
        tx.execute(text("delete from events where occurred_at >= '2026-01-05Z' and occurred_at < '2026-01-06Z'"))
    assert event and export()["fct_events"].removed == 1
    assert not (folder / "fct_events/day=2026-01-05").exists()
    is_like_the_source(shop, folder)
    assert all(one.written == one.files for one in export(rewrite=True).values())
    is_like_the_source(shop, folder)


def test_days_and_tables_can_be_named(shop: Engine, export: Export, folder: Path) -> None:
    done = export(tables=["fct_events", "dim_campaigns"], from_=date(2026, 2, 1), to=date(2026, 2, 10))
    assert set(done) == {"fct_events", "dim_campaigns"}
    days = {path.parent.name for path in (folder / "fct_events").rglob("*.parquet")}
    assert days and min(days) >= "day=2026-02-01" and max(days) <= "day=2026-02-10"
    export(tables=["fct_events"], from_=date(2026, 2, 11))
    assert {path.parent.name for path in (folder / "fct_events").rglob("*.parquet")} > days
    (folder / "fct_events/day=2026-02-05").mkdir(exist_ok=True)
    alien = folder / "fct_events/day=2026-02-05/mine.parquet"
    alien.write_bytes(b"mine")
    export(tables=["fct_events"])
    assert alien.read_bytes() == b"mine", "what is not ours is left alone"


def test_a_lost_file_and_a_lost_manifest_come_back(shop: Engine, export: Export, folder: Path) -> None:
    export()
    next((folder / "fct_orders").rglob("*.parquet")).unlink()
    assert export()["fct_orders"].written == 1
    for content in ("", '{"format": 1}', "[]", '{"format": 1, "columns": {}, "partitioned_by": null}'):
        (folder / "dim_campaigns/_manifest.json").write_text(content)
        assert export(tables=["dim_campaigns"])["dim_campaigns"].written == 1
    is_like_the_source(shop, folder)


def test_a_killed_export_leaves_whole_files_and_the_next_one_finishes(
    shop: Engine, export: Export, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export()
    with shop.begin() as tx:
        for number in range(5):
            make_event(tx, 1, "page_viewed", NOW - (20 - number) * DAY)
    before = stamps(folder)
    real, count = targets.Folder.publish, 0

    def killed(self: targets.Folder, staged: Path, name: str) -> None:
        nonlocal count
        count += name.endswith(".parquet")
        if count == 3:
            raise OSError("killed")
        real(self, staged, name)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr(targets.Folder, "publish", killed)
        export()
    after = stamps(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    named = json.loads((folder / "fct_events/_manifest.json").read_text())["files"]
    assert len(changed) == 2
    assert not changed & named.keys()
    for path in folder.rglob("*.parquet"):
        parquet.read_table(path)
    assert export()["fct_events"].written == 5
    assert not list((folder / ".staging").iterdir())
    is_like_the_source(shop, folder)


def test_rows_that_break_off_publish_no_part_of_a_day(
    shop: Engine, export: Export, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mautolib.analytics.lake import parquet as writing

    monkeypatch.setattr(writing, "_BLOCK_BYTES", 200)
    real, count = writing._table, 0

    def broken(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 6:
            raise ConnectionError("the server is gone")
        return real(*given)

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(writing, "_table", broken)
        export(tables=["fct_messages"])
    assert len(source_rows(shop, "fct_messages")) > 30
    whole = source_rows(shop, "fct_messages")
    for path in (folder / "fct_messages").rglob("*.parquet"):
        day = path.parent.name.removeprefix("day=")
        own = [row for row in whole if row["queued_at"].date().isoformat() == day]
        assert parquet.read_table(path).num_rows == len(own)
    assert not list((folder / ".staging").iterdir())


def test_a_hasty_export_looks_at_old_days_once_a_day(shop: Engine, export: Export) -> None:
    old = datetime(2025, 12, 24, 18, tzinfo=UTC)
    assert export(hasty=True)["fct_events"].files > 15
    with shop.begin() as tx:
        make_event(tx, 1, "page_viewed", old)
        make_event(tx, 1, "page_viewed", NOW - 3 * DAY)
    assert export(hasty=True, now=NOW + timedelta(hours=1))["fct_events"].written == 1
    assert export(hasty=True, now=NOW + timedelta(hours=12))["fct_events"].written == 1
    assert export(hasty=True, now=NOW + DAY)["fct_events"].written == 0


def test_an_erased_person_is_not_in_the_lake_any_more(
    shop: Engine, export: Export, folder: Path, settings: Settings
) -> None:
    address = "zoe.quill@elsewhere.example"
    with shop.begin() as tx:
        zoe = make_contact(tx, email=address, created_at=NOW - 30 * DAY)
        make_tag(tx, "vip", [zoe])
        make_event(tx, zoe, "email_opened", NOW - 29 * DAY)
        make_order(tx, zoe, NOW - 20 * DAY, order_id=f"{address}/1")
    export()
    assert holding(folder, address) == {"fct_orders/day=2026-02-09/part-0.parquet"}
    assert zoe in {row["contact_id"] for row in lake_rows(folder, "dim_contacts")}
    before = stamps(folder)
    with shop.begin() as tx:
        privacy.erase(tx, zoe, actor="user:1", now=NOW, settings=settings)
    maintenance.run(shop, settings, now=NOW + timedelta(minutes=1), task=maintenance.Task.ERASURE)
    refreshing.refresh(shop, as_of=NOW + timedelta(hours=1))
    export(now=NOW + DAY, hasty=True)
    assert holding(folder, address) == set()
    assert zoe not in {row["contact_id"] for row in lake_rows(folder, "dim_contacts")}
    assert [row["contact_id"] for row in lake_rows(folder, "erased_contacts")] == [zoe]
    assert {name for name, stamp in stamps(folder).items() if stamp != before.get(name)} == {
        "dim_contacts/part-0.parquet", "erased_contacts/part-0.parquet", "fct_orders/day=2026-02-09/part-0.parquet"
    }, "and nothing else is written again"  # fmt: skip
    is_like_the_source(shop, folder)


def holding(folder: Path, address: str) -> set[str]:
    found = {path for path in folder.rglob("*.parquet") if address in repr(parquet.read_table(path).to_pylist())}
    return {path.relative_to(folder).as_posix() for path in found}


def test_an_analysts_rights_are_enough(shop: Engine, settings: Settings, folder: Path) -> None:
    with as_role(shop, "mauto_analyst") as url:
        analyst = connect(url)
        try:
            done = lake.export(analyst, settings, target=str(folder), now=NOW, from_=NOW.date())
        finally:
            analyst.dispose()
    assert len(done) == len(relations(shop))


def test_two_exports_to_one_target_do_not_meet(
    shop: Engine, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = targets.Folder.publish

    def meanwhile(self: targets.Folder, staged: Path, name: str) -> None:
        monkeypatch.setattr(targets.Folder, "publish", real)
        with pytest.raises(TransientError, match="another export"):
            export(tables=["dim_campaigns"])
        real(self, staged, name)

    monkeypatch.setattr(targets.Folder, "publish", meanwhile)
    assert export(tables=["dim_campaigns"])["dim_campaigns"].written == 1
    assert targets.Folder.publish is real


def test_what_is_wrong_is_said(export: Export, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong: list[tuple[type[MautoError], str, dict[str, Any]]] = [
        (Misconfigured, "absolute folder", {"target": "lake"}),
        (Misconfigured, "absolute folder", {"target": "gs://bucket/lake"}),
        (Misconfigured, "is the disk mounted", {"target": str(tmp_path / "not" / "there")}),
        (Misconfigured, "cannot be written", {"target": str(tmp_path / "file")}),
        (Misconfigured, "no prefix", {"target": "s3://bucket/"}),
        (Misconfigured, "name of a bucket", {"target": "s3://Bucket/lake"}),
        (NotFound, "no table people in schema analytics; there are ab_test_results", {"tables": ["people"]}),
        (InvalidInput, "before they begin", {"from_": date(2026, 2, 2), "to": date(2026, 2, 1)}),
    ]
    for kind, words, options in wrong:
        with pytest.raises(kind, match=words):
            export(**options)


@pytest.fixture(scope="module")
def store() -> Iterator[s3_server.Store]:
    with s3_server.working() as found:
        yield found


def test_a_bucket_is_written_and_read_back(
    shop: Engine, settings: Settings, store: s3_server.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    at = replace(settings, s3_endpoint_url=store.url)
    names = ["dim_contacts", "fct_orders", "daily_email_metrics"]

    def run(target: str = "s3://lists/shop/lake", to: Settings = at) -> dict[str, lake.Exported]:
        return {one.table: one for one in lake.export(shop, to, target=target, now=NOW, tables=names)}

    first = run()
    assert all(one.written == one.files > 0 for one in first.values())
    assert not any(one.written for one in run().values())
    client = store._client
    keys = [item["Key"] for item in client.list_objects_v2(Bucket="lists", Prefix="shop/lake/")["Contents"]]
    assert "shop/lake/_SUCCESS" in keys and not [key for key in keys if "staging" in key]
    for table in names:
        rows: list[Mapping[str, Any]] = []
        for key in (key for key in keys if key.startswith(f"shop/lake/{table}/") and key.endswith(".parquet")):
            content = client.get_object(Bucket="lists", Key=key)["Body"].read()
            rows += parquet.read_table(io.BytesIO(content)).to_pylist()
        kept = {name: kind for name, kind in relations(shop)[table].items() if name != "day"}
        assert told(rows, kept) == told(source_rows(shop, table), kept), table
    with shop.begin() as tx:
        tx.execute(text("delete from orders"))
    assert run()["fct_orders"].removed == first["fct_orders"].files
    assert not client.list_objects_v2(Bucket="lists", Prefix="shop/lake/fct_orders/day=").get("Contents")
    with pytest.raises(InvalidInput, match="no bucket nowhere"):
        run("s3://nowhere/lake")
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        run(to=replace(at, s3_endpoint_url="http://127.0.0.1:1"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(Misconfigured, match=r"[Cc]redentials"):
        run()


def test_the_command_says_what_it_did(
    shop: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAUTO_DATABASE_URL", shop.url.render_as_string(hide_password=False))

    def mauto(*words: str) -> Any:
        return CliRunner().invoke(app, ["lake", "export", *words])

    said = mauto("--target", str(folder), "--tables", "dim_contacts,fct_orders", "--from", "2026-02-01", "--json")
    assert said.exit_code == 0, said.output
    assert next((row["table"], row["files"]) for row in json.loads(said.output)) == ("dim_contacts", 1)
    assert (mauto().exit_code, mauto("--target", "gs://x/y").exit_code) == (2, 2)
    assert "no table" in mauto("--target", str(folder), "--tables", "x").output
    monkeypatch.setenv("MAUTO_LAKE_TARGET", str(folder))
    assert mauto("--tables", "dim_campaigns").exit_code == 0
    with shop.connect() as tx:
        assert tx.scalar(text("select count(*) from audit_log where action = 'analytics.export'")) == 2


def test_the_queries_of_the_guide_run(export: Export, folder: Path) -> None:
    export()
    guide = (Path(__file__).parents[2] / "docs/lake-export.md").read_text(encoding="utf-8")
    block = guide.partition("## DuckDB")[2].partition("```sql\n")[2].partition("```")[0]
    queries = [query for query in block.replace("/data/lake", str(folder)).split(";") if query.strip()]
    with duckdb.connect() as duck:
        found = [duck.sql(query).fetchall() for query in queries]
    assert [len(rows) > 0 for rows in found] == [True, True]
    assert {row[1] for row in found[0]} >= {"page_viewed", "email_opened"}
