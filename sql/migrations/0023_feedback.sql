-- What providers and bounce mails tell us after the hand-over: kept as it came, applied once.

create table provider_notices (
    notice_id bigint generated always as identity primary key,
    source text not null,
    external_id text not null,
    received_at timestamptz not null,
    body text not null,
    status text not null default 'new',
    kind text not null default '',
    detail text not null default '',
    message_id bigint,
    look_count integer not null default 0,
    next_look_at timestamptz,
    settled_at timestamptz,
    constraint one_notice_per_id unique (source, external_id),
    constraint notice_source_is_known check (source in ('ses', 'mail')),
    constraint notice_status_is_known check (status in ('new', 'parked', 'applied', 'ignored')),
    constraint an_open_notice_is_looked_at_again check ((status in ('new', 'parked')) = (next_look_at is not null)),
    constraint a_settled_notice_has_its_time check ((status in ('applied', 'ignored')) = (settled_at is not null))
);
create index provider_notices_due on provider_notices (next_look_at) where next_look_at is not null;
comment on table provider_notices is
    'Notices about messages, raw: from SNS and from the bounce mailbox. One row per notice, one effect per row.';
comment on column provider_notices.external_id is 'The SNS message id, or a hash of the mail.';
comment on column provider_notices.body is 'What SNS carried, or what was read in the mail (JSON).';
comment on column provider_notices.next_look_at is
    'When an open notice is looked at: a parked one waits for its message to be recorded as sent.';
create trigger wakes_feedback after insert on provider_notices
    for each statement execute function wake('mauto_feedback');

create table notice_refusals (
    refused_on date not null,
    reason text not null,
    refusal_count bigint not null,
    primary key (refused_on, reason)
);
comment on table notice_refusals is 'How many notices were refused at the door, by day and reason; all that is kept of them.';

create table signing_certificates (
    url text primary key,
    pem text not null,
    fetched_at timestamptz not null
);
comment on table signing_certificates is 'Certificates notices are signed with, by the pinned address they came from.';

-- Ids as SES makes them; the queue ids of mail servers look different and cost nothing here.
create index messages_by_provider_id on messages (provider_id) where provider_id like '%-%-%-%-%';
