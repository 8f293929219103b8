"""What a template may not contain, found before it is ever rendered, each problem with its line.

Promise: what passes can neither recurse nor leave the sandbox by a statement: only the node types listed here, calls
only of macros defined before, of `range` and of allowed methods, no name that begins with `_`, nesting and number of
marks bounded. For HTML also: link schemes, number of images. Pure functions over source and syntax tree, used by
`compile`; nothing is rendered here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Iterator
from html import unescape
from typing import Final

from jinja2 import Environment, nodes
from jinja2.meta import find_undeclared_variables

from mautolib.templates.filters import SCHEMES
from mautolib.templates.markup import MASK, VERBATIM, Kind, Markup, find_marks
from mautolib.templates.sandbox import CALLABLE_METHODS

MAX_SOURCE: Final = 1024 * 1024
MAX_MARKS: Final = 2_000
MAX_NESTING: Final = 40
MAX_IMAGES: Final = 100
#: Gmail shows no more of a mail than this and hides the rest behind a link.
CLIP_BYTES: Final = 102_400

_STATEMENTS = (
    nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign, nodes.AssignBlock, nodes.Macro,
    nodes.CallBlock, nodes.FilterBlock, nodes.With, nodes.Scope, nodes.Template,
)  # fmt: skip
_NAMES = {
    "Include": "include", "Import": "import", "FromImport": "import", "Extends": "extends", "Block": "block",
    "ScopedEvalContextModifier": "autoescape", "EvalContextModifier": "autoescape", "ExprStmt": "do",
}  # fmt: skip
_RESERVED = frozenset({"self", "super", "caller", "range", "varargs", "kwargs"})
_BRACKETS = re.compile(r"""["'()\[\]{}|~+*/,-]|\b(?:and|or|not|if|is|in)\b""")
LINK_ATTRIBUTES: Final = frozenset(
    {"href", "src", "action", "formaction", "background", "poster", "cite", "xlink:href"}
)
_SCHEME = re.compile(r"([^/?#:]*):")

Finding = tuple[int, str]


def size_problems(source: str) -> list[Finding]:
    """Too long, too many marks, or an expression too deep to be compiled safely."""
    if len(source) > MAX_SOURCE:
        return [(1, f"longer than {MAX_SOURCE // 1024} KiB")]
    marks = find_marks(source)
    if len(marks) > MAX_MARKS:
        return [(1, f"more than {MAX_MARKS} {{{{ }}}} and {{% %}} marks")]
    found: list[Finding] = []
    for mark in marks:
        if mark.opening != "{#" and _parts(source, mark.start + 2, mark.end - 2) > 5 * MAX_NESTING:
            found.append((line_of(source, mark.start), "expression too long; split it with {% set %}"))
    return found


def _parts(source: str, start: int, end: int) -> int:
    """How many brackets and operators an expression has: a bound on the depth of its syntax tree."""
    if end - start < MAX_NESTING:
        return 0
    return sum(1 for _ in _BRACKETS.finditer(source, start, end))


def line_of(source: str, offset: int) -> int:
    """The line of an offset, first line 1."""
    return source.count("\n", 0, offset) + 1


def syntax_problems(template: nodes.Template, environment: Environment) -> list[Finding]:
    """Everything in a parsed template that the sandbox does not offer."""
    found: list[Finding] = []
    for node in _walk(template):
        found += [(node.lineno or 1, message) for message in _node_problems(node, environment)]
    found += _call_problems(template)
    depth = _depth(template)
    if depth > MAX_NESTING:
        found.append((1, f"statements nested more than {MAX_NESTING} deep"))
    return sorted(set(found))


def _walk(node: nodes.Node) -> Iterator[nodes.Node]:
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(current.iter_child_nodes())


def _depth(template: nodes.Template) -> int:
    deepest, pending = 0, [(template, 0)]
    while pending:
        node, depth = pending.pop()
        deepest = max(deepest, depth)
        for child in node.iter_child_nodes():
            inside = isinstance(child, nodes.Stmt) and not isinstance(child, nodes.Output)
            pending.append((child, depth + inside))  # type: ignore[arg-type]
    return deepest


def _node_problems(node: nodes.Node, environment: Environment) -> Iterator[str]:
    kind = type(node).__name__
    if isinstance(node, nodes.Stmt) and not isinstance(node, _STATEMENTS):
        yield f"{{% {_NAMES.get(kind, kind.lower())} %}} is not available in mail templates"
    elif isinstance(node, nodes.NSRef):
        yield "attributes cannot be set"
    elif isinstance(node, nodes.For) and node.recursive:
        yield "recursive loops are not available"
    elif isinstance(node, nodes.Name) and node.ctx == "load" and node.name in ("self", "super"):
        yield f"the name '{node.name}' is not available"
    elif isinstance(node, nodes.Filter) and (node.name not in environment.filters or node.name[0] == "_"):
        yield f"unknown filter '{node.name}'{_like(node.name, environment.filters)}"
    elif isinstance(node, nodes.Test) and node.name not in environment.tests:
        yield f"unknown test '{node.name}'{_like(node.name, environment.tests)}"
    name = _name_of(node)
    if name is not None and name.startswith("_") and not (name == "_" and isinstance(node, nodes.Name)):
        yield f"names that begin with an underscore are not available: {name[:40]}"


