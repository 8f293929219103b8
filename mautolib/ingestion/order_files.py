"""`python -m mautolib.ingestion.order_files FILE`: loads the history of a shop's orders from CSV, silently.

Prints what became of every row; rejected rows go to a CSV file beside the given one, as they were, with the reason.
Exit code 0: everything taken or known, 1: some rows were rejected, 2: nothing was read (the reason is on stderr).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from mautolib.db.engine import connect
from mautolib.errors import InvalidInput, MautoError
from mautolib.events.money import amount_text
from mautolib.ingestion.order_columns import PRESETS, Field
from mautolib.ingestion.order_loading import Leave, Loaded, OrderFile, load
from mautolib.settings import Settings

__all__ = ["main", "report"]

_SHOWN = 10


def report(found: Loaded, *, dry_run: bool, rejects: Path | None) -> str:
    """What became of a file, as people read it."""
    would = "would be " if dry_run else ""
    lines = [
        f"{found.rows:,} rows, source {found.source!r}" + (f", read as {found.preset}" if found.preset else ""),
        f"{found.taken_rows:,} rows in {found.new + found.duplicates:,} orders: {found.new:,} {would}new, "
        f"{found.duplicates:,} known",
        f"{found.contacts_made:,} contacts {would}made, {found.refunds:,} refunds {would}stored",
    ]
    lines += [f"total {currency} {amount_text(total)}" for currency, total in sorted(found.totals.items())]
    if found.first and found.last:
        lines.append(f"placed from {found.first:%Y-%m-%d %H:%M} to {found.last:%Y-%m-%d %H:%M} UTC")
    for reason, (orders, rows) in found.left_out.items():
        lines.append(f"left out ({reason}): {rows:,} rows" + (f" in {orders:,} orders" if orders else ""))
    if found.rejected:
        where = f", written to {rejects}" if rejects else ""
        lines.append(f"rejected: {found.rejected_rows:,} rows{where}; {found.conflicts:,} orders conflict")
        worst = list(found.rejected.items())[:_SHOWN]
        lines += [f"  {rows:,} x {field}: {problem}" for (field, problem), rows in worst]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _parser().parse_args(arguments)
    plain = given.file.name.removesuffix(".gz").removesuffix(".csv")
    rejects = given.rejects or given.file.with_name(f"{plain}.rejected.csv")
    try:
        wanted = _wanted(given)
        settings = Settings.from_env()
        engine = connect(settings.url_for("worker"), application_name="mauto-order-files", pool_size=1)
        try:
            found = load(engine, wanted, settings, now=datetime.now(UTC), dry_run=given.dry_run, rejects=rejects,
                         progress=_quiet if given.quiet else _tell)  # fmt: skip
        finally:
            engine.dispose()
    except MautoError as error:
        return _refused(str(error))
    except DBAPIError:
        return _refused("the database cannot be reached, or is not migrated")
    sys.stdout.write(report(found, dry_run=given.dry_run, rejects=rejects) + "\n")
    return 1 if found.rejected else 0


def _wanted(given: argparse.Namespace) -> OrderFile:
    return OrderFile(
        path=given.file, source=given.source, currency=given.currency, mapping=_mapping(given.mapping),
        preset=given.preset, timezone=given.timezone, date_format=given.date_format,
        decimal_comma=given.decimal_comma, encoding=given.encoding, delimiter=given.delimiter,
        cancelled_prefix=given.cancelled_prefix, leaves=frozenset(Leave(one) for one in given.leave_out),
    )  # fmt: skip


def _mapping(text: str) -> dict[str, str | None]:
    """JSON, or `@` and the name of a file with it."""
    try:
        found = json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"--mapping is not JSON: {error}", path=("mapping",)) from None
    if not isinstance(found, dict) or not all(isinstance(one, str | None) for one in found.values()):
        raise InvalidInput('--mapping is not an object such as {"Invoice": "order_id", "Notes": null}',
                           path=("mapping",))  # fmt: skip
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mautolib.ingestion.order_files",
        description="Load the history of a shop's orders from CSV (plain or gzip). Starts no workflow and no webhook.",
        epilog=f"Fields of a mapping: {', '.join(Field)}.",
    )
    add = parser.add_argument
    add("file", type=Path, help="CSV, plain or gzip")
    add("--currency", metavar="CODE", help="of orders whose rows say none, e.g. EUR")
    add("--source", metavar="NAME", help="the shop; with the order's number it says which order is meant "
                                         "(default: the preset's name, or 'file')")
    add("--mapping", default="{}", metavar="JSON", help='header to field, {"Invoice": "order_id"}, null: not read; '
                                                        "or @FILE with it")
    add("--preset", default="auto", choices=["auto", "none", *PRESETS], help="whose export it is (told by the header)")
    add("--leave-out", action="append", default=[], choices=[str(one) for one in Leave],
        help="may be given more than once")
    add("--cancelled-prefix", metavar="TEXT", help="how numbers of cancellations begin, e.g. C")
    add("--timezone", default="UTC", help="of moments without an offset (UTC)")
    add("--date-format", metavar="FORMAT", help="of strptime, e.g. %%d/%%m/%%Y %%H:%%M; default ISO 8601")
    add("--decimal-comma", action="store_true", help="amounts are written 1.234,50")
    add("--encoding", default="auto", help="a Python codec (told by the file)")
    add("--delimiter", metavar="CHARACTER", help="told by the header")
    add("--rejects", type=Path, metavar="FILE", help="where rejected rows go (beside the file, NAME.rejected.csv)")
    add("--dry-run", action="store_true", help="look at everything, change nothing")
    add("--quiet", action="store_true", help="no progress on stderr")
    return parser  # fmt: skip


def _tell(step: str, count: int) -> None:
    sys.stderr.write(f"{count:>12,} {step}\n")


def _quiet(step: str, count: int) -> None:
    pass


def _refused(why: str) -> int:
    sys.stderr.write(f"not loaded: {why}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
