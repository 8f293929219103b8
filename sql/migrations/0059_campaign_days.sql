-- What the page of a large campaign shows - its links, hours and mail domains - counted by day and kept by marks.
--
-- Each cell stands on one UTC day, so that a day of reactions restates that day alone; a page adds the days up.

create table rollups.campaign_days (
    campaign_id bigint not null,
    day date not null,
    part text not null,
    name text not null,
    raw bigint not null default 0,
    human bigint not null default 0,
    messages bigint not null default 0,
    attempted bigint not null default 0,
    sent bigint not null default 0,
    delivered bigint not null default 0,
    bounced bigint not null default 0,
    constraint part_is_known check (part in ('link', 'opens', 'clicks', 'readers', 'mails'))
);
create index campaign_days_by_part on rollups.campaign_days (campaign_id, part);
create index campaign_days_by_day on rollups.campaign_days (day);
comment on table rollups.campaign_days is
    'Reactions to campaigns and what became of their mails, by UTC day; a refresh restates the days that changed.';
comment on column rollups.campaign_days.day is
    'Of the click, of the open or click, of the first one of a message (readers), or of the hand-over (mails).';
comment on column rollups.campaign_days.part is
    'link: clicks by address; opens, clicks: by hour; readers: messages first opened or clicked by a person, by mail '
    'domain; mails: what became of the mails, by mail domain.';
comment on column rollups.campaign_days.name is
    'The address of the link, the hour (0 to 23), or the mail domain at the hand-over (erased: people erased since).';
comment on column rollups.campaign_days.raw is 'Hits, machines included.';
comment on column rollups.campaign_days.human is 'Hits judged human.';
comment on column rollups.campaign_days.messages is 'Messages whose first such human hit was on that day.';

alter table rollups.marks drop constraint subject_is_known;
alter table rollups.marks add constraint subject_is_known check (
    subject in ('activity', 'orders', 'touches', 'mail', 'deliveries', 'readers'));
comment on column rollups.marks.subject is
    'activity: opens, clicks and visits; orders; touches: hits before orders that are known already; mail: a day of '
    'daily_email_metrics; deliveries: a day of deliverability_by_domain; readers: a day on which somebody reacted whose '
    'domain or links are not known any more.';

-- With the person goes the domain of the address: their mails count under no domain from now on.
create or replace function rollups.mark_erased() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into rollups.marks (subject, day)
    select distinct 'deliveries', utc_day(tried_at)
    from removed
    inner join messages on messages.contact_id = removed.contact_id
    cross join lateral (
        select attempted_at(status, last_code, sent_at, bounced_at, next_try_at) as tried_at
    ) as tries
    where tried_at is not null
    union
    select 'readers', utc_day(hits.occurred_at)
    from removed
    inner join messages on messages.contact_id = removed.contact_id and messages.kind = 'campaign'
    inner join hits on hits.message_id = messages.message_id and hits.kind in ('open', 'click');
    return null;
end
$$;

-- Hits are written once; what an erasure takes from their addresses must not stay in figures until they are restated.
create function rollups.forget_links() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    delete from rollups.campaign_days as cells
    using removed
    inner join messages on messages.message_id = removed.message_id
    where cells.campaign_id = messages.campaign_id and cells.part = 'link'
        and cells.day = utc_day(removed.occurred_at) and cells.name = removed.url
        and removed.kind = 'click' and removed.url ~ '[?#]';
    insert into rollups.marks (subject, day)
    select distinct 'readers', utc_day(occurred_at) from removed where kind = 'click';
    return null;
end
$$;
comment on function rollups.forget_links() is 'Takes addresses of links that an erasure cut out of the figures.';
create trigger figures_forget_links after update on hits
    referencing old table as removed for each statement execute function rollups.forget_links();
