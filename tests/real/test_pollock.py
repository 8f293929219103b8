"""The reader on the published files of the Pollock benchmark, scored as its authors score a CSV reader.

Of each file counts whether it could be read (1 point), and precision, recall and F1 of the header's cells, of the
records and of the cells (3 points each); the mean over all files is the score, of 10. Cells compare without case and
numbers by value; the published code knows more spellings of one value (dates, prices), so it can only score higher.
Published scores: Python csv 9.721, pandas 9.895, LibreOffice 9.925, SQLite 9.955, DuckDB 9.961.
"""

from __future__ import annotations

import csv
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from mautolib.contacts.imports.reading import Broken, open_csv
from mautolib.errors import InvalidInput

ARCHIVE = "pollock_polluted_2289.tar.xz"
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


@pytest.fixture(scope="session")
def files(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pollock")
    with tarfile.open(data / ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "polluted_files"


def expected(files: Path, name: str) -> Table:
    """The header's cells and the records as they should be read."""
    with (files / "clean" / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    said = json.loads((files / "parameters" / f"{name}_parameters.json").read_text(encoding="utf-8"))
    lines = said["header_lines"]
    if lines < 2:
        return [cell for row in rows[:lines] for cell in row], rows[lines:]
    # The clean file joins the lines of such a header; its cells are counted one by one.
    with (files / "csv" / name).open(encoding="utf-8", newline="") as file:
        header = [cell for _, row in zip(range(lines), csv.reader(file), strict=False) for cell in row]
    return header, rows[1:]


def loaded(files: Path, name: str) -> Table | None:
    """What the reader makes of it; None: it refuses the file."""
    try:
        with open_csv(files / "csv" / name, limit=1 << 30) as file:
            return file.header, [cells.cells if isinstance(cells, Broken) else cells for _, cells in file.records()]
    except InvalidInput:
        return None


def score(wanted: Table, found: Table | None) -> float:
    if found is None:
        # Nothing to read and nothing read.
        return 0.0 if any(wanted) else 10.0
    (header, rows), (found_header, found_rows) = wanted, found
    return 1 + (
        _three(map(_plain, header), map(_plain, found_header))
        + _three(map(_joined, rows), map(_joined, found_rows))
        + _three((_plain(cell) for row in rows for cell in row), (_plain(cell) for row in found_rows for cell in row))
    )


def _three(wanted: Iterable[str], found: Iterable[str]) -> float:
    """Precision, recall and F1 of what was found."""
    source, given = Counter(wanted), Counter(found)
    shared = (source & given).total()
    if not source:
        return 3.0
    if not shared:
        return 0.0
    one, other = shared / source.total(), shared / given.total()
    return one + other + 2 * one * other / (one + other)


def _joined(row: Sequence[str]) -> str:
    return "".join(_plain(cell) or "null" for cell in row)


def _plain(cell: str) -> str:
    for number in (int, float):
        try:
            return str(number(cell))
        except ValueError:
            continue
    return cell.lower()


@pytest.fixture(scope="session")
def scores(files: Path) -> dict[str, float]:
    names = [path.name for path in (files / "csv").iterdir()]
    return {name: score(expected(files, name), loaded(files, name)) for name in names}


def test_the_score(scores: dict[str, float]) -> None:
    assert len(scores) == 2290
    mean = sum(scores.values()) / len(scores)
    print(f"Pollock, simple score: {mean:.4f} of 10")
    assert mean >= 9.95


def test_a_polluted_row_costs_no_other(scores: dict[str, float]) -> None:
    """A quote, a cell more or a cell less costs its row at most; only a header cut at spaces costs more."""
    rows = {name: one for name, one in scores.items() if name.startswith("row_")}
    assert len(rows) == 756 + 756 + 672 + 84
    del rows["row_field_delimiter_0_0x20.csv"]
    assert min(rows.values()) > 9.3
