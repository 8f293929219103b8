-- Roll-ups that follow what changed: marks written with each change, and how far each table of figures has come.
--
-- A mark commits with the row it tells of. A refresh keeps the snapshot it began with; the next one takes the marks
-- that snapshot did not see. So a transaction that commits late is not missed, whatever ids and times its rows have.
-- Cells are recomputed whole from the truth: a mark too many costs time and changes nothing.

create schema rollups;
comment on schema rollups is 'What the refresh of schema analytics knows: marks of changes, and how far each table is.';

create table rollups.marks (
    xact xid8 not null default pg_current_xact_id(),
    subject text not null,
    day date not null,
    contact_id bigint not null default 0,
    constraint subject_is_known check (
        subject in ('activity', 'orders', 'touches', 'mail', 'deliveries'))
);
create index marks_by_transaction on rollups.marks (xact);
comment on table rollups.marks is
    'What changed since figures were made of it; pruned when every table has been refreshed.';
comment on column rollups.marks.xact is 'The transaction that changed it, as pg_snapshot sees it.';
comment on column rollups.marks.subject is
    'activity: opens, clicks and visits; orders; touches: hits before orders that are known already; mail: a day of '
    'daily_email_metrics; deliveries: a day of deliverability_by_domain.';
comment on column rollups.marks.day is 'UTC day it happened on.';
comment on column rollups.marks.contact_id is 'Whose; 0: everybody''s of that day.';

create table rollups.states (
    table_name text primary key,
    snapshot pg_snapshot not null,
    as_of timestamptz not null,
    reporting_currency char(3),
    row_count bigint not null,
    seconds double precision not null,
    refreshed_at timestamptz not null
);
comment on table rollups.states is 'The last refresh of each table of schema analytics.';
comment on column rollups.states.snapshot is 'What was committed when it began: marks outside of it are news.';

create function utc_day(moment timestamptz) returns date language sql immutable parallel safe as $$
    select cast(moment at time zone 'UTC' as date)
$$;
comment on function utc_day(timestamptz) is 'The UTC day of a moment.';

create function attempted_at(
    status text, last_code int, sent_at timestamptz, bounced_at timestamptz, next_try_at timestamptz
) returns timestamptz language sql immutable parallel safe as $$
    select case
        when sent_at is not null then sent_at
        when status = 'bounced' then coalesce(bounced_at, next_try_at)
        when status = 'unknown' or (status = 'failed' and last_code between 500 and 599) then next_try_at
    end
$$;
comment on function attempted_at(text, int, timestamptz, timestamptz, timestamptz) is
    'When a message was handed over, or was due to be where that came to nothing; null: not attempted.';

-- Events of the last two days mark their day: its people are found by time. Older ones mark the person, so that one
-- late event does not recompute everybody of its day; a bulk load marks days again.
create function rollups.mark_events() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    with told as materialized (
        select distinct
            utc_day(occurred_at) as day,
            case when occurred_at < clock_timestamp() - interval '2 days' then contact_id else 0 end
                as contact_id
        from added
        where contact_id > 0
            and event_type in (
                'email_opened', 'email_clicked', 'page_viewed', 'form_submitted', 'cart_updated',
                'checkout_started')
    )
    insert into rollups.marks (subject, day, contact_id)
    select distinct
        'activity', day, case when (select count(*) from told) > 1000 then 0 else contact_id end
    from told;
    -- An opt-out counts on the day of the first one: an earlier one takes it from a later day.
    if exists (select from added where event_type = 'unsubscribed') then
        insert into rollups.marks (subject, day)
        select 'mail', utc_day(added.occurred_at)
        from added
        where added.event_type = 'unsubscribed'
        union
        select 'mail', utc_day(events.occurred_at)
        from added
        inner join events
            on events.contact_id = added.contact_id and events.occurred_at > added.occurred_at
            and events.event_type = 'unsubscribed'
        where added.event_type = 'unsubscribed';
    end if;
    return null;
end
$$;
comment on function rollups.mark_events() is 'Marks what new events change in figures.';
create trigger figures_follow_events after insert on events
    referencing new table as added for each statement execute function rollups.mark_events();

create function rollups.mark_orders() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if tg_op <> 'INSERT' then
        insert into rollups.marks (subject, day, contact_id)
        select distinct 'orders', utc_day(placed_at), contact_id from removed;
    end if;
    if tg_op <> 'DELETE' then
        insert into rollups.marks (subject, day, contact_id)
        select distinct 'orders', utc_day(placed_at), contact_id from added;
    end if;
    return null;
