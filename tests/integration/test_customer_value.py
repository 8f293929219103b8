"""Predictions stored: which orders count, as of which day, in which currency; refusals leave nothing behind."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import contacts
from mautolib.analytics import prediction, value_model
from mautolib.errors import InvalidInput
from mautolib.events.orders import NewOrder, NewRefund, record_orders, record_refunds
from mautolib.settings import Settings
from mautolib.statistics import OrderValues, Purchases, Unfit, Why
from tests.builders import make_contact

AS_OF = datetime(2026, 10, 1, tzinfo=UTC)
BEGIN = datetime(2025, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
CUSTOMERS = 600


def history(tx: Connection, settings: Settings) -> list[int]:
    """Customers who come at different rates and leave, over a year; returns them."""
    draw, people, orders = np.random.default_rng(8), [], []
    for n in range(CUSTOMERS):
        person = make_contact(tx, email=f"c{n}@value.example")
        people.append(person)
        moment = BEGIN + timedelta(days=float(draw.uniform(0, 120)))
        rate, leaves, worth = draw.gamma(0.6, 1 / 15), draw.beta(0.6, 1.8), draw.gamma(4, 1 / 15)
        while moment < AS_OF:
            total = Decimal(str(round(0.01 + float(draw.gamma(6, 1 / worth)), 2)))
            orders.append(NewOrder(order_id=f"{len(orders)}", placed_at=moment, currency="USD", total=total, lines=[],
                                   contact_id=person, source="value"))  # fmt: skip
            if draw.random() < leaves:
                break
            moment += timedelta(days=float(draw.exponential(1 / max(rate, 1e-6))) % 4000)
    record_orders(tx, orders, settings, now=NOW, effects=False)
    return people


def look(tx: Connection, **how: Any) -> prediction.Finding:
    return prediction.look(tx, **{"as_of": AS_OF, "horizon_days": 90, "currency": "USD", **how})


def rows(engine: Engine, sql: str) -> list[tuple[Any, ...]]:
    with engine.connect() as tx:
        return [tuple(row) for row in tx.execute(text(sql))]


@pytest.fixture
def stocked(fresh_engine: Engine, settings: Settings) -> tuple[Engine, list[int]]:
    with fresh_engine.begin() as tx:
        return fresh_engine, history(tx, settings)


def refreshed(engine: Engine, **how: Any) -> prediction.Finding:
    given = {"as_of": AS_OF, "horizon_days": 90, "currency": "USD", "now": NOW, **how}
    return prediction.refresh(engine, **given)


def test_a_prediction_for_every_customer(stocked: tuple[Engine, list[int]]) -> None:
    engine, people = stocked
    found = refreshed(engine)
    assert isinstance(found.purchases, Purchases) and found.customers == CUSTOMERS
    assert isinstance(found.values, OrderValues), found.values
    stored = rows(engine, "select contact_id, repeat_orders, alive_probability, expected_orders, expected_order_value, "
                          "expected_revenue from analytics.predicted_value order by contact_id")  # fmt: skip
    assert [row[0] for row in stored] == sorted(people)
    assert float(sum(row[3] for row in stored)) == pytest.approx(found.expected_orders, abs=0.01)
    assert float(sum(row[5] for row in stored)) == pytest.approx(found.expected_revenue, abs=0.1)
    for _, repeats, alive, orders, worth, revenue in stored:
        assert alive == 1 if repeats == 0 else 0 <= alive <= 1
        assert float(revenue) == pytest.approx(float(orders) * float(worth), abs=0.02)
    model = "select customers, repeat_customers, refusal, value_refusal, r, alpha_weeks, check_actual_orders, as_of, "
    (one,) = rows(engine, model + "fitted_at, horizon_days, reporting_currency from analytics.value_models")
    assert found.check is not None
    assert one == (CUSTOMERS, found.repeaters, None, None, found.purchases.r, found.purchases.alpha, found.check.actual,
                   AS_OF, NOW, 90, "USD")  # fmt: skip
    # Again, with another horizon: one fit in the place of the other.
    refreshed(engine, horizon_days=30)
    assert rows(engine, "select distinct model_id, horizon_days from analytics.predicted_value") == [(2, 30)]
    # Who goes takes the prediction along.
    with engine.begin() as tx:
        contacts.delete(tx, people[0], actor="test", now=NOW)
    assert rows(engine, "select count(*) from analytics.predicted_value") == [(CUSTOMERS - 1,)]


def test_the_check_is_made_of_the_same_orders(stocked: tuple[Engine, list[int]]) -> None:
    engine, _ = stocked
    split = AS_OF - timedelta(days=100)
    with engine.connect() as tx:
        check = look(tx, split=split).check
        actual = tx.scalar(
            text(
                "select count(distinct (contact_id, cast(placed_at at time zone 'utc' as date))) from orders o "
                "where placed_at >= :split and placed_at < :as_of and contact_id in "
                "(select contact_id from orders where placed_at < :split)"
            ),
            {"split": split, "as_of": AS_OF},
        )
    assert check is not None and check.expected is not None
    assert (check.days, check.actual) == (100, actual)
    assert check.expected == pytest.approx(check.actual, rel=0.3)
    assert sum(band.customers for band in check.bands) == check.customers
    assert sum(band.expected for band in check.bands) == pytest.approx(check.expected)
    assert sum(band.actual for band in check.bands) == check.actual


def test_which_orders_count(stocked: tuple[Engine, list[int]], settings: Settings) -> None:
    engine, _ = stocked
    with engine.begin() as tx:
        person = make_contact(tx, email="one@value.example")

        def order(number: str, day: str, total: str, currency: str = "USD", contact_id: int = person) -> NewOrder:
            moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
            return NewOrder(order_id=number, placed_at=moment, currency=currency, total=Decimal(total), lines=[],
                            contact_id=contact_id, source="odd")  # fmt: skip

        record_orders(tx, [
            order("first", "2026-09-01T23:00", "50"), order("same day", "2026-09-01T23:30", "5"),
            order("second", "2026-09-10", "30"), order("with it", "2026-09-10", "10"), order("free", "2026-09-15", "0"),
            order("back", "2026-09-12", "-20"), order("refunded", "2026-09-11", "40"),
            order("later", "2026-10-01", "99"), order("nobody", "2026-09-10", "30", contact_id=0),
        ], settings, now=NOW, effects=False)  # fmt: skip
        record_refunds(tx, [NewRefund(order_id="refunded", occurred_at=AS_OF, currency="USD", amount=Decimal(40),
                                      source="odd")], now=NOW, effects=False)  # fmt: skip
        people = prediction._read(tx, AS_OF, AS_OF + timedelta(days=5), "USD")
        at = people.ids.index(person)
        assert [people.x[at], people.recency[at] * 7, people.age[at] * 7] == pytest.approx([2, 14, 29])
        assert (people.value[at], people.later[at]) == (20, 1)  # (40 + 0) / 2
        # In a currency nobody has a rate for, the order counts and its value is not known.
        record_orders(tx, [order("pounds", "2026-09-20", "10", currency="GBP")], settings, now=NOW, effects=False)
        people = prediction._read(tx, AS_OF, AS_OF, "USD")
        assert people.x[at] == 3 and people.value[at] == 20
        assert np.isnan(prediction._read(tx, AS_OF, AS_OF, "EUR").value[at])


def test_without_values_there_is_no_money(stocked: tuple[Engine, list[int]]) -> None:
    engine, _ = stocked
    found = refreshed(engine, currency="EUR")
    assert isinstance(found.purchases, Purchases) and isinstance(found.values, Unfit)
    assert "rates are missing" in found.values.reason
    assert rows(engine, "select count(*), count(expected_revenue) from analytics.predicted_value") == [(CUSTOMERS, 0)]


def test_a_refusal_leaves_no_predictions(stocked: tuple[Engine, list[int]]) -> None:
    engine, _ = stocked
    refreshed(engine)
    with engine.begin() as tx:
        tx.execute(text("delete from orders where contact_id % 4 > 0"))
    found = refreshed(engine)
    assert isinstance(found.purchases, Unfit) and found.purchases.why is Why.TOO_FEW_CUSTOMERS
    assert rows(engine, "select count(*) from analytics.predicted_value") == [(0,)]
    refusals = rows(engine, "select refusal from analytics.value_models order by model_id")
    assert refusals == [(None,), (f"{CUSTOMERS // 4} customers; 200 are needed",)]
    with engine.begin() as tx:
        tx.execute(text("delete from orders"))
    found = refreshed(engine)
    assert (found.customers, found.check) == (0, None) and isinstance(found.purchases, Unfit)


def test_what_is_not_taken(tx: Connection) -> None:
    for wrong in ({"horizon_days": 0}, {"horizon_days": 3651}, {"as_of": NOW}, {"split": NOW}):
        with pytest.raises(InvalidInput):
            look(tx, **wrong)


def test_the_command(
    stocked: tuple[Engine, list[int]], settings: Settings, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    engine, _ = stocked
    monkeypatch.setattr(Settings, "from_env", classmethod(lambda cls: replace(settings, reporting_currency="USD")))
    assert value_model.main(["--as-of", "2026-10-01", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "BG/NBD: r " in told and "Check: fitted to orders before" in told and "Next 365 days" in told
    assert rows(engine, "select count(*) from analytics.value_models") == [(0,)]
    assert value_model.main(["--as-of", "2026-10-01", "--horizon-days", "30", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["horizon_days"] == 30
    assert rows(engine, "select count(*) from analytics.predicted_value") == [(CUSTOMERS,)]
    assert value_model.main(["--as-of", "2025-10-10"]) == 1
    assert "REFUSED (too_few_customers)" in capsys.readouterr().out
    assert value_model.main(["--horizon-days", "0"]) == 2
    assert "nothing was predicted" in capsys.readouterr().err
