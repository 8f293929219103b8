"""What the documents name exists: links, make targets, settings, columns of analytics; Python in them compiles."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from mautolib.settings import Settings, variable
from tests.architecture.source import ROOT

DOCUMENTS = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "decisions", ROOT / "docs" / "recipes", ROOT / "sql")
    for path in folder.glob("*.md")
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_MAKE = re.compile(r"(?:^|[\s;&(])make ((?:[A-Z]+=\S+ )*)([a-z][a-z-]*)")
_SETTING = re.compile(r"\bMAUTO_[A-Z_]+[A-Z]\b")
_PATH = re.compile(r"(?<![\w/.-])(?:api|benchmarks|dags|docker|docs|mautolib|plugins|sql|tests)/[\w/.-]+")
_MODULE = re.compile(r"python -m ((?:mautolib|api|benchmarks|tests)[\w.]*)")
#: Where the installed package keeps what a checkout has beside it.
_ONLY_INSTALLED = {"mautolib/_files/"}
#: Not settings of the product: of tests, and of docker-compose.yml alone.
_OTHER = {"MAUTO_TEST_DATABASE_URL", "MAUTO_REAL_DATA", "MAUTO_CONTAINER_WORKERS", "MAUTO_CONTAINER_WORKER_SLOTS"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _code(text: str) -> str:
    """Everything set as code: blocks and `inline`."""
    blocks = [body for _, body in _BLOCK.findall(text)]
    return "\n".join([*blocks, *_INLINE.findall(_BLOCK.sub("", text))])


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = [link for link in _LINK.findall(_BLOCK.sub("", path.read_text(encoding="utf-8"))) if "://" not in link]
    missing = [link for link in links if not (path.parent / link.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_make_targets_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {target for _, target in _MAKE.findall(_code(path.read_text(encoding="utf-8")))}
    assert named <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_settings_exist(path: Path) -> None:
    known = {variable(item.name) for item in dataclasses.fields(Settings)}
    named = set(_SETTING.findall(path.read_text(encoding="utf-8")))
    assert named <= known | _OTHER


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_files_and_modules_exist(path: Path) -> None:
    code = _code(path.read_text(encoding="utf-8"))
    files = {name.rstrip(".") for name in _PATH.findall(code)} - _ONLY_INSTALLED
    missing = {name for name in files if not (ROOT / name).exists() and not (path.parent / name).exists()}
    modules = {ROOT / name.replace(".", "/") for name in _MODULE.findall(code)}
    missing |= {str(module) for module in modules if not (module.with_suffix(".py").exists() or module.is_dir())}
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_python_compiles(path: Path) -> None:
    for language, body in _BLOCK.findall(path.read_text(encoding="utf-8")):
        if language == "python":
            compile(body, str(path), "exec")


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == {link for link in _LINK.findall(index) if "/" not in link}
