"""Calls: what an action of a workflow or rule tells one address, once for everybody it runs for.

Promise: each is a delivery like any other - lanes, leases, guard, schedule, log, retention, replay - in the transaction
of the action, and there is one for each caller, step and visit. It is unsigned: there is no secret to share with the
address. Called by the actions; nothing is sent here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mautolib.db.statements import statement

__all__ = ["Call", "queue_calls"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """What is told to whom.

    Args:
        event_type: what the envelope says happened.
        caller: who is told of, as its dedupe key begins: `enrollment`, `rule_run`.
        step: what the dedupe keys say behind `<caller>:<id>`.
        data: JSON-ready values that all of them tell.
    """

    url: str
    event_type: str
    caller: str
    step: str
    data: Mapping[str, Any]


def queue_calls(
    tx: Connection, call: Call, caller_ids: Sequence[int], contact_ids: Sequence[int],
    events: Sequence[Mapping[str, Any]] | None = None, *, now: datetime,
) -> int:  # fmt: skip
    """Queue a delivery for each caller; returns how many were new. The commit wakes the delivery.

    Args:
        caller_ids, contact_ids: parallel; a contact that is not there is told as null.
        events: what let each of them in, in their order; None: the contexts of enrollments.
    """
    if not caller_ids:
        return 0
    tx.execute(statement("webhooks.ensure_address"), {"url": call.url, "now": now})
    values = {
        "url": call.url, "event_type": call.event_type, "caller": call.caller, "step": call.step,
        "data": json.dumps(dict(call.data)), "caller_ids": _numbers(caller_ids), "contact_ids": _numbers(contact_ids),
        "events": None if events is None else [json.dumps(dict(event)) for event in events], "now": now,
    }  # fmt: skip
    made = tx.execute(statement("webhooks.add_calls"), values).rowcount
    tx.execute(statement("webhooks.wake"))
    return made


def _numbers(values: Sequence[int]) -> str:
    """Numbers as an array the database reads; adapting a list costs five times as much."""
    return "{" + ",".join(map(str, values)) + "}"
