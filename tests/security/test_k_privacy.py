"""Group K, as far as it is about one person's data: erasure (K2), access (K3), and who may be mailed (K4).

K1, K9 and K10 belong to launching and sending campaigns, K5 to K7 to consent and tracking, K8 to maintenance
(tests/integration/test_maintenance.py).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, insert, text

from mautolib import dispatch, maintenance, workflows
from mautolib.analytics import cohorts, readers
from mautolib.campaigns import launch, planning, sending, totals
from mautolib.channels.console import Console
from mautolib.channels.null import Null
from mautolib.contacts import NewContact, imports
from mautolib.db import tables
from mautolib.db.engine import connect
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow
from tests import builders
from tests.integration.mailing import add_campaign
from tests.live_service import LiveService, as_role, live_settings, make_users, serve

API = "/api/v1"
EMAIL = "Zyx.Canary+vip@Quill-Shop.example"
KEY = "zyx.canary+vip@quill-shop.example"
OLD = "zyx.before@quill-shop.example"
FIRST, LAST, PHONE = "Zyxabelle", "Quillcanary", "+49 30 5551239987"
#: Nothing of this may be anywhere afterwards, in whatever case.
CANARIES = (KEY, "zyx.canary%2bvip%40quill-shop.example", "zyx.canary", OLD, FIRST, LAST, PHONE, "5551239987")
#: Tables the canary has reached when it came through every door.
EVERY_DOOR = {
    "contacts", "contact_history", "events", "event_keys", "orders", "refunds", "messages", "message_attempts",
    "message_contents", "message_keys", "hits", "outbox", "webhook_deliveries", "webhook_attempts", "idempotency_keys",
    "audit_log", "imports", "import_rejects", "suppressions", "automation_logs", "score_awards", "stage_transitions",
}  # fmt: skip


@dataclass
class Shop:
    """A service with a database and a home of its own."""

    service: LiveService
    settings: Settings
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        return self.service.engine

    def rows(self, sql: str, **binds: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as tx:
            return [tuple(row) for row in tx.execute(text(sql), binds)]


@pytest.fixture(scope="module")
def shop(cluster: Any, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    make_users(engine)
    with as_role(engine, "mauto_api") as api_url, as_role(engine, "mauto_eraser") as eraser_url:
        home = tmp_path_factory.mktemp("home")
        settings = live_settings(
            cluster.url(name), home, api_database_url=api_url, eraser_database_url=eraser_url
        )
        url, stop = serve(settings)
        yield Shop(LiveService(url=url, engine=engine, settings=settings), settings)
        stop()
    engine.dispose()
    cluster.drop(name)


def good(answer: httpx.Response) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


def use_every_door(shop: Shop, admin: httpx.Client) -> dict[str, Any]:
    """The canary comes in, is written to, clicks, buys, complains about nothing, and is talked about by others."""
    now = datetime.now(UTC)
    person = {"email": OLD, "first_name": FIRST, "last_name": LAST, "phone": PHONE, "country": "PT",
              "custom_fields": {"note": f"{FIRST} likes rings", "partner": EMAIL}}  # fmt: skip
    made = good(admin.post(f"{API}/contacts/", json=person, headers={
        "Idempotency-Key": f"signup-{OLD}", "X-Request-ID": f"req-{KEY}"}))  # fmt: skip
    path = f"{API}/contacts/{made['id']}"
    good(admin.patch(path, json={"email": EMAIL, "consent_status": "granted", "consent_source": "form"}))
    tag = good(admin.post(f"{API}/tags/", json={"name": "vip"}))
    good(admin.post(f"{path}/tags/{tag['id']}", headers={"Idempotency-Key": "tag-it"}))
    admin.post(f"{API}/contacts/", json=person | {"email": EMAIL}, headers={"Idempotency-Key": f"again-{KEY}"})
    import_files(shop, now)
    tell_events(shop, admin, now)
    talk_about(shop, int(made["id"]), now)
    send_mail(shop, int(made["id"]), now)
    leave_files(shop.settings.storage_path, int(made["id"]))
    good(admin.get(f"{path}/export"))
    return {**made, "int": int(made["id"])}


def import_files(shop: Shop, now: datetime) -> None:
    rows = [
        "email,first_name,last_name,phone,country,subscribed",
        f"{EMAIL},{FIRST},{LAST},{PHONE},PT,yes",
        f"{FIRST} <{EMAIL}@>,{FIRST},{LAST},{PHONE},PT,yes",
        f"{KEY},{'x' * 101},{LAST} {LAST},{PHONE},Nowhere of {FIRST},maybe {LAST}",
        f'{KEY},"{FIRST}',
        "other@quill-shop.example,Otto,Other,,DE,yes",
    ]
    file = imports.store_upload(shop.settings, ["\r\n".join(rows).encode()])
    waits = imports.store_upload(shop.settings, ["\r\n".join(rows[:2]).encode()])
    with shop.engine.begin() as tx:
        first = imports.request(tx, filename=f"{KEY}.csv", uri=file.uri, options={"update_policy": "merge"},
                                actor="user:1", now=now)  # fmt: skip
    done = imports.run(shop.engine, shop.settings, first, now=now)
    assert (done.status, done.rejected >= 2) == ("completed", True), done
    with shop.engine.begin() as tx:
        shop.facts["waiting"] = imports.request(tx, filename=f"for {EMAIL}.csv", uri=waits.uri, options={},
                                                actor="user:1", now=now)  # fmt: skip
        imports.import_items(tx, [NewContact(email=EMAIL, first_name=FIRST)], actor="user:1", now=now,
                             settings=shop.settings)  # fmt: skip


def tell_events(shop: Shop, admin: httpx.Client, now: datetime) -> None:
    other = good(admin.get(f"{API}/contacts/", params={"email": "other@quill-shop.example"}))[0]
    line = {"sku": "RING", "name": f"Ring for {FIRST}", "quantity": 2, "unit_price": "20.00", "engraving": LAST}
    order = {"order_id": f"N-{KEY}", "currency": "USD", "total": "40.00", "cart_id": "c1", "lines": [line]}
    page = f"https://x.example/?e={KEY.replace('@', '%40')}"
    told = [
        {"type": "form_submitted", "email": EMAIL, "external_id": f"form-{KEY}",
         "properties": {"form": "contact", "fields": {"mail": EMAIL, "name": f"{FIRST} {LAST}", "tel": PHONE}}},
        {"type": "page_viewed", "email": EMAIL, "properties": {"url": page}},
        {"type": "order_placed", "email": EMAIL, "properties": order},
        {"type": "order_refunded", "email": EMAIL,
         "properties": {"order_id": f"N-{KEY}", "currency": "USD", "amount": "5.00"}},
        {"type": "referred", "contact_id": other["id"],
         "properties": {"friend": EMAIL.upper(), "how": [f"mailto:{KEY}?subject=hi"], "n": 1.50}},
    ]  # fmt: skip
    answer = good(admin.post(f"{API}/events/", json=told))
    assert answer["accepted"] == len(told), answer
    shop.facts["other"] = int(other["id"])


def talk_about(shop: Shop, contact_id: int, now: datetime) -> None:
    """What parts that answer to nobody yet would have written: webhooks, rules, awards, single mails, hits."""
    with shop.engine.begin() as tx:
        endpoint = tx.scalar(insert(tables.webhook_endpoints).values(
            url="https://hook.example/", secret_encrypted=b"x").returning(tables.webhook_endpoints.c.endpoint_id))
        facts = tx.execute(text("select outbox_id, event_name, data from outbox where data #>> '{contact,id}' = :id"),
                           {"id": str(contact_id)}).all()  # fmt: skip
        assert len(facts) >= 2
        for fact in facts:
            delivery = tx.scalar(insert(tables.webhook_deliveries).values(
                endpoint_id=endpoint, outbox_id=fact.outbox_id, event_type=fact.event_name, webhook_message_id="m",
                payload={"id": "m", "event": fact.event_name, "data": fact.data}, next_attempt_at=now,
                error=f"said no to {KEY}").returning(tables.webhook_deliveries.c.delivery_id))  # fmt: skip
            tx.execute(insert(tables.webhook_attempts).values(
                delivery_id=delivery, attempt=1, at=now, response_status=500, duration_ms=1,
                response_body=f"hello {FIRST} {LAST}", error="500"))  # fmt: skip
        tx.execute(insert(tables.automation_logs).values(
            rule_id=1, contact_id=contact_id, trigger_type="x", status="failed", error=f"no {FIRST}",
            actions=[{"note": PHONE}]))  # fmt: skip
        tx.execute(insert(tables.score_awards).values(
            contact_id=contact_id, event_type="manual", points=5, reason=f"{FIRST} called", occurred_at=now,
            metadata={"tel": PHONE}))  # fmt: skip
        tx.execute(insert(tables.stage_transitions).values(
            contact_id=contact_id, previous_stage="new", new_stage="lead", reason=f"{LAST} asked", occurred_at=now))
        for number, kind in enumerate(("test", "transactional")):
            content_id = builders.make_content(tx, subject=f"Dear {FIRST}", html_body=f"<p>{EMAIL}</p>")
            message_id = builders.make_message(
                tx, contact_id * number, kind=kind, status="failed", content_id=content_id, to_email=EMAIL,
                to_key=KEY, context={"name": LAST}, last_error=f"550 {EMAIL}?", dedupe_key=f"{kind}:{KEY}",
            )  # fmt: skip
            tx.execute(insert(tables.message_keys).values(
                dedupe_key=f"{kind}:{KEY}", contact_id=contact_id * number, message_id=message_id))


def send_mail(shop: Shop, contact_id: int, now: datetime) -> None:
    html = '<p>Hello {{ contact.first_name }} <a href="https://shop.example/?e={{ contact.email }}">go</a></p>'
    with shop.engine.begin() as tx:
        step = {"action": "send_email", "subject": "Hi {{ contact.first_name }}", "body": html}
        workflow = workflows.create(tx, NewWorkflow(name="Hi", active=True, steps=[step]), actor="u", now=now)
        values = {"w": workflow.workflow_id, "c": contact_id, "at": now}
        tx.execute(text("insert into enrollments (workflow_id, version, contact_id, entry_key, resume_at, caused_at,"
                        " entered_at) values (:w, 1, :c, 'k', :at, :at, :at)"), values)  # fmt: skip
        campaigns = [add_campaign(tx, name=name, html_body=html).campaign_id for name in ("kept", "bounced")]
        for campaign_id in campaigns:
            launch.request_send(tx, shop.settings, campaign_id, now=now)
    dispatch.run(shop.engine, shop.settings, now=now)
    workflows.advance(shop.engine, shop.settings, now=now)
    console = Console(shop.settings.storage_path / "console.mbox")
    planning.plan_due(shop.engine, shop.settings, now, campaign_id=campaigns[0])
    sending.pump(shop.engine, shop.settings, now=now, group_size=10, open_way=lambda _: console)
    reply = f"550 5.1.1 <{EMAIL}> unknown"
    bounce = Result(verdict=Verdict.BOUNCED, stage=Stage.RCPT, code=550, reply=reply, reason="hard")
    planning.plan_due(shop.engine, shop.settings, now, campaign_id=campaigns[1])
    channel = Null({EMAIL.rpartition("@")[0] + "@quill-shop.example": bounce})
    sending.pump(shop.engine, shop.settings, now=now, group_size=10, open_way=lambda _: channel)
    with shop.engine.begin() as tx:
        sent = tx.execute(text("select message_id from messages where contact_id = :c and campaign_id = :id"),
                          {"c": contact_id, "id": campaigns[0]}).scalar_one()  # fmt: skip
        for kind in ("open", "click"):
            builders.make_hit(tx, contact_id, sent, kind, occurred_at=now, user_agent=f"{FIRST}'s phone",
                              network="192.0.2.0/24", campaign_id=campaigns[0],
                              url=f"https://shop.example/?e={KEY}&n={LAST}")  # fmt: skip
        builders.make_event(tx, contact_id, "email_opened", now, message_id=sent, campaign_id=campaigns[0],
                            source="mauto", properties={"url": KEY})  # fmt: skip
    shop.facts["campaigns"] = campaigns


def leave_files(storage: Path, contact_id: int) -> None:
    (storage / "spool").mkdir(exist_ok=True)
    hits = [["2026-11-22T00:00:00+00:00", "click", "human", contact_id, None, None, 1, f"https://x/?{KEY}", FIRST]]
    (storage / "spool" / "failed.ndjson").write_text(json.dumps({"key": "k", "rule": 1, "hits": hits}) + "\n")
    (storage / "journal").mkdir(exist_ok=True)
    line = json.dumps(["result", 1, contact_id, 1, f"550 <{EMAIL}>"])
    (storage / "journal" / "1-dead.journal").write_text(f"{line}\n")


def columns_of(shop: Shop) -> list[tuple[str, str, str]]:
    return [(a, b, c) for a, b, c in shop.rows("""
        select c.table_schema || '.' || c.table_name, c.column_name, c.udt_name
        from information_schema.columns c
        join information_schema.tables t using (table_schema, table_name)
        where t.table_type = 'BASE TABLE' and c.table_schema not in ('pg_catalog', 'information_schema')
        order by 1, 2""")]  # fmt: skip


def found_in_database(shop: Shop) -> list[str]:
    """Every column of every table of every schema that still holds a canary."""
    found = []
    with shop.engine.connect() as tx:
        for table, column, kind in columns_of(shop):
            shown = f"encode(\"{column}\", 'escape')" if kind == "bytea" else f'cast("{column}" as text)'
            query = f"select count(*) from {table} where lower({shown}) like any(:canaries)"
            likes = ["%" + canary.lower().replace("%", "\\%") + "%" for canary in CANARIES]
            count = tx.scalar(text(query.replace(":canaries", "cast(:canaries as text[])")), {"canaries": likes})
            if count:
                found.append(f"{table}.{column} ({count})")
    return found


def found_in_files(folder: Path) -> list[str]:
    pattern = re.compile("|".join(map(re.escape, CANARIES)), re.IGNORECASE)
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))
            if path.is_file() and pattern.search(path.read_bytes().decode("utf-8", "replace"))]  # fmt: skip


def figures(shop: Shop, as_of: datetime) -> dict[str, Any]:
    """Totals of the past as people see them, computed anew."""
    cohorts.refresh(shop.engine, as_of=as_of)
    with shop.engine.begin() as tx:
        totals.refresh_many(tx, shop.facts["campaigns"], as_of)
    with shop.engine.connect() as tx:
        weeks = [(week["week_start"], week["total"]) for week in readers.signup_weeks(tx, weeks=4, now=as_of)]
    same = "select * from {} order by 1"
    counted = [tuple(row[:-1]) for row in shop.rows(same.format("campaign_totals"))]
    return {
        "weeks": weeks, "campaign_totals": counted,
        "performance": shop.rows(same.format("analytics.campaign_performance")),
        "cohorts": shop.rows("select granularity, cohort_start, period_offset, cohort_size, active_count"
                             " from analytics.contact_cohorts order by 1, 2, 3"),
        "orders": shop.rows("select count(*), sum(total), sum(refunded_total), sum(net_total) from orders"),
        "events": shop.rows("select event_type, count(*) from events where source <> 'mauto' group by 1 order by 1"),
    }  # fmt: skip


def test_k2_nothing_of_an_erased_person_is_left(shop: Shop) -> None:
    with shop.service.client("admin") as admin:
        person = use_every_door(shop, admin)
        before_tables = {place.split(".")[1] for place in found_in_database(shop)}
        assert before_tables >= EVERY_DOOR
        assert len(found_in_files(shop.settings.storage_path)) >= 4
        as_of = datetime.now(UTC) + timedelta(days=40)
        before = figures(shop, as_of)

        answer = admin.delete(f"{API}/contacts/{person['id']}", params={"erase": "true"})
        assert answer.status_code == 204, answer.text
        assert admin.get(f"{API}/contacts/", params={"email": EMAIL}).json() == []
        assert not [hit for hit in found_in_database(shop) if hit.startswith(("public.contacts.", "public.contact_"))]
        with as_role(shop.engine, "mauto_worker") as worker_url:
            worker = connect(worker_url)
            counts = maintenance.run(worker, shop.settings, now=datetime.now(UTC), task="erasure")
            worker.dispose()
        assert counts == {"erasures": 1}

        left = found_in_database(shop)
        assert not left, "\n".join(left)
        assert found_in_files(shop.settings.storage_path) == []
        assert figures(shop, as_of) == before, "totals of the past do not change"
        shown = admin.get(answer.headers["Location"]).json()
        assert shown["status"] == "completed"
        assert {count["table"] for count in shown["tables"]} >= EVERY_DOOR - {"webhook_attempts"}

        # What waits is carried out without bringing the person back, and what stays still stops mail.
        imports.run(shop.engine, shop.settings, shop.facts["waiting"], now=datetime.now(UTC))
        left = found_in_database(shop)
        assert not left, "\n".join(left)
        entry = admin.get(f"{API}/suppression/check", params={"email": EMAIL}).json()["entry"]
        assert re.fullmatch("erased:[0-9a-f]{64}", entry["email"])
        # The bounce was the reason; a person who bounced may subscribe again, and is not mailed all the same.
        assert (entry["reason"], entry["source"], entry["notes"]) == ("bounce", "erasure", "")
        good(admin.post(f"{API}/contacts/", json={"email": EMAIL}))
        mailable = shop.rows("select count(*) from mailable_contacts where email_key = :key", key=KEY)
        assert mailable == [(0,)]


def test_k2_links_of_an_erased_person_record_nothing_personal(shop: Shop) -> None:
    from mautolib.events.hits import Hit, HitKind, arguments, record_sql

    with shop.service.client("admin") as admin:
        made = good(admin.post(f"{API}/contacts/", json={"email": "link@quill-shop.example"}))
        assert admin.delete(f"{API}/contacts/{made['id']}", params={"erase": "true"}).status_code == 204
    hit = Hit(int(time.time() * 1e6), HitKind.CLICK, "human", contact_id=int(made["id"]), url="https://shop.example/",
              user_agent="Firefox")  # fmt: skip
    sql = re.sub(r"\$(\d+)", lambda match: f"%(p{match[1]})s", record_sql().replace("%", "%%"))
    values = {f"p{number}": value for number, value in enumerate(arguments("k2-key", 1, [hit]), start=1)}
    with shop.engine.begin() as tx:
        tx.exec_driver_sql(sql, values)
    assert shop.rows("select count(*) from hits where contact_id = :id", id=int(made["id"])) == [(0,)]
    assert shop.rows("select count(*) from events where contact_id = :id and event_type = 'email_clicked'",
                     id=int(made["id"])) == [(0,)]  # fmt: skip


def test_k2_only_the_eraser_may_change_what_is_append_only(shop: Shop) -> None:
    tables_of = ("events", "hits", "consents", "audit_log", "message_attempts", "stage_transitions")
    for role, may in (("mauto_api", False), ("mauto_worker", False), ("mauto_tracker", False), ("mauto_eraser", True)):
        for table in tables_of:
            query = "select has_table_privilege(:role, :table, 'update'), has_table_privilege(:role, :table, 'delete')"
            assert shop.rows(query, role=role, table=table) == [(may, may)], (role, table)
    assert shop.rows("select has_table_privilege('mauto_eraser', 'contacts', 'insert')") == [(False,)]
    assert shop.rows("select has_schema_privilege('mauto_eraser', 'public', 'create')") == [(False,)]


def test_k3_an_export_is_of_one_person_only(shop: Shop) -> None:
    with shop.service.client("admin") as admin:
        people = [good(admin.post(f"{API}/contacts/", json={"email": f"{name}@k3.example", "first_name": name.title()}))
                  for name in ("anna", "bert")]  # fmt: skip
        for person in people:
            event = {"type": "form_submitted", "contact_id": person["id"],
                     "properties": {"form": "f", "fields": {"name": person["first_name"]}}}  # fmt: skip
            good(admin.post(f"{API}/events/", json=event))
        exported = admin.get(f"{API}/contacts/{people[0]['id']}/export").text
        assert "Anna" in exported and "anna@k3.example" in exported
        assert "bert" not in exported.lower()
        assert "@shop.example" not in exported, "nor of the staff"
        entries = good(admin.get(f"{API}/audit-log/", params={"action": "contact.export"}))
        assert entries[0]["resource_id"] == people[0]["id"]
    for role in ("viewer", "editor"):
        with shop.service.client(role) as client:
            assert client.get(f"{API}/contacts/{people[0]['id']}/export").status_code == 403


def test_k4_without_consent_nobody_is_in_the_audience_and_the_reason_is_shown(shop: Shop) -> None:
    settings = replace(shop.settings, require_consent=True)
    with shop.engine.begin() as tx:
        one = builders.make_contact(tx, email="unasked@k4.example", consent_status="unknown")
        campaign = add_campaign(tx, name="K4")
        launch.request_send(tx, settings, campaign.campaign_id, now=datetime.now(UTC))
    planning.plan_due(shop.engine, settings, datetime.now(UTC), campaign_id=campaign.campaign_id)
    states = shop.rows("select status, reason from messages where contact_id = :id and campaign_id = :campaign",
                       id=one, campaign=campaign.campaign_id)  # fmt: skip
    assert states in ([], [("skipped", "no_consent")])
    with shop.service.client("viewer") as viewer:
        shown = viewer.get(f"{API}/contacts/{one}/messages").json()
    assert [(message["status"], message["reason"]) for message in shown] == states
