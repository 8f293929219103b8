"""The main job from end to end: a file is uploaded, a campaign goes out, people react, a week later a cohort shows it.

Nothing is faked: HTTP service, DAGs, warehouse, SMTP sink, the links in the mail.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from mautolib.auth import users
from mautolib.ledger import check
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.live_service import serve

pytestmark = pytest.mark.filterwarnings("default")

FILE = """E-Mail;First name;Country;Subscribed
anna@shop.example;Anna;DE;yes
bruno@shop.example;Bruno;IT;yes
carla@shop.example;Carla;ES;no
not an address;Nobody;FR;yes
ANNA@shop.example;Anna again;DE;yes
"""
BODY = """<html><body><p>Dear {{ contact.first_name }},</p>
<p><a href="https://shop.example/new?a=1&amp;b=2">what is new</a></p></body></html>"""
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0"}


def rows(engine: Engine, sql: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def links(html: str, kind: str) -> list[str]:
    return [unescape(url) for url in re.findall(r'(?:href|src)="([^"]+)"', html) if f"/track/{kind}/" in url]


def until(condition: Any) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)


def test_the_main_job(
    run_dag: Any, fresh_engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_engine.begin() as tx:
        users.ensure_admin(tx, settings, datetime.now(UTC))
    url, stop = serve(settings)
    try:
        with MailSink(tmp_path / "sink") as sink, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            monkeypatch.setenv("MAUTO_SMTP_PORT", str(sink.smtp_port))
            monkeypatch.setenv("MAUTO_PUBLIC_BASE_URL", url)
            sign_in(client, settings)
            upload(client, run_dag)
            campaign_id = send(client, run_dag)
            assert rows(fresh_engine, "select status, reason from messages order by contact_id") == [
                ("sent", None), ("sent", None), ("skipped", "unsubscribed")]  # fmt: skip
            react(sink, fresh_engine)
            assert client.get(f"/api/v1/campaigns/{campaign_id}").json()["total_sent"] == 2
            log = check.read_sink_log(tmp_path / "sink")
    finally:
        stop()
    assert run_dag("cohort_analytics", as_of=(datetime.now(UTC) + timedelta(days=14)).isoformat()).state == "success"
    week = "select cohort_size, active_count, retention_rate from analytics.contact_cohorts where granularity = 'week'"
    assert rows(fresh_engine, f"{week} and period_offset = 0") == [(3, 1, Decimal("33.3333"))]
    performance = "select sent, unique_opens, unique_clicks, unsubscribed, skipped from analytics.campaign_performance"
    assert rows(fresh_engine, performance) == [(2, 1, 1, 1, 1)]
    with fresh_engine.connect() as connection:
        assert check.check(connection, log) == []


def sign_in(client: httpx.Client, settings: Settings) -> None:
    body = {"email": settings.admin_email, "password": settings.admin_password}
    token = client.post("/api/v1/auth/login", json=body).json()["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"


def upload(client: httpx.Client, run_dag: Any) -> None:
    answer = client.post("/api/v1/contacts/import", files={"file": ("shop.csv", FILE.encode(), "text/csv")})
    assert answer.status_code == 202, answer.text
    assert run_dag("contact_import").state == "success"
    found = client.get(answer.json()["status_url"]).json()
    counts = {name: found[name] for name in ("status", "total_rows", "created", "updated", "skipped", "rejected")}
    assert counts == {"status": "completed", "total_rows": 5, "created": 3, "updated": 0, "skipped": 2, "rejected": 1}
    assert client.get(found["errors_url"]).text.splitlines()[1].startswith("5,E-Mail,invalid_email")


def send(client: httpx.Client, run_dag: Any) -> str:
    body = {"name": "News", "subject": "News for {{ contact.first_name }}", "html_body": BODY}
    campaign_id: str = client.post("/api/v1/campaigns/", json=body).json()["id"]
    assert client.post(f"/api/v1/campaigns/{campaign_id}/send").status_code == 202
    assert run_dag("campaign_send").state == "success"
    assert run_dag("campaign_send").state == "success", "a second run finds nothing to do"
    assert client.get(f"/api/v1/campaigns/{campaign_id}").json()["status"] == "sent"
    return campaign_id


def react(sink: MailSink, engine: Engine) -> None:
    """Anna opens and clicks, Bruno leaves."""
    mails = {mail.recipients[0]: mail for mail in sink.wait_for(2)}
    assert sorted(mails) == ["anna@shop.example", "bruno@shop.example"]
    anna, bruno = mails["anna@shop.example"], mails["bruno@shop.example"]
    assert anna.subject == "News for Anna"
    time.sleep(1.1)  # a hit within a second of rendering is a machine's
    with httpx.Client(headers=BROWSER, timeout=20, trust_env=False) as reader:
        assert reader.get(links(anna.html, "open")[0]).headers["content-type"] == "image/gif"
        clicked = reader.get(links(anna.html, "click")[0])
        assert (clicked.status_code, clicked.headers["location"]) == (302, "https://shop.example/new?a=1&b=2")
        leave = links(bruno.html, "unsubscribe")[0]
        assert reader.get(leave).status_code == 200
        assert rows(engine, "select count(*) from suppressions") == [(0,)], "looking changes nothing"
        assert reader.post(leave, data={"List-Unsubscribe": "One-Click"}).status_code == 200
    until(lambda: rows(engine, "select email_key, reason from suppressions") == [("bruno@shop.example", "unsubscribe")])
    assert rows(engine, "select subscribed from contacts where email_key = 'bruno@shop.example'") == [(False,)]
