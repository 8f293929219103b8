"""What the law asks of a campaign: a postal address and a way out (K1), an opt-out honoured at once (K9).

Elsewhere: K10, the cap and the quiet hours under parallel campaigns, in `tests/integration/test_pacing.py`; nobody
mailed who left more than a second before, in `tests/integration/test_opt_outs_while_sending.py`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default

import pytest
from sqlalchemy import Connection, Engine

from mautolib.campaigns import launch, store
from mautolib.campaigns.model import Status
from mautolib.campaigns.readiness import problems
from mautolib.channels.null import Null
from mautolib.errors import InvalidInput
from mautolib.settings import Settings
from tests.builders import make_content, make_message
from tests.integration.mailing import NOW, add_campaign, launched, run_pump
from tests.tracked import Tracking, path_of, running_tracking, tracking

__all__ = ["running_tracking", "tracking"]


@pytest.mark.parametrize("address", ["", "  ", "\n"])
def test_k1_nothing_is_launched_without_a_postal_address(tx: Connection, settings: Settings, address: str) -> None:
    campaign = add_campaign(tx)
    without = replace(settings, postal_address=address)
    for ask in (
        lambda: launch.request_send(tx, without, campaign.campaign_id, now=NOW),
        lambda: launch.schedule(tx, without, campaign.campaign_id, at=NOW.replace(year=2027), now=NOW),
    ):
        with pytest.raises(InvalidInput, match="MAUTO_POSTAL_ADDRESS is not set") as caught:
            ask()
        assert caught.value.code == "not_sendable"
    assert store.get(tx, campaign.campaign_id).status is Status.DRAFT


@pytest.mark.parametrize(
    "html",
    [
        "<p>No way out</p>", "<p><a href='{{ unsubscribe_url }}'>Leave</a></p>", "No tags at all",
        "<html><body><p>x</p></body></html>", "{% if false %}<a href='{{ unsubscribe_url }}'>Leave</a>{% endif %}",
        "<!-- {{ unsubscribe_url }} --><p>x</p>", "{# {{ unsubscribe_url }} #}<p>x</p>",
        "{% set u = unsubscribe_url %}x", "{% for n in range(0) %}{{ unsubscribe_url }}{% endfor %}<p>x</p>",
        "<!-- Example Shop, 1 High Street, Berlin --><p>x</p>",
        "{% if unsubscribe_url %}<a href='{{ unsubscribe_url }}'>Leave</a>{% endif %}",
    ],
)  # fmt: skip
def test_k1_every_marketing_mail_shows_the_address_and_a_way_out(
    fresh_engine: Engine, settings: Settings, html: str
) -> None:
    launched(fresh_engine, settings, 1, html_body=html)
    channel = Null()
    assert run_pump(fresh_engine, settings, channel).counts == {"sent": 1}
    mail = message_from_bytes(channel.accepted[0].data, policy=default)
    for kind in ("html", "plain"):
        part = mail.get_body((kind,))
        assert part is not None
        shown = part.get_content()
        assert settings.postal_address in shown and "/track/unsubscribe/" in shown, kind
    assert "/track/unsubscribe/" in mail["List-Unsubscribe"]


@pytest.mark.parametrize(
    "html",
    ["<p>x</p><!-- and", "<!--<p>x</p>", "<p>x</p><!--[if mso]><p>y</p>", "<p>x</p><style>p { color: red",
     "<p>x</p><script>1", "<p>x</p><title>y", "<p>x</p><textarea>", "<p>x</p><textarea>y</p>",
     "<p>x</p><a href='https://shop.example", "<p>x</p><b"],
)  # fmt: skip
def test_k1_nothing_that_would_hide_them_is_launched(tx: Connection, settings: Settings, html: str) -> None:
    (problem,) = problems(tx, settings, add_campaign(tx, html_body=html))
    assert "is never closed" in problem.message and problem.path[0] == "html_body"


@pytest.mark.parametrize(
    "html", ["<!--[if mso]><p>y</p><![endif]--><p>x</p>", "<!--[if !mso]><!--><p>x</p><!--<![endif]-->", "<!-- y -->x",
             "<!---->x<!-->", "<style>p{}</style>", "<p>1 < 2</p>", "a > b", "<br/>"],
)  # fmt: skip
def test_k1_what_is_closed_is_no_problem(tx: Connection, settings: Settings, html: str) -> None:
    assert problems(tx, settings, add_campaign(tx, html_body=html)) == []


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
