"""The tables as SQLAlchemy Core sees them: names and types of columns, nothing else.

`sql/migrations` is the schema; a test proves this restatement equal to a migrated database. Analyst relations
(schema `analytics`) and bulk statements are SQL files and are not listed here.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CHAR,
    BigInteger,
    Boolean,
    Column,
    Date,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, INET, JSONB, TIMESTAMP

metadata = MetaData()

_ID, _INT, _SMALL, _TEXT, _BOOL, _BYTES = BigInteger(), Integer(), SmallInteger(), Text(), Boolean(), LargeBinary()
_TIME, _DATE, _FLOAT, _UUID = TIMESTAMP(timezone=True), Date(), Float(), Uuid()
_CODE, _MONEY, _RATE, _NUMERIC = CHAR(3), Numeric(19, 4), Numeric(18, 8), Numeric()
_JSON, _INET, _TEXTS, _IDS = JSONB(none_as_null=True), INET(), ARRAY(Text()), ARRAY(BigInteger())
_FLOATS: ARRAY[float] = ARRAY(DOUBLE_PRECISION())
_INTS: ARRAY[int] = ARRAY(Integer())


def _table(name: str, /, **columns: Any) -> Table:
    return Table(name, metadata, *(Column(column, kind) for column, kind in columns.items()))


ab_test_observations = _table(
    "ab_test_observations", observation_id=_ID, variant_id=_ID, event_type=_TEXT, contact_id=_ID, observed_at=_TIME
)
ab_tests = _table(
    "ab_tests",
    test_id=_ID, campaign_id=_ID, name=_TEXT, test_type=_TEXT, status=_TEXT, winner_metric=_TEXT,
    auto_select_winner=_BOOL, test_percentage=_FLOAT, wait_hours=_INT, holdout_percentage=_FLOAT,
    no_winner_action=_TEXT, conversion_days=_INT, winner_variant_id=_ID, decision=_TEXT, decision_reason=_TEXT,
    started_at=_TIME, planned_at=_TIME, planned_occurrence=_INT, last_handover_at=_TIME, deadline_at=_TIME,
    completed_at=_TIME, version=_INT, created_by=_TEXT, created_at=_TIME, updated_at=_TIME, released_at=_TIME,
)
ab_variant_totals = _table(
    "ab_variant_totals",
    variant_id=_ID, sent=_ID, bounced=_ID, unique_opens=_ID, unique_clicks=_ID, conversions=_ID, revenue=_NUMERIC,
    refreshed_at=_TIME,
)
ab_variants = _table(
    "ab_variants",
    variant_id=_ID, test_id=_ID, position=_SMALL, name=_TEXT, subject=_TEXT, html_body=_TEXT, locales=_JSON,
    send_delay_minutes=_INT,
)
alert_notes = _table(
    "alert_notes",
    note_id=_ID, channel=_TEXT, kind=_TEXT, finding=_TEXT, summary=_TEXT, advice=_TEXT, created_at=_TIME,
    next_try_at=_TIME, tries=_INT,
)
alerts = _table(
    "alerts",
    finding=_TEXT, summary=_TEXT, advice=_TEXT, row_count=_ID, opened_at=_TIME, seen_at=_TIME, is_told=_BOOL,
)
api_keys = _table(
    "api_keys",
    api_key_id=_ID, name=_TEXT, prefix=_TEXT, key_hash=_BYTES, role=_TEXT, scopes=_TEXTS, created_by=_TEXT,
    expires_at=_TIME, last_used_at=_TIME, revoked_at=_TIME, created_at=_TIME, creator_id=_ID,
)
audit_log = _table(
    "audit_log",
    audit_id=_ID, at=_TIME, actor_type=_TEXT, actor_id=_ID, actor_label=_TEXT, action=_TEXT, resource_type=_TEXT,
    resource_id=_TEXT, status=_INT, request_id=_TEXT, changes=_JSON,
)
automation_logs = _table(
    "automation_logs",
    log_id=_ID, rule_id=_ID, contact_id=_ID, event_id=_ID, trigger_type=_TEXT, status=_TEXT, duration_ms=_INT,
    error=_TEXT, actions=_JSON, created_at=_TIME,
)
automation_rules = _table(
    "automation_rules",
    rule_id=_ID, name=_TEXT, description=_TEXT, active=_BOOL, trigger_type=_TEXT, trigger_config=_JSON,
    conditions=_JSON, actions=_JSON, priority=_INT, max_executions=_INT, cooldown_minutes=_INT, created_at=_TIME,
)
automation_totals = _table("automation_totals", rule_id=_ID, executions=_ID)
automation_waits = _table(
    "automation_waits",
    log_id=_ID, rule_id=_ID, contact_id=_ID, resume_at=_TIME, next_action=_INT, actions=_JSON, data=_JSON,
    depth=_SMALL, begun_at=_TIME,
)
campaign_paces = _table(
    "campaign_paces",
    campaign_id=_ID, wake_at=_TIME, waits_for=_TEXT, expires_at=_TIME, is_stale=_BOOL,
)
campaign_totals = _table(
    "campaign_totals",
    campaign_id=_ID, recipients=_ID, skipped=_ID, in_flight=_ID, attempted=_ID, sent=_ID, delivered=_ID,
    bounced=_ID, failed=_ID, unknown=_ID, complained=_ID, unsubscribed=_ID, raw_opens=_ID, human_opens=_ID,
    unique_opens=_ID, raw_clicks=_ID, human_clicks=_ID, unique_clicks=_ID, refreshed_at=_TIME,
)
campaigns = _table(
    "campaigns",
    campaign_id=_ID, name=_TEXT, subject=_TEXT, preheader=_TEXT, from_name=_TEXT, from_email=_TEXT, reply_to=_TEXT,
    html_body=_TEXT, text_body=_TEXT, template_id=_ID, segment_id=_ID, locales=_JSON, track_opens=_BOOL,
    track_clicks=_BOOL, utm=_JSON, send_window=_JSON, max_per_hour=_INT, max_per_day=_INT, domain_limits=_JSON,
    expires_after_hours=_INT, status=_TEXT, status_reason=_TEXT, occurrence=_INT, scheduled_at=_TIME,
    schedule_id=_ID, requested_at=_TIME, planned_at=_TIME, started_at=_TIME, sent_at=_TIME, settled_at=_TIME,
    version=_INT, created_by=_TEXT, created_at=_TIME, updated_at=_TIME, plan_at=_TIME, is_paced=_BOOL,
)
cart_timers = _table(
    "cart_timers",
    workflow_id=_ID, contact_id=_ID, cart_id=_TEXT, touched_at=_TIME, due_at=_TIME, depth=_SMALL, context=_JSON,
)
consents = _table(
    "consents",
    consent_id=_ID, contact_id=_ID, status=_TEXT, source=_TEXT, wording_version=_TEXT, ip=_INET, actor=_TEXT,
    note=_TEXT, recorded_at=_TIME,
)
contact_history = _table(
    "contact_history",
    contact_id=_ID, valid_from=_TIME, valid_to=_TIME, version=_INT, email_key=_TEXT, first_name=_TEXT,
    last_name=_TEXT, phone=_TEXT, country=_TEXT, language=_TEXT, timezone=_TEXT, currency=_TEXT,
    custom_fields=_JSON, subscribed=_BOOL, consent_status=_TEXT,
)
contact_milestones = _table(
    "contact_milestones",
    contact_id=_ID, kind=_TEXT, milestone=_TEXT, reached_at=_TIME, is_told=_BOOL, recorded_at=_TIME,
)
contact_scores = _table(
    "contact_scores",
    contact_id=_ID, total_score=_FLOAT, engagement_score=_FLOAT, profile_score=_FLOAT, recency_score=_FLOAT,
    grade=_TEXT, last_activity_at=_TIME, as_of=_TIME, rule_version=_INT, updated_at=_TIME,
    counted_points=_FLOAT, told_points=_FLOAT, told_engagement=_FLOAT, told_grade=_TEXT, lifecycle_stage=_TEXT,
    stage_since=_TIME, stage_idle_limit_days=_SMALL,
)
contact_search = _table("contact_search", contact_id=_ID, words=_TEXT)
contact_search_progress = _table("contact_search_progress", is_the_only_row=_BOOL, indexed_to=_ID)
contact_stages = _table(
    "contact_stages",
    contact_id=_ID, lifecycle_stage=_TEXT, since=_TIME, evaluated_at=_TIME, idle_limit_days=_SMALL,
)
contact_tag_history = _table(
    "contact_tag_history",
    contact_id=_ID, tag_id=_ID, valid_from=_TIME, valid_to=_TIME,
)
contact_tags = _table(
    "contact_tags",
    contact_id=_ID, tag_id=_ID, added_at=_TIME,
)
contacts = _table(
    "contacts",
    contact_id=_ID, email=_TEXT, email_key=_TEXT, first_name=_TEXT, last_name=_TEXT, phone=_TEXT, country=_TEXT,
    language=_TEXT, timezone=_TEXT, currency=_TEXT, custom_fields=_JSON, subscribed=_BOOL, consent_status=_TEXT,
    consent_source=_TEXT, consent_at=_TIME, source=_TEXT, is_disposable=_BOOL, is_free_provider=_BOOL,
    is_role_based=_BOOL, version=_INT, created_at=_TIME, updated_at=_TIME,
)
enrollments = _table(
    "enrollments",
    enrollment_id=_ID, workflow_id=_ID, version=_INT, contact_id=_ID, entry_key=_TEXT, status=_TEXT,
    step_path=_TEXT, visit=_INT, resume_at=_TIME, waiting_for=_TEXT, context=_JSON, exit_reason=_TEXT,
    caused_at=_TIME, entered_at=_TIME, finished_at=_TIME, paused_from=_TEXT,
    arrived_at=_TIME, until_at=_TIME, depth=_SMALL,
)
erased_activity = _table(
    "erased_activity",
    granularity=_TEXT, signup_day=_DATE, period_offset=_INT, contact_count=_ID,
)
erased_contacts = _table(
    "erased_contacts",
    contact_id=_ID, signup_month=_DATE, country=_TEXT, erased_on=_DATE,
)
erased_signups = _table(
    "erased_signups",
    signup_day=_DATE, contact_count=_ID,
)
erasures = _table(
    "erasures",
    erasure_id=_ID, contact_id=_ID, status=_TEXT, requested_by=_TEXT, requested_at=_TIME, completed_at=_TIME,
    next_try_at=_TIME, tables=_JSON, traces=_JSON,
)
event_keys = _table(
    "event_keys",
    source=_TEXT, external_id=_TEXT, event_id=_ID, occurred_at=_TIME, content_hash=_BYTES,
)
event_pending = _table(
    "event_pending",
    bucket=_SMALL, occurred_at=_TIME, first_event_id=_ID, event_ids=_IDS, event_count=_INT, depth=_SMALL,
)
events = _table(
    "events",
    event_id=_ID, contact_id=_ID, occurred_at=_TIME, received_at=_TIME, event_type=_TEXT, source=_TEXT,
    external_id=_TEXT, properties=_JSON, campaign_id=_ID, message_id=_ID, order_key=_ID,
)
fx_rates = _table(
    "fx_rates",
    rate_date=_DATE, base=_CODE, quote=_CODE, rate=_RATE, source=_TEXT, loaded_at=_TIME,
)
heartbeats = _table(
    "heartbeats",
    component=_TEXT, beat_at=_TIME, detail=_JSON,
)
hit_verdicts = _table(
    "hit_verdicts",
    hit_id=_ID, rule_version=_INT, verdict=_TEXT, decided_at=_TIME,
)
hits = _table(
    "hits",
    hit_id=_ID, occurred_at=_TIME, kind=_TEXT, contact_id=_ID, campaign_id=_ID, message_id=_ID, link_position=_INT,
    url=_TEXT, user_agent=_TEXT, network=_TEXT, is_head=_BOOL, purpose=_TEXT, batch_key=_TEXT,
)
holdout_periods = _table(
    "holdout_periods",
    period_id=_ID, salt=_TEXT, percent=_NUMERIC, bound=_ID, begun_at=_TIME, ended_at=_TIME, changed_by=_TEXT,
)
idempotency_keys = _table(
    "idempotency_keys",
    caller=_TEXT, method=_TEXT, path=_TEXT, idempotency_key=_TEXT, request_hash=_BYTES, claimed_at=_TIME,
    completed_at=_TIME, status=_INT, headers=_JSON, body=_BYTES,
)
import_people = _table(
    "import_people",
    email=_TEXT, email_key=_TEXT, flags=_SMALL, row_count=_ID, is_folded=_BOOL, is_opt_out=_BOOL, first_name=_TEXT,
    last_name=_TEXT, phone=_TEXT, country=_TEXT, language=_TEXT, timezone=_TEXT, currency=_TEXT,
    custom_fields=_JSON, subscribed=_BOOL, created_at=_TIME, consent_status=_TEXT, consent_source=_TEXT,
    consent_at=_TIME,
)
import_rejects = _table(
    "import_rejects",
    import_id=_ID, line=_ID, column_name=_TEXT, code=_TEXT, reason=_TEXT, value=_TEXT,
)
import_rows = _table(
    "import_rows",
    line=_ID, email=_TEXT, email_key=_TEXT, flags=_SMALL, first_name=_TEXT, last_name=_TEXT, phone=_TEXT,
    country=_TEXT, language=_TEXT, timezone=_TEXT, currency=_TEXT, custom_fields=_JSON, subscribed=_BOOL,
    created_at=_TIME, consent_status=_TEXT, consent_source=_TEXT, consent_at=_TIME, tags=_JSON, reject_column=_TEXT,
    reject_code=_TEXT, reject_value=_TEXT,
)
import_touched = _table(
    "import_touched",
    contact_id=_ID, is_new=_BOOL, row_count=_ID, is_opt_out=_BOOL,
)
imports = _table(
    "imports",
    import_id=_ID, status=_TEXT, filename=_TEXT, format=_TEXT, options=_JSON, storage_uri=_TEXT,
    content_sha256=_TEXT, total_rows=_ID, created=_ID, updated=_ID, skipped=_ID, rejected=_ID, suppressed=_ID,
    error=_TEXT, attempt_id=_ID, lease_until=_TIME, created_by=_TEXT, created_at=_TIME, started_at=_TIME,
    finished_at=_TIME, stalled_attempts=_INT,
)
inbound_sources = _table(
    "inbound_sources",
    source_id=_ID, name=_TEXT, kind=_TEXT, token_hash=_BYTES, secret_encrypted=_BYTES, active=_BOOL, mapping=_JSON,
    last_received_at=_TIME, created_at=_TIME,
)
installation = _table(
    "installation",
    is_only=_BOOL, installation_id=_UUID, epoch=_INT, database_key=_TEXT, sending_enabled=_BOOL, reason=_TEXT,
    restored_at=_TIME, is_reviewed=_BOOL, changed_at=_TIME, changed_by=_TEXT,
)
lifecycle_stages = _table(
    "lifecycle_stages",
    stage=_TEXT, stage_order=_SMALL,
)
message_attempts = _table(
    "message_attempts",
    message_id=_ID, contact_id=_ID, attempt_no=_INT, attempt_id=_ID, claimed_at=_TIME, recorded_at=_TIME,
    outcome=_TEXT, stage=_TEXT, code=_INT, reply=_TEXT,
)
message_contents = _table(
    "message_contents",
    content_id=_ID, campaign_id=_ID, workflow_id=_ID, template_id=_ID, template_version=_INT, occurrence=_INT,
    variant_id=_ID, locale=_TEXT, subject=_TEXT, preheader=_TEXT, html_body=_TEXT, text_body=_TEXT, from_name=_TEXT,
    from_email=_TEXT, reply_to=_TEXT, track_opens=_BOOL, track_clicks=_BOOL, utm=_JSON, strict=_BOOL, digest=_BYTES,
    created_at=_TIME,
)
message_keys = _table(
    "message_keys",
    dedupe_key=_TEXT, contact_id=_ID, message_id=_ID,
)
message_links = _table(
    "message_links",
    link_id=_ID, content_id=_ID, position=_INT, url=_TEXT,
)
messages = _table(
    "messages",
    contact_id=_ID, message_id=_ID, kind=_TEXT, campaign_id=_ID, workflow_id=_ID, enrollment_id=_ID,
    occurrence=_INT, variant_id=_ID, content_id=_ID, dedupe_key=_TEXT, to_email=_TEXT, to_key=_TEXT, context=_JSON,
    status=_TEXT, reason=_TEXT, due_at=_TIME, next_try_at=_TIME, give_up_at=_TIME, attempt_no=_INT, attempt_id=_ID,
    lease_until=_TIME, last_code=_INT, last_stage=_TEXT, last_error=_TEXT, rfc_message_id=_TEXT, provider_id=_TEXT,
    queued_at=_TIME, sent_at=_TIME, delivered_at=_TIME, bounced_at=_TIME, complained_at=_TIME, held_for=_TEXT,
    depth=_SMALL, ab_part=_TEXT,
)
notice_refusals = _table("notice_refusals", refused_on=_DATE, reason=_TEXT, refusal_count=_ID)
order_import_lines = _table(
    "order_import_lines",
    line=_ID, order_id=_TEXT, email=_TEXT, customer_id=_TEXT, placed_at=_TIME, currency=_TEXT, total=_NUMERIC,
    discount=_NUMERIC, shipping=_NUMERIC, tax=_NUMERIC, refunded=_NUMERIC, status=_TEXT, country=_TEXT, item=_JSON,
    amount=_NUMERIC,
)
order_import_orders = _table(
    "order_import_orders",
    place=_ID, order_id=_TEXT, first_line=_ID, row_count=_ID, left_out=_TEXT, problem=_TEXT, email=_TEXT,
    customer_id=_TEXT, placed_at=_TIME, currency=_TEXT, total=_NUMERIC, discount=_NUMERIC, shipping=_NUMERIC,
    tax=_NUMERIC, refunded=_NUMERIC, country=_TEXT, lines=_JSON,
)
order_import_problems = _table(
    "order_import_problems",
    line=_ID, order_id=_TEXT, field=_TEXT, problem=_TEXT, advice=_TEXT,
)
orders = _table(
    "orders",
    order_key=_ID, contact_id=_ID, source=_TEXT, order_id=_TEXT, placed_at=_TIME, currency=_CODE, total=_MONEY,
    discount=_MONEY, shipping=_MONEY, tax=_MONEY, refunded_total=_MONEY, net_total=_MONEY, lines=_JSON,
    cart_id=_TEXT, reporting_currency=_CODE, fx_rate=_RATE, fx_date=_DATE, received_at=_TIME, event_id=_ID,
)
outbox = _table(
    "outbox",
    outbox_id=_ID, event_name=_TEXT, occurred_at=_TIME, data=_JSON, created_at=_TIME, expanded_at=_TIME,
)
provider_notices = _table(
    "provider_notices",
    notice_id=_ID, source=_TEXT, external_id=_TEXT, received_at=_TIME, body=_TEXT, status=_TEXT, kind=_TEXT,
    detail=_TEXT, message_id=_ID, look_count=_INT, next_look_at=_TIME, settled_at=_TIME,
)
refresh_tokens = _table(
    "refresh_tokens",
    token_hash=_BYTES, family=_UUID, user_id=_ID, access_jti=_UUID, issued_at=_TIME, expires_at=_TIME, used_at=_TIME,
    revoked_at=_TIME,
)
refunds = _table(
    "refunds",
    refund_key=_ID, source=_TEXT, order_id=_TEXT, refund_id=_TEXT, currency=_CODE, amount=_MONEY, occurred_at=_TIME,
    applied_at=_TIME, event_id=_ID,
)
revoked_tokens = _table(
    "revoked_tokens",
    jti=_UUID, expires_at=_TIME,
)
schedule_runs = _table(
    "schedule_runs",
    schedule_id=_ID, occurrence=_INT, due_at=_TIME, started_at=_TIME, finished_at=_TIME, status=_TEXT,
)
schedules = _table(
    "schedules",
    schedule_id=_ID, campaign_id=_ID, schedule_type=_TEXT, status=_TEXT, send_at=_TIME, timezone_name=_TEXT,
    recurrence_rule=_JSON, next_run_at=_TIME, runs_completed=_INT, max_runs=_INT, max_per_hour=_INT, max_per_day=_INT,
    ab_test_id=_ID, auto_pick_winner=_BOOL, winner_wait_hours=_INT, max_late_minutes=_INT, error_message=_TEXT,
    created_by=_TEXT, created_at=_TIME, updated_at=_TIME,
)
score_awards = _table(
    "score_awards",
    award_id=_ID, contact_id=_ID, event_type=_TEXT, points=_FLOAT, reason=_TEXT, metadata=_JSON, occurred_at=_TIME,
    created_at=_TIME, rule_version=_INT,
)
score_history = _table(
    "score_history",
    contact_id=_ID, as_of=_TIME, total_score=_FLOAT, engagement_score=_FLOAT, profile_score=_FLOAT,
    recency_score=_FLOAT, grade=_TEXT, lifecycle_stage=_TEXT, last_activity_at=_TIME, rule_version=_INT,
    source=_TEXT, recorded_at=_TIME,
)
score_recomputations = _table(
    "score_recomputations",
    recomputation_id=_ID, from_day=_DATE, to_day=_DATE, rule_version=_INT, known_at=_TIME, status=_TEXT,
    done_through=_DATE, contact_count=_ID, snapshot_count=_ID, grade_matrix=_JSON, tries=_INT, error=_TEXT,
    due_at=_TIME, requested_by=_TEXT, created_at=_TIME, started_at=_TIME, finished_at=_TIME,
)
score_rule_awards = _table(
    "score_rule_awards",
    award_id=_ID, contact_id=_ID, rule_id=_ID, event_id=_ID, event_type=_TEXT, points=_FLOAT, reason=_TEXT,
    rule_version=_INT, occurred_at=_TIME, created_at=_TIME,
)
score_runs = _table(
    "score_runs",
    run_id=_ID, as_of=_TIME, known_at=_TIME, source=_TEXT, rule_version=_INT, bucket=_INT, buckets=_INT,
    is_current=_BOOL, scored_count=_ID, changed_count=_ID, moved_count=_ID, snapshot_count=_ID, finished_at=_TIME,
)
score_slices = _table(
    "score_slices",
    slice=_SMALL, fold_target=_TIME, folded_until=_TIME, landmark=_TIME, weighings=_JSON, activity=_TEXT,
)
score_stale = _table("score_stale", contact_id=_ID)
score_states = _table(
    "score_states",
    contact_id=_ID, last_activity_at=_TIME, weights=_FLOATS, counts=_INTS, profile_version=_INT, profile_score=_FLOAT,
)
scoring_rule_versions = _table(
    "scoring_rule_versions",
    version=_INT, rules=_JSON, created_by=_TEXT, created_at=_TIME,
)
scoring_rules = _table(
    "scoring_rules",
    rule_id=_ID, name=_TEXT, description=_TEXT, event_type=_TEXT, condition=_JSON, points=_INT,
    max_per_contact=_INT, decay_days=_INT, active=_BOOL, created_at=_TIME,
)
segment_memberships = _table(
    "segment_memberships",
    segment_id=_ID, contact_id=_ID, valid_from=_TIME, valid_to=_TIME,
)
segment_static_members = _table(
    "segment_static_members",
    segment_id=_ID, contact_id=_ID, is_excluded=_BOOL, added_at=_TIME,
)
segments = _table(
    "segments",
    segment_id=_ID, name=_TEXT, description=_TEXT, rules=_JSON, match_type=_TEXT, exclude_unsubscribed=_BOOL,
    exclude_suppressed=_BOOL, exclude_bounced=_BOOL, exclude_campaign_ids=_IDS, evaluation_status=_TEXT,
    evaluated_at=_TIME, version=_INT, created_at=_TIME, updated_at=_TIME, evaluation_due_at=_TIME,
    members_changed_at=_TIME,
)
send_slots = _table("send_slots", campaign_id=_ID, domain=_TEXT, next_slot_at=_TIME)
send_tallies = _table("send_tallies", campaign_id=_ID, domain=_TEXT, minute=_TIME, claimed=_INT)
sign_in_failures = _table(
    "sign_in_failures",
    failure_id=_ID, account_hash=_BYTES, network=_TEXT, failed_at=_TIME,
)
signing_certificates = _table("signing_certificates", url=_TEXT, pem=_TEXT, fetched_at=_TIME)
stage_transitions = _table(
    "stage_transitions",
    transition_id=_ID, contact_id=_ID, previous_stage=_TEXT, new_stage=_TEXT, reason=_TEXT, actor=_TEXT,
    occurred_at=_TIME, recorded_at=_TIME, idle_limit_days=_SMALL,
)
suppression_history = _table(
    "suppression_history",
    suppression_id=_ID, email_key=_TEXT, reason=_TEXT, valid_from=_TIME, valid_to=_TIME,
)
suppressions = _table(
    "suppressions",
    suppression_id=_ID, email=_TEXT, email_key=_TEXT, email_hash=_BYTES, reason=_TEXT, source=_TEXT, notes=_TEXT,
    created_at=_TIME,
)
tags = _table(
    "tags",
    tag_id=_ID, name=_TEXT, color=_TEXT, created_at=_TIME,
)
template_versions = _table(
    "template_versions",
    template_id=_ID, version=_INT, subject=_TEXT, html_body=_TEXT, text_body=_TEXT, variables=_TEXTS,
    created_by=_TEXT, created_at=_TIME,
)
templates = _table(
    "templates",
    template_id=_ID, name=_TEXT, subject=_TEXT, html_body=_TEXT, text_body=_TEXT, variables=_TEXTS, category=_TEXT,
    strict=_BOOL, version=_INT, valid=_BOOL, problems=_JSON, created_at=_TIME, updated_at=_TIME,
)
users = _table(
    "users",
    user_id=_ID, email=_TEXT, email_key=_TEXT, name=_TEXT, role=_TEXT, password_hash=_TEXT, is_active=_BOOL,
    sessions_valid_from=_TIME, last_login_at=_TIME, created_at=_TIME, updated_at=_TIME,
)
webhook_attempts = _table(
    "webhook_attempts",
    delivery_id=_ID, attempt=_INT, at=_TIME, response_status=_INT, duration_ms=_INT, error=_TEXT,
    response_body=_TEXT,
)
webhook_deliveries = _table(
    "webhook_deliveries",
    delivery_id=_ID, endpoint_id=_ID, outbox_id=_ID, event_type=_TEXT, webhook_message_id=_TEXT, payload=_JSON,
    status=_TEXT, attempt=_INT, attempt_id=_ID, lease_until=_TIME, next_attempt_at=_TIME, response_status=_INT,
    duration_ms=_INT, error=_TEXT, created_at=_TIME, finished_at=_TIME, replayed_after=_INT, dedupe_key=_TEXT,
)
webhook_endpoints = _table(
    "webhook_endpoints",
    endpoint_id=_ID, url=_TEXT, secret_encrypted=_BYTES, previous_secret_encrypted=_BYTES,
    previous_valid_until=_TIME, events=_TEXTS, active=_BOOL, description=_TEXT, consecutive_failures=_INT,
    max_failures=_INT, last_success_at=_TIME, last_failure_at=_TIME, disabled_reason=_TEXT, created_at=_TIME,
    listens_since=_TIME, failing_since=_TIME, total_deliveries=_ID, total_failures=_ID, is_listed=_BOOL,
)
workflow_clocks = _table("workflow_clocks", workflow_id=_ID, version=_INT, swept_until=_TIME, next_at=_TIME)
workflow_logs = _table(
    "workflow_logs",
    log_id=_ID, workflow_id=_ID, enrollment_id=_ID, contact_id=_ID, step_path=_TEXT, step_index=_INT, visit=_INT,
    status=_TEXT, result=_JSON, created_at=_TIME,
)
workflow_versions = _table(
    "workflow_versions",
    workflow_id=_ID, version=_INT, trigger_type=_TEXT, trigger_config=_JSON, steps=_JSON, created_by=_TEXT,
    created_at=_TIME, listens_to=_JSON,
)
workflows = _table(
    "workflows",
    workflow_id=_ID, name=_TEXT, trigger_type=_TEXT, trigger_config=_JSON, steps=_JSON, active=_BOOL,
    re_entry=_JSON, exit_on=_TEXTS, version=_INT, created_at=_TIME, updated_at=_TIME, revision=_INT,
)
