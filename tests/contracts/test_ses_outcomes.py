"""What Amazon SES answers decides what is known of a message, and nothing is ever sent twice by the library."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from mautolib.campaigns import readiness, sending, store
from mautolib.campaigns.model import Status
from mautolib.channels.protocol import Outgoing
from mautolib.channels.ses_email import Account, SesEmail
from mautolib.channels.smtp_reply import is_about_policy
from mautolib.errors import MautoError, Misconfigured, ProviderUnavailable
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.settings import Settings
from tests import ses_server
from tests.contracts.test_smtp_session import certificate
from tests.contracts.watching import NotingWatch, outgoing
from tests.integration.mailing import NOW, add_campaign, launched, rows, states
from tests.ses_server import DROP, HALF, HANG, NONSENSE, REGION

THROTTLED = (429, "TooManyRequestsException", "Maximum sending rate exceeded.")
QUOTA = (429, "TooManyRequestsException", "Daily message quota exceeded.")
REJECTED = (400, "MessageRejected", "Transaction failed: Illegal header 'X'.")
UNVERIFIED = (400, "MessageRejected", "Email address is not verified. The following identities failed the check")
NO_DOMAIN = (400, "MailFromDomainNotVerifiedException", "MAIL FROM domain")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ses_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def account(url: str, **changes: Any) -> Account:
    quick = Account(region=REGION, endpoint_url=url, connect_seconds=2, answer_seconds=5, pauses=(0.0, 0.0))
    return replace(quick, **changes)


def send(
    made: Account, messages: Sequence[Outgoing] = (), watch: NotingWatch | None = None
) -> tuple[list[Result], MautoError | None]:
    """The results, and what closed the way."""
    channel = SesEmail(made)
    results: list[Result] = []
    try:
        for result in channel.deliver(messages or [outgoing(1), outgoing(2)], watch or NotingWatch()):
            results.append(result)
    except MautoError as error:
        return results, error
    finally:
        channel.close()
    return results, None


@pytest.mark.parametrize(
    ("answer", "verdict", "stage", "closed"),
    [
        (REJECTED, Verdict.FAILED, Stage.DOT, None),
        ((400, "BadRequestException", "Local address contains control or whitespace"), Verdict.FAILED, Stage.DOT, None),
        (UNVERIFIED, Verdict.RELEASED, Stage.MAIL, None),
        (NO_DOMAIN, Verdict.RELEASED, Stage.MAIL, None),
        (QUOTA, Verdict.RELEASED, Stage.CONNECT, ProviderUnavailable),
        (THROTTLED, Verdict.RELEASED, Stage.CONNECT, ProviderUnavailable),
        ((400, "LimitExceededException", "too many"), Verdict.RELEASED, Stage.CONNECT, ProviderUnavailable),
        ((400, "ThrottlingException", "Rate exceeded"), Verdict.RELEASED, Stage.CONNECT, ProviderUnavailable),
        ((400, "AccountSuspendedException", ""), Verdict.RELEASED, Stage.AUTH, Misconfigured),
        ((400, "SendingPausedException", "paused"), Verdict.RELEASED, Stage.AUTH, Misconfigured),
        ((404, "NotFoundException", "Configuration set <x> does not exist"), Verdict.RELEASED, Stage.AUTH,
         Misconfigured),
        ((403, "AccessDeniedException", "ses:SendEmail"), Verdict.RELEASED, Stage.AUTH, Misconfigured),
        ((403, "InvalidSignatureException", ""), Verdict.RELEASED, Stage.AUTH, Misconfigured),
        ((400, "ExpiredTokenException", ""), Verdict.RELEASED, Stage.AUTH, Misconfigured),
        ((500, "InternalFailure", "sorry"), Verdict.UNKNOWN, Stage.DOT, ProviderUnavailable),
        ((503, "ServiceUnavailable", ""), Verdict.UNKNOWN, Stage.DOT, ProviderUnavailable),
        ((502, "", ""), Verdict.UNKNOWN, Stage.DOT, ProviderUnavailable),
        (DROP, Verdict.UNKNOWN, Stage.DOT, ProviderUnavailable),
        (HALF, Verdict.UNKNOWN, Stage.DOT, ProviderUnavailable),
        (NONSENSE, Verdict.UNKNOWN, Stage.DOT, ProviderUnavailable),
        ("0100-abc", Verdict.SENT, Stage.DOT, None),
    ],
)  # fmt: skip
def test_an_answer_decides(answer: Any, verdict: Verdict, stage: Stage, closed: type[MautoError] | None) -> None:
    with ses_server.scripted(answer) as server:
        results, error = send(account(server.url))
    tries = 3 if answer == THROTTLED or "ThrottlingException" in answer else 1
    assert (results[0].verdict, results[0].stage) == (verdict, stage), results
    if closed is None:
        assert error is None and len(results) == 2 and len(server.asked) == 2
    else:
        assert isinstance(error, closed) and len(results) == 1, "what ails the connection is not the next one's fault"
        assert len(server.asked) == tries, "only what was surely not taken is tried again"
    if verdict is Verdict.SENT:
        assert results[0].provider_id == "0100-abc"
    if verdict in (Verdict.FAILED, Verdict.RELEASED) and stage in (Stage.DOT, Stage.MAIL):
        assert results[0].code == 554 and is_about_policy(results[0]) == (verdict is Verdict.FAILED)
    assert all(result.reply.isprintable() and len(result.reply) <= 500 for result in results)


def test_silence_after_the_request_is_a_doubt_and_is_not_repeated() -> None:
    with ses_server.scripted(HANG) as server:
        results, error = send(account(server.url, answer_seconds=0.3))
        assert [r.verdict for r in results] == [Verdict.UNKNOWN] and isinstance(error, ProviderUnavailable)
        assert len(server.asked) == 1


def test_a_server_that_is_not_there_keeps_everything() -> None:
    with ses_server.scripted("1") as server:
        url = server.url
    for address in (url, "http://no-such-host.invalid"):
        results, error = send(account(address))
        assert [r.verdict for r in results] == [Verdict.RELEASED] and isinstance(error, ProviderUnavailable)


def test_a_certificate_nobody_vouches_for_gets_no_mail(tmp_path: Path) -> None:
    with ses_server.scripted("1", tls=certificate(tmp_path, "127.0.0.1").server) as server:
        results, error = send(account(server.url))
    assert [(r.verdict, r.stage) for r in results] == [(Verdict.RELEASED, Stage.CONNECT)], results
    assert isinstance(error, ProviderUnavailable) and server.asked == []


def test_one_message_too_many_in_a_second_is_only_late() -> None:
    watch = NotingWatch()
    with ses_server.scripted(THROTTLED, THROTTLED, "a", "b") as server:
        results, error = send(account(server.url), watch=watch)
    assert error is None and [r.provider_id for r in results] == ["a", "b"]
    assert watch.begun == [1, 1, 1, 2], "the lease is looked at before each try"


def test_what_is_sent() -> None:
    data = b"Subject: dots\r\n\r\n.\r\n..two\r\n"
    message = outgoing(12345, "ann@b\u00fccher.example", data, sender="bounce+token@shop.example")
    with ses_server.scripted("id") as server:
        send(account(server.url, configuration_set="marketing"), [message])
    (asked,) = server.asked
    assert base64.b64decode(asked["Content"]["Raw"]["Data"]) == data
    assert asked["Destination"] == {"ToAddresses": ["ann@xn--bcher-kva.example"]}
    assert asked["FromEmailAddress"] == "bounce+token@shop.example"
    assert asked["ConfigurationSetName"] == "marketing"
    assert asked["EmailTags"] == [
        {"Name": "mauto_message", "Value": "12345"}, {"Name": "mauto_attempt", "Value": "7"}
    ]  # fmt: skip


def test_an_address_outside_ascii_is_not_for_ses() -> None:
    with ses_server.scripted("id") as server:
        results, _ = send(account(server.url), [outgoing(1, "jos\u00e9@mail.example")])
    assert [(r.verdict, r.enhanced) for r in results] == [(Verdict.FAILED, "5.6.7")] and server.asked == []


def test_without_credentials_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    watch = NotingWatch()
    with ses_server.scripted("id") as server:
        results, error = send(account(server.url), watch=watch)
    assert results == [] and isinstance(error, Misconfigured) and "credentials" in str(error)
    assert watch.begun == [] and server.asked == []


def test_settings_that_cannot_work_are_named() -> None:
    with pytest.raises(Misconfigured, match="MAUTO_SES_REGION"):
        SesEmail.from_settings(Settings(channel="ses"))
    with pytest.raises(Misconfigured, match="demo"):
        SesEmail.from_settings(Settings(channel="ses", ses_region=REGION, demo=True))


@pytest.fixture
def ses_settings(settings: Settings) -> Iterator[Settings]:
    with ses_server.working() as server:
        yield replace(settings, channel="ses", ses_region=REGION, ses_endpoint_url=server.url)


def test_a_campaign_goes_through_ses(fresh_engine: Engine, ses_settings: Settings) -> None:
    campaign_id = launched(fresh_engine, ses_settings, 7)
    result = sending.pump(fresh_engine, replace(ses_settings, smtp_connections=2), now=NOW, group_size=3)
    assert result.counts == {"sent": 7} and states(fresh_engine, campaign_id) == {"sent": 7}
    kept = {row.provider_id for row in rows(fresh_engine, "select provider_id from messages")}
    with ses_server.working() as server:
        arrived = server.arrived()
    assert kept == {message.id for message in arrived} and len(kept) == 7
    assert {message.destinations[0] for message in arrived} == {f"person{n}@mail.example" for n in range(1, 8)}


@pytest.mark.parametrize(
    ("answer", "left", "status", "raises"),
    [
        (THROTTLED, {"queued": 4}, Status.SENDING, ProviderUnavailable),
        (NO_DOMAIN, {"queued": 4}, Status.PAUSED, None),
        (REJECTED, {"failed": 4}, Status.SENDING, None),
        (DROP, {"queued": 3, "unknown": 1}, Status.SENDING, ProviderUnavailable),
        ((400, "SendingPausedException", ""), {"queued": 4}, Status.SENDING, Misconfigured),
    ],
)  # fmt: skip
def test_what_ses_says_reaches_the_ledger(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, answer: Any, left: dict[str, int],
    status: Status, raises: type[MautoError] | None,
) -> None:  # fmt: skip
    with ses_server.scripted(answer) as server:
        campaign_id = launched(fresh_engine, settings, 4)
        found: MautoError | None = None
        try:
            sending.pump(fresh_engine, settings, now=NOW, open_way=lambda _: SesEmail(account(server.url)))
        except MautoError as error:
            found = error
    assert type(found) is (raises or type(None))
    assert states(fresh_engine, campaign_id) == left
    with fresh_engine.connect() as tx:
        assert store.get(tx, campaign_id).status is status
    assert rows(fresh_engine, "select max(attempt_no) as n from messages where status = 'queued'")[0].n in (0, None)
    assert rows(fresh_engine, "select count(*) as n from suppressions")[0].n == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [({"channel": "ses"}, "MAUTO_SES_REGION"), ({"channel": "pigeon"}, "MAUTO_CHANNEL"),
     ({"smtp_security": "ssl"}, "MAUTO_SMTP_SECURITY")],
)  # fmt: skip
def test_a_channel_that_lacks_its_settings_is_said_before_launch(
    tx: Connection, settings: Settings, change: dict[str, str], word: str
) -> None:
    campaign = add_campaign(tx)
    assert readiness.problems(tx, settings, campaign) == []
    (problem,) = readiness.problems(tx, replace(settings, **change), campaign)  # type: ignore[arg-type]
    assert problem.path == ("settings", "channel") and word in problem.message
