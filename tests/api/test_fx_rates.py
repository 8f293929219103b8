"""Exchange rates over HTTP: stored day by day, listed, and what they do to orders."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.api.test_events import order, told
from tests.live_service import LiveService

RATES = "/api/v1/fx-rates/"
# Currencies of their own: the database is shared, and every figure here stands on its rates.
BASE, QUOTE = "ISK", "XPF"


def rate(day: str, value: Any, base: str = BASE, quote: str = QUOTE, **more: Any) -> dict[str, Any]:
    return {"rate_date": day, "base": base, "quote": quote, "rate": value, "source": "test", **more}


def load(client: httpx.Client, *rates: dict[str, Any]) -> int:
    answer = client.post(RATES, json={"rates": list(rates)})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["upserted"])


def test_rates_are_stored_replaced_and_listed_newest_first(admin: httpx.Client, viewer: httpx.Client) -> None:
    given = [rate("2024-02-29", "0.81000000"), rate("2024-03-01", 0.8123), rate("2024-03-04", "0.00000001")]
    assert load(admin, *given) == 3
    assert load(admin, rate("2024-03-01", "9", quote="xpf"), rate("2024-03-01", "0.9"), rate("2024-03-01", 12)) == 1
    found = viewer.get(RATES, params={"base": BASE, "quote": QUOTE}).json()
    assert all(row.pop("loaded_at").endswith("Z") for row in found)
    assert found == [
        {"rate_date": "2024-03-04", "base": BASE, "quote": QUOTE, "rate": "0.00000001", "source": "test"},
        {"rate_date": "2024-03-01", "base": BASE, "quote": QUOTE, "rate": "12", "source": "test"},
        {"rate_date": "2024-02-29", "base": BASE, "quote": QUOTE, "rate": "0.81", "source": "test"},
    ]


def test_rates_are_filtered_by_pair_and_days(admin: httpx.Client, viewer: httpx.Client) -> None:
    load(admin, *(rate(f"2023-01-0{day}", "1.5", "BTN", quote) for day in (1, 2, 3) for quote in ("LAK", "KMF")))

    def found(**filters: str) -> list[tuple[str, str]]:
        answer = viewer.get(RATES, params={"base": "btn", **filters})
        assert answer.status_code == 200, answer.text
        return [(row["rate_date"][-1], row["quote"]) for row in answer.json()]

    assert found() == [("3", "KMF"), ("3", "LAK"), ("2", "KMF"), ("2", "LAK"), ("1", "KMF"), ("1", "LAK")]
    assert found(since="2023-01-02", until="2023-01-02") == [("2", "KMF"), ("2", "LAK")]
    assert found(quote="LAK", since="2023-01-02") == [("3", "LAK"), ("2", "LAK")]
    for bad in ({"base": "XXX"}, {"quote": "EURO"}, {"since": "2023-01-01T00:00:00Z"}, {"until": "2023-02-30"}):
        assert viewer.get(RATES, params=bad).status_code == 422, bad


def test_paging_by_cursor_neither_repeats_nor_skips(admin: httpx.Client) -> None:
    load(admin, *(rate(f"2022-01-0{day}", "1", "WST", quote) for day in (1, 2) for quote in ("TOP", "FJD", "VUV")))
    page = admin.get(RATES, params={"base": "WST", "limit": 2})
    seen = page.json()
    assert page.headers["X-Total-Count"] == "6"
    while "X-Next-Cursor" in page.headers:
        page = admin.get(httpx.URL(page.headers["Link"].split(">")[0][1:]))
        seen += page.json()
    assert seen == admin.get(RATES, params={"base": "WST"}).json() and len(seen) == 6


@pytest.mark.parametrize(("values", "loc"), [
    ({"rate_date": "2024-02-30"}, ["rate_date"]), ({"rate_date": "20240201"}, ["rate_date"]),
    ({"rate_date": "2024-02-01T00:00:00Z"}, ["rate_date"]), ({"rate_date": "1969-12-31"}, ["rate_date"]),
    ({"rate_date": "9999-12-31"}, ["rate_date"]), ({"rate_date": None}, ["rate_date"]),
    ({"base": "EURO"}, ["base"]), ({"base": "XAU"}, ["base"]), ({"base": QUOTE}, []), ({"quote": 7}, ["quote"]),
    ({"rate": "0"}, ["rate"]), ({"rate": -1}, ["rate"]), ({"rate": "1.000000001"}, ["rate"]),
    ({"rate": "10000000000"}, ["rate"]), ({"rate": "x"}, ["rate"]), ({"rate": None}, ["rate"]),
    ({"rate": True}, ["rate"]), ({"source": "s" * 101}, ["source"]), ({"source": None}, ["source"]),
])  # fmt: skip
def test_a_bad_rate_is_422_and_nothing_is_stored(
    service: LiveService, admin: httpx.Client, values: dict[str, Any], loc: list[Any]
) -> None:
    good = rate("2001-01-01", "1", "MMK")
    answer = admin.post(RATES, json={"rates": [good, {**rate("2001-01-02", "1"), **values}]})
    assert answer.status_code == 422, answer.text
    assert [item["loc"] for item in answer.json()["detail"]] == [["body", "rates", 1, *loc]]
    with service.engine.begin() as tx:
        assert tx.scalar(text("select count(*) from fx_rates where base = 'MMK'")) == 0


def test_one_to_a_thousand_rates(admin: httpx.Client) -> None:
    many = [rate(f"20{year:02}-{month:02}-{day:02}", "2", "STN", "CVE")
            for year in range(3) for month in range(1, 13) for day in range(1, 29)]  # fmt: skip
    assert load(admin, *many[:1000]) == 1000
    assert admin.post(RATES, json={"rates": many[:1001]}).status_code == 422
    assert admin.post(RATES, json={"rates": []}).status_code == 422
    assert admin.post(RATES, json={}).status_code == 422


def test_a_changed_rate_restates_the_orders_it_converts(admin: httpx.Client, viewer: httpx.Client) -> None:
    def figures(order_id: str) -> tuple[Any, ...]:
        found = viewer.get(f"/api/v1/orders/{order_id}").json()
        return found["net_reporting"], found["fx_rate"], found["fx_date"]

    ids = []
    for day in ("2020-05-01", "2020-05-09"):
        body = {**order(currency="MNT", total="1000.05"), "occurred_at": f"{day}T23:59:59Z"}
        event_id = told(admin, body)["results"][0]["event_id"]
        ids.append(admin.get(f"/api/v1/events/{event_id}").json()["order_id"])
    assert [figures(one) for one in ids] == [(None, None, None)] * 2
    load(admin, rate("2020-04-30", "0.00036", "MNT", "USD"))
    assert [figures(one) for one in ids] == [("0.36", "0.00036", "2020-04-30")] * 2
    load(admin, rate("2020-05-09", "0.0005", "MNT", "USD"))
    assert [figures(one) for one in ids] == [("0.36", "0.00036", "2020-04-30"), ("0.50", "0.0005", "2020-05-09")]
    load(admin, rate("2020-04-30", "0.123", "MNT", "USD"))
    # 123.00615 and 0.500025, half up.
    assert [figures(one)[0] for one in ids] == ["123.0062", "0.50"]


def test_only_administrators_load_rates_and_it_is_written_down(
    service: LiveService, admin: httpx.Client, editor: httpx.Client, viewer: httpx.Client, nobody: httpx.Client
) -> None:
    body = {"rates": [rate("2002-02-02", "1", "KGS", "UZS")]}
    statuses = [client.post(RATES, json=body).status_code for client in (nobody, viewer, editor, admin)]
    assert statuses == [401, 403, 403, 200]
    assert (nobody.get(RATES).status_code, viewer.get(RATES).status_code) == (401, 200)
    with service.engine.begin() as tx:
        entry = tx.execute(text(
            "select * from audit_log where action = 'fx_rate.upsert' and status = 200 order by audit_id desc limit 1"
        )).one()  # fmt: skip
    assert entry.changes == {"given": 1, "changed": 1}
