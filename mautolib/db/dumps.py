"""A backup of the warehouse and its way back, by pg_dump and pg_restore; the way back is one transaction.

Promise: a restore that fails leaves the database as it was, and nobody sees it half done; what `after` says is part of
it. Called by the command line. What a restore means for sending is not known here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import IO, Final

from mautolib.db.engine import parse_url
from mautolib.db.pgprograms import psql_binary
from mautolib.errors import InvalidInput, Misconfigured, ProviderUnavailable

#: Every schema of ours, beside `public`.
SCHEMAS: Final = ("analytics", "rollups", "staging")
#: Everything of ours goes, whatever it is; pg_dump brings the schemas back.
_WIPE: Final = (
    f"set lock_timeout = '15s'; drop schema if exists {', '.join(SCHEMAS)}, public cascade; create schema public"
)
#: Written by newer programs, unknown to older servers.
_NEW_SETTINGS: Final = (b"SET transaction_timeout",)
_HEAD_LINES: Final = 60


def dump(url: str, target: Path) -> None:
    """Write a backup of the database; an unfinished one is never left under the name.

    Raises:
        Misconfigured: there is no pg_dump.
        ProviderUnavailable: it failed; says why.
    """
    unfinished = target.with_name(f"{target.name}.unfinished")
    name, environment = _connection(url)
    command = [_program("pg_dump"), "--format=custom", "--no-owner", f"--file={unfinished}", f"--dbname={name}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        unfinished.unlink(missing_ok=True)
        raise ProviderUnavailable(f"pg_dump failed: {_why(done.stderr)}")
    unfinished.chmod(0o600)
    unfinished.replace(target)


def restore(url: str, source: Path, *, after: str, with_grants: bool = True) -> None:
    """Replace everything in the database by a backup, in one transaction.

    Args:
        after: SQL that belongs to it.
        with_grants: also what roles may do; they have to exist.
    Raises:
        InvalidInput: the file is no backup.
        Misconfigured: there is no pg_restore.
        ProviderUnavailable: it failed, and nothing was changed; says why.
    """
    reader = [_program("pg_restore"), "--file=-", "--no-owner", *([] if with_grants else ["--no-privileges"])]
    checked = subprocess.run([reader[0], "--list", str(source)], capture_output=True, text=True, check=False)
    if checked.returncode:
        raise InvalidInput(f"{source} is no backup: {_why(checked.stderr)}")
    name, environment = _connection(url)
    writer = [
        _program("psql"), "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1",
        f"--dbname={name}", f"--command={_WIPE}", "--file=-", f"--command={after}",
    ]  # fmt: skip
    with subprocess.Popen([*reader, str(source)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reading:
        writing = subprocess.Popen(
            writer, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert reading.stdout and writing.stdin
        _pass_on(reading.stdout, writing.stdin, lambda: reading.wait() == 0)
        said = writing.communicate()[1].decode(errors="replace")
    if writing.returncode or reading.returncode:
        raise ProviderUnavailable(f"the restore failed and nothing was changed: {_why(said)}")


def _pass_on(reading: IO[bytes], writing: IO[bytes], is_whole: object) -> None:
    try:
        for number, line in enumerate(reading):
            if not (number < _HEAD_LINES and line.startswith(_NEW_SETTINGS)):
                writing.write(line)
            if number >= _HEAD_LINES:
                shutil.copyfileobj(reading, writing, 1 << 20)
                break
        if callable(is_whole) and not is_whole():
            # A backup that ends early must not be committed.
            writing.write(b"\ndo $$ begin raise exception 'the backup is not whole'; end $$;\n")
        writing.flush()
    except BrokenPipeError:
        reading.close()


def _program(name: str) -> str:
    """The wheel's program, else the one on PATH."""
    try:
        own = psql_binary().with_name(name)
        if own.exists():
            return str(own)
    except Misconfigured:
        pass
    found = shutil.which(name)
    if found is None:
        raise Misconfigured(f"there is no {name} here; install the client programs of PostgreSQL")
    return found


def _connection(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its password, which goes by the environment: command lines are for all to read."""
    parsed = parse_url(url).set(drivername="postgresql")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    secret = {"PGPASSWORD": str(parsed.password)} if parsed.password else {}
    bare = parsed._replace(password=None)
    return bare.render_as_string(hide_password=False), {**kept, **secret}


def _why(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if "error" in line.lower()] or said.strip().splitlines()
    return lines[0][:500] if lines else "no reason given"
