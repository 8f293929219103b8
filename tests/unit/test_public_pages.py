"""The recipient's pages: every language complete, everything put in escaped, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from mautolib.pages import public
from mautolib.pages.words import WORDS


@pytest.mark.parametrize("language", WORDS)
def test_a_language_is_complete_and_its_own(language: str) -> None:
    assert set(WORDS[language]) == set(WORDS["en"])
    assert all(text.strip() == text and text for text in WORDS[language].values())
    assert language == "en" or WORDS[language]["done_title"] != WORDS["en"]["done_title"]


@pytest.mark.parametrize(("header", "language"), [
    ("", "en"), ("de", "de"), ("de-AT,de;q=0.9", "de"), ("pl, fr;q=0.4, en;q=0.3", "fr"), ("zh-Hans-CN", "zh"),
    ("en;q=0.1, es;q=0.8", "es"), ("de;q=0, it", "it"), ("*", "en"), ("de;q=x", "en"), (";;,,=", "en"),
    ("fr,de", "fr"), ("xx" * 500, "en"),
])  # fmt: skip
def test_the_reader_is_spoken_to_in_a_language_they_asked_for(header: str, language: str) -> None:
    assert public.language_of(header) == language


@pytest.mark.parametrize(("chosen", "header", "language"), [
    ("fr", "de", "fr"), ("pt-BR", "de", "pt"), ("zh_Hant_TW", "", "zh"), ("AR", "en", "ar"), ("en", "de", "de"),
    ("en", "", "en"), ("en-GB", "fr,en", "fr"), ("", "it", "it"), ("kl", "ja", "ja"), ("kl", "", "en"),
    ("<b>", "", "en"),
])  # fmt: skip
def test_a_known_person_is_spoken_to_in_their_language(chosen: str, header: str, language: str) -> None:
    assert public.language_for(chosen, header) == language


def test_nine_languages_are_spoken_and_none_is_another_in_disguise() -> None:
    assert set(WORDS) >= {"en", "de", "fr", "es", "it", "pt", "ja", "zh", "ar"}
    for name in ("confirm_text", "done_text", "optin_text", "over_text", "blocked_text", "preferences_subscribed"):
        assert len({words[name] for words in WORDS.values()}) == len(WORDS)
    for language, letters in (
        ("ja", "[\u3040-\u30ff\u4e00-\u9fff]"), ("zh", "[\u4e00-\u9fff]"), ("ar", "[\u0600-\u06ff]"),
    ):  # fmt: skip
        assert all(re.search(letters, text) for text in WORDS[language].values())


def test_what_is_put_in_is_escaped() -> None:
    page = public.interstitial("en", url="""https://x.example/"><script>alert('1')</script>""")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert 'action="/x?s=&#34;&gt;"' in public.confirm_unsubscribe("en", action='/x?s=">')


@pytest.mark.parametrize("url", ["https://[::1", "https://shop.example@evil.example/", "http://evil.example:8443/x"])
def test_the_destination_is_named_even_when_it_is_odd(url: str) -> None:
    host = re.search(r'class="host" dir="ltr">([^<]+)<', public.interstitial("en", url=url))
    assert host is not None
    assert host[1] == (url if "[" in url else "evil.example")


def test_the_policy_allows_the_style_and_nothing_else() -> None:
    page = public.unsubscribed("en")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = public.content_security_policy()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"<(script|img|link|iframe)\b|url\(", page)
