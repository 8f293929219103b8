"""Ready-made workflows: definitions to create, change and learn from. Pure data; nothing is stored here."""

from __future__ import annotations

from mautolib.workflows.model import NewWorkflow, ReEntryPolicy, TriggerType


def welcome_series(
    welcome_template_id: int,
    follow_up_template_id: int,
    *,
    delay_hours: float = 72,
    source: str | None = None,
    active: bool = True,
    name: str = "Welcome series",
) -> NewWorkflow:
    """A mail at sign-up, a pause, a second mail; once per person.

    Args:
        source: only contacts that came by this door (`contacts.source`); None: by any.
    """
    return NewWorkflow(
        name=name,
        trigger_type=TriggerType.SIGNUP,
        trigger_config={} if source is None else {"source": source},
        steps=(
            {"type": "action", "action": "send_email", "template_id": str(welcome_template_id), "name": "Welcome"},
            {"type": "delay", "hours": delay_hours},
            {"type": "action", "action": "send_email", "template_id": str(follow_up_template_id), "name": "Follow-up"},
            {"type": "action", "action": "tag", "tag_name": "welcomed"},
        ),
        active=active,
        re_entry={"policy": str(ReEntryPolicy.ONCE)},
    )
