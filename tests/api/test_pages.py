"""The overview page: sign in by form and cookie, the figures, what it looks like with and without data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from sqlalchemy import Connection, text

from mautolib.pages import charts, overview
from tests.live_service import PASSWORD, VIEWER, LiveService

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)


@pytest.fixture
def browser(service: LiveService) -> Iterator[httpx.Client]:
    """A client that keeps cookies and follows redirects."""
    with service.client(follow_redirects=True) as client:
        yield client


def csrf_of(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found
    return found.group(1)


def sign_in(browser: httpx.Client, password: str = PASSWORD) -> httpx.Response:
    form = browser.get("/dashboard")
    body = {"csrf": csrf_of(form), "email": VIEWER, "password": password}
    return browser.post("/dashboard/sign-in", data=body)


def test_a_stranger_is_sent_to_the_sign_in_form(nobody: httpx.Client) -> None:
    answer = nobody.get("/dashboard/")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/dashboard/sign-in")


def test_signing_in_shows_the_overview_and_signing_out_ends_it(service: LiveService, browser: httpx.Client) -> None:
    page = sign_in(browser)
    assert (page.url.path, page.status_code) == ("/dashboard", 200)
    assert "<h1>Overview</h1>" in page.text
    kept = dict(browser.cookies)
    assert "mauto_session" in kept
    gone = browser.post("/dashboard/sign-out", data={"csrf": csrf_of(page)})
    assert gone.url.path == "/dashboard/sign-in"
    with service.client(cookies=kept) as thief:
        assert thief.get("/dashboard").status_code == 303  # the session itself has ended, not only the cookie


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(service: LiveService) -> None:
    with service.client() as client:
        form = client.get("/dashboard/sign-in")
        body = {"csrf": csrf_of(form), "email": VIEWER, "password": PASSWORD}
        cookie = client.post("/dashboard/sign-in", data=body).headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Path=/dashboard"):
        assert part in cookie


def test_a_wrong_password_is_told_and_the_address_kept(browser: httpx.Client) -> None:
    page = sign_in(browser, "not this one")
    assert page.status_code == 401
    assert "Invalid email or password" in page.text
    assert f'value="{VIEWER}"' in page.text and "not this one" not in page.text


def test_the_cookie_is_no_api_token_and_the_token_no_cookie(service: LiveService, browser: httpx.Client) -> None:
    sign_in(browser)
    session = browser.cookies["mauto_session"]
    with service.client(headers={"Authorization": f"Bearer {session}"}) as client:
        assert client.get("/api/v1/auth/me").status_code == 401
    with service.client(cookies={"mauto_session": service.token("admin")}) as client:
        assert client.get("/dashboard").status_code == 303


def test_the_policy_allows_no_script_and_the_style_that_is_there(browser: httpx.Client) -> None:
    page = sign_in(browser)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script" not in policy and "unsafe" not in policy
    assert "<script" not in page.text and " style=" not in page.text and " onclick" not in page.text


def test_an_empty_database_says_what_to_do(tx: Connection) -> None:
    html = overview.overview_html(tx, now=NOW, embedded=True)
    for words in ("No contacts yet", "No campaign yet", "No cohorts yet", "background work has not run yet"):
        assert words in html
    assert "<header>" not in html


def test_figures_come_from_the_rows(tx: Connection) -> None:
    for index, name in enumerate(("ana", "bo", "cy")):
        tx.execute(
            text("insert into contacts (email, email_key, created_at, subscribed) values (:e, :e, :at, :s)"),
            {"e": f"{name}@shop.example", "at": NOW - timedelta(weeks=index), "s": index > 0},
        )
    tx.execute(text("insert into campaigns (name, subject) values ('<script>alert(1)</script>', 'x')"))
    tx.execute(text(
        "update campaigns set status = 'sent', requested_at = now(), planned_at = now(), started_at = now(), "
        "sent_at = now()"
    ))  # fmt: skip
    tx.execute(text(
        "insert into analytics.contact_cohorts values "
        "('week', '2026-11-02', '2026-W45', 40, 0, 10, 40, 25, true, now()), "
        "('week', '2026-11-02', '2026-W45', 40, 1, null, 40, null, false, now())"
    ))  # fmt: skip
    html = overview.overview_html(tx, now=NOW, embedded=False, user="a@b.example", csrf="x", airflow_url="http://a")
    assert "<dd>3</dd>" in html and "67 % subscribed" in html
    assert "16 Nov to 22 Nov 2026: 1" in html and "02 Nov to 08 Nov 2026: 1" in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "<script>" not in html
    assert re.search(r'2026-W45</th><td class="size">40</td>\s*<td class="h5">25%</td>\s*<td class="none">', html)


AXES = [(0, 4), (3, 4), (5, 8), (9, 12), (10, 12), (214, 240), (687, 800), (1001, 1200)]


@pytest.mark.parametrize(("largest", "top"), AXES)
def test_the_axis_ends_above_the_largest_in_whole_steps(largest: int, top: int) -> None:
    found = charts.nice_top(largest)
    assert found == top
    assert found % 4 == 0


def test_a_bar_is_as_tall_as_its_share_of_the_axis() -> None:
    data = [charts.Bar(start=date(2026, 1, 5), value=4), charts.Bar(start=date(2026, 1, 12), value=2)]
    heights = re.findall(r'class="bar"[^>]*height="([\d.]+)"', charts.bars(data, width=300, height=138, title="x"))
    assert heights == ["100.0", "50.0"]
    assert 'width="37.50"' in charts.meter(37.5, "open")
    assert 'width="100.00"' in charts.meter(140, "open")
