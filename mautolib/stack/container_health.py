"""Whether one part of the composed stack is well: `python -m mautolib.stack.container_health NAME`, exit code 0 or 1.

What `docker-compose.yml` and the image ask again and again, so it imports next to nothing. Airflow's background parts
are judged by their heartbeat, as its API server tells it; a Celery worker must answer over the broker.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from collections.abc import Mapping, Sequence

__all__ = ["ADDRESSES", "JOBS", "main"]

#: Parts that answer themselves -> the name of their port, and what is asked.
ADDRESSES = {"api": ("API_PORT", "/ready"), "mail-sink": ("MAIL_PAGE_PORT", "/"),
             "airflow-api-server": ("AIRFLOW_PORT", "/api/v2/version")}  # fmt: skip
#: Parts whose heartbeat Airflow's API server knows -> by which name.
JOBS = {"airflow-scheduler": "scheduler", "airflow-dag-processor": "dag_processor", "airflow-triggerer": "triggerer"}
_SECONDS = 5.0
_PORTS = {"API_PORT": "8000", "MAIL_PAGE_PORT": "8025", "AIRFLOW_PORT": "8080"}


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """0 when the part is well; 1, with one line that says why, when it is not."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    where = os.environ if environ is None else environ
    name = given[0] if given else where.get("MAUTO_CONTAINER_PART", "")
    try:
        _ask(name, where)
    except Exception as error:  # noqa: BLE001 - whatever it is, the part is not well
        sys.stderr.write(f"{name or 'which part?'}: {type(error).__name__}: {str(error)[:200]}\n")
        return 1
    return 0


def _ask(name: str, environ: Mapping[str, str]) -> None:
    if name in ADDRESSES:
        port, path = ADDRESSES[name]
        _get(f"http://127.0.0.1:{_port(port, environ)}{path}")
    elif name in JOBS:
        server = environ.get("MAUTO_CONTAINER_AIRFLOW", "airflow-api-server")
        told = json.loads(_get(f"http://{server}:{_port('AIRFLOW_PORT', environ)}/api/v2/monitor/health"))[JOBS[name]]
        if told["status"] != "healthy":
            raise RuntimeError(f"no heartbeat: {told}")
    elif name == "airflow-worker":
        _ping(environ)
    else:
        raise ValueError("there is no such part")


def _port(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(f"MAUTO_CONTAINER_{name}", _PORTS[name])


def _get(url: str) -> bytes:
    # A proxy of the environment must not see it.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=_SECONDS) as answer:
        found: bytes = answer.read()
        return found


def _ping(environ: Mapping[str, str]) -> None:
    from celery import Celery  # of requirements-scale.txt

    from mautolib.stack.container import broker_url

    worker = f"celery@{environ.get('HOSTNAME') or socket.gethostname()}"
    app = Celery(broker=broker_url(environ), set_as_current=False)
    if not app.control.ping(destination=[worker], timeout=_SECONDS):
        raise RuntimeError(f"{worker} does not answer")


if __name__ == "__main__":
    raise SystemExit(main())
