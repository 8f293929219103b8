"""Reading a CSV file as a stream: unpacked, decoded, split into records that know their physical line.

Promises flat memory whatever the file (a line has an end, a quoted cell has a bound), and that one broken row costs
one row: a quote that is never closed is found out and reading goes on at the next line. A file that cannot be read
at all is `InvalidInput` with the line. Python's csv module splits the lines; long stretches in which every quote and
every row is as it should be come whole, as a `Block`. Called by the importer and the preview; knows nothing about
contacts.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, cast

from mautolib.contacts.imports.blocks import Block, find_block
from mautolib.errors import InvalidInput

__all__ = ["Broken", "CsvFile", "Record", "open_csv"]

_BLOCK = 1 << 21
_SAMPLE = 1 << 18
MAX_LINE = 1 << 20
#: A record of more lines than this, or of more characters, has lost its closing quote.
MAX_RECORD_LINES = 100
MAX_RECORD = 1 << 17
#: Looking for the cells of a broken line takes time by the square of its length.
_MAX_GUESSED = 2000
_DELIMITERS = ",;\t|"
#: What Excel writes and reads before the header.
_SAID = re.compile(r'"?sep=([,;\t|])"?[,;\t|]*[\r\n]*', re.IGNORECASE)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
         (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))  # fmt: skip
#: How much of a sample must be no UTF-8 (and how many lines) before the file is called Windows-1252 unasked.
_SURE_LINES, _SURE_SHARE = 8, 0.01
#: Blocks are looked for from this line on, or as soon as much is left: what is small is read sooner than what reads
#: blocks is loaded.
_BLOCKS_FROM = 2000
_ROWS_PER_BATCH = 2000
_UNCLEAN = re.compile("[\x00\ud800-\udfff]")
_UNCLEAN_UTF16 = re.compile("[\x00\ufffd\ud800-\udfff]")


class Broken(str):
    """The text of a line whose quote is never closed; `cells` is what it most likely says."""

    cells: list[str]


#: One row: the physical line it begins on, its cells, or a line whose quote is never closed.
Record = tuple[int, list[str] | str]


class CsvFile:
    """An open file: what was found about it, and its records, once.

    `is_suspect` turns true as soon as a NUL or bytes that do not fit the encoding were met (as lone surrogates):
    from then on cells have to be looked at one by one.
    """

    def __init__(self, raw: IO[bytes], *, encoding: str, delimiter: str | None, limit: int) -> None:
        self._raw = raw
        self._bytes = _Bounded(raw, limit)
        head = self._bytes.read(_SAMPLE)
        self.encoding, skip = _encoding_of(head, encoding)
        errors = "replace" if self.encoding.startswith("utf-16") else "surrogateescape"
        #: To UTF-8, where the file is not that already; what does not fit is seen when lines are decoded.
        self._decoder = None if self.encoding == "utf-8" else codecs.getincrementaldecoder(self.encoding)(errors)
        self._errors = "surrogatepass" if self._decoder else errors
        self._head: bytes | None = head[skip:]
        self.is_suspect = False
        #: What must not be in a cell: NUL, and what stands for bytes that do not fit the encoding.
        self.unclean = _UNCLEAN_UTF16 if errors == "replace" else _UNCLEAN
        self._is_over = False
        #: What was read and not handed out yet, in UTF-8.
        self._rest = b""
        self._number = 0
        self._waiting: deque[str] = deque()
        self._await(self._lines())
        self._pending: list[str] = []
        said = _SAID.fullmatch(self._waiting[0]) if self._waiting else None
        if said:
            self._waiting.popleft()
            self._number = 1
        self.delimiter = delimiter or (said[1] if said else _delimiter_of(self._waiting[0] if self._waiting else ""))
        self.header = self._read_header()

    def __enter__(self) -> CsvFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def fileno(self) -> int:
        """The descriptor of the file as it lies on the disk."""
        return self._raw.fileno()

    def records(self) -> Iterator[Record]:
        """The rows after the header; blank lines are passed over."""
        return self._records(stops=False)

    def batches(self) -> Iterator[list[Record]]:
        """What `records` gives, in lists."""
        return _batches(self.records())

    def blocks(self) -> Iterator[Block | list[Record]]:
        """What `records` gives: in lists, and where a long file is well-formed, in blocks."""
        while True:
            yield from _batches(self._records(stops=True))
            data = self._lines()
            if not data:
                return
            block = None
            if self._number >= _BLOCKS_FROM or len(data) > _BLOCK // 4:
                block = find_block(data, delimiter=self.delimiter, width=len(self.header), line=self._number + 1)
            if block is None:
                self._await(data)
            else:
                self._rest = block.tail + self._rest
                self._number += block.line_count
                yield block

    def _records(self, *, stops: bool) -> Iterator[Record]:
        """Records until the file ends or, where it `stops`, until one ends with the lines that were read."""
        width, pending = len(self.header), self._pending
        while True:
            try:
                for cells in csv.reader(self._feed(stops=stops), delimiter=self.delimiter):
                    line, count = self._number + 1, len(pending)
                    if (count > 1 or len(cells) != width) and not self._is_likely(cells):
                        break
                    # Before it is given: whoever takes it may go on reading in another way.
                    self._number += count
                    pending.clear()
                    if cells:
                        yield line, cells
                if not pending:
                    return
            except (csv.Error, _Endless):
                pass
            yield self._give_up_line()

    def _give_up_line(self) -> Record:
        """The first pending line is broken; what was swallowed after it is read again."""
        self._number += 1
        broken = Broken(self._pending[0].rstrip("\r\n"))
        broken.cells = _guess(broken, self.delimiter, len(self.header))
        self._waiting.extendleft(reversed(self._pending[1:]))
        self._pending.clear()
        return self._number, broken

    def _is_likely(self, cells: list[str]) -> bool:
        """Whether a record over several lines, or with a cell too many or too few, is none with a lost quote."""
        if len(self._pending) > 1:
            return len(cells) == len(self.header) and self._is_sound()
        return '"' not in self._pending[0] or self._is_sound()

    def _is_sound(self) -> bool:
        """Whether the record is well-formed: after a closing quote comes a delimiter or the end."""
        try:
            return len(list(csv.reader(self._pending, delimiter=self.delimiter, strict=True))) == 1
        except csv.Error:
            return False

    def _feed(self, *, stops: bool = False) -> Iterator[str]:
        pending, waiting = self._pending, self._waiting
        while True:
            if not waiting:
                if stops and not pending:
                    return
                self._await(self._lines())
                if not waiting:
                    return
            pending.append(waiting.popleft())
            if len(pending) > 1:
                self._bound()
            yield pending[-1]

    def _bound(self) -> None:
        if len(self._pending) > MAX_RECORD_LINES or sum(map(len, self._pending)) > MAX_RECORD:
            raise _Endless

    def _read_header(self) -> list[str]:
        try:
            record = next(csv.reader(self._feed(), delimiter=self.delimiter), [])
        except (csv.Error, _Endless) as error:
            raise self._unreadable("has a quote that is not closed") from error
        if len(self._pending) == 1 and not self._is_sound():
            record = _guess(self._pending[0].rstrip("\r\n"), self.delimiter, None) or record
        header = [cell.strip() for cell in record]
        if not any(header):
            raise InvalidInput("The file is empty or its first line is; line 1 must name the columns", line=1)
        if any(self.unclean.search(cell) for cell in header):
            raise self._unreadable(f"has bytes that are not {self.encoding}; name the encoding of the file")
        self._number += len(self._pending)
        self._pending.clear()
        return header

    def _unreadable(self, problem: str) -> InvalidInput:
        return InvalidInput(f"Line {self._number + 1} {problem}", line=self._number + 1)

    def _await(self, data: bytes) -> None:
        text = self._decoded(data)
        self.is_suspect = self.is_suspect or self.unclean.search(text) is not None
        self._waiting.extend(_lines_of(text))

    def _decoded(self, data: bytes) -> str:
        return data.decode("utf-8", self._errors)

    def _lines(self) -> bytes:
        """The next whole lines in UTF-8; none at the end of the file."""
        while not self._is_over:
            data = self._head if self._head is not None else self._bytes.read(_BLOCK)
            self._head = None
            self._is_over = not data
            if self._decoder:
                data = self._decoder.decode(data, final=self._is_over).encode("utf-8", self._errors)
            data = self._rest + data
            # The last piece may go on, and a \r at its end may belong to a \n still to come.
            end = len(data) if self._is_over else max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
            self._rest = data[end:]
            if len(self._rest) > MAX_LINE and len(self._decoded(self._rest)) > MAX_LINE:
                line = self._number + len(self._pending) + len(_lines_of(self._decoded(data[:end]))) + 1
                raise InvalidInput(f"Line {line} is longer than {MAX_LINE} characters; is this a CSV file?", line=line)
            if end:
                return data[:end]
        data, self._rest = self._rest, b""
        return data


class _Endless(Exception):
    """A quoted cell that does not end."""


class _Bounded:
    """Reads an unpacked stream up to a limit and says in plain words what is wrong with a packed one."""

    def __init__(self, raw: IO[bytes], limit: int) -> None:
        self._raw, self._limit, self._count = raw, limit, 0

    def read(self, size: int) -> bytes:
        try:
            data = self._raw.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvalidInput(f"The gzip file is damaged or cut off after {self._count} bytes; upload it again",
                               code="unreadable_file") from error  # fmt: skip
        self._count += len(data)
        if self._count > self._limit:
            raise InvalidInput(f"The file is larger than {self._limit} bytes unpacked; split it", code="too_large")
        return data


def open_csv(path: Path, *, encoding: str = "auto", delimiter: str | None = None, limit: int) -> CsvFile:
    """Open a .csv file, plain or gzip (told by its first bytes, not by its name).

    Args:
        encoding: `auto` or a Python codec.
        limit: largest size in bytes, unpacked.

    Raises:
        InvalidInput: no such file, another kind of file, no header line, or a damaged or endless one.
    """
    try:
        with path.open("rb") as opened:
            magic = opened.read(4)
        raw = cast(IO[bytes], gzip.GzipFile(path) if magic[:2] == b"\x1f\x8b" else path.open("rb"))
    except OSError as error:
        problem = f"The file {path.name} cannot be opened: {error.strerror}"
        raise InvalidInput(problem, code="unreadable_file") from error
    try:
        if magic[:2] == b"PK" or magic == b"\xd0\xcf\x11\xe0":
            raise InvalidInput("This is a ZIP or Excel file; save it as CSV", code="unsupported_file")
        return CsvFile(raw, encoding=encoding, delimiter=delimiter, limit=limit)
    except BaseException:
        raw.close()
        raise


def _guess(line: str, delimiter: str, width: int | None) -> list[str]:
    """The cells of a line whose quotes do not pair off; none where it is long.

    A quote that is not closed before a delimiter is taken as a character. Where that gives not as many cells as
    there should be, quotes inside of quotes are.
    """
    if len(line) > _MAX_GUESSED:
        return []
    mark = re.escape(delimiter)
    plain = f"[^{mark}]*"
    guesses = [
        [cell[1:-1].replace('""', '"') if is_quoted else cell
         for cell, is_quoted in re.findall(f"(?:^|{mark})(({quoted})(?=$|{mark})|{plain})", line, re.DOTALL)]
        for quoted in ('"(?:[^"]|"")*"', '".*?"')
    ]  # fmt: skip
    return guesses[0] if len(guesses[0]) == width or len(guesses[1]) != width else guesses[1]


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, _ROWS_PER_BATCH)):
        yield batch


def _lines_of(text: str) -> list[str]:
    """Physical lines with their ends; \\n, \\r\\n and \\r all end one."""
    return list(io.StringIO(text, newline=""))


def _encoding_of(head: bytes, wanted: str) -> tuple[str, int]:
    """The codec to use and how many bytes of byte order mark to pass over."""
    for bom, name in _BOMS:
        if head.startswith(bom) and not (name == "utf-8" and wanted not in ("auto", "utf-8", "utf-8-sig")):
            if name == "utf-32":
                raise InvalidInput("The file is UTF-32; save it as UTF-8", line=1)
            return name, len(bom)
    if wanted == "utf-16":
        return "utf-16-le", 0
    if wanted != "auto":
        return wanted.replace("-sig", ""), 0
    return ("cp1252" if _is_surely_windows(head) else "utf-8"), 0


def _is_surely_windows(head: bytes) -> bool:
    lines = head.split(b"\n")[:-1] if len(head) >= _SAMPLE else head.split(b"\n")
    broken = 0
    for line in (line for line in lines if not line.isascii()):
        try:
            line.decode()
        except UnicodeDecodeError:
            broken += 1
        else:
            return False
    return broken >= max(_SURE_LINES, _SURE_SHARE * len(lines))


def _delimiter_of(line: str) -> str:
    """The candidate that splits the first line into most cells, quotes respected; a comma when none does."""
    counts = {mark: len(next(csv.reader([line], delimiter=mark), [])) for mark in _DELIMITERS}
    return max(counts, key=lambda mark: counts[mark])

