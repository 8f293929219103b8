"""Events in batches of 1000 at the HTTP door: how many a second the whole chain stores, and what a CPU second stores.

The real service (uvicorn, one process) over a database with fsync; a shop's day: visits, carts, orders, refunds and
events of its own, by contact id and by address, some addresses unknown. CPU is that of the service and the database,
not of the program that asks; the bodies are made before. Verified: each event, order, refund and contact is there once.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.ground.measuring import finish, tree_cpu
from mautolib.auth import users
from mautolib.auth.roles import Role
from mautolib.db.engine import connect
from mautolib.db.localpg import Cluster
from mautolib.db.migrate import migrate
from mautolib.settings import Settings

CONTACTS = 20_000
EMAIL, PASSWORD = "editor@shop.example", "correct horse battery staple"
PATH = "/api/v1/events/"
LINES = [{"sku": "TEA-SENCHA", "name": "Sencha, 100 g", "quantity": 2, "unit_price": "14.00"},
         {"sku": "TEA-POT", "name": "Stoneware teapot", "quantity": 1, "unit_price": "58.00"}]  # fmt: skip


def settings_of(database_url: str, home: Path) -> Settings:
    """Settings of the measured service."""
    return Settings(
        database_url=database_url, home=home, environment="development",
        secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
    )  # fmt: skip


def serve(port: int, database_url: str, home: str) -> None:
    """Run the service (in a process of its own)."""
    import uvicorn

    from api.app import create_app

    app = create_app(settings_of(database_url, Path(home)))
    uvicorn.run(app, host="127.0.0.1", port=port, ws="none", log_level="warning", access_log=False, server_header=False)


def event(n: int, at: datetime) -> dict[str, Any]:
    """The n-th thing a shop tells: of 100 there are 60 visits, 20 carts, 11 orders, 1 refund and 8 of its own."""
    kind = n % 100
    told: dict[str, Any] = {"source": "shop", "external_id": f"evt-{n}", "occurred_at": at.isoformat()}
    told |= {"contact_id": str(1 + n * 7 % CONTACTS)} if n % 2 else {"email": f"c{1 + n * 7 % CONTACTS}@shop.example"}
    if kind < 60:
        page = f"https://shop.example/tea/{n % 500}"
        return {**told, "type": "page_viewed", "properties": {"url": page, "title": "Green tea", "referrer": ""}}
    if kind < 80:
        return {**told, "type": "cart_updated", "properties": {"cart_id": f"c-{n}", "currency": "USD", "lines": LINES}}
    if kind < 91:
        money = {"currency": "USD", "total": "86.00", "tax": "13.73", "shipping": 4.9}
        return {**told, "type": "order_placed", "properties": {"order_id": f"o-{n}", **money, "lines": LINES}}
    if kind == 91:
        # Of the order told just before.
        back = {"order_id": f"o-{n - 1}", "currency": "USD", "amount": "14.00", "refund_id": "r1"}
        return {**told, "type": "order_refunded", "properties": back}
    if kind == 92:
        told = {name: value for name, value in told.items() if name not in ("contact_id", "email")}
        return {**told, "type": "page_viewed", "email": f"new{n}@shop.example"}
    return {**told, "type": "webinar_attended", "properties": {"room": n % 7, "minutes": 42.5, "tags": ["a", "b"]}}


def batches(first: int, rows: int, size: int) -> list[bytes]:
    """Bodies of `size` events each; occurred over the last day."""
    now = datetime.now(UTC)
    every = range(first, first + rows)
    told = (event(n, now - timedelta(seconds=86400 * (1 - (n - first) / rows))) for n in every)
    return [
        json.dumps([next(told) for _ in every[at : at + size]], separators=(",", ":")).encode()
        for at in range(0, rows, size)
    ]


class Caller:
    """A signed-in program."""

    def __init__(self, port: int) -> None:
        self._port, self._token = port, ""
        answer = self.post("/api/v1/auth/login", json.dumps({"email": EMAIL, "password": PASSWORD}).encode())
        self._token = answer["access_token"]

    def post(self, path: str, body: bytes, connection: http.client.HTTPConnection | None = None) -> dict[str, Any]:
        """The answer to one POST."""
        connection = connection or http.client.HTTPConnection("127.0.0.1", self._port)
        headers = {"content-type": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        if response.status not in (200, 202):
            raise SystemExit(f"a wrong answer: {response.status} {answer}")
        return answer

    def post_all(self, bodies: Sequence[bytes], connections: int) -> int:
        """Send every body once over so many connections; returns how many events were accepted."""
        rest, accepted, lock = iter(bodies), [0], threading.Lock()

        def one() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port)
            while True:
                with lock:
                    body = next(rest, None)
                if body is None:
                    return
                done = self.post(PATH, body, connection).get("accepted", 0)
                with lock:
                    accepted[0] += done

        threads = [threading.Thread(target=one) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return accepted[0]


@contextlib.contextmanager
def running(database_url: str, home: Path) -> Iterator[tuple[int, int]]:
    """The service in a process of its own; gives its port and process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.events", "--serve", "--port", str(port), "--home", str(home)]
    with subprocess.Popen(command, env={**os.environ, "MAUTO_DATABASE_URL": database_url}) as process:
        try:
            until = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit("the service did not start")
                time.sleep(0.05)
            yield port, process.pid
        finally:
            process.terminate()


