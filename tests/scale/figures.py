"""The figures of a finished main job, and digests of the rows behind them, in terms that do not change from run to run.

Ids and moments differ between two runs; addresses, kinds, statuses, scores of one moment and counts must not.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine, text

# What was asked for: the night may have computed the same moment, too, before all of the history was loaded.
_ASKED = "h.as_of = :midnight and h.source = 'recomputed'"
_MIDNIGHT = f"select contact_id, total_score from score_history as h where {_ASKED}"
_CAMPAIGN = "from analytics.campaign_performance order by campaign_id limit 1"
#: What is counted -> a query of one value.
COUNTS = {
    "contacts": "select count(*) from contacts",
    "rows rejected by the import": "select coalesce(sum(rejected), 0) from imports",
    "orders": "select count(*) from orders",
    "refunds": "select count(*) from refunds",
    "contacts scored": "select count(*) from contact_scores",
    "contacts scored as of midnight": f"select count(*) from ({_MIDNIGHT}) as scores",
    "sum of these scores": f"select round(cast(sum(total_score) as numeric), 6) from ({_MIDNIGHT}) as scores",
    "contacts staged": "select count(*) from contact_stages",
    "campaign: recipients": f"select recipients {_CAMPAIGN}",
    "campaign: sent": f"select sent {_CAMPAIGN}",
    "campaign: skipped": f"select skipped {_CAMPAIGN}",
    "campaign: failed": f"select failed {_CAMPAIGN}",
    "campaign: in doubt": f"select unknown {_CAMPAIGN}",
    "campaign: opened (people)": f"select unique_opens {_CAMPAIGN}",
    "campaign: clicked (people)": f"select unique_clicks {_CAMPAIGN}",
    "campaign: unsubscribed": f"select unsubscribed {_CAMPAIGN}",
    "workflow: enrolled": "select count(*) from enrollments",
    "workflow: welcomed": "select count(*) from messages where kind = 'workflow' and sent_at is not null",
    "workflow: waiting for the second mail": "select count(*) from enrollments where status = 'waiting'",
    "rows of contact cohorts": "select count(*) from analytics.contact_cohorts",
    "rows of order cohorts": "select count(*) from analytics.order_cohorts",
}

#: What is compared row by row -> a query of one text a row.
ROWS = {
    "contacts": "select concat_ws('|', email_key, subscribed, consent_status, country, language) from contacts",
    "scores as of midnight": f"""
        select concat_ws('|', c.email_key, round(cast(h.total_score as numeric), 9), h.grade)
        from score_history as h inner join contacts as c using (contact_id) where {_ASKED}""",
    "messages": """
        select concat_ws('|', c.email_key, m.kind, m.status, m.reason)
        from messages as m inner join contacts as c using (contact_id)""",
    # Whether a score crosses a mark within these minutes depends on the minute.
    "events": """
        select concat_ws('|', c.email_key, e.event_type, e.source)
        from events as e inner join contacts as c using (contact_id)
        where e.event_type not in ('score_changed', 'milestone_reached')""",
    "opens and clicks": """
        select concat_ws('|', c.email_key, h.kind, v.verdict)
        from hits as h inner join contacts as c using (contact_id) left join hit_verdicts as v using (hit_id)""",
    "enrollments": """
        select concat_ws('|', c.email_key, e.status, e.step_path)
        from enrollments as e inner join contacts as c using (contact_id)""",
    "contact cohorts": """
        select concat_ws('|', granularity, cohort_label, cohort_size, period_offset, active_count, subscribed_count)
        from analytics.contact_cohorts""",
    "order cohorts": """
        select to_jsonb(o) - 'refreshed_at' #>> '{}' from analytics.order_cohorts as o""",
}


def figures(engine: Engine, midnight: datetime) -> dict[str, str]:
    """Every count, then the number of rows and a digest of each set.

    Args:
        midnight: the moment that a run of `score_recalculation` was asked to compute for.
    """
    given = {"midnight": midnight}
    with engine.connect() as tx:
        found = {name: f"{tx.execute(text(query), given).scalar() or 0:,}" for name, query in COUNTS.items()}
        for name, query in ROWS.items():
            digest = f"select count(*), md5(string_agg(line, chr(10) order by line)) from ({query}) as rows (line)"
            count, value = tx.execute(text(digest), given).one()
            found[f"rows: {name}"] = f"{count:,} ({str(value)[:10]})"
    return found
