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

    Positions = np.ndarray[Any, Any]

__all__ = ["Block", "find_block"]

_DELIMITERS = ",;\t|"
_QUOTE, _LF, _CR, _TAB, _SPACE, _APOSTROPHE, _BACKSLASH = 34, 10, 13, 9, 32, 39, 92
#: Records that may be too long for the line by line reader are left to it.
_MOST_BYTES, _MOST_LINES = 1 << 16, 100
#: Bytes beyond printable ASCII that only letters everybody knows have: Latin, most Cyrillic, Chinese and Korean ones.
_LETTERS = frozenset((*range(0x80, 0xC0), *range(0xC3, 0xCC), 0xD0, 0xD1, *range(0xE4, 0xEA), 0xEB, 0xEC))
_UNUSUAL = bytes(byte not in _LETTERS and byte not in (_LF, _CR) for byte in range(256))


@dataclass(frozen=True, kw_only=True)
class Block:
    r"""Well-formed records.

    Args:
        data: UTF-8 in which \n or \r\n ends every record.
        lines: the physical line each record begins on.
        line_count: physical lines of all records together.
        tail: what comes after the last whole record.
        unusual: the records that may have a control character, a line break, a backslash, a character beyond
            `_LETTERS`, or a cell with a blank at an edge or an apostrophe at its beginning. No other has.
        broken: the columns of cells with a line break.
        quoting: the columns of cells with a quote.
    """

    data: bytes
    lines: Positions
    line_count: int
    tail: bytes
    unusual: Positions
    broken: frozenset[int]
    quoting: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """Where things are in whole records: `specials` are all bytes but printable ASCII, breaks are `ends` or `inner`."""

    data: bytes
    buffer: Positions
    delimiter: int
    specials: Positions
    breaks: Positions
    quotes: Positions
    ends: Positions
    inner: Positions
    delimiters: Positions
    outside: Positions


def find_block(data: bytes, *, delimiter: str, width: int, line: int) -> Block | None:
    """The records at the beginning of `data`; None when there is any doubt about them.

    Args:
        data: whole lines, in UTF-8.
        width: cells of a record.
        line: number of the first line.
    """
    import numpy as np

    scan = _scan(data, ord(delimiter)) if delimiter in _DELIMITERS else None
    if scan is None:
        return None
    kinds, ends = scan.buffer[scan.specials], scan.ends
    has_cr, edges = _has_cr(scan, kinds), _edges(scan)
    if has_cr is None or edges is None or not _are_rows(scan, width) or not _is_text(scan.data, kinds):
        return None
    lengths, last = np.diff(ends, prepend=-1), np.searchsorted(scan.breaks, ends)
    if lengths.min() <= 1 + has_cr or lengths.max() > _MOST_BYTES or np.diff(last, prepend=-1).max() > _MOST_LINES:
        return None
    return Block(
        data=scan.data, lines=line + np.concatenate(([0], last[:-1] + 1)), line_count=scan.breaks.size,
        tail=data[len(scan.data) :], unusual=_unusual(scan, kinds, edges, has_cr),
        broken=_columns(scan, scan.inner, width), quoting=_columns(scan, edges.escapes, width),
    )  # fmt: skip


def _scan(data: bytes, delimiter: int) -> _Scan | None:
    """Look at every byte; None when there is no whole record."""
    import numpy as np

    buffer = np.frombuffer(data, np.uint8)
    # One subtraction tells all that is not printable ASCII: what is below wraps around.
    specials = np.flatnonzero(buffer - np.uint8(32) > 94)
    breaks = specials[buffer[specials] == _LF]
    quotes = np.flatnonzero(buffer == _QUOTE) if b'"' in data else breaks[:0]
    # Within quotes is where an odd number of them stands before.
    is_inner = np.searchsorted(quotes, breaks) % 2 == 1 if quotes.size else np.zeros(breaks.size, np.bool)
    ends, inner = breaks[~is_inner], breaks[is_inner]
    if not ends.size:
        return None
    size = int(ends[-1]) + 1
    buffer = buffer[:size]
    specials, breaks, quotes, inner = (
        found[: np.searchsorted(found, size)] for found in (specials, breaks, quotes, inner)
    )
    delimiters = np.flatnonzero(buffer == delimiter)
    return _Scan(
        data=data[:size], buffer=buffer, delimiter=delimiter, specials=specials, breaks=breaks, quotes=quotes,
        ends=ends, inner=inner, delimiters=delimiters, outside=_outside(delimiters, quotes),
    )  # fmt: skip


