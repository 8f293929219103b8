"""A contact file with poison in it, and the truth about every line of it, known from how it was written.

Nothing of the importer is used here. Records span physical lines, blank lines stand between them, addresses come
again in other spellings. Half of the stretches are rough (broken quotes, NUL, wrong bytes, ragged rows, other line
ends), the others only have cells that are not acceptable, so that both ways of reading a file meet poison.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

HEADER = ("email", "first_name", "last_name", "country", "timezone", "currency", "subscribed", "created_at",
          "consent_status", "consent_source", "custom_fields", "Note")  # fmt: skip
SHARE, REPEATED, SUPPRESSED = 0.05, 0.03, 0.01
#: As typed, and as compared.
DOMAINS = (("shop.example", "shop.example"), ("münchen.example", "xn--mnchen-3ya.example"),
           ("mail.example.co.uk", "mail.example.co.uk"), ("例え.example", "xn--r8jz45g.example"))  # fmt: skip
FIRST = ("Anna", "Ben", "Chloé", "Дмитрий", "英子", "O'Hara", 'Jo "J" Doe', "Müller, Max")

#: Kind -> column and code; each value is what makes it.
ADDRESSES = {
    "no at": "nobody.example", "two ats": "a@b@shop.example", "blank": "", "two dots": "dot..dot@shop.example",
    "quoted": '"quoted name"@shop.example', "a blank inside": "a b@shop.example", "no dot": "x@localhost",
    "long local part": "x" * 65 + "@shop.example", "too long": "x@" + "y" * 60 + "." + ("z" * 60 + ".") * 4 + "example",
    "a literal": "x@[192.0.2.1]", "bad host": "x@-shop-.example", "two addresses": "a@shop.example; b@shop.example",
}  # fmt: skip
CELLS = {
    "long name": ("first_name", "x" * 101, "too_long"), "control": ("last_name", "a\x07b", "invalid_value"),
    "line break in a name": ("first_name", "a\nb", "invalid_value"),
    "time zone": ("timezone", "Mars/Olympus", "invalid_value"), "currency": ("currency", "EURO", "invalid_value"),
    "yes or no": ("subscribed", "maybe", "invalid_value"), "date": ("created_at", "2025-02-30", "invalid_value"),
    "the future": ("created_at", "2199-01-01", "invalid_value"),
    "consent": ("consent_status", "perhaps", "invalid_value"),
    "granted by nobody": ("consent_status", "granted", "invalid_value"),
    "JSON": ("custom_fields", '{"a": ', "invalid_value"), "no object": ("custom_fields", "[1]", "invalid_value"),
}  # fmt: skip
ROUGH = ("NUL", "wrong bytes", "half a character", "too few", "too many", "lost quote", "lost quote at the end")
KINDS = (*ADDRESSES, *CELLS, *ROUGH)


@dataclass
class Truth:
    """What an import with policy skip must find.

    Args:
        rejects: physical line, column and code of each row that cannot be taken.
        names: address key -> first name of its first row.
        suppressed: address keys that said no before.
        suppressed_rows: rows of those, repeats included.
    """

    rows: int = 0
    repeated: int = 0
    rejects: list[tuple[int, str, str]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    suppressed: list[str] = field(default_factory=list)
    suppressed_rows: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[int, int, int, int, int, int]:
        """total_rows, created, updated, skipped, rejected, suppressed."""
        rejected = len(self.rejects)
        return self.rows, len(self.names), 0, self.repeated + rejected, rejected, self.suppressed_rows


def write(path: Path, rows: int, *, seed: int = 1, stretches: int = 8) -> Truth:
    """Write `rows` records, the same for the same seed; returns the truth about them."""
    rng, truth, line = random.Random(seed), Truth(rows=rows), 2
    said_no: set[str] = set()
    length = max(1, rows // stretches)
    with path.open("wb") as file:
        file.write((",".join(HEADER) + "\n").encode())
        for number in range(rows):
            is_rough = number // length % 2 == 1
            if rng.random() < SHARE:
                kind = rng.choice(KINDS if is_rough else (*ADDRESSES, *CELLS))
                record, column, code = _poisoned(rng, kind, number)
                truth.rejects.append((line, column, code))
                truth.kinds[kind] = truth.kinds.get(kind, 0) + 1
            else:
                record = _good(rng, number, truth, said_no)
            end = b"\r\n" if is_rough and rng.random() < 0.01 else b"\n"
            file.write(record + end)
            line += record.count(b"\n") + 1
            if is_rough and rng.random() < 0.004:
                file.write(b"\n")
                line += 1
    return truth


def _good(rng: random.Random, number: int, truth: Truth, said_no: set[str]) -> bytes:
    first, draw = rng.choice(FIRST), rng.random()
    of = number
    if draw < REPEATED and number > 50:
        of = rng.randrange(number)
    typed, compared = DOMAINS[of % len(DOMAINS)]
    local = f"customer.{of}"
    key = f"{local}@{compared}"
    if key in truth.names:
        truth.repeated += 1
        address = rng.choice((f"{local.upper()}@{typed}", f"{local}@{compared.upper()}", f" {local}@{compared} ",
                              f'"{first}" <{local}@{typed}>' if "," not in first and '"' not in first
                              else f"Customer.{of}@{typed}"))  # fmt: skip
    else:
        address = f"{local}@{typed}"
        truth.names[key] = first
        if rng.random() < SUPPRESSED:
            said_no.add(key)
            truth.suppressed.append(key)
    truth.suppressed_rows += key in said_no
    cells = _cells(rng, address, first)
    if rng.random() < 0.03:
        cells["Note"] = 'Line one\nLine "two"\n\nafter a blank one'
    return _line(list(cells.values()))


def _cells(rng: random.Random, address: str, first: str) -> dict[str, str]:
    return dict(zip(HEADER, (
        address, first, rng.choice(("Smith", "Dubois", "")), rng.choice(("DE", "Germany", "Atlantis", "")),
        rng.choice(("Europe/Berlin", "")), rng.choice(("EUR", "")), rng.choice(("yes", "no", "")), "2025-01-02", "", "",
        rng.choice(("", '{"size": "M"}')), rng.choice(("a, b", "", "x")),
    ), strict=True))  # fmt: skip


def _poisoned(rng: random.Random, kind: str, number: int) -> tuple[bytes, str, str]:
    """A record, and the column and code of what is wrong with it."""
    cells = _cells(rng, f"poison.{number}@shop.example", "Anna")
    if kind in ADDRESSES:
        cells["email"] = ADDRESSES[kind]
        return _line(list(cells.values())), "email", "invalid_email"
    if kind in CELLS:
        column, value, code = CELLS[kind]
        cells[column] = value
        return _line(list(cells.values())), column, code
    if kind == "NUL":
        cells["last_name"] = "a\0b"
        return _line(list(cells.values())), "last_name", "nul_byte"
    if kind in ("wrong bytes", "half a character"):
        cells["Note"] = "@@@"
        found = b"M\xfcller" if kind == "wrong bytes" else b"caf\xc3"
        return _line(list(cells.values())).replace(b"@@@", found), "Note", "bad_encoding"
    if kind == "too few":
        return _line(list(cells.values())[:-2]), "", "ragged_row"
    if kind == "too many":
        return _line([*cells.values(), "one more"]), "", "ragged_row"
    plain = [value if "," not in value and '"' not in value else "" for value in cells.values()]
    at = 1 if kind == "lost quote" else len(plain) - 1
    plain[at] = '"' + "Anna"
    return ",".join(plain).encode(), "", "unbalanced_quote"


def _line(cells: list[str]) -> bytes:
    return ",".join(
        '"' + cell.replace('"', '""') + '"' if any(mark in cell for mark in ',"\n\r') else cell for cell in cells
    ).encode()
