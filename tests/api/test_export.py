"""The export: columns, order, guard and filters; out, wiped, in and out again; readers that dawdle or leave."""

from __future__ import annotations

import csv
import gzip
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from api.routes import exports
from mautolib.contacts import create, imports
from mautolib.contacts.export import Export
from mautolib.contacts.imports import ImportOptions
from mautolib.contacts.model import ContactFilter, NewContact
from mautolib.contacts.validation import CURRENCIES
from mautolib.db.engine import connect
from mautolib.settings import Settings
from tests import builders
from tests.conftest import Server
from tests.live_service import LiveService, as_role, live_settings, make_users, serve

EXPORT = "/api/v1/contacts/export/csv"
HEADER = ("email,first_name,last_name,phone,country,language,subscribed,created_at,timezone,currency,tags,"
          "consent_status,consent_source,consent_at,custom_fields")  # fmt: skip
NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
NASTY = ["=1+1", "+49 30 (12)-3.4", "+cmd", "-1", "-x", "@sum", "'=x", "''@y", "'tis", "'", "''", 'a"b', "a,b", "a;b",
         '=HYPERLINK("x","y")', "ｆｕｌｌ", "ÄÖ ü", "\u202eabc", "x\u00a0y", "\\N", "\\.", "NULL", "0", "中文",
         "🙂"]  # fmt: skip


