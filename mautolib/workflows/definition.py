"""Reading a definition: a list of steps with branches becomes checked nodes that know what comes after them.

Promise: what `read`, `check_trigger` and `check_entry` accept can run; everything else is refused with the path of
step and key, e.g. `("body", "steps", 1, "then", 0, "hours")`. A node's own path is the text kept in enrollments and
logs (`1.then.0`).
Called when a workflow is saved and when enrollments move. It executes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from mautolib.errors import InvalidInput
from mautolib.webhooks.addresses import PUBLIC, Policy
from mautolib.workflows import triggers
from mautolib.workflows.model import ReEntryPolicy
from mautolib.workflows.steps import ACTION, ACTIONS, STEPS, Step, Webhook
from mautolib.workflows.steps.fields import LONGEST_TYPE, Fields, check_storable

MOST_STEPS: Final = 200
MOST_DEPTH: Final = 10
FIRST: Final = "0"
_MOST_EXITS: Final = 20
_LONGEST_COOLDOWN_HOURS: Final = 87600


@dataclass(frozen=True, kw_only=True)
class Node:
    """A step at its place.

    Args:
        index: the top-level step it belongs to.
        kind: its type as logged.
        after: the path of what follows when no branch is taken; None at the end.
        branches: the first path of each branch that has steps.
    """

    path: str
    index: int
    kind: str
    step: Step
    fields: Fields
    after: str | None
    branches: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """All nodes by path, in the order they are written."""

    nodes: Mapping[str, Node] = field(default_factory=dict)

    def following(self, node: Node, branch: str | None) -> str | None:
        """The path after `node`: the start of the branch, or what comes behind it."""
        return node.branches.get(branch, node.after) if branch else node.after

    def rest(self, node: Node) -> list[Node]:
        """What would have followed `node` on its own level and above."""
        found = []
        path = node.after
        while path is not None:
            found.append(self.nodes[path])
            path = self.nodes[path].after
        return found

    def check(self, tx: Connection, *, starting: bool, policy: Policy = PUBLIC) -> None:
        """See that everything the steps refer to exists and, with `starting`, can be used now.

        Args:
            policy: whom the steps may call.
        Raises:
            InvalidInput: names step and key.
        """
        for node in self.nodes.values():
            node.step.check(tx, node.fields, starting=starting)
            if isinstance(node.step, Webhook):
                node.step.check_url(node.fields, policy)


def read(steps: object) -> Definition:
    """Read the steps of a workflow.

    Raises:
        InvalidInput: with the path of the step and key that cannot be accepted.
    """
    check_storable(steps, ("body", "steps"))
    nodes: dict[str, Node] = {}
    _read_list(steps, ("body", "steps"), "", None, 1, nodes)
    return Definition(nodes=nodes)


def _read_list(
    steps: object, at: tuple[str | int, ...], prefix: str, behind: str | None, depth: int, nodes: dict[str, Node]
) -> str | None:
    """Read one list of steps into `nodes`; returns the path of its first step, or `behind` when it is empty."""
    if not isinstance(steps, Sequence) or isinstance(steps, str | bytes):
        raise InvalidInput("Steps must be a list", path=at)
    if depth > MOST_DEPTH:
        raise InvalidInput(f"Steps are nested more than {MOST_DEPTH} deep", path=at)
    for number, raw in enumerate(steps):
        after = f"{prefix}{number + 1}" if number + 1 < len(steps) else behind
        _read_node(Fields(raw, (*at, number)), f"{prefix}{number}", after, depth, nodes)
    return f"{prefix}0" if steps else behind


def _read_node(fields: Fields, path: str, after: str | None, depth: int, nodes: dict[str, Node]) -> None:
    if len(nodes) >= MOST_STEPS:
        raise fields.error("", f"A workflow has at most {MOST_STEPS} steps")
    kind, step_class = _class_of(fields)
    step = step_class.read(fields)
    branches: dict[str, str] = {}
    fields.finish(*step_class.branches)
    index = int(path.split(".", 1)[0])
    nodes[path] = Node(
        path=path, index=index, kind=kind, step=step, fields=fields, after=after, branches=branches
    )
    for name in step_class.branches:
        if fields.has(name):
            first = _read_list(
                fields.any(name), (*fields.path, name), f"{path}.{name}.", after, depth + 1, nodes
            )
            if first is not None and first != after:
                branches[name] = first


def _class_of(fields: Fields) -> tuple[str, type[Step]]:
    kind = fields.choice("type", (*STEPS, ACTION), default=ACTION)
    if kind != ACTION:
        return kind, STEPS[kind]
    return kind, ACTIONS[fields.choice("action", tuple(ACTIONS))]


def check_trigger(trigger_type: object, config: object, *, active: bool, tx: Connection | None = None) -> None:
    """See that a trigger can fire; an incomplete one is accepted until the workflow is to be active.

    Args:
        tx: also look up what it refers to.
    Raises:
        InvalidInput: names the key.
    """
    trigger, fields = triggers.read(trigger_type, config, active=active)
    check_storable(config, fields.path)
    if tx is not None:
        trigger.check(tx, fields)


def check_entry(re_entry: object, exit_on: object) -> None:
    """See that the re-entry policy and the event types that end an enrollment are sound.

    Raises:
        InvalidInput: names the key.
    """
    fields = Fields(re_entry, ("body", "re_entry"))
    policy = fields.choice("policy", tuple(ReEntryPolicy), default=ReEntryPolicy.AFTER_EXIT)
    if policy == ReEntryPolicy.COOLDOWN:
        fields.number("cooldown_hours", above=0, most=_LONGEST_COOLDOWN_HOURS)
    else:
        fields.any("cooldown_hours", None)
    fields.finish()
    if not isinstance(exit_on, Sequence) or isinstance(exit_on, str | bytes) or len(exit_on) > _MOST_EXITS:
        raise InvalidInput(f"'exit_on' must be a list of at most {_MOST_EXITS} event types", path=("body", "exit_on"))
    for number, event_type in enumerate(exit_on):
        if not isinstance(event_type, str) or not 0 < len(event_type) <= LONGEST_TYPE:
            message = f"An event type has 1 to {LONGEST_TYPE} characters"
            raise InvalidInput(message, path=("body", "exit_on", number))
    check_storable(re_entry, fields.path)
    check_storable(exit_on, ("body", "exit_on"))

