"""Rows taken column by column give the same lines as rows taken one by one, and blocks the same records."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib.contacts import domains
from mautolib.contacts.imports import reading
from mautolib.contacts.imports.blocks import Block, find_block
from mautolib.contacts.imports.columns import BlockStager
from mautolib.contacts.imports.headers import plan_columns
from mautolib.contacts.imports.model import ImportOptions
from mautolib.contacts.imports.reading import CsvFile
from mautolib.contacts.imports.rows import RowStager

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HEADER = ["email", "first_name", "phone", "country", "language", "timezone", "currency", "subscribed", "tags",
          "created_at", "consent_status", "consent_source", 'Si"ze\\', "Note"]  # fmt: skip
#: Likely contents of each column, right and wrong.
KNOWN: dict[str, Sequence[str]] = {
    "email": ("anna@shop.example", "Anna.B+x@SHOP.example", "info@gmail.com", "in-fo+a@mailinator.com", "a@b@c.example",
              "a..b@c.example", "a@localhost", "a@b.123", "x" * 64 + "@a.example", "x" * 65 + "@a.example",
              "a@" + "b." * 125 + "example", "mailto:a@b.example", "A <a@b.example>", "ä@b.example", "a@ä.example",
              "a@-b.example", "a@b-.example", "a@b_c.example", "'=a@b.example", " a@b.example", "Role.All@b.example"),
    "country": ("DE", "Germany", "Deutschland", "Narnia", "deu", "DEUX"),
    "timezone": ("Europe/Berlin", "Berlin", "UTC"), "currency": ("eur", "EUR", "XXX"),
    "subscribed": ("yes", "NO", "1", "maybe"), "tags": ("a|b", r"a\|b|A", "|", "x" * 101, 'q"'),
    "created_at": ("2024-01-01", "2024-01-01T10:00:00+02:00", "2099-01-01", "yesterday"),
    "consent_status": ("granted", "Unknown", "no"), "phone": ("+49 1", "'+49 1", "1" * 31),
    "first_name": ("Zoë", "O'Hara", "'=x", "x" * 101, "é" * 99, "李", "a\u200bb", "a\u00a0", "\u3000a"),
}  # fmt: skip
TEXT = st.text(st.sampled_from("ab '\"\\,;\t\n\r=é李\u00a0\u2028\x1f\x7f\u0378\x00"), max_size=5)


def cell(name: str) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from((*KNOWN.get(name, ("M", 'say "x"', "a\nb")), "")), TEXT)


ROW = st.tuples(*(cell(name) for name in HEADER))


def read(data: bytes) -> CsvFile:
    return CsvFile(io.BytesIO(data), encoding="utf-8", delimiter=None, limit=1 << 30)


def in_blocks(monkeypatch: pytest.MonkeyPatch, data: bytes, size: int = 1 << 12) -> list[Block | list[reading.Record]]:
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_BLOCKS_FROM", 0)
        patch.setattr(reading, "_BLOCK", size)
        patch.setattr(reading, "_SAMPLE", 1 << 6)
        return list(read(data).blocks())


def both_ways(
    monkeypatch: pytest.MonkeyPatch, header: Sequence[str], data: bytes, **options: object
) -> tuple[list[str], list[str], int]:
    """The COPY lines of the fast and of the careful way, and how many rows came in blocks."""
    parsed, known, count = ImportOptions.parse(options), domains.lists(), 0
    plan = plan_columns(header, parsed.mapping, [])
    rows = RowStager(plan, parsed, known, unclean=re.compile("[\x00\ud800-\udfff]"), now=NOW)
    columns = BlockStager(rows, plan, parsed, known, delimiter=",")
    fast: list[str] = []
    for part in in_blocks(monkeypatch, data):
        if isinstance(part, Block):
            count += len(part.lines)
            fast += [line + "\n" for line in columns.stage(part).decode().split("\n")[:-1]]
        else:
            fast += [rows.stage(line, cells, is_suspect=True) for line, cells in part]
    careful = [rows.stage(line, cells, is_suspect=True) for line, cells in read(data).records()]
    return sorted(fast), sorted(careful), count


def written(header: Sequence[str], rows: Sequence[Sequence[str]], **dialect: object) -> bytes:
    out = io.StringIO()
    csv.writer(out, **dialect).writerows([header, *rows])  # type: ignore[arg-type]
    return out.getvalue().encode("utf-8", "surrogatepass")


@settings(max_examples=300, deadline=None)
@given(st.lists(ROW, max_size=12), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["merge", "overwrite"]),
       st.booleans(), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))  # fmt: skip
@pytest.mark.thorough
def test_columns_give_the_same_lines_as_rows(
    rows: list[tuple[str, ...]], end: str, policy: str, has_source: bool, quoting: int
) -> None:
    options = {"consent_source": "shop"} if has_source else {}
    data = written(HEADER, rows, lineterminator=end, quoting=quoting)
    with pytest.MonkeyPatch.context() as patch:
        fast, careful, _ = both_ways(patch, HEADER, data, update_policy=policy, **options)
    assert fast == careful


def test_a_long_file_of_every_kind_of_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    others = ("M", 'say "x"', "a\nb", "tab\t", "back\\slash", "7' 2\"")
    values = {name: (*KNOWN.get(name, others), "") for name in HEADER}
    likely = {name: values[name][: 2 if name == "email" else 1] for name in HEADER}
    rows = [[rng.choice(values[name] if rng.random() < 0.05 else likely[name]) for name in HEADER] for _ in range(4000)]
    fast, careful, count = both_ways(monkeypatch, HEADER, written(HEADER, rows), update_policy="merge")
    assert fast == careful
    assert len(careful) == 4000
    assert count > 3900
    assert sum("\tinvalid_email\t" in line for line in fast) > 50


@pytest.mark.thorough
def test_addresses_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses put together from pieces, a few of them wrong: taken, refused and keyed alike both ways."""
    rng = random.Random(11)
    locals_ = ("a", "A.b", "a..b", ".a", "a.", "a+b", "o'hara", "a b", "ä", "a\"b", "{x}", "x" * 64, "x" * 65, "sales",
               "Sa-Les+x", "", "a@b")  # fmt: skip
    labels = ("b", "B", "b-c", "-b", "b-", "", "1", "ä", "xn--a", "b_c", "b" * 63, "b" * 64, "mailinator", "gmail")
    ends = ("com", "COM", "example", "1", "c-", "co.uk", "", "ä", "com.")
    counts = [rng.choice((0, 1, 1, 1, 2, 4)) for _ in range(20_000)]
    hosts = (".".join([*rng.choices(labels, k=count), rng.choice(ends)]) for count in counts)
    rows = [[f"{rng.choice(locals_)}@{host}"] for host in hosts]
    fast, careful, count = both_ways(monkeypatch, ["email"], written(["email"], rows))
    assert fast == careful
    assert count > 19_000
    assert sum("\tinvalid_email\t" not in line for line in fast) > 2000


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from('ab,,""\n\n\r'), max_size=60), st.integers(1, 3))
def test_a_block_is_what_the_line_by_line_reader_reads(text: str, width: int) -> None:
    import polars as pl

    lines = "".join(io.StringIO(text, newline="").readlines())
    end = max(lines.rfind("\n"), lines.rfind("\r")) + 1
    block = find_block(lines[:end].encode(), delimiter=",", width=width, line=2) if end else None
    if block is None:
        return
    whole = read((",".join("e" * width) + "\n" + lines[:end]).encode())
    expected = list(whole.records())[: len(block.lines)]
    frame = pl.read_csv(block.data, has_header=False, schema={f"c{n}": pl.String for n in range(width)},
                        empty_string_is_null=False)  # fmt: skip
    assert list(zip(block.lines.tolist(), map(list, frame.rows()), strict=True)) == expected
    assert (block.data + block.tail).decode() == lines[:end]


