"""Country names to ISO 3166-1 codes: English, local and common short forms, in the languages shops export.

Names come from the CLDR data of Babel (a language is loaded when those before it do not know a name); a few trade
names that CLDR lacks are added. Used by imports. A name nobody knows has no code; what to do with it is the caller's
decision.
"""

from __future__ import annotations

import unicodedata
from functools import cache

__all__ = ["country_code"]

_LANGUAGES = ("en", "de", "fr", "es", "it", "nl", "pt", "pl", "sv", "da", "nb", "fi", "cs", "hu", "ro", "el", "tr",
              "ru", "uk", "ja", "ko", "zh", "zh_Hant", "ar", "he", "vi", "th", "id")  # fmt: skip
_TRADE_NAMES = {
    "america": "US", "united states of america": "US", "u.s.": "US", "u.s.a.": "US", "great britain": "GB",
    "england": "GB", "scotland": "GB", "wales": "GB", "northern ireland": "GB", "u.k.": "GB", "uk": "GB",
    "britain": "GB", "eire": "IE", "republic of ireland": "IE", "holland": "NL", "the netherlands": "NL",
    "czech republic": "CZ",
    "south korea": "KR", "republic of korea": "KR", "korea, republic of": "KR", "russian federation": "RU",
    "taiwan, province of china": "TW", "viet nam": "VN", "uae": "AE", "turkey": "TR", "swaziland": "SZ",
    "macedonia": "MK", "ivory coast": "CI", "cape verde": "CV", "burma": "MM", "hong kong": "HK", "macau": "MO",
    "macao": "MO", "iran, islamic republic of": "IR", "moldova, republic of": "MD", "the bahamas": "BS",
    "the gambia": "GM", "bosnia and herzegovina": "BA", "trinidad and tobago": "TT", "people's republic of china": "CN",
}  # fmt: skip


def country_code(name: str) -> str | None:
    """The two-letter code of a country's name, None when nobody knows the name."""
    folded = _folded(name)
    if folded in _TRADE_NAMES:
        return _TRADE_NAMES[folded]
    return next(filter(None, (_names(language).get(folded) for language in _LANGUAGES)), None)


def _folded(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(text.replace("&", "and").replace("\u2019", "'").split())


@cache
def _names(language: str) -> dict[str, str]:
    from babel import Locale

    return {
        # Three-digit codes are regions of the world; EU and the like are no countries.
        _folded(name): code for code, name in Locale.parse(language).territories.items()
        if len(code) == 2 and code.isalpha() and code not in ("EU", "EZ", "UN", "QO", "ZZ", "XA", "XB")
    }  # fmt: skip
