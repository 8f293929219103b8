"""Addresses: what is one, when two are the same, and what a pasted one means."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib.contacts.address import address_key, domain_name, is_address, parse, unwrap
from mautolib.errors import InvalidInput

GOOD = [
    "a@b.co", "first.last+tag@shop.example", "o'neil@shop.example", "x_y-z@a-b.example", "jörg@müller.example",
    "用户@例子.example", "a@xn--mnchen-3ya.example", "1@2.example", "a" * 64 + "@shop.example",
]  # fmt: skip
BAD = [
    "", "@", "a", "a@", "@b.co", "a@b", "a@b.", "a@.b.co", "a@b..co", ".a@b.co", "a.@b.co", "a..b@b.co", "a@-b.co",
    "a@b-.co", "a@b.co-", '"a"@b.co', '"a b"@b.co', "a(comment)@b.co", "a@b.co(comment)", "a@[1.2.3.4]",
    "a@1.2.3.4", "a@b_c.co", "a b@c.co", "a@b c.co", "a@good.test,b@evil.test", "<a@x.co>b@y.co",
    "alice@a.org)bob@b.org", "a\0b@c.co", "a\r\nRCPT TO:<evil@x>@ex.test", "a@b.co\nc",
    "a@b.co\n", "\r\na@b.co", "a@b.co\t", "a@b.co\u2028c", "a@b@c.co",
    "a@b\u00ad.co,d", "a" * 65 + "@b.co", "a@" + "b" * 64 + ".co", "a@" + ".".join(["b" * 60] * 5), "a\u200bb@c.co",
    "a\u00a0b@c.co", "a＠b@c.co", "x" * 400 + "@b.co", "a；b\uff0cc@d.co", "\ud800@b.co",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_accepted(text: str) -> None:
    assert parse(text).email == text


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("Anna.Smith@Shop.EXAMPLE", "anna.smith@shop.example"),
        ("  a@b.co\u00a0", "a@b.co"),
        ("a@ｅｘ.example", "a@ex.example"),
        ("ａ@ex.example", "a@ex.example"),
        ("a@MÜNCHEN.example", "a@xn--mnchen-3ya.example"),
        ("a@xn--mnchen-3ya.example", "a@xn--mnchen-3ya.example"),
        ("J\u00d6RG@b.co", "jörg@b.co"),
        ("jo\u0308rg@b.co", "jörg@b.co"),
        ("not an address", "not an address"),
        ("a@no dots", "a@no dots"),
    ],
)
def test_the_key_is_blind_to_case_width_and_spelling_of_the_domain(typed: str, key: str) -> None:
    assert address_key(typed) == key


def test_stored_as_typed_with_the_domain_in_lower_case() -> None:
    address = parse(" Anna.Smith@SHOP.Example ")
    assert (address.email, address.key) == ("Anna.Smith@shop.example", "anna.smith@shop.example")
    assert (address.local, address.domain) == ("anna.smith", "shop.example")
    assert parse("A@München.Example").email == "A@münchen.example"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mailto:a@b.co", "a@b.co"),
        ("MAILTO: a@b.co?subject=hello", "a@b.co"),
        ("Anna Smith <a@b.co>", "a@b.co"),
        ('"Smith, Anna" < a@b.co >', "a@b.co"),
        ("<mailto:a@b.co>", "a@b.co"),
        (" a@b.co ", "a@b.co"),
        ("<a@x.co>b@y.co", "<a@x.co>b@y.co"),
        ("a@b.co> <c@d.co>", "a@b.co> <c@d.co>"),
    ],
)
def test_a_pasted_address_is_unwrapped(typed: str, meant: str) -> None:
    assert unwrap(typed) == meant


def test_a_domain_has_labels_of_letters_and_a_last_one_that_is_no_number() -> None:
    assert domain_name("B.Example") == "b.example"
    assert domain_name("b" * 63 + ".example") == "b" * 63 + ".example"
    assert [domain_name(name) for name in ("b", "b.1", "b..c", "-b.c", "b" * 64 + ".c", "a_b.c", "")] == [None] * 7


LOCAL = st.text("abcXYZ019.+-_'ßéİſ用Ａ", min_size=1, max_size=12)
DOMAIN = st.text("abcXYZ019.-üßİ。Ｂ", min_size=1, max_size=20)


@settings(max_examples=400, deadline=None)
@given(st.builds("{}@{}".format, LOCAL, DOMAIN))
def test_the_key_of_a_key_is_itself_and_belongs_to_an_address(text: str) -> None:
    key = address_key(text)
    assert address_key(key) == key
    if is_address(text):
        address = parse(text)
        assert address.key == key == address_key(address.email)
        assert is_address(key)
        assert address.domain.isascii()


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    address_key(unwrap(text))
    if is_address(text):
        assert not set(parse(text).email) & set(" \r\n\t\0<>(),;:\"[]\\")
