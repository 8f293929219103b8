"""The book: what the JSON files beside this module say.

A file names the starters it needs, and holds segments, workflows and rules as the API takes them - except that an id
is written as `{"template": <starter>}` or `{"segment": <key>}`, which `resolved` replaces once there is one.
Pure data; `loading` makes something of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mautolib.errors import NotFound

FOLDER: Final = Path(__file__).parent
NAMES: Final = ("welcome-series", "abandoned-cart", "re-engagement")
_KINDS: Final = ("template", "segment")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe.

    Args:
        templates: keys of the starters it mails.
        segments: each with a `key` by which the rest refers to it.
    """

    name: str
    title: str
    summary: str
    templates: Sequence[str] = ()
    segments: Sequence[Mapping[str, Any]] = ()
    workflows: Sequence[Mapping[str, Any]] = ()
    rules: Sequence[Mapping[str, Any]] = ()


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        NotFound: there is none; says which there are.
    """
    if name not in NAMES:
        raise NotFound(f"There is no recipe {name!r}; there are {', '.join(NAMES)}")
    return Recipe(name=name, **json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def resolved(value: Any, ids: Mapping[tuple[str, str], int]) -> Any:
    """`value` with the id in place of each `{"template": ...}` and `{"segment": ...}`.

    Args:
        ids: by kind and key.
    """
    if isinstance(value, list):
        return [resolved(item, ids) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        kind, key = next(iter(value.items()))
        if kind in _KINDS:
            return str(ids[kind, key])
    return {name: resolved(item, ids) for name, item in value.items()}
