"""Hits: opens, clicks and unsubscribe requests as they came in, with the verdict given at that moment.

A batch is one statement: the raw hits, their verdicts and, for each human open or click of a person who still
exists, the event that takes effect - all or nothing. A batch repeated under its key fails on a unique index instead
of counting twice. Called by `hit_writer`. Hits are never changed; judging them anew adds verdicts (feedback).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from mautolib.db.statements import load

__all__ = ["Hit", "HitKind", "arguments", "clean", "from_json", "network_prefix", "record_sql", "to_json"]

MAX_USER_AGENT = 512
MAX_PURPOSE = 100


class HitKind(StrEnum):
    """Which link was followed; `UNSUBSCRIBE` is the request itself, not a look at the page."""

    OPEN = "open"
    CLICK = "click"
    UNSUBSCRIBE = "unsubscribe"


class Hit(NamedTuple):
    """One hit; a tuple, because thousands a second are made and turned into columns."""

    #: When it came in: microseconds since 1970, which cost a tenth of a datetime on the way to the database.
    at_microseconds: int
    kind: str
    verdict: str
    contact_id: int = 0
    campaign_id: int | None = None
    message_id: int | None = None
    link_position: int | None = None
    url: str | None = None
    user_agent: str = ""
    network: str = ""
    is_head: bool = False
    purpose: str = ""


_TEXTS = frozenset(("kind", "verdict", "url", "user_agent", "network", "purpose"))


def arguments(key: str, rule_version: int, hits: Sequence[Hit]) -> list[Any]:
    """The arguments of `record_sql()` for one batch: key, rule version, then one array per field of `Hit`.

    Arrays travel as text: asyncpg takes a look at every element of a list, which costs four times as much.
    """
    columns = zip(Hit._fields, zip(*hits, strict=True), strict=True)
    return [key, rule_version, *(
        f"{{{','.join(map(_quoted, column))}}}" if name in _TEXTS
        else f"{{{','.join(map(str, column))}}}".replace("None", "NULL")
        for name, column in columns
    )]  # fmt: skip


@lru_cache(maxsize=1024)
def _quoted(text: str | None) -> str:
    """One element of an array of texts; few differ within a batch."""
    if text is None:
        return "NULL"
    if not isinstance(text, str):
        raise TypeError("not a text")  # a damaged spool
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def to_json(hits: Sequence[Hit]) -> list[list[Any]]:
    """Hits as they are kept in a file."""
    return [list(hit) for hit in hits]


def from_json(rows: Sequence[Sequence[Any]]) -> list[Hit]:
    """Hits as `to_json` wrote them."""
    return [Hit(*row) for row in rows]


@lru_cache(maxsize=4096)
def network_prefix(address: str) -> str:
    """The network of an address (IPv4 /24, IPv6 /48), so that the address itself is never kept; "" if unreadable."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    length = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network((parsed, length), strict=False))


def clean(text: str, limit: int) -> str:
    """Text that came from outside, as PostgreSQL can keep it: no NUL, no lone surrogate, cut at `limit`."""
    if not text.isascii() or "\0" in text:
        text = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    return text[:limit]


def _positional(sql: str, names: Sequence[str]) -> str:
    """A named statement with `$1`, `$2`, ... in the order of `names` (asyncpg knows no names)."""
    return re.sub(r"(?<!:):([a-z_]+)", lambda match: f"${names.index(match.group(1)) + 1}", sql)


def record_sql() -> str:
    """The statement that stores one batch, its arguments in the order of `arguments`."""
    return _positional(load("events")["record_hits"].sql, ["batch_key", "rule_version", *Hit._fields])
