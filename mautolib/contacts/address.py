"""Addresses: what is one, what decides that two are the same, and what a person meant to type.

`address_key` (NFKC, lower case, domain in punycode) is the identity of a contact and of a suppression.
`parse` is strict: dot-atom local part, a host name with a dot, no quotes, comments or literals, no control
characters, so nothing that passes can smuggle a second recipient or header. Pure functions; no DNS, no database.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import idna

from mautolib.errors import InvalidInput

__all__ = ["Address", "MAX_CHARACTERS", "MAX_MAILABLE_OCTETS", "address_key", "domain_name", "is_address", "parse",
           "unwrap"]  # fmt: skip

MAX_CHARACTERS = 320
#: RFC 5321 4.5.3.1.3 leaves 254 octets for what stands between the angle brackets.
MAX_MAILABLE_OCTETS = 254
_MAX_LOCAL = 64
_MAX_DOMAIN = 253

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]"
_PLAIN_LOCAL = re.compile(rf"{_ATOM}+(?:\.{_ATOM}+)*")
_PLAIN_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?")
_SPECIALS = frozenset(" \"(),:;<>@[\\]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ANGLE = re.compile(r"[^<>]*<([^<>]*)>")


@dataclass(frozen=True, kw_only=True)
class Address:
    """An acceptable address: as stored (`email`), as compared (`key`), and its two halves as compared."""

    email: str
    key: str
    local: str
    domain: str


def parse(text: str) -> Address:
    """Read an address as it was typed, surrounding spaces removed; line breaks are never part of one.

    Raises:
        InvalidInput: not an address, or longer than 320 characters.
    """
    if _CONTROL.search(text):
        raise InvalidInput("Invalid email")
    email = text.strip()
    if len(email) > MAX_CHARACTERS:
        raise InvalidInput(f"An e-mail address has at most {MAX_CHARACTERS} characters")
    local, at, typed_domain = email.rpartition("@")
    domain = domain_name(typed_domain) if at else None
    if domain is None or not _is_local(local) or not _is_visible(typed_domain):
        raise InvalidInput("Invalid email")
    shown = _shown_domain(typed_domain)
    local_key = unicodedata.normalize("NFKC", local).lower()
    return Address(email=f"{local}@{shown}", key=f"{local_key}@{domain}", local=local_key, domain=domain)


def is_address(text: str) -> bool:
    """Whether `parse` accepts `text`."""
    try:
        parse(text)
    except InvalidInput:
        return False
    return True


def address_key(email: str) -> str:
    """The key that decides uniqueness, look-up and suppression; any text has one, valid address or not."""
    # What PostgreSQL cannot hold (and no stored key has) is replaced, so that any text can be looked up.
    storable = _UNSTORABLE.sub("\ufffd", email.strip())
    text = storable if "@" in storable else unicodedata.normalize("NFKC", storable)
    local, at, domain = text.rpartition("@")
    if not at:
        return text.lower()
    plain = unicodedata.normalize("NFKC", domain)
    name = domain_name(domain) or domain_name(plain) or plain.lower()
    return f"{unicodedata.normalize('NFKC', local).lower()}@{name}"


@lru_cache(maxsize=65536)
def domain_name(domain: str) -> str | None:
    """The host name of `domain` in lower case and punycode, None when it is not a name mail can go to.

    A name has a dot, labels of 1 to 63 letters, digits and inner hyphens, at most 253 octets and a last label
    that is not a number (an IP address is not a name). Hyphens in third and fourth place are punycode (RFC 5890).
    """
    # Before it is encoded: no name gets shorter by that, and the time it takes grows with the square of its length.
    if len(domain) > _MAX_DOMAIN:
        return None
    text = domain.lower()
    if not domain.isascii():
        try:
            text = idna.encode(domain, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return None
    if len(text) > _MAX_DOMAIN or not _PLAIN_DOMAIN.fullmatch(text) or text.rpartition(".")[2].isdigit():
        return None
    return text if "--" not in text or _is_idna(text) else None


def _is_idna(domain: str) -> bool:
    """Whether all labels with hyphens in third and fourth place are names in another script.

    One that is read from right to left obliges all labels (RFC 5893), or two domains could look the same.
    """
    if any(label[2:4] == "--" and not label.startswith("xn--") for label in domain.split(".")):
        return False
    try:
        labels = idna.decode(domain).split(".")
        if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for label in labels for c in label):
            for label in labels:
                idna.check_bidi(label, check_ltr=True)
    except (idna.IDNAError, UnicodeError):
        return False
    return True


def _is_visible(domain: str) -> bool:
    """Whether there is nothing in a domain that cannot be seen, changes the @, or hides a dot."""
    return domain.isascii() or (
        unicodedata.category(domain[0])[0] != "M"
        and not any(unicodedata.category(c)[0] in "CZ" for c in domain)
        and not any("." in unicodedata.normalize("NFKC", c) for c in domain if c not in ".\uff0e")
    )


@lru_cache(maxsize=65536)
def _shown_domain(domain: str) -> str:
    """A name as it was typed, in the form that is encoded: lower case, full-width forms as what they mean."""
    return domain.lower() if domain.isascii() else idna.uts46_remap(domain, std3_rules=False)


def _is_local(local: str) -> bool:
    if len(local) > _MAX_LOCAL:
        return False
    if _PLAIN_LOCAL.fullmatch(local):
        return True
    # Internationalised local parts (RFC 6531) are kept, but nothing that normalises to a special character.
    if local.isascii() or len(local.encode("utf-8", "replace")) > _MAX_LOCAL:
        return False
    text = unicodedata.normalize("NFKC", local)
    # A mark at the beginning would change what stands before the address.
    if text.startswith(".") or text.endswith(".") or ".." in text or unicodedata.category(local[0])[0] == "M":
        return False
    return not any(c in _SPECIALS or (ord(c) > 127 and unicodedata.category(c)[0] in "CZ") or c < " " or c == "\x7f"
                   for c in local + text)  # fmt: skip


def unwrap(text: str) -> str:
    """What stands inside `mailto:...` or `Name <...>`, for addresses copied from a mail program; else `text`."""
    text = text.strip()
    if text[:7].lower() == "mailto:":
        text = text[7:].partition("?")[0].strip()
    if text.endswith(">"):
        inside = _ANGLE.fullmatch(text)
        if inside:
            text = inside[1].strip()
            if text[:7].lower() == "mailto:":
                text = text[7:].strip()
    return text
