"""Who a mail is from: the sender's address, and whether we may use it.

Promise: an address outside the domains of `MAUTO_SENDER_DOMAINS` (where those are set) is never written into a mail;
what the settings say about signing and return paths is checked before launch. Used by readiness and building.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mautolib.campaigns.dkim import DkimSigner
from mautolib.channels.wire import wire_address
from mautolib.contacts.address import domain_name
from mautolib.errors import Misconfigured, ProviderRejected
from mautolib.settings import Settings, variable


def may_send_from(settings: Settings, address: str) -> bool:
    """Whether the domain of a sender is one of ours, or any is."""
    if not settings.sender_domains:
        return True
    domain = domain_name(address.rpartition("@")[2])
    ours = [domain_name(name) for name in settings.sender_domains]
    return domain is not None and any(name and (domain == name or domain.endswith(f".{name}")) for name in ours)


def sender_of(settings: Settings, from_email: str) -> str:
    """The sender's address as it goes over the wire; empty: that of the settings.

    Raises:
        Misconfigured: there is none, or it cannot be used.
    """
    address = from_email or settings.default_from_email
    if not address:
        raise Misconfigured(f"{variable('default_from_email')} is not set and the message names no sender")
    shown = re.sub(r"[^ -~]", "?", address)
    if not may_send_from(settings, address):
        raise Misconfigured(f"{shown} cannot be a sender: its domain is not in {variable('sender_domains')}")
    try:
        return wire_address(address)
    except ProviderRejected as error:
        raise Misconfigured(f"{shown} cannot be a sender: {error}") from error


def bounce_domain_of(settings: Settings) -> str:
    """The domain of return paths in ASCII; empty: bounces come back to the sender.

    Raises:
        Misconfigured: it is no domain.
    """
    if not settings.bounce_domain:
        return ""
    domain = domain_name(settings.bounce_domain)
    if domain is None:
        raise Misconfigured(f"{variable('bounce_domain')} is no domain")
    return domain


def setting_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is wrong with the settings of signing and return paths: the setting, and what to do."""
    try:
        DkimSigner.from_settings(settings)
    except Misconfigured as error:
        yield "dkim_key_file", str(error)
    try:
        bounce_domain_of(settings)
    except Misconfigured as error:
        yield "bounce_domain", str(error)
