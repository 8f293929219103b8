"""Exports of shops and mail platforms: which one a header is, and what their rows become."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib.contacts import domains
from mautolib.contacts.imports.headers import plan_columns, suggest_columns
from mautolib.contacts.imports.model import ImportOptions, PresetChoice
from mautolib.contacts.imports.presets import platform_of
from mautolib.contacts.imports.rows import RowStager
from mautolib.errors import InvalidInput
from tests import platform_exports as exports

NOW = datetime(2026, 3, 1, tzinfo=UTC)
_UNESCAPES = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
EACH = {
    "SHOPIFY": "shopify", "SHOPIFY_OLD": "shopify", "WOO_ANALYTICS": "woocommerce", "WOO_EXTENSION": "woocommerce",
    "WOO_USERS": "woocommerce", "MAILCHIMP_SUBSCRIBED": "mailchimp", "MAILCHIMP_UNSUBSCRIBED": "mailchimp",
    "MAILCHIMP_CLEANED": "mailchimp", "KLAVIYO": "klaviyo",
}  # fmt: skip


def read(data: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data)))


def staged(data: str, **options: Any) -> dict[str, dict[str, Any]]:
    """What the rows of a file are staged as, by the part of the address before the @."""
    header, *rows = read(data)
    parsed = ImportOptions.parse(options)
    plan = plan_columns(header, parsed.mapping, rows, parsed.preset)
    stager = RowStager(plan, parsed, domains.lists(), unclean=re.compile("[\x00\ud800-\udfff]"), now=NOW)
    found = {}
    for line, cells in enumerate(rows, start=2):
        parts = stager.stage(line, cells, is_suspect=False)[:-1].split("\t")
        parts = [re.sub(r"\\.", lambda one: _UNESCAPES[one[0]], part) for part in parts]
        row: dict[str, Any] = {name: part for name, part in zip(stager.columns, parts, strict=True) if part}
        for name in ("custom_fields", "tags"):
            if name in row:
                row[name] = json.loads(row[name])
        found[row.get("email", row.get("email_key", "")).partition("@")[0]] = row
    return found


def pick(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in names)


WORDS = ("subscribed", "consent_status", "consent_source", "consent_at")


@pytest.mark.parametrize(("name", "preset"), EACH.items())
def test_each_export_is_recognised_in_any_case(name: str, preset: str) -> None:
    header = read(getattr(exports, name))[0]
    for one in (header, [cell.upper() for cell in header], header[::-1]):
        assert suggest_columns(one, {}, [])[1] == preset
        found = platform_of(one, PresetChoice.AUTO)
        assert found is not None and found.name == preset
    assert platform_of(header, PresetChoice.NONE) is None


@pytest.mark.parametrize(
    "header",
    [
        "email,first_name,country", "Email,Accepts Email Marketing", "Email,Email Marketing Consent",
        "Email Address,First Name,MEMBER_RATING", "Email,Accepts Marketing,Total Spent",
        # Orders, not customers.
        "Name,Email,Financial Status,Accepts Marketing,Total Spent,Total Orders,Tax Exempt,Lineitem name",
        "order_id,email,date_registered,billing_email,billing_country",
        # Two platforms at once is neither.
        "Email,Email Address,MEMBER_RATING,LEID,EUID,Email Marketing Consent,Klaviyo ID",
    ],
)
def test_a_header_that_could_be_something_else_is_not_taken_for_an_export(header: str) -> None:
    assert platform_of(header.split(","), PresetChoice.AUTO) is None


def test_a_chosen_preset_needs_a_column_of_its_platform() -> None:
    needed = "no export of klaviyo: it has none of the columns email marketing consent"
    with pytest.raises(InvalidInput, match=needed) as failure:
        plan_columns(["Email", "First Name"], {}, [], PresetChoice.KLAVIYO)
    assert failure.value.path == ("options", "preset")
    assert plan_columns(["Email", "Accepts Email Marketing"], {}, [], PresetChoice.SHOPIFY).fields["subscribed"] == (1,)
    with pytest.raises(InvalidInput, match="takes one of auto, none, shopify"):
        ImportOptions.parse({"preset": "magento"})


def test_shopify() -> None:
    rows = staged(exports.SHOPIFY)
    anna, ben = rows["anna"], rows["ben"]
    assert pick(anna, "first_name", "last_name", "phone", "country") == ("Anna", "Weber", "+4915112345678", "DE")
    assert anna["tags"] == ["vip", "b2b | wholesale", 'quoted']
    assert pick(anna, *WORDS) == ("t", None, None, None), "a yes without a time is no record of consent"
    assert pick(ben, *WORDS) == ("f", None, None, None)
    assert pick(ben, "phone", "country", "tags") == ("(775) 555-0154", "US", None)
    custom = anna["custom_fields"]
    assert (custom["Customer ID"], custom["Default Address Zip"]) == ("7210448301122", "53111")
    assert (custom["Accepts SMS Marketing"], custom["Total Spent"]) == ("no", "120.50")
    assert not {"Phone", "Default Address Phone", "Tags", "Default Address Country Code"} & custom.keys()
    assert ben["custom_fields"]["Note"] == "Two\nlines"


def test_shopify_of_earlier_years() -> None:
    rows = staged(exports.SHOPIFY_OLD)
    assert pick(rows["cleo"], "subscribed", "country") == ("t", "FR")
    assert pick(rows["dan"], "subscribed", "country") == ("f", "GB")
    assert rows["cleo"]["custom_fields"]["Zip"] == "69001"


def test_woocommerce_analytics() -> None:
    rows = staged(exports.WOO_ANALYTICS)
    assert pick(rows["eva"], "first_name", "last_name", "country", "created_at") == (
        "Eva", "van der Berg", "NL", "2024-05-06T07:08:09+00:00")  # fmt: skip
    assert pick(rows["guest"], "first_name", "last_name", "created_at", *WORDS) == ("Guest", *[None] * 6)
    assert rows["eva"]["custom_fields"]["AOV"] == "50.00"
    assert staged(exports.WOO_ANALYTICS.replace("Date Registered", "Sign Up"))["eva"]["created_at"]


def test_woocommerce_customer_export() -> None:
    rows = staged(exports.WOO_EXTENSION)
    names = ("first_name", "last_name", "phone", "country", "created_at")
    assert pick(rows["finn"], *names) == ("Finn", "Olsen", "+4790000000", "NO", "2023-01-02T03:04:05+00:00")
    assert pick(rows["gerd"], *names) == ("Gerd", "Moe", None, "SE", None), "a guest has a billing address only"


def test_woocommerce_secrets_stay_out() -> None:
    rows = staged(exports.WOO_USERS)
    assert pick(rows["hugo"], "first_name", "language", "country", "phone") == ("Hugo", "es", "MX", "55 1234")
    assert "secret" not in json.dumps(rows).lower()
    shown, _ = suggest_columns(read(exports.WOO_USERS)[0], {}, [])
    assert {name for name, target in shown.items() if target is None} == {"user_pass", "session_tokens"}


def test_mailchimp_subscribed() -> None:
    rows = staged(exports.MAILCHIMP_SUBSCRIBED, preset="mailchimp")
    signed_up = "2020-01-02T03:04:05+00:00"
    ida, jon = rows["ida"], rows["jon"]
    assert pick(ida, *WORDS) == (None, "granted", "mailchimp", signed_up)
    assert pick(ida, "created_at", "country", "timezone") == (signed_up, "DK", "Europe/Copenhagen")
    assert ida["tags"] == ["VIP", "Blog, news"]
    assert (ida["custom_fields"]["OPTIN_IP"], ida["custom_fields"]["MEMBER_RATING"]) == ("192.0.2.1", "4")
    assert pick(jon, *WORDS) == (None, None, None, None), "added by an administrator: nobody said yes"
    assert pick(jon, "created_at", "tags") == ("2019-05-05T05:05:05+00:00", None)


def test_mailchimp_contacts_of_unknown_kind_are_not_guessed_at() -> None:
    header = read(exports.MAILCHIMP_SUBSCRIBED)[0]
    with pytest.raises(InvalidInput, match="subscribed or of non-subscribed") as failure:
        plan_columns(header, {}, [])
    assert failure.value.path == ("options", "preset")
    # Whoever decides about the columns has decided.
    assert plan_columns(header, {"OPTIN_TIME": None}, []).preset == "mailchimp"
    assert plan_columns([*header, "Yes"], {"Yes": "subscribed"}, []).preset == "mailchimp"
    with_status = exports.MAILCHIMP_SUBSCRIBED.replace("TAGS\n", "TAGS,STATUS\n")
    for status, flag in {"subscribed": "t", "nonsubscribed": "f", "Cleaned": "f", "pending": "f"}.items():
        data = with_status.replace('news"""\n', f'news""",{status}\n').replace('fair",\n', f'fair",,{status}\n')
        rows = staged(data)
        assert {row.get("subscribed") for row in rows.values()} == {flag}
        assert rows["ida"].get("consent_status") == ("granted" if status == "subscribed" else None)


def test_mailchimp_unsubscribed_and_cleaned() -> None:
    rows = staged(exports.MAILCHIMP_UNSUBSCRIBED) | staged(exports.MAILCHIMP_CLEANED)
    assert pick(rows["kim"], *WORDS) == ("f", "withdrawn", "mailchimp", "2023-03-04T05:06:07+00:00")
    assert pick(rows["mia"], *WORDS) == ("f", None, None, None)
    assert pick(rows["lea"], *WORDS) == (None, None, None, None)
    # So that a blank cell of such a file is no yes either.
    assert plan_columns(read(exports.MAILCHIMP_UNSUBSCRIBED)[0], {}, []).blank_is_no
    assert not plan_columns(read(exports.MAILCHIMP_SUBSCRIBED)[0], {}, [], PresetChoice.MAILCHIMP).blank_is_no


def test_klaviyo() -> None:
    rows = staged(exports.KLAVIYO)
    assert pick(rows["nia"], *WORDS) == ("t", "granted", "klaviyo", "2024-01-01T10:00:00+00:00")
    assert pick(rows["olu"], *WORDS) == ("f", None, None, None)
    assert pick(rows["pia"], *WORDS) == ("f", "withdrawn", "klaviyo", "2025-02-02T00:00:00+00:00")
    assert pick(rows["quy"], *WORDS) == ("f", None, None, None), "suppressed there"
    assert pick(rows["sue"], *WORDS) == (None, None, None, None)
    assert pick(rows["rob"], "reject_column", "reject_code", "reject_value") == (
        "Email Suppressions", "invalid_value", "Maybe")  # fmt: skip
    assert pick(rows["nia"], "phone", "country", "tags", "created_at") == (
        "+34600000000", "ES", ["vip", "a|b"], "2023-12-31T09:00:00+00:00")  # fmt: skip
    assert (rows["olu"]["country"], rows["quy"]["country"], rows["pia"]["country"]) == ("NG", "VN", "DE")
    assert rows["nia"]["custom_fields"]["SMS Marketing Consent"] == "NEVER_SUBSCRIBED"
    assert "tags" not in rows["olu"] or rows["olu"]["tags"] == []
    words = exports.KLAVIYO.replace(",NEVER_SUBSCRIBED,,", ",Never subscribed,,")
    words = words.replace(",SUBSCRIBED,2024", ",Subscribed,2024")
    assert pick(staged(words)["nia"], *WORDS)[:2] == ("t", "granted")
    assert staged(words)["olu"]["subscribed"] == "f"


def test_the_callers_mapping_wins_over_a_preset() -> None:
    mapping = {"Accepts Email Marketing": None, "Tags": "custom_fields.labels", "phone": "custom_fields.tel"}
    rows = staged(exports.SHOPIFY, mapping=mapping)
    assert "subscribed" not in rows["ben"] and "tags" not in rows["anna"]
    assert rows["anna"]["custom_fields"]["labels"].startswith("vip, b2b")
    assert (rows["anna"]["phone"], rows["anna"]["custom_fields"]["tel"]) == ("+49 228 1", "+4915112345678")
    header = read(exports.SHOPIFY)[0]
    assert not plan_columns(header, mapping, []).blank_is_no
    assert plan_columns(header, {}, []).blank_is_no
    shown, preset = suggest_columns(header, mapping, [])
    assert (preset, shown["Accepts Email Marketing"], shown["Tags"]) == ("shopify", None, "custom_fields.labels")


def test_a_column_about_consent_that_no_preset_knows_still_stops_the_file() -> None:
    header = [*read(exports.KLAVIYO)[0], "GDPR opt-in"]
    with pytest.raises(InvalidInput, match="looks like consent"):
        plan_columns(header, {}, [])
    assert suggest_columns(header, {}, [])[0]["GDPR opt-in"] is None


def test_a_row_of_another_width_is_refused_whatever_the_preset_adds() -> None:
    header, row = read(exports.SHOPIFY)[:2]
    plan = plan_columns(header, {}, [])
    stager = RowStager(plan, ImportOptions(), domains.lists(), unclean=re.compile("\x00"), now=NOW)
    assert "ragged_row" in stager.stage(2, row[:-1], is_suspect=False)
    for surplus in range(1, 20):
        assert "ragged_row" in stager.stage(2, [*row, *[""] * (surplus - 1), "no"], is_suspect=False), surplus
        assert stager.stage(2, [*row, *[""] * surplus], is_suspect=False) == stager.stage(2, row, is_suspect=False)


@given(st.data())
@settings(deadline=None, derandomize=True, max_examples=150)
@pytest.mark.thorough
def test_no_cell_breaks_a_preset(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(EACH)))
    header, row = read(getattr(exports, name))[:2]
    cells = [data.draw(st.one_of(st.just(cell), st.text(max_size=30), st.sampled_from(
        ["", "[]", '["a"', "yes", "SUBSCRIBED", "subscribed", '"', "|", "2020-01-01"]))) for cell in row]  # fmt: skip
    plan = plan_columns(header, {}, [], PresetChoice(EACH[name]))
    stager = RowStager(plan, ImportOptions(), domains.lists(), unclean=re.compile("[\x00\ud800-\udfff]"), now=NOW)
    line = stager.stage(2, cells, is_suspect=True)
    assert line.endswith("\n") and line.count("\n") == 1 and line.count("\t") == len(stager.columns) - 1
