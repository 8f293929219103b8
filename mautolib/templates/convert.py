"""Templates written for Mustache or Handlebars become templates of ours (docs/templates.md says what is taken).

Promise: the text stays as it is, names and blocks mean what they meant there, and what cannot be said in our sandbox
is refused with its line instead of being dropped. Command: `python -m mautolib.templates.convert FILE`. Pure function.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mautolib.errors import InvalidInput

_TAG: Final = re.compile(
    r"(?P<escaped>\\)?(?:\{\{(?P<left>~?)(?:!--(?P<long>.*?)--(?P<longright>~?)\}\}|!(?P<short>[^}]*)\}\}"
    r"|\{(?P<raw>[^{}]*)\}(?P<rawright>~?)\}\}|(?P<inner>[^{}]*?)(?P<right>~?)\}\}))",
    re.S,
)
_BLOCK: Final = re.compile(r"([#^/])\s*(.*)", re.S)
_NAME: Final = re.compile(
    r"(?:@root\.|\.\./)*(?:this\b|\.(?!\w)|[A-Za-z_][\w-]*|pm:\w+|@index|@first|@last)(?:[./][\w-]+)*"
)
_BEFORE: Final = re.compile(r"(?:^|\n)[ \t]*\Z")
_AFTER: Final = re.compile(r"[ \t]*(?:\r?\n|\Z)")
_ELSE: Final = re.compile(r"\^|else(?:\s.*)?", re.S)
_JINJA: Final = re.compile(r"\{(?=[%#])")
_LOOP: Final = {"@index": "loop.index0", "@first": "loop.first", "@last": "loop.last"}
_LINKS: Final = {"pm:unsubscribe": "unsubscribe_url", "pm:unsubscribe_url": "unsubscribe_url"}


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A converted template, and what its author should look at."""

    template: str
    warnings: tuple[str, ...]


@dataclass
class _Block:
    """An open block: how it was opened, and the name of what is looked at inside (empty: no context of its own)."""

    word: str
    closing: str
    end: str
    line: int
    context: str = ""