def _name_of(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return str(node.name) if isinstance(node, nodes.Name) else None


def _like(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [item for item in known if item[0] != "_"], n=1, cutoff=0.8)
    return f"; did you mean '{close[0]}'?" if close else ""


def _call_problems(template: nodes.Template) -> list[Finding]:
    """Calls of anything but `range`, `caller`, allowed methods and macros that stand before: nothing can recurse."""
    found: list[Finding] = []
    macros: set[str] = set()
    for macro in template.find_all(nodes.Macro):
        if macro.name in macros | _RESERVED:
            found.append((macro.lineno, f"the macro '{macro.name}' is defined twice or has a reserved name"))
        macros.add(macro.name)
    fixed = macros | _RESERVED - {"caller"}
    for node in _walk(template):
        if isinstance(node, nodes.Name) and node.ctx in ("store", "param") and node.name in fixed:
            found.append((node.lineno, f"the name '{node.name}' cannot be given another value"))
    known: set[str] = {"range", "caller"}
    _check_calls(template, known, found)
    return found


def _check_calls(node: nodes.Node, known: set[str], found: list[Finding]) -> None:
    """Visit in source order; a macro's name becomes known only after its body."""
    if isinstance(node, nodes.Call):
        target = node.node
        allowed = (isinstance(target, nodes.Name) and target.name in known) or (
            isinstance(target, nodes.Getattr) and target.attr in CALLABLE_METHODS
        )
        if not allowed:
            name = getattr(target, "name", None) or getattr(target, "attr", None) or "this"
            found.append((node.lineno, f"'{name}' cannot be called here"))
    for child in node.iter_child_nodes():
        _check_calls(child, known, found)
    if isinstance(node, nodes.Macro):
        known.add(node.name)


def names_used(template: nodes.Template) -> dict[str, int]:
    """The names a template reads from outside, dotted as far as they are written, each with its first line."""
    outside = find_undeclared_variables(template)
    found: dict[str, int] = {}
    seen: set[int] = set()
    for node in _walk(template):  # parents come before their children
        if isinstance(node, nodes.Call):
            seen.add(id(node.node))  # the name of a method is no data; what it is called on is visited by itself
        elif id(node) not in seen and isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
            path = _path(node, seen)
            if path and path.split(".", 1)[0] in outside:
                found[path] = min(found.get(path, node.lineno), node.lineno)
    return found


def _path(node: nodes.Expr, seen: set[int]) -> str | None:
    """`contact.custom_fields.size` of nested look-ups; what follows a computed key is left out."""
    parts: list[str] = []
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        name = _name_of(node)
        parts = [] if name is None else [name, *parts]
        node = node.node
        seen.add(id(node))
    if not isinstance(node, nodes.Name) or node.ctx != "load":
        return None
    return ".".join([node.name, *parts])


def undeclared(names: Iterable[str], roots: Container[str], contact_fields: Container[str]) -> list[str]:
    """Of the dotted names those that sending does not know."""
    missing: list[str] = []
    for name in names:
        root, _, rest = name.partition(".")
        field = rest.split(".", 1)[0]
        if root not in roots or (root == "contact" and field and field not in contact_fields):
            missing.append(name)
    return missing


def html_problems(markup: Markup) -> list[Finding]:
    """Links that no mail program may follow, and more images than one would load."""
    found: list[Finding] = []
    for attribute in markup.attributes:
        if attribute.name in LINK_ATTRIBUTES:
            value = re.sub(r"[\s\x00-\x20]", "", unescape(markup.masked[attribute.start : attribute.end]))
            scheme = _SCHEME.match(value)
            allowed = (*SCHEMES, "cid", "data") if attribute.tag == "img" else SCHEMES
            if scheme and MASK not in scheme.group(1) and scheme.group(1).lower() not in allowed:
                message = f"link scheme '{scheme.group(1)[:20]}' is not allowed; use {', '.join(SCHEMES)}"
                found.append((line_of(markup.source, attribute.start), message))
    if sum(1 for name, _, _ in markup.tags if name == "img") > MAX_IMAGES:
        found.append((1, f"more than {MAX_IMAGES} images"))
    return [*found, *_never_closed(markup)]


def _never_closed(markup: Markup) -> Iterator[Finding]:
    """What would hide all that comes after it, the link to unsubscribe too."""
    text = markup.masked
    comment = next((region for region in reversed(markup.regions) if region.kind is Kind.COMMENT), None)
    last = markup.regions[-1] if markup.regions and markup.regions[-1].end == len(text) else None
    if comment is not None and text.find("-->", comment.start + 2) < 0:
        yield line_of(markup.source, comment.start), "the comment is never closed"
    elif last is not None and (last.kind is Kind.VERBATIM or _opens_verbatim(markup)):
        yield line_of(markup.source, last.start), f"<{last.name}> is never closed"
    elif last is not None and last.kind is Kind.TAG and not text.endswith(">"):
        yield line_of(markup.source, last.start), f"the tag <{last.name}> is never closed"


def _opens_verbatim(markup: Markup) -> bool:
    return bool(markup.tags) and markup.tags[-1][0] in VERBATIM and markup.tags[-1][2] == len(markup.masked)


def html_warnings(markup: Markup) -> list[str]:
    """What works, but not as meant in many mail programs."""
    warnings: list[str] = []
    if len(markup.source.encode("utf-8", "replace")) > CLIP_BYTES:
        warnings.append("The HTML is larger than 102 KB: Gmail cuts it off")
    if any(name == "script" for name, _, _ in markup.tags):
        warnings.append("Mail programs do not run scripts")
    return warnings
