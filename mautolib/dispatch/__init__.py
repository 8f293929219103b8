"""Dispatch: every new event takes effect exactly once, in the order things happened to a person.

`run` works off `event_pending`, `rehearse` says what it would do; what an event does is in `effects`. The appender of
an event never runs its effects itself, so appending stays fast and an effect that fails loses nothing.
"""

from mautolib.dispatch.buckets import DispatchResult, rehearse, run

__all__ = ["DispatchResult", "rehearse", "run"]
