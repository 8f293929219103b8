"""Country names to ISO 3166-1 codes: English, local and common short forms, in the languages shops export.

Names come from the CLDR data of Babel (loaded once, on first use); a few trade names that CLDR lacks are added.
Used by imports. A name nobody knows has no code; what to do with it is the caller's decision.
"""

from __future__ import annotations

import unicodedata
from functools import cache

__all__ = ["country_code"]

_LANGUAGES = ("en", "de", "fr", "es", "it", "nl", "pt", "pl", "sv", "da", "nb", "fi", "cs", "hu", "ro", "el", "tr",
              "ru", "uk", "ja", "ko", "zh", "zh_Hant", "ar", "he", "vi", "th", "id")  # fmt: skip
_TRADE_NAMES = {
    "america": "US", "united states of america": "US", "u.s.": "US", "u.s.a.": "US", "great britain": "GB",
    "england": "GB", "scotland": "GB", "wales": "GB", "northern ireland": "GB", "u.k.": "GB", "britain": "GB",
    "eire": "IE", "republic of ireland": "IE", "holland": "NL", "the netherlands": "NL", "czech republic": "CZ",
    "south korea": "KR", "republic of korea": "KR", "korea, republic of": "KR", "russian federation": "RU",
    "taiwan, province of china": "TW", "viet nam": "VN", "uae": "AE", "turkey": "TR", "swaziland": "SZ",
    "macedonia": "MK", "ivory coast": "CI", "cape verde": "CV", "burma": "MM", "hong kong": "HK", "macau": "MO",
    "macao": "MO", "iran, islamic republic of": "IR", "moldova, republic of": "MD", "the bahamas": "BS",
    "the gambia": "GM", "bosnia and herzegovina": "BA", "trinidad and tobago": "TT", "people's republic of china": "CN",
}  # fmt: skip


def country_code(name: str) -> str | None:
    """The two-letter code of a country's name, None when nobody knows the name."""
    return _names().get(_folded(name))


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("&", "and").split())


@cache
def _names() -> dict[str, str]:
    from babel import Locale

    found: dict[str, str] = {}
    for language in _LANGUAGES:
        for code, name in Locale.parse(language).territories.items():
            # Three-digit codes are regions of the world, EU and the like are no countries.
            if len(code) == 2 and code.isalpha() and code not in ("EU", "EZ", "UN", "QO", "ZZ", "XA", "XB"):
                found.setdefault(_folded(name), code)
    return found | _TRADE_NAMES
