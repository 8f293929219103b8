"""Connecting: one session of requests for all receivers, whose every connection goes to a checked address.

Promise: each attempt has its URL and all addresses of its name checked; a connection is only ever made to addresses
checked in the last second, while Host and TLS keep the name. No proxies, cookies, redirects or credentials of the
environment. `Policy` says what is allowed; only a caller that brings its own `Reach` gets past the settings.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mautolib.errors import InvalidInput
from mautolib.settings import Settings
from mautolib.webhooks.addresses import Address, Policy, Target, parse_url, refusal_of_any
from mautolib.webhooks.guard import Names, Refusal

#: Attempts of the same second share the answer of the DNS.
NAME_SECONDS: Final = 1.0
#: An idle connection is closed after this time: before the receivers in wide use (5 s and more) close it themselves.
IDLE_SECONDS: Final = 4.0


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Whom deliveries may reach, and how names are looked up.

    Args:
        look_up: gives the addresses of a name.
        tls: how certificates are checked; None: as the system does.
    """

    policy: Policy
    look_up: Callable[[str], Awaitable[Sequence[Address]]]
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: Settings) -> Reach:
        """The reach of this installation."""
        return cls(policy=Policy.of(settings), look_up=Names(servers=settings.dns_servers).look_up)


@dataclass
class Gate:
    """Checks what an attempt is about to reach; belongs to one event loop."""

    reach: Reach
    _read: dict[str, tuple[Target, URL]] = field(default_factory=dict)
    _asked: dict[str, tuple[float, asyncio.Task[tuple[Address, ...]]]] = field(default_factory=dict)

    async def check(self, url: str) -> URL:
        """The URL as the session takes it, if its name leads to allowed addresses only.

        Raises:
            Refusal: it may not be reached.
            ProviderUnavailable: the DNS does not answer.
        """
        target, found = self._read.get(url) or self._parse(url)
        if target.literal is None:
            await self.addresses(target.host, is_exempt=target.is_exempt)
        return found

    async def addresses(self, host: str, *, is_exempt: bool) -> tuple[Address, ...]:
        """The addresses of a name, asked for at most once a second, all of them checked."""
        asked_at, task = self._asked.get(host, (float("-inf"), None))
        if task is None or time.monotonic() - asked_at > NAME_SECONDS:
            task = asyncio.ensure_future(self._look_up(host))
            if len(self._asked) > 10_000:
                self._asked.clear()
            self._asked[host] = time.monotonic(), task
        # One attempt that runs out of time must not take the answer from the others.
        found = await asyncio.shield(task)
        refusal = "" if is_exempt and found else refusal_of_any(found)
        if refusal:
            raise Refusal(refusal)
        return found

    def _parse(self, url: str) -> tuple[Target, URL]:
        """What a URL says; it says the same every time, so it is read once a run."""
        try:
            target = parse_url(url, self.reach.policy)
        except InvalidInput as error:
            raise Refusal(str(error)) from None
        self._read[url] = target, _as_url(target)
        return self._read[url]

    async def _look_up(self, host: str) -> tuple[Address, ...]:
        return tuple(await self.reach.look_up(host))


class _Resolver(AbstractResolver):
    """What the session asks when it connects: the gate, which checks."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        allowed = self._gate.reach.policy.allowed_hosts
        found = await self._gate.addresses(host, is_exempt=host in allowed or f"{host}:{port}" in allowed)
        return [
            ResolveResult(
                hostname=host, host=str(address), port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET,
            )
            for address in found
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is held."""


def open_session(gate: Gate) -> aiohttp.ClientSession:
    """The session all attempts of a run share; call on a running loop, close it afterwards."""
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(gate), use_dns_cache=False, ssl=gate.reach.tls or True, limit=0, limit_per_host=0,
        keepalive_timeout=IDLE_SECONDS,
    )  # fmt: skip
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None), read_bufsize=64 * 1024,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
    )  # fmt: skip


def _as_url(target: Target) -> URL:
    url = URL(f"{target.scheme}://{target.authority}{target.path}", encoded=True)
    # Two readings of one URL would be a way around the check.
    if url.raw_host != target.host or url.port != target.port or url.raw_user is not None:
        raise Refusal("The URL can be read in two ways")
    return url
