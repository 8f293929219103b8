"""The HTTP side of the mail sink: pages for people, a small JSON API for programs.

    GET /                     the mails (?q= search, ?page=)        GET /messages/{id}   one mail
    GET /api/messages         newest first; ?after=ID: oldest first after it; ?limit= (500), ?q=, ?include=content
    GET /api/messages/{id}    with text, html, links, images        GET /api/count       {"count": n}
    DELETE /api/messages      empties the sink                      GET /health

Guards: on loopback only requests for this machine are answered (no DNS rebinding), changes from other origins are
refused, and received HTML comes with a policy that runs and loads nothing. Used by `mailsink`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from mautolib.errors import NotFound
from mautolib.stack import mailsink_pages as pages
from mautolib.stack.mailsink_box import Mailbox
from mautolib.stack.mailsink_mail import ReceivedMail, summary

MAX_HEAD: Final = 32_768
MAX_BODY: Final = 65_536
IDLE_SECONDS: Final = 30.0
_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_MAIL_POLICY = (
    "sandbox; default-src 'none'; script-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_HTML = "text/html; charset=utf-8"
_REASONS = {
    200: "OK", 303: "See Other", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    413: "Content Too Large", 431: "Request Header Fields Too Large",
}  # fmt: skip
# The policy stops what frames would load, but Chromium has connected to their hosts by then.
_FRAMES = re.compile(r"<(/?)(iframe|frame|frameset|object|embed|portal|fencedframe)\b", re.I)
_MESSAGE = re.compile(r"/messages/([0-9]{1,18})(/html|/raw)?")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        """A whole number of the query, held within its bounds."""
        given = self.query.get(name, "")
        return min(high, max(low, int(given))) if re.fullmatch("[0-9]{1,18}", given) else default


@dataclass(frozen=True, kw_only=True)
class Response:
    """What it gets."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def _json(value: Any, status: int = 200) -> Response:
    return Response(body=json.dumps(value).encode() + b"\n", status=status)


def _page(html: str, status: int = 200) -> Response:
    return Response(body=html.encode("utf-8", "replace"), status=status, kind=_HTML)


class SinkSite:
    """Answers requests from a mailbox."""

    def __init__(self, mailbox: Mailbox, *, only_local: bool) -> None:
        self._mailbox = mailbox
        self._only_local = only_local

    def answer(self, request: Request) -> Response:
        """The response to a request; never raises for what a client sent."""
        if self._only_local and not _is_local(request.headers.get("host", "")):
            return self._failed(request, 403, "This sink answers requests for this machine only")
        if request.method not in ("GET", "HEAD") and _is_foreign(request):
            return self._failed(request, 403, "Changes from another origin are refused")
        method = "GET" if request.method == "HEAD" else request.method
        if (method, request.path) in (("DELETE", "/api/messages"), ("POST", "/clear")):
            deleted = self._mailbox.clear()
            if method == "DELETE":
                return _json({"deleted": deleted})
            return Response(body=b"", status=303, kind=_HTML, headers={"Location": "/"})
        if method != "GET":
            return self._failed(request, 405, "Method not allowed")
        try:
            return self._get(request)
        except NotFound as error:
            return self._failed(request, 404, str(error))

    def _failed(self, request: Request, status: int, message: str) -> Response:
        if request.path.startswith("/api/"):
            return _json({"error": message}, status)
        return _page(pages.error_page(status, message, total=self._mailbox.count()), status)

    def _get(self, request: Request) -> Response:
        fixed: dict[str, Callable[[Request], Response]] = {
            "/": self._list, "/style.css": self._style, "/api/messages": self._api_list,
            "/api/count": lambda asked: _json({"count": self._mailbox.count(asked.query.get("q", ""))}),
            "/health": lambda asked: _json({"status": "ok", "messages": self._mailbox.count()}),
        }  # fmt: skip
        if request.path in fixed:
            return fixed[request.path](request)
        is_api = request.path.startswith("/api/")
        found = _MESSAGE.fullmatch(request.path.removeprefix("/api") if is_api else request.path)
        if found is None or (is_api and found.group(2)):
            raise NotFound("There is nothing at this address")
        mail = self._mail(int(found.group(1)))
        if is_api:
            return _json(mail.details())
        if found.group(2) == "/html":
            policy = {"Content-Security-Policy": _MAIL_POLICY}
            html = _FRAMES.sub(r"<\1x-\2", mail.html)
            return Response(body=html.encode("utf-8", "replace"), kind=_HTML, headers=policy)
        if found.group(2) == "/raw":
            name = {"Content-Disposition": pages.file_name(mail), "Content-Security-Policy": "sandbox"}
            return Response(body=mail.raw, kind="message/rfc822", headers=name)
        return self._show(request, mail)

    def _mail(self, number: int) -> ReceivedMail:
        entry = self._mailbox.entry(number)
        return ReceivedMail(entry=entry, raw=self._mailbox.content(entry))

    def _style(self, _: Request) -> Response:
        return Response(body=pages.STYLE.encode(), kind="text/css; charset=utf-8")

    def _list(self, request: Request) -> Response:
        search = request.query.get("q", "").strip()
        number = request.number("page", 1, low=1, high=10_000_000)
        entries = self._mailbox.newest(search=search, skip=(number - 1) * pages.PAGE_SIZE, limit=pages.PAGE_SIZE)
        total = self._mailbox.count()
        found = self._mailbox.count(search) if search else total
        return _page(pages.list_page(entries, total=total, found=found, search=search, number=number))

    def _show(self, request: Request, mail: ReceivedMail) -> Response:
        wanted = request.query.get("show", "html")
        tab = wanted if wanted in pages.TABS and (wanted != "html" or mail.html) else "text"
        newer, older = self._mailbox.neighbours(mail.id)
        phone = request.query.get("width") == "phone"
        total = self._mailbox.count()
        return _page(pages.mail_page(mail, tab, phone=phone, newer=newer, older=older, total=total))

    def _api_list(self, request: Request) -> Response:
        limit = request.number("limit", 50, low=0, high=500)
        search = request.query.get("q", "").strip()
        if "after" in request.query:
            after = request.number("after", 0, low=0, high=10**18)
            entries = self._mailbox.after(after, search=search, limit=limit)
        else:
            entries = self._mailbox.newest(search=search, limit=limit)
        if request.query.get("include") == "content":
            messages = [ReceivedMail(entry=entry, raw=self._mailbox.content(entry)).details() for entry in entries]
        else:
            messages = [summary(entry) for entry in entries]
        return _json({"messages": messages, "count": self._mailbox.count()})


