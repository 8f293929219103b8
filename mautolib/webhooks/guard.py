"""Fetching from servers somebody else names, without becoming their way into this network.

Promise: a name is resolved once an attempt, every address it leads to is checked, and the connection goes to a checked
one while Host and TLS keep the name - so a second answer of the DNS is never asked for. Redirects are not followed,
proxies of the environment are not used, and the answer is cut off by size (decoded) and by time (in all). Called by
feedback for certificates and confirmations; senders of webhooks use `Names` and `addresses` the same way.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, cast

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from mautolib import name_servers
from mautolib.errors import InvalidInput, ProviderUnavailable
from mautolib.settings import Settings
from mautolib.webhooks.addresses import Address, Policy, Target, parse_url, refusal_of_any

__all__ = ["MAX_BYTES", "Answer", "Fetcher", "Names", "Refusal"]

_LOG = logging.getLogger(__name__)
MAX_BYTES: Final = 64 * 1024
TOTAL_SECONDS: Final = 20.0
HEAD_SECONDS: Final = 10.0
NAME_SECONDS: Final = 4.0
#: A name with more addresses than this is no ordinary server.
MOST_ADDRESSES: Final = 32
_CHUNK = 16 * 1024


class Refusal(InvalidInput):
    """The guard does not let this URL be fetched."""

    code = "url_refused"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server said: `body` is decoded and at most as long as asked for; `is_whole` tells whether that was all."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Names:
    """Asks the DNS for the addresses of names; one question of each kind an attempt, 4 s in all.

    Args:
        servers: as `address` or `address:port`; none: the system's.
    """

    servers: Sequence[str] = ()

    def addresses(self, host: str) -> tuple[Address, ...]:
        """All addresses of a name.

        Raises:
            Refusal: it leads to none, or to more than `MOST_ADDRESSES`.
            ProviderUnavailable: the DNS does not answer in time.
        """
        found: list[Address] = []
        resolver, ends_at = dns.resolver.Resolver(configure=not self.servers), time.monotonic() + NAME_SECONDS
        _direct(resolver, self.servers)
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            try:
                answer = resolver.resolve(
                    f"{host}.", kind, search=False, raise_on_no_answer=False,
                    lifetime=max(0.01, ends_at - time.monotonic()),
                )  # fmt: skip
            except dns.resolver.NXDOMAIN:
                break
            except (dns.exception.DNSException, OSError) as error:
                raise ProviderUnavailable(f"The DNS does not answer ({type(error).__name__})") from error
            found += [ip_address(record.to_text()) for record in answer.rrset or ()]
        return _few_enough(found)

    async def look_up(self, host: str) -> tuple[Address, ...]:
        """The same as `addresses`, for who must not block."""
        found: list[Address] = []
        resolver, ends_at = dns.asyncresolver.Resolver(configure=not self.servers), time.monotonic() + NAME_SECONDS
        _direct(resolver, self.servers)
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            try:
                answer = await resolver.resolve(
                    f"{host}.", kind, search=False, raise_on_no_answer=False,
                    lifetime=max(0.01, ends_at - time.monotonic()),
                )  # fmt: skip
            except dns.resolver.NXDOMAIN:
                break
            except (dns.exception.DNSException, OSError) as error:
                raise ProviderUnavailable(f"The DNS does not answer ({type(error).__name__})") from error
            found += [ip_address(record.to_text()) for record in answer.rrset or ()]
        return _few_enough(found)


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches URLs under a policy; safe to share between threads.

    Args:
        look_up: gives the addresses of a name; called once an attempt.
        tls: how certificates are checked; None: as the system does.
    """

    policy: Policy
    look_up: Callable[[str], Sequence[Address]] = field(default_factory=lambda: Names().addresses)
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: Settings) -> Fetcher:
        """The fetcher of this installation."""
        return cls(policy=Policy.of(settings), look_up=Names(servers=settings.dns_servers).addresses)

    def fetch(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None,
        max_bytes: int = MAX_BYTES, total_seconds: float = TOTAL_SECONDS,
    ) -> Answer:  # fmt: skip
        """Ask once; whatever the status is, it is the answer.

        Args:
            max_bytes: of the decoded body; reading ends there.
            total_seconds: from the look-up of the name to the last byte.
        Raises:
            Refusal: the URL or an address it leads to is not allowed.
            ProviderUnavailable: no connection, no answer in time, or none that can be understood.
        """
        begun = time.monotonic()
        target = self.check(url)
        deadline = begun + total_seconds
        addresses = self.checked_addresses(target)
        wanted = {"User-Agent": "mauto", "Accept-Encoding": "identity", **(headers or {}), "Connection": "close"}
        try:
            connection = _Connection(target, addresses, self.tls, deadline)
            with contextlib.ExitStack() as ends:
                ends.callback(connection.hang_up)
                connection.request(method, target.path, body=body, headers={"Host": target.authority, **wanted})
                reply = connection.getresponse()
                text, is_whole = _read(reply, max_bytes)
        except (OSError, http.client.HTTPException, zlib.error) as error:
            _LOG.info("%s did not answer as it should: %s", target.host, type(error).__name__)
            raise ProviderUnavailable(f"{target.host} did not answer ({type(error).__name__})") from error
        if not is_whole:
            _LOG.warning("%s answered more than %s bytes; the rest was not read", target.host, max_bytes)
        shown = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(
            status=reply.status, headers=shown, body=text, is_whole=is_whole, seconds=time.monotonic() - begun
        )

    def check(self, url: str) -> Target:
        """The parts of a URL that may be fetched, as far as can be said without asking the DNS.

        Raises:
            Refusal: it may not.
        """
        try:
            return parse_url(url, self.policy)
        except InvalidInput as error:
            raise Refusal(str(error)) from None

    def checked_addresses(self, target: Target) -> tuple[Address, ...]:
        """The addresses to connect to, asked for once and all of them checked.

        Raises:
            Refusal: one of them is not allowed, or there is none.
            ProviderUnavailable: the DNS does not answer.
        """
        found = (target.literal,) if target.literal is not None else tuple(self.look_up(target.host))
        refusal = "" if target.is_exempt and found else refusal_of_any(found)
        if refusal:
            _LOG.warning("%s is not fetched from: %s", target.host, refusal)
            raise Refusal(refusal)
        return found