@pytest.mark.parametrize(
    "text",
    ['a,"b"c\n', 'a,b"c"\n', '"a",b,c\n', "a\n", "a,b\n\nc,d\n", 'a,"b\n', "a,b\r\nc,d\n", "a,b\rc,d\n", '"a"\r,b\n',
     'a, "b"\n', "a,\0\n", "a,\x1f\n", "a,\udce9\n", "a,\ufffd\n", "\ufeffa,b\n",
     f"a,{'b' * 70_000}\n", 'a,"' + "\n" * 101 + '"\n'],
)  # fmt: skip
def test_what_is_in_doubt_is_no_block(text: str) -> None:
    assert find_block(text.encode("utf-8", "surrogateescape"), delimiter=",", width=2, line=2) is None


def test_what_no_record_is_called_unusual_for_is_plain() -> None:
    """Of all characters, and at every place in a cell: nothing to trim, to escape or to refuse goes unseen."""
    kept = [chr(code) for code in range(32, 0x30000) if not 0xD800 <= code < 0xE000 and chr(code) not in '";\ufffd']
    block = find_block("".join(f"a{one}b;c\n" for one in kept).encode(), delimiter=";", width=2, line=2)
    assert block is not None
    plain = [one for one, is_unusual in zip(kept, block.unusual.tolist(), strict=True) if not is_unusual]
    assert all(one.isprintable() and (one == " " or one.strip() == one) and one != "\\" for one in plain)
    assert len(plain) > 27_000
    for text in ("'x;a", " x;a", "x ;a", "a; x", "a;x ", "a;'x", '" x";a', '"x ";a', '"\'x";a', 'a;" x"', '"x\n";a',
                 '"x\ny";a', "x\\;a", "\u3000;a", "a;\x7f"):  # fmt: skip
        for mark, end in ((";", "\n"), (";", "\r\n"), ("\t", "\n")):
            lines = [text, "a;b", text, "a b;c", "a'b;c", '"a ""b c";d']
            data = "".join(line.replace(";", mark) + end for line in lines).encode()
            block = find_block(data, delimiter=mark, width=2, line=2)
            assert (text, block and block.unusual.tolist()) == (text, [True, False, True, False, False, False])
    tabs = find_block(b'"a\tb"\tc\nx y\tz\n', delimiter="\t", width=2, line=2)
    assert tabs is not None
    assert tabs.unusual.tolist() == [True, False]


@pytest.mark.thorough
def test_reading_goes_on_between_blocks_and_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken rows anywhere in a long file: the same records, whether or not blocks are looked for."""
    rng = random.Random(3)
    kinds: tuple[Callable[[int], str], ...] = (
        lambda n: f'{n},"lost\n', lambda n: f"{n},x,y\n", lambda n: f'{n},"a\nb"\n', lambda n: f'{n},"a"b\n',
        lambda n: "\n", lambda n: f'{n},"a\n\n"\r\n',
    )  # fmt: skip
    lines = [rng.choice(kinds)(n) if rng.random() < 0.004 else f'{n},"v"\n' for n in range(20_000)]
    data = ("e,n\n" + "".join(lines)).encode()
    found: list[tuple[int, object]] = []
    blocks = 0
    for part in in_blocks(monkeypatch, data, 1 << 10):
        if isinstance(part, Block):
            blocks += 1
            found += zip(part.lines.tolist(), csv.reader(io.StringIO(part.data.decode(), newline="")), strict=True)
        else:
            found += part
    assert found == list(read(data).records())
    assert blocks > 50
