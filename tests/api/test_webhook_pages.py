"""The pages of webhooks: what was delivered, one delivery in full, and delivering again by a form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.builders import make_delivery
from tests.live_service import PASSWORD, LiveService

PAGE = "/dashboard/webhooks"


def csrf_of(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found, page.text[:500]
    return found.group(1)


@contextmanager
def signed_in(service: LiveService, role: str) -> Iterator[httpx.Client]:
    with service.client(follow_redirects=True) as client:
        form = client.get("/dashboard/sign-in")
        body = {"csrf": csrf_of(form), "email": f"{role}@shop.example", "password": PASSWORD}
        assert client.post("/dashboard/sign-in", data=body).status_code == 200
        yield client


@pytest.fixture
def webhook(admin: httpx.Client) -> dict[str, str]:
    body = {"url": f"https://hooks.shop.example/{uuid4().hex}", "events": ["ab_test.winner_selected"]}
    found: dict[str, str] = admin.post("/api/v1/webhooks/", json=body).json()
    return found


@pytest.fixture
def deliver(service: LiveService, webhook: dict[str, str]) -> Callable[..., str]:
    def write(**fields: object) -> str:
        with service.engine.begin() as tx:
            return str(make_delivery(tx, int(webhook["id"]), **fields))  # type: ignore[arg-type]

    return write


def test_a_stranger_sees_nothing(nobody: httpx.Client, deliver: Callable[..., str]) -> None:
    delivery = deliver()
    for path in (PAGE, f"{PAGE}/{delivery}"):
        answer = nobody.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/dashboard/sign-in")
    assert nobody.post(f"{PAGE}/{delivery}/replay", data={"csrf": "x"}).status_code == 403


def test_the_list_shows_endpoints_and_deliveries(
    service: LiveService, webhook: dict[str, str], deliver: Callable[..., str]
) -> None:
    dead, fine = deliver(event_type="contact.created"), deliver(event_type="email.sent", status="succeeded")
    with signed_in(service, "viewer") as client:
        page = client.get(PAGE)
        assert page.status_code == 200 and webhook["url"] in page.text
        assert f'href="{PAGE}/{dead}"' in page.text and f'href="{PAGE}/{fine}"' in page.text
        only = client.get(PAGE, params={"status": "dead", "endpoint": webhook["id"]}).text
        assert f'href="{PAGE}/{dead}"' in only and f'href="{PAGE}/{fine}"' not in only
        for odd in ({"status": "x"}, {"endpoint": "9" * 40}, {"before": "-1"}, {"status": "\x00"}):
            assert client.get(PAGE, params=odd).status_code == 200


def test_more_than_a_page_is_reached_by_older(
    service: LiveService, webhook: dict[str, str], deliver: Callable[..., str]
) -> None:
    first = deliver()
    for _ in range(50):
        deliver()
    with signed_in(service, "viewer") as client:
        page = client.get(PAGE, params={"endpoint": webhook["id"], "status": "dead"})
        assert f'{PAGE}/{first}"' not in page.text
        (older,) = re.findall(r'href="([^"]+)">Older', page.text)
        rest = client.get(older.replace("&amp;", "&"))
        assert f'{PAGE}/{first}"' in rest.text and "Older" not in rest.text


def test_one_delivery_shows_payload_and_answers_as_text(service: LiveService, deliver: Callable[..., str]) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    payload = {"id": "m", "event": "contact.created", "data": {"name": attack, "größe": 1}}
    delivery = deliver(payload=payload, error=attack)
    with service.engine.begin() as tx:
        change = text("update webhook_attempts set response_body = :body where delivery_id = :id")
        tx.execute(change, {"body": attack + "\x1b[31m", "id": int(delivery)})
    with signed_in(service, "viewer") as client:
        page = client.get(f"{PAGE}/{delivery}")
        assert page.status_code == 200 and page.text.count("&lt;script&gt;") == 4 and "<script" not in page.text
        assert "<img" not in page.text and "größe" in page.text
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        for unknown in ("987654321987", "0", "x", "%00"):
            missing = client.get(f"{PAGE}/{unknown}")
            assert missing.status_code == 404 and "There is no such delivery" in missing.text


def test_what_a_workflow_tells_is_shown_with_its_address_and_delivered_again(service: LiveService) -> None:
    url = f"https://crm.shop.example/{uuid4().hex}"
    with service.engine.begin() as tx:
        values = {"url": url}
        number = tx.scalar(text("insert into webhook_endpoints (url, events, is_listed) values (:url, '{}', false)"
                                " returning endpoint_id"), values)  # fmt: skip
        delivery = make_delivery(tx, number, event_type="workflow.webhook")
    with signed_in(service, "editor") as client:
        listed = client.get(PAGE).text
        assert f'title="{url}"' in listed and f'href="?endpoint={number}"' not in listed
        page = client.get(f"{PAGE}/{delivery}")
        assert url in page.text and "disabled" not in page.text
        again = client.post(f"{PAGE}/{delivery}/replay", data={"csrf": csrf_of(page)})
        assert again.status_code == 200
    with service.engine.begin() as tx:
        query = text("delete from webhook_deliveries where delivery_id = :id returning status")
        assert tx.scalar(query, {"id": delivery}) == "pending"


def test_an_editor_delivers_again_and_it_is_audited(service: LiveService, deliver: Callable[..., str]) -> None:
    delivery = deliver()
    with signed_in(service, "editor") as client:
        page = client.get(f"{PAGE}/{delivery}")
        assert "Deliver again" in page.text
        for csrf in ("", "wrong"):
            assert client.post(f"{PAGE}/{delivery}/replay", data={"csrf": csrf}).status_code == 403
        json_body = client.post(f"{PAGE}/{delivery}/replay", json={"csrf": csrf_of(page)})
        assert json_body.status_code == 415
        form = {"csrf": csrf_of(page)}
        again = client.post(f"{PAGE}/{delivery}/replay", data=form)
        assert again.status_code == 200 and "It waits to be delivered again." in again.text
        assert "Deliver again" not in again.text and "Next attempt" in again.text
        assert client.post(f"{PAGE}/{delivery}/replay", data=form).status_code == 200  # shown, not sent twice
        assert client.post(f"{PAGE}/987654321/replay", data=form).status_code == 404
    with service.engine.begin() as tx:
        query = text("select status, replayed_after from webhook_deliveries where delivery_id = :id")
        assert tuple(tx.execute(query, {"id": int(delivery)}).one()) == ("pending", 1)
        entries = tx.execute(
            text("select count(*) from audit_log where action = 'webhook.retry' and changes ->> 'delivery_id' = :id"),
            {"id": delivery},
        )
        assert entries.scalar_one() == 1


def test_a_viewer_may_look_but_not_deliver(service: LiveService, deliver: Callable[..., str]) -> None:
    delivery = deliver()
    with signed_in(service, "viewer") as client:
        page = client.get(f"{PAGE}/{delivery}")
        assert "Deliver again" not in page.text and "Editors can deliver it again" in page.text
        answer = client.post(f"{PAGE}/{delivery}/replay", data={"csrf": csrf_of(page)})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        # A page's session is no token.
        assert client.get(f"/api/v1/webhooks/1/deliveries/{delivery}").status_code == 401
