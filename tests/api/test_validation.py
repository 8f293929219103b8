"""Address checks over HTTP: one and many, with a name server on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from tests.live_service import LiveService, live_settings, serve
from tests.name_server import NameServer, serve_names

ONE, MANY = "/api/v1/validate/email", "/api/v1/validate/emails/bulk"


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    records = {"shop.example": {"MX": ("10 mx.shop.example.",)}, "old.example": {"A": ("192.0.2.1",)}}
    with serve_names(NameServer(records, silent=frozenset({"slow.example"}))) as server:
        yield server


@pytest.fixture(scope="module")
def online(service: LiveService, names: NameServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A viewer's client of a service that asks the name server above."""
    home: Path = tmp_path_factory.mktemp("online")
    url, stop = serve(live_settings(service.settings.database_url, home, dns_servers=(names.address,)))
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {service.token('viewer')}"}, timeout=30, trust_env=False
    ) as client:
        yield client
    stop()


def test_one_address_has_exactly_these_fields(viewer: httpx.Client) -> None:
    answer = viewer.post(ONE, params={"email": "Info+a@Gmail.com"})
    assert answer.status_code == 200
    assert answer.json() == {
        "email": "Info+a@Gmail.com", "valid": True, "risk": "high", "score": 60.0, "local_part": "info+a",
        "domain": "gmail.com", "tld": "com", "is_disposable": False, "is_free_provider": True, "is_role_based": True,
        "has_mx_records": False, "mx_records": [], "warnings": ["role_based", "free_provider", "plus_address"],
        "errors": [],
    }  # fmt: skip


def test_a_level_says_how_far_to_look(viewer: httpx.Client) -> None:
    syntax = viewer.post(ONE, params={"email": "x@mailinator.com", "level": "syntax"}).json()
    domain = viewer.post(ONE, params={"email": "x@mailinator.com"}).json()
    assert (syntax["valid"], syntax["score"]) == (True, 100)
    assert (domain["valid"], domain["score"], domain["risk"], domain["is_disposable"]) == (False, 5, "critical", True)
    for bad in ("", "deep", "SYNTAX"):
        assert viewer.post(ONE, params={"email": "x@shop.example", "level": bad}).status_code == 422
        assert viewer.post(MANY, json={"emails": [], "level": bad}).status_code == 422


@pytest.mark.parametrize("email", ["", "a\nb@shop.example", "x" * 5000, "=cmd|' /C'!A0", "a@b@c", "\u202e@x.example"])
def test_any_text_has_a_result(viewer: httpx.Client, email: str) -> None:
    answer = viewer.post(ONE, params={"email": email})
    assert (answer.status_code, answer.json()["valid"], answer.json()["score"]) == (200, False, 0)
    assert answer.json()["email"] == email


def test_what_is_no_question_is_422(viewer: httpx.Client) -> None:
    assert viewer.post(ONE).json()["detail"][0]["loc"] == ["query", "email"]
    assert viewer.post(ONE, params={"email": "a\0@shop.example"}).status_code == 422
    for body in ({}, {"emails": None}, {"emails": "a@b.example"}, {"emails": [1]}, {"emails": [None]}, []):
        assert viewer.post(MANY, json=body).status_code == 422


def test_many_are_counted_and_stay_in_order(viewer: httpx.Client) -> None:
    emails = ["Z@shop.example", "bad", "a@gmail.com", "info@shop.example", "x@mailinator.com", "Z@shop.example"]
    found = viewer.post(MANY, json={"emails": emails}).json()
    results = found.pop("results")
    assert [one["email"] for one in results] == emails
    assert found == {
        "total": 6, "valid": 4, "invalid": 2,
        "risk_distribution": {"low": 2, "medium": 1, "high": 1, "critical": 2}, "avg_score": 61.67,
        "disposable_count": 1, "role_based_count": 1,
    }  # fmt: skip
    empty = viewer.post(MANY, json={"emails": []}).json()
    assert (empty["total"], empty["avg_score"], empty["results"]) == (0, 0, [])


