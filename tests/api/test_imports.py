"""Imports over HTTP: JSON lists at once, files through storage and the worker's verb, reports and cancelling."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from mautolib.contacts import imports
from tests import platform_exports as exports
from tests.live_service import LiveService

IMPORT, IMPORTS = "/api/v1/contacts/import", "/api/v1/imports/"
CSV = {"Content-Type": "text/csv"}


def table(*rows: str) -> bytes:
    return "\n".join(("email,first_name", *rows, "")).encode()


def addresses(number: int) -> list[str]:
    marker = uuid4().hex
    return [f"{marker}-{index}@shop.example" for index in range(number)]


def stored_files(service: LiveService) -> set[str]:
    folder = service.settings.storage_path / "uploads"
    return set(os.listdir(folder)) if folder.exists() else set()


@pytest.fixture
def nothing_left_behind(service: LiveService) -> Iterator[None]:
    """The test must leave storage as it was."""
    before = stored_files(service)
    yield
    assert stored_files(service) == before


def ran(service: LiveService, import_id: str) -> None:
    imports.run(service.engine, service.settings, int(import_id), now=datetime.now(UTC))


def test_a_json_list_is_taken_at_once(service: LiveService, editor: httpx.Client) -> None:
    first, second, third = addresses(3)
    assert editor.post(IMPORT, json=[{"email": first}]).json() == {"created": 1, "skipped": 0}
    body = [{"email": first}, {"email": second, "first_name": "Bo"}, {"email": third}, {"email": third.upper()}]
    answer = editor.post(IMPORT, json=body)
    assert (answer.status_code, answer.json()) == (201, {"created": 2, "skipped": 2})
    found = editor.get("/api/v1/contacts/", params={"email": second}).json()
    assert [row["first_name"] for row in found] == ["Bo"]
    assert editor.get(IMPORTS, params={"limit": 1}).json()[0]["format"] == "json"


def test_a_bad_item_refuses_the_whole_list_and_is_named(editor: httpx.Client) -> None:
    good, other = addresses(2)
    for bad, field in (({"email": "nonsense"}, "email"), ({"email": other, "first_name": 5}, "first_name")):
        answer = editor.post(IMPORT, json=[{"email": good}, bad])
        assert answer.status_code == 422
        assert [item["loc"] for item in answer.json()["detail"]] == [["body", 1, field]]
    assert editor.get("/api/v1/contacts/count", params={"email": good}).json() == {"count": 0}


def test_a_list_of_more_than_5000_is_413(editor: httpx.Client) -> None:
    assert editor.post(IMPORT, json=[{}] * 5001).status_code == 413
    assert editor.post(IMPORT, json={"email": "a@b.example"}).status_code == 422
    assert editor.post(IMPORT, content=b"[" + b" " * (16 * 1024 * 1024) + b"]").status_code == 413


def test_a_form_upload_is_queued_run_and_reported(service: LiveService, editor: httpx.Client) -> None:
    known, fresh = addresses(2)
    editor.post("/api/v1/contacts/", json={"email": known, "first_name": "Old"})
    file = table(f"{known},New", f"{fresh},Ana", "=cmd|nonsense,x", ",")
    answer = editor.post(
        IMPORT, files={"file": ("../../etc/people.csv", file, "text/csv")}, data={"update_policy": "merge"}
    )
    body = answer.json()
    assert answer.status_code == 202
    assert body == {"import_id": body["import_id"], "status_url": f"{IMPORTS}{body['import_id']}", "status": "queued"}
    waiting = editor.get(body["status_url"]).json()
    assert (waiting["status"], waiting["filename"], waiting["options"]["update_policy"]) == (
        "queued", "people.csv", "merge",
    )  # fmt: skip
    ran(service, body["import_id"])
    done = editor.get(body["status_url"]).json()
    counts = {name: done[name] for name in ("total_rows", "created", "updated", "skipped", "rejected", "suppressed")}
    assert (done["status"], done["error"]) == ("completed", None)
    assert counts == {"total_rows": 4, "created": 1, "updated": 1, "skipped": 2, "rejected": 2, "suppressed": 0}
    report = editor.get(done["errors_url"])
    assert report.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in report.headers["Content-Disposition"]
    rows = list(csv.reader(io.StringIO(report.text)))
    assert rows[0] == ["line", "column", "code", "reason", "value"]
    assert [(row[0], row[2]) for row in rows[1:]] == [("4", "invalid_email"), ("5", "invalid_email")]
    assert rows[1][4] == "'=cmd|nonsense"


@pytest.mark.parametrize("media_type", ["text/csv", "application/gzip"])
def test_a_raw_body_takes_its_options_from_the_query(
    service: LiveService, editor: httpx.Client, media_type: str
) -> None:
    (email,) = addresses(1)
    body = f"Adresse;Vorname\n{email};Ana\n".encode()
    body = gzip.compress(body[:10]) + gzip.compress(body[10:]) if media_type == "application/gzip" else body
    options = {"mapping": json.dumps({"Adresse": "email", "Vorname": "first_name"}), "delimiter": "semicolon",
               "subscribed_default": "false", "unknown": "ignored"}  # fmt: skip
    answer = editor.post(IMPORT, params=options, content=body, headers={"Content-Type": media_type})
    assert answer.status_code == 202
    ran(service, answer.json()["import_id"])
    done = editor.get(answer.json()["status_url"]).json()
    assert (done["created"], done["format"]) == (1, "csv.gz" if media_type == "application/gzip" else "csv")
    (found,) = editor.get("/api/v1/contacts/", params={"email": email}).json()
    assert (found["first_name"], found["subscribed"]) == ("Ana", False)


def test_the_options_field_is_json_and_wins(editor: httpx.Client) -> None:
    data = {"dry_run": "false", "options": json.dumps({"dry_run": True, "encoding": "utf-8", "unknown": 1})}
    answer = editor.post(
        f"{IMPORT}?encoding=gbk&update_existing=true", files={"file": ("a.csv", table(), "text/csv")}, data=data
    )
    assert answer.status_code == 202
    options = editor.get(answer.json()["status_url"]).json()["options"]
    assert (options["dry_run"], options["encoding"], options["update_policy"]) == (True, "utf-8", "merge")


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"update_policy": "replace"}, "update_policy"),
        ({"mapping": "[1]"}, "mapping"),
        ({"mapping": '{"a": "password"}'}, "mapping"),
        ({"tag_ids": "987654321"}, "tag_ids"),
        ({"dry_run": "perhaps"}, "dry_run"),
        ({"delimiter": "ab"}, "delimiter"),
        ({"encoding": "rot13"}, "encoding"),
        ({"consent_at": "2026-01-02T03:04:05Z"}, "consent_at"),
        ({"options": "{"}, "options"),
    ],
)
def test_a_bad_option_is_422_and_leaves_no_file(editor: httpx.Client, data: dict[str, Any], field: str) -> None:
    answer = editor.post(IMPORT, files={"file": ("a.csv", table(), "text/csv")}, data=data)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][-1] == field


def test_a_moment_of_consent_needs_its_offset(editor: httpx.Client) -> None:
    params = {"consent_source": "fair", "consent_at": "2026-01-02T03:04:05"}
    answer = editor.post(IMPORT, content=table(), headers=CSV, params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "timezone_required")
    assert answer.json()["detail"][0]["loc"] == ["body", "options", "consent_at"]


@pytest.mark.usefixtures("nothing_left_behind")
def test_what_is_no_csv_is_refused(editor: httpx.Client) -> None:
    zipped = editor.post(IMPORT, content=b"PK\x03\x04rest", headers=CSV)
    assert (zipped.status_code, zipped.json()["code"]) == (415, "unsupported_media_type")
    broken = editor.post(IMPORT, content=gzip.compress(b"email\n" * 100)[:-9], headers=CSV)
    assert broken.status_code == 422
    assert editor.post(IMPORT, files={"other": ("a.csv", b"x")}).json()["detail"][0]["loc"] == ["body", "file"]
    assert editor.post(IMPORT, content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 422
    assert editor.post(IMPORT, content=b"x", headers={"Content-Type": "application/zip"}).status_code == 415


@pytest.mark.usefixtures("nothing_left_behind")
def test_an_upload_is_repeated_by_content_and_options(service: LiveService, editor: httpx.Client) -> None:
    before = stored_files(service)
    key = {"Idempotency-Key": uuid4().hex}
    body = table(*addresses(1))
    first = editor.post(IMPORT, files={"file": ("a.csv", body)}, headers=key)
    again = editor.post(IMPORT, files={"file": ("b.csv", body)}, headers=key)  # another boundary, the same content
    assert (again.content, again.headers["Idempotency-Replayed"]) == (first.content, "true")
    assert len(stored_files(service) - before) == 1
    other = editor.post(IMPORT, files={"file": ("a.csv", body)}, data={"dry_run": "true"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len(stored_files(service) - before) == 1
    ran(service, first.json()["import_id"])


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_waiting_import_is_cancelled_once(editor: httpx.Client) -> None:
    made = editor.post(IMPORT, content=table(), headers=CSV).json()
    answer = editor.post(f"{made['status_url']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    again = editor.post(f"{made['status_url']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "invalid_state")


def test_the_list_filters_and_pages(editor: httpx.Client, viewer: httpx.Client) -> None:
    ids = [editor.post(IMPORT, content=table(), headers=CSV).json()["import_id"] for _ in range(3)]
    first = viewer.get(IMPORTS, params={"limit": 2, "status": "queued"})
    second = viewer.get(first.headers["Link"].removeprefix("<").partition(">")[0])
    assert [row["id"] for row in [*first.json(), *second.json()]][:3] == ids[::-1]
    assert viewer.get(IMPORTS, params={"status": "lost"}).status_code == 422
    for path in (f"{IMPORTS}987654321", f"{IMPORTS}x", f"{IMPORTS}987654321/errors.csv"):
        answer = editor.get(path)
        assert (answer.status_code, answer.json()["detail"]) == (404, "Import not found")


def test_reading_a_report_is_audited(service: LiveService, editor: httpx.Client) -> None:
    made = editor.post(IMPORT, content=table(), headers=CSV).json()
    assert editor.get(f"{made['status_url']}/errors.csv").status_code == 200
    with service.engine.begin() as tx:
        query = text(
            "select action, status from audit_log where resource_type = 'import' and resource_id = :id "
            "order by audit_id"
        )
        rows = tx.execute(query, {"id": made["import_id"]}).all()
    assert [tuple(row) for row in rows] == [("import.create", 202), ("import.errors", 200)]


def test_the_unpacked_size_is_limited_while_reading(
    cluster: Any, template_database: str, tmp_path: Path, service: LiveService
) -> None:
    from tests.live_service import live_settings, serve

    settings = live_settings(service.settings.database_url, tmp_path, max_import_bytes=100_000)
    url, stop = serve(settings)
    try:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {service.token('editor')}"}) as client:
            bomb = gzip.compress(b"a" * 50_000_000)
            assert len(bomb) < 100_000
            answers = [
                client.post(IMPORT, content=bomb, headers={"Content-Type": "application/gzip"}),
                client.post(IMPORT, content=iter([b"x" * 60_000] * 2), headers=CSV),
                client.post(IMPORT, files={"file": ("a.csv", b"x" * 100_001)}),
            ]
            assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(413, "too_large")] * 3
            fits = client.post(IMPORT, files={"file": ("a.csv", b"x" * 100_000)})
            assert fits.status_code == 202
    finally:
        stop()
    assert len(os.listdir(tmp_path / "storage" / "uploads")) == 1


# --- a small file at once ---------------------------------------------------------------------------------------------

NOW_IN, LOOK = "/api/v1/import/csv", "/api/v1/import/csv/preview"


def take(client: httpx.Client, file: bytes | str, *, name: str = "people.csv", **sent: Any) -> httpx.Response:
    content = file if isinstance(file, bytes) else file.encode()
    return client.post(NOW_IN, files={"file": (name, content, "text/csv")}, **sent)


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_small_file_is_answered_with_its_counts(editor: httpx.Client) -> None:
    known, fresh = addresses(2)
    editor.post("/api/v1/contacts/", json={"email": known, "first_name": "Old"})
    rows = (f"{known},New", f"{fresh},Ana", f"{fresh.upper()},Anna", "bad,x", "=cmd|' /C',y", f"x{fresh},{'n' * 101}")
    answer = take(editor, table(*rows), name="../../etc/People.CSV")
    body = answer.json()
    assert answer.status_code == 200
    assert body == {
        "total_rows": 6, "created": 1, "updated": 0, "skipped": 5, "errors_total": 3, "suppressed": 0,
        "import_id": body["import_id"], "errors": [
            {"row": 5, "email": "bad", "error": "Invalid email", "column": "email", "code": "invalid_email"},
            {"row": 6, "email": "=cmd|' /C'", "error": "Invalid email", "column": "email", "code": "invalid_email"},
            {"row": 7, "email": f"x{fresh}", "error": "Value is too long", "column": "first_name", "code": "too_long"},
        ],
    }  # fmt: skip
    listed = editor.get(IMPORTS, params={"limit": 1, "status": "completed"}).json()[0]
    assert (listed["id"], listed["status"], listed["filename"], listed["format"]) == (
        body["import_id"], "completed", "People.CSV", "csv")  # fmt: skip
    assert listed["created_by"].startswith("user:")
    assert [listed[name] for name in ("total_rows", "created", "updated", "skipped", "rejected")] == [6, 1, 0, 5, 3]
    assert listed["started_at"] == listed["finished_at"] == listed["created_at"]
    assert len(list(csv.reader(io.StringIO(editor.get(listed["errors_url"]).text)))) == 4
    assert editor.post(f"{listed['status_url']}/cancel").status_code == 409


@pytest.mark.parametrize(
    ("query", "data", "first_name", "updated"),
    [
        ({}, {}, "Old", 0), ({"update_existing": "true"}, {}, "New", 1), ({"update_existing": "false"}, {}, "Old", 0),
        ({"update_existing": "true", "update_policy": "skip"}, {}, "Old", 0), ({}, {"update_existing": "1"}, "New", 1),
        ({"update_policy": "overwrite"}, {}, "New", 1), ({}, {"options": '{"update_policy": "merge"}'}, "New", 1),
        ({"update_existing": "false"}, {"update_policy": "merge"}, "New", 1),
        ({}, {"update_policy": "fill_empty"}, "Old", 0), ({"dry_run": "true"}, {"update_existing": "true"}, "Old", 1),
    ],
)  # fmt: skip
def test_options_of_a_small_file(
    editor: httpx.Client, query: dict[str, str], data: dict[str, str], first_name: str, updated: int
) -> None:
    (known,) = addresses(1)
    editor.post("/api/v1/contacts/", json={"email": known, "first_name": "Old"})
    body = take(editor, table(f"{known},New"), params=query, data=data).json()
    assert (body["total_rows"], body["created"], body["updated"], body["skipped"]) == (1, 0, updated, 1 - updated)
    assert editor.get("/api/v1/contacts/", params={"email": known}).json()[0]["first_name"] == first_name


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize("path", [NOW_IN, LOOK])
def test_what_is_no_small_csv_file_is_400(editor: httpx.Client, path: str) -> None:
    for name in ("people.txt", "people.csv.gz", "people.xlsx", "csv", ".csv/..", "people.csv\u200b"):
        answer = editor.post(path, files={"file": (name, table(), "text/csv")})
        assert (answer.status_code, answer.json()["detail"]) == (400, "Only CSV files are supported"), name
    limit = 5 * 1024 * 1024
    for file in (b"email\n" + b"x" * (limit - 5), gzip.compress(b"email\n" + b"a@b.example\n" * 600_000)):
        answer = editor.post(path, files={"file": ("people.csv", file)})
        assert (answer.status_code, answer.json()["detail"]) == (400, "File too large. Max: 5 MB")
    fits = b"email\n" + b"x" * 1000 + b"\n" + b"\n" * (limit - 1007)
    assert editor.post(path, files={"file": ("people.csv", fits)}).status_code == 200
    for sent in ({}, {"files": {"other": ("a.csv", b"x")}}, {"data": {"update_existing": "true"}, "files": {"x": b""}}):
        answer = editor.post(path, **sent)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "file"])
    assert editor.post(path, content=table(), headers=CSV).status_code == 415
    assert editor.post(path, files={"file": ("people.csv", b"PK\x03\x04rest")}).status_code == 415


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_file_that_cannot_be_taken_says_why_and_leaves_nothing(editor: httpx.Client) -> None:
    before = editor.get(IMPORTS).headers["X-Total-Count"]
    answer = take(editor, "name,age\nAna,3\n")
    assert (answer.status_code, answer.json()["detail"]) == (
        400, "Could not detect an email column. Please ensure a column named 'email' exists.")  # fmt: skip
    for file, options, message in (
        ("email,Newsletter\na@b.example,yes\n", {}, "looks like consent"), ("", {}, "line 1 must name the columns"),
        ("email\na@b.example\n", {"mapping": '{"Mail": "email"}'}, "does not have"),
        ("email\na@b.example\n", {"tag_ids": "987654321"}, "no tag 987654321"),
        ("email\na@b.example\n", {"update_existing": "perhaps"}, "update_existing"),
        (b"email\na@b.example\n" + b"x" * 1_100_000, {}, "Line 3 is longer"),
    ):  # fmt: skip
        answer = take(editor, file, data=options)
        assert answer.status_code == 422, message
        assert message in answer.json()["detail"][0]["msg"]
    assert editor.get(IMPORTS).headers["X-Total-Count"] == before


def test_a_small_file_and_a_large_one_give_the_same(service: LiveService, editor: httpx.Client) -> None:
    one, other = addresses(2)
    text = "Mail;Vorname;tags;subscribed;country\n{0};Ana;vip|a\\|b;no;Germany\n{0};Anna;;;\nbad;x;;;\n;;;;\n"
    data = {"mapping": '{"Vorname": "first_name"}', "update_policy": "merge", "consent_source": "fair"}
    now = take(editor, text.format(one), data=data).json()
    made = editor.post(IMPORT, files={"file": ("a.csv", text.format(other).encode())}, data=data).json()
    ran(service, made["import_id"])
    later = editor.get(made["status_url"]).json()
    assert {name: now[name] for name in ("total_rows", "created", "updated", "skipped", "suppressed")} == {
        name: later[name] for name in ("total_rows", "created", "updated", "skipped", "suppressed")}  # fmt: skip
    shown = [editor.get("/api/v1/contacts/", params={"email": email}).json()[0] for email in (one, other)]
    for contact in shown:
        for name in ("id", "email", "created_at", "updated_at", "consent_at"):
            contact.pop(name)
    assert shown[0] == shown[1]
    assert (shown[0]["first_name"], shown[0]["country"], shown[0]["subscribed"]) == ("Anna", "DE", False)
    assert [tag["name"] for tag in shown[0]["tags"]] == ["a|b", "vip"]


def test_only_the_first_fifty_errors_are_shown(editor: httpx.Client) -> None:
    body = take(editor, "email\n" + "bad\n" * 70).json()
    assert ([one["row"] for one in body["errors"]], body["errors_total"]) == (list(range(2, 52)), 70)
    odd = take(editor, 'email,n\n"open\n\0,1\nJos,' + "x,y\n,3\n").json()
    assert [(one["row"], one["email"], one["code"]) for one in odd["errors"]] == [
        (2, "", "unbalanced_quote"), (3, "\ufffd", "nul_byte"), (4, "Jos", "ragged_row"), (5, "", "invalid_email"),
    ]  # fmt: skip


@pytest.mark.usefixtures("nothing_left_behind")
def test_a_small_file_is_taken_once_under_a_key_and_written_down_with_its_effect(
    service: LiveService, editor: httpx.Client
) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    (email,) = addresses(1)
    first, again = (take(editor, table(f"{email},A"), headers=key) for _ in range(2))
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    assert take(editor, table(f"{email},B"), headers=key).json()["code"] == "idempotency_mismatch"
    other = {"Idempotency-Key": uuid4().hex}
    refused, again = (take(editor, "a\nb\n", headers=other) for _ in range(2))
    assert (refused.status_code, again.status_code, again.headers["Idempotency-Replayed"]) == (400, 400, "true")
    with service.engine.begin() as tx:
        query = text("select action, status, changes from audit_log where resource_type = 'import' "
                     "and resource_id = :id")  # fmt: skip
        found = [tuple(row) for row in tx.execute(query, {"id": first.json()["import_id"]})]
    size = len(table(f"{email},A"))
    assert found == [("import.create", 200, {"bytes": size, "created": 1, "updated": 0})]


def test_a_moment_far_from_utc_is_one_like_others(service: LiveService, editor: httpx.Client) -> None:
    one, two = addresses(2)
    far = "2026-01-01T00:00:00+20:00"
    answer = take(editor, f"email,created_at\n{one},{far}\n{two},2026-01-01\n",
                  params={"consent_source": "fair", "consent_at": far})  # fmt: skip
    assert (answer.status_code, answer.json()["created"]) == (200, 2)
    found = editor.get("/api/v1/contacts/", params={"email": one}).json()[0]
    assert (found["created_at"], found["consent_at"]) == ("2025-12-31T04:00:00Z", "2025-12-31T04:00:00Z")
    queued = editor.post(IMPORT, content=table(), headers=CSV, params={"consent_source": "fair", "consent_at": far})
    ran(service, queued.json()["import_id"])
    assert editor.get(queued.json()["status_url"]).json()["status"] == "completed"


def test_parallel_small_files_make_each_contact_once(editor: httpx.Client) -> None:
    emails = addresses(300)
    files = [table(*(f"{email},A" for email in (emails if turn % 2 else emails[::-1]))) for turn in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = [answer.json() for answer in pool.map(lambda file: take(editor, file), files)]
    assert sum(one["created"] for one in found) == 300
    assert [one["created"] + one["skipped"] for one in found] == [300] * 6


def test_a_preview_shows_what_would_happen_and_changes_nothing(editor: httpx.Client) -> None:
    emails = addresses(7)
    head = "电子邮件;名;custom_fields.size;Kundennr;Newsletter;tags\n"
    file = (head + "".join(f'{one};"A\nB";M;1;yes;vip\n' for one in emails) + "bad\n").encode("utf-16")
    before = editor.get(IMPORTS).headers["X-Total-Count"]
    answer = editor.post(LOOK, files={"file": ("a.csv", file)})
    assert answer.status_code == 200
    row = {"名": "A\nB", "custom_fields.size": "M", "Kundennr": "1", "Newsletter": "yes", "tags": "vip"}
    assert answer.json() == {
        "total_rows": 8, "columns": ["电子邮件", *row], "sample_rows": [{"电子邮件": one, **row} for one in emails[:5]],
        "detected_email_column": "电子邮件",
        "mapping": {
            "电子邮件": "email", "名": "first_name", "custom_fields.size": "custom_fields.size",
            "Kundennr": "custom_fields.Kundennr", "Newsletter": None, "tags": "tags",
        },
        "delimiter": ";", "encoding": "utf-16-le", "preset": None,
    }  # fmt: skip
    assert editor.get(IMPORTS).headers["X-Total-Count"] == before
    assert editor.get("/api/v1/contacts/count", params={"email": emails[0]}).json() == {"count": 0}


def test_a_preview_without_an_email_column_says_none(editor: httpx.Client) -> None:
    body = editor.post(LOOK, files={"file": ("a.csv", b"name,first_name\nAna,B\n")}).json()
    assert (body["detected_email_column"], body["total_rows"]) == (None, 1)
    assert body["mapping"] == {"name": "custom_fields.name", "first_name": "first_name"}
    found = editor.post(LOOK, files={"file": ("a.csv", b"a,b\nx,a@b.example\n")}).json()
    assert (found["detected_email_column"], found["mapping"]["b"]) == ("b", "email")
    mapped = editor.post(
        LOOK, files={"file": ("a.csv", b"a|b\nx|a@b.example\n")}, data={"delimiter": "pipe", "mapping": '{"a": null}'}
    ).json()
    assert (mapped["columns"], mapped["mapping"]) == (["a", "b"], {"a": None, "b": "email"})


def test_an_export_of_a_platform_is_recognised_and_said(service: LiveService, editor: httpx.Client) -> None:
    marker = uuid4().hex
    shop = exports.SHOPIFY.replace("@shop", f"{marker}@shop").encode()
    seen = editor.post(LOOK, files={"file": ("customers.csv", shop)}).json()
    assert (seen["preset"], seen["detected_email_column"]) == ("shopify", "Email")
    assert {name: seen["mapping"][name] for name in ("Accepts Email Marketing", "Tags", "Customer ID")} == {
        "Accepts Email Marketing": "subscribed", "Tags": "tags", "Customer ID": "custom_fields.Customer ID",
    }  # fmt: skip
    off = editor.post(LOOK, params={"preset": "none"}, files={"file": ("customers.csv", shop)}).json()
    assert (off["preset"], off["mapping"]["Accepts Email Marketing"]) == (None, None)
    done = editor.post(NOW_IN, files={"file": ("customers.csv", shop)}).json()
    assert (done["created"], done["errors_total"]) == (2, 0)
    assert editor.get(f"{IMPORTS}{done['import_id']}").json()["options"]["preset"] == "shopify"
    people = {one["first_name"]: one for one in editor.get("/api/v1/contacts/", params={"q": marker}).json()}
    assert {name: one["subscribed"] for name, one in people.items()} == {"Anna": True, "Ben": False}
    # In the background the same.
    again = editor.post(IMPORT, files={"file": ("c.csv", shop.replace(b"anna", b"ann2"))}).json()["import_id"]
    assert editor.get(f"{IMPORTS}{again}").json()["options"]["preset"] == "auto"
    ran(service, again)
    found = editor.get(f"{IMPORTS}{again}").json()
    assert (found["status"], found["created"], found["options"]["preset"]) == ("completed", 1, "shopify")


def test_a_preset_that_does_not_fit_is_422(editor: httpx.Client) -> None:
    for path in (LOOK, NOW_IN):
        answer = editor.post(path, data={"preset": "klaviyo"}, files={"file": ("a.csv", table("a@x.co,A"))})
        assert (answer.status_code, answer.json()["detail"][0]["loc"][-1]) == (422, "preset")
        unknown = editor.post(path, data={"options": '{"preset": "magento"}'}, files={"file": ("a.csv", table())})
        assert (unknown.status_code, unknown.json()["detail"][0]["loc"][-1]) == (422, "preset")
    told = editor.post(NOW_IN, files={"file": ("a.csv", exports.MAILCHIMP_SUBSCRIBED.encode())})
    assert told.status_code == 422
    assert "non-subscribed" in told.text


@pytest.mark.parametrize("path", [NOW_IN, LOOK])
def test_only_editors_import(viewer: httpx.Client, nobody: httpx.Client, path: str) -> None:
    files = {"file": ("a.csv", table())}
    assert (viewer.post(path, files=files).status_code, nobody.post(path, files=files).status_code) == (403, 401)
    assert viewer.post(path, files={"file": ("a.txt", b"")}).status_code == 403
