"""The way into an Airflow that is there already: wheel, plain Airflow, DAGs, plugin, pools, a database of one's own.

Everything docs/your-own-airflow.md says is done here, in a fresh environment with no checkout in sight.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from mautolib.db.engine import connect

ROOT = Path(__file__).parents[2]
PLUGIN = "from mauto_airflow.dashboard import MautoPlugin  # noqa: F401\n"
LAYOUT = "import mauto_airflow, mautolib; print(mautolib.__file__, mauto_airflow.__file__)"


class Elsewhere:
    """A fresh environment with a plain Airflow and the wheel."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder, self.bin = folder, folder / "venv/bin"
        outside = {name: value for name, value in os.environ.items()
                   if not name.startswith(("AIRFLOW", "MAUTO", "PYTHON", "VIRTUAL"))}  # fmt: skip
        self.environ = {
            **outside, "PATH": f"{self.bin}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore",
            "UV_PYTHON_DOWNLOADS": "never", "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            "MAUTO_DATABASE_URL": database_url, "MAUTO_SECRET_KEYS": os.urandom(32).hex(),
            "MAUTO_SUPPRESSION_PEPPER": os.urandom(32).hex(),
            "AIRFLOW_CONN_MAUTO_WAREHOUSE": database_url.replace("postgresql://", "postgres://", 1),
        }  # fmt: skip

    def run(self, *command: str) -> str:
        """The command's output; its errors are the test's."""
        done = subprocess.run(command, env=self.environ, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, cluster: Any) -> Elsewhere:
    folder = tmp_path_factory.mktemp("own-airflow")
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    wheel = folder / done.stdout.strip().splitlines()[-1]
    place = Elsewhere(folder, cluster.url(cluster.create()))
    uv = str(Path(sys.executable).with_name("uv"))
    python = str(folder / "venv/bin/python")
    place.run(uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
    pins = [line.split(" ")[0] + (" ;" + line.split(";")[1].rstrip("\\ ") if ";" in line else "")
            for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalnum()]  # fmt: skip
    (folder / "pins.txt").write_text("\n".join(pins))
    install = [uv, "pip", "install", "--quiet", "--python", python, "--constraint", str(folder / "pins.txt")]
    place.run(*install, "apache-airflow")
    place.run(*install, f"mauto[airflow] @ {wheel.as_uri()}")
    return place


@pytest.mark.slow
def test_the_documented_way_works(elsewhere: Elsewhere) -> None:
    place = elsewhere
    for file in place.run("python", "-c", LAYOUT).split():
        assert file.startswith(str(place.folder / "venv")), "the wheel's own code is used"
    assert "migrations/0001_contacts.sql" in place.run("mauto", "migrate")
    engine = connect(place.environ["MAUTO_DATABASE_URL"])
    with engine.connect() as tx:
        assert tx.execute(text("select count(*) from contacts")).scalar_one() == 0
    engine.dispose()

    plugins = place.folder / "airflow/plugins"
    plugins.mkdir(parents=True)
    (plugins / "mauto_plugin.py").write_text(PLUGIN)
    bundle = json.loads(place.run("mauto", "airflow", "dags", "--bundle"))
    place.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps([bundle])
    place.run("airflow", "db", "migrate")
    (place.folder / "pools.json").write_text(place.run("mauto", "airflow", "pools"))
    place.run("airflow", "pools", "import", "pools.json")
    listed = json.loads(place.run("airflow", "pools", "list", "-o", "json"))
    pools = {pool["pool"]: int(pool["slots"]) for pool in listed}
    assert pools["bulk"] == pools["transactional"] == pools["warehouse"] == 2

    place.run("airflow", "dags", "reserialize")
    dags = {dag["dag_id"] for dag in json.loads(place.run("airflow", "dags", "list", "-o", "json"))}
    assert dags == {path.stem for path in (ROOT / "dags").glob("*.py")}
    assert "mauto" in place.run("airflow", "plugins", "-o", "json")
    errors = place.run("airflow", "dags", "list-import-errors", "-o", "json")
    assert "Traceback" not in errors

    place.run("airflow", "dags", "test", "maintenance")
    engine = connect(place.environ["MAUTO_DATABASE_URL"])
    with engine.connect() as tx:
        assert tx.execute(text("select count(*) from heartbeats where component = 'airflow'")).scalar_one() == 1
    engine.dispose()
