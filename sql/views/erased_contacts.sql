-- Grain: one row per erased contact. Counted with dim_contacts they give every sign-up there ever was.
drop view if exists analytics.erased_contacts cascade;
create view analytics.erased_contacts as
select contact_id, signup_month, country, erased_on
from erased_contacts;
comment on view analytics.erased_contacts is
    'One row per person erased on request: what is left so that past totals stay as they were.';
comment on column analytics.erased_contacts.contact_id is
    'The number under which events, messages and orders stay; it leads to nobody any more.';
comment on column analytics.erased_contacts.signup_month is 'First day of the month of the sign-up (UTC).';
comment on column analytics.erased_contacts.country is 'ISO 3166 code, empty if unknown.';
comment on column analytics.erased_contacts.erased_on is 'Day of the erasure (UTC).';
