"""Every regular expression of the service, and how long the worst of nonsense keeps each busy."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from pathlib import Path
from typing import Any

#: Patterns that never see more than a few characters, however long a text is.
BOUNDED = {"mautolib.privacy.model._LOCAL_END": "looks at the 64 characters before a match"}
#: How a use of a pattern looks for it: at the start only, as the whole text, or anywhere.
_USES = {"match": "match", "fullmatch": "fullmatch"}
LENGTH = 50_000


def every_pattern() -> dict[str, re.Pattern[Any]]:
    """The compiled expressions that stand in the modules of `api` and `mautolib`, by where they stand."""
    found = {}
    for package in ("api", "mautolib"):
        root = importlib.import_module(package)
        for info in pkgutil.walk_packages(root.__path__, f"{package}."):
            if info.name.endswith("__main__") or info.name.startswith("mautolib.stack"):
                continue  # these read what the operator gives, not what a caller sends
            for name, value in vars(importlib.import_module(info.name)).items():
                if isinstance(value, re.Pattern) and f"{info.name}.{name}" not in BOUNDED:
                    found[f"{info.name}.{name}"] = value
    return found


def nonsense(pattern: re.Pattern[Any], length: int) -> list[Any]:
    """Long texts of the kinds that make careless expressions backtrack; those of its own letters too."""
    own = [character for character in dict.fromkeys(str(pattern.pattern)) if character.isprintable()][:25]
    units = ["a", "a@", "a.", "0", "-", "@", " ", "\\t", "<a", "{{", "%", "/", "http://a", "=?", "1.", ",", '"', "a-"]
    texts = [(unit * length)[:length] + end for unit in [*units, *own] for end in ("!", "\n")]
    texts += [f"{start}{' ' * length}x" for start in ("<a href=", "{{", "a@", "https://")]
    return [text.encode("utf-8", "replace") for text in texts] if isinstance(pattern.pattern, bytes) else texts


def uses(name: str) -> set[str]:
    """How its module uses a pattern: `match`, `fullmatch` or `search` (which all the rest comes to)."""
    module, _, own = name.rpartition(".")
    text = Path(importlib.import_module(module).__file__ or "").read_text()
    calls = re.findall(rf"\b{re.escape(own)}\.([a-z]+)\(", text)
    return {_USES.get(call, "search") for call in calls} or {"match", "fullmatch"}


def slowest_milliseconds(name: str, pattern: re.Pattern[Any], length: int = LENGTH) -> float:
    """CPU time of the worst of `nonsense`, looked for as the code does."""
    worst, ways = 0.0, sorted(uses(name))
    for text in nonsense(pattern, length):
        for way in ways:
            began = time.process_time()
            getattr(pattern, way)(text)
            worst = max(worst, (time.process_time() - began) * 1000)
            if worst > 2000:
                return worst
    return worst
