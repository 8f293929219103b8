# Any Python from 3.6 on must be able to read this file, to be told which one is needed: no newer syntax.
# ruff: noqa: UP006, UP035, UP045
"""Makes `.venv` with everything pinned, and does nothing in a moment when it is there: `make install`.

Needs only the standard library. Takes a Python 3.11-3.13 (PYTHON=... chooses one), installs requirements.txt with
hashes checked by uv (from PATH, or bootstrapped into the venv), else by pip, then the project itself without
dependencies. Every refusal says what is missing and how to get it.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Optional, Tuple

SUPPORTED = ((3, 11), (3, 12), (3, 13))
ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "mauto-install.json"
VENV_PYTHON = VENV / "bin" / "python"


class Refusal(Exception):
    """The environment cannot be made; the message says what to do."""


def fingerprint(version: str, dev: bool) -> str:
    """What the installed set follows from: the requirement files, the project file, the Python, the place."""
    digest = hashlib.sha256(f"{version}\n{ROOT}".encode())
    for name in ["requirements.txt", "pyproject.toml", *(["requirements-dev.txt"] if dev else [])]:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_current(dev: bool) -> bool:
    """Whether `.venv` already holds just what the files ask for."""
    try:
        stamp: Dict[str, str] = json.loads(STAMP.read_text())
        if not VENV_PYTHON.exists():  # a link to a Python that was removed from the machine
            return False
        return stamp.get("dev" if dev else "base") == fingerprint(stamp["version"], dev)
    except (OSError, ValueError, KeyError):
        return False


def version_of(python: str) -> Optional[Tuple[int, int, int]]:
    """Version of an interpreter, None when it does not run."""
    command = [python, "-c", "import sys; print('%d %d %d' % sys.version_info[:3])"]
    try:
        major, minor, micro = subprocess.check_output(command, stderr=subprocess.DEVNULL).split()
        return int(major), int(minor), int(micro)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def choose_python() -> str:
    """The interpreter of PYTHON, else the running one if it will do, else another one on PATH.

    Raises:
        Refusal: there is none.
    """
    asked = os.environ.get("PYTHON", "").strip()
    if asked:
        found = version_of(asked)
        if found is None:
            raise Refusal(f"PYTHON={asked} does not run; give the path of a Python 3.11, 3.12 or 3.13")
        if found[:2] not in SUPPORTED:
            raise Refusal(f"PYTHON={asked} is Python {found[0]}.{found[1]}; 3.11, 3.12 or 3.13 is needed")
        return shutil.which(asked) or asked
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for minor in (12, 11, 13):
        path = shutil.which(f"python3.{minor}")
        if path and (version_of(path) or (0, 0, 0))[:2] in SUPPORTED:
            say(f"{sys.executable} is Python {here}; using {path}")
            return path
    raise Refusal(
        f"Python 3.11, 3.12 or 3.13 is needed and {sys.executable} is {here}. Install one ({python_package()}), "
        "or name one: make install PYTHON=/path/to/python"
    )


def distribution() -> str:
    """Ids of the Linux distribution and its relatives, e.g. `ubuntu debian`; empty when unknown."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return ""
    known = dict(line.split("=", 1) for line in lines if "=" in line)
    return (known.get("ID", "") + " " + known.get("ID_LIKE", "")).replace('"', "").lower()


def python_package() -> str:
    """How a suitable Python is installed here."""
    if sys.platform == "darwin":
        return "brew install python@3.12"
    known = distribution()
    if "fedora" in known or "rhel" in known:
        return "dnf install python3.12"
    return "Debian 12 or newer: apt-get install python3 python3-venv; anywhere: uv python install 3.12"


def venv_package(version: Tuple[int, int, int]) -> str:
    """How venv and ensurepip are installed here."""
    known = distribution()
    if "fedora" in known or "rhel" in known:
        return "dnf install python3-pip"
    if "debian" in known or "ubuntu" in known:
        return f"apt-get install python{version[0]}.{version[1]}-venv"
    return f"the package with the modules venv and ensurepip of Python {version[0]}.{version[1]}"