class _Connection(http.client.HTTPConnection):
    """HTTP to checked addresses: no look-up of its own, and one deadline for everything."""

    def __init__(
        self, target: Target, addresses: Sequence[Address], tls: ssl.SSLContext | None, deadline: float
    ) -> None:
        super().__init__(target.host, target.port)
        self._target, self._addresses, self._tls, self._deadline = target, addresses, tls, deadline
        self._raw: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the first address that answers."""
        error: OSError = ConnectionError("there is no address")
        for address in self._addresses:
            try:
                raw = socket.create_connection((str(address), self._target.port), _left(self._deadline, HEAD_SECONDS))
            except TimeoutError:
                raise
            except OSError as failed:
                error = failed
                continue
            try:
                raw.settimeout(_left(self._deadline, HEAD_SECONDS))
                if self._target.scheme == "https":
                    tls = self._tls or ssl.create_default_context()
                    raw = tls.wrap_socket(raw, server_hostname=self._target.host)
            except BaseException:
                raw.close()
                raise
            self._raw = raw
            # http.client asks its socket for `makefile`, `sendall` and `close` only.
            self.sock = cast(Any, _Timed(raw, self._deadline))
            return
        raise error

    def hang_up(self) -> None:
        """End the connection, whatever is still open on it."""
        self.close()
        if self._raw is not None:
            self._raw.close()


class _Timed:
    """A socket each of whose operations ends with the deadline."""

    def __init__(self, raw: socket.socket, deadline: float) -> None:
        self._raw, self._deadline = raw, deadline

    def sendall(self, data: bytes) -> None:
        """Send everything or fail."""
        self._raw.settimeout(_left(self._deadline, HEAD_SECONDS))
        self._raw.sendall(data)

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        """What the answer is read from."""
        return io.BufferedReader(_Reader(self._raw, self._deadline), _CHUNK)

    def close(self) -> None:
        """Nothing yet: http.client lets go of the socket before it has read the body."""


class _Reader(io.RawIOBase):
    def __init__(self, raw: socket.socket, deadline: float) -> None:
        super().__init__()
        self._raw, self._deadline = raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._raw.settimeout(_left(self._deadline, HEAD_SECONDS))
        return self._raw.recv_into(buffer)


def _left(deadline: float, most: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is up")
    return min(left, most)


def _read(reply: http.client.HTTPResponse, max_bytes: int) -> tuple[bytes, bool]:
    """The decoded body, at most `max_bytes` of it, and whether that is all."""
    coding = (reply.getheader("Content-Encoding") or "identity").strip().lower()
    if coding not in ("identity", "gzip", "deflate", ""):
        raise http.client.HTTPException(f"unknown coding {coding[:20]}")
    inflate = None if coding in ("identity", "") else zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    found = bytearray()
    while len(found) <= max_bytes:
        packed = reply.read1(_CHUNK)
        if not packed:
            return bytes(found), True
        # Never unpacked further than one octet beyond the limit, whatever the ratio.
        room = max_bytes + 1 - len(found)
        found += packed[:room] if inflate is None else inflate.decompress(packed, room)
    return bytes(found[:max_bytes]), False


def _few_enough(found: Sequence[Address]) -> tuple[Address, ...]:
    if len(found) > MOST_ADDRESSES:
        raise Refusal("The name leads to too many addresses")
    return tuple(found)


def _direct(resolver: dns.resolver.BaseResolver, servers: Sequence[str]) -> None:
    resolver.timeout = NAME_SECONDS / 2
    name_servers.use(resolver, servers)
