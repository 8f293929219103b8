"""A body part laid out once in quoted-printable, with places that are filled for each message.

Promise: whatever is filled in, no line is longer than 76 characters, none begins with a dot, and decoding gives the
constant text with the values in their places (RFC 2045). A place of fixed width (an id, a token) stands in the line;
a value of any length stands on lines of its own between soft line breaks. Used by `assembly`.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

#: One less than a line may have, for the `=` of a soft line break.
ROOM: Final = 75
_SOFT: Final = b"=\r\n"
_SAFE: Final = re.compile(r"""[\w,;:!?'"()&/+-](?:[\w .,;:!?'"()&/+-]{0,70}[\w.,;:!?'"()&/+-])?""", re.ASCII)


@dataclass(frozen=True)
class Fixed:
    """A place for exactly `width` characters that need no encoding and never begin with a dot."""

    key: Any
    width: int


@dataclass(frozen=True)
class Loose:
    """A place for a value that `inline` has encoded."""

    key: Any


class Layout:
    """Constant bytes and keys in turn: bytes, key, bytes, ..., bytes."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self._out = bytearray()
        self._used = 0

    def raw(self, data: bytes) -> None:
        """Whole lines that are ready, such as headers."""
        self._out += data
        self._used = 0

    def place(self, key: Any) -> None:
        """A place in such a line."""
        self.pieces += [bytes(self._out), key]
        self._out.clear()

    def part(self, items: Sequence[str | Fixed | Loose]) -> None:
        """A body part; it ends with a line end, its own or one more."""
        self._used = 0
        for item in items:
            if isinstance(item, str):
                self.text(item)
            elif isinstance(item, Fixed):
                self._make_room(item.width)
                self.place(item.key)
                self._used += item.width
            else:
                if self._used:
                    self._out += _SOFT
                self.place(item.key)
                self._out += _SOFT
                self._used = 0
        last = items[-1] if items else ""
        if not (isinstance(last, str) and last.endswith(("\n", "\r"))):
            self._end_line()

    def done(self) -> list[Any]:
        """What was laid out."""
        return [*self.pieces, bytes(self._out)]

    def _make_room(self, width: int) -> None:
        if self._used + width > ROOM:
            self._out += _SOFT
            self._used = 0

    def text(self, text: str) -> None:
        """Constant text; line ends of any kind become CRLF."""
        for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")):
            if number:
                self._end_line()
            for byte in line.encode("utf-8", "replace"):
                self._unit(byte)

    def keep_blank(self) -> None:
        """Encode a blank that would be lost on the way, standing last in its line."""
        if self._used and self._out.endswith((b" ", b"\t")):
            blank = self._out.pop()
            self._used -= 1
            self._make_room(3)
            self._out += b"=%02X" % blank
            self._used += 3

    def _end_line(self) -> None:
        self.keep_blank()
        self._out += b"\r\n"
        self._used = 0

    def _unit(self, byte: int) -> None:
        is_plain = (33 <= byte <= 126 and byte != 61) or byte in (32, 9)
        self._make_room(1 if is_plain else 3)
        if not is_plain or (byte == 46 and self._used == 0):
            self._out += b"=%02X" % byte
            self._used += 3
        else:
            self._out.append(byte)
            self._used += 1


def inline(value: str) -> bytes:
    """A value for a `Loose` place: it begins at the start of a line, and a soft line break follows it."""
    if _SAFE.fullmatch(value):
        return value.encode("ascii")
    if "\r" in value:
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    octets = value.encode("utf-8", "replace")
    if len(octets) <= ROOM // 3 and b"\n" not in octets and octets[:1] != b".":
        # Too short to be folded however it is encoded.
        return binascii.b2a_qp(octets, istext=True)
    layout = Layout()
    layout.text(value)
    layout.keep_blank()
    return bytes(layout.done()[0])
