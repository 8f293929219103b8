"""Reading a rule: its conditions and actions become checked ones; what cannot run is refused with its path.

Promise: what `read` accepts can run. The comparisons themselves are functions of the database
(`automation_conditions_hold`): an event is tested there, and so is what is fired by hand. Called when a rule is saved
and when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from mautolib.automations.actions import ACTIONS, WaitDelay
from mautolib.errors import InvalidInput
from mautolib.webhooks.addresses import Policy
from mautolib.workflows.steps import Step, Webhook
from mautolib.workflows.steps.fields import Fields

OPERATORS: Final = ("eq", "neq", "gt", "gte", "lt", "lte", "contains", "in", "is_set", "not_set")
MOST_CONDITIONS: Final = 100
MOST_ACTIONS: Final = 50
#: What `automation_contact_fact` knows, beside custom fields.
CONTACT_FIELDS: Final = frozenset({
    "email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency", "subscribed",
    "consent_status", "consent_source", "source", "created_at", "score", "grade", "lifecycle_stage", "tags",
})  # fmt: skip
_WITHOUT_VALUE: Final = frozenset({"is_set", "not_set"})
_ORDERED: Final = frozenset({"gt", "gte", "lt", "lte"})
_LONGEST_FIELD: Final = 200
_MOST_VALUES: Final = 1000
#: No template has it. An id that nothing can have is as good as one that nothing has: it fails when it is run.
_NO_TEMPLATE: Final = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Action:
    """One action at its place; `name` is its type as logged."""

    name: str
    step: Step | WaitDelay
    fields: Fields
    #: A template that is gone fails the action when it runs, and does not keep the rule from being saved.
    may_refer_to_nothing: bool = False


def read(conditions: object, actions: object) -> tuple[Action, ...]:
    """Check conditions and actions; returns the actions.

    Raises:
        InvalidInput: with the path of the key that cannot be accepted.
    """
    for number, raw in enumerate(_listed(conditions, "conditions", MOST_CONDITIONS)):
        _check_condition(Fields(raw, ("body", "conditions", number)))
    return read_actions(actions)


def read_actions(actions: object) -> tuple[Action, ...]:
    """Read the actions alone, as they are needed to run.

    Raises:
        InvalidInput: with the path of the key that cannot be accepted.
    """
    return tuple(
        _read_action(Fields(raw, ("body", "actions", number)))
        for number, raw in enumerate(_listed(actions, "actions", MOST_ACTIONS))
    )


def check_references(tx: Connection, actions: Sequence[Action], policy: Policy) -> None:
    """See that what the actions refer to exists, and may be called; templates may come later.

    Raises:
        InvalidInput: names the action and its key.
    """
    for action in actions:
        if not isinstance(action.step, WaitDelay) and not action.may_refer_to_nothing:
            action.step.check(tx, action.fields, starting=False)
        if isinstance(action.step, Webhook):
            action.step.check_url(action.fields, policy)


def asks_contact(conditions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether checked conditions may be about the contact, where the data say nothing."""
    fields = [str(condition.get("field")) for condition in conditions]
    return any(field in CONTACT_FIELDS or field.startswith("custom_fields.") for field in fields)


def _listed(value: object, name: str, most: int) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidInput(f"'{name}' must be a list", path=("body", name))
    if len(value) > most:
        raise InvalidInput(f"A rule has at most {most} {name}", path=("body", name))
    return value


def _check_condition(fields: Fields) -> None:
    fields.text("field", most=_LONGEST_FIELD)
    operator = fields.choice("operator", OPERATORS, default="eq")
    value = fields.any("value", None)
    fields.finish()
    if operator in _WITHOUT_VALUE:
        return
    if operator == "in":
        if not isinstance(value, list) or not 0 < len(value) <= _MOST_VALUES:
            raise fields.error("value", f"'in' needs a list of 1 to {_MOST_VALUES} values")
    elif value is None:
        raise fields.error("value", f"'{operator}' needs a value")
    elif operator in _ORDERED and (isinstance(value, bool) or not isinstance(value, str | int | float)):
        raise fields.error("value", f"'{operator}' needs a number or text")
    elif operator == "contains" and isinstance(value, list | dict):
        raise fields.error("value", "'contains' needs one text, number or true/false")


def _read_action(fields: Fields) -> Action:
    name = fields.choice("type", tuple(ACTIONS))
    given = fields.any("config", {})
    fields.finish()
    config = Fields(given, (*fields.path, "config"))
    is_by_template = name == "send_email" and config.has("template_id")
    if is_by_template:
        config = Fields(_with_some_template(given), config.path)
    step = ACTIONS[name].read(config)
    config.finish()
    return Action(name=name, step=step, fields=config, may_refer_to_nothing=is_by_template)


def _with_some_template(given: Any) -> Mapping[str, Any]:
    template_id = given["template_id"]
    is_id = isinstance(template_id, str) and template_id.isascii() and template_id.isdigit() and len(template_id) < 19
    if isinstance(template_id, str) and template_id and not (is_id and int(template_id)):
        return {**given, "template_id": _NO_TEMPLATE}
    return dict(given)
