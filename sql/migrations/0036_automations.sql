-- Automation rules: how often each ran, runs that wait, and how long a chain an event belongs to.

create table automation_totals (
    rule_id bigint primary key references automation_rules on delete cascade,
    executions bigint not null default 0
);
comment on table automation_totals is
    'Runs of each rule, failed and waiting ones included. Its row is locked while a limit or cooldown is looked at.';
insert into automation_totals (rule_id, executions)
select automation_rules.rule_id, count(automation_logs.log_id)
from automation_rules
left join automation_logs
    on automation_logs.rule_id = automation_rules.rule_id and automation_logs.status <> 'skipped'
group by automation_rules.rule_id;

create index automation_rules_by_priority on automation_rules (priority desc, rule_id);
alter table automation_logs add constraint automation_log_status_is_known
    check (status in ('success', 'failed', 'skipped', 'waiting'));
create index automation_logs_of_rule on automation_logs (rule_id, log_id desc);
create index automation_runs_of_contact on automation_logs (rule_id, contact_id, created_at)
    where status <> 'skipped';
comment on column automation_logs.event_id is 'The event that caused the run; null: it was fired by hand.';

create table automation_waits (
    log_id bigint primary key,
    rule_id bigint not null,
    contact_id bigint not null default 0,
    resume_at timestamptz not null,
    next_action integer not null,
    actions jsonb not null,
    data jsonb not null default '{}',
    depth smallint not null,
    begun_at timestamptz not null,
    constraint a_waiting_run_has_actions check (jsonb_typeof(actions) = 'array' and next_action > 0)
);
create index automation_waits_due on automation_waits (resume_at);
create index automation_waits_of_contact on automation_waits (contact_id) where contact_id > 0;
comment on table automation_waits is
    'Runs of rules that go on later; its log has status waiting and what was done so far.';
comment on column automation_waits.actions is 'The actions of the rule when the run began; it stays on them.';

-- Who appends an event as the effect of another one says so in its transaction; nobody else has to know.
alter table event_pending add column depth smallint not null
    default coalesce(cast(nullif(current_setting('mauto.depth', true), '') as smallint), 0);
comment on column event_pending.depth is
    'How many rules and workflows lie between the events and what came from outside: 0 for that itself.';

create function automation_data(properties jsonb, campaign bigint, message bigint) returns jsonb
language sql immutable as $$
    select case
        when campaign is null and message is null then properties
        else properties || jsonb_strip_nulls(jsonb_build_object(
            'campaign_id', cast(campaign as text), 'message_id', cast(message as text)))
    end
$$;
comment on function automation_data(jsonb, bigint, bigint) is
    'What rules read of an event: its properties, and whose mail it was about.';

create function automation_trigger_matches(config jsonb, data jsonb) returns boolean
language plpgsql immutable as $$
begin
    -- Containment is the cheap half of the answer: nested values may contain more than they equal.
    if config = '{}' then
        return true;
    end if;
    return data @> config and not exists (
        select 1
        from jsonb_each(config) as wanted
        where data -> wanted.key is distinct from wanted.value
    );
end
$$;
comment on function automation_trigger_matches(jsonb, jsonb) is
    'Whether each key of a rule''s trigger_config equals the data.';

