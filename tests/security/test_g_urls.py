"""Group G: whatever URL is given, nothing inside this network is reached, and nobody keeps us waiting.

G12 to G17 and G20 are about deliveries of webhooks and stand with them. Of G19, image fetch and import by URL do not
exist here (imports read files and S3); certificates and confirmations of notices are in test_h_feedback.py.
"""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mautolib.errors import MautoError, ProviderUnavailable
from mautolib.settings import Settings
from mautolib.webhooks import guard
from mautolib.webhooks.addresses import Policy, parse_url, refusal_of
from mautolib.webhooks.guard import Fetcher, Names, Refusal
from tests.name_server import NameServer, serve_names
from tests.web_server import Authority, WebServer, says, serve_web

PUBLIC, OTHER_PUBLIC = "8.8.4.4", "9.9.9.9"
HTTP = Policy(allow_http=True)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Every address a connection was asked for; none is made."""
    asked: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], *_: object) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(guard.socket, "create_connection", refuse)
    yield asked


def led(monkeypatch: pytest.MonkeyPatch, server: WebServer) -> list[tuple[str, int]]:
    """Have every connection end at `server`; returns where they were meant to go."""
    asked, real = list[tuple[str, int]](), socket.create_connection

    def lead(address: tuple[str, int], *rest: Any) -> socket.socket:
        asked.append(address)
        return real(("127.0.0.1", server.port), *rest)

    monkeypatch.setattr(guard.socket, "create_connection", lead)
    return asked


def names(**records: tuple[str, ...]) -> NameServer:
    """A name server that knows `host_shop_example="address", ...` as A or AAAA."""
    table = {
        name.replace("_", "."): {
            kind: found
            for kind in ("A", "AAAA")
            if (found := tuple(one for one in values if (":" in one) == (kind == "AAAA")))
        }
        for name, values in records.items()
    }
    return NameServer(table)


def fetcher(server: NameServer, policy: Policy = HTTP, **more: Any) -> Fetcher:
    return Fetcher(policy=policy, look_up=Names(servers=(server.address,)).addresses, **more)


# ---- G1, G2, G3: what is written


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "0", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0x7f.1",
     "①②⑦.⓪.⓪.①", "127。0。0。1", "LOCALHOST", "a.localhost", "127.0.0.1.", "localhost.", "[::]", "router", "x.local",
     "0x", "1.2.3", "256.1.1.1", "1.1.1.1.1"],
)  # fmt: skip
def test_g1_spellings_of_this_machine(host: str, connected: list[Any]) -> None:
    with pytest.raises(Refusal):
        Fetcher(policy=HTTP).fetch(f"http://{host}/")
    assert connected == []


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
     "192.0.0.8", "192.0.0.192", "192.88.99.1", "198.18.0.1", "198.19.255.255", "168.63.129.16", "224.0.0.1",
     "239.1.2.3", "240.0.0.1", "255.255.255.255", "0.1.2.3", "203.0.113.5", "192.0.2.1", "198.51.100.7"],
)  # fmt: skip
def test_g2_addresses_that_are_not_public(address: str, connected: list[Any]) -> None:
    _is_blocked_written_and_resolved(address, address, connected)


@pytest.mark.parametrize(
    "address",
    ["::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::7f00:1", "2002:7f00:1::",
     "2002:a9fe:a9fe::1", "2002:808:808::1", "fec0::1", "fd00:ec2::254", "ff02::1", "3fff::1", "5f00::1", "::",
     "fe80::1", "::1", "2001::1", "2001:db8::1", "2001:20::1", "100::1", "fc00::1", "::ffff:8.8.8.8", "4000::1",
     "::8.8.8.8"],
)  # fmt: skip
def test_g3_addresses_inside_addresses(address: str, connected: list[Any]) -> None:
    _is_blocked_written_and_resolved(f"[{address}]", address, connected)


def test_g3_an_address_with_a_zone() -> None:
    for host in ("[fe80::1%eth0]", "[fe80::1%25eth0]", "fe80::1%eth0"):
        with pytest.raises(MautoError):
            parse_url(f"http://{host}/", HTTP)
    assert refusal_of(ip_address("2606:4700::1%eth0"))


def _is_blocked_written_and_resolved(written: str, address: str, connected: list[Any]) -> None:
    with pytest.raises(Refusal):
        Fetcher(policy=HTTP).fetch(f"http://{written}/")
    with pytest.raises(Refusal):
        Fetcher(policy=HTTP, look_up=lambda _: (ip_address(address),)).fetch("http://shop.example/")
    assert connected == []


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
@hypothesis_settings(max_examples=300, deadline=None, derandomize=True)
def test_what_is_allowed_is_public_by_every_other_account_too(address: Any) -> None:
    if not refusal_of(address):
        assert address.is_global and not (address.is_multicast or address.is_private or address.is_reserved)


@pytest.mark.parametrize("address", ["1.1.1.1", PUBLIC, "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal_of(ip_address(address)) == ""


# ---- G4, G5, G6: what the DNS says


def test_g4_one_bad_address_spoils_the_name(connected: list[Any]) -> None:
    for bad in ("127.0.0.1", "::1"):
        with serve_names(names(shop_example=(PUBLIC, bad))) as server, pytest.raises(Refusal):
            fetcher(server).fetch("http://shop.example/")
    assert connected == []


def test_g5_a_name_is_asked_for_once_and_the_second_answer_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rebinding(NameServer):
        def answer(self, wire: bytes) -> bytes | None:
            reply = super().answer(wire)
            if [kind for _, kind in self.asked].count("A"):
                self.records = {"shop.example": {"A": ("127.0.0.1",)}}
            return reply

    records = {"shop.example": {"A": (PUBLIC,)}}
    with serve_names(Rebinding(records)) as server, serve_web(says("200 OK", b"hello")) as web:
        asked = led(monkeypatch, web)
        answer = fetcher(server).fetch("http://shop.example/a?b=1")
        assert (answer.status, answer.body) == (200, b"hello")
        assert asked == [(PUBLIC, 80)]
        assert server.asked == [("shop.example", "A"), ("shop.example", "AAAA")]
        assert web.requests[0].startswith(b"GET /a?b=1 HTTP/1.1\r\nHost: shop.example\r\n")
        with pytest.raises(Refusal):
            fetcher(server).fetch("http://shop.example/")
        assert asked == [(PUBLIC, 80)], "the private address was never connected to"


def test_g6_a_chain_of_names_that_ends_inside(connected: list[Any]) -> None:
    class Chain(NameServer):
        def answer(self, wire: bytes) -> bytes | None:
            query = dns.message.from_wire(wire)
            reply = dns.message.make_response(query)
            for name, kind, value in (("shop.example.", "CNAME", "cdn.example."), ("cdn.example.", "A", "10.0.0.7")):
                reply.answer.append(dns.rrset.from_text(name, 60, "IN", kind, value))
            return reply.to_wire()

    with serve_names(Chain({})) as server, pytest.raises(Refusal):
        fetcher(server).fetch("http://shop.example/")
    assert connected == []


def test_g6_a_name_with_two_thousand_addresses(connected: list[Any]) -> None:
    many = tuple(f"8.8.{n // 250}.{n % 250 + 1}" for n in range(2000))
    with serve_names(names(shop_example=many)) as server, pytest.raises(Refusal, match="too many"):
        fetcher(server).fetch("http://shop.example/")
    assert connected == []


def test_g6_a_name_server_that_keeps_silent(connected: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "NAME_SECONDS", 0.3)
    silent = NameServer({}, silent=frozenset({"shop.example"}))
    begun = time.monotonic()
    with serve_names(silent) as server, pytest.raises(ProviderUnavailable):
        fetcher(server).fetch("http://shop.example/")
    assert time.monotonic() - begun < 1.5 and connected == []


def test_a_name_that_does_not_exist_is_refused() -> None:
    with serve_names(names()) as server, pytest.raises(Refusal):
        fetcher(server).fetch("http://nobody.example/")


# ---- G7: redirects


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_g7_redirects_are_answers(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = "Location: http://169.254.169.254/latest/meta-data/"
    with serve_names(names(shop_example=(PUBLIC,))) as server, serve_web(says(status, b"", elsewhere)) as web:
        asked = led(monkeypatch, web)
        assert fetcher(server).fetch("http://shop.example/").status == int(status[:3])
        assert len(asked) == len(web.requests) == 1


# ---- G8, G9: what counts as a URL


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "gopher://shop.example/", "ftp://shop.example/", "unix:/run/x.sock", "data:text/plain,x",
     "http+unix://%2Frun%2Fx.sock/", "http://shop.example/", "//shop.example/", "shop.example", "", "https:///x"],
)  # fmt: skip
def test_g8_only_https(url: str, connected: list[Any]) -> None:
    with pytest.raises(Refusal):
        Fetcher(policy=Policy()).fetch(url)
    assert connected == []


@pytest.mark.parametrize(
    "url",
    ["http://a@127.0.0.1:80@evil/", "http://evil\\@127.0.0.1/", "http://evil#@127.0.0.1/", "http://evil.example#x",
     "http://user:pass@shop.example/", "http://@shop.example/", "http://shop.example\t/", "http://shop.exa\nmple/",
     "http://shop.example /", " http://shop.example/", "http://shop.example/\r\nX: y", "http://shop.example:0/",
     "http://shop.example:22/", "http://shop.example:25/", "http://shop.example:5432/", "http://shop.example:99999/",
     "http://shop.example:/", "http://shop.example:+80/", "http://shop.example:80:80/", "http://[::1/",
     "http://shop.example%00.evil/", "http://shop%2eexample/", "http://sh\u200bop.exa\u00admple\0/", "http://shop..example/",
     "http://-shop.example/", "http://shop.example/\x7f", "http://shop.example/é", "http://" + "a" * 254 + ".example/",
     "http://shop.example/" + "a" * 2048],
)  # fmt: skip
def test_g9_tricks_with_urls(url: str, connected: list[Any]) -> None:
    with pytest.raises(Refusal):
        Fetcher(policy=HTTP, look_up=lambda _: (ip_address(PUBLIC),)).fetch(url)
    assert connected == []


@given(st.text(alphabet=st.sampled_from("aA.-:/@\\#?%[]1270x。① \t\n\0"), max_size=30))
@hypothesis_settings(max_examples=500, deadline=None, derandomize=True)
def test_g9_one_reading_for_check_and_connection(rest: str) -> None:
    """Whatever is accepted goes to the host that was checked: nothing else is in the parts that are used."""
    try:
        target = parse_url(f"http://{rest}", HTTP)
    except MautoError:
        return
    assert not set(target.host) & set("@/\\#?%[] \t\n\0") and target.host.isascii()
    assert target.path.startswith("/") and target.path.isascii() and not set(target.path) & set("#\\ \t\n\0")
    assert target.port in (80, 443, 8443)
    assert target.literal is None or refusal_of(target.literal) == ""


def test_ports_and_hosts_that_are_configured() -> None:
    policy = Policy(allowed_hosts=frozenset({"erp.internal:9000", "crm.internal", "10.0.0.9"}))
    assert parse_url("https://ERP.internal:9000/x", policy).port == 9000
    assert parse_url("https://crm.internal/x", policy).is_exempt
    assert parse_url("https://10.0.0.9/x", policy).is_exempt
    for url in ("https://erp.internal/", "https://crm.internal:9000/", "https://10.0.0.8/"):
        with pytest.raises(MautoError):
            parse_url(url, policy)


def test_settings_make_the_policy(settings: Settings) -> None:
    made = Settings(webhook_allow_http=True, webhook_allowed_hosts=("ERP.internal:9000",))
    policy = Policy.of(made)
    assert policy.allow_http and parse_url("http://erp.internal:9000/", policy).scheme == "http"
    assert Policy.of(settings).own_hosts == {"127.0.0.1"}


def test_g18_this_service_is_not_called_by_itself() -> None:
    policy = Policy.of(Settings(public_base_url="https://mail.shop.example"))
    with pytest.raises(MautoError, match="itself"):
        parse_url("https://MAIL.shop.example/api/v1/events/", policy)


# ---- G10: proxies


def test_g10_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_web(says("200 OK", b"proxy")) as proxy, serve_web(says("200 OK", b"shop")) as web:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        with serve_names(names(shop_example=(PUBLIC,))) as server:
            asked = led(monkeypatch, web)
            assert fetcher(server).fetch("http://shop.example/").body == b"shop"
        assert proxy.requests == [] and asked == [(PUBLIC, 80)]


# ---- G11: answers that do not end


def _fetch_from(answer: Callable[[socket.socket, bytes], None], **limits: Any) -> Any:
    with serve_web(answer) as web:
        policy = Policy(allow_http=True, allowed_hosts=frozenset({f"127.0.0.1:{web.port}"}))
        return Fetcher(policy=policy).fetch(f"http://127.0.0.1:{web.port}/", **limits)


def test_g11_a_body_without_end_is_cut_off() -> None:
    sent = 0

    def endless(connection: socket.socket, _: bytes) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 65536)

    answer = _fetch_from(endless)
    assert (len(answer.body), answer.is_whole) == (65536, False)
    assert sent < 20_000_000


def test_g11_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    answer = _fetch_from(says("200 OK", bomb, "Content-Encoding: gzip"))
    assert (len(answer.body), answer.is_whole) == (65536, False)
    small = _fetch_from(says("200 OK", gzip.compress(b"hello"), "Content-Encoding: gzip"))
    assert (small.body, small.is_whole) == (b"hello", True)
    for coding, body in (("br", b"x"), ("gzip", b"no gzip")):
        with pytest.raises(ProviderUnavailable):
            _fetch_from(says("200 OK", body, f"Content-Encoding: {coding}"))


@pytest.mark.parametrize(
    "line", [b"X-A: " + b"a" * 1000 + b"\r\n", b"a" * 70000, b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["many", "long", "100"],
)  # fmt: skip
def test_g11_a_head_without_end(line: bytes) -> None:
    def endless(connection: socket.socket, _: bytes) -> None:
        if not line.startswith(b"HTTP"):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(line)

    begun = time.monotonic()
    with pytest.raises(ProviderUnavailable):
        _fetch_from(endless, total_seconds=1.0)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["head", "body"])
def test_g11_a_byte_now_and_then(head: bytes) -> None:
    done = threading.Event()

    def slow(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        while not done.wait(0.05):
            connection.sendall(b"H")

    begun = time.monotonic()
    with pytest.raises(ProviderUnavailable):
        _fetch_from(slow, total_seconds=0.6)
    done.set()
    assert 0.5 < time.monotonic() - begun < 2


# ---- TLS: the name is kept


def test_the_certificate_is_checked_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    served = authority.for_server("shop.example")
    records = names(shop_example=(PUBLIC,), other_example=(OTHER_PUBLIC,))
    with serve_names(records) as server, serve_web(says("200 OK", b"hello"), tls=served) as web:
        asked = led(monkeypatch, web)
        trusting = fetcher(server, Policy(), tls=authority.trusted())
        assert trusting.fetch("https://shop.example/").body == b"hello"
        with pytest.raises(ProviderUnavailable):
            trusting.fetch("https://other.example/")
        with pytest.raises(ProviderUnavailable):
            fetcher(server, Policy()).fetch("https://shop.example/")
        assert asked == [(PUBLIC, 443), (OTHER_PUBLIC, 443), (PUBLIC, 443)] and len(web.requests) == 1
