"""Which column of a file of orders is what: exports of shops known by their headers, or a mapping of one's own.

A file has a row for each line of an order, or a row for each order, or both (Shopify): columns that belong to the order
may be blank on its further rows. Pure functions of the header. Called by `order_files`; the cells are read by
`order_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mautolib.errors import InvalidInput

__all__ = ["MAX_COLUMNS", "PRESETS", "Field", "Layout", "Preset", "lay_out"]

MAX_COLUMNS = 500


class Field(StrEnum):
    """What a column of a file of orders can be."""

    ORDER_ID = "order_id"
    PLACED_AT = "placed_at"
    EMAIL = "email"
    CUSTOMER_ID = "customer_id"
    STATUS = "status"
    CURRENCY = "currency"
    TOTAL = "total"
    DISCOUNT = "discount"
    SHIPPING = "shipping"
    TAX = "tax"
    REFUNDED = "refunded"
    COUNTRY = "country"
    SKU = "sku"
    NAME = "name"
    QUANTITY = "quantity"
    UNIT_PRICE = "unit_price"
    LINE_DISCOUNT = "line_discount"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """An export of a known shop.

    Args:
        columns: field -> its headers in lower case; the first one the file has counts.
        told_by: headers that a file has which is such an export.
        cancelled_prefix: how the numbers of cancellations begin.
        currency: of all amounts, where no column says it and the caller does not.
        void: statuses of orders that never became one.
    """

    name: str
    columns: Mapping[Field, tuple[str, ...]]
    told_by: frozenset[str]
    cancelled_prefix: str = ""
    currency: str | None = None
    void: frozenset[str] = field(default_factory=frozenset)


#: The file names its columns as this module does.
_OWN = Preset(name="own", columns={one: (one.value,) for one in Field}, told_by=frozenset({"order_id", "placed_at"}))
_ONLINE_RETAIL = Preset(
    name="online_retail", cancelled_prefix="C", currency="GBP",
    told_by=frozenset({"stockcode", "description", "quantity", "invoicedate", "country"}),
    columns={
        Field.ORDER_ID: ("invoiceno", "invoice"), Field.PLACED_AT: ("invoicedate",), Field.COUNTRY: ("country",),
        Field.CUSTOMER_ID: ("customerid", "customer id"), Field.SKU: ("stockcode",), Field.NAME: ("description",),
        Field.QUANTITY: ("quantity",), Field.UNIT_PRICE: ("unitprice", "price"),
    },
)  # fmt: skip
_SHOPIFY = Preset(
    name="shopify", void=frozenset({"voided", "expired"}),
    told_by=frozenset({"name", "financial status", "created at", "lineitem quantity", "lineitem price"}),
    columns={
        Field.ORDER_ID: ("name",), Field.PLACED_AT: ("created at",), Field.EMAIL: ("email",),
        Field.STATUS: ("financial status",), Field.CURRENCY: ("currency",), Field.TOTAL: ("total",),
        Field.DISCOUNT: ("discount amount",), Field.SHIPPING: ("shipping",), Field.TAX: ("taxes",),
        Field.REFUNDED: ("refunded amount",), Field.COUNTRY: ("billing country",), Field.SKU: ("lineitem sku",),
        Field.NAME: ("lineitem name",), Field.QUANTITY: ("lineitem quantity",), Field.UNIT_PRICE: ("lineitem price",),
        Field.LINE_DISCOUNT: ("lineitem discount",),
    },
)  # fmt: skip
_WOOCOMMERCE = Preset(
    name="woocommerce", void=frozenset({"cancelled", "failed", "pending", "checkout-draft", "trash"}),
    told_by=frozenset({"order_date", "status", "order_total", "order_currency"}),
    columns={
        Field.ORDER_ID: ("order_number", "order_id"), Field.PLACED_AT: ("order_date",), Field.STATUS: ("status",),
        Field.EMAIL: ("customer_email", "billing_email"), Field.CUSTOMER_ID: ("customer_id",),
        Field.CURRENCY: ("order_currency",), Field.TOTAL: ("order_total",), Field.DISCOUNT: ("discount_total",),
        Field.SHIPPING: ("shipping_total",), Field.TAX: ("tax_total",), Field.REFUNDED: ("refunded_total",),
        Field.COUNTRY: ("billing_country",),
    },
)  # fmt: skip
PRESETS = {one.name: one for one in (_OWN, _ONLINE_RETAIL, _SHOPIFY, _WOOCOMMERCE)}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The position of each field a file has, and whose export it is (None: only the caller's mapping says)."""

    positions: Mapping[Field, int]
    preset: Preset | None

    @property
    def has_lines(self) -> bool:
        """Whether rows say what was bought."""
        return bool(self.positions.keys() & {Field.SKU, Field.NAME, Field.UNIT_PRICE})


