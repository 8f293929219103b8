"""`mauto users`: who may sign in. The last administrator stays, whatever is asked."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from sqlalchemy import Connection

from mautolib.auth import accounts, passwords, users
from mautolib.auth.accounts import UserChange, UserFilter
from mautolib.auth.roles import Role
from mautolib.cli import desk
from mautolib.errors import NotFound

commands = desk.group("Who may sign in.")
Email = Annotated[str, typer.Argument(help="The user's address.")]
Stdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


@commands.command("list")
def list_users(as_json: desk.AsJson = False) -> None:
    """List the users by address."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        found = accounts.search(tx, UserFilter(), limit=10_000)
    desk.show([
        {"email": user.email, "name": user.name, "role": user.role, "active": user.is_active,
         "last_login": user.last_login_at} for user in found
    ], as_json=as_json)  # fmt: skip


@commands.command()
def add(email: Email, role: Role = Role.VIEWER, name: str = "", password_stdin: Stdin = False) -> None:
    """Make a user; asks for the password."""
    password = _password(password_stdin)
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        new = users.NewUser(email=email, password=password, name=name, role=role)
        user = users.create(tx, new, now=desk.now())
        desk.note(tx, "users.create", user.user_id, role=str(role))
    typer.echo(f"{user.email} is {role}")


@commands.command("set-password")
def set_password(email: Email, password_stdin: Stdin = False) -> None:
    """Give a user a new password; ends their sessions."""
    _change(email, UserChange(password_hash=passwords.hash_new(_password(password_stdin))), "users.password")


@commands.command("set-role")
def set_role(email: Email, role: Role) -> None:
    """Give a user another role; ends their sessions."""
    _change(email, UserChange(role=role), "users.role")


@commands.command()
def disable(email: Email) -> None:
    """Let a user sign in no more; ends their sessions."""
    _change(email, UserChange(is_active=False), "users.disable")


@commands.command()
def enable(email: Email) -> None:
    """Let a disabled user sign in again."""
    _change(email, UserChange(is_active=True), "users.enable")


def _change(email: str, wanted: UserChange, action: str) -> None:
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        user_id = _find(tx, email)
        user = accounts.change(tx, user_id, wanted, by=0, now=desk.now())
        desk.note(tx, action, user_id, role=str(user.role), is_active=user.is_active)
    typer.echo(f"{user.email}: {user.role}, {'active' if user.is_active else 'disabled'}")


def _find(tx: Connection, email: str) -> int:
    found = users.find_for_sign_in(tx, email)
    if found is None:
        raise NotFound(f"there is no user {email}")
    return found[0].user_id


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
