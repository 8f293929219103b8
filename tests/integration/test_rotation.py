"""Rotation of every secret, and a new embedded server, on a stack that runs: docs/operations.md typed in as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest

from mautolib.events.links import LinkSigner, Owner
from mautolib.settings import Settings
from mautolib.stack.home import Home
from mautolib.stack.launcher import Stack
from tests.integration.test_runbooks import ROOT, found
from tests.integration.test_stack_life import surroundings

pytestmark = [pytest.mark.slow, pytest.mark.stack]
NOT_COMPLETE = "This link is not complete"


@dataclass(frozen=True, kw_only=True)
class Links:
    """Two of a mail; a click whose signature is not ours asks whether to go on."""

    unsubscribe: str
    click: str


@dataclass(kw_only=True)
class Terminal:
    """A shell beside `.mauto`, where `make` and `mauto` are those of this checkout, and a browser."""

    folder: Path
    variables: dict[str, str]

    def type(self, block: str, code: int = 0) -> str:
        # A machine that is very busy gets a second try: what failed is stopped again, and the databases are there.
        stack = f'"{sys.executable}" -m mautolib.stack "$@"'
        script = (f"make() {{ {stack} || {stack}; }}\n"
                  f'mauto() {{ "{sys.executable}" -m mautolib.cli "$@"; }}\nset -e\n{block}')  # fmt: skip
        done = subprocess.run(["bash", "-c", script], cwd=self.folder, env=self.variables, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == code, f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def stack(self) -> Stack:
        """As it is configured now."""
        return Stack(Home(self.folder / ".mauto"), self.variables)

    @property
    def settings(self) -> Settings:
        return self.stack.settings

    def ask(self, path: str, **given: Any) -> int:
        """The status of a GET of the API."""
        return httpx.get(f"{self.stack.plan.api_url}/api/v1{path}", timeout=30, trust_env=False, **given).status_code

    def post(self, path: str, body: dict[str, Any], **given: Any) -> httpx.Response:
        return httpx.post(f"{self.stack.plan.api_url}/api/v1{path}", json=body, timeout=30, trust_env=False, **given)

    def sign_in(self, password: str) -> httpx.Response:
        return self.post("/auth/login", {"email": self.settings.admin_email, "password": password})

    def airflow(self, password: str) -> int:
        """The status of a sign-in to Airflow."""
        who = {"username": self.settings.admin_email, "password": password}
        url = f"{self.stack.plan.airflow_url}/auth/token"
        return httpx.post(url, json=who, timeout=30, trust_env=False).status_code

    def is_complete(self, links: Links) -> bool:
        """Whether the links of a mail still do what they are there for; both or neither."""
        page = httpx.get(links.unsubscribe, timeout=30, trust_env=False)
        asked = httpx.get(links.click, timeout=30, trust_env=False)
        assert page.status_code == 200 and asked.status_code in (200, 302, 303, 307)
        assert (NOT_COMPLETE in page.text) is (asked.status_code == 200)
        return NOT_COMPLETE not in page.text


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    folder = Path(tempfile.mkdtemp(prefix="mauto-rotation-"))
    folder.chmod(0o711)
    path = f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"
    variables = {**surroundings(), "MAUTO_HOME": str(folder / ".mauto"), "PYTHONPATH": path}
    terminal = Terminal(folder=folder, variables=variables)
    try:
        terminal.type("make up")
        yield terminal
    finally:
        terminal.type("make down")
        shutil.rmtree(folder, ignore_errors=True)


def bearer(token: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


def links_to(settings: Settings, contact_id: int) -> Links:
    mail = LinkSigner.from_settings(settings).for_message(
        owner=Owner.of(), contact_id=contact_id, message_id=1, made_at=datetime.now(UTC)
    )
    return Links(unsubscribe=mail.unsubscribe(), click=mail.click("https://shop.example/sale"))


def test_every_secret_is_replaced_and_what_lives_on_is_what_the_page_says(terminal: Terminal) -> None:
    adding, removing, databases, administrator = found()["Rotate secrets"]
    first = terminal.settings
    before = terminal.sign_in(first.admin_password).json()
    old, key, contact = made(terminal, before["access_token"])

    # The old key still opens what it signed, and stored secrets are sealed with the new one.
    assert "1 secrets are sealed with the newest key" in terminal.type(adding)
    assert len(terminal.settings.secret_keys) == 2 and terminal.settings.secret_keys[1:] == first.secret_keys
    assert terminal.ask("/auth/me", **bearer(before["access_token"])) == 200
    assert terminal.ask("/contacts/", headers={"X-API-Key": key}) == 200
    assert terminal.is_complete(old)
    since = terminal.sign_in(first.admin_password).json()["access_token"]
    new = links_to(terminal.settings, contact)
    assert terminal.is_complete(new)

    terminal.type(removing)
    assert len(terminal.settings.secret_keys) == 1
    assert terminal.ask("/auth/me", **bearer(before["access_token"])) == 401
    assert not terminal.is_complete(old)
    assert terminal.is_complete(new) and terminal.ask("/auth/me", **bearer(since)) == 200
    assert terminal.ask("/contacts/", headers={"X-API-Key": key}) == 200
    assert terminal.post("/auth/refresh", {"refresh_token": before["refresh_token"]}).status_code == 200
    told = json.loads(terminal.type("mauto secrets status --json"))
    assert [row["secrets"] for row in told] == [1, 0, 0]

    then = terminal.settings
    terminal.type(databases)
    for role in ("owner", "api", "worker", "tracker", "eraser", "analyst"):
        assert terminal.settings.url_for(role) != then.url_for(role)
        psycopg2.connect(terminal.settings.url_for(role)).close()
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(then.url_for(role))
    assert terminal.ask("/auth/me", **bearer(since)) == 200 and terminal.airflow(first.admin_password) == 201

    terminal.type(administrator)
    changed = terminal.settings.admin_password
    assert changed != first.admin_password
    assert terminal.sign_in(first.admin_password).status_code == terminal.airflow(first.admin_password) == 401
    assert (terminal.sign_in(changed).status_code, terminal.airflow(changed)) == (200, 201)
    assert terminal.ask("/auth/me", **bearer(since)) == 401, "sessions end"
    assert terminal.ask("/contacts/", headers={"X-API-Key": key}) == 200


def made(terminal: Terminal, token: str) -> tuple[Links, str, int]:
    """Links of a mail, an API key and a contact; and a webhook with a secret."""
    given = bearer(token)
    assert terminal.post("/webhooks/", {"url": "https://shop.example/hook"}, **given).status_code == 201
    key = terminal.post("/api-keys/", {"name": "shop", "scopes": ["*"]}, **given).json()["key"]
    contact = int(terminal.post("/contacts/", {"email": "ann@mail.example", "subscribed": True}, **given).json()["id"])
    return links_to(terminal.settings, contact), key, contact


def test_the_embedded_server_is_replaced_by_a_new_one(terminal: Terminal) -> None:
    token = terminal.sign_in(terminal.settings.admin_password).json()["access_token"]
    made(terminal, token)
    said = terminal.type(found()["Upgrade"][3])
    assert "restored; sending is OFF" in said and "sending is on" in said
    assert (terminal.folder / ".mauto" / "cluster.before" / "data").is_dir()
    assert "ledger clean" in terminal.type("mauto ledger check")
    assert terminal.ask("/auth/me", **bearer(token)) == 200
    answer = httpx.get(f"{terminal.stack.plan.api_url}/api/v1/contacts/", timeout=30, trust_env=False, **bearer(token))
    assert [one["email"] for one in answer.json()] == ["ann@mail.example"]
