"""Group H: notices about messages - who may tell, what they may do, and that they do it once."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import feedback
from mautolib.errors import NotAllowed, ProviderUnavailable
from mautolib.events import verp
from mautolib.feedback import applying, receiving
from mautolib.feedback.receiving import keep_notice
from mautolib.settings import Settings
from mautolib.webhooks import guard
from mautolib.webhooks.addresses import Policy
from mautolib.webhooks.guard import Fetcher
from tests import sns
from tests.live_service import LiveService
from tests.web_server import Authority, serve_web

URL = "/api/v1/webhooks/inbound/ses"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PROVIDER = "0107018a1b2c3d4e-5f6a7b8c-1234-5678-9abc-def0123456{:02d}-000000"


def count(engine: Engine, sql: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text(sql)) or 0)


def noticed(service: LiveService, message_id: str) -> int:
    with service.engine.connect() as connection:
        query = text("select count(*) from provider_notices where external_id = :id")
        return int(connection.scalar(query, {"id": message_id}) or 0)


@pytest.fixture
def post(service: LiveService, nobody: httpx.Client) -> Callable[..., httpx.Response]:
    sns.trust(service.engine)

    def send(message: Any, kind: str = "text/plain; charset=UTF-8") -> httpx.Response:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        return nobody.post(URL, content=content, headers={"Content-Type": kind})

    return send


# ---- the door


def test_a_signed_notice_is_stored_once_in_both_versions(service: LiveService, post: Any) -> None:
    for version, kind in (("1", "text/plain; charset=UTF-8"), ("2", "application/json")):
        message = sns.message(sns.ses("Delivery", "x", "a@b.example"), message_id=f"door-{version}", version=version)
        assert [post(message, kind).json() for _ in range(2)] == [{"status": "stored"}, {"status": "duplicate"}]
        assert noticed(service, f"door-{version}") == 1
    with_subject = sns.message("{}", message_id="door-subject", Subject="Amazon SES Email Event Notification")
    assert post(with_subject).json() == {"status": "stored"}


def _no_signature(message: dict[str, Any]) -> None:
    del message["Signature"]


@pytest.mark.parametrize(
    "spoil",
    [
        _no_signature, lambda m: m.update(Signature=""), lambda m: m.update(Signature="AAAA"),
        lambda m: m.update(Signature=5), lambda m: m.update(Signature="é"), lambda m: m.update(Message="{}"),
        lambda m: m.update(SignatureVersion="3"), lambda m: m.update(SignatureVersion="1"), lambda m: m.clear(),
        lambda m: m.update(MessageId="other"), lambda m: m.update(Type="Other"), lambda m: m.update(Timestamp=None),
        lambda m: m.update(Subject="added"), lambda m: m.pop("MessageId"), lambda m: m.update(TopicArn=None),
    ],
)  # fmt: skip
def test_h1_without_a_good_signature_nothing_is_stored(service: LiveService, post: Any, spoil: Any) -> None:
    message = sns.message(sns.ses("Delivery", "x", "a@b.example"), message_id="h1")
    spoil(message)
    refusals = "select coalesce(sum(refusal_count), 0) from notice_refusals"
    before = count(service.engine, refusals)
    answer = post(message)
    assert (answer.status_code, answer.json()["code"]) == (403, "bad_signature")
    assert noticed(service, "h1") == noticed(service, "other") == 0
    assert count(service.engine, refusals) == before + 1, "a counter is all that is kept"


def test_h1_a_key_that_is_not_the_certificates(service: LiveService, post: Any) -> None:
    assert post(sns.message("{}", message_id="h1-key", signed_by=1)).status_code == 403
    assert noticed(service, "h1-key") == 0


def test_h1_version_1_where_2_is_asked_for(fresh_engine: Engine, settings: Settings) -> None:
    sns.trust(fresh_engine)
    strict = replace(settings, sns_topic_arns=(sns.TOPIC,), sns_signature_version=2)
    with pytest.raises(NotAllowed):
        feedback.receive_sns(fresh_engine, strict, sns.message("{}", version="1"), now=NOW)
    assert feedback.receive_sns(fresh_engine, strict, sns.message("{}"), now=NOW).status == "stored"


def test_h2_a_foreign_topic_and_no_topic_at_all(fresh_engine: Engine, settings: Settings, post: Any) -> None:
    foreign = sns.TOPIC.replace("123456789012", "999999999999")
    assert post(sns.message("{}", message_id="h2", TopicArn=foreign)).status_code == 403
    sns.trust(fresh_engine)
    with pytest.raises(NotAllowed):
        feedback.receive_sns(fresh_engine, settings, sns.message("{}"), now=NOW)


@pytest.mark.parametrize(
    "url",
    ["https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-0123456789abcdef.pem",
     "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
     "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-0123456789abcdef.pem",
     "https://evil.example/SimpleNotificationService-0123456789abcdef.pem",
     "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-0123456789abcdef.pem",
     "https://evil.example#.sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
     "https://sns.eu-central-1.amazonaws.com/../SimpleNotificationService-0123456789abcdef.pem",
     "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem?x=1",
     "https://sns.eu-central-1.amazonaws.com/bucket/SimpleNotificationService-0123456789abcdef.pem",
     "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
     "https://s3.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
     "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem\n", ""],
)  # fmt: skip
def test_h3_certificates_come_from_one_place_only(
    url: str, fresh_engine: Engine, settings: Settings, fetched: list[str]
) -> None:
    accepting = replace(settings, sns_topic_arns=(sns.TOPIC,))
    with pytest.raises(NotAllowed):
        feedback.receive_sns(fresh_engine, accepting, sns.message("{}", SigningCertURL=url), now=NOW)
    assert fetched == [] and count(fresh_engine, "select count(*) from provider_notices") == 0


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every URL that was asked for; none is."""
    asked: list[str] = []

    def fetch(self: Fetcher, url: str, **_: Any) -> Any:
        asked.append(url)
        raise ProviderUnavailable("not in a test")

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    return asked


