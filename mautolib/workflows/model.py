"""The nouns of workflows: a workflow, an enrollment, their states and policies.

Pure data. What a step does is in `steps/`, how a definition is read is in `definition`. `EnrollmentStatus` and
`LogStatus` are exactly what the database allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class TriggerType(StrEnum):
    """What starts a workflow by itself, or that nothing does."""

    SIGNUP = "signup"
    TAG_ADDED = "tag_added"
    SEGMENT_ENTERED = "segment_entered"
    EVENT = "event"
    CART_ABANDONED = "cart_abandoned"
    DATE = "date"
    ANNIVERSARY = "anniversary"
    MANUAL = "manual"
    WEBHOOK = "webhook"


class ReEntryPolicy(StrEnum):
    """When a person who was in a workflow before may enter it again."""

    ALWAYS = "always"
    ONCE = "once"
    AFTER_EXIT = "after_exit"
    COOLDOWN = "cooldown"


class EnrollmentStatus(StrEnum):
    """Where an enrollment stands; `running` and `waiting` ones move when `resume_at` has come."""

    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    EXITED = "exited"
    FAILED = "failed"


class LogStatus(StrEnum):
    """What became of one visit of a step."""

    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


def _after_exit() -> dict[str, Any]:
    return {"policy": str(ReEntryPolicy.AFTER_EXIT)}


@dataclass(frozen=True, kw_only=True)
class NewWorkflow:
    """A workflow to create; JSON-ready values as the API takes them."""

    name: str
    trigger_type: str = TriggerType.MANUAL
    trigger_config: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    active: bool = False
    re_entry: Mapping[str, Any] = field(default_factory=_after_exit)
    exit_on: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A workflow as stored; `version` counts changes of trigger and steps, `revision` every edit."""

    workflow_id: int
    name: str
    trigger_type: str
    trigger_config: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    active: bool
    re_entry: Mapping[str, Any]
    exit_on: Sequence[str]
    version: int
    revision: int
    created_at: datetime
    updated_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a workflow; `active_enrollments`: who is on it and has not ended."""

    version: int
    trigger_type: str
    trigger_config: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    active_enrollments: int
    created_by: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Enrollment:
    """One person's way through one version of a workflow; contact 0 means nobody."""

    enrollment_id: int
    workflow_id: int
    version: int
    contact_id: int
    status: EnrollmentStatus
    step_path: str
    resume_at: datetime | None
    waiting_for: str | None = None
    context: Mapping[str, Any]
    exit_reason: str | None
    entered_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Log:
    """One visit of a step; contact 0 means nobody."""

    log_id: int
    workflow_id: int
    enrollment_id: int
    contact_id: int
    step_path: str
    step_index: int
    status: LogStatus
    result: Mapping[str, Any]
    created_at: datetime
