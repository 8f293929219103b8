"""The CSV reader: records know their line, broken rows cost one row, unreadable files say why."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mautolib.contacts.imports import reading
from mautolib.contacts.imports.reading import CsvFile, open_csv
from mautolib.errors import InvalidInput

LIMIT = 1 << 30


def read(data: bytes | str, *, encoding: str = "auto", delimiter: str | None = None, limit: int = LIMIT) -> CsvFile:
    raw = data.encode() if isinstance(data, str) else data
    return CsvFile(io.BytesIO(raw), encoding=encoding, delimiter=delimiter, limit=limit)


def rows(data: bytes | str, **options: object) -> list[tuple[int, list[str] | str]]:
    return list(read(data, **options).records())  # type: ignore[arg-type]


def test_lines_are_physical() -> None:
    assert rows('a,b\n1,"x\ny\n"\n\n2,z\r\n3,"q ""q"""\n') == [
        (2, ["1", "x\ny\n"]), (6, ["2", "z"]), (7, ["3", 'q "q"'])]  # fmt: skip


def test_every_line_end_ends_a_line() -> None:
    for end in ("\n", "\r\n", "\r"):
        assert rows(end.join(["a,b", "1,2", "3,4"])) == [(2, ["1", "2"]), (3, ["3", "4"])]


def test_a_header_may_be_quoted_over_lines() -> None:
    file = read('"a\nb",c\n1,2\n')
    assert file.header == ["a\nb", "c"]
    assert list(file.records()) == [(3, ["1", "2"])]


@pytest.mark.parametrize(
    ("mark", "line"), [(",", "e,b,c"), (";", "e;b, c;d"), ("\t", "e\tb"), ("|", "e|b"), (",", "e")]
)
def test_the_delimiter_is_found(mark: str, line: str) -> None:
    assert read(line + "\n").delimiter == mark
    assert read('"a,b;c",d;"e;f;g"\n').delimiter == ","


@pytest.mark.parametrize(
    ("said", "mark"),
    [("sep=;\n", ";"), ("SEP=,\r\n", ","), ('"sep=\t"\n', "\t"), ("sep=|\r", "|"), ("sep=;;;\n", ";")],
)
def test_a_line_before_the_header_may_say_the_delimiter(said: str, mark: str) -> None:
    data = f"{said}email{mark}n{mark}m\na@x.co{mark}1{mark}a,b;c\n".replace("a,b;c", '"a,b;c|d"')
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        file = read(data.encode(encoding))
        assert (file.delimiter, file.header) == (mark, ["email", "n", "m"])
        assert list(file.records()) == [(3, ["a@x.co", "1", "a,b;c|d"])]
    assert read(data, delimiter=":").header == [f"email{mark}n{mark}m"]
    with pytest.raises(InvalidInput, match="Line 2 has bytes") as failure:
        read(said.encode() + b"Stra\xdfe\n")
    assert failure.value.line == 2
    for plain in ("sep=x\n", "sep=\n", "sepal,b\n", "a,sep=;\n"):
        assert read(plain).header[0] in ("sep=x", "sep=", "sepal", "a")


def test_a_quote_that_is_never_closed_costs_its_row_only() -> None:
    data = "e,b\n1,x\n2,\"open\n" + "".join(f"{n},y\n" for n in range(3, 400)) + '400,"z"\n'
    found = rows(data)
    assert (3, '2,"open') in found
    assert len(found) == 400
    assert [cells for _, cells in found[2:]] == [[str(n), "y"] for n in range(3, 400)] + [["400", "z"]]
    assert [line for line, _ in found] == list(range(2, 402))


def test_a_lost_quote_does_not_swallow_a_quoted_row() -> None:
    found = rows('e,n,c\na,"Bob,1\nb,"Al",2\n"c","Di",3\nd,"E\nF",4\n')
    assert found == [
        (2, 'a,"Bob,1'), (3, ["b", "Al", "2"]), (4, ["c", "Di", "3"]), (5, ["d", "E\nF", "4"])]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "cells"),
    [('1,"Bob,x,"y, z",', ["1", '"Bob', "x", "y, z", ""]), ('1,Bob,x,""y, z",', ["1", "Bob", "x", '"y, z', ""]),
     ('1,Bo"b,"x""x",y,"z', ["1", 'Bo"b', 'x"x', "y", '"z']), ('"' * 3001, [])],
)  # fmt: skip
def test_the_cells_of_a_broken_line_are_guessed(line: str, cells: list[str]) -> None:
    [(number, broken), after] = rows(f"a,b,c,d,e\n{line}\n1,2,3,4,5\n")
    assert (number, broken, after) == (2, line, (3, ["1", "2", "3", "4", "5"]))
    assert isinstance(broken, reading.Broken)
    assert broken.cells == cells


def test_a_lost_quote_in_the_header_is_a_character() -> None:
    file = read('e,"n,m,"o p"\n1,2,3,4\n')
    assert file.header == ["e", '"n', "m", "o p"]
    assert list(file.records()) == [(2, ["1", "2", "3", "4"])]


def test_many_lost_quotes_cost_neither_depth_nor_memory() -> None:
    data = "e,b\n" + "".join(f'{n},"x\n{n},y\n' for n in range(3000))
    found = rows(data)
    assert len(found) == 6000
    assert sum(isinstance(cells, str) for _, cells in found) == 3000


def test_a_lost_quote_at_the_end_is_found() -> None:
    assert rows('e,b\n1,"x\n2,y\n') == [(2, '1,"x'), (3, ["2", "y"])]


