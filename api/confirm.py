"""The double opt-in link: a page with a button that changes nothing, and the button.

Promises: looking (also by a scanner that follows every link) changes nothing; pressing with a genuine token grants
consent and subscribes, as often as it is pressed; a link that is wrong, somebody else's or void tells nothing and
changes nothing. Called by `api/tracking.py`; what confirming means is `mautolib.contacts.confirmation`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection

from api.tracking_desk import Away, Desk
from api.tracking_forms import (
    NOT_COMPLETE,
    away,
    language_for,
    language_of,
    page,
    received,
    same_address,
    tell,
    values_of,
)
from api.tracking_requests import Asked, Receive
from mautolib.contacts import confirmation, preferences
from mautolib.contacts.confirmation import Answer
from mautolib.events.links import LinkSigner, Owner, Token
from mautolib.pages import public

__all__ = ["ConfirmPage"]

_PATIENCE_SECONDS = 1.7
_MESSAGES = {
    Answer.CONFIRMED: "Your subscription is confirmed.",
    Answer.OVER: "This link is no longer valid; nothing has been changed.",
    Answer.BLOCKED: "This address cannot be subscribed; nothing has been changed.",
    Answer.UNKNOWN: NOT_COMPLETE,
}


class ConfirmPage:
    """Shows the question and takes the answer."""

    def __init__(self, links: LinkSigner, desk: Desk) -> None:
        self._links, self._desk = links, desk

    async def show(self, asked: Asked) -> None:
        """GET: the page with the button, or the neutral page; the database is asked for the language only."""
        s = asked.query.get("s", "")
        token = self._links.verify_confirmation(asked.uid, s)
        if token is None:
            await page(asked, public.link_not_valid(language_of(asked)))
        else:
            language = await language_for(asked, self._desk, token.contact_id)
            await page(asked, public.confirm_subscription(language, action=same_address(asked, s)))

    async def act(self, asked: Asked, receive: Receive) -> None:
        """POST: confirm, if the token is genuine and its question still stands."""
        body = await received(asked, receive)
        if body is None:
            return
        token = self._links.verify_confirmation(asked.uid, values_of(asked, body).get("s", ""))
        if token is None:
            await tell(asked, NOT_COMPLETE, public.link_not_valid(language_of(asked)))
            return
        try:
            answer, chosen = await self._confirm(asked, token)
        except Away:
            await away(asked)
            return
        await tell(asked, _MESSAGES[answer], self._page(language_of(asked, chosen), answer, token))

    async def _confirm(self, asked: Asked, token: Token) -> tuple[Answer, str]:
        now, network = datetime.now(UTC), asked.network

        def work(tx: Connection) -> tuple[Answer, str]:
            answer = confirmation.confirm(tx, token.contact_id, token.message_id, now=now, network=network)
            return answer, preferences.language_of(tx, token.contact_id)

        return await self._desk.run(work, patience_seconds=_PATIENCE_SECONDS)

    def _page(self, language: str, answer: Answer, token: Token) -> str:
        if answer is Answer.CONFIRMED:
            return public.subscription_confirmed(language)
        if answer is Answer.BLOCKED:
            return public.blocked(language)
        if answer is Answer.OVER:
            links = self._links.for_message(
                owner=Owner.of(), contact_id=token.contact_id, message_id=token.message_id, made_at=token.made_at
            )
            return public.confirmation_over(language, preferences=links.preferences())
        return public.link_not_valid(language)
