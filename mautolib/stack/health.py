"""Health: asks each part of a running stack whether it is well, from the outside and all at once.

Used by `up`, `status` and the demo. A part is well when its process lives and it answers; for Airflow's background
parts the heartbeat must be younger than the process, or a killed one would look well for half a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import smtplib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2

from mautolib.stack.plan import LOOPBACK, Plan

__all__ = ["Health", "check", "get", "memory_mb"]

_JOBS = {"airflow-scheduler": "scheduler", "airflow-dag-processor": "dag_processor",
         "airflow-triggerer": "triggerer"}  # fmt: skip
# Loopback only: a proxy of the environment must not see it.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, kw_only=True)
class Health:
    """How one part is: `detail` says what is wrong when it is not well."""

    name: str
    is_well: bool
    pid: int | None
    detail: str = ""
    exits: int = 0


def check(plan: Plan, state: Mapping[str, Any]) -> list[Health]:
    """Ask every part of the stack that `state` (of the supervisor) lists; takes as long as the slowest answer."""
    programs: dict[str, dict[str, Any]] = state.get("programs", {})
    asked: dict[str, Callable[[], str]] = {"database": lambda: _ask_database(plan), "api": lambda: _ask_api(plan)}
    if plan.has_sink:
        asked["mail-sink"] = lambda: _ask_sink(plan)
    with ThreadPoolExecutor(max_workers=4) as pool:
        airflow = pool.submit(_ask_airflow, plan)
        answers = {name: pool.submit(ask) for name, ask in asked.items()}
        metadata = airflow.result()
        said = {name: answer.result() for name, answer in answers.items()}
    if plan.is_embedded:
        said["postgresql"] = said.pop("database")
    said["airflow-api-server"] = "" if metadata else "does not answer"
    for name, key in _JOBS.items():
        said[name] = _judge_job(metadata.get(key) if metadata else None, programs.get(name, {}).get("since", 0.0))
    found = [_judge(name, programs.get(name), detail) for name, detail in said.items() if name != "database"]
    if "database" in said:
        found.insert(0, Health(name="database", is_well=not said["database"], pid=None, detail=said["database"]))
    order = ["database", "postgresql", "api", "mail-sink", "airflow-api-server", *_JOBS]
    return sorted(found, key=lambda item: order.index(item.name))


def get(url: str, timeout: float = 2.0) -> bytes:
    """GET on this machine.

    Raises:
        OSError: no answer, or not a 2xx one.
    """
    with _OPENER.open(url, timeout=timeout) as answer:
        body: bytes = answer.read()
        return body


def memory_mb(pid: int, *, alone: bool = False) -> int | None:
    """Memory of a process in MB, with its children unless `alone`; shared pages count once (Linux)."""
    total = 0
    for member in [pid, *([] if alone else _descendants(pid))]:
        with contextlib.suppress(OSError, ValueError, StopIteration):
            total += _resident_kb(member)
    return round(total / 1024) if total else None


def _judge(name: str, program: Mapping[str, Any] | None, detail: str) -> Health:
    pid = program.get("pid") if program else None
    exits = int(program.get("exits", 0)) if program else 0
    if pid is None or not _exists(pid):
        return Health(name=name, is_well=False, pid=None, detail="is not running", exits=exits)
    return Health(name=name, is_well=not detail, pid=pid, detail=detail, exits=exits)


def _ask_database(plan: Plan) -> str:
    try:
        psycopg2.connect(plan.settings.url_for("owner"), connect_timeout=2).close()
    except psycopg2.Error as error:
        return (str(error).strip().splitlines() or ["does not answer"])[0]
    return ""


def _ask_api(plan: Plan) -> str:
    try:
        get(f"{plan.api_url}/ready")
    except urllib.error.HTTPError as error:
        return f"/ready answers {error.code}: {error.read(300).decode('utf-8', 'replace')}"
    except OSError:
        return "does not answer"
    return ""


def _ask_sink(plan: Plan) -> str:
    try:
        get(plan.mail_page_url)
        smtplib.SMTP(LOOPBACK, plan.port("MAUTO_SMTP_PORT"), timeout=2).quit()
    except (OSError, smtplib.SMTPException):
        return "does not answer"
    return ""


def _ask_airflow(plan: Plan) -> dict[str, Any] | None:
    try:
        answer = json.loads(get(f"{plan.airflow_url}/api/v2/monitor/health", timeout=5.0))
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _judge_job(answer: Mapping[str, Any] | None, since: float) -> str:
    if not answer:
        return "unknown: Airflow's API server does not answer"
    beat = next((value for key, value in answer.items() if key.startswith("latest_") and value), None)
    if answer.get("status") != "healthy" or beat is None:
        return "no heartbeat"
    is_young = datetime.fromisoformat(beat.replace("Z", "+00:00")).timestamp() >= since
    return "" if is_young else "no heartbeat since its start"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names are what is wanted
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:  # noqa: PTH123
                for child in map(int, file.read().split()):
                    found += [child, *_descendants(child)]
    return found


def _resident_kb(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:  # noqa: PTH123
            return int(next(line for line in file if line.startswith("Pss:")).split()[1])
    except (PermissionError, FileNotFoundError):
        with open(f"/proc/{pid}/status", encoding="ascii") as file:  # noqa: PTH123
            return int(next(line for line in file if line.startswith("VmRSS:")).split()[1])
