"""Where mail for a domain goes: MX records, else the domain's own address - asked without blocking anybody.

Promises bounds, whatever names are asked about: 2 s a name, 20 s a call, 64 names at once, 10,000 remembered for an
hour in this process (that a name does not exist, too; a time-out never). Names that lead to no mail host by
definition are not asked about. Called by `checks`; no database here.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from mautolib import name_servers

__all__ = ["DNS_FAILED", "DNS_TIMEOUT", "MailHosts"]

DNS_TIMEOUT, DNS_FAILED = "dns_timeout", "dns_failed"
NAME_SECONDS, CALL_SECONDS = 2.0, 20.0
MOST_AT_ONCE = 64
MOST_REMEMBERED, REMEMBERED_SECONDS = 10_000, 3600.0
MOST_SHOWN = 20
#: RFC 6761, 6762, 7686, 9476: never asked for in the DNS.
_NEVER = frozenset({"invalid", "localhost", "local", "onion", "alt"})
Answer = Sequence[str] | str


class MailHosts:
    """The mail hosts of domains, remembered; one instance serves one event loop.

    Args:
        servers: DNS servers as `address` or `address:port` (`[address]:port` for IPv6); none: the system's.
        clock: seconds that only go forward.
    """

    def __init__(self, servers: Sequence[str] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._servers, self._clock = tuple(servers), clock
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._known: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    async def look_up(self, names: Iterable[str]) -> dict[str, Answer]:
        """The hosts of each name, best first; none when mail has nowhere to go; `dns_timeout` or `dns_failed`.

        Args:
            names: domains in lower case and punycode.
        """
        found: dict[str, Answer] = dict.fromkeys(names, DNS_TIMEOUT)

        async def ask(name: str) -> None:
            async with self._places:
                found[name] = await self._ask(name)

        open_names = []
        for name in found:
            known = self._recall(name)
            if known is None:
                open_names.append(name)
            else:
                found[name] = known
        if open_names:
            tasks = [asyncio.ensure_future(ask(name)) for name in open_names]
            try:
                await asyncio.wait(tasks, timeout=CALL_SECONDS)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return found

    async def _ask(self, name: str) -> Answer:
        try:
            async with asyncio.timeout(NAME_SECONDS):
                hosts = await self._hosts(name)
        except (TimeoutError, dns.exception.Timeout):
            return DNS_TIMEOUT
        except (dns.exception.DNSException, OSError):
            return DNS_FAILED
        self._remember(name, hosts)
        return hosts

    async def _hosts(self, name: str) -> tuple[str, ...]:
        try:
            answer = await self._resolve(name, dns.rdatatype.MX)
        except dns.resolver.NXDOMAIN:
            return ()
        if answer.rrset is not None:
            found = sorted((record.preference, record.exchange) for record in answer.rrset)
            # A single "." says that the domain takes no mail (RFC 7505).
            return tuple(host.to_text(omit_final_dot=True) for _, host in found if host != dns.name.root)[:MOST_SHOWN]
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            try:
                if (await self._resolve(name, kind)).rrset is not None:
                    return (name,)
            except dns.resolver.NXDOMAIN:
                return ()
        return ()

    async def _resolve(self, name: str, kind: dns.rdatatype.RdataType) -> dns.resolver.Answer:
        if self._resolver is None:
            self._resolver = _resolver(self._servers)
        # With the dot at its end: never continued by the search list of this machine.
        return await self._resolver.resolve(f"{name}.", kind, raise_on_no_answer=False, search=False)

    def _recall(self, name: str) -> tuple[str, ...] | None:
        if name.rpartition(".")[2] in _NEVER:
            return ()
        until, hosts = self._known.get(name, (0.0, ()))
        if until <= self._clock():
            return None
        self._known.move_to_end(name)
        return hosts

    def _remember(self, name: str, hosts: tuple[str, ...]) -> None:
        self._known[name] = (self._clock() + REMEMBERED_SECONDS, hosts)
        self._known.move_to_end(name)
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)


def _resolver(servers: Sequence[str]) -> dns.asyncresolver.Resolver:
    """A resolver without a cache of its own, asking `servers` or the system's."""
    resolver = dns.asyncresolver.Resolver(configure=not servers)
    resolver.lifetime, resolver.timeout = NAME_SECONDS, NAME_SECONDS / 2
    name_servers.use(resolver, servers)
    return resolver
