"""Group G: what a webhook's URL or receiver may try, against the sender of deliveries.

The same corpus as of the other fetcher (test_g_urls.py); G13 to G15 stand in tests/unit/test_webhook_signing.py.
G17 does not apply: nobody can name headers of deliveries.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohappyeyeballs
import pytest

from mautolib.settings import Settings
from mautolib.webhooks import attempting
from mautolib.webhooks.addresses import Policy
from mautolib.webhooks.attempting import attempt
from mautolib.webhooks.connecting import Gate, Reach, open_session
from mautolib.webhooks.guard import Names
from mautolib.webhooks.model import InHand, Receiver, Reply
from tests.name_server import NameServer, serve_names
from tests.receivers import Answer, receive
from tests.security import test_g_urls
from tests.web_server import Authority, says, serve_web

PUBLIC, OTHER_PUBLIC = "8.8.4.4", "9.9.9.9"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DELIVERY = InHand(1, 1, "msg_1", "test.ping", 0, 0, 1, '{"id": "msg_1"}')


def go(reach: Reach, url: str, times: int = 1) -> list[Reply]:
    """So many attempts, one after another, over one session."""

    async def work() -> list[Reply]:
        gate = Gate(reach)
        receiver = Receiver(endpoint_id=1, url=url, secrets=("secret",))
        async with open_session(gate) as session:
            return [await attempt(session, gate, receiver, DELIVERY, NOW) for _ in range(times)]

    return asyncio.run(work())


def leading_to(*addresses: str) -> Callable[[str], Awaitable[Any]]:
    async def look_up(_: str) -> tuple[Any, ...]:
        return tuple(ip_address(address) for address in addresses)

    return look_up


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every address a connection is begun to, at the level of sockets; none is made."""
    asked: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        # The event loop's own wake-up pair is no connection.
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    yield asked


def led(monkeypatch: pytest.MonkeyPatch, port: int) -> list[Any]:
    """Have every connection end at a port of this machine; returns where they were meant to go."""
    asked, real = [], aiohappyeyeballs.start_connection

    async def lead(addr_infos: Any, **more: Any) -> Any:
        asked.extend(info[4][:2] for info in addr_infos)
        here = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]
        return await real(here, **more)

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", lead)
    return asked


def corpus() -> list[str]:
    """Every hostile URL of test_g_urls.py, as it is written there."""

    def values(function: Any) -> list[str]:
        return [str(value) for value in function.pytestmark[0].args[1]]

    hosts = [*values(test_g_urls.test_g1_spellings_of_this_machine),
             *values(test_g_urls.test_g2_addresses_that_are_not_public),
             *(f"[{six}]" for six in values(test_g_urls.test_g3_addresses_inside_addresses)),
             "[fe80::1%eth0]", "[fe80::1%25eth0]", "fe80::1%eth0"]  # fmt: skip
    spelled = [f"{scheme}://{host}{port}/" for host in hosts for scheme, port in (("http", ""), ("https", ":8443"))]
    others = [*values(test_g_urls.test_g8_only_https), *values(test_g_urls.test_g9_tricks_with_urls)]
    return [url for url in [*spelled, *others] if url not in ("http://shop.example/", "http://evil.example")]


def test_no_hostile_url_reaches_the_canary(canary: list[Any]) -> None:
    urls = corpus()
    assert len(set(urls)) >= 120
    reach = Reach(policy=Policy(allow_http=True), look_up=leading_to(PUBLIC))

    async def all_of_them() -> list[Reply]:
        gate = Gate(reach)
        async with open_session(gate) as session:
            return [
                await attempt(session, gate, Receiver(endpoint_id=1, url=url, secrets=("s",)), DELIVERY, NOW)
                for url in urls
            ]

    replies = asyncio.run(all_of_them())
    assert canary == []
    assert all(reply.response_status == 0 and reply.error for reply in replies)
    assert not [reply.error for reply in replies if re.search(r"[A-Z]\w+Error", reply.error or "")]
    # The canary does sing: a URL that is allowed is connected to.
    assert go(reach, "http://shop.example/")[0].error == "No connection (ConnectionRefusedError)"
    assert canary == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    "address",
    [*test_g_urls.test_g2_addresses_that_are_not_public.pytestmark[0].args[1],
     *test_g_urls.test_g3_addresses_inside_addresses.pytestmark[0].args[1], "127.0.0.1"],
)  # fmt: skip
def test_g4_names_that_lead_inside(address: str, canary: list[Any]) -> None:
    for addresses in ((address,), (PUBLIC, address), (address, PUBLIC)):
        reach = Reach(policy=Policy(), look_up=leading_to(*addresses))
        [reply] = go(reach, "https://shop.example/")
        assert reply.response_status == 0 and "public internet" in (reply.error or "")
    assert canary == []


