"""The pages that recipients of mail see: unsubscribe, its result, and the warning before an unknown destination.

They show no address, need no script, cookie or referrer, are readable by screen readers, and speak the reader's
language where it is one of ours (else English). Everything put in is escaped by the template engine. Called by
`api/tracking.py`. They change nothing.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mautolib.pages.words import WORDS

__all__ = ["confirm_unsubscribe", "content_security_policy", "interstitial", "language_of", "link_not_valid",
           "unsubscribed"]  # fmt: skip

_FOLDER = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


@cache
def _style() -> str:
    return (_FOLDER / "public.css").read_text(encoding="utf-8")


@cache
def content_security_policy() -> str:
    """The policy of these pages: their own style (by hash), forms to this server, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'")  # fmt: skip


@lru_cache(maxsize=256)
def language_of(accept_language: str) -> str:
    """The best of our languages for an Accept-Language header; English where none fits."""
    wanted: list[tuple[float, str]] = []
    for part in accept_language[:200].split(","):
        tag, _, weight = part.partition(";")
        code = tag.strip().lower().split("-")[0]
        try:
            quality = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            quality = 0
        if code in WORDS and quality > 0:
            wanted.append((quality, code))
    # Stable: of equal weights the first one named wins.
    return max(wanted, key=lambda pair: pair[0])[1] if wanted else "en"


def confirm_unsubscribe(language: str, *, action: str) -> str:
    """The page with the button; `action` is where its form is posted."""
    return _page(language, "confirm", action=action)


def unsubscribed(language: str) -> str:
    """It is done (or was done before)."""
    return _page(language, "done")


def link_not_valid(language: str) -> str:
    """The neutral page of a link that is incomplete or was not made here."""
    return _page(language, "invalid")


def interstitial(language: str, *, url: str) -> str:
    """Names the destination of a link that could not be verified, and lets the reader decide."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return _page(language, "leaving", url=url, host=host or url)


def _page(language: str, kind: str, **values: str) -> str:
    words = WORDS[language]
    return _environment().get_template("public.html").render(
        language=language, kind=kind, title=words[f"{kind}_title"], text=words[f"{kind}_text"],
        button=words.get(f"{kind}_button", ""), style=_style(), **values,
    )  # fmt: skip