def test_a_thousand_are_the_most(viewer: httpx.Client) -> None:
    assert viewer.post(MANY, json={"emails": ["a@shop.example"] * 1000}).json()["total"] == 1000
    answer = viewer.post(MANY, json={"emails": ["a@shop.example"] * 1001})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Maximum 1000 emails per batch")
    # More than a mebibyte is fine here, more than five are not.
    assert viewer.post(MANY, json={"emails": ["x" * 2_000_000]}).status_code == 200
    assert viewer.post(MANY, json={"emails": ["x" * 5_300_000]}).status_code == 413


def test_the_dns_is_asked_once_a_domain(online: httpx.Client, names: NameServer) -> None:
    names.asked.clear()
    emails = ["a@shop.example", "b@shop.example", "c@old.example", "d@gone.example", "e@slow.example", "bad"]
    found = online.post(MANY, json={"emails": emails, "level": "mx"}, timeout=30).json()["results"]
    assert [(one["has_mx_records"], one["mx_records"], one["score"], one["risk"]) for one in found] == [
        (True, ["mx.shop.example"], 100, "low"), (True, ["mx.shop.example"], 100, "low"),
        (True, ["old.example"], 100, "low"), (False, [], 50, "critical"), (False, [], 100, "low"),
        (False, [], 0, "critical"),
    ]  # fmt: skip
    assert (found[3]["errors"], found[4]["warnings"], found[4]["valid"]) == (["no_mail_host"], ["dns_timeout"], True)
    assert [name for name, _ in names.asked].count("shop.example") == 1
    again = online.post(ONE, params={"email": "x@shop.example", "level": "full"}).json()
    assert (again["mx_records"], [name for name, _ in names.asked].count("shop.example")) == (["mx.shop.example"], 1)


def test_an_import_asks_no_name_server(service: LiveService, online: httpx.Client, names: NameServer) -> None:
    names.asked.clear()
    editor = {"Authorization": f"Bearer {service.token('editor')}"}
    file = b"email\nnew@slow.example\nold@gone.example\n"
    taken = online.post("/api/v1/import/csv", files={"file": ("a.csv", file)}, headers=editor)
    assert (taken.status_code, taken.json()["created"], names.asked) == (200, 2, [])


def test_a_dead_name_server_costs_nobody_points(service: LiveService, tmp_path: Path) -> None:
    url, stop = serve(live_settings(service.settings.database_url, tmp_path, dns_servers=("127.0.0.1:1",)))
    try:
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {service.token('viewer')}"}
        emails = [f"ana@shop{number}.example" for number in range(60)]
        found = httpx.post(f"{url}{MANY}", json={"emails": emails, "level": "full"}, headers=headers, timeout=30,
                           trust_env=False).json()  # fmt: skip
        assert time.monotonic() - began < 10
        assert {(one["valid"], one["score"], *one["warnings"]) for one in found["results"]} <= {
            (True, 100, "dns_timeout"), (True, 100, "dns_failed")}  # fmt: skip
        assert (found["total"], found["valid"]) == (60, 60)
    finally:
        stop()


def test_a_check_leaves_its_count_behind_and_no_address(service: LiveService, viewer: httpx.Client) -> None:
    viewer.post(MANY, json={"emails": ["hidden-canary@shop.example"]})
    with service.engine.begin() as tx:
        action, changes = tx.execute(
            text("select action, changes from audit_log where action like 'address.%' order by audit_id desc limit 1")
        ).one()
        assert (action, changes) == ("address.check_many", {"emails": 1, "level": "domain"})
        for table in ("contacts", "audit_log", "idempotency_keys"):
            query = text(f"select count(*) from {table} where {table}::text like '%hidden-canary%'")
            assert tx.scalar(query) == 0


def test_nobody_checks_without_signing_in(nobody: httpx.Client) -> None:
    assert nobody.post(ONE, params={"email": "a@b.example"}).status_code == 401
    assert nobody.post(MANY, json={"emails": []}).status_code == 401
