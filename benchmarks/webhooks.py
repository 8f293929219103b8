"""Webhooks: deliveries per second, from the due row to the recorded attempt, with the full log of attempts and fsync.

Facts become deliveries to several endpoints, processes deliver them to a sink on this machine, and the sink's own
account is compared: each delivery once, signed right, none lost. The value is the rate by the clock; beside it stands
what all cores would give if nobody else used them: cores divided by the CPU seconds of deliverers, database and sink
together. Then 20 endpoints go on while another hangs: how late their deliveries come. Loopback is reached by a `Reach`
of the sink, which no setting makes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.ground.measuring import finish, tree_cpu
from benchmarks.ground.webhook_sink import Account, SinkProcess, reach_of, sink
from benchmarks.send import warehouse
from mautolib import webhooks
from mautolib.db.engine import connect
from mautolib.settings import Settings
from mautolib.webhooks import delivery, desk
from mautolib.webhooks.signing import signature_of_body, standard_signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HANG_SECONDS = 20.0


def add_endpoints(engine: Engine, settings: Settings, url: str, count: int) -> None:
    """Endpoints that listen to everything."""
    statement = text(
        "insert into webhook_endpoints (url, secret_encrypted, max_failures) "
        "select :url || '/' || number, :secret, 100 from generate_series(1, :n) as number"
    )
    values = {"url": url, "secret": webhooks.seal_secret(settings, SECRET), "n": count}
    with engine.begin() as tx:
        tx.execute(statement, values)


def add_facts(engine: Engine, count: int) -> None:
    """Facts of an ordinary size: an open of a mail."""
    with engine.begin() as tx:
        tx.execute(
            text(
                "insert into outbox (event_name, occurred_at, data, created_at) select 'email.opened', now(), "
                "jsonb_build_object('message_id', cast(n as text), 'campaign_id', '7', 'contact_id', cast(n as text), "
                "'email', 'person' || n || '@mail.example'), clock_timestamp() from generate_series(1, :n) as n"
            ),
            {"n": count},
        )


def own_cpu() -> float:
    """CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def is_signed(head: bytes, body: bytes) -> bool:
    """Whether both signatures of a request are right."""
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    headers = {name.lower(): value for name, _, value in lines}
    message_id, timestamp = headers["webhook-id"], int(headers["webhook-timestamp"])
    return (
        json.loads(body)["id"] == message_id
        and headers["x-webhook-signature-256"] == signature_of_body(SECRET, body)
        and headers["webhook-signature"] == standard_signature((SECRET,), message_id, timestamp, body)
    )


def deliver(settings: Settings, port: int, pipe: Connection) -> None:
    """One deliverer: waits for the word, delivers all that is due, tells what it did and what that cost."""
    engine = connect(settings.database_url)
    pipe.send("ready")
    pipe.recv()
    before = own_cpu()
    done = delivery.run(engine, settings, budget_seconds=900, reach=reach_of(port))
    pipe.send((done.succeeded, own_cpu() - before))


def crew(settings: Settings, receiver: SinkProcess, processes: int) -> tuple[int, float, float]:
    """Deliver everything by several processes; returns how many succeeded, wall seconds and CPU seconds."""
    forks, pipes, workers = multiprocessing.get_context("fork"), [], []
    for _ in range(processes):
        ours, theirs = multiprocessing.Pipe()
        workers.append(forks.Process(target=deliver, args=(settings, receiver.port, theirs), daemon=True))
        workers[-1].start()
        ours.recv()
        pipes.append(ours)
    begun = time.perf_counter()
    for pipe in pipes:
        pipe.send("go")
    told = [pipe.recv() for pipe in pipes]
    wall = time.perf_counter() - begun
    for worker in workers:
        worker.join()
    return sum(succeeded for succeeded, _ in told), wall, sum(cpu for _, cpu in told)


