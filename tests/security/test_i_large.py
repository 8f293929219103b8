"""Group I in its real sizes, through the API process and a worker process of their own, with their memory measured.

Prints what it measured (`-s`). Slow; the same cases in small are in test_i_import.py.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from mautolib.db.engine import connect
from tests.conftest import Server
from tests.live_service import PASSWORD, live_settings, make_users

pytestmark = pytest.mark.slow
IMPORT, EXPORT = "/api/v1/contacts/import", "/api/v1/contacts/export/csv"
MIB = 1 << 20
WORKER = """
import json, time
from pathlib import Path
from mautolib.contacts import imports
from mautolib.db.engine import connect
from mautolib.settings import Settings
settings, began = Settings.from_env(), time.monotonic()
# Of this program alone: ru_maxrss begins with what the process had that started it.
peak = lambda: next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
for done in imports.run_waiting(connect(settings.database_url), settings):
    names = "total_rows", "created", "updated", "skipped", "rejected"
    counts = {name: int(getattr(done, name) or 0) for name in names}
    print(json.dumps({**counts, "status": done.status, "error": done.error, "seconds": time.monotonic() - began,
                      "mb": peak() // 1024}))
"""


@dataclass
class Door:
    """The API as a process, and workers as others."""

    url: str
    engine: Engine
    environment: dict[str, str]
    home: Path
    process: subprocess.Popen[bytes]
    client: httpx.Client

    def resident(self, what: str = "VmRSS") -> float:
        """Memory of the API process in MB: now, or with `VmHWM` at most since `forget_peak`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024

    def forget_peak(self) -> float:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")
        return self.resident()

    def work(self) -> dict[str, Any]:
        """One worker takes what waits; returns what it says of its last import."""
        done = subprocess.run([sys.executable, "-c", WORKER], env=self.environment, stdout=subprocess.PIPE, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        print(f"\n{found}, API {self.resident('VmHWM'):.0f} MB at most")
        return found

    def uploads(self) -> list[str]:
        folder = self.home / "storage" / "uploads"
        return os.listdir(folder) if folder.exists() else []


@pytest.fixture(scope="module")
def door(cluster: Server, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    name, home = cluster.create(template=template_database), tmp_path_factory.mktemp("large")
    engine = connect(cluster.url(name))
    make_users(engine)
    own = live_settings(cluster.url(name), home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "MAUTO_HOME": str(home),
        "MAUTO_DATABASE_URL": own.database_url, "MAUTO_SECRET_KEYS": own.secret_keys[0],
        "MAUTO_SUPPRESSION_PEPPER": own.suppression_pepper, "MAUTO_API_PORT": str(port),
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", "api"], env=environment) as process:
        try:
            with httpx.Client(base_url=url, timeout=300, trust_env=False) as client:
                for _ in range(300):
                    try:
                        client.get("/health")
                        break
                    except httpx.ConnectError:
                        time.sleep(0.1)
                body = {"email": "editor@shop.example", "password": PASSWORD}
                answer = client.post("/api/v1/auth/login", json=body)
                client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
                yield Door(url, engine, environment, home, process, client)
        finally:
            process.terminate()
            process.wait(20)
    engine.dispose()
    cluster.drop(name)


@pytest.fixture(autouse=True)
def emptied(door: Door) -> None:
    with door.engine.begin() as tx:
        tables = "contacts, contact_history, suppressions, imports, events, event_pending"
        tx.execute(text(f"truncate {tables} restart identity cascade"))
    door.forget_peak()


def sent(door: Door, blocks: Iterator[bytes], media_type: str = "text/csv", **options: str) -> httpx.Response:
    began = time.monotonic()
    answer = door.client.post(IMPORT, content=blocks, params=options, headers={"Content-Type": media_type})
    print(f"\n{answer.status_code} after {time.monotonic() - began:.1f} s, API {door.resident('VmHWM'):.0f} MB at most")
    return answer


def packed(blocks: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(9, wbits=31)
    for block in blocks:
        if piece := packer.compress(block):
            yield piece
    yield packer.flush()


def one_line(size: int) -> Iterator[bytes]:
    yield b"email\nanna@shop.example\n"
    for _ in range(size // MIB):
        yield b"x" * MIB


def count(door: Door, query: str = "select count(*) from contacts") -> int:
    with door.engine.begin() as tx:
        return int(tx.scalar(text(query)) or 0)


@pytest.mark.parametrize("is_packed", [False, True])
def test_i4_a_line_of_a_gigabyte(door: Door, is_packed: bool) -> None:
    before = door.forget_peak()
    blocks = one_line(1 << 30)
    answer = sent(door, packed(blocks) if is_packed else blocks, "application/gzip" if is_packed else "text/csv")
    assert answer.status_code == 202
    assert door.resident("VmHWM") - before < 64
    done = door.work()
    assert (done["status"], done["created"]) == ("failed", 0)
    assert "Line 3 is longer than" in done["error"]
    assert done["mb"] < 256
    assert door.uploads() == []
    assert count(door) == 0


def test_i4_ten_thousand_columns(door: Door) -> None:
    header = ",".join(["email", *(f"c{n}" for n in range(9999))])
    answer = sent(door, iter([header.encode() + b"\n", (",".join(["a@b.example"] * 10_000)).encode() + b"\n"]))
    assert answer.status_code == 202
    done = door.work()
    assert (done["status"], "Line 1 has 10000 columns" in done["error"]) == ("failed", True)


def test_i2_a_bomb_of_ten_gigabytes(door: Door) -> None:
    """A bomb is 413 as soon as it has burst, and leaves nothing behind."""
    before = door.forget_peak()
    member = gzip.compress(b"email\n" + bytes(256 * MIB), 9)
    began = time.monotonic()
    try:
        # 40 members of 256 MiB, each packed to a thousandth.
        answer = sent(door, (member for _ in range(40)), "application/gzip")
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # refused and hung up while the rest was still on its way
    took = time.monotonic() - began
    print(f"{len(member) * 40 / 1e6:.0f} MB that would be 10 GiB: {took:.1f} s")
    assert door.resident("VmHWM") - before < 64
    assert door.uploads() == []
    assert count(door, "select count(*) from imports") == 0


def test_i5_a_quote_that_is_never_closed_among_a_million_rows(door: Door) -> None:
    def rows() -> Iterator[bytes]:
        yield b"email,first_name\n"
        for start in range(0, 1_000_000, 10_000):
            lines = [f"p{n}@mail{n % 1000}.example,N{n}\n" for n in range(start, start + 10_000)]
            if start == 0:
                lines[8] = 'p8@mail8.example,"N8\n'
            yield "".join(lines).encode()

    assert sent(door, rows()).status_code == 202
    done = door.work()
    assert (done["total_rows"], done["created"], done["rejected"]) == (1_000_000, 999_999, 1)
    with door.engine.begin() as tx:
        assert tx.execute(text("select line, code from import_rejects")).one() == (10, "unbalanced_quote")
    assert count(door) == 999_999
    assert done["mb"] < 256


@pytest.mark.parametrize("policy", ["skip", "merge"])
def test_i11_a_million_times_the_same_address(door: Door, policy: str) -> None:
    lines = b"A@Shop.example,1\na@SHOP.example,2\n" * 5000
    blocks = iter([b"email,n\n", *[lines] * 100])
    assert sent(door, blocks, update_policy=policy).status_code == 202
    done = door.work()
    updated = 999_999 if policy == "merge" else 0
    assert (done["total_rows"], done["created"], done["updated"]) == (1_000_000, 1, updated)
    assert done["skipped"] == 999_999 - updated
    assert count(door) == count(door, "select count(*) from events") == 1
    assert done["seconds"] < 60
    assert done["mb"] < 256


def test_i13_an_export_of_a_million_to_a_reader_who_dawdles_and_leaves(door: Door) -> None:
    with door.engine.begin() as tx:
        tx.execute(text("set local statement_timeout = 0"))
        tx.execute(text(
            "insert into contacts (email, email_key, first_name, custom_fields, source, created_at) select "
            "'p' || n || '@shop.example', 'p' || n || '@shop.example', repeat('x', 60), "
            "jsonb_build_object('Note', repeat('y', 60)), 'import', now() from generate_series(1, 1000000) as n"
        ))  # fmt: skip
    host, port = door.url.removeprefix("http://").split(":")
    head = f"GET {EXPORT} HTTP/1.1\r\nHost: x\r\nAuthorization: {door.client.headers['Authorization']}\r\n\r\n"
    before = door.forget_peak()
    open_exports = "select count(*) from pg_stat_activity where datname = current_database() and query like 'copy%'"
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.connect((host, int(port)))
        opened.sendall(head.encode())
        received = 0
        for _ in range(20):
            received += len(opened.recv(1024))
            time.sleep(1)
        grown = door.resident("VmHWM") - before
        print(f"\n{received} bytes in 20 s: API grew by {grown:.0f} MB")
        assert grown < 32
    for _ in range(100):
        if not count(door, open_exports):
            break
        time.sleep(0.1)
    assert count(door, open_exports) == 0
    door.forget_peak()
    began, size, lines = time.monotonic(), 0, 0
    with door.client.stream("GET", EXPORT) as answer:
        for piece in answer.iter_bytes():
            size += len(piece)
            lines += piece.count(b"\n")
    grown = door.resident("VmHWM") - before
    print(f"whole: {size / 1e6:.0f} MB, {lines} lines in {time.monotonic() - began:.1f} s, API grew by {grown:.0f} MB")
    assert lines == 1_000_001
    assert grown < 64
