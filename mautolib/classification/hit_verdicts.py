"""Who made a hit of a tracking link: a person, a machine, or a mail system that fetches ahead.

`judge` is a pure function of what is known when the hit comes in; its answer decides once which effects fire. The
raw hit is kept, so figures can be recomputed under a later `RULE_VERSION`. Called by `api/tracking.py`. The lists
are modest and our own: what they miss counts as human, what they name is machine for certain.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

__all__ = ["BURST", "MACHINE_SECONDS", "RULE_VERSION", "Verdict", "judge"]

#: Raised with every change of the rules below.
RULE_VERSION = 1

#: Nobody receives, opens and follows a mail faster than this after it was rendered; gateways that test links do.
MACHINE_SECONDS = 1.0
#: From this many hits of one message, from one network, within the last second, the next one is a machine's.
BURST = 3


class Verdict(StrEnum):
    """What a hit is. `INVALID` is given by the caller: the link was not made here."""

    HUMAN = "human"
    BOT = "bot"
    PREFETCH = "prefetch"
    INVALID = "invalid"


# Apple's mail privacy protection loads every image as soon as the mail arrives, read or not, and names itself with
# these eleven characters only. The image proxies of Gmail and Yahoo fetch when the reader opens: they are human.
_PRIVACY_PROXY = re.compile(r"Mozilla/5\.0\Z")

# "Cubot" is a brand of telephones.
_ROBOT = re.compile(
    r"(?<!cu)bot\b|crawl|spider|slurp|scanner|monitor|preview|headless|phantomjs|lighthouse|validator|checker"
    r"|python|curl/|wget|httpx|libwww|lwp|perl|\bjava/|ruby|go-http-client|node-fetch|axios|\bgot\b|scrapy"
    r"|apache-httpclient|winhttp|postman|insomnia|powershell|zgrab|masscan|nmap"
    r"|facebookexternalhit|whatsapp|telegram|skypeuri|discord|slack|embedly|pinterest"
    r"|barracuda|mimecast|proofpoint|symantec|fireeye|trellix|trend ?micro|forcepoint|zscaler|sophos|cloudmark"
    r"|ironport|office existence discovery|safelinks|urldefense|mailguard|vade ?secure|bitdefender",
    re.IGNORECASE,
)
_AHEAD = re.compile(r"prefetch|prerender|preview", re.IGNORECASE)


def judge(
    *,
    user_agent: str,
    is_head: bool = False,
    purpose: str = "",
    seconds_since_made: float | None = None,
    recent_hits: int = 0,
) -> Verdict:
    """The verdict on one hit of a genuine link, by rule version 1.

    HEAD and announced prefetches and privacy proxies are PREFETCH; no or a robot's name, a hit within
    `MACHINE_SECONDS` of the hand-over, and the later hits of a burst are BOT; everything else is HUMAN.

    Args:
        purpose: the `Purpose`, `Sec-Purpose`, `X-Purpose` and `X-Moz` headers, joined.
        seconds_since_made: since the message was rendered for its hand-over; None: unknown.
        recent_hits: earlier hits of the same message from the same network within the last second.
    """
    if is_head or (purpose and _AHEAD.search(purpose)):
        return Verdict.PREFETCH
    by_name = _by_name(user_agent)
    if by_name is not None:
        return by_name
    # A time in the future says that two clocks differ, nothing else.
    if seconds_since_made is not None and -1 <= seconds_since_made < MACHINE_SECONDS:
        return Verdict.BOT
    return Verdict.BOT if recent_hits >= BURST else Verdict.HUMAN


@lru_cache(maxsize=4096)
def _by_name(user_agent: str) -> Verdict | None:
    if _PRIVACY_PROXY.match(user_agent):
        return Verdict.PREFETCH
    if not user_agent.strip() or _ROBOT.search(user_agent):
        return Verdict.BOT
    return None
