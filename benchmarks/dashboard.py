"""Every page of the dashboard, and every figure of the API, over a shop with history: milliseconds for each.

Contacts get ten campaigns each, open some, click some, buy now and then; the tables of `analytics` are refreshed, then
some mails of four days bounce, and each page and figure is made ten times. What counts is CPU time of process and
database; the fastest wall time stands beside it.
JSON value: the dearest page or figure.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from benchmarks.ground.measuring import bench, finish, tree_cpu
from mautolib.analytics import readers, readers_campaigns, readers_trends, refreshing
from mautolib.analytics.readers_campaigns import TopMetric
from mautolib.analytics.readers_trends import Granularity
from mautolib.campaigns import totals
from mautolib.pages import registry
from mautolib.pages.frame import House

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)
_CAMPAIGNS = 10
_TIMES = 10
_FILL = (
    "insert into contacts (email, email_key, created_at, subscribed, country) "
    "select 'c' || n || '@' || domain, 'c' || n || '@' || domain, cast(:now as timestamptz) "
    "- n % 400 * interval '1 day', n % 9 > 0, (array['DE', 'FR', 'PT'])[1 + n % 3] "
    "from generate_series(1, :contacts) as n, "
    "lateral (select (array['gmail.com', 'gmx.de', 'outlook.com'])[1 + n % 3] || "
    "case when n % 10 = 0 then n % 500 || '.example' else '' end as domain) as d",
    "insert into campaigns (name, subject, html_body, status, requested_at, started_at, sent_at, planned_at) "
    "select 'Letter ' || k, 'News', '<p>News</p>', 'sent', at, at, at, at from generate_series(1, :campaigns) as k, "
    "lateral (select cast(:now as timestamptz) - k * interval '9 days' as at) as t",
    "insert into message_contents (subject, html_body) values ('News', '<p>News</p>')",
    "insert into messages (contact_id, kind, status, reason, dedupe_key, content_id, campaign_id, queued_at, due_at, "
    "next_try_at, give_up_at, sent_at) "
    "select c.contact_id, 'campaign', what, case when what = 'skipped' then 'unsubscribed' when what = 'bounced' then "
    "'hard' end, 'b:' || k.campaign_id || ':' || c.contact_id, 1, k.campaign_id, k.sent_at, k.sent_at, k.sent_at, "
    "k.sent_at + interval '1 day', case when what = 'sent' then k.sent_at end "
    "from campaigns as k cross join contacts as c, lateral (select case (c.contact_id * 7 + k.campaign_id) % 50 "
    "when 0 then 'skipped' when 1 then 'bounced' else 'sent' end as what) as w order by k.sent_at",
    "insert into hits (contact_id, message_id, kind, occurred_at, url) "
    "select contact_id, message_id, what, sent_at + (message_id % 60) * interval '1 hour', "
    "case when what = 'click' then 'https://shop.example/' || message_id % 40 end from messages, "
    "lateral (select 'open' as what where message_id % 3 = 0 union all select 'click' where message_id % 15 = 0) as k "
    "where status = 'sent'",
    "insert into hit_verdicts (hit_id, rule_version, verdict, decided_at) "
    "select hit_id, 1, case when hit_id % 4 = 0 then 'prefetch' else 'human' end, occurred_at from hits",
    "insert into orders (contact_id, order_id, placed_at, total, currency, reporting_currency, fx_rate, fx_date, "
    "received_at) select 1 + n * 7919 % :contacts, 'O-' || n, at, 10 + n % 190, cur, 'USD', "
    "case cur when 'USD' then 1 when 'EUR' then 1.09 end, case when cur <> 'GBP' then at::date end, at "
    "from generate_series(1, :contacts) as n, lateral (select cast(:now as timestamptz) "
    "- n % 700 * interval '13 hours' as at, (array['USD', 'USD', 'EUR', 'EUR', 'GBP'])[1 + n % 5] as cur) as t",
    "insert into workflows (name, trigger_type, steps, active) values ('Welcome', 'signup', :steps, true)",
    "insert into workflow_versions (workflow_id, version, trigger_type, trigger_config, steps) "
    "values (1, 1, 'signup', '{}', :steps)",
    "insert into enrollments (workflow_id, version, contact_id, entry_key, status, step_path, caused_at, entered_at, "
    "finished_at) select 1, 1, contact_id, 'k' || contact_id, 'completed', '1', created_at, created_at, created_at "
    "from contacts",
    "insert into workflow_logs (workflow_id, enrollment_id, contact_id, step_path, step_index, status, created_at) "
    "select 1, enrollment_id, contact_id, path, 0, 'completed', entered_at from enrollments, "
    "unnest(array['0', '1']) as path",
    "insert into ab_tests (campaign_id, name, status, started_at, planned_at, planned_occurrence, test_percentage, "
    "conversion_days, last_handover_at, deadline_at) select 1, 'Two subjects', 'running', sent_at, sent_at, 1, 20, 5, "
    "sent_at, sent_at + interval '4 hours' from campaigns where campaign_id = 1",
    "insert into ab_variants (test_id, position, name, subject) values (1, 0, 'Short', 'A'), (1, 1, 'Long', 'B')",
    "insert into holdout_periods (salt, percent, begun_at, changed_by) "
    "values ('bench', 5, cast(:now as timestamptz) - interval '100 days', 'bench')",
    "update messages set ab_part = 'test', variant_id = 1 + contact_id / 5 % 2 "
    "where campaign_id = 1 and contact_id % 5 = 0 and status = 'sent'",
)
_STEPS = '[{"type": "action", "action": "tag", "tag_name": "new"}, {"type": "delay", "hours": 24}]'
_PAGES = (
    "", "?days=365", "campaigns", "campaigns/1", "campaigns/1?hours=open", "ab-tests", "ab-tests/1", "holdout",
    "revenue", "revenue?months=60", "customers", "cohorts", "cohorts?by=day", "cohorts?by=month", "cohorts?by=orders",
    "cohorts?by=revenue", "people", "people?days=365", "workflows", "workflows/1",
)  # fmt: skip
#: What `/api/v1` answers from, by the address that asks.
_READERS: dict[str, Callable[[Connection], object]] = {
    "dashboard/stats": readers.dashboard_stats,
    "analytics/dashboard?days=30": lambda tx: readers_trends.dashboard(tx, days=30, now=NOW),
    "analytics/dashboard?days=365": lambda tx: readers_trends.dashboard(tx, days=365, now=NOW),
    "analytics/timeseries?days=30": lambda tx: _series(tx, 30, Granularity.DAY),
    "analytics/timeseries?days=365": lambda tx: _series(tx, 365, Granularity.DAY),
    "analytics/timeseries?days=365&granularity=week": lambda tx: _series(tx, 365, Granularity.WEEK),
    "analytics/timeseries?days=7&granularity=hour": lambda tx: _series(tx, 7, Granularity.HOUR),
    "analytics/timeseries?campaign_id=1": lambda tx: _series(tx, 30, Granularity.DAY, 1),
    "analytics/health": lambda tx: readers_trends.health(tx, now=NOW),
    "analytics/top-campaigns": lambda tx: readers_campaigns.top(
        tx, metric=TopMetric.OPEN_RATE, limit=10, min_sent=10),
    "analytics/campaigns/1/metrics": lambda tx: readers_campaigns.metrics(tx, 1, reporting_currency="USD"),
    "analytics/campaigns/1/funnel": lambda tx: readers_campaigns.funnel(tx, 1),
    "analytics/campaigns/1/engagement": lambda tx: readers_campaigns.engagement(tx, 1, timezone="Europe/Berlin"),
}  # fmt: skip
#: What happens after the refresh: these days are counted while somebody waits.
_LATER = (
    "update messages set status = 'bounced', reason = 'hard', bounced_at = cast(:now as timestamptz) "
    "where message_id in (select min(message_id) + 5 from messages where status = 'sent' group by campaign_id "
    "order by 1 limit 4)"
)


def _series(tx: Connection, days: int, granularity: Granularity, campaign_id: int | None = None) -> object:
    return readers_trends.timeseries(tx, days=days, granularity=granularity, now=NOW, campaign_id=campaign_id)


def fill(tx: Connection, contacts: int) -> None:
    """The shop; statements without binds of a name simply do not use it."""
    binds = {"now": NOW, "contacts": contacts, "campaigns": _CAMPAIGNS, "steps": _STEPS}
    for statement in _FILL:
        tx.execute(text(statement.replace(":steps", "cast(:steps as jsonb)")), binds)
    tx.execute(text(
        "insert into analytics.score_distribution select d::date, 1, g, n, n + 10, 500, 20, 10, 5, now() from "
        "generate_series(cast(:now as timestamptz) - interval '364 days', :now, interval '1 day') as d, "
        "unnest(array['A', 'C', 'F']) as g, generate_series(0, 90, 30) as n"), {"now": NOW})  # fmt: skip
    tx.execute(text(
        "insert into analytics.lifecycle_funnel select d::date, stage, stage_order, 1000, 10, 20, 10, 30, 40, now() "
        "from lifecycle_stages, generate_series(cast(:now as timestamptz) - interval '364 days', :now, "
        "interval '1 day') as d"), {"now": NOW})  # fmt: skip


def answer(tx: Connection, address: str) -> float:
    """Make one page the way the faces do, or the figures of one answer; returns the seconds it took."""
    if address.startswith("/api"):
        began = time.perf_counter()
        _READERS[address.removeprefix("/api/v1/")](tx)
        return time.perf_counter() - began
    address = address.removeprefix("/dashboard/")
    path, _, query = address.partition("?")
    asked = dict([query.split("=")]) if query else {}
    began = time.perf_counter()
    found = registry.answer(tx, path, asked, now=NOW, house=House())
    seconds = time.perf_counter() - began
    if found.status != 200:
        raise SystemExit(f"{address}: {found.status}")
    return seconds


def cpu(server: int) -> float:
    """CPU seconds of this process and the database so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime + tree_cpu(server)


