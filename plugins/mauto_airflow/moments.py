"""Which moment a DAG run is about: the one rule of `as_of`, so that a re-run for a past day gives its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

from mautolib.errors import InvalidInput


def as_of(context: Mapping[str, Any]) -> datetime:
    """The moment this run computes for.

    The `as_of` param, else midnight UTC at the end of the run's data interval, else the `as_of` of the asset
    event that started it, else when the run was due.

    Raises:
        InvalidInput: the param is not a date and time with an offset.
    """
    given = context["params"].get("as_of")
    if given:
        return moment("as_of", given)
    run = context["dag_run"]
    interval_end = getattr(run, "data_interval_end", None)
    if interval_end is not None and run.data_interval_start != interval_end:
        return datetime.combine(interval_end.astimezone(UTC).date(), time(), UTC)
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            if event.extra and event.extra.get("as_of"):
                return moment("as_of", event.extra["as_of"])
    return instant(run.run_after)


def is_past(context: Mapping[str, Any]) -> bool:
    """Whether this run recomputes the past (a backfill, or an `as_of` somebody gave): snapshots only."""
    # An enum whose text is its name in the task and its value elsewhere; it equals its value everywhere.
    return bool(context["dag_run"].run_type == "backfill" or context["params"].get("as_of"))


def is_asked_for_by_asset(context: Mapping[str, Any]) -> bool:
    """Whether an asset started this run, not the clock and nobody by hand."""
    return bool(context["dag_run"].run_type == "asset_triggered")


def moment(name: str, text: str) -> datetime:
    """Read an RFC 3339 date and time; a bare date is midnight UTC.

    Raises:
        InvalidInput: cannot be read, or has a time but no offset.
    """
    try:
        if len(text) == 10:
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{name}: {text!r} is not a date and time like 2026-11-22T00:00:00Z", path=(name,)) from None
    if parsed.tzinfo is None:
        raise InvalidInput(f"{name}: {text!r} has no offset; write 2026-11-22T00:00:00Z", path=(name,))
    return parsed.astimezone(UTC)


def instant(value: Any) -> datetime:
    """A plain UTC datetime from whatever kind Airflow hands over."""
    return datetime.fromtimestamp(value.timestamp(), UTC)


def now() -> datetime:
    """The clock of this face."""
    return datetime.now(UTC)
