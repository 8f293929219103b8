"""The demo's contact file: an export as shops really have it, with the mess in known places.

The truth is returned beside the file, so that the demo can say whether the importer accounted for every row.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mautolib.demo.people import Person

HEADER = ("E-Mail", "First name", "Last name", "Tel", "Country", "Language", "Timezone", "Currency", "Subscribed",
          "created_at", "Tags", "Favourite")  # fmt: skip
_BROKEN = ("not-an-address", "two@@signs.example", "no.domain@", "@nobody.example", "a b@space.example",
           "dots..twice@x.example")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What an importer must find in the file."""

    rows: int
    contacts: int
    duplicates: int
    invalid: int


def write(path: Path, everybody: Iterable[Person], seed: int = 7) -> Truth:
    """Write the file (UTF-8 with BOM, semicolons, CRLF) and return what is in it.

    About 2 % of the persons come a second time (other case, stray spaces), 1 % of the rows have a broken or
    empty address, some cells hold line breaks, quotes and delimiters.
    """
    dice = random.Random(seed)
    contacts = duplicates = invalid = 0
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file, delimiter=";", lineterminator="\r\n")
        rows.writerow(HEADER)
        for someone in everybody:
            rows.writerow(_row(someone, dice))
            contacts += 1
            if dice.random() < 0.02:
                twice = dice.choice((someone.email.upper(), f"  {someone.email}\u00a0", f"mailto:{someone.email}"))
                rows.writerow((twice, *_row(someone, dice)[1:]))
                duplicates += 1
            if dice.random() < 0.01:
                rows.writerow((dice.choice((*_BROKEN, "")), *_row(someone, dice)[1:]))
                invalid += 1
    return Truth(rows=contacts + duplicates + invalid, contacts=contacts, duplicates=duplicates, invalid=invalid)


def _row(someone: Person, dice: random.Random) -> tuple[str, ...]:
    favourite = someone.interests[0] if someone.interests else ""
    if favourite and dice.random() < 0.03:
        favourite = f'{favourite}\n"the good one"; always'
    market = someone.market
    return (
        someone.email, someone.first_name, someone.last_name, someone.phone, market.country, market.language,
        market.timezone, market.currency, "yes" if someone.subscribed else "no",
        someone.signed_up_at.isoformat(timespec="seconds"), "|".join(someone.interests), favourite,
    )  # fmt: skip
