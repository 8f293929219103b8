"""The command line of the local stack: `python -m mautolib.stack up|down|status|logs|psql|run|airflow|migrate|reset`.

Each command gives one clear line when it cannot do its work and an exit code other than 0. Behind `make up` and
its siblings.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path

from mautolib.db.localpg import psql_binary
from mautolib.errors import MautoError, Misconfigured
from mautolib.stack import airflow_setup, databases, health
from mautolib.stack.home import Home
from mautolib.stack.launcher import Stack, require_running
from mautolib.stack.plan import LOGIN_ROLES, Plan


def up(stack: Stack, _: argparse.Namespace) -> int:
    """Start the stack, or repair one that is half dead; returns when every part is well."""
    stack.up(lambda seconds, text: print(f"{seconds:6.1f} s  {text}", flush=True))
    print()
    _print_addresses(stack.plan)
    return 0


def down(stack: Stack, _: argparse.Namespace) -> int:
    """Stop the stack; data stays."""
    print("stopped; the data stays" if stack.down() else f"nothing was running in {stack.home.path}")
    return 0


def status(stack: Stack, _: argparse.Namespace) -> int:
    """Show each part, its process, memory and health; exit code 0 only when all are well."""
    parts = stack.health()
    supervisor = int(stack.home.read_state().get("pid", 0))
    if not parts:
        print(f"the stack in {stack.home.path} is down; `make up` starts it")
        return 1
    total = health.memory_mb(supervisor, alone=True) or 0
    print(f"{'part':<24}{'health':<10}{'pid':>8}{'MB':>7}  note")
    for part in parts:
        memory = health.memory_mb(part.pid) if part.pid else None
        total += memory or 0
        note = "; ".join(filter(None, (part.detail, f"restarted {part.exits} times" if part.exits else "")))
        well = "well" if part.is_well else "NOT WELL"
        print(f"{part.name:<24}{well:<10}{part.pid or '-':>8}{memory or '-':>7}  {note}")
    print(f"{'supervisor':<24}{'well':<10}{supervisor:>8}{health.memory_mb(supervisor, alone=True) or '-':>7}")
    print(f"{'all':<24}{'':<18}{total:>7}\n")
    _print_addresses(stack.plan)
    return 0 if all(part.is_well for part in parts) else 1


def logs(stack: Stack, options: argparse.Namespace) -> int:
    """Show the ends of the logs, and follow them with -f."""
    files = sorted(stack.home.logs.glob("*.log"))
    server = stack.home.cluster / "server.log"
    known = {path.stem: path for path in files} | ({"postgresql": server} if server.exists() else {})
    if options.part:
        if options.part not in known:
            raise Misconfigured(f"there is no log of {options.part!r}; there are: {', '.join(sorted(known)) or 'none'}")
        known = {options.part: known[options.part]}
    if not known:
        raise Misconfigured(f"there are no logs in {stack.home.logs} yet")
    command = ["tail", "-n", str(options.lines), *(["-F"] if options.follow else []), *map(str, known.values())]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0


def psql(stack: Stack, options: argparse.Namespace) -> int:
    """Open psql on the warehouse (read-only analyst unless told); arguments after -- go to psql."""
    plan = stack.plan if not stack.plan.is_embedded else require_running(stack)
    parts = urllib.parse.urlsplit(plan.settings.url_for(options.role))
    command = [str(psql_binary()), *options.arguments]
    target = {"PGHOST": parts.hostname, "PGPORT": str(parts.port or 5432), "PGDATABASE": parts.path.lstrip("/"),
              "PGUSER": parts.username, "PGPASSWORD": parts.password}  # fmt: skip
    given = {name: urllib.parse.unquote(value) for name, value in target.items() if value}
    search_path = {"PGOPTIONS": "-c search_path=analytics,public"} if options.role == "analyst" else {}
    os.execve(command[0], command, {**os.environ, **search_path, **given})  # noqa: S606


def run(stack: Stack, options: argparse.Namespace) -> int:
    """Run a command with the settings of the running stack, as the API would see them: run -- COMMAND ..."""
    plan = require_running(stack)
    if not options.arguments:
        raise Misconfigured("say what to run: python -m mautolib.stack run -- COMMAND ...")
    environment = plan.environment("owner", *LOGIN_ROLES)
    try:
        return subprocess.run(options.arguments, env=environment, check=False).returncode
    except FileNotFoundError:
        raise Misconfigured(f"there is no command {options.arguments[0]!r}") from None
    except KeyboardInterrupt:
        return 130


def airflow(stack: Stack, options: argparse.Namespace) -> int:
    """Run an airflow command on the running stack, as its scheduler would: airflow -- dags list."""
    plan = require_running(stack)
    command = airflow_setup.command(*options.arguments)
    try:
        return subprocess.run(command, env=airflow_setup.environment(plan), check=False).returncode
    except KeyboardInterrupt:
        return 130


def migrate(stack: Stack, _: argparse.Namespace) -> int:
    """Bring the warehouse of the running stack (or of MAUTO_DATABASE_URL) to the newest schema."""
    plan = stack.plan if not stack.plan.is_embedded else require_running(stack)
    applied = databases.migrate_warehouse(plan, None)
    print("\n".join(f"applied {name}" for name in applied) or "the database is up to date")
    return 0


def reset(stack: Stack, options: argparse.Namespace) -> int:
    """Stop the stack and remove its home with all data; without --yes the demo's home only."""
    is_demo = stack.home == Home.demo()
    if not is_demo and not options.yes:
        raise Misconfigured(f"this would remove all data in {stack.home.path}; add --yes to do so")
    if not stack.home.path.exists():
        print(f"{stack.home.path} is empty already")
        return 0
    stack.reset()
    print(f"{stack.home.path} is empty; a database of MAUTO_DATABASE_URL is never touched")
    return 0


