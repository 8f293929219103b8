"""The demo's made-up world: the same for everybody, and nobody real in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mautolib.demo import contact_file, history
from mautolib.demo.__main__ import SETTINGS, main, pin
from mautolib.demo.people import HISTORY_DAYS, people
from mautolib.errors import Misconfigured
from mautolib.stack.home import Home
from mautolib.stack.plan import make_plan

TODAY = datetime(2026, 11, 22, tzinfo=UTC)
RESERVED = (".example", ".test", "example.com", "example.net", "example.org")


def test_people_are_the_same_whoever_asks_and_live_in_reserved_domains() -> None:
    few, many = list(people(50, TODAY)), list(people(400, TODAY))
    assert many[:50] == few
    assert len({person.email for person in many}) == 400
    assert all(person.email.endswith(RESERVED) and person.email.isascii() for person in many)
    ages = [(TODAY - person.signed_up_at).days for person in many]
    assert min(ages) >= 0 and max(ages) <= HISTORY_DAYS


def test_the_file_holds_what_its_truth_says(tmp_path: Path) -> None:
    truth = contact_file.write(tmp_path / "contacts.csv", people(400, TODAY))
    assert truth.rows == truth.contacts + truth.duplicates + truth.invalid
    assert truth.contacts == 400 and truth.duplicates > 0 and truth.invalid > 0
    raw = (tmp_path / "contacts.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfE-Mail;") and b"\r\n" in raw


def test_history_lies_in_the_past_and_has_its_own_numbers() -> None:
    everybody = list(people(300, TODAY))
    ids = {person.email: number for number, person in enumerate(everybody, 1)}
    events = list(history.events(everybody, ids, TODAY))
    assert len({(event.source, event.external_id) for event in events}) == len(events) > 300
    assert all(event.occurred_at < TODAY for event in events)
    orders = list(history.orders(everybody, ids, TODAY))
    assert len({order.order_id for order in orders}) == len(orders) > 50
    assert all(refund.occurred_at < TODAY for refund in history.refunds(orders, TODAY))
    sold = list(history.sales(everybody, TODAY))
    assert 5 < len(sold) < len(everybody) / 3 and sold == list(history.sales(everybody, TODAY))
    assert {base for _, base, _, _ in history.rates(TODAY.date())} == set(history.DOLLARS) - {"USD"}


def test_a_demo_stays_a_demo_whatever_the_environment_says(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    pin(home)
    hostile = {"MAUTO_SMTP_HOST": "mail.shop.example", "MAUTO_DEMO": "false", "MAUTO_DATABASE_URL": "postgresql://x/y"}
    plan = make_plan(home, hostile)
    assert plan.settings.demo and plan.has_sink and plan.is_embedded
    assert plan.settings.smtp_host == "127.0.0.1"
    assert plan.settings.postal_address == SETTINGS["MAUTO_POSTAL_ADDRESS"]


def test_a_home_with_other_data_never_becomes_a_demo(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.cluster.mkdir(parents=True)
    with pytest.raises(Misconfigured, match="no demo"):
        pin(home)


def test_an_absurd_size_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--contacts", "5"]) == 1
    assert "it takes 100 to 1000000" in capsys.readouterr().err
