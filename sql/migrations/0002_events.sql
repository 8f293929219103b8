-- What happened: events in monthly partitions, their idempotency keys, and what still has to take effect.

create sequence event_ids as bigint;
create table events (
    event_id bigint not null default nextval('event_ids'),
    contact_id bigint not null default 0,
    occurred_at timestamptz not null,
    received_at timestamptz not null default now(),
    event_type text not null,
    source text not null default 'api',
    external_id text,
    properties jsonb not null default '{}',
    campaign_id bigint,
    message_id bigint,
    order_key bigint,
    primary key (event_id, occurred_at),
    constraint event_type_has_1_to_50_characters check (length(event_type) between 1 and 50),
    constraint properties_are_an_object check (jsonb_typeof(properties) = 'object'),
    -- Mirrors SERVICE_ONLY in mautolib/events/types.py.
    constraint callers_only_observe_what_the_service_writes check (
        source in ('mauto', 'observation') or event_type not in (
            'email_sent', 'email_delivered', 'email_opened', 'email_clicked', 'email_bounced',
            'email_complained', 'unsubscribed', 'contact_created', 'contact_updated', 'tag_added',
            'tag_removed', 'segment_entered', 'score_changed', 'campaign_sent', 'milestone_reached'))
) partition by range (occurred_at);
create index events_by_contact on events (contact_id, occurred_at);
create index events_by_time on events using brin (occurred_at);
create index unsubscribes_by_campaign on events (campaign_id) where event_type = 'unsubscribed';
comment on table events is
    'Append-only facts about contacts. contact_id 0 means nobody. Never updated by the application.';
comment on column events.occurred_at is 'When it happened (may be long ago).';
comment on column events.received_at is 'When we learned of it; late = received_at after occurred_at.';

create table event_keys (
    source text not null,
    external_id text not null,
    event_id bigint not null,
    occurred_at timestamptz not null,
    content_hash bytea,
    primary key (source, external_id)
);
comment on table event_keys is
    'Makes appending idempotent over all months: a retry without a time finds its first try here.';

create table event_pending (
    event_id bigint not null,
    bucket smallint not null,
    contact_id bigint not null,
    occurred_at timestamptz not null,
    primary key (bucket, occurred_at, event_id)
);
comment on table event_pending is
    'Events that have not taken effect yet. Dispatch locks a bucket and deletes what it dispatched.';

-- Partitions: one per month, and a DEFAULT that catches dates nobody made a partition for.
create table events_default partition of events default;

create function ensure_month_partition(parent regclass, any_day date) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    month_start date := date_trunc('month', any_day)::date;
    month_end date := (date_trunc('month', any_day) + interval '1 month')::date;
    child text := parent::text || to_char(month_start, '"_y"YYYY"m"MM');
    fallback text := parent::text || '_default';
begin
    if parent::text not in ('events', 'hits') then
        raise exception 'only events and hits are partitioned by month, not %', parent;
    end if;
    if to_regclass(child) is not null then
        return null;
    end if;
    perform pg_advisory_xact_lock(hashtext(child));
    if to_regclass(child) is not null then
        return null;
    end if;
    -- Rows of this month that landed in the default partition move over, or PostgreSQL would refuse.
    execute format('create table %s (like %s including defaults including constraints)', child, parent);
    execute format(
        'with moved as (delete from %s where occurred_at >= %L and occurred_at < %L returning *)
         insert into %s select * from moved',
        fallback, month_start, month_end, child);
    execute format('alter table %s attach partition %s for values from (%L) to (%L)',
                   parent, child, month_start, month_end);
    return child;
end
$$;
comment on function ensure_month_partition(regclass, date) is
    'Creates the monthly partition of a table for the month of a day; null if it exists.';

