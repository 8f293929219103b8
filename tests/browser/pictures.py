"""Pictures of the dashboard for `docs/images`, taken from a running service with a system's Chromium.

`python -m tests.browser.pictures --url http://localhost:8000 --email you@shop.example --password-file secret.txt`; with
data that may be seen by everybody, such as those of `make demo`. pngquant, where there is one, makes them smaller.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.browser.conftest import CHROMIUM

_WIDTH = 1180
#: Name of the picture: the path, or the first link on it that leads to such a page; how much of it is shown.
_WIDE = {
    "dashboard": ("/dashboard", "", 1120),
    "dashboard-campaign": ("/dashboard/campaigns?status=sent", "/dashboard/campaigns/", 1120),
    "dashboard-ab-test": ("/dashboard/ab-tests?status=completed", "/dashboard/ab-tests/", 1180),
    "dashboard-holdout": ("/dashboard/holdout", "", 1130),
    "dashboard-revenue": ("/dashboard/revenue", "", 1180),
    "dashboard-customers": ("/dashboard/customers", "", 1240),
    "dashboard-cohorts": ("/dashboard/cohorts", "", 1060),
    "dashboard-scores": ("/dashboard/people", "", 1400),
    "dashboard-workflow": ("/dashboard/workflows", "/dashboard/workflows/", 640),
}
_PHONE = {"dashboard-phone": ("/dashboard?days=365", "", 1500)}


def take(browser: Any, url: str, *, email: str, password: str, folder: Path) -> list[Path]:
    """Sign in, take every picture, return their files."""
    taken = []
    for views, options in ((_WIDE, {"color_scheme": "light"}), (_PHONE, {"color_scheme": "dark"})):
        width = _WIDTH if views is _WIDE else 360
        context = browser.new_context(base_url=url, viewport={"width": width, "height": 800}, **options)
        page = context.new_page()
        page.goto("/dashboard/sign-in")
        page.get_by_label("E-mail address").fill(email)
        page.get_by_label("Password").fill(password)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Overview").wait_for()
        for name, (path, link, height) in views.items():
            page.set_viewport_size({"width": width, "height": height})
            page.goto(path)
            if link:
                page.locator(f'main a[href^="{link}"]').first.click()
            page.locator("figure.chart:not(.drawn)").first.wait_for(state="detached")
            taken.append(folder / f"{name}.png")
            page.screenshot(path=taken[-1])
        context.close()
    if shrinker := shutil.which("pngquant"):
        subprocess.run([shrinker, "--force", "--strip", "--ext", ".png", "64", *taken], check=True)
    return taken


def main() -> None:
    """Take them from the service that the arguments name."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--email", required=True)
    parser.add_argument("--password-file", required=True, type=Path)
    parser.add_argument("--to", default=Path("docs/images"), type=Path)
    given = parser.parse_args()
    password = given.password_file.read_text(encoding="utf-8").strip()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for path in take(browser, given.url, email=given.email, password=password, folder=given.to):
            print(path, path.stat().st_size)
        browser.close()


if __name__ == "__main__":
    main()
