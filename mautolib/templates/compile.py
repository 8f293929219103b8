"""Compile a template once; render it for each person.

Promise: everything wrong with a template that can be known without data is found here, with part and line, and a
template with problems never renders. Every value is escaped for the place it stands in. `CompiledTemplate.render`
is the fast path of sending: in this process, no limits but those of `sandbox`, a few microseconds. Values are never
rendered again. Callers: campaign building, catalogue, the preview worker. It stores nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from jinja2 import Template, TemplateSyntaxError, nodes

from mautolib.errors import InvalidInput
from mautolib.templates import checks
from mautolib.templates.data import plain
from mautolib.templates.language import normal_tag
from mautolib.templates.markup import Kind, Markup, scan
from mautolib.templates.sandbox import (
    PLAIN,
    RENDER_ERRORS,
    CountedContext,
    MailEnvironment,
    UndefinedVariable,
    Watch,
    bounded_join,
    count_work,
    environments,
    short_range,
    watching,
)
from mautolib.templates.text import text_from_html

#: Names that sending gives to every template.
SENDING_NAMES: Final = ("contact", "campaign", "event", "unsubscribe_url", "preferences_url", "confirm_url", "now")
#: Fields of `contact`; the keys of `contact.custom_fields` are free.
CONTACT_FIELDS: Final = (
    "id", "email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency", "custom_fields",
    "source", "created_at",
)  # fmt: skip

_CONTROLS = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+")
_LINE_ENDS = re.compile(r"[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_MANY_LINE_ENDS = re.compile(r"\n{3,}")
_URL_ATTRIBUTES = checks.LINK_ATTRIBUTES | {"srcset", "data"}
_FILE = "<template>"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that keeps a template from being sent; `part` is subject, html_body or text_body."""

    part: str
    line: int
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """One mail text: a subject of one line, HTML, and plain text."""

    subject: str
    html: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One compiled part; `source` is what was compiled, `squeeze` where the text was made from HTML."""

    name: str
    environment: MailEnvironment
    template: Template
    source: str
    squeeze: bool = False

    def render(self, names: dict[str, Any]) -> str:
        """The part filled in.

        Raises:
            InvalidInput: says what failed, in which part and line.
        """
        try:
            context = CountedContext(self.environment, names, None, {})
            return bounded_join(self.template.root_render_func(context))
        except UndefinedVariable as error:
            message = f"Undefined variable: {error.message}"
            raise InvalidInput(message, code="template_error", path=(self.name,)) from None
        except RENDER_ERRORS as error:
            line = self._line_of(error.__traceback__)
            where = f"{self.name}, line {line}" if line else self.name
            message = str(error)[:200] or type(error).__name__
            raise InvalidInput(
                f"Template error: {message} ({where})", code="template_error", path=(self.name,), line=line
            ) from None

    def _line_of(self, traceback: TracebackType | None) -> int | None:
        line = None
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == _FILE:
                line = self.template.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return line


@dataclass(frozen=True, kw_only=True)
class CompiledTemplate:
    """A template ready to render, or the problems that keep it from being rendered.

    `variables` are the names it reads, dotted as written; `undeclared` those of them that sending does not give.
    """

    strict: bool
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    variables: tuple[str, ...]
    undeclared: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def valid(self) -> bool:
        """Whether it may be sent."""
        return not self.problems

    def render(self, context: Mapping[str, Any]) -> Rendered:
        """The mail for one context; plain copies of its values are used.

        Raises:
            InvalidInput: the template has problems, or rendering failed (code `template_error`).
        """
        if self.problems:
            self.refuse()
        values = plain(context)
        if not self.strict:
            return self._filled_in(values)
        return self._watched(values, Watch(values, strict=True))

    def preview(self, context: Mapping[str, Any]) -> tuple[Rendered, tuple[str, ...]]:
        """The mail for one context, and a warning for each name that had no value."""
        if self.problems:
            self.refuse()
        values = plain(context)
        watch = Watch(values, strict=self.strict)
        rendered = self._watched(values, watch)
        return rendered, (*self.warnings, *(f"Undefined variable: {name}" for name in watch.names))

    def with_strictness(self, *, strict: bool) -> CompiledTemplate:
        """The same compiled parts, rendered strictly or leniently."""
        return dataclasses.replace(self, strict=strict)

    def refuse(self) -> None:
        """Raise what is wrong with the template; returns if nothing is."""
        if not self.problems:
            return
        first = self.problems[0]
        kind = "" if first.message.startswith(("Template", "Undefined variable")) else "Template error: "
        raise InvalidInput(
            f"{kind}{first.message} ({first.part}, line {first.line})",
            code="template_error",
            path=(first.part,),
            line=first.line,
            problems=tuple(((problem.part, problem.line), problem.message) for problem in self.problems),
        )

    def _watched(self, values: dict[str, Any], watch: Watch) -> Rendered:
        token = watching.set(watch)
        try:
            return self._filled_in(values)
        finally:
            watching.reset(token)

    def _filled_in(self, values: dict[str, Any]) -> Rendered:
        subject, html, text = self.parts
        names = {"range": short_range, **values}
        line, body, plain_text = subject.render(names), html.render(names), text.render(names)
        if text.squeeze:
            plain_text = squeezed(plain_text).strip("\n") + "\n"
        return Rendered(subject=one_line(line), html=body, text=plain_text)


def one_line(text: str) -> str:
    """A subject as one line: runs of blanks and control characters are one blank."""
    if not text.isprintable() or "  " in text:
        text = _CONTROLS.sub(" ", text)
    return text.strip()


def squeezed(text: str) -> str:
    """Text with at most one empty line in a row."""
    return _MANY_LINE_ENDS.sub("\n\n", text) if "\n\n\n" in text else text


def compile_template(
    subject: str, html_body: str, text_body: str = "", *, strict: bool = False, variables: Collection[str] = (),
    language: str = "",
) -> CompiledTemplate:  # fmt: skip
    """Compile the three parts of a mail; never raises, problems are part of the result.

    Args:
        text_body: empty: made from the HTML.
        strict: a name without a value is an error, here where it can be known, else when rendering.
        variables: further names (beside `SENDING_NAMES`) that the sender will give.
        language: whose conventions `date`, `number` and `money` follow; empty: ISO dates, `1,234.50`.
    """
    escaping, bare = environments(normal_tag(language))
    markup = scan(html_body) if len(html_body) <= checks.MAX_SOURCE else scan("")
    problems: list[Problem] = []
    used: dict[str, tuple[str, int]] = {}
    made = not text_body.strip()
    text_source = _made_text(html_body) if made else text_body
    sources = (
        ("subject", bare, subject.rstrip("\r\n"), None),
        ("html_body", escaping, html_body, markup),
        ("text_body", bare, text_source, None),
    )
    parts: list[Part] = []
    for name, environment, source, html in sources:
        if not (made and name == "text_body" and problems):
            part = _compile_part(name, environment, source, html, problems, used)
            if part is not None:
                is_made = made and name == "text_body"
                parts.append(dataclasses.replace(part, squeeze=True) if is_made else part)
    if _LINE_ENDS.search(subject.rstrip("\r\n")):
        problems.append(Problem(part="subject", line=2, message="the subject must be one line"))
    unknown = checks.undeclared(sorted(used), {*SENDING_NAMES, *variables}, CONTACT_FIELDS)
    if strict:
        problems += [
            Problem(part=used[name][0], line=used[name][1], message=f"Undefined variable: {name}") for name in unknown
        ]
    return CompiledTemplate(
        strict=strict,
        problems=tuple(problems),
        warnings=tuple(checks.html_warnings(markup)),
        variables=tuple(sorted(used)),
        undeclared=tuple(unknown),
        parts=tuple(parts),
    )


def _made_text(html_body: str) -> str:
    """The text part of a mail that has none; without marks where they do not survive out of their tags."""
    if len(html_body) > checks.MAX_SOURCE:
        return ""
    source = text_from_html(html_body)
    try:
        PLAIN.parse(source)
    except (TemplateSyntaxError, RecursionError):
        return text_from_html(html_body, keep_marks=False)
    return source


def _compile_part(
    part: str,
    environment: MailEnvironment,
    source: str,
    markup: Markup | None,
    problems: list[Problem],
    used: dict[str, tuple[str, int]],
) -> Part | None:
    """Check and compile one part; adds to `problems` and `used`."""
    found = checks.size_problems(source)
    if not found:
        try:
            tree = environment.parse(source)
            found = checks.syntax_problems(tree, environment)
            if not found:
                for name, line in checks.names_used(tree).items():
                    used.setdefault(name, (part, line))
                found = checks.html_problems(markup) if markup else []
                protected = protect(markup) if markup else source
                template = compile_tree(environment, tree if protected == source else environment.parse(protected))
        except TemplateSyntaxError as error:
            found = [(error.lineno, f"Template syntax error: {error.message}")]
        except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError):
            found = [(1, "Template syntax error: nested too deep")]
    problems += [Problem(part=part, line=line, message=message) for line, message in found]
    if found:
        return None
    return Part(name=part, environment=environment, template=template, source=protected)


def compile_tree(environment: MailEnvironment, tree: nodes.Template) -> Template:
    """A parsed template made ready to run, its work counted."""
    count_work(tree)
    tree.set_environment(environment)
    code = environment.compile(tree, None, _FILE)
    return Template.from_code(environment, code, environment.globals)


def protect(markup: Markup) -> str:
    """The HTML source with a filter on every value that stands where escaping alone is not enough."""
    pieces: list[str] = []
    position = 0
    for mark in markup.marks:
        filters = list(_filters_at(markup, mark.start)) if mark.opening == "{{" else []
        if not filters:
            continue
        inner = markup.source[mark.start + 2 : mark.end - 2]
        lead = inner[:1] if inner[:1] in ("-", "+") else ""
        tail = inner[-1:] if len(inner) > 1 and inner[-1:] in ("-", "+") else ""
        expression = inner[len(lead) : len(inner) - len(tail)]
        piped = "".join(f"|{name}" for name in filters)
        pieces += [markup.source[position : mark.start], f"{{{{{lead}({expression}){piped}{tail}}}}}"]
        position = mark.end
    return "".join([*pieces, markup.source[position:]])


def _filters_at(markup: Markup, offset: int) -> Iterator[str]:
    """The filters a value needs at `offset` of the source, innermost first."""
    region = markup.region_at(offset)
    if region is None or region.kind is Kind.COMMENT:
        return
    attribute = region.attribute
    if attribute is None:
        if region.kind is Kind.TAG or region.name == "script":
            yield "_word"
        elif region.name == "style":
            yield "_css"
        return
    if attribute.name.startswith("on") or attribute.name == "srcdoc":
        yield "_word"
    elif attribute.name == "style":
        yield "_css"
    elif attribute.name in _URL_ATTRIBUTES and not re.search("[:/?#]", markup.masked[attribute.start : offset]):
        yield "_url"
    if not attribute.quote:
        yield "_unquoted"