# ---- SNS itself: certificates and confirmations are fetched through the guard


class Sns:
    """A server that plays SNS on loopback; every connection meant for the internet ends there."""

    def __init__(self) -> None:
        self.bodies = {"/SimpleNotificationService": sns.certificate().encode(), "/?Action": b"<Confirmed/>"}
        self.status, self.extra = "200 OK", ""

    def answer(self, connection: socket.socket, head: bytes) -> None:
        path = head.split(b" ")[1].decode()
        body = next((body for start, body in self.bodies.items() if path.startswith(start)), b"")
        lead = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(body)}\r\n{self.extra}\r\n"
        connection.sendall(lead.encode() + body)


@pytest.fixture
def amazon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sns, Fetcher, list[bytes], list[Any]]]:
    authority, server, asked = Authority(tmp_path), Sns(), list[Any]()
    receiving._FETCHED.clear()
    with serve_web(server.answer, tls=authority.for_server(sns.HOST)) as web:
        real = socket.create_connection

        def lead(address: tuple[str, int], *rest: Any) -> socket.socket:
            asked.append(address)
            return real(("127.0.0.1", web.port), *rest)

        monkeypatch.setattr(guard.socket, "create_connection", lead)
        names = {sns.HOST: (ip_address("52.94.5.6"),)}
        fetcher = Fetcher(policy=Policy(), look_up=lambda host: names[host], tls=authority.trusted())
        yield server, fetcher, web.requests, asked


def test_the_certificate_is_fetched_once_and_kept(fresh_engine: Engine, settings: Settings, amazon: Any) -> None:
    _, fetcher, requests, asked = amazon
    accepting = replace(settings, sns_topic_arns=(sns.TOPIC,))
    now = datetime.now(UTC)
    for number in range(3):
        message = sns.message("{}", message_id=f"m{number}")
        assert feedback.receive_sns(fresh_engine, accepting, message, now=now, fetcher=fetcher).status == "stored"
    assert len(requests) == 1 and asked == [("52.94.5.6", 443)]
    assert f"Host: {sns.HOST}\r\n".encode() in requests[0]


