"""`python -m mautolib.scoring.validate`: does a higher score mean more later orders, on this installation's data?

Prints lift by tenths, rates by grade, the area under the ROC curve with its interval, and a sentence; `--json` for
machines. Exit code 0 when it could answer (also "not enough data"), 2 when it could not look. It only reads.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import DBAPIError

from mautolib.db.engine import connect
from mautolib.errors import MautoError
from mautolib.scoring.prediction import BASES, Band, Prediction, predict
from mautolib.settings import Settings

__all__ = ["main", "report"]


def report(found: Prediction) -> str:
    """The finding as people read it."""
    lines = [
        f"Scores as of {found.as_of:%Y-%m-%d %H:%M} UTC ({found.basis}, rule version {found.rule_version or '-'}) "
        f"against {found.outcome!r} in the {found.days} days after.",
        f"{found.contacts} contacts, {found.outcomes} with the outcome"
        + (f" ({found.outcomes / found.contacts:.2%})." if found.contacts else "."),
    ]
    if found.outcomes:
        lines += ["", *_table("tenth", found.bands), "", *_table("grade", found.grades)]
    if found.area is not None:
        low, high = found.area.interval.low, found.area.interval.high
        lines += ["", f"AUC {found.area.area:.4f}, 95 % interval {low:.4f} to {high:.4f} (DeLong), "
                      f"standard error {found.area.standard_error:.4f}."]  # fmt: skip
    return "\n".join([*lines, "", found.verdict])


def as_json(found: Prediction) -> str:
    """The finding as one JSON object."""
    values = {**dataclasses.asdict(found), "as_of": found.as_of.isoformat(), "verdict": found.verdict}
    return json.dumps(values, indent=2, default=str)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _parser().parse_args(arguments)
    now = datetime.now(UTC)
    as_of = given.as_of or datetime.combine((now - timedelta(days=given.days)).date(), datetime.min.time(), UTC)
    try:
        settings = Settings.from_env()
        engine = connect(settings.url_for("worker"), application_name="mauto-validate", pool_size=1)
        with engine.connect() as tx:
            found = predict(tx, as_of=as_of, days=given.days, now=now, outcome=given.outcome, basis=given.scores,
                            rule_version=given.rule_version)  # fmt: skip
        engine.dispose()
    except MautoError as error:
        return _not_looked(str(error))
    except DBAPIError:
        return _not_looked("the database cannot be reached, or is not migrated")
    sys.stdout.write((as_json(found) if given.json else report(found)) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mautolib.scoring.validate",
        description="Does a higher score mean more later orders? Compares the scores of a past day with what followed.",
    )
    parser.add_argument("--as-of", type=_moment, metavar="DAY",
                        help="scores of this UTC midnight (or moment with offset); default: --days days ago")
    parser.add_argument("--days", type=int, default=30, help="how long after it an outcome counts (30)")
    parser.add_argument("--outcome", default="order", metavar="TYPE", help="'order' (default) or the type of an event")
    parser.add_argument("--scores", choices=BASES, default="auto", help=(
        "snapshots of that moment; recomputed out of what was known then; history: out of all that happened by then, "
        "also what was imported later; auto (default): snapshots, else recomputed"))
    parser.add_argument("--rule-version", type=int, metavar="N", help="recompute with these rules; default: the newest")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser  # fmt: skip


def _moment(given: str) -> datetime:
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is no day like 2026-03-01") from None
    if moment.tzinfo is None and len(given) > len("2026-03-01"):
        raise argparse.ArgumentTypeError(f"{given!r} has no offset from UTC")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _table(name: str, bands: Iterable[Band]) -> list[str]:
    head = f"{name:>5}  {'scores':>17}  {'contacts':>9}  {'with':>7}  {'rate':>7}  {'95 % interval':>17}  {'lift':>5}"
    return [head, *(_line(band) for band in bands)]


def _line(band: Band) -> str:
    cells: list[Any] = [
        f"{band.name:>5}", f"{band.low:8.2f} {band.high:8.2f}", f"{band.contacts:9}", f"{band.outcomes:7}",
        f"{band.rate:7.2%}", f"{band.interval.low:8.2%} {band.interval.high:8.2%}", f"{band.lift or 0:5.2f}",
    ]  # fmt: skip
    return "  ".join(cells)


def _not_looked(why: str) -> int:
    sys.stderr.write(f"not validated: {why}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
