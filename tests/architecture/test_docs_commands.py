"""What a newcomer types from the documents exists: `mauto` commands with their options, and calls of the API.

A call is checked against docs/openapi.json: its path and method, its query parameters, the keys of its JSON body.
Links, make targets, settings and files are checked by test_docs.py.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mautolib.cli.app import app
from tests.architecture.source import ROOT
from tests.architecture.test_docs import _BLOCK, _INLINE, _name

_FOLDERS = (ROOT, ROOT / "docs", ROOT / "docs" / "recipes")
DOCUMENTS = [path for folder in _FOLDERS for path in sorted(folder.glob("*.md"))]
_MAUTO = re.compile(r"(?:^|[\s;&(])(?:mauto|python -m mautolib\.cli) ([^\n;&|)#]+)", re.MULTILINE)
_SHELL = {"sh", "bash"}
_BASES = ("$API", "http://127.0.0.1:8000/api/v1", "$BASE/api/v1")
_BODY = {"--json", "-d", "--data", "--data-binary", "--data-urlencode", "-F"}


def blocks(path: Path) -> list[str]:
    """The shell blocks of a document."""
    return [body for language, body in _BLOCK.findall(path.read_text(encoding="utf-8")) if language in _SHELL]


def commands(block: str) -> Iterator[list[str]]:
    """The commands of a block, as lists of words; pipes and substitutions are commands of their own."""
    waiting = ""
    for line in block.splitlines():
        waiting += line
        if waiting.endswith("\\"):
            waiting = waiting[:-1] + " "
            continue
        try:
            words = list(_words(waiting))
        except ValueError:  # a quotation goes on
            waiting += "\n"
            continue
        waiting, command = "", list[str]()
        for word in [*words, ";"]:
            if word and set(word) <= set("|;&()<>"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)
    assert not waiting.strip(), f"a quotation does not end: {waiting}"


def _words(text: str) -> Iterator[str]:
    reader = shlex.shlex(text, posix=True, punctuation_chars="|;&()<>")
    reader.whitespace_split = True
    return reader


@cache
def operations() -> dict[str, Any]:
    return dict(json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")))


def call_problem(words: list[str]) -> str | None:
    """What is wrong with a `curl` of the API; None: nothing, or it is of something else."""
    url = next((word for word in words if word.startswith(_BASES)), None)
    if url is None:
        return None
    for base in _BASES:
        url = url.removeprefix(base)
    path, _, query = url.partition("?")
    has_body = any(word in _BODY for word in words)
    method = words[words.index("-X") + 1].lower() if "-X" in words else "post" if has_body else "get"
    found = _find(f"/api/v1{path}")
    if found is None:
        return f"there is no {path}"
    if method not in found:
        return f"{path} takes no {method}"
    operation = found[method]
    known = {_of(one)["name"] for one in operation.get("parameters", ()) if _of(one)["in"] == "query"}
    unknown = {pair.partition("=")[0] for pair in query.split("&") if pair} - known
    # The views take their own columns as filters.
    if unknown and not path.startswith("/analytics/views/"):
        return f"{path} has no parameter {sorted(unknown)}"
    if "--json" in words:
        return _body_problem(path, words[words.index("--json") + 1], operation)
    return None


def _find(path: str) -> dict[str, Any] | None:
    parts, best = path.split("/"), None
    for template, found in operations()["paths"].items():
        wanted = template.split("/")
        if len(wanted) == len(parts) and all(w.startswith("{") or w == p for w, p in zip(wanted, parts, strict=True)):
            exact = sum(w == p for w, p in zip(wanted, parts, strict=True))
            best = max(best or (-1, {}), (exact, found), key=lambda one: one[0])
    return best[1] if best else None


def _body_problem(path: str, text: str, operation: dict[str, Any]) -> str | None:
    if "$" in text or text.startswith("@"):
        return None
    given = json.loads(text)
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    for one in given if isinstance(given, list) else [given]:
        unknown = set(one) - _keys(schema)
        if unknown:
            return f"the body of {path} has no {sorted(unknown)}"
    return None


def _keys(schema: dict[str, Any]) -> set[str]:
    schema = _of(schema)
    found = set(schema.get("properties", ()))
    for one in [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]:
        found |= _keys(one)
    return found | (_keys(schema["items"]) if "items" in schema else set())


def _of(schema: dict[str, Any]) -> dict[str, Any]:
    for part in schema.get("$ref", "").split("/")[1:]:
        schema = operations() if part == "components" else schema
        schema = schema[part]
    return schema


def mauto_problem(line: str) -> str | None:
    """What is wrong with the words after `mauto`."""
    here: Any = typer.main.get_command(app)
    for word in line.split():
        word = word.rstrip(",.:")
        if word.startswith("--"):
            options = {name for one in here.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
            if word.partition("=")[0] not in options:
                return f"{here.name} has no option {word}"
        elif hasattr(here, "commands"):
            if word not in here.commands:
                return f"{here.name} has no command {word}"
            here = here.commands[word]
    return None


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_mauto_commands_and_options_exist(path: Path) -> None:
    inline = _INLINE.findall(_BLOCK.sub("", path.read_text(encoding="utf-8")))
    lines = _MAUTO.findall("\n".join([*blocks(path), *inline]))
    assert [f"mauto {line}: {problem}" for line in lines if (problem := mauto_problem(line))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_calls_of_the_api_are_possible(path: Path) -> None:
    calls = [words[words.index("curl") :] for block in blocks(path) for words in commands(block) if "curl" in words]
    assert [f"{' '.join(words)[:120]}: {problem}" for words in calls if (problem := call_problem(words))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_shell_blocks_are_shell(path: Path) -> None:
    checked = subprocess.run(["bash", "-n"], input="\n".join(blocks(path)), text=True, capture_output=True, check=False)
    assert not checked.stderr


def test_the_checks_find_what_is_wrong() -> None:
    assert mauto_problem("unknown settle --sink-log FOLDER --complete-until MOMENT") is None
    assert mauto_problem("unknown forget --all") == "unknown has no command forget"
    assert mauto_problem("sending on --now") == "on has no option --now"
    for command, problem in {
        "curl -s $API/contacts/ --json '{\"email\": \"a@b.example\"}'": None,
        "curl -s $API/contacts/ --json '{\"mail\": \"a@b.example\"}'": "the body of /contacts/ has no ['mail']",
        "curl -s $API/contacts/?colour=red": "/contacts/ has no parameter ['colour']",
        "curl -s -X PUT $API/contacts/7": "/contacts/7 takes no put",
        "curl -s $API/people/": "there is no /people/",
    }.items():
        assert call_problem(next(commands(command))) == problem
