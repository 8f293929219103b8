"""The nouns of automation rules: a rule, one run of it, what came of many.

Pure data. `RunStatus` is exactly what the database allows; the words of `Skipped` are those of the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class RunStatus(StrEnum):
    """What became of a rule that was triggered."""

    SUCCESS = "success"
    #: One action failed; the others still ran.
    FAILED = "failed"
    SKIPPED = "skipped"
    #: The actions behind a `wait_delay` are still to come.
    WAITING = "waiting"


class Skipped(StrEnum):
    """Why a rule that was triggered did not run."""

    CONDITIONS = "Conditions not met"
    LIMIT = "Execution limit reached"
    COOLDOWN = "Cooldown active"


@dataclass(frozen=True, kw_only=True)
class NewRule:
    """A rule to make; JSON-ready values as the API takes them."""

    name: str
    trigger_type: str
    description: str = ""
    active: bool = True
    trigger_config: Mapping[str, Any] = field(default_factory=dict)
    conditions: Sequence[Mapping[str, Any]] = ()
    actions: Sequence[Mapping[str, Any]] = ()
    priority: int = 0
    max_executions: int = 0
    cooldown_minutes: int = 0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule as stored.

    Args:
        max_executions: no further run after so many, failed ones included; 0: no limit.
        cooldown_minutes: for one contact; 0: none.
    """

    rule_id: int
    name: str
    description: str
    active: bool
    trigger_type: str
    trigger_config: Mapping[str, Any]
    conditions: Sequence[Mapping[str, Any]]
    actions: Sequence[Mapping[str, Any]]
    priority: int
    max_executions: int
    total_executions: int
    cooldown_minutes: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Log:
    """One run, or why there was none; contact 0 means nobody."""

    log_id: int
    rule_id: int
    contact_id: int
    trigger_type: str
    status: RunStatus
    duration_ms: int
    error: str | None
    actions: Sequence[Mapping[str, Any]]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Stats:
    """How often a rule was triggered, and what came of it."""

    total: int
    success: int
    failed: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Fired:
    """What became of one rule that was fired by hand."""

    rule_id: int
    status: RunStatus


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """What a batch of events did; `waiting` runs are not over."""

    succeeded: int = 0
    failed: int = 0
    waiting: int = 0

    @property
    def executed(self) -> int:
        """How many runs began or ended."""
        return self.succeeded + self.failed + self.waiting
