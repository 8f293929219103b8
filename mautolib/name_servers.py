"""Which name servers are asked: those of the settings, or the system's.

Pure; called by whoever resolves names for mail (contacts) and for fetching (webhooks). Resolving, limits and what an
answer means are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import dns.nameserver
import dns.resolver

_PORT: Final = 53


def use(resolver: dns.resolver.BaseResolver, servers: Sequence[str]) -> None:
    """Let a resolver ask `servers`; none: it keeps those it has.

    Args:
        servers: `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1` or `[2001:db8::1]:5353`.
    Raises:
        ValueError: a port or an address that is none.
    """
    if servers:
        resolver.nameservers = [_server(server) for server in servers]


def _server(text: str) -> dns.nameserver.Nameserver:
    address, port = text, _PORT
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = int(rest.removeprefix(":") or port)
    elif text.count(":") == 1:
        address, _, rest = text.partition(":")
        port = int(rest)
    return dns.nameserver.Do53Nameserver(address, port)
