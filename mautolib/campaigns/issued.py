"""The signed links of one message, shown to people who look into what somebody was sent.

Promise: the links work like those in the mail, which differ only in the moment they carry. Where a mail has no links
of a kind there is none here; the link that answers a double opt-in is never shown, for it is the person's own word.
Called by the API for editors.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from mautolib.campaigns.building import with_utm
from mautolib.db import tables
from mautolib.events.links import LinkSigner, Owner, is_web_url
from mautolib.ledger import content
from mautolib.ledger.model import Kind
from mautolib.ledger.reading import Message
from mautolib.settings import Settings


@dataclass(frozen=True, kw_only=True)
class SignedLink:
    """A link of the mail: where it leads, and its tracked address."""

    url: str
    tracked_url: str


@dataclass(frozen=True, kw_only=True)
class IssuedLinks:
    """The links of one message; None where its mail has none of that kind."""

    open: str | None
    unsubscribe: str
    preferences: str
    clicks: tuple[SignedLink, ...]


def links_of(tx: Connection, settings: Settings, message: Message) -> IssuedLinks | None:
    """The links of `message`; None for one to nobody we know, and for a confirmation."""
    if message.contact_id is None or message.kind in (Kind.CONFIRMATION, Kind.INTERNAL):
        return None
    m = tables.messages.c
    found = tx.execute(
        select(m.content_id).where(m.contact_id == message.contact_id, m.message_id == message.message_id)
    ).scalar_one()
    frozen = content.load(tx, found)
    links = LinkSigner.from_settings(settings).for_message(
        owner=Owner.of(campaign_id=frozen.campaign_id, workflow_id=frozen.workflow_id),
        contact_id=message.contact_id, message_id=message.message_id, made_at=message.sent_at or message.queued_at,
    )  # fmt: skip
    targets = [(with_utm(url, frozen.utm), position) for position, url in enumerate(frozen.links)]
    clicks = tuple(
        SignedLink(url=url, tracked_url=links.click(url, position=position))
        for url, position in targets if frozen.track_clicks and is_web_url(url)
    )  # fmt: skip
    return IssuedLinks(
        open=links.open() if frozen.track_opens else None, unsubscribe=links.unsubscribe(),
        preferences=links.preferences(), clicks=clicks,
    )  # fmt: skip