@pytest.mark.parametrize("status", ["301 Moved", "404 Not Found", "302 Found"])
def test_h3_what_is_not_served_there_is_not_looked_for_elsewhere(
    status: str, fresh_engine: Engine, settings: Settings, amazon: Any
) -> None:
    server, fetcher, requests, _ = amazon
    server.status, server.extra = status, "Location: https://evil.example/cert.pem\r\n"
    accepting = replace(settings, sns_topic_arns=(sns.TOPIC,))
    with pytest.raises(NotAllowed):
        feedback.receive_sns(fresh_engine, accepting, sns.message("{}"), now=datetime.now(UTC), fetcher=fetcher)
    assert len(requests) == 1 and count(fresh_engine, "select count(*) from signing_certificates") == 0


def test_h3_no_certificate_an_old_one_and_a_server_that_is_away(
    fresh_engine: Engine, settings: Settings, amazon: Any
) -> None:
    server, fetcher, _, _ = amazon
    accepting, now = replace(settings, sns_topic_arns=(sns.TOPIC,)), datetime.now(UTC)

    def receive(at: datetime = now) -> str:
        return feedback.receive_sns(fresh_engine, accepting, sns.message("{}"), now=at, fetcher=fetcher).status

    for body in (b"no certificate", b"\xff\xfe", b"x" * 70000):
        server.bodies["/SimpleNotificationService"] = body
        with pytest.raises(NotAllowed):
            receive()
    server.bodies["/SimpleNotificationService"] = sns.certificate().encode()
    with pytest.raises(NotAllowed):
        receive(now + timedelta(days=400))
    server.status = "503 Busy"
    with pytest.raises(ProviderUnavailable):
        receive()
    server.status = "200 OK"
    assert receive() == "stored"


def test_g19_a_name_that_leads_inside_is_not_fetched(fresh_engine: Engine, settings: Settings, amazon: Any) -> None:
    _, fetcher, requests, asked = amazon
    inside = replace(fetcher, look_up=lambda _: (ip_address("10.0.0.1"),))
    accepting = replace(settings, sns_topic_arns=(sns.TOPIC,))
    with pytest.raises(NotAllowed):
        feedback.receive_sns(fresh_engine, accepting, sns.message("{}"), now=NOW, fetcher=inside)
    assert requests == asked == []


def test_inventing_certificates_does_not_make_us_fetch_without_end(
    fresh_engine: Engine, settings: Settings, amazon: Any
) -> None:
    server, fetcher, requests, _ = amazon
    server.status = "404 Not Found"
    accepting = replace(settings, sns_topic_arns=(sns.TOPIC,))
    refusals = []
    for number in range(40):
        url = sns.CERTIFICATE_URL.replace("0123456789abcdef.pem", f"{number:016x}.pem")
        try:
            feedback.receive_sns(
                fresh_engine, accepting, sns.message("{}", SigningCertURL=url), now=NOW, fetcher=fetcher
            )
        except (NotAllowed, ProviderUnavailable) as error:
            refusals.append(type(error))
    assert len(requests) == receiving.MOST_FETCHES_A_MINUTE
    assert refusals.count(ProviderUnavailable) == 40 - receiving.MOST_FETCHES_A_MINUTE
    receiving._FETCHED.clear()


def test_a_subscription_is_confirmed(fresh_engine: Engine, settings: Settings, amazon: Any) -> None:
    server, fetcher, requests, _ = amazon
    accepting, now = replace(settings, sns_topic_arns=(sns.TOPIC,)), datetime.now(UTC)
    confirmed = feedback.receive_sns(fresh_engine, accepting, sns.subscription(), now=now, fetcher=fetcher)
    assert confirmed.status == "confirmed"
    assert requests[1].startswith(f"GET /?Action=ConfirmSubscription&TopicArn={sns.TOPIC}&Token=abc123 ".encode())
    assert count(fresh_engine, "select count(*) from provider_notices") == 0
    server.status = "500 Broken"
    with pytest.raises(ProviderUnavailable):
        feedback.receive_sns(fresh_engine, accepting, sns.subscription(), now=now, fetcher=fetcher)


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/?Action=ConfirmSubscription&TopicArn={topic}&Token=abc123",
     "https://sns.eu-central-1.amazonaws.com.evil.example/?Action=ConfirmSubscription&TopicArn={topic}&Token=abc123",
     "http://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=abc123",
     "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=abc123",
     "https://sns.eu-central-1.amazonaws.com/?Action=DeleteTopic&TopicArn={topic}&Token=abc123",
     "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}x&Token=abc123",
     "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=other",
     "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=abc123&Action=X",
     "https://sns.eu-central-1.amazonaws.com@10.0.0.1/?Action=ConfirmSubscription&TopicArn={topic}&Token=abc123", ""],
)  # fmt: skip
def test_h4_a_confirmation_elsewhere_is_not_fetched(
    url: str, fresh_engine: Engine, settings: Settings, fetched: list[str]
) -> None:
    sns.trust(fresh_engine)
    accepting = replace(settings, sns_topic_arns=(sns.TOPIC,))
    message = sns.subscription(SubscribeURL=url.format(topic=sns.TOPIC))
    if not url:
        del message["SubscribeURL"]
    with pytest.raises(NotAllowed):
        feedback.receive_sns(fresh_engine, accepting, message, now=NOW)
    assert fetched == []


