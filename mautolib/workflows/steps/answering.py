"""What actions answer whose members fare differently: one outcome for each reason.

Used by the actions that change contacts. It runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mautolib.workflows.model import LogStatus
from mautolib.workflows.steps.step import NO_CONTACT, Members, Outcome, Visit


def answered(visit: Visit, reasons: Mapping[int, str | None], shown: Mapping[str, Any]) -> list[Outcome]:
    """The outcomes of an action by contact: None succeeded, a text is why not, who is missing is no contact.

    Args:
        shown: what every result shows: `action` and its keys.
    """
    parts: dict[str | None, tuple[list[int], list[int]]] = {}
    for enrollment_id, contact_id in zip(visit.members.enrollment_ids, visit.members.contact_ids, strict=True):
        ids, people = parts.setdefault(reasons.get(contact_id, NO_CONTACT), ([], []))
        ids.append(enrollment_id)
        people.append(contact_id)
    return [
        Outcome(members=Members(*members), result={"success": True, **shown})
        if reason is None
        else Outcome(
            members=Members(*members), status=LogStatus.FAILED, result={"success": False, **shown, "error": reason}
        )
        for reason, members in parts.items()
    ]
