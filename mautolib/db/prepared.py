"""Named statements that the server plans once for a connection: for large texts that look at a few rows, where planning
costs more than looking.

Promises the rows of `tx.execute(statement(path), binds)`. The server itself is asked what it has prepared, so a new
connection, a reset one or another one behind a pooler is no special case; what was prepared survives a rollback. A bind
that is null is planned as null, so that `cast(:x as t) is null or ...` costs nothing and hides no index: each set of
nulls has a plan of its own. Called for single contacts; what reads many rows is better planned for its values.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import CursorResult

from mautolib.db.engine import Tx
from mautolib.db.statements import load

__all__ = ["execute_prepared"]

_BIND = re.compile(r"cast\(:([a-z_]+) as ([a-z0-9]+(?:\[\])?)\)( is null)?")
_UNTYPED = re.compile(r"(?<![:\w]):[a-z_]+")

# A plan is used for as long as the connection lives, and tables may have been empty when it was made: by index always.
# Compiling takes longer than looking at a few rows.
_SETTINGS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}
_SET = "".join(f"set local {name} = {value}; " for name, value in _SETTINGS.items())
_RESET = "; ".join(f"set local {name} to default" for name in _SETTINGS)
_AS_IT_IS = {"no_parameters": True}  # a text full of `%`


def execute_prepared(tx: Tx, path: str, binds: Mapping[str, Any]) -> CursorResult[Any]:
    """Run `"<domain>.<name>"`, prepared; binds the statement does not name are ignored.

    The planner settings it takes are those of the session again afterwards.

    Raises:
        KeyError: no such statement, or a bind is missing.
        ValueError: a bind of it is not written `cast(:bind as type)`.
    """
    nulls = frozenset(name for name, value in binds.items() if value is None)
    name, prepare, order = _planned(path, nulls)
    if not tx.exec_driver_sql("select 1 from pg_prepared_statements where name = %s", (name,)).first():
        tx.exec_driver_sql(prepare, execution_options=_AS_IT_IS)
    places = f" ({', '.join(['%s'] * len(order))})" if order else ""
    found = tx.exec_driver_sql(f"{_SET}execute {name}{places}", tuple(binds[bind] for bind in order))
    tx.exec_driver_sql(_RESET)
    return found


@cache
def _planned(path: str, nulls: frozenset[str]) -> tuple[str, str, tuple[str, ...]]:
    """A name that only this text has, how it is prepared with these binds null, and its other binds in their order."""
    domain, name = path.split(".", 1)
    places: dict[tuple[str, str], str] = {}

    def placed(match: re.Match[str]) -> str:
        bind, kind, is_asked = match.groups()
        if bind in nulls:
            return "true" if is_asked else f"cast(null as {kind})"
        return "false" if is_asked else places.setdefault((bind, kind), f"${len(places) + 1}")

    sql = _BIND.sub(placed, load(domain)[name].sql)
    if left := _UNTYPED.search(sql):
        raise ValueError(f"{path}: {left.group()!r} has no type; write cast({left.group()} as ...)")
    kinds = f" ({', '.join(kind for _, kind in places)})" if places else ""
    unique = f"mauto_{hashlib.sha256(f'{kinds} {sql}'.encode()).hexdigest()[:32]}"
    return unique, f"prepare {unique}{kinds} as\n{sql}", tuple(bind for bind, _ in places)
