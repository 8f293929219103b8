"""One row of a file of orders to one line for the staging table, or the reason why it is not taken.

Amounts stay exact decimals; moments without an offset are those of a time zone the caller names. What repeats (a date,
a price) is read once. Pure functions; called by `order_files`, which groups the rows to orders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar
from zoneinfo import ZoneInfo

from mautolib.contacts.address import parse, unwrap
from mautolib.contacts.countries import country_code
from mautolib.contacts.validation import CURRENCIES, single_line_problem
from mautolib.errors import InvalidInput
from mautolib.events.money import amount_text, parse_amount
from mautolib.ingestion.checks import AHEAD
from mautolib.ingestion.order_columns import Field, Layout

__all__ = ["COLUMNS", "BadCell", "Reading", "RowReader"]

#: Of the staging table, in the order of the cells of a read row.
COLUMNS = ("line", "order_id", "email", "customer_id", "placed_at", "currency", "total", "discount", "shipping", "tax",
           "refunded", "status", "country", "item", "amount")  # fmt: skip
_REMEMBERED = 50_000
_T = TypeVar("_T")
_QUANTITY = re.compile(r"-?[0-9]{1,10}(\.0+)?")
_THOUSANDS = re.compile(r"-?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")
#: What the service's own exports put before a cell that a spreadsheet would run as a formula.
_GUARD = re.compile(r"'+[=+\-@\t\r]")
#: Shopify writes a space before the offset.
_SPACED_OFFSET = re.compile(r" (?=[+-][0-9]{2}:?[0-9]{2}$)")
_FLOAT_ID = re.compile(r"([0-9]+)\.0+")
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_INT_MAX = 2**31 - 1
_LONG_TEXT = 2000


class BadCell(Exception):
    """A cell is not acceptable: `field`, what is wrong, and what to do."""

    def __init__(self, field: str, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.field, self.problem, self.advice = field, problem, advice


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How cells are read.

    Args:
        timezone: of moments without an offset.
        date_format: of `datetime.strptime`; None: ISO 8601.
        decimal_comma: "1.234,50" rather than "1,234.50".
        now: no order is placed after it.
    """

    timezone: ZoneInfo
    now: datetime
    date_format: str | None = None
    decimal_comma: bool = False


