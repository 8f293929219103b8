-- Templates, campaigns and the send ledger: one row per intended message, whatever its kind.

create table templates (
    template_id bigint generated always as identity primary key,
    name text not null,
    subject text not null,
    html_body text not null,
    text_body text not null default '',
    variables text[] not null default '{}',
    category text not null default 'general',
    strict boolean not null default false,
    version integer not null default 1,
    valid boolean not null default true,
    problems jsonb not null default '[]',
    created_at timestamptz not null default now(),
    updated_at timestamptz,
    constraint one_template_per_name unique (name),
    constraint a_faulty_template_names_its_problems check (valid or jsonb_array_length(problems) > 0)
);
create table template_versions (
    template_id bigint not null references templates on delete cascade,
    version integer not null,
    subject text not null,
    html_body text not null,
    text_body text not null,
    variables text[] not null,
    created_by text not null,
    created_at timestamptz not null default now(),
    primary key (template_id, version)
);

create table campaigns (
    campaign_id bigint generated always as identity primary key,
    name text not null,
    subject text not null,
    preheader text not null default '',
    from_name text not null default '',
    from_email text not null default '',
    reply_to text not null default '',
    html_body text not null default '',
    text_body text not null default '',
    template_id bigint references templates,
    segment_id bigint references segments,
    locales jsonb not null default '{}',
    track_opens boolean not null default true,
    track_clicks boolean not null default true,
    utm jsonb not null default '{}',
    send_window jsonb not null default '{}',
    max_per_hour integer not null default 0,
    max_per_day integer not null default 0,
    domain_limits jsonb not null default '{}',
    expires_after_hours integer not null default 24,
    status text not null default 'draft',
    status_reason text,
    occurrence integer not null default 0,
    scheduled_at timestamptz,
    schedule_id bigint,
    requested_at timestamptz,
    planned_at timestamptz,
    started_at timestamptz,
    sent_at timestamptz,
    settled_at timestamptz,
    version integer not null default 1,
    created_by text not null default '',
    created_at timestamptz not null default now(),
    updated_at timestamptz,
    constraint campaign_status_is_known check (
        status in ('draft', 'scheduled', 'sending', 'paused', 'sent', 'cancelled', 'failed')),
    constraint a_sending_campaign_was_requested
        check (status not in ('sending', 'sent') or requested_at is not null),
    constraint a_sent_campaign_has_its_time check ((status = 'sent') = (sent_at is not null)),
    constraint a_failed_campaign_says_why check (status <> 'failed' or status_reason is not null)
);
create index campaigns_to_work_on on campaigns (campaign_id) where status in ('scheduled', 'sending');
comment on column campaigns.requested_at is 'When sending was asked for; the audience is frozen at planned_at.';

create table message_contents (
    content_id bigint generated always as identity primary key,
    campaign_id bigint,
    workflow_id bigint,
    template_id bigint,
    template_version integer,
    occurrence integer not null default 1,
    variant_id bigint,
    locale text not null default '',
    subject text not null,
    preheader text not null default '',
    html_body text not null,
    text_body text not null default '',
    from_name text not null default '',
    from_email text not null default '',
    reply_to text not null default '',
    track_opens boolean not null default true,
    track_clicks boolean not null default true,
    utm jsonb not null default '{}',
    strict boolean not null default false,
    digest bytea,
    created_at timestamptz not null default now(),
    constraint one_content_per_digest unique (digest)
);
create unique index one_content_per_campaign_run on message_contents (
    campaign_id, occurrence, coalesce(variant_id, 0), locale) where campaign_id is not null;
comment on table message_contents is
    'What is sent, frozen at launch: editing a template or campaign later does not touch it.';
comment on column message_contents.digest is
    'Hash of everything else; outside campaigns, freezing the same content again finds it by this.';
create table message_links (
    link_id bigint generated always as identity primary key,
    content_id bigint not null references message_contents on delete cascade,
    position integer not null,
    url text not null,
    constraint one_link_per_position unique (content_id, position)
);

