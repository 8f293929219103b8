-- Grain: one row per contact. Who they are without saying who: no address, name, phone or custom field.
drop view if exists analytics.dim_contacts cascade;
create view analytics.dim_contacts as
select
    contacts.contact_id,
    contacts.created_at as signed_up_at,
    date_trunc('month', contacts.created_at, 'UTC')::date as signup_month,
    contacts.country,
    contacts.language,
    contacts.timezone,
    contacts.currency,
    contacts.source,
    contacts.subscribed as is_subscribed,
    suppressions.suppression_id is not null as is_suppressed,
    contacts.consent_status,
    coalesce(contact_stages.lifecycle_stage, 'new') as lifecycle_stage,
    contact_scores.grade,
    contact_scores.total_score,
    contact_scores.last_activity_at,
    coalesce(tagged.tags, '{}') as tags,
    bought.first_order_at,
    date_trunc('month', bought.first_order_at, 'UTC')::date as first_order_month,
    customers.acquisition_campaign_id
from contacts
left join suppressions on suppressions.email_key = contacts.email_key
left join contact_stages on contact_stages.contact_id = contacts.contact_id
left join contact_scores on contact_scores.contact_id = contacts.contact_id
left join (
    select contact_tags.contact_id, array_agg(tags.name order by tags.name) as tags
    from contact_tags
    inner join tags on tags.tag_id = contact_tags.tag_id
    group by contact_tags.contact_id
) as tagged on tagged.contact_id = contacts.contact_id
left join (
    select contact_id, min(placed_at) as first_order_at
    from orders
    group by contact_id
) as bought on bought.contact_id = contacts.contact_id
left join analytics.customer_value as customers on customers.contact_id = contacts.contact_id;
comment on view analytics.dim_contacts is 'One row per contact, as known now, without personal data.';
comment on column analytics.dim_contacts.contact_id is 'Key; the API shows the same number as text.';
comment on column analytics.dim_contacts.signed_up_at is 'When the contact signed up.';
comment on column analytics.dim_contacts.signup_month is 'First day of the month of the sign-up (UTC).';
comment on column analytics.dim_contacts.country is 'ISO 3166 code, empty if unknown.';
comment on column analytics.dim_contacts.language is 'Language tag.';
comment on column analytics.dim_contacts.timezone is 'IANA time zone, empty if unknown.';
comment on column analytics.dim_contacts.currency is 'ISO 4217 code, empty if unknown.';
comment on column analytics.dim_contacts.source is 'Where the contact came from: api, import, ...';
comment on column analytics.dim_contacts.is_subscribed is 'Subscribed now.';
comment on column analytics.dim_contacts.is_suppressed is 'The address must not be mailed, for whatever reason.';
comment on column analytics.dim_contacts.consent_status is 'unknown, pending, granted or withdrawn.';
comment on column analytics.dim_contacts.lifecycle_stage is 'Stage now; new if it was never evaluated.';
comment on column analytics.dim_contacts.grade is 'Grade of the stored score; null if it was never scored.';
comment on column analytics.dim_contacts.total_score is 'Stored score; null if it was never scored.';
comment on column analytics.dim_contacts.last_activity_at is
    'Last positive engagement at the time of the stored score.';
comment on column analytics.dim_contacts.tags is 'Names of the contact''s tags, sorted.';
comment on column analytics.dim_contacts.first_order_at is 'When the first order was placed; null without one.';
comment on column analytics.dim_contacts.first_order_month is 'First day of the month of the first order (UTC).';
comment on column analytics.dim_contacts.acquisition_campaign_id is
    'Campaign of the last touch before the first order, as customer_value has it (refreshed hourly); null without one.';