end
$$;
comment on function rollups.mark_orders() is 'Marks orders that came, changed (a refund, a rate) or went.';
create trigger figures_follow_new_orders after insert on orders
    referencing new table as added for each statement execute function rollups.mark_orders();
create trigger figures_follow_changed_orders after update on orders
    referencing old table as removed new table as added
    for each statement execute function rollups.mark_orders();
create trigger figures_follow_removed_orders after delete on orders
    referencing old table as removed for each statement execute function rollups.mark_orders();

-- A hit is new on its day. One that came late takes the first open of its message from a later day.
create function rollups.mark_hits() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into rollups.marks (subject, day)
    select distinct 'mail', utc_day(occurred_at) from added where kind in ('open', 'click');
    if exists (select from added where occurred_at < date_trunc('day', clock_timestamp(), 'UTC')) then
        insert into rollups.marks (subject, day)
        select distinct 'mail', utc_day(hits.occurred_at)
        from added
        inner join hits
            on hits.message_id = added.message_id and hits.occurred_at > added.occurred_at;
    end if;
    insert into rollups.marks (subject, day, contact_id)
    select distinct 'touches', utc_day(added.occurred_at), added.contact_id
    from added
    where added.contact_id > 0 and added.kind in ('open', 'click')
        and exists (
            select from orders
            where orders.contact_id = added.contact_id and orders.placed_at >= added.occurred_at);
    return null;
end
$$;
comment on function rollups.mark_hits() is 'Marks what new hits change in figures.';
create trigger figures_follow_hits after insert on hits
    referencing new table as added for each statement execute function rollups.mark_hits();

-- The first verdict on a hit comes with the hit; only a second one changes what was counted.
create function rollups.mark_verdicts() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    judged_again bigint[];
begin
    select array_agg(added.hit_id) into judged_again
    from added
    where exists (
        select from hit_verdicts as earlier
        where earlier.hit_id = added.hit_id and earlier.rule_version <> added.rule_version);
    if judged_again is null then
        return null;
    end if;
    insert into rollups.marks (subject, day)
    select distinct 'mail', utc_day(near.occurred_at)
    from hits
    inner join hits as near on near.message_id = hits.message_id
    where hits.hit_id = any(judged_again);
    insert into rollups.marks (subject, day, contact_id)
    select distinct 'touches', utc_day(occurred_at), contact_id
    from hits
    where hit_id = any(judged_again) and contact_id > 0;
    return null;
end
$$;
comment on function rollups.mark_verdicts() is 'Marks what hits that were judged again change in figures.';
create trigger figures_follow_verdicts after insert on hit_verdicts
    referencing new table as added for each statement execute function rollups.mark_verdicts();

-- Messages wait and are claimed without a mark: only what was attempted is counted.
create function rollups.mark_messages() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into rollups.marks (subject, day)
    select distinct days.subject, days.day
    from (
        select
            attempted_at(status, last_code, sent_at, bounced_at, next_try_at) as tried_at,
            bounced_at, complained_at
        from removed
        union all
        select
            attempted_at(status, last_code, sent_at, bounced_at, next_try_at), bounced_at, complained_at
        from added
    ) as moments
    cross join lateral (
        values
            ('mail', utc_day(tried_at)), ('deliveries', utc_day(tried_at)),
            ('mail', utc_day(bounced_at)), ('mail', utc_day(complained_at))
    ) as days (subject, day)
    where days.day is not null;
    return null;
end
$$;
comment on function rollups.mark_messages() is 'Marks what became of messages.';
create trigger figures_follow_messages after update on messages
    referencing old table as removed new table as added
    for each statement execute function rollups.mark_messages();

create function rollups.mark_message() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into rollups.marks (subject, day)
    select distinct subject, utc_day(moment)
    from (
        values
            ('mail', attempted_at(
                new.status, new.last_code, new.sent_at, new.bounced_at, new.next_try_at)),
            ('deliveries', attempted_at(
                new.status, new.last_code, new.sent_at, new.bounced_at, new.next_try_at)),
            ('mail', new.bounced_at), ('mail', new.complained_at)
    ) as moments (subject, moment)
    where moment is not null;
    return null;
end
$$;
comment on function rollups.mark_message() is 'Marks a message that was written with its outcome: history that is loaded.';
create trigger figures_follow_loaded_messages after insert on messages for each row
    when (new.status not in ('queued', 'skipped')) execute function rollups.mark_message();

-- With the person goes the domain of the address: their mails count under no domain from now on.
create function rollups.mark_erased() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into rollups.marks (subject, day)
    select distinct 'deliveries', utc_day(tried_at)
    from removed
    inner join messages on messages.contact_id = removed.contact_id
    cross join lateral (
        select attempted_at(status, last_code, sent_at, bounced_at, next_try_at) as tried_at
    ) as tries
    where tried_at is not null;
    return null;
