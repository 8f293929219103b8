"""The files that pages load from their own server: the charting library and our own script.

Promise: the address of a file holds its hash, so that a browser may keep it for good. Called by both faces.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from mautolib.errors import NotFound

__all__ = ["CACHE", "CHARTS", "SCRIPT", "StaticFile", "path_of", "read"]

CHARTS: Final = "chart.umd.min.js"
SCRIPT: Final = "dashboard.js"
#: How long a browser may keep them.
CACHE: Final = "public, max-age=31536000, immutable"
_FOLDER = Path(__file__).parent / "static"


@dataclass(frozen=True, kw_only=True)
class StaticFile:
    """A file as it is served."""

    content: bytes
    media_type: str
    digest: str


@cache
def _files() -> dict[str, StaticFile]:
    found = {}
    for name in (CHARTS, SCRIPT):
        content = (_FOLDER / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:16]
        found[name] = StaticFile(content=content, media_type="text/javascript; charset=utf-8", digest=digest)
    return found


def path_of(name: str) -> str:
    """Where a file is, below the dashboard."""
    return f"static/{_files()[name].digest}/{name}"


def read(digest: str, name: str) -> StaticFile:
    """The file at that address.

    Raises:
        NotFound: there is none, or another version of it now.
    """
    found = _files().get(name)
    if found is None or found.digest != digest:
        raise NotFound("No such file")
    return found