create sequence message_ids as bigint;
create table message_keys (
    dedupe_key text primary key,
    contact_id bigint not null,
    message_id bigint not null
);
comment on table message_keys is
    'One send per intention: campaign:<id>:occ:<n>:contact:<id>, enrollment:<id>:step:<path>:visit:<k>, ...';

create table messages (
    contact_id bigint not null default 0,
    message_id bigint not null default nextval('message_ids'),
    kind text not null,
    campaign_id bigint,
    workflow_id bigint,
    enrollment_id bigint,
    occurrence integer not null default 1,
    variant_id bigint,
    content_id bigint not null references message_contents,
    dedupe_key text not null,
    to_email text,
    to_key text,
    context jsonb,
    status text not null default 'queued',
    reason text,
    due_at timestamptz not null,
    next_try_at timestamptz not null,
    give_up_at timestamptz not null,
    attempt_no integer not null default 0,
    attempt_id bigint,
    lease_until timestamptz,
    last_code integer,
    last_stage text,
    last_error text,
    rfc_message_id text,
    provider_id text,
    queued_at timestamptz not null default now(),
    sent_at timestamptz,
    delivered_at timestamptz,
    bounced_at timestamptz,
    complained_at timestamptz,
    primary key (contact_id, message_id),
    constraint message_kind_is_known check (kind in (
        'campaign', 'workflow', 'automation', 'transactional', 'test', 'confirmation', 'internal')),
    constraint message_status_is_known check (status in (
        'queued', 'sending', 'sent', 'delivered', 'bounced', 'complained',
        'skipped', 'failed', 'unknown')),
    constraint only_a_message_being_handed_over_is_leased
        check ((status = 'sending') = (lease_until is not null)),
    constraint a_message_in_flight_or_in_doubt_names_its_attempt
        check (status not in ('sending', 'unknown') or attempt_id is not null),
    constraint a_sent_message_has_its_time
        check (status not in ('sent', 'delivered', 'complained') or sent_at is not null),
    constraint a_skipped_message_says_why check (status <> 'skipped' or reason is not null),
    constraint somebody_is_addressed
        check (contact_id > 0 or (to_email is not null and to_key is not null))
) with (fillfactor = 85);
-- Campaign first: a paused one with a million rows must not stand in the way of the others.
create index messages_to_send on messages (coalesce(campaign_id, 0), next_try_at, message_id)
    where status = 'queued';
create index messages_in_flight on messages (attempt_id, lease_until) where status = 'sending';
create index messages_in_doubt on messages (attempt_id) where status = 'unknown';
create index messages_by_campaign on messages (campaign_id, status) where campaign_id is not null;
create index messages_by_id on messages (message_id);
comment on table messages is 'The send ledger: one row per person and intention, in exactly one state.';
comment on column messages.to_key is 'Address key of to_email, for messages to nobody we know as a contact.';
comment on column messages.rfc_message_id is
    'Without <>: keyed hash of dedupe_key, set at the first claim, the same on every attempt.';

create sequence attempt_ids as bigint;
create table message_attempts (
    message_id bigint not null,
    contact_id bigint not null,
    attempt_no integer not null,
    attempt_id bigint not null,
    claimed_at timestamptz not null,
    recorded_at timestamptz not null default now(),
    outcome text not null,
    stage text,
    code integer,
    reply text,
    primary key (contact_id, message_id, attempt_no, outcome)
);
comment on table message_attempts is 'Append-only: what became of each attempt to hand a message over; a doubt may be settled later.';

-- May this message still go? The one rule for the claim, the last look before the hand-over, and skipping.
create view message_refusals as
select
    messages.contact_id, messages.message_id, messages.kind, person.consent_status,
    case
        when messages.kind = 'internal' then null
        when messages.contact_id = 0 then
            case when blocked.reason in ('bounce', 'complaint', 'compliance') then 'suppressed' end
        when person.contact_id is null then 'erased'
        when messages.kind in ('campaign', 'workflow', 'automation') then person.refusal
        when person.suppression_reason in ('bounce', 'complaint', 'compliance') then 'suppressed'
        when octet_length(person.email) > 254 then 'invalid_address'
    end as refusal
