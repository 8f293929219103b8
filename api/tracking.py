"""The links in mail, answered here as raw ASGI outside the framework (see benchmarks/tracking.py).

Promises: a genuine open or click is durable before it is answered, with the database down too; the pixel is always
the pixel; a redirect leads only where a link made here leads; GET and HEAD change nothing but the record of hits.
Everything else is passed on to the app inside. Wired outermost by `api.app`; one instance per process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine

from api.confirm import ConfirmPage
from api.preferences import PreferencePage
from api.tracking_desk import Desk
from api.tracking_document import TRACKING_OPENAPI
from api.tracking_limits import Bursts, WrongLinks
from api.tracking_requests import Asked
from api.unsubscribe import Unsubscriber
from mautolib.classification.hit_verdicts import RULE_VERSION, Verdict, judge, may_be_crowded
from mautolib.events.hit_writer import HitWriter
from mautolib.events.hits import Hit, HitKind
from mautolib.events.links import LinkSigner, Purpose, Token, is_web_url
from mautolib.events.spool import Spool, spool_folder
from mautolib.pages import public
from mautolib.settings import Settings

__all__ = ["PREFIX", "TRACKING_OPENAPI", "TrackingApp"]

_LOG = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PREFIX = "/api/v1/track/"
#: One transparent pixel, 43 octets.
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
_HTML = b"text/html; charset=utf-8"
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~-._"
_LOOK, _ACT = "GET, HEAD", "GET, HEAD, POST"
_METHODS = {"open": _LOOK, "click": _LOOK, "unsubscribe": _ACT, "preferences": _ACT, "confirm": _ACT}
_NO_URL = [{"type": "missing", "loc": ["query", "url"], "msg": "Field required"}]


class TrackingApp:
    """An ASGI app around another one: answers tracking links itself, passes everything else on.

    Args:
        app: the app inside.
        engine: used by the pages instead of a pool of their own (the caller disposes of it).
    Raises:
        Misconfigured: no database, or a secret is missing or weak.
    """

    def __init__(self, app: App, settings: Settings, *, engine: Engine | None = None) -> None:
        self._app = app
        self._links = LinkSigner.from_settings(settings)
        self._desk = Desk(settings, engine=engine)
        unsubscriber = Unsubscriber(self._links, self._desk)
        spool = Spool(spool_folder(settings))
        self.writer = HitWriter(
            settings.url_for("tracker"), spool, rule_version=RULE_VERSION, apply_other=unsubscriber.replay
        )
        unsubscriber.writer = self.writer
        self._pages: dict[str, Unsubscriber | PreferencePage | ConfirmPage] = {
            "unsubscribe": unsubscriber,
            "preferences": PreferencePage(
                self._links, self._desk, unsubscriber, require_consent=settings.require_consent
            ),
            "confirm": ConfirmPage(self._links, self._desk),
        }
        self._bursts, self._wrong = Bursts(), WrongLinks()
        self._is_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            what, *ids = scope["path"][len(PREFIX) :].split("/")
            if len(ids) > 1 and not ids[-1]:
                ids.pop()
            if what in _METHODS and all(ids) and len(ids) == (1 if what == "confirm" else 2):
                if not self._is_started:
                    await self.start()
                # A confirmation names no campaign.
                asked = Asked(scope, send, ids[0] if len(ids) == 2 else "", ids[-1])
                if what == "open" and asked.is_look:
                    await self._open(asked)
                elif what == "click" and asked.is_look:
                    await self._click(asked)
                else:
                    await self._page(what, asked, receive)
                return
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """Begin to write hits; called by the server's start, else by the first request."""
        if not self._is_started:
            self._is_started = True
            await self.writer.start()

    async def stop(self) -> None:
        """Write what is waiting and let go of everything."""
        if self._is_started:
            self._is_started = False
            await self.writer.stop()
        self._desk.close()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
            return message

        async def sent(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self.stop()
            await send(message)

        await self._app(scope, received, sent)

    async def _page(self, what: str, asked: Asked, receive: Receive) -> None:
        page = self._pages.get(what)
        if page is not None and asked.is_look:
            await page.show(asked)
        elif page is not None and asked.method == "POST":
            await page.act(asked, receive)
        else:
            await asked.problem(405, "Method not allowed", (b"allow", _METHODS[what].encode()))

    async def _open(self, asked: Asked) -> None:
        try:
            s = asked.query.get("s", "")
            token = self._links.verify(Purpose.OPEN, asked.cid, asked.uid, s) if s else None
            if token is not None:
                await self._keep(asked, HitKind.OPEN, token, None)
            elif s:
                self._keep_wrong(asked, HitKind.OPEN)
        except Exception:  # noqa: BLE001 - whatever it is, the pixel is the pixel
            _LOG.exception("tracking: an open was not kept")
        await asked.pixel(GIF)

    async def _click(self, asked: Asked) -> None:
        url = asked.query.get("url")
        if url is None:
            await asked.problem(422, _NO_URL, code="validation_error")
            return
        location = _location(url)
        if location is None:
            await asked.problem(400, "Invalid redirect URL")
            return
        s = asked.query.get("s", "")
        token = self._links.verify(Purpose.CLICK, asked.cid, asked.uid, s, url=url) if s else None
        if token is not None:
            await self._keep(asked, HitKind.CLICK, token, url)
            await asked.redirect(location)
        elif s and not self._keep_wrong(asked, HitKind.CLICK):
            await asked.problem(429, "Too many links that were not made here", (b"retry-after", b"60"),
                                code="rate_limited")  # fmt: skip
        else:
            language = public.language_of(asked.header(b"accept-language"))
            page = public.interstitial(language, url=url).encode()
            policy = (b"content-security-policy", public.content_security_policy().encode())
            await asked.answer(200, _HTML, page, policy)

    def _keep(self, asked: Asked, kind: HitKind, token: Token, url: str | None) -> Awaitable[None]:
        """Judge a hit and hand it to the writer; what comes back is done when it is durable."""
        at, user_agent, network, purpose = time.time(), asked.user_agent, asked.network, asked.purpose
        verdict = judge(
            user_agent=user_agent, is_head=asked.is_head, purpose=purpose,
            seconds_since_made=at - token.made_milliseconds / 1000,
            recent_hits=self._bursts.count((token.message_id, network), at),
            crowd=0 if may_be_crowded(user_agent, network) else self._bursts.count((user_agent, network), at),
        )  # fmt: skip
        return self.writer.keep(Hit(
            int(at * 1e6), kind, verdict, token.contact_id, token.campaign_id, token.message_id, token.position, url,
            user_agent, network, asked.is_head, purpose,
        ))  # fmt: skip

    def _keep_wrong(self, asked: Asked, kind: HitKind) -> bool:
        """Note a link that was not made here, joined to nobody; False when its network asks too often."""
        at, network = time.time(), asked.network
        may_keep, may_ask = self._wrong.count(network, at)
        if may_keep:  # nobody waits for it
            self.writer.keep(Hit(int(at * 1e6), kind, Verdict.INVALID, user_agent=asked.user_agent,
                                 network=network, is_head=asked.is_head, purpose=asked.purpose))  # fmt: skip
        return may_ask


@lru_cache(maxsize=1024)
def _location(url: str) -> bytes | None:
    """The address as a header carries it, None if no link leads there; a mailing has few, followed often."""
    if not is_web_url(url):
        return None
    return (url if url.isascii() else quote(url, safe=_URL_CHARACTERS)).encode("ascii")
