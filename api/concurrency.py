"""Concurrent edits: `ETag` on what is shown, `If-Match` on what changes it (optional; a mismatch is 412).

The tag is the version of the row, so that it changes with every edit and with nothing else. Called by the routes of
contacts and campaigns.
"""

from __future__ import annotations

from starlette.requests import Request

from api.errors import Refused


def etag(version: int | str) -> str:
    """The entity tag of a version: its number, or what else changes with every edit."""
    return f'"{version}"'


def check_if_match(request: Request, version: int | str) -> None:
    """Refuse when the caller's copy is not of this version; the row is locked by the caller.

    Raises:
        Refused: 412.
    """
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return
    if etag(version) not in [tag.strip() for tag in given.split(",")]:
        raise Refused(412, "This was changed since you read it; read it again")
