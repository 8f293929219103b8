"""The last checks before anything is said to a mail server: an address, a message, and the demo's fence.

Promise: what passes is exactly the stored address (its domain in punycode), so no crafted address can become another
recipient or a command, and a message has CRLF line ends only, so no body can end early (SMTP smuggling,
CVE-2023-51764). Pure functions, used by every channel that talks to something.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

from mautolib.contacts.address import domain_name
from mautolib.errors import ProviderRejected
from mautolib.ledger.model import Result, Stage, Verdict

#: Domains that belong to nobody (RFC 2606, RFC 6761).
RESERVED_TOP_LEVELS: Final = ("test", "example", "invalid", "localhost")
RESERVED_DOMAINS: Final = ("example.com", "example.net", "example.org")
_MAX_OCTETS, _MAX_LOCAL = 254, 64
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")
_FORBIDDEN = re.compile(r'[\x00-\x20\x7f-\xa0"(),:;<>@\[\\\]\u2028\u2029]')


@lru_cache(maxsize=256)  # one address is asked about several times in a row
def wire_address(address: str, *, smtputf8: bool = False) -> str:
    """The address as it goes over the wire: `address` itself, its domain in punycode where it needs to be.

    Args:
        smtputf8: the other side takes a local part in UTF-8 (RFC 6531).
    Raises:
        ProviderRejected: not an address that can be said; nothing may be sent for it.
    """
    local, at, typed = address.rpartition("@")
    domain = domain_name(typed) if at else None
    if domain is None or not local or _FORBIDDEN.search(local):
        raise ProviderRejected("the address cannot be used in SMTP", code="invalid_address")
    if local.isascii():
        if not _LOCAL.fullmatch(local):
            raise ProviderRejected("the address cannot be used in SMTP", code="invalid_address")
    elif not smtputf8:
        raise ProviderRejected("the mail server does not take addresses outside ASCII (SMTPUTF8)", code="needs_utf8")
    wire = f"{local}@{domain}"
    if len(wire.encode()) > _MAX_OCTETS or len(local.encode()) > _MAX_LOCAL:
        raise ProviderRejected("the address is longer than SMTP allows", code="invalid_address")
    return wire


def is_reserved(address: str) -> bool:
    """Whether no real person can be behind an address."""
    domain = (domain_name(address.rpartition("@")[2]) or "").rstrip(".")
    top = domain.rpartition(".")[2]
    return top in RESERVED_TOP_LEVELS or any(
        domain == name or domain.endswith(f".{name}") for name in RESERVED_DOMAINS
    )


def is_loopback(host: str) -> bool:
    """Whether a host, as configured, is this machine: an address of it, or the name localhost."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.localdomain")


def check_data(data: bytes) -> None:
    """Refuse a message that is not made of CRLF lines, or holds what SMTP cannot carry.

    Raises:
        ProviderRejected: says what is wrong; a fault of the program, not of the recipient.
    """
    lines = data.count(b"\r\n")
    if data.count(b"\n") != lines or data.count(b"\r") != lines:
        raise ProviderRejected("the message has a line end that is not CRLF", code="bad_message")
    if b"\0" in data:
        raise ProviderRejected("the message holds a NUL", code="bad_message")
    if not data.endswith(b"\r\n"):
        raise ProviderRejected("the message does not end with a line end", code="bad_message")


def check_seven_bit(data: bytes) -> None:
    """Refuse 8-bit text for a server that was not told of it.

    Raises:
        ProviderRejected: only an address outside ASCII brings such text into our messages.
    """
    if not data.isascii():
        raise ProviderRejected("the mail server does not take text outside ASCII (SMTPUTF8)", code="needs_utf8")


def unfit(error: ProviderRejected) -> Result:
    """What such a refusal means for the message: it failed here, and nothing was said for it."""
    stage = Stage.BUILD if error.code == "bad_message" else Stage.ADDRESS
    enhanced = "5.6.7" if error.code == "needs_utf8" else ""
    return Result(verdict=Verdict.FAILED, stage=stage, enhanced=enhanced, reply=str(error))
