"""A door for previews and counts: read only, two seconds a statement, and no more tables than segments need.

Promise: whatever passes through it changes nothing, ends soon, and, where roles exist, cannot read users, keys or the
audit log. All statements of one pass see the same moment. Called by everything that evaluates rules while somebody
waits; evaluations that are stored run elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from mautolib.errors import InvalidInput

__all__ = ["ROLE", "TIMEOUT_MS", "reading"]

#: May read what segments need and nothing else; see sql/roles.sql.
ROLE: Final = "mauto_segments"
TIMEOUT_MS: Final = 2000
_TIMED_OUT: Final = "57014"
_TOO_SLOW: Final = ("These rules take longer than {seconds:g} seconds to evaluate; shorten the time of event and order "
                    "rules (within_days), or leave rules out")  # fmt: skip

# The timeout last: the others are not to be cut short by it. Without the role (single-role mode) its line is skipped.
_ENTER: Final = text("""
select
    (select set_config('role', rolname, true) from pg_roles
        where rolname = :role and pg_has_role(
            oid, case when cast(current_setting('server_version_num') as int) >= 160000 then 'set' else 'member' end)),
    set_config('statement_timeout', :timeout, true)
""")


@contextmanager
def reading(
    engine: Engine, *, timeout_ms: int = TIMEOUT_MS, path: tuple[str | int, ...] = ("body", "rules"),
    role: str = ROLE, too_slow: str = _TOO_SLOW,
) -> Iterator[Connection]:  # fmt: skip
    """A transaction that can only read, only what segments need, and a statement only for a while.

    Args:
        timeout_ms: the longest one statement may take.
        path: what to blame when one takes longer.
        role: whose rights it has, where roles exist.
        too_slow: what to say when one takes longer than `{seconds}`.

    Raises:
        InvalidInput: a statement took longer; says what to do.
    """
    with engine.connect() as tx, tx.begin():
        tx.exec_driver_sql("set transaction isolation level repeatable read, read only")
        tx.execute(_ENTER, {"role": role, "timeout": str(timeout_ms)})
        try:
            yield tx
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) != _TIMED_OUT:
                raise
            raise InvalidInput(too_slow.format(seconds=timeout_ms / 1000), path=path) from error