# ---- what a notice does


@pytest.fixture
def sent(fresh_engine: Engine) -> dict[str, int]:
    """Two people with a message each, sent at nine; message ids by address."""
    return {email: make_message(fresh_engine, email, number) for number, email in enumerate(
        ("anna@mail.example", "ben@mail.example"))}  # fmt: skip


def make_message(engine: Engine, email: str, number: int, *, status: str = "sent", hours_ago: float = 1) -> int:
    """One message to `email`; a contact of that address is made if there is none."""
    with engine.begin() as tx:
        person = tx.scalar(text("""
            insert into contacts (email, email_key, created_at) values (:email, :email, :long_ago)
            on conflict (email_key) do update set first_name = '' returning contact_id"""),
            {"email": email, "long_ago": NOW - timedelta(days=400)})  # fmt: skip
        new = "insert into message_contents (subject, html_body) values ('S', 'H') returning content_id"
        content = tx.scalar(text(new))
        is_sent = status == "sent"
        values = {
            "person": person, "content": content, "status": status, "key": f"tx:{number}:{email}", "at": NOW,
            "sent": NOW - timedelta(hours=hours_ago) if is_sent else None, "provider": PROVIDER.format(number),
            "attempt": 7 if status in ("sending", "unknown") else None,
            "lease": NOW + timedelta(hours=1) if status == "sending" else None,
            "rfc": f"{number:032x}@shop.example",
        }  # fmt: skip
        found = tx.scalar(text("""
            insert into messages (contact_id, kind, content_id, dedupe_key, status, due_at, next_try_at, give_up_at,
                sent_at, provider_id, attempt_id, lease_until, rfc_message_id, queued_at)
            values (:person, 'transactional', :content, :key, :status, :at, :at, :at, :sent, :provider, :attempt,
                :lease, :rfc, :at)
            returning message_id"""), values)  # fmt: skip
        if status == "unknown":
            query = text("""
                insert into message_attempts (contact_id, message_id, attempt_no, attempt_id, claimed_at, outcome)
                values (:person, :message, 1, 7, :at, 'unknown')""")
            tx.execute(query, {**values, "message": found})
    return int(found or 0)


def tell(tx: Connection, body: str, external_id: str, *, source: str = "ses", now: datetime = NOW) -> bool:
    return keep_notice(tx, source, external_id, body, now=now)


def run(engine: Engine, settings: Settings, *, now: datetime = NOW) -> feedback.Processed:
    return feedback.process(engine, settings, now=now)


def state(engine: Engine, message_id: int) -> tuple[Any, ...]:
    """All that feedback decides about a message and its address."""
    with engine.connect() as connection:
        row = connection.execute(text("""
            select messages.status, messages.reason, messages.delivered_at, messages.bounced_at, messages.complained_at,
                messages.sent_at, suppressions.reason as suppression, contacts.subscribed
            from messages
            join contacts using (contact_id)
            left join suppressions on suppressions.email_key = contacts.email_key
            where message_id = :id"""), {"id": message_id}).one()  # fmt: skip
        events = connection.execute(text(
            "select event_type from events where message_id = :id and event_type like 'email%' order by 1"
        ), {"id": message_id}).scalars().all()  # fmt: skip
    return *row, tuple(events)


