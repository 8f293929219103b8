"""One number everywhere: API, views and dashboard say the same of each metric, over one filled, refreshed database."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from mautolib.analytics import incrementality, readers_campaigns
from mautolib.campaigns import holdout
from tests.dashboard_data import Shop, make_holdout, make_shop
from tests.live_service import EDITOR, PASSWORD, live_settings, make_users, serve


@dataclass(frozen=True)
class Place:
    """A service over a shop: its API, its dashboard and its database."""

    api: httpx.Client
    pages: httpx.Client
    engine: Engine
    shop: Shop

    def get(self, path: str, **query: Any) -> Any:
        """What the API answers."""
        answer = self.api.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def table(self, path: str, name: str, **query: str) -> list[dict[str, str]]:
        """A table of a page of the dashboard: its CSV file, which must be the cells of its HTML."""
        html = self.pages.get(f"/dashboard/{path}", params=query).text
        body = re.search(rf'<table id="t-{name}".*?<tbody>(.*?)</tbody>', html, re.DOTALL)
        assert body, (path, name)
        found = self.pages.get(f"/dashboard/{path}", params={**query, "format": "csv", "table": name})
        rows = list(csv.DictReader(io.StringIO(found.text.removeprefix("\ufeff"))))
        figures = [re.findall(r'data-v="([^"]*)"', row) for row in body.group(1).split("<tr>")[1:]]
        assert [list(row.values())[-1] for row in rows] == [row[-1] for row in figures]
        return rows

    def card(self, path: str, label: str) -> str:
        """A big number of a page."""
        found = re.search(rf"<dt>{label}</dt><dd[^>]*>(.*?)</dd>", self.pages.get(f"/dashboard/{path}").text)
        assert found, (path, label)
        return found.group(1).replace("<wbr>", "")

    def sql(self, query: str, **binds: Any) -> list[Mapping[str, Any]]:
        """What analysts read in the schema."""
        with self.engine.connect() as connection:
            connection.execute(text("set search_path = analytics, public"))
            return [dict(row) for row in connection.execute(text(query), binds).mappings()]


@pytest.fixture(scope="module")
def place(cluster: Any, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    from mautolib.db.engine import connect

    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    make_users(engine)
    with engine.begin() as tx:
        now = datetime.now(UTC)
        make_holdout(tx, now=now)
        shop = make_shop(tx, now=now, contacts=160, campaigns=4)
    url, stop = serve(live_settings(cluster.url(name), tmp_path_factory.mktemp("home")))
    with httpx.Client(base_url=url, timeout=20) as api, httpx.Client(
        base_url=url, timeout=20, follow_redirects=True
    ) as pages:
        body = {"email": EDITOR, "password": PASSWORD}
        token = api.post("/api/v1/auth/login", json=body).json()["access_token"]
        api.headers["Authorization"] = f"Bearer {token}"
        form = re.search(r'name="csrf" value="([^"]+)"', pages.get("/dashboard").text)
        assert form
        pages.post("/dashboard/sign-in", data={**body, "csrf": form.group(1)})
        yield Place(api, pages, engine, shop)
    stop()
    engine.dispose()
    cluster.drop(name)


def test_mail_of_each_campaign(place: Place) -> None:
    listed = {row["campaign_name"].removeprefix("'"): row for row in place.table("campaigns", "campaigns")}
    views = place.sql("select * from campaign_performance where sent > 0")
    assert len(views) == len(place.shop.campaigns) + 1
    for view in views:
        page, path = listed[view["campaign_name"]], f"campaigns/{view['campaign_id']}"
        api = place.get(f"analytics/{path}/metrics")
        (days,) = place.sql(
            "select sum(attempted) as attempted, sum(sent) as sent, sum(delivered) as delivered, sum(bounced) as "
            "bounced, sum(unsubscribed) as unsubscribed, sum(raw_opens) as raw_opens, sum(human_opens) as human_opens, "
            "sum(unique_opens) as unique_opens, sum(raw_clicks) as raw_clicks, sum(human_clicks) as human_clicks, "
            "sum(unique_clicks) as unique_clicks from daily_email_metrics where campaign_id = :id",
            id=view["campaign_id"],
        )
        assert {name: view[name] for name in days} == days
        names = {
            "attempted": "total_attempted", "sent": "total_sent", "delivered": "total_delivered",
            "bounced": "total_bounced", "unsubscribed": "total_unsubscribed", "raw_opens": "raw_opens",
            "human_opens": "total_opened", "unique_opens": "unique_opens", "raw_clicks": "raw_clicks",
            "human_clicks": "total_clicked", "unique_clicks": "unique_clicks",
        }  # fmt: skip
        assert {name: api[key] for name, key in names.items()} == {name: view[name] for name in names}
        assert [int(page["sent"]), int(page["delivered"])] == [view["sent"], view["delivered"]]
        for rate in ("open_rate", "click_rate", "bounce_rate", "unsubscribe_rate"):
            assert float(page[rate]) == api[rate] == float(round(view[rate], 2)), rate
        funnel = [int(row["count"]) for row in place.table(path, "funnel")]
        assert funnel == [view["sent"], view["delivered"], view["unique_opens"], view["unique_clicks"]]
        assert funnel == [stage["count"] for stage in place.get(f"analytics/{path}/funnel")["funnel"]]
        assert place.card(path, "Sent") == f"{view['sent']:,}"


def test_sums_of_all_campaigns_and_the_list(place: Place) -> None:
    stats = place.get("dashboard/stats")
    (view,) = place.sql("select sum(sent) as sent, sum(unique_opens) as opened, sum(delivered) as delivered "
                        "from campaign_performance")  # fmt: skip
    sending = place.table("", "sending", days="365")
    assert stats["total_emails_sent"] == view["sent"] == sum(int(row["sent"]) for row in sending)
    (days,) = place.sql("select sum(sent) as sent from daily_email_metrics where kind = 'campaign'")
    assert days["sent"] == view["sent"]
    (people,) = place.sql(
        "select count(*) as total, count(*) filter (where is_subscribed) as subscribed from dim_contacts"
    )
    assert (stats["total_contacts"], stats["subscribed_contacts"]) == (people["total"], people["subscribed"])
    assert place.card("", "Contacts") == f"{people['total']:,}"
    growth = place.table("", "growth", days="90")
    weeks = place.get("analytics/cohorts", weeks=len(growth))
    assert [(row["total"], row["subscribed"]) for row in growth] == [
        (str(week["total"]), str(week["subscribed"])) for week in weeks
    ]
    health = place.get("analytics/health")
    assert f"<strong>{health['score']:.1f}</strong>" in place.pages.get("/dashboard").text


@pytest.mark.parametrize("size", [10**9, -1], ids=["small house", "large house"])
def test_a_year_by_day_and_a_campaign_by_hour(place: Place, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for name in ("LIVE_MAILS", "SMALL"):
        monkeypatch.setattr(readers_campaigns, name, size)
    series = place.get("analytics/timeseries", days=365)["series"]
    days = place.sql("select day, sum(sent) as sent, sum(delivered) as delivered, sum(human_opens) as opened, "
                     "sum(human_clicks) as clicked, sum(bounced) as bounced, sum(complained) as complained, "
                     "sum(unsubscribed) as unsubscribed from daily_email_metrics group by day")  # fmt: skip
    for fact, points in series.items():
        assert {point["period"]: point["value"] for point in points} == {
            str(row["day"]): row[fact] for row in days if row[fact]}, fact  # fmt: skip
    assert len(series["opened"]) > 10
    for campaign in place.shop.campaigns:
        hours = place.get(f"analytics/campaigns/{campaign}/engagement")
        (view,) = place.sql("select human_opens, human_clicks from campaign_performance where campaign_id = :id",
                            id=campaign)  # fmt: skip
        assert sum(row["opens"] for row in hours["hourly"]) == view["human_opens"] > 0
        assert sum(row["clicks"] for row in hours["hourly"]) == view["human_clicks"]
        for what, key in (("open", "opens"), ("click", "clicks")):
            table = place.table(f"campaigns/{campaign}", "hours", hours=what)
            assert [row[key] for row in hours["hourly"]] == [
                sum(int(row[f"h{hour:02d}"]) for row in table) for hour in range(24)]  # fmt: skip
        (mean,) = place.sql(
            "select round(cast(avg(extract(epoch from opened_at - sent_at)) / 60 as numeric), 2) as minutes from ("
            "select messages.sent_at, min(hits.occurred_at) as opened_at from messages inner join hits using "
            "(message_id) inner join hit_verdicts using (hit_id) where messages.campaign_id = :id "
            "and verdict = 'human' group by messages.message_id, messages.sent_at) as firsts", id=campaign)  # fmt: skip
        assert hours["avg_time_to_open_minutes"] == pytest.approx(float(mean["minutes"]), abs=0.011)


def test_cohorts_of_sign_ups_and_first_orders(place: Place) -> None:
    cells = {(row["cohort_label"], row["period_offset"]): row for row in place.sql(
        "select * from contact_cohorts where granularity = 'week'")}  # fmt: skip
    asked = place.get("analytics/cohort", granularity="week", periods=20)
    api = {(cell["cohort_period"], cell["period_offset"]): cell for cell in asked}
    seen = 0
    for row in place.table("cohorts", "cohorts"):
        for offset in range(12):
            cell = cells.get((row["cohort"], offset))
            if cell is None or cell["retention_rate"] is None:
                assert row[f"p{offset}"] == ""
                continue
            assert Decimal(row[f"p{offset}"]) == cell["retention_rate"]
            # The API rounds to two decimals what tables keep with four.
            assert api[row["cohort"], offset]["retention_rate"] == pytest.approx(float(row[f"p{offset}"]), abs=0.0051)
            seen += 1
    assert seen > 20
    bought = {(str(row["cohort_month"]), row["month_offset"]): row for row in place.sql("select * from order_cohorts")}
    months = place.table("cohorts", "cohorts", by="orders")
    for row in months:
        assert int(row["size"]) == bought[row["cohort"], 0]["cohort_customers"]
        for offset in range(12):
            rate = bought[row["cohort"], offset]["retention_rate"] if (row["cohort"], offset) in bought else None
            assert row[f"p{offset}"] == ("" if rate is None else str(rate))
    assert len(months) >= 5


def test_revenue_by_campaign_currency_and_month(place: Place) -> None:
    rows = {row["campaign"].removeprefix("'"): row for row in place.table("revenue", "campaigns")}
    paid = 0
    for view in place.sql("select * from campaign_performance where orders > 0"):
        api = place.get(f"analytics/campaigns/{view['campaign_id']}/metrics")
        page = rows[view["campaign_name"]]
        (given,) = place.sql(
            "select count(distinct order_id) as orders, sum(attributed_reporting) filter (where model = 'last_touch') "
            "as last_touch, sum(attributed_reporting) filter (where model = 'linear') as linear, "
            "sum(attributed_reporting) filter (where model = 'first_touch') as first_touch "
            "from attribution where campaign_id = :id", id=view["campaign_id"])  # fmt: skip
        assert int(page["orders"]) == api["orders"] == view["orders"]
        assert Decimal(page["last_touch"]) == Decimal(api["revenue"]) == view["revenue"] == given["last_touch"]
        assert Decimal(page["linear"]) == (given["linear"] or 0)
        assert Decimal(page["first_touch"]) == (given["first_touch"] or 0)
        assert place.card(f"campaigns/{view['campaign_id']}", "Revenue") == f"{view['revenue']:,.0f}"
        paid += 1
    assert paid >= 3
    facts = {row["currency"]: row for row in place.sql(
        "select currency, count(*) as orders, sum(total) as gross, sum(order_net) as order_net, "
        "sum(net_revenue) as net_revenue, count(*) - count(net_revenue) as waiting, max(fx_date) as last_rate "
        "from fct_orders group by currency")}  # fmt: skip
    currencies = place.table("revenue", "currencies", months="60")
    assert len(currencies) == len(facts) == 3
    for row in currencies:
        fact = facts[row["currency"]]
        assert int(row["orders"]) == fact["orders"] and int(row["waiting_orders"]) == fact["waiting"]
        assert Decimal(row["gross"]) == fact["gross"] and Decimal(row["order_net"]) == fact["order_net"]
        assert row["net_revenue"] == ("" if fact["net_revenue"] is None else str(fact["net_revenue"]))
        assert row["last_fx_date"] == ("" if fact["last_rate"] is None else str(fact["last_rate"]))
    (left_out,) = place.sql("select orders, currency from unconverted_orders")
    months = place.table("revenue", "months", months="60")
    assert sum(int(row["left_out"]) for row in months) == left_out["orders"] > 0
    assert f"orders in {left_out['currency']} wait for a rate" in place.pages.get("/dashboard/revenue").text
    total = sum(fact["net_revenue"] or 0 for fact in facts.values())
    assert sum(Decimal(row["revenue"]) for row in months) == total
    assert place.sql("select sum(net_revenue) as sum from customer_value")[0]["sum"] == total
    assert place.card("customers", "Revenue") == f"{total:,.0f}"


def test_customers_and_scores(place: Place) -> None:
    people = place.sql("select * from rfm_segments")
    counts, money = place.table("customers", "rfm_customers"), place.table("customers", "rfm_revenue")
    for index, recency in enumerate((5, 4, 3, 2, 1)):
        for frequency in range(1, 6):
            cell = [one for one in people if (one["r_score"], one["f_score"]) == (recency, frequency)]
            assert int(counts[index][f"f{frequency}"]) == len(cell)
            assert Decimal(money[index][f"f{frequency}"]) == sum(one["monetary"] for one in cell)
    for row in place.table("customers", "segments"):
        named = [one for one in people if one["rfm_segment"].replace("_", " ") == row["name"].lower()]
        assert (int(row["customers"]), Decimal(row["revenue"])) == (len(named), sum(one["monetary"] for one in named))
    (value,) = place.sql("select count(*) as customers, count(net_revenue) as known from customer_value")
    assert place.card("customers", "Customers") == f"{value['customers']:,}"
    assert sum(int(row["customers"]) for row in place.table("customers", "values")) == value["known"]
    grades = {row["grade"]: row["n"] for row in place.sql(
        "select grade, sum(contacts) as n from score_distribution where as_of = (select max(as_of) from "
        "score_distribution) group by grade")}  # fmt: skip
    assert {row["grade"]: int(row["contacts"]) for row in place.table("people", "grades")} == grades


def test_an_ab_test(place: Place) -> None:
    path = f"ab-tests/{place.shop.ab_test}"
    api = place.get(f"{path}/results")
    views = place.sql("select * from ab_test_results where test_id = :id order by variant_id", id=place.shop.ab_test)
    rates = {(row["metric"].split()[0], row["variant"]): row for row in place.table(path, "rates")}
    counts = place.table(path, "counts")
    for each, view, page in zip(api["variants"], views, counts, strict=True):
        for name in ("assigned", "attempted", "sent", "delivered", "unique_opens", "unique_clicks", "conversions"):
            assert int(page[name]) == each[name] == view[name], name
        assert Decimal(page["revenue"]) == Decimal(each["revenue"]) == view["revenue"]
        for metric, rate in (("Opened", "open_rate"), ("Clicked", "click_rate"), ("Ordered", "conversion_rate")):
            row = rates[metric, each["name"]]
            assert float(row["rate"]) == each[rate] == float(round(view[rate], 2))
            assert float(row["ci_low"]) < each[rate] < float(row["ci_high"])
        decides = rates["Opened", each["name"]]
        assert (float(decides["ci_low"]), float(decides["ci_high"])) == (each["ci_low"], each["ci_high"])
    (row,), (pair,) = place.table(path, "comparisons"), api["comparisons"]
    row.pop("pair")
    assert {name: float(cell) for name, cell in row.items()} == {name: pair[name] for name in row}
    html = place.pages.get(f"/dashboard/{path}").text
    assert api["decision"] == views[0]["decision"] == "winner" and api["reason"] in html and "Long wins" in html


def test_the_hold_out(place: Place) -> None:
    state = place.sql("select to_at as as_of from rollups.holdout_sums")[0]
    with place.engine.connect() as tx:
        since, _ = incrementality.stretch(holdout.periods(tx)) or (None, None)
        assert since
        report = incrementality.report(tx, since, state["as_of"], now=datetime.now(UTC))
    told = {row["figure"]: row["value"] for row in place.table("holdout", "report")}
    assert told == {name: "" if value is None else str(value)
                    for name, value in incrementality.figures(report).items()}  # fmt: skip
    assert told["verdict"] == "measured" and report.revenue and report.adjusted and report.conversion
    for group, arm in zip(place.table("holdout", "groups"), ("mailed", "held_out"), strict=True):
        today = state["as_of"].replace(hour=0, minute=0, second=0, microsecond=0)
        binds = {"arm": arm, "to": state["as_of"], "today": today}
        known = "from holdout_contacts where arm = :arm and entered_at < :to"
        (people,) = place.sql(f"select count(*) as n {known}", **binds)
        bought = (
            "select count(*) as orders, count(distinct contact_id) as customers, coalesce(sum(net_revenue), 0) as "
            "revenue from fct_orders inner join holdout_contacts using (contact_id) where arm = :arm "
            "and placed_at >= entered_at and placed_at < :to"
        )
        (whole,), (late,) = place.sql(bought, **binds), place.sql(f"{bought} and placed_at >= :today", **binds)
        (days,) = place.sql("select sum(orders) as orders, sum(revenue) as revenue from holdout_daily "
                            "where arm = :arm", **binds)  # fmt: skip
        assert int(group["contacts"]) == people["n"] == int(told[f"{arm}_contacts"]) > 100
        assert int(group["customers"]) == whole["customers"] == int(told[f"{arm}_customers"])
        assert int(group["orders"]) == whole["orders"] == days["orders"] + late["orders"]
        assert Decimal(group["revenue"]) == whole["revenue"] == days["revenue"] + late["revenue"]
        assert Decimal(group["each"]) == pytest.approx(whole["revenue"] / people["n"])
    effects = place.table("holdout", "effects")
    for row, name in zip(effects, ("revenue", "cuped", "conversion"), strict=True):
        assert {row["difference"], row["ci_low"], row["ci_high"], row["p_value"]} == {
            told[f"{name}_{key}"] for key in ("difference", "low", "high", "p_value")}  # fmt: skip
        assert float(row["lift"]) == pytest.approx(100 * float(told[f"{name}_lift"]))
    assert place.card("holdout", "Brought by mail") == f"{float(told['incremental_revenue']):+,.0f}"


def test_the_steps_of_a_workflow(place: Place) -> None:
    view = place.sql("select * from workflow_funnel where workflow_id = :id order by step_path", id=place.shop.workflow)
    page = sorted(place.table(f"workflows/{place.shop.workflow}", "steps"), key=lambda row: row["step"].split()[0])
    names = {"entered": "reached", "completed": "completed", "failed": "failed", "skipped": "skipped",
             "waiting": "waiting", "exited": "exited"}  # fmt: skip
    assert [[row[name] for name in names] for row in view] == [[int(row[name]) for name in names.values()]
                                                                for row in page]  # fmt: skip
    assert [round(row["reach_rate"], 2) for row in view] == [Decimal(row["reach_rate"]) for row in page]
    assert sum(row["skipped"] for row in view) > 0 and sum(row["waiting"] for row in view) > 0
