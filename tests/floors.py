"""`make floors`: do the oldest packages that requirements.in allows really work?

Resolves requirements.in with `--resolution lowest-direct` (each package named there as old as its range allows; what
those need in turn is as new as they take), installs that into a throw-away environment, checks that each floor was
met there, and runs the tests below in it. Warnings are no errors here: what is deprecated in an old package is gone in
the pinned one. Needs the network or a filled cache of uv.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: From each part that stands on a package of its own: HTTP, sign-in, files, mail, webhooks, DAGs, scores, CLI, lake.
SUBSET = (
    "tests/unit", "tests/api/test_contacts.py", "tests/api/test_auth.py", "tests/api/test_metrics.py",
    "tests/api/test_analytics.py", "tests/integration/test_imports.py", "tests/integration/test_import_s3.py",
    "tests/integration/test_sending.py", "tests/integration/test_webhook_calls.py", "tests/integration/test_scoring.py",
    "tests/integration/test_cli.py", "tests/integration/test_schedules.py", "tests/security/test_d_templates.py",
    "tests/security/test_e_signing.py", "tests/dags/test_runs.py", "tests/journeys/test_main_job.py",
    "tests/integration/test_lake_export.py",
)  # fmt: skip
#: What these tests need beside it, as pinned.
HELPERS = ("standardwebhooks", "dkimpy", "pynacl", "pytest-xdist", "moto", "flask", "flask-cors", "duckdb")


def uv() -> str:
    """The uv on PATH, else the pinned one."""
    return shutil.which("uv") or str(Path(sys.executable).with_name("uv"))


def wanted() -> str:
    """requirements.in with the helpers' pins."""
    pins = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    found = {name: re.search(rf"^{name}(?:\[[\w,]+\])?==(\S+)", pins, re.MULTILINE) for name in HELPERS}
    lines = [f"{name}=={match[1]}" for name, match in found.items() if match]
    assert len(lines) == len(HELPERS), found
    return (ROOT / "requirements.in").read_text(encoding="utf-8") + "\n".join(lines) + "\n"


def resolve(folder: Path) -> Path:
    """Write what the floors resolve to."""
    (folder / "low.in").write_text(wanted(), encoding="utf-8")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run(
        [uv(), "pip", "compile", "--quiet", "--python-version", version, "--resolution", "lowest-direct",
         "--no-header", "--no-annotate", str(folder / "low.in"), "-o", str(folder / "low.txt")],
        check=True, cwd=ROOT,
    )  # fmt: skip
    return folder / "low.txt"


def main() -> int:
    """Resolve, install, test; returns the exit code of the tests."""
    parser = argparse.ArgumentParser(prog="python -m tests.floors", description=main.__doc__)
    parser.add_argument("--resolve-only", action="store_true", help="only print what would be installed")
    parser.add_argument("tests", nargs="*", help="other tests than the usual ones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mauto-floors-") as place:
        low = resolve(Path(place))
        if options.resolve_only:
            sys.stdout.write(low.read_text(encoding="utf-8"))
            return 0
        python = Path(place) / "venv" / "bin" / "python"
        subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, str(python.parents[1])], check=True)
        subprocess.run([uv(), "pip", "install", "--quiet", "--python", str(python), "-r", str(low)], check=True)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
        command = [str(python), "-m", "pytest", "-q", "-W", "default", "-m", "not slow", "-n", "auto",
                   "--maxprocesses", "8", "--dist", "loadfile", *(options.tests or SUBSET)]  # fmt: skip
        return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