def make_venv(python: str, uv: Optional[str]) -> None:
    """Make `.venv` unless one of the same Python is there and runs."""
    wanted = version_of(python)
    if wanted is None:
        raise Refusal(f"{python} does not run")
    if VENV.exists():
        here = version_of(str(VENV_PYTHON))
        is_asked = bool(os.environ.get("PYTHON", "").strip())
        if here and here[:2] in SUPPORTED and (here[:2] == wanted[:2] or not is_asked):
            return
        say("making .venv anew, with Python {}.{}.{}".format(*wanted))
        shutil.rmtree(VENV)
    if uv:
        run([uv, "venv", "--quiet", "--python", python, str(VENV)], "uv could not make .venv")
        return
    missing = [name for name in ("venv", "ensurepip") if not can_import(python, name)]
    if missing:
        modules = " and no ".join(missing)
        raise Refusal(f"{python} has no {modules}; install it: {venv_package(wanted)}")
    run([python, "-m", "venv", str(VENV)], "python -m venv failed")


def can_import(python: str, name: str) -> bool:
    """Whether an interpreter has a module."""
    return subprocess.call([python, "-c", f"import {name}"], stderr=subprocess.DEVNULL) == 0


def uv_in_venv() -> Optional[str]:
    """The uv of the venv, installed first by its pin and hashes in requirements.txt; None when that fails."""
    path = VENV / "bin" / "uv"
    if path.exists():
        return str(path)
    text = (ROOT / "requirements.txt").read_text() + "\n#"
    pin = re.search(r"^uv==.*?(?=^\S)", text, re.MULTILINE | re.DOTALL)
    if pin is None or not can_import(str(VENV_PYTHON), "pip"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "uv.txt"
        file.write_text(pin.group(0))
        command = [str(VENV_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.call([*command, "--require-hashes", "--no-deps", "-r", str(file)])
    return str(path) if done == 0 and path.exists() else None


def install(uv: Optional[str], dev: bool) -> None:
    """Install what is pinned, hashes checked, then the project itself."""
    if uv:
        tool = [uv, "pip", "install", "--python", str(VENV_PYTHON), "--quiet"]
        # Compiled once and now; else the first start of Airflow does it, four processes at a time.
        pinned = [*tool, "--compile-bytecode", "--require-hashes", "--no-deps"]
    else:
        say("uv is not to be had; using pip, which takes a minute or two")
        tool = [str(VENV_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pinned = [*tool, "--require-hashes", "--no-deps"]
    # --no-deps: the files are complete, and bounds overridden in pyproject.toml would be held against them again.
    for name in ["requirements.txt", *(["requirements-dev.txt"] if dev else [])]:
        run([*pinned, "-r", str(ROOT / name)], f"installing {name} failed")
    run([*tool, "--no-deps", "--no-build-isolation", "-e", str(ROOT)], "installing the project itself failed")


def run(command: List[str], failure: str) -> None:
    """Run a tool whose own messages the user shall see."""
    # UV_PYTHON_DOWNLOADS: an interpreter is never fetched behind the user's back.
    if subprocess.call(command, cwd=str(ROOT), env=dict(os.environ, UV_PYTHON_DOWNLOADS="never")) != 0:
        raise Refusal(f"{failure}; its message is above")


def say(text: str) -> None:
    """One line for the user."""
    sys.stderr.write(f"install: {text}\n")
    sys.stderr.flush()


def bootstrap(dev: bool) -> None:
    """Make or renew `.venv`; the stamp is written last, so that an interrupted run is done again."""
    if os.name != "posix":
        raise Refusal("this runs on Linux and macOS; on Windows use WSL")
    python = choose_python()
    uv = shutil.which("uv")
    say("making .venv; half a minute with a warm package cache, else as long as 200 MB take")
    if STAMP.exists():
        STAMP.unlink()
    make_venv(python, uv)
    install(uv or uv_in_venv(), dev)
    version = ".".join(map(str, version_of(str(VENV_PYTHON)) or ()))
    stamp = {"version": version, "base": fingerprint(version, False)}
    if dev:
        stamp["dev"] = fingerprint(version, True)
    STAMP.write_text(json.dumps(stamp))


def main() -> int:
    """Returns the exit code: 0 done or nothing to do, 2 refused, 130 interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dev", action="store_true", help="also what lint and tests need")
    dev = parser.parse_args().dev
    if is_current(dev):
        return 0
    began = time.time()
    try:
        bootstrap(dev)
    except Refusal as refusal:
        say(str(refusal))
        return 2
    except KeyboardInterrupt:
        say("interrupted; run it again")
        return 130
    say(f"done in {time.time() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
