-- Grain: one row per message (one person, one intention to write), of any kind.
drop view if exists analytics.fct_messages cascade;
create view analytics.fct_messages as
select
    message_id, contact_id, kind, campaign_id, workflow_id, enrollment_id, occurrence, variant_id,
    status, reason, attempt_no as attempts, last_stage, last_code, queued_at, due_at, sent_at,
    delivered_at, bounced_at, complained_at,
    cast(sent_at at time zone (select analytics.reporting_timezone()) as date) as reporting_day
from messages;
comment on view analytics.fct_messages is 'One row per message of the send ledger, without addresses or content.';
comment on column analytics.fct_messages.message_id is 'Key; the API shows the same number as text.';
comment on column analytics.fct_messages.contact_id is 'Whom; 0 is an address without a contact.';
comment on column analytics.fct_messages.kind is
    'campaign, workflow, automation, transactional, test, confirmation or internal.';
comment on column analytics.fct_messages.campaign_id is 'Campaign, if it is part of one.';
comment on column analytics.fct_messages.workflow_id is 'Workflow, if it is part of one.';
comment on column analytics.fct_messages.enrollment_id is 'Enrollment in that workflow.';
comment on column analytics.fct_messages.occurrence is 'Run of a recurring campaign, from 1.';
comment on column analytics.fct_messages.variant_id is 'Variant of an A/B test, if any.';
comment on column analytics.fct_messages.status is
    'queued, sending, sent, delivered, bounced, complained, skipped, failed or unknown.';
comment on column analytics.fct_messages.reason is 'Why it was skipped.';
comment on column analytics.fct_messages.attempts is 'Attempts to hand it over.';
comment on column analytics.fct_messages.last_stage is 'How far the last attempt came.';
comment on column analytics.fct_messages.last_code is 'Last reply code of the receiving side.';
comment on column analytics.fct_messages.queued_at is 'When it was written into the ledger.';
comment on column analytics.fct_messages.due_at is 'When it was to be sent.';
comment on column analytics.fct_messages.sent_at is 'When the receiving side accepted it.';
comment on column analytics.fct_messages.delivered_at is 'When a provider said it was delivered.';
comment on column analytics.fct_messages.bounced_at is 'When it was refused or bounced.';
comment on column analytics.fct_messages.complained_at is 'When the recipient reported it as spam.';
comment on column analytics.fct_messages.reporting_day is
    'Day of sent_at on the clocks of the reporting time zone (MAUTO_REPORTING_TIMEZONE); null: never sent.';
