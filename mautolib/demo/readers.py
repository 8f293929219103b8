"""The people who get the demo's mail: they open, click and unsubscribe through the real tracking links.

Who does what is decided by a hash of the address and by the subject, so a second run finds the same readers.
"""

from __future__ import annotations

import asyncio
import email
import functools
import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, cast

import httpx

#: A subject that says nothing to them makes fewer open.
PLAIN = "The kiln is warm again"
OPENERS, OPENERS_OF_PLAIN, CLICKERS, LEAVERS = 0.38, 0.29, 0.11, 0.006
#: Where those who sign up live; they read their mail in a step of their own.
NEWCOMERS = "@signup.example"
_LINK = re.compile(r'(?:href|src)="([^"]+)"')
_AT_ONCE = 24
_BROWSERS = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0",
)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One request of a reader."""

    address: str
    kind: str
    url: str
    browser: str


def visits(mail_folder: Path) -> Iterator[Visit]:
    """What the readers of the mails in the sink's folder do, as requests."""
    for line in _log(mail_folder):
        address = line["rcpt"][0]
        luck = int.from_bytes(hashlib.sha256(address.encode()).digest()[:6], "big") / 2**48
        if luck >= OPENERS or address.endswith(NEWCOMERS):
            continue
        # The old policy: the new one parses every header, which is two thirds of the time here.
        mail = email.message_from_bytes(_message(mail_folder, line))
        if luck >= OPENERS_OF_PLAIN and mail["Subject"] == PLAIN:
            continue
        doer = functools.partial(Visit, address=address, browser=_BROWSERS[int(luck * 1e6) % len(_BROWSERS)])
        links = _links(mail)
        yield doer(kind="open", url=next(link for link in links if "/track/open/" in link))
        clicks = [link for link in links if "/track/click/" in link]
        if luck < CLICKERS and clicks:
            yield doer(kind="click", url=clicks[int(luck * 1e7) % len(clicks)])
        if luck < LEAVERS:
            yield doer(kind="unsubscribe", url=next(link for link in links if "/track/unsubscribe/" in link))


def confirm(mail_folder: Path) -> int:
    """Press the button behind the confirmation links in the sink's mail; returns how many were confirmed."""
    links = {
        link for line in _log(mail_folder) if line["rcpt"][0].endswith(NEWCOMERS)
        for link in _links(email.message_from_bytes(_message(mail_folder, line))) if "/track/confirm/" in link
    }  # fmt: skip
    with httpx.Client(timeout=20, trust_env=False) as client:
        return sum(client.post(link).status_code == 200 for link in sorted(links))


def follow(everything: list[Visit]) -> Counter[str]:
    """Make the requests, some at a time; returns how many of each kind were answered as they should be."""
    return asyncio.run(_follow(everything))


async def _follow(everything: list[Visit]) -> Counter[str]:
    answered: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=_AT_ONCE)
    async with httpx.AsyncClient(timeout=20, trust_env=False, limits=limits) as client:
        turn = asyncio.Semaphore(_AT_ONCE)

        async def make(visit: Visit) -> None:
            headers = {"User-Agent": visit.browser, "Accept-Language": "en"}
            async with turn:
                if visit.kind == "unsubscribe":
                    form = {"List-Unsubscribe": "One-Click"}
                    answer = await client.post(visit.url, data=form, headers=headers)
                else:
                    answer = await client.get(visit.url, headers=headers)
            if answer.status_code == (302 if visit.kind == "click" else 200):
                answered[visit.kind] += 1

        await asyncio.gather(*map(make, everything))
    return answered


def _log(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / "accepted.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _message(folder: Path, line: dict[str, Any]) -> bytes:
    with (folder / line["path"]).open("rb") as segment:
        segment.seek(line["offset"])
        raw: bytes = segment.read(line["size"])
        return raw


def _links(mail: Message) -> list[str]:
    for part in mail.walk():
        if part.get_content_type() == "text/html":
            body = cast(bytes, part.get_payload(decode=True)).decode()
            return [html.unescape(link) for link in _LINK.findall(body)]
    return []
