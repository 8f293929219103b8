"""Automation rules: what happens at once when something happened, if conditions hold.

`create`, `update`, `remove`, `get` and `search` are the verbs on a rule; `take_events` (dispatch) and `fire` (by hand)
run rules, `resume` lets runs go on that wait. What a rule can do is what a step of a workflow can do, and a little
more. Actions perform no I/O: they change rows and queue messages.
"""

from mautolib.automations.model import Fired, Log, NewRule, Rule, RuleResult, RunStatus, Skipped, Stats
from mautolib.automations.store import count, count_logs, create, get, logs, remove, search, stats, update
from mautolib.automations.triggering import fire, take_events
from mautolib.automations.waiting import next_due, resume

__all__ = ["Fired", "Log", "NewRule", "Rule", "RuleResult", "RunStatus", "Skipped", "Stats", "count", "count_logs",
           "create", "fire", "get", "logs", "next_due", "remove", "resume", "search", "stats", "take_events",
           "update"]  # fmt: skip
