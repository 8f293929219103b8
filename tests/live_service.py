"""The API as a test meets it: the real app behind a real server on a free port, over a database of its own.

Imported by the conftest files of the folders that speak HTTP. Its database is shared by the tests of a session and
keeps what they commit: use values of your own.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from mautolib.settings import Settings
from tests import sns

if TYPE_CHECKING:
    from sqlalchemy import Engine

PASSWORD = "correct horse battery staple"
#: An address webhooks may be sent to, where nobody listens.
HOOK = "https://127.0.0.1:9/hook"
ADMIN, EDITOR, VIEWER = "admin@shop.example", "editor@shop.example", "viewer@shop.example"


@dataclass(kw_only=True)
class LiveService:
    """A running service: where it is, its database, and tokens of each role."""

    url: str
    engine: Engine
    settings: Settings
    _tokens: dict[str, str] = field(default_factory=dict)

    def client(self, role: str | None = None, **options: Any) -> httpx.Client:
        """A client, signed in as `viewer`, `editor` or `admin`, or as nobody."""
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers["Authorization"] = f"Bearer {self.token(role)}"
        # Without TLS there is nothing to verify; loading the certificates took longer than most tests (13 ms).
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=False, **options)

    def token(self, role: str) -> str:
        """An access token of the user with that role."""
        if role not in self._tokens:
            self._tokens[role] = self.sign_in(f"{role}@shop.example")["access_token"]
        return self._tokens[role]

    def sign_in(self, email: str, password: str = PASSWORD) -> dict[str, Any]:
        """The answer of a sign-in that succeeds."""
        with self.client() as client:
            answer = client.post("/api/v1/auth/login", json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def serve(settings: Settings) -> tuple[str, Callable[[], None]]:
    """Run the app of `settings` on a free port; returns its URL and what stops it."""
    import uvicorn

    from api.__main__ import ImpatientProtocol
    from api.app import create_app

    config = uvicorn.Config(
        create_app(settings), host="127.0.0.1", port=0, http=ImpatientProtocol, ws="none", log_config=None,
        access_log=False, proxy_headers=False, server_header=False, lifespan="on",
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    waiting = threading.Event()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        waiting.wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def stop() -> None:
        server.should_exit = True
        thread.join(15)

    return f"http://127.0.0.1:{port}", stop


def make_users(engine: Engine) -> None:
    """One user of each role, all with `PASSWORD`."""
    from mautolib.auth import users
    from mautolib.auth.roles import Role

    with engine.begin() as tx:
        for role in Role:
            new = users.NewUser(email=f"{role}@shop.example", password=PASSWORD, name=role.title(), role=role)
            users.create(tx, new, now=datetime.now(UTC))


@pytest.fixture(scope="session")
def service(cluster: Any, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """The running service of this session."""
    from mautolib.db.engine import connect

    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    make_users(engine)
    with as_role(engine, "mauto_api") as api_url:
        settings = live_settings(cluster.url(name), tmp_path_factory.mktemp("home"), api_database_url=api_url)
        url, stop = serve(settings)
        yield LiveService(url=url, engine=engine, settings=settings)
        stop()
    engine.dispose()
    cluster.drop(name)


@contextmanager
def as_role(engine: Engine, role: str) -> Iterator[str]:
    """The URL of the engine's database for a login with the rights of `role` and no others."""
    login, password = f"mauto_test_{secrets.token_hex(4)}", secrets.token_hex(16)
    with engine.begin() as tx:
        tx.exec_driver_sql(f"create role {login} login password '{password}' in role {role}")
    yield engine.url.set(drivername="postgresql", username=login, password=password).render_as_string(
        hide_password=False
    )
    with engine.begin() as tx:
        tx.exec_driver_sql(f"drop role {login}")


def live_settings(database_url: str, home: Path, **changes: Any) -> Settings:
    """Settings of a service under test."""
    settings = Settings(
        database_url=database_url,
        secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",),
        suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
        environment="development",
        home=home,
        admin_email=ADMIN,
        admin_password=PASSWORD,
        default_from_name="Example Shop",
        default_from_email="news@shop.example",
        postal_address="Example Shop, 1 High Street, Berlin",
        cors_origins=("https://app.shop.example",),
        sns_topic_arns=(sns.TOPIC,),
        webhook_allowed_hosts=(HOOK.split("/")[2],),
    )
    return dataclasses.replace(settings, **changes)


@pytest.fixture
def nobody(service: LiveService) -> Iterator[httpx.Client]:
    """A client without credentials."""
    with service.client() as client:
        yield client


@pytest.fixture
def viewer(service: LiveService) -> Iterator[httpx.Client]:
    """A client signed in as viewer."""
    with service.client("viewer") as client:
        yield client


@pytest.fixture
def editor(service: LiveService) -> Iterator[httpx.Client]:
    """A client signed in as editor."""
    with service.client("editor") as client:
        yield client


@pytest.fixture
def admin(service: LiveService) -> Iterator[httpx.Client]:
    """A client signed in as admin."""
    with service.client("admin") as client:
        yield client
