"""Where things stand in an HTML template: tags, attribute values, comments, and the Jinja marks between them.

Promise: offsets into the source, found in one linear pass that treats `{{ }}`, `{% %}` and `{# #}` as opaque, so a
quote or `>` inside an expression is never taken for HTML. Text inside Outlook's conditional comments counts as
HTML. Used by `compile` (what must be escaped how), `links` and `text`. It does not build a tree, does not repair
HTML and never raises: what cannot be read is text.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

#: Stands for one masked character of a Jinja mark: private use, never part of HTML syntax.
MASK = "\ue000"

_OPEN = re.compile(r"\{\{|\{%|\{#")
_INSIDE = re.compile(r"""["'{}]|%\}""")
_STRING = {'"': re.compile(r'"(?:\\.|[^"\\])*"', re.S), "'": re.compile(r"'(?:\\.|[^'\\])*'", re.S)}
_RAW = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}")
_ENDRAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_TAG = re.compile(r"<!--|<(/?)([a-zA-Z][^\s/>]*)")
_ATTRIBUTE = re.compile(r"""([^\s=>/"'][^\s=>/]*)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s>"'][^\s>]*))?""")
_SKIP = re.compile(r"[\s/]+")
VERBATIM = frozenset({"script", "style", "textarea", "title", "xmp", "noembed", "noframes"})


class Kind(StrEnum):
    """What a stretch of the source is to a mail program."""

    TEXT = "text"
    TAG = "tag"
    VALUE = "value"
    COMMENT = "comment"
    VERBATIM = "verbatim"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One Jinja mark: `{{ }}`, `{% %}` or `{# #}` at [start, end)."""

    start: int
    end: int
    opening: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """One attribute of an opening tag; [start, end) is its value without the quotes."""

    tag: str
    name: str
    start: int
    end: int
    quote: str
    first: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A stretch that is not plain text; regions come in order and do not overlap."""

    start: int
    end: int
    kind: Kind
    name: str
    attribute: Attribute | None = None


@dataclass(kw_only=True)
class Markup:
    """A scanned source: its marks, its regions, its tags in document order."""

    source: str
    masked: str
    marks: list[Mark]
    regions: list[Region] = field(default_factory=list)
    tags: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def attributes(self) -> Iterator[Attribute]:
        """All attributes with a value, in document order."""
        return (region.attribute for region in self.regions if region.attribute is not None)

    def region_at(self, offset: int) -> Region | None:
        """The innermost region that holds `offset`, or None where it is text."""
        index = bisect.bisect_right(self.regions, offset, key=lambda region: region.start) - 1
        if index >= 0 and offset < self.regions[index].end:
            return self.regions[index]
        return None

    def is_dynamic(self, start: int, end: int) -> bool:
        """Whether a Jinja mark stands in [start, end)."""
        return MASK in self.masked[start:end]


def find_marks(source: str) -> list[Mark]:
    """All Jinja marks of a source in order; scanning stops at one that is never closed."""
    marks: list[Mark] = []
    position = 0
    while opening := _OPEN.search(source, position):
        end = _end_of(source, opening.start(), opening.group())
        if end < 0:
            break
        marks.append(Mark(start=opening.start(), end=end, opening=opening.group()))
        position = end
        if _RAW.fullmatch(source, opening.start(), end):
            closing = _ENDRAW.search(source, end)
            if closing is None:
                break
            marks.append(Mark(start=closing.start(), end=closing.end(), opening="{%"))
            position = closing.end()
    return marks


def _end_of(source: str, start: int, opening: str) -> int:
    if opening == "{#":
        found = source.find("#}", start + 2)
        return found + 2 if found >= 0 else -1
    position, depth = start + 2, 0
    while match := _INSIDE.search(source, position):
        position, sign = match.end(), match.group()
        if sign in _STRING:
            string = _STRING[sign].match(source, match.start())
            if string is None:
                return -1
            position = string.end()
        elif sign == "{":
            depth += 1
        elif sign == "}" and depth:
            depth -= 1
        elif sign == "%}" and opening == "{%":
            return position
        elif sign == "}" and opening == "{{" and source.startswith("}", position):
            return position + 1
    return -1


def mask(source: str, marks: list[Mark]) -> str:
    """The source with every mark replaced by as many mask characters: offsets stay true."""
    parts: list[str] = []
    position = 0
    for mark in marks:
        parts += [source[position : mark.start], MASK * (mark.end - mark.start)]
        position = mark.end
    parts.append(source[position:])
    return "".join(parts)


def scan(source: str) -> Markup:
    """Scan a template source once."""
    marks = find_marks(source)
    markup = Markup(source=source, masked=mask(source, marks), marks=marks)
    text, position = markup.masked, 0
    while match := _TAG.search(text, position):
        if match.group() == "<!--":
            position = _comment(markup, match.start())
            continue
        name = match.group(2).split(MASK)[0].lower()
        end = _tag(markup, match.start(), match.end(), name, closing=bool(match.group(1)))
        position = end
        if name in VERBATIM and not match.group(1):
            position = _verbatim(markup, name, end)
    return markup


def _comment(markup: Markup, start: int) -> int:
    """Take a comment; of a conditional one only its head, for what follows is HTML to Outlook."""
    text = markup.masked
    if text.startswith("<!--[if", start):
        head = text.find("]>", start)
        end = head + 2 if head >= 0 else len(text)
    elif text.startswith(("<!-->", "<!--->"), start):
        end = text.index(">", start) + 1
    else:
        tail = text.find("-->", start + 4)
        end = tail + 3 if tail >= 0 else len(text)
    markup.regions.append(Region(start=start, end=end, kind=Kind.COMMENT, name=""))
    return end


def _verbatim(markup: Markup, name: str, start: int) -> int:
    closing = re.compile(rf"</{name}(?=[\s/>])", re.I).search(markup.masked, start)
    end = closing.start() if closing else len(markup.masked)
    if end > start:
        markup.regions.append(Region(start=start, end=end, kind=Kind.VERBATIM, name=name))
    return end


def _tag(markup: Markup, start: int, position: int, name: str, *, closing: bool) -> int:
    """Take a tag from its `<` to its `>`: one region for each attribute value, TAG for the rest."""
    text = markup.masked
    seen: set[str] = set()
    begun = start
    while position < len(text) and text[position] != ">":
        if blank := _SKIP.match(text, position):
            position = blank.end()
            continue
        match = _ATTRIBUTE.match(text, position)
        if match is None:
            position += 1
            continue
        position = match.end()
        if match.group(2) is None or closing:
            continue
        attribute = _attribute(match, name, seen)
        markup.regions += [
            Region(start=begun, end=attribute.start, kind=Kind.TAG, name=name),
            Region(start=attribute.start, end=attribute.end, kind=Kind.VALUE, name=name, attribute=attribute),
        ]
        begun = attribute.end
    end = min(position + 1, len(text))
    markup.regions.append(Region(start=begun, end=end, kind=Kind.TAG, name=name))
    if not closing:
        markup.tags.append((name, start, end))
    return end


def _attribute(match: re.Match[str], tag: str, seen: set[str]) -> Attribute:
    name = match.group(1).replace(MASK, "").lower()
    quote = match.group(2)[0] if match.group(2)[0] in "\"'" else ""
    first = name not in seen
    seen.add(name)
    return Attribute(
        tag=tag, name=name, start=match.start(2) + len(quote), end=match.end(2) - len(quote), quote=quote, first=first
    )
