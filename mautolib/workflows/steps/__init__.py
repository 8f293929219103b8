"""The step types: one file each, one line each here. What is not listed is refused when a workflow is saved.

`STEPS` are known by `type`; a step of type `action` (the default) is known by its `action` in `ACTIONS`. Every entry
passes the contract suite in tests/contracts/test_steps.py.
"""

from __future__ import annotations

from typing import Final

from mautolib.workflows.steps.add_to_segment import AddToSegment
from mautolib.workflows.steps.condition import Condition
from mautolib.workflows.steps.delay import Delay
from mautolib.workflows.steps.exit import Exit
from mautolib.workflows.steps.goal import Goal
from mautolib.workflows.steps.remove_from_segment import RemoveFromSegment
from mautolib.workflows.steps.remove_tag import RemoveTag
from mautolib.workflows.steps.send_email import SendEmail
from mautolib.workflows.steps.step import Step
from mautolib.workflows.steps.subscribe import Subscribe
from mautolib.workflows.steps.tag import Tag
from mautolib.workflows.steps.unsubscribe import Unsubscribe
from mautolib.workflows.steps.update_field import UpdateField
from mautolib.workflows.steps.update_score import UpdateScore
from mautolib.workflows.steps.wait_for_event import WaitForEvent
from mautolib.workflows.steps.webhook import Webhook

ACTION: Final = "action"
STEPS: Final[dict[str, type[Step]]] = {
    "condition": Condition,
    "delay": Delay,
    "exit": Exit,
    "goal": Goal,
    "wait_for_event": WaitForEvent,
}
ACTIONS: Final[dict[str, type[Step]]] = {
    "add_to_segment": AddToSegment,
    "remove_from_segment": RemoveFromSegment,
    "remove_tag": RemoveTag,
    "send_email": SendEmail,
    "subscribe": Subscribe,
    "tag": Tag,
    "unsubscribe": Unsubscribe,
    "update_field": UpdateField,
    "update_score": UpdateScore,
    "webhook": Webhook,
}

__all__ = ["ACTION", "ACTIONS", "STEPS", "Step", "Webhook"]