from messages
left join contact_mailability as person on person.contact_id = messages.contact_id
left join suppressed_addresses as blocked
    on messages.contact_id = 0 and blocked.email_key = messages.to_key;
comment on view message_refusals is 'Each message, and why it may not be handed over as things stand (null: it may).';

-- Opens, clicks and unsubscribe requests exactly as they came in; never changed.
create sequence hit_ids as bigint;
create table hits (
    hit_id bigint not null default nextval('hit_ids'),
    occurred_at timestamptz not null default now(),
    kind text not null,
    contact_id bigint not null default 0,
    campaign_id bigint,
    message_id bigint,
    link_position integer,
    url text,
    user_agent text not null default '',
    network text not null default '',
    is_head boolean not null default false,
    purpose text not null default '',
    batch_key text,
    primary key (hit_id, occurred_at),
    constraint hit_kind_is_known check (kind in ('open', 'click', 'unsubscribe')),
    constraint user_agent_is_cut_at_512 check (length(user_agent) <= 512)
) partition by range (occurred_at);
create table hits_default partition of hits default;
create unique index one_batch_is_written_once on hits (batch_key, occurred_at) where batch_key is not null;
create index hits_by_message on hits (message_id, occurred_at);
create index hits_by_contact on hits (contact_id, occurred_at);
comment on column hits.batch_key is
    'On the first hit of a batch. A batch is written whole or not at all, so repeating one after a lost connection
    or from the spool fails on this key instead of counting twice.';
comment on column hits.network is 'Prefix of the caller''s address (IPv4 /24, IPv6 /48), never the address itself.';
create function existing_contacts(ids bigint[]) returns table (contact_id bigint)
language sql stable security definer set search_path = public, pg_temp as $$
    select contacts.contact_id from contacts where contacts.contact_id = any (ids)
$$;
comment on function existing_contacts(bigint[]) is
    'Which of these contacts exist: all that the insert-only tracker may know about contacts.';
create table hit_verdicts (
    hit_id bigint not null,
    rule_version integer not null,
    verdict text not null,
    decided_at timestamptz not null default now(),
    primary key (hit_id, rule_version),
    constraint verdict_is_known check (verdict in ('human', 'bot', 'prefetch', 'invalid'))
);
comment on table hit_verdicts is 'Append-only. A hit''s effects fire once, on the verdict given at hit time.';

-- One month per call: the lock on hits, which makes the tracker wait, is held for the drop alone.
create function drop_oldest_hits(older_than timestamptz, out dropped text, out hit_count bigint)
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '2s' as $$
declare
    whole_months_until timestamptz := date_trunc('month', older_than, 'UTC');
begin
    if older_than >= clock_timestamp() then
        raise exception 'hits are kept for a while: % is not in the past', older_than;
    end if;
    select months.name into dropped
    from (
        select
            child.oid::regclass::text as name,
            (regexp_match(pg_get_expr(child.relpartbound, child.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz
                as ends_at
        from pg_inherits
        inner join pg_class as child on child.oid = pg_inherits.inhrelid
        where pg_inherits.inhparent = 'hits'::regclass
    ) as months
    where months.ends_at <= older_than
    order by months.ends_at
    limit 1;
    if dropped is not null then
        execute format('delete from hit_verdicts where hit_id in (select hit_id from %s)', dropped);
        execute format('select count(*) from %s', dropped) into hit_count;
        execute format('drop table %s', dropped);
        return;
    end if;
    -- What came without a partition of its own follows the same rule: only whole months go.
    delete from hit_verdicts
    where hit_id in (select hit_id from hits_default where occurred_at < whole_months_until);
    delete from hits_default where occurred_at < whole_months_until;
    get diagnostics hit_count = row_count;
    if hit_count > 0 then
        dropped := 'hits_default';
    end if;
end
$$;
comment on function drop_oldest_hits(timestamptz) is
    'Drops the oldest month of hits that ended before a moment, with its verdicts; waits 2 s for locks at most.';