class RowReader:
    """Reads the rows of one file."""

    def __init__(self, layout: Layout, reading: Reading) -> None:
        self._reading = reading
        self._at = {target: layout.positions.get(target) for target in Field}
        self._moment = _remembered(self._read_moment)
        self._amount = _remembered(self._read_amount)
        self._email = _remembered(_read_email)
        self._country = _remembered(_read_country)

    def cell(self, cells: Sequence[str], target: Field) -> str:
        """The text of a field in a row, trimmed; blank where the file does not have it."""
        at = self._at[target]
        if at is None:
            return ""
        value = cells[at].strip()
        return value[1:] if value[:1] == "'" and _GUARD.match(value) else value

    def order_id(self, cells: Sequence[str]) -> str:
        """The number of the row's order.

        Raises:
            BadCell: there is none, or it cannot be stored.
        """
        value = self.cell(cells, Field.ORDER_ID)
        problem = single_line_problem(value, 100) if value else "is empty"
        if problem:
            raise BadCell(Field.ORDER_ID, f"order_id {problem}", "every row needs the number of its order")
        return value

    def read(self, line: int, cells: Sequence[str]) -> tuple[object, ...]:
        """The cells of the staging table.

        Raises:
            BadCell: the first cell that is not acceptable.
        """
        of = self.cell
        order_id = self.order_id(cells)
        customer = of(cells, Field.CUSTOMER_ID)
        money = [
            self._amount(text) if (text := of(cells, name)) else None
            for name in (Field.TOTAL, Field.DISCOUNT, Field.SHIPPING, Field.TAX, Field.REFUNDED)
        ]
        if money[-1] is not None and money[-1] < 0:
            raise BadCell(Field.REFUNDED, "refunded is below zero", "write what was paid back as a positive amount")
        item, amount = self._item(cells)
        moment, email, country = of(cells, Field.PLACED_AT), of(cells, Field.EMAIL), of(cells, Field.COUNTRY)
        return (
            line, order_id, self._email(email) if email else None, _customer_id(customer) if customer else None,
            self._moment(moment) if moment else None, _currency(of(cells, Field.CURRENCY)), *money,
            _status(of(cells, Field.STATUS)), self._country(country) if country else None, item, amount,
        )  # fmt: skip

    def is_free(self, cells: Sequence[str]) -> bool:
        """Whether the row names a price that is not above zero."""
        price = self.cell(cells, Field.UNIT_PRICE)
        return bool(price) and self._amount(price) <= 0

    def _item(self, cells: Sequence[str]) -> tuple[str | None, Decimal | None]:
        """What was bought as JSON, just as a shop's event tells it, and its amount; neither where the row says none."""
        sku, name = _text(self.cell(cells, Field.SKU), Field.SKU), _text(self.cell(cells, Field.NAME), Field.NAME)
        price_text = self.cell(cells, Field.UNIT_PRICE)
        if not (sku or name or price_text):
            return None, None
        quantity = _quantity(self.cell(cells, Field.QUANTITY) or "1")
        price = self._amount(price_text) if price_text else Decimal(0)
        discount_text = self.cell(cells, Field.LINE_DISCOUNT)
        discount = self._amount(discount_text) if discount_text else Decimal(0)
        item = json.dumps({"sku": sku, "name": name, "quantity": quantity, "unit_price": amount_text(price),
                           "discount": amount_text(discount)}, ensure_ascii=False)  # fmt: skip
        return item, quantity * price - discount

    def _read_moment(self, text: str) -> str:
        how = self._reading
        try:
            if how.date_format:
                moment = datetime.strptime(text, how.date_format)  # noqa: DTZ007 - the zone follows
            else:
                moment = datetime.fromisoformat(_SPACED_OFFSET.sub("", text))
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=how.timezone)
            moment = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            shape = f"like {how.date_format}" if how.date_format else "ISO 8601 such as 2026-05-01 09:30"
            raise BadCell(Field.PLACED_AT, f"placed_at is not {shape}", "name the format with --date-format") from None
        if moment < _FIRST:
            raise BadCell(Field.PLACED_AT, "placed_at lies before 1970", "correct the date")
        if moment > how.now + AHEAD:
            raise BadCell(Field.PLACED_AT, "placed_at lies in the future", "correct the date or name its time zone")
        return moment.isoformat()

    def _read_amount(self, text: str) -> Decimal:
        plain = text.replace(" ", "").replace("\u00a0", "")
        if self._reading.decimal_comma:
            plain = plain.replace(".", "").replace(",", ".")
        elif _THOUSANDS.fullmatch(plain):
            plain = plain.replace(",", "")
        try:
            return parse_amount(plain)
        except ValueError as error:
            advice = "write 1234.50 without a currency sign" + ("" if "," not in text else ", or use --decimal-comma")
            raise BadCell("amount", f"{text[:40]!r} {error}", advice) from None


def _remembered(read: Callable[[str], _T]) -> Callable[[str], _T]:
    seen: dict[str, _T] = {}

    def look_up(text: str) -> _T:
        if text in seen:
            return seen[text]
        value = read(text)
        if len(seen) < _REMEMBERED:
            seen[text] = value
        return value

    return look_up


def _read_email(text: str) -> str:
    try:
        return parse(unwrap(text)).email
    except InvalidInput as error:
        problem = f"email is not acceptable: {error}"
        raise BadCell(Field.EMAIL, problem, "correct the address or leave it blank") from None


def _read_country(text: str) -> str | None:
    """A code; a name nobody knows is no reason to leave an order out."""
    return text.upper() if len(text) == 2 and text.isalpha() and text.isascii() else country_code(text)


def _customer_id(text: str) -> str | None:
    """Spreadsheets make 17850.0 of 17850; 0 is how shops write that it was a guest."""
    problem = single_line_problem(text, 200)
    if problem:
        raise BadCell(Field.CUSTOMER_ID, f"customer_id {problem}", "correct it or leave it blank")
    number = _FLOAT_ID.fullmatch(text)
    text = number[1] if number else text
    return text if text.strip("0") else None


def _currency(text: str) -> str | None:
    if text and text.upper() not in CURRENCIES:
        raise BadCell(Field.CURRENCY, "currency is not an ISO 4217 code such as EUR", "write the code of three letters")
    return text.upper() or None


def _status(text: str) -> str | None:
    return text[:50].lower().removeprefix("wc-") or None


def _quantity(text: str) -> int:
    if not _QUANTITY.fullmatch(text) or abs(number := int(text.partition(".")[0])) > _INT_MAX:
        raise BadCell(Field.QUANTITY, f"{text[:40]!r} is not a whole number", "write how many pieces; parts of one "
                      "belong into the price")  # fmt: skip
    return number


def _text(value: str, target: Field) -> str:
    if value.isprintable() and len(value) <= _LONG_TEXT:
        return value
    value = " ".join(value.split())
    problem = single_line_problem(value, _LONG_TEXT)
    if problem:
        raise BadCell(target, f"{target} {problem}", "shorten or clean the text")
    return value
