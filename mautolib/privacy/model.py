"""The nouns of erasure: what was asked for and what became of it, and the traces a person leaves.

Pure data and text; the database is in `erasing` and `removal`. The statuses are mirrored by a CHECK on `erasures`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote

import idna

from mautolib.contacts import address_key

__all__ = ["Erasure", "ErasureStatus", "Search", "TableCount", "Traces"]

#: A name shorter than this is part of too many other words to be looked for.
_SHORTEST_WORD = 3
_SHORTEST_PHONE = 6
_LONGEST_LOCAL = 64
_LOCAL_END = re.compile(r"[\w.+-]+\Z")
#: Of file names; after any other dot the domain goes on and the address is another one.
_ENDINGS = r"(?:csv|gz|txt|tsv|json|xlsx?|eml)\b"


class ErasureStatus(StrEnum):
    """How far an erasure is. A failed one is tried again by the next maintenance run."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class TableCount:
    """How many rows of a table were removed or cleaned; files count under `storage`."""

    table: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """One erasure. `contact_id` leads to nobody any more."""

    erasure_id: int
    contact_id: int
    status: ErasureStatus
    requested_by: str
    requested_at: datetime
    completed_at: datetime | None
    tables: tuple[TableCount, ...]


@dataclass(frozen=True, kw_only=True)
class Traces:
    """How one person may be written somewhere: every address and key, first and last names, phone numbers."""

    addresses: tuple[str, ...]
    names: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Traces:
        """From `as_json`."""
        return cls(**{name: tuple(given.get(name) or ()) for name in ("addresses", "names", "phones")})

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"addresses": list(self.addresses), "names": list(self.names), "phones": list(self.phones)}

    @property
    def keys(self) -> frozenset[str]:
        """The address keys."""
        return frozenset(map(address_key, self.addresses))

    @cached_property
    def spellings(self) -> tuple[str, ...]:
        """Every form of the addresses text may have: as typed, as compared, in a URL, in HTML."""
        found: dict[str, None] = {}
        for address in (*self.addresses, *self.keys, *map(_in_unicode, self.keys)):
            for form in (address, quote(address, safe=""), quote(address, safe="+"), html.escape(address)):
                found[form.lower()] = None
                if not form.isascii():
                    found[_in_escape_format(form.lower())] = None
        return tuple(found)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Names and phone numbers long enough to be looked for where rows of a file are quoted."""
        names = [name for name in self.names if len(name) >= _SHORTEST_WORD]
        phones = [phone for phone in self.phones if sum(map(str.isdigit, phone)) >= _SHORTEST_PHONE]
        return tuple(dict.fromkeys(word.lower() for word in (*names, *phones)))


@dataclass(frozen=True, kw_only=True)
class Search:
    """What maintenance looks for on behalf of one erasure.

    Args:
        living: contacts that have one of the addresses now: told again after the erasure, and left alone.
        neighbours: longer address keys that end with one of the addresses; they are other people's.
        is_own: the shop itself uses one of the addresses (an account, a sender); its own texts keep it.
    """

    erasure_id: int
    contact_id: int
    requested_at: datetime
    traces: Traces
    living: frozenset[int] = field(default=frozenset())
    neighbours: frozenset[str] = field(default=frozenset())
    is_own: bool = False

    @property
    def token(self) -> str:
        """What stands where the address stood; the same everywhere, so that what was equal stays equal."""
        return f"erased-{self.erasure_id}"

    def holds(self, text: str) -> bool:
        """Whether one of the addresses stands in `text`, and not as part of somebody else's."""
        return any(self._is_meant(match) for match in self._addresses.finditer(text))

    def cleaned(self, text: str) -> str:
        """`text` with the token in place of the addresses."""
        return self._addresses.sub(lambda match: self.token if self._is_meant(match) else match[0], text)

    def _is_meant(self, match: re.Match[str]) -> bool:
        # `signup-ana@shop.example` is a key with an address in it, `mary-ana@shop.example` may be Mary.
        before = _LOCAL_END.search(match.string[max(0, match.start() - _LONGEST_LOCAL) : match.start()])
        longer = address_key(unquote(f"{before[0] if before else ''}{match[0]}"))
        return not any(longer.endswith(neighbour) for neighbour in self.neighbours)

    @cached_property
    def _addresses(self) -> re.Pattern[str]:
        forms = "|".join(map(re.escape, sorted(self.traces.spellings, key=len, reverse=True)))
        # In a URL the character before may be an escape such as %3D, whose last digit is no part of the address.
        before, after = r"(?:(?<![^\W_])|(?<=%[0-9a-f]{2}))", rf"(?![\w-]|\.(?!{_ENDINGS})\w)"
        return re.compile(f"{before}(?:{forms}){after}", re.IGNORECASE)

    @cached_property
    def words(self) -> re.Pattern[str] | None:
        """Finds names and phone numbers as whole words; None when there are none to look for."""
        forms = "|".join(map(re.escape, self.traces.words))
        return re.compile(rf"(?<!\w)(?:{forms})(?!\w)", re.IGNORECASE) if forms else None


def _in_unicode(key: str) -> str:
    """An address key with its domain as people read it."""
    local, _, domain = key.rpartition("@")
    try:
        return f"{local}@{idna.decode(domain)}"
    except (idna.IDNAError, UnicodeError):
        return key


def _in_escape_format(text: str) -> str:
    """As PostgreSQL's encode(..., 'escape') shows bytes that are not ASCII."""
    return "".join(c if c.isascii() else "".join(f"\\{byte:03o}" for byte in c.encode()) for c in text)