def test_g5_a_name_is_asked_for_once_an_attempt_and_the_second_answer_never_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Rebinding(NameServer):
        def answer(self, wire: bytes) -> bytes | None:
            reply = super().answer(wire)
            if [kind for _, kind in self.asked].count("A"):
                self.records = {"shop.example": {"A": ("127.0.0.1",)}}
            return reply

    monkeypatch.setattr("mautolib.webhooks.connecting.NAME_SECONDS", 0.2)
    with serve_names(Rebinding({"shop.example": {"A": (PUBLIC,)}})) as server, receive() as receiver:
        asked = led(monkeypatch, receiver.port)
        look_up = Names(servers=(server.address,)).look_up

        async def twice() -> list[Reply]:
            gate = Gate(Reach(policy=Policy(allow_http=True), look_up=look_up))
            to = Receiver(endpoint_id=1, url="http://shop.example/a?b=1", secrets=("s",))
            async with open_session(gate) as session:
                first = await attempt(session, gate, to, DELIVERY, NOW)
                assert server.asked == [("shop.example", "A"), ("shop.example", "AAAA")]
                await asyncio.sleep(0.3)
                # Though a connection is open that could be used.
                return [first, await attempt(session, gate, to, DELIVERY, NOW)]

        first, second = asyncio.run(twice())
    assert (first.response_status, second.response_status) == (204, 0)
    assert "public internet" in (second.error or "")
    assert asked == [(PUBLIC, 80)] and len(receiver.requests) == 1
    assert (receiver.requests[0].path, receiver.requests[0].headers["host"]) == ("/a?b=1", "shop.example")


@pytest.mark.parametrize("case", ["silent", "unknown", "many"])
def test_g6_what_the_dns_may_do(case: str, canary: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mautolib.webhooks.guard.NAME_SECONDS", 0.3)
    server = {
        "silent": NameServer({}, silent=frozenset({"shop.example"})),
        "unknown": NameServer({}),
        "many": NameServer({"shop.example": {"A": tuple(f"8.8.{n // 250}.{n % 250 + 1}" for n in range(2000))}}),
    }[case]
    begun = time.monotonic()
    with serve_names(server):
        reach = Reach(policy=Policy(), look_up=Names(servers=(server.address,)).look_up)
        [reply] = go(reach, "https://shop.example/")
    assert reply.response_status == 0 and time.monotonic() - begun < 3
    assert canary == [] or case == "silent"


def test_g7_redirects_are_answers() -> None:
    with receive() as elsewhere, receive() as receiver:
        receiver.decide = lambda _: Answer("307 Elsewhere", (f"Location: {elsewhere.url}",))
        [reply] = go(receiver.reach(elsewhere), receiver.url)
        assert (reply.response_status, reply.is_success) == (307, False)
        assert (len(receiver.requests), elsewhere.requests) == (1, [])


def test_g10_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with receive() as proxy, receive() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        [reply] = go(receiver.reach(), receiver.url)
        assert reply.is_success and proxy.connections == 0
        assert "authorization" not in receiver.requests[0].headers


# ---- G11: answers that do not end


def from_raw(answer: Callable[[socket.socket, bytes], None]) -> Reply:
    with serve_web(answer) as web:
        policy = Policy(allow_http=True, allowed_hosts=frozenset({f"127.0.0.1:{web.port}"}))
        [reply] = go(Reach(policy=policy, look_up=leading_to()), f"http://127.0.0.1:{web.port}/")
    return reply


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempting, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(attempting, "TOTAL_SECONDS", 1.0)


def test_g11_a_body_without_end_is_cut_off() -> None:
    sent = 0

    def endless(connection: socket.socket, _: bytes) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 65536)

    begun = time.monotonic()
    reply = from_raw(endless)
    assert reply.is_success and reply.response_body == "x" * 1024
    assert sent < 20_000_000 and time.monotonic() - begun < 5


