"""The home: the one folder that holds a stack's cluster, secrets, ports, logs and files.

Promises that secrets are generated once, are readable by their owner only and are never replaced while the data
they belong to exists, and that one stack at most runs in a home. Used by every module of the launcher.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import mautolib
from mautolib.errors import Conflict, Misconfigured

__all__ = ["CHECKOUT", "Home", "write_private"]

_SOURCE = Path(mautolib.__file__).resolve().parents[1]
#: The checkout this package runs from; None when it is installed from a wheel.
CHECKOUT: Path | None = _SOURCE if (_SOURCE / "pyproject.toml").is_file() else None

_ADMIN = "admin@mauto.example"


@dataclass(frozen=True)
class Home:
    """A folder, by absolute path; `prepare()` makes it."""

    path: Path

    @classmethod
    def locate(cls, environ: Mapping[str, str]) -> Home:
        """MAUTO_HOME, else `.mauto` in the checkout, else /var/lib/mauto for root, else `./.mauto`."""
        if given := environ.get("MAUTO_HOME"):
            return cls(Path(given).expanduser().absolute())
        if CHECKOUT is not None:
            return cls(CHECKOUT / ".mauto")
        return cls(Path("/var/lib/mauto") if os.geteuid() == 0 else Path(".mauto").absolute())

    @classmethod
    def in_use(cls, environ: Mapping[str, str]) -> Home:
        """The home that is located, or the demo's where only the demo runs and MAUTO_HOME names none."""
        home, demos = cls.locate(environ), cls.demo()
        return home if environ.get("MAUTO_HOME") or home.is_running() or not demos.is_running() else demos

    @classmethod
    def demo(cls) -> Home:
        """The home of `make demo`, apart from the one of `make up`."""
        return cls((CHECKOUT or Path.cwd()) / ".mauto-demo")

    @property
    def cluster(self) -> Path:
        return self.path / "cluster"

    @property
    def airflow(self) -> Path:
        return self.path / "airflow"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def mail(self) -> Path:
        return self.path / "mail"

    @property
    def secrets_file(self) -> Path:
        return self.path / "secrets.env"

    @property
    def settings_file(self) -> Path:
        """Settings that belong to this home and win over any environment (the demo's)."""
        return self.path / "settings.env"

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    def prepare(self) -> None:
        """Make the folders."""
        self.path.mkdir(parents=True, exist_ok=True)
        # Root's PostgreSQL runs as another user, who must walk through; the files inside stay private.
        self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for folder in (self.airflow, self.logs, self.mail):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)

    def secrets(self) -> dict[str, str]:
        """The secrets of this home; missing ones are generated and kept.

        Raises:
            Misconfigured: the file is gone but the data it belongs to is not.
        """
        known = read_assignments(self.secrets_file)
        if not known and (self.cluster / "data").exists():
            raise Misconfigured(
                f"{self.secrets_file} is missing, but {self.cluster} holds data that was made with it; restore the "
                "file from a backup, or empty the home with `python -m mautolib.stack reset --yes`")
        complete = {name: known.get(name) or value for name, value in _fresh_secrets().items()}
        if complete != known:
            lines = [f"{name}={value}\n" for name, value in complete.items()]
            heading = "# Generated once. MAUTO_ADMIN_* signs in to the API and to Airflow. Keep a backup.\n"
            write_private(self.secrets_file, heading + "".join(lines))
        return complete

    def read_state(self) -> dict[str, Any]:
        """What the supervisor wrote last; empty when there never was one."""
        return _read_json(self.state_file)

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state at once, so that readers see the old or the new one."""
        write_private(self.state_file, json.dumps(state, indent=1))

    def ports(self) -> dict[str, int]:
        """Ports chosen at an earlier start, by setting name."""
        return {name: int(port) for name, port in _read_json(self.path / "ports.json").items()}

    def remember_ports(self, ports: Mapping[str, int]) -> None:
        """Keep the chosen ports for the next start."""
        write_private(self.path / "ports.json", json.dumps(dict(ports)))

    def lock(self) -> IO[bytes]:
        """Hold this home until the returned file is closed or the process ends.

        Raises:
            Conflict: another stack runs in this home.
        """
        file = (self.path / "lock").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise Conflict(f"another stack runs in {self.path}") from None
        return file

    def is_running(self) -> bool:
        """Whether a supervisor holds this home."""
        if not (self.path / "lock").exists():
            return False
        try:
            self.lock().close()
        except Conflict:
            return True
        return False

    def empty(self) -> None:
        """Remove everything; the caller has stopped the stack."""
        place = self.cluster.resolve()  # for root it may be a link to where the server's user can go
        if place.exists() and place != self.cluster:
            shutil.rmtree(place)
        if self.path.exists():
            shutil.rmtree(self.path)


def read_assignments(path: Path) -> dict[str, str]:
    """Read a file of `NAME=value` lines (comments, `export` and quotes understood); a missing file is empty.

    Raises:
        Misconfigured: a line is something else; names file and line.
    """
    found: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return found
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, sign, value = line.partition("=")
        if not sign or not name.strip().isidentifier():
            raise Misconfigured(f"{path} line {number} is not NAME=value")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        else:
            value = value.partition(" #")[0].rstrip()
        found[name.strip()] = value
    return found


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner can read, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _fresh_secrets() -> dict[str, str]:
    roles = ("SUPERUSER", "OWNER", "API", "WORKER", "TRACKER", "ANALYST", "ERASER", "AIRFLOW")
    return {
        "MAUTO_ADMIN_EMAIL": _ADMIN,
        "MAUTO_ADMIN_PASSWORD": secrets.token_urlsafe(15),
        "MAUTO_SECRET_KEYS": secrets.token_hex(32),
        "MAUTO_SUPPRESSION_PEPPER": secrets.token_hex(32),
        **{f"DATABASE_PASSWORD_{role}": secrets.token_hex(24) for role in roles},
        "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW_JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW_API_SECRET_KEY": secrets.token_hex(32),
    }
