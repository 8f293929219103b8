"""Stretches of a CSV file that are well-formed beyond doubt, found by looking at all their bytes at once.

In a `Block` every quote opens or closes a cell or is doubled within one, every record has as many cells as the header,
none is blank or overlong, and all lines end alike; so any CSV reader reads it the same way. Called by the reader, for
which everything else is read line by line.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Block", "find_block"]

_DELIMITERS = ",;\t|"
_QUOTE, _LF, _CR = 34, 10, 13
#: Records that may be too long for the line by line reader are left to it.
_MOST_BYTES, _MOST_LINES = 1 << 16, 100


@dataclass(frozen=True, kw_only=True)
class Block:
    r"""Well-formed records.

    Args:
        data: UTF-8 in which \n ends every record.
        lines: the physical line each record begins on.
        line_count: physical lines of all records together.
        tail: text after the last whole record.
    """

    data: bytes
    lines: np.ndarray[Any, Any]
    line_count: int
    tail: str


def find_block(text: str, *, delimiter: str, width: int, line: int) -> Block | None:
    """The records at the beginning of `text`; None when there is any doubt about them.

    Args:
        text: whole lines.
        width: cells of a record.
        line: number of the first line.
    """
    import numpy as np

    data = _encoded(text)
    if data is None or delimiter not in _DELIMITERS:
        return None
    buffer = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero((buffer == _LF) | (buffer == ord(delimiter)))
    quotes = np.flatnonzero(buffer == _QUOTE) if b'"' in data else marks[:0]
    if quotes.size:
        # Outside of quotes is where an even number of them stands before.
        before = np.bincount(np.searchsorted(marks, quotes), minlength=marks.size + 1)
        outside = marks[np.cumsum(before[:-1]) % 2 == 0]
    else:
        outside = marks
    ends = outside[buffer[outside] == _LF]
    if not ends.size:
        return None
    size = int(ends[-1]) + 1
    quotes = quotes[: np.searchsorted(quotes, size)]
    breaks = marks[: np.searchsorted(marks, size)]
    breaks = breaks[buffer[breaks] == _LF]
    outside = outside[: np.searchsorted(outside, size)]
    has_cr = _line_ends(buffer, data, ends, size)
    if (has_cr is None or outside.size != ends.size * width or not np.array_equal(outside[width - 1 :: width], ends)
            or not _are_sound(buffer, quotes, ord(delimiter))):  # fmt: skip
        return None
    if np.diff(ends, prepend=-1).min() <= 1 + has_cr or np.diff(ends, prepend=-1).max() > _MOST_BYTES:
        return None
    last = np.searchsorted(breaks, ends)
    if np.diff(last, prepend=-1).max() > _MOST_LINES:
        return None
    return Block(
        data=data[:size],
        lines=line + np.concatenate(([0], last[:-1] + 1)), line_count=breaks.size, tail=data[size:].decode(),
    )  # fmt: skip


def _encoded(text: str) -> bytes | None:
    """UTF-8; None when a character needs a look: NUL, what stands for bytes that do not fit, the mark of `columns`."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return None
    # A byte order mark at the beginning is taken off by who reads the block, but it is part of a cell.
    if data.startswith(BOM_UTF8) or any(mark in data for mark in (b"\0", b"\xef\xbf\xbd", b"\x1f")):
        return None
    return data


def _line_ends(buffer: np.ndarray[Any, Any], data: bytes, ends: np.ndarray[Any, Any], size: int) -> bool | None:
    r"""Whether every record ends with \r\n; None: some do, or a \r stands elsewhere."""
    count = data.count(b"\r", 0, size)
    if not count:
        return False
    return True if count == ends.size and ends[0] and bool((buffer[ends - 1] == _CR).all()) else None


def _are_sound(buffer: np.ndarray[Any, Any], quotes: np.ndarray[Any, Any], delimiter: int) -> bool:
    """Whether the quotes pair off: the first of each pair begins a cell, the second ends it, or both are an escape."""

    if not quotes.size:
        return True
    opening, closing = quotes[::2], quotes[1::2]
    before, after = buffer[opening - 1], buffer[closing + 1]
    begins = (before == delimiter) | (before == _LF)
    begins[0] |= opening[0] == 0
    stops = (after == delimiter) | (after == _LF) | (after == _CR)
    # A doubled quote: one that closes, and right behind it one that opens again.
    is_escape = closing[:-1] + 1 == opening[1:]
    begins[1:] |= is_escape
    stops[:-1] |= is_escape
    return bool(begins.all() and stops.all())