def test_h5_the_same_notice_a_hundred_times_in_parallel(
    service: LiveService, post: Any, fresh_engine: Engine, settings: Settings, sent: dict[str, int]
) -> None:
    message = sns.message(sns.ses("Bounce", "x", "a@b.example"), message_id="h5")
    with ThreadPoolExecutor(10) as threads:
        statuses = [answer.json()["status"] for answer in threads.map(lambda _: post(message), range(100))]
    assert (statuses.count("stored"), statuses.count("duplicate")) == (1, 99)
    assert noticed(service, "h5") == 1
    body = sns.ses("Bounce", PROVIDER.format(0), "anna@mail.example")
    with fresh_engine.begin() as tx:
        for number in range(20):
            tell(tx, body, f"copy {number}")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: run(fresh_engine, settings), range(4)))
    assert count(fresh_engine, "select count(*) from events where event_type = 'email_bounced'") == 1
    assert count(fresh_engine, "select count(*) from outbox where event_name = 'email.bounced'") == 1
    assert count(fresh_engine, "select count(*) from provider_notices where status = 'applied'") == 20


SIX: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Send", {}), ("Delivery", {}), ("Complaint", {}), ("Bounce", {}),
    ("Bounce", {"bounceType": "Transient", "diagnostic": "smtp; 452 4.2.2 mailbox full"}), ("DeliveryDelay", {}),
)  # fmt: skip


def one_of_six(number: int, provider_id: str, email: str) -> str:
    kind, detail = SIX[number]
    if "diagnostic" in detail:
        recipient = {"emailAddress": email, "diagnosticCode": detail["diagnostic"]}
        detail = {"bounceType": detail["bounceType"], "bouncedRecipients": [recipient]}
    form, at = "eventType" if number % 2 else "notificationType", NOW - timedelta(minutes=50 - number)
    return sns.ses(kind, provider_id, email, form=form, at=at, **detail)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 7])
@pytest.mark.thorough
def test_h6_six_notices_in_every_order_end_the_same(fresh_engine: Engine, settings: Settings, every: int) -> None:
    """720 people, each told in an order of their own; the n-th notices of all are applied before the next ones."""
    orders = list(itertools.permutations(range(6)))[::every]
    people = [f"p{number}@mail.example" for number in range(len(orders))]
    ids = [PROVIDER.format(number) for number in range(len(orders))]
    make_messages(fresh_engine, people, ids)
    for turn in range(6):
        with fresh_engine.begin() as tx:
            for order, email, provider_id in zip(orders, people, ids, strict=True):
                tell(tx, one_of_six(order[turn], provider_id, email), f"{provider_id} {turn}")
        while True:
            with fresh_engine.begin() as tx:
                if not applying.apply_due(tx, settings, now=NOW).taken:
                    break
    query = text("""
        select distinct messages.status, messages.reason, messages.delivered_at, messages.bounced_at,
            messages.complained_at, contacts.subscribed, suppressions.reason as suppression,
            (select array_agg(event_type order by event_type) from events where events.message_id = messages.message_id
                and events.contact_id = messages.contact_id) as events,
            (select count(*) from outbox where event_name = 'email.bounced'
                and data ->> 'message_id' = cast(messages.message_id as text)) as facts
        from messages join contacts using (contact_id) left join suppressions using (email_key)""")
    with fresh_engine.connect() as connection:
        (row,) = connection.execute(query)
        assert connection.scalar(text("select count(*) from messages where status = 'complained'")) == len(orders)
    minutes = {number: NOW - timedelta(minutes=50 - number) for number in range(6)}
    assert tuple(row) == (
        "complained", "hard", minutes[1], minutes[3], minutes[2], False, "complaint",
        ["email_bounced", "email_complained", "email_delivered", "unsubscribed"], 1,
    )  # fmt: skip


def make_messages(engine: Engine, people: list[str], provider_ids: list[str]) -> None:
    """A contact and a sent message for each address, in a few statements."""
    with engine.begin() as tx:
        tx.execute(text("""
            with content as (
                insert into message_contents (subject, html_body) values ('S', 'H') returning content_id),
            given as (select * from unnest(:people, :ids) as given (email, provider_id)),
            made as (
                insert into contacts (email, email_key, created_at)
                select email, email, :at - interval '9 days' from given returning contact_id, email)
            insert into messages (contact_id, kind, content_id, dedupe_key, status, due_at, next_try_at, give_up_at,
                sent_at, provider_id)
            select contact_id, 'transactional', content_id, 'tx:' || email, 'sent', :at, :at, :at,
                :at - interval '1 hour', provider_id
            from made join given using (email) cross join content"""),
            {"people": people, "ids": provider_ids, "at": NOW})  # fmt: skip


