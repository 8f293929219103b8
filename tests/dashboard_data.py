"""A small shop for the pages of the dashboard: half a year of contacts, campaigns, scores and a workflow.

Figures are made by a seeded die, so that every run has the same; the names are hostile where people choose them.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, text

from mautolib.analytics import refreshing
from mautolib.campaigns import holdout, totals
from mautolib.db import tables
from tests.builders import make_campaign, make_contact, make_content, make_event, make_hit, make_message, make_order

HOSTILE = "=2+3 <script>alert(1)</script> \"'&"
_DOMAINS = ("gmail.com", "gmx.de", "outlook.com", "shop.example")
_STEPS: list[dict[str, Any]] = [
    {"type": "action", "action": "send_email", "template_id": "3", "name": "Welcome"},
    {"type": "delay", "hours": 72},
    {
        "type": "condition", "field": "country", "operator": "eq", "value": "PT",
        "then": [{"type": "action", "action": "tag", "tag_name": "Iberia"}],
        "else": [{"type": "exit", "reason": "other markets"}],
    },
    {"type": "action", "action": "tag", "tag_name": "Welcomed"},
]  # fmt: skip


@dataclass(frozen=True)
class Shop:
    """Ids of what was made: campaigns from the oldest, the first of them with the hostile name.

    `ab_test` was decided, `ab_draft` never started.
    """

    campaigns: list[int]
    draft: int
    workflow: int
    ab_test: int
    ab_draft: int


def make_shop(tx: Connection, *, now: datetime, contacts: int = 240, campaigns: int = 8) -> Shop:
    """Fill a database as it would be `now`."""
    dice = random.Random(7)
    people = [_person(tx, dice, number, now) for number in range(contacts)]
    sent = [_campaign(tx, dice, people, number, now, campaigns) for number in range(campaigns)]
    _more_orders(tx, dice, people, now)
    tried = _ab_test(tx, dice, people, now)
    draft = make_campaign(tx, name="Not sent yet")
    drafted = _new_ab_test(tx, draft, name="Two pictures", test_type="content", created_at=now)
    totals.refresh_many(tx, sent, now)
    for item in refreshing.TABLES:
        refreshing.refresh_within(tx, item, as_of=now)
    _scores(tx, dice, now)
    return Shop(sent, draft, _workflow(tx, people, now), tried, drafted)


def make_holdout(tx: Connection, *, now: datetime, contacts: int = 320) -> None:
    """Half of everybody held out for sixty days, and contacts of whom those mailed order more. Before `make_shop`."""
    dice = random.Random(11)
    began = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=60)
    tx.execute(text("insert into holdout_periods (salt, percent, begun_at, changed_by) "
                    "values ('pages', 50, :began, 'test')"), {"began": began})  # fmt: skip
    for number in range(contacts):
        contact = make_contact(tx, email=f"regular{number}@shop.example", created_at=began - timedelta(days=90))
        is_mailed = holdout.draw("pages", contact) >= holdout.DRAWS / 2
        before = dice.randrange(20, 120)
        make_order(tx, contact, began - timedelta(days=1 + 60 * dice.random()), total=str(before))
        if dice.random() < (0.75 if is_mailed else 0.55):
            total = before + dice.randrange(10, 40)
            make_order(tx, contact, began + (now - began) * 0.99 * dice.random(), total=str(total))


def _person(tx: Connection, dice: random.Random, number: int, now: datetime) -> int:
    joined = now - timedelta(days=180 * dice.random() ** 1.4, hours=1)
    email = f"person{number}.{now:%H%M%S%f}@{_DOMAINS[min(3, int(dice.expovariate(0.9)))]}"
    contact = make_contact(tx, email=email, created_at=joined, subscribed=dice.random() < 0.86)
    for week in range(int((now - joined).days / 7)):
        if dice.random() < 0.12 + 0.5 * 0.75**week:
            moment = joined + timedelta(days=7 * week, hours=dice.randrange(160))
            if moment < now:
                make_event(tx, contact, "email_opened", moment)
    return contact


def _campaign(tx: Connection, dice: random.Random, people: list[int], number: int, now: datetime, of: int) -> int:
    sent_at = now - timedelta(days=8 + 20 * (of - 1 - number), hours=2)
    name = HOSTILE if number == 0 else f"{('Spring', 'Tea week', 'Linen', 'Lamps')[number % 4]} {number}"
    campaign = make_campaign(tx, name=name, subject="What is new", status="sent", sent_at=sent_at,
                             requested_at=sent_at, started_at=sent_at, planned_at=sent_at)  # fmt: skip
    content = make_content(tx, campaign_id=campaign)
    for contact in people[: 60 + 20 * number]:
        what = dice.random()
        status = "skipped" if what < 0.06 else "bounced" if what < 0.1 else "failed" if what < 0.12 else "sent"
        times = {"sent_at": sent_at} if status == "sent" else {"reason": "hard"} if status == "bounced" else {}
        reason = {"reason": dice.choice(["unsubscribed", "suppressed", "frequency_cap"])} if status == "skipped" else {}
        code = {"last_code": 550} if status == "failed" else {}
        message = make_message(
            tx, contact, content_id=content, status=status, campaign_id=campaign, queued_at=sent_at, due_at=sent_at,
            **times, **reason, **code,
        )  # fmt: skip
        if status == "sent":
            _touch(tx, dice, contact, message, sent_at)
    return campaign


def _touch(tx: Connection, dice: random.Random, contact: int, message: int, sent_at: datetime) -> None:
    if dice.random() < 0.3:
        make_hit(tx, contact, message, verdict="prefetch", occurred_at=sent_at + timedelta(seconds=3))
    if dice.random() > 0.4:
        return
    opened = sent_at + timedelta(hours=dice.expovariate(0.08))
    make_hit(tx, contact, message, occurred_at=opened)
    if dice.random() < 0.35:
        url = dice.choice(["https://shop.example/new", "https://shop.example/tea", "https://shop.example/sale?a=1&b=2"])
        make_hit(tx, contact, message, "click", occurred_at=opened + timedelta(minutes=2), url=url)
        if dice.random() < 0.3:
            make_order(tx, contact, opened + timedelta(hours=1), total=str(dice.randrange(20, 200)))


def _more_orders(tx: Connection, dice: random.Random, people: list[int], now: datetime) -> None:
    """Orders that no mail brought, in three currencies; those in pounds have no rate yet."""
    for contact in people:
        first = now - timedelta(days=200 * dice.random() ** 0.8, hours=1)
        for _ in range(int(dice.expovariate(0.9))):
            placed = first + (now - first) * dice.random()
            currency = dice.choice(["USD", "USD", "USD", "EUR", "EUR", "GBP"])
            fx = {"USD": {}, "EUR": {"fx_rate": "1.09"}, "GBP": {"fx_rate": None, "fx_date": None}}[currency]
            refund = {"refunded_total": "5"} if dice.random() < 0.1 else {}
            make_order(tx, contact, placed, total=str(dice.randrange(15, 260)), currency=currency, **fx, **refund)


def _new_ab_test(tx: Connection, campaign: int, **values: Any) -> int:
    row = {"campaign_id": campaign, "conversion_days": 5, **values}
    test = int(tx.execute(insert(tables.ab_tests).values(row).returning(tables.ab_tests.c.test_id)).scalar_one())
    for place, name in enumerate(("Short", "Long")):
        tx.execute(insert(tables.ab_variants).values(
            test_id=test, position=place, name=name, subject=f"Spring{' is here at last' * place}",
        ))  # fmt: skip
    return test


def _ab_test(tx: Connection, dice: random.Random, people: list[int], now: datetime) -> int:
    """A test of two subjects in a campaign of its own; the longer one is opened more."""
    sent_at = now - timedelta(days=3)
    campaign = make_campaign(tx, name="Spring sale", status="sent", sent_at=sent_at + timedelta(hours=5),
                             requested_at=sent_at, started_at=sent_at, planned_at=sent_at)  # fmt: skip
    test = _new_ab_test(
        tx, campaign, name="Short or long <i>subject</i>", status="completed", started_at=sent_at, planned_at=sent_at,
        planned_occurrence=1, last_handover_at=sent_at, deadline_at=sent_at + timedelta(hours=4), decision="winner",
        completed_at=sent_at + timedelta(hours=4), released_at=sent_at + timedelta(hours=4), holdout_percentage=5,
        test_percentage=50, decision_reason="Long has the best open rate (p = 0.0004)",
    )  # fmt: skip
    variants = list(tx.scalars(text("select variant_id from ab_variants where test_id = :id order by position"),
                               {"id": test}))  # fmt: skip
    won = text("update ab_tests set winner_variant_id = :won where test_id = :id")
    tx.execute(won, {"won": variants[1], "id": test})
    content = make_content(tx, campaign_id=campaign)
    times = {"queued_at": sent_at, "due_at": sent_at, "campaign_id": campaign, "content_id": content}
    for number, contact in enumerate(people):
        if number % 20 == 19:
            make_message(tx, contact, status="skipped", reason="holdout", ab_part="holdout", **times)
            continue
        message = make_message(tx, contact, ab_part="test", variant_id=variants[number % 2], sent_at=sent_at, **times)
        if dice.random() < (0.25, 0.42)[number % 2]:
            opened = sent_at + timedelta(hours=min(70.0, dice.expovariate(0.1)))
            make_hit(tx, contact, message, occurred_at=opened)
            if dice.random() < 0.3:
                make_hit(tx, contact, message, "click", occurred_at=opened, url="https://shop.example/sale")
    return test


def _scores(tx: Connection, dice: random.Random, now: datetime) -> None:
    score = text(
        "insert into analytics.score_distribution values (:day, 1, :grade, :low, :high, :n, 20, 10, 5, :at)"
    )
    stage = text(
        "insert into analytics.lifecycle_funnel select :day, s.stage, s.stage_order, :n * (9 - s.stage_order), "
        "round(100.0 * (9 - s.stage_order) / 45, 2), :n % 5 + s.stage_order, :n % 4, 2.5 + 3.5 * s.stage_order, "
        "8.25 + 7.5 * s.stage_order, :at from lifecycle_stages as s where s.stage_order < 9"
    )
    for ago in range(40):
        day = now.date() - timedelta(days=ago)
        for place, grade in enumerate(("F", "D", "C", "B", "B+", "A", "A+")):
            for low in (place * 10, place * 10 + 10):
                tx.execute(score, {"day": day, "grade": grade, "low": low, "high": low + 10,
                                   "n": 60 - 7 * place + dice.randrange(5), "at": now})  # fmt: skip
        tx.execute(stage, {"day": day, "n": 60 - ago + dice.randrange(6), "at": now})


def _workflow(tx: Connection, people: list[int], now: datetime) -> int:
    made = {"name": "Welcome <b>series</b>", "steps": json.dumps(_STEPS)}
    workflow = int(tx.execute(text(
        "insert into workflows (name, trigger_type, steps, active) "
        "values (:name, 'signup', cast(:steps as jsonb), true) returning workflow_id"
    ), made).scalar_one())  # fmt: skip
    tx.execute(text(
        "insert into workflow_versions (workflow_id, version, trigger_type, trigger_config, steps) "
        "values (:id, 1, 'signup', '{}', cast(:steps as jsonb))"
    ), {"id": workflow, **made})  # fmt: skip
    enroll = text(
        "insert into enrollments (workflow_id, version, contact_id, entry_key, status, step_path, resume_at, "
        "caused_at, entered_at, finished_at) values (:w, 1, :c, :key, :status, :path, :due, :at, :at, :end) "
        "returning enrollment_id"
    )
    log = text(
        "insert into workflow_logs (workflow_id, enrollment_id, contact_id, step_path, step_index, status, created_at) "
        "values (:w, :e, :c, :path, 0, :status, :at)"
    )
    for number, contact in enumerate(people[:40]):
        # One could not go on: it stands at a step that nothing is logged of.
        status = "failed" if number == 5 else ("completed", "waiting", "exited", "completed")[number % 4]
        path = {"completed": "3", "waiting": "1", "exited": "2.else.0", "failed": "2"}[status]
        is_over = status != "waiting"
        values = {"w": workflow, "c": contact, "key": f"k{number}", "status": status, "path": path, "at": now,
                  "due": None if is_over else now, "end": now if is_over else None}  # fmt: skip
        enrollment = tx.execute(enroll, values).scalar_one()
        further = {"completed": ("2", "2.then.0", "3"), "exited": ("2", path, "3")}.get(status, ())
        for step in ("0", "1", *further):
            outcome = "failed" if step == "0" and number % 10 == 0 else "completed"
            outcome = "skipped" if step == "3" and status == "exited" else outcome
            tx.execute(log, {"w": workflow, "e": enrollment, "c": contact, "path": step, "status": outcome, "at": now})
    return workflow