def lay_out(header: Sequence[str], mapping: Mapping[str, str | None], preset: str = "auto") -> Layout:
    """Decide what each column is.

    Args:
        mapping: header -> field, None: the column is not read; wins over the preset.
        preset: a name of `PRESETS`, "auto" (told by the header) or "none".

    Raises:
        InvalidInput: a header the file does not have, an unknown field, a field twice, or one that is missing.
    """
    if len(header) > MAX_COLUMNS:
        raise InvalidInput(f"Line 1 has {len(header)} columns; at most {MAX_COLUMNS} are read", line=1)
    places = {name.lower(): at for at, name in reversed(list(enumerate(header)))}
    chosen = _chosen(places, mapping)
    shop = _preset(places, preset)
    positions: dict[Field, int] = {}
    for target, names in (shop.columns if shop else {}).items():
        found = next((places[name] for name in names if name in places and places[name] not in chosen), None)
        if found is not None:
            positions[target] = found
    taken = [target for target in chosen.values() if target is not None]
    if len(taken) != len(set(taken)):
        raise InvalidInput("The mapping names a field twice; each is read from one column", path=("mapping",))
    positions |= {target: at for at, target in chosen.items() if target is not None}
    _check(positions)
    return Layout(positions=positions, preset=shop)


def _chosen(places: Mapping[str, int], mapping: Mapping[str, str | None]) -> dict[int, Field | None]:
    chosen: dict[int, Field | None] = {}
    for name, target in mapping.items():
        if name.strip().lower() not in places:
            raise InvalidInput(f"The mapping names a column {name[:60]!r} that the file does not have",
                               path=("mapping",), line=1)  # fmt: skip
        if target is not None and target not in list(Field):
            raise InvalidInput(f"{target!r} is no field; there are {', '.join(Field)}", path=("mapping",))
        chosen[places[name.strip().lower()]] = Field(target) if target is not None else None
    return chosen


def _preset(places: Mapping[str, int], name: str) -> Preset | None:
    if name == "auto":
        return next((one for one in PRESETS.values() if one.told_by <= places.keys()), None)
    if name == "none":
        return None
    if name not in PRESETS:
        raise InvalidInput(f"{name!r} is no preset; there are auto, none, {', '.join(PRESETS)}", path=("preset",))
    return PRESETS[name]


def _check(positions: Mapping[Field, int]) -> None:
    missing = [str(one) for one in (Field.ORDER_ID, Field.PLACED_AT) if one not in positions]
    if not positions.keys() & {Field.TOTAL, Field.UNIT_PRICE}:
        missing.append("total or unit_price")
    if missing:
        raise InvalidInput(f"No column is known to be {', '.join(missing)}: say it with --mapping, for example "
                           '{"Invoice": "order_id"}', path=("mapping",), line=1)  # fmt: skip
    if Field.TAX in positions and Field.TOTAL not in positions:
        raise InvalidInput("Whether prices contain the tax cannot be told without a column that is the total",
                           path=("mapping",), line=1)  # fmt: skip
