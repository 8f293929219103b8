-- API keys end with the user who made them; the audit log is read by time, actor, action and resource.

-- Empty for keys whose user was deleted: those are revoked.
alter table api_keys add column creator_id bigint references users on delete set null;
comment on column api_keys.creator_id is
    'A key works while this user is active, and with no higher role than the user has now.';
comment on column api_keys.key_hash is 'SHA-256 of the key, which has 256 random bits.';
update api_keys
set creator_id = users.user_id
from users
where api_keys.created_by = 'user:' || users.user_id;
create index api_keys_of_creator on api_keys (creator_id);
create index api_keys_newest_first on api_keys (created_at desc, api_key_id desc);

-- Each ends in the order in which the log is shown.
create index audit_log_newest_first on audit_log (at desc, audit_id desc);
create index audit_log_of_actor on audit_log (actor_id, at desc, audit_id desc);
create index audit_log_of_action on audit_log (action, at desc, audit_id desc);
create index audit_log_of_resource on audit_log (resource_type, resource_id, at desc, audit_id desc);
drop index audit_log_by_resource;
