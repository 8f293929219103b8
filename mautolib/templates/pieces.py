"""A compiled part taken apart: text that is the same in every mail, and holes that are filled for each person.

Promise: filling every hole and joining gives exactly what the whole template renders. A part whose pieces depend on
each other (`set`, macros) cannot be taken apart. Each different hole is compiled once, however often it stands in the
part. Used by message building, which encodes the constant text beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from jinja2 import Template, nodes
from markupsafe import escape

from mautolib.templates.compile import Part, compile_tree
from mautolib.templates.sandbox import CountedContext, MailEnvironment, bounded_join

#: What one part of a template says or does for the parts after it.
_ENTANGLED: Final = (nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.CallBlock)


@dataclass(frozen=True, eq=False)
class Hole:
    """What is filled in for each person.

    Args:
        path: the names of a plain look-up such as ("contact", "first_name") or ("links", 3); empty for anything else.
        is_escaped: whether the value stands in HTML.
    """

    environment: MailEnvironment
    node: nodes.Node
    path: tuple[str | int, ...]

    @property
    def is_escaped(self) -> bool:
        """Whether what is filled in stands in HTML."""
        return bool(self.environment.autoescape)

    @cached_property
    def names(self) -> frozenset[str]:
        """The outermost names it reads."""
        return frozenset(node.name for node in _and_below(self.node) if isinstance(node, nodes.Name))

    @cached_property
    def _template(self) -> Template:
        inner = nodes.Output([self.node]) if isinstance(self.node, nodes.Expr) else self.node
        inner.lineno = self.node.lineno or 1
        return compile_tree(self.environment, nodes.Template([inner], lineno=1))

    def fill(self, names: dict[str, Any]) -> str:
        """The text it becomes; `names` as `CompiledTemplate` gives them to a whole part.

        Raises: what rendering raises; the caller renders the whole template then, for a message that says where.
        """
        return bounded_join(self._template.root_render_func(CountedContext(self.environment, names, None, {})))

    def text_of(self, value: str) -> str:
        """A plain look-up that found a text, as it stands in the part."""
        return str(escape(value)) if self.is_escaped else value


Piece = str | Hole


def pieces_of(part: Part) -> list[Piece] | None:
    """The part as constant texts and holes in order; None if it cannot be taken apart."""
    tree = part.environment.parse(part.source)
    if any(isinstance(node, _ENTANGLED) for node in _and_below(tree)):
        return None
    pieces: list[Piece] = []
    known: dict[str, Hole] = {}
    for node in _outputs(tree):
        text = _constant(node, part.environment)
        if text is None:
            # The same expression is the same hole; statements are never compared.
            key = repr(node) if isinstance(node, nodes.Expr) else f"statement {len(pieces)}"
            pieces.append(known.setdefault(key, Hole(part.environment, node, _path(node))))
        elif pieces and isinstance(pieces[-1], str):
            pieces[-1] += text
        elif text:
            pieces.append(text)
    return pieces


def _outputs(tree: nodes.Template) -> Iterator[nodes.Node]:
    for statement in tree.body:
        if isinstance(statement, nodes.Output):
            yield from statement.nodes
        else:
            yield statement


def _constant(node: nodes.Node, environment: MailEnvironment) -> str | None:
    if isinstance(node, nodes.TemplateData):
        return str(node.data)
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return str(escape(node.value)) if environment.autoescape else node.value
    return None


def _path(node: nodes.Node) -> tuple[str | int, ...]:
    """The names of a plain look-up; addresses pass the filter for links, which the caller's are fit for."""
    if isinstance(node, nodes.Filter) and node.name == "_url" and node.node is not None:
        inner = _path(node.node)
        return inner if inner[:1] and str(inner[0]).endswith(("links", "_url")) else ()
    parts: list[str | int] = []
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        if isinstance(node, nodes.Getattr):
            parts.insert(0, node.attr)
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, (str, int)):
            parts.insert(0, node.arg.value)
        else:
            return ()
        node = node.node
    return (node.name, *parts) if isinstance(node, nodes.Name) else ()


def _and_below(node: nodes.Node) -> Iterator[nodes.Node]:
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(current.iter_child_nodes())