@dataclass
class _Reader:
    """One conversion under way."""

    source: str
    renames: Mapping[str, str]
    out: list[str] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)
    made: int = 0
    line: int = 1
    #: Where the tag being read ends.
    at: int = 0

    def run(self) -> Converted:
        position = 0
        for match in _TAG.finditer(self.source):
            self.at = match.end()
            self.line = self.source.count("\n", 0, match.start()) + 1
            before, following = self.source[position : match.start()], match.end()
            if self._has_no_text(match):
                # A block that stands alone on its line takes the line with it.
                alone = _AFTER.match(self.source, match.end())
                if alone and _BEFORE.search(self.source, 0, match.start()):
                    before, following = before.rstrip(" \t"), alone.end()
            self._text(before)
            self._tag(match)
            position = max(position, following)
        self._text(self.source[position:])
        if self.blocks:
            self.line = self.blocks[-1].line
            raise self._fault(f"{{{{#{self.blocks[-1].word}}}}} is not closed")
        return Converted(template="".join(self.out), warnings=tuple(self.warnings))

    @staticmethod
    def _has_no_text(match: re.Match[str]) -> bool:
        """Whether the tag itself shows nothing: a block or a comment."""
        if match["escaped"] or match["raw"] is not None:
            return False
        inner = (match["inner"] or "").strip()
        return match["inner"] is None or inner[:1] in ("#", "^", "/") or _ELSE.fullmatch(inner) is not None

    def _text(self, text: str) -> None:
        if "{{" in text:
            raise self._fault("a {{ is not closed, or holds braces")
        self.out.append(_JINJA.sub("{{ '{' }}", text))

    def _tag(self, match: re.Match[str]) -> None:
        if match["escaped"]:
            self.out.append("{{ '{{' }}" + match.group()[3:])
            return
        if match["long"] is not None or match["short"] is not None:
            return
        if match["raw"] is not None:
            self._value(match["raw"], match["left"], match["rawright"], raw=True)
            return
        inner, left, right = match["inner"].strip(), "-" * bool(match["left"]), "-" * bool(match["right"])
        block = _BLOCK.fullmatch(inner)
        if inner.startswith("="):
            raise self._fault("other delimiters are not taken")
        if inner.startswith(">"):
            raise self._fault(f"the part '{inner[1:].strip()}' has to be put in first")
        if inner.startswith("&"):
            self._value(inner[1:], left, right, raw=True)
        elif _ELSE.fullmatch(inner):
            self.out.append(f"{{%{left} {self._otherwise(inner)} {right}%}}")
        elif block is not None:
            verb = {"#": self._open, "^": self._open_inverted, "/": self._close}[block[1]]
            self.out.append(f"{{%{left} {verb(block[2].strip())} {right}%}}")
        else:
            self._value(inner, left, right, raw=False)

    def _value(self, expression: str, left: str, right: str, *, raw: bool) -> None:
        name = self._look_up(expression)
        if raw and not name.endswith("_url"):
            self.warnings.setdefault(f"line {self.line}: {expression.strip()} was not escaped there; here it is")
        self.out.append(f"{{{{{'-' * bool(left)} {name} {'-' * bool(right)}}}}}")

    def _open(self, text: str) -> str:
        word, _, rest = text.partition(" ")
        if word in ("if", "unless"):
            value = self._look_up(rest)
            self.blocks.append(_Block(word, word, "endif", self.line))
            return f"if {value}" if word == "if" else f"if not ({value})"
        if word == "each":
            listed, _, names = rest.partition(" as ")
            value = self._look_up(listed)
            own = re.fullmatch(r"\|\s*(\w+)\s*\|", names.strip()) if names else None
            if names and own is None:
                raise self._fault(f"{{{{#each {rest}}}}}: only one name can be given")
            item = own[1] if own else self._new_name("item")
            self.blocks.append(_Block(word, word, "endfor", self.line, item))
            return f"for {item} in {value}"
        if word == "with":
            value = self._look_up(rest)
            name = self._new_name("scope")
            self.blocks.append(_Block(word, word, "endfor", self.line, name))
            return f"for {name} in [{value}] if {name}"
        if rest:
            raise self._fault(f"the helper '{word}' is not known")
        value, name = self._look_up(word), self._new_name("scope")
        self.blocks.append(_Block(word, word, "endfor", self.line, name))
        if self._loops_itself(word):
            # The block inside goes through it: this one only asks whether there is anything.
            return f"for {name} in [{value}] if {name}"
        is_list = f"{value} is sequence and {value} is not string and {value} is not mapping"
        return f"for {name} in ({value} if {is_list} else [{value}] if {value} else [])"

    def _loops_itself(self, word: str) -> bool:
        end = self.source.find(f"{{{{/{word}", self.at)
        return re.search(r"\{\{~?#each\s+(?:\.|this)\s*~?\}\}", self.source[self.at : max(end, self.at)]) is not None

    def _open_inverted(self, text: str) -> str:
        value = self._look_up(text)
        self.blocks.append(_Block(text, text, "endif", self.line))
        return f"if not ({value})"

    def _close(self, text: str) -> str:
        if not self.blocks or self.blocks[-1].closing != text:
            raise self._fault(f"{{{{/{text}}}}} closes no open block")
        return self.blocks.pop().end

    def _otherwise(self, text: str) -> str:
        if not self.blocks:
            raise self._fault("{{else}} outside a block")
        block = self.blocks[-1]
        rest = text.removeprefix("else").removeprefix("^").strip()
        if not rest:
            return "else"
        if block.end != "endif" or not rest.startswith("if "):
            raise self._fault(f"{{{{{text}}}}} cannot stand here")
        return f"elif {self._look_up(rest.removeprefix('if '))}"

    def _look_up(self, expression: str) -> str:
        """The name as an expression: looked for in the block it stands in, then in those around it."""
        name = expression.strip()
        if not _NAME.fullmatch(name):
            raise self._fault(f"'{name[:60]}' is neither a name nor a block we know")
        if name in self.renames:
            return self.renames[name]
        if name in _LOOP:
            return _LOOP[name]
        if name in _LINKS:
            return _LINKS[name]
        contexts = [block.context for block in self.blocks if block.context]
        if name.startswith("@root."):
            return self._path(name.removeprefix("@root."))
        outward = 0
        while name.startswith("../"):
            name, outward = name[3:], outward + 1
        if outward > len(contexts):
            raise self._fault(f"'{expression.strip()}' leads out of the template")
        inner = contexts[: len(contexts) - outward]
        if name in ("this", "."):
            if not inner:
                raise self._fault(f"'{name}' stands outside a block")
            return inner[-1]
        own = re.match(r"this[./]", name)
        if own or name.startswith("./"):
            rest = name[own.end() if own else 2 :]
            return f"{inner[-1]}.{self._path(rest)}" if inner else self._path(rest)
        path = self._path(name)
        if name.split(".")[0] in contexts:
            return path
        found = path
        for context in inner:
            found = f"{context}.{path}|default({found})"
        return found

    def _path(self, name: str) -> str:
        path = name.replace("/", ".")
        if "-" in path:
            self.warnings.setdefault(f"line {self.line}: {name} is called {path.replace('-', '_')} here")
        return self.renames.get(name, path.replace("-", "_"))

    def _new_name(self, kind: str) -> str:
        self.made += 1
        return f"{kind}{self.made}"

    def _fault(self, message: str) -> InvalidInput:
        return InvalidInput(f"{message} (line {self.line})", code="template_error", line=self.line)


def convert(source: str, renames: Mapping[str, str] | None = None) -> Converted:
    """A Mustache or Handlebars template as one of ours.

    Args:
        renames: what a name is called here, such as {"first_name": "contact.first_name"}.
    Raises:
        InvalidInput: something that cannot be said here, with its line.
    """
    return _Reader(source, renames or {}).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: converts one file."""
    parser = argparse.ArgumentParser(
        prog="python -m mautolib.templates.convert", description="Convert a Mustache or Handlebars template."
    )
    parser.add_argument("file", type=Path, help="the template (UTF-8)")
    parser.add_argument("-o", "--output", type=Path, help="where to write it (default: standard output)")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW",
                        help="first_name=contact.first_name")  # fmt: skip
    given = parser.parse_args(arguments)
    renames = dict(item.partition("=")[::2] for item in given.rename)
    try:
        made = convert(given.file.read_text(encoding="utf-8"), renames)
    except (InvalidInput, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{given.file}: {error}\n")
        return 1
    for warning in made.warnings:
        sys.stderr.write(f"{given.file}: {warning}\n")
    if given.output is None:
        sys.stdout.write(made.template)
    else:
        given.output.write_text(made.template, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
