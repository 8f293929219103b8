"""Housekeeping of the warehouse, and the signs of life of what runs in the background.

`run` does what must be done regularly and is safe to repeat, overlap or kill; `heartbeat` is written by every
background component and read by /ready. `watch` finds what is stuck or late, `alerts` tells an operator. Nothing here
changes what a person sees or gets.
"""

from mautolib.maintenance.heartbeats import heartbeat
from mautolib.maintenance.tasks import Task, run
from mautolib.maintenance.watch import Finding, mend

__all__ = ["Finding", "Task", "heartbeat", "mend", "run"]
