"""Random files through every door: preview, dry run, at once and in the background say and do the same.

The files are what people send, with something wrong here and there: quotes, encodings, line ends, cells too many,
headers that collide. Nothing but a sentence about the file may come of any of them.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from mautolib.contacts import imports
from mautolib.contacts.imports import ImportOptions
from mautolib.errors import InvalidInput
from tests.integration.test_imports import NOW, Bed, bed, counts, own_engine

__all__ = ["bed", "own_engine"]

HEADERS = (
    "email", "E-Mail", "first_name", "Last Name", "phone", "country", "language", "timezone", "currency", "subscribed",
    "tags", "created_at", "consent_status", "consent_source", "consent_at", "custom_fields", "custom_fields.x", "Note",
    "Größe", "", 'a"b', "电子邮件", "Accepts Marketing", "Email Marketing Consent", "Klaviyo ID", "MEMBER_RATING",
    "LEID", "EUID", "Email Address", "UNSUB_TIME", "STATUS", "Total Spend", "AOV", "Country / Region", "Tags", "name",
    "Size",
)  # fmt: skip
CELLS = (
    "", "a", "anna@shop.example", "B@Shop.Example", "x@@y", "yes", "no", "1", "SUBSCRIBED", "UNSUBSCRIBED", "granted",
    "DE", "Germany", "Narnia land", "Europe/Berlin", "EUR", "2024-01-01", "2024-01-01T10:00:00+02:00", "9999-01-01",
    "a|b", "\\|", '{"k":1}', "[1]", '{"a":NaN}', "'=x", "=1", "é", "日本", "\u200b", "\ufeff", "a\nb", "a\tb", "\\N",
    "\\.", "\x1f", "\x7f", "\0", "'", "''", '"', "x" * 101, "\u2028", "Ünï@x.co", "mailto:q@x.co", "Q <q@x.co>",
    '["vip"]', "['a', 'b']",
)  # fmt: skip
SHOWN = ("email, first_name, last_name, phone, country, language, timezone, currency, custom_fields::text, subscribed, "
         "consent_status, consent_source, consent_at, array(select name from contact_tags inner join tags "
         "using (tag_id) where contact_tags.contact_id = contacts.contact_id order by name)")  # fmt: skip
Rejects = list[tuple[Any, ...]]


def some_file(draw: random.Random) -> bytes:
    width = draw.randrange(1, 7)
    header = draw.sample(HEADERS, width)
    if not any("mail" in name.lower() for name in header):
        header[draw.randrange(width)] = "email"
    delimiter, end, is_quoted = draw.choice(",,,;\t|"), draw.choice(("\n", "\r\n", "\r")), draw.random() < 0.4
    table = [header]
    for _ in range(draw.choice((0, 1, 5, 40))):
        count = width if draw.random() < 0.93 else draw.randrange(width + 3)
        row = [draw.choice(CELLS) for _ in range(count)]
        for position, name in enumerate(header[:count]):
            if "mail" in name.lower() and draw.random() < 0.8:
                row[position] = f"p{draw.randrange(15)}@shop.example"
        table.append(row)

    def written(cell: str) -> str:
        if is_quoted or any(mark in cell for mark in '",;\t|\r\n'):
            return '"' + cell.replace('"', '""') + '"'
        return cell

    lines = (delimiter.join(map(written, row)) for row in table)
    data = end.join(lines).encode(draw.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252")), "replace")
    if draw.random() < 0.1:
        place = draw.randrange(len(data) + 1)
        data = data[:place] + bytes([draw.randrange(256)]) + data[place + draw.randrange(2) :]
    return data


def some_options(draw: random.Random, data: bytes) -> dict[str, Any]:
    options: dict[str, Any] = {"update_policy": draw.choice(("skip", "fill_empty", "merge", "overwrite"))}
    if draw.random() < 0.2:
        names = [name for name in HEADERS if name and name.encode() in data]
        targets = (None, "email", "first_name", "subscribed", "custom_fields.z", "consent_status", "tags", "country")
        options["mapping"] = {name: draw.choice(targets) for name in names[:3]}
    if draw.random() < 0.2:
        options["consent_source"] = "fair"
    for name, values in (("preset", ("none", "shopify", "klaviyo")), ("encoding", ("cp1252", "utf-8", "gb18030")),
                         ("delimiter", (";", "tab")), ("subscribed_default", (False,))):  # fmt: skip
        if draw.random() < 0.08:
            options[name] = draw.choice(values)
    return options


def contacts_of(tx: Connection) -> list[str]:
    return [str(row) for row in tx.execute(text(f"select {SHOWN} from contacts order by email_key"))]


def rejects_of(tx: Connection, import_id: int) -> Rejects:
    query = text("select line, column_name, code, value from import_rejects where import_id = :id order by line")
    return [tuple(row) for row in tx.execute(query, {"id": import_id})]


def at_once(bed: Bed, path: Path, options: ImportOptions) -> tuple[tuple[Any, ...], list[str], Rejects] | str:
    """Counts, contacts and rejects of an import in this transaction, which is rolled back; or why it is refused."""
    with bed.engine.connect() as tx:
        transaction = tx.begin()
        try:
            taken = imports.take_file(tx, path, options, filename=None, format="csv", sha256="", actor="test", now=NOW,
                                      settings=bed.settings)  # fmt: skip
            return counts(taken.request), contacts_of(tx), rejects_of(tx, taken.request.import_id)
        except InvalidInput as error:
            return str(error)
        finally:
            transaction.rollback()


def in_background(bed: Bed, path: Path, options: dict[str, Any]) -> tuple[tuple[Any, ...], list[str], Rejects] | str:
    with bed.engine.begin() as tx:
        import_id = imports.request_file(tx, path, options, actor="test", now=NOW)
    done = imports.run(bed.engine, bed.settings, import_id, now=NOW)
    with bed.engine.begin() as tx:
        found = counts(done), contacts_of(tx), rejects_of(tx, import_id)
    return found if done.status == "completed" else str(done.error)


def test_every_door_says_and_does_the_same(bed: Bed) -> None:
    path, taken, refused = bed.folder / "some.csv", 0, 0
    for seed in range(60):
        draw = random.Random(seed)
        data = some_file(draw)
        options = some_options(draw, data)
        path.write_bytes(data)
        parsed = ImportOptions.parse(options)
        with bed.engine.begin() as tx:
            before = contacts_of(tx)
        expected = at_once(bed, path, parsed)
        trial = in_background(bed, path, {**options, "dry_run": True})
        done = in_background(bed, path, options)
        assert done == expected, seed
        if isinstance(expected, str):
            assert trial == expected, seed
            refused += 1
            continue
        taken += 1
        tally, _, rejected = expected
        assert trial == (tally, before, rejected), seed
        assert len({line for line, *_ in rejected}) == len(rejected) == tally[4], seed
        assert imports.preview(path, parsed, limit=1 << 20).total_rows == tally[0], seed
    assert taken > 25 and refused > 10
