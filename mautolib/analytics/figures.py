"""The arithmetic of mail figures: rates, the engagement score, the health of a list; from counts, without a database.

Promise: each definition stands here once, for the API, the dashboard and the readers. Rates are percent with two
decimals, rounded half up, 0.00 without a denominator; scores are made of the rates as shown, so that whoever reads an
answer can work them out again. Called by the readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

__all__ = ["Rates", "engagement_score", "grade_of", "health_score", "percent", "rates_of", "rounded"]

#: The largest rate a column of the views holds; only mails of unknown fate that were opened lead there.
_LARGEST = Decimal("999.99")
_HUNDRED = Decimal(100)
_GRADES = ((Decimal(85), "A"), (Decimal(70), "B"), (Decimal(55), "C"), (Decimal(40), "D"))


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Rates in percent: opens, clicks and opt-outs of delivered, bounces of attempted, `ctor` clicks of opens."""

    delivery: Decimal
    open: Decimal
    click: Decimal
    ctor: Decimal
    bounce: Decimal
    unsubscribe: Decimal


def rates_of(counts: Any) -> Rates:
    """The rates of some mails; `counts` is a row with attempted, delivered, bounced, unsubscribed and unique_*."""
    return Rates(
        delivery=percent(counts.delivered, counts.attempted), open=percent(counts.unique_opens, counts.delivered),
        click=percent(counts.unique_clicks, counts.delivered), ctor=percent(counts.unique_clicks, counts.unique_opens),
        bounce=percent(counts.bounced, counts.attempted), unsubscribe=percent(counts.unsubscribed, counts.delivered),
    )  # fmt: skip


def percent(part: int, whole: int, *, decimals: int = 2) -> Decimal:
    """part / whole in percent, rounded half up, at most 999.99; zero without a whole."""
    share = min(Decimal(100 * part) / Decimal(whole), _LARGEST) if whole else Decimal(0)
    return rounded(share, decimals)


def rounded(value: Decimal, decimals: int) -> Decimal:
    """`value` with so many decimals, rounded half up."""
    return value.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP)


def engagement_score(rates: Rates, *, sent: int) -> Decimal:
    """min(100, 0.3 open + 0.4 ctor + 0.15 (100 - bounce) + 0.15 (100 - unsubscribe)); 0 if nothing was sent."""
    if not sent:
        return Decimal("0.0")
    score = (
        Decimal("0.3") * rates.open + Decimal("0.4") * rates.ctor + Decimal("0.15") * (_HUNDRED - rates.bounce)
        + Decimal("0.15") * (_HUNDRED - rates.unsubscribe)
    )  # fmt: skip
    return rounded(min(_HUNDRED, score), 1)


def health_score(
    *, contacts: int, subscription_rate: Decimal, sent: int, open_rate: Decimal, bounce_rate: Decimal, campaigns: int
) -> Decimal:
    """How well a house does, 0 to 100: list, opens, bounces and activity count 25 each.

    Args:
        contacts: how many there are; without any the list counts 0.
        sent: how many mails were sent; without any opens count 12.5 and bounces 25.
        campaigns: created in the last 30 days, five points each.
    """
    quarter = Decimal(25)
    members = min(quarter, subscription_rate / 4) if contacts else Decimal(0)
    opens = min(quarter, open_rate) if sent else Decimal("12.5")
    bounces = max(Decimal(0), quarter - 5 * bounce_rate) if sent else quarter
    return rounded(members + opens + bounces + min(quarter, Decimal(5 * campaigns)), 1)


def grade_of(score: Decimal) -> str:
    """A from 85, B from 70, C from 55, D from 40, else F."""
    return next((grade for least, grade in _GRADES if score >= least), "F")
