"""The filters `date`, `number` and `money` as a language writes them, with Babel's data (CLDR).

Promise: the same arguments as the neutral filters of `filters`, which are used where a content has no language; a
value that is no date or number is shown as it is. Used by `sandbox`, one environment per language.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import lru_cache, partial
from typing import Any, Final

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_currency, format_decimal
from jinja2 import Undefined

from mautolib.templates import filters
from mautolib.templates.language import locale_of

NAMED: Final = ("short", "medium", "long", "full")
#: Letters of strftime that are words, as CLDR patterns.
_WORDS: Final = {"%B": "MMMM", "%b": "MMM", "%A": "EEEE", "%a": "EEE"}
_FRACTION: Final = re.compile(r"0(?:\.[0#]+)?(?![0-9#.,])")
_WORD: Final = re.compile("%[BbAa%]")


def filters_of(tag: str) -> dict[str, Callable[..., Any]]:
    """The filters of a language; the neutral ones where we do not know it."""
    locale = locale_of(tag) if tag else None
    if locale is None:
        return {}
    return {"date": partial(_date, locale), "number": partial(_number, locale), "money": partial(_money, locale)}


def _date(locale: Locale, value: Any, format: str = "medium", timezone: str = "") -> str:
    """`22 Nov 2026`, `22.11.2026`; a format of letters has the month's and the day's name in the language."""
    if isinstance(value, Undefined) or value is None or value == "":
        return filters.shown(value)
    moment = filters.moment_of(value, timezone)
    if moment is None:
        return str(value)
    pattern = str(format)
    if pattern in NAMED:
        return str(format_date(moment, pattern, locale=locale))
    filters.check_letters(pattern)
    return moment.strftime(_WORD.sub(lambda found: _word(locale, moment, found.group()), pattern))


def _word(locale: Locale, moment: dt.datetime, letter: str) -> str:
    if letter == "%%":
        return letter
    return str(format_date(moment, _WORDS[letter], locale=locale)).replace("%", "%%")


def _number(locale: Locale, value: Any, digits: int | None = None) -> str:
    """`1.234,5`; with `digits` exactly so many after the comma."""
    amount = filters.decimal_of(value)
    if amount is None:
        return filters.shown(value)
    if digits is None:
        plain = amount.normalize() if amount else Decimal(0)
        return str(format_decimal(plain, locale=locale, decimal_quantization=False))
    places = filters.between(digits, 0, 8)
    pattern = _with_places(locale.decimal_formats[None].pattern, places)
    return str(format_decimal(_rounded(amount, places), pattern, locale=locale))


def _money(locale: Locale, value: Any, currency: str = "") -> str:
    """`1.234,50 €`, in the digits of the currency."""
    amount = filters.decimal_of(value)
    if amount is None:
        return filters.shown(value)
    code = str(currency or "").upper()
    if not re.fullmatch("[A-Z]{3}", code):
        return f"{_number(locale, amount, 2)} {code}".rstrip()
    places = filters.minor_digits(code)
    pattern = _with_places(locale.currency_formats["standard"].pattern, places)
    return str(format_currency(_rounded(amount, places), code, pattern, locale=locale, currency_digits=False))


@lru_cache(maxsize=256)
def _with_places(pattern: str, places: int) -> str:
    """A pattern of CLDR (`#,##0.###`) with exactly so many digits after the point."""
    return _FRACTION.sub("0." + "0" * places if places else "0", pattern)


def _rounded(amount: Decimal, places: int) -> Decimal:
    with localcontext(prec=60):
        return amount.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)
