"""Every module says what it promises in at most twelve lines; every public function says it in a sentence."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.source import name_of, tracked, tree_of

LONGER = {"mautolib/errors.py": "draws the tree of errors"}


def undocumented(tree: ast.Module) -> list[str]:
    """Public classes and functions at the top level without a docstring."""
    found = []
    for node in tree.body:
        named = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if named and not node.name.startswith("_") and not ast.get_docstring(node):
            found.append(node.name)
    return found


@pytest.mark.parametrize("path", tracked(), ids=name_of)
def test_a_module_says_what_it_promises(path: Path) -> None:
    name = name_of(path)
    text = ast.get_docstring(tree_of(path)) or ""
    assert text, "no module docstring"
    # The docstring of a DAG is its page in the Airflow UI.
    assert name.startswith("dags/") or name in LONGER or len(text.splitlines()) <= 12


@pytest.mark.parametrize("path", [path for path in tracked() if not name_of(path).startswith("dags/")], ids=name_of)
def test_public_names_are_explained(path: Path) -> None:
    assert undocumented(tree_of(path)) == []


def test_a_missing_docstring_is_seen() -> None:
    assert undocumented(ast.parse("def f(): pass\nclass C: pass\ndef _g(): pass")) == ["f", "C"]
