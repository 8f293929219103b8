"""A deterministic history of a shop for benchmarks: contacts, a year of events, orders; made inside the database."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from sqlalchemy import Engine, text

#: The moment at which the history ends.
END = datetime(2026, 3, 1, tzinfo=UTC)
#: For how long contacts have signed up, and events have been recorded.
_SIGNUP_DAYS, _DAYS = 540, 365

# Numbers in [0, 1) out of a row's number: the same in every run and on every server.
_RANDOM = """
create function pg_temp.spread(seed bigint, salt int) returns float8 language sql immutable as $$
    select ((hashint8extended(seed, salt) & 9007199254740991) / 9007199254740992.0)::float8
$$
"""
_CONTACTS = """
insert into contacts (
    email, email_key, first_name, last_name, phone, country, custom_fields, subscribed, created_at)
select
    'c' || n || '@shop.example', 'c' || n || '@shop.example',
    case when pg_temp.spread(n, 1) < 0.8 then 'First' || n else '' end,
    case when pg_temp.spread(n, 2) < 0.7 then 'Last' || n else '' end,
    case when pg_temp.spread(n, 3) < 0.3 then '+49 30 ' || n else '' end,
    (array['DE', 'US', 'GB', 'FR', 'JP', ''])[1 + floor(pg_temp.spread(n, 4) * 6)::int],
    case when pg_temp.spread(n, 5) < 0.4 then '{"plan": "pro", "size": 3}' else '{}' end::jsonb,
    pg_temp.spread(n, 6) < 0.9,
    -- As many sign-ups every day, numbered in their order.
    cast(:end as timestamptz)
        - make_interval(secs => (1 - n / cast(:contacts as float8)) * cast(:signup_days as int) * 86400)
from generate_series(1, cast(:contacts as bigint)) as n
"""
# A few are very busy, most are quiet; nothing happens before the sign-up.
_EVENTS = """
insert into events (contact_id, occurred_at, received_at, event_type, source, properties)
select
    greatest(1, ceil(power(pg_temp.spread(n, 10), 2) * cast(:contacts as bigint)
        * (1 - days / cast(:signup_days as int)))),
    cast(:end as timestamptz) - make_interval(secs => days * 86400),
    cast(:end as timestamptz) - make_interval(secs => days * 86400), kind, 'mauto',
    case kind when 'page_viewed' then jsonb_build_object('url', '/p/' || n % 50) else '{}' end
from (
    select
        n, power(pg_temp.spread(n, 12), cast(:growth as float8)) * cast(:days as int) as days,
        (array['email_opened', 'email_opened', 'email_opened', 'email_clicked', 'page_viewed', 'page_viewed',
            'email_sent', 'email_sent', 'form_submitted', 'cart_updated', 'checkout_started', 'order_placed',
            'email_bounced', 'webinar_attended'])[1 + floor(pg_temp.spread(n, 11) * 14)::int] as kind
    from generate_series(1, cast(:events as bigint)) as n
) as drawn
"""
_ORDERS = """
insert into orders (contact_id, order_id, placed_at, currency, total, reporting_currency, fx_rate, fx_date, received_at)
select contact_id, 'O-' || event_id, occurred_at, 'USD', 20 + event_id % 200, 'USD', 1, occurred_at::date, occurred_at
from events where event_type = 'order_placed'
"""


def build(
    engine: Engine, *, contacts: int, events: int, last_day: int | None = None, end: datetime = END
) -> None:
    """Fill an empty database; events get monthly partitions, statistics are brought up to date.

    Args:
        end: the moment at which the history ends.
        last_day: about so many of the events happen on the last day, ever fewer before it; None: as many every day.
    """
    growth = math.log(_DAYS) / math.log(events / last_day) if last_day else 1.0
    sizes = {"end": end, "contacts": contacts, "events": events, "growth": growth, "days": _DAYS,
             "signup_days": _SIGNUP_DAYS}  # fmt: skip
    with engine.begin() as tx:
        tx.execute(text(_RANDOM))
        tx.execute(text("select ensure_month_partition('events', month::date) from generate_series("
                        "cast(:end as timestamptz) - interval '13 months', :end, interval '1 month') as month"),
                   {"end": end})  # fmt: skip
        tx.execute(text(_CONTACTS), sizes)
        tx.execute(text(_EVENTS), sizes)
        tx.execute(text(_ORDERS))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))
