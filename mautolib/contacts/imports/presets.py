"""Exports of other platforms: which column of theirs is what, and what their consent columns mean.

A preset is chosen by the caller, or found when a header can be of one platform only. It never takes a yes where the
platform did not write one: who is not subscribed there comes in opted out, and consent is `granted` only where the
file says when. Headers as documented in November 2026; the source stands with each. Pure data and functions; called
by `headers`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mautolib.contacts.imports.model import PresetChoice
from mautolib.errors import InvalidInput

__all__ = ["Derived", "Platform", "platform_of"]

Read = Callable[[Sequence[str]], str]


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A field made of columns of the file, if it has any of them.

    Args:
        target: a field, or `custom_fields.<key>`.
        sources: headers in lower case.
        read: from the trimmed cells of these columns, blank for one that the file lacks, to what the field takes.
    """

    target: str
    sources: tuple[str, ...]
    read: Read


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What the exports of one platform look like.

    Args:
        columns: header in lower case -> field, `custom_fields.<key>`, or None to leave the column out.
        derived: what is made of columns, beside what each of them becomes by itself.
        needs: of these headers at least one; without it the file is no such export.
        proofs: headers that no other file has together; any whole set is a proof.
        never: headers of other files of the platform.
        consent: headers that say who is subscribed; with one of them, a blank cell is no yes.
    """

    name: PresetChoice
    columns: Mapping[str, str | None]
    derived: tuple[Derived, ...] = ()
    needs: frozenset[str]
    proofs: tuple[frozenset[str], ...]
    never: frozenset[str] = frozenset()
    consent: frozenset[str] = frozenset()
    #: Said instead of taking a file that was recognised but holds no word about who is subscribed.
    undecided: str = ""

    def targets(self) -> dict[str, str | None]:
        """Header in lower case -> what its column becomes by itself."""
        return dict.fromkeys(name for one in self.derived for name in one.sources) | dict(self.columns)


def platform_of(header: Sequence[str], choice: PresetChoice) -> Platform | None:
    """The platform a file is read as: the chosen one, or with `auto` the only one the header can be of.

    Raises:
        InvalidInput: the file has none of the columns of the chosen platform.
    """
    names = {name.lower() for name in header}
    if choice is PresetChoice.NONE:
        return None
    if choice is PresetChoice.AUTO:
        found = [one for one in _PLATFORMS.values() if _is_proved(one, names)]
        return found[0] if len(found) == 1 else None
    platform = _PLATFORMS[choice]
    if not platform.needs & names:
        wanted = ", ".join(sorted(platform.needs))
        raise InvalidInput(f"This is no export of {choice}: it has none of the columns {wanted}",
                           path=("options", "preset"), line=1)  # fmt: skip
    return platform


def _is_proved(platform: Platform, names: set[str]) -> bool:
    return bool(platform.needs & names) and not platform.never & names and any(one <= names for one in platform.proofs)


# --- what cells become -----------------------------------------------------------------------------------------------


def _first(cells: Sequence[str]) -> str:
    return next((cell for cell in cells if cell), "")


def _unquoted(cells: Sequence[str]) -> str:
    """Without the one apostrophe that keeps a spreadsheet from taking digits for a number."""
    return _first(cells).removeprefix("'")


def _tag_cell(names: Sequence[str]) -> str:
    return "|".join(re.sub(r"([\\|])", r"\\\1", name.strip()) for name in names)


def _comma_tags(cells: Sequence[str]) -> str:
    """`a, b` or `"a","b"`: a line of CSV inside a cell."""
    text = _first(cells)
    return _tag_cell(_split(text)) if text else ""


def _list_tags(cells: Sequence[str]) -> str:
    """`["a", "b"]`, `['a', 'b']`, or as `_comma_tags`."""
    text = _first(cells)
    if text[:1] != "[" or text[-1:] != "]":
        return _comma_tags(cells)
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = _split(text[1:-1].replace("'", '"'))
    return _tag_cell([str(name) for name in names])


def _split(text: str) -> list[str]:
    try:
        return next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error:
        # Left whole, so that the reader of tags says what is wrong with it.
        return [text]


def _first_name(cells: Sequence[str]) -> str:
    return _first(cells).partition(" ")[0]


def _last_name(cells: Sequence[str]) -> str:
    return _first(cells).partition(" ")[2].strip()


def _locale(cells: Sequence[str]) -> str:
    """`de_DE_formal` -> `de`."""
    return re.split("[_-]", _first(cells))[0].lower()


# --- Shopify ---------------------------------------------------------------------------------------------------------
# help.shopify.com/manual/customers/import-export-customers (description of the customer CSV file). Address columns are
# called "Default Address ..." since 2023, the consent column was "Accepts Marketing" before 2022. Ids and postcodes
# begin with an apostrophe. No column says since when somebody accepts, so that a yes is subscribed, not granted.

_SHOPIFY = Platform(
    name=PresetChoice.SHOPIFY,
    columns={
        "accepts email marketing": "subscribed", "accepts marketing": "subscribed",
        # About other channels than mail.
        "accepts sms marketing": "custom_fields.Accepts SMS Marketing",
        "accepts whatsapp marketing": "custom_fields.Accepts WhatsApp Marketing",
    },
    derived=(
        Derived(target="phone", sources=("phone", "default address phone"), read=_first),
        Derived(
            target="country",
            sources=("default address country code", "country code", "default address country", "country"), read=_first,
        ),
        Derived(target="tags", sources=("tags",), read=_comma_tags),
        Derived(target="custom_fields.Customer ID", sources=("customer id",), read=_unquoted),
        Derived(target="custom_fields.Default Address Zip", sources=("default address zip",), read=_unquoted),
        Derived(target="custom_fields.Zip", sources=("zip",), read=_unquoted),
    ),
    needs=frozenset({"accepts email marketing", "accepts marketing"}),
    proofs=(
        frozenset({"email", "accepts email marketing", "total spent", "total orders"}),
        frozenset({"email", "accepts email marketing", "accepts sms marketing", "tax exempt"}),
        frozenset({"email", "accepts marketing", "total spent", "total orders", "tax exempt"}),
    ),
    # The export of orders has a consent column as well.
    never=frozenset({"financial status", "lineitem name"}),
    consent=frozenset({"accepts email marketing", "accepts marketing"}),
)  # fmt: skip

# --- WooCommerce -----------------------------------------------------------------------------------------------------
# Three exports: Analytics > Customers (woocommerce.com/document/woocommerce-analytics/customers-report), the extension
# Customer/Order/Coupon Export (woocommerce.com/document/ordercustomer-csv-export), and Import and Export of WooCommerce
# Users (woocommerce.com/document/import-and-export-of-woocommerce-users), which has passwords and sessions as well.
# None has a column about consent: a customer is not a subscriber, see `subscribed_default`.

_WOOCOMMERCE = Platform(
    name=PresetChoice.WOOCOMMERCE,
    columns={
        "email": "email", "user_email": "email", "billing_email": "email", "billing_phone": "phone",
        "country / region": "country", "date_registered": "created_at", "user_registered": "created_at",
        "date registered": "created_at", "sign up": "created_at",
        # Secrets of the shop's accounts.
        "user_pass": None, "password": None, "session_tokens": None, "user_activation_key": None,
    },
    derived=(
        Derived(target="first_name", sources=("first_name", "billing_first_name"), read=_first),
        Derived(target="last_name", sources=("last_name", "billing_last_name"), read=_first),
        Derived(target="first_name", sources=("name",), read=_first_name),
        Derived(target="last_name", sources=("name",), read=_last_name),
        Derived(target="country", sources=("billing_country", "shipping_country"), read=_first),
        Derived(target="language", sources=("locale",), read=_locale),
    ),
    needs=frozenset({"billing_email", "user_email", "total spend", "date_registered", "billing_country"}),
    proofs=(
        frozenset({"email", "aov", "total spend", "country / region"}),
        frozenset({"email", "date_registered", "billing_email", "billing_country"}),
        frozenset({"user_login", "user_email", "billing_country"}),
    ),
    never=frozenset({"order_id", "order_number", "order number"}),
)  # fmt: skip

# --- Mailchimp -------------------------------------------------------------------------------------------------------
# mailchimp.com/help/view-export-contacts (about your export file) and /help/about-cleaned-contacts: one file for each
# kind of contact. Unsubscribed ones have UNSUB_TIME, cleaned ones (bounced) CLEAN_TIME; subscribed and non-subscribed
# ones have the same columns. OPTIN_TIME is set where the person filled in a form, CONFIRM_TIME also where an
# administrator added the contact, so that only the first is a yes. Statuses are those of the Marketing API.

_MAILCHIMP_NO = frozenset({
    "unsubscribed", "cleaned", "nonsubscribed", "non-subscribed", "transactional", "pending", "archived"
})  # fmt: skip


def _mailchimp_subscribed(cells: Sequence[str]) -> str:
    unsubscribed, cleaned, status = cells
    if unsubscribed or cleaned or status.lower() in _MAILCHIMP_NO:
        return "false"
    return "true" if status.lower() == "subscribed" else status


def _mailchimp_consent(cells: Sequence[str]) -> str:
    unsubscribed, cleaned, status, opted_in = cells
    if unsubscribed or status.lower() == "unsubscribed":
        return "withdrawn"
    return "granted" if opted_in and not cleaned and status.lower() in ("", "subscribed") else ""


def _mailchimp_consent_at(cells: Sequence[str]) -> str:
    said = {"withdrawn": cells[0], "granted": cells[3], "": ""}
    return said[_mailchimp_consent(cells)]


def _mailchimp_consent_source(cells: Sequence[str]) -> str:
    return "mailchimp" if _mailchimp_consent(cells) else ""


_MAILCHIMP_WORDS = ("unsub_time", "clean_time", "status", "optin_time")
_MAILCHIMP = Platform(
    name=PresetChoice.MAILCHIMP,
    columns={
        "email address": "email", "phone number": "phone", "fname": "first_name", "lname": "last_name",
        "optin_time": "custom_fields.OPTIN_TIME", "optin_ip": "custom_fields.OPTIN_IP",
        # Why somebody left, which UNSUB_TIME says already.
        **{name.lower(): f"custom_fields.{name}" for name in (
            "UNSUB_CAMPAIGN_TITLE", "UNSUB_CAMPAIGN_ID", "UNSUB_REASON", "UNSUB_REASON_OTHER")},
    },
    derived=(
        Derived(target="subscribed", sources=_MAILCHIMP_WORDS[:3], read=_mailchimp_subscribed),
        Derived(target="consent_status", sources=_MAILCHIMP_WORDS, read=_mailchimp_consent),
        Derived(target="consent_at", sources=_MAILCHIMP_WORDS, read=_mailchimp_consent_at),
        Derived(target="consent_source", sources=_MAILCHIMP_WORDS, read=_mailchimp_consent_source),
        Derived(target="created_at", sources=("optin_time", "confirm_time"), read=_first),
        Derived(target="country", sources=("country", "cc"), read=_first),
        Derived(target="tags", sources=("tags",), read=_comma_tags),
    ),
    needs=frozenset({"member_rating", "optin_time", "unsub_time", "clean_time", "leid", "euid"}),
    proofs=(frozenset({"email address", "member_rating", "leid", "euid"}),),
    consent=frozenset({"unsub_time", "clean_time", "status"}),
    undecided="This is a Mailchimp export of subscribed or of non-subscribed contacts, and nothing in it says which: "
              "choose the preset mailchimp for subscribed ones, and subscribed_default false with it for the others",
)  # fmt: skip

# --- Klaviyo ---------------------------------------------------------------------------------------------------------
# help.klaviyo.com/hc/en-us/articles/115005078687 (export a list or segment to a CSV file; the columns are chosen there)
# and /360043841811 (what consent is): SUBSCRIBED, UNSUBSCRIBED or NEVER_SUBSCRIBED, with the moment beside it.
# A profile with an e-mail suppression is not mailed whatever its consent.

_KLAVIYO_WORDS = ("email suppressions", "email marketing consent", "email marketing consent timestamp")


def _klaviyo_word(cell: str) -> str:
    return cell.upper().replace(" ", "_")


def _is_suppressed(cell: str) -> bool:
    return cell.lower() not in ("", "[]", "none", "false")


def _klaviyo_subscribed(cells: Sequence[str]) -> str:
    suppressions, consent, _ = cells
    word = _klaviyo_word(consent)
    if _is_suppressed(suppressions) or word in ("UNSUBSCRIBED", "NEVER_SUBSCRIBED"):
        return "false"
    return "true" if word == "SUBSCRIBED" else consent


def _klaviyo_consent(cells: Sequence[str]) -> str:
    suppressions, consent, moment = cells
    word = _klaviyo_word(consent)
    if word == "UNSUBSCRIBED":
        return "withdrawn"
    return "granted" if word == "SUBSCRIBED" and moment and not _is_suppressed(suppressions) else ""


def _klaviyo_consent_at(cells: Sequence[str]) -> str:
    return cells[2] if _klaviyo_consent(cells) else ""


def _klaviyo_consent_source(cells: Sequence[str]) -> str:
    return "klaviyo" if _klaviyo_consent(cells) else ""


_KLAVIYO = Platform(
    name=PresetChoice.KLAVIYO,
    columns={
        "phone number": "phone", "profile created on": "created_at",
        "email suppressions": "custom_fields.Email Suppressions",
        # About other channels, and what another shop wrote into a profile.
        **{name.lower(): f"custom_fields.{name}" for name in (
            "SMS Marketing Consent", "SMS Marketing Consent Timestamp", "WhatsApp Marketing Consent",
            "WhatsApp Marketing Consent Timestamp", "Accepts Marketing", "Consent", "Consent Timestamp",
            "Consent Method", "$consent", "$consent_timestamp", "$consent_method")},
    },
    derived=(
        Derived(target="subscribed", sources=_KLAVIYO_WORDS, read=_klaviyo_subscribed),
        Derived(target="consent_status", sources=_KLAVIYO_WORDS, read=_klaviyo_consent),
        Derived(target="consent_at", sources=_KLAVIYO_WORDS, read=_klaviyo_consent_at),
        Derived(target="consent_source", sources=_KLAVIYO_WORDS, read=_klaviyo_consent_source),
        Derived(target="tags", sources=("shopify tags",), read=_list_tags),
        Derived(target="language", sources=("locale",), read=_locale),
    ),
    needs=frozenset({"email marketing consent"}),
    proofs=(
        frozenset({"email", "email marketing consent", "klaviyo id"}),
        frozenset({"email", "email marketing consent", "email marketing consent timestamp"}),
        frozenset({"email", "email marketing consent", "profile created on"}),
    ),
    consent=frozenset({"email marketing consent"}),
)  # fmt: skip

_PLATFORMS: Final[Mapping[PresetChoice, Platform]] = {
    one.name: one for one in (_SHOPIFY, _WOOCOMMERCE, _MAILCHIMP, _KLAVIYO)
}
