"""Scopes: which part of the API a key may use, beside its role.

A scope is `<first path segment>:<read|write|admin>`, `<segment>:*`, `*:read` or `*`. An operation needs exactly one:
its segment, and read, write or admin as its role is viewer, editor or admin. Writing does not include reading, so a
key can be made that only delivers. Called by `api_keys` (what may be stored) and the API (what an operation needs).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mautolib.auth.roles import Role
from mautolib.errors import InvalidInput

EVERYTHING, READ_ALL = "*", "*:read"
MOST_SCOPES = 100
#: First path segments of the operations that need somebody signed in; a test holds them to the list of operations.
SEGMENTS = frozenset({
    "ab-tests", "analytics", "api-keys", "audit-log", "auth", "automation-rules", "campaigns", "contacts", "dashboard",
    "erasures", "events", "fx-rates", "import", "imports", "inbound-sources", "lifecycle", "messages", "metrics",
    "orders", "schedules", "scoring", "segments", "suppression", "tags", "templates", "users", "validate", "webhooks",
    "workflows",
})  # fmt: skip
#: No key gets here, whatever its role and scopes: who holds one must not be able to make more rights of it.
CLOSED = ("/users", "/api-keys", "/audit-log", "/auth/password")
NEED = {Role.VIEWER: "read", Role.EDITOR: "write", Role.ADMIN: "admin"}


def required(path: str, role: Role) -> str | None:
    """The scope an operation needs of a key, or None where no key may go.

    Args:
        path: as in the contract, without prefix: `/contacts/{id}`.
    """
    if any(path == closed or path.startswith(f"{closed}/") for closed in CLOSED):
        return None
    return f"{path.strip('/').partition('/')[0]}:{NEED[role]}"


def cover(granted: Collection[str], wanted: str) -> bool:
    """Whether these scopes include the one an operation needs."""
    segment, _, need = wanted.partition(":")
    sufficient = {EVERYTHING, wanted, f"{segment}:*"}
    if need == "read":
        sufficient.add(READ_ALL)
    return not sufficient.isdisjoint(granted)


def check(given: Sequence[str]) -> tuple[str, ...]:
    """The scopes of a new key in the order given, each once.

    Raises:
        InvalidInput: names every text that is no scope; none, or more than 100.
    """
    problems = tuple(
        (("body", "scopes", place), f"{scope[:100]!r} is not a scope: segment:read, :write, :admin or :*, *:read, *")
        for place, scope in enumerate(given)
        if not _is_scope(scope)
    )
    if problems:
        raise InvalidInput("Unknown scopes", problems=problems)
    found = tuple(dict.fromkeys(given))
    if not 1 <= len(found) <= MOST_SCOPES:
        raise InvalidInput(f"A key has 1 to {MOST_SCOPES} scopes", path=("body", "scopes"))
    return found


def _is_scope(text: str) -> bool:
    if text in (EVERYTHING, READ_ALL):
        return True
    segment, colon, need = text.partition(":")
    return bool(colon) and segment in SEGMENTS and need in (*NEED.values(), "*")
