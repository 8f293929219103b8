"""Tracking links: public ids and signed message tokens, made while rendering and read when a hit comes in.

A public id is a keyed permutation of a row id (it hides counts, it is not a secret); the token `s` carries the
message and a 128-bit MAC over purpose, owner, contact, message and time, that of a click also a 96-bit MAC over owner,
position and URL: nobody is led where no mail of that owner leads. Every key of the ring verifies, only the newest
signs; public ids are keyed by the pepper and outlive rotation. Links hold no address and no sequential id. Called by
message rendering and `api/tracking.py`. It stores nothing and knows no HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import quote

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mautolib.errors import InvalidInput
from mautolib.settings import Settings

__all__ = ["IdKind", "LinkSigner", "MessageLinks", "Owner", "Purpose", "Token", "is_web_url"]

_URLSAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PLAIN_ID = re.compile(r"[0-9]{1,19}\Z", re.ASCII)
# 40 characters of base64 (MAC 16, message 8, time 6 bytes), of a click 16 more (MAC of its target, 12 bytes), then the
# link's position in base 36. The message is hidden by a block of AES that the MAC chooses, as in SIV (RFC 5297): one
# block where a permutation takes four. The tail is always alphanumeric, so a mail client's link finder never cuts a
# trailing - or _ off. The two MACs of a click are apart because the first is that of all links of a message, the second
# that of a link in all messages: ten links of a million messages are a million and ten MACs, not ten million.
_TOKEN = re.compile(r"([A-Za-z0-9_-]{40})([A-Za-z0-9_-]{16})?(0|[1-9a-z][0-9a-z]{0,3})\Z", re.ASCII)
_TARGET_MAC = 12
_HEAD = struct.Struct(">cQQQ6s").pack
_MAX_ID = (1 << 63) - 1
_HALF = (1 << 32) - 1
_WEB_URL = re.compile(
    r"https?://(?:[^\s/?#\\@]*@)?[^\s/?#\\@:\x00-\x20\x7f][^\s\\\x00-\x20\x7f]*\Z", re.IGNORECASE
)
#: Longer targets are refused; browsers and gateways cut them anyway.
MAX_URL = 4096


class IdKind(StrEnum):
    """What a public id stands for; the value is its first letter, so one kind never passes for another."""

    CAMPAIGN = "c"
    WORKFLOW = "w"
    NOTHING = "n"
    CONTACT = "u"
    MESSAGE = "m"


_OWNERS = (IdKind.CAMPAIGN, IdKind.WORKFLOW, IdKind.NOTHING)


class Purpose(StrEnum):
    """What a token allows; each has keys of its own."""

    OPEN = "open"
    CLICK = "click"
    UNSUBSCRIBE = "unsubscribe"
    PREFERENCES = "preferences"
    CONFIRM = "confirm"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """What a message belongs to: a campaign, a workflow, or neither."""

    kind: IdKind
    owner_id: int

    @cached_property
    def letter(self) -> bytes:
        """The kind's letter, as it is signed."""
        return self.kind.value.encode("ascii")

    @classmethod
    def of(cls, *, campaign_id: int | None = None, workflow_id: int | None = None) -> Owner:
        """The owner of a ledger row."""
        if campaign_id is not None:
            return cls(kind=IdKind.CAMPAIGN, owner_id=campaign_id)
        if workflow_id is not None:
            return cls(kind=IdKind.WORKFLOW, owner_id=workflow_id)
        return cls(kind=IdKind.NOTHING, owner_id=0)


class Token(NamedTuple):
    """What a valid link says; a tuple, because every hit makes one."""

    owner: Owner
    contact_id: int
    message_id: int
    made_milliseconds: int
    position: int

    @property
    def campaign_id(self) -> int | None:
        """The campaign, if the message belongs to one."""
        return self.owner.owner_id if self.owner.kind is IdKind.CAMPAIGN else None

    @property
    def made_at(self) -> datetime:
        """When the message was rendered, just before its hand-over."""
        return datetime.fromtimestamp(self.made_milliseconds / 1000, UTC)


#: Gives the MAC of its argument.
Mac = Callable[[bytes], bytes]


class _Hash(Protocol):
    def copy(self) -> _Hash: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