def test_g11_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    reply = from_raw(says("500 Oh", bomb, "Content-Encoding: gzip"))
    assert reply.response_status == 500 and len((reply.response_body or "").encode()) <= 1024
    assert from_raw(says("200 OK", gzip.compress(b"hello"), "Content-Encoding: gzip")).response_body == "hello"
    assert from_raw(says("200 OK", b"no gzip", "Content-Encoding: gzip")).is_success


@pytest.mark.parametrize(
    "line", [b"X-A: " + b"a" * 1000 + b"\r\n", b"a" * 70000, b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["many", "long", "100"],
)  # fmt: skip
def test_g11_a_head_without_end(line: bytes, hasty: None) -> None:
    def endless(connection: socket.socket, _: bytes) -> None:
        if not line.startswith(b"HTTP"):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(line)

    begun = time.monotonic()
    assert from_raw(endless).response_status == 0
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["head", "body"])
def test_g11_a_byte_now_and_then(head: bytes, hasty: None) -> None:
    def slow(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        while True:
            time.sleep(0.05)
            connection.sendall(b"H")

    begun = time.monotonic()
    reply = from_raw(slow)
    assert time.monotonic() - begun < 4
    # A status that came in time means what it says, whatever follows.
    assert reply.response_status == (200 if head else 0)


def test_g12_what_is_kept_of_an_answer_is_short_text() -> None:
    reply = from_raw(says("500 Oh", "ä".encode() * 2000))
    assert (reply.response_body or "") == "ä" * 512
    assert "\0" not in (from_raw(says("500 Oh", b"a\0b\xff")).response_body or "")


def test_g18_this_service_is_not_called_by_itself(canary: list[Any]) -> None:
    reach = Reach.of(Settings(public_base_url="https://mail.shop.example"))
    [reply] = go(reach, "https://mail.shop.example/api/v1/events/")
    assert "itself" in (reply.error or "") and canary == []


def test_g20_a_day_is_the_longest_that_is_waited() -> None:
    assert from_raw(says("429 Slow", b"", "Retry-After: 1000000000")).retry_after_seconds == 86400
    assert from_raw(says("200 OK", b'{"error": "no"}', "Retry-After: 5")).is_success


# ---- TLS


def test_the_certificate_is_checked_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    served = authority.for_server("shop.example")
    with receive(tls=served) as receiver:
        asked = led(monkeypatch, receiver.port)

        def to(host: str, tls: ssl.SSLContext | None) -> Reply:
            return go(Reach(policy=Policy(), look_up=leading_to(PUBLIC), tls=tls), f"https://{host}/")[0]

        assert to("shop.example", authority.trusted()).is_success
        for reply in (to("other.example", authority.trusted()), to("shop.example", None)):
            assert (reply.response_status, reply.error) == (0, "TLS: the certificate was not accepted")
        assert len(receiver.requests) == 1 and asked == [(PUBLIC, 443)] * 3


def test_no_setting_lets_a_delivery_go_to_this_machine(canary: list[Any]) -> None:
    """What tests and the benchmark allow is a `Reach` of their own; of the settings only named hosts open a way."""
    for settings in (Settings(environment="development", demo=True, webhook_allow_http=True), Settings()):
        assert Reach.of(settings).policy.allowed_hosts == frozenset()
        [reply] = go(Reach.of(settings), "http://127.0.0.1:80/")
        assert reply.response_status == 0
    assert canary == []
