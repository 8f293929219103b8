"""The filters and tests a mail template may use, each safe to run on any plain value.

Promise: no filter makes much out of little (results stay in the order of size of what went in), none reads anything
but its arguments, and none fails on a missing value. `date`, `number` and `money` write what every country reads:
ISO dates, `1,234.50`, `1,234.50 EUR`, where a mail has no language (else see `localized`). The filters that begin
with `_` are put in by `compile` where a value stands in an address, a style or outside quotes. Used by `sandbox` only.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import Undefined
from jinja2 import filters as jinja_filters
from jinja2.exceptions import TemplateRuntimeError
from markupsafe import Markup, escape

MAX_TEXT: Final = 1_000_000
SCHEMES: Final = ("http", "https", "mailto", "tel")

_SCHEME = re.compile(r"\s*+([^/?#:]*+):")
_DIRECTIVE = re.compile(r"%(.?)", re.S)
_DIRECTIVES = frozenset("YmdHMSyjBbAaIp%")
#: ISO 4217 currencies whose minor unit is not a hundredth.
_MINOR_DIGITS = dict.fromkeys(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0
) | dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3)


def date(value: Any, format: str = "%Y-%m-%d", timezone: str = "") -> str:
    """A date or time given as ISO text (or seconds since 1970), by default `2026-11-22`.

    Args:
        value: ISO 8601 text; text that is no date is returned as it is.
        format: letters of strftime out of `Y m d H M S y j B b A a I p`; names of months and days are English.
        timezone: IANA zone to show a time in, e.g. `contact.timezone`; empty: as given.
    """
    if isinstance(value, Undefined) or value is None or value == "":
        return shown(value)
    check_letters(str(format))
    moment = moment_of(value, timezone)
    return str(value) if moment is None else moment.strftime(str(format))


def check_letters(pattern: str) -> None:
    """Refuse a date format with letters we do not know.

    Raises:
        TemplateRuntimeError: names the first one.
    """
    unknown = [letter for letter in _DIRECTIVE.findall(pattern) if letter not in _DIRECTIVES or not letter]
    if unknown:
        raise TemplateRuntimeError(f"date: unknown letter %{unknown[0]} in the format")


def moment_of(value: Any, timezone: str = "") -> dt.datetime | None:
    """The date or time behind a value, in a zone where one is given; None for anything else.

    Raises:
        TemplateRuntimeError: no such zone.
    """
    moment = _moment(value)
    if moment is None or not timezone or moment.tzinfo is None:
        return moment
    try:
        return moment.astimezone(ZoneInfo(str(timezone)))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise TemplateRuntimeError(f"date: unknown time zone {str(timezone)[:64]}") from None


def _moment(value: Any) -> dt.datetime | None:
    try:
        if isinstance(value, (int, float)):
            return dt.datetime.fromtimestamp(value, dt.UTC)
        return dt.datetime.fromisoformat(str(value).strip())
    except (ValueError, OverflowError, OSError):
        return None


def number(value: Any, digits: int | None = None) -> str:
    """A number with thousands separators: `1234.5|number` is `1,234.5`, `|number(2)` is `1,234.50`."""
    amount = decimal_of(value)
    if amount is None:
        return shown(value)
    if digits is None:
        return f"{amount.normalize():,f}" if amount else "0"
    return _rounded(amount, digits)


def money(value: Any, currency: str = "") -> str:
    """An amount in the digits of its currency, and its code: `1234.5|money('EUR')` is `1,234.50 EUR`."""
    amount = decimal_of(value)
    if amount is None:
        return shown(value)
    code = str(currency or "").upper()
    return f"{_rounded(amount, minor_digits(code))} {code}".rstrip()


def minor_digits(currency: str) -> int:
    """How many digits a currency has after the point."""
    return _MINOR_DIGITS.get(currency, 2)


def decimal_of(value: Any) -> Decimal | None:
    """The value as a finite number of sane size, or None (a missing or non-numeric value is shown as it is)."""
    if isinstance(value, Undefined) or value is None or isinstance(value, bool):
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and -30 <= amount.adjusted() <= 30 else None


def _rounded(amount: Decimal, digits: int) -> str:
    with localcontext(prec=60):
        return f"{amount.quantize(Decimal(1).scaleb(-between(digits, 0, 8)), rounding=ROUND_HALF_UP):,f}"


def between(value: Any, low: int, high: int) -> int:
    """A whole number an author gave, if it lies between two bounds.

    Raises:
        TemplateRuntimeError: it does not.
    """
    if not isinstance(value, int) or not low <= value <= high:
        raise TemplateRuntimeError(f"a whole number from {low} to {high} is needed here, not {str(value)[:20]}")
    return value


def replace(text: Any, old: Any, new: Any) -> str:
    """`text` with every `old` replaced by `new`; nothing is replaced for an empty `old`."""
    whole, old, new = shown(text), shown(old), shown(new)
    if not old:
        return whole
    if len(whole) + whole.count(old) * len(new) > MAX_TEXT:
        raise TemplateRuntimeError(f"text exceeds {MAX_TEXT} characters")
    return whole.replace(old, new)


def total(items: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    """The sum of the numbers (also those given as text); what is no number counts nothing."""
    amounts = (decimal_of(_member(item, attribute)) for item in items)
    result = sum((amount for amount in amounts if amount is not None), decimal_of(start) or Decimal(0))
    return int(result) if result == result.to_integral_value() else float(result)


def truncate(value: Any, length: int = 255, killwords: bool = False, end: str = "...") -> str:
    """The text cut to `length` characters including `end`; between words unless `killwords`."""
    text = shown(value)
    if len(text) <= between(length, len(end), MAX_TEXT):
        return text
    kept = text[: length - len(end)]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + end


def _on_text(name: str) -> Callable[..., Any]:
    """Jinja's filter of that name on the value as text."""
    inner = jinja_filters.FILTERS[name]

    def apply(value: Any, *arguments: Any, **named: Any) -> Any:
        return inner(shown(value), *arguments, **named)

    return apply


