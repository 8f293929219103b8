"""Workflows: CPU seconds to advance 100,000 due enrollments by one step among a million waiting ones, by step type.

Everybody waits at a delay; that of some is over, they take the step behind it and complete. Beside it: the same with a
tenth of the waiting ones (the cost must not depend on them), and dispatching 100,000 events with 20 workflows and 50
automation rules. Every log, place, tag, mail and entry is counted; a second run must move nobody.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from benchmarks.ground.measuring import Bench, bench, finish
from mautolib import automations, dispatch, workflows
from mautolib.automations import NewRule
from mautolib.events.append import NewEvent, append_many
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DELAY: dict[str, Any] = {"type": "delay", "hours": 1}
TAG: dict[str, Any] = {"action": "tag", "tag_name": "seen"}
MAIL: dict[str, Any] = {"action": "send_email", "subject": "Hello {{ contact.first_name }}", "body": "<p>Hello</p>"}
WAIT: dict[str, Any] = {"type": "wait_for_event", "event_type": "order_placed", "timeout_hours": 24}
CASES: dict[str, list[dict[str, Any]]] = {
    "delay": [DELAY],
    "delay until": [{"type": "delay", "until": {"time": "09:00"}}],
    "condition": [{"type": "condition", "field": "country", "operator": "in", "value": ["de", "FR"], "then": []}],
    "exit": [{"type": "exit"}],
    "tag": [TAG],
    "send_email": [MAIL],
    "webhook": [{"action": "webhook", "url": "https://erp.shop.example/in", "payload": {"list": "vip"}}],
    "wait_for_event": [WAIT],
    "goal": [{"type": "goal", "event_type": "order_placed"}],
}
_CONTACTS = """
insert into contacts (email, email_key, first_name, country, timezone)
select 'p' || n || '@shop.example', 'p' || n || '@shop.example', 'Ann',
    (array['DE', 'FR', 'US', ''])[1 + n % 4],
    (array['Europe/Berlin', 'Europe/Paris', 'America/New_York', ''])[1 + n % 4]
from generate_series(1, :count) as people (n)
"""
_WAITING = """
insert into enrollments (
    workflow_id, version, contact_id, entry_key, status, step_path, resume_at, until_at, caused_at, entered_at)
