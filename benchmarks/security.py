"""Timings under attack: what must not take long, and what must take equally long whatever is true.

The real service in a process of its own, on this machine. Each line is one case of the security tests (the letter is
its group, tests/security/test_<letter>_*.py): what was measured, the bound, and whether it held. Ends with an error if
one did not. Other work on the machine disturbs it: run it alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from sqlalchemy import Engine, text
from starlette.requests import Request

from api.paging import make_cursor
from benchmarks.ground.measuring import finish
from benchmarks.ground.patterns import every_pattern, slowest_milliseconds
from mautolib.db.engine import connect
from mautolib.db.localpg import temporary_cluster
from mautolib.db.migrate import migrate
from mautolib.events.links import LinkSigner, MessageLinks, Owner
from tests.fuzz.server import running
from tests.live_service import PASSWORD, VIEWER, LiveService, live_settings, make_users

V1 = "/api/v1"
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}


@dataclass
class Target:
    """The service under attack."""

    service: LiveService
    process_id: int
    contacts: int
    results: list[tuple[str, str, float, float, str]] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        """Its database, as the owner."""
        return self.service.engine

    def held(self, case: str, what: str, value: float, bound: float, unit: str = "ms") -> None:
        """Note one measured value and its upper bound, and print it."""
        self.results.append((case, what, value, bound, unit))
        mark = "" if value <= bound else "   <-- OVER"
        sys.stdout.write(f"{case:<5}{what:<74}{value:10,.1f} {unit:<4} (<= {bound:,.0f}){mark}\n")
        sys.stdout.flush()

    @property
    def address(self) -> tuple[str, int]:
        """Where its socket listens."""
        parts = urlsplit(self.service.url)
        return parts.hostname or "", parts.port or 0


def timed(call: Callable[[], httpx.Response]) -> tuple[float, httpx.Response]:
    """Milliseconds and answer of a call."""
    began = time.perf_counter()
    answer = call()
    return (time.perf_counter() - began) * 1000, answer


def must(is_true: bool, what: str) -> None:
    """End when what was timed did not do what it should."""
    if not is_true:
        raise SystemExit(f"not as it should be: {what}")


def a15_known_and_unknown_users(target: Target) -> None:
    """200 pairs of wrong passwords: the medians of known and unknown users differ by less than 10 %."""
    took: dict[str, list[float]] = {VIEWER: [], "nobody@shop.example": []}
    with target.service.client() as client:
        for number in range(200):
            if number % 4 == 0:
                with target.engine.begin() as tx:
                    tx.execute(text("delete from sign_in_failures"))
            for email in sorted(took, reverse=bool(number % 2)):
                body = {"email": email, "password": f"wrong {number}"}
                milliseconds, answer = timed(lambda body=body: client.post(f"{V1}/auth/login", json=body))  # type: ignore[misc]
                must(answer.status_code == 401, answer.text)
                took[email].append(milliseconds)
    known, unknown = (statistics.median(values) for values in took.values())
    difference = abs(known / unknown - 1) * 100
    target.held("A15", f"known {known:.1f} ms, unknown {unknown:.1f} ms: difference", difference, 10, "%")


def a18_parallel_sign_ins(target: Target) -> None:
    """50 sign-ins at once: memory stays bounded, because hashing waits for its turn."""
    before = memory(target.process_id, "VmRSS")
    with target.service.client(limits=httpx.Limits(max_connections=50)) as client, ThreadPoolExecutor(50) as pool:
        client.timeout = 60
        body = {"email": VIEWER, "password": PASSWORD}
        codes = set(pool.map(lambda _: client.post(f"{V1}/auth/login", json=body).status_code, range(50)))
    must(codes == {200}, f"sign-ins answered {codes}")
    grown = memory(target.process_id, "VmHWM") - before
    target.held("A18", "50 sign-ins at once: the process grew by", grown, 300, "MiB")


def memory(process_id: int, name: str) -> float:
    """MiB of a process: `VmRSS` now, `VmHWM` the most ever."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def c3_a_sort_that_sleeps(target: Target) -> None:
    """What looks like an order of a list is no part of a statement."""
    with target.service.client("viewer") as client:
        client.get(f"{V1}/tags/")
        sort = {"sort": "name, (select pg_sleep(5))", "order": "asc; select pg_sleep(5)"}
        milliseconds, answer = timed(lambda: client.get(f"{V1}/tags/", params=sort))
    must(answer.status_code in (200, 422), answer.text)
    target.held("C3", "a list sorted by `(select pg_sleep(5))`", milliseconds, 200)


