"""The unsubscribe link: a page that changes nothing, and the request that acts (also RFC 8058 one-click).

Promises: only a form post with a genuine token unsubscribes; it works without cookie, login, script or referrer,
as often as it is sent, and is not lost while the database is away (spooled, then applied). Called by `api/tracking.py`;
what unsubscribing means is `mautolib.contacts.consent`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import HTTP
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.tracking_requests import Asked, BodyTooLarge, Receive
from mautolib.classification.hit_verdicts import Verdict
from mautolib.contacts import consent
from mautolib.db.engine import connect, is_unavailable
from mautolib.events.hit_writer import HitWriter
from mautolib.events.hits import Hit, HitKind
from mautolib.events.links import LinkSigner, Purpose, Token
from mautolib.events.spool import Refused
from mautolib.pages import public
from mautolib.settings import Settings

__all__ = ["Unsubscriber"]

_LOG = logging.getLogger(__name__)

#: Connections and threads for unsubscribing; requests beyond wait their turn.
_AT_ONCE = 4
_STATEMENT_TIMEOUT_MS = 5_000
#: A database that takes longer is taken for frozen, and the request is kept on disk instead.
_PATIENCE_SECONDS = 5
_DONE = "You have been unsubscribed successfully."
_NOT_DONE = "This link is not complete; nothing has been changed."
_HTML, _JSON = b"text/html; charset=utf-8", b"application/json"


class Unsubscriber:
    """Shows the page and carries the request out."""

    #: Set by `TrackingApp`, which makes both.
    writer: HitWriter

    def __init__(self, settings: Settings, links: LinkSigner, *, engine: Engine | None) -> None:
        self._links = links
        self._owns_engine = engine is None
        self._engine = engine or connect(
            settings.url_for("api"), application_name="mauto-unsubscribe", pool_size=_AT_ONCE, max_overflow=0,
            statement_timeout_ms=_STATEMENT_TIMEOUT_MS,
        )  # fmt: skip
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="unsubscribe")

    def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._owns_engine:
            self._engine.dispose()

    async def show(self, asked: Asked) -> None:
        """GET: the page with the button, or the neutral page; nothing changes."""
        language = public.language_of(asked.header(b"accept-language"))
        s = asked.query.get("s", "")
        if self._links.verify(Purpose.UNSUBSCRIBE, asked.cid, asked.uid, s) is None:
            await _page(asked, public.link_not_valid(language))
        else:
            await _page(asked, _confirmation(asked, language, s))

    async def act(self, asked: Asked, receive: Receive) -> None:
        """POST: unsubscribe, if the token is genuine and the body asks for it."""
        try:
            body = await asked.body(receive)
        except BodyTooLarge:
            await asked.problem(413, "The body is larger than 8 KiB", (b"connection", b"close"), code="too_large")
            return
        except TimeoutError:
            await asked.problem(408, "The body did not arrive in time", (b"connection", b"close"))
            return
        form = _form(asked.header(b"content-type"), body)
        language = public.language_of(asked.header(b"accept-language"))
        s = asked.query.get("s") or (form or {}).get("s", "")
        token = self._links.verify(Purpose.UNSUBSCRIBE, asked.cid, asked.uid, s)
        if token is None:
            await _tell(asked, _NOT_DONE, public.link_not_valid(language))
        elif form is None or not _asks(form):
            if _wants_json(asked):
                await asked.problem(400, "The body must be the form List-Unsubscribe=One-Click")
            else:
                await _page(asked, _confirmation(asked, language, s))
        else:
            await self._unsubscribe(asked, token)
            await _tell(asked, _DONE, public.unsubscribed(language))

    async def _unsubscribe(self, asked: Asked, token: Token) -> None:
        now = datetime.now(UTC)
        record = {
            "unsubscribe": token.contact_id, "campaign_id": token.campaign_id, "message_id": token.message_id,
            "at": now.isoformat(),
        }  # fmt: skip
        try:
            work = asyncio.get_running_loop().run_in_executor(self._threads, partial(self._apply, record))
            await asyncio.wait_for(work, _PATIENCE_SECONDS)
        except (TimeoutError, SQLAlchemyError) as error:
            if isinstance(error, SQLAlchemyError) and not is_unavailable(error):
                raise
            # Should the slow one come through after all: twice is once.
            _LOG.warning("tracking: the database is away, an unsubscribe request goes to the spool")
            await self.writer.keep_record(record)
        await self.writer.keep(Hit(
            now, HitKind.UNSUBSCRIBE, Verdict.HUMAN, token.contact_id, token.campaign_id,
            token.message_id, None, None, asked.user_agent, asked.network,
        ))  # fmt: skip

    def replay(self, record: dict[str, Any]) -> None:
        """Apply a request that was spooled while the database was away.

        Raises:
            Refused: the record is not one of ours.
        """
        try:
            int(record["unsubscribe"]), datetime.fromisoformat(record["at"])
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"not an unsubscribe request: {error}") from error
        self._apply(record)

    def _apply(self, record: dict[str, Any]) -> None:
        with self._engine.begin() as tx:
            consent.unsubscribe(
                tx, int(record["unsubscribe"]), source="unsubscribe link", actor="recipient",
                now=datetime.fromisoformat(record["at"]), campaign_id=record.get("campaign_id"),
                message_id=record.get("message_id"),
            )  # fmt: skip


def _confirmation(asked: Asked, language: str, s: str) -> str:
    path = "/".join(quote(part, safe="") for part in asked.path.split("/"))
    return public.confirm_unsubscribe(language, action=f"{path}?s={quote(s, safe='')}")


def _form(content_type: str, body: bytes) -> dict[str, str] | None:
    """The fields of a form, {} for an empty body, None for anything else."""
    kind = content_type.partition(";")[0].strip().lower()
    if not body.strip():
        return {}
    if kind in ("application/x-www-form-urlencoded", ""):
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if kind != "multipart/form-data":
        return None
    header = content_type.encode("latin-1", "replace")
    whole = message_from_bytes(b"Content-Type: " + header + b"\r\n\r\n" + body, policy=HTTP)
    fields: dict[str, str] = {}
    for part in whole.iter_parts() if whole.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode("utf-8", "replace").strip()
    return fields or None


def _asks(form: dict[str, str]) -> bool:
    """Whether the form asks to unsubscribe: RFC 8058, which is our own form's too, or no field but the token."""
    value = form.get("List-Unsubscribe")
    if value is None:
        return set(form) <= {"s"}
    return value.strip().lower() == "one-click"


def _wants_json(asked: Asked) -> bool:
    accept = asked.header(b"accept").lower()
    return "application/json" in accept and "text/html" not in accept


async def _tell(asked: Asked, message: str, page: str) -> None:
    if _wants_json(asked):
        await asked.answer(200, _JSON, json.dumps({"message": message}).encode())
    else:
        await _page(asked, page)


async def _page(asked: Asked, page: str) -> None:
    policy = (b"content-security-policy", public.content_security_policy().encode())
    await asked.answer(200, _HTML, page.encode(), policy)
