"""The fast way to write a mail: everything that is the same in all mails of a content is encoded beforehand.

Promise: what it writes says, once parsed, exactly what rendering the whole template and encoding it would (a property
test compares both). Where a template cannot be taken apart there is no assembly, and where a value needs the whole
template (see `WholeNeeded`) the message is not written here; `building` then goes the long way. No database, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from markupsafe import escape

from mautolib.campaigns.layout import Fixed, Layout, Loose, inline
from mautolib.events.link_batch import CONTACT_LENGTH, TOKEN_LENGTH, Form
from mautolib.templates.compile import CompiledTemplate, Part, one_line, squeezed
from mautolib.templates.data import plain
from mautolib.templates.pieces import Hole, Piece, pieces_of
from mautolib.templates.sandbox import MAX_OUTPUT, RENDER_ERRORS, Watch, short_range, watching

#: Names whose values are links of one message; a statement that reads them gets the whole context.
LINK_NAMES: Final = frozenset({"links", "open_url", "unsubscribe_url", "preferences_url", "confirm_url"})
Path = tuple[str | int, ...]


class WholeNeeded(Exception):
    """These values can only be filled into the whole template."""


@dataclass(frozen=True)
class _Slot:
    """A hole of a body part or the subject, with what to watch for when it is filled."""

    hole: Hole
    is_encoded: bool
    #: Where the text is tidied after filling in: what may not be filled in here, line ends and nothing at all.
    is_tidied: bool = False
    needs_text: bool = False
    #: The part ends with it: a line end in the value would be counted twice.
    is_last: bool = False

    @property
    def is_delicate(self) -> bool:
        """Whether there is anything to watch for."""
        return self.is_tidied or self.needs_text or self.is_last

    def check(self, value: str) -> None:
        """Raise `WholeNeeded` for a value that cannot be filled in here."""
        if (
            (self.is_tidied and "\n" in value)
            or (self.needs_text and not value)
            or (self.is_last and value[-1:] in ("\n", "\r"))
        ):
            raise WholeNeeded


class Assembly:
    """One content, laid out."""

    def __init__(
        self, template: CompiledTemplate, *, forms: Mapping[Path, Form], constants: Mapping[Path, str],
        frame: Frame, strict: bool,
    ) -> None:  # fmt: skip
        """Args:
        forms: the links by the name they have in the template.
        constants: look-ups that are the same in every message.
        frame: header and seams of the message.
        Raises:
            WholeNeeded: the template cannot be taken apart.
        """
        self._strict = strict
        self._forms = forms
        self._constants = constants
        self._slots: list[_Slot] = []
        subject, html, text = (_taken_apart(part) for part in template.parts)
        self._subject = [self._subject_piece(piece) for piece in subject]
        layout = Layout()
        layout.raw(frame.start)
        for key, following in frame.head:
            layout.place(key)
            layout.raw(following)
        layout.part(self._items(text, template.parts[2]))
        layout.raw(frame.between)
        layout.part(self._items(html, template.parts[1]))
        layout.raw(frame.end)
        self._parts = layout.done()
        self._keys = self._parts[1::2]
        self._getter: Callable[[Sequence[bytes]], Sequence[bytes]] | None = None
        paths = [slot.hole.path[1:] if slot.hole.path[:1] == ("contact",) else () for slot in self._slots]
        self._plan = [
            # What is named several times is looked up once.
            (paths.index(path) if path in paths[:number] else -1, path, slot.hole.is_escaped, slot.is_encoded, slot)
            for number, (path, slot) in enumerate(zip(paths, self._slots, strict=True))
        ]
        names = frozenset[str]().union(*(slot.hole.names for slot in self._slots))
        self._reads_links = bool(names & LINK_NAMES)

    def numbered(self, order: Sequence[Any]) -> None:
        """Fix the order in which `write` is given the values of places of the frame and of links."""
        places = {key: number for number, key in enumerate(order)}
        first = len(order)
        self._getter = itemgetter(*(key + first if type(key) is int else places[key] for key in self._keys))

    def filled(
        self, contact: Mapping[str, Any], rest: Callable[[bool], Mapping[str, Any]]
    ) -> tuple[str, list[Any]]:
        """The subject, and what stands in the places for values.

        Args:
            contact: the values of the person.
            rest: gives the further names, with True the links too; only asked where a hole is more than a look-up.
        Raises:
            WholeNeeded: the whole template has to be rendered.
        """
        names: dict[str, Any] | None = None
        texts: list[Any] = []
        found: list[str | None] = []
        encoded: dict[str, bytes] = {}
        size = 0
        try:
            for first, path, is_escaped, is_encoded, slot in self._plan:
                value = (_looked_up(contact, path) if path else None) if first < 0 else found[first]
                found.append(value)
                if value is None:
                    if names is None:
                        names = {"range": short_range, **plain({**rest(self._reads_links), "contact": contact})}
                    value = self._computed(slot.hole, names)
                    size += len(value)
                elif is_escaped and not value.isalnum():
                    value = str(escape(value))
                if is_encoded:
                    if slot.is_delicate:
                        slot.check(value)
                    data = encoded.get(value)
                    if data is None:
                        data = encoded[value] = inline(value)
                    texts.append(data)
                else:
                    texts.append(value)
        except RENDER_ERRORS as error:
            raise WholeNeeded from error
        if size > MAX_OUTPUT:
            raise WholeNeeded
        subject = "".join([piece if isinstance(piece, str) else texts[piece] for piece in self._subject])
        return one_line(subject), texts

    def write(self, framed: Sequence[bytes], texts: Sequence[bytes]) -> bytes:
        """The message: `framed` in the order of `numbered`, then what `filled` gave."""
        assert self._getter is not None
        parts = self._parts.copy()
        parts[1::2] = self._getter((*framed, *texts))
        return b"".join(parts)

    def _computed(self, hole: Hole, names: dict[str, Any]) -> str:
        if not self._strict:
            return hole.fill(names)
        token = watching.set(Watch(names, strict=True))
        try:
            return hole.fill(names)
        finally:
            watching.reset(token)

    def _subject_piece(self, piece: Piece) -> str | int:
        if isinstance(piece, str):
            return piece
        if piece.path in self._constants:
            return self._constants[piece.path]
        self._slots.append(_Slot(piece, is_encoded=False))
        return len(self._slots) - 1

    def _items(self, pieces: list[Piece], part: Part) -> list[str | Fixed | Loose]:
        resolved = self._resolved(pieces)
        if part.squeeze:
            resolved = _tidied(resolved)
        items: list[str | Fixed | Loose] = []
        slots: dict[int, int] = {}
        for number, item in enumerate(resolved):
            if not isinstance(item, Hole):
                items.append(item)
                continue
            before = resolved[number - 1] if number else "\n"
            after = resolved[number + 1] if number + 1 < len(resolved) else "\n"
            slot = _Slot(
                item,
                is_encoded=True,
                is_tidied=part.squeeze,
                needs_text=part.squeeze and _ends_line(before, -1) and _ends_line(after, 0),
                is_last=number + 1 == len(resolved),
            )
            is_plain = not slot.needs_text and not slot.is_last
            known = slots.get(id(item)) if is_plain else None
            if known is None:
                self._slots.append(slot)
                known = len(self._slots) - 1
                if is_plain:
                    slots[id(item)] = known
            items.append(Loose(known))
        return items

    def _resolved(self, pieces: list[Piece]) -> list[str | Hole | Fixed]:
        """Links and constants in their places; neighbouring texts are one."""
        found: list[str | Hole | Fixed] = []

        def add(item: str | Hole | Fixed) -> None:
            if isinstance(item, str) and found and isinstance(found[-1], str):
                found[-1] += item
            elif item != "":
                found.append(item)

        for piece in pieces:
            if isinstance(piece, str):
                add(piece)
            elif piece.path in self._constants:
                add(piece.text_of(self._constants[piece.path]))
            elif piece.path in self._forms:
                *texts, number = self._forms[piece.path]
                before, between, after = (str(escape(text)) if piece.is_escaped else text for text in texts)
                for item in (before, Fixed("contact", CONTACT_LENGTH), between, Fixed(("token", number), TOKEN_LENGTH)):
                    add(item)
                add(after)
            else:
                add(piece)
        return found


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Everything around the body parts, in bytes; `head` are the places of the header, each with what follows it."""

    start: bytes
    head: Sequence[tuple[Any, bytes]]
    between: bytes
    end: bytes