def test_encodings() -> None:
    text = "e,name\na,Ünï €\n"
    plain = [(2, ["a", "Ünï €"])]
    for data, encoding, found in [
        (text.encode(), "auto", "utf-8"), (text.encode("utf-8-sig"), "auto", "utf-8"),
        (text.encode("utf-16"), "auto", "utf-16-le"), (b"\xfe\xff" + text.encode("utf-16-be"), "auto", "utf-16-be"),
        (text.encode("cp1252"), "cp1252", "cp1252"), (text.encode("utf-16-le"), "utf-16", "utf-16-le"),
        (text.encode("utf-8-sig"), "utf-8", "utf-8"),
    ]:  # fmt: skip
        file = read(data, encoding=encoding)
        assert (file.encoding, list(file.records()), file.is_suspect) == (found, plain, False)


def test_bytes_of_another_encoding_are_marked() -> None:
    file = read("e,n\na,Ünï\nb,".encode() + b"Jos\xe9\n")
    found = list(file.records())
    assert file.is_suspect
    assert [bool(file.unclean.search(cells[1])) for _, cells in found] == [False, True]


def test_much_that_can_be_nothing_else_is_windows_1252() -> None:
    line = "x{},José\n"
    many = "e,n\n" + "".join(map(line.format, range(20)))
    few = "e,n\n" + "".join(map(line.format, range(3)))
    assert read(many.encode("cp1252")).encoding == "cp1252"
    assert read(few.encode("cp1252")).encoding == "utf-8"
    mixed = many.encode("cp1252") + "y,José\n".encode()
    assert read(mixed).encoding == "utf-8"
    rare = many.encode("cp1252") + b"z,plain\n" * 5000
    assert read(rare).encoding == "utf-8"


def test_a_nul_is_marked() -> None:
    file = read("e,n\na,b\0c\n")
    assert list(file.records()) == [(2, ["a", "b\0c"])]
    assert file.is_suspect


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"", 1), (b"\n\na\n", 1), (b" , \nx,y\n", 1), (b'"a\n' + b"x\n" * 300, 1), (b"\xe9,b\n", 1),
     (b"e\n" + b"x" * (reading.MAX_LINE + 10), 2), (b"\xff\xfe\0\0e\0\0\0", 1)],
)  # fmt: skip
def test_what_cannot_be_read_at_all_names_the_line(data: bytes, line: int) -> None:
    with pytest.raises(InvalidInput) as failure:
        rows(data)
    assert failure.value.line == line


def test_an_endless_cell_is_one_broken_row() -> None:
    found = rows("e,n\n1," + "x" * 200_000 + "\n2,y\n")
    assert [(line, isinstance(cells, str)) for line, cells in found] == [(2, True), (3, False)]


def test_a_file_is_closed_whatever_happens(tmp_path: Path) -> None:
    for name, data in (("zip.csv", b"PK\x03\x04x"), ("xls.csv", b"\xd0\xcf\x11\xe0x"), ("empty.csv", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InvalidInput):
            open_csv(tmp_path / name, limit=LIMIT)
    with pytest.raises(InvalidInput, match="No such file"):
        open_csv(tmp_path / "gone.csv", limit=LIMIT)


def test_gzip_is_told_by_its_bytes_and_bounded_unpacked(tmp_path: Path) -> None:
    text = b"e,n\n" + b"a,b\n" * 100_000
    path = tmp_path / "contacts.csv"
    path.write_bytes(gzip.compress(text))
    with open_csv(path, limit=LIMIT) as file:
        assert sum(1 for _ in file.records()) == 100_000
    with pytest.raises(InvalidInput) as failure, open_csv(path, limit=300_000) as file:
        list(file.records())
    assert failure.value.code == "too_large"
    path.write_bytes(gzip.compress(text)[:-200])
    with pytest.raises(InvalidInput, match="damaged or cut off"), open_csv(path, limit=LIMIT) as file:
        list(file.records())


CELL = st.text("ab,;\"' \n\r\té用", max_size=6)
TABLE = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=30))


@settings(max_examples=300, deadline=None)
@given(TABLE, st.sampled_from([",", ";", "\t"]), st.sampled_from(["\n", "\r\n"]), st.booleans())
@pytest.mark.thorough
def test_what_was_written_is_read_with_its_line(
    table: list[list[str]], delimiter: str, end: str, all_quoted: bool
) -> None:
    # The writer leaves a lone \r unquoted where lines end in \n; to every reader that is the end of a line.
    assume(all_quoted or end == "\r\n" or not any("\r" in cell for row in table for cell in row))
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    expected, text = [], ""
    width = len(table[0]) if table else 1
    for row in [["h"] * width, *table]:
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerow(row)
        # A record is what its text says; one that says nothing is a blank line.
        if out.getvalue() != end and text:
            expected.append((len(io.StringIO(text, newline="").readlines()) + 1, row))
        text += out.getvalue()
    assert rows(text, delimiter=delimiter) == expected


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([1, 3, 64]))
def test_no_bytes_break_the_reader(data: bytes, block: int) -> None:
    whole: list[tuple[int, list[str] | str]] = []
    try:
        whole = rows(b"e,n\n" + data)
    except InvalidInput:
        return
    before = reading._BLOCK, reading._SAMPLE
    try:
        reading._BLOCK, reading._SAMPLE = block, 4
        pieces = rows(b"e,n\n" + data, encoding="utf-8")
    finally:
        reading._BLOCK, reading._SAMPLE = before
    assert pieces == whole
    assert [line for line, _ in whole] == sorted({line for line, _ in whole})