def d4_expensive_templates(target: Target) -> None:
    """Templates that would run for minutes or fill the memory are refused soon, and the service lives."""
    hungry = [
        "{{ 'a' * 10**9 }}", "{{ 'a'.center(10**9) }}", "{{ '%1000000000d'|format(1) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}",
        "{{ ('x' * 99999)|wordwrap(1) * 99 }}", "{{ lipsum(n=10**6) }}",
    ]  # fmt: skip
    with target.service.client("editor") as client:
        worst = 0.0
        for number, body in enumerate(hungry):
            made = client.post(f"{V1}/templates/", json={"name": f"hungry {number}", "subject": "s", "html_body": body})
            path = f"{V1}/templates/{made.json()['id']}/render"
            milliseconds, answer = timed(lambda path=path: client.post(path, json={}))  # type: ignore[misc]
            must(answer.status_code in (200, 400) and len(answer.content) < 2**21, f"{body}: {answer.text[:200]}")
            worst = max(worst, milliseconds)
        healthy, _ = timed(lambda: client.get("/health"))
    target.held("D4", f"the slowest of {len(hungry)} hungry templates", worst, 2000)
    target.held("D4", "a sign of life right after them", healthy, 200)


def links_of(target: Target, message_id: int) -> MessageLinks:
    """The links of one message to the first contact, rendered two hours ago."""
    signer, made_at = LinkSigner.from_settings(target.service.settings), datetime.now(UTC) - timedelta(hours=2)
    return MessageLinks(signer, Owner.of(campaign_id=1), 1, message_id, made_at)


def f2_wrong_links(target: Target) -> None:
    """A wrong token costs little, however it is wrong."""
    right = links_of(target, 1).click("https://shop.example/")
    path = right[len(target.service.settings.public_base_url) :]
    s = path.rpartition("s=")[2]
    wrong = [s[:-1], s[::-1], "x" * 10_000, "%00", s + "%00", ""] * 50
    with target.service.client() as client:
        client.get("/health")
        took = sorted(timed(lambda bad=bad: client.get(path.replace(s, bad)))[0] for bad in wrong)  # type: ignore[misc]
    target.held("F2", f"{len(wrong)} links with a wrong token: p99", took[int(len(took) * 0.99)], 50)


def f7_a_thousand_opens(target: Target) -> None:
    """1,000 opens of one token over 100 connections are one reader."""
    link = links_of(target, 7).open()[len(target.service.settings.public_base_url) :]
    request = f"GET {link} HTTP/1.1\r\nHost: x\r\nUser-Agent: {BROWSER['User-Agent']}\r\n\r\n".encode()
    took: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*target.address)
        for _ in range(10):
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(43)
            must(head.startswith(b"HTTP/1.1 200"), str(head))
            took.append((time.perf_counter() - began) * 1000)
        writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(100)))

    asyncio.run(all_of_them())
    with target.engine.connect() as connection:
        query = "select count(*), count(distinct contact_id) from events where event_type = 'email_opened'"
        opens, readers = connection.execute(text(f"{query} and message_id = 7")).one()
    must(opens < 10 and readers <= 1, f"{opens} opens of {readers} readers counted")
    target.held("F7", "1,000 opens of one token, 100 at a time: p99", sorted(took)[989], 200)


def i12_odd_uploads(target: Target) -> None:
    """Multipart bodies made of headers, or of nothing but a preamble, are refused at once."""
    headers = b"--x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n\r\n--x--\r\n"
    preamble = b"\r\n" * 1_000_000 + b"--x--\r\n"
    parts = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n" * 50_000 + b"--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with target.service.client("editor") as client:
        bodies = {"100,000 part headers": headers, "a preamble of 2 MB": preamble, "50,000 parts": parts}
        for what, body in bodies.items():
            milliseconds, answer = timed(  # type: ignore[misc]
                lambda body=body: client.post(f"{V1}/contacts/import", content=body, headers=kind)
            )
            must(400 <= answer.status_code < 500, f"{what}: {answer.status_code}")
            target.held("I12", f"an upload with {what}", milliseconds, 1000)


