"""Fifty at once: one unique value, one Idempotency-Key - and a server that dies between effect and answer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from mautolib.auth import idempotency
from tests.api.contract import document, served
from tests.live_service import PASSWORD, LiveService, live_settings, make_users, serve

AT_ONCE = 50
SERVED = served(document())
CONTACTS = "/api/v1/contacts/"


def at_once(client: httpx.Client, send: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    """Fifty calls that begin together; one connection each."""
    start = threading.Barrier(AT_ONCE)

    def one(number: int) -> httpx.Response:
        start.wait(30)
        return send(number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(AT_ONCE)))


@pytest.fixture(scope="module")
def wide(service: LiveService) -> Iterator[httpx.Client]:
    """An administrator with fifty connections."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    with service.client("admin", limits=limits) as client:
        client.timeout = 60
        yield client


#: What has a unique value: a body, and another spelling of that value where there is one.
UNIQUE: dict[str, Callable[[str, int], dict[str, Any]]] = {
    CONTACTS: lambda mark, n: {"email": f"race-{mark}@{'SHOP' if n % 2 else 'shop'}.example", "first_name": str(n)},
    "/api/v1/tags/": lambda mark, n: {"name": f"race {mark}" if n % 2 else f"RACE {mark.upper()}"},
    "/api/v1/templates/": lambda mark, n: {"name": f"race {mark}", "subject": str(n), "html_body": "<p>x</p>"},
    "/api/v1/users/": lambda mark, n: {"email": f"race-{mark}@shop.example", "password": PASSWORD, "name": str(n)},
}


@pytest.mark.parametrize("path", [path for path in UNIQUE if ("POST", path) in SERVED])
def test_j9_of_fifty_that_want_one_value_one_gets_it(service: LiveService, wide: httpx.Client, path: str) -> None:
    mark = uuid4().hex
    answers = at_once(wide, lambda n: wide.post(path, json=UNIQUE[path](mark, n)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: AT_ONCE - 1}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"duplicate"}
    (won,) = (answer.json() for answer in answers if answer.status_code == 201)
    assert wide.get(f"{path}{won['id']}").json() == won
    table, column = {
        CONTACTS: ("contacts", "email"), "/api/v1/tags/": ("tags", "name"), "/api/v1/templates/": ("templates", "name"),
        "/api/v1/users/": ("users", "email"),
    }[path]  # fmt: skip
    with service.engine.begin() as tx:
        query = text(f"select count(*) from {table} where lower({column}) like :mark")
        assert tx.scalar(query, {"mark": f"%{mark}%"}) == 1


#: What one key must do once: a body, and how often its effect is there.
KEYED: dict[str, tuple[Callable[[str], Any], str]] = {
    CONTACTS: (lambda mark: {"email": f"{mark}@shop.example"}, "select count(*) from contacts where email like :mark"),
    "/api/v1/contacts/import": (
        lambda mark: [{"email": f"{mark}@shop.example"}],
        "select count(*) from audit_log where action = 'import.create' and request_id like :mark",
    ),
    "/api/v1/campaigns/": (
        lambda mark: {"name": mark, "subject": "s"}, "select count(*) from campaigns where name like :mark",
    ),
    "/api/v1/events/": (
        lambda mark: {"type": mark[:40], "properties": {}}, "select count(*) from events where event_type like :mark",
    ),
}  # fmt: skip


@pytest.mark.parametrize("path", [path for path in KEYED if ("POST", path) in SERVED])
def test_j11_fifty_with_one_key_have_one_effect_and_one_answer(
    service: LiveService, wide: httpx.Client, path: str
) -> None:
    mark = f"k{uuid4().hex}"
    body, query = KEYED[path]
    made = body(mark)
    if path == "/api/v1/events/":
        made["contact_id"] = wide.post(CONTACTS, json={"email": f"{mark}@shop.example"}).json()["id"]
    headers = {"Idempotency-Key": mark, "X-Request-ID": mark}
    answers = at_once(wide, lambda n: wide.post(path, json=made, headers=headers))
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1, Counter(
        answer.status_code for answer in answers
    )
    assert answers[0].is_success
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    with service.engine.begin() as tx:
        assert tx.scalar(text(query), {"mark": f"{mark[:40]}%"}) == 1


def test_fifty_with_one_key_and_other_bodies_have_one_effect(service: LiveService, wide: httpx.Client) -> None:
    mark = uuid4().hex
    headers = {"Idempotency-Key": mark}
    answers = at_once(wide, lambda n: wide.post(CONTACTS, json={"email": f"{n}-{mark}@shop.example"}, headers=headers))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: AT_ONCE - 1}
    assert {a.json()["code"] for a in answers if a.status_code == 422} == {"idempotency_mismatch"}
    with service.engine.begin() as tx:
        query = text("select count(*) from contacts where email like :mark")
        assert tx.scalar(query, {"mark": f"%{mark}%"}) == 1


