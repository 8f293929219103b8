"""COPY of ready-made bytes: chunks of any size arrive whole and in order, and what their source raises is raised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from mautolib.db.copy import copy_chunks


def test_chunks_of_any_size_arrive_whole_and_in_order(tx: Connection) -> None:
    lines = [f"{number}\t{'é' * (number % 700)}\n".encode() for number in range(4000)]
    large = b"".join(lines[10:3000])
    assert len(large) > 4 * (1 << 18)
    tx.exec_driver_sql("create temporary table copied (number int, text text, at serial)")
    chunks = iter([*lines[:10], b"", large, b"".join(lines[3000:])[:1001], b"", b"".join(lines[3000:])[1001:], b""])
    assert copy_chunks(tx, "copy copied (number, text) from stdin", chunks) == 4000
    found = tx.exec_driver_sql("select number, text from copied order by at").all()
    assert [tuple(row) for row in found] == [(number, "é" * (number % 700)) for number in range(4000)]


def test_what_the_source_raises_is_raised(tx: Connection) -> None:
    def broken() -> Iterator[bytes]:
        yield b"1\n"
        raise LookupError("the source is gone")

    tx.exec_driver_sql("create temporary table copied (number int)")
    with pytest.raises(LookupError, match="the source is gone"):
        copy_chunks(tx, "copy copied from stdin", broken())
