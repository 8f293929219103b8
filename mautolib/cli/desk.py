"""What every command shares: settings, the database as its owner, the audit log, and how things are shown.

Settings come from the environment; where it names no database, from the stack that runs in MAUTO_HOME. Called by the
command files.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any

import typer
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from typer.core import TyperGroup

from mautolib.auth import audit
from mautolib.db.engine import connect, is_unavailable
from mautolib.errors import InvalidInput, MautoError, Misconfigured, NoRoom, TransientError
from mautolib.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
NOT_POSSIBLE, NOT_UNDERSTOOD, TRY_LATER = 1, 2, 75


class Group(TyperGroup):
    """A group of commands whose known faults are one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except MautoError as error:
            _refuse(str(error), code_of(error))
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) == "53100":
                _refuse("the disk of the database is full", TRY_LATER)
            if is_unavailable(error):
                _refuse("the database cannot be reached", TRY_LATER)
            first = str(error.orig).strip().splitlines()[0]
            _refuse(f"the database refuses: {first} (is it migrated? `mauto migrate`)", NOT_POSSIBLE)
        except OSError as error:
            if not NoRoom.is_why(error):
                raise
            _refuse(f"there is no room on the disk ({error.filename or error.strerror})", TRY_LATER)
        return None


def code_of(error: MautoError) -> int:
    """The exit code of a known fault."""
    if isinstance(error, TransientError):
        return TRY_LATER
    return NOT_UNDERSTOOD if isinstance(error, Misconfigured | InvalidInput) else NOT_POSSIBLE


def _refuse(why: str, code: int) -> None:
    typer.echo(f"not done: {why}", err=True)
    raise typer.Exit(code)


def group(text: str) -> typer.Typer:
    """A new group of commands."""
    return typer.Typer(cls=Group, no_args_is_help=True, help=text, add_completion=False, rich_markup_mode=None)


def settings() -> Settings:
    """The settings of the environment, or of the stack that runs here, the demo's where only that runs.

    Inside a container of docker-compose.yml they are those of its services.

    Raises:
        Misconfigured: neither names a database.
    """
    if os.environ.get("MAUTO_DATABASE_URL"):
        return Settings.from_env()
    if os.environ.get("MAUTO_CONTAINER_PART"):
        from mautolib.stack.container import container_plan

        return container_plan(os.environ).settings
    from mautolib.stack.home import Home
    from mautolib.stack.launcher import Stack, require_running

    stack = Stack(Home.locate(os.environ))
    if not stack.plan.is_embedded:
        return stack.plan.settings
    home = Home.in_use(os.environ)
    if home != stack.home:
        typer.echo("mauto: the stack of the demo", err=True)
    return require_running(Stack(home)).settings


@contextmanager
def database(given: Settings) -> Iterator[Engine]:
    """The warehouse as its owner, for the length of one command."""
    engine = connect(given.url_for("owner"), application_name="mauto-cli", pool_size=2)
    try:
        yield engine
    finally:
        engine.dispose()


def now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


def actor() -> str:
    """Who acts, as the audit log names them."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


def note(tx: Connection, action: str, resource_id: int | str | None = None, **changes: Any) -> None:
    """Write what is done to the audit log, in its transaction."""
    who = audit.Actor(type=audit.ActorType.SYSTEM, label=actor())
    audit.write(tx, audit.Entry(
        actor=who, action=action, resource_type=action.partition(".")[0], status=200,
        resource_id=None if resource_id is None else str(resource_id), changes=changes,
    ))  # fmt: skip


def show(rows: Sequence[Mapping[str, Any]], *, as_json: bool, nothing: str = "none") -> None:
    """Print rows as a table, or as JSON."""
    if as_json:
        typer.echo(json.dumps(list(rows), indent=1, ensure_ascii=False, default=_plain))
        return
    if not rows:
        typer.echo(nothing)
        return
    cells = [[str(name) for name in rows[0]], *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def confirm(question: str, yes: bool) -> None:
    """Go on only with a yes.

    Raises:
        typer.Exit: nobody said so.
    """
    if not yes and not typer.confirm(question):
        raise typer.Exit(NOT_POSSIBLE)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else str(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value if isinstance(value, int | bool) else str(value)