def j5_deep_pages(target: Target) -> None:
    """A page far down a list costs what the first one does."""
    with target.engine.begin() as tx:
        tx.execute(
            text("insert into contacts (email, email_key, created_at) select 'c' || n || '@mail.example', "
                 "'c' || n || '@mail.example', now() - n * interval '1 second' from generate_series(1, :n) n"),
            {"n": target.contacts},
        )  # fmt: skip
        row = tx.execute(text("select created_at, contact_id from contacts order by created_at desc, contact_id desc "
                              "offset :n limit 1"), {"n": min(250_000, target.contacts - 100)}).one()  # fmt: skip
    with target.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze contacts"))
    path, query = f"{V1}/contacts/", "limit=50"
    scope = {"type": "http", "path": path, "query_string": query.encode(), "headers": [], "server": ("x", 80),
             "scheme": "http", "root_path": ""}  # fmt: skip
    cursor = make_cursor(target.service.settings, Request(scope), [row.created_at.isoformat(), row.contact_id])
    with target.service.client("viewer") as client:
        first, deep = [], []
        for _ in range(30):
            first.append(timed(lambda: client.get(path, params={"limit": 50}))[0])
            milliseconds, answer = timed(lambda: client.get(path, params={"limit": 50, "cursor": cursor}))
            must(answer.status_code == 200 and len(answer.json()) == 50, answer.text[:200])
            deep.append(milliseconds)
    one, far = statistics.median(first), statistics.median(deep)
    target.held("J5", f"page 1 {one:.1f} ms, page 5,000 {far:.1f} ms: ratio", far / one * 100, 150, "%")


