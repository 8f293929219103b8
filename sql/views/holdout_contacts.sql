-- Grain: one row per contact. Who is held out of all marketing mail, and who is compared with them.
drop view if exists analytics.holdout_contacts cascade;
create view analytics.holdout_contacts as
select
    entries.contact_id,
    case when entries.draw < newest.bound then 'held_out' else 'mailed' end as arm,
    entries.entered_at, newest.percent as holdout_percent, newest.begun_at,
    nullif(newest.ended_at, 'infinity') as ended_at
from (
    select salt, percent, bound, begun_at, ended_at
    from holdout_periods
    where ended_at > begun_at
    order by begun_at desc
    limit 1
) as newest
inner join holdout_entries as entries on entries.salt = newest.salt and entries.entered_at < newest.ended_at;
comment on view analytics.holdout_contacts is
    'One row per contact who could be mailed at some time since the hold-out began: the arm the present, or else the last, share puts them in.';
comment on column analytics.holdout_contacts.contact_id is 'Key; the API shows the same number as text.';
comment on column analytics.holdout_contacts.arm is 'held_out (no marketing mail) or mailed.';
comment on column analytics.holdout_contacts.entered_at is
    'When they could first have been mailed, not before the hold-out began; orders before that count for nothing.';
comment on column analytics.holdout_contacts.holdout_percent is 'Share of contacts held out.';
comment on column analytics.holdout_contacts.begun_at is 'Since when it is that share.';
comment on column analytics.holdout_contacts.ended_at is 'Until when it was; null while it is.';
