"""The language of a mail: how a tag is read, which way its text runs, what it calls leaving, and its marks in HTML.

Promise: tags are compared whatever their case and separator; a mail in a language written from right to left says so,
so that names, prices and addresses in it stand where they belong. Pure functions; called by building and readiness.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from babel import Locale
from babel.core import UnknownLocaleError

from mautolib.templates.markup import scan

#: Language, script, region, variants and private use (RFC 5646), in the form mail needs.
_TAG: Final = re.compile(
    r"[a-z]{2,3}(?:-[a-z]{4})?(?:-(?:[a-z]{2}|[0-9]{3}))?(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3})){0,4}"
    r"(?:-x(?:-[a-z0-9]{1,8}){1,4})?",
    re.ASCII | re.IGNORECASE,
)
RIGHT_TO_LEFT: Final = frozenset({"ar", "dv", "fa", "he", "iw", "ps", "sd", "ug", "ur", "yi"})
UNSUBSCRIBE: Final = {
    "ar": "إلغاء الاشتراك", "bg": "Отписване", "cs": "Odhlásit odběr", "da": "Afmeld", "de": "Abmelden",
    "el": "Διαγραφή", "en": "Unsubscribe", "es": "Darse de baja", "et": "Loobu", "fa": "لغو اشتراک",
    "fi": "Peruuta tilaus", "fr": "Se désinscrire", "he": "להסרה מרשימת התפוצה", "hi": "सदस्यता समाप्त करें",
    "hr": "Odjava", "hu": "Leiratkozás", "id": "Berhenti berlangganan", "it": "Annulla iscrizione",
    "ja": "配信停止", "ko": "수신거부", "lt": "Atsisakyti", "lv": "Atteikties", "nb": "Avmeld", "nl": "Afmelden",
    "no": "Avmeld", "pl": "Wypisz się", "pt": "Cancelar inscrição", "ro": "Dezabonare", "ru": "Отписаться",
    "sk": "Odhlásiť odber", "sl": "Odjava", "sr": "Одјава", "sv": "Avregistrera", "th": "ยกเลิกการรับข่าวสาร",
    "tr": "Abonelikten çık", "uk": "Відписатися", "ur": "ان سبسکرائب کریں", "vi": "Hủy đăng ký", "zh": "退订",
}  # fmt: skip


def is_tag(text: str) -> bool:
    """Whether this is a well-formed language tag such as `de`, `pt-BR` or `zh-Hant-TW`."""
    return _TAG.fullmatch(text) is not None


def normal_tag(text: str) -> str:
    """The form in which tags are compared: `pt_BR` and `PT-br` are `pt-br`."""
    return text.strip().replace("_", "-").lower()


def base_of(tag: str) -> str:
    """The language without region and script: `pt` of `pt-BR`."""
    return normal_tag(tag).partition("-")[0]


def choose(language: str | None, tags: Iterable[str]) -> str | None:
    """The tag that fits a reader's language: the same, else its base language, else None (the default content).

    The query of a campaign's audience chooses by the same rule in SQL; a test compares both.
    """
    known = {normal_tag(tag): tag for tag in tags}
    wanted = normal_tag(language or "")
    return known.get(wanted) or known.get(base_of(wanted))


def direction_of(tag: str) -> str:
    """`rtl` or `ltr`."""
    return "rtl" if base_of(tag) in RIGHT_TO_LEFT else "ltr"


@lru_cache(maxsize=256)
def locale_of(tag: str) -> Locale | None:
    """The conventions of a language; None where none are known (then the neutral forms are used)."""
    for candidate in (normal_tag(tag), base_of(tag)):
        try:
            return Locale.parse(candidate, sep="-")
        except (UnknownLocaleError, ValueError, TypeError):
            continue
    return None


def with_language(html: str, tag: str) -> str:
    """The template with its language and direction where it does not say them; unchanged for an empty tag.

    An HTML document gets them on `<html>` and, for mail programs that drop that, the direction on `<body>`; a
    fragment is wrapped.
    """
    if not tag:
        return html
    direction = direction_of(tag)
    lang = f' lang="{normal_tag(tag)}"'
    markup = scan(html)
    named = {name: (start, end) for name, start, end in reversed(markup.tags) if name in ("html", "body")}
    if not named:
        return f'<div{lang} dir="{direction}">{html}</div>'
    given = {
        (attribute.tag, attribute.name)
        for attribute in markup.attributes
        if attribute.tag in named and attribute.name in ("lang", "dir")
    }
    for name, (start, _) in sorted(named.items(), key=lambda item: -item[1][0]):
        is_outer = name == "html" or "html" not in named
        added = lang if is_outer and (name, "lang") not in given else ""
        if (name, "dir") not in given and (added or direction == "rtl"):
            added += f' dir="{direction}"'
        at = start + 1 + len(name)
        html = html[:at] + added + html[at:]
    return html
