"""What each customer is expected to buy: the models of `statistics.customer_value` on this installation's orders.

Promises that `analytics.predicted_value` holds predictions of one fit as of one day, or nothing when the model does not
fit; the reason is kept in `analytics.value_models` either way. Orders of one day are one. `look` only reads. Called by
the command line (`value_model`); planned to run weekly at most.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, text

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.statistics import OrderValues, Purchases, Unfit, Why, fit_order_values, fit_purchases

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Band", "Check", "Finding", "look", "refresh"]

_LOG = logging.getLogger(__name__)
_WEEK: Final = 7.0
_MAX_HORIZON: Final = 3650
#: Customers by repeat orders, the last band open.
_BANDS: Final = (0, 1, 2, 3, 5, 8)
_AT_ONCE: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Band:
    """Customers with so many repeat orders (`high` None: and more), and the later orders of all of them together."""

    low: int
    high: int | None
    customers: int
    expected: float
    actual: int


@dataclass(frozen=True, kw_only=True)
class Check:
    """The model fitted to orders before `split` against those from then until the end.

    Args:
        error: mean absolute error of a customer's later orders; `naive_error`: of going on as before.
        unfit: why there is nothing to compare.
    """

    split: datetime
    days: int
    customers: int
    actual: int
    expected: float | None = None
    error: float | None = None
    naive_error: float | None = None
    bands: tuple[Band, ...] = ()
    unfit: Unfit | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The fit as of a moment, its check, and the sums of what is predicted."""

    as_of: datetime
    horizon_days: int
    currency: str
    customers: int
    repeaters: int
    purchases: Purchases | Unfit
    values: OrderValues | Unfit
    check: Check | None
    alive: float | None = None
    expected_orders: float | None = None
    expected_revenue: float | None = None


@dataclass(frozen=True)
class _Customers:
    """Arrays of one length; times in weeks. `value` is not a number where it is not known."""

    ids: Sequence[int]
    x: Any
    recency: Any
    age: Any
    value: Any
    later: Any


def look(
    tx: Tx, *, as_of: datetime, horizon_days: int, currency: str, split: datetime | None = None
) -> Finding:
    """Fit the models and check them; writes nothing.

    Args:
        as_of: orders placed before it; a midnight in UTC.
        horizon_days: how far ahead is predicted.
        currency: the reporting currency; values in others are not known.
        split: the check fits what is before it; None: the middle of the time there are orders of.

    Raises:
        InvalidInput: a moment that is no midnight, or a horizon out of range.
    """
    return _look(tx, as_of, horizon_days, currency, split)[0]


def refresh(
    engine: Engine, *, as_of: datetime, horizon_days: int, currency: str, now: datetime, split: datetime | None = None
) -> Finding:
    """`look`, and put the predictions in the place of the former ones - none where the model is refused."""
    with engine.begin() as tx:
        tx.execute(text("lock table analytics.predicted_value in share row exclusive mode"))
        found, people = _look(tx, as_of, horizon_days, currency, split)
        model_id = _keep(tx, found, now)
        tx.execute(statement("customer_value.forget_predictions"))
        count = _store(tx, found, people, model_id)
    _LOG.info("customer value as of %s: %s predictions", as_of.isoformat(), count)
    return found


def _look(
    tx: Connection, as_of: datetime, horizon_days: int, currency: str, split: datetime | None
) -> tuple[Finding, _Customers]:
    if not 1 <= horizon_days <= _MAX_HORIZON:
        raise InvalidInput(f"horizon_days is {horizon_days}; it takes 1 to {_MAX_HORIZON}", path=("horizon_days",))
    for name, moment in (("as_of", as_of), ("split", split)):
        if moment is not None and moment.astimezone(UTC).time() != time():
            raise InvalidInput(f"{name} is not a midnight in UTC; days are whole", path=(name,))
    people = _read(tx, as_of, as_of, currency)
    purchases = fit_purchases(people.x, people.recency, people.age)
    values = _fit_values(people)
    sums = _sums(purchases, values, people, horizon_days)
    return Finding(
        as_of=as_of, horizon_days=horizon_days, currency=currency, customers=len(people.ids),
        repeaters=int((people.x > 0).sum()), purchases=purchases, values=values,
        check=_check(tx, as_of, split, currency), **sums,
    ), people  # fmt: skip


def _read(tx: Connection, as_of: datetime, until: datetime, currency: str) -> _Customers:
    import numpy as np

    binds = {"as_of": as_of.astimezone(UTC).date(), "until": until, "currency": currency}
    rows = tx.execute(statement("customer_value.customers"), binds).all()
    last = as_of.astimezone(UTC).date() - timedelta(days=1)

    def array(values: Iterator[Any]) -> NDArray[np.float64]:
        return np.fromiter(values, dtype=np.float64, count=len(rows))

    return _Customers(
        ids=[row.contact_id for row in rows], x=array(row.repeats for row in rows),
        recency=array((row.last_day - row.first_day).days / _WEEK for row in rows),
        age=array((last - row.first_day).days / _WEEK for row in rows),
        value=array(np.nan if row.mean_value is None else row.mean_value for row in rows),
        later=array(row.later_count for row in rows),
    )  # fmt: skip


