"""Who made a hit of a tracking link: a person, a machine, or a mail system that fetches ahead.

`judge` is a pure function of what is known when the hit comes in; its answer decides once which effects fire. Later
everything that came together is known: `feedback.verdicts` looks back by the same rules and writes the verdict that
figures use. Names are `user_agents`'; time, company and headers are judged here. What no rule catches is human.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final

from mautolib.classification.user_agents import Name, name_of

__all__ = [
    "AHEAD", "BURST", "CROWD", "INSIDE", "LINKS_AT_ONCE", "LOOK_BACK_VERSION", "MACHINE_SECONDS", "RULE_VERSION",
    "Verdict", "judge", "may_be_crowded",
]  # fmt: skip

#: Of verdicts given at the hit. Raised by two with every change of the rules, here or in the list of names.
RULE_VERSION: Final = 2
#: Of verdicts by the same rules, given later with everything known that came together. The highest version counts.
LOOK_BACK_VERSION: Final = RULE_VERSION + 1

#: Nobody receives, opens and follows a mail faster than this after its hand-over; gateways that test links do.
MACHINE_SECONDS: Final = 1.0
#: From this many hits of one message, from one network, within the last second, the next one is a machine's.
BURST: Final = 3
#: From this many hits of any messages, from one network under one name, within a second, the next one is a machine's.
CROWD: Final = 20
#: Looking back: so many links of one message followed within a second were followed by a machine, all of them.
LINKS_AT_ONCE: Final = 3
#: `Purpose` and its relatives, of a fetch ahead of the reader (a regular expression here and in PostgreSQL).
AHEAD: Final = "prefetch|prerender|preview"
#: Network prefixes that are nobody's in particular: behind a proxy that is not believed, everybody comes from one.
INSIDE: Final = (
    r"^(10|127|192\.168|172\.(1[6-9]|2[0-9]|3[01])|169\.254|100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7]))\."
    r"|^(::|f[cd]|fe80)|^$"
)


class Verdict(StrEnum):
    """What a hit is. `INVALID` is given by the caller: the link was not made here."""

    HUMAN = "human"
    BOT = "bot"
    PREFETCH = "prefetch"
    INVALID = "invalid"


_AHEAD: Final = re.compile(AHEAD, re.IGNORECASE)
_INSIDE: Final = re.compile(INSIDE)


def judge(
    *,
    user_agent: str,
    is_head: bool = False,
    purpose: str = "",
    seconds_since_made: float | None = None,
    recent_hits: int = 0,
    crowd: int = 0,
) -> Verdict:
    """The verdict on one hit of a genuine link, by `RULE_VERSION`.

    HEAD, announced prefetches and mail systems that fetch ahead are PREFETCH; no or a robot's name, a hit within
    `MACHINE_SECONDS` of the hand-over, the later hits of a burst or of a crowd are BOT; everything else is HUMAN.

    Args:
        purpose: the `Purpose`, `Sec-Purpose`, `X-Purpose` and `X-Moz` headers, joined.
        seconds_since_made: since the message was rendered for its hand-over; None: unknown.
        recent_hits: earlier hits of the same message from the same network within the last second.
        crowd: earlier hits of any message from that network under the same name within the last second; 0 where
            `may_be_crowded`.
    """
    if is_head or (purpose and _AHEAD.search(purpose)):
        return Verdict.PREFETCH
    name = name_of(user_agent)
    if name is Name.PREFETCH:
        return Verdict.PREFETCH
    if name is Name.ROBOT:
        return Verdict.BOT
    # A time in the future says that two clocks differ, nothing else.
    if seconds_since_made is not None and -1 <= seconds_since_made < MACHINE_SECONDS:
        return Verdict.BOT
    return Verdict.BOT if recent_hits >= BURST or crowd >= CROWD else Verdict.HUMAN


@lru_cache(maxsize=4096)
def may_be_crowded(user_agent: str, network: str) -> bool:
    """Whether many readers come from there under one name: through a mail house's proxy or a network inside."""
    return name_of(user_agent) is Name.READERS_PROXY or _INSIDE.search(network) is not None
