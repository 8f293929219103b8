"""A name server on loopback: answers from a table, keeps what it was asked, and can be told to keep silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class NameServer:
    """What it says: `records` is name -> type -> values; a name in `silent` gets no answer, one in `failing` SERVFAIL.

    Names that occur nowhere do not exist.
    """

    records: Mapping[str, Mapping[str, tuple[str, ...]]]
    silent: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()
    address: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, wire: bytes) -> bytes | None:
        """The answer to one question, None for silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if name in self.silent:
            return None
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        if name in self.failing:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self.records:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif kind in self.records[name]:
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *self.records[name][kind]))
        return reply.to_wire()


@contextmanager
def serve_names(server: NameServer) -> Iterator[NameServer]:
    """Run it on a free port of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(0.05)
        server.address = f"127.0.0.1:{opened.getsockname()[1]}"
        done = threading.Event()

        def run() -> None:
            while not done.is_set():
                try:
                    wire, peer = opened.recvfrom(4096)
                except TimeoutError:
                    continue
                reply = server.answer(wire)
                if reply is not None:
                    opened.sendto(reply, peer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            done.set()
            thread.join(5)