_COMMANDS: dict[str, Callable[[Stack, argparse.Namespace], int]] = {
    "up": up, "down": down, "status": status, "logs": logs, "psql": psql, "run": run, "airflow": airflow,
    "migrate": migrate, "reset": reset,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (2: it could not be done, 130: interrupted)."""
    options = _parser().parse_args(arguments)
    if options.home:
        home = Home(Path(options.home).expanduser().absolute())
    else:
        home = _home(options.command)
    # A terminal that closes or a `kill` cleans up as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return _COMMANDS[options.command](Stack(home), options)
    except MautoError as error:
        sys.stderr.write(f"{options.command}: {error}\n")
        return 2
    except BrokenPipeError:  # `status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write(f"{options.command}: interrupted; nothing was left running that this command had started\n")
        return 130


def _home(command: str) -> Home:
    """The home a command means: what needs a running stack means the demo's where only that runs."""
    home = Home.locate(os.environ) if command == "up" else Home.in_use(os.environ)
    if command == "reset" and "MAUTO_HOME" not in os.environ:
        return Home.demo()
    if home == Home.demo() and "MAUTO_HOME" not in os.environ:
        sys.stderr.write(f"{command}: the stack of the demo\n")
    return home


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mautolib.stack", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", help="folder of the stack (default: MAUTO_HOME, else .mauto)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {name: commands.add_parser(name, help=verb.__doc__, description=verb.__doc__)
            for name, verb in _COMMANDS.items()}  # fmt: skip
    made["logs"].add_argument("part", nargs="?", help="one part only, e.g. api or airflow-scheduler")
    made["logs"].add_argument("-f", "--follow", action="store_true", help="keep showing what comes")
    made["logs"].add_argument("-n", "--lines", type=int, default=20, help="lines of each log (default 20)")
    made["psql"].add_argument("--role", choices=("owner", *LOGIN_ROLES), default="analyst")
    made["psql"].add_argument("arguments", nargs="*", help="for psql itself, after --")
    made["run"].add_argument("arguments", nargs="*", help="the command, after --")
    made["airflow"].add_argument("arguments", nargs="*", help="arguments of airflow, after --")
    made["reset"].add_argument("--yes", action="store_true", help="also a home that is not the demo's")
    return parser


def _print_addresses(plan: Plan) -> None:
    settings = plan.settings
    rows = [("API", f"{plan.api_url}/docs"), ("Dashboard", f"{plan.api_url}/dashboard"),
            ("Airflow", plan.airflow_url)]  # fmt: skip
    if plan.has_sink:
        rows.append(("Mail sink", f"{plan.mail_page_url}  (SMTP on port {settings.smtp_port})"))
    rows += [("Sign in", f"{settings.admin_email}, password in {plan.home.secrets_file}"),
             ("Logs", f"{plan.home.logs}  (make logs)")]  # fmt: skip
    if not plan.has_roles:
        rows.append(("Note", "single-role mode: every process works as the owner of the database"))
    for name, value in rows:
        print(f"{name:<11}{value}")


if __name__ == "__main__":
    raise SystemExit(main())
