"""Money and exchange rates as the outside writes them: exact decimals, as text or as a JSON number.

Guards that no digit is lost: a number is read from its digits, never through arithmetic of floats. Pure functions;
called by the API's value types and by `ingestion`. Which amounts may be negative or zero is for the caller to say.
"""

from __future__ import annotations

import re
from decimal import Decimal

__all__ = ["MONEY_DECIMALS", "RATE_DECIMALS", "amount_text", "parse_amount", "parse_rate", "rate_text"]

MONEY_DECIMALS, RATE_DECIMALS = 4, 8
#: numeric(19,4) and numeric(18,8) have so many digits before the point.
_MONEY_DIGITS, _RATE_DIGITS = 15, 10
_MONEY = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,4})?")
_RATE = re.compile(r"[0-9]{1,10}(\.[0-9]{1,8})?")


def parse_amount(value: object) -> Decimal:
    """An amount of money: text such as "59.90", or a number; at most 4 decimals and 15 digits before them.

    Raises:
        ValueError: says what is wrong, to follow the name of the value.
    """
    return _parse(value, _MONEY, _MONEY_DIGITS, MONEY_DECIMALS)


def parse_rate(value: object) -> Decimal:
    """An exchange rate: above zero, at most 8 decimals and 10 digits before them.

    Raises:
        ValueError: says what is wrong, to follow the name of the value.
    """
    rate = _parse(value, _RATE, _RATE_DIGITS, RATE_DECIMALS)
    if rate <= 0:
        raise ValueError("is not above zero")
    return rate


def amount_text(amount: Decimal) -> str:
    """An amount as the API shows it: at least two decimals, further ones where they are not zero."""
    whole, _, rest = format(amount + 0, "f").partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"


def rate_text(rate: Decimal) -> str:
    """A rate as the API shows it, without zeros at its end."""
    whole, _, rest = format(rate, "f").partition(".")
    rest = rest.rstrip("0")
    return f"{whole}.{rest}" if rest else whole


def _parse(value: object, pattern: re.Pattern[str], digits: int, decimals: int) -> Decimal:
    if isinstance(value, str):
        if not pattern.fullmatch(value):
            raise ValueError(f'is not a decimal such as "59.90" with at most {decimals} decimals')
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("is neither a decimal as text nor a number")
    # str() of a number read from JSON has all the digits that were written; arithmetic would round them.
    amount = Decimal(str(value))
    if not amount.is_finite() or abs(amount) >= Decimal(10) ** digits:
        raise ValueError(f"has more than {digits} digits before the decimals")
    # Comparing is exact however many digits were written.
    if amount != amount.quantize(Decimal(1).scaleb(-decimals)):
        raise ValueError(f"has more than {decimals} decimals")
    return amount + 0
