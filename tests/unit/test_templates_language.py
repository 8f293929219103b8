"""Languages: tags, direction, and dates, numbers and amounts as each language writes them."""

from __future__ import annotations

import pytest

from mautolib.templates.compile import compile_template
from mautolib.templates.language import choose, direction_of, is_tag, with_language
from mautolib.templates.links import ensure_footer

VALUES = {"v": "2026-11-22T23:30:00Z", "n": 1234567.5, "p": "1234.5"}


def filled(source: str, language: str) -> str:
    compiled = compile_template("s", "<p>h</p>", source, variables=list(VALUES), language=language)
    assert compiled.problems == ()
    return compiled.render(VALUES).text.replace("\xa0", " ").replace("\u202f", " ")


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("", "2026-11-22|22 November 2026|1,234,567.5|1,234,567.50|1,234.50 EUR|1,235 JPY"),
        ("en", "Nov 22, 2026|22 November 2026|1,234,567.5|1,234,567.50|€1,234.50|¥1,235"),
        ("de", "22.11.2026|22 November 2026|1.234.567,5|1.234.567,50|1.234,50 €|1.235 ¥"),
        ("de-CH", "22.11.2026|22 November 2026|1’234’567.5|1’234’567.50|EUR 1’234.50|¥ 1’235"),
        ("FR_fr", "22 nov. 2026|22 novembre 2026|1 234 567,5|1 234 567,50|1 234,50 €|1 235 JPY"),
        ("pt-BR", "22 de nov. de 2026|22 novembro 2026|1.234.567,5|1.234.567,50|€ 1.234,50|JP¥ 1.235"),
        ("ru", "22 нояб. 2026 г.|22 ноября 2026|1 234 567,5|1 234 567,50|1 234,50 €|1 235 ¥"),
        ("ja", "2026/11/22|22 11月 2026|1,234,567.5|1,234,567.50|€1,234.50|￥1,235"),
        ("hi-IN", "22 नव॰ 2026|22 नवंबर 2026|12,34,567.5|12,34,567.50|€1,234.50|JP¥1,235"),
        ("xx-YY", "2026-11-22|22 November 2026|1,234,567.5|1,234,567.50|1,234.50 EUR|1,235 JPY"),
    ],
)
def test_filters_follow_the_language(language: str, expected: str) -> None:
    source = (
        "{{ v|date }}|{{ v|date('%d %B %Y') }}|{{ n|number }}|{{ n|number(2) }}|"
        "{{ p|money('EUR') }}|{{ p|money('jpy') }}"
    )
    assert filled(source, language) == expected


def test_amounts_are_exact_and_named_formats_and_zones_work() -> None:
    assert filled("{{ '0.005'|money('EUR') }} {{ 1|money('KWD') }} {{ 2|money }} {{ 2|money('gold') }}", "de") == (
        "0,01 € 1,000 KWD 2,00 2,00 GOLD"
    )
    assert filled("{{ v|date('long', 'Asia/Tokyo') }} {{ v|date('%A %H:%M %%', 'Europe/Berlin') }}", "de") == (
        "23. November 2026 Montag 00:30 %"
    )
    odd = "{{ 'soon'|date }}{{ none|date }}{{ 'many'|number }}{{ none|money('EUR') }}{{ x|money }}"
    assert filled(odd, "de") == "soonmany"


def test_arabic_dates_and_numbers_keep_their_digits() -> None:
    assert filled("{{ n|number(1) }}", "ar") == "1,234,567.5"
    assert "نوفمبر" in filled("{{ v|date('%B') }}", "ar")


@pytest.mark.parametrize(
    ("tag", "is_one"),
    [("de", True), ("pt-BR", True), ("zh-Hant-TW", True), ("es-419", True), ("sl-rozaj", True), ("x", False),
     ("", False), ("de_AT", False), ("german!", False), ("de-", False), ("de-DE\n", False), ("a" * 40, False)],
)  # fmt: skip
def test_a_tag_is_well_formed_or_none(tag: str, is_one: bool) -> None:
    assert is_tag(tag) is is_one


@pytest.mark.parametrize(
    ("language", "expected"),
    [("de", "de"), ("DE-at", "de"), ("pt_BR", "pt-BR"), ("pt", None), ("pt-PT", None), ("zh-Hant", "zh"), ("", None),
     (None, None), (" fr ", None), ("d", None)],
)  # fmt: skip
def test_a_reader_gets_their_language_or_its_base_or_the_default(language: str | None, expected: str | None) -> None:
    assert choose(language, ["de", "pt-BR", "zh"]) == expected


def test_a_document_says_its_language_and_direction_once() -> None:
    document = "<!doctype html><html><head><title>t</title></head><body class='a'><p>x</p></body></html>"
    assert with_language(document, "") == document
    assert '<html lang="de" dir="ltr"><head>' in with_language(document, "de")
    arabic = with_language(document, "ar-EG")
    assert '<html lang="ar-eg" dir="rtl">' in arabic and "<body dir=\"rtl\" class='a'>" in arabic
    own = '<html lang="en" dir="ltr"><body dir="ltr"></body></html>'
    assert with_language(own, "he") == own
    assert with_language("<body><p>x</p></body>", "de") == '<body lang="de" dir="ltr"><p>x</p></body>'
    assert with_language("<p>x</p>", "fa") == '<div lang="fa" dir="rtl"><p>x</p></div>'


@pytest.mark.parametrize(
    ("tag", "direction"), [("ar", "rtl"), ("he-IL", "rtl"), ("FA", "rtl"), ("de", "ltr"), ("", "ltr")]
)
def test_direction(tag: str, direction: str) -> None:
    assert direction_of(tag) == direction


@pytest.mark.parametrize(
    ("language", "label"), [("de-AT", "Abmelden"), ("ar", "إلغاء الاشتراك"), ("tlh", "Unsubscribe")]
)
def test_the_footer_speaks_the_language_of_the_mail(language: str, label: str) -> None:
    html, text = ensure_footer("<p>x</p>", "x", "{{ unsubscribe_url }}", "Shop, 1 High Street", language)
    assert f">{label}</a>" in html and f"{label}: {{{{ unsubscribe_url }}}}" in text
    assert f'dir="{direction_of(language)}"' in html
