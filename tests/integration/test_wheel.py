"""The wheel carries what it needs: built here, unpacked elsewhere, it migrates a database without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]


def test_a_built_wheel_migrates_a_database_outside_the_checkout(tmp_path: Path, cluster: Any) -> None:
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wheel = tmp_path / done.stdout.strip().splitlines()[-1]
    place = tmp_path / "elsewhere"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    name = cluster.create()
    environment = {**os.environ, "PYTHONPATH": str(place), "MAUTO_DATABASE_URL": cluster.url(name)}
    code = "import mautolib, mautolib.db.migrate as m; print(mautolib.__file__); raise SystemExit(m.main([]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(str(place)), "the wheel's own code ran"
    assert "applied migrations/0001_contacts.sql" in done.stdout
    from mautolib.db.engine import connect

    engine = connect(cluster.url(name))
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from contacts")) == 0
    engine.dispose()
    assert sorted(path.name for path in (place / "mautolib" / "_files" / "dags").glob("*.py")) == sorted(
        path.name for path in (ROOT / "dags").glob("*.py")
    )
    assert sorted(path.name for path in (place / "mautolib" / "recipes").glob("*.json")) == sorted(
        path.name for path in (ROOT / "mautolib" / "recipes").glob("*.json")
    )