def _mac(key: bytes) -> Mac:
    """A function that gives a MAC of 16 bytes: keyed BLAKE2s (RFC 7693), in a third of the time of HMAC-SHA256."""
    started: _Hash = hashlib.blake2s(key=key, digest_size=16, person=b"link")

    def sign(data: bytes) -> bytes:
        state = started.copy()
        state.update(data)
        return state.digest()

    return sign


class _Permutation:
    """Four Feistel rounds over 64 bits: a strong pseudo-random permutation (Luby and Rackoff, 1988).

    A round is a block of AES that says which kind of id and which round it is: one call of 0.1 us.
    """

    def __init__(self, encrypt: Callable[[bytes], bytes], kind: IdKind) -> None:
        self._encrypt = encrypt
        self._rounds = [(ord(kind.value) << 8 | number) << 32 for number in range(4)]
        self._backward = self._rounds[::-1]

    def forward(self, number: int) -> bytes:
        left, right = number >> 32, number & _HALF
        for place in self._rounds:
            left, right = right, left ^ int.from_bytes(self._encrypt((place | right).to_bytes(16, "big"))[:4], "big")
        return (left << 32 | right).to_bytes(8, "big")

    def backward(self, block: bytes) -> int:
        encrypt, read = self._encrypt, int.from_bytes
        left, right = read(block[:4], "big"), read(block[4:], "big")
        for place in self._backward:
            left, right = right ^ read(encrypt((place | left).to_bytes(16, "big"))[:4], "big"), left
        return left << 32 | right


class MessageLinks:
    """The links of one message; made once for it, because what its tokens share is computed once."""

    def __init__(self, signer: LinkSigner, owner: Owner, contact_id: int, message_id: int, made_at: datetime) -> None:
        self._base = f"{signer.base_url}/api/v1/track/"
        self._contact = signer.public_id(IdKind.CONTACT, contact_id)
        self._path = f"/{signer.owner_id(owner)}/{self._contact}?"
        self._stamp = int(made_at.timestamp() * 1000).to_bytes(6, "big")
        self._head = head_of(owner, contact_id, message_id, self._stamp)
        self._message_id = message_id
        self._macs = signer.signing_macs
        self._signer, self._owner = signer, owner

    def open(self) -> str:
        """The address of the open pixel."""
        return f"{self._base}open{self._path}s={self._short(Purpose.OPEN)}"

    def unsubscribe(self) -> str:
        """The unsubscribe page; also the List-Unsubscribe address (RFC 8058)."""
        return f"{self._base}unsubscribe{self._path}s={self._short(Purpose.UNSUBSCRIBE)}"

    def preferences(self) -> str:
        """The page where the person sees and changes what we keep about mailing them."""
        return f"{self._base}preferences{self._path}s={self._short(Purpose.PREFERENCES)}"

    def confirm(self) -> str:
        """The double opt-in link; only a message that belongs to nothing (`Owner.of()`) has a genuine one."""
        return f"{self._base}confirm/{self._contact}?s={self._short(Purpose.CONFIRM)}"

    def clicks(self, urls: list[str], *, first_position: int = 0) -> list[str]:
        """Tracked addresses of `urls`, in order; positions count from `first_position`.

        Raises:
            InvalidInput: a URL is not http(s).
        """
        return [self.click(url, position=first_position + n) for n, url in enumerate(urls)]

    def click(self, url: str, *, position: int = 0) -> str:
        """The tracked address of `url`, the link at `position` in the message.

        Raises:
            InvalidInput: not an http(s) URL of at most 4096 characters.
        """
        tail = self._signer.target_mark(self._owner, position, url) + _base36(position)
        return f"{self._base}click{self._path}url={_target(url)[0]}&s={self._click_token}{tail}"

    def _short(self, purpose: Purpose) -> str:
        return f"{self._token(purpose)}0"

    @cached_property
    def _click_token(self) -> str:
        return self._token(Purpose.CLICK)

    def _token(self, purpose: Purpose) -> str:
        mac = self._macs[purpose](self._head)
        return _text(mac + self._signer.hide(self._message_id, mac) + self._stamp)