def _is_local(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_foreign(request: Request) -> bool:
    """Whether a browser says that a page of another origin sent this."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")


class HttpConnection(asyncio.Protocol):
    """One client; requests on a connection are answered in order."""

    def __init__(self, site: SinkSite, connections: set[HttpConnection]) -> None:
        self._site = site
        self._connections = connections
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._timer.cancel()
        self._connections.discard(self)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Answer every whole request that has come."""
        self._buffer += data
        while not self._transport.is_closing() and self._take_request():
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._transport.close)

    def _take_request(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD:
            if len(self._buffer) > MAX_HEAD:
                self._send(_json({"error": "The request's head is too large"}, 431), keep=False)
            return False
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        parts = lines[0].split(" ")
        length = headers.get("content-length", "0")
        if len(parts) != 3 or not re.fullmatch("[0-9]{1,9}", length) or "transfer-encoding" in headers:
            self._send(_json({"error": "This request cannot be read"}, 400), keep=False)
            return False
        if int(length) > MAX_BODY:
            self._send(_json({"error": "The request's body is too large"}, 413), keep=False)
            return False
        if len(self._buffer) < end + 4 + int(length):
            return False
        del self._buffer[: end + 4 + int(length)]
        keep = parts[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        self._respond(parts[0], parts[1], headers, keep=keep)
        return True

    def _respond(self, method: str, target: str, headers: dict[str, str], *, keep: bool) -> None:
        path, _, query = target.partition("?")
        try:
            fields = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=50))
        except ValueError:
            fields = {}
        response = self._site.answer(Request(method=method, path=path, query=fields, headers=headers))
        self._send(response, keep=keep, with_body=method != "HEAD")

    def _send(self, response: Response, *, keep: bool, with_body: bool = True) -> None:
        headers = {
            "Content-Type": response.kind, "Content-Length": str(len(response.body)),
            "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin",
            "Content-Security-Policy": _PAGE_POLICY, "Connection": "keep-alive" if keep else "close",
            **response.headers,
        }  # fmt: skip
        head = f"HTTP/1.1 {response.status} {_REASONS[response.status]}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._transport.write(f"{head}\r\n".encode("latin-1") + (response.body if with_body else b""))
        if not keep:
            self._transport.close()
