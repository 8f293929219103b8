"""Looking back at opens and clicks: judged again by the present rules, with everything known that came together.

Promise: hits never change and no effect fires again; a verdict that differs is added under its rule version, and the
figures of the campaigns concerned are recounted. Repeating it adds nothing; killed half-way, the days that were done
stay done. Hits of the last minutes are left alone: what came together with them may still be in a spool. Called by
`runs`; what the rules mean is `classification.hit_verdicts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row

from mautolib.campaigns import totals
from mautolib.classification import hit_verdicts
from mautolib.classification.user_agents import name_of
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput

__all__ = ["SETTLED_AFTER", "Recomputed", "recompute"]

#: Younger hits are not looked at.
SETTLED_AFTER: Final = timedelta(minutes=10)
_STEP: Final = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """How many hits were judged, how many verdicts changed, and of how many campaigns."""

    judged: int
    changed: int
    campaigns: int


def recompute(engine: Engine, *, since: datetime, now: datetime) -> Recomputed:
    """Judge again what came in from `since` until a few minutes ago, a day at a time.

    Raises:
        InvalidInput: `since` is in the future.
    """
    if since > now:
        raise InvalidInput(f"There are no hits since {since:%Y-%m-%d}: that is in the future", path=("since",))
    until, judged, changed = now - SETTLED_AFTER, 0, 0
    campaign_ids: set[int] = set()
    while since < until:
        end = min(since + _STEP, until)
        with engine.begin() as tx:
            row = _judge(tx, since, end, now)
            totals.refresh_many(tx, row.campaign_ids, now)
        judged, changed, since = judged + row.judged_count, changed + row.changed_count, end
        campaign_ids.update(row.campaign_ids)
    return Recomputed(judged=judged, changed=changed, campaigns=len(campaign_ids))


def _judge(tx: Connection, since: datetime, until: datetime, now: datetime) -> Row[Any]:
    span = {"since": since, "until": until}
    names = {name: name_of(name).value for name in tx.scalars(statement("hits.names_between"), span)}
    return tx.execute(statement("hits.judge_again"), {
        **span, "now": now, "user_agents": list(names), "names": list(names.values()), "ahead": hit_verdicts.AHEAD,
        "inside": hit_verdicts.INSIDE, "machine_seconds": hit_verdicts.MACHINE_SECONDS, "burst": hit_verdicts.BURST,
        "links_at_once": hit_verdicts.LINKS_AT_ONCE, "crowd": hit_verdicts.CROWD,
        "rule_version": hit_verdicts.LOOK_BACK_VERSION,
    }).one()  # fmt: skip
