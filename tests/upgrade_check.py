"""`make upgrade-check`: a warehouse on an older PostgreSQL moves to the embedded one, by the runbook as it is written.

Needs an older server's programs on this machine (on Debian: apt-get install postgresql-15); `--programs` names them.
Half a campaign is sent before, the rest after: every table, figure and digest must be the same on both servers, the
ledger clean, nothing sent while sending is off, and nobody mailed twice.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from datetime import time as clock
from pathlib import Path

import psycopg2
from sqlalchemy import Engine, text

from mautolib import scoring, webhooks
from mautolib.campaigns import finishing, launch, planning, sending
from mautolib.db.engine import connect
from mautolib.db.localpg import MAJOR, _free_port, temporary_cluster
from mautolib.db.pgprograms import run_as, spawn, unprivileged_account
from mautolib.demo import contact_file, shop
from mautolib.demo.people import people
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from mautolib.stack.plan import LOGIN_ROLES
from tests.chaos.ground import recipients_of
from tests.integration.mailing import add_campaign
from tests.integration.test_docs_blocks import blocks
from tests.integration.test_runbooks import found, run
from tests.integration.webhook_making import SECRET, add_endpoint
from tests.scale.figures import figures

#: What backup and restore write themselves.
_THEIRS = {"public.installation", "public.audit_log", "public.heartbeats"}
_PASSWORD = "a-long-password"
Url = Callable[[str, str], str]


def main() -> int:
    """Play it; returns 0 when everything is as it was."""
    parser = argparse.ArgumentParser(prog="python -m tests.upgrade_check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--programs", type=Path, help="folder of an older PostgreSQL's programs (default: the oldest)")
    parser.add_argument("--contacts", type=int, default=1000)
    given = parser.parse_args()
    programs = given.programs or _oldest()
    if programs is None:
        print(f"there is no PostgreSQL older than {MAJOR} below /usr/lib/postgresql; on Debian: apt-get install "
              "postgresql-15, or --programs FOLDER", file=sys.stderr)  # fmt: skip
        return 2
    folder = Path(tempfile.mkdtemp(prefix="mauto-upgrade-"))
    folder.chmod(0o711)
    try:
        with _older(folder / "old", programs) as old, temporary_cluster() as new, MailSink(folder / "sink") as sink:

            def there(user: str, name: str) -> str:
                return new.url(name, user=user, password=None if user == "postgres" else _PASSWORD)

            return _play(folder, old, there, sink, given.contacts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _play(folder: Path, old: Url, new: Url, sink: MailSink, contacts: int) -> int:
    midnight = datetime.combine(datetime.now(UTC).date(), clock(), UTC)
    before = _settings(folder, old, sink)
    _own_server(old, first=True)
    run("mauto migrate", before, folder)
    _own_server(old, first=False)
    engine = connect(before.database_url)
    print(f"PostgreSQL {_version(engine)}: {_fill(engine, before, folder, contacts, midnight)} messages of a campaign "
          f"planned, {sink.count()} of them sent")  # fmt: skip
    leaving, arriving = found()["Upgrade"][1:3]
    print(run(leaving, before, folder).strip())
    then = _account(engine, midnight)
    engine.dispose()

    after = _settings(folder, new, sink)
    _own_server(new, first=True)
    restoring, rest = arriving.split("\n", 1)
    print(run(restoring, after, folder).strip())
    _own_server(new, first=False)
    engine = connect(after.database_url)
    count, now = sink.count(), _account(engine, midnight)
    worker = connect(after.url_for("worker"))
    sending.pump(worker, after)
    assert sink.count() == count, "sending is off"
    print(run(rest, after, folder).strip())
    sending.pump(worker, after)
    finishing.finish(worker, datetime.now(UTC))
    worker.dispose()
    checked = run(f"mauto ledger check --sink-log {folder / 'sink'}", after, folder).strip()
    verdict = _judge(engine, after, folder, then, now)
    print(f"PostgreSQL {_version(engine)}: {sink.count()} messages sent; {checked}; {verdict}")
    engine.dispose()
    return 0 if verdict == "EQUAL" and checked == "ledger clean" else 1


def _judge(engine: Engine, settings: Settings, folder: Path, then: Mapping[str, str], now: Mapping[str, str]) -> str:
    different = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    for name in different:
        print(f"{name:<50}{then.get(name)!s:>40}{now.get(name)!s:>40}   DIFFERENT")
    rows = sum(int(value.split()[0].replace(",", "")) for name, value in then.items() if "." in name)
    print(f"{len(then)} figures and tables with {rows:,} rows compared, {len(different)} differ")
    twice = [one for one, count in Counter(recipients_of(folder / "sink" / "accepted.jsonl")).items() if count > 1]
    with engine.connect() as tx:
        open_ones = tx.scalar(text("select count(*) from messages where status in ('queued', 'sending', 'unknown')"))
        sealed = tx.scalar(text("select secret_encrypted from webhook_endpoints"))
    is_same = not different and not twice and not open_ones and webhooks.open_secret(settings, sealed) == SECRET
    return "EQUAL" if is_same else f"NOT EQUAL ({len(different)} differ, {len(twice)} mailed twice, {open_ones} left)"


def _fill(engine: Engine, settings: Settings, folder: Path, contacts: int, midnight: datetime) -> int:
    """Import, history, scores, half a campaign; returns how many messages it has."""
    now, everybody = datetime.now(UTC), list(people(contacts, midnight))
    file = folder / "contacts.csv"
    contact_file.write(file, everybody)
    shop.furnish(engine, settings, now)
    run(f"mauto import {file} --here", settings, folder)
    shop.load_history(engine, settings, everybody, midnight, now)
    scoring.recalculate(engine, as_of=midnight)
    with engine.begin() as tx:
        campaign_id = add_campaign(tx).campaign_id
        launch.request_send(tx, settings, campaign_id, now=now)
        add_endpoint(tx, settings, "https://shop.example/hook")
    (plan,) = planning.plan_due(engine, settings, datetime.now(UTC))
    assert plan.problem is None
    sending.pump(engine, settings, shard=0, shards=2)
    run("mauto analytics refresh", settings, folder)
    with engine.connect() as tx:
        return int(tx.scalar(text("select count(*) from messages")) or 0)


def _account(engine: Engine, midnight: datetime) -> dict[str, str]:
    """The figures of the main job, and number and digest of the rows of every table."""
    told = figures(engine, midnight)
    with engine.connect() as tx:
        tables = tx.scalars(text("""select format('%I.%I', n.nspname, c.relname) from pg_class as c
            inner join pg_namespace as n on n.oid = c.relnamespace
            where c.relkind in ('r', 'm') and n.nspname in ('public', 'analytics', 'rollups', 'staging')
            order by 1""")).all()
        for name in sorted(set(tables) - _THEIRS):
            row = tx.execute(text(f"""select count(*), md5(string_agg(line, '' order by line)) from (
                select md5(cast(t as text)) collate "C" as line from {name} as t) as rows""")).one()
            told[name] = f"{row[0]} {row[1]}"
    return told


def _settings(folder: Path, url: Url, sink: MailSink) -> Settings:
    return Settings(
        database_url=url("mauto_owner", "mauto"), worker_database_url=url("mauto_worker", "mauto"),
        secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
        environment="development", home=folder / "home", smtp_port=sink.smtp_port, default_from_name="Example Shop",
        default_from_email="news@shop.example", postal_address="Example Shop, 1 High Street, Berlin",
    )  # fmt: skip


def _own_server(url: Url, *, first: bool) -> None:
    """One of the two blocks of docs/operations.md for a server of one's own, by its superuser."""
    block = blocks("docs/operations.md")[0 if first else 1].replace("'...'", f"'{_PASSWORD}'")
    if not first:
        block = "".join(block.partition("--")[0].replace("mauto_api", f"mauto_{role}") for role in LOGIN_ROLES)
    connection = psycopg2.connect(url("postgres", "postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in filter(str.strip, block.split(";")):
            cursor.execute(statement)
    connection.close()


def _version(engine: Engine) -> str:
    with engine.connect() as tx:
        return str(tx.scalar(text("select current_setting('server_version')")))


def _oldest() -> Path | None:
    places = [(int(path.parent.name), path) for path in Path("/usr/lib/postgresql").glob("[0-9]*/bin")]
    return min(((major, path) for major, path in places if 15 <= major < int(MAJOR)), default=(0, None))[1]


@contextmanager
def _older(folder: Path, programs: Path) -> Iterator[Url]:
    """A throwaway server of those programs."""
    account, password, port = unprivileged_account(), secrets.token_hex(16), _free_port()
    folder.mkdir(mode=0o700)
    handed_over = folder / "password"
    handed_over.write_text(password)
    if account is not None:
        for path in (folder, handed_over):
            os.chown(path, account.uid, account.gid)
    made = run_as(account, [
        str(programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", f"--pwfile={handed_over}",
        "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions", "--no-sync",
    ])  # fmt: skip
    assert made.returncode == 0, made.stderr
    settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "timezone=UTC", "jit=off")
    command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
    with (folder / "server.log").open("ab") as log:
        server = spawn([*command, *(part for one in settings for part in ("-c", one))], account, log, signal.SIGQUIT)
    address = f"127.0.0.1:{port}"
    try:
        _await(server, f"postgresql://postgres:{password}@{address}/postgres", folder / "server.log")
        yield lambda user, name: f"postgresql://{user}:{password if user == 'postgres' else _PASSWORD}@{address}/{name}"
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(30)


def _await(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    gives_up = time.monotonic() + 60
    while True:
        try:
            psycopg2.connect(url).close()
            return
        except psycopg2.OperationalError:
            assert server.poll() is None and time.monotonic() < gives_up, log.read_text()[-1000:]
            time.sleep(0.1)


if __name__ == "__main__":
    raise SystemExit(main())
