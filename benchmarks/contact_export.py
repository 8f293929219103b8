"""Contact export: contacts a second, from the database to the bytes of the file, and how much memory that takes.

The CPU is that of this process and of the database; memory is what this process grows by meanwhile. Verified: every
contact is there once, in order, and the packed file unpacks to the same bytes. Compared with building the whole file
in memory, as a route without streaming does.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sys
import threading
import time
import zlib
from pathlib import Path

from sqlalchemy import Engine, text

from benchmarks.ground import shop_history
from benchmarks.ground.measuring import bench, finish
from mautolib.contacts.export import Export

_TAGS = """
insert into tags (name) select 'Tag ' || n from generate_series(1, 20) as n;
insert into contact_tags (contact_id, tag_id)
select contact_id, 1 + (contact_id + n) % 20 from contacts cross join generate_series(1, 2) as n
where contact_id % 2 = 0
"""
IN_MEMORY_ROWS = 20_000


def resident() -> int:
    """Octets of memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak:
    """The most memory this process held while the block ran, over what it held before."""

    def __enter__(self) -> Peak:
        self.before, self.most, self._done = resident(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.most = max(self.most, resident() - self.before)


def run(engine: Engine, *, packed: bool = False) -> tuple[int, str, int, float]:
    """Export everything; returns octets, their hash, contacts, and seconds to the first rows."""
    began, first, size, digest = time.perf_counter(), 0.0, 0, hashlib.sha256()
    unpacker = zlib.decompressobj(wbits=31) if packed else None
    export = Export(engine, packed=packed)
    try:
        for number, block in enumerate(export):
            first = first or (time.perf_counter() - began if number else 0.0)
            plain = unpacker.decompress(block) if unpacker else block
            size += len(plain)
            digest.update(plain)
    finally:
        export.close()
    return size, digest.hexdigest(), export.rows, first


def in_memory(engine: Engine) -> int:
    """What a route without streaming does: all rows, one string."""
    with engine.begin() as tx:
        rows = tx.execute(text("select * from contacts order by created_at, email limit :most"),
                          {"most": IN_MEMORY_ROWS}).all()  # fmt: skip
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return len(out.getvalue().encode())


def is_right(engine: Engine, rows: int) -> bool:
    """Whether a parser finds every contact once, in order."""
    export = Export(engine)
    lines = (line for block in export for line in block.decode().splitlines(keepends=True))
    try:
        keys = [(row["created_at"], row["email"]) for row in csv.DictReader(lines)]
    finally:
        export.close()
    return len(keys) == rows and keys == sorted(set(keys))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    with bench() as bed:
        shop_history.build(bed.engine, contacts=rows, events=1)
        with bed.engine.begin() as tx:
            tx.execute(text(_TAGS))
            tx.exec_driver_sql("analyze")
        run(bed.engine)  # modules, plans and caches are warm
        with bed.measured(f"export of {rows} contacts") as plain, Peak() as peak:
            size, digest, counted, first = run(bed.engine)
        with bed.measured("the same, packed") as packed:
            again = run(bed.engine, packed=True)
        with bed.measured(f"all in memory ({IN_MEMORY_ROWS} contacts)") as slow, Peak() as large:
            in_memory(bed.engine)
        verified = counted == rows and again[:2] == (size, digest) and is_right(bed.engine, rows)
    rate = rows / plain.wall_seconds
    sys.stdout.write(f"{size / 1e6:.0f} MB, first rows after {first:.2f} s, {peak.most / 1e6:.1f} MB more memory\n")
    finish("contact_export", rate, "contacts per second", rows=rows, verified=verified, higher_is_better=True,
           compared_to={"packed": round(rows / packed.wall_seconds), "CPU seconds per million":
                        round(plain.cpu_seconds * 1e6 / rows, 1), "peak memory MB": round(peak.most / 1e6, 1),
                        "first rows after s": round(first, 2), "all in memory, contacts per second":
                        round(min(rows, IN_MEMORY_ROWS) / slow.wall_seconds),
                        "all in memory, peak MB per million": round(large.most / IN_MEMORY_ROWS)})  # fmt: skip


if __name__ == "__main__":
    main()