def _fit_values(people: _Customers) -> OrderValues | Unfit:
    known = (people.x > 0) & (people.value > 0)
    if known.sum() < (people.x > 0).sum() / 2:
        return Unfit(why=Why.TOO_FEW_REPEATERS, reason=(
            f"of {int((people.x > 0).sum())} customers who ordered again, {int(known.sum())} have all their orders in "
            "the reporting currency: rates are missing"))  # fmt: skip
    return fit_order_values(people.x[known], people.value[known])


def _check(tx: Connection, as_of: datetime, split: datetime | None, currency: str) -> Check | None:
    """None where there are no two weeks to split."""
    import numpy as np

    first: date | None = tx.scalar(statement("customer_value.first_order"), {"as_of": as_of})
    if first is None:
        return None
    begin = datetime.combine(first, time(), UTC)
    split = split or begin + timedelta(days=(as_of - begin).days // 2)
    days = (as_of - split).days
    if days < _WEEK or (split - begin).days < _WEEK:
        return None
    people = _read(tx, split, as_of, currency)
    actual = int(people.later.sum())
    fitted = fit_purchases(people.x, people.recency, people.age)
    if isinstance(fitted, Unfit):
        return Check(split=split, days=days, customers=len(people.ids), actual=actual, unfit=fitted)
    weeks = days / _WEEK
    expected = fitted.expected(weeks, people.x, people.recency, people.age)
    naive = people.x / np.maximum(people.age, 1 / _WEEK) * weeks
    return Check(
        split=split, days=days, customers=len(people.ids), actual=actual, expected=float(expected.sum()),
        error=float(np.abs(expected - people.later).mean()), naive_error=float(np.abs(naive - people.later).mean()),
        bands=tuple(_bands(people, expected)),
    )  # fmt: skip


def _bands(people: _Customers, expected: Any) -> Iterator[Band]:
    for low, following in zip(_BANDS, (*_BANDS[1:], None), strict=True):
        inside = (people.x >= low) & (people.x < (following or float("inf")))
        yield Band(
            low=low, high=None if following is None else following - 1, customers=int(inside.sum()),
            expected=float(expected[inside].sum()), actual=int(people.later[inside].sum()),
        )  # fmt: skip


def _sums(
    purchases: Purchases | Unfit, values: OrderValues | Unfit, people: _Customers, horizon_days: int
) -> dict[str, float | None]:
    if isinstance(purchases, Unfit):
        return {}
    alive, orders, _, revenue = _predicted(purchases, values, people, horizon_days)
    return {"alive": float(alive.sum()), "expected_orders": float(orders.sum()),
            "expected_revenue": None if revenue is None else float(revenue.sum())}  # fmt: skip


def _predicted(
    purchases: Purchases, values: OrderValues | Unfit, people: _Customers, horizon_days: int
) -> tuple[Any, Any, Any, Any]:
    """Chance to be there, orders, value of one, and revenue of each customer; the last two None where refused."""
    import numpy as np

    about = (people.x, people.recency, people.age)
    alive, orders = purchases.alive(*about), purchases.expected(horizon_days / _WEEK, *about)
    if isinstance(values, Unfit):
        return alive, orders, None, None
    # Whose values are not known is taken for somebody of whom nothing is.
    known = np.where(people.value > 0, people.x, 0.0)
    worth = values.expected(known, np.nan_to_num(people.value))
    return alive, orders, worth, orders * worth


def _store(tx: Connection, found: Finding, people: _Customers, model_id: int) -> int:
    if isinstance(found.purchases, Unfit):
        return 0
    alive, orders, worth, revenue = _predicted(found.purchases, found.values, people, found.horizon_days)
    binds = {"model_id": model_id, "as_of": found.as_of, "horizon_days": found.horizon_days, "currency": found.currency}
    count = 0
    for start in range(0, len(people.ids), _AT_ONCE):
        rows = [
            {"contact_id": people.ids[at], "repeats": int(people.x[at]), "alive": round(min(float(alive[at]), 1.0), 6),
             "orders": round(max(float(orders[at]), 0.0), 6),
             "worth": None if worth is None else round(float(worth[at]), 4),
             "revenue": None if revenue is None else round(max(float(revenue[at]), 0.0), 4)}
            for at in range(start, min(start + _AT_ONCE, len(people.ids)))
        ]  # fmt: skip
        count += tx.execute(statement("customer_value.keep_predictions"), {**binds, "rows": json.dumps(rows)}).rowcount
    return count


def _keep(tx: Connection, found: Finding, now: datetime) -> int:
    purchases, values, check = found.purchases, found.values, found.check
    names, value_names = ("r", "alpha", "a", "b", "log_likelihood"), ("p", "q", "v", "correlation")
    binds: dict[str, Any] = {
        **{name: getattr(purchases, name, None) for name in names},
        **{name: getattr(values, name, None) for name in value_names},
        "value_log_likelihood": getattr(values, "log_likelihood", None),
        "refusal": getattr(purchases, "reason", None), "value_refusal": getattr(values, "reason", None),
        "as_of": found.as_of, "now": now, "horizon_days": found.horizon_days, "customers": found.customers,
        "repeat_customers": found.repeaters, "currency": found.currency,
        "check_from": check.split if check else None, "check_expected": check.expected if check else None,
        "check_actual": check.actual if check else None,
    }  # fmt: skip
    return int(tx.execute(statement("customer_value.keep_model"), binds).scalar_one())