end
$$;
comment on function rollups.mark_erased() is 'Marks the mails of people who were erased.';
create trigger figures_follow_erasures after delete on contacts
    referencing old table as removed for each statement execute function rollups.mark_erased();

-- A day of the ledger is read by time: what was sent nearly in the order of rows, what was refused by a small index.
create index messages_by_sending on messages using brin (sent_at)
    with (pages_per_range = 32, autosummarize = on);
create index messages_refused on messages (coalesce(bounced_at, next_try_at))
    where sent_at is null and status in ('bounced', 'failed', 'unknown');
create index messages_bounced on messages (bounced_at) where bounced_at is not null;
create index messages_complained on messages (complained_at) where complained_at is not null;

create function analytics.reporting_currency() returns char(3)
language sql stable security definer set search_path = public, pg_temp as $$
    select reporting_currency
    from orders
    order by placed_at desc, order_key desc
    limit 1
$$;
comment on function analytics.reporting_currency() is
    'Currency of converted amounts: that of the newest order; null without orders.';

create function analytics.mailbox_provider(domain text) returns text
language sql immutable parallel safe as $$
    select case
        when domain = '' then ''
        when domain ~ '^(gmail|googlemail)\.com$' then 'google'
        when domain ~ '^(outlook|hotmail|live|msn|passport|windowslive)\.[a-z.]+$' then 'microsoft'
        when domain ~ '^(yahoo|ymail|rocketmail|aol|aim|verizon)\.[a-z.]+$' then 'yahoo'
        when domain in ('icloud.com', 'me.com', 'mac.com') then 'apple'
        when domain ~ '^(gmx|web|mail|1und1|online)\.(de|net|at|ch|com|co\.uk|fr|es)$' then 'united internet'
        when domain in ('t-online.de', 'magenta.de') then 'telekom'
        when domain ~ '^(mail|bk|inbox|list)\.ru$' then 'vk'
        when domain ~ '^(yandex\.[a-z.]+|ya\.ru)$' then 'yandex'
        when domain in ('qq.com', 'foxmail.com') then 'tencent'
        when domain in ('163.com', '126.com', 'yeah.net') then 'netease'
        when domain ~ '^(proton|protonmail|pm)\.(me|com|ch)$' then 'proton'
        else 'other'
    end
$$;
comment on function analytics.mailbox_provider(text) is
    'Who runs the mailboxes of a well-known domain; other: any other domain.';

create table analytics.contact_period_activity (
    contact_id bigint not null,
    week_start date not null,
    human_opens bigint not null,
    human_clicks bigint not null,
    site_events bigint not null,
    orders bigint not null,
    revenue numeric(18,4) not null,
    reporting_currency char(3),
    refreshed_at timestamptz not null,
    primary key (contact_id, week_start)
);
create index contact_period_activity_by_week on analytics.contact_period_activity using brin (week_start)
    with (pages_per_range = 16, autosummarize = on);
comment on table analytics.contact_period_activity is
    'One row per contact and ISO week in which something happened: opens, clicks, visits, orders. Joined with '
    'dim_contacts, cohorts by country, language, tag or source are one query.';
comment on column analytics.contact_period_activity.contact_id is
    'Who (dim_contacts); the number of an erased person stays.';
comment on column analytics.contact_period_activity.week_start is 'Monday of the ISO week (UTC).';
comment on column analytics.contact_period_activity.human_opens is
    'Opens judged human when they came in, as scores and segments count them.';
comment on column analytics.contact_period_activity.human_clicks is
    'Clicks judged human when they came in, as scores and segments count them.';
comment on column analytics.contact_period_activity.site_events is
    'Events page_viewed, form_submitted, cart_updated and checkout_started.';
comment on column analytics.contact_period_activity.orders is 'Orders placed.';
comment on column analytics.contact_period_activity.revenue is
    'Those orders net of refunds, in reporting_currency at the rate of the order''s day; orders that wait for a rate are left out.';
comment on column analytics.contact_period_activity.reporting_currency is
    'Currency of revenue: that of the newest order; null without orders. Orders booked under another one are left out.';
comment on column analytics.contact_period_activity.refreshed_at is 'When this row was computed.';

