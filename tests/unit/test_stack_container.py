"""The composed stack: each service is a part that exists, and no secret stands in a file of the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mautolib.cli import desk
from mautolib.errors import Misconfigured
from mautolib.stack.container import container_plan, make_secrets, process

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"MAUTO_HOME": str(tmp_path / "home"), "PATH": "/bin"}


def test_each_service_of_ours_is_a_part_that_exists(environ: dict[str, str]) -> None:
    scale = {"COMPOSE_PROFILES": "scale", "REDIS_PASSWORD": "x7Kq2mWz9RtLp4Vb8NcY5HdJ3GfS6aQe"}
    plan = container_plan({**environ, **scale})
    images = ("postgres", "redis")
    ours = {name: service["command"] for name, service in COMPOSE["services"].items() if name not in images}
    assert ours.pop("secrets") == ["secrets", "/run/postgres-password/password"]
    assert ours.pop("migrate") == ["migrate"]
    for name, command in ours.items():
        assert command == [name]
        assert process(plan, name)[0][1:3] in (["-m", "api"], ["-m", "airflow"], ["-m", "mautolib.stack.mailsink"])
    with pytest.raises(Misconfigured, match="no part 'worker'"):
        process(plan, "worker")


def test_parts_find_each_other_by_the_names_of_the_services(environ: dict[str, str]) -> None:
    plan = container_plan(environ)
    services = COMPOSE["services"]
    _, api = process(plan, "api")
    assert re.search(r"@(\w+):5432/mauto$", api["MAUTO_API_DATABASE_URL"]).group(1) in services  # type: ignore[union-attr]
    assert api["MAUTO_SMTP_HOST"] in services
    assert api["MAUTO_API_HOST"] == "0.0.0.0"
    assert "MAUTO_DATABASE_URL" not in api
    _, scheduler = process(plan, "airflow-scheduler")
    execution = scheduler["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert execution == "http://airflow-api-server:8080/execution/"
    assert "airflow-api-server" in services
    assert scheduler["AIRFLOW__API__HOST"] == "0.0.0.0"
    assert scheduler["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:8080"


def test_the_command_line_in_a_container_finds_the_services(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAUTO_DATABASE_URL", raising=False)
    for name, value in {**environ, "MAUTO_CONTAINER_PART": "api"}.items():
        monkeypatch.setenv(name, value)
    given = desk.settings()
    assert given == container_plan(environ).settings
    assert re.search(r"^postgresql://mauto_owner:\w+@postgres:5432/mauto$", given.url_for("owner"))
    assert "MAUTO_CONTAINER_PART=api" in (ROOT / "docker/Dockerfile").read_text()


def test_published_ports_move_without_moving_the_ports_inside(environ: dict[str, str]) -> None:
    plan = container_plan({**environ, "MAUTO_API_PORT": "9000", "MAUTO_AIRFLOW_PORT": "9080"})
    assert plan.settings.public_base_url == "http://127.0.0.1:9000"
    assert plan.settings.api_port == 8000
    assert plan.settings.airflow_url == "http://127.0.0.1:9080"
    assert plan.airflow_url == "http://airflow-api-server:8080"


def test_a_mail_server_of_the_user_replaces_the_sink(environ: dict[str, str]) -> None:
    plan = container_plan({**environ, "MAUTO_SMTP_HOST": "mail.example", "MAUTO_SMTP_PORT": "587"})
    assert (plan.settings.smtp_host, plan.settings.smtp_port) == ("mail.example", 587)
    assert "1025" in process(plan, "mail-sink")[0]


def test_secrets_are_generated_and_stand_in_no_file(environ: dict[str, str], tmp_path: Path) -> None:
    first = container_plan(environ)
    make_secrets(first, tmp_path / "password")
    assert (tmp_path / "password").read_text() == first.secrets["DATABASE_PASSWORD_SUPERUSER"]
    assert container_plan(environ).secrets == first.secrets
    for name in ("docker-compose.yml", ".env.example", "docker/Dockerfile"):
        for line in (ROOT / name).read_text().splitlines():
            assert not re.search(r"(?i)(password|secret|key|pepper)\w*\s*[:=]\s*[\w-]{8,}\s*$", line), (name, line)


def test_everything_is_published_to_this_machine_only() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
