"""`python -m mautolib.analytics.value_model`: what will customers buy, on this installation's orders?

Fits the model, checks it on time it did not see, prints both, and stores the predictions (`analytics.predicted_value`).
Exit code 0: fitted, 1: refused (why is printed, and no predictions are left), 2: it could not look.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sqlalchemy.exc import DBAPIError

from mautolib.analytics.prediction import Check, Finding, look, refresh
from mautolib.db.engine import connect
from mautolib.errors import MautoError
from mautolib.settings import Settings
from mautolib.statistics import Unfit

__all__ = ["main", "report"]


def report(found: Finding, *, stored: bool) -> str:
    """The finding as people read it."""
    return "\n".join(_lines(found, stored))


def as_json(found: Finding) -> str:
    """The finding as one JSON object."""
    return json.dumps(dataclasses.asdict(found), indent=2, default=str)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _parser().parse_args(arguments)
    now = datetime.now(UTC)
    as_of = given.as_of or now.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        settings = Settings.from_env()
        engine = connect(settings.url_for("worker"), application_name="mauto-value-model", pool_size=1)
        try:
            if given.dry_run:
                with engine.connect() as tx:
                    found = look(tx, as_of=as_of, horizon_days=given.horizon_days, split=given.check_from,
                                 currency=settings.reporting_currency)  # fmt: skip
            else:
                found = refresh(engine, as_of=as_of, horizon_days=given.horizon_days, split=given.check_from,
                                currency=settings.reporting_currency, now=now)  # fmt: skip
        finally:
            engine.dispose()
    except MautoError as error:
        return _not_looked(str(error))
    except DBAPIError:
        return _not_looked("the database cannot be reached, or is not migrated")
    sys.stdout.write((as_json(found) if given.json else report(found, stored=not given.dry_run)) + "\n")
    return 1 if isinstance(found.purchases, Unfit) else 0


def _lines(found: Finding, stored: bool) -> Iterator[str]:
    yield f"Orders before {found.as_of:%Y-%m-%d}: {found.customers:,} customers, {found.repeaters:,} ordered again."
    yield ""
    fitted = found.purchases
    if isinstance(fitted, Unfit):
        yield f"REFUSED ({fitted.why}): {fitted.reason}."
        yield "Nothing is predicted" + (", and former predictions are removed." if stored else ".")
    else:
        yield (f"BG/NBD: r {fitted.r:.4f}, alpha {fitted.alpha:.4f} weeks, a {fitted.a:.4f}, b {fitted.b:.4f}, "
               f"log likelihood {fitted.log_likelihood:.2f}")  # fmt: skip
    values = found.values
    if isinstance(values, Unfit):
        yield f"Gamma-Gamma REFUSED ({values.why}): {values.reason}. No money is predicted."
    else:
        yield (f"Gamma-Gamma: p {values.p:.4f}, q {values.q:.4f}, v {values.v:.4f}, correlation "
               f"{values.correlation:.2f}, mean order {values.mean:.2f} {found.currency}")  # fmt: skip
    if found.check is not None:
        yield ""
        yield from _checked(found.check)
    if found.expected_orders is not None and found.alive is not None:
        yield ""
        worth = "" if found.expected_revenue is None else f", {found.expected_revenue:,.2f} {found.currency}"
        yield (f"Next {found.horizon_days} days: {found.expected_orders:,.1f} orders{worth}; {found.alive:,.1f} of "
               f"{found.customers:,} customers are expected to be there still.")  # fmt: skip


def _checked(check: Check) -> Iterator[str]:
    yield (f"Check: fitted to orders before {check.split:%Y-%m-%d} ({check.customers:,} customers), compared with the "
           f"{check.days} days after.")  # fmt: skip
    if check.unfit is not None or check.expected is None:
        yield f"It was refused there: {check.unfit.reason if check.unfit else ''}. There were {check.actual:,} orders."
        return
    ratio = f" ({check.expected / check.actual - 1:+.1%})" if check.actual else ""
    yield (f"Expected {check.expected:,.1f} orders, there were {check.actual:,}{ratio}. Mean error of a customer "
           f"{check.error:.3f} orders; going on as before: {check.naive_error:.3f}.")  # fmt: skip
    yield f"{'repeats':>8}  {'customers':>9}  {'expected':>10}  {'actual':>8}"
    for band in check.bands:
        name = f"{band.low}+" if band.high is None else f"{band.low}-{band.high}"
        name = f"{band.low}" if band.high == band.low else name
        yield f"{name:>8}  {band.customers:>9,}  {band.expected:>10,.1f}  {band.actual:>8,}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mautolib.analytics.value_model",
        description="What will customers buy? Fits BG/NBD and Gamma-Gamma to the orders there are, checks them on time "
                    "they did not see, and stores a prediction for every customer.",
    )  # fmt: skip
    parser.add_argument("--horizon-days", type=int, default=365, metavar="N", help="how far ahead (365)")
    parser.add_argument("--as-of", type=_day, metavar="DAY", help="orders before this UTC day; default: today")
    parser.add_argument("--check-from", type=_day, metavar="DAY",
                        help="the check compares orders from this day on with what those before it let expect; "
                             "default: the middle")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print only, store nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _day(given: str) -> datetime:
    try:
        return datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is no day like 2026-03-01") from None


def _not_looked(why: str) -> int:
    sys.stderr.write(f"nothing was predicted: {why}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
