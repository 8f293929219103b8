-- What a past day knew of one address: without it erasing a person and judging a past stage read all lifted suppressions.
create index suppression_history_by_address on suppression_history (email_key);
