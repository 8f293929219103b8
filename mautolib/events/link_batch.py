"""The links of a content, prepared once: per message only an id and one token each are left to make.

Promise: exactly the links `MessageLinks` makes, byte for byte (tested): what the messages of a content share, the MAC
of each target included, is written once as `Form`, and the tokens of a message are signed and encoded together.
Called by message building; verifying is `links.LinkSigner`'s.
"""

from __future__ import annotations

import struct
from binascii import b2a_base64
from collections.abc import Sequence
from typing import Final, NamedTuple

from mautolib.events.links import LinkSigner, Owner, Purpose, head_of

#: A token without its tail, in characters; the public id of a contact.
TOKEN_LENGTH: Final = 40
CONTACT_LENGTH: Final = 12
_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")


class Wanted(NamedTuple):
    """One link of a content: what it is for, and for clicks where it leads and its position."""

    purpose: Purpose
    url: str = ""
    position: int = 0


class Form(NamedTuple):
    """One link as text: `before` + public id of the contact + `between` + the token of that number + `after`."""

    before: str
    between: str
    after: str
    token: int


class LinkBatch:
    """All links of one content; safe to share between threads."""

    def __init__(self, signer: LinkSigner, owner: Owner, wanted: Sequence[Wanted]) -> None:
        """Args:
        wanted: the links, in the order of `forms`.
        Raises:
            InvalidInput: a click does not lead to an http(s) URL.
        """
        self._signer = signer
        self._owner = owner
        purposes = list(dict.fromkeys(one.purpose for one in wanted))
        self.forms = [
            Form(*signer.parts(owner, one.purpose, one.url, one.position), purposes.index(one.purpose))
            for one in wanted
        ]
        #: How many tokens a message has: one for each purpose.
        self.token_count = len(purposes)
        self._macs = [signer.signing_macs[purpose] for purpose in purposes]
        self._split = struct.Struct(f"{TOKEN_LENGTH}s" * len(purposes)).unpack

    def sign(self, contact_id: int, message_id: int, made_milliseconds: int) -> tuple[bytes, tuple[bytes, ...]]:
        """The contact's public id, and the tokens that the forms number, in ASCII."""
        stamp = made_milliseconds.to_bytes(6, "big")
        head = head_of(self._owner, contact_id, message_id, stamp)
        hide = self._signer.hide
        raw = [(given := mac(head)) + hide(message_id, given) + stamp for mac in self._macs]
        # Each token is 30 bytes, a whole number of base64 groups: they can be encoded together.
        encoded = b2a_base64(b"".join(raw), newline=False).translate(_URLSAFE)
        hidden = b2a_base64(self._signer.hidden_contact(contact_id), newline=False).translate(_URLSAFE)
        return b"u" + hidden[: CONTACT_LENGTH - 1], self._split(encoded)
