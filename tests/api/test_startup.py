"""`python -m api` as a process: it starts, stops when told, and says in one line why it cannot start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from api.__main__ import listen, prepare
from mautolib.errors import MautoError
from mautolib.settings import Settings
from tests.live_service import PASSWORD


def environment(database_url: str, home: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "MAUTO_DATABASE_URL": database_url,
        "MAUTO_SECRET_KEYS": "8f0b7a61d5c24e93b1f6a07d3e582c49",
        "MAUTO_SUPPRESSION_PEPPER": "c1d94e27a85f3b60e7924d1fa6b0358e",
        "MAUTO_ADMIN_EMAIL": "first@shop.example",
        "MAUTO_ADMIN_PASSWORD": PASSWORD,
        "MAUTO_HOME": str(home),
        "MAUTO_API_PORT": "0",
        **more,
    }


def refused(env: dict[str, str]) -> str:
    """The one line of a start that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "api"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("api: "), done.stderr
    return lines[0]


def test_it_starts_makes_the_first_admin_and_stops(fresh_database_url: str, tmp_path: Path) -> None:
    env = environment(fresh_database_url, tmp_path)
    for _ in range(2):  # the second start finds its admin
        process = subprocess.Popen([sys.executable, "-m", "api"], env=env, stderr=subprocess.PIPE, text=True)
        guard = threading.Timer(60, process.kill)
        guard.start()
        try:
            assert process.stderr is not None
            url = ""
            while not url:
                line = process.stderr.readline()
                assert line, "the service ended before it listened"
                url = line.partition("listening on ")[2].strip()
            body = {"email": "first@shop.example", "password": PASSWORD}
            answer = httpx.post(f"{url}/api/v1/auth/login", json=body, trust_env=False)
            assert answer.status_code == 200
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(20) in (0, -signal.SIGTERM)
            assert "Traceback" not in rest and "Warning" not in rest
        finally:
            guard.cancel()
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


def test_a_taken_port_is_named_with_its_setting(fresh_database_url: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(environment(fresh_database_url, tmp_path, MAUTO_API_PORT=str(port)))
    assert f"127.0.0.1:{port} is taken" in line and "MAUTO_API_PORT" in line


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path) -> None:
    line = refused(environment("postgresql://me:hunter2@127.0.0.1:1/shop", tmp_path))
    assert "the database shop on 127.0.0.1:1" in line and "MAUTO_DATABASE_URL" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAUTO_SECRET_KEYS", "short"), ("MAUTO_SUPPRESSION_PEPPER", ""), ("MAUTO_DATABASE_URL", "mysql://x/y"),
     ("MAUTO_DATABASE_URL", ""), ("MAUTO_API_PORT", "http"), ("MAUTO_ADMIN_PASSWORD", "short"),
     ("MAUTO_ADMIN_EMAIL", "nobody"), ("MAUTO_API_HOST", "192.0.2.1")],
)  # fmt: skip
def test_a_wrong_setting_is_named(engine: Engine, database_url: str, tmp_path: Path, name: str, value: str) -> None:
    with engine.begin() as tx:
        assert tx.scalar(text("select count(*) from users")) == 0
    with pytest.raises(MautoError, match=name):
        settings = Settings.from_env(environment(database_url, tmp_path, **{name: value}))
        listen(settings).close()
        prepare(settings)


def test_a_database_that_is_not_migrated_is_refused(cluster: Any, tmp_path: Path) -> None:
    name = cluster.create()
    with pytest.raises(MautoError, match="make migrate"):
        prepare(Settings.from_env(environment(cluster.url(name), tmp_path)))
    cluster.drop(name)
