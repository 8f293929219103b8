"""Reading the project's own source for the architecture tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def tracked() -> tuple[Path, ...]:
    """Python files of the product (packages, DAGs, plugins, benchmarks), without tests."""
    folders = ("mautolib", "api", "dags", "plugins", "benchmarks")
    return tuple(sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.Module, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names of everything a module imports (absolute imports; `from a import b` gives a.b)."""
    nodes = _top_level(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run at import; `if TYPE_CHECKING:` blocks are left out."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node


def definitions(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The module and every class and function in it; expressions, where none can be, are not walked through."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        inner = (ast.stmt, ast.excepthandler, ast.match_case)
        waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, inner)]


def code_lines(text: str, tree: ast.Module | None = None) -> int:
    """Lines that are neither blank nor comment nor part of a docstring; `tree` is the text parsed, if it is known."""
    documented: set[int] = set()
    for node in definitions(tree or ast.parse(text)):
        if node.body:
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                documented.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = text.splitlines()
    return sum(
        1
        for number, line in enumerate(lines, 1)
        if number not in documented and line.strip() and not line.strip().startswith("#")
    )
