"""The operations of the contract, and which of them the app serves.

`python -m tests.api.contract` (make contract) prints both lists. Served means: in the OpenAPI document, which lists
nothing that does not work.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from mautolib.settings import Settings

#: Pages and files for people; they are no operations of the contract.
PAGES = {
    "/docs", "/redoc", "/openapi.json", "/docs/assets/{name}",
    "/dashboard", "/dashboard/sign-in", "/dashboard/sign-out",
}  # fmt: skip


#: Enough to wire the app; nothing is connected.
SETTINGS = Settings(
    database_url="postgresql://nobody@127.0.0.1:1/nothing",
    secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One line of the contract's index."""

    method: str
    path: str
    role: str
    statuses: tuple[int, ...]

    @property
    def id(self) -> str:
        """How people name it."""
        return f"{self.method} {self.path}"


def contract() -> dict[tuple[str, str], Operation]:
    """Every operation of the contract by method and path."""
    with (Path(__file__).parent / "operations.csv").open(encoding="utf-8") as file:
        found = [
            Operation(
                method=row["method"], path=row["path"], role=row["role"],
                statuses=tuple(int(status) for status in row["success"].split(",")),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip
    return {(item.method, item.path): item for item in found}


def document() -> dict[str, Any]:
    """The OpenAPI document of the app; needs no database."""
    from api.app import make_framework
    from mautolib.db.engine import connect

    app: FastAPI = make_framework(SETTINGS, connect(SETTINGS.database_url))
    found: dict[str, Any] = app.openapi()
    return found


def served(openapi: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The documented operations by method and path."""
    return {
        (method.upper(), path): operation
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
        if method in ("get", "post", "put", "patch", "delete", "head")
    }


def main() -> None:
    """Print what is served, what is not yet, and what nobody asked for."""
    wanted, found = contract(), served(document())
    for key, operation in wanted.items():
        print(f"{'served' if key in found else 'not yet':8} {operation.id}")
    for method, path in found.keys() - wanted.keys():
        print(f"unknown  {method} {path}")
    print(f"\n{len(found.keys() & wanted.keys())} of {len(wanted)} operations of the contract are served")


if __name__ == "__main__":
    main()