def _outside(marks: Positions, quotes: Positions) -> Positions:
    """The marks that are not within quotes."""
    import numpy as np

    if not quotes.size:
        return marks
    first, last = np.searchsorted(marks, quotes[::2]), np.searchsorted(marks, quotes[1::2])
    has_some = first < last
    if not has_some.any():
        return marks
    first, counts = first[has_some], (last - first)[has_some]
    inside = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
    return np.delete(marks, inside)


def _are_rows(scan: _Scan, width: int) -> bool:
    """Whether the delimiters make as many cells of every record as there should be."""
    outside, ends = scan.outside, scan.ends
    if outside.size != ends.size * (width - 1):
        return False
    if width == 1:
        return True
    rows = outside.reshape(-1, width - 1)
    return bool((rows[:, -1] < ends).all() and (rows[1:, 0] > ends[:-1]).all())


def _has_cr(scan: _Scan, kinds: Positions) -> bool | None:
    r"""Whether every record ends with \r\n; None: some do, or a \r stands elsewhere."""
    count, ends = int((kinds == _CR).sum()), scan.ends
    if not count:
        return False
    return True if count == ends.size and ends[0] and bool((scan.buffer[ends - 1] == _CR).all()) else None


def _is_text(data: bytes, kinds: Positions) -> bool:
    """Whether this is UTF-8 without what needs a look: NUL, U+FFFD, a byte order mark, `columns`' own mark."""
    import polars as pl

    if not kinds.min() or (kinds == 0x1F).any():
        return False
    if kinds.max() < 0x80:
        return True
    if (kinds == 0xEF).any() and (b"\xef\xbf\xbd" in data or data.startswith(BOM_UTF8)):
        return False
    try:
        # Several times faster than decoding it.
        pl.Series([data], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.ComputeError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class _Edges:
    """The quotes that begin a cell, those that end one, and the second of each two that stand for one."""

    begins: Positions
    stops: Positions
    escapes: Positions


def _edges(scan: _Scan) -> _Edges | None:
    """What each quote is; None if they do not pair off.

    The first of each pair has to begin a cell and the second to end it, or both are an escape.
    """
    buffer, opening, closing = scan.buffer, scan.quotes[::2], scan.quotes[1::2]
    if not opening.size:
        return _Edges(begins=opening, stops=closing, escapes=opening)
    # The byte before the first one is the last one, the end of a line.
    begins = _is_one_of(buffer[opening - 1], scan.delimiter, _LF)
    stops = _is_one_of(buffer[closing + 1], scan.delimiter, _LF, _CR)
    # A doubled quote: one that closes, and right behind it one that opens again.
    is_escape = closing[:-1] + 1 == opening[1:]
    if not (begins[0] and stops[-1] and (begins[1:] | is_escape).all() and (stops[:-1] | is_escape).all()):
        return None
    return _Edges(begins=opening[begins], stops=closing[stops], escapes=opening[1:][is_escape])


def _columns(scan: _Scan, found: Positions, width: int) -> frozenset[int]:
    """In which columns these bytes are."""
    import numpy as np

    if not found.size:
        return frozenset()
    columns = np.searchsorted(scan.outside, found) - np.searchsorted(scan.ends, found) * (width - 1)
    return frozenset(np.flatnonzero(np.bincount(columns)).tolist())


def _unusual(scan: _Scan, kinds: Positions, edges: _Edges, has_cr: bool) -> Positions:
    """Which records have anything that has to be looked at, see `Block`."""
    import numpy as np

    buffer, ends, outside = scan.buffer, scan.ends, scan.outside
    # A record's first cell begins behind the end of the one before.
    begins = [(at, buffer[1:][at]) for at in (outside, edges.begins, ends[:-1])]
    stops = [(at, buffer[at - 1 - skipped]) for at, skipped in ((outside, 0), (edges.stops, 0), (ends, has_cr))]
    found = [
        scan.specials[np.frombuffer(_UNUSUAL, np.bool)[kinds] & (kinds != scan.delimiter)],
        *((at + 1)[_is_one_of(after, _SPACE, _APOSTROPHE)] for at, after in begins),
        *(at[before == _SPACE] for at, before in stops), scan.inner,
    ]  # fmt: skip
    if buffer[0] in (_SPACE, _APOSTROPHE):
        found.append(ends[:1])
    if b"\\" in scan.data:
        found.append(np.flatnonzero(buffer == _BACKSLASH))
    if scan.delimiter == _TAB and scan.delimiters.size > outside.size:
        found.append(np.setdiff1d(scan.delimiters, outside, assume_unique=True))
    unusual = np.zeros(ends.size, np.bool)
    unusual[np.searchsorted(ends, np.concatenate(found))] = True
    return unusual


def _is_one_of(bytes_: Positions, *wanted: int) -> Positions:
    found: Positions = bytes_ == wanted[0]
    for byte in wanted[1:]:
        found |= bytes_ == byte
    return found
