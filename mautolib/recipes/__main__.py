"""`python -m mautolib.recipes list|show|load`: what recipes there are, what one says, and making it.

Exit codes: 0 done, 1 not done (the reason is on stderr), 2 not understood.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.exc import DBAPIError

from mautolib.db.engine import connect
from mautolib.errors import MautoError
from mautolib.recipes import NAMES, load, recipe
from mautolib.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "list":
            _say("\n".join(f"{name:15} {recipe(name).title}" for name in NAMES))
        elif given.command == "show":
            _say(json.dumps(dataclasses.asdict(recipe(given.name)), indent=2, ensure_ascii=False))
        else:
            _load(given.name, given.activate)
    except MautoError as error:
        return _refused(str(error))
    except DBAPIError:
        return _refused("the database cannot be reached, or is not migrated")
    return 0


def _load(name: str, activate: bool) -> None:
    wanted, settings = recipe(name), Settings.from_env()
    engine = connect(settings.url_for("worker"), application_name="mauto-recipes", pool_size=1)
    try:
        with engine.begin() as tx:
            parts = load(tx, settings, wanted, activate=activate, now=datetime.now(UTC))
    finally:
        engine.dispose()
    for part in parts:
        state = "" if part.active is None else ", active" if part.active else ", not active"
        _say(f"{part.done:13} {part.kind} {part.number} {part.name!r}{state}")
    if any(part.active is False for part in parts):
        _say("Nothing happens before it is active: look at it, then activate it, or load it again with --activate.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mautolib.recipes", description="Ready-made workflows.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what recipes there are")
    show = commands.add_parser("show", help="what one consists of, as JSON")
    loads = commands.add_parser("load", help="make what is missing of it; what is there stays as it is")
    for command in (show, loads):
        command.add_argument("name", help=", ".join(NAMES))
    loads.add_argument("--activate", action="store_true", help="also switch its workflows and rules on")
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _refused(why: str) -> int:
    sys.stderr.write(f"not done: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
