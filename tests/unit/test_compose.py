"""docker-compose.yml and the image, read without an engine: health, limits, secrets, names that must exist."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from mautolib.errors import Misconfigured
from mautolib.settings import Settings, variable
from mautolib.stack import airflow_setup, container_health
from mautolib.stack.container import broker_url, container_plan, process

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {"secrets", "migrate"}
IMAGES = {"postgres", "redis"}
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
PASSWORD = "x7Kq2mWz9RtLp4Vb8NcY5HdJ3GfS6aQe"
SCALE = {"COMPOSE_PROFILES": "scale", "REDIS_PASSWORD": PASSWORD}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"MAUTO_HOME": str(tmp_path / "home"), "PATH": "/bin"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_asked_for_its_health_and_has_limits(name: str) -> None:
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}
    if name in ONCE:
        assert service["healthcheck"] == {"disable": True}
        assert "restart" not in service
    else:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert service["restart"] == "unless-stopped"


def test_each_part_of_ours_is_asked_after_itself() -> None:
    asked = set()
    for name, service in SERVICES.items():
        if name not in ONCE | IMAGES:
            assert service["healthcheck"]["test"] == ["CMD", "python", "-m", "mautolib.stack.container_health", name]
            asked.add(name)
    assert asked == {*container_health.ADDRESSES, *container_health.JOBS, "airflow-worker"}


def test_no_service_may_gain_rights_and_ours_have_none() -> None:
    for name, service in SERVICES.items():
        if name != "postgres":  # its image starts as root and lays that down itself
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert service["cap_drop"] == ["ALL"], name
        assert not service.get("privileged")
    assert SERVICES["redis"]["user"] == "redis"


def test_every_variable_that_is_named_exists() -> None:
    settings = {variable(field.name) for field in dataclasses.fields(Settings)}
    ours = {"COMPOSE_PROFILES", "REDIS_PASSWORD", "POSTGRES_PASSWORD_FILE", "POSTGRES_INITDB_ARGS"}
    named = set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))
    for service in SERVICES.values():
        named |= set(service.get("environment", {}))
    for name in named - ours - settings:
        assert name.startswith(("MAUTO_CONTAINER_", "AIRFLOW__")), name
        if name.startswith("AIRFLOW__"):
            assert name == "AIRFLOW__CELERY__WORKER_CONCURRENCY"  # tests/scale runs the provider whose option it is
    assert {name for name in named if name.startswith("MAUTO_CONTAINER_")} == {
        "MAUTO_CONTAINER_POSTGRES_CPUS", "MAUTO_CONTAINER_POSTGRES_MEMORY", "MAUTO_CONTAINER_WORKERS",
        "MAUTO_CONTAINER_WORKER_SLOTS",
    }  # fmt: skip


def test_secrets_come_from_the_environment_or_are_generated() -> None:
    for name, service in SERVICES.items():
        for variable_name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|TOKEN", variable_name) and not variable_name.endswith("_FILE"):
                assert re.fullmatch(r"\$\{\w+:-\}", value), (name, variable_name)
    assert "REDIS_PASSWORD" not in SERVICES["redis"]["healthcheck"]["test"][1].replace('"$$REDIS_PASSWORD"', "")\
        .replace("REDISCLI_AUTH=", "")  # fmt: skip


def test_the_profile_adds_redis_and_workers_and_nothing_else() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["scale"]} == {
        "redis", "airflow-worker",
    }  # fmt: skip
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"redis", "airflow-worker"}
    assert SERVICES["airflow-worker"]["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert SERVICES["airflow-worker"]["deploy"]["replicas"] == "${MAUTO_CONTAINER_WORKERS:-2}"


def test_with_the_profile_every_part_of_airflow_uses_celery_and_its_own_users(environ: dict[str, str]) -> None:
    plan = container_plan({**environ, **SCALE, "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4"})
    for name in (*airflow_setup.COMPONENTS, "airflow-worker"):
        command, given = process(plan, name)
        assert command[1:3] == ["-m", "airflow"]
        assert given["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
        assert given["AIRFLOW__CELERY__BROKER_URL"] == f"redis://:{PASSWORD}@redis:6379/0"
        assert given["AIRFLOW__CORE__AUTH_MANAGER"] == airflow_setup.FAB
        assert given["AIRFLOW__CELERY__WORKER_CONCURRENCY"] == "4"
    assert process(plan, "airflow-worker")[0][3:5] == ["celery", "worker"]
    _, api = process(plan, "api")
    assert PASSWORD not in str(api), "the API has no business with the broker"


def test_without_the_profile_nothing_has_changed(environ: dict[str, str]) -> None:
    plan = container_plan({**environ, "COMPOSE_PROFILES": "", "REDIS_PASSWORD": ""})
    _, given = process(plan, "airflow-scheduler")
    assert given["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert given["AIRFLOW__CORE__AUTH_MANAGER"].endswith("SimpleAuthManager")
    with pytest.raises(Misconfigured, match="COMPOSE_PROFILES=scale"):
        process(plan, "airflow-worker")


@pytest.mark.parametrize("password", ["", "short", "changeme" * 5])
def test_nothing_starts_with_a_missing_or_weak_password(environ: dict[str, str], password: str) -> None:
    with pytest.raises(Misconfigured, match="REDIS_PASSWORD"):
        container_plan({**environ, "COMPOSE_PROFILES": "scale", "REDIS_PASSWORD": password})


def test_any_password_fits_into_the_address() -> None:
    found = broker_url({"REDIS_PASSWORD": "a/b@c:d#e?f g%h" * 3, "MAUTO_CONTAINER_REDIS": "127.0.0.1:7000"})
    assert found.endswith("@127.0.0.1:7000/0")
    assert found.count("@") == 1 and found.count("/") == 3 and "#" not in found and " " not in found


def test_redis_gets_its_password_on_the_standard_input_and_refuses_none(tmp_path: Path) -> None:
    script = SERVICES["redis"]["command"][0].replace("$$", "$")
    fake = tmp_path / "redis-server"
    fake.write_text('#!/bin/sh\necho "arguments: $*"\ncat\n')
    fake.chmod(0o755)
    entry = SERVICES["redis"]["entrypoint"]

    def start(**given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*entry, script], env={"PATH": f"{tmp_path}:/usr/bin:/bin", **given}, text=True,
                              capture_output=True, check=False)  # fmt: skip

    done = start(REDIS_PASSWORD=PASSWORD)
    assert done.stdout.splitlines() == [
        "arguments: -", f'requirepass "{PASSWORD}"', "dir /data", "appendonly yes", "maxmemory-policy noeviction",
    ]  # fmt: skip
    refused = start(REDIS_PASSWORD="")
    assert refused.returncode != 0
    assert "put REDIS_PASSWORD=... into .env" in refused.stderr
    assert not refused.stdout


def test_images_are_pinned() -> None:
    images = {name: service["image"] for name, service in SERVICES.items() if name in IMAGES}
    images["base"] = re.findall(r"^FROM (\S+)$", DOCKERFILE, re.M)[0]
    for name, image in images.items():
        assert re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?-\w+(-\w+)?", image), (name, image)
    assert DOCKERFILE.count("FROM ") == 1


def test_the_image_runs_as_a_user_and_copies_what_there_is() -> None:
    user = re.findall(r"^USER (\w+)$", DOCKERFILE, re.M)
    assert user == ["mauto"]
    assert "useradd --create-home --uid 1000 mauto" in DOCKERFILE
    tail = DOCKERFILE[DOCKERFILE.index("\nUSER "):]
    assert "RUN" not in tail
    assert "ENTRYPOINT" in tail
    copied = [name for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.M) for name in line.split()[:-1]]
    assert "." not in copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not set(copied) & set(ignored)
    assert {".env", ".git", ".mauto"} <= set(ignored)
    lock = DOCKERFILE.count("--require-hashes")
    assert lock == len([name for name in copied if name.startswith("requirements")]) == 2


def test_a_part_without_a_heartbeat_is_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    class Airflow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {"scheduler": {"status": "healthy"}, "triggerer": {"status": "unhealthy"}}
            self.send_response(200 if self.path == "/api/v2/monitor/health" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Airflow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = {"MAUTO_CONTAINER_AIRFLOW": "127.0.0.1", "MAUTO_CONTAINER_AIRFLOW_PORT": str(server.server_port)}
        assert container_health.main(["airflow-scheduler"], given) == 0
        assert container_health.main(["airflow-triggerer"], given) == 1
        assert container_health.main(["airflow-dag-processor"], given) == 1, "nothing is told of it"
        assert container_health.main(["airflow-api-server"], given) == 1, "404"
        server.shutdown()
    assert "no heartbeat" in capsys.readouterr().err


def test_health_of_a_part_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = {"MAUTO_CONTAINER_AIRFLOW": "127.0.0.1", "MAUTO_CONTAINER_AIRFLOW_PORT": "1"}
    assert container_health.main(["airflow-scheduler"], nowhere) == 1
    assert container_health.main([], {"MAUTO_CONTAINER_PART": "nothing"}) == 1
    assert container_health.main([], {}) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["airflow-scheduler", "nothing", "which part?"]
