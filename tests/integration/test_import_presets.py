"""Exports of other platforms in a real database: whoever said no there is not mailed from here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mautolib.contacts import consent, imports
from mautolib.contacts.model import SuppressionReason
from tests import platform_exports as exports
from tests.integration.test_imports import NOW, Bed, bed, counts, create, own_engine

__all__ = ["bed", "own_engine"]


def people(bed: Bed, *columns: str) -> dict[str, tuple[Any, ...]]:
    """The columns of every contact, by the part of the address before the @."""
    with bed.engine.begin() as tx:
        rows = tx.execute(text(f"select split_part(email, '@', 1), {', '.join(columns)} from contacts"))
        return {row[0]: tuple(row[1:]) for row in rows}


def mailable(bed: Bed) -> set[str]:
    return set(bed.scalars("select split_part(email, '@', 1) from mailable_contacts"))


def test_shopify_becomes_contacts_with_their_tags_and_their_no(bed: Bed) -> None:
    done = bed.take(exports.SHOPIFY)
    assert (done.status, counts(done)) == ("completed", (2, 2, 0, 0, 0, 0))
    assert done.options["preset"] == "shopify"
    assert people(bed, "subscribed", "consent_status", "country", "phone") == {
        "anna": (True, "unknown", "DE", "+4915112345678"), "ben": (False, "unknown", "US", "(775) 555-0154"),
    }  # fmt: skip
    assert set(bed.scalars("select name from tags")) == {"vip", "b2b | wholesale", "quoted"}
    assert mailable(bed) == {"anna"}
    # Whoever has it in writing says so.
    fair = bed.take(exports.SHOPIFY_OLD, consent_source="checkout", consent_at="2025-01-01T00:00:00Z")
    assert counts(fair) == (2, 2, 0, 0, 0, 0)
    assert people(bed, "consent_status", "consent_source")["cleo"] == ("granted", "checkout")
    assert people(bed, "consent_status", "consent_source")["dan"] == ("unknown", None)


@pytest.mark.parametrize("export", ["WOO_ANALYTICS", "WOO_EXTENSION", "WOO_USERS"])
def test_customers_of_woocommerce_are_no_subscribers_if_the_caller_says_so(bed: Bed, export: str) -> None:
    done = bed.take(getattr(exports, export), subscribed_default=False)
    assert (done.options["preset"], done.rejected) == ("woocommerce", 0)
    assert done.created == done.total_rows
    assert mailable(bed) == set()
    assert bed.count("contacts", "custom_fields::text ilike '%secret%'") == 0
    first = {"WOO_ANALYTICS": "eva", "WOO_EXTENSION": "finn", "WOO_USERS": "hugo"}[export]
    assert people(bed, "created_at")[first][0] < datetime(2025, 1, 1, tzinfo=UTC)


def test_mailchimps_files_one_after_the_other(bed: Bed) -> None:
    undecided = bed.take(exports.MAILCHIMP_SUBSCRIBED)
    assert undecided.status == "failed" and "non-subscribed" in (undecided.error or "")
    bed.take(exports.MAILCHIMP_SUBSCRIBED, preset="mailchimp")
    bed.take(exports.MAILCHIMP_UNSUBSCRIBED)
    cleaned = bed.take(exports.MAILCHIMP_CLEANED)
    assert cleaned.options["preset"] == "mailchimp"
    assert cleaned.options["subscribed_default"] is False
    when = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2023, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert people(bed, "subscribed", "consent_status", "consent_source", "consent_at") == {
        "ida": (True, "granted", "mailchimp", when[0]), "jon": (True, "unknown", None, None),
        "kim": (False, "withdrawn", "mailchimp", when[1]), "lea": (False, "unknown", None, None),
        "mia": (False, "unknown", None, None),
    }  # fmt: skip
    assert people(bed, "country", "timezone")["ida"] == ("DK", "Europe/Copenhagen")
    assert bed.count("suppressions") == 0, "an import suppresses nobody"
    assert mailable(bed) == {"ida", "jon"}
    assert sorted(bed.scalars("select status from consents")) == ["granted", "withdrawn"]


def test_klaviyo_tells_the_three_kinds_apart(bed: Bed) -> None:
    done = bed.take(exports.KLAVIYO)
    assert counts(done) == (6, 5, 0, 1, 1, 0)
    with bed.engine.begin() as tx:
        (reject,) = imports.rejects(tx, done.import_id)
    assert (reject.line, reject.code, reject.value) == (6, "invalid_value", "Maybe")
    assert people(bed, "subscribed", "consent_status") == {
        "nia": (True, "granted"), "olu": (False, "unknown"), "pia": (False, "withdrawn"), "quy": (False, "unknown"),
        "sue": (False, "unknown"),
    }  # fmt: skip
    assert mailable(bed) == {"nia"}
    again = bed.take(exports.KLAVIYO, update_policy="overwrite")
    assert (again.created, again.updated) == (0, 0), "the same file again changes nothing"


@pytest.mark.parametrize("policy", ["skip", "fill_empty", "merge", "overwrite"])
def test_no_export_subscribes_anybody_again(bed: Bed, policy: str) -> None:
    for name in ("nia", "anna", "ida"):
        person = create(bed, f"{name}@shop.example")
        with bed.engine.begin() as tx:
            consent.unsubscribe(tx, person.contact_id, source="test", actor="test", now=NOW - timedelta(days=1))
    with bed.engine.begin() as tx:
        consent.suppress(tx, "cleo@shop.example", SuppressionReason.COMPLAINT, source="test", actor="test", now=NOW)
    for data in (exports.KLAVIYO, exports.SHOPIFY, exports.SHOPIFY_OLD):
        bed.take(data, update_policy=policy)
    done = bed.take(exports.MAILCHIMP_SUBSCRIBED, update_policy=policy, preset="mailchimp")
    assert done.status == "completed"
    found = people(bed, "subscribed")
    assert {found[name][0] for name in ("nia", "anna", "ida", "cleo")} == {False}
    assert not {"nia", "anna", "ida", "cleo"} & mailable(bed)


@pytest.mark.parametrize(("policy", "is_subscribed"), [("fill_empty", True), ("merge", False), ("overwrite", False)])
def test_a_no_elsewhere_opts_out_here_where_the_policy_updates(bed: Bed, policy: str, is_subscribed: bool) -> None:
    for name in ("ben", "olu", "kim", "mia", "lea"):
        create(bed, f"{name}@shop.example")
    for data in (exports.SHOPIFY, exports.KLAVIYO, exports.MAILCHIMP_UNSUBSCRIBED, exports.MAILCHIMP_CLEANED):
        bed.take(data, update_policy=policy)
    found = people(bed, "subscribed")
    assert {found[name][0] for name in ("ben", "olu", "kim", "mia")} == {is_subscribed}
    assert found["lea"] == (True,), "a blank cell says nothing about a known contact"


def test_a_long_export_is_read_like_a_short_one(bed: Bed) -> None:
    header, *_ = exports.KLAVIYO.splitlines()
    words = ["SUBSCRIBED,2024-01-01T10:00:00Z", "NEVER_SUBSCRIBED,", "UNSUBSCRIBED,2025-01-01T00:00:00Z", ","]
    rows = [f"p{n}@shop.example,K{n},N{n},,,,,,,,,Spain,,,,,,{words[n % 4]},,,,,,,,," for n in range(12_000)]
    done = bed.take("\n".join([header, *rows]) + "\n")
    assert counts(done) == (12_000, 12_000, 0, 0, 0, 0)
    found = bed.scalars("select concat(subscribed, ' ', consent_status, ' ', country, ' ', count(*)) from contacts "
                        "group by subscribed, consent_status, country order by 1")  # fmt: skip
    assert found == ["f unknown ES 6000", "f withdrawn ES 3000", "t granted ES 3000"]
