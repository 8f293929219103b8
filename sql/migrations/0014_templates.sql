-- A finished campaign keeps what it sent in message_contents: its template may go.

alter table campaigns drop constraint campaigns_template_id_fkey;
alter table campaigns add constraint campaigns_template_id_fkey
    foreign key (template_id) references templates on delete set null;
create index campaigns_by_template on campaigns (template_id) where template_id is not null;
-- Suppressions are listed newest first, by reason too, and are counted by reason.
create index suppressions_by_creation on suppressions (created_at desc, suppression_id desc);
create index suppressions_by_reason on suppressions (reason, created_at desc, suppression_id desc);