@pytest.fixture(scope="module")
def own(cluster: Server, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service on a database of its own, so that an export is just what a test puts there."""
    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    make_users(engine)
    with as_role(engine, "mauto_api") as api_url:
        home = tmp_path_factory.mktemp("export")
        own_settings = live_settings(cluster.url(name), home, api_database_url=api_url)
        url, stop = serve(own_settings)
        yield LiveService(url=url, engine=engine, settings=own_settings)
        stop()
    engine.dispose()
    cluster.drop(name)


@pytest.fixture
def empty(own: LiveService) -> LiveService:
    wipe(own.engine)
    return own


@pytest.fixture
def client(empty: LiveService) -> Iterator[httpx.Client]:
    with empty.client("editor") as client:
        yield client


def wipe(engine: Engine) -> None:
    with engine.begin() as tx:
        tx.execute(text("truncate contacts, tags, segments, suppressions, consents, events, event_pending cascade"))


def exported(engine: Engine, filters: ContactFilter | None = None, **options: Any) -> bytes:
    export = Export(engine, filters, **options)
    try:
        return b"".join(export)
    finally:
        export.close()


def imported(tx: Connection, data: bytes, folder: Path, own: Settings, **options: Any) -> imports.Taken:
    path = folder / "back.csv"
    path.write_bytes(data)
    return imports.take_file(
        tx, path, ImportOptions.parse(options), filename="back.csv", format="csv", sha256="", actor="test",
        now=NOW + timedelta(days=9), settings=own,
    )  # fmt: skip


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def nasty_contacts(engine: Engine) -> None:
    """Contacts as the API makes them, with everything a file can stumble over."""
    with engine.begin() as tx:
        tag_ids = [builders.make_tag(tx, name) for name in ("a|b", "back\\slash\\", "=tag", "VIP", "|", "\\|\\")]
        for number, value in enumerate(NASTY):
            new = NewContact(
                email=f"N{number}@shop.example", first_name=value, last_name=value, phone=value[:30],
                country=value[:3], language=value[:10], custom_fields={value: value, "z": [1, {"b": None, "a": 0.1}]},
                subscribed=number % 3 > 0, tag_ids=tag_ids[: number % 7],
            )  # fmt: skip
            create(tx, new, actor="test", now=NOW + timedelta(microseconds=number % 3))
        for new in (
            NewContact(email="=cmd@shop.example", timezone="Europe/Berlin", currency="EUR"),
            NewContact(email="'+x@shop.example", consent_status="granted", consent_source="=fair", consent_at=NOW),
            NewContact(email="-9@shop.example", consent_status="withdrawn", subscribed=False),
            NewContact(email="pending@shop.example", consent_status="pending", consent_source="web, form"),
            NewContact(email="unknown@shop.example", consent_source="said so", consent_at=NOW + timedelta(days=4000)),
            NewContact(email="long@" + ".".join(["b" * 60] * 4) + ".example"),
            NewContact(email="jörg@bücher.example", custom_fields={"n": 10**18, "f": 1e300, "t": True, "e": {}}),
            NewContact(email="lines@shop.example", custom_fields={"a": "1\r\n2\n3\r4\x01\x7f\u2028", "b": "  x "}),
            NewContact(email="none@shop.example", language=""),
        ):
            create(tx, new, actor="test", now=NOW)


def test_the_columns_and_their_order(empty: LiveService, client: httpx.Client) -> None:
    with empty.engine.begin() as tx:
        tags = [builders.make_tag(tx, name) for name in ("b|c", "a\\d")]
        late = create(tx, NewContact(
            email="Zoe@Shop.example", first_name="Zoe", last_name="O'Hara", phone="+49 30 1", country="DE",
            language="de", timezone="Europe/Berlin", currency="EUR", tag_ids=tags, consent_status="granted",
            consent_source="web", consent_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            custom_fields={"b": {"d": 1, "c": "ü"}, "a": None},
        ), actor="test", now=NOW)  # fmt: skip
        create(tx, NewContact(email="b@shop.example", subscribed=False), actor="test", now=NOW)
        create(tx, NewContact(email="late@shop.example"), actor="test", now=NOW + timedelta(days=1))
    answer = client.get(EXPORT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == "attachment; filename=contacts.csv"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.split("\r\n") == [
        HEADER,
        "Zoe@shop.example,Zoe,O'Hara,+49 30 1,DE,de,True,2026-03-01T12:30:15.123456Z,Europe/Berlin,EUR,"
        "a\\\\d|b\\|c,granted,web,2026-01-02T03:04:05Z,"
        '"{""a"": null, ""b"": {""c"": ""ü"", ""d"": 1}}"',
        "b@shop.example,,,,,en,False,2026-03-01T12:30:15.123456Z,,,,unknown,,,{}",
        "late@shop.example,,,,,en,True,2026-03-02T12:30:15.123456Z,,,,unknown,,,{}",
        "",
    ]
    assert late.contact_id


def test_an_empty_export_is_its_header(empty: LiveService, client: httpx.Client) -> None:
    assert client.get(EXPORT).text == HEADER + "\r\n"


def test_filters_combine(empty: LiveService, client: httpx.Client) -> None:
    with empty.engine.begin() as tx:
        people = [
            create(tx, NewContact(email=f"p{n}@shop.example", first_name=name, subscribed=n != 2), actor="t", now=NOW)
            for n, name in enumerate(["Ana", "Banana", "Anabel", "Bo"])
        ]
        builders.make_tag(tx, "VIP", [one.contact_id for one in people[:3]])
        segment_id = tx.scalar(text("insert into segments (name) values ('S') returning segment_id"))
        for one in people[1:]:
            tx.execute(text("insert into segment_memberships (segment_id, contact_id, valid_from) "
                            "values (:segment_id, :contact_id, now())"),
                       {"segment_id": segment_id, "contact_id": one.contact_id})  # fmt: skip

    def emails(**params: Any) -> list[str]:
        answer = client.get(EXPORT, params=params)
        assert answer.status_code == 200, answer.text
        return [row["email"][:2] for row in rows(answer.content)]

    assert emails() == ["p0", "p1", "p2", "p3"]
    assert emails(subscribed="false") == ["p2"]
    assert emails(tag="VIP") == ["p0", "p1", "p2"]
    assert emails(tag="vip") == []
    assert emails(q="ANA") == ["p0", "p1", "p2"]
    assert emails(segment_id=segment_id) == ["p1", "p2", "p3"]
    assert emails(q="ana", tag="VIP", subscribed="true", segment_id=segment_id) == ["p1"]
    for params in ({"segment_id": "987654"}, {"segment_id": "x"}, {"subscribed": "maybe"}, {"formula_guard": "2"},
                   {"gzip": "z"}, {"tag": "x" * 101}, {"q": "a\0"}):  # fmt: skip
        assert client.get(EXPORT, params=params).status_code == 422, params


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"), ("+cmd", "'+cmd"), ("-x", "'-x"), ("@a", "'@a"), ("'=x", "''=x"), ("''-x", "'''-x"),
        ("'tis", "'tis"), ("'", "'"), ("+49 30 (12)-3.4", "+49 30 (12)-3.4"), ("'+49", "''+49"), ("-1", "-1"),
        ("+1a", "'+1a"), ("a=1", "a=1"), ("＝1", "＝1"),
    ],
)  # fmt: skip
def test_the_guard_stands_before_what_a_spreadsheet_would_run(
    empty: LiveService, client: httpx.Client, value: str, cell: str
) -> None:
    with empty.engine.begin() as tx:
        create(tx, NewContact(email="a@shop.example", first_name=value), actor="test", now=NOW)
    assert [row["first_name"] for row in rows(client.get(EXPORT).content)] == [cell]
    assert [row["first_name"] for row in rows(client.get(EXPORT, params={"formula_guard": "false"}).content)] == [value]


@pytest.mark.parametrize("control", ["\t", "\r"])
def test_control_characters_that_were_stored_are_guarded(empty: LiveService, control: str) -> None:
    with empty.engine.begin() as tx:
        builders.make_contact(tx, email="a@shop.example", first_name=f"{control}x")
    assert rows(exported(empty.engine))[0]["first_name"] == f"'{control}x"


@pytest.mark.parametrize("options", [{}, {"gzip": "true"}])
def test_out_wiped_in_and_out_again_is_the_same_bytes(
    empty: LiveService, client: httpx.Client, options: dict[str, str]
) -> None:
    nasty_contacts(empty.engine)
    first = client.get(EXPORT, params=options)
    assert len(rows(client.get(EXPORT).content)) == len(NASTY) + 9
    if options:
        assert first.headers["content-type"] == "application/gzip"
        assert first.headers["content-disposition"] == "attachment; filename=contacts.csv.gz"
        assert gzip.decompress(first.content) == client.get(EXPORT).content
    wipe(empty.engine)
    done = client.post("/api/v1/import/csv", files={"file": ("contacts.csv", first.content)}).json()
    assert (done["created"], done["errors"]) == (len(NASTY) + 9, [])
    assert client.get(EXPORT, params=options).content == first.content
    again = client.post("/api/v1/import/csv?update_policy=overwrite", files={"file": ("c.csv", first.content)}).json()
    assert (again["created"], again["updated"], again["skipped"]) == (0, 0, len(NASTY) + 9)
    assert client.get(EXPORT, params=options).content == first.content


def test_without_the_guard_values_come_back_too(empty: LiveService, tmp_path: Path) -> None:
    nasty_contacts(empty.engine)
    with empty.engine.begin() as tx:  # without a guard nobody can tell such a cell from a guarded one
        tx.execute(text("delete from contacts where first_name ~ '^''+[=@]' or email like '''+%'"))
    first = exported(empty.engine, guard=False)
    wipe(empty.engine)
    with empty.engine.begin() as tx:
        assert imported(tx, first, tmp_path, empty.settings).rejects == ()
    assert exported(empty.engine, guard=False) == first


def test_the_way_through_the_background_gives_the_same_bytes(empty: LiveService, client: httpx.Client) -> None:
    nasty_contacts(empty.engine)
    first = client.get(EXPORT).content
    wipe(empty.engine)
    made = client.post("/api/v1/contacts/import", content=first, headers={"Content-Type": "text/csv"}).json()
    imports.run(empty.engine, empty.settings, int(made["import_id"]), now=datetime.now(UTC))
    assert client.get(EXPORT).content == first


def test_opted_out_and_suppressed_stay_so_on_the_way(empty: LiveService, client: httpx.Client) -> None:
    with empty.engine.begin() as tx:
        create(tx, NewContact(email="out@shop.example"), actor="test", now=NOW)
        builders.make_suppression(tx, "in@shop.example", reason="complaint")
        create(tx, NewContact(email="in@shop.example"), actor="test", now=NOW)
    contact = client.get("/api/v1/contacts/", params={"email": "out@shop.example"}).json()[0]
    client.patch(f"/api/v1/contacts/{contact['id']}", json={"subscribed": False})
    first = client.get(EXPORT).content
    with empty.engine.begin() as tx:
        tx.execute(text("truncate contacts cascade"))
    done = client.post("/api/v1/import/csv", files={"file": ("c.csv", first)}).json()
    assert (done["created"], done["suppressed"]) == (2, 1)
    assert client.get(EXPORT).content == first
    shown = client.get("/api/v1/contacts/").json()
    assert [(one["subscribed"], one["consent_status"]) for one in shown if one["email"][0] == "o"] == [
        (False, "withdrawn")]  # fmt: skip


_line = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12).map(str.strip)
_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_line.filter(bool), inner, max_size=3), max_leaves=5,
)  # fmt: skip
_moment = st.datetimes(datetime(1970, 1, 2), datetime(2026, 3, 1)).map(lambda moment: moment.replace(tzinfo=UTC))
_local = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]{1,12}", fullmatch=True)


@st.composite
def _contacts(draw: st.DrawFn) -> tuple[NewContact, datetime, list[str]]:
    status = draw(st.sampled_from(["unknown", "pending", "granted", "withdrawn"]))
    source = draw(_line.filter(bool) if status == "granted" else st.none() | _line)
    new = NewContact(
        email=f"{draw(_local)}@{draw(st.sampled_from(['shop.example', 'Büro.example', 'gmail.com']))}",
        first_name=draw(_line), last_name=draw(st.sampled_from(NASTY)), phone=draw(_line),
        country=draw(_line)[:3].strip(), language=draw(_line)[:10].strip(),
        timezone=draw(st.sampled_from(["", "Europe/Berlin", "UTC"])),
        currency=draw(st.sampled_from(["", *sorted(CURRENCIES)])), subscribed=draw(st.booleans()),
        custom_fields=draw(st.dictionaries(_line.filter(bool), _value, max_size=3)), consent_status=status,
        consent_source=source or None, consent_at=draw(st.none() | _moment),
    )  # fmt: skip
    return new, draw(_moment), draw(st.lists(_line.filter(bool), max_size=3, unique_by=str.lower))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(people=st.lists(_contacts(), max_size=6, unique_by=lambda one: one[0].email.lower()))
def test_any_contact_survives_the_way(own: LiveService, tmp_path_factory: Any, people: list[Any]) -> None:
    wipe(own.engine)
    names: dict[str, int] = {}
    with own.engine.begin() as tx:
        for new, moment, tags in people:
            contact = create(tx, new, actor="test", now=moment)
            for name in tags:
                key = str(tx.scalar(text("select lower(:name)"), {"name": name}))
                names[key] = names.get(key) or builders.make_tag(tx, name)
            ids = {names[str(tx.scalar(text("select lower(:name)"), {"name": name}))] for name in tags}
            for tag_id in ids:
                tx.execute(text("insert into contact_tags values (:contact_id, :tag_id)"),
                           {"contact_id": contact.contact_id, "tag_id": tag_id})  # fmt: skip
    first = exported(own.engine)
    assert len(rows(first)) == len(people)
    wipe(own.engine)
    with own.engine.begin() as tx:
        taken = imported(tx, first, tmp_path_factory.getbasetemp(), own.settings)
    assert (taken.rejects, taken.request.created) == ((), len(people))
    assert exported(own.engine) == first


# --- how it is made ---------------------------------------------------------------------------------------------------


def many(engine: Engine, number: int) -> None:
    with engine.begin() as tx:
        tx.execute(text(
            "insert into contacts (email, email_key, first_name, custom_fields, created_at) "
            "select 'c' || n || '@shop.example', 'c' || n || '@shop.example', repeat('x', 60), "
            "jsonb_build_object('note', repeat('y', 100)), cast(:now as timestamptz) + make_interval(secs => n % 9) "
            "from generate_series(1, :number) as n"
        ), {"now": NOW, "number": number})  # fmt: skip


def sessions(engine: Engine) -> int:
    """Connections that are in the middle of reading contacts."""
    with engine.begin() as tx:
        return int(tx.scalar(text(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and application_name = 'mauto-api' and xact_start is not null"
        )) or 0)  # fmt: skip


def wait_until(condition: Any) -> bool:
    until = time.monotonic() + 15
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


def dawdle(own: LiveService) -> socket.socket:
    """Ask for an export and read a kilobyte of it."""
    host, port = own.url.removeprefix("http://").split(":")
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.connect((host, int(port)))
    opened.sendall(
        f"GET {EXPORT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {own.token('editor')}\r\n\r\n".encode()
    )
    assert opened.recv(1024).startswith(b"HTTP/1.1 200")
    return opened


def test_one_moment_is_shown(empty: LiveService) -> None:
    many(empty.engine, 3000)
    export = Export(empty.engine)
    try:
        first = export.next_block() + export.next_block()
        wipe_thread = threading.Thread(target=lambda: _delete_all(empty.engine))
        wipe_thread.start()
        wipe_thread.join()
        assert len(rows(first + b"".join(export))) == 3000 == export.rows
    finally:
        export.close()
        export.close()
    assert exported(empty.engine) == (HEADER + "\r\n").encode()


def _delete_all(engine: Engine) -> None:
    with engine.begin() as tx:
        tx.execute(text("delete from contacts"))


def test_a_reader_who_leaves_gives_everything_back(empty: LiveService, client: httpx.Client) -> None:
    many(empty.engine, 40_000)
    for _ in range(exports.MOST_AT_ONCE + 2):
        opened = dawdle(empty)
        assert wait_until(lambda: sessions(empty.engine) == 1)
        opened.close()
        assert wait_until(lambda: sessions(empty.engine) == 0)
    assert len(rows(client.get(EXPORT).content)) == 40_000


def test_few_run_at_once_and_nobody_else_waits_for_them(empty: LiveService, client: httpx.Client) -> None:
    many(empty.engine, 40_000)
    opened = [dawdle(empty) for _ in range(exports.MOST_AT_ONCE)]
    try:
        refused = client.get(EXPORT)
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
            429, "rate_limited", "10")  # fmt: skip
        # As many calls at once as the pool has connections: none of them is short of one.
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(
                httpx.get(f"{empty.url}/api/v1/contacts/?limit=1", headers=client.headers, trust_env=False).status_code
            ))
            for _ in range(15)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 15
    finally:
        for one in opened:
            one.close()
    assert wait_until(lambda: client.get(EXPORT, params={"q": "nobody"}).status_code == 200)


def test_a_reader_who_stands_still_is_cut_off(empty: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    many(empty.engine, 40_000)
    monkeypatch.setattr(exports, "STALLED_SECONDS", 0.3)
    opened = dawdle(empty)
    try:
        assert wait_until(lambda: sessions(empty.engine) == 1)
        assert wait_until(lambda: sessions(empty.engine) == 0)
        received = b""
        while piece := opened.recv(65536):
            received += piece
        # Not whole, and the reader can tell: the last chunk is missing.
        assert not received.endswith(b"0\r\n\r\n")
    except ConnectionResetError:
        pass
    finally:
        opened.close()


def test_every_export_is_written_down_before_it_begins(empty: LiveService, client: httpx.Client) -> None:
    assert client.get(EXPORT, params={"q": "canary@shop.example", "gzip": "true"}).status_code == 200
    with empty.engine.begin() as tx:
        row = tx.execute(text("select action, status, changes, audit_log::text as all_of_it from audit_log "
                              "order by audit_id desc limit 1")).one()  # fmt: skip
    assert (row.action, row.status) == ("contact.export", 200)
    assert row.changes == {"filters": ["q"], "formula_guard": True, "gzip": True}
    assert "canary" not in row.all_of_it


def test_only_editors_export(empty: LiveService) -> None:
    with empty.client("viewer") as viewer, empty.client() as nobody:
        assert (viewer.get(EXPORT).status_code, nobody.get(EXPORT).status_code) == (403, 401)


def test_json_keys_are_sorted_at_every_level(empty: LiveService) -> None:
    with empty.engine.begin() as tx:
        given = {"bb": {"z": 1, "aa": [{"y": 1, "b": 2}]}, "a": 1, "Z": 2}
        create(tx, NewContact(email="a@shop.example", custom_fields=given), actor="test", now=NOW)
    cell = rows(exported(empty.engine))[0]["custom_fields"]
    assert cell == json.dumps(given, sort_keys=True)