class LinkSigner:
    """Makes and reads every public link; safe to share between threads.

    Args:
        base_url: where the links point, without a trailing slash.
        id_key: 32 bytes that never change (they make the public ids).
        rings: the keys of each purpose, newest first.
    """

    def __init__(self, *, base_url: str, id_key: bytes, rings: dict[Purpose, tuple[bytes, ...]]) -> None:
        self.base_url = base_url.rstrip("/")
        # One block each time, so nothing is left behind in it: it may be shared between threads.
        self.encrypt = Cipher(algorithms.AES(id_key), modes.ECB()).encryptor().update  # noqa: S305 - a PRF, not a mode
        self._permutations = {kind.value: _Permutation(self.encrypt, kind) for kind in IdKind}
        self._contacts = self._permutations[IdKind.CONTACT.value]
        self._rings = {purpose: [_mac(key) for key in keys] for purpose, keys in rings.items()}
        self.signing_macs = {purpose: macs[0] for purpose, macs in self._rings.items()}
        # Few campaigns at a time, many messages of each.
        self.owner_id = lru_cache(maxsize=1024)(self._owner_id)
        self._read_owner = lru_cache(maxsize=1024)(self._read_any_owner)
        self.target_mark = lru_cache(maxsize=4096)(self._target_mark)
        # The links of a mailing are followed again and again; only who holds a genuine token gets this far.
        self._mark = lru_cache(maxsize=4096)(_mark)

    @classmethod
    def from_settings(cls, settings: Settings) -> LinkSigner:
        """The signer of this installation.

        Raises:
            Misconfigured: keys or pepper are missing or weak.
        """
        rings = {purpose: settings.keys(f"link-{purpose.value}") for purpose in Purpose}
        return cls(base_url=settings.public_base_url, id_key=settings.pepper("public-ids"), rings=rings)

    def for_message(
        self, *, owner: Owner, contact_id: int, message_id: int, made_at: datetime
    ) -> MessageLinks:
        """The links of one message.

        Args:
            made_at: when it is rendered; hits that come faster than a person could are told by it.
        """
        return MessageLinks(self, owner, contact_id, message_id, made_at)

    def open_url(self, *, owner: Owner, contact_id: int, message_id: int, made_at: datetime) -> str:
        """One open pixel; `for_message` is the faster way to several links of a message."""
        return MessageLinks(self, owner, contact_id, message_id, made_at).open()

    def click_url(
        self, url: str, *, owner: Owner, contact_id: int, message_id: int, made_at: datetime, position: int = 0
    ) -> str:
        """One tracked link to `url`.

        Raises:
            InvalidInput: not an http(s) URL.
        """
        return MessageLinks(self, owner, contact_id, message_id, made_at).click(url, position=position)

    def unsubscribe_url(self, *, owner: Owner, contact_id: int, message_id: int, made_at: datetime) -> str:
        """One unsubscribe link."""
        return MessageLinks(self, owner, contact_id, message_id, made_at).unsubscribe()

    def public_id(self, kind: IdKind, row_id: int) -> str:
        """The public form of a row id: a letter and 11 characters, the same for ever."""
        block = self._permutations[kind.value].forward(row_id)
        return kind.value + b2a_base64(block, newline=False).translate(_URLSAFE).decode("ascii").rstrip("=")

    def read_public_id(self, text: str) -> tuple[IdKind, int] | None:
        """The kind and row id behind a public id; None for anything that is none."""
        row_id = self._read_id(text[:1], text)
        return None if row_id is None else (IdKind(text[0]), row_id)

    def hide(self, message_id: int, mac: bytes) -> bytes:
        """The eight bytes that stand for a message in the token with that MAC."""
        return (message_id ^ int.from_bytes(self.encrypt(mac)[:8], "big")).to_bytes(8, "big")

    def hidden_contact(self, contact_id: int) -> bytes:
        """The eight bytes behind the letter of a contact's public id."""
        return self._contacts.forward(contact_id)

    def verify(self, purpose: Purpose, cid: str, uid: str, s: str, *, url: str = "") -> Token | None:
        """What a link says, or None when it was not made here for this purpose, owner, contact and URL.

        `cid` and `uid` may be public or plain ids. Punctuation that mail programs glue to the end is ignored.
        """
        match = _TOKEN.match(s.rstrip("=.,;:!?)>]'\"\r\n ")) if len(s) <= 80 else None
        contact_id = self._read_contact(uid)
        if match is None or contact_id is None:
            return None
        front, mark, tail = match.groups()
        raw = a2b_base64(front.encode("ascii").translate(_STANDARD))
        mac, stamp = raw[:16], raw[24:]
        message_id = int.from_bytes(self.hide(int.from_bytes(raw[16:24], "big"), mac), "big")
        position, is_click = int(tail, 36), purpose is Purpose.CLICK
        if message_id > _MAX_ID or is_click != (mark is not None) or (not is_click and (position or url)):
            return None
        for owner in self._read_owner(cid):
            head = head_of(owner, contact_id, message_id, stamp)
            for key in self._rings[purpose]:
                if not hmac.compare_digest(key(head), mac):
                    continue
                if not is_click or hmac.compare_digest(self._mark(key, owner, position, url), mark):
                    return Token(owner, contact_id, message_id, int.from_bytes(stamp, "big"), position)
        return None

    def verify_confirmation(self, uid: str, s: str) -> Token | None:
        """What a double opt-in link says (its path names no owner), or None when it was not made here."""
        return self.verify(Purpose.CONFIRM, self.owner_id(Owner.of()), uid, s)

    def parts(self, owner: Owner, purpose: Purpose, url: str = "", position: int = 0) -> tuple[str, str, str]:
        """A link around the contact's public id and the token of its purpose, which is that of the whole message.

        Raises:
            InvalidInput: a click that does not lead to an http(s) URL.
        """
        base, owner_id = f"{self.base_url}/api/v1/track/", self.owner_id(owner)
        if purpose is Purpose.CLICK:
            mark = self.target_mark(owner, position, url)
            return f"{base}click/{owner_id}/", f"?url={_target(url)[0]}&s=", f"{mark}{_base36(position)}"
        of_owner = "" if purpose is Purpose.CONFIRM else f"{owner_id}/"
        return f"{base}{purpose.value}/{of_owner}", "?s=", "0"

    def _target_mark(self, owner: Owner, position: int, url: str) -> str:
        _target(url)
        return _mark(self._rings[Purpose.CLICK][0], owner, position, url)

    def _owner_id(self, owner: Owner) -> str:
        return self.public_id(owner.kind, owner.owner_id)

    def _read_id(self, letter: str, text: str) -> int | None:
        if len(text) != 12 or text[0] != letter or letter not in self._permutations:
            return None
        block = _unbase64(text[1:] + "=")
        row_id = self._permutations[letter].backward(block) if block is not None and len(block) == 8 else _MAX_ID + 1
        return row_id if row_id <= _MAX_ID else None

    def _read_contact(self, uid: str) -> int | None:
        if _PLAIN_ID.match(uid):
            plain = int(uid)
            return plain if plain <= _MAX_ID else None
        return self._read_id("u", uid)

    def _read_any_owner(self, cid: str) -> tuple[Owner, ...]:
        if _PLAIN_ID.match(cid):
            return tuple(Owner(kind=kind, owner_id=int(cid)) for kind in _OWNERS if int(cid) <= _MAX_ID)
        read = self.read_public_id(cid)
        return (Owner(kind=read[0], owner_id=read[1]),) if read is not None and read[0] in _OWNERS else ()