def test_a_refusal_is_one_answer_too(wide: httpx.Client) -> None:
    mark = uuid4().hex
    wide.post(CONTACTS, json={"email": f"{mark}@shop.example"})
    headers, body = {"Idempotency-Key": mark}, {"email": f"{mark}@shop.example"}
    answers = at_once(wide, lambda n: wide.post(CONTACTS, json=body, headers=headers))
    assert {answer.status_code for answer in answers} == {409}
    assert len({answer.content for answer in answers}) == 1


def test_another_caller_or_path_with_the_same_key_is_another_call(service: LiveService) -> None:
    mark = uuid4().hex
    headers = {"Idempotency-Key": mark}
    with service.client("admin") as admin, service.client("editor") as editor:
        first = admin.post(CONTACTS, json={"email": f"a-{mark}@shop.example"}, headers=headers)
        second = editor.post(CONTACTS, json={"email": f"b-{mark}@shop.example"}, headers=headers)
        third = admin.post("/api/v1/campaigns/", json={"name": mark, "subject": "s"}, headers=headers)
    assert [answer.status_code for answer in (first, second, third)] == [201, 201, 201]
    assert all("Idempotency-Replayed" not in answer.headers for answer in (first, second, third))
    assert first.json()["id"] != second.json()["id"]


# ---- a server that dies

_DYING = """
import os, signal, sys, time
from pathlib import Path
import api.calls
from tests.live_service import live_settings, serve

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[3] == "before":
    api.calls.Call._perform = die
else:
    api.calls._answer = die
print(serve(live_settings(sys.argv[1], Path(sys.argv[2])))[0], flush=True)
time.sleep(60)
"""


def killed(database_url: str, home: Path, when: str, body: dict[str, Any], headers: dict[str, str]) -> None:
    """Send a call to a server of its own that is killed at that moment of it: its caller gets no answer."""
    command = [sys.executable, "-c", _DYING, database_url, str(home), when]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with pytest.raises(httpx.HTTPError):
                httpx.post(f"{url}{CONTACTS}", json=body, headers=headers, timeout=20, trust_env=False)
            assert process.wait(20) == -9
        finally:
            process.kill()


@pytest.fixture
def survivor(
    fresh_database_url: str, fresh_engine: Engine, tmp_path: Path
) -> Iterator[tuple[str, Path, httpx.Client, dict[str, str]]]:
    """A database with users, and the service that goes on after another one died: URL, home, client, headers."""
    make_users(fresh_engine)
    settings = live_settings(fresh_database_url, tmp_path)
    url, stop = serve(settings)
    service = LiveService(url=url, engine=fresh_engine, settings=settings)
    with service.client("editor") as client:
        headers = {"Authorization": client.headers["Authorization"], "Idempotency-Key": uuid4().hex}
        yield fresh_database_url, tmp_path, client, headers
    stop()


def test_j11_after_a_death_between_commit_and_answer_the_repeat_gets_the_answer(
    survivor: tuple[str, Path, httpx.Client, dict[str, str]], fresh_engine: Engine
) -> None:
    database_url, home, client, headers = survivor
    body = {"email": "lazarus@shop.example", "first_name": "Laz"}
    killed(database_url, home, "after", body, headers)
    again = client.post(CONTACTS, json=body, headers=headers)
    assert (again.status_code, again.headers.get("Idempotency-Replayed")) == (201, "true")
    assert client.get(f"{CONTACTS}{again.json()['id']}").json() == again.json()
    assert client.post(CONTACTS, json=body, headers=headers).content == again.content
    with fresh_engine.begin() as tx:
        assert tx.scalar(text("select count(*) from contacts")) == 1
        assert tx.scalar(text("select count(*) from audit_log where action = 'contact.create'")) == 1


def test_after_a_death_before_the_effect_the_key_is_free_again(
    survivor: tuple[str, Path, httpx.Client, dict[str, str]], fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import api.calls

    database_url, home, client, headers = survivor
    body = {"email": "unborn@shop.example"}
    killed(database_url, home, "before", body, headers)
    monkeypatch.setattr(api.calls, "WAIT_SECONDS", 0.2)
    early = client.post(CONTACTS, json=body, headers=headers)
    assert (early.status_code, early.json()["code"]) == (409, "idempotency_in_flight")
    monkeypatch.setattr(idempotency, "ABANDONED", timedelta(0))
    late = client.post(CONTACTS, json=body, headers=headers)
    assert (late.status_code, "Idempotency-Replayed" in late.headers) == (201, False)
    assert client.post(CONTACTS, json=body, headers=headers).headers["Idempotency-Replayed"] == "true"
    with fresh_engine.begin() as tx:
        assert tx.scalar(text("select count(*) from contacts")) == 1
