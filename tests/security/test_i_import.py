"""Attacks on import and export (threat group I, and C13): hostile cells, addresses, headers, names, sizes, races.

Each file comes in by a path, as the DAG takes it, and as an upload. The cases of a million rows and a gigabyte are in
test_i_large.py; I13 (readers that dawdle or leave) and the way back of every guarded cell (I7) in
tests/api/test_export.py. I14: the name of an export is fixed, nothing of a caller's is in it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from mautolib import contacts
from mautolib.contacts import consent, imports
from mautolib.contacts.imports.reading import open_csv
from mautolib.contacts.model import NewContact, SuppressionReason
from mautolib.db.engine import connect
from mautolib.errors import InvalidInput
from mautolib.settings import Settings
from tests.conftest import Server
from tests.live_service import LiveService, live_settings, make_users, serve

IMPORT, NOW_IN, LOOK = "/api/v1/contacts/import", "/api/v1/import/csv", "/api/v1/import/csv/preview"
EXPORT = "/api/v1/contacts/export/csv"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def own_engine(cluster: Server, template_database: str) -> Iterator[Engine]:
    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    yield engine
    engine.dispose()
    cluster.drop(name)


@pytest.fixture
def engine(own_engine: Engine) -> Engine:
    with own_engine.begin() as tx:
        tables = "contacts, contact_history, tags, suppressions, imports, events, event_pending"
        tx.execute(text(f"truncate {tables} restart identity cascade"))
    return own_engine


Take = Callable[..., imports.Import]


def by_path(engine: Engine, settings: Settings, path: Path, data: bytes | str, **options: Any) -> imports.Import:
    """A file on the worker's disk, as the DAG's form names it."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with engine.begin() as tx:
        import_id = imports.request_file(tx, path, options, actor="attacker", now=NOW)
    return imports.run(engine, settings, import_id, now=NOW)


