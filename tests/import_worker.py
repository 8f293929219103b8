"""A worker in a process of its own, which comes to a named point and waits there to be killed.

`python -m tests.import_worker URL HOME CHUNK_ROWS BLOCK POINT`: a file is read BLOCK bytes at a time. POINT is
`rows 3000` (so many were read), `kept 2` (that many checkpoints were made), `before TEXT` or `after TEXT` (a statement
that holds it), or `never`. At the point it says how many rows it turned into lines of COPY itself.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event

from mautolib.contacts import imports
from mautolib.contacts.imports import filling, reading
from mautolib.contacts.imports.files import OpenFile
from mautolib.db.engine import connect
from mautolib.settings import Settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def main(url: str, home: str, chunk_rows: str, block: str, point: str) -> None:
    """Run what waits, up to the point."""
    kind, _, what = point.partition(" ")
    filling.CHUNK_ROWS, reading._BLOCK = int(chunk_rows), int(block)
    engine, staged, kept = connect(url), [0], [0]

    def wait_here() -> None:
        print(staged[0], flush=True)
        time.sleep(600)

    stage, next_chunk = OpenFile.stage, filling._next_chunk

    def counted(file: OpenFile, part: Any) -> bytes:
        staged[0] += part.rows
        return stage(file, part)

    def checked(*given: Any) -> Any:
        made = next_chunk(*given)
        kept[0] += 1
        if kind == "kept" and kept[0] >= int(what):
            wait_here()
        return made

    def progress(rows: int) -> None:
        if kind == "rows" and rows >= int(what):
            wait_here()

    @event.listens_for(engine, f"{kind}_cursor_execute" if kind in ("before", "after") else "before_cursor_execute")
    def hear(_: Any, __: Any, statement: str, *___: Any) -> None:
        if kind in ("before", "after") and what in statement:
            wait_here()

    OpenFile.stage, filling._next_chunk = counted, checked  # type: ignore[method-assign]
    for done in imports.run_waiting(engine, Settings(database_url=url, home=Path(home)), clock=lambda: NOW,
                                    progress=progress):  # fmt: skip
        print(staged[0], done.status, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
