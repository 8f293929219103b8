"""The mail, the orders and the nights of scores beside a `shop_history`, and what one more day brings.

The history is loaded without triggers, as a restored backup is; the day is written in batches with all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from benchmarks.ground.shop_history import _RANDOM

#: Campaigns of the year of mail.
CAMPAIGNS = 200
_BATCH = 1000
_DAYS = 365

_MONTHS = """
select ensure_month_partition(cast(:table as regclass), month::date)
from generate_series(cast(:end as timestamptz) - make_interval(months => :months), :end, interval '1 month') as month
"""
_CAMPAIGN = """
insert into campaigns (name, subject, from_email, status, requested_at, started_at, sent_at, created_at)
select
    'Letter ' || n, 'News', 'shop@shop.example', 'sent', sent_at - interval '1 hour', sent_at,
    sent_at + interval '2 hours', sent_at - interval '1 day'
from (
    select
        n, cast(:end as timestamptz)
            - make_interval(secs => (1 - n / cast(:campaigns as float8)) * 364 * 86400 + 90000) as sent_at
    from generate_series(1, cast(:campaigns as int)) as n
) as days
"""
_CONTENT = """
insert into message_contents (campaign_id, subject, html_body) select campaign_id, 'News', '<p>News</p>' from campaigns
"""
# One in ten is of a workflow, at any time; the others go out within two hours.
_MESSAGES = """
insert into messages (
    contact_id, kind, campaign_id, workflow_id, content_id, dedupe_key, status, reason, due_at, next_try_at, give_up_at,
    attempt_no, last_code, sent_at, bounced_at, complained_at, queued_at)
select
    contact_id, case when campaign_id is null then 'workflow' else 'campaign' end, campaign_id,
    case when campaign_id is null then 1 end, coalesce(campaign_id, 1), :prefix || n,
    case when fate < 0.97 then 'sent' when fate < 0.985 then 'bounced' when fate < 0.99 then 'failed' else 'complained'
    end,
    case when fate >= 0.97 and fate < 0.985 then 'hard' end, went_at, went_at, went_at + interval '1 day', 1,
    case when fate >= 0.985 and fate < 0.99 then 550 end,
    case when fate < 0.98 or fate >= 0.99 then went_at end,
    case when fate >= 0.97 and fate < 0.985 then went_at + interval '1 hour' end,
    case when fate >= 0.99 then went_at + interval '1 day' end, went_at
from (
    select
        n, ceil(pg_temp.spread(n, 21) * cast(:contacts as bigint))::bigint as contact_id, pg_temp.spread(n, 22) as fate,
        campaigns.campaign_id,
        coalesce(campaigns.started_at,
            cast(:end as timestamptz) - make_interval(secs => pg_temp.spread(n, 23) * 364 * 86400))
            + make_interval(secs => pg_temp.spread(n, 24) * 7200) as went_at
    from generate_series(1, cast(:messages as bigint)) as n
    left join campaigns
        on n % 10 > 0
        and campaigns.campaign_id = ceil(n * cast(:campaigns as float8) / cast(:messages as bigint))::bigint
) as drawn
order by went_at
"""
# Most come within hours of the mail; an eighth are machines.
_HITS = """
insert into hits (occurred_at, kind, contact_id, campaign_id, message_id, link_position)
select
    least(sent_at + make_interval(secs => power(pg_temp.spread(n, 32), 4) * 14 * 86400),
        cast(:end as timestamptz) - interval '1 second'),
    case when pg_temp.spread(n, 33) < 0.75 then 'open' else 'click' end, contact_id, campaign_id, message_id, 1
from generate_series(1, cast(:hits as bigint)) as n
inner join messages
    on messages.message_id = ceil(power(pg_temp.spread(n, 31), 1.1) * cast(:messages as bigint))::bigint
where sent_at is not null
order by 1
"""
_VERDICTS = """
insert into hit_verdicts (hit_id, rule_version, verdict)
select hit_id, 1, case when pg_temp.spread(hit_id, 34) < 0.875 then 'human' else 'bot' end from hits
"""
_OPT_OUTS = """
insert into events (contact_id, occurred_at, received_at, event_type, source, campaign_id, message_id)
select contact_id, sent_at + interval '3 hours', sent_at + interval '3 hours', 'unsubscribed', 'mauto', campaign_id,
    message_id
