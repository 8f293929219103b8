"""CDNOW, loaded as orders: the published estimates of BG/NBD and Gamma-Gamma, and what they say of the time after."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib.analytics.prediction import look, refresh
from mautolib.analytics.value_model import report
from mautolib.ingestion.order_loading import Leave, OrderFile, load
from mautolib.settings import Settings
from mautolib.statistics import OrderValues, Purchases, Unfit, Why, fit_order_values, fit_purchases

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
#: The published estimates are of the first 39 weeks.
SPLIT, END = datetime(1997, 10, 1, tzinfo=UTC), datetime(1998, 7, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def golden(data: Path) -> Any:
    return json.loads((data / "golden" / "cdnow_sample.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def customers(data: Path) -> dict[str, list[float]]:
    with (data / "cdnow" / "cdnow_customers_summary_with_transactions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in ("x", "t_x", "T", "zbar")}


def purchases(customers: dict[str, list[float]]) -> Purchases:
    found = fit_purchases(customers["x"], customers["t_x"], customers["T"])
    assert isinstance(found, Purchases)
    return found


def test_purchases_as_published(customers: dict[str, list[float]], golden: Any) -> None:
    found, wanted = purchases(customers), golden["bg_nbd"]
    for name in ("r", "alpha", "a", "b"):
        assert getattr(found, name) == pytest.approx(wanted[name], rel=1e-6)
        assert round(getattr(found, name), 3) == wanted["published"][name]
    assert found.log_likelihood == pytest.approx(wanted["log_likelihood"], abs=1e-5)
    for t, expected in wanted["expected_purchases_new_customer"].items():
        assert found.expected_of_new(float(t)) == pytest.approx(expected, rel=1e-5)
    about = (customers["x"], customers["t_x"], customers["T"])
    assert found.expected(39, *about).sum() == pytest.approx(wanted["total_expected_holdout_39w"], rel=1e-6)
    assert found.alive(*about).mean() == pytest.approx(wanted["mean_p_alive"], rel=1e-6)


def test_order_values_as_published(customers: dict[str, list[float]], golden: Any) -> None:
    again = [at for at, x in enumerate(customers["x"]) if x > 0]
    found = fit_order_values([customers["x"][at] for at in again], [customers["zbar"][at] for at in again])
    assert isinstance(found, OrderValues)
    wanted = golden["gamma_gamma"]
    for name in ("p", "q", "v"):
        assert getattr(found, name) == pytest.approx(wanted[name], rel=1e-5)
    assert (found.repeaters, found.mean) == (wanted["customers"], pytest.approx(wanted["population_mean"], rel=1e-6))
    assert found.correlation == pytest.approx(wanted["corr_frequency_value"], rel=1e-9)
    expected = found.expected(customers["x"][:10], customers["zbar"][:10])
    assert expected == pytest.approx(wanted["first10_published"], abs=0.02)


def cdnow_orders(data: Path, folder: Path) -> Path:
    """The transactions as a shop would export them."""
    path = folder / "cdnow.csv"
    with (data / "cdnow" / "CDNOW_sample.txt").open(encoding="utf-8") as file, path.open("w", encoding="utf-8") as made:
        made.write("order_id,placed_at,customer_id,total\n")
        for number, line in enumerate(file):
            _, customer, day, _, value = line.split()
            made.write(f"{number},{date.fromisoformat(day)},{customer},{value}\n")
    return path


def test_cdnow_as_orders(data: Path, fresh_engine: Engine, settings: Settings, tmp_path: Path, golden: Any) -> None:
    given = OrderFile(path=cdnow_orders(data, tmp_path), currency="USD", source="cdnow")
    loaded = load(fresh_engine, given, settings, now=NOW)
    assert (loaded.new, loaded.contacts_made, loaded.rejected) == (6919, 2357, {})
    with fresh_engine.connect() as tx:
        first = look(tx, as_of=SPLIT, horizon_days=273, currency="USD")
    wanted = golden["bg_nbd"]
    assert isinstance(first.purchases, Purchases) and isinstance(first.values, OrderValues)
    # Weeks are exact here, and of two decimals in the published file.
    for name in ("r", "alpha", "a", "b"):
        assert getattr(first.purchases, name) == pytest.approx(wanted[name], rel=1e-4)
    assert first.purchases.log_likelihood == pytest.approx(wanted["log_likelihood"], abs=0.01)
    print(report(first, stored=False))
    whole = refresh(fresh_engine, as_of=END, horizon_days=365, currency="USD", now=NOW, split=SPLIT)
    print(report(whole, stored=True))
    check = whole.check
    assert check is not None and check.expected is not None
    assert (check.actual, check.customers, check.days) == (1882, 2357, 273)
    assert check.expected == pytest.approx(1653, abs=3)  # 12 % too few: they came back more than before
    assert check.error is not None and check.naive_error is not None and check.error < check.naive_error
    with fresh_engine.connect() as tx:
        row = tx.execute(text("select count(*), sum(expected_orders), sum(expected_revenue) "
                              "from analytics.predicted_value")).one()  # fmt: skip
    assert (row[0], float(row[1])) == (2357, pytest.approx(whole.expected_orders, abs=0.01))
    assert float(row[2]) == pytest.approx(whole.expected_revenue, abs=1)


def test_online_retail_is_refused(data: Path, fresh_engine: Engine, settings: Settings) -> None:
    """Nobody ever leaves, says the model: it must not be used."""
    given = OrderFile(path=data / "online_retail.csv.gz", leaves=frozenset(Leave))
    load(fresh_engine, given, replace(settings, reporting_currency="GBP"), now=NOW)
    began = time.process_time()
    found = refresh(fresh_engine, as_of=datetime(2011, 12, 10, tzinfo=UTC), horizon_days=365, currency="GBP", now=NOW)
    print(f"{time.process_time() - began:.2f} CPU s\n{report(found, stored=True)}")
    assert isinstance(found.purchases, Unfit) and found.purchases.why is Why.NOBODY_LEAVES
    assert isinstance(found.values, OrderValues)
    with fresh_engine.connect() as tx:
        assert tx.scalar(text("select count(*) from analytics.predicted_value")) == 0
        assert "nobody" in str(tx.scalar(text("select refusal from analytics.value_models")))
    assert found.check is not None and timedelta(days=found.check.days) == timedelta(days=187)