@pytest.fixture(scope="module")
def own_service(own_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service over the database of this file."""
    make_users(own_engine)
    own = live_settings(own_engine.url.render_as_string(hide_password=False), tmp_path_factory.mktemp("door"))
    url, stop = serve(own)
    yield LiveService(url=url, engine=own_engine, settings=own)
    stop()


@pytest.fixture(params=["path", "upload"])
def take(request: pytest.FixtureRequest) -> Take:
    """Both ways in: a path, and an upload that a worker reads."""
    if request.param == "path":
        return by_path
    own: LiveService = request.getfixturevalue("own_service")

    def by_upload(engine: Engine, _: Settings, path: Path, data: bytes | str, **options: Any) -> imports.Import:
        with own.client("editor") as client:
            answer = client.post(
                IMPORT, files={"file": (path.name, data)}, data={"options": json.dumps(options)}, timeout=60
            )
        assert answer.status_code == 202, answer.text
        done = imports.run(engine, own.settings, int(answer.json()["import_id"]), now=NOW)
        assert os.listdir(own.settings.storage_path / "uploads") == []
        return done

    return by_upload


def rows(engine: Engine, query: str) -> list[Any]:
    with engine.begin() as tx:
        return [tuple(row) for row in tx.execute(text(query))]


def test_i1_i5_i6_each_poison_is_one_row(take: Take, engine: Engine, settings: Settings, tmp_path: Path) -> None:
    poison = {
        b'"open': "unbalanced_quote", b"a@x.co,b,c": "ragged_row", b"only": "ragged_row", b"a\0@x.co,n": "nul_byte",
        b"a@x.co,Jos\xe9": "bad_encoding", b"a@x.co\xc3(,n": "bad_encoding", b"no address,n": "invalid_email",
        b"a@@x.co,n": "invalid_email", b"a@x.co," + b"n" * 101: "too_long", b",n": "invalid_email",
        b"\xed\xa0\x80@x.co,n": "bad_encoding", b"a@x.co,\xef\xbf\xbe\x01": "invalid_value",
    }  # fmt: skip
    lines, expected = [b"email,first_name"], []
    for number in range(600):
        if number % 20 == 19:
            kind = list(poison)[number // 20 % len(poison)]
            lines.append(kind)
            expected.append((len(lines), poison[kind]))
        lines.append(f"c{number}@x.co,Ünï".encode())
    done = take(engine, settings, tmp_path / "p.csv", b"\n".join(lines) + b"\n")
    assert (done.status, done.created, done.rejected) == ("completed", 600, len(expected))
    assert rows(engine, "select line, code from import_rejects order by line") == expected


def test_i2_an_archive_bomb_is_bounded_in_size_and_memory(engine: Engine, settings: Settings, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.csv.gz"
    with gzip.open(bomb, "wb") as file:
        file.write(b"email\n")
        for _ in range(12):
            file.write((b"a" * 400 + b"@x.co\n") * 2_500)
    assert bomb.stat().st_size < 50_000
    small = replace(settings, max_import_bytes=4_000_000)
    tracemalloc.start()
    with pytest.raises(InvalidInput) as failure, open_csv(bomb, limit=small.max_import_bytes) as reader:
        for _ in reader.records():
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert failure.value.code == "too_large"
    assert peak < 16_000_000
    done = by_path(engine, small, bomb, bomb.read_bytes())
    assert (done.status, rows(engine, "select count(*) from contacts")) == ("failed", [(0,)])
    for data in (b"PK\x03\x04" + bytes(100), gzip.compress(gzip.compress(b"email\na@x.co\n"))):
        assert by_path(engine, settings, tmp_path / "nested.csv", data).status == "failed"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"email\n" + b"x" * 3_000_000, "Line 2 is longer"), (b",".join(b"c%d" % n for n in range(10_000)), "columns"),
        (b"email," + b",".join(b"%d" % n for n in range(200)), "at most 100"),
        (b"email," + b"h" * 2000 + b"\n", "cannot become a custom field"),
    ],
)  # fmt: skip
def test_i4_shapes_no_file_has_name_their_line(
    take: Take, engine: Engine, settings: Settings, tmp_path: Path, data: bytes, message: str
) -> None:
    done = take(engine, settings, tmp_path / "wide.csv", data)
    assert done.status == "failed"
    assert message in (done.error or "")


def test_i4_a_huge_cell_is_one_reject(take: Take, engine: Engine, settings: Settings, tmp_path: Path) -> None:
    data = b"email,n\na@x.co," + b"y" * 900_000 + b"\nb@x.co,1\n"
    assert take(engine, settings, tmp_path / "cell.csv", data).created == 1
    [(value,)] = rows(engine, "select value from import_rejects")
    assert len(value) <= 200


def test_i7_formula_guards_come_off_once_and_rejects_are_guarded(
    take: Take, engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    cells = ["=cmd", "+1+1", "-2", "@x", "\ttab", "'=kept", "'"]
    lines = "".join(f"c{n}@x.co,\"'{cell}\"\n" for n, cell in enumerate(cells))
    done = take(engine, settings, tmp_path / "f.csv", "email,Note\n" + lines + "=1+1@,x\n")
    found = [row[0] for row in rows(engine, "select custom_fields ->> 'Note' from contacts order by email")]
    assert found == [*cells[:6], "''"]
    written = io.BytesIO()
    with engine.begin() as tx:
        imports.write_rejects(tx, done.import_id, written.write)
    assert written.getvalue().decode().splitlines()[1].endswith(",'=1+1@")


def test_i8_twice_in_parallel_and_killed_give_each_contact_once(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "same.csv"
    path.write_text("email\n" + "".join(f"C{n % 1500}@x.co\n" for n in range(3000)))
    with engine.begin() as tx:
        for _ in range(4):
            imports.request_file(tx, path, {}, actor="attacker", now=NOW)
    done: list[imports.Import] = []
    threads = [
        threading.Thread(target=lambda: done.extend(imports.run_waiting(engine, settings))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.status for one in done] == ["completed"] * 4
    assert sum(one.created for one in done) == 1500
    assert rows(engine, "select count(*), count(distinct email_key) from contacts") == [(1500, 1500)]
    assert rows(engine, "select count(*) from events") == [(1500,)]


def test_i8_a_worker_killed_with_sigkill_leaves_nothing_and_is_replaced(
    engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "big.csv"
    path.write_text("email\n" + "".join(f"c{n}@x.co\n" for n in range(60_000)))
    with engine.begin() as tx:
        import_id = imports.request_file(tx, path, {}, actor="attacker", now=NOW)
    program = (
        "import sys; from mautolib.contacts import imports; from mautolib.db.engine import connect; "
        "from mautolib.settings import Settings; e = connect(sys.argv[1]); "
        "list(imports.run_waiting(e, Settings(database_url=sys.argv[1]), progress=lambda n: print(n, flush=True)))"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program, engine.url.render_as_string(hide_password=False)], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert worker.stdout is not None
    worker.stdout.readline()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    assert rows(engine, "select status, created from imports") == [("running", 0)]
    assert rows(engine, "select count(*) from contacts") == [(0,)]
    with engine.begin() as tx:
        tx.execute(text("update imports set lease_until = clock_timestamp() - interval '1 second'"))
    done = imports.run(engine, settings, import_id, now=NOW)
    assert (done.status, done.created, done.skipped) == ("completed", 60_000, 0)
    assert rows(engine, "select count(*) from contacts") == rows(engine, "select count(*) from events") == [(60_000,)]


def test_i9_suppression_is_blind_to_spelling(take: Take, engine: Engine, settings: Settings, tmp_path: Path) -> None:
    with engine.begin() as tx:
        for email in ("no@münchen.example", "stop@shop.example"):
            consent.suppress(tx, email, SuppressionReason.UNSUBSCRIBE, actor="test", now=NOW)
    done = take(
        engine, settings, tmp_path / "s.csv",
        "email,subscribed\nNO@MÜNCHEN.example,true\nno@xn--mnchen-3ya.example,1\nStop <STOP@shop.EXAMPLE>,yes\n"
        "ｓtop@shop.example,true\n",
        update_policy="overwrite", consent_source="bought list",
    )  # fmt: skip
    assert (done.created, done.updated, done.skipped, done.suppressed) == (2, 0, 2, 4)
    assert rows(engine, "select bool_or(subscribed), count(*) from contacts") == [(False, 2)]
    assert rows(engine, "select count(*) from mailable_contacts") == [(0,)]


def test_i10_a_file_cannot_give_itself_ids_scores_or_consent(
    take: Take, engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    for header in ("unsubscribed", "consent", "Email opt-in"):
        done = take(engine, settings, tmp_path / "c.csv", f"email,{header}\na@x.co,true\n")
        assert done.status == "failed"
        assert "looks like consent" in (done.error or "")
    done = take(
        engine, settings, tmp_path / "i.csv",
        "email,id,contact_id,score,role,is_disposable,version,email_key,consent_status\n"
        "a@x.co,1,1,99,admin,true,7,z@z.co,granted\nb@x.co,1,1,99,admin,true,7,z@z.co,\n",
    )  # fmt: skip
    assert (done.created, done.rejected) == (1, 1)
    with engine.begin() as tx:
        one = contacts.find_by_email(tx, "b@x.co")
    assert one is not None
    assert (one.version, one.is_disposable, one.consent_status) == (1, False, "unknown")
    assert dict(one.custom_fields) == {"id": "1", "contact_id": "1", "score": "99", "role": "admin",
                                       "is_disposable": "true", "version": "7", "email_key": "z@z.co"}  # fmt: skip


def test_i11_one_address_many_times(take: Take, engine: Engine, settings: Settings, tmp_path: Path) -> None:
    began = time.monotonic()
    done = take(engine, settings, tmp_path / "d.csv", "email\n" + "A@x.co\na@X.co\n" * 50_000)
    merged = take(engine, settings, tmp_path / "d.csv", "email,n\n" + "A@x.co,1\na@X.co,2\n" * 25_000,
                  update_policy="merge")  # fmt: skip
    assert (done.total_rows, done.created, done.skipped) == (100_000, 1, 99_999)
    assert (merged.total_rows, merged.created, merged.updated) == (50_000, 0, 50_000)
    assert rows(engine, "select custom_fields ->> 'n', version from contacts") == [("2", 2)]
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("name", ["../../etc/passwd", "con", "x" * 4096, "a\r\nX: y", "\u202egpj.csv", "..", "/"])
def test_i16_a_file_name_is_a_label(engine: Engine, settings: Settings, name: str) -> None:
    stored = imports.store_upload(settings, [b"email\na@x.co\n"])
    place = (settings.storage_path / stored.uri).resolve()
    assert place.parent == (settings.storage_path / "uploads").resolve()
    with engine.begin() as tx:
        import_id = imports.request(tx, filename=name, uri=stored.uri, options={}, actor="attacker", now=NOW)
        label = imports.get(tx, import_id).filename
    assert label is None or (len(label) <= 255 and "/" not in label and label.isprintable())
    assert imports.run(engine, settings, import_id, now=NOW).created == 1
    assert not place.exists()


@pytest.mark.parametrize(
    "header", ['"; drop table contacts', "email) values (1);--", "%s", ":x", "a\\", "'", "{0}", "a\u2028b", "$1"]
)
def test_c13_a_header_is_never_sql(take: Take, engine: Engine, settings: Settings, tmp_path: Path, header: str) -> None:
    with pytest.raises(InvalidInput):
        imports.ImportOptions.parse({"mapping": {"email": header}})
    quoted = '"' + header.replace('"', '""') + '"'
    done = take(engine, settings, tmp_path / "h.csv", f"email,{quoted}\na@x.co,x\n")
    if header == "a\u2028b":
        assert done.status == "failed"
        return
    assert (done.status, done.created) == ("completed", 1)
    assert rows(engine, "select custom_fields from contacts") == [({header: "x"},)]


def test_i_cells_are_never_sql_nor_json(take: Take, engine: Engine, settings: Settings, tmp_path: Path) -> None:
    nasty = ["\\N", "\\.", "'; drop table contacts;--", '","x":"', "\\u0000", "%(x)s", "{}", "\\", '"', "\\t\\n"]
    lines = "".join(f'c{n:02}@x.co,"{cell.replace(chr(34), chr(34) * 2)}","{cell.replace(chr(34), chr(34) * 2)}"\n'
                    for n, cell in enumerate(nasty))  # fmt: skip
    done = take(engine, settings, tmp_path / "n.csv", "email,first_name,Note\n" + lines)
    assert done.created == len(nasty)
    found = rows(engine, "select first_name, custom_fields ->> 'Note' from contacts order by email")
    assert found == [(cell, cell) for cell in nasty]


def test_i_json_items_hold_what_they_say(engine: Engine) -> None:
    nasty = "\\N\t"[:2]
    items = [NewContact(email=f"c{n}@x.co", first_name=cell, custom_fields={cell: cell})
             for n, cell in enumerate([nasty, "\\.", "a\\tb", "'"])]  # fmt: skip
    with engine.begin() as tx:
        assert imports.import_items(tx, items, actor="attacker", now=NOW).created == 4
    found = rows(engine, "select first_name, custom_fields from contacts order by email")
    assert found == [(item.first_name, dict(item.custom_fields)) for item in items]


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clean_storage(service: LiveService) -> Iterator[None]:
    """The test must leave storage as it was."""
    folder = service.settings.storage_path / "uploads"
    before = set(os.listdir(folder)) if folder.exists() else set()
    yield
    assert (set(os.listdir(folder)) if folder.exists() else set()) == before


def quickly(client: httpx.Client, path: str, *statuses: int, **sent: Any) -> None:
    """Refused, and far faster than anything that is not linear (the bound of 1 s is for a machine of its own)."""
    began = time.monotonic()
    try:
        answer = client.post(path, **sent)
    except httpx.WriteError:
        return  # refused and hung up while the rest was still on its way
    took = time.monotonic() - began
    assert answer.status_code in statuses, f"{answer.status_code} {answer.text[:200]}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert took < 5, f"{took:.2f} s"


def zips() -> list[bytes]:
    made = []
    for names in (["a.csv"], ["../x.csv", "/etc/passwd"], [f"f{n}" for n in range(2000)], ["inner.zip"]):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, b"email\n" + bytes(1000))
        made.append(packed.getvalue())
    return [*made, b"PK\x05\x06" + bytes(18), b"PK\x03\x04" + b"\xff" * 200]


@pytest.mark.usefixtures("clean_storage")
def test_i2_archives_are_415(editor: httpx.Client) -> None:
    for data in zips():
        quickly(editor, IMPORT, 415, content=data, headers={"Content-Type": "text/csv"})
        quickly(editor, IMPORT, 415, files={"file": ("a.csv", data)})
        quickly(editor, NOW_IN, 415, files={"file": ("a.csv", data)})
        quickly(editor, LOOK, 415, files={"file": ("a.csv", data)})
        quickly(editor, IMPORT, 415, content=data, headers={"Content-Type": "application/zip"})


@pytest.mark.usefixtures("clean_storage")
def test_i2_i3_what_bursts_is_refused_while_it_streams(editor: httpx.Client) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join([*(packer.compress(bytes(1_000_000)) for _ in range(300)), packer.flush()])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in (NOW_IN, LOOK):
        quickly(editor, path, 400, files={"file": ("a.csv", bomb)})
        quickly(editor, path, 400, files={"file": ("a.csv", gzip.compress(b"email\n") + bomb)})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024, f"{grown} KiB more"
    for data in (gzip.compress(b"email\na@b.example\n")[:-4], b"\x1f\x8b" + bytes(50), b"\x1f\x8b"):
        quickly(editor, NOW_IN, 422, files={"file": ("a.csv", data)})
    # The encoding of the transfer is no encoding of the file: what arrives is what is counted and read.
    quickly(editor, NOW_IN, 400, files={"file": ("a.csv", bomb)}, headers={"Content-Encoding": "gzip"})


@pytest.mark.usefixtures("clean_storage")
@pytest.mark.parametrize("path", [IMPORT, NOW_IN])
def test_i3_lengths_that_lie(service: LiveService, path: str) -> None:
    import socket

    host, port = service.url.removeprefix("http://").split(":")
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nemail\r\n--x--\r\n'
    for length in (b"-1", b"1e9", b"0x10", b"99999999999999999999999", b"5, 6"):
        with socket.create_connection((host, int(port)), timeout=5) as opened:
            opened.sendall(
                b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                + service.token("editor").encode() + b"\r\nContent-Type: multipart/form-data; boundary=x\r\n"
                b"Content-Length: " + length + b"\r\n\r\n" + form
            )  # fmt: skip
            opened.shutdown(socket.SHUT_WR)
            head = opened.recv(1000)
            assert head == b"" or head.startswith(b"HTTP/1.1 4"), head


def forms() -> dict[str, tuple[bytes, bytes]]:
    """Boundary and body of forms that nobody means."""
    disposition = b'Content-Disposition: form-data; name="file"; filename="a.csv"'
    return {
        "headers": (b"x", b"--x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n\r\n--x--\r\n"),
        "parts": (b"x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 100_000 + b"--x--\r\n"),
        "header name": (b"x", b"--x\r\n" + b"A" * 2_000_000 + b": b\r\n\r\n\r\n--x--\r\n"),
        "header value": (b"x", b"--x\r\nA: " + b"b" * 2_000_000 + b"\r\n\r\n\r\n--x--\r\n"),
        "no colon": (b"x", b"--x\r\n" + b"A\r\n" * 10_000),
        "preamble": (b"x", b"y" * 3_000_000 + b"\r\n--x\r\n" + disposition + b"\r\n\r\nemail\r\n--x--\r\n"),
        "line ends": (b"x", b"\r\n" * 1_000_000),
        "boundary": (b"x" * 30_000, b"--" + b"x" * 30_000 + b"\r\n" + disposition + b"\r\n\r\nemail\r\n"),
        "almost the boundary": (b"x" * 70, b"--" + b"x" * 70 + b"\r\n" + disposition + b"\r\n\r\n"
                                + (b"\r\n--" + b"x" * 69) * 40_000),
        "a huge field": (b"x", b'--x\r\nContent-Disposition: form-data; name="options"\r\n\r\n' + b"{" * 3_000_000),
        "never closed": (b"x", b"--x\r\n" + disposition + b"\r\n\r\nemail\r\n"),
        "nothing": (b"x", b""), "no boundary": (b"", b"--x\r\n"), "long boundary only": (b"z" * 200, b"--z"),
        "name is no text": (b"x", b'--x\r\nContent-Disposition: form-data; name="\xff\xfe"; x="\r\n\r\n\r\n--x--'),
    }  # fmt: skip


@pytest.mark.usefixtures("clean_storage")
@pytest.mark.parametrize("path", [IMPORT, NOW_IN, LOOK])
@pytest.mark.parametrize("kind", forms())
def test_i12_forms_nobody_means_are_refused_at_once(editor: httpx.Client, kind: str, path: str) -> None:
    boundary, body = forms()[kind]
    headers = {b"Content-Type": b"multipart/form-data; boundary=" + boundary}
    quickly(editor, path, 400, 413, 422, content=body, headers=headers)


def test_i15_exports_and_imports_are_for_editors_and_written_down(
    service: LiveService, viewer: httpx.Client, nobody: httpx.Client, editor: httpx.Client
) -> None:
    files = {"file": ("a.csv", b"email\n")}
    for method, path, sent in (
        ("GET", EXPORT, {}), ("POST", IMPORT, {"json": []}), ("POST", NOW_IN, {"files": files}),
        ("POST", LOOK, {"files": files}), ("GET", "/api/v1/imports/1/errors.csv", {}),
        ("POST", "/api/v1/imports/1/cancel", {}),
    ):
        assert viewer.request(method, path, **sent).status_code == 403, path
        assert nobody.request(method, path, **sent).status_code == 401, path
    request_id = uuid4().hex
    for method, path in (("GET", EXPORT), ("POST", NOW_IN), ("POST", LOOK)):
        sent = {"files": files} if method == "POST" else {}
        assert editor.request(method, path, headers={"X-Request-ID": request_id}, **sent).status_code == 200
    with service.engine.begin() as tx:
        query = text("select action from audit_log where request_id = :id and actor_type = 'user' order by audit_id")
        found = list(tx.scalars(query, {"id": request_id}))
    assert found == ["contact.export", "import.create", "import.preview"]


@pytest.mark.parametrize(
    "name", ["../../etc/x.csv", "..\\..\\con.csv", "x" * 4000 + ".csv", "\u202egpj.csv", "a;b.csv"]
)
def test_i16_an_uploads_name_is_a_label_over_http(editor: httpx.Client, service: LiveService, name: str) -> None:
    done = editor.post(NOW_IN, files={"file": (name, b"email\n")})
    assert done.status_code == 200
    shown = editor.get(f"/api/v1/imports/{done.json()['import_id']}").json()["filename"]
    assert len(shown) <= 255 and not set(shown) & set("/\\\u202e") and shown.isprintable()
    folder = service.settings.storage_path / "uploads"
    assert all(one.startswith("import-") for one in os.listdir(folder))


def test_i7_a_rejected_formula_and_an_exported_one_are_text_to_a_spreadsheet(editor: httpx.Client) -> None:
    marker = uuid4().hex
    cells = ["=cmd|' /C calc'!A0", "+a", "-a", "@a", "'=a", "＝1", "=\"x\""]
    rows = "".join(f'{marker}{n}@shop.example,"{cell.replace(chr(34), chr(34) * 2)}"\n' for n, cell in enumerate(cells))
    made = editor.post(NOW_IN, files={"file": ("a.csv", f"email,first_name\n{rows}=x@@y,z\n".encode())}).json()
    assert (made["created"], made["errors_total"]) == (len(cells), 1)
    shown = list(csv.DictReader(io.StringIO(editor.get(EXPORT, params={"q": marker}).text)))
    # Of "'=a" the import has taken one quote off, as of any guarded cell.
    assert [row["first_name"] for row in shown] == [
        "'=cmd|' /C calc'!A0", "'+a", "'-a", "'@a", "'=a", "＝1", "'=\"x\""]  # fmt: skip
    report = editor.get(f"/api/v1/imports/{made['import_id']}/errors.csv").text
    assert next(csv.DictReader(io.StringIO(report)))["value"] == "'=x@@y"