def join(items: Any, separator: Any = "", attribute: str | int | None = None) -> Any:
    """The items as one text, `separator` between them; escaped as soon as one of them is HTML already."""
    listed = [_member(item, attribute) for item in items]
    if not any(hasattr(item, "__html__") for item in (*listed, separator)):
        separator, listed = shown(separator), [shown(item) for item in listed]
    else:
        separator, listed = escape(separator), [escape(shown(item)) for item in listed]
    if sum(map(len, listed)) + len(separator) * len(listed) > MAX_TEXT:
        raise TemplateRuntimeError(f"text exceeds {MAX_TEXT} characters")
    return separator.join(listed)


def shown(value: Any) -> str:
    """The value as text: None, an object and a missing value (which is noted) are empty, a list is `a, b, c`."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, Mapping):
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value if isinstance(item, (str, int, float)))
    if isinstance(value, (int, float, Undefined)):
        return str(value)
    raise TemplateRuntimeError(f"a {type(value).__name__} cannot be shown; use |list or |join")


def _member(item: Any, attribute: str | int | None) -> Any:
    if attribute is None:
        return item
    if isinstance(item, dict):
        return item.get(attribute)
    return item[attribute] if isinstance(item, list) and isinstance(attribute, int) else None


def batch(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Groups of `size` items (the last may be smaller): rows of a grid."""
    group: list[Any] = []
    between(size, 1, 100)
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def rounded(value: Any, precision: int = 0) -> Any:
    """The number rounded half away from zero to `precision` digits."""
    amount = decimal_of(value)
    if amount is None:
        return value
    between(precision, 0, 8)
    result = float(amount.quantize(Decimal(1).scaleb(-precision), rounding=ROUND_HALF_UP))
    return int(result) if precision == 0 else result


def whole(value: Any, default: int = 0) -> int:
    """The value as a whole number, or `default`."""
    amount = decimal_of(value)
    return default if amount is None else int(amount)


def real(value: Any, default: float = 0.0) -> float:
    """The value as a number, or `default`."""
    amount = decimal_of(value)
    return default if amount is None else float(amount)


def urlencode(value: Any) -> str:
    """The value as part of a URL: everything but letters, digits and `-._~` is percent-encoded."""
    return quote(shown(value), safe="")


def _url(value: Any) -> Any:
    """The value of a link: an address with a scheme other than `SCHEMES` becomes `#`."""
    text = shown(value)
    if text.startswith(("https://", "http://")):
        return value
    scheme = _SCHEME.match(re.sub(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202f\ufeff]", "", text))
    if scheme and scheme.group(1).lower() not in SCHEMES:
        return "#"
    return value


def _css(value: Any) -> str:
    """The value inside a style: words, numbers, colours and lengths only."""
    return re.sub(r"[^\w #%.,-]", "", shown(value))


def _word(value: Any) -> str:
    """The value where HTML expects a name or a script: letters, digits, `.`, `_` and `-` only."""
    return re.sub(r"[^\w.-]", "", shown(value))


def _unquoted(value: Any) -> Markup:
    """The value of an attribute without quotes: escaped, with everything that would end it escaped too."""
    text = str(escape(shown(value)))
    return Markup(re.sub(r"[\s`=]", lambda found: f"&#{ord(found.group())};", text))  # noqa: S704 - escaped above


_FROM_JINJA = (
    "abs", "count", "d", "default", "dictsort", "e", "escape", "first", "items", "last", "length", "list", "map", "max",
    "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "unique",
)  # fmt: skip
FILTERS: Final[dict[str, Callable[..., Any]]] = {
    **{name: jinja_filters.FILTERS[name] for name in _FROM_JINJA},
    **{name: _on_text(name) for name in ("capitalize", "lower", "string", "title", "trim", "upper")},
    "batch": batch, "date": date, "float": real, "int": whole, "join": join, "money": money, "number": number,
    "replace": replace, "round": rounded, "sum": total, "truncate": truncate, "urlencode": urlencode,
    "_css": _css, "_unquoted": _unquoted, "_url": _url, "_word": _word,
}  # fmt: skip
TESTS: Final = (
    "boolean", "defined", "divisibleby", "eq", "equalto", "==", "even", "false", "float", "ge", ">=", "gt",
    "greaterthan", ">", "in", "integer", "iterable", "le", "<=", "lower", "lt", "lessthan", "<", "mapping", "ne", "!=",
    "none", "number", "odd", "sequence", "string", "true", "undefined", "upper",
)  # fmt: skip
