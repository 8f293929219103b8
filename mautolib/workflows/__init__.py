"""Workflows: what happens to a person step by step after something happened.

`create`, `update`, `activate`, `deactivate`, `get` and `search` are the verbs on a workflow; `take_events` (dispatch)
and `trigger` (by hand) let people enter; `advance` moves whoever is due. A step performs no I/O: it queues messages
and changes rows, so moving can be repeated for ever.
"""

from mautolib.workflows.advancement import AdvanceResult, advance, next_due
from mautolib.workflows.enrollment import EntryResult, Triggered, take_events, trigger
from mautolib.workflows.model import Enrollment, NewWorkflow, Workflow
from mautolib.workflows.store import activate, create, deactivate, get, search, update

__all__ = ["AdvanceResult", "Enrollment", "EntryResult", "NewWorkflow", "Triggered", "Workflow", "activate", "advance",
           "create", "deactivate", "get", "next_due", "search", "take_events", "trigger", "update"]  # fmt: skip