def test_h6_all_at_once_is_the_same(fresh_engine: Engine, settings: Settings, sent: dict[str, int]) -> None:
    with fresh_engine.begin() as tx:
        for number in range(6):
            tell(tx, one_of_six(number, PROVIDER.format(0), "anna@mail.example"), f"one {number}")
    done = run(fresh_engine, settings)
    assert (done.applied, done.ignored, done.parked) == (6, 0, 0)
    status, reason, *_, suppression, subscribed, events = state(fresh_engine, sent["anna@mail.example"])
    assert (status, reason, suppression, subscribed) == ("complained", "hard", "complaint", False)
    assert events == ("email_bounced", "email_complained", "email_delivered")
    assert state(fresh_engine, sent["ben@mail.example"])[0] == "sent"


@pytest.mark.parametrize("status", ["sending", "queued"])
def test_h6_a_bounce_before_our_own_commit_waits_for_it(fresh_engine: Engine, settings: Settings, status: str) -> None:
    message_id = make_message(fresh_engine, "anna@mail.example", 0, status=status)
    with fresh_engine.begin() as tx:
        tell(tx, sns.ses("Bounce", PROVIDER.format(0), "anna@mail.example"), "early")
    # The lease of the fixture ends an hour later by the clock of the test, not of the database.
    with fresh_engine.begin() as tx:
        assert applying.apply_due(tx, settings, now=NOW).parked == 1
        assert applying.apply_due(tx, settings, now=NOW).taken == 0, "not again at once"
    with fresh_engine.begin() as tx:
        tx.execute(text("update messages set status = 'sent', lease_until = null, sent_at = :at"), {"at": NOW})
    with fresh_engine.begin() as tx:
        assert applying.apply_due(tx, settings, now=NOW + timedelta(minutes=1)).applied == 1
    assert state(fresh_engine, message_id)[0] == "bounced"


def test_evidence_settles_a_doubt(fresh_engine: Engine, settings: Settings) -> None:
    for number, kind in enumerate(("Delivery", "Bounce", "Complaint", "Send", "DeliveryDelay")):
        email = f"person{number}@mail.example"
        message_id = make_message(fresh_engine, email, number, status="unknown")
        with fresh_engine.begin() as tx:
            tell(tx, sns.ses(kind, PROVIDER.format(number), email), f"doubt {number}")
            applied = applying.apply_due(tx, settings, now=NOW)
        assert (applied.applied, applied.settled) == (1, 1)
        expected = {"Delivery": "delivered", "Bounce": "bounced", "Complaint": "complained"}.get(kind, "sent")
        found = state(fresh_engine, message_id)
        assert found[0] == expected and found[5] is not None and "email_sent" in found[-1]
    attempts = "select count(*) from message_attempts where outcome = 'sent'"
    assert count(fresh_engine, attempts) == 5


