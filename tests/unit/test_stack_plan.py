"""The plan of a stack: what is generated, what the user's settings change, and who gets to know which URL."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mautolib.cli import desk
from mautolib.errors import Conflict, Misconfigured
from mautolib.stack.__main__ import main as stack_main
from mautolib.stack.home import Home, read_assignments
from mautolib.stack.plan import make_plan


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_secrets_are_made_once_and_for_their_owner_only(home: Home) -> None:
    first = make_plan(home, {})
    second = make_plan(home, {})
    assert first.variables == second.variables
    assert home.secrets_file.stat().st_mode & 0o777 == 0o600
    first.settings.check_secrets()
    assert len(set(first.secrets.values())) == len(first.secrets)


def test_two_homes_share_no_secret(tmp_path: Path) -> None:
    one, two = make_plan(Home(tmp_path / "1"), {}), make_plan(Home(tmp_path / "2"), {})
    shared = set(one.secrets.values()) & set(two.secrets.values())
    assert shared == {one.secrets["MAUTO_ADMIN_EMAIL"]}


def test_lost_secrets_are_not_replaced_while_their_data_is_there(home: Home) -> None:
    make_plan(home, {})
    (home.cluster / "data").mkdir(parents=True)
    home.secrets_file.unlink()
    with pytest.raises(Misconfigured, match=r"secrets\.env is missing.*restore"):
        make_plan(home, {})


def test_a_missing_secret_is_added_and_the_others_stay(home: Home) -> None:
    before = make_plan(home, {}).secrets
    lines = home.secrets_file.read_text().splitlines(keepends=True)
    home.secrets_file.write_text("".join(line for line in lines if "FERNET" not in line))
    after = make_plan(home, {}).secrets
    assert after["AIRFLOW_FERNET_KEY"] != before["AIRFLOW_FERNET_KEY"]
    assert {**after, "AIRFLOW_FERNET_KEY": ""} == {**before, "AIRFLOW_FERNET_KEY": ""}


def test_the_users_settings_win_over_the_generated_ones(home: Home) -> None:
    plan = make_plan(home, {"MAUTO_ADMIN_EMAIL": "ana@shop.example", "MAUTO_ENVIRONMENT": "production"})
    assert plan.settings.admin_email == "ana@shop.example"
    assert plan.settings.environment == "production"


def test_dotenv_gives_way_to_the_environment(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("MAUTO_POSTAL_ADDRESS='1 High Street'\nMAUTO_DEFAULT_FROM_NAME=File\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAUTO_DEFAULT_FROM_NAME", "Environment")
    settings = make_plan(home).settings
    assert settings.postal_address == "1 High Street"
    assert settings.default_from_name == "Environment"


def test_each_process_knows_the_urls_of_its_roles_only(home: Home) -> None:
    plan = make_plan(home, {})
    api = plan.environment("api", "tracker")
    assert "mauto_api:" in api["MAUTO_API_DATABASE_URL"]
    assert "mauto_tracker:" in api["MAUTO_TRACKER_DATABASE_URL"]
    hidden = {"MAUTO_DATABASE_URL", "MAUTO_WORKER_DATABASE_URL", "MAUTO_AIRFLOW_DATABASE_URL"}
    assert not hidden & set(api)
    for secret in ("DATABASE_PASSWORD_OWNER", "DATABASE_PASSWORD_WORKER", "DATABASE_PASSWORD_AIRFLOW"):
        assert plan.secrets[secret] not in "".join(api.values())
    assert plan.environment("owner")["MAUTO_DATABASE_URL"].startswith("postgresql://mauto_owner:")


def test_with_a_server_of_the_user_every_process_works_as_its_owner(home: Home) -> None:
    plan = make_plan(home, {"MAUTO_DATABASE_URL": "postgresql://me:secret@db.example:5433/shop?sslmode=require"})
    assert not plan.is_embedded
    assert not plan.has_roles
    assert plan.environment("api")["MAUTO_DATABASE_URL"].startswith("postgresql://me:secret@db.example:5433/shop")
    airflow = plan.settings.airflow_database_url
    assert airflow == "postgresql://me:secret@db.example:5433/airflow?sslmode=require"
    assert "MAUTO_DATABASE_PORT" not in plan.variables


def test_other_programs_settings_do_not_leak_in(home: Home) -> None:
    outside = {"PATH": "/bin", "PGHOST": "elsewhere", "AIRFLOW_HOME": "/other", "AIRFLOW__CORE__EXECUTOR": "X",
               "HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "intranet.example"}  # fmt: skip
    seen = make_plan(home, outside).environment("api")
    assert not [name for name in seen if name.startswith(("PG", "AIRFLOW"))]
    assert seen["HTTP_PROXY"] == "http://proxy.example:3128"
    assert seen["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"


def test_mail_goes_to_the_sink_unless_a_server_is_named(home: Home, tmp_path: Path) -> None:
    plan = make_plan(home, {})
    assert plan.has_sink
    assert (plan.settings.smtp_host, plan.settings.smtp_security) == ("127.0.0.1", "none")
    own = make_plan(Home(tmp_path / "own"), {"MAUTO_SMTP_HOST": "mail.example", "MAUTO_SMTP_PORT": "587"})
    assert not own.has_sink
    assert (own.settings.smtp_host, own.settings.smtp_port) == ("mail.example", 587)


def test_a_taken_port_is_named_where_it_was_asked_for(home: Home, taken: int) -> None:
    with pytest.raises(Misconfigured, match=f"MAUTO_API_PORT={taken} is taken by another program"):
        make_plan(home, {"MAUTO_API_PORT": str(taken)})


def test_a_free_port_is_found_and_kept_where_none_was_asked_for(home: Home, taken: int) -> None:
    home.prepare()
    home.remember_ports({"MAUTO_API_PORT": taken})
    plan = make_plan(home, {})
    chosen = plan.settings.api_port
    assert chosen != taken
    assert plan.settings.public_base_url == f"http://127.0.0.1:{chosen}"
    assert make_plan(home, {}).settings.api_port == chosen
    assert len(set(home.ports().values())) == 5


def test_a_wrong_value_is_named_before_anything_is_made(home: Home) -> None:
    with pytest.raises(Misconfigured, match="MAUTO_API_PORT is 'many'; it takes a whole number"):
        make_plan(home, {"MAUTO_API_PORT": "many"})
    assert not home.path.exists()


def test_a_weak_secret_of_the_user_is_refused(home: Home) -> None:
    with pytest.raises(Misconfigured, match="MAUTO_SECRET_KEYS"):
        make_plan(home, {"MAUTO_SECRET_KEYS": "changeme"})


def test_one_stack_at_most_holds_a_home(home: Home) -> None:
    home.prepare()
    assert not home.is_running()
    with home.lock():
        assert home.is_running()
        with pytest.raises(Conflict, match="another stack"):
            home.lock()
    assert not home.is_running()


def test_relative_storage_means_the_callers_folder(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_plan(home, {"MAUTO_STORAGE": "files"}).settings.storage_path == tmp_path / "files"
    assert make_plan(home, {}).settings.storage_path == home.path / "storage"


def test_a_changed_setting_changes_the_fingerprint(home: Home) -> None:
    plain = make_plan(home, {}).fingerprint
    assert make_plan(home, {}).fingerprint == plain
    assert make_plan(home, {"MAUTO_REPORTING_CURRENCY": "EUR"}).fingerprint != plain


def test_assignments_are_read_as_a_shell_would(tmp_path: Path) -> None:
    file = tmp_path / "x.env"
    file.write_text('# note\n\nexport A=1\nB = "two # words"\nC=three # note\nD=\nE=a=b\n')
    assert read_assignments(file) == {"A": "1", "B": "two # words", "C": "three", "D": "", "E": "a=b"}
    file.write_text("A=1\nnonsense\n")
    with pytest.raises(Misconfigured, match="line 2 is not NAME=value"):
        read_assignments(file)
    assert read_assignments(tmp_path / "none") == {}


def test_emptying_follows_the_link_of_the_cluster(home: Home, tmp_path: Path) -> None:
    home.prepare()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data").touch()
    home.cluster.symlink_to(elsewhere)
    home.empty()
    assert not elsewhere.exists()
    assert not home.path.exists()


def test_the_home_is_closed_to_others(home: Home) -> None:
    home.prepare()
    assert home.path.stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)
    assert home.logs.stat().st_mode & 0o777 == 0o700


def test_a_command_for_the_demo_keeps_away_from_the_users_own_database(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # With the user's URL this would open psql on the user's warehouse.
    (tmp_path / ".env").write_text("MAUTO_DATABASE_URL=postgresql://me@127.0.0.1:1/mine\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAUTO_DATABASE_URL", "postgresql://me@127.0.0.1:1/mine")
    home.prepare()
    home.settings_file.write_text("MAUTO_DEMO=true\n", encoding="utf-8")
    assert stack_main(["--home", str(home.path), "migrate"]) == 2
    assert f"no stack runs in {home.path}" in capsys.readouterr().err


def test_what_needs_a_running_stack_means_the_demos_where_only_that_runs(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demos = Home(tmp_path / "demo")
    for name in [name for name in os.environ if name.startswith("MAUTO_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Home, "locate", classmethod(lambda cls, environ: home))
    monkeypatch.setattr(Home, "demo", classmethod(lambda cls: demos))
    home.prepare()
    demos.prepare()
    assert Home.in_use({}) == home, "none runs"
    with pytest.raises(Misconfigured, match="no stack runs in"):
        desk.settings()
    with demos.lock():
        assert Home.in_use({}) == demos
        assert Home.in_use({"MAUTO_HOME": str(home.path)}) == home, "it was named"
        assert desk.settings().home == demos.path
        assert "the stack of the demo" in capsys.readouterr().err
        (tmp_path / ".env").write_text("MAUTO_DATABASE_URL=postgresql://me@db.example/mine\n", encoding="utf-8")
        assert desk.settings().database_url == "postgresql://me@db.example/mine", "a database of one's own is meant"
        with home.lock():
            assert Home.in_use({}) == home, "both run"
