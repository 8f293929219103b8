"""What a page of the dashboard is asked, and what it answers: a template with values, and its tables.

Data, and as of when tables were refreshed; the pages make it, `registry` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.pages.charts import Chart
from mautolib.pages.table import Table

__all__ = ["Asked", "Card", "Choice", "View", "rate_text", "read_as_of"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One big number."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to look at a page: a link with its parameters, and whether it is the present one."""

    label: str
    href: str
    is_chosen: bool


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A page as asked for: when, with which parameters, about what (0: nothing in particular)."""

    now: datetime
    query: Mapping[str, str] = field(default_factory=dict)
    subject_id: int = 0

    def number(self, name: str, known: Sequence[int]) -> int:
        """A parameter that is one of the `known` numbers; the first of them if it is not."""
        return next((number for number in known if self.query.get(name) == str(number)), known[0])

    def word(self, name: str, known: Sequence[str]) -> str:
        """A parameter that is one of the `known` words; the first of them if it is not."""
        given = self.query.get(name, "")
        return given if given in known else known[0]

    def choices(self, name: str, labels: Mapping[str, str], chosen: str) -> list[Choice]:
        """Links that set one parameter, each with its label; an empty one takes it away."""
        return [
            Choice(label=label, href=f"?{name}={word}" if word else "?", is_chosen=word == chosen)
            for word, label in labels.items()
        ]


@dataclass(frozen=True, kw_only=True)
class View:
    """A page answered."""

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()


def rate_text(rate: Decimal | None) -> str:
    """A rate in percent as a big number; a dash where there is none."""
    return "–" if rate is None else f"{rate:.1f} %"


def read_as_of(tx: Tx, *tables: str) -> datetime | None:
    """As of when the oldest of some tables of schema `analytics` is; None if one of them was never made."""
    found: datetime | None = tx.scalar(statement("pages.refreshed"), {"tables": list(tables)})
    return found
