"""The preference page: what a person gets from us, and their word on it.

Promises: the page tells no address; only a genuine token shows or changes anything; GET changes nothing; it needs no
cookie, login, script or referrer; unsubscribing is not lost while the database is away, everything else answers 503
within two seconds. Called by `api/tracking.py`; what a change means is `mautolib.contacts.preferences`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from api.tracking_desk import Away, Desk
from api.tracking_forms import (
    NOT_COMPLETE,
    away,
    language_of,
    page,
    received,
    same_address,
    tell,
    values_of,
    wants_json,
)
from api.tracking_requests import Asked, Receive
from api.unsubscribe import DONE, Unsubscriber
from mautolib.contacts import preferences
from mautolib.contacts.preferences import Preferences, Standing
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.links import LinkSigner, Purpose, Token
from mautolib.pages import public
from mautolib.pages.public import Notice

__all__ = ["PreferencePage"]

_PATIENCE_SECONDS = 1.7
_MESSAGES = {Notice.LEFT: DONE, Notice.BACK: "You have been subscribed.", Notice.SAVED: "Your choice has been saved."}
_ACTIONS = "action must be one of unsubscribe, resubscribe, update"


class PreferencePage:
    """Shows what is kept, and carries out what the person says."""

    def __init__(self, links: LinkSigner, desk: Desk, unsubscriber: Unsubscriber, *, require_consent: bool) -> None:
        self._links, self._desk, self._unsubscriber = links, desk, unsubscriber
        self._require_consent = require_consent

    async def show(self, asked: Asked) -> None:
        """GET: the page, or the neutral page; nothing changes."""
        s = asked.query.get("s", "")
        token = self._links.verify(Purpose.PREFERENCES, asked.cid, asked.uid, s)
        if token is None:
            await tell(asked, NOT_COMPLETE, public.link_not_valid(language_of(asked)))
            return
        try:
            found = await self._desk.run(self._look(token), patience_seconds=_PATIENCE_SECONDS)
        except Away:
            await away(asked)
            return
        await self._answer(asked, s, found, None)

    async def act(self, asked: Asked, receive: Receive) -> None:
        """POST: unsubscribe, resubscribe or update, if the token is genuine."""
        body = await received(asked, receive)
        if body is None:
            return
        values = values_of(asked, body)
        s = asked.query.get("s") or values.get("s", "")
        token = self._links.verify(Purpose.PREFERENCES, asked.cid, asked.uid, s)
        if token is None:
            await tell(asked, NOT_COMPLETE, public.link_not_valid(language_of(asked)))
            return
        try:
            if values.get("action") == "unsubscribe":
                await self._unsubscribe(asked, s, token)
            else:
                await self._change(asked, s, token, values)
        except Away:
            await away(asked)

    async def _unsubscribe(self, asked: Asked, s: str, token: Token) -> None:
        if await self._unsubscriber.unsubscribe(asked, token, source=preferences.SOURCE) is None:
            # Kept on disk: it will be done, and that is what the person has to know.
            await tell(asked, DONE, public.unsubscribed(language_of(asked)))
            return
        found = await self._desk.run(self._look(token), patience_seconds=_PATIENCE_SECONDS)
        await self._answer(asked, s, found, Notice.LEFT)

    async def _change(self, asked: Asked, s: str, token: Token, values: dict[str, str]) -> None:
        now, network, action = datetime.now(UTC), asked.network, values.get("action")
        look = self._look(token)

        def work(tx: Connection) -> tuple[Preferences | None, Notice | None]:
            notice = None
            if action == "resubscribe" and preferences.resubscribe(tx, token.contact_id, now=now, network=network):
                notice = Notice.BACK
            elif action == "update":
                language, timezone = values.get("language"), values.get("timezone")
                preferences.update(tx, token.contact_id, now=now, language=language, timezone=timezone)
                notice = Notice.SAVED
            return look(tx), notice

        try:
            if action not in ("resubscribe", "update"):
                raise InvalidInput(_ACTIONS, path=("body", "action"))
            found, notice = await self._desk.run(work, patience_seconds=_PATIENCE_SECONDS)
        except InvalidInput as error:
            await self._refuse(asked, s, token, error)
        except NotFound:
            await self._answer(asked, s, None, None)
        else:
            is_refused = action == "resubscribe" and notice is None and found is not None
            if is_refused and wants_json(asked):
                await asked.problem(409, "This address cannot be subscribed", code="suppressed")
            else:
                await self._answer(asked, s, found, notice)

    async def _refuse(self, asked: Asked, s: str, token: Token, error: InvalidInput) -> None:
        fields = [(error.path, str(error)), *error.problems]
        if wants_json(asked):
            detail = [{"type": "value_error", "loc": list(path), "msg": text} for path, text in fields]
            await asked.problem(422, detail, code="validation_error")
            return
        found = await self._desk.run(self._look(token), patience_seconds=_PATIENCE_SECONDS)
        if found is None:
            await page(asked, public.link_not_valid(language_of(asked)))
            return
        bad = [str(path[-1]) for path, _ in fields if path]
        await page(asked, self._page(asked, s, found, None, bad), status=422)

    def _look(self, token: Token) -> Any:
        def work(tx: Connection) -> Preferences | None:
            return preferences.look(tx, token.contact_id, require_consent=self._require_consent)

        return work

    async def _answer(self, asked: Asked, s: str, found: Preferences | None, notice: Notice | None) -> None:
        if found is None:
            await tell(asked, NOT_COMPLETE, public.link_not_valid(language_of(asked)))
            return
        told: dict[str, Any] = {
            "subscribed": found.standing is Standing.SUBSCRIBED, "standing": found.standing.value,
            "language": found.language, "timezone": found.timezone,
        }  # fmt: skip
        if notice is not None:
            told = {"message": _MESSAGES[notice], **told}
        await tell(asked, told, self._page(asked, s, found, notice, []))

    def _page(
        self, asked: Asked, s: str, found: Preferences, notice: Notice | None, bad: list[str]
    ) -> str:
        return public.preferences(
            language_of(asked, found.language), action=same_address(asked, s), standing=found.standing.value,
            chosen_language=found.language, chosen_timezone=found.timezone, notice=notice, bad=bad,
        )  # fmt: skip