def main() -> None:
    """Fill, refresh, ask for every page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="messages; a tenth as many contacts and orders")
    rows = parser.parse_args().rows
    with bench() as place:
        with place.measured(f"make {rows:,} messages"), place.engine.begin() as tx:
            fill(tx, rows // _CAMPAIGNS)
        with place.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("vacuum analyze"))
        with place.measured("recount campaigns, refresh analytics"):
            with place.engine.begin() as tx:
                totals.refresh_many(tx, range(1, _CAMPAIGNS + 1), NOW)
            refreshing.refresh(place.engine, as_of=NOW - timedelta(hours=1))
            with place.engine.begin() as tx:
                tx.execute(text(_LATER), {"now": NOW - timedelta(minutes=5)})
        took = {}
        for address in [f"/api/v1/{one}" for one in _READERS] + [f"/dashboard/{one}" for one in _PAGES]:
            with place.engine.begin() as tx:
                answer(tx, address)
                before = cpu(place.cluster.pid or 0)
                wall = min(answer(tx, address) for _ in range(_TIMES))
                took[address] = 1000 * (cpu(place.cluster.pid or 0) - before) / _TIMES
            line = f"{address:<56} {took[address]:8.1f} ms CPU {1000 * wall:8.1f} ms wall\n"
            sys.stdout.write(line)
            sys.stdout.flush()
    dearest = max(took, key=lambda address: took[address])
    each = {address: round(milliseconds, 1) for address, milliseconds in took.items()}
    finish("dashboard", took[dearest], "CPU ms for the dearest page or figure", rows=rows, verified=took[dearest] < 200,
           compared_to=each)  # fmt: skip


if __name__ == "__main__":
    main()
