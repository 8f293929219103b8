"""The pages that recipients of mail see: unsubscribe, confirm, preferences, and the warning before an unknown link.

They show no address, need no script, cookie or referrer, are readable by screen readers, and speak the reader's
language where it is one of ours (else English). Everything put in is escaped by the template engine. Called by
`api/tracking.py` and what it calls. They change nothing.
"""

from __future__ import annotations

import base64
import hashlib
import zoneinfo
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mautolib.pages.words import LANGUAGE_NAMES, WORDS
from mautolib.templates.language import base_of, direction_of

__all__ = ["Notice", "away", "blocked", "confirm_subscription", "confirm_unsubscribe", "confirmation_over",
           "content_security_policy", "interstitial", "language_for", "language_of", "link_not_valid", "preferences",
           "subscription_confirmed", "unsubscribed"]  # fmt: skip

_FOLDER = Path(__file__).parent / "templates"
_AREAS = ("Africa", "America", "Antarctica", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")


class Notice(StrEnum):
    """What has just been done on the preference page."""

    SAVED = "saved"
    LEFT = "left"
    BACK = "back"


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


def language_for(chosen: str, accept_language: str) -> str:
    """The language to speak to a known person: theirs, else the browser's, else English.

    Args:
        chosen: the contact's language. English is what is kept of everybody who named none, so a browser that asks
            for another language is believed more.
    """
    base = base_of(chosen)
    return base if base in WORDS and base != "en" else language_of(accept_language)


def confirm_unsubscribe(language: str, *, action: str) -> str:
    """The page with the button; `action` is where its form is posted."""
    return _page(language, "confirm", action=action)


def unsubscribed(language: str) -> str:
    """It is done (or was done before)."""
    return _page(language, "done")


def confirm_subscription(language: str, *, action: str) -> str:
    """The page of a double opt-in link; `action` is where its button posts."""
    return _page(language, "optin", action=action)


def subscription_confirmed(language: str) -> str:
    """The person has confirmed (or had before)."""
    return _page(language, "opted")


def confirmation_over(language: str, *, preferences: str) -> str:
    """The question is void; leads to the preference page, where the person may still say yes."""
    return _page(language, "over", url=preferences)


def blocked(language: str) -> str:
    """The address takes no mail of ours, and this page cannot change that."""
    return _page(language, "blocked")


def away(language: str) -> str:
    """The service cannot be reached just now."""
    return _page(language, "away")


def preferences(
    language: str, *, action: str, standing: str, chosen_language: str, chosen_timezone: str,
    notice: Notice | None = None, bad: Sequence[str] = (),
) -> str:  # fmt: skip
    """What a person gets, and the forms to change it.

    Args:
        action: where the forms are posted.
        standing: subscribed, unsubscribed, pending or blocked.
        bad: what could not be accepted: language, timezone or action.
    """
    words = WORDS[language]
    is_blocked = standing == "blocked"
    return _page(
        language, "preferences", action=action, standing=standing, words=words, notice=notice and words[
            f"preferences_{notice.value}"
        ], bad=bad, state=words["blocked_title"] if is_blocked else words[f"preferences_{standing}"],
        languages=_with(LANGUAGE_NAMES, chosen_language), zones=_zones(), chosen_language=chosen_language,
        chosen_timezone=chosen_timezone, is_odd_zone=chosen_timezone not in _zone_names(),
    )  # fmt: skip


def _with(known: Mapping[str, str], chosen: str) -> dict[str, str]:
    """The choices, and the one that was made should it be another (pt-BR beside pt)."""
    return dict(known) if chosen in known or not chosen else {chosen: chosen, **known}


@cache
def _zones() -> dict[str, dict[str, str]]:
    """Time zones by part of the world: name and how it reads."""
    names = sorted(name for name in zoneinfo.available_timezones() if name.partition("/")[0] in _AREAS)
    found: dict[str, dict[str, str]] = {}
    for name in names:
        area, _, place = name.partition("/")
        found.setdefault(area, {})[name] = place.replace("_", " ").replace("/", ", ")
    return found


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(name for places in _zones().values() for name in places) | {""}


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


def _page(language: str, kind: str, **values: Any) -> str:
    words = WORDS[language]
    return _environment().get_template("public.html").render(
        language=language, direction=direction_of(language), kind=kind, title=words[f"{kind}_title"],
        text=words.get(f"{kind}_text", ""), button=words.get(f"{kind}_button", ""), style=_style(), **values,
    )  # fmt: skip