@dataclass(frozen=True)
class Result:
    """What one run took."""

    per_second: float
    per_cpu_second: float
    service_cpu_microseconds: float
    database_cpu_microseconds: float


def measure(what: str, bodies: Sequence[bytes], rows: int, caller: Caller, pids: tuple[int, int], lanes: int) -> Result:
    """Send all bodies and print one line; ends the process if an event was not accepted."""
    began, before = time.perf_counter(), [tree_cpu(pid) for pid in pids]
    accepted = caller.post_all(bodies, lanes)
    seconds, cpu = time.perf_counter() - began, [tree_cpu(pid) - was for pid, was in zip(pids, before, strict=True)]
    if accepted != rows:
        raise SystemExit(f"{accepted} of {rows} events were accepted")
    service, database = (share * 1e6 / rows for share in cpu)
    result = Result(rows / seconds, rows / sum(cpu), service, database)
    sys.stdout.write(f"{what:<28}{result.per_second:10,.0f} events/s {result.per_cpu_second:10,.0f} per CPU second "
                     f"({service:.0f} us service, {database:.0f} us database each)\n")  # fmt: skip
    return result


def prepare(engine: Engine, settings: Settings) -> None:
    """A migrated database with contacts and somebody who may tell events."""
    migrate(engine)
    now = datetime.now(UTC)
    with engine.begin() as tx:
        users.create(tx, users.NewUser(email=EMAIL, password=PASSWORD, name="Shop", role=Role.EDITOR), now=now)
        tx.execute(text("select ensure_month_partition('events', cast(:day as date))"), {"day": now.date()})
        tx.execute(text("insert into contacts (email, email_key) select 'c' || n || '@shop.example', "
                        "'c' || n || '@shop.example' from generate_series(1, :n) as n"), {"n": CONTACTS})  # fmt: skip
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))


def is_complete(engine: Engine, numbers: Sequence[int]) -> bool:
    """Whether every told event is there once, with its order, refund or contact."""
    kinds = [n % 100 for n in numbers]
    wanted = (len(kinds), len(kinds), sum(80 <= kind < 91 for kind in kinds), kinds.count(91), kinds.count(92))
    with engine.connect() as connection:
        found = connection.execute(text(
            "select (select count(*) from events where source = 'shop'), (select count(*) from event_keys), "
            "(select count(*) from orders), (select count(*) from orders where net_total = 72), "
            "(select count(*) from contacts where not subscribed and source = 'event')"
        )).one()  # fmt: skip
    return tuple(found) == wanted


def options_given() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="events in batches")
    parser.add_argument("--connections", type=int, default=4, help="batches at once")
    parser.add_argument("--singles", type=int, default=500, help="events sent one by one, to compare with")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--home", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure batches over one and several connections, and single events."""
    options = options_given()
    if options.serve:
        serve(options.port, os.environ["MAUTO_DATABASE_URL"], options.home)
        return
    rows, singles = options.rows, options.singles
    with tempfile.TemporaryDirectory(prefix="mauto-bench-") as folder:
        Path(folder).chmod(0o711)
        cluster = Cluster.ensure(Path(folder) / "cluster", durable=True)
        engine = None
        try:
            cluster.create_database("bench")
            engine = connect(cluster.url("bench"))
            prepare(engine, settings_of(cluster.url("bench"), Path(folder) / "home"))
            with running(cluster.url("bench"), Path(folder) / "home") as (port, pid):
                caller, pids = Caller(port), (pid, cluster.pid or 0)
                caller.post_all(batches(0, 5000, 1000), 1)  # warm up
                bodies = batches(5000, rows, 1000)
                many = measure(f"{options.connections} connections", bodies, rows, caller, pids, options.connections)
                bodies = batches(5000 + rows, rows // 4, 1000)
                alone = measure("1 connection", bodies, rows // 4, caller, pids, 1)
                bodies = batches(5000 + rows + rows // 4, singles, 1)
                single = measure("1 connection, one by one", bodies, singles, caller, pids, 1)
            verified = is_complete(engine, range(5000 + rows + rows // 4 + singles))
        finally:
            if engine is not None:
                engine.dispose()
            cluster.stop()
    compared = {
        f"{what}_{figure}": round(value, 1)
        for what, result in {"batches": many, "one_connection": alone, "one_by_one": single}.items()
        for figure, value in vars(result).items()
    }
    finish("events", many.per_second, "events per second", rows=rows, verified=verified, compared_to=compared,
           higher_is_better=True)  # fmt: skip


if __name__ == "__main__":
    main()
