"""The dashboard in a browser: every page wide, on a phone, light and dark, without script, by keyboard, with axe-core.

`axe/axe.min.js` is axe-core 4.14.1 as published (MPL-2.0, see its LICENSE); it is used here and nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard_data import Shop, make_holdout, make_shop
from tests.live_service import PASSWORD, VIEWER, live_settings, make_users, serve

_AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
#: A folder to look at the pages in, when somebody wants to.
_PICTURES = os.environ.get("MAUTO_TEST_PICTURES")
_WIDE, _PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@dataclass(frozen=True, kw_only=True)
class House:
    """A service with a shop in it, and the pages of its dashboard by name."""

    url: str
    shop: Shop

    @property
    def pages(self) -> dict[str, str]:
        return {
            "overview": "/dashboard", "campaigns": "/dashboard/campaigns",
            "campaign": f"/dashboard/campaigns/{self.shop.campaigns[-1]}",
            "ab_tests": "/dashboard/ab-tests", "ab_test": f"/dashboard/ab-tests/{self.shop.ab_test}",
            "holdout": "/dashboard/holdout", "revenue": "/dashboard/revenue", "customers": "/dashboard/customers",
            "cohorts": "/dashboard/cohorts", "order_cohorts": "/dashboard/cohorts?by=revenue",
            "people": "/dashboard/people", "workflows": "/dashboard/workflows",
            "workflow": f"/dashboard/workflows/{self.shop.workflow}", "error": "/dashboard/nowhere",
        }  # fmt: skip


PAGES = ("overview", "campaigns", "campaign", "ab_tests", "ab_test", "holdout", "revenue", "customers", "cohorts",
         "order_cohorts", "people", "workflows", "workflow", "error")  # fmt: skip


@pytest.fixture(scope="module")
def house(cluster: Any, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    from mautolib.db.engine import connect

    name = cluster.create(template=template_database)
    engine = connect(cluster.url(name))
    make_users(engine)
    with engine.begin() as tx:
        now = datetime.now(UTC)
        make_holdout(tx, now=now)
        shop = make_shop(tx, now=now)
    url, stop = serve(live_settings(cluster.url(name), tmp_path_factory.mktemp("home")))
    yield House(url=url, shop=shop)
    stop()
    engine.dispose()
    cluster.drop(name)


class Visit:
    """A signed-in page, what it asked elsewhere and complained about."""

    def __init__(self, context: Any, url: str) -> None:
        self.page = context.new_page()
        context.set_default_timeout(10_000)
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: request.url.startswith((url, "data:")) or self.elsewhere.append(
            request.url))  # fmt: skip
        self.page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto("/dashboard/sign-in")
        self.page.get_by_label("E-mail address").fill(VIEWER)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.keyboard.press("Enter")
        self.page.get_by_role("heading", name="Overview").wait_for()

    def open(self, path: str, *, waits: bool = True) -> Any:
        self.page.goto(path)
        if waits:
            assert self.comes_true("!document.querySelector('figure.chart:not(.drawn)')"), f"{path}: a chart is missing"
        return self.page

    def comes_true(self, expression: str) -> bool:
        """Whether it does within five seconds; `wait_for_function` needs the `eval` that the pages' policy forbids."""
        until = time.monotonic() + 5
        while not self.page.evaluate(expression):
            if time.monotonic() > until:
                return False
            self.page.wait_for_timeout(20)
        return True

    def fits(self) -> bool:
        """Whether nothing is wider than the window, once the charts were drawn anew for it."""
        return self.comes_true("document.documentElement.scrollWidth <= window.innerWidth")

    def findings(self) -> list[str]:
        """What axe-core calls serious or critical."""
        self.page.evaluate(_AXE)
        found = self.page.evaluate("axe.run({resultTypes: ['violations']})")
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:160]} ({len(one['nodes'])}) {one['nodes'][0]['failureSummary']}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    def picture(self, name: str) -> None:
        if _PICTURES:
            self.page.screenshot(path=Path(_PICTURES) / f"{name}.png", full_page=True)


@contextmanager
def visiting(chromium: Any, house: House, **options: Any) -> Iterator[Visit]:
    context = chromium.new_context(base_url=house.url, viewport=options.pop("viewport", _WIDE), **options)
    visit = Visit(context, house.url)
    yield visit
    context.close()
    assert visit.elsewhere == []
    # The page that says there is none comes with status 404, which the browser notes.
    assert [text for text in visit.complaints if "404" not in text] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_readable_wide_and_on_a_phone(chromium: Any, house: House, scheme: str) -> None:
    with visiting(chromium, house, color_scheme=scheme) as visit:
        for name in PAGES:
            visit.page.set_viewport_size(_WIDE)
            page = visit.open(house.pages[name])
            visit.picture(f"{name}-wide-{scheme}")
            assert visit.fits(), name
            assert visit.findings() == [], name
            assert page.locator("nav [aria-current=page]").count() == (name != "error"), name
            page.set_viewport_size(_PHONE)
            visit.picture(f"{name}-phone-{scheme}")
            assert visit.fits(), f"{name} scrolls sideways on a phone"
            assert visit.findings() == [], f"{name} on a phone"


