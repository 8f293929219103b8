"""Imports over HTTP: JSON lists at once, files through storage and the worker's verb, reports and cancelling."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from mautolib.contacts import imports
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
