"""The plain text part of a mail, made from its HTML.

Promise: the words in reading order, links as `text (address)`, lists, headings and table rows on lines of their
own; what is hidden (preheader, styles, Outlook's conditional comments) is left out. Jinja marks pass through
untouched, so the result of a template's source is a template again: made once, not once per mail. Pure function,
used by `compile`.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

from mautolib.templates.markup import find_marks

# Marks travel through the HTML parser as private-use characters: begin, number, end (of a value, of a statement).
_BEGIN, _VALUE, _STATEMENT = "\ue001", "\ue002", "\ue003"
_TOKEN = re.compile(f"{_BEGIN}([0-9]+)[{_VALUE}{_STATEMENT}]")
_STATEMENTS = re.compile(f"{_BEGIN}[0-9]+{_STATEMENT}")
_ONLY_STATEMENTS = re.compile(f"(?m)^((?:[ \t]*{_BEGIN}[0-9]+{_STATEMENT})+)[ \t]*\n")
_FILLERS = re.compile("[\u00ad\u034f\u200b-\u200f\u2060\ufeff]+")
_BLANKS = re.compile(r"[\s\xa0]+")
_SKIPPED = frozenset({"head", "style", "script", "title", "template", "noscript"})
_VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"})
_PARAGRAPHS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "blockquote", "pre", "hr", "dl", "table"})
_LINES = frozenset(
    {"div", "tr", "li", "section", "article", "header", "footer", "center", "address", "dt", "dd", "body",
     "main", "nav", "figure", "form", "tbody", "thead", "option", "fieldset"}
)
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|max-height\s*:\s*0", re.I)


_RULE = "-" * 40


def text_from_html(source: str, *, keep_marks: bool = True) -> str:
    """The plain text of an HTML source; Jinja marks in it are kept where they stand, or left out."""
    pieces: list[str] = []
    kept: list[str] = []
    position = 0
    for mark in find_marks(source):
        pieces.append(source[position : mark.start])
        if mark.opening != "{#" and keep_marks:
            pieces.append(f"{_BEGIN}{len(kept)}{_VALUE if mark.opening == '{{' else _STATEMENT}")
            kept.append(source[mark.start : mark.end])
        position = mark.end
    pieces.append(source[position:])
    reader = _Reader()
    reader.feed("".join(pieces))
    reader.close()
    return _TOKEN.sub(lambda found: _mark(kept, found), reader.text())


def _mark(kept: list[str], found: re.Match[str]) -> str:
    number = int(found.group(1))
    return kept[number] if number < len(kept) else ""


def _is_hidden(attributes: dict[str, str]) -> bool:
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or _HIDDEN.search(attributes.get("style", "")) is not None
    )


class _Reader(HTMLParser):
    """Writes words as they come; blocks only ask for line ends, which are written before the next word."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._line_ends = 0
        self._space = False
        self._skipping: list[str] = []
        self._links: list[tuple[str, int]] = []
        self._lists: list[int | None] = []
        self._heading = 0

    def text(self) -> str:
        """What was read, tidied: no trailing blanks, at most one empty line, no line of statements alone."""
        joined = re.sub(r"[ \t]*\n[ \t]*\n\s*\n", "\n\n", "".join(self._out))
        joined = re.sub(r"[ \t]+\n", "\n", joined).strip()
        return _ONLY_STATEMENTS.sub(lambda found: _BLANKS.sub("", found.group(1)), joined + "\n") if joined else ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in reversed(attrs)}
        if self._skipping or tag in _SKIPPED or _is_hidden(values):
            if tag not in _VOID:
                self._skipping.append(tag)
        elif tag == "a":
            self._links.append((_BLANKS.sub(" ", values.get("href", "")).strip(), len(self._out)))
        elif tag == "img":
            self._write(values.get("alt", ""))
        elif tag == "br":
            self._out.append("\n")
            self._space = False
        elif tag in ("td", "th"):
            self._space = True
        else:
            self._open(tag)

    def _open(self, tag: str) -> None:
        self._end_line(2 if tag in _PARAGRAPHS and not (tag in ("ul", "ol") and self._lists) else tag in _LINES)
        if tag in ("ul", "ol"):
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            number = self._lists[-1] if self._lists else None
            if number is not None:
                self._lists[-1] = number + 1
            self._write("  " * (len(self._lists) - 1) + ("- " if number is None else f"{number}. "), keep=True)
        elif tag == "hr":
            self._write(_RULE)
            self._end_line(2)
        elif tag in ("h1", "h2"):
            self._heading = len(self._out)

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            if tag in self._skipping:
                while self._skipping.pop() != tag:
                    pass
        elif tag == "a" and self._links:
            self._close_link(*self._links.pop())
        elif tag not in _VOID:
            if tag in ("h1", "h2"):
                self._underline("=" if tag == "h1" else "-")
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()
            self._end_line(2 if tag in _PARAGRAPHS and not (tag in ("ul", "ol") and self._lists) else tag in _LINES)

    def handle_data(self, data: str) -> None:
        if self._skipping:  # a hidden {% set %} or {% if %} still counts
            self._out += _STATEMENTS.findall(data)
            return
        words = _BLANKS.sub(" ", _FILLERS.sub("", data))
        self._space = self._space or words[:1] == " "
        self._write(words.strip(" "))
        self._space = self._space or (bool(words.strip()) and words[-1:] == " ")

    def _write(self, words: str, *, keep: bool = False) -> None:
        if not words.strip():
            return
        if self._line_ends:
            self._out.append("\n" * self._line_ends)
        elif self._space and self._out and not self._out[-1].endswith((" ", "\n")):
            self._out.append(" ")
        self._line_ends, self._space = 0, False
        self._out.append(words if keep else words.strip())

    def _end_line(self, count: int) -> None:
        if count and self._out:
            self._line_ends = max(self._line_ends, int(count))
            self._space = False

    def _close_link(self, address: str, begun: int) -> None:
        label = "".join(self._out[begun:]).strip()
        plain = address.removeprefix("mailto:").removeprefix("tel:")
        if not plain or plain.startswith("#") or label in (plain, plain.split("//", 1)[-1]):
            if label and label != plain and plain and not plain.startswith("#"):
                self._out[begun:] = [f" {plain}" if begun and self._out[begun][:1] == " " else plain]
            return
        pending, self._line_ends = self._line_ends, 0
        self._space = True
        self._write(f"({plain})" if label else plain)
        self._line_ends = pending

    def _underline(self, line: str) -> None:
        heading = _TOKEN.sub("x" * 8, _STATEMENTS.sub("", "".join(self._out[self._heading :]))).strip()
        if heading:
            self._line_ends = 1
            self._write(line * min(len(heading), 60))
