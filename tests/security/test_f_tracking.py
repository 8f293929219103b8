"""Tracking, redirect, unsubscribe under attack (group F).

F14 does not apply: there is one list, and leaving it is leaving all. A wrong token (F1, F2) is kept as a raw hit with
the verdict `invalid`, joined to nobody and capped, as the contract says; a missing one leaves nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from urllib.parse import quote, urlsplit

import httpx
import pytest
from sqlalchemy import text

from api.tracking import GIF, TrackingApp
from api.tracking_limits import Bursts, WrongLinks
from mautolib.classification.hit_verdicts import BURST
from mautolib.events.links import LinkSigner
from mautolib.templates.links import find_links
from tests.security.test_e_messages import blueprint, claimed
from tests.tracked import BROWSER, Tracking, not_here, path_of, running_tracking, tracked, tracking

__all__ = ["running_tracking", "tracking"]

EVIL = [
    "https://evil.example", "//evil.example", "/\\evil.example", "https:evil.example", "javascript:alert(1)",
    "https://shop.example@evil.example/", "http://evil.example/\r\nSet-Cookie: a=b", "vbscript:x", "\tjavascript:x",
    "https://evil.example/\x00", "data:text/html;base64,PHNjcmlwdD4=", "https:/\\evil.example", "file:///etc/passwd",
]  # fmt: skip
SHOP = "https://shop.example/sale"


def _effects(tracking: Tracking) -> tuple[int, int, int]:
    joined = tracking.count("hits", "contact_id <> 0 or message_id is not null or campaign_id is not null")
    return joined, tracking.count("events"), tracking.count("suppressions")


@pytest.mark.parametrize("url", EVIL)
def test_f1_no_address_of_an_attacker_is_redirected_to(tracking: Tracking, url: str) -> None:
    contact_id = tracking.contact()
    foreign = path_of(tracking.links(contact_id).click(SHOP)).split("s=")[1]
    for s in ("", f"&s={foreign}", "&s=" + "A" * 41):
        answer = tracking.client.get(f"/api/v1/track/click/7/{contact_id}?url={quote(url, safe='')}{s}")
        assert answer.status_code in (200, 400)
        assert "location" not in answer.headers
        assert "set-cookie" not in answer.headers
    assert _effects(tracking) == (0, 0, 0)


def test_f2_a_damaged_token_is_no_token(tracking: Tracking) -> None:
    contact_id = tracking.contact()
    links = tracking.links(contact_id)
    base, s = path_of(links.click(SHOP)).split("&s=")
    other = path_of(links.open()).split("s=")[1]
    damaged = [
        s[:-2], s[:20], s[:10] + "!" + s[11:], ("A" if s[0] != "A" else "B") + s[1:], other, "x" * 10_000, "%00",
        s[:20] + "%00" + s[21:], "%FF%FE", "", s.swapcase(), quote("ü" * 41),
    ]  # fmt: skip
    for wrong in damaged:
        began = time.perf_counter()
        answer = tracking.client.get(f"{base}&s={wrong}")
        assert time.perf_counter() - began < 5
        assert (answer.status_code, "location" in answer.headers) == (200, False)
    assert _effects(tracking) == (0, 0, 0)
    assert tracking.client.get(f"{base}&s={s}").status_code == 302


def test_f2_a_wrong_link_is_kept_but_joined_to_nobody(tracking: Tracking) -> None:
    contact_id = tracking.contact()
    tracking.client.get(f"/api/v1/track/open/7/{contact_id}?s=" + "A" * 41)
    tracking.client.get(path_of(tracking.links(contact_id).open()))  # written after it, so it is there too
    kept = tracking.rows("select verdict, contact_id, campaign_id, message_id, url from hits join hit_verdicts "
                         "using (hit_id) where verdict = 'invalid'")  # fmt: skip
    assert kept == [("invalid", 0, None, None, None)]


def test_f3_links_of_erased_people_lead_on_and_record_nothing_personal(tracking: Tracking) -> None:
    contact_id = tracking.contact()
    links = tracking.links(contact_id, message_id=12)
    with tracking.engine.begin() as tx:
        tx.execute(text("delete from contacts"))
    assert tracking.client.get(path_of(links.click(SHOP))).headers["location"] == SHOP
    assert tracking.client.post(path_of(links.unsubscribe())).status_code == 200
    kept = tracking.rows("select distinct contact_id, user_agent, network, message_id from hits")
    assert kept == [(0, "", "", 12)]
    assert tracking.count("events") == 0


@pytest.mark.parametrize(
    "user_agent", ["x" * 60_000, "<script>alert(1)</script>", "\u202e evil ü".encode(), b"\xff\xfe"]
)
def test_f5_any_user_agent_gets_the_pixel_and_is_cut(tracking: Tracking, user_agent: str | bytes) -> None:
    path = path_of(tracking.links(tracking.contact()).open())
    answer = tracking.client.get(path, headers={"User-Agent": user_agent, "X-Forwarded-For": "203.0.113.9"})
    assert (answer.status_code, answer.content) == (200, GIF)
    kept, network = tracking.rows("select user_agent, network from hits")[0]
    given = user_agent.decode("utf-8", "replace") if isinstance(user_agent, bytes) else user_agent
    assert kept == given[:512]
    # What a caller says about its address is not believed.
    assert network == "127.0.0.0/24"


def test_f6_machines_are_recorded_as_machines(tracking: Tracking) -> None:
    path = path_of(tracking.links(tracking.contact(), message_id=5).open())
    tracking.client.head(path)
    for header in ("Purpose", "Sec-Purpose", "X-Purpose", "X-Moz"):
        tracking.client.get(path, headers={header: "prefetch"})
    verdicts = tracking.rows("select verdict, count(*) from hit_verdicts group by verdict")
    assert verdicts == [("prefetch", 5)]
    assert tracking.count("events") == 0


def test_f6_a_burst_at_delivery_is_no_reader(tracking: Tracking) -> None:
    fresh = tracking.links(tracking.contact(), message_id=6, age_seconds=0)
    began = time.monotonic()
    for _ in range(10):
        tracking.client.get(path_of(fresh.open()))
        if time.monotonic() - began > 0.9:
            break
    assert tracking.count("hit_verdicts", "verdict = 'human'") == 0
    later = tracking.links(tracking.contact(), message_id=7)
    for _ in range(10):
        tracking.client.get(path_of(later.open()))
    humans = tracking.rows("select count(*), count(distinct message_id) from hits join hit_verdicts using (hit_id) "
                           "where verdict = 'human'")[0]  # fmt: skip
    assert tuple(humans)[1] == 1
    assert humans[0] <= 2 * BURST


def test_f7_a_thousand_opens_at_once_are_one_reader(tracking: Tracking) -> None:
    path = path_of(tracking.links(tracking.contact(), message_id=8).open())

    url = httpx.URL(str(tracking.client.base_url))
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: {BROWSER}\r\n\r\n".encode()

    async def reader_of(times: int) -> None:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        for _ in range(times):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(43) == GIF
        writer.close()
        await writer.wait_closed()

    async def storm() -> None:
        await asyncio.gather(*(reader_of(10) for _ in range(100)))

    asyncio.run(storm())
    assert tracking.count("hits") == 1000
    assert tracking.rows("select count(distinct message_id) from hits join hit_verdicts using (hit_id) "
                         "where verdict = 'human'") == [(1,)]  # fmt: skip
    assert tracking.count("events") == tracking.count("hit_verdicts", "verdict = 'human'")


def test_f8_looking_at_the_page_changes_nothing(tracking: Tracking) -> None:
    path = path_of(tracking.links(tracking.contact()).unsubscribe())
    for _ in range(3):
        assert tracking.client.get(path).status_code == 200
        assert tracking.client.head(path).status_code == 200
    assert tracking.rows("select subscribed, version from contacts") == [(True, 1)]
    assert _effects(tracking) == (0, 0, 0)


@pytest.mark.parametrize("body", [
    {"content": b"List-Unsubscribe=One-Click", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
    {"content": b"List-Unsubscribe=One-Click", "headers": {"Content-Type": ""}},
    {"files": {"List-Unsubscribe": (None, "One-Click")}},
], ids=["form", "bare", "multipart"])  # fmt: skip
def test_f9_one_click_works_for_a_mail_provider(tracking: Tracking, body: dict[str, object]) -> None:
    url = tracking.links(tracking.contact(email="bo@shop.example")).unsubscribe()
    with httpx.Client(base_url=tracking.client.base_url, trust_env=False, headers={"User-Agent": ""}) as provider:
        answer = provider.post(path_of(url), **body)  # type: ignore[arg-type]
    assert (answer.status_code, answer.history, "set-cookie" in answer.headers) == (200, [], False)
    assert tracking.rows("select email_key from suppressions") == [("bo@shop.example",)]
    assert tracking.rows("select subscribed from contacts") == [(False,)]


def test_f10_many_requests_are_one_unsubscription(tracking: Tracking) -> None:
    path = path_of(tracking.links(tracking.contact()).unsubscribe())

    async def storm() -> list[int]:
        url = str(tracking.client.base_url)
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            posts = (client.post(path, data={"List-Unsubscribe": "One-Click"}) for _ in range(200))
            return [answer.status_code for answer in await asyncio.gather(*posts)]

    assert asyncio.run(storm()) == [200] * 200
    assert (tracking.count("suppressions"), tracking.count("events"), tracking.count("consents")) == (1, 1, 1)
    with tracking.engine.begin() as tx:
        tx.execute(text("delete from contacts"))
    assert tracking.client.post(path).status_code == 200
    assert (tracking.count("suppressions"), tracking.count("events")) == (1, 1)


@pytest.mark.parametrize("body", [
    {"json": {"List-Unsubscribe": "One-Click"}}, {"data": {"List-Unsubscribe": "Two-Click"}}, {"data": {"a": "b"}},
    {"content": b"\xff\xfe\x00", "headers": {"Content-Type": "text/plain"}},
    {"content": b"--x\r\nnonsense", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
    {"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}},
])  # fmt: skip
def test_f11_another_body_changes_nothing(tracking: Tracking, body: dict[str, object]) -> None:
    path = path_of(tracking.links(tracking.contact()).unsubscribe())
    assert tracking.client.post(path, **body).status_code == 200  # type: ignore[arg-type]
    told = {"Accept": "application/json", **body.get("headers", {})}  # type: ignore[dict-item]
    answer = tracking.client.post(path, **{**body, "headers": told})  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert _effects(tracking) == (0, 0, 0)


def test_f12_who_guesses_is_told_to_wait(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WrongLinks, "ASKED_PER_MINUTE", 20)
    statuses = set()
    with tracked(dataclasses.replace(tracking.settings)) as client:
        for number in range(60):
            answer = client.get(f"/api/v1/track/click/7/1?url=https%3A%2F%2Fx.example&s={number:040d}0")
            statuses.add(answer.status_code)
        assert statuses == {200, 429}
        assert (answer.json()["code"], answer.headers["Retry-After"]) == ("rate_limited", "60")
        # Genuine links of the same network go on working, and the pixel is the pixel.
        assert client.get(path_of(tracking.links(1).click(SHOP))).status_code == 302
        assert client.get("/api/v1/track/open/7/1?s=" + "A" * 41).content == GIF


def test_f12_what_is_kept_of_guesses_is_capped() -> None:
    limits = WrongLinks()
    kept = [limits.count(f"10.0.{n}.0/24", 60.0 + n / 100)[0] for n in range(1000)]
    assert sum(kept) == WrongLinks.KEPT_PER_MINUTE
    assert limits.count("10.0.0.0/24", 121.0) == (True, True)


def test_f12_memory_of_networks_and_bursts_is_bounded() -> None:
    bursts, limits = Bursts(), WrongLinks()
    for n in range(50_000):
        bursts.count((n, ""), 1.0)
        limits.count(str(n), 1.0)
    assert len(bursts._now) == 20_000
    assert len(limits._asked) == 20_000
    assert [bursts.count((2, ""), at) for at in (20.0, 20.4, 20.6, 21.2, 22.2)] == [0, 1, 2, 1, 0]


def test_f13_a_link_tells_nothing_about_the_person(tracking: Tracking) -> None:
    contact_id = tracking.contact(email="carla@shop.example", first_name="Carla")
    links = tracking.links(contact_id, campaign_id=31337, message_id=424242)
    for url in (links.open(), links.click(SHOP), links.unsubscribe()):
        assert not any(word in url for word in ("carla", "31337", "424242"))
        cid, uid = urlsplit(url).path.split("/")[-2:]
        assert not cid.isdigit()
        assert not uid.isdigit()
        answer = tracking.client.get(path_of(url))
        assert "carla" not in answer.text.lower()
        assert (answer.headers["Referrer-Policy"], answer.headers["Cache-Control"]) == ("no-referrer", "no-store")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", " javascript:x",
                                 "data:text/html,x", "file:///etc/passwd", "vbscript:x", "//evil.example"])  # fmt: skip
def test_f4_an_address_from_contact_data_cannot_be_a_script(tracking: Tracking, url: str) -> None:
    html = "<a href='{{ contact.custom_fields.shop }}'>a</a><img src='{{ contact.custom_fields.shop }}'>"
    made = blueprint(tracking.settings, html_body=html).write(claimed(custom_fields={"shop": url}), datetime.now(UTC))
    part = message_from_bytes(made.data, policy=default).get_body(("html",))
    assert part is not None
    links = [link.url for link in find_links(part.get_content())]
    assert len(links) >= 2
    for link in links:
        assert link in ("", "#", "//evil.example") or link.startswith(("http://", "https://")), link
    for scheme in ("javascript:", "data:text", "file:", "vbscript:"):
        assert f'="{scheme}' not in part.get_content().lower() and f"='{scheme}" not in part.get_content().lower()


def test_f15_a_link_of_last_year_works_with_the_key_of_then(tracking: Tracking) -> None:
    """CAN-SPAM asks for 30 days, CASL for 60; here a key is turned in between, and 400 days are over."""
    contact_id = tracking.contact(email="bo@shop.example")
    old = tracking.links(contact_id, age_seconds=400 * 86_400)
    keys = ("f3a9c0d17be2465890acbd3714e65f28", *tracking.settings.secret_keys)
    with tracked(dataclasses.replace(tracking.settings, secret_keys=keys)) as client:
        assert client.get(path_of(old.click(SHOP))).headers["location"] == SHOP
        assert client.post(path_of(old.unsubscribe()), data={"List-Unsubscribe": "One-Click"}).status_code == 200
    assert tracking.rows("select email_key, reason from suppressions") == [("bo@shop.example", "unsubscribe")]
    assert tracking.rows("select subscribed from contacts") == [(False,)]


def test_f16_a_link_that_mail_programs_bent_still_works(tracking: Tracking) -> None:
    path = path_of(tracking.links(tracking.contact()).click("https://shop.example/a+b?x=1&y=2#z"))
    front, back = path.split("?")
    url, s = back.split("&")
    bent = [
        f"{front}?{url}&amp;{s}", f"{front}?{s}&{url}", f"{front}/?{url}&{s}&utm_source=gateway",
        f"{path}.", f"{path}=", f"{path}%0D%0A", path.replace("%2F", "%2f").replace("%3A", "%3a"),
        path.replace("%2B", "+"), path.replace("https%3A%2F%2Fshop", "https://shop"),
    ]  # fmt: skip
    for one in bent:
        assert tracking.client.get(one).headers.get("location") == "https://shop.example/a+b?x=1&y=2#z", one


def test_f17_nothing_gets_into_the_header(tracking: Tracking) -> None:
    contact_id = tracking.contact()
    port = httpx.URL(str(tracking.client.base_url)).port
    target = path_of(tracking.links(contact_id).click("https://shop.example/ü?q=%0d%0aSet-Cookie:%20a=b"))
    raw = [
        target, f"/api/v1/track/click/7/{contact_id}%0d%0aX: y?url=https://x.example/",
        "/api/v1/track/click/7/1?url=https://x.example/%0d%0aSet-Cookie:%20a=b",
    ]  # fmt: skip
    for path in raw:
        with socket.create_connection(("127.0.0.1", port or 0)) as wire:
            request = f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            wire.sendall((request + "X-Request-ID: a\tb\r\n\r\n").encode())
            head = b""
            while block := wire.recv(65536):
                head += block
        names = {line.split(b":")[0].lower() for line in head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]}
        assert not names & {b"set-cookie", b"x"}
        if path == target:
            assert b"location: https://shop.example/%C3%BC?q=%0d%0aSet-Cookie:%20a=b\r\n" in head


def test_the_comparison_takes_constant_time() -> None:
    import inspect

    assert "compare_digest" in inspect.getsource(LinkSigner.verify)


def test_a_slow_body_is_not_waited_for(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.tracking_requests._BODY_SECONDS", 0.2)
    app, sent = TrackingApp(not_here, tracking.settings), []

    async def never() -> dict[str, object]:
        await asyncio.sleep(30)
        return {"type": "http.request"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def ask() -> None:
        scope = {"type": "http", "method": "POST", "path": "/api/v1/track/unsubscribe/7/1", "query_string": b"",
                 "headers": [], "client": None}  # fmt: skip
        await app(scope, never, send)  # type: ignore[arg-type]
        await app.stop()

    asyncio.run(ask())
    assert sent[0]["status"] == 408