create function automation_contact_fact(person bigint, field text) returns jsonb
language sql stable as $$
    select case
        when field = 'email' then to_jsonb(contacts.email)
        when field = 'first_name' then to_jsonb(contacts.first_name)
        when field = 'last_name' then to_jsonb(contacts.last_name)
        when field = 'phone' then to_jsonb(contacts.phone)
        when field = 'country' then to_jsonb(contacts.country)
        when field = 'language' then to_jsonb(contacts.language)
        when field = 'timezone' then to_jsonb(contacts.timezone)
        when field = 'currency' then to_jsonb(contacts.currency)
        when field = 'subscribed' then to_jsonb(contacts.subscribed)
        when field = 'consent_status' then to_jsonb(contacts.consent_status)
        when field = 'consent_source' then to_jsonb(contacts.consent_source)
        when field = 'source' then to_jsonb(contacts.source)
        when field = 'created_at' then to_jsonb(contacts.created_at)
        when field = 'score' then (
            select to_jsonb(round(cast(total_score as numeric), 2))
            from contact_scores
            where contact_id = person)
        when field = 'grade' then (
            select to_jsonb(grade) from contact_scores where contact_id = person)
        when field = 'lifecycle_stage' then coalesce(
            (select to_jsonb(lifecycle_stage) from contact_stages where contact_id = person),
            '"new"')
        when field = 'tags' then coalesce(
            (
                select jsonb_agg(tags.name order by lower(tags.name))
                from contact_tags
                inner join tags on tags.tag_id = contact_tags.tag_id
                where contact_tags.contact_id = person
            ),
            '[]')
        when starts_with(field, 'custom_fields.') then coalesce(
            contacts.custom_fields -> substr(field, 15),
            contacts.custom_fields #> string_to_array(substr(field, 15), '.'))
    end
    from contacts
    where contacts.contact_id = person
$$;
comment on function automation_contact_fact(bigint, text) is
    'What a condition may ask about a contact; null: nobody, not known, or no such field.';

create function automation_order(actual jsonb, expected jsonb) returns integer
language plpgsql immutable as $$
declare
    one text := actual #>> '{}';
    other text := expected #>> '{}';
    kinds text := jsonb_typeof(actual) || ' ' || jsonb_typeof(expected);
    is_decimal constant text := '^-?[0-9]{1,30}([.][0-9]{1,30})?$';
begin
    if kinds not in ('number number', 'number string', 'string number', 'string string') then
        return null;
    end if;
    -- Amounts of money are decimal text.
    if (jsonb_typeof(actual) = 'number' or one ~ is_decimal)
        and (jsonb_typeof(expected) = 'number' or other ~ is_decimal) then
        return sign(cast(one as numeric) - cast(other as numeric));
    elsif kinds = 'string string' then
        return case
            when one collate "C" < other collate "C" then -1
            when one = other then 0
            else 1
        end;
    end if;
    return null;
end
$$;
comment on function automation_order(jsonb, jsonb) is
    'Less than 0, 0 or more, as numbers (decimal text counts as one) or as text; null: they cannot be compared.';

create function automation_condition_holds(operator text, actual jsonb, expected jsonb) returns boolean
language plpgsql immutable as $$
begin
    return coalesce(
        case operator
            when 'eq' then actual = expected
            when 'neq' then actual is distinct from expected
            when 'gt' then automation_order(actual, expected) > 0
            when 'gte' then automation_order(actual, expected) >= 0
            when 'lt' then automation_order(actual, expected) < 0
            when 'lte' then automation_order(actual, expected) <= 0
            when 'contains' then case jsonb_typeof(actual)
                when 'array' then actual @> jsonb_build_array(expected)
                when 'string' then jsonb_typeof(expected) = 'string'
                    and strpos(actual #>> '{}', expected #>> '{}') > 0
            end
            when 'in' then jsonb_typeof(actual) not in ('array', 'object')
                and expected @> jsonb_build_array(actual)
            when 'is_set' then actual not in ('""', '[]')
            when 'not_set' then actual is null or actual in ('""', '[]')
        end,
        false);
end
$$;
comment on function automation_condition_holds(text, jsonb, jsonb) is
    'One comparison of a rule; a value that is missing is null. What cannot be compared is false.';

create function automation_conditions_hold(conditions jsonb, data jsonb, person bigint) returns boolean
language plpgsql stable as $$
declare
    condition jsonb;
    actual jsonb;
begin
    for place in 0 .. jsonb_array_length(conditions) - 1 loop
        condition := conditions -> place;
        if data ? (condition ->> 'field') then
            actual := data -> (condition ->> 'field');
        else
            actual := automation_contact_fact(person, condition ->> 'field');
        end if;
        if not automation_condition_holds(
            coalesce(condition ->> 'operator', 'eq'), nullif(actual, 'null'), condition -> 'value') then
            return false;
        end if;
    end loop;
    return true;
end
$$;
comment on function automation_conditions_hold(jsonb, jsonb, bigint) is
    'Whether all conditions of a rule hold for data, else for a contact (0: nobody) where data has no such key.';
