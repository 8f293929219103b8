"""What every benchmark needs: a database of its own, CPU seconds of process and server, and the closing JSON line."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from mautolib.db.engine import connect
from mautolib.db.localpg import Cluster, temporary_cluster
from mautolib.db.migrate import migrate

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """What a measured block took."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Bench:
    """A migrated database on a server of its own (the embedded PostgreSQL, without fsync)."""

    engine: Engine
    cluster: Cluster

    @contextlib.contextmanager
    def measured(self, what: str) -> Iterator[Cost]:
        """Measure a block: wall time, and CPU of this process and of the server; prints one line."""
        cost = Cost()
        wall, cpu = time.perf_counter(), self._cpu()
        yield cost
        cost.wall_seconds, cost.cpu_seconds = time.perf_counter() - wall, self._cpu() - cpu
        sys.stdout.write(f"{what:<58} {cost.wall_seconds:8.2f} s wall {cost.cpu_seconds:8.2f} s CPU\n")
        sys.stdout.flush()

    def _cpu(self) -> float:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return own.ru_utime + own.ru_stime + tree_cpu(self.cluster.pid or 0)


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """A server, a migrated database and an engine, gone afterwards."""
    with temporary_cluster() as cluster:
        cluster.create_database("bench")
        engine = connect(cluster.url("bench"), application_name="benchmark")
        migrate(engine)
        try:
            yield Bench(engine=engine, cluster=cluster)
        finally:
            engine.dispose()


def finish(
    name: str, value: float, unit: str, *, rows: int, verified: bool, compared_to: Mapping[str, Any],
    higher_is_better: bool = False,
) -> None:  # fmt: skip
    """Print the closing line; a result that was not verified ends the process with an error."""
    command = f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip()
    line = {
        "name": name, "value": round(value, 3), "unit": unit, "higher_is_better": higher_is_better,
        "compared_to": dict(compared_to), "verified": verified, "rows": rows, "command": command,
    }  # fmt: skip
    sys.stdout.write(json.dumps(line) + "\n")
    if not verified:
        raise SystemExit(1)


def tree_cpu(pid: int) -> float:
    """CPU seconds of a process and its children, those that have ended included."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parent = int(fields[1])
            if pid in (int(folder.name), parent):
                own, children = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
                total += own + (children if int(folder.name) == pid else 0)
    return total / _TICKS
