"""`mauto status` and `mauto doctor`: how things stand, and what to do about what is wrong."""

from __future__ import annotations

import shutil
import smtplib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

import typer
from sqlalchemy import Connection, Engine, func, select

from mautolib.cli import desk
from mautolib.db import liveness
from mautolib.db.migrate import pending
from mautolib.db.statements import statement
from mautolib.errors import MautoError, Misconfigured
from mautolib.ledger import installation
from mautolib.maintenance import gauges, watch
from mautolib.settings import Settings
from mautolib.webhooks import resealing

commands = desk.group("How things stand.")
SILENCE: Final = timedelta(minutes=90)
_LEAST_FREE: Final = 1024**3
_MOST_SKEW: Final = 5.0
Found = tuple[str, bool, str]


@commands.command()
def status(as_json: desk.AsJson = False) -> None:
    """Show the queues, their ages, results and signs of life, as /metrics does."""
    given = desk.settings()
    with desk.database(given) as engine, engine.begin() as tx:
        families = gauges.collect(tx, given, now=desk.now())
    desk.show([
        {"what": family.name.removeprefix("mauto_"), "of": ", ".join(labels.values()), "value": f"{value:.10g}"}
        for family in families for labels, value in family.samples
    ], as_json=as_json)  # fmt: skip


@commands.command()
def doctor(as_json: desk.AsJson = False) -> None:
    """Look at everything that must be right; each line says ok or what to do. Exit code 1 if anything is not."""
    given = desk.settings()
    with desk.database(given) as engine:
        found = list(_look(given, engine))
    desk.show([
        {"check": name, "state": "ok" if is_well else "NOT OK", "what": what} for name, is_well, what in found
    ], as_json=as_json)  # fmt: skip
    raise typer.Exit(0 if all(is_well for _, is_well, _ in found) else desk.NOT_POSSIBLE)


def _look(given: Settings, engine: Engine) -> Iterator[Found]:
    yield _settings(given)
    yield _disk(given)
    yield _smtp(given)
    left = pending(engine)
    yield "migrations", not left, f"{len(left)} to apply: mauto migrate" if left else "all applied"
    if left:
        return
    looks: tuple[Callable[[Connection], Found], ...] = (_roles, _clock, _airflow, _sending, _months)
    for look in looks:
        with engine.begin() as tx:
            yield look(tx)
    with engine.begin() as tx:
        yield _stored_secrets(tx, given)
    with engine.begin() as tx:
        yield _watchdog(tx, given)


def _settings(given: Settings) -> Found:
    try:
        given.check_secrets()
    except MautoError as error:
        return "settings", False, str(error)
    return "settings", True, "secrets are strong"


def _disk(given: Settings) -> Found:
    place = given.storage_path if given.storage_path.exists() else given.home if given.home.exists() else None
    if place is None:
        return "disk", False, f"there is no folder {given.storage_path}: set MAUTO_STORAGE"
    free = shutil.disk_usage(place).free
    advice = "" if free >= _LEAST_FREE else ": make room, or uploads and journals fail"
    return "disk", not advice, f"{free // 1024**2} MB free in {place}{advice}"


def _smtp(given: Settings) -> Found:
    if given.channel != "smtp":
        return "mail server", True, f"the channel is {given.channel}; not asked"
    where = f"{given.smtp_host}:{given.smtp_port}"
    kind = smtplib.SMTP_SSL if given.smtp_security == "tls" else smtplib.SMTP
    try:
        with kind(given.smtp_host, given.smtp_port, timeout=5) as client:
            client.noop()
    except (OSError, smtplib.SMTPException) as error:
        return "mail server", False, f"{where} does not answer ({error}): see MAUTO_SMTP_HOST; mail stays queued"
    return "mail server", True, f"{where} answers"


def _roles(tx: Connection) -> Found:
    has = tx.scalar(select(func.to_regrole("mauto_worker").is_not(None)))
    return "roles", True, "least-privilege roles exist" if has else "single-role mode: everything runs as the owner"


def _clock(tx: Connection) -> Found:
    skew = abs((tx.execute(select(func.clock_timestamp())).scalar_one() - desk.now()).total_seconds())
    return "clock", skew <= _MOST_SKEW, f"{skew:.1f} s off the database's" + ("" if skew <= _MOST_SKEW else ": run NTP")


def _airflow(tx: Connection) -> Found:
    beat = liveness.last_beat(tx, "airflow")
    if beat is None:
        return "airflow", False, "no sign of life yet: start scheduler, triggerer and dag-processor"
    is_well = desk.now() - beat <= SILENCE
    return "airflow", is_well, f"last sign of life {beat:%Y-%m-%d %H:%M} UTC" + ("" if is_well else ": restart it")


def _sending(tx: Connection) -> Found:
    here = installation.read(tx)
    return "sending", here.sending_enabled, "on" if here.sending_enabled else f"off ({here.reason}): mauto sending on"


def _stored_secrets(tx: Connection, given: Settings) -> Found:
    try:
        found = resealing.stored(tx, given, now=desk.now())
    except Misconfigured as error:
        return "stored secrets", False, str(error)
    if found.lost:
        what = f"{found.lost} need a key that is not in MAUTO_SECRET_KEYS: put it back, or give webhooks new ones"
        return "stored secrets", False, what
    older = f"{found.older} need an older key: mauto secrets reseal before it goes"
    return "stored secrets", True, older if found.older else "the newest key opens all"


def _watchdog(tx: Connection, given: Settings) -> Found:
    try:
        found = watch.findings(tx, given, now=desk.now())
    except MautoError as error:
        return "watchdog", False, str(error)
    lines = "; ".join(one.summary for one in found)
    return "watchdog", not found, f"{lines}: mauto watch" if found else "nothing is stuck or late"


def _months(tx: Connection) -> Found:
    month = (desk.now().date().replace(day=1) + timedelta(days=32)).replace(day=1)
    missing = list(tx.scalars(statement("gauges.month_ahead"), {"day": month}))
    advice = f"{', '.join(missing)} lack {month:%Y-%m}: mauto partitions ensure"
    return "partitions", not missing, advice if missing else "a month ahead"
