"""Explain says what planning and sending then do: random people, states and changes, compared with the real thing."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import contacts, segments
from mautolib.campaigns import explaining, launch, planning, preview
from mautolib.campaigns.explaining import Explanation, Outcome
from mautolib.contacts import NewContact, consent
from mautolib.contacts.model import ConsentStatus, SuppressionReason
from mautolib.segments import NewSegment
from mautolib.segments.rules import Definition
from mautolib.settings import Settings
from tests.builders import make_content
from tests.effort import first_and_others
from tests.integration.mailing import NOW, add_campaign, rows, run_pump

_ZONES = ("", "Europe/Berlin", "America/Los_Angeles", "Asia/Tokyo", "Pacific/Auckland")
_WINDOWS: tuple[dict[str, Any], ...] = (
    {}, {}, {"start": "08:00", "end": "20:00"}, {"start": "12:00", "end": "13:00"},
    {"weekdays": [7]}, {"weekdays": [1, 2]}, {"quiet_start": "21:00", "quiet_end": "08:00"},
)  # fmt: skip


def _person(tx: Connection, dice: random.Random, number: int) -> int:
    status = dice.choice([None, ConsentStatus.PENDING, ConsentStatus.WITHDRAWN, *[ConsentStatus.GRANTED] * 6])
    long = "x" * 60 + "@" + ".".join(["y" * 60] * 3) + f".a{number}.example"
    new = NewContact(
        email=long if dice.random() < 0.1 else f"p{number}-{dice.random()}@mail.example",
        first_name="Ann", subscribed=dice.random() > 0.1, timezone=dice.choice(_ZONES),
        language=dice.choice(["en", "de", "de_AT", "fr"]),
    )  # fmt: skip
    if status is not None:
        source = "form" if status is ConsentStatus.GRANTED else None
        new = replace(new, consent_status=status, consent_source=source)
    made = contacts.create(tx, new, actor="test", now=NOW)
    if dice.random() < 0.2:
        reason = dice.choice(list(SuppressionReason))
        consent.suppress(tx, made.email, reason, actor="test", now=NOW)
    return made.contact_id


def _mailed_before(
    tx: Connection, contact_id: int, times: int, content_id: int, when: str = "before"
) -> None:
    for n in range(times):
        tx.execute(
            text("""
                insert into messages (contact_id, kind, content_id, dedupe_key, status, due_at, next_try_at, give_up_at,
                    sent_at, attempt_no)
                values (:id, 'workflow', :content, :key, 'sent', :at, :at, :at, :at, 1)
            """),
            {"id": contact_id, "content": content_id, "key": f"{when}:{contact_id}:{n}", "at": NOW - timedelta(days=1)},
        )


def _changed(tx: Connection, dice: random.Random, contact_id: int, content_id: int) -> None:
    """Something that happens to a person between planning and sending."""
    email = contacts.get(tx, contact_id).email
    match dice.randrange(7):
        case 0:
            consent.unsubscribe(tx, contact_id, source="page", actor="recipient", now=NOW)
        case 1:
            consent.suppress(tx, email, dice.choice(list(SuppressionReason)), actor="test", now=NOW)
        case 2:
            contacts.update(tx, contact_id, {"consent_status": ConsentStatus.WITHDRAWN}, actor="test", now=NOW)
        case 3:
            # Past all verbs, so that only the claim can notice.
            tx.execute(text("update contacts set subscribed = false where contact_id = :id"), {"id": contact_id})
        case 4:
            tx.execute(
                text("update contacts set consent_status = 'unknown' where contact_id = :id"), {"id": contact_id}
            )
        case 5:
            _mailed_before(tx, contact_id, 3, content_id, when="meanwhile")


def _found(engine: Engine, campaign_id: int, contact_id: int) -> tuple[str, str | None] | None:
    found = rows(
        engine, "select status, reason from messages where campaign_id = :campaign and contact_id = :contact",
        campaign=campaign_id, contact=contact_id,
    )  # fmt: skip
    return (found[0].status, found[0].reason) if found else None


def _as_said(said: Explanation, found: tuple[str, str | None] | None, *, open_outcome: Outcome) -> bool:
    """Whether what happened is what was said."""
    if said.outcome is Outcome.NOT_IN_AUDIENCE:
        return found is None
    waits = any(not check.passed for check in said.checks if check.check in ("send_window", "limits", "due", "sending"))
    if said.outcome is Outcome.SKIPPED:
        # Who waits for an opening is skipped when the time has come.
        return found == ("skipped", said.reason) or (waits and found == ("queued", None))
    if said.outcome is not open_outcome or found is None:
        return False
    return found[0] == ("queued" if waits else "sent")


@pytest.mark.parametrize("seed", first_and_others(6))
def test_explain_agrees_with_planning_and_sending(fresh_engine: Engine, settings: Settings, seed: int) -> None:
    dice = random.Random(seed)
    settings = replace(
        settings, require_consent=seed % 2 == 0, frequency_cap=(0, 2)[seed % 3 == 0],
        quiet_hours=dice.choice(["", "", "22:00-07:00"]), default_timezone=dice.choice(["UTC", "Europe/Berlin"]),
    )  # fmt: skip
    with fresh_engine.begin() as tx:
        content_id = make_content(tx)
        people = [_person(tx, dice, number) for number in range(30)]
        segment_id = None
        if dice.random() < 0.7:
            new = NewSegment(name="Some", definition=Definition())
            segment_id = segments.create(tx, settings, new, now=NOW).segment_id
            for contact_id in people[:24]:
                segments.add_contact(tx, settings, segment_id, contact_id, now=NOW)
        for contact_id in people:
            _mailed_before(tx, contact_id, dice.randrange(3), content_id)
        words = {"subject": "Hallo", "html_body": "<p>x</p>"}
        campaign = add_campaign(
            tx, segment_id=segment_id, send_window=dice.choice(_WINDOWS), locales={"de": words} if seed % 2 else {},
            expires_after_hours=48,
        )  # fmt: skip
    before = {one: explaining.explain(fresh_engine, settings, campaign.campaign_id, one, now=NOW) for one in people}
    counts = preview.preview(fresh_engine, settings, campaign.campaign_id, now=NOW).counts
    with fresh_engine.begin() as tx:
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    planning.plan_due(fresh_engine, settings, NOW)
    with fresh_engine.begin() as tx:
        figures = tx.execute(
            text("""
                select count(*) as candidates, count(*) filter (where status = 'queued') as mailable
                from messages where campaign_id = :id
            """),
            {"id": campaign.campaign_id},
        ).one()
        assert (counts.candidates, counts.mailable) == tuple(figures)
        shaken = set(dice.sample(people, 20))
        for one in shaken:
            _changed(tx, dice, one, content_id)
    between = {one: explaining.explain(fresh_engine, settings, campaign.campaign_id, one, now=NOW) for one in people}
    run_pump(fresh_engine, settings)
    for one in people:
        found = _found(fresh_engine, campaign.campaign_id, one)
        assert _as_said(between[one], found, open_outcome=Outcome.QUEUED), (between[one], found)
        if one not in shaken:
            assert _as_said(before[one], found, open_outcome=Outcome.WILL_SEND), (before[one], found)
        after = explaining.explain(fresh_engine, settings, campaign.campaign_id, one, now=NOW)
        expected = {None: Outcome.NOT_IN_AUDIENCE, "sent": Outcome.HANDED_OVER, "skipped": Outcome.SKIPPED,
                    "queued": Outcome.QUEUED}[found[0] if found else None]  # fmt: skip
        waits_to_be_skipped = found == ("queued", None) and between[one].outcome is Outcome.SKIPPED
        assert after.outcome is (Outcome.SKIPPED if waits_to_be_skipped else expected)
