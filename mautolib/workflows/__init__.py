"""Workflows: what happens to a person step by step after something happened.

`create`, `update`, `activate`, `deactivate`, `remove`, `get` and `search` are the verbs on a workflow; `take_events`
(dispatch), `arrive` (by the clock) and `trigger` (by hand) let people enter; `advance` moves whoever is due; `reading`
and `control` look at single enrollments and take them by the hand. A step performs no I/O: it queues messages and
changes rows, so moving can be repeated for ever.
"""

from mautolib.workflows.advancement import AdvanceResult, advance, next_due
from mautolib.workflows.arrivals import Arrived, arrive
from mautolib.workflows.enrollment import EntryResult, Triggered, take_events, trigger
from mautolib.workflows.model import Enrollment, NewWorkflow, Workflow
from mautolib.workflows.rehearsal import Rehearsal, rehearse
from mautolib.workflows.store import activate, count, create, deactivate, get, remove, search, update

__all__ = [
    "AdvanceResult", "Arrived", "Enrollment", "EntryResult", "NewWorkflow", "Rehearsal", "Triggered", "Workflow",
    "activate", "advance", "arrive", "count", "create", "deactivate", "get", "next_due", "rehearse", "remove", "search",
    "take_events", "trigger", "update",
]  # fmt: skip