def j12_idle_sockets(target: Target) -> None:
    """1,000 connections that say nothing, half of them in the middle of a head: the others notice nothing."""
    idle = [socket.create_connection(target.address) for _ in range(1000)]
    try:
        for connection in idle[:500]:
            connection.sendall(b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n")
        opened = time.monotonic()
        with target.service.client() as client:
            client.get("/health")
            took = sorted(timed(lambda: client.get("/health"))[0] for _ in range(200))
        target.held("J12", "a sign of life among 1,000 idle sockets: p99 of 200", took[197], 200)
        for connection in idle:
            connection.settimeout(max(1.0, opened + 40 - time.monotonic()))
            must(connection.recv(100) == b"", "an idle connection was answered")
        target.held("J12", "until the last of them was closed", time.monotonic() - opened, 35, "s")
    finally:
        for connection in idle:
            connection.close()


def j13_many_ranges(target: Target) -> None:
    """A Range header of ten thousand parts."""
    ranges = ",".join(f"{n}-{n}" for n in range(10_000))
    with target.service.client() as client:
        client.get("/health")
        milliseconds, answer = timed(
            lambda: client.get("/docs/assets/swagger-ui.css", headers={"Range": f"bytes={ranges}"})
        )
    must(answer.status_code in (200, 400, 416, 431), str(answer.status_code))
    target.held("J13", f"a Range of 10,000 parts ({answer.status_code})", milliseconds, 1000)


def j14_every_pattern(target: Target) -> None:
    """Every regular expression of the service, on 50,000 characters of nonsense of many kinds."""
    took = {name: slowest_milliseconds(name, pattern) for name, pattern in every_pattern().items()}
    slowest = max(took, key=lambda name: took[name])
    target.held("J14", f"the slowest of {len(took)} patterns ({slowest})", took[slowest], 100)


def j16_no_database(target: Target, folder: Path) -> None:
    """Without a database: 503 with Retry-After soon; pixel and redirect still work."""
    link = links_of(target, 9)
    headers = {"Authorization": f"Bearer {target.service.token('admin')}", **BROWSER}
    with running("postgresql://nobody:x@127.0.0.1:1/nothing", folder, is_quiet=True) as (url, _), httpx.Client(
        base_url=url, headers=headers, timeout=20, trust_env=False
    ) as client:
        worst = 0.0
        for method, path in (("GET", "/contacts/"), ("POST", "/contacts/"), ("POST", "/auth/login"), ("GET", "/tags/")):
            body = {"email": "a@b.example", "password": "x"} if method == "POST" else None
            milliseconds, answer = timed(  # type: ignore[misc]
                lambda method=method, path=path, body=body: client.request(method, f"{V1}{path}", json=body)
            )
            must(answer.status_code == 503 and "Retry-After" in answer.headers, answer.text)
            worst = max(worst, milliseconds)
        target.held("J16", "without a database: the slowest 503", worst, 2000)
        base = target.service.settings.public_base_url
        open_ms, pixel = timed(lambda: client.get(link.open()[len(base) :]))
        click_ms, redirect = timed(lambda: client.get(link.click("https://shop.example/")[len(base) :]))
    must((pixel.status_code, redirect.status_code) == (200, 302), f"{pixel.status_code} {redirect.status_code}")
    target.held("J16", "without a database: pixel and redirect", max(open_ms, click_ms), 1000)


def k9_unsubscribing(target: Target) -> None:
    """One click on unsubscribe is in force when it is answered."""
    with target.service.client("editor") as editor, target.service.client() as nobody:
        made = editor.post(f"{V1}/contacts/", json={"email": "leaving@shop.example"}).json()
        signer, now = LinkSigner.from_settings(target.service.settings), datetime.now(UTC)
        links = MessageLinks(signer, Owner.of(campaign_id=1), int(made["id"]), 11, now)
        path = links.unsubscribe()[len(target.service.settings.public_base_url) :]
        milliseconds, answer = timed(lambda: nobody.post(path, data={"List-Unsubscribe": "One-Click"}))
        must(answer.status_code == 200, answer.text)
        contact = editor.get(f"{V1}/contacts/{made['id']}").json()
    must(contact["suppressed"] and not contact["subscribed"], "the person is still subscribed")
    target.held("K9", "one-click unsubscribing, in force when answered", milliseconds, 1000)


CASES: tuple[Callable[[Target], None], ...] = (
    a15_known_and_unknown_users, a18_parallel_sign_ins, c3_a_sort_that_sleeps, d4_expensive_templates, f2_wrong_links,
    f7_a_thousand_opens, i12_odd_uploads, j12_idle_sockets, j13_many_ranges, k9_unsubscribing, j5_deep_pages,
    j14_every_pattern,
)  # fmt: skip


@contextlib.contextmanager
def attacked(contacts: int) -> Iterator[tuple[Target, Path]]:
    """A service of its own over a database of its own."""
    with temporary_cluster() as cluster, tempfile.TemporaryDirectory(prefix="mauto-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        cluster.create_database("bench")
        engine = connect(cluster.url("bench"))
        migrate(engine)
        make_users(engine)
        settings = live_settings(cluster.url("bench"), folder)
        with running(cluster.url("bench"), folder) as (url, process_id):
            service = LiveService(url=url, engine=engine, settings=settings)
            with service.client("editor") as client:
                client.post(f"{V1}/contacts/", json={"email": "first@shop.example"})
            yield Target(service, process_id, contacts), folder
        engine.dispose()


def main() -> None:
    """Measure every case, print the table, and fail if a bound was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.security", description=__doc__)
    parser.add_argument("--rows", type=int, default=260_000, help="contacts of the list that is paged through")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    options = parser.parse_args()
    with attacked(options.rows) as (target, folder):
        for case in CASES:
            if case.__name__.startswith(options.only.lower()):
                case(target)
        if "j16".startswith(options.only.lower()):
            j16_no_database(target, folder)
    over = [f"{case} {what}" for case, what, value, bound, _ in target.results if value > bound]
    compared = {f"{case} {what}": round(value, 1) for case, what, value, _, _ in target.results}
    finish("security", len(over), "bounds missed", rows=options.rows, verified=not over, compared_to=compared)


if __name__ == "__main__":
    main()