select :workflow, 1, n, :key || n, 'waiting', '0', moment, moment, :now - interval '2 hours', :now - interval '1 hour'
from generate_series(1, :count) as people (n)
cross join lateral (select :now + :offset + n * interval '1 ms' as moment) as times
"""


def add_waiting(place: Bench, steps: list[dict[str, Any]], count: int, *, due: bool) -> int:
    """A workflow and people who wait at its first step; returns its id."""
    with place.engine.begin() as tx:
        new = NewWorkflow(name="Bench", steps=[DELAY, *steps], active=False)
        workflow_id = workflows.create(tx, new, actor="bench", now=NOW).workflow_id
        offset = timedelta(minutes=-30) if due else timedelta(days=1)
        tx.execute(text(_WAITING), {"workflow": workflow_id, "key": f"bench:{workflow_id}:", "count": count,
                                    "now": NOW, "offset": offset})  # fmt: skip
    return workflow_id


def ask(place: Bench, query: str, **values: Any) -> int:
    """One number."""
    with place.engine.begin() as tx:
        return int(tx.execute(text(query), values).scalar_one())


def analyze(place: Bench) -> None:
    """Statistics as autovacuum would have made them."""
    with place.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))


def advance_case(place: Bench, settings: Settings, name: str, due: int, label: str) -> tuple[float, bool]:
    """Advance one case; returns CPU seconds and whether everything is right."""
    workflow_id = add_waiting(place, CASES[name], due, due=True)
    analyze(place)
    with place.measured(f"{name}: {due:,} due, {label} waiting") as cost:
        done = workflows.advance(place.engine, settings, now=NOW)
    logged = ask(place, "select count(*) from workflow_logs where workflow_id = :w and step_path = '1'", w=workflow_id)
    moved = ask(place, "select count(*) from enrollments where workflow_id = :w and resume_at is distinct from "
                       "until_at or (workflow_id = :w and status = 'waiting' and resume_at <= :now)",
                w=workflow_id, now=NOW)  # fmt: skip
    right = done.moved == due and moved == 0 and logged == (0 if name == "wait_for_event" else due)
    right = right and done.messages == (due if name == "send_email" else 0)
    if name == "tag":
        right = right and ask(place, "select count(*) from contact_tags") == due
    if name == "webhook":
        right = right and ask(place, "select count(*) from webhook_deliveries") == due
    again = workflows.advance(place.engine, settings, now=NOW)
    with place.engine.begin() as tx:
        # What tags told waits for nobody here.
        tx.execute(text("truncate event_pending"))
    return cost.cpu_seconds, right and again.moved == 0


def add_active(place: Bench) -> None:
    """20 workflows and 50 rules, each waiting for something of its own or for what happens."""
    kinds = ("page_viewed", "order_placed", "form_submitted", "cart_updated")
    with place.engine.begin() as tx:
        for number in range(16):
            kind, where = kinds[number % 4], {"shelf": number // 4}
            config = {"event_type": kind, "where": where}
            new = NewWorkflow(name=f"W{number}", trigger_type="event", trigger_config=config, active=True,
                              exit_on=["order_placed"] if number % 3 == 0 else [],
                              steps=[DELAY, {**WAIT, "where": where}, TAG])  # fmt: skip
            workflows.create(tx, new, actor="bench", now=NOW - timedelta(days=1))
        others = (("signup", {}), ("tag_added", {"tag_name": "x"}), ("cart_abandoned", {}), ("webhook", {}))
        for kind, config in others:
            new = NewWorkflow(name=kind, trigger_type=kind, trigger_config=config, active=True, steps=[DELAY])
            workflows.create(tx, new, actor="bench", now=NOW - timedelta(days=1))
        for number in range(50):
            rule = NewRule(
                name=f"R{number}", trigger_type=kinds[number % 4], priority=number,
                conditions=[{"field": "shelf", "operator": "eq", "value": number % 40}],
                actions=[{"type": "add_tag", "config": {"tag_name": f"r{number % 5}"}}],
            )  # fmt: skip
            automations.create(tx, rule, actor="bench", now=NOW)


def dispatch_case(place: Bench, settings: Settings, count: int, people: int) -> tuple[float, bool]:
    """Dispatch events with workflows and rules active; returns CPU seconds and whether everything is right."""
    add_active(place)
    kinds = ("page_viewed", "order_placed", "form_submitted", "cart_updated", "custom")
    events = (
        NewEvent(
            event_type=kinds[n % 5], contact_id=1 + n * 7919 % people, source="shop",
            occurred_at=NOW - timedelta(seconds=count - n) / 10,
             properties={"shelf": n // 5 % 40, "cart_id": f"C{n}", "total": 12.5, "currency": "EUR"},
        )
        for n in range(count)
    )  # fmt: skip
    with place.engine.begin() as tx:
        append_many(tx, events, now=NOW, effects=True)
    analyze(place)
    before = ask(place, "select count(*) from enrollments where entry_key like 'event:%'")
    with place.measured(f"dispatch {count:,} events, 20 workflows, 50 rules") as cost:
        done = dispatch.run(place.engine, settings, now=NOW)
    entered = ask(place, "select count(*) from enrollments where entry_key like 'event:%'") - before
    sys.stdout.write(f"    {done}\n")
    right = done.events >= count and entered == done.enrolled > 0 and done.rules > 0
    return cost.cpu_seconds, right and ask(place, "select count(*) from cart_timers") > 0


def main() -> None:
    """Measure every case, the flatness, and dispatch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workflows", description=__doc__)
    parser.add_argument("--waiting", type=int, default=1_000_000)
    parser.add_argument("--due", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", choices=[*CASES, "dispatch"], default=[*CASES, "dispatch"])
    options = parser.parse_args()
    settings = Settings(default_from_email="news@shop.example")
    costs: dict[str, float] = {}
    verified = True
    with bench() as place:
        with place.engine.begin() as tx:
            tx.execute(text(_CONTACTS), {"count": options.due})
            for day in (NOW - timedelta(days=31), NOW, NOW + timedelta(days=10)):
                tx.execute(text("select ensure_month_partition('events', :day)"), {"day": day.date()})
        few = options.waiting // 10
        add_waiting(place, [TAG], few, due=False)
        if "delay" in options.only:
            costs["delay, a tenth waiting"], right = advance_case(place, settings, "delay", options.due, f"{few:,}")
            verified = verified and right
        add_waiting(place, [TAG], options.waiting - few, due=False)
        for name in options.only:
            if name == "dispatch":
                continue
            costs[name], right = advance_case(place, settings, name, options.due, f"{options.waiting:,}")
            verified = verified and right
        if "dispatch" in options.only:
            costs["dispatch"], right = dispatch_case(place, settings, options.events, options.due)
            verified = verified and right
    worst = max((cost for name, cost in costs.items() if name in CASES), default=costs.get("dispatch", 0.0))
    what = "100k due enrollments at one step type (the most costly)" if costs.keys() & CASES.keys() else "dispatch"
    finish(
        "workflows", worst, f"CPU s for {what}", rows=options.due,
        verified=verified, compared_to=json.loads(json.dumps({name: round(cost, 2) for name, cost in costs.items()})),
    )  # fmt: skip


if __name__ == "__main__":
    main()
