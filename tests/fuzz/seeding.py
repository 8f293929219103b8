"""A service that has been in use: some of everything the API can make, and what background work makes of it."""

from __future__ import annotations

from datetime import UTC, datetime

from mautolib.campaigns import finishing, planning, sending
from mautolib.channels.null import Null
from mautolib.contacts import imports
from tests.fuzz.objects import CSV, Objects

_EACH = 5
_REJECTED = b"email,first_name\nno-at-sign,Lea\nmia-of-the-seed@shop.example,Mia\n"


def seed(objects: Objects) -> dict[str, int]:
    """Make some of every kind of thing; returns how many of each."""
    made = {}
    for place in objects.served_makers():
        for _ in range(_EACH):
            objects.make(place)
        made[place.removeprefix("/api/v1")] = _EACH
    answer = objects.admin.post("/api/v1/contacts/import", content=_REJECTED, headers={"Content-Type": CSV})
    service = objects.service
    imports.run(service.engine, service.settings, int(answer.json()["import_id"]), now=datetime.now(UTC))
    made["finished imports"] = 1
    sent = objects.sending_campaign()
    _send(objects)
    made["sent campaigns"] = 1
    assert objects.admin.get(f"/api/v1/campaigns/{sent}").json()["total_sent"] > 0
    return made


def _send(objects: Objects) -> None:
    """Plan, hand over to a channel that takes everything, and close."""
    service, now = objects.service, datetime.now(UTC)
    planning.plan_due(service.engine, service.settings, now)
    channel = Null({})
    sending.pump(service.engine, service.settings, now=now, open_way=lambda _: channel, group_size=50)
    finishing.finish(service.engine, datetime.now(UTC))
