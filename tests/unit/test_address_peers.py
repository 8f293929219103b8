"""An address is read alike wherever it comes in, and as email-validator reads it but for what is named here.

`single` is what a single write does (our reader and email-validator),
`row` and `column` are the two ways of an import.
The differences are those of docs/contact-import.md; a new one fails. The slow test does it with a million addresses.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

import email_validator
import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from mautolib.contacts import domains
from mautolib.contacts.address import MAX_MAILABLE_OCTETS, is_address, parse, unwrap
from mautolib.contacts.imports.headers import plan_columns
from mautolib.contacts.imports.model import ImportOptions
from mautolib.contacts.imports.rows import RowStager
from mautolib.contacts.model import NewContact
from mautolib.contacts.validation import check_changes, check_new
from mautolib.errors import InvalidInput
from tests.generated_addresses import addresses
from tests.unit.test_import_columns import both_ways, written

LOT = 50_000
#: What is read line by line, whatever stands beside it.
NO_BLOCK = re.compile("[\0\r\x1f\ufffd\ud800-\udfff]")
SPECIALS = frozenset(" \"(),:;<>@[\\].")


def peer(text: str, *, is_public: bool = False) -> str | None:
    """The domain as email-validator reads it, None when it refuses the address.

    Args:
        is_public: as it is called by default: no names for private use, nothing without a dot.
    """
    how = {} if is_public else {"test_environment": True, "globally_deliverable": False, "strict": True}
    try:
        return validate_email(text, check_deliverability=False, **how).ascii_domain
    except EmailNotValidError:
        return None


def single(text: str) -> bool:
    """Whether a single write takes it."""
    try:
        check_new(NewContact(email=text))
    except InvalidInput:
        return False
    return True


def octets(text: str) -> int:
    """The length of an address as mail carries it, in the longer of the two ways."""
    local, _, domain = text.rpartition("@")
    return len(local.encode()) + 1 + max(len(domain.encode()), len(parse(text).domain))


def difference(text: str) -> str | None:
    """The name of the one difference to email-validator that `text` shows; None: none of them explains it."""
    local, at, domain = text.rpartition("@")
    if is_address(text):
        if text != text.strip():
            return "blanks before or behind"
        if parse(text).domain.rpartition(".")[2] in SPECIAL_USE_DOMAIN_NAMES:
            return "names for private use"
        return "longer than 254 octets" if octets(text) > MAX_MAILABLE_OCTETS else None
    name = unicodedata.normalize("NFKC", domain).replace("。", ".")
    if at and "." not in name:
        return "no dot"
    if re.search(r"\.\d+$", name):
        return "last label of digits"
    if len(local.encode()) > 64:
        return "local part of more than 64 octets"
    hidden = [c for c in local if c not in SPECIALS and SPECIALS & set(unicodedata.normalize("NFKC", c))]
    return "hides a special character" if hidden else None


def import_difference(text: str) -> str | None:
    """The name of the one difference between an import and a single write that `text` shows."""
    cell = text.strip()
    if is_address(text) and len(parse(text).email.encode()) > MAX_MAILABLE_OCTETS:
        return "longer than 254 octets"
    if cell != text:
        return "blank characters around a cell"
    if re.match(r"'+[=+\-@]", cell):
        return "formula guard"
    return "as a mail program writes it" if unwrap(cell) != cell else None


def lots(count: int, seed: int) -> Iterator[list[str]]:
    found = addresses(count, seed)
    while lot := list(islice(found, LOT)):
        yield lot


def compare(lot: list[str], seen: Counter[str]) -> None:
    """Every address in all four ways; counts what was seen."""
    plan, options, now = plan_columns(["email"], {}, []), ImportOptions(), datetime(2026, 3, 1, tzinfo=UTC)
    rows = RowStager(plan, options, domains.lists(), unclean=re.compile("\0"), now=now)
    for text in lot:
        ours, theirs = is_address(text), peer(text)
        if ours == (theirs is not None):
            seen["read alike and taken" if ours else "read alike and refused"] += 1
            assert not ours or parse(text).domain == theirs, text
        else:
            name = difference(text)
            assert name, ascii(text)
            seen[name] += 1
        assert single(text) == ours, ascii(text)
        cells = rows.stage(2, [text], is_suspect=False).rstrip("\n").split("\t")
        key = cells[2] if cells[-2] == "" else None
        if key != (parse(text).key if ours else None):
            name = import_difference(text)
            assert name, ascii(text)
            seen[f"import: {name}"] += 1
    tame = [[text] for text in lot if not NO_BLOCK.search(text)]
    with pytest.MonkeyPatch.context() as patch:
        column, row, count = both_ways(patch, ["email"], written(["email"], tame, lineterminator="\n"))
    assert column == row
    seen["by columns"] += count
    assert count > 0.95 * len(tame)


@pytest.mark.thorough
def test_every_way_of_reading_an_address() -> None:
    seen: Counter[str] = Counter()
    compare(list(addresses(20_000, seed=7)), seen)
    for name in ("names for private use", "blanks before or behind", "longer than 254 octets", "last label of digits",
                 "local part of more than 64 octets", "hides a special character", "no dot", "import: formula guard",
                 "import: as a mail program writes it", "import: longer than 254 octets",
                 "import: blank characters around a cell"):  # fmt: skip
        assert seen[name] >= 5, f"{name}: {seen}"
    assert seen["read alike and taken"] > 10_000 and seen["read alike and refused"] > 5000


@pytest.mark.slow
def test_a_million_addresses() -> None:
    seen: Counter[str] = Counter()
    for lot in lots(1_000_000, seed=20_261_122):
        compare(lot, seen)
    print(*(f"{count:>9,} {name}" for name, count in seen.most_common()), sep="\n")
    assert seen["read alike and taken"] + seen["read alike and refused"] > 900_000


def test_a_single_write_asks_email_validator(monkeypatch: pytest.MonkeyPatch) -> None:
    check_new(NewContact(email="anna@shop.example"))
    check_changes({"email": "anna@shop.local"})

    def refuse(*_: object, **__: object) -> None:
        raise EmailNotValidError

    monkeypatch.setattr(email_validator, "validate_email", refuse)
    for write in (lambda: check_new(NewContact(email="a@b.example")), lambda: check_changes({"email": "a@b.example"})):
        with pytest.raises(InvalidInput) as failure:
            write()
        assert failure.value.path == ("body", "email")
    assert is_address("a@b.example")


@pytest.mark.parametrize(
    "text",
    ["a@shop\u200b.example", "a@shop.example\u200b", "a@sh\u00adop.example", "a@\u0301shop.example",
     "\u0301a@b.example",
     "\u093fa@b.example", "a@ab--c.example", "a@xn--a.example", "a@xn--.example", "a@shop.ex\u2024ample",
     "a@x\u33c2.example",
     "a@\u0628.1b.example", "a@1.xn--4dbc.example", "a@b\u202ec.example", "a@\ue000.example", "a@xn--bcher---kva.de"],
)  # fmt: skip
def test_a_domain_that_is_not_what_it_looks_like_is_refused(text: str) -> None:
    assert not is_address(text)
    assert peer(text, is_public=True) is None


@pytest.mark.parametrize(
    "text",
    ["a@xn--bcher-kva.de", "a@bücher.de", "a@a--b.example", "a@אב.example", "a@日本。jp", "a@x．example",
     "a@ΟΔΟΣ.example", "a@οδος.example"],
)  # fmt: skip
def test_names_in_other_scripts_are_taken(text: str) -> None:
    assert parse(text).domain == peer(text, is_public=True)
