"""Imports from S3: fetched as a stream into storage, once, with errors that say who has to do what."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from mautolib.contacts import imports
from mautolib.contacts.imports import remote, running
from mautolib.contacts.imports.places import place_of
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, MautoError, Misconfigured, ProviderUnavailable
from mautolib.settings import Settings
from tests import s3_server
from tests.integration.test_imports import NOW, Bed, bed, counts, own_engine, wait_for

__all__ = ["bed", "own_engine"]
FILE = b"email,first_name\nanna@x.co,Anna\nbad,B\nben@x.co,Ben\n"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def store() -> Iterator[s3_server.Store]:
    with s3_server.working() as found:
        yield found


@pytest.fixture
def script() -> Iterator[s3_server.Script]:
    with s3_server.scripted() as found:
        yield found


@pytest.fixture
def at(bed: Bed) -> Any:
    """The settings of the test, in its own storage folder, with the S3 server at a URL."""
    return lambda url, **more: replace(bed.settings, s3_endpoint_url=url, storage=str(bed.folder / "storage"), **more)


def ask(bed: Bed, uri: str, **options: Any) -> int:
    with bed.engine.begin() as tx:
        return imports.request_file(tx, uri, options, actor="user:1", now=NOW)


def stored(settings: Settings) -> list[str]:
    folder = settings.storage_path / "uploads"
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_an_object_becomes_contacts_and_leaves_nothing_in_storage(bed: Bed, store: s3_server.Store, at: Any) -> None:
    settings = at(store.url)
    import_id = ask(bed, store.put("März 2026/kunden + mehr.csv", FILE))
    with bed.engine.begin() as tx:
        waiting = imports.get(tx, import_id)
    assert (waiting.filename, waiting.status) == ("kunden + mehr.csv", "queued")
    done = imports.run(bed.engine, settings, import_id, now=NOW)
    assert (done.status, counts(done)) == ("completed", (3, 2, 0, 1, 1, 0))
    assert bed.scalars("select content_sha256 from imports") == [hashlib.sha256(FILE).hexdigest()]
    assert stored(settings) == []


def test_a_packed_object_is_known_by_its_bytes(bed: Bed, store: s3_server.Store, at: Any) -> None:
    uri = store.put("list.bin", gzip.compress(FILE), ContentEncoding="gzip")
    done = imports.run(bed.engine, at(store.url), ask(bed, uri), now=NOW)
    assert (done.status, done.format, done.created) == ("completed", "csv.gz", 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + b"x" * 50, "ZIP or Excel"), (b"", "empty"), (b"name,colour\nanna,red\n", "email column"),
        (b"\x1f\x8bnot packed at all", "damaged"),
    ],
)  # fmt: skip
def test_what_is_no_csv_file_fails_with_one_sentence(
    bed: Bed, store: s3_server.Store, at: Any, content: bytes, message: str
) -> None:
    settings = at(store.url)
    done = imports.run(bed.engine, settings, ask(bed, store.put("thing.csv", content)), now=NOW)
    assert done.status == "failed" and message in (done.error or "")
    assert stored(settings) == [] and bed.count("contacts") == 0


def test_what_is_not_there_is_said(bed: Bed, store: s3_server.Store, at: Any) -> None:
    for uri, code in {"s3://lists/no.csv": "NoSuchKey", "s3://nowhere/no.csv": "NoSuchBucket"}.items():
        done = imports.run(bed.engine, at(store.url), ask(bed, uri), now=NOW)
        assert (done.status, done.error) == ("failed", f"There is no object {uri} ({code})")


def test_an_object_has_a_limit_and_the_disk_keeps_some_room(
    bed: Bed, store: s3_server.Store, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = store.put("large.csv", FILE)
    done = imports.run(bed.engine, at(store.url, max_import_bytes=10), ask(bed, uri), now=NOW)
    assert done.error == f"{uri} has {len(FILE)} bytes; the largest import has 10"
    import_id = ask(bed, uri)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 * 1024 * 1024))
    with pytest.raises(ProviderUnavailable, match="104857600 bytes left"):
        imports.run(bed.engine, at(store.url), import_id, now=NOW)
    assert stored(at(store.url)) == []
    assert bed.scalars("select status from imports order by import_id") == ["failed", "queued"]


def test_a_body_longer_than_announced_is_bounded_while_it_comes(
    bed: Bed, script: s3_server.Script, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.content = b"email\n" + b"a@x.co\n" * 1000
    monkeypatch.setattr(remote, "client", lambda settings: Client(ContentLength=5, Body=Body(script.content)))
    with pytest.raises(InvalidInput, match="larger than 100 bytes"):
        remote.fetch(at("", max_import_bytes=100), "s3://lists/a.csv")
    assert stored(at("")) == []


class Body:
    """The body of an answer."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        yield self._content

    def close(self) -> None:
        self._content = b""


