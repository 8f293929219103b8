"""One received mail, read: headers, parts, links. Whatever was sent, reading it never fails.

Called by the sink's pages and by tests. It shows a mail as a person would see it; what was received byte for byte
is `raw`.
"""

from __future__ import annotations

import email
import re
from dataclasses import dataclass
from email.message import Message
from functools import cached_property
from html.parser import HTMLParser
from typing import Any

from mautolib.stack.mailsink_box import Entry, decoded

_URL = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)\]]", re.I)


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link of a mail and what it says."""

    href: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ReceivedMail:
    """A mail in the sink; parts are read when they are asked for."""

    entry: Entry
    raw: bytes

    @property
    def id(self) -> int:
        """Its number in the sink, growing with time."""
        return self.entry.id

    @property
    def sender(self) -> str:
        """The envelope's sender."""
        return self.entry.sender

    @property
    def recipients(self) -> tuple[str, ...]:
        """The envelope's recipients."""
        return self.entry.rcpt

    @property
    def subject(self) -> str:
        """The subject, decoded."""
        return self.entry.subject

    @property
    def message_id(self) -> str:
        """The Message-ID with its angle brackets."""
        return self.entry.message_id

    @cached_property
    def message(self) -> Message:
        """The parsed message."""
        return email.message_from_bytes(self.raw)

    @cached_property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """All headers in order, values decoded."""
        return tuple((name, decoded(str(value))) for name, value in self.message.items())

    def header(self, name: str) -> str:
        """The first header of that name, or an empty text."""
        return next((value for found, value in self.headers if found.lower() == name.lower()), "")

    @cached_property
    def html(self) -> str:
        """The HTML part, or an empty text."""
        return self._body("text/html")

    @cached_property
    def text(self) -> str:
        """The plain text part, or an empty text."""
        return self._body("text/plain")

    def _body(self, kind: str) -> str:
        for part in self.message.walk():
            if part.get_content_type() == kind and part.get_content_disposition() != "attachment":
                return _text_of(part)
        return ""

    @cached_property
    def attachments(self) -> tuple[tuple[str, str, int], ...]:
        """Name, type and size of each attachment."""
        found = []
        for part in self.message.walk():
            name = part.get_filename()
            if name or part.get_content_disposition() == "attachment":
                size = len(_bytes_of(part))
                found.append((decoded(name or "without a name"), part.get_content_type(), size))
        return tuple(found)

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """The links of the HTML part in order, else the web addresses in the text."""
        if self.html:
            return tuple(self._read_html.links)
        return tuple(Link(href=url, text=url) for url in _URL.findall(self.text))

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The addresses of the HTML part's images, the open pixel among them."""
        return tuple(self._read_html.images)

    @cached_property
    def _read_html(self) -> _LinkReader:
        reader = _LinkReader()
        reader.feed(self.html)
        reader.close()
        return reader

    def summary(self) -> dict[str, Any]:
        """What a list shows, for JSON."""
        return summary(self.entry)

    def details(self) -> dict[str, Any]:
        """Everything read from the mail, for JSON."""
        return summary(self.entry) | {
            "from": self.header("From"),
            "to": self.header("To"),
            "headers": [list(header) for header in self.headers],
            "text": self.text,
            "html": self.html,
            "links": [{"href": link.href, "text": link.text} for link in self.links],
            "images": list(self.images),
            "attachments": [{"name": name, "type": kind, "size": size} for name, kind, size in self.attachments],
        }


def summary(entry: Entry) -> dict[str, Any]:
    """What a list shows of a message, for JSON."""
    return {
        "id": entry.id,
        "time": entry.time,
        "message_id": entry.message_id,
        "sender": entry.sender,
        "recipients": list(entry.rcpt),
        "subject": entry.subject,
        "size": entry.size,
        "url": f"/messages/{entry.id}",
    }


def _bytes_of(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text_of(part: Message) -> str:
    charset = str(part.get_content_charset() or "utf-8")
    try:
        return _bytes_of(part).decode(charset, "replace").replace("\r\n", "\n")
    except LookupError:
        return _bytes_of(part).decode("utf-8", "replace").replace("\r\n", "\n")


class _LinkReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[Link] = []
        self.images: list[str] = []
        self._open: tuple[str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in reversed(attrs)}
        if tag == "a" and values.get("href"):
            self._end_link()
            self._open = (values["href"].strip(), [])
        elif tag == "img" and values.get("src"):
            self.images.append(values["src"].strip())
            if self._open is not None:
                self._open[1].append(values.get("alt", ""))

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open[1].append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._end_link()

    def close(self) -> None:
        super().close()
        self._end_link()

    def _end_link(self) -> None:
        if self._open is not None:
            href, words = self._open
            self.links.append(Link(href=href, text=" ".join("".join(words).split())))
            self._open = None
