"""Where the project's SQL lives: beside the packages in a checkout, inside the package in a wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def sql_root() -> Path:
    """The folder with `migrations/`, `views/`, `queries/` and `roles.sql`."""
    inside_wheel = Path(__file__).parent.parent / "_files" / "sql"
    return inside_wheel if inside_wheel.is_dir() else Path(__file__).parents[2] / "sql"