def is_web_url(url: str) -> bool:
    """Whether a link may lead there: http or https with a host, nothing a browser would read in another way."""
    return len(url) <= MAX_URL and _WEB_URL.match(url) is not None


def head_of(owner: Owner, contact_id: int, message_id: int, stamp: bytes) -> bytes:
    """What every token of a message signs."""
    return _HEAD(owner.letter, owner.owner_id, contact_id, message_id, stamp)


def _mark(key: Mac, owner: Owner, position: int, url: str) -> str:
    """The MAC of a link's target, the same in every message of its owner; it begins like no head of a message does."""
    place = struct.pack(">c3scQI", b"\0", b"url", owner.letter, owner.owner_id, position)
    return _text(key(place + url.encode("utf-8", "surrogatepass"))[:_TARGET_MAC])


def _text(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).translate(_URLSAFE).decode("ascii")


@lru_cache(maxsize=4096)
def _target(url: str) -> tuple[str, bytes]:
    if not is_web_url(url):
        raise InvalidInput("a tracked link must start with http:// or https:// and name a host", path=("url",))
    return quote(url, safe=""), url.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1024)
def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if number == 0:
            return digits


def _unbase64(text: str) -> bytes | None:
    try:
        return a2b_base64(text.encode("ascii").translate(_STANDARD), strict_mode=True)
    except (Base64Error, ValueError):
        return None
