"""The outer form of a mail: header lines and body parts as bytes, made by hand because they are made a million times.

Promise: whatever stands in a name, subject or body, a parser reads back exactly that and no other header: control
characters are refused, what is not plain ASCII becomes encoded words (RFC 2047), bodies are quoted-printable with
lines of at most 76 characters (RFC 2045), every line end is CRLF. Pure functions, used by `building`.
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache
from typing import Final

from mautolib.errors import InvalidInput

MAX_LINE: Final = 76
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN_WORDS: Final = re.compile(r"[!-~]+(?: [!-~]+)*")
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
#: binascii lets a line grow to 78 by the blank at its end.
_TOO_LONG: Final = re.compile(rb"^([^\n]{74,75})(=(?:20|09))$", re.MULTILINE)
#: 45 octets become 60 characters of base64, 72 with `=?utf-8?b?` and `?=`.
_OCTETS_PER_WORD: Final = 45


def text_header(name: str, value: str) -> bytes:
    """A header whose value is free text, such as Subject.

    Raises:
        InvalidInput: a control character or line break in `value`.
    """
    refuse_controls(name, value)
    if _PLAIN_WORDS.fullmatch(value) and "=?" not in value:
        folded = _folded(f"{name}: {value}")
        if folded is not None:
            return folded
    return f"{name}: {_encoded(value, len(name) + 2)}\r\n".encode("ascii")


@lru_cache(maxsize=1024)
def mailbox_header(name: str, display_name: str, address: str) -> bytes:
    """A header that holds one mailbox, such as From.

    Args:
        address: ASCII, already checked (see `channels.wire.wire_address`).
    Raises:
        InvalidInput: a control character or line break.
    """
    refuse_controls(name, display_name + address)
    if not display_name:
        return f"{name}: {address}\r\n".encode("ascii")
    if _ATOMS.fullmatch(display_name) and "=?" not in display_name:
        phrase = display_name
    elif display_name.isascii() and "=?" not in display_name:
        escaped = display_name.replace("\\", "\\\\").replace('"', '\\"')
        phrase = f'"{escaped}"'
    else:
        phrase = _encoded(display_name, len(name) + 2)
    if len(phrase) > MAX_LINE - len(name) and "\r\n" not in phrase:
        phrase = _encoded(display_name, len(name) + 2)
    last = len(phrase.rpartition("\r\n")[2]) + (0 if "\r\n" in phrase else len(name) + 2)
    gap = "\r\n " if last + len(address) + 3 > MAX_LINE else " "
    return f"{name}: {phrase}{gap}<{address}>\r\n".encode("ascii")


def plain_header(name: str, value: str) -> bytes:
    """A header whose value is ours (addresses, ids, URLs): one line, however long, at most 998 octets.

    Raises:
        InvalidInput: a control character, or longer than a line may be.
    """
    refuse_controls(name, value)
    line = f"{name}: {value}\r\n".encode()
    if len(line) > 1000:
        raise InvalidInput(f"The header {name} is longer than a line may be", path=(name,))
    return line


def refuse_controls(name: str, value: str) -> None:
    """Raise `InvalidInput` if `value` could end its header line."""
    if not value.isprintable() and _CONTROL.search(value):
        raise InvalidInput(f"The header {name} holds a control character or line break", path=(name,))


def quoted_printable(text: str) -> bytes:
    """A body part in quoted-printable, CRLF at its end; line ends of any kind become CRLF."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    encoded = binascii.b2a_qp(text.encode("utf-8", "replace"), quotetabs=False, istext=True)
    if " \n" in text or "\t\n" in text or text[-1:] in " \t":
        encoded = _TOO_LONG.sub(rb"\1=\n\2", encoded)
    encoded = encoded.replace(b"\n", b"\r\n")
    return encoded if encoded.endswith(b"\r\n") else encoded + b"\r\n"


def _folded(line: str) -> bytes | None:
    """The header folded at spaces; None if a word is too long for a line."""
    if len(line) <= MAX_LINE:
        return f"{line}\r\n".encode("ascii")
    lines = [""]
    for word in line.split(" "):
        if len(word) >= MAX_LINE - 1:
            return None
        if lines[-1] and len(lines[-1]) + 1 + len(word) > MAX_LINE:
            lines.append(f" {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return ("\r\n".join(lines) + "\r\n").encode("ascii")


def _encoded(value: str, used: int) -> str:
    """`value` as encoded words, each of whole characters, folded so that every line keeps to its length."""
    octets = value.encode("utf-8", "replace")
    words: list[str] = []
    room = max(8, min(_OCTETS_PER_WORD, (MAX_LINE - used - 12) // 4 * 3))
    start = 0
    while len(octets) - start > room:
        end = start + room
        while octets[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        words.append(_word(octets[start:end]))
        start, room = end, _OCTETS_PER_WORD
    words.append(_word(octets[start:]))
    return "\r\n ".join(words)


def _word(block: bytes) -> str:
    return f"=?utf-8?b?{binascii.b2a_base64(block, newline=False).decode('ascii')}?="
