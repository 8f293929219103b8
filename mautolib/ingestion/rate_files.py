"""`python -m mautolib.ingestion.rate_files FILE`: loads the euro reference rates of the European Central Bank.

Takes what the bank publishes: `eurofxref-hist.zip` or `eurofxref.zip`, or the CSV in it, plain or gzip: a row for each
day, a column for each currency, units of it for one euro, `N/A` where there is none. A rate that is loaded again
changes nothing; one that changed restates the orders it converts. Exit code 2: nothing was loaded.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mautolib.contacts.imports.reading import open_csv
from mautolib.db.engine import connect
from mautolib.errors import InvalidInput, MautoError
from mautolib.events.money import parse_rate
from mautolib.events.orders import LoadedRates, NewRate, load_rates
from mautolib.settings import Settings

__all__ = ["ecb_rates", "load_file", "main"]

_BASE: Final = "EUR"
_SOURCE: Final = "ecb"
#: The whole history takes 3 MB; what is much larger is another file.
_MAX_BYTES: Final = 64 * 1024**2
_NONE: Final = frozenset({"", "N/A"})


def load_file(
    tx: Connection, path: Path, *, now: datetime, since: date | None = None,
    currencies: frozenset[str] = frozenset(),
) -> LoadedRates:
    """Store the rates of a file, all or none.

    Args:
        since: first day; None: all there are.
        currencies: only these; empty: all.

    Raises:
        InvalidInput: the file is none of the bank's; says the line.
    """  # fmt: skip
    return load_rates(tx, ecb_rates(path, since=since, currencies=currencies), now=now)


def ecb_rates(
    path: Path, *, since: date | None = None, currencies: frozenset[str] = frozenset()
) -> Iterator[NewRate]:
    """The rates of a file, in its order; see `load_file`."""
    if not zipfile.is_zipfile(path):
        yield from _rates(path, since, currencies)
        return
    with tempfile.TemporaryDirectory(prefix="mauto-rates-") as folder:
        plain = Path(folder) / "rates.csv"
        _unpack(path, plain)
        yield from _rates(plain, since, currencies)


def _unpack(path: Path, plain: Path) -> None:
    """The one file of an archive, to a name of our own; no more of it than is allowed, whatever the archive says."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [one for one in archive.namelist() if one.lower().endswith(".csv")]
            if len(names) != 1:
                raise InvalidInput(f"The archive has {len(names)} CSV files; the bank's has one")
            with archive.open(names[0]) as packed, plain.open("wb") as unpacked:
                shutil.copyfileobj(_AtMost(packed), unpacked, 1 << 16)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise InvalidInput(f"The archive cannot be read: {error}", code="unreadable_file") from error


class _AtMost(io.RawIOBase):
    """Reads until there is more than a file of rates can have."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._count = packed, 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._packed.read(size)
        self._count += len(data)
        if self._count > _MAX_BYTES:
            raise InvalidInput(f"The archive holds more than {_MAX_BYTES} bytes", code="too_large")
        return data


def _rates(path: Path, since: date | None, currencies: frozenset[str]) -> Iterator[NewRate]:
    with open_csv(path, limit=_MAX_BYTES) as file:
        codes = [name.upper() for name in file.header]
        if codes[0] != "DATE" or not all(len(code) == 3 and code.isalpha() for code in codes[1:] if code):
            raise InvalidInput("Line 1 is not that of a file of reference rates: Date,USD,JPY,...", line=1)
        wanted = [(at, code) for at, code in enumerate(codes[1:], 1) if code and (not currencies or code in currencies)]
        for line, cells in file.records():
            if isinstance(cells, str) or len(cells) != len(codes):
                raise InvalidInput(f"Line {line} does not have as many cells as line 1", line=line)
            day = _day(cells[0].strip(), line)
            if since is None or day >= since:
                yield from _of_day(line, day, cells, wanted)


def _of_day(line: int, day: date, cells: Sequence[str], wanted: Sequence[tuple[int, str]]) -> Iterator[NewRate]:
    for at, code in wanted:
        text = cells[at].strip()
        if text in _NONE:
            continue
        try:
            rate = parse_rate(text)
        except ValueError as error:
            raise InvalidInput(f"Line {line}: {code} {error}", line=line) from None
        yield NewRate(rate_date=day, base=_BASE, quote=code, rate=rate, source=_SOURCE)


def _day(text: str, line: int) -> date:
    """The history writes 2026-10-30, the file of one day 30 October 2026."""
    for read in (date.fromisoformat, _long_day):
        try:
            return read(text)
        except ValueError:
            continue
    raise InvalidInput(f"Line {line}: {text[:40]!r} is no day such as 2026-10-30", line=line)


def _long_day(text: str) -> date:
    return datetime.strptime(text, "%d %B %Y").replace(tzinfo=UTC).date()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        settings = Settings.from_env()
        engine = connect(settings.url_for("worker"), application_name="mauto-rate-files", pool_size=1)
        try:
            with engine.begin() as tx:
                done = load_file(tx, given.file, now=datetime.now(UTC), since=given.since,
                                 currencies=frozenset(code.upper() for code in given.currency))  # fmt: skip
        finally:
            engine.dispose()
    except MautoError as error:
        sys.stderr.write(f"not loaded: {error}\n")
        return 2
    except DBAPIError:
        sys.stderr.write("not loaded: the database cannot be reached, or is not migrated\n")
        return 2
    sys.stdout.write(f"{done.given:,} rates read, {done.changed:,} of them new or changed\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mautolib.ingestion.rate_files",
        description="Load euro reference rates of the European Central Bank: its ZIP, or the CSV in it.",
    )
    parser.add_argument("file", type=Path, help="eurofxref-hist.zip, eurofxref.zip, or the CSV in it")
    parser.add_argument("--since", type=date.fromisoformat, metavar="DAY", help="leave earlier days out")
    parser.add_argument("--currency", action="append", default=[], metavar="CODE",
                        help="only this one; may be given more than once")
    return parser  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
