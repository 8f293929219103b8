"""The SMTP outcome table through the whole sender: where it breaks, what becomes of message, person and campaign."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from mautolib.campaigns import sending, store
from mautolib.campaigns.building import Blueprint
from mautolib.campaigns.model import Status
from mautolib.channels.protocol import Outgoing
from mautolib.channels.smtp_email import SmtpEmail
from mautolib.channels.smtp_session import Server
from mautolib.errors import MautoError, Misconfigured, ProviderUnavailable
from mautolib.ledger.model import Claimed
from mautolib.settings import Settings
from tests.contracts.smtp_server import DROP, HANG, Script, SmtpServer
from tests.contracts.test_smtp_session import certificate
from tests.integration.mailing import NOW, launched, rows

#: What the server does; what is raised; status, attempts used up, tried again within (minutes), suppressed, campaign.
QUEUED, AWAY = ("queued", 0, (1, 2), False, Status.SENDING), ProviderUnavailable
TABLE: dict[str, tuple[Script, type[MautoError] | None, tuple[Any, ...]]] = {
    "banner 421": (Script(greeting="421 4.3.2 busy"), AWAY, QUEUED),
    "banner 554": (Script(greeting="554 5.7.1 you are blocked"), AWAY, QUEUED),
    "banner none": (Script(greeting=DROP), AWAY, QUEUED),
    "421 to MAIL": (Script(mail="421 4.7.0 not now"), AWAY, QUEUED),
    "421 to RCPT": (Script(rcpt="421 4.7.0 not now"), AWAY, QUEUED),
    "421 to DATA": (Script(data="421 4.7.0 not now"), AWAY, QUEUED),
    "drop at RCPT": (Script(rcpt=DROP), AWAY, QUEUED),
    "AUTH 5xx": (Script(offers=("AUTH PLAIN",), auth="535 5.7.8 wrong"), Misconfigured, QUEUED),
    "AUTH 4xx": (Script(offers=("AUTH PLAIN",), auth="454 4.7.0 later"), AWAY, QUEUED),
    "MAIL 5xx": (Script(mail="550 5.7.1 not you"), None, ("queued", 0, (0, 1), False, Status.PAUSED)),
    "MAIL 4xx": (Script(mail="451 4.3.0 later"), AWAY, QUEUED),
    "MAIL 5.3.4": (Script(mail="552 5.3.4 too big"), None, ("failed", 1, None, False, Status.SENDING)),
    **{
        f"RCPT {code}": (Script(rcpt=f"{code} 4.2.0 later"), None, ("queued", 1, (5, 15), False, Status.SENDING))
        for code in (450, 452)
    },
    **{
        f"RCPT {status}": (Script(rcpt=f"550 {status} gone"), None, ("bounced", 1, None, True, Status.SENDING))
        for status in ("5.1.1", "5.1.6", "5.1.10")
    },
    **{
        f"{step} {status}": (
            Script(**{step.lower(): f"550 {status} no"}), None, ("failed", 1, None, False, Status.SENDING),
        )
        for step, statuses in {"RCPT": ("5.2.2", "5.4.1", "5.7.1"), "dot": ("5.3.4", "5.6.0", "5.7.1")}.items()
        for status in statuses
    },
    "dot 250": (Script(), None, ("sent", 1, None, False, Status.SENDING)),
    "dot 4xx": (Script(dot="451 4.3.0 later"), None, ("queued", 1, (5, 15), False, Status.SENDING)),
    "dot silence": (Script(dot=HANG), None, ("unknown", 1, None, False, Status.SENDING)),
    "dot reset": (Script(dot=DROP), None, ("unknown", 1, None, False, Status.SENDING)),
    "dot half a line": (Script(dot="250 2.\0"), None, ("unknown", 1, None, False, Status.SENDING)),
}  # fmt: skip


def sent_to(engine: Engine, settings: Settings, server: Server) -> tuple[MautoError | None, tuple[Any, ...], Any]:
    """A campaign to one person; what was raised, what became of it, and the row."""
    campaign_id = launched(engine, settings, 1)
    found: MautoError | None = None
    try:
        sending.pump(engine, settings, now=NOW, open_way=lambda _: SmtpEmail(server))
    except MautoError as error:
        found = error
    (row,) = rows(engine, "select * from messages")
    minutes = None
    if row.status == "queued":
        minutes = (row.next_try_at - NOW) / timedelta(minutes=1)
    with engine.connect() as tx:
        campaign = store.get(tx, campaign_id).status
    suppressed = rows(engine, "select count(*) as n from suppressions where reason = 'bounce'")[0].n == 1
    return found, (row.status, row.attempt_no, minutes, suppressed, campaign), row


def check(became: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    status, attempts, minutes, suppressed, campaign = expected
    assert became[:2] == (status, attempts) and became[3:] == (suppressed, campaign)
    if minutes is not None:
        assert minutes[0] <= became[2] <= minutes[1] + 0.5


@pytest.mark.parametrize("what", list(TABLE))
def test_where_it_breaks(fresh_engine: Engine, settings: Settings, what: str) -> None:
    script, raises, expected = TABLE[what]
    if not script.offers[0].startswith("AUTH"):
        script = replace(script, offers=("PIPELINING",))
    with SmtpServer(script) as sink:
        username = "user" if "AUTH" in what else ""
        found, became, row = sent_to(fresh_engine, settings, Server(
            host="127.0.0.1", port=sink.port, username=username, password="p" * 20, connect_seconds=5,
            command_seconds=5, answer_seconds=0.5,
        ))  # fmt: skip
    assert isinstance(found, raises or type(None))
    check(became, expected)
    if what == "dot 250":
        assert row.provider_id == "Q1" and [mail.recipient for mail in sink.accepted] == ["person1@mail.example"]


@pytest.mark.parametrize("what", ["DNS", "connect", "TLS"])
def test_what_keeps_us_from_the_server_costs_nobody_an_attempt(
    fresh_engine: Engine, settings: Settings, tmp_path: Path, what: str
) -> None:
    tls: ssl.SSLContext = certificate(tmp_path, "127.0.0.1").server
    with SmtpServer(Script(), tls=tls, implicit_tls=True) as sink:
        host = "no-such-host.invalid" if what == "DNS" else "127.0.0.1"
        port = 1 if what == "connect" else sink.port
        server = Server(host=host, port=port, security="tls", connect_seconds=5, command_seconds=5)
        found, became, _ = sent_to(fresh_engine, settings, server)
        assert sink.commands == []
    assert type(found) is ProviderUnavailable
    check(became, QUEUED)


def test_a_drop_in_the_body_is_tried_again(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Blueprint.write
    more = (b"y" * 76 + b"\r\n") * 400_000  # more than the buffers of both sides hold

    def long(self: Blueprint, message: Claimed, now: datetime) -> Outgoing:
        written = write(self, message, now)
        return written._replace(data=written.data + more)

    monkeypatch.setattr(Blueprint, "write", long)
    with SmtpServer(Script(offers=(), drop_after_bytes=1000)) as sink:
        server = Server(host="127.0.0.1", port=sink.port, connect_seconds=5, command_seconds=5)
        found, became, row = sent_to(fresh_engine, settings, server)
    assert found is None and row.last_stage == "body"
    check(became, ("queued", 1, (5, 15), False, Status.SENDING))