class Client:
    """boto3's client, with one answer."""

    def __init__(self, **answer: Any) -> None:
        self.get_object = lambda **_: answer


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", Misconfigured), (403, "InvalidAccessKeyId", Misconfigured),
        (403, "SignatureDoesNotMatch", Misconfigured), (400, "ExpiredToken", Misconfigured), (401, "", Misconfigured),
        (301, "PermanentRedirect", Misconfigured), (404, "NoSuchKey", InvalidInput), (404, "", InvalidInput),
        (403, "InvalidObjectState", Misconfigured), (400, "InvalidRequest", InvalidInput),
        (503, "SlowDown", ProviderUnavailable), (500, "InternalError", ProviderUnavailable),
        (502, "", ProviderUnavailable), (429, "", ProviderUnavailable), (403, "RequestTimeTooSkewed", Misconfigured),
    ],
)  # fmt: skip
def test_each_refusal_has_its_class(
    script: s3_server.Script, at: Any, status: int, code: str, kind: type[MautoError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(remote, "_TRIES", 1)
    script.errors = [(status, code)]
    with pytest.raises(MautoError) as failure:
        remote.fetch(at(script.url), "s3://lists/a.csv")
    assert type(failure.value) is kind, failure.value
    assert "s3://lists/a.csv" in str(failure.value)
    assert "tests" not in str(failure.value), "no credential is told"


def test_a_moment_of_trouble_is_got_over(script: s3_server.Script, at: Any) -> None:
    script.errors = [(503, "SlowDown"), (500, "InternalError")]
    script.content = FILE
    script.is_over_after_errors = True
    assert remote.fetch(at(script.url), "s3://lists/a.csv").size == len(FILE)
    assert len(script.asked) == 3


def test_what_cannot_be_reached_or_breaks_off_may_pass(
    script: s3_server.Script, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_TRIES", 1)
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        remote.fetch(at("http://127.0.0.1:1"), "s3://lists/a.csv")
    script.content, script.announced = FILE, len(FILE) + 1000
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        remote.fetch(at(script.url), "s3://lists/a.csv")
    script.pause = threading.Event()
    monkeypatch.setattr(remote, "_READ_SECONDS", 0.2)
    with pytest.raises(ProviderUnavailable):
        remote.fetch(at(script.url), "s3://lists/a.csv")
    script.pause.set()
    assert stored(at(script.url)) == []


def test_missing_credentials_and_a_bad_server_are_settings(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match="endpoint"):
        remote.fetch(at("not a url"), "s3://lists/a.csv")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(Misconfigured, match="credentials"):
        remote.fetch(at("http://127.0.0.1:1"), "s3://lists/a.csv")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://", "s3://lists", "s3://lists/", "s3://lists/folder/", "s3:///key", "s3://Lists/a.csv", "s3://ab/a.csv/",
        "s3://a/b", "s3://169.254.169.254/latest", "s3://user:pass@lists/a", "s3://lists:80/a", "s3://lists/a\nb",
        "s3://lists/a\0b", "s3://lists/" + "k" * 1025, "s3://lists/\ud800", "s3://-lists/a", "s3://li..sts/a",
        "s3://arn:aws:s3:us-east-1:1:accesspoint/x/a", "s3://lists?x/a", "s3://lists.evil.example#/a", "S3://lists/a",
        "http://169.254.169.254/latest", "https://lists.s3.amazonaws.com/a.csv", "file:///etc/passwd", "gs://lists/a",
        "ftp://lists/a.csv", "s3a://lists/a.csv",
    ],
)  # fmt: skip
def test_only_the_address_of_an_object_is_taken(bed: Bed, uri: str) -> None:
    with pytest.raises(InvalidInput) as failure:
        ask(bed, uri)
    assert failure.value.path == ("path",)
    assert bed.count("imports") == 0


def test_names_that_s3_allows_are_taken() -> None:
    for uri in ("s3://abc/a", "s3://my-lists.2026/a/b/c.csv.gz", "s3://lists/Größe & more?x=1#y.csv", "s3://lists/../up"):
        assert str(place_of(uri)) == uri


def test_an_import_that_cannot_be_fetched_lets_others_go_first(
    bed: Bed, at: Any, script: s3_server.Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_TRIES", 1)
    script.errors = [(503, "SlowDown")]
    settings = at(script.url)
    stuck = ask(bed, "s3://lists/later.csv")
    fine = bed.ask(["email", "now@x.co"])
    ended: list[imports.Import] = []
    with pytest.raises(ProviderUnavailable, match="SlowDown"):
        for one in imports.run_waiting(bed.engine, settings, clock=lambda: NOW):
            ended.append(one)
    assert [(one.import_id, one.status) for one in ended] == [(fine, "completed")]
    assert len(script.asked) == 1
    # It waits a little, and the watcher knows until when.
    assert imports.claim_next(bed.engine, now=NOW) is None
    with bed.engine.begin() as tx:
        due = tx.scalar(statement("queues.imports_due"))
        left = due - tx.exec_driver_sql("select clock_timestamp()").scalar_one()
        assert timedelta(0) < left <= timedelta(seconds=running._PAUSE_SECONDS)
        tx.exec_driver_sql("update imports set lease_until = clock_timestamp() where status = 'queued'")
    script.errors, script.content = [], FILE
    (done,) = imports.run_waiting(bed.engine, settings, clock=lambda: NOW)
    assert (done.import_id, done.status, done.created) == (stuck, "completed", 2)


def test_a_killed_run_goes_on_with_what_it_had_fetched(bed: Bed, store: s3_server.Store, at: Any) -> None:
    settings = at(store.url)
    uri = store.put("twice.csv", FILE)
    import_id = ask(bed, uri)
    claim = running.claim_next(bed.engine, now=NOW)
    assert claim is not None
    running._fetch(bed.engine, settings, claim)
    assert len(stored(settings)) == 1
    # The worker is gone, and so is the object: the copy is what counts.
    store.put("twice.csv", b"email\nother@x.co\n")
    with bed.engine.begin() as tx:
        tx.exec_driver_sql("update imports set lease_until = clock_timestamp() - interval '1 s'")
    done = imports.run(bed.engine, settings, import_id, now=NOW)
    assert (done.status, done.created) == ("completed", 2)
    assert stored(settings) == []


def test_a_worker_that_lost_its_import_keeps_no_copy(bed: Bed, store: s3_server.Store, at: Any) -> None:
    settings = at(store.url)
    ask(bed, store.put("lost.csv", FILE))
    claim = running.claim_next(bed.engine, now=NOW)
    assert claim is not None
    with bed.engine.begin() as tx:
        tx.exec_driver_sql("update imports set attempt_id = attempt_id + 1")
    with pytest.raises(running._Stop):
        running._fetch(bed.engine, settings, claim)
    assert stored(settings) == []


def test_fetching_is_cancelled(
    bed: Bed, at: Any, script: s3_server.Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(remote, "_BLOCK", 16)
    script.content, script.pause = FILE, threading.Event()
    script.announced = len(FILE) + 64
    settings = at(script.url)
    import_id = ask(bed, "s3://lists/slow.csv")

    def cancel() -> None:
        wait_for(lambda: script.asked)
        with bed.engine.begin() as tx:
            imports.cancel(tx, import_id, now=NOW)
        assert script.pause is not None
        script.pause.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    blocks = remote._blocks

    def slowly(body: Any, check: Any) -> Iterator[bytes]:
        for block in blocks(body, check):
            threading.Event().wait(0.1)
            yield block

    monkeypatch.setattr(remote, "_blocks", slowly)
    done = imports.run(bed.engine, settings, import_id, now=NOW)
    thread.join()
    assert (done.status, bed.count("contacts"), stored(settings)) == ("cancelled", 0, [])


def test_fetching_takes_no_memory(at: Any, script: s3_server.Script) -> None:
    script.content = b"email\n" + b"somebody.with.a.name@shop.example\n" * 1_000_000
    settings, uri = at(script.url), "s3://lists/many.csv"
    remote.fetch(settings, uri)  # loads what is loaded once
    tracemalloc.start()
    try:
        size = remote.fetch(settings, uri).size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == len(script.content) > 33_000_000
    assert peak < 20_000_000, "the models of boto3 take half of it"
