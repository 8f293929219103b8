"""Segments: who belongs to an audience, decided by rules that one interpreter compiles to SQL.

`segments.create/get/search/count/change/remove` are the verbs on a segment, `add_contact` and `remove_contact` those
on one member (`add_contacts` and `remove_contacts`: on many); `evaluate_due` brings members up to date, `members_at`
knows the past. `audience` is the query a campaign freezes at its launch.
"""

from mautolib.segments.counting import figures, overlap, sample
from mautolib.segments.membership import (
    add_contact,
    add_contacts,
    audience,
    count_due,
    evaluate,
    evaluate_due,
    members_at,
    remove_contact,
    remove_contacts,
    request,
)
from mautolib.segments.model import EvaluationStatus, Figures, NewSegment, Overlap, Segment
from mautolib.segments.setting import load
from mautolib.segments.store import change, checked, count, create, get, remove, search

__all__ = ["EvaluationStatus", "Figures", "NewSegment", "Overlap", "Segment", "add_contact", "add_contacts", "audience",
           "change", "checked", "count", "count_due", "create", "evaluate", "evaluate_due", "figures", "get", "load",
           "members_at", "overlap", "remove", "remove_contact", "remove_contacts", "request", "sample",
           "search"]  # fmt: skip
