"""Order tables of schema `analytics`, counted by hand: cohorts, RFM, customer value, attribution."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import privacy
from mautolib.analytics import orders, readers, refreshing
from mautolib.errors import Misconfigured
from mautolib.events.orders import NewOrder, NewRate, NewRefund, load_rates, record_orders, record_refunds
from mautolib.settings import Settings
from tests.builders import make_campaign, make_contact, make_content, make_hit, make_message, make_order

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NAMES = ("customer_months", "order_cohorts", "attribution", "customer_value", "rfm_segments", "revenue_by_month",
         "campaign_revenue")  # fmt: skip


def refresh(tx: Connection, as_of: datetime = NOW, **asked: Any) -> None:
    for item in refreshing.TABLES:
        if item.table in NAMES:
            refreshing.refresh_within(tx, item, as_of=as_of, **asked)


def rows(tx: Connection, table: str, columns: str, order: str = "1, 2") -> list[tuple[Any, ...]]:
    return [tuple(row) for row in tx.execute(text(f"select {columns} from analytics.{table} order by {order}"))]


def value_of(tx: Connection, contact: int) -> Any:
    return tx.execute(text("select * from analytics.customer_value where contact_id = :id"), {"id": contact}).one()


def money(*amounts: str | None) -> tuple[Decimal | None, ...]:
    return tuple(None if amount is None else Decimal(amount) for amount in amounts)


def test_a_cohort_follows_its_customers_month_by_month(tx: Connection) -> None:
    anna, bob, cleo = (make_contact(tx) for _ in range(3))
    make_order(tx, anna, datetime(2025, 11, 30, 23, 59, tzinfo=UTC), total="10")
    make_order(tx, anna, datetime(2026, 1, 2, tzinfo=UTC), total="30")
    make_order(tx, anna, datetime(2026, 1, 9, tzinfo=UTC), total="50")
    make_order(tx, bob, datetime(2025, 11, 1, tzinfo=UTC), total="20", refunded_total="5")
    make_order(tx, cleo, datetime(2026, 2, 10, tzinfo=UTC), total="7")
    make_order(tx, 0, datetime(2025, 10, 1, tzinfo=UTC), total="1000")
    refresh(tx, datetime(2026, 2, 15, tzinfo=UTC))
    columns = "cohort_month, month_offset, cohort_customers, active_customers, retention_rate, orders, revenue, " \
              "cumulative_revenue, aov, is_complete"  # fmt: skip
    november, february = date(2025, 11, 1), date(2026, 2, 1)
    assert rows(tx, "order_cohorts", columns) == [
        (november, 0, 2, 2, Decimal("100.0000"), 2, *money("25", "25", "12.5"), True),
        (november, 1, 2, 0, Decimal("0.0000"), 0, *money("0", "25", None), True),
        (november, 2, 2, 1, Decimal("50.0000"), 2, *money("80", "105", "40"), True),
        (november, 3, 2, None, None, 0, *money("0", "105", None), False),
        (february, 0, 1, None, None, 1, *money("7", "7", "7"), False),
    ]
    refresh(tx, datetime(2026, 3, 1, tzinfo=UTC))
    assert rows(tx, "order_cohorts", "cohort_month, month_offset, active_customers")[-2:] == [
        (november, 3, 0), (february, 0, 1),
    ], "the month is over"  # fmt: skip


def test_a_late_first_order_moves_a_customer_to_another_cohort(tx: Connection) -> None:
    anna = make_contact(tx)
    make_order(tx, anna, datetime(2026, 1, 2, tzinfo=UTC))
    refresh(tx)
    make_order(tx, anna, datetime(2025, 12, 31, tzinfo=UTC))
    refresh(tx)
    assert rows(tx, "order_cohorts", "cohort_month, month_offset, active_customers") == [
        (date(2025, 12, 1), 0, 1), (date(2025, 12, 1), 1, 1), (date(2025, 12, 1), 2, 0)]  # fmt: skip
    assert rows(tx, "customer_months", "order_month, month_offset, orders, revenue") == [
        (date(2025, 12, 1), 0, 1, Decimal(100)), (date(2026, 1, 1), 1, 1, Decimal(100))]  # fmt: skip


def test_what_a_customer_is_worth(tx: Connection) -> None:
    anna = make_contact(tx)
    make_order(tx, anna, NOW - 365 * DAY - timedelta(seconds=1), total="40", currency="EUR", fx_rate="1.25")
    make_order(tx, anna, NOW - 365 * DAY, total="30", refunded_total="10")
    make_order(tx, anna, NOW - timedelta(days=1), total="60", refunded_total="60")
    make_order(tx, anna, NOW, total="999")
    refresh(tx)
    row = value_of(tx, anna)
    assert (row.orders, row.acquisition_month, row.acquisition_campaign_id) == (3, date(2025, 2, 1), None)
    assert (row.gross_revenue, row.refunds, row.net_revenue, row.net_revenue_12m) == money("140", "70", "70", "20")
    assert (row.aov, row.avg_days_between_orders, row.reporting_currency) == (
        Decimal("23.3333"), Decimal("182.00"), "USD")  # fmt: skip
    assert (row.first_order_at, row.last_order_at) == (NOW - 365 * DAY - timedelta(seconds=1), NOW - DAY)
    refresh(tx, NOW + timedelta(seconds=1))
    row = value_of(tx, anna)
    assert (row.orders, row.net_revenue, row.net_revenue_12m) == (4, *money("1069", "999")), "time moves both ends"


def test_money_without_a_rate_or_of_another_currency_is_left_out_and_shown(tx: Connection) -> None:
    anna, bob = make_contact(tx), make_contact(tx)
    make_order(tx, anna, NOW - 40 * DAY, total="10", currency="CHF", fx_rate=None, fx_date=None)
    make_order(tx, anna, NOW - 39 * DAY, total="20", reporting_currency="GBP")
    make_order(tx, anna, NOW - 38 * DAY, total="30")
    make_order(tx, bob, NOW - 37 * DAY, total="40", currency="CHF", fx_rate=None, fx_date=None)
    make_order(tx, bob, NOW - 36 * DAY, total="500000000000000", fx_rate="2")
    refresh(tx)
    row, waiting = value_of(tx, anna), value_of(tx, bob)
    assert (row.orders, row.net_revenue, row.aov) == (3, *money("30", "30"))
    assert (waiting.orders, waiting.net_revenue, waiting.gross_revenue, waiting.aov) == (2, None, None, None)
    assert rows(tx, "rfm_segments", "contact_id, frequency, monetary") == [(anna, 3, Decimal(30))]
    assert rows(tx, "order_cohorts", "month_offset, orders, revenue, aov")[0] == (0, 5, *money("30", "30"))
    assert rows(tx, "unconverted_orders", "currency, reason, orders, customers, order_net") == [
        ("CHF", "waits_for_a_rate", 2, 2, Decimal(50)),
        ("USD", "other_reporting_currency", 1, 1, Decimal(20)),
        ("USD", "too_large", 1, 1, Decimal("99999999999999.9999")),
    ]
    load_rates(tx, [NewRate(rate_date=date(2026, 1, 1), base="CHF", quote="USD", rate=Decimal("1.5"), source="t")],
               now=NOW)  # fmt: skip
    refresh(tx)
    assert (value_of(tx, anna).net_revenue, value_of(tx, bob).net_revenue) == money("45", "60"), "the rate came"


def test_a_past_day_is_told_as_it_was(fresh_engine: Engine, settings: Settings) -> None:
    def order(number: str, at: datetime, total: int) -> NewOrder:
        return NewOrder(order_id=number, placed_at=at, currency="USD", total=Decimal(total), lines=[], contact_id=anna)

    def known(as_of: datetime) -> Any:
        refreshing.refresh(fresh_engine, as_of=as_of)
        with fresh_engine.connect() as connection:
            value = connection.execute(text("select orders, net_revenue from analytics.customer_value")).all()
            rfm = connection.execute(text("select as_of, recency_days, frequency, monetary "
                                          "from analytics.rfm_segments")).all()  # fmt: skip
            return [tuple(row) for row in value], [tuple(row) for row in rfm]

    with fresh_engine.begin() as tx:
        anna = make_contact(tx)
        record_orders(tx, [order("1", NOW - 10 * DAY, 100), order("2", NOW - 2 * DAY, 50)], settings, now=NOW)
        # The refund is told before its order.
        record_refunds(tx, [NewRefund(order_id="3", occurred_at=NOW + DAY, currency="USD", amount=Decimal(5))], now=NOW)
        record_refunds(tx, [NewRefund(order_id="1", occurred_at=NOW - DAY, currency="USD", amount=Decimal(30),
                                      refund_id="r")], now=NOW)  # fmt: skip
    now = known(NOW + timedelta(hours=5))
    assert now == ([(2, Decimal(120))], [(NOW.date(), 2, 2, Decimal(120))])
    with fresh_engine.begin() as tx:
        record_orders(tx, [order("3", NOW + timedelta(hours=6), 9)], settings, now=NOW)
    assert known(NOW + timedelta(hours=7)) == ([(3, Decimal(129))], [(NOW.date(), 2, 2, Decimal(120))]), \
        "RFM is as of midnight; the refund of tomorrow has not been made yet"  # fmt: skip
    assert known(NOW + 2 * DAY) == ([(3, Decimal(124))], [((NOW + 2 * DAY).date(), 2, 3, Decimal(124))])
    past = known(NOW - 2 * DAY)
    assert past == ([(1, Decimal(100))], [((NOW - 2 * DAY).date(), 8, 1, Decimal(100))]), "nothing later counts"
    assert known(NOW + timedelta(hours=5)) == now


def test_equal_customers_get_equal_scores(tx: Connection) -> None:
    # 20 customers: i buys i times (at most four times), the last time i days ago, for i each.
    for i in range(1, 21):
        person = make_contact(tx)
        for _ in range(min(i, 4)):
            make_order(tx, person, NOW - i * DAY, total=str(i))
    refresh(tx)
    found = rows(tx, "rfm_segments", "recency_days, frequency, monetary, r_score, f_score, m_score, rfm_segment, as_of")
    # Percentiles of 1..20, interpolated: 4.8, 8.6, 12.4, 16.2.
    assert [row[3] for row in found] == [5] * 4 + [4] * 4 + [3] * 4 + [2] * 4 + [1] * 4
    # Frequency: 1, 2, 3, then 17 times 4: every percentile is 4 but the first (3.8 of the way: 4 as well).
    assert [row[4] for row in found] == [1] * 20
    assert [row[5] for row in found] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
    assert [row[6] for row in found] == (
        ["new_customers"] * 4 + ["promising"] * 4 + ["about_to_sleep"] * 4 + ["hibernating"] * 8)  # fmt: skip
    assert {row[7] for row in found} == {NOW.date()}


def test_every_triple_of_scores_has_the_name_the_comment_says(tx: Connection) -> None:
    name = "analytics.rfm_segment(smallint, smallint, smallint)"
    told = str(tx.scalar(text("select obj_description(cast(:name as regprocedure))"), {"name": name}))
    names: list[tuple[str, dict[str, set[int]]]] = []
    for part in told.rstrip(".").split("; "):
        name, _, conditions = part.partition(": ")
        ranges = {}
        for condition in conditions.removesuffix(" otherwise").split(", "):
            letter, _, span = condition.partition(" ")
            first, _, last = span.partition("-")
            ranges[letter] = set(range(int(first), int(last or first) + 1))
        names.append((name, ranges))
    # "otherwise" gives way to the names without it.
    names.sort(key=lambda pair: len(pair[1]), reverse=True)
    found = tx.execute(text(
        "select r, f, m, analytics.rfm_segment(r::smallint, f::smallint, m::smallint) as name "
        "from generate_series(1, 5) r, generate_series(1, 5) f, generate_series(1, 5) m")).all()  # fmt: skip
    assert len(found) == 125
    for row in found:
        fitting = [name for name, ranges in names if all(getattr(row, k) in v for k, v in ranges.items())]
        assert row.name == fitting[0], row


def touched(tx: Connection, clicks: Sequence[tuple[int, str, float]], contact: int | None = None) -> int:
    """A contact with hits: (index of the campaign, kind, days before NOW); campaign -1 is a workflow mail."""
    contact = contact or make_contact(tx)
    for campaign, kind, days in clicks:
        fields: dict[str, Any] = {"kind": "workflow"} if campaign < 0 else {"campaign_id": campaign}
        message = make_message(tx, contact, content_id=make_content(tx), **fields)
        make_hit(tx, contact, message, kind, occurred_at=NOW - days * DAY)
    return contact


def shares(tx: Connection, order: int) -> list[tuple[Any, ...]]:
    columns = "model, campaign_id, weight, attributed_amount, attributed_reporting"
    return [tuple(row) for row in tx.execute(
        text(f"select {columns} from analytics.attribution where order_id = :id order by model, touch_at"),
        {"id": order})]  # fmt: skip


def test_three_models_share_an_order(tx: Connection) -> None:
    one, two, three = (make_campaign(tx) for _ in range(3))
    person = touched(tx, [(one, "click", 4), (two, "click", 3), (-1, "click", 2), (two, "open", 0.5),
                          (three, "click", 5.1)])  # fmt: skip
    order = make_order(tx, person, NOW, total="100", refunded_total="0.01", currency="EUR", fx_rate="1.1")
    refresh(tx, NOW + DAY)
    third, rest = Decimal("0.33333333"), Decimal("0.33333334")
    assert shares(tx, order) == [
        ("first_touch", one, Decimal(1), *money("99.99", "109.989")),
        ("last_touch", None, Decimal(1), *money("99.99", "109.989")),
        ("linear", one, third, *money("33.3299", "36.6629")),
        ("linear", two, third, *money("33.3299", "36.6629")),
        ("linear", None, rest, *money("33.3302", "36.6632")),
    ], "clicks within five days; a mail of a workflow is no campaign; the last touch takes what is left"
    row = tx.execute(text("select * from analytics.attribution where model = 'first_touch'")).one()
    assert (row.contact_id, row.placed_at, row.touch_at, row.currency, row.order_net, row.fx_rate, row.fx_date) == (
        person, NOW, NOW - 4 * DAY, "EUR", Decimal("99.99"), Decimal("1.1"), NOW.date())  # fmt: skip
    assert value_of(tx, person).acquisition_campaign_id is None, "the last touch was no campaign"


def test_opens_count_where_nobody_clicked(tx: Connection) -> None:
    one, two = make_campaign(tx), make_campaign(tx)
    reader = touched(tx, [(one, "open", 1), (two, "open", 0.2), (two, "open", 0.1), (one, "open", 1.01)])
    robot = touched(tx, [])
    message = make_message(tx, robot, campaign_id=one, content_id=make_content(tx))
    make_hit(tx, robot, message, "click", occurred_at=NOW, verdict="bot")
    order, other = make_order(tx, reader, NOW, total="30"), make_order(tx, robot, NOW)
    refresh(tx, NOW + DAY)
    assert shares(tx, order) == [
        ("first_touch", one, Decimal(1), *money("30", "30")), ("last_touch", two, Decimal(1), *money("30", "30")),
        ("linear", one, Decimal("0.33333333"), *money("9.9999", "9.9999")),
        ("linear", two, Decimal("0.66666667"), *money("20.0001", "20.0001")),
    ]  # fmt: skip
    assert shares(tx, other) == [], "an order nobody's touch came before has no row"
    assert value_of(tx, reader).acquisition_campaign_id == two
    message = make_message(tx, robot, campaign_id=two, content_id=make_content(tx))
    hit = make_hit(tx, robot, message, "open", occurred_at=NOW - timedelta(hours=1))
    refresh(tx, NOW + DAY)
    assert [row[1] for row in shares(tx, other)] == [two] * 3, "a hit that came late"
    tx.execute(text("insert into hit_verdicts values (:hit, 2, 'bot', now())"), {"hit": hit})
    refresh(tx, NOW + DAY)
    assert shares(tx, other) == [], "the newest verdict decides"


def test_campaigns_and_attribution_give_one_number(tx: Connection) -> None:
    campaigns = [make_campaign(tx) for _ in range(2)]
    person = touched(tx, [(campaigns[0], "click", 6), (campaigns[1], "open", 0.5)])
    for days, total, rate in ((0, "10.01", "1.23456789"), (1, "0.01", "0.5"), (2, "7", "1.00005")):
        make_order(tx, person, NOW - days * DAY, total=total, fx_rate=rate, currency="EUR")
    for click_days, open_days, expected in ((5, 1, (2, 1)), (7, 1, (3, 0)), (0, 3, (0, 1))):
        orders.keep_windows(tx, click_days=click_days, open_days=open_days)
        refresh(tx, NOW + DAY)
        found = []
        for campaign in campaigns:
            row = readers.campaign_performance(tx, campaign)
            assert (row["orders"], row["revenue"]) == tuple(tx.execute(text(
                "select count(*), coalesce(sum(attributed_reporting), 0) from analytics.attribution "
                "where model = 'last_touch' and campaign_id = :id"), {"id": campaign}).one())  # fmt: skip
            found.append(row["orders"])
        assert tuple(found) == expected, (click_days, open_days)


def test_the_windows_are_settings() -> None:
    settings = Settings(attribution_click_days=30, attribution_open_days=0)
    assert (settings.attribution_click_days, settings.attribution_open_days) == (30, 0)
    assert (Settings().attribution_click_days, Settings().attribution_open_days) == (
        orders.DEFAULT_CLICK_DAYS, orders.DEFAULT_OPEN_DAYS)  # fmt: skip
    for wrong in ({"attribution_click_days": -1}, {"attribution_open_days": 367}):
        with pytest.raises(Misconfigured, match="ATTRIBUTION"):
            Settings.from_env({f"MAUTO_{name.upper()}": str(value) for name, value in wrong.items()})


def test_a_range_of_days_is_restated_and_the_rest_stays_news(fresh_engine: Engine) -> None:
    def worth() -> list[Any]:
        with fresh_engine.connect() as connection:
            return [tuple(row) for row in connection.execute(
                text("select orders, net_revenue from analytics.customer_value order by contact_id"))]  # fmt: skip

    with fresh_engine.begin() as tx:
        people = [make_contact(tx) for _ in range(2)]
        make_order(tx, people[0], NOW - 9 * DAY)
        make_order(tx, people[1], NOW - 5 * DAY)
    refreshing.refresh(fresh_engine, as_of=NOW)
    with fresh_engine.begin() as tx:
        tx.execute(text("update orders set total = 70"))
    # As of an earlier moment than the table: nobody is set back behind the others.
    day = (NOW - 5 * DAY).date()
    refreshing.refresh(fresh_engine, as_of=NOW - 6 * DAY, from_=day, to=day)
    assert worth() == [(1, Decimal(100)), (1, Decimal(70))]
    refreshing.refresh(fresh_engine, as_of=NOW)
    assert worth() == [(1, Decimal(70)), (1, Decimal(70))]


def test_the_figures_of_an_erased_customer_stay_without_the_person(fresh_engine: Engine, settings: Settings) -> None:
    def figures() -> list[str]:
        with fresh_engine.connect() as connection:
            return [str(connection.scalar(text(
                f"select jsonb_agg(to_jsonb(t) - 'refreshed_at' order by to_jsonb(t) - 'refreshed_at') "
                f"from analytics.{name} t"))) for name in NAMES]  # fmt: skip

    with fresh_engine.begin() as tx:
        campaign = make_campaign(tx, status="sent")
        person = touched(tx, [(campaign, "click", 1)])
        make_order(tx, person, NOW)
        make_order(tx, make_contact(tx), NOW)
    refreshing.refresh(fresh_engine, as_of=NOW + DAY)
    before = figures()
    with fresh_engine.begin() as tx:
        privacy.erase(tx, person, actor="user:1", now=NOW + DAY, settings=settings)
    privacy.carry_out(fresh_engine, settings, now=NOW + 2 * DAY)
    for rebuild in (False, True):
        refreshing.refresh(fresh_engine, as_of=NOW + DAY, rebuild=rebuild)
        assert figures() == before
    with fresh_engine.connect() as connection:
        gone = "select contact_id from analytics.customer_value except select contact_id from analytics.dim_contacts"
        assert connection.scalars(text(gone)).all() == [person], "the number leads to nobody"
        texts = connection.scalars(text(
            "select table_name || '.' || column_name from information_schema.columns where table_schema = 'analytics' "
            "and data_type in ('text', 'jsonb', 'ARRAY') and table_name = any(:names) order by 1"),
            {"names": list(NAMES)}).all()  # fmt: skip
    known = ["attribution.model", "campaign_revenue.model", "rfm_segments.rfm_segment"]
    assert texts == known, "nothing else could hold a word of somebody"


def test_cohorts_by_any_attribute_are_one_query(tx: Connection) -> None:
    germans = [make_contact(tx, country="DE", source="import") for _ in range(2)]
    make_contact(tx, country="FR", source="api")
    campaign = make_campaign(tx, name="Spring")
    touched(tx, [(campaign, "click", 29)], germans[0])
    for person in germans:
        make_order(tx, person, NOW - 29 * DAY)
    make_order(tx, germans[0], NOW + DAY)
    refresh(tx, NOW + 2 * DAY)
    found = tx.execute(text(
        "select country, source, cohort_month, month_offset, count(*) as customers, sum(m.revenue) as revenue, "
        "count(acquisition_campaign_id) as by_campaign from analytics.customer_months m "
        "inner join analytics.dim_contacts using (contact_id) group by 1, 2, 3, 4 order by 4"))  # fmt: skip
    first = date(2026, 1, 1)
    assert [tuple(row) for row in found] == [
        ("DE", "import", first, 0, 2, Decimal(200), 1), ("DE", "import", first, 2, 1, Decimal(100), 1)]  # fmt: skip


def test_attribution_alone_corrects_the_campaign_that_brought_a_customer(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        campaign = make_campaign(tx)
        person = touched(tx, [])
        make_order(tx, person, NOW)
    refreshing.refresh(fresh_engine, as_of=NOW + DAY)
    with fresh_engine.begin() as tx:
        touched(tx, [(campaign, "click", 1)], person)
    refreshing.refresh(fresh_engine, as_of=NOW + DAY, only=["attribution"])
    with fresh_engine.connect() as connection:
        assert value_of(connection, person).acquisition_campaign_id == campaign


def test_a_new_day_writes_only_the_scores_that_changed(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        people = [make_contact(tx) for _ in range(5)]
        for number, person in enumerate(people, 1):
            make_order(tx, person, NOW - number * 9 * DAY, total=str(number * 10))
    names = ["customer_value", "rfm_segments"]
    refreshing.refresh(fresh_engine, as_of=NOW, only=names)
    assert refreshing.refresh(fresh_engine, as_of=NOW + DAY, only=names)["rfm_segments"] == 0
    with fresh_engine.connect() as tx:
        found = rows(tx, "rfm_segments", "contact_id, as_of, recency_days", "1")
    assert found == [(person, (NOW + DAY).date(), number * 9 + 1) for number, person in enumerate(people, 1)]
    with fresh_engine.begin() as tx:
        make_order(tx, people[0], NOW + DAY, total="1")
    assert refreshing.refresh(fresh_engine, as_of=NOW + 2 * DAY, only=names)["rfm_segments"] == 1


def test_who_has_no_orders_any_more_is_no_customer(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        anna, bob = make_contact(tx), make_contact(tx)
        for person in (anna, bob):
            make_order(tx, person, NOW - DAY)
    refreshing.refresh(fresh_engine, as_of=NOW)
    with fresh_engine.begin() as tx:
        tx.execute(text("delete from orders where contact_id = :id"), {"id": anna})
    refreshing.refresh(fresh_engine, as_of=NOW)
    with fresh_engine.connect() as connection:
        for name in ("customer_months", "customer_value", "rfm_segments"):
            assert rows(connection, name, "contact_id", "1") == [(bob,)]


def test_no_orders_no_rows(tx: Connection) -> None:
    person = make_contact(tx)
    refresh(tx)
    make_order(tx, person, NOW - DAY)
    refresh(tx)
    assert all(rows(tx, name, "1, 2") for name in NAMES if name not in ("attribution", "campaign_revenue"))
    tx.execute(text("delete from orders"))
    refresh(tx)
    assert not any(rows(tx, name, "1, 2") for name in NAMES)
