"""What a user agent says about who fetches: a robot that names itself, a mail system that fetches ahead, or neither.

A bundled list of crawlers (`crawlers.txt`, MIT) is joined by the programs that fetch links of mail: libraries, link
checkers, security gateways. Names lie: what is named here is a machine for certain, what is not may be one
(`hit_verdicts` looks at the time and at what came together). Pure; called by `hit_verdicts` and its recomputation.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

__all__ = ["Name", "name_of"]

_LIST: Final = Path(__file__).parent / "crawlers.txt"


class Name(StrEnum):
    """What the name says."""

    #: A browser, a mail program, or something nobody knows.
    BROWSER = "browser"
    #: Fetches the images for everybody of a mail house, when the reader opens the mail: a reader, but one of many.
    READERS_PROXY = "readers_proxy"
    #: Fetches them ahead, read or not.
    PREFETCH = "prefetch"
    ROBOT = "robot"


# Apple's mail privacy protection loads every image as soon as the mail arrives and names itself with eleven characters
# only; Gmail's prefetch (not its image proxy) with a browser of 2015 that has them once more at its end.
_AHEAD: Final = re.compile(r"Mozilla/5\.0\Z|.* Edge/12\.246 Mozilla/5\.0\Z|.*Chrome Privacy Preserving Prefetch Proxy")
_PROXY: Final = re.compile(r"GoogleImageProxy|YahooMailProxy|FastmailUA|Mail\.?Ru ?(?:image ?)?proxy", re.IGNORECASE)
#: In the list, but the reader fetches: see `_PROXY`; a mail house's programs; words too short to tell a robot by.
_NOT_ROBOTS: Final = frozenset({
    "GoogleImageProxy", "YahooMailProxy", "FastmailUA", r"mail\.ru", r"BW\/", r"RED\/", r"NING\/", r"YaK\/", r"008\/",
    "Sonic", "Trove", "Fluid", "linko", "Devin", "Fever", "speedy", r"Make\/",
})  # fmt: skip

#: A pattern that means itself, but for escaped punctuation.
_PLAIN: Final = re.compile(r"(?:[^\\\[\](){}?*+|.^$]|\\[^A-Za-z0-9])+")
# "Cubot" is a brand of telephones.
_ROBOT: Final = re.compile(
    r"(?<!cu)bot\b|crawl|spider|slurp|scanner|monitor|preview|headless|phantomjs|lighthouse|validator|checker"
    r"|python|curl/|wget|httpx|libwww|lwp|perl|\bjava/|ruby|go-http-client|node-fetch|axios|\bgot\b|scrapy"
    r"|apache-httpclient|winhttp|postman|insomnia|powershell|zgrab|masscan|nmap"
    r"|facebookexternalhit|whatsapp|telegram|skypeuri|discord|slackbot|embedly|pinterest"
    r"|barracuda|mimecast|proofpoint|symantec|fireeye|trellix|trend ?micro|forcepoint|zscaler|sophos|cloudmark"
    r"|ironport|office existence discovery|safelinks|urldefense|mailguard|vade ?secure|bitdefender",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def name_of(user_agent: str) -> Name:
    """What the name says; no name at all is a robot's."""
    if not user_agent.strip():
        return Name.ROBOT
    if _AHEAD.match(user_agent):
        return Name.PREFETCH
    if _PROXY.search(user_agent):
        return Name.READERS_PROXY
    if _ROBOT.search(user_agent) or _is_listed(user_agent):
        return Name.ROBOT
    return Name.BROWSER


def _is_listed(user_agent: str) -> bool:
    words, patterns = _crawlers()
    # Plain words are looked for one by one: as one expression they would take fifty times as long.
    return any(word in user_agent for word in words) or patterns.search(user_agent) is not None


@cache
def _crawlers() -> tuple[tuple[str, ...], re.Pattern[str]]:
    """The list: what is a plain word, and the rest as one expression."""
    lines = _LIST.read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#") and line not in _NOT_ROBOTS]
    words, rest = set(), []
    for pattern in listed:
        if _PLAIN.fullmatch(pattern):
            words.add(re.sub(r"\\(.)", r"\1", pattern))
        else:
            rest.append(pattern)
    # What another regular expression finds anyway need not be looked for.
    plain = [word for word in words if not _ROBOT.search(word)]
    shortest = [word for word in plain if not any(other != word and other in word for other in plain)]
    return tuple(sorted(shortest)), re.compile("|".join(f"(?:{pattern})" for pattern in rest))
