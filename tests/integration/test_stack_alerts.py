"""Alerts and logs of a stack that really runs: the deadline fires in the triggerer, the failure in a worker."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from mautolib.db.engine import connect
from mautolib.errors import ProviderUnavailable
from mautolib.stack.home import Home
from mautolib.stack.launcher import Stack
from tests.receivers import WebhookReceiver, receive

pytestmark = [pytest.mark.stack, pytest.mark.slow]

_PROBE = '''"""A DAG that is late at once and then fails.

**What it does.** Nothing.
"""
import time
from datetime import timedelta

from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference, dag, task

from mauto_airflow import conventions
from mauto_airflow.alerts import report_missed_deadline

LATE = DeadlineAlert(reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=timedelta(seconds=1),
                     callback=AsyncCallback(report_missed_deadline, {"dag_id": "probe"}))


@dag(schedule="@once", deadline=LATE, **conventions.house(__doc__, tags={"operations"}))
def probe():
    @task
    def wait():
        from mautolib.errors import Misconfigured

        time.sleep(10)
        raise Misconfigured("anna@secret.example")

    wait()


probe()
'''
_LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with receive() as running:
        yield running


@pytest.fixture
def stack(receiver: WebhookReceiver) -> Iterator[Stack]:
    """A stack with one more DAG, both channels and logs as JSON."""
    folder = Path(tempfile.mkdtemp(prefix="mauto-alerts-"))
    folder.chmod(0o711)
    (folder / "dags").mkdir()
    (folder / "dags" / "probe.py").write_text(_PROBE, encoding="utf-8")
    bundles = [{"name": "dags-folder", "classpath": _LOCAL, "kwargs": {}},
               {"name": "probe", "classpath": _LOCAL, "kwargs": {"path": str(folder / "dags")}}]  # fmt: skip
    ports = ("API", "AIRFLOW", "DATABASE", "SMTP", "MAIL_PAGE")
    stack = Stack(Home(folder / "home"), {
        **os.environ, **{f"MAUTO_{name}_PORT": _free_port() for name in ports},
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "MAUTO_LOG_FORMAT": "json", "MAUTO_ALERT_EMAIL": "ops@shop.example", "MAUTO_ALERT_WEBHOOK_URL": receiver.url,
        "MAUTO_ALERT_WEBHOOK_SECRET": "f3a91c0e5b7d42868e1d90ab64c7f52e", "MAUTO_WEBHOOK_ALLOW_HTTP": "true",
        "MAUTO_WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{receiver.port}", "MAUTO_PUBLIC_BASE_URL": "https://shop.example",
    })  # fmt: skip
    try:
        _patiently(stack)
        yield stack
    finally:
        stack.down()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_deadline_and_a_failure_reach_both_channels_and_logs_are_json(
    stack: Stack, receiver: WebhookReceiver
) -> None:
    engine = connect(stack.settings.url_for("owner"))
    with engine.begin() as tx:
        tx.execute(text("insert into imports (storage_uri, status) values ('/nowhere', 'queued')"))
    expected = {"alert.opened dag_deadline.probe", "alert.opened dag_failed.probe.wait"}
    _until(lambda: expected <= {_event(one.body) for one in receiver.requests})
    # A channel that was too slow gets its notes with the next round of the watchdog.
    _until(lambda: {"[mauto] probe was not done in time", "[mauto] probe.wait failed"} <= _subjects(stack))
    assert b"anna@secret.example" not in b"".join(one.body for one in receiver.requests)
    beats = "select count(*) from heartbeats where component = 'airflow.contact_import'"

    def has_ended_well() -> bool:
        with engine.connect() as tx:
            return bool(tx.scalar(text(beats)))

    _until(has_ended_well)
    engine.dispose()
    httpx.get(f"{stack.plan.api_url}/api/v1/contacts/4711?token=s3cret", trust_env=False, timeout=60)
    # The line is written once the answer is out.
    file = stack.plan.home.logs / "api.log"
    _until(lambda: "/api/v1/contacts/{id}" in file.read_text(encoding="utf-8"))
    log = file.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (line,) = [one for one in lines if one.get("route") == "/api/v1/contacts/{id}"]
    assert (line["method"], line["status"], line["actor"], line["logger"]) == ("GET", 401, "none", "api.access")
    assert "4711" not in log and "s3cret" not in log


def _subjects(stack: Stack) -> set[str]:
    mails = httpx.get(f"{stack.plan.mail_page_url}/api/messages", trust_env=False, timeout=60).json()["messages"]
    return {mail["subject"].partition(":")[0] for mail in mails}


def _patiently(stack: Stack) -> None:
    """On a loaded machine Airflow may need longer than `up` waits; a second one goes on."""
    for is_last in (False, False, True):
        try:
            stack.up(lambda *_: None)
            return
        except ProviderUnavailable:
            if is_last:
                raise


def _event(body: bytes) -> str:
    found = json.loads(body)
    return f"{found['event']} {found['data']['finding']}"


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.5)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
