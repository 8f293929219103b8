"""The four templates everybody starts with, as files beside this module.

A file is a head of `name: value` lines, a line `---`, then the HTML. `install_starters` puts them into the
catalogue once; a starter that was changed or deleted is not brought back over an existing name. Called by the first
start of a stack and by the demo.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from mautolib.templates import catalogue
from mautolib.templates.model import NewTemplate

FOLDER: Final = Path(__file__).parent / "starters"
STARTERS: Final = ("welcome", "cart", "newsletter", "winback")


def starter(key: str) -> NewTemplate:
    """One starter: `welcome`, `cart`, `newsletter` or `winback`."""
    head, _, html = (FOLDER / f"{key}.html").read_text(encoding="utf-8").partition("\n---\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    return NewTemplate(
        name=fields["name"], subject=fields["subject"], category=fields["category"], html_body=html.lstrip("\n")
    )


def install_starters(tx: Connection, now: datetime) -> int:
    """Put the starters that are not there yet into the catalogue; returns how many."""
    return sum(catalogue.ensure(tx, starter(key), now=now, actor="starter") for key in STARTERS)
