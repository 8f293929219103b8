"""Orders from files: every row accounted for, each order once, nothing started, nobody opted in."""

from __future__ import annotations

import csv
import gzip
import json
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import contacts, privacy
from mautolib.contacts import NewContact
from mautolib.errors import InvalidInput
from mautolib.events.orders import NewRate, load_rates
from mautolib.ingestion import check, ingest, order_files, order_staging, rate_files
from mautolib.ingestion.order_loading import Leave, Loaded, OrderFile, load, stand_in
from mautolib.settings import Settings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RETAIL = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
TEA = "A1,TEA,Sencha,2,2026-05-01 09:30:00,29.95,17850.0,EIRE\n"
CUP = "A1,CUP,Cup,1,2026-05-01 09:31:00,4.10,17850.0,EIRE\n"
BACK = "CA2,CUP,Cup,-1,2026-05-03 10:00:00,4.10,17850.0,EIRE\n"
WALK_IN = "A3,TEA,Sencha,1,2026-05-04 10:00:00,29.95,,Germany\n"
FREE = "A4,GIFT,Gift,1,2026-05-05 10:00:00,0,12583.0,France\n"


def put(folder: Path, content: str | bytes, name: str = "orders.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def take(engine: Engine, settings: Settings, path: Path, *leaves: Leave, **how: Any) -> Loaded:
    names = ("dry_run", "rejects")
    options = {name: how.pop(name) for name in names if name in how}
    given = OrderFile(path=path, leaves=frozenset(leaves), **how)
    return load(engine, given, settings, now=NOW, **options)


def rows(engine: Engine, sql: str) -> list[tuple[Any, ...]]:
    with engine.connect() as tx:
        return [tuple(row) for row in tx.execute(text(sql))]


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_rows_become_orders_with_their_customers(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    path = put(tmp_path, gzip.compress((RETAIL + TEA + BACK + WALK_IN + CUP + FREE).encode()), "orders.csv.gz")
    found = take(fresh_engine, settings, path)
    assert (found.rows, found.taken_rows, found.new, found.contacts_made) == (5, 5, 4, 2)
    assert found.totals == {"GBP": Decimal("89.85")}
    stored = "select order_id, source, total, placed_at, lines, contact_id > 0 from orders order by 1"
    assert rows(fresh_engine, stored) == [
        ("A1", "online_retail", Decimal("64.0000"), datetime(2026, 5, 1, 9, 30, tzinfo=UTC),
         [{"sku": "TEA", "name": "Sencha", "quantity": 2, "unit_price": "29.95", "discount": "0.00"},
          {"sku": "CUP", "name": "Cup", "quantity": 1, "unit_price": "4.10", "discount": "0.00"}], True),
        ("A3", "online_retail", Decimal("29.9500"), datetime(2026, 5, 4, 10, tzinfo=UTC),
         [{"sku": "TEA", "name": "Sencha", "quantity": 1, "unit_price": "29.95", "discount": "0.00"}], False),
        ("A4", "online_retail", Decimal("0.0000"), datetime(2026, 5, 5, 10, tzinfo=UTC),
         [{"sku": "GIFT", "name": "Gift", "quantity": 1, "unit_price": "0.00", "discount": "0.00"}], True),
        ("CA2", "online_retail", Decimal("-4.1000"), datetime(2026, 5, 3, 10, tzinfo=UTC),
         [{"sku": "CUP", "name": "Cup", "quantity": -1, "unit_price": "4.10", "discount": "0.00"}], True),
    ]  # fmt: skip
    people = "select email, country, subscribed, consent_status, source from contacts order by 1"
    assert rows(fresh_engine, people) == [
        (stand_in("online_retail", "12583").email, "FR", False, "unknown", "order_file"),
        (stand_in("online_retail", "17850").email, "IE", False, "unknown", "order_file"),
    ]


def test_history_starts_nothing(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    take(fresh_engine, settings, put(tmp_path, RETAIL + TEA))
    assert rows(fresh_engine, "select event_type, contact_id > 0 from events order by 1") == [
        ("contact_created", True), ("milestone_reached", True), ("order_placed", True)]  # fmt: skip
    for table in ("event_pending", "outbox"):
        assert rows(fresh_engine, f"select count(*) from {table}") == [(0,)], table
    # Scores learn of it at night all the same.
    assert rows(fresh_engine, "select count(*) from score_stale") != [(0,)]


def test_what_is_left_out_is_counted(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    path = put(tmp_path, RETAIL + TEA + CUP + BACK + WALK_IN + FREE)
    found = take(fresh_engine, settings, path, Leave.CANCELLATIONS, Leave.FREE_LINES, Leave.NO_CUSTOMER)
    assert (found.new, found.taken_rows, found.rejected) == (1, 2, {})
    assert found.left_out == {"cancellation": (1, 1), "free-lines": (0, 1), "no_customer": (1, 1)}


def test_loading_again_changes_nothing(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    path = put(tmp_path, RETAIL + TEA + CUP + BACK)
    assert take(fresh_engine, settings, path, dry_run=True).new == 2
    assert rows(fresh_engine, "select count(*) from orders") == [(0,)]
    take(fresh_engine, settings, path)
    events = rows(fresh_engine, "select * from events order by event_id")
    # In another order, so that only the content can tell them.
    again = take(fresh_engine, settings, put(tmp_path, RETAIL + BACK + TEA + CUP))
    assert (again.new, again.duplicates, again.conflicts, again.contacts_made) == (0, 2, 0, 0)
    assert rows(fresh_engine, "select * from events order by event_id") == events


def test_a_known_order_of_an_erased_person_makes_nobody(
    fresh_engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    path = put(tmp_path, RETAIL + TEA)
    take(fresh_engine, settings, path)
    with fresh_engine.begin() as tx:
        privacy.erase(tx, rows(fresh_engine, "select contact_id from contacts")[0][0], actor="user:1", now=NOW,
                      settings=settings)  # fmt: skip
    assert take(fresh_engine, settings, path).duplicates == 1
    privacy.carry_out(fresh_engine, settings, now=NOW + timedelta(minutes=1))
    # The names of goods are gone from the order: it is known, with other content.
    assert take(fresh_engine, settings, path).conflicts == 1
    assert rows(fresh_engine, "select count(*) from contacts") == [(0,)]


def test_other_content_is_a_conflict(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    take(fresh_engine, settings, put(tmp_path, RETAIL + TEA + CUP))
    rejects = tmp_path / "rejects.csv"
    dearer = put(tmp_path, RETAIL + TEA + CUP.replace("4.10", "4.20") + BACK)
    other = take(fresh_engine, settings, dearer, rejects=rejects)
    assert (other.new, other.duplicates, other.conflicts, other.rejected_rows) == (1, 0, 1, 2)
    assert [row[:3] for row in read(rejects)[1:]] == [
        ["2", "order_id", "an order of this number is known with other content"],
        ["3", "order_id", "an order of this number is known with other content"],
    ]
    # Somebody else's order of this number is another order, too.
    third = take(fresh_engine, settings, put(tmp_path, RETAIL + (TEA + CUP).replace("17850.0", "999")))
    assert third.conflicts == 0, "999 is nobody yet"
    take(fresh_engine, settings, put(tmp_path, RETAIL + FREE.replace("12583.0", "999")))
    third = take(fresh_engine, settings, put(tmp_path, RETAIL + (TEA + CUP).replace("17850.0", "999")))
    assert third.conflicts == 1


def test_an_order_the_shop_told_is_the_same_order(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    lines = [{"sku": "TEA", "name": "Sencha", "quantity": 2, "unit_price": "29.95"}]
    told = {"type": "order_placed", "source": "shop", "email": "ana@shop.example", "properties": {
        "order_id": "1001", "currency": "EUR", "total": "59.9", "lines": lines}}  # fmt: skip
    with fresh_engine.begin() as tx:
        ingest(tx, [check(told, now=NOW)], settings, now=NOW)
    header = "order_id,placed_at,email,sku,name,quantity,unit_price\n"
    content = header + "1001,2026-05-01,ANA@shop.example,TEA,Sencha,2,29.95\n"
    found = take(fresh_engine, settings, put(tmp_path, content), source="shop", currency="EUR")
    assert (found.new, found.duplicates, found.contacts_made) == (0, 1, 0)


def test_rejected_rows_are_written_to_be_corrected(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    bad = (
        TEA + CUP.replace(",1,", ",one,") + "B1,=cmd(),Tea,1,01/05/2026,5,1,France\n"
        + 'B2,TEA,"Tea,1,2026-05-01,5,1,France\n' + "B3,TEA,Tea,1,2026-05-01,5,1\n" + BACK
        + "B4,TEA,Tea,1,2027-05-01,5,1,France\n" + "B5,TEA,Tea,1.5,2026-05-01,5,1,France\n"
        + "B6,TEA,Tea,1,2026-05-01,GBP 5,1,France\n" + ",TEA,Tea,1,2026-05-01,5,1,France\n"
    )  # fmt: skip
    rejects = tmp_path / "rejects.csv"
    found = take(fresh_engine, settings, put(tmp_path, RETAIL + bad), rejects=rejects)
    assert (found.rows, found.taken_rows, found.new, found.rejected_rows) == (10, 1, 1, 9)
    written = read(rejects)
    assert written[0] == ["rejected_line", "rejected_field", "problem", "what_to_do", *RETAIL.strip().split(",")]
    assert [(row[0], row[1]) for row in written[1:]] == [
        ("2", "order_id"), ("3", "quantity"), ("4", "placed_at"), ("5", "row"), ("6", "row"), ("8", "placed_at"),
        ("9", "quantity"), ("10", "amount"), ("11", "order_id"),
    ]  # fmt: skip
    assert "another row of this order is rejected" in written[1][2]
    assert written[3][5] == "'=cmd()" and all(row[3] for row in written[1:])
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    # Corrected, the rejected rows are a file that is loaded; the guard of the formula comes off.
    corrected = rejects.read_text(encoding="utf-8").replace(",one,", ",1,").replace("01/05/2026", "2026-05-01")
    again = take(fresh_engine, settings, put(tmp_path, corrected, "corrected.csv"))
    # With B2: its quote that is never closed was written as the character it most likely is.
    assert (again.new, again.rejected_rows) == (3, 5)
    stored = "select order_id, total, lines -> 0 ->> 'sku' from orders where order_id <> 'CA2' order by order_id"
    assert rows(fresh_engine, stored) == [
        ("A1", Decimal("64.0000"), "TEA"), ("B1", Decimal("5.0000"), "=cmd()"), ("B2", Decimal("5.0000"), "TEA"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("second", "field", "problem"),
    [
        ("A1,2026-05-01,b@shop.example,EUR,10", "customer_id", "different customers"),
        ("A1,2026-05-01,a@shop.example,USD,10", "currency", "different currencies"),
        ("A1,2026-05-01,a@shop.example,EUR,11", "total", "different totals"),
        ("A2,,a@shop.example,EUR,10", "placed_at", "when it was placed"),
        ("A2,2026-05-01,a@shop.example,,10", "currency", "currency is not known"),
        ("A2,2026-05-01,a@shop.example,EUR,", "total", "neither a total nor a price"),
        ("A2,2026-05-01,a@shop.example,EUR,1234567890123456", "amount", "not a decimal"),
        ("A2,2026-05-01,no address,EUR,10", "email", "not acceptable"),
        ("A2,2026-05-01,a@shop.example,XXX,10", "currency", "ISO 4217"),
    ],
)
def test_what_is_wrong_with_an_order(
    fresh_engine: Engine, settings: Settings, tmp_path: Path, second: str, field: str, problem: str
) -> None:
    header = "order_id,placed_at,email,currency,total\n"
    path = put(tmp_path, header + "A1,2026-05-01,a@shop.example,EUR,10\nA9,2026-05-01,a@shop.example,EUR,10\n" + second)
    found = take(fresh_engine, settings, path)
    assert {name for name, _ in found.rejected} == {field}
    assert problem in next(iter(found.rejected))[1]
    assert found.new == (1 if second.startswith("A1") else 2)


def test_a_shopify_export(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    content = (
        "Name,Email,Financial Status,Currency,Subtotal,Shipping,Taxes,Total,Discount Amount,Created at,"
        "Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Billing Country,"
        "Refunded Amount,Lineitem discount\n"
        "#1001,ana@shop.example,partially_refunded,EUR,64.00,5.00,9.56,66.00,3.00,2026-05-01 09:30:00 +0200,2,"
        "Sencha,29.95,TEA,FR,10.00,0\n"
        "#1001,ana@shop.example,,,,,,,,2026-05-01 09:30:00 +0200,1,Cup,4.10,CUP,,,0\n"
        "#1002,ben@shop.example,voided,EUR,5,0,0,5,0,2026-05-02 09:30:00 +0200,1,Cup,5,CUP,DE,0,0\n"
    )
    found = take(fresh_engine, settings, put(tmp_path, content))
    assert (found.preset, found.new, found.refunds, found.taken_rows) == ("shopify", 1, 1, 2)
    assert found.left_out == {"void": (1, 1)}
    stored = "select order_id, total, discount, shipping, tax, refunded_total, placed_at, jsonb_array_length(lines)"
    assert rows(fresh_engine, f"{stored} from orders") == [
        ("#1001", Decimal("66.0000"), Decimal("3.0000"), Decimal("5.0000"), Decimal("9.5600"), Decimal("10.0000"),
         datetime(2026, 5, 1, 7, 30, tzinfo=UTC), 2)]  # fmt: skip
    again = take(fresh_engine, settings, put(tmp_path, content))
    assert (again.duplicates, again.refunds) == (1, 0)
    assert rows(fresh_engine, "select refunded_total from orders") == [(Decimal("10.0000"),)]


def test_a_woocommerce_export(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    content = (
        "order_id;order_number;order_date;status;shipping_total;tax_total;discount_total;order_total;refunded_total;"
        "order_currency;customer_id;billing_email;billing_country\n"
        "55;W-55;2026-05-01 09:30:00;completed;5;9.56;0;1.066,00;0;EUR;7;ana@shop.example;FR\n"
        "56;W-56;2026-05-01 09:30:00;wc-failed;5;9.56;0;66;0;EUR;0;;FR\n"
    )
    path = put(tmp_path, content)
    found = take(fresh_engine, settings, path, decimal_comma=True, timezone="America/New_York")
    assert (found.preset, found.new, found.left_out) == ("woocommerce", 1, {"void": (1, 1)})
    assert rows(fresh_engine, "select order_id, total, lines, placed_at from orders") == [
        ("W-55", Decimal("1066.0000"), [], datetime(2026, 5, 1, 13, 30, tzinfo=UTC))]  # fmt: skip


def test_a_mapping_of_ones_own(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    content = "Nr;Datum;Kunde;Summe;Notiz\n7;01.05.2026 09:30;ana@shop.example;12,50 ;caf\u00e9\n".encode("cp1252")
    found = take(
        fresh_engine, settings, put(tmp_path, content), preset="none", currency="EUR", decimal_comma=True,
        date_format="%d.%m.%Y %H:%M", encoding="cp1252", timezone="Europe/Berlin",
        mapping={"nr": "order_id", "Datum": "placed_at", "Kunde": "email", "Summe": "total"},
    )  # fmt: skip
    assert found.totals == {"EUR": Decimal("12.50")} and found.source == "file"
    assert found.first == datetime(2026, 5, 1, 7, 30, tzinfo=UTC)


def test_customers_known_by_address_stay_as_they_are(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    with fresh_engine.begin() as tx:
        made = contacts.create(tx, NewContact(email="Ana@shop.example", country="DE"), actor="test", now=NOW,
                               settings=settings)  # fmt: skip
    content = "order_id,placed_at,email,total,country\n1,2026-05-01,ANA@shop.example,5,France\n2,2026-05-02,,5,\n"
    assert take(fresh_engine, settings, put(tmp_path, content), currency="EUR").contacts_made == 0
    assert rows(fresh_engine, "select contact_id, country, subscribed from contacts") == [(made.contact_id, "DE", True)]
    assert rows(fresh_engine, "select contact_id from orders order by order_id") == [(made.contact_id,), (0,)]


def test_stand_ins_are_addresses_nobody_can_mail() -> None:
    assert stand_in("shop", "17850").email == "customer-17850@shop.invalid"
    odd = [stand_in("My Shop!", each).key for each in ("Ab", "aB", "gid://shopify/Customer/1", "a b", "\u00e9" * 200)]
    assert len(set(odd)) == 5 and all(key.startswith("customer-x-") and key.endswith(".invalid") for key in odd)
    assert stand_in("My Shop!", "1").key != stand_in("my shop", "1").key


def test_the_command(
    fresh_engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(Settings, "from_env", classmethod(lambda cls: settings))
    path = put(tmp_path, RETAIL + TEA + CUP.replace(",1,", ",x,") + BACK)
    assert order_files.main([str(path), "--dry-run", "--currency", "EUR"]) == 1
    told = capsys.readouterr()
    assert "1 would be new" in told.out and "total EUR -4.10" in told.out and "2 rows, written to" in told.out
    assert (tmp_path / "orders.rejected.csv").exists()
    mapping = put(tmp_path, json.dumps({"CustomerID": None}), "mapping.json")
    assert order_files.main([str(put(tmp_path, RETAIL + TEA)), "--mapping", f"@{mapping}", "--quiet"]) == 0
    assert "0 contacts made" in capsys.readouterr().out
    for wrong in (["--mapping", "{"], ["--mapping", "[1]"], ["--timezone", "Mars/Base"], ["--currency", "XXX"],
                  ["--source", "mauto"], ["--rejects", str(path)], ["--mapping", '{"No": "order_id"}'],
                  ["--mapping", '{"InvoiceNo": "number"}'], ["--preset", "none"]):  # fmt: skip
        assert order_files.main([str(path), *wrong]) == 2, wrong
        assert capsys.readouterr().err.startswith("not loaded: ")
    with pytest.raises(SystemExit, match="0"):
        order_files.main(["--help"])
    assert path.read_text() == RETAIL + TEA


def with_rates(tx: Connection, folder: Path, content: str | bytes, name: str, **how: Any) -> tuple[int, int]:
    done = rate_files.load_file(tx, put(folder, content, name), now=NOW, **how)
    return done.given, done.changed


def test_rates_of_the_central_bank(tx: Connection, settings: Settings, tmp_path: Path) -> None:
    history = "Date,USD,JPY,CYP,\n2026-10-30,1.1172,175.68,N/A,\n2026-10-29,1.113,175.92,N/A,\n"
    assert with_rates(tx, tmp_path, history, "a.csv", since=date(2026, 10, 30)) == (2, 2)
    packed = tmp_path / "eurofxref-hist.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("eurofxref-hist.csv", history)
    assert with_rates(tx, tmp_path, packed.read_bytes(), "b.zip", currencies=frozenset({"USD"})) == (2, 1)
    assert with_rates(tx, tmp_path, "Date, USD, JPY, \n20 November 2026, 1.2, 170.1, \n", "c.csv") == (2, 2)
    assert tx.execute(text("select rate_date, rate, source from fx_rates where base = 'EUR' and quote = 'USD' "
                           "order by rate_date")).all() == [
        (date(2026, 10, 29), Decimal("1.113"), "ecb"), (date(2026, 10, 30), Decimal("1.1172"), "ecb"),
        (date(2026, 11, 20), Decimal("1.2"), "ecb")]  # fmt: skip


@pytest.mark.parametrize(
    "content", ["Day,USD\n2026-10-30,1\n", "Date,USD\n2026-13-30,1\n", "Date,USD\n2026-10-30,x\n",
                "Date,USD\n2026-10-30,1,2\n", "Date,USD\n2026-10-30,0\n", b"PK\x03\x04 no archive"],
)  # fmt: skip
def test_other_files_are_no_rates(tx: Connection, tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(InvalidInput):
        with_rates(tx, tmp_path, content, "rates")
    assert tx.scalar(text("select count(*) from fx_rates")) == 0


def test_orders_before_their_rates_are_converted_when_they_come(
    fresh_engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    take(fresh_engine, replace(settings, reporting_currency="EUR"), put(tmp_path, RETAIL + TEA))
    assert rows(fresh_engine, "select fx_rate from orders") == [(None,)]
    with fresh_engine.begin() as tx:
        load_rates(tx, [NewRate(rate_date=date(2026, 4, 30), base="EUR", quote="GBP", rate=Decimal("0.8"),
                                source="ecb")], now=NOW)  # fmt: skip
    assert rows(fresh_engine, "select fx_rate, fx_date from orders") == [(Decimal("1.25"), date(2026, 4, 30))]


def bad_files(folder: Path) -> Sequence[tuple[str, Path]]:
    packed = folder / "orders.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("orders.csv", RETAIL + TEA)
    cut = gzip.compress((RETAIL + TEA * 1000).encode())
    return [
        ("ZIP", packed), ("cannot be opened", folder / "missing.csv"), ("empty", put(folder, "", "empty.csv")),
        ("damaged", put(folder, cut[: len(cut) // 2], "cut.csv.gz")),
        ("longer than", put(folder, RETAIL + "x" * 2_000_000, "long.csv")),
        ("columns", put(folder, ",".join(map(str, range(10_000))) + "\n", "wide.csv")),
        ("larger than", put(folder, gzip.compress(RETAIL.encode() + b"\n" * 40_000_000), "bomb.csv.gz")),
    ]  # fmt: skip


def test_files_that_cannot_be_read(
    fresh_engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(settings, max_import_bytes=20_000_000)
    for problem, path in bad_files(tmp_path):
        with pytest.raises(InvalidInput, match=problem):
            take(fresh_engine, small, path)
    monkeypatch.setattr(order_staging, "MAX_PROBLEMS", 10)
    with pytest.raises(InvalidInput, match="More than 10 rows"):
        take(fresh_engine, settings, put(tmp_path, RETAIL + TEA.replace(",2,", ",x,") * 20))
    assert rows(fresh_engine, "select count(*) from orders") == [(0,)]


def test_odd_bytes_cost_their_rows(fresh_engine: Engine, settings: Settings, tmp_path: Path) -> None:
    content = (RETAIL + TEA).encode() + b"B1,T\xff\x00A,Tea,1,2026-05-01,5,1,France\n" + BACK.encode()
    rejects = tmp_path / "rejects.csv"
    found = take(fresh_engine, settings, put(tmp_path, content), rejects=rejects)
    assert (found.new, found.rejected_rows) == (2, 1)
    assert read(rejects)[1][:2] == ["3", "row"]
    long_cell = RETAIL + TEA + f"B1,TEA,{'x' * 100_000},1,2026-05-01,5,1,France\n"
    assert take(fresh_engine, settings, put(tmp_path, long_cell)).rejected_rows == 1
