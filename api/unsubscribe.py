"""The unsubscribe link: a page that changes nothing, and the request that acts (also RFC 8058 one-click).

Promises: only a form post with a genuine token unsubscribes; it works without cookie, login, script or referrer,
as often as it is sent, and is not lost while the database is away (spooled, then applied). Called by `api/tracking.py`;
what unsubscribing means is `mautolib.contacts.consent`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from api.tracking_desk import Away, Desk
from api.tracking_forms import (
    NOT_COMPLETE,
    away,
    form_of,
    language_for,
    language_of,
    page,
    received,
    same_address,
    tell,
    wants_json,
)
from api.tracking_requests import Asked, Receive
from mautolib.classification.hit_verdicts import Verdict
from mautolib.contacts import consent, preferences
from mautolib.events.hit_writer import HitWriter
from mautolib.events.hits import Hit, HitKind
from mautolib.events.links import LinkSigner, Purpose, Token
from mautolib.events.spool import Refused
from mautolib.pages import public

__all__ = ["DONE", "Unsubscriber"]

_LOG = logging.getLogger(__name__)

#: A database that takes longer is taken for frozen, and the request is kept on disk instead.
_PATIENCE_SECONDS = 5
_LINK = "unsubscribe link"
DONE = "You have been unsubscribed successfully."


class Unsubscriber:
    """Shows the page and carries the request out."""

    #: Set by `TrackingApp`, which makes both.
    writer: HitWriter

    def __init__(self, links: LinkSigner, desk: Desk) -> None:
        self._links, self._desk = links, desk

    async def show(self, asked: Asked) -> None:
        """GET: the page with the button, or the neutral page; nothing changes."""
        s = asked.query.get("s", "")
        token = self._links.verify(Purpose.UNSUBSCRIBE, asked.cid, asked.uid, s)
        if token is None:
            await page(asked, public.link_not_valid(language_of(asked)))
        else:
            await self._ask(asked, s, token)

    async def act(self, asked: Asked, receive: Receive) -> None:
        """POST: unsubscribe, if the token is genuine and the body asks for it."""
        body = await received(asked, receive)
        if body is None:
            return
        form = form_of(asked.header(b"content-type"), body)
        s = asked.query.get("s") or (form or {}).get("s", "")
        token = self._links.verify(Purpose.UNSUBSCRIBE, asked.cid, asked.uid, s)
        if token is None:
            await tell(asked, NOT_COMPLETE, public.link_not_valid(language_of(asked)))
        elif form is None or not _asks(form):
            if wants_json(asked):
                await asked.problem(400, "The body must be the form List-Unsubscribe=One-Click")
            else:
                await self._ask(asked, s, token)
        else:
            try:
                language = await self.unsubscribe(asked, token)
            except Away:
                await away(asked)
                return
            await tell(asked, DONE, public.unsubscribed(language_of(asked, language or "")))

    async def _ask(self, asked: Asked, s: str, token: Token) -> None:
        language = await language_for(asked, self._desk, token.contact_id)
        await page(asked, public.confirm_unsubscribe(language, action=same_address(asked, s)))

    async def unsubscribe(self, asked: Asked, token: Token, *, source: str = _LINK) -> str | None:
        """Carry the person's word out and return their language; None: it is kept on disk until that is possible.

        Raises:
            Away: neither the database nor the disk takes it; the caller has to say so, never that it is done.
        """
        now = datetime.now(UTC)
        record = {
            "unsubscribe": token.contact_id, "campaign_id": token.campaign_id, "message_id": token.message_id,
            "at": now.isoformat(), "source": source, "network": asked.network,
        }  # fmt: skip
        language: str | None = None
        apply = _applied(record)

        def work(tx: Connection) -> str:
            apply(tx)
            return preferences.language_of(tx, token.contact_id)

        try:
            language = await self._desk.run(work, patience_seconds=_PATIENCE_SECONDS)
        except Away:
            # Should the slow one come through after all: twice is once.
            _LOG.warning("tracking: the database is away, an unsubscribe request goes to the spool")
            try:
                await self.writer.keep_record(record)
            except OSError as error:
                _LOG.exception("tracking: an unsubscribe request could not be kept")
                raise Away from error
        await self.writer.keep(Hit(
            int(now.timestamp() * 1e6), HitKind.UNSUBSCRIBE, Verdict.HUMAN, token.contact_id, token.campaign_id,
            token.message_id, None, None, asked.user_agent, asked.network,
        ))  # fmt: skip
        return language

    def replay(self, record: dict[str, Any]) -> None:
        """Apply a request that was spooled while the database was away.

        Raises:
            Refused: the record is not one of ours.
        """
        try:
            int(record["unsubscribe"]), datetime.fromisoformat(record["at"])
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"not an unsubscribe request: {error}") from error
        with self._desk.engine.begin() as tx:
            _applied(record)(tx)


def _applied(record: dict[str, Any]) -> Callable[[Connection], bool]:
    def apply(tx: Connection) -> bool:
        return consent.unsubscribe(
            tx, int(record["unsubscribe"]), source=record.get("source", _LINK), actor="recipient",
            now=datetime.fromisoformat(record["at"]), campaign_id=record.get("campaign_id"),
            message_id=record.get("message_id"), ip=record.get("network") or None,
        )  # fmt: skip

    return apply


def _asks(form: dict[str, str]) -> bool:
    """Whether the form asks to unsubscribe: RFC 8058, which is our own form's too, or no field but the token."""
    value = form.get("List-Unsubscribe")
    if value is None:
        return set(form) <= {"s"}
    return value.strip().lower() == "one-click"
