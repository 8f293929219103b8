"""The operations of the contract, and which of them the app serves.

`python -m tests.api.contract` (make contract) says of each whether it is served, and to which work those not yet served
belong; `--write` (make openapi) writes the OpenAPI document to docs/openapi.json. Served means: in that document, which
lists nothing that does not work.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from mautolib.settings import Settings

#: Pages and files for people; they are no operations of the contract.
PAGES = {
    "/dashboard/{path}", "/dashboard/static/{digest}/{name}",
    "/docs", "/redoc", "/openapi.json", "/docs/assets/{name}",
    "/dashboard", "/dashboard/sign-in", "/dashboard/sign-out",
    "/dashboard/webhooks", "/dashboard/webhooks/{id}", "/dashboard/webhooks/{id}/replay",
}  # fmt: skip


#: The document as it is committed.
COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"

#: What must be built before operations can be served: the beginning of their paths, without the prefix.
LATER: dict[str, tuple[str, ...]] = {}

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


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document of the app; needs no database. Made once (1.7 s) and shared: nobody changes it."""
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


def alone(schema: dict[str, Any], openapi: dict[str, Any]) -> dict[str, Any]:
    """A schema of the document with the parts it refers to, itself or through others, and no others.

    With all of them a validator takes 2.4 MB, and there are hundreds.
    """
    everything, needed = openapi["components"]["schemas"], dict[str, Any]()
    waiting = [schema]
    while waiting:
        for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(waiting.pop())):
            if name not in needed:
                needed[name] = everything[name]
                waiting.append(everything[name])
    return {**schema, "components": {"schemas": needed}}


def as_text(openapi: dict[str, Any]) -> str:
    """The document as it is committed: paths and schemas sorted, so that a difference shows what changed."""
    ordered = {**openapi, "paths": dict(sorted(openapi["paths"].items()))}
    ordered["components"] = {
        name: dict(sorted(part.items())) for name, part in sorted(openapi["components"].items())
    }
    return json.dumps(ordered, indent=1, ensure_ascii=False) + "\n"


def belongs_to(path: str) -> str:
    """Which later work serves an operation; "" when none does, so that it should be served by now."""
    bare = path.removeprefix("/api/v1")
    return next((work for work, starts in LATER.items() if bare.startswith(starts)), "")


def main() -> None:
    """Print what is served, what is not yet, and what nobody asked for; or write the document."""
    parser = argparse.ArgumentParser(prog="python -m tests.api.contract", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/openapi.json instead")
    openapi = document()
    if parser.parse_args().write:
        COMMITTED.write_text(as_text(openapi), encoding="utf-8")
        print(f"{COMMITTED.name}: {len(served(openapi))} operations")
        return
    wanted, found = contract(), served(openapi)
    missing: Counter[str] = Counter()
    for key, operation in wanted.items():
        work = "" if key in found else belongs_to(key[1]) or "MISSING: it belongs to no later work"
        missing[work] += key not in found
        print(f"{'served' if key in found else 'not yet':8} {operation.id}{f'  ({work})' if work else ''}")
    unknown = sorted(found.keys() - wanted.keys())
    for method, path in unknown:
        print(f"unknown  {method} {path}")
    print(f"\n{len(found.keys() & wanted.keys())} of {len(wanted)} operations of the contract are served")
    for work, count in sorted((+missing).items()):
        print(f"{count:>4} not yet: {work}")
    print(f"{len(unknown):>4} served that the contract does not know")


if __name__ == "__main__":
    main()