create table orders (
    order_key bigint generated always as identity,
    contact_id bigint not null default 0,
    source text not null default 'api',
    order_id text not null,
    placed_at timestamptz not null,
    currency char(3) not null,
    total numeric(19,4) not null,
    discount numeric(19,4) not null default 0,
    shipping numeric(19,4) not null default 0,
    tax numeric(19,4) not null default 0,
    refunded_total numeric(19,4) not null default 0,
    net_total numeric(19,4) generated always as (total - refunded_total) stored,
    lines jsonb not null default '[]',
    cart_id text,
    reporting_currency char(3) not null,
    fx_rate numeric(18,8),
    fx_date date,
    received_at timestamptz not null default now(),
    primary key (contact_id, order_key),
    constraint one_order_per_source_and_number unique (source, order_id),
    constraint currency_is_three_capitals check (currency ~ '^[A-Z]{3}$'),
    constraint rate_and_its_date_go_together check ((fx_rate is null) = (fx_date is null))
);
create index orders_by_time on orders (placed_at);
comment on column orders.fx_rate is
    'Units of reporting_currency for one unit of currency at fx_date; null: waiting for a rate.';

create table refunds (
    refund_key bigint generated always as identity primary key,
    source text not null,
    order_id text not null,
    refund_id text,
    currency char(3) not null,
    amount numeric(19,4) not null,
    occurred_at timestamptz not null,
    applied_at timestamptz,
    constraint refund_is_positive check (amount > 0)
);
create unique index one_refund_per_number on refunds (source, order_id, refund_id) where refund_id is not null;
create index refunds_waiting on refunds (source, order_id) where applied_at is null;
comment on table refunds is 'A refund may come before its order: applied_at is null until the order is here.';

create table fx_rates (
    rate_date date not null,
    base char(3) not null,
    quote char(3) not null,
    rate numeric(18,8) not null,
    source text not null default '',
    loaded_at timestamptz not null default now(),
    primary key (base, quote, rate_date),
    constraint rate_is_positive check (rate > 0)
);
create index fx_rates_by_quote on fx_rates (quote, rate_date);
comment on table fx_rates is 'Units of quote for one unit of base on a day.';

create function fx_rate_on(wanted_base char(3), wanted_quote char(3), wanted_day date)
returns table (rate numeric, rate_date date)
language sql stable as $$
    select candidates.rate, candidates.rate_date
    from (
        select 1::numeric as rate, wanted_day as rate_date, 0 as detours
        where wanted_base = wanted_quote
        union all
        (
            select fx_rates.rate, fx_rates.rate_date, 1
            from fx_rates
            where fx_rates.base = wanted_base and fx_rates.quote = wanted_quote
                and fx_rates.rate_date <= wanted_day
            order by fx_rates.rate_date desc
            limit 1
        )
        union all
        (
            select 1 / fx_rates.rate, fx_rates.rate_date, 2
            from fx_rates
            where fx_rates.base = wanted_quote and fx_rates.quote = wanted_base
                and fx_rates.rate_date <= wanted_day
            order by fx_rates.rate_date desc
            limit 1
        )
        union all
        (
            -- Banks publish rates against their own currency: both are quoted in a third one on one day.
            select into_quote.rate / into_base.rate, into_quote.rate_date, 3
            from fx_rates as into_quote
            inner join fx_rates as into_base
                on into_base.base = into_quote.base and into_base.rate_date = into_quote.rate_date
            where into_quote.quote = wanted_quote and into_base.quote = wanted_base
                and into_quote.rate_date <= wanted_day
                -- Only for pairs nobody quotes: the detour is the dear part (10 s for 4,000 orders).
                and not exists (
                    select 1
                    from fx_rates
                    where (base, quote) in ((wanted_base, wanted_quote), (wanted_quote, wanted_base))
                        and fx_rates.rate_date <= wanted_day
                )
            order by into_quote.rate_date desc
            limit 1
        )
    ) as candidates
    order by candidates.rate_date desc, candidates.detours
    limit 1
$$;
comment on function fx_rate_on(char, char, date) is
    'Units of quote for one unit of base: the last rate on or before a day, else no row.';
