"""The sandbox templates run in: Jinja2 with everything taken out that a mail text does not need.

Invariant: a template reaches only what it was given - exact str, int, float, bool, None, dict and list - and of
those only the names in `_METHODS`. No loader, no globals but a short `range`, no name that begins with `_`, no
string formatting. Work is bounded inside the process too: loops, calls and the size of every string are counted,
so a compiled template cannot hang a sender. `checks` refuses at compile time what could recurse.
Used by `compile`; limits on CPU and memory of a whole process are `worker`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

from jinja2 import Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from mautolib.templates import filters, localized

MAX_OUTPUT: Final = 1_000_000
MAX_STEPS: Final = 20_000
MAX_RANGE: Final = 1_000
MAX_NUMBER: Final = 10**18

_STR_METHODS = frozenset(
    {"upper", "lower", "title", "capitalize", "strip", "lstrip", "rstrip", "split", "startswith", "endswith"}
)
_LOOP = frozenset(
    {"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "depth", "depth0",
     "cycle", "changed"}
)
_METHODS: dict[type, frozenset[str]] = {
    str: _STR_METHODS,
    Markup: _STR_METHODS,
    dict: frozenset({"get", "items", "keys", "values"}),
    LoopContext: _LOOP,
}
#: Every name that may be called as a method, for the check at compile time.
CALLABLE_METHODS: Final = _STR_METHODS | _METHODS[dict] | {"replace", "cycle", "changed"}


class UndefinedVariable(TemplateRuntimeError):
    """A strict template used a name that has no value."""


class Watch:
    """Collects the names a rendering missed; a strict one raises at the first."""

    def __init__(self, values: Mapping[str, Any], *, strict: bool) -> None:
        self._values = values
        self._strict = strict
        self.names: dict[str, None] = {}

    def missed(self, holder: Any, name: str) -> None:
        """Note that `name` was looked up in `holder` (None: in the template's names) and not found."""
        path = name if holder is None else self._path_of(holder, name)
        if self._strict:
            raise UndefinedVariable(path)
        self.names.setdefault(path)

    def _path_of(self, holder: Any, name: str) -> str:
        pending: list[tuple[str, Any]] = list(self._values.items())
        for path, value in pending:
            if value is holder:
                return f"{path}.{name}"
            if isinstance(value, dict):
                pending += [(f"{path}.{key}", inner) for key, inner in value.items()]
            elif isinstance(value, list):
                pending += [(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
        return name


#: The watch of the rendering in progress; None on the fast path of a lenient template.
watching: ContextVar[Watch | None] = ContextVar("mauto_template_watch", default=None)


class Missing(Undefined):
    """An undefined name: empty when shown, false when tested, itself again when calculated with."""

    __slots__ = ()

    def _note(self) -> None:
        watch = watching.get()
        if watch is not None:
            holder = self._undefined_obj if isinstance(self._undefined_obj, (dict, list)) else None
            watch.missed(holder, str(self._undefined_name))

    def _strictly(self) -> None:
        watch = watching.get()
        if watch is not None and watch._strict:
            self._note()

    def __str__(self) -> str:
        self._note()
        return ""

    def __iter__(self) -> Iterator[Any]:
        self._note()
        return iter(())

    def __len__(self) -> int:
        self._note()
        return 0

    def __bool__(self) -> bool:
        self._strictly()
        return False

    def __eq__(self, other: object) -> bool:
        self._strictly()
        return isinstance(other, Missing)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def _itself(self, *_: Any) -> Missing:
        self._note()
        return self

    def _false(self, _: object) -> bool:
        self._note()
        return False

    __hash__ = Undefined.__hash__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _itself  # type: ignore[assignment]
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __pos__ = _itself  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = _false  # type: ignore[assignment]


class CountedContext(Context):
    """The names of one rendering, and the steps it may still take."""

    steps = MAX_STEPS

    def take(self, steps: int) -> None:
        """Use up steps; raises once a rendering takes more than `MAX_STEPS`."""
        self.steps -= steps
        if self.steps < 0:
            raise TemplateRuntimeError(f"more than {MAX_STEPS} loop steps and calls")


def short_range(*arguments: int) -> range:
    """`range` of at most `MAX_RANGE` numbers."""
    numbers = range(*arguments)
    if len(numbers) > MAX_RANGE:
        raise TemplateRuntimeError(f"range is limited to {MAX_RANGE} numbers")
    return numbers


def bounded_join(chunks: Iterable[str]) -> str:
    """Join the chunks of a rendering; raises as soon as they exceed `MAX_OUTPUT` characters."""
    parts: list[str] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_OUTPUT:
            raise TemplateRuntimeError(f"output exceeds {MAX_OUTPUT} characters")
        parts.append(chunk)
    return "".join(parts)


@pass_context
def _counted(context: CountedContext, items: Any) -> Any:
    """What every `for` loops over: a list whose length was charged to the rendering."""
    if not isinstance(items, (list, dict, range, str, Undefined)):
        found: list[Any] = []
        for item in items:
            context.take(1)
            found.append(item)
        return found
    context.take(len(items))
    return items


@pass_context
def _concatenated(context: CountedContext, parts: list[Any]) -> str:
    """What `~` means: the parts as text of bounded size; escaped as soon as one of them is HTML already."""
    context.take(1)
    texts = [filters.shown(part) for part in parts]
    if any(hasattr(text, "__html__") for text in texts):
        return Markup(bounded_join([Markup.escape(text) for text in texts]))  # noqa: S704 - each part is escaped
    return bounded_join(texts)


@pass_context
def _weighed(context: CountedContext, literal: Any) -> Any:
    """A list or object written in the template, all it holds charged to the rendering."""
    _charge(context, literal)
    return literal


def _charge(context: CountedContext, value: Any) -> None:
    """Count everything a value holds: lists that hold each other would otherwise double with every line."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, (list, tuple, dict)):
            context.take(len(current) + 1)
            pending.extend(current.values() if isinstance(current, dict) else current)


def _finalized(value: Any) -> Any:
    """What `{{ }}` writes; text and numbers pass, and what is missing notes itself when it is written."""
    return value if isinstance(value, (str, int, float, Undefined)) else filters.shown(value)


class MailEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2 for mail texts; one instance escapes (HTML), one does not (subject and plain text)."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    context_class = CountedContext
    concat = staticmethod(bounded_join)

    def __init__(self, *, escaping: bool, language: str = "") -> None:
        super().__init__(
            autoescape=escaping, undefined=Missing, finalize=_finalized, keep_trailing_newline=True, cache_size=0
        )
        self.globals.clear()
        self.globals["range"] = short_range
        self.filters = filters.FILTERS | localized.filters_of(language)
        self.tests = {name: self.tests[name] for name in filters.TESTS}
        self.filters |= {"_counted": _counted, "_concatenated": _concatenated, "_weighed": _weighed}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Data first, then the few methods that are allowed; anything else is undefined."""
        if type(obj) is dict and attribute in obj and attribute[0] != "_":
            return obj[attribute]
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Item of a dict, list or string, or one of the allowed methods."""
        if isinstance(obj, Undefined):
            return Missing(obj=obj._undefined_obj, name=f"{obj._undefined_name}.{argument}"[:200])
        if isinstance(argument, str):
            if argument.startswith("_"):
                raise SecurityError(f"names that begin with an underscore are not available: {argument[:40]}")
            kind = type(obj)
            if kind is dict and argument in obj:
                return obj[argument]
            if kind in _METHODS and argument in _METHODS[kind]:
                return getattr(obj, argument)
            if argument == "replace" and isinstance(obj, str):
                return functools.partial(filters.replace, obj)
        elif isinstance(obj, (list, tuple, str, dict)):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                return Missing(obj=obj, name=str(argument)[:40])
        return Missing(obj=obj, name=str(argument)[:40])

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, `range` or an allowed method; each call is a step."""
        __context.take(1)
        if not isinstance(__obj, Macro) and __obj is not short_range and not _is_allowed_method(__obj):
            raise SecurityError("this cannot be called")
        return __context.call(__obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate with numbers, add strings and lists; results of unreasonable size are refused."""
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return left._itself() if isinstance(left, Missing) else right._itself()
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return bounded_join((left, right)) if type(left) is type(right) is str else left + right
        if operator == "+" and isinstance(left, list) and isinstance(right, list):
            joined = left + right
            _charge(context, joined)  # type: ignore[arg-type]
            return joined
        if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
            raise TemplateRuntimeError(f"{operator} takes numbers")
        result = float(left) ** right if operator == "**" else self.binop_table[operator](left, right)
        if isinstance(result, complex) or abs(result) > MAX_NUMBER:
            raise TemplateRuntimeError("number too large")
        whole = operator == "**" and isinstance(left, int) and isinstance(right, int) and result == int(result)
        return int(result) if whole else result


def _is_allowed_method(thing: Any) -> bool:
    if isinstance(thing, functools.partial):
        return thing.func is filters.replace
    holder, name = getattr(thing, "__self__", None), getattr(thing, "__name__", "")
    return name in _METHODS.get(type(holder), ())


def count_work(template: nodes.Template) -> None:
    """Rewrite a parsed template so that its loops, `~` and lists are counted (the filters above)."""
    for loop in list(template.find_all(nodes.For)):
        loop.iter = _filter(loop.iter, "_counted")
    _rewrite(template)


def _filter(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _rewrite(node: nodes.Node) -> None:
    for name, value in node.iter_fields():
        if isinstance(value, list):
            value[:] = [_rewritten(item) for item in value]
        elif isinstance(value, nodes.Node):
            setattr(node, name, _rewritten(value))


def _rewritten(value: Any) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _rewrite(value)
    if isinstance(value, nodes.Concat):
        return _filter(nodes.List(value.nodes, lineno=value.lineno), "_concatenated")
    if isinstance(value, (nodes.List, nodes.Dict)) or (isinstance(value, nodes.Tuple) and value.ctx == "load"):
        return _filter(value, "_weighed")
    return value


HTML: Final = MailEnvironment(escaping=True)
PLAIN: Final = MailEnvironment(escaping=False)


@functools.lru_cache(maxsize=64)
def environments(language: str) -> tuple[MailEnvironment, MailEnvironment]:
    """The environment that escapes and the one that does not, with the filters of a language (a normal tag)."""
    if not language:
        return HTML, PLAIN
    return MailEnvironment(escaping=True, language=language), MailEnvironment(escaping=False, language=language)


#: What a rendering may raise besides our own errors: wrong types, missing keys, limits.
RENDER_ERRORS: Final = (
    TemplateRuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError,
    RecursionError, MemoryError,
)  # fmt: skip
