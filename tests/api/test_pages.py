"""The dashboard: sign in by form and cookie, every page with and without data, its CSV files, its scripts."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.analytics import readers_campaigns, readers_trends
from mautolib.pages import registry, static_files
from mautolib.pages.charts import Drawn, chart_of
from mautolib.pages.frame import House
from mautolib.pages.table import Column, Kind, Table, shade_of_rate, shades_up_to
from tests.builders import make_campaign, make_contact, make_message
from tests.dashboard_data import HOSTILE, Shop, make_holdout, make_shop
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


def test_the_policy_allows_our_own_scripts_and_the_style_that_is_there(browser: httpx.Client) -> None:
    page = sign_in(browser)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert re.findall(r"<script(?! src=\"/dashboard/static/)", page.text) == []
    assert " style=" not in page.text and " onclick" not in page.text


def test_an_empty_database_says_what_to_do(tx: Connection) -> None:
    words = {
        "": ("No new contacts", "Nothing sent in this time", "No campaigns yet", "No cohorts yet",
             "background work has not run yet"),
        "campaigns": ("No campaigns yet", "POST /api/v1/campaigns/"), "cohorts": ("No cohorts yet",),
        "people": ("No scores yet", "score_recalculation"), "workflows": ("No workflows yet",),
        "ab-tests": ("No A/B tests yet",), "revenue": ("No orders yet", "Not counted yet", "No order belongs"),
        "holdout": ("Nobody was ever held out", "mauto holdout set 5"),
        "customers": ("No customers yet", "Not counted yet"),
    }  # fmt: skip
    for path, expected in words.items():
        html = shown(tx, path, embedded=True)
        for one in expected:
            assert one in html, path
        assert "Sign out" not in html and "/dashboard/webhooks" not in html


def shown(tx: Connection, path: str, *, now: datetime = NOW, embedded: bool = False, **query: str) -> str:
    found = registry.answer(tx, path, query, now=now, house=House(embedded=embedded))
    assert found.status == 200
    return found.body


def test_figures_come_from_the_rows(tx: Connection) -> None:
    for index, name in enumerate(("ana", "bo", "cy")):
        make_contact(tx, email=f"{name}@shop.example", created_at=NOW - timedelta(weeks=index), subscribed=index > 0)
    make_campaign(tx, name="<script>alert(1)</script>", status="sent", sent_at=NOW - timedelta(days=2))
    tx.execute(text(
        "insert into analytics.contact_cohorts values "
        "('week', '2026-11-02', '2026-W45', 40, 0, 10, 40, 25, true, now()), "
        "('week', '2026-11-02', '2026-W45', 40, 1, null, 40, null, false, now())"
    ))  # fmt: skip
    html = shown(tx, "", days="30")
    assert "<dd>3</dd>" in html and "67 % subscribed" in html and "sent in 1 campaign, 0 waiting" in html
    growth = cells(html, "growth")
    assert growth[-3:] == [
        ["2026-11-02", "1", "1"], ["2026-11-09", "1", "1"], ["2026-11-16", "1", "0"],
    ]  # fmt: skip
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "<script>" not in html
    assert cells(html, "cohorts") == [["2026-W45", "40", "25.0000", *[""] * 8]]
    assert re.search(r'class="heat-cell number h5" data-v="25.0000">\s*25%', html)


def cells(html: str, table: str) -> list[list[str]]:
    """The raw values of a table, row by row."""
    body = re.search(rf'<table id="t-{table}".*?<tbody>(.*?)</tbody>', html, re.DOTALL)
    assert body
    rows = body.group(1).split("<tr>")[1:]
    return [[unescape(raw) for raw in re.findall(r'data-v="([^"]*)"', row)] for row in rows]


@pytest.fixture(scope="module")
def stocked(cluster: Any, template_database: str) -> Iterator[tuple[Engine, Shop]]:
    """A database with a shop in it; made once, the tests only read."""
    from mautolib.db.engine import connect

    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    with engine.begin() as tx:
        make_holdout(tx, now=NOW)
        shop = make_shop(tx, now=NOW, contacts=80, campaigns=3)
    yield engine, shop
    engine.dispose()
    cluster.drop(name)


@pytest.fixture
def shop(stocked: tuple[Engine, Shop]) -> Shop:
    return stocked[1]


@pytest.fixture
def filled(stocked: tuple[Engine, Shop]) -> Iterator[Connection]:
    """A connection to the database of the shop; what a test writes is rolled back."""
    with stocked[0].connect() as connection:
        yield connection


def paths(shop: Shop) -> list[str]:
    """Every registered page, about what is there."""
    ids = {"campaigns/{id}": shop.campaigns[0], "workflows/{id}": shop.workflow, "ab-tests/{id}": shop.ab_test}
    return [page.path.replace("{id}", str(ids.get(page.path))) for page in registry.PAGES]


def test_the_csv_of_every_table_is_the_table(filled: Connection, shop: Shop) -> None:
    seen = 0
    for path in paths(shop):
        html = shown(filled, path)
        for name in re.findall(r'<table id="t-(\w+)"', html):
            found = registry.answer(filled, path, {"format": "csv", "table": name}, now=NOW, house=House())
            assert found.media_type.startswith("text/csv")
            assert found.headers["Content-Disposition"] == f'attachment; filename="{name}-2026-11-18.csv"'
            head, *rows = list(csv.reader(io.StringIO(found.body.removeprefix("\ufeff"))))
            of_table = html.split(f'id="t-{name}"')[1].split("</thead>")[0]
            assert head == re.findall(r'data-key="([^"]+)"', of_table)
            assert [[cell.removeprefix("'") for cell in row] for row in rows] == cells(html, name), (path, name)
            seen += 1
    assert seen == 5 + 1 + 6 + 1 + 4 + 4 + 3 + 5 + 2 + 4 + 1 + 1


def test_what_people_write_is_neither_markup_nor_formula(filled: Connection, shop: Shop) -> None:
    for path in paths(shop):
        html = shown(filled, path)
        assert "<script>alert" not in html and "<b>series" not in html
    csv_text = registry.answer(filled, "campaigns", {"format": "csv"}, now=NOW, house=House()).body
    (row,) = [row for row in csv.reader(io.StringIO(csv_text)) if HOSTILE in row[0]]
    assert row[0] == f"'{HOSTILE}"


def test_the_pages_show_the_figures_of_the_api(filled: Connection, shop: Shop) -> None:
    campaign = shop.campaigns[-1]
    metrics = readers_campaigns.metrics(filled, campaign, reporting_currency="USD")
    funnel = cells(shown(filled, f"campaigns/{campaign}"), "funnel")
    of_api = [stage["count"] for stage in readers_campaigns.funnel(filled, campaign)["funnel"]]
    assert [int(row[1]) for row in funnel] == of_api
    assert of_api[0] > of_api[2] > of_api[3] > 0
    (row,) = [row for row in cells(shown(filled, "campaigns"), "campaigns") if row[2].startswith("2026-11-10")]
    assert [float(cell) for cell in row[3:8]] == [
        metrics["total_sent"], metrics["total_delivered"], metrics["open_rate"], metrics["click_rate"],
        metrics["bounce_rate"],
    ]  # fmt: skip
    touches = cells(shown(filled, f"campaigns/{campaign}"), "touches")
    assert touches[0][1:] == [str(metrics[name]) for name in ("unique_opens", "total_opened")] + [
        str(metrics["raw_opens"] - metrics["total_opened"]), str(metrics["raw_opens"]),
    ]  # fmt: skip
    health = readers_trends.health(filled, now=NOW)
    assert f"<strong>{health['score']:.1f}</strong> of 100" in shown(filled, "")
    assert metrics["orders"] > 0 and f"<dd>{metrics['revenue']:,.0f}</dd>" in shown(
        filled, f"campaigns/{campaign}"
    )


def test_the_parts_of_a_campaign_add_up(filled: Connection, shop: Shop) -> None:
    campaign = shop.campaigns[-1]
    html = shown(filled, f"campaigns/{campaign}", hours="open")
    ledger = readers_campaigns.counts(filled, campaign)
    assert ledger
    states = cells(html, "states")
    assert sum(int(row[2]) for row in states) == 80
    assert {row[1] for row in states if row[0] == "skipped"} <= {"unsubscribed", "suppressed", "frequency_cap"}
    assert sum(int(row[1]) for row in cells(html, "domains")) == ledger.sent
    assert sum(int(cell) for row in cells(html, "hours") for cell in row[1:]) == ledger.human_opens
    assert sum(int(row[2]) for row in cells(html, "links")) == ledger.human_clicks
    clicks = cells(shown(filled, f"campaigns/{campaign}"), "hours")
    assert sum(int(cell) for row in clicks for cell in row[1:]) == ledger.human_clicks
    assert [row[0] for row in clicks] == ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def test_a_large_campaign_is_as_of_a_refresh(filled: Connection, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"campaigns/{shop.campaigns[-1]}"
    parts = ("links", "hours", "domains", "states")
    counted = [cells(shown(filled, address), part) for part in parts]
    monkeypatch.setattr(readers_campaigns, "SMALL", 0)
    html = shown(filled, address)
    assert [cells(html, part) for part in parts] == counted and all(counted)
    assert html.count(f"As of {NOW:%d %B %Y, %H:%M} UTC") == 3
    filled.execute(text("update rollups.states set as_of = (select started_at from campaigns where campaign_id = :id)"),
                   {"id": shop.campaigns[-1]})  # fmt: skip
    assert "As of" not in shown(filled, address), "it was too young to be read from what was counted then"


def test_a_large_house_says_when_its_mails_were_counted(
    filled: Connection, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"": ("mails as counted since 18 November, 12:00", f"in the weeks after, as of {NOW:%d %B %Y, %H:%M} UTC"),
              "campaigns": ("as counted since 18 November 2026, 12:00 UTC",),
              f"campaigns/{shop.campaigns[0]}": ("mails as of 18 November 2026, 12:00 UTC",)}  # fmt: skip
    assert not any(said[0] in shown(filled, path) for path, said in places.items()), "they are counted now"
    monkeypatch.setattr(readers_campaigns, "LIVE_MAILS", -1)
    for path, said in places.items():
        assert all(one in shown(filled, path) for one in said), path


def test_the_funnel_of_a_workflow_follows_everybody(filled: Connection, shop: Shop) -> None:
    assert cells(shown(filled, f"workflows/{shop.workflow}"), "steps") == [
        ["0 action: Welcome", "40", "100.00", "36", "0", "0", "4", "0"],
        ["1 delay: 72 hours", "40", "100.00", "40", "9", "0", "0", "0"],
        ["2 condition: country", "31", "77.50", "30", "0", "0", "0", "0"],
        ["2.then.0 action: tag", "20", "50.00", "20", "0", "0", "0", "0"],
        ["2.else.0 exit", "10", "25.00", "10", "0", "10", "0", "0"],
        ["3 action: tag", "20", "50.00", "20", "0", "0", "0", "10"],
    ]
    assert cells(shown(filled, "workflows"), "workflows")[0][3:8] == ["40", "9", "20", "10", "1"]


def test_the_hold_out_says_what_it_can(filled: Connection, shop: Shop) -> None:
    html = shown(filled, "holdout")
    assert f"As of {NOW:%d %B %Y, %H:%M} UTC" in html and "Mail earns money" in html and 'class="verdict good"' in html
    assert [row[0] for row in cells(html, "groups")] == ["Mailed", "Held out"] and 'href="/dashboard/holdout"' in shown(
        filled, "ab-tests")  # fmt: skip
    contacts = "update rollups.holdout_sums set contacts = contacts / 4 where is_held"
    for change, says, why in (
        (f"{contacts}", "These figures cannot be compared", "not as large as drawn"),
        ("update rollups.holdout_sums set customers = 2", "Too early to say", "Fewer than 10 contacts ordered"),
        ("delete from rollups.holdout_sums", "Not counted yet", "cohort_analytics"),
    ):
        with filled.begin_nested() as changed:
            filled.execute(text(change))
            html = shown(filled, "holdout")
            assert says in html and why in html and 'id="t-effects"' not in html
            changed.rollback()
    # Nobody in doubt is told a sign that chance may have given.
    filled.execute(text("update rollups.holdout_sums set yy = yy * 1000"))
    html = shown(filled, "holdout")
    assert "It cannot be told yet" in html and 'class="verdict open"' in html
    filled.execute(text("update holdout_periods set salt = 'others', begun_at = begun_at + interval '1 day'"))
    assert "Not counted yet" in shown(filled, "holdout"), "these are figures of other people"


def test_a_table_is_sorted_by_its_headers(filled: Connection, shop: Shop) -> None:
    def column(query: str) -> list[str]:
        return [row[3] for row in cells(shown(filled, "campaigns", sort=query, status="sent"), "campaigns")]

    assert column("campaigns:sent") == sorted(column("campaigns:-sent"), key=int) != column("campaigns:-sent")
    plain = column("")
    for odd in ("x", "campaigns:", "campaigns:nope", "links:sent", ":", "campaigns:--sent"):
        assert column(odd) == plain
    html = shown(filled, "campaigns", sort="campaigns:-sent", status="sent")
    assert 'href="?status=sent&amp;sort=campaigns%3Asent"' in html and 'aria-sort="descending"' in html
    assert 'href="?status=sent&amp;sort=campaigns%3A-sent&amp;format=csv&amp;table=campaigns"' in html
    # What is not known comes last, whichever way.
    rates = [row[5] for row in cells(shown(filled, "campaigns", sort="campaigns:open_rate"), "campaigns")]
    assert rates[-1] == "" and "" not in rates[:-1]


def test_the_heat_map_of_cohorts_is_by_day_week_or_month(filled: Connection, shop: Shop) -> None:
    for grain, label in (("day", r"2026-\d\d-\d\d"), ("week", r"2026-W\d\d"), ("month", r"2026-\d\d")):
        rows = cells(shown(filled, "cohorts", by=grain), "cohorts")
        assert rows and all(re.fullmatch(label, row[0]) for row in rows)
    assert cells(shown(filled, "cohorts", by="eon"), "cohorts") == cells(shown(filled, "cohorts"), "cohorts")


def test_what_is_not_there_is_said_on_a_page(filled: Connection, shop: Shop) -> None:
    odd = ("nope", "campaigns/0", f"campaigns/{2**63}", "campaigns/" + "9" * 40, "campaigns/x", "campaigns/1/2",
           "workflows/999999", "campaigns/-1", "campaigns/٣", "campaigns//", "{id}")  # fmt: skip
    for path in odd:
        found = registry.answer(filled, path, {}, now=NOW, house=House())
        assert found.status == 404 and "<h1>Not found</h1>" in found.body and "nav" in found.body
    assert registry.answer(filled, "", {"format": "csv", "table": "x"}, now=NOW, house=House()).status == 404


def test_pages_need_a_session_and_a_viewer_may_see_them(service: LiveService, browser: httpx.Client) -> None:
    with service.client() as stranger:
        for page in registry.PAGES:
            answer = stranger.get(f"/dashboard/{page.path}".replace("{id}", "1"))
            assert (answer.status_code, answer.headers["Location"]) == (303, "/dashboard/sign-in")
        assert stranger.get("/dashboard/campaigns?format=csv").status_code == 303
    sign_in(browser)
    for path in (page.path for page in registry.PAGES if page.nav):
        assert browser.get(f"/dashboard/{path}").status_code == 200
    assert browser.get("/dashboard/nowhere").status_code == 404
    answer = browser.get("/dashboard/campaigns", params={"format": "csv"})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["Cache-Control"] == "no-store"
    for odd in ("?sort=%00", "?days=%FF", "?by=" + "x" * 4000, "?sort=%ED%A0%80", "?format=csv&table=%0d%0a"):
        assert browser.get(f"/dashboard/campaigns{odd}").status_code in (200, 404)


def test_scripts_are_served_under_their_hash_and_kept_for_good(nobody: httpx.Client) -> None:
    for name in (static_files.CHARTS, static_files.SCRIPT):
        answer = nobody.get(f"/dashboard/{static_files.path_of(name)}")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    for odd in (f"static/0000000000000000/{static_files.SCRIPT}", "static/x/frame.py", "static/..%2f..%2fframe.py/x"):
        assert nobody.get(f"/dashboard/{odd}").status_code in (303, 404)


def test_the_charting_library_is_the_one_that_was_published() -> None:
    folder = Path(static_files.__file__).parent / "static"
    library = (folder / static_files.CHARTS).read_bytes()
    # chart.js 4.6.1 as on the npm registry, dist/chart.umd.min.js
    assert hashlib.sha256(library).hexdigest() == "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2"
    assert b"Chart.js v4.6.1" in library[:200] and b"MIT License" in library[:200]
    licence = (folder / "chart.LICENSE.md").read_text(encoding="utf-8")
    assert licence.startswith("The MIT License (MIT)") and "Chart.js Contributors" in licence


def test_a_chart_says_in_words_what_it_shows() -> None:
    rows = [{"day": date(2026, 1, 5), "n": 4, "rate": None}, {"day": date(2026, 1, 12), "n": 1200, "rate": 12.5}]
    table = Table(name="t", caption="Mails by day", rows=rows, columns=(
        Column(key="day", label="Day", kind=Kind.DAY), Column(key="n", label="Sent", kind=Kind.NUMBER),
        Column(key="rate", label="Opened", kind=Kind.PERCENT),
    ))  # fmt: skip
    assert chart_of(table, Drawn.LINES, ["n", "rate"]).summary == (
        "Mails by day. Sent: between 4 and 1,200, at the end 1,200. "
        "Opened: between 12.5 % and 12.5 %, at the end 12.5 %."
    )


@pytest.mark.parametrize(
    ("days", "grain_starts"),
    [("7", ["2026-11-12", "2026-11-18", 7]), ("90", ["2026-08-17", "2026-11-16", 14]),
     ("365", ["2025-11-01", "2026-11-01", 13])],
)  # fmt: skip
def test_a_period_is_drawn_by_day_week_or_month(tx: Connection, days: str, grain_starts: list[object]) -> None:
    make_campaign(tx, status="sent", sent_at=NOW - timedelta(days=2))
    campaign = make_campaign(tx, status="sent", sent_at=NOW - timedelta(days=1))
    make_message(tx, make_contact(tx), campaign_id=campaign, sent_at=NOW)
    starts = [row[0] for row in cells(shown(tx, "", days=days), "sending")]
    assert [starts[0], starts[-1], len(starts)] == grain_starts
    assert sum(int(row[1]) for row in cells(shown(tx, "", days=days), "sending")) == 1


def test_shades_of_a_heat_map() -> None:
    assert [shade_of_rate(rate) for rate in (0, 1.9, 2, 54.9, 55, 75, 100)] == [0, 0, 1, 7, 8, 9, 9]
    shade = shades_up_to(18)
    assert [shade(count) for count in (0, 1, 2, 3, 17, 18)] == [0, 1, 1, 2, 9, 9]
    assert shades_up_to(0)(0) == 0