def _taken_apart(part: Part) -> list[Piece]:
    pieces = pieces_of(part)
    if pieces is None:
        raise WholeNeeded
    return pieces


def _looked_up(contact: Mapping[str, Any], path: Path) -> str | None:
    """The text a plain look-up in a contact finds; None if it is no text: what that means, Jinja decides."""
    value: Any = contact
    try:
        for name in path:
            if type(value) is str:
                return None
            value = value[name]
    except (KeyError, TypeError, IndexError):
        return None
    return value if type(value) is str else None


def _tidied(items: list[str | Hole | Fixed]) -> list[str | Hole | Fixed]:
    """A text made from HTML without needless empty lines, as rendering the whole would leave it."""
    tidy = [squeezed(item) if isinstance(item, str) else item for item in items]
    if tidy and isinstance(tidy[0], str):
        tidy[0] = tidy[0].lstrip("\n")
    if tidy and isinstance(tidy[-1], str):
        tidy[-1] = tidy[-1].rstrip("\n")
    tidy = [item for item in tidy if item != ""]
    return [*tidy[:-1], f"{tidy[-1]}\n"] if tidy and isinstance(tidy[-1], str) else [*tidy, "\n"]


def _ends_line(neighbour: str | Hole | Fixed, at: int) -> bool:
    return isinstance(neighbour, Hole) or (isinstance(neighbour, str) and neighbour[at] == "\n")