create table analytics.daily_email_metrics (
    day date not null,
    kind text not null,
    campaign_id bigint,
    attempted bigint not null,
    sent bigint not null,
    delivered bigint not null,
    bounced bigint not null,
    complained bigint not null,
    unsubscribed bigint not null,
    raw_opens bigint not null,
    human_opens bigint not null,
    unique_opens bigint not null,
    raw_clicks bigint not null,
    human_clicks bigint not null,
    unique_clicks bigint not null,
    refreshed_at timestamptz not null,
    constraint one_row_per_day_kind_and_campaign unique nulls not distinct (day, kind, campaign_id)
);
create index daily_email_metrics_by_campaign on analytics.daily_email_metrics (campaign_id, day);
comment on table analytics.daily_email_metrics is
    'One row per UTC day, kind of mail and campaign in which something happened. Each figure stands on the day it '
    'happened and only there: the sums over all days are those of campaign_performance.';
comment on column analytics.daily_email_metrics.day is 'UTC day.';
comment on column analytics.daily_email_metrics.kind is
    'campaign, workflow, automation, transactional or confirmation; test mails are left out.';
comment on column analytics.daily_email_metrics.campaign_id is
    'Campaign (dim_campaigns); null for workflows, rules and single mails.';
comment on column analytics.daily_email_metrics.attempted is
    'Messages handed over that day, with what came of it: sent, refused for good, or unknown.';
comment on column analytics.daily_email_metrics.sent is 'Accepted by the receiving side that day.';
comment on column analytics.daily_email_metrics.delivered is
    'Of those sent that day, the ones that have not bounced since.';
comment on column analytics.daily_email_metrics.bounced is
    'Refused that day at the hand-over, or bounced that day by a later notice.';
comment on column analytics.daily_email_metrics.complained is 'Reported as spam that day.';
comment on column analytics.daily_email_metrics.unsubscribed is
    'Contacts that unsubscribed that day from a mail of the campaign, for the first time.';
comment on column analytics.daily_email_metrics.raw_opens is 'Every hit of an open pixel, machines included.';
comment on column analytics.daily_email_metrics.human_opens is 'Hits of an open pixel judged human.';
comment on column analytics.daily_email_metrics.unique_opens is
    'Messages whose first human open or click was on that day.';
comment on column analytics.daily_email_metrics.raw_clicks is 'Every hit of a tracked link, machines included.';
comment on column analytics.daily_email_metrics.human_clicks is 'Hits of a tracked link judged human.';
comment on column analytics.daily_email_metrics.unique_clicks is 'Messages whose first human click was on that day.';
comment on column analytics.daily_email_metrics.refreshed_at is 'When this row was computed.';

create table analytics.deliverability_by_domain (
    day date not null,
    mailbox_provider text not null,
    domain text not null,
    attempted bigint not null,
    sent bigint not null,
    delivered bigint not null,
    deferred bigint not null,
    hard_bounced bigint not null,
    soft_bounced bigint not null,
    complained bigint not null,
    unknown bigint not null,
    delivery_rate numeric(7,4),
    bounce_rate numeric(7,4),
    complaint_rate numeric(7,4),
    refreshed_at timestamptz not null,
    primary key (day, domain)
);
comment on table analytics.deliverability_by_domain is
    'One row per UTC day and domain mail was handed over to: what became of the mails of that day, however late it became known.';
comment on column analytics.deliverability_by_domain.day is 'UTC day of the hand-over.';
comment on column analytics.deliverability_by_domain.mailbox_provider is
    'Who runs the mailboxes of a well-known domain; other: any other; empty: people erased since.';
comment on column analytics.deliverability_by_domain.domain is
    'Domain of the address (punycode) at the hand-over; empty: people erased since.';
comment on column analytics.deliverability_by_domain.attempted is
    'Handed over that day: sent, refused for good, or unknown.';
comment on column analytics.deliverability_by_domain.sent is 'Accepted by the receiving side.';
comment on column analytics.deliverability_by_domain.delivered is 'sent minus those that bounced later.';
comment on column analytics.deliverability_by_domain.deferred is
    'Of those attempted, the ones that took more than one attempt.';
comment on column analytics.deliverability_by_domain.hard_bounced is 'Bounced because the address does not work.';
comment on column analytics.deliverability_by_domain.soft_bounced is 'Bounced for a passing reason.';
comment on column analytics.deliverability_by_domain.complained is 'Reported as spam by the recipient.';
comment on column analytics.deliverability_by_domain.unknown is
    'In doubt: the receiving side may or may not have it.';
comment on column analytics.deliverability_by_domain.delivery_rate is 'delivered / attempted.';
comment on column analytics.deliverability_by_domain.bounce_rate is '(hard_bounced + soft_bounced) / attempted.';
comment on column analytics.deliverability_by_domain.complaint_rate is 'complained / delivered.';
comment on column analytics.deliverability_by_domain.refreshed_at is 'When this row was computed.';
