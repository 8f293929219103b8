"""What shops post: orders as Shopify and WooCommerce write them, and the signature of each kind of source.

The keys are those of the platforms' own documentation, shortened to what says something about an order; values are
invented. Used by the tests of inbound sources.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

SECRET = "shpss_7d1f0c52e9a84b"


def sign_generic(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """The header of a source of one's own."""
    return {"X-Signature-256": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"}


def sign_standard(
    body: bytes, message_id: str, *, key: bytes = SECRET.encode(), at: datetime | None = None
) -> dict[str, str]:
    """The headers of Standard Webhooks."""
    written = str(int((at or datetime.now(UTC)).timestamp()))
    digest = hmac.new(key, f"{message_id}.{written}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": message_id, "webhook-timestamp": written, "webhook-signature": signature}


def sign_shopify(body: bytes, topic: str, secret: str = SECRET) -> dict[str, str]:
    """The headers of Shopify."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    return {
        "X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": base64.b64encode(digest).decode(),
        "X-Shopify-Shop-Domain": "tea.myshopify.example", "X-Shopify-API-Version": "2026-07",
        "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043", "Content-Type": "application/json",
    }  # fmt: skip


def sign_woocommerce(body: bytes, topic: str, secret: str = SECRET) -> dict[str, str]:
    """The headers of WooCommerce."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    resource, _, event = topic.partition(".")
    return {
        "X-WC-Webhook-Topic": topic, "X-WC-Webhook-Resource": resource, "X-WC-Webhook-Event": event,
        "X-WC-Webhook-Signature": base64.b64encode(digest).decode(), "X-WC-Webhook-ID": "3",
        "X-WC-Webhook-Source": "https://tea.example/", "X-WC-Webhook-Delivery-ID": "0b1d3f", "Content-Type":
        "application/json; charset=utf-8",
    }  # fmt: skip


def _money(amount: str, currency: str = "EUR") -> dict[str, dict[str, str]]:
    return {
        "shop_money": {"amount": amount, "currency_code": currency},
        "presentment_money": {"amount": amount, "currency_code": currency},
    }


def shopify_order(number: int, email: str, **changes: Any) -> dict[str, Any]:
    """An order of 66.80 EUR: two teas at 29.95, 3.00 off, 9.90 for shipping; paid."""
    return {
        "id": number, "admin_graphql_api_id": f"gid://shopify/Order/{number}", "app_id": 580111,
        "buyer_accepts_marketing": True, "cancel_reason": None, "cancelled_at": None, "cart_token": f"cart{number}",
        "checkout_id": 901414060, "checkout_token": "bd5a8aa1ecd019dd3520ff791ee3a24c", "contact_email": email,
        "created_at": "2026-05-01T11:00:00+02:00", "currency": "EUR", "current_total_price": "66.80",
        "customer_locale": "de", "discount_codes": [{"code": "TEA", "amount": "3.00", "type": "fixed_amount"}],
        "email": email, "financial_status": "paid", "fulfillment_status": None, "name": f"#{number % 10000}",
        "note": None, "order_number": number % 10000, "payment_gateway_names": ["shopify_payments"], "phone": None,
        "presentment_currency": "EUR", "processed_at": "2026-05-01T11:00:00+02:00", "source_name": "web",
        "subtotal_price": "56.90", "tags": "", "tax_lines": [{"price": "10.67", "rate": 0.19, "title": "VAT"}],
        "taxes_included": True, "test": False, "token": "f7a1", "total_discounts": "3.00",
        "total_line_items_price": "59.90", "total_price": "66.80", "total_price_set": _money("66.80"),
        "total_shipping_price_set": _money("9.90"), "total_tax": "10.67", "updated_at": "2026-05-01T11:00:05+02:00",
        "user_id": None,
        "customer": {"id": 207119551, "email": email, "first_name": "Ana", "last_name": "Núñez", "state": "disabled"},
        "line_items": [{
            "id": 466157049, "name": "Sencha - 100 g", "title": "Sencha", "sku": "TEA-SENCHA", "quantity": 2,
            "price": "29.95", "price_set": _money("29.95"), "total_discount": "0.00", "taxable": True,
            "discount_allocations": [{"amount": "3.00", "amount_set": _money("3.00"), "discount_application_index": 0}],
        }],
        "refunds": [], **changes,
    }  # fmt: skip


def shopify_refund(number: int, order: int, amount: str, **changes: Any) -> dict[str, Any]:
    """A refund that went through, as it stands in an order and in `refunds/create`."""
    return {
        "id": number, "order_id": order, "created_at": "2026-05-03T08:30:00+02:00", "note": "broken", "restock": True,
        "processed_at": "2026-05-03T08:30:00+02:00", "refund_line_items": [], "order_adjustments": [],
        "transactions": [
            {"id": number * 10, "kind": "refund", "status": "success", "amount": amount, "currency": "EUR"},
            {"id": number * 10 + 1, "kind": "refund", "status": "failure", "amount": amount, "currency": "EUR"},
        ], **changes,
    }  # fmt: skip


def woo_order(number: int, email: str, **changes: Any) -> dict[str, Any]:
    """An order of 71.70 EUR: three teas (subtotal 59.90, 3.00 off), 4.80 for shipping, 10.00 tax; being processed."""
    return {
        "id": number, "parent_id": 0, "status": "processing", "currency": "EUR", "version": "9.4.2",
        "prices_include_tax": False, "date_created": "2026-05-01T11:00:00", "date_created_gmt": "2026-05-01T09:00:00",
        "date_modified": "2026-05-01T11:00:09", "date_modified_gmt": "2026-05-01T09:00:09", "discount_total": "3.00",
        "discount_tax": "0.57", "shipping_total": "4.80", "shipping_tax": "0.91", "cart_tax": "9.09", "total": "71.70",
        "total_tax": "10.00", "customer_id": 12, "order_key": "wc_order_8kq", "payment_method": "stripe",
        "billing": {"first_name": "Ana", "last_name": "Núñez", "email": email, "country": "DE", "phone": ""},
        "shipping": {"first_name": "Ana", "country": "DE"}, "created_via": "checkout", "cart_hash": f"hash{number}",
        "date_paid": "2026-05-01T11:00:08", "date_paid_gmt": "2026-05-01T09:00:08", "number": str(number),
        "meta_data": [{"id": 1, "key": "_x", "value": {"nested": [1, 2]}}],
        "line_items": [{
            "id": 315, "name": "Sencha", "product_id": 93, "quantity": 3, "subtotal": "59.90", "subtotal_tax": "9.66",
            "total": "56.90", "total_tax": "9.09", "sku": "TEA-SENCHA", "price": 18.966666666666665,
        }],
        "tax_lines": [], "shipping_lines": [{"total": "4.80"}], "fee_lines": [], "coupon_lines": [], "refunds": [],
        **changes,
    }  # fmt: skip


def as_sent(body: Any) -> bytes:
    """The bytes a platform posts."""
    return json.dumps(body, ensure_ascii=False).encode()