def test_charts_are_drawn_from_the_tables_beside_them(chromium: Any, house: House) -> None:
    with visiting(chromium, house) as visit:
        for name, charts in (("overview", 4), ("campaign", 2), ("revenue", 1), ("customers", 2), ("cohorts", 1),
                             ("people", 3), ("workflow", 1)):  # fmt: skip
            page = visit.open(house.pages[name])
            assert page.locator("figure.drawn canvas").count() == charts, name
            for canvas in page.locator("figure.drawn canvas").all():
                assert len(canvas.get_attribute("aria-label")) > 20
                painted = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(part => part > 0)"
                assert canvas.evaluate(painted), name
        page = visit.open(house.pages["campaign"])
        drawn = page.evaluate("Chart.getChart(document.querySelector('[data-table=t-funnel] canvas')).data")
        numbers = page.locator("#t-funnel tbody td:nth-child(2)").all_text_contents()
        assert [str(value) for value in drawn["datasets"][0]["data"]] == [text.strip() for text in numbers]
        assert drawn["labels"] == ["Sent", "Delivered", "Opened", "Clicked"]
        assert not page.locator("#t-funnel").is_visible()
        page.get_by_text("The numbers").first.click()
        assert page.locator("#t-funnel").is_visible()


def test_without_script_the_tables_say_the_same(chromium: Any, house: House) -> None:
    with visiting(chromium, house, java_script_enabled=False) as visit:
        page = visit.open(house.pages["overview"], waits=False)
        assert page.locator("#t-sending").is_visible() and page.locator("#t-growth").is_visible()
        assert page.locator("figure.chart:visible").count() == 0


def test_intervals_are_drawn_into_their_table_and_need_no_script(chromium: Any, house: House) -> None:
    with visiting(chromium, house, java_script_enabled=False) as visit:
        page = visit.open(house.pages["ab_test"], waits=False)
        assert page.locator("#t-rates svg.interval .dot").count() == 6
        short, long = page.locator("#t-rates tbody tr").all()[:2]
        # Where the dot stands says the same as the figure beside it.
        left, right = (row.locator(".dot").bounding_box()["x"] for row in (short, long))
        figures = [float(row.locator("td.rate").get_attribute("data-v")) for row in (short, long)]
        assert (left < right) == (figures[0] < figures[1])
        assert page.locator("#t-comparisons svg.interval .outer").count() == 1
        assert page.locator(".verdict strong").inner_text() == "Long wins"


def test_without_the_library_the_tables_stay(chromium: Any, house: House) -> None:
    context = chromium.new_context(base_url=house.url, viewport=_WIDE)
    visit = Visit(context, house.url)
    visit.page.route("**/chart.umd.min.js", lambda route: route.abort())
    page = visit.open(house.pages["people"], waits=False)
    assert page.locator("#t-grades").is_visible()
    assert page.locator("figure.chart:visible").count() == 0
    context.close()


def test_the_keyboard_reaches_everything(chromium: Any, house: House) -> None:
    with visiting(chromium, house) as visit:
        page = visit.open(house.pages["campaigns"])
        page.keyboard.press("Tab")
        assert page.locator(":focus").inner_text() == "Skip to content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.get_by_role("link", name="Opened").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/campaigns?sort=campaigns%3A-open_rate")
        assert page.locator("th[aria-sort=descending]").inner_text().startswith("Opened")
        rates = [float(cell.get_attribute("data-v")) for cell in page.locator("tbody td:nth-child(6)").all()
                 if cell.get_attribute("data-v")]  # fmt: skip
        assert rates == sorted(rates, reverse=True) and len(rates) == len(house.shop.campaigns) + 1  # that of the test
        page = visit.open(house.pages["overview"])
        summary = page.locator("details.numbers summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("#t-growth").is_visible()
        page.get_by_role("link", name="7 days").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/dashboard?days=7")
        assert page.locator("nav.filters [aria-current]").inner_text() == "7 days"


def test_a_table_is_downloaded_as_csv(chromium: Any, house: House) -> None:
    with visiting(chromium, house) as visit:
        page = visit.open(house.pages["workflow"])
        page.get_by_text("The numbers").click()
        with page.expect_download() as waiting:
            page.get_by_role("link", name="CSV of: Steps").click()
        assert waiting.value.suggested_filename.startswith("steps-")
        lines = Path(waiting.value.path()).read_text(encoding="utf-8-sig").splitlines()
        assert lines[0].startswith("step,reached,reach_rate")
        assert len(lines) == 1 + page.locator("#t-steps tbody tr").count()


def test_paper_is_light_and_has_the_numbers(chromium: Any, house: House) -> None:
    with visiting(chromium, house, color_scheme="dark") as visit:
        page = visit.open(house.pages["people"])
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert not page.locator("header").is_visible()
        assert page.locator("#t-grades").is_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        visit.picture("people-paper")
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert not page.locator("#t-grades").is_visible()
