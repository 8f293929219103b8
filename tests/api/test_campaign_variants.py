"""The words of a variant before they are sent: preview, test mail, and the schedule that arms a test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from mautolib.campaigns import experiment_control, experiments
from mautolib.campaigns.experiment_model import AbTest, NewAbTest, NewVariant
from tests.api.test_campaign_life import CAMPAIGNS, campaign, people, person, planned
from tests.api.test_schedules import SCHEDULES, SEND_AT
from tests.live_service import LiveService

VARIANTS = (
    NewVariant(name="Plain"),
    NewVariant(name="Loud", subject="SALE {{ contact.first_name }}", html_body="<p>All must go</p>",
               locales={"de": {"subject": "AUSVERKAUF"}}),
)  # fmt: skip


def drafted(service: LiveService, campaign_id: str, **changes: Any) -> AbTest:
    now = datetime.now(UTC)
    new = NewAbTest(campaign_id=int(campaign_id), name="Which", variants=VARIANTS, **changes)
    with service.engine.begin() as tx:
        return experiments.create(tx, service.settings, new, actor="test", now=now)


def test_a_preview_shows_a_variant(service: LiveService, editor: httpx.Client, viewer: httpx.Client) -> None:
    made = campaign(editor)
    plain, loud = (str(each.variant_id) for each in drafted(service, made["id"]).variants)
    own = viewer.get(f"{CAMPAIGNS}{made['id']}/preview").json()["rendered"]
    assert viewer.get(f"{CAMPAIGNS}{made['id']}/preview", params={"variant_id": plain}).json()["rendered"] == own
    shown = viewer.get(f"{CAMPAIGNS}{made['id']}/preview", params={"variant_id": loud}).json()["rendered"]
    assert shown["subject"] == "SALE" and "All must go" in shown["html_body"] and "All must go" in shown["text_body"]
    german = viewer.get(f"{CAMPAIGNS}{made['id']}/preview", params={"variant_id": loud, "locale": "de"}).json()
    assert german["rendered"]["subject"] == "AUSVERKAUF"


def test_a_test_mail_is_of_a_variant(service: LiveService, editor: httpx.Client) -> None:
    made = campaign(editor)
    loud = str(drafted(service, made["id"]).variants[1].variant_id)
    body = {"addresses": ["team@shop.example"], "variant_id": loud}
    answer = editor.post(f"{CAMPAIGNS}{made['id']}/test", json=body)
    assert answer.status_code == 202, answer.text
    message = editor.get(f"/api/v1/messages/{answer.json()['message_ids'][0]}").json()
    assert (message["subject"], message["variant_id"]) == ("SALE {{ contact.first_name }}", loud)


@pytest.mark.parametrize("variant", ["999999999", "0", "x"])
def test_an_unknown_variant_is_named(service: LiveService, editor: httpx.Client, variant: str) -> None:
    made, other = campaign(editor), campaign(editor)
    foreign = str(drafted(service, other["id"]).variants[1].variant_id)
    for given in (variant, foreign):
        answer = editor.get(f"{CAMPAIGNS}{made['id']}/preview", params={"variant_id": given})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "variant_id"])
        body = {"addresses": ["team@shop.example"], "variant_id": given}
        answer = editor.post(f"{CAMPAIGNS}{made['id']}/test", json=body)
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "variant_id"])


def test_messages_are_found_by_variant(service: LiveService, editor: httpx.Client) -> None:
    made = campaign(editor, segment_id=people(editor, *(person(editor) for _ in range(16))))
    test = drafted(service, made["id"], test_percentage=50)
    with service.engine.begin() as tx:
        experiment_control.start(tx, service.settings, test.test_id, now=datetime.now(UTC))
    planned(service, editor, made["id"])
    path = f"{CAMPAIGNS}{made['id']}/messages"
    found = editor.get(path, params={"limit": 100}).json()
    by_variant = [editor.get(path, params={"variant_id": str(each.variant_id), "limit": 100}).json()
                  for each in test.variants]  # fmt: skip
    assert {one["id"] for part in by_variant for one in part} == {one["id"] for one in found if one["variant_id"]}
    with service.engine.connect() as tx:
        query = "select count(*) from messages where campaign_id = :id and ab_part is not null"
        assert tx.scalar(text(query), {"id": int(made["id"])}) == len(found)


def test_a_schedule_names_a_test_of_its_campaign(service: LiveService, editor: httpx.Client) -> None:
    made, other = campaign(editor), campaign(editor)
    own, foreign = drafted(service, made["id"]).test_id, drafted(service, other["id"]).test_id
    body = {"campaign_id": made["id"], "send_at": SEND_AT, "auto_pick_winner": True, "winner_wait_hours": 6}
    refused = editor.post(SCHEDULES, json={**body, "ab_test_id": str(foreign)})
    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "ab_test_id"])
    kept = editor.post(SCHEDULES, json={**body, "ab_test_id": str(own)})
    assert (kept.status_code, kept.json()["ab_test_id"]) == (201, str(own)), kept.text
    path = f"{SCHEDULES}{kept.json()['id']}"
    assert editor.patch(path, json={"ab_test_id": str(foreign)}).status_code == 422
    assert editor.patch(path, json={"ab_test_id": None}).json()["ab_test_id"] is None
    assert editor.patch(path, json={"ab_test_id": str(own)}).json()["ab_test_id"] == str(own)
