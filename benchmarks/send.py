"""Sending: client CPU microseconds a message, from claimed row to recorded outcome, with the full ledger and fsync.

A campaign with a personal name, ten signed links, a pixel and a text part (10 kB on the wire) goes through one pump
over four connections to Postfix's smtp-sink on this machine (our own mail sink where that is not installed). All client
work is counted, from the claim to the record. Every ledger row and event is verified, every message in the sink is
parsed and looked at, every link checked. The naive loop beside it: Jinja2, EmailMessage, smtplib, and no ledger.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from pathlib import Path
from urllib.parse import unquote

from jinja2 import Template
from sqlalchemy import Engine, text

from benchmarks.ground.measuring import finish, tree_cpu
from mautolib.campaigns import finishing, launch, planning, sending, store
from mautolib.campaigns.model import NewCampaign
from mautolib.db.engine import connect
from mautolib.db.localpg import Cluster
from mautolib.db.migrate import migrate
from mautolib.events.links import LinkSigner, Purpose
from mautolib.ledger import check
from mautolib.settings import Settings

NAIVE = 300
_PARAGRAPH = (
    "<p style=\"font-family:Helvetica,Arial,sans-serif;font-size:15px;line-height:22px;color:#1f2937\">Autumn is here, "
    "{{ contact.first_name }}, and with it the things you asked for: <a href=\"https://shop.example/item/%d?ref=mail\">"
    "number %d</a> of ten, made to last.</p>"
)
HTML = "<html><body>" + "".join(_PARAGRAPH % (n, n) for n in range(1, 11)) + "</body></html>"
SUBJECT = "Ten things for {{ contact.first_name }}"
#: What a message has on the wire, in bytes: between these.
SIZES = 9_500, 10_500
#: What the sink writes over a message.
_NOTES = re.compile(rb"^X-(?:Client|Helo|Mail|Rcpt)[^\n]*\n|^Received: [^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE)
_CLICK = re.compile(rb"/api/v1/track/click/([^/]+)/([^/?]+)\?url=([^&]+)&(?:amp;)?s=([\w-]+)")
_LEAVE = re.compile(r"<http[^ >]+/unsubscribe/([^/]+)/([^/?]+)\?s=([\w-]+)>")


@dataclass(frozen=True)
class Result:
    """What one way of sending did."""

    per_second: float
    client_us: float
    server_us: float = 0.0


@contextlib.contextmanager
def sink(folder: Path) -> Iterator[tuple[int, str]]:
    """A mail server that takes everything and notes it; gives its port and name."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    folder.mkdir()
    if program:
        folder.chmod(0o777)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [program, *user, "-D", str(folder / "dump"), f"127.0.0.1:{port}", "1024"]
    else:
        command = [sys.executable, "-m", "mautolib.stack.mailsink", "--directory", str(folder), "--http-port", "0",
                   "--smtp-port", str(port)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{command[0]} did not start")
                time.sleep(0.05)
            yield port, "smtp-sink" if program else "mail sink"
        finally:
            process.terminate()


def received(folder: Path) -> Iterator[bytes]:
    """Every message the sink got, as it came."""
    log = folder / check.SINK_LOG
    if log.exists():
        yield from (path.read_bytes() for path in folder.rglob("*.eml"))
        return
    lines: list[bytes] = []
    with (folder / "dump").open("rb") as dump:
        for line in dump:
            if line.startswith(b"X-Client-Addr: ") and lines:
                yield b"".join(lines)
                lines = []
            lines.append(line)
    yield b"".join(lines)


def read(messages: Iterable[bytes], signer: LinkSigner) -> tuple[dict[str, int], int, int]:
    """How often each Message-ID of ours came, how many messages are not what they should be, and their bytes."""
    found: dict[str, int] = {}
    faulty = octets = 0
    for raw in messages:
        message = message_from_bytes(raw)
        if message["X-Mauto-Attempt"] is None:
            continue  # the naive loop's
        message_id = message["Message-ID"].strip("<>")
        found[message_id] = found.get(message_id, 0) + 1
        size = len(raw) + raw.count(b"\n") - raw.count(b"\r\n") - sum(map(len, _NOTES.findall(raw)))
        octets += size
        faulty += not (SIZES[0] < size < SIZES[1] and is_right(message, signer))
    return found, faulty, octets


def is_right(message: Message, signer: LinkSigner) -> bool:
    """Whether a message went to the person it names, and all it needs is there and genuine."""
    text, html = (part.get_payload(decode=True) for part in message.get_payload())
    number = message["To"].removeprefix("c").removesuffix("@mail.example")
    name = f"Zoë{number}"
    leave = _LEAVE.fullmatch(message["List-Unsubscribe"])
    tokens = [
        signer.verify(Purpose.CLICK, *(part.decode() for part in (found[1], found[2], found[4])),
                      url=unquote(found[3].decode()))
        for found in (*_CLICK.finditer(html), *_CLICK.finditer(text))
    ]  # fmt: skip
    tokens.append(leave and signer.verify(Purpose.UNSUBSCRIBE, *leave.groups()))
    return (
        not message.defects
        and message.get("X-Rcpt-Args", f"<{message['To']}>") == f"<{message['To']}>"
        and message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        and str(make_header(decode_header(message["Subject"]))) == SUBJECT.replace("{{ contact.first_name }}", name)
        and html.count(f", {name},".encode()) == text.count(f", {name},".encode()) == 10
        and len(tokens) == 21
        and len({token and (token.contact_id, token.message_id) for token in tokens}) == 1
        and tokens[0] is not None
    )


def own_cpu() -> float:
    """CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def prepare(engine: Engine, settings: Settings, rows: int) -> tuple[int, float]:
    """Contacts and a planned campaign; returns its id and the server's and our CPU seconds for planning."""
    with engine.begin() as tx:
        tx.execute(text(
            "insert into contacts (email, email_key, first_name) select 'c' || n || '@mail.example', 'c' || n || "
            "'@mail.example', 'Zoë' || n from generate_series(1, :n) as n on conflict do nothing"), {"n": rows},
        )  # fmt: skip
        new = NewCampaign(name="Autumn", subject=SUBJECT, html_body=HTML, preheader="Ten things, two days")
        campaign = store.create(tx, new, actor="benchmark", now=datetime.now(UTC))
        launch.request_send(tx, settings, campaign.campaign_id, now=datetime.now(UTC))
    began = time.perf_counter()
    (plan,) = planning.plan_due(engine, settings, datetime.now(UTC))
    if plan.queued != rows:
        raise SystemExit(f"{plan.queued} of {rows} messages were planned")
    return plan.campaign_id, time.perf_counter() - began


def pumped(engine: Engine, settings: Settings, cluster: Cluster, rows: int, group_size: int) -> tuple[Result, bool]:
    """One pump over one campaign; and whether the ledger is right."""
    campaign_id, planned = prepare(engine, settings, rows)
    began, cpu, server = time.perf_counter(), own_cpu(), tree_cpu(cluster.pid or 0)
    result = sending.pump(engine, settings, group_size=group_size, budget_seconds=600)
    seconds = time.perf_counter() - began
    cpu, server = own_cpu() - cpu, tree_cpu(cluster.pid or 0) - server
    done = finishing.finish(engine, datetime.now(UTC)) == [campaign_id]
    shown = Result(rows / seconds, cpu / rows * 1e6, server / rows * 1e6)
    sys.stdout.write(
        f"group of {group_size:<4} {shown.per_second:8,.0f} messages/s {shown.client_us:8.0f} us client CPU "
        f"{shown.server_us:8.0f} us database CPU a message (planned in {planned:.2f} s)\n"
    )
    return shown, done and result.counts == {"sent": rows}


def naive(settings: Settings, rows: int) -> Result:
    """What one writes first: render, build, send, one after another (nothing is recorded)."""
    subject, html = Template(SUBJECT), Template(HTML)
    began, cpu = time.perf_counter(), own_cpu()
    with smtplib.SMTP("127.0.0.1", settings.smtp_port) as connection:
        for number in range(rows):
            contact = {"first_name": f"Zoë{number}"}
            message = EmailMessage()
            message["From"], message["To"] = settings.default_from_email, f"n{number}@mail.example"
            message["Subject"] = subject.render(contact=contact)
            message.set_content("Ten things")
            message.add_alternative(html.render(contact=contact), subtype="html")
            connection.send_message(message)
    seconds, cpu = time.perf_counter() - began, own_cpu() - cpu
    result = Result(rows / seconds, cpu / rows * 1e6)
    sys.stdout.write(f"naive loop    {result.per_second:8,.0f} messages/s {result.client_us:8.0f} us client CPU\n")
    return result


@contextlib.contextmanager
def warehouse(folder: Path) -> Iterator[tuple[Engine, Cluster, Settings]]:
    """A migrated database with fsync, and settings that can send."""
    cluster = Cluster.ensure(folder / "cluster", durable=True)
    try:
        cluster.create_database("bench")
        engine = connect(cluster.url("bench"))
        migrate(engine)
        yield engine, cluster, Settings(
            database_url=cluster.url("bench"), home=folder / "home", environment="development",
            secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
            default_from_name="Example Shop", default_from_email="news@shop.example",
            postal_address="Example Shop, 1 High Street, Berlin",
        )  # fmt: skip
        engine.dispose()
    finally:
        cluster.stop()


def main() -> None:
    """Send with large and small groups, then naively; compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.send", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="recipients with each group size")
    parser.add_argument("--connections", type=int, default=4, help="SMTP connections of the one process")
    parser.add_argument("--group", type=int, default=500, help="the large group (the small one is 10)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mauto-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with warehouse(folder) as (engine, cluster, settings):
            with sink(folder / "sink") as (port, sink_name):
                settings = replace(settings, smtp_port=port, smtp_connections=options.connections)
                sys.stdout.write(f"{sink_name}, one process, {options.connections} connections, fsync on\n")
                large, large_ok = pumped(engine, settings, cluster, options.rows, options.group)
                small, small_ok = pumped(engine, settings, cluster, options.rows, 10)
                slow = naive(settings, NAIVE)
            log, faulty, octets = read(received(folder / "sink"), LinkSigner.from_settings(settings))
            with engine.connect() as tx:
                findings = check.check(tx, log)
    size = octets // max(1, len(log))
    sys.stdout.write(f"{len(log):,} messages of {size:,} bytes read back, {faulty} not as they should be\n")
    for finding in findings[:10]:
        sys.stdout.write(f"{finding.question}: {finding.what}\n")
    compared = {
        "group": options.group, "connections": options.connections, "message_bytes": size, "fsync": True,
        "messages_per_second": round(large.per_second), "database_us": round(large.server_us),
        "group_10_us": round(small.client_us), "group_10_messages_per_second": round(small.per_second),
        "naive_us": round(slow.client_us), "naive_messages_per_second": round(slow.per_second),
        "times_less_cpu_than_naive": round(slow.client_us / large.client_us, 1),
    }  # fmt: skip
    is_right = large_ok and small_ok and not findings and not faulty and len(log) == 2 * options.rows
    finish("send", large.client_us, "us of client CPU a message", rows=options.rows, verified=is_right,
           compared_to=compared)  # fmt: skip


if __name__ == "__main__":
    main()
