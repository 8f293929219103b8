"""Rates, the engagement score and health, each worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace

import pytest

from mautolib.analytics.figures import engagement_score, grade_of, health_score, percent, rates_of

D = Decimal


@pytest.mark.parametrize(("part", "whole", "decimals", "shown"), [
    (1, 3, 2, "33.33"), (2, 3, 2, "66.67"), (1, 8, 2, "12.50"), (1, 800, 2, "0.13"), (1, 16, 1, "6.3"),
    (0, 0, 2, "0.00"),
    (5, 0, 2, "0.00"), (0, 7, 2, "0.00"), (7, 7, 2, "100.00"), (12, 1, 2, "999.99"), (1, 20_000, 2, "0.01"),
])  # fmt: skip
def test_rates_are_rounded_half_up(part: int, whole: int, decimals: int, shown: str) -> None:
    assert str(percent(part, whole, decimals=decimals)) == shown


def counts(**changed: int) -> SimpleNamespace:
    names = ("attempted", "sent", "delivered", "bounced", "unsubscribed", "unique_opens", "unique_clicks")
    return SimpleNamespace(**{**dict.fromkeys(names, 0), **changed})


def test_each_rate_has_its_own_denominator() -> None:
    rates = rates_of(counts(attempted=10, delivered=8, bounced=1, unsubscribed=2, unique_opens=4, unique_clicks=1))
    assert (rates.delivery, rates.bounce) == (D("80.00"), D("10.00")), "of attempted"
    assert (rates.open, rates.click, rates.unsubscribe) == (D("50.00"), D("12.50"), D("25.00")), "of delivered"
    assert rates.ctor == D("25.00"), "of opened"


@pytest.mark.parametrize(("given", "score"), [
    # 0.3 x 50 + 0.4 x 25 + 0.15 x 90 + 0.15 x 75
    (counts(attempted=10, sent=8, delivered=8, bounced=1, unsubscribed=2, unique_opens=4, unique_clicks=1), "49.8"),
    # Nobody did anything: 15 + 15.
    (counts(attempted=5, sent=5, delivered=5), "30.0"),
    # Everybody clicked: 30 + 40 + 15 + 15 is the most there is.
    (counts(attempted=5, sent=5, delivered=5, unique_opens=5, unique_clicks=5), "100.0"),
    # More opened than were surely delivered: never over 100.
    (counts(attempted=5, sent=1, delivered=1, unique_opens=5, unique_clicks=5), "100.0"),
    # Everything bounced: 0 + 0 + 0 + 15.
    (counts(attempted=5, sent=5, delivered=0, bounced=5), "15.0"),
    (counts(attempted=5, sent=0, bounced=5), "0.0"),
    (counts(), "0.0"),
])  # fmt: skip
def test_engagement_score(given: SimpleNamespace, score: str) -> None:
    assert str(engagement_score(rates_of(given), sent=given.sent)) == score


@pytest.mark.parametrize(("house", "score"), [
    # (contacts, subscribed %, sent, open %, bounce %, campaigns); an empty house: 0 + 12.5 + 25 + 0.
    ((0, 0, 0, 0, 0, 0), "37.5"),
    # 90 / 4 + 20 + (25 - 5 x 1.2) + 15
    ((9, 90, 9, 20, "1.2", 3), "76.5"),
    # Everything at its cap.
    ((9, 100, 9, 80, 0, 9), "100.0"),
    # Bounces over 5 % count nothing, not less.
    ((9, 100, 9, 0, 40, 0), "25.0"),
    ((9, 0, 9, 0, 0, 5), "50.0"),
    # Half up: 33.33 / 4 = 8.3325, and 12.5 + 25.
    ((3, "33.33", 0, 0, 0, 0), "45.8"), ((3, "33.4", 0, 0, 0, 0), "45.9"),
])  # fmt: skip
def test_health(house: tuple[int, float | str, int, float, float | str, int], score: str) -> None:
    contacts, subscribed, sent, opened, bounced, campaigns = house
    found = health_score(
        contacts=contacts, subscription_rate=D(subscribed), sent=sent, open_rate=D(opened), bounce_rate=D(bounced),
        campaigns=campaigns,
    )  # fmt: skip
    assert str(found) == score


@pytest.mark.parametrize(("score", "grade"), [
    ("100.0", "A"), ("85.0", "A"), ("84.9", "B"), ("70.0", "B"), ("69.9", "C"), ("55.0", "C"), ("54.9", "D"),
    ("40.0", "D"), ("39.9", "F"), ("0.0", "F"),
])  # fmt: skip
def test_grades_at_their_borders(score: str, grade: str) -> None:
    assert grade_of(D(score)) == grade
