"""DuckDB over the rows of a benchmark's database: another engine that must find the same."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.ground.measuring import Bench


@contextlib.contextmanager
def duckdb_with(place: Bench, tables: Mapping[str, str]) -> Iterator[Any]:
    """A DuckDB connection with tables made of queries to PostgreSQL; None, and a line says so, without DuckDB."""
    try:
        import duckdb
    except ImportError:
        sys.stdout.write("DuckDB is not installed (requirements-dev.txt), so it is not compared\n")
        yield None
        return
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as duck:
        for name, query in tables.items():
            path = Path(folder) / name
            with place.engine.connect() as tx, path.open("w", encoding="utf-8") as file:
                tx.connection.cursor().copy_expert(f"copy ({query}) to stdout with (format csv, header)", file)
            duck.execute(f"create table {name} as select * from read_csv('{path}', header = true)")
        yield duck