from messages where sent_at is not null and message_id % 400 = 0
"""
_ORDERS = """
insert into orders (
    contact_id, source, order_id, placed_at, currency, total, refunded_total, reporting_currency, fx_rate, fx_date,
    received_at)
select
    contact_id, 'shop', :prefix || n, placed_at, 'EUR', total, case when n % 50 = 0 then total else 0 end, 'USD', 1.1,
    utc_day(placed_at), placed_at
from (
    select
        n, ceil(power(pg_temp.spread(n, 41), 2) * cast(:contacts as bigint))::bigint as contact_id,
        10 + n % 300 as total,
        cast(:end as timestamptz)
            - make_interval(secs => pg_temp.spread(n, 42) * cast(:days as float8) * 86400) as placed_at
    from generate_series(cast(:first as bigint), cast(:last as bigint)) as n
) as drawn
"""
_NIGHT = """
with scored as (
    insert into score_history (
        contact_id, as_of, total_score, engagement_score, profile_score, recency_score, grade, lifecycle_stage,
        rule_version, source)
    select
        contact_id, :as_of, 110 * points, 80 * points, 10, 20 * points,
        (array['F', 'D', 'C', 'B', 'B+', 'A', 'A+'])[1 + floor(points * 7)::int],
        (array['new', 'subscriber', 'lead', 'mql', 'customer', 'dormant'])[1 + floor(points * 6)::int], 1, 'nightly'
    from (
        select contact_id, pg_temp.spread(contact_id, 51) as points from contacts where created_at < :as_of
    ) as drawn
    returning contact_id
)
insert into score_runs (
    as_of, source, rule_version, bucket, buckets, is_current, scored_count, changed_count, moved_count, snapshot_count,
    finished_at)
select :as_of, 'nightly', 1, 0, 1, true, count(*), 0, 0, count(*), cast(:as_of as timestamptz) + interval '5 minutes'
from scored
"""
_STAGES = """
insert into contact_stages (contact_id, lifecycle_stage, since, evaluated_at)
select
    contact_id, (array['new', 'subscriber', 'lead', 'mql', 'customer', 'dormant'])[
        1 + floor(pg_temp.spread(contact_id, 51) * 6)::int], created_at, :end
from contacts
"""
# A night moves one in two hundred.
_MOVES = """
insert into stage_transitions (contact_id, previous_stage, new_stage, occurred_at)
select contact_id, 'new', lifecycle_stage, cast(:end as timestamptz) - interval '1 hour'
from contact_stages where contact_id % 200 = 7 and lifecycle_stage <> 'new'
"""
_NEW_EVENTS = """
insert into events (contact_id, occurred_at, received_at, event_type, source)
select
    ceil(power(pg_temp.spread(n, 61), 2) * cast(:contacts as bigint))::bigint,
    cast(:end as timestamptz) - make_interval(secs =>
        -- One in a hundred comes late, by up to two months.
        case when n % 100 = 0 then pg_temp.spread(n, 63) * 60 else pg_temp.spread(n, 62) end * 86400),
    :end, (array['email_opened', 'email_opened', 'email_opened', 'email_clicked', 'page_viewed', 'page_viewed',
        'email_sent', 'form_submitted', 'cart_updated', 'webinar_attended']
    )[1 + floor(pg_temp.spread(n, 64) * 10)::int],
    'mauto'
from generate_series(cast(:first as bigint), cast(:last as bigint)) as n
"""
_NEW_MESSAGES = """
insert into messages (
    contact_id, kind, campaign_id, content_id, dedupe_key, due_at, next_try_at, give_up_at, queued_at)
select
    ceil(pg_temp.spread(n, 71) * cast(:contacts as bigint))::bigint, 'campaign', :campaign, :campaign, 'day:' || n,
    moment, moment, moment + interval '1 day', moment
from generate_series(cast(:first as bigint), cast(:last as bigint)) as n
cross join (select cast(:end as timestamptz) - interval '12 hours') as sending (moment)
returning message_id
"""
_SEND = """
update messages
set status = case when message_id % 60 = 0 then 'bounced' else 'sent' end, attempt_no = 1,
    sent_at = case when message_id % 60 > 0 then next_try_at end,
    bounced_at = case when message_id % 60 = 0 then next_try_at end,
    last_code = case when message_id % 60 = 0 then 550 end
