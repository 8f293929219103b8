"""Contact import: CPU seconds for a million rows of a CSV file, from the bytes to contacts, events and rejects.

The file has repeated addresses (other case), invalid ones, quoted line breaks, country names and custom columns; the
CPU is that of this process and of the database. Verified: every count of the import, the contacts, the events and
the rejects, and that importing the file again changes no row. Compared with one `insert ... on conflict` a row over
the same parsed values, measured on 10,000 rows, and with a plain COPY of the file into an unlogged table of texts.
Resident memory is the peak of this process, which is the same for 200,000 rows and for a million.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, text

from benchmarks.ground.measuring import bench, finish
from mautolib.contacts import imports
from mautolib.db.copy import copy_chunks
from mautolib.settings import Settings

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAIVE_ROWS = 10_000
COUNTRIES = ("United States", "DE", "France", "United Kingdom", "JP", "Brazil", "Deutschland", "PL", "Spain", "CN")
ZONES = ("America/New_York", "Europe/Berlin", "Europe/Paris", "Asia/Tokyo", "")
FIRST = ("Anna", "Ben", "Chloé", "Dmitri", "Eiko", "Fátima", "Grzegorz", "Hanna", "Ines", "José")
LAST = ("Smith", "Müller", "Dubois", "Ivanov", "Sato", "Silva", "Nowak", "García", "Wang", "O'Hara")
CITIES = ("New York", "Köln", "Paris", "London", "東京", "São Paulo", "München", "Łódź", "Madrid", "北京")
COMPANIES = ("Smith & Sons Trading Ltd", "Handelskontor Nord-Ost GmbH & Co. KG", "Maison Dubois et Fils S.A.R.L.",
             'The "Corner", Inc.', "山田商店", "")  # fmt: skip
SIZES = ("Small", "Medium", "Large", "42 / 10.5")
POISON = ("nobody", "a@b@c.example", "", "dot..dot@x.example", '"quoted"@x.example', "a b@x.example", "x@localhost")
HEADER = ("email", "first_name", "last_name", "phone", "country", "language", "timezone", "Company", "City", "Size",
          "Note")  # fmt: skip
#: Shares of the rows: repeated addresses (other case) and addresses that cannot be.
REPEATED, INVALID = 0.03, 0.02


def write_file(path: Path, rows: int) -> dict[str, int]:
    """Write the input, always the same for one number of rows; returns the counts the import must give."""
    rng = random.Random(7)
    counts = {"total_rows": rows, "created": 0, "rejected": 0}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for number in range(rows):
            first, last = rng.choice(FIRST), rng.choice(LAST)
            email = f"customer.{number}@mail{number % 5000}.shop.example"
            if number % 3 == 0:
                email = f"{first[:1]}{number}@shop-{number % 7}.example".lower()
            draw = rng.random()
            if draw < REPEATED and number:
                earlier = number * 7 % max(1, number // 3) * 3 + 1
                email = f"Customer.{earlier}@MAIL{earlier % 5000}.shop.example"
            elif draw < REPEATED + INVALID:
                email = rng.choice(POISON)
                counts["rejected"] += 1
            note = 'Line one\nLine "two"' if draw > 0.99 else ""
            writer.writerow((
                email, first, last, f"+49 {rng.randrange(100, 1000)} {rng.randrange(10**6, 10**7)}",
                rng.choice(COUNTRIES), rng.choice(("de", "en", "fr", "")), rng.choice(ZONES), rng.choice(COMPANIES),
                rng.choice(CITIES), rng.choice(SIZES), note,
            ))  # fmt: skip
    return counts


def naive(engine: Engine, path: Path) -> None:
    """One statement a row."""
    upsert = text(
        "insert into contacts (email, email_key, first_name, last_name, country) "
        "values (:email, lower(:email), :first_name, :last_name, left(:country, 3)) on conflict (email_key) do nothing"
    )
    with path.open(encoding="utf-8", newline="") as file, engine.begin() as tx:
        for _, row in zip(range(NAIVE_ROWS), csv.DictReader(file), strict=False):
            if "@" in row["email"]:
                tx.execute(upsert, {name: row[name] for name in ("email", "first_name", "last_name", "country")})


def plain_copy(engine: Engine, path: Path) -> None:
    """The file as it is, into a table of texts that is not logged and has no index."""
    columns = ", ".join(f'"{name}"' for name in HEADER)
    with engine.begin() as tx:
        tx.execute(text(f"create unlogged table plain ({columns.replace(',', ' text,')} text)"))
        with path.open("rb") as file:
            chunks = iter(lambda: file.read(1 << 18), b"")
            copy_chunks(tx, f"copy plain ({columns}) from stdin with (format csv, header)", chunks)
    with engine.begin() as tx:
        tx.execute(text("drop table plain"))


def changes(engine: Engine) -> tuple[int, ...]:
    """How often rows of the tables that an import fills were written."""
    query = text("select n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables "
                 "where relname in ('contacts', 'event_pending') order by relname")  # fmt: skip
    with engine.begin() as tx:
        tx.execute(text("select pg_stat_force_next_flush()"))
        tx.execute(text("select pg_stat_clear_snapshot()"))
        return tuple(tx.scalars(query))


def is_right(engine: Engine, done: imports.Import, expected: dict[str, int]) -> bool:
    """Whether the import says what the file holds and the database holds what the import says."""
    with engine.begin() as tx:
        stored = {
            table: tx.scalar(text(f"select count(*) from {table}"))
            for table in ("contacts", "events", "import_rejects")
        }
        # Every contact made waits for its effects once, in its bucket, by the event that tells of it.
        waiting = tx.execute(text(
            "select count(*), count(distinct contact_id) filter (where bucket = contact_id % 64 "
            "and event_type = 'contact_created' and events.occurred_at = event_pending.occurred_at) "
            "from event_pending cross join unnest(event_ids) as event (event_id) "
            "left join events on events.event_id = event.event_id"
        )).one()  # fmt: skip
        keys = tx.scalar(text("select count(distinct lower(email)) from contacts"))
    return (
        done.status == "completed"
        and done.total_rows == expected["total_rows"] == done.created + done.updated + done.skipped
        and done.rejected == expected["rejected"] == stored["import_rejects"]
        and done.created == stored["contacts"] == stored["events"] == keys
        and tuple(waiting) == (done.created, done.created)
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    with bench() as bed, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "contacts.csv"
        expected = write_file(path, rows)
        sys.stdout.write(f"{rows} rows, {path.stat().st_size / 1e6:.0f} MB\n")
        settings = Settings(database_url=bed.cluster.url("bench"), home=Path(folder))
        with bed.measured("one statement a row (10,000 rows)") as slow:
            naive(bed.engine, path)
        with bed.engine.begin() as tx:
            tx.execute(text("delete from contacts"))
            import_id = imports.request_file(tx, path, {}, actor="benchmark", now=NOW)
        with bed.measured(f"import of {rows} rows") as fast:
            done = imports.run(bed.engine, settings, import_id, now=NOW)
        before = changes(bed.engine)
        with bed.engine.begin() as tx:
            again = imports.request_file(tx, path, {}, actor="benchmark", now=NOW)
        with bed.measured("the same file again, nothing new") as repeat:
            repeated = imports.run(bed.engine, settings, again, now=NOW)
        verified = repeated.created == 0 and repeated.rejected == done.rejected and changes(bed.engine) == before
        with bed.engine.begin() as tx:
            tx.execute(text("delete from import_rejects where import_id = :id"), {"id": again})
        verified = verified and is_right(bed.engine, done, expected)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(f"at most {resident:.0f} MB resident\n")
        with bed.measured("plain COPY of the file") as plain:
            plain_copy(bed.engine, path)
    million = 1_000_000 / rows
    finish("contact_import", fast.cpu_seconds * million, "CPU seconds per million rows", rows=rows, verified=verified,
           compared_to={
               "one statement a row": round(slow.cpu_seconds * 1_000_000 / NAIVE_ROWS, 1),
               "the same file again": round(repeat.cpu_seconds * million, 1),
               "plain COPY": round(plain.cpu_seconds * million, 2),
               "times a plain COPY": round(fast.cpu_seconds / plain.cpu_seconds, 1), "resident MB": round(resident),
           })  # fmt: skip


if __name__ == "__main__":
    main()
