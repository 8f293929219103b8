"""Order tables after any history: what follows the marks equals a rebuild, and its sums are those of the orders."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import privacy
from mautolib.analytics import orders, readers_sales, refreshing
from mautolib.events.orders import NewOrder, NewRate, NewRefund, load_rates, record_orders, record_refunds
from mautolib.settings import Settings
from tests.builders import make_campaign, make_contact, make_hit, make_message

START = datetime(2025, 1, 20, tzinfo=UTC)
NAMES = ("customer_months", "order_cohorts", "attribution", "customer_value", "rfm_segments", "revenue_by_month",
         "campaign_revenue")  # fmt: skip
CURRENCIES = ("USD", "EUR", "CHF")


class History:
    """A shop whose facts come in any order: each happened at some moment before the present one."""

    def __init__(self, seed: int, settings: Settings) -> None:
        self.draw = random.Random(seed)
        self.settings = settings
        self.now = START + timedelta(days=420)
        self.people: list[int] = []
        self.orders: list[tuple[str, str]] = []
        self.messages: list[tuple[int, int, datetime]] = []
        self.hits: list[int] = []
        self.campaigns: list[int] = []
        self.number = 0

    def before(self) -> datetime:
        """Mostly not long ago."""
        return self.now - timedelta(seconds=self.draw.random() ** 3 * (self.now - START).total_seconds())

    def happen(self, tx: Connection) -> None:
        self.number += 1
        if len(self.people) < 30 or self.draw.random() < 0.05:
            self.people.append(make_contact(tx, email=f"p{self.number}.{self.draw.getrandbits(50)}@shop.example"))
        what = self.draw.choices(
            [self.order, self.mail, self.touch, self.refund, self.judge, self.rate, self.erase],
            weights=[5, 5, 9, 3, 4, 0.5, 0.3],
        )[0]
        what(tx)

    def order(self, tx: Connection) -> None:
        number, currency = f"o{self.number}", self.draw.choice(CURRENCIES)
        self.orders.append((number, currency))
        at = self.before() if self.draw.random() < 0.9 else self.now + timedelta(hours=self.draw.randrange(99))
        order = NewOrder(order_id=number, placed_at=at, currency=currency, lines=[],
                         total=Decimal(self.draw.randrange(1, 9000)) / 100,
                         contact_id=self.draw.choice([0, *self.people]))  # fmt: skip
        record_orders(tx, [order], self.settings, now=self.now)

    def refund(self, tx: Connection) -> None:
        # Of an order that is here, or of one that may come.
        number, currency = self.draw.choice([*self.orders, (f"o{self.number + self.draw.randrange(1, 9)}", "EUR")])
        at = self.before() if self.draw.random() < 0.7 else self.now + timedelta(hours=self.draw.randrange(99))
        refund = NewRefund(order_id=number, occurred_at=at, currency=currency,
                           amount=Decimal(self.draw.randrange(1, 900)) / 100)  # fmt: skip
        record_refunds(tx, [refund], now=self.now)

    def rate(self, tx: Connection) -> None:
        rate = NewRate(rate_date=self.before().date(), base=self.draw.choice(["EUR", "CHF"]), quote="USD",
                       rate=Decimal(self.draw.randrange(5000, 20000)) / 10000, source="test")  # fmt: skip
        load_rates(tx, [rate], now=self.now)

    def mail(self, tx: Connection) -> None:
        person, at = self.draw.choice(self.people), self.before()
        kind = self.draw.choice(["campaign", "campaign", "campaign", "workflow", "transactional"])
        campaign = self.draw.choice(self.campaigns) if kind == "campaign" else None
        self.messages.append((person, make_message(tx, person, kind=kind, campaign_id=campaign, sent_at=at), at))

    def touch(self, tx: Connection) -> None:
        if self.messages:
            person, message, when = self.draw.choice(self.messages)
            bought = tx.scalar(text("select max(placed_at) from orders where contact_id = :id"), {"id": person})
            if bought and self.draw.random() < 0.7:
                when = bought - timedelta(hours=self.draw.random() ** 2 * 200)
            kind, verdict = self.draw.choice(["open", "open", "click"]), self.draw.choice(["human", "human", "bot"])
            self.hits.append(make_hit(tx, person, message, kind, occurred_at=when, verdict=verdict))

    def judge(self, tx: Connection) -> None:
        if self.hits:
            verdict = {"hit": self.draw.choice(self.hits), "version": 9 + self.number,
                       "verdict": self.draw.choice(["human", "bot"])}  # fmt: skip
            tx.execute(text("insert into hit_verdicts values (:hit, :version, :verdict, now())"), verdict)

    def erase(self, tx: Connection) -> None:
        if len(self.people) > 25:
            person = self.people.pop(self.draw.randrange(len(self.people)))
            self.messages = [one for one in self.messages if one[0] != person]
            privacy.erase(tx, person, actor="user:1", now=self.now, settings=self.settings)


def rows(engine: Engine, table: str) -> list[str]:
    with engine.connect() as connection:
        sql = f"select cast(to_jsonb(t) - 'refreshed_at' as text) as row from analytics.{table} t order by 1"
        return list(connection.scalars(text(sql)))


@pytest.mark.parametrize("seed", range(6))
def test_what_follows_equals_a_rebuild(fresh_engine: Engine, settings: Settings, seed: int) -> None:
    history = History(seed, settings)
    with fresh_engine.begin() as tx:
        history.campaigns = [make_campaign(tx) for _ in range(3)]
        load_rates(tx, [NewRate(rate_date=date(2025, 3, 1), base="EUR", quote="USD", rate=Decimal("1.1"), source="t")],
                   now=START)  # fmt: skip
    for turn in range(7):
        with fresh_engine.begin() as tx:
            # Many at first, then so few that most customers have no news.
            for _ in range(history.draw.randrange(0, 12) if turn else 250):
                history.happen(tx)
            if history.draw.random() < 0.2:
                click_days, open_days = history.draw.randrange(3, 9), history.draw.randrange(1, 4)
                orders.keep_windows(tx, click_days=click_days, open_days=open_days)
        if turn == 3:
            privacy.carry_out(fresh_engine, settings, now=history.now)
        check_readers(fresh_engine)
        # Now and then as of a past day.
        back = timedelta(days=history.draw.randrange(1, 90)) if history.draw.random() < 0.15 else timedelta()
        refreshing.refresh(fresh_engine, as_of=history.now - back, only=NAMES)
        followed = {name: rows(fresh_engine, name) for name in NAMES}
        if turn % 3 == 2:
            refreshing.refresh(fresh_engine, as_of=history.now - back, only=NAMES, rebuild=True)
            assert followed == {name: rows(fresh_engine, name) for name in NAMES}
        history.now += timedelta(days=history.draw.choice([0, 0, 1, 3, 40]), hours=history.draw.randrange(24))
    # Nothing lies in the future any more: the live views know the same.
    history.now += timedelta(days=10)
    refreshing.refresh(fresh_engine, as_of=history.now, only=NAMES)
    followed = {name: rows(fresh_engine, name) for name in NAMES}
    assert all(followed.values())
    check_sums(fresh_engine)
    refreshing.refresh(fresh_engine, as_of=history.now, only=NAMES, rebuild=True)
    assert followed == {name: rows(fresh_engine, name) for name in NAMES}


def check_readers(engine: Engine) -> None:
    """What campaigns sold is told as it is now, whatever the tables do not know yet."""
    with engine.connect() as connection:
        live = connection.execute(text("select campaign_id, orders, revenue, reporting_currency "
                                       "from analytics.campaign_performance")).all()  # fmt: skip
        for row in live:
            sold = readers_sales.campaign_sales(connection, row.campaign_id)
            assert (row.campaign_id, *sold) == tuple(row)


def check_sums(engine: Engine) -> None:
    """The same money in every table."""

    def all_of(sql: str) -> list[tuple[object, ...]]:
        with engine.connect() as connection:
            connection.execute(text("set search_path = analytics"))
            return [tuple(row) for row in connection.execute(text(sql))]

    total = all_of("select count(*), sum(net_revenue), count(distinct contact_id) from fct_orders where contact_id > 0")
    assert all_of("select sum(orders), sum(net_revenue), count(*) from customer_value") == total
    assert all_of("select sum(orders), sum(revenue), count(distinct contact_id) from customer_months") == total
    assert all_of("select sum(orders), sum(revenue), sum(cohort_customers) filter (where month_offset = 0) "
                  "from order_cohorts") == total  # fmt: skip
    assert all_of("select contact_id from customer_value where gross_revenue - refunds <> net_revenue") == []
    wrong = ("select order_id, model from attribution as given group by order_id, model having sum(weight) <> 1 "
             "or min(weight) <= 0 or sum(attributed_amount) <> min(order_net) or sum(attributed_reporting) is distinct "
             "from (select net_revenue from fct_orders where fct_orders.order_id = given.order_id)")  # fmt: skip
    assert all_of(wrong) == []
    by_campaign = all_of("select campaign_id, orders, revenue from campaign_performance where orders > 0 order by 1")
    assert by_campaign and by_campaign == all_of(
        "select campaign_id, count(*), coalesce(sum(attributed_reporting), 0) from attribution "
        "where model = 'last_touch' and campaign_id is not null group by 1 order by 1")  # fmt: skip
