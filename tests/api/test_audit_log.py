"""The audit log over HTTP: what stands in it, how it is read, and that nobody can change it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from mautolib.db.engine import connect
from tests.live_service import LiveService, as_role

AUDIT, CONTACTS = "/api/v1/audit-log/", "/api/v1/contacts/"


def entries(admin: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    answer = admin.get(AUDIT, params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def seed(service: LiveService, action: str, count: int, **columns: Any) -> list[str]:
    """Entries of one action, a minute apart and the first two at one moment; their ids, newest first."""
    at = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    values = {"actor_type": "user", "actor_id": 1, "resource_type": "audit_test", "status": 200, **columns}
    names = ", ".join(values)
    query = text(
        f"insert into audit_log (at, action, {names}) values (:at, :action, {', '.join(f':{n}' for n in values)}) "
        "returning audit_id"
    )
    with service.engine.begin() as tx:
        ids = [
            tx.scalar(query, {"at": at + timedelta(minutes=max(number - 1, 0)), "action": action, **values})
            for number in range(count)
        ]
    return [str(found) for found in reversed(ids)]


def test_an_entry_says_who_did_what(admin: httpx.Client, editor: httpx.Client) -> None:
    made = editor.post(CONTACTS, json={"email": f"{uuid4().hex}@shop.example"}).json()
    request_id = uuid4().hex
    editor.patch(f"{CONTACTS}{made['id']}", json={"first_name": "Ana"}, headers={"X-Request-ID": request_id})
    found = entries(admin, resource_type="contact", resource_id=made["id"])
    assert [entry["action"] for entry in found] == ["contact.update", "contact.create"]
    entry = found[0]
    assert entry.pop("at").endswith("Z") and int(entry.pop("id")) > 0 and int(entry.pop("actor_id")) > 0
    assert entry == {
        "actor_type": "user", "actor_label": "editor@shop.example", "action": "contact.update",
        "resource_type": "contact", "resource_id": made["id"], "status": 200, "request_id": request_id,
        "changes": {"fields": ["first_name"]},
    }  # fmt: skip


def test_a_refusal_is_an_entry_too(admin: httpx.Client, viewer: httpx.Client, nobody: httpx.Client) -> None:
    marks = [uuid4().hex for _ in range(3)]
    viewer.post(CONTACTS, json={}, headers={"X-Request-ID": marks[0]})
    nobody.post(CONTACTS, json={}, headers={"X-Request-ID": marks[1]})
    admin.delete("/api/v1/users/987654321", headers={"X-Request-ID": marks[2]})
    found = {entry["request_id"]: entry for entry in entries(admin, limit=20)}
    assert [(found[mark]["status"], found[mark]["changes"]) for mark in marks] == [
        (403, {"code": "forbidden"}), (401, {"code": "not_authenticated"}), (404, {"code": "not_found"}),
    ]  # fmt: skip
    public = found[marks[1]]
    assert (public["actor_type"], public["actor_id"], public["actor_label"]) == ("public", None, "")


def test_filters_combine(service: LiveService, admin: httpx.Client) -> None:
    action, other = f"audit_test.{uuid4().hex}", f"audit_test.{uuid4().hex}"
    mine = seed(service, action, 4, actor_id=900001, resource_id="7")
    theirs = seed(service, other, 2, actor_id=900002, resource_id="8", actor_type="api_key")

    def ids(**params: Any) -> list[str]:
        return [entry["id"] for entry in entries(admin, **params)]

    assert ids(action=action) == mine and ids(action=other) == theirs
    assert ids(actor_id="900001", action=action) == mine
    assert ids(actor_id="900001", action=other) == []
    assert ids(resource_type="audit_test", resource_id="8", action=other) == theirs
    # The first two have one moment: the id decides between them.
    assert ids(action=action, until="2026-03-01T12:01:00Z") == mine[2:]
    assert ids(action=action, since="2026-03-01T12:01:00Z") == mine[:2]
    assert ids(action=action, since="2026-03-01T13:01:00+01:00", until="2026-03-01T12:02:00Z") == [mine[1]]
    for nobody in ("0", "x", "-1", "9" * 30):
        assert ids(actor_id=nobody) == []
    assert ids(action=action.upper()) == [] and ids(action="audit_test.%") == []


@pytest.mark.parametrize(
    ("params", "code"),
    [({"since": "2026-03-01T12:00:00"}, "timezone_required"), ({"until": "yesterday"}, "validation_error"),
     ({"limit": 0}, "validation_error"), ({"limit": 201}, "validation_error"), ({"skip": -1}, "validation_error"),
     ({"cursor": "AAAA"}, "invalid_cursor"), ({"action": "x" * 201}, "validation_error"),
     ({"actor_id": "a\0b"}, "validation_error")],
)  # fmt: skip
def test_a_filter_that_is_not_acceptable(admin: httpx.Client, params: dict[str, Any], code: str) -> None:
    answer = admin.get(AUDIT, params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_paging_neither_repeats_nor_skips(service: LiveService, admin: httpx.Client) -> None:
    action = f"audit_test.{uuid4().hex}"
    wanted = seed(service, action, 5)
    page = admin.get(AUDIT, params={"action": action, "limit": 2})
    assert page.headers["X-Total-Count"] == "5" and page.headers["X-Total-Count-Exact"] == "true"
    found = [entry["id"] for entry in page.json()]
    while "Link" in page.headers:
        page = admin.get(page.headers["Link"].partition("<")[2].partition(">")[0])
        found += [entry["id"] for entry in page.json()]
    assert found == wanted
    assert [entry["id"] for entry in entries(admin, action=action, skip=3)] == wanted[3:]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_the_api_changes_no_entry(admin: httpx.Client, method: str) -> None:
    newest = entries(admin, limit=1)[0]
    assert admin.request(method, AUDIT).status_code == 405
    assert admin.request(method, f"{AUDIT}{newest['id']}").status_code == 404


@pytest.mark.parametrize(
    "statement", ["update audit_log set actor_label = ''", "delete from audit_log", "truncate audit_log"]
)
def test_the_roles_of_the_database_append_only(service: LiveService, statement: str) -> None:
    for role in ("mauto_api", "mauto_worker"):
        with as_role(service.engine, role) as url:
            engine = connect(url)
            with pytest.raises(ProgrammingError, match="permission denied"), engine.begin() as tx:
                tx.exec_driver_sql(statement)
            engine.dispose()


@pytest.mark.parametrize(
    "condition",
    ["true", "actor_id = 5", "action = 'contact.delete'", "resource_type = 'contact' and resource_id = '77'"],
)
def test_each_filter_has_an_index_in_the_order_shown(service: LiveService, condition: str) -> None:
    query = f"explain select * from audit_log where {condition} order by at desc, audit_id desc limit 51"
    with service.engine.connect() as connection, connection.begin() as transaction:
        connection.exec_driver_sql(
            "insert into audit_log (at, actor_type, actor_id, action, resource_type, resource_id, status) "
            "select timestamptz '2026-01-01 00:00Z' + n * interval '1 minute', 'user', mod(n, 50), "
            "(array['contact.update', 'contact.create', 'contact.delete', 'tag.create'])[1 + mod(n, 4)], 'contact', "
            "cast(mod(n, 500) as text), 200 from generate_series(1, 20000) as n"
        )
        connection.exec_driver_sql("analyze audit_log")
        plan = "\n".join(connection.exec_driver_sql(query).scalars())
        transaction.rollback()
    assert "Index Scan using audit_log_" in plan and "Sort" not in plan, plan