def many(
    engine: Engine, settings: Settings, server_pid: int, facts: int, endpoints: int, processes: int
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """Make and deliver; returns the figures and whether all is right."""
    wanted = facts * endpoints
    with sink() as receiver:
        add_endpoints(engine, settings, receiver.url("/hook"), endpoints)
        add_facts(engine, facts)
        cpu, server = own_cpu(), tree_cpu(server_pid)
        while desk.expand(engine, now=datetime.now(UTC))[0]:
            pass
        making, making_server = own_cpu() - cpu, tree_cpu(server_pid) - server
        engine.dispose()
        server = tree_cpu(server_pid)
        succeeded, wall, cpu = crew(settings, receiver, processes)
        server = tree_cpu(server_pid) - server
        account = receiver.end()
    is_right = succeeded == wanted and is_logged(engine, account, wanted)
    total = cpu + server + account.cpu_seconds
    figures = {
        "all_cores_per_second": round((os.cpu_count() or 1) * wanted / total), "cores": os.cpu_count(),
        "processes": processes, "by_the_clock_per_second": round(wanted / wall),
        "client_us": round(cpu / wanted * 1e6), "database_us": round(server / wanted * 1e6),
        "sink_us": round(account.cpu_seconds / wanted * 1e6), "making_client_us": round(making / wanted * 1e6, 1),
        "making_database_us": round(making_server / wanted * 1e6), "connections": account.connections,
    }  # fmt: skip
    sys.stdout.write(f"{wanted:,} deliveries to {endpoints} endpoints by {processes} processes: {figures}\n")
    return figures, is_right


def is_logged(engine: Engine, account: Account, wanted: int) -> bool:
    """Whether the sink had each delivery once, signed right, and each is recorded and logged once; then cleans up."""
    with engine.begin() as tx:
        logged, ended = tx.execute(
            text(
                "select (select count(*) from webhook_attempts where response_status = 204), "
                "(select count(*) from webhook_deliveries where status = 'succeeded' and attempt = 1)"
            )
        ).one()
        ids = set(tx.scalars(text("select webhook_message_id from webhook_deliveries")))
        tx.execute(text("truncate webhook_endpoints, webhook_deliveries, webhook_attempts, outbox"))
    return (
        logged == ended == len(ids) == wanted and account.ids.keys() == ids and set(account.ids.values()) == {1}
        and len(account.samples) > 0 and all(is_signed(*sample) for sample in account.samples)
    )  # fmt: skip


def beside_one_that_hangs(
    engine: Engine, settings: Settings, endpoints: int, facts: int
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """While one endpoint never answers, facts come in for half a minute: how late do the others get them?"""
    with sink() as receiver:
        add_endpoints(engine, settings, receiver.url("/hang"), 1)
        add_endpoints(engine, settings, receiver.url("/hook"), endpoints)
        engine.dispose()
        ours, theirs = multiprocessing.Pipe()
        worker = multiprocessing.get_context("fork").Process(
            target=keep_delivering, args=(settings, receiver.port, theirs), daemon=True
        )
        worker.start()
        ours.recv()
        for _ in range(facts):
            add_facts(engine, 1)
            time.sleep(1.5 * HANG_SECONDS / facts)
        time.sleep(3)
        worker.kill()
        worker.join()
        account = receiver.end()
    with engine.begin() as tx:
        made = tx.execute(text(
            "select webhook_message_id, extract(epoch from outbox.created_at) from webhook_deliveries "
            "inner join outbox using (outbox_id) inner join webhook_endpoints using (endpoint_id) "
            "where webhook_endpoints.url not like '%/hang/%'")).all()  # fmt: skip
        tx.execute(text("truncate webhook_endpoints, webhook_deliveries, webhook_attempts, outbox"))
    late = sorted(account.first_at.get(message_id, float("inf")) - float(told) for message_id, told in made)
    p99 = late[int(len(late) * 0.99)]
    figures = {
        "p99_seconds_beside_a_hanging_endpoint": round(p99, 3), "median_seconds": round(late[len(late) // 2], 3),
        "deliveries_beside_it": len(late), "requests_that_hung": len(account.hung),
    }  # fmt: skip
    sys.stdout.write(f"beside an endpoint that hangs: {figures}\n")
    return figures, p99 < 2.0 and len(late) == endpoints * facts and len(account.hung) > 0


def keep_delivering(settings: Settings, port: int, pipe: Connection) -> None:
    """What the watcher and the DAG do: a run whenever something is due."""
    engine = connect(settings.database_url)
    pipe.send("ready")
    while True:
        if delivery.is_anything_to_do(engine, datetime.now(UTC)):
            delivery.run(engine, settings, budget_seconds=300, reach=reach_of(port))
        time.sleep(0.05)


def main() -> None:
    """Deliver many; then look at the others while one hangs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webhooks", description=__doc__)
    parser.add_argument("--rows", type=int, default=40_000, help="deliveries")
    parser.add_argument("--endpoints", type=int, default=4, help="endpoints that share them")
    parser.add_argument("--processes", type=int, default=2, help="deliverers")
    parser.add_argument("--no-hanging", action="store_true", help="leave out the half minute beside one that hangs")
    options = parser.parse_args()
    facts = options.rows // options.endpoints
    with tempfile.TemporaryDirectory(prefix="mauto-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with warehouse(folder) as (engine, cluster, settings):
            figures, is_right = many(
                engine, settings, cluster.pid or 0, facts, options.endpoints, options.processes
            )
            if not options.no_hanging:
                beside, is_quick = beside_one_that_hangs(engine, settings, 20, 100)
                figures, is_right = {**figures, **beside}, is_right and is_quick
    value = figures.pop("by_the_clock_per_second")
    finish("webhooks", value, "deliveries a second by the clock, on a disk that is synced",
           rows=facts * options.endpoints, verified=is_right, compared_to=figures, higher_is_better=True)  # fmt: skip


if __name__ == "__main__":
    main()
