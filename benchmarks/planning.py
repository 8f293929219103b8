"""Planning: CPU seconds until a campaign's whole audience stands in the ledger, with its reasons and languages.

A million contacts, of whom every tenth has left, every hundredth is suppressed and a third read German; one message
each, with a content for German. Counted are this process and the database, background writers included. Beside it:
what a plain `insert into ... select` of as many rows costs, without keys, indexes or checks.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from sqlalchemy import Engine, text

from benchmarks.ground.measuring import bench, finish
from mautolib.campaigns import launch, planning, store
from mautolib.campaigns.model import NewCampaign
from mautolib.settings import Settings

SETTINGS = Settings(
    environment="development", default_from_email="news@shop.example", postal_address="1 High Street, Berlin"
)
LOCALES = {"de": {"subject": "Hallo", "html_body": "<p>Hallo {{ contact.first_name }}</p>"}}
CONTACTS = """
    insert into contacts (email, email_key, first_name, language, subscribed, consent_status)
    select 'c' || n || '@mail.example', 'c' || n || '@mail.example', 'Zoe' || n,
        case when n % 3 = 0 then 'de-AT' else 'en' end, n % 10 > 0,
        case when n % 10 = 0 then 'withdrawn' else 'unknown' end
    from generate_series(1, :rows) as n
"""
SUPPRESSED = """
    insert into suppressions (email_key, email, reason, source)
    select 'c' || n || '@mail.example', 'c' || n || '@mail.example', 'bounce', 'benchmark'
    from generate_series(100, :rows, 100) as n
    where n % 10 > 0 or n % 200 = 0
"""
PLAIN = "create table plain_copy as select message_id, contact_id, dedupe_key, status, due_at from messages"


def prepare(engine: Engine, rows: int) -> None:
    """Contacts, suppressions, and a campaign that is due."""
    now = datetime.now(UTC)
    with engine.begin() as tx:
        tx.execute(text(CONTACTS), {"rows": rows})
        tx.execute(text(SUPPRESSED), {"rows": rows})
        html = "<p>Hello {{ contact.first_name }}</p>"
        new = NewCampaign(name="Autumn", subject="Hello", html_body=html, locales=LOCALES)
        campaign = store.create(tx, new, actor="benchmark", now=now)
        launch.request_send(tx, SETTINGS, campaign.campaign_id, now=now)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))


def is_right(engine: Engine, rows: int, plan: planning.Plan) -> bool:
    """Whether the ledger holds exactly one right row for everybody."""
    query = """
        select count(*) as messages, count(distinct messages.contact_id) as people,
            count(*) filter (where (messages.status = 'queued') <> (mailable.refusal is null)) as wrong_status,
            count(*) filter (where messages.reason is distinct from mailable.refusal) as wrong_reason,
            count(*) filter (where (contents.locale = 'de') <> (mailable.language = 'de-AT')) as wrong_language,
            (select count(*) from message_keys) as keys
        from messages
        inner join contact_mailability as mailable using (contact_id)
        inner join message_contents as contents using (content_id)
    """
    with engine.connect() as connection:
        found = connection.execute(text(query)).one()
    sys.stdout.write(f"{plan.queued:,} queued, {plan.skipped:,} skipped\n")
    return tuple(found) == (rows, rows, 0, 0, 0, rows) and plan.queued + plan.skipped == rows and plan.problem is None


def main() -> None:
    """Plan once, check, compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="contacts")
    options = parser.parse_args()
    with bench() as ground:
        prepare(ground.engine, options.rows)
        with ground.measured(f"plan a campaign for {options.rows:,} contacts") as cost:
            (plan,) = planning.plan_due(ground.engine, SETTINGS, datetime.now(UTC))
        right = is_right(ground.engine, options.rows, plan)
        with ground.measured("the rows alone, copied") as plain, ground.engine.begin() as tx:
            tx.execute(text(PLAIN))
    compared = {"plain_copy_cpu_s": round(plain.cpu_seconds, 2), "wall_s": round(cost.wall_seconds, 1)}
    finish("planning", cost.cpu_seconds, "CPU seconds", rows=options.rows, verified=right, compared_to=compared)


if __name__ == "__main__":
    main()
