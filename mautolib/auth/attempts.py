"""Sign-in limits: 10 failures per account and network, 100 per network, in 15 minutes.

Limits hang on the caller's network: a right password from elsewhere always works, nobody can be locked out by a
stranger. Called by sessions only, which runs few sign-ins at a time, so that parallel guesses overshoot a limit by
that number at most.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

from sqlalchemy import Connection, delete, func, insert, select

from mautolib.db import tables
from mautolib.errors import RateLimited
from mautolib.settings import Settings

WINDOW = timedelta(minutes=15)
PER_ACCOUNT = 10
PER_NETWORK = 100

_TABLE = tables.sign_in_failures


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Who tries to sign in, from where."""

    account_hash: bytes
    network: str


def network_of(address: str) -> str:
    """What counts as one caller: an IPv4 address, or the /64 of an IPv6 address (one subscriber has all of it)."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped)
    return str(parsed) if parsed.version == 4 else str(ip_network(f"{parsed}/64", strict=False))


def attempt_of(settings: Settings, *, user_key: str, address: str) -> Attempt:
    """The bucket an attempt counts in; the account is kept as a keyed hash, whether it exists or not."""
    account_hash = hmac.digest(settings.pepper("sign-in"), user_key.encode(errors="replace"), "sha256")
    return Attempt(account_hash=account_hash, network=network_of(address))


def check(tx: Connection, attempt: Attempt, *, now: datetime) -> None:
    """Refuse the attempt when too many failed before it.

    Raises:
        RateLimited: says when the oldest failure that counts falls out of the window.
    """
    since = now - WINDOW
    in_network = select(_TABLE.c.failed_at).where(_TABLE.c.network == attempt.network, _TABLE.c.failed_at > since)
    of_account = in_network.where(_TABLE.c.account_hash == attempt.account_hash)
    for query, limit in ((of_account, PER_ACCOUNT), (in_network, PER_NETWORK)):
        rows = query.order_by(_TABLE.c.failed_at.desc()).limit(limit).subquery()
        count, oldest = tx.execute(select(func.count(), func.min(rows.c.failed_at)).select_from(rows)).one()
        if count >= limit:
            wait = (oldest + WINDOW - now).total_seconds()
            raise RateLimited("Too many failed sign-ins; try again later", retry_after_seconds=max(1.0, wait))


def failed(tx: Connection, attempt: Attempt, *, now: datetime) -> None:
    """Count a failure, and forget those of this account that are out of the window."""
    old = (_TABLE.c.account_hash == attempt.account_hash) & (_TABLE.c.failed_at <= now - WINDOW)
    tx.execute(delete(_TABLE).where(old))
    values = {"account_hash": attempt.account_hash, "network": attempt.network, "failed_at": now}
    tx.execute(insert(_TABLE).values(values))