def test_h7_nobody_knows_this_message(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        tell(tx, sns.ses("Bounce", "0107018a-foreign-a-b-c", "anna@mail.example"), "foreign")
    assert run(fresh_engine, settings).parked == 1
    assert run(fresh_engine, settings, now=NOW + timedelta(days=4)).ignored == 1
    assert count(fresh_engine, "select count(*) from suppressions") == 0
    assert count(fresh_engine, "select count(*) from provider_notices where status = 'ignored'") == 1


def test_h7_a_notice_a_month_later_is_applied(fresh_engine: Engine, settings: Settings) -> None:
    message_id = make_message(fresh_engine, "anna@mail.example", 0, hours_ago=30 * 24)
    with fresh_engine.begin() as tx:
        tell(tx, sns.ses("Complaint", PROVIDER.format(0), "anna@mail.example", at=NOW), "late")
    assert run(fresh_engine, settings).applied == 1
    assert state(fresh_engine, message_id)[0] == "complained"


def test_h8_only_the_messages_own_recipient(fresh_engine: Engine, settings: Settings, sent: dict[str, int]) -> None:
    with fresh_engine.begin() as tx:
        for number, kind in enumerate(("Bounce", "Complaint", "Delivery")):
            tell(tx, sns.ses(kind, PROVIDER.format(1), "anna@mail.example"), f"other {number}")
    assert run(fresh_engine, settings).ignored == 3
    assert [state(fresh_engine, one)[0] for one in sent.values()] == ["sent", "sent"]
    assert count(fresh_engine, "select count(*) from suppressions") == 0


def test_h8_the_address_at_the_time_counts(fresh_engine: Engine, settings: Settings, sent: dict[str, int]) -> None:
    with fresh_engine.begin() as tx:
        tx.execute(text("""update contacts set email = 'new@mail.example', email_key = 'new@mail.example',
            version = version + 1, updated_at = :now where email = 'anna@mail.example'"""),
            {"now": NOW - timedelta(minutes=10)})  # fmt: skip
        tell(tx, sns.ses("Bounce", PROVIDER.format(0), "Anna <ANNA@mail.example>"), "old address")
    assert run(fresh_engine, settings).applied == 1
    with fresh_engine.connect() as connection:
        assert connection.scalars(text("select email_key from suppressions")).all() == ["anna@mail.example"]


def test_h9_a_diagnostic_full_of_tricks(fresh_engine: Engine, settings: Settings, sent: dict[str, int]) -> None:
    nasty = "smtp; 550 5.1.1 <script>alert(1)</script>\x00\x1b[31m\u202e user unknown \ud800" + "x" * 1_000_000
    recipient = {"emailAddress": "anna@mail.example", "diagnosticCode": nasty, "status": "5.1.1"}
    body = sns.ses("Bounce", PROVIDER.format(0), "anna@mail.example", bouncedRecipients=[recipient])
    with fresh_engine.begin() as tx:
        tell(tx, body, "nasty")
    assert run(fresh_engine, settings).applied == 1
    with fresh_engine.connect() as connection:
        shown = connection.scalar(text("select last_error from messages where status = 'bounced'")) or ""
        notes = connection.scalar(text("select notes from suppressions")) or ""
    assert len(shown) <= 500 and shown.isprintable() and "user unknown" in shown
    assert len(notes) <= 500 and notes.isprintable()


ODD: list[Any] = [
    {}, [], 5, None, "text", {"notificationType": None}, {"eventType": 5, "mail": []}, {"notificationType": "Bounce"},
    {"notificationType": "Bounce", "bounce": None, "mail": None}, {"eventType": "Invented", "mail": {"messageId": 1}},
    {"notificationType": "Bounce", "bounce": {"bouncedRecipients": [None, 5, {"emailAddress": None}]}},
    {"notificationType": "Complaint", "complaint": {"complainedRecipients": {}},
     "mail": {"messageId": PROVIDER.format(0)}},
    {"notificationType": "Delivery", "delivery": {"recipients": ["\0", 7], "timestamp": "never"},
     "mail": {"messageId": PROVIDER.format(0), "tags": {"mauto_message": [None]}, "headers": [None, {"name": 5}]}},
    {"notificationType": "Bounce", "bounce": {"bouncedRecipients": [{"emailAddress": "anna@mail.example"}] * 5000,
     "bounceType": [], "timestamp": "9999-12-31T23:59:59Z"}, "mail": {"messageId": "\ud800"}},
]  # fmt: skip


def test_h10_odd_notices_do_nothing(fresh_engine: Engine, settings: Settings, sent: dict[str, int]) -> None:
    with fresh_engine.begin() as tx:
        for number, odd in enumerate(ODD):
            tell(tx, json.dumps(odd), f"odd {number}")
        tell(tx, "no JSON", "odd text")
        tell(tx, "[" * 100_000, "odd depth")
    done = run(fresh_engine, settings)
    assert done.broken == 0 and done.applied == 0
    assert [state(fresh_engine, one)[0] for one in sent.values()] == ["sent", "sent"]
    assert count(fresh_engine, "select count(*) from provider_notices") == len(ODD) + 2


def test_h10_odd_messages_over_http_are_answered(service: LiveService, post: Any) -> None:
    for number, odd in enumerate(ODD):
        answer = post(sns.message(json.dumps(odd), message_id=f"odd {number}"))
        assert answer.json() == {"status": "stored"}, odd
    for body in (b"", b"[]", b"5", b"{", b'{"a": "\\ud800"}', b"\xff"):
        assert post(body).status_code == 422


def test_h10_two_recipients_in_one_notice(fresh_engine: Engine, settings: Settings, sent: dict[str, int]) -> None:
    recipients = [{"emailAddress": email, "status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1 user unknown"}
                  for email in ("ben@mail.example", "anna@mail.example")]  # fmt: skip
    with fresh_engine.begin() as tx:
        tell(tx, sns.ses("Bounce", PROVIDER.format(0), "", bouncedRecipients=recipients), "two")
    run(fresh_engine, settings)
    with fresh_engine.connect() as connection:
        assert connection.scalars(text("select email_key from suppressions")).all() == ["anna@mail.example"]


DSN = b"""Return-Path: <>
Delivered-To: %(to)s
From: MAILER-DAEMON@mx.mail.example
To: %(to)s
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

It could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.mail.example

Final-Recipient: rfc822; %(who)s
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <%(who)s>: user unknown
--b
Content-Type: text/rfc822-headers

From: news@shop.example
To: %(who)s
Message-ID: <%(rfc)s>
Subject: Hello
--b--
"""


def drop(settings: Settings, raw: bytes, name: str = "1.mail") -> Settings:
    """Put a mail into a maildir; returns settings that read it."""
    box = settings.home / "bounces"
    (box / "new").mkdir(parents=True, exist_ok=True)
    (box / "new" / name).write_bytes(raw)
    return replace(settings, bounce_mailbox=str(box))


def test_h11_a_report_without_our_return_path_suppresses_nobody(
    fresh_engine: Engine, settings: Settings, sent: dict[str, int]
) -> None:
    genuine = verp.make(settings, sent["anna@mail.example"], 7)
    forged = [
        b"bounces@shop.example", b"bounces+" + b"0" * 48 + b"@shop.example",
        f"{genuine[:-1]}{'0' if genuine[-1] != '0' else '1'}@shop.example".encode(), b"anna@mail.example",
        f"{verp.make(replace(settings, secret_keys=('another-ring-of-keys-0a1b2c3d4e5',)), 1)}@shop.example".encode(),
    ]  # fmt: skip
    reading = settings
    for number, to in enumerate(forged):
        for rfc in (b"nobody@elsewhere.example", f"{0:032x}@shop.example".encode()):
            mail = DSN % {b"to": to, b"who": b"anna@mail.example", b"rfc": rfc}
            reading = drop(settings, mail, f"{number}-{rfc[:3].decode()}")
    done = run(fresh_engine, reading)
    assert done.mails.stored == 10
    assert count(fresh_engine, "select count(*) from suppressions") == 0, "no proof, no suppression"
    assert state(fresh_engine, sent["ben@mail.example"])[0] == "sent"


def test_a_report_to_our_return_path_bounces_the_message(
    fresh_engine: Engine, settings: Settings, sent: dict[str, int]
) -> None:
    to = f"{verp.make(settings, sent['anna@mail.example'], 7)}@shop.example".encode()
    mail = DSN % {b"to": to, b"who": b"forwarded@elsewhere.example", b"rfc": b"x@y.example"}
    assert run(fresh_engine, drop(settings, mail)).applied == 1
    found = state(fresh_engine, sent["anna@mail.example"])
    assert (found[0], found[1], found[6]) == ("bounced", "hard", "bounce")
    with fresh_engine.connect() as connection:
        assert connection.scalars(text("select email_key from suppressions")).all() == ["anna@mail.example"]


def test_h12_an_old_request_again_is_a_duplicate(service: LiveService, post: Any) -> None:
    message = sns.message("{}", message_id="h12", Timestamp="2025-01-01T00:00:00.000Z")
    assert post(message).json() == {"status": "stored"}
    with service.engine.begin() as tx:
        tx.execute(text("update provider_notices set received_at = received_at - interval '2 hours'"
                        " where external_id = 'h12'"))  # fmt: skip
    assert post(message).json() == {"status": "duplicate"}
    assert noticed(service, "h12") == 1
