"""`analytics.contact_period_activity`: what each contact did in each ISO week.

Promise: weeks in which something changed are counted again as a whole, so that the table is what a rebuild would
write. Called by `refreshing`.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from typing import Final

from mautolib.analytics.work import Work, configure
from mautolib.db.engine import Tx
from mautolib.db.statements import statement

#: With more people than this, a week is read as a whole instead of person by person.
_MANY: Final = 500


def restate(tx: Tx, work: Work) -> int:
    """Bring the table up to date; returns the rows written."""
    configure(tx, jit="off", work_mem="128MB")
    if work.since is not None and not work.is_limited:
        return _follow(tx, work)
    # Sorted once by the key: counted, joined and written in its order.
    configure(tx, enable_hashagg="off", enable_hashjoin="off", enable_nestloop="off")
    tx.execute(statement("rollups.clear_activity"), work.binds)
    return int(tx.execute(statement("rollups.restate_activity"), work.binds).rowcount)


def _follow(tx: Tx, work: Work) -> int:
    changed: dict[date, list[date]] = defaultdict(list)
    for day in tx.scalars(statement("rollups.changed_days"), {**work.binds, "subject": "activity"}):
        changed[day - timedelta(days=day.weekday())].append(day)
    marked: dict[date, list[int]] = defaultdict(list)
    for row in tx.execute(statement("rollups.marked_activity"), work.binds):
        marked[row.week_start].append(row.contact_id)
    single = [week for week, people in marked.items() if week not in changed and len(people) <= _MANY]
    cells = [(person, week) for week in single for person in marked[week]]
    binds = {"contact_ids": [person for person, _ in cells], "weeks": [week for _, week in cells]}
    rows = int(tx.execute(statement("rollups.follow_cells"), {**binds, "as_of": work.as_of}).rowcount) if cells else 0
    for week in {*changed, *marked}.difference(single):
        days = changed.get(week)
        binds = {"week_start": week, "contact_ids": marked.get(week, []), "as_of": work.as_of,
                 "first_day": min(days) if days else None, "last_day": max(days) if days else None}  # fmt: skip
        rows += tx.execute(statement("rollups.follow_week"), binds).rowcount
    return rows
