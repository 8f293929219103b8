"""An opt-out is honoured at once (K9).

Elsewhere: K1, no launch without a postal address, in `tests/integration/test_campaigns.py` (the unsubscribe link is put
in where a template has none); K10, the cap under parallel campaigns, in `tests/integration/test_pacing.py`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tests.builders import make_content, make_message
from tests.tracked import Tracking, path_of, running_tracking, tracking

__all__ = ["running_tracking", "tracking"]



def test_k9_a_request_takes_effect_within_the_second(tracking: Tracking) -> None:
    """What is queued for the person is refused before the answer is there, in every marketing campaign."""
    contact_id = tracking.contact(email="bo@shop.example")
    other = tracking.contact(email="ed@shop.example")
    now = datetime.now(UTC)
    with tracking.engine.begin() as tx:
        content = make_content(tx)
        for kind in ("campaign", "workflow", "automation", "transactional"):
            for person in (contact_id, other):
                make_message(tx, person, status="queued", kind=kind, content_id=content, due_at=now)
    refusals = ("select messages.contact_id, messages.kind, refusal from messages "
                "join message_refusals using (message_id) "
                "order by messages.contact_id, messages.kind")  # fmt: skip
    assert {row.refusal for row in tracking.rows(refusals)} == {None}
    began = time.monotonic()
    assert tracking.client.post(path_of(tracking.links(contact_id).unsubscribe())).status_code == 200
    found = {(row.contact_id, row.kind): row.refusal for row in tracking.rows(refusals)}
    assert time.monotonic() - began < 5
    assert [found[contact_id, kind] is None for kind in ("campaign", "workflow", "automation", "transactional")] == [
        False, False, False, True]  # fmt: skip
    assert {refusal for (person, _), refusal in found.items() if person == other} == {None}