where message_id = any(:ids)
"""
_NEW_HITS = """
with added as (
    insert into hits (occurred_at, kind, contact_id, campaign_id, message_id, link_position)
    select
        cast(:end as timestamptz) - make_interval(secs => pg_temp.spread(n, 82) * 39600),
        case when n % 4 > 0 then 'open' else 'click' end, contact_id, campaign_id, message_id, 1
    from generate_series(cast(:first as bigint), cast(:last as bigint)) as n
    inner join messages
        -- Half are of the day's mail, half of the month before.
        on messages.message_id = cast(:newest as bigint)
            - floor(pg_temp.spread(n, 81) * case n % 2 when 0 then :today else 12 * :today end)::bigint
    where sent_at is not null
    returning hit_id
)
insert into hit_verdicts (hit_id, rule_version, verdict)
select hit_id, 1, case when hit_id % 8 > 0 then 'human' else 'bot' end from added
"""
_REFUNDS = """
update orders set refunded_total = total
where placed_at < :end and order_key % 9973 = 11 and refunded_total = 0
"""
_SECOND_VERDICTS = """
insert into hit_verdicts (hit_id, rule_version, verdict)
select hit_id, 2, 'bot' from hits
where occurred_at >= cast(:end as timestamptz) - interval '2 days'
    and occurred_at < cast(:end as timestamptz) - interval '1 day' and hit_id % 100 = 0
"""


def build(engine: Engine, *, contacts: int, messages: int, hits: int, orders: int, nights: int, end: datetime) -> None:
    """Add a year of mail and orders, and the last nights of scores, to a history of contacts and events."""
    sizes = {"end": end, "contacts": contacts, "messages": messages, "hits": hits, "campaigns": CAMPAIGNS,
             "prefix": "year:"}  # fmt: skip
    with engine.begin() as tx:
        tx.execute(text(_RANDOM.replace("create function", "create or replace function")))
        tx.execute(text("set local session_replication_role = replica"))
        for table, months in (("hits", 13), ("score_history", 1)):
            tx.execute(text(_MONTHS), {"table": table, "end": end, "months": months})
        known = tx.scalar(text("select count(*) from orders"))
        tx.execute(text(_ORDERS), {**sizes, "first": 1, "last": orders - known, "days": _DAYS})
        for part in (_CAMPAIGN, _CONTENT, _MESSAGES, _HITS, _VERDICTS, _OPT_OUTS, _STAGES, _MOVES):
            tx.execute(text(part), sizes)
        for back in range(nights):
            tx.execute(text(_NIGHT), {"as_of": end - timedelta(days=back, hours=1)})
    vacuum(engine)


def another_day(engine: Engine, *, contacts: int, events: int, orders: int, messages: int, end: datetime) -> None:
    """Write what the day that ends at `end` brings: as the service does, in batches, with every trigger."""
    sizes = {"end": end, "contacts": contacts, "campaign": CAMPAIGNS, "prefix": "day:", "days": 1, "today": messages}
    with engine.begin() as tx:
        tx.execute(text(_RANDOM.replace("create function", "create or replace function")))
        _in_batches(tx, _NEW_EVENTS, events, sizes)
        _in_batches(tx, _ORDERS, orders, sizes)
        sent: list[int] = []
        for span in _spans(messages):
            sent += tx.scalars(text(_NEW_MESSAGES), {**sizes, **span})
        for at in range(0, len(sent), _BATCH):
            tx.execute(text(_SEND), {"ids": sent[at : at + _BATCH]})
        _in_batches(tx, _NEW_HITS, messages, {**sizes, "newest": max(sent)})
        tx.execute(text(_SECOND_VERDICTS), sizes)
        tx.execute(text(_REFUNDS), sizes)
        tx.execute(text(_NIGHT), {"as_of": end - timedelta(hours=1)})


def vacuum(engine: Engine) -> None:
    """What autovacuum does in time."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))


def _in_batches(tx: Connection, statement: str, count: int, binds: dict[str, Any]) -> None:
    for span in _spans(count):
        tx.execute(text(statement), {**binds, **span})


def _spans(count: int) -> Iterable[dict[str, int]]:
    return ({"first": first, "last": min(first + _BATCH - 1, count)} for first in range(1, count + 1, _BATCH))
