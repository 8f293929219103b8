"""The demo as a user of the product: the REST API, Airflow's API and the mail sink, over HTTP like anybody else.

Only public doors are used here, so that what the demo shows is what a stranger gets. Holds no knowledge of the data.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from mautolib.errors import ProviderUnavailable
from mautolib.stack.plan import Plan

__all__ = ["Faces"]


class Faces:
    """Signed-in clients of one running stack.

    Raises:
        ProviderUnavailable: a call is refused; names the call and the answer.
    """

    def __init__(self, plan: Plan) -> None:
        settings = plan.settings
        self._credentials = {"email": settings.admin_email, "password": settings.admin_password}
        self._api = httpx.Client(base_url=f"{plan.api_url}/api/v1", timeout=30, trust_env=False)
        self._airflow = httpx.Client(base_url=plan.airflow_url, timeout=30, trust_env=False)
        self._sink = httpx.Client(base_url=plan.mail_page_url, timeout=30, trust_env=False)
        token = _checked(self._api.post("/auth/login", json=self._credentials)).json()["access_token"]
        self._api.headers["Authorization"] = f"Bearer {token}"
        self._airflow.headers["Authorization"] = f"Bearer {self._airflow_token()}"

    def close(self) -> None:
        """Close the connections."""
        for client in (self._api, self._airflow, self._sink):
            client.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET of our API, as JSON."""
        return _checked(self._api.get(path, params=query)).json()

    def post(self, path: str, body: Any = None, *, accept: tuple[int, ...] = ()) -> httpx.Response:
        """POST of our API; statuses in `accept` are not errors."""
        answer = self._api.post(path, json=body)
        return answer if answer.status_code in accept else _checked(answer)

    def upload(self, path: Path) -> str:
        """Upload a contact file; returns the import's id."""
        with path.open("rb") as file:
            answer = self._api.post("/contacts/import", files={"file": (path.name, file, "text/csv")})
        return str(_checked(answer).json()["import_id"])

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Trigger a DAG as the button in the Airflow UI does; returns the run's id."""
        body = {"logical_date": None, "conf": conf}
        return str(_checked(self._airflow.post(f"/api/v2/dags/{dag_id}/dagRuns", json=body)).json()["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """State of a DAG run: queued, running, success or failed."""
        return str(_checked(self._airflow.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")).json()["state"])

    def mails(self) -> int:
        """How many mails the sink holds."""
        return int(_checked(self._sink.get("/api/count")).json()["count"])

    def _airflow_token(self) -> str:
        body = {"username": self._credentials["email"], "password": self._credentials["password"]}
        return str(_checked(self._airflow.post("/auth/token", json=body)).json()["access_token"])


def wait_until(what: str, done: Callable[[], bool], *, seconds: float, tick: Callable[[], None]) -> None:
    """Ask `done` four times a second, showing progress with `tick`.

    Raises:
        ProviderUnavailable: not within `seconds`; names `what` and where to look.
    """
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise ProviderUnavailable(f"{what} did not happen within {seconds:.0f} s; see the logs and the Airflow UI")
        tick()
        time.sleep(0.25)


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    call = f"{answer.request.method} {answer.request.url.path}"
    raise ProviderUnavailable(f"{call} answered {answer.status_code}: {answer.text[:300]}")
