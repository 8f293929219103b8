"""Opens and clicks: how much of a bare ASGI answer's rate is left per CPU second when every hit is durable.

Both apps run in the same server (uvicorn, one process) and get the same requests over the same connections: half are
open pixels, half redirects. The value is the ratio per CPU second of the web process; the database's CPU (fsync on) is
told beside it. Then redirects are asked for at a steady pace, each timed from the moment it was due; so is the bare
answer, and the disk alone: a redirect cannot be faster than both. Verified: each 200 and 302 is one hit, one human
verdict, one event.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from api.__main__ import settle_memory
from api.tracking import GIF, TrackingApp
from benchmarks.ground.measuring import finish, tree_cpu
from mautolib.db.engine import connect
from mautolib.db.localpg import Cluster
from mautolib.db.migrate import migrate
from mautolib.events.links import LinkSigner, Owner
from mautolib.settings import Settings

CONTACTS = 10_000
TARGET = "https://shop.example/sale?utm_source=mail"
PACE = 1_000
#: Genuine links of the steady pace that are asked for first and not timed.
WARM_UP = 500
#: Nobody's links, to warm up.
NOBODY = [b"GET /api/v1/track/open/1/1 HTTP/1.1\r\nHost: x\r\n\r\n"] * 2000
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def settings_of(database_url: str, home: Path) -> Settings:
    """Settings of the measured service."""
    return Settings(
        database_url=database_url, home=home, environment="development",
        secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
    )  # fmt: skip


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The least an ASGI app can do: the same pixel, and nothing else."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"image/gif"), (b"content-length", b"43")]})  # fmt: skip
    await send({"type": "http.response.body", "body": GIF})


def serve(what: str, port: int, database_url: str, home: str) -> None:
    """Run one of the two apps (in a process of its own)."""
    import uvicorn

    settle_memory()
    app: Any = bare if what == "bare" else TrackingApp(bare, settings_of(database_url, Path(home)))
    uvicorn.run(app, host="127.0.0.1", port=port, ws="none", log_level="warning", access_log=False, server_header=False)


@dataclass(frozen=True)
class Result:
    """What one app did with all the requests."""

    per_cpu_second: float
    per_cpu_second_with_database: float
    per_second: float
    p99_milliseconds: float


async def ask(port: int, requests: list[bytes], connections: int) -> list[float]:
    """Send every request once over keep-alive connections; returns the seconds each took."""
    took: list[float] = []
    rest = iter(requests)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in rest:
            began = time.perf_counter()
            writer.write(request)
            await answered(reader)
            took.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return took


async def answered(reader: asyncio.StreamReader) -> None:
    """Read one answer: the pixel, or the redirect."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 200"):
        if await reader.readexactly(len(GIF)) == GIF:
            return
    elif head.startswith(b"HTTP/1.1 302") and f"location: {TARGET}\r\n".encode() in head:
        return
    raise SystemExit(f"a wrong answer: {head!r}")


async def ask_steadily(port: int, requests: list[bytes], per_second: int, connections: int) -> list[float]:
    """Send each request when it is due, whatever became of those before; returns the seconds since each was due."""
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(connections):
        idle.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    took: list[float] = []

    async def one(request: bytes, due: float) -> None:
        reader, writer = await idle.get()
        writer.write(request)
        await answered(reader)
        took.append(time.perf_counter() - due)
        idle.put_nowait((reader, writer))

    began, tasks = time.perf_counter(), []
    for number, request in enumerate(requests):
        due = began + number / per_second
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(request, due)))
    await asyncio.gather(*tasks)
    while not idle.empty():
        idle.get_nowait()[1].close()
    return took


def pace(what: str, requests: list[bytes], connections: int, cluster: Cluster, home: Path) -> float:
    """The 99th percentile of one app's answers at a steady pace, in milliseconds."""
    with running(what, cluster.url("bench"), home) as (port, _):
        # The first genuine clicks of a process wait 60 ms for plans and caches; that is told by no percentile of a day.
        for warm_up in (NOBODY[:1000], requests[:WARM_UP]):
            asyncio.run(ask_steadily(port, warm_up, PACE, connections))
        took = sorted(asyncio.run(ask_steadily(port, requests[WARM_UP:], PACE, connections)))
    median, found = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    sys.stdout.write(f"{what:<10}{PACE:10,} per second {median:8.1f} ms median {found:8.1f} ms p99\n")
    return found


