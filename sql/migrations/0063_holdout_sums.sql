-- What the page of the hold-out shows: both groups as last added up, since a report over all contacts takes seconds.

create table rollups.holdout_sums (
    is_held boolean primary key,
    from_at timestamptz not null,
    to_at timestamptz not null,
    contacts bigint not null,
    customers bigint not null,
    orders bigint not null,
    y numeric not null,
    yy numeric not null,
    x numeric not null,
    xx numeric not null,
    xy numeric not null,
    reporting_currency char(3)
);
comment on table rollups.holdout_sums is
    'Those held out and those mailed in the time of the newest hold-out, as counted once a day: sums for statistics.';
comment on column rollups.holdout_sums.is_held is 'Whether they were held out.';
comment on column rollups.holdout_sums.from_at is 'When the hold-out began.';
comment on column rollups.holdout_sums.to_at is 'When it ended, or until when was counted.';
comment on column rollups.holdout_sums.y is 'Revenue in this time, one number a contact; yy: their squares.';
comment on column rollups.holdout_sums.x is 'Revenue in the days before; xx: squares, xy: products with y.';

-- When the people of a large campaign open and click, on the clocks of any time zone; those are whole quarters apart.
alter table rollups.campaign_days
    add column timed bigint not null default 0,
    add column seconds numeric not null default 0;
update rollups.campaign_days set name = lpad(name, 2, '0') || ':00' where part in ('opens', 'clicks');
comment on column rollups.campaign_days.part is
    'link: clicks by address; opens, clicks: by quarter of an hour; readers: messages first opened or clicked by a '
    'person, by mail domain; mails: what became of the mails, by mail domain.';
comment on column rollups.campaign_days.name is
    'The address of the link, the beginning of the quarter of an hour (UTC, 13:45), or the mail domain at the hand-over '
    '(erased: people erased since).';
comment on column rollups.campaign_days.timed is 'Of readers: messages whose hand-over has a time.';
comment on column rollups.campaign_days.seconds is 'Of readers: from that to the first open or click, added up.';
-- The fate of a message may be known later than its first open: that day then has another time to wait and domain.
create or replace function rollups.mark_messages() returns trigger
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
    if exists (select from removed where status = 'unknown') then
        insert into rollups.marks (subject, day)
        select distinct 'readers', utc_day(hits.occurred_at)
        from removed
        inner join hits on hits.message_id = removed.message_id and hits.kind in ('open', 'click')
        where removed.status = 'unknown';
    end if;
    return null;
end
$$;

-- Everything is counted anew at the next refresh; until then the pages count for themselves.
delete from rollups.states where table_name = 'campaign_days';
