"""Who calls: a user with a session, or a program with an API key. Both have a role and a name in the audit log.

Called by the API for every operation that is not public. What either may do is asked of the database on each call;
nothing is believed because it was true a moment ago.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mautolib.auth import api_keys, scopes, sessions, tokens
from mautolib.auth.api_keys import KeyHolder
from mautolib.auth.roles import Role
from mautolib.auth.sessions import SignedIn
from mautolib.errors import NotAllowed
from mautolib.settings import Settings

Caller = SignedIn | KeyHolder


def of_bearer(tx: Connection, settings: Settings, credential: str, *, now: datetime) -> Caller:
    """Who an access token or an API key stands for.

    Raises:
        NotAuthenticated: it stands for nobody (any more).
    """
    if credential.startswith(api_keys.MARK):
        return api_keys.resolve(tx, credential, now=now)
    return sessions.resolve(tx, settings, tokens.Kind.ACCESS, credential, now=now)


def check_rights(caller: Caller, role: Role, scope: str | None) -> None:
    """Refuse a caller whose role or scopes are too small.

    Args:
        role: the least role of the operation.
        scope: the scope it needs of a key; None: no key may use it.
    Raises:
        NotAllowed: `forbidden`, or `insufficient_scope`.
    """
    if isinstance(caller, KeyHolder) and scope is None:
        raise NotAllowed("API keys may not do this; sign in")
    if not caller.role.covers(role):
        raise NotAllowed(f"This needs the role {role}")
    if isinstance(caller, KeyHolder) and scope is not None and not scopes.cover(caller.key.scopes, scope):
        raise NotAllowed(f"This needs the scope {scope}", code="insufficient_scope")