@contextlib.contextmanager
def running(what: str, database_url: str, home: Path) -> Iterator[tuple[int, int]]:
    """An app in a process of its own; gives its port and process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.tracking", "--serve", what, "--port", str(port), "--home", str(home)]
    with subprocess.Popen(command, env={**os.environ, "MAUTO_DATABASE_URL": database_url}) as process:
        try:
            until = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"the {what} app did not start")
                time.sleep(0.05)
            yield port, process.pid
        finally:
            process.terminate()


def disk_p99(folder: Path) -> float:
    """What one page that is made durable takes on this disk just now, 99th percentile in milliseconds."""
    took = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(500):
            file.write(bytes(8192))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
            time.sleep(0.005)
    found = sorted(took)[495] * 1000
    sys.stdout.write(f"the disk alone: {found:.1f} ms p99\n")
    return found


def measure(what: str, requests: list[bytes], connections: int, cluster: Cluster, home: Path) -> Result:
    """Run one app through all the requests, after a short warm-up with nobody's links."""
    with running(what, cluster.url("bench"), home) as (port, process_id):
        asyncio.run(ask(port, NOBODY, connections))
        began, web, database = time.perf_counter(), tree_cpu(process_id), tree_cpu(cluster.pid or 0)
        took = sorted(asyncio.run(ask(port, requests, connections)))
        seconds, web = time.perf_counter() - began, tree_cpu(process_id) - web
        database = tree_cpu(cluster.pid or 0) - database
    asked = len(requests)
    result = Result(asked / web, asked / (web + database), asked / seconds, took[int(asked * 0.99)] * 1000)
    sys.stdout.write(f"{what:<10}{result.per_cpu_second:10,.0f} per CPU second {result.per_second:10,.0f} per second "
                     f"{result.p99_milliseconds:8.1f} ms p99\n")  # fmt: skip
    return result


def make_requests(engine: Engine, settings: Settings, rows: int) -> list[bytes]:
    """Opens and clicks, in turns, of `rows` messages to ten thousand contacts, as a browser sends them."""
    with engine.begin() as tx:
        tx.execute(text("insert into contacts (email, email_key) select 'c' || n || '@shop.example', "
                        "'c' || n || '@shop.example' from generate_series(1, :n) as n"), {"n": CONTACTS})  # fmt: skip
    signer, made_at = LinkSigner.from_settings(settings), datetime.now(UTC) - timedelta(hours=1)
    owner = Owner.of(campaign_id=1)
    messages = (
        signer.for_message(owner=owner, contact_id=1 + n % CONTACTS, message_id=n + 1, made_at=made_at)
        for n in range(rows)
    )
    links = (links.click(TARGET) if n % 2 else links.open() for n, links in enumerate(messages))
    return [
        f"GET {link[len(settings.public_base_url):]} HTTP/1.1\r\nHost: x\r\nUser-Agent: {BROWSER}\r\n"
        "Accept: image/avif,image/webp,*/*\r\nAccept-Language: en\r\n\r\n".encode() for link in links
    ]  # fmt: skip


def is_complete(engine: Engine, rows: int) -> bool:
    """Whether each request is there once, with its effect."""
    with engine.connect() as connection:
        counts = connection.execute(text(
            "select (select count(distinct message_id) from hits), (select count(*) from hits), "
            "(select count(*) from hit_verdicts where verdict = 'human'), (select count(*) from events), "
            "(select sum(event_count) from event_pending)"
        )).one()  # fmt: skip
    return set(counts) == {rows}


def compare(options: argparse.Namespace) -> tuple[dict[str, Result], dict[str, float], bool]:
    """Both apps with the same requests, then at a steady pace; and whether every answer is a row."""
    with tempfile.TemporaryDirectory(prefix="mauto-bench-") as folder:
        Path(folder).chmod(0o711)
        cluster = Cluster.ensure(Path(folder) / "cluster", durable=True)
        engine = None
        try:
            cluster.create_database("bench")
            engine = connect(cluster.url("bench"))
            migrate(engine)
            settings = settings_of(cluster.url("bench"), Path(folder) / "home")
            requests = make_requests(engine, settings, options.rows + 2 * options.paced)
            steady = [request for request in requests[options.rows :] if b"/track/click/" in request]
            results = {
                what: measure(what, requests[: options.rows], options.connections, cluster, settings.home)
                for what in ("bare", "tracking")
            }
            p99 = {what: pace(what, steady, options.connections, cluster, settings.home) for what in results}
            p99["disk"] = disk_p99(Path(folder))
            verified = is_complete(engine, options.rows + len(steady))
        finally:
            if engine is not None:
                engine.dispose()
            cluster.stop()
    return results, p99, verified


def main() -> None:
    """Measure both apps and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="opens and clicks")
    parser.add_argument("--paced", type=int, default=10_000, help="redirects at a steady pace")
    parser.add_argument("--connections", type=int, default=64, help="browsers at once")
    for hidden in ("--serve", "--home"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port, os.environ["MAUTO_DATABASE_URL"], options.home)
        return
    results, p99, verified = compare(options)
    ratio = results["tracking"].per_cpu_second / results["bare"].per_cpu_second
    compared = {
        f"{what}_{figure}": round(value, 1)
        for what, result in results.items() for figure, value in vars(result).items()
    }  # fmt: skip
    compared[f"redirect_p99_milliseconds_at_{PACE}_per_second"] = round(p99["tracking"], 1)
    compared[f"bare_p99_milliseconds_at_{PACE}_per_second"] = round(p99["bare"], 1)
    compared["disk_p99_milliseconds"] = round(p99["disk"], 1)
    finish("tracking", ratio, "of a bare ASGI answer per CPU second of the web process", rows=options.rows,
           verified=verified, compared_to=compared, higher_is_better=True)  # fmt: skip


if __name__ == "__main__":
    main()
