"""Lines of the log: one a record whatever is in it, as text and as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from mautolib import log
from mautolib.errors import Misconfigured
from mautolib.settings import Settings

NASTY = 'first\nERROR root: faked "\x1b[31m\u2028'


@pytest.fixture
def root() -> Iterator[None]:
    """The logging of pytest comes back afterwards."""
    logger = logging.getLogger()
    before, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:], logger.level = before, level


@pytest.mark.parametrize("shape", ["json", "text"])
def test_a_record_is_one_line_whatever_is_in_it(root: None, shape: str, capfd: pytest.CaptureFixture[str]) -> None:
    log.setup("INFO", shape)
    logging.getLogger("mautolib.x").info("told %s", NASTY)
    (line,) = capfd.readouterr().err.split("\n")[:-1]
    assert (json.loads(line)["message"] == f"told {NASTY}") if shape == "json" else "\\nERROR root" in line


def test_an_object_says_when_what_and_where(
    root: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "campaign_send")
    monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", "send")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "manual__1")
    log.setup("INFO", "json")
    with log.bound(request_id="r1"):
        logging.getLogger("api.access").info("GET", extra=log.fields(status=200, duration_ms=1.5))
        try:
            raise KeyError("k")
        except KeyError:
            logging.getLogger("x").exception("broken")
    logging.getLogger("x").warning("after")
    first, broken, after = map(json.loads, capfd.readouterr().err.splitlines())
    assert first.pop("ts").endswith("Z") and len(broken["ts"]) == len("2026-11-23T13:00:00.000Z")
    assert first == {"level": "INFO", "logger": "api.access", "message": "GET", "request_id": "r1", "status": 200,
                     "duration_ms": 1.5, "dag": "campaign_send", "task": "send", "run": "manual__1"}  # fmt: skip
    assert (broken["error"], broken["request_id"]) == ("KeyError", "r1") and "KeyError: 'k'" in broken["trace"]
    assert "request_id" not in after and after["level"] == "WARNING"


def test_the_setting_takes_two_words() -> None:
    assert Settings.from_env({"MAUTO_LOG_FORMAT": "json"}).log_format == "json"
    with pytest.raises(Misconfigured, match="MAUTO_LOG_FORMAT is 'xml'; it takes text or json"):
        Settings.from_env({"MAUTO_LOG_FORMAT": "xml"})
