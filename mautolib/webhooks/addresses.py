"""Which URLs and addresses may be reached: pure rules, the same when a URL is saved and when it is fetched.

Promise: one parser for both; what it does not understand it refuses (userinfo, fragments, backslashes, blanks, odd
spellings of numbers as hosts). An address is allowed only if it is public unicast: IPv6 inside 2000::/3 less what is
reserved or translated there, IPv4 less everything special. Called by `guard`, and by whoever saves a URL. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

import idna

from mautolib.errors import InvalidInput
from mautolib.settings import Settings

__all__ = ["PORTS", "PUBLIC", "Address", "Policy", "Target", "parse_url", "refusal_of"]

Address = IPv4Address | IPv6Address
PORTS: Final = frozenset({80, 443, 8443})
MAX_URL: Final = 2048
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]\\%]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[^\s?#\\]*)?(?:\?[^\s#\\]*)?)"
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Names that never mean a server on the internet (RFC 6761, 6762, 7686, 8375, 9476).
_NEVER: Final = frozenset({"localhost", "local", "localdomain", "internal", "invalid", "test", "onion", "alt", "arpa"})
#: IANA's special-purpose registries; 168.63.129.16 answers inside every Azure network.
_SPECIAL_4: Final = tuple(map(ip_network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
)))  # fmt: skip
_UNICAST_6: Final = ip_network("2000::/3")
#: 2001::/23 holds Teredo, ORCHID and more; 2002::/16 is 6to4, which carries an IPv4 address inside.
_SPECIAL_6: Final = tuple(map(ip_network, (
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20",
)))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What this installation allows beyond public https.

    Args:
        allow_http: plain http as well.
        allowed_hosts: `host` or `host:port` that may be reached whatever their address; with a port, there too.
        own_hosts: names of this service, never to be called by itself.
    """

    allow_http: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    own_hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy of the settings."""
        found = _URL.fullmatch(settings.public_base_url)
        return cls(
            allow_http=settings.webhook_allow_http,
            allowed_hosts=frozenset(host.lower() for host in settings.webhook_allowed_hosts),
            own_hosts=frozenset({found["host"].lower()} if found else ()),
        )


#: Of an installation that allows nothing else.
PUBLIC: Final = Policy()


@dataclass(frozen=True, kw_only=True)
class Target:
    """A URL taken apart, all of it checked; `host` is in lower case and ASCII, without brackets."""

    scheme: str
    host: str
    port: int
    path: str
    #: The host as an address, if it was written as one.
    literal: Address | None = None
    #: Named in the settings: its addresses are not checked.
    is_exempt: bool = field(default=False)

    @property
    def authority(self) -> str:
        """The `Host` header: without the port where it is the usual one."""
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str, policy: Policy) -> Target:
    """Take a URL apart.

    Raises:
        InvalidInput: it may not be fetched; says why without repeating it.
    """
    found = _URL.fullmatch(url) if len(url) <= MAX_URL and url.isprintable() else None
    if found is None:
        raise InvalidInput("The URL is not a plain https://host/path without user name and fragment")
    scheme = found["scheme"].lower()
    if scheme not in ("http", "https") or (scheme == "http" and not policy.allow_http):
        raise InvalidInput("The URL has to begin with https://")
    target_path = found["target"]
    if not target_path.isascii():
        raise InvalidInput("Characters beyond ASCII in a path or query are written with %")
    host, literal = _host(found["host"])
    port = int(found["port"]) if found["port"] else {"http": 80, "https": 443}[scheme]
    is_named = f"{host}:{port}" in policy.allowed_hosts
    is_exempt = is_named or host in policy.allowed_hosts
    if port not in PORTS and not is_named:
        raise InvalidInput(f"Port {port} is not allowed; ports are 443, 80 and 8443")
    if not is_exempt:
        _check_host(host, literal, policy)
    path = target_path if target_path.startswith("/") else f"/{target_path}"
    return Target(scheme=scheme, host=host, port=port, path=path, literal=literal, is_exempt=is_exempt)


def refusal_of(address: Address) -> str:
    """Why an address may not be reached, "" when it may."""
    if isinstance(address, IPv4Address):
        is_public = not any(address in network for network in _SPECIAL_4)
    else:
        is_public = (
            address.scope_id is None and address in _UNICAST_6 and not any(address in one for one in _SPECIAL_6)
        )
    return "" if is_public else "The address is not on the public internet"


def refusal_of_any(addresses: Sequence[Address]) -> str:
    """Why a name that leads to `addresses` may not be reached: one bad address spoils all."""
    if not addresses:
        return "The name does not lead to an address"
    return next((refusal for refusal in map(refusal_of, addresses) if refusal), "")


def _host(written: str) -> tuple[str, Address | None]:
    """The host in ASCII and, if it is an address, that."""
    if written.startswith("["):
        try:
            six = IPv6Address(written[1:-1])
        except ValueError:
            raise InvalidInput("The host is not an address") from None
        return str(six), six
    try:
        # As browsers do: full-width digits and dots become plain ones before anything is compared.
        host = idna.encode(written, uts46=True, transitional=False).decode("ascii").lower()
    except idna.IDNAError:
        host = written.lower()
    if not host.isascii() or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise InvalidInput("The host is not a name")
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return host, None
    # A name ending in a number is an address (WHATWG); every spelling but the plain one is a disguise.
    try:
        address = ip_address(host)
    except ValueError:
        raise InvalidInput("The host is a number, but not an address as usually written") from None
    return host, address


def _check_host(host: str, literal: Address | None, policy: Policy) -> None:
    if literal is not None:
        refusal = refusal_of(literal)
        if refusal:
            raise InvalidInput(refusal)
    elif "." not in host or host.rpartition(".")[2] in _NEVER:
        raise InvalidInput("The host is not a name on the public internet")
    if host in policy.own_hosts:
        raise InvalidInput("The URL leads to this service itself")
