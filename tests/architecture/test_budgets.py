"""Small pieces: lines of a file, a function, a DAG. An exemption is one line with its reason."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, code_lines, definitions, name_of, tracked, tree_of

FILE, ROUTES, DAG, FUNCTION = 300, 500, 80, 40
LARGE_FILES = {
    "mautolib/db/tables.py": (490, "one line or two for each of some sixty tables"),
}
LONG_FUNCTIONS: dict[str, tuple[int, str]] = {}
BANNED_NAMES = {"service.py", "services.py", "utils.py", "common.py", "helpers.py", "manager.py", "misc.py"}


def budget_of(name: str) -> int:
    if name in LARGE_FILES:
        return LARGE_FILES[name][0]
    if name.startswith("dags/"):
        return DAG
    return ROUTES if name.startswith("api/routes/") or name.endswith("/rules.py") else FILE


def long_functions(tree: ast.Module, text: str) -> dict[str, int]:
    """Functions over the budget, with their length in code lines."""
    lines = text.splitlines()
    found = {}
    for node in definitions(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if (node.end_lineno or 0) - node.lineno < FUNCTION:
                continue  # not even with its comments
            body = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            length = code_lines(textwrap.dedent(body))
            if length > FUNCTION:
                found[node.name] = length
    return found


@pytest.mark.parametrize("path", tracked(), ids=name_of)
def test_a_file_keeps_its_budget(path: Path) -> None:
    name = name_of(path)
    assert path.name not in BANNED_NAMES, "name a file after a thing or a verb"
    assert code_lines(path.read_text(encoding="utf-8"), tree_of(path)) <= budget_of(name)


@pytest.mark.parametrize("path", tracked(), ids=name_of)
def test_functions_keep_their_budget(path: Path) -> None:
    name = name_of(path)
    long = long_functions(tree_of(path), path.read_text(encoding="utf-8"))
    over = {
        function: length
        for function, length in long.items()
        if length > LONG_FUNCTIONS.get(f"{name}:{function}", (0, ""))[0]
    }
    # A DAG's function is its wiring; the file has its own, tighter budget.
    assert name.startswith("dags/") or over == {}


def test_exemptions_are_still_needed() -> None:
    for name, (_, reason) in LARGE_FILES.items():
        assert reason and code_lines((ROOT / name).read_text(encoding="utf-8")) > FILE, f"{name} needs no exemption"


def test_a_long_function_is_seen() -> None:
    source = "def long():\n" + "    x = 1\n" * 50
    assert long_functions(ast.parse(source), source) == {"long": 51}
    assert code_lines('"""Doc\nstring."""\n\n# why\nx = 1\n') == 1
