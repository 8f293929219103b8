"""The bootstrap: any Python can read it, a wrong one is refused with the way out, a current venv costs nothing."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

from mautolib.stack import bootstrap
from mautolib.stack.bootstrap import Refusal


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with requirement files only."""
    for name in ("requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / "stamp.json")
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", Path(sys.executable))
    monkeypatch.delenv("PYTHON", raising=False)
    return tmp_path


def fake_python(folder: Path, version: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)
    return path


def test_python_3_6_can_read_it_to_be_refused() -> None:
    source = Path(bootstrap.__file__).read_text()
    ast.parse(source, feature_version=(3, 6))
    # Syntax that the parser lets through for older versions.
    assert "from __future__" not in source
    assert ":=" not in source


def test_only_the_standard_library_is_needed() -> None:
    tree = ast.parse(Path(bootstrap.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("version", ["3 6 15", "3 10 13", "3 14 0", "2 7 18"])
def test_a_python_out_of_range_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("PYTHON", str(fake_python(place, version)))
    major, minor, _ = version.split()
    with pytest.raises(Refusal, match=rf"is Python {major}\.{minor}; 3\.11, 3\.12 or 3\.13 is needed"):
        bootstrap.choose_python()


@pytest.mark.parametrize("version", ["3 11 2", "3 12 1", "3 13 0"])
def test_a_supported_python_may_be_named(place: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("PYTHON", str(fake_python(place, version)))
    assert bootstrap.choose_python() == str(place / "python")


def test_a_named_python_that_is_not_there_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON", "/nowhere/python3.12")
    with pytest.raises(Refusal, match=r"PYTHON=/nowhere/python3\.12 does not run"):
        bootstrap.choose_python()


def test_another_python_on_the_path_is_taken_when_this_one_will_not_do(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_python(place, "3 13 1").rename(place / "python3.13")
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    monkeypatch.setenv("PATH", str(place))
    assert bootstrap.choose_python() == str(place / "python3.13")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Refusal, match=r"is 3\.9\. Install one \(.+\), or name one: make install PYTHON="):
        bootstrap.choose_python()


def test_missing_modules_are_named_with_their_package(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "can_import", lambda python, name: name != "ensurepip")
    monkeypatch.setattr(bootstrap, "distribution", lambda: "debian")
    python = str(fake_python(place, "3 11 2"))
    with pytest.raises(Refusal, match=r"has no ensurepip; install it: apt-get install python3\.11-venv"):
        bootstrap.make_venv(python, None)
    assert not (place / ".venv").exists()


def test_a_stamp_holds_until_a_requirement_changes(place: Path) -> None:
    assert not bootstrap.is_current(False)
    (place / ".venv").mkdir()
    stamp = {"version": "3.11.2", "base": bootstrap.fingerprint("3.11.2", False)}
    (place / ".venv" / "stamp.json").write_text(json.dumps(stamp))
    assert bootstrap.is_current(False)
    assert not bootstrap.is_current(True)
    (place / "requirements-dev.txt").write_text("changed")
    assert bootstrap.is_current(False)
    (place / "requirements.txt").write_text("changed")
    assert not bootstrap.is_current(False)


def test_a_venv_whose_python_is_gone_is_not_current(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / ".venv").mkdir()
    stamp = {"version": "3.11.2", "base": bootstrap.fingerprint("3.11.2", False)}
    (place / ".venv" / "stamp.json").write_text(json.dumps(stamp))
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", place / "gone")
    assert not bootstrap.is_current(False)


def test_the_installer_is_pinned_with_hashes() -> None:
    text = (Path(bootstrap.__file__).parents[2] / "requirements.txt").read_text()
    assert "\nuv==" in text
    assert "--index-url" not in text
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert all("==" in line and line.endswith("\\") for line in pins)
