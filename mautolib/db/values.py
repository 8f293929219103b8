"""Comparing what a row holds with what it is to hold.

Called by whatever changes rows field by field and passes over what stays. Pure; reads no row itself.
"""

from __future__ import annotations

import json

__all__ = ["is_same"]


def is_same(held: object, wanted: object) -> bool:
    """Whether two values are one to the database. Inside JSON `1` and `true` are two, while Python calls them equal."""
    if held != wanted:
        return False
    if isinstance(held, dict | list):
        return json.dumps(held, sort_keys=True, default=str) == json.dumps(wanted, sort_keys=True, default=str)
    return True
