"""Tracking links: what is signed is read back, and nothing else; ids tell nothing; mail programs may be clumsy."""

from __future__ import annotations

import dataclasses
import quopri
import secrets
import time
from base64 import urlsafe_b64decode
from datetime import UTC, datetime
from html import escape, unescape
from itertools import pairwise
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mautolib.errors import InvalidInput
from mautolib.events.links import IdKind, LinkSigner, Owner, Purpose, is_web_url
from mautolib.settings import Settings

SETTINGS = Settings(
    secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
    public_base_url="https://mail.shop.example/",
)  # fmt: skip
SIGNER = LinkSigner.from_settings(SETTINGS)
MADE = datetime(2026, 11, 22, 12, 30, 15, 250000, tzinfo=UTC)
OWNER = Owner.of(campaign_id=7)
TARGET = "https://shop.example/sale?a=1&b=ü+x%20y#z"
IDS = st.integers(min_value=0, max_value=2**63 - 1)


def _click(signer: LinkSigner = SIGNER, *, url: str = TARGET, position: int = 3) -> tuple[str, str, str]:
    link = signer.click_url(url, owner=OWNER, contact_id=5, message_id=99, made_at=MADE, position=position)
    path, s = urlsplit(link).path, dict(parse_qsl(urlsplit(link).query))["s"]
    cid, uid = path.split("/")[-2:]
    return cid, uid, s


def test_links_are_spelled_as_the_contract_says() -> None:
    links = SIGNER.for_message(owner=OWNER, contact_id=5, message_id=99, made_at=MADE)
    cid, uid = SIGNER.public_id(IdKind.CAMPAIGN, 7), SIGNER.public_id(IdKind.CONTACT, 5)
    base = "https://mail.shop.example/api/v1/track"
    assert links.open().startswith(f"{base}/open/{cid}/{uid}?s=")
    assert links.unsubscribe().startswith(f"{base}/unsubscribe/{cid}/{uid}?s=")
    assert links.preferences().startswith(f"{base}/preferences/{cid}/{uid}?s=")
    assert links.confirm().startswith(f"{base}/confirm/{uid}?s=")
    clicked = links.click("https://x.example/?a=b&c=d", position=1)
    assert clicked.startswith(f"{base}/click/{cid}/{uid}?url=https%3A%2F%2Fx.example%2F%3Fa%3Db%26c%3Dd&s=")
    assert links.clicks(["https://x.example/?a=b&c=d"], first_position=1) == [clicked]
    assert links.open() == SIGNER.open_url(owner=OWNER, contact_id=5, message_id=99, made_at=MADE)
    assert links.unsubscribe() == SIGNER.unsubscribe_url(owner=OWNER, contact_id=5, message_id=99, made_at=MADE)


@given(owner_id=IDS, contact_id=IDS, message_id=IDS, position=st.integers(0, 36**4 - 1),
       kind=st.sampled_from([IdKind.CAMPAIGN, IdKind.WORKFLOW, IdKind.NOTHING]),
       path=st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\\")))  # fmt: skip
def test_what_was_signed_is_read_back(
    owner_id: int, contact_id: int, message_id: int, position: int, kind: IdKind, path: str
) -> None:
    url, owner = f"https://shop.example/{path}", Owner(kind=kind, owner_id=owner_id)
    link = SIGNER.click_url(
        url, owner=owner, contact_id=contact_id, message_id=message_id, made_at=MADE, position=position
    )
    query = dict(parse_qsl(urlsplit(link).query))
    cid, uid = urlsplit(link).path.split("/")[-2:]
    token = SIGNER.verify(Purpose.CLICK, cid, uid, query["s"], url=query["url"])
    assert query["url"] == url
    assert token is not None
    assert (token.owner, token.contact_id, token.message_id, token.position, token.made_at) == (
        owner, contact_id, message_id, position, MADE)  # fmt: skip
    assert token.campaign_id == (owner_id if kind is IdKind.CAMPAIGN else None)


def test_nothing_else_passes() -> None:
    cid, uid, s = _click()
    assert SIGNER.verify(Purpose.CLICK, cid, uid, s, url=TARGET) is not None
    other_contact, other_campaign = SIGNER.public_id(IdKind.CONTACT, 6), SIGNER.public_id(IdKind.CAMPAIGN, 8)
    same_workflow = SIGNER.public_id(IdKind.WORKFLOW, 7)
    wrong = [
        (Purpose.OPEN, cid, uid, s, TARGET), (Purpose.UNSUBSCRIBE, cid, uid, s, TARGET),
        (Purpose.CLICK, cid, other_contact, s, TARGET), (Purpose.CLICK, other_campaign, uid, s, TARGET),
        (Purpose.CLICK, same_workflow, uid, s, TARGET), (Purpose.CLICK, uid, cid, s, TARGET),
        (Purpose.CLICK, cid, uid, s, TARGET + "x"), (Purpose.CLICK, cid, uid, s, ""),
        (Purpose.CLICK, cid, uid, s[:-1] + "4", TARGET), (Purpose.CLICK, cid, uid, s + "0", TARGET),
        (Purpose.CLICK, cid, uid, s[:-1] + "0" + s[-1], TARGET),
        (Purpose.CLICK, cid, uid, s[:-2], TARGET), (Purpose.CLICK, cid, uid, "", TARGET),
        (Purpose.CLICK, "", uid, s, TARGET), (Purpose.CLICK, cid, "", s, TARGET),
    ]  # fmt: skip
    for purpose, c, u, token, url in wrong:
        assert SIGNER.verify(purpose, c, u, token, url=url) is None


def test_a_token_is_good_for_one_purpose() -> None:
    links = SIGNER.for_message(owner=Owner.of(), contact_id=5, message_id=99, made_at=MADE)
    cid, uid = SIGNER.owner_id(Owner.of()), SIGNER.public_id(IdKind.CONTACT, 5)
    made = {Purpose.OPEN: links.open(), Purpose.UNSUBSCRIBE: links.unsubscribe(),
            Purpose.PREFERENCES: links.preferences(), Purpose.CONFIRM: links.confirm()}  # fmt: skip
    for purpose, url in made.items():
        s = url.split("?s=")[1]
        good = {other for other in Purpose if SIGNER.verify(other, cid, uid, s) is not None}
        assert good == {purpose}
        found = SIGNER.verify_confirmation(uid, s)
        assert (found is not None and found.message_id == 99) == (purpose is Purpose.CONFIRM)
    of_campaign = SIGNER.for_message(owner=OWNER, contact_id=5, message_id=99, made_at=MADE).confirm()
    assert SIGNER.verify_confirmation(uid, of_campaign.split("?s=")[1]) is None


def test_every_flipped_bit_is_noticed() -> None:
    cid, uid, s = _click()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place in range(56):
        for bit in range(6):
            changed = s[:place] + alphabet[alphabet.index(s[place]) ^ (1 << bit)] + s[place + 1 :]
            assert SIGNER.verify(Purpose.CLICK, cid, uid, changed, url=TARGET) is None


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=100), st.text(max_size=60))
def test_any_text_is_read_without_an_error(cid: str, uid: str, s: str, url: str) -> None:
    for purpose in Purpose:
        assert SIGNER.verify(purpose, cid, uid, s, url=url) is None


def test_the_plain_ids_are_accepted_too() -> None:
    _, _, s = _click()
    token = SIGNER.verify(Purpose.CLICK, "7", "5", s, url=TARGET)
    assert token is not None
    assert (token.campaign_id, token.contact_id, token.message_id) == (7, 5, 99)
    assert SIGNER.verify(Purpose.CLICK, "8", "5", s, url=TARGET) is None
    assert SIGNER.verify(Purpose.CLICK, "9" * 19, "9" * 19, s, url=TARGET) is None
    workflow = SIGNER.open_url(owner=Owner.of(workflow_id=7), contact_id=5, message_id=99, made_at=MADE)
    read = SIGNER.verify(Purpose.OPEN, "7", "5", workflow.split("s=")[1])
    assert read is not None
    assert (read.owner, read.campaign_id) == (Owner.of(workflow_id=7), None)


def test_old_links_outlive_the_rotation_of_keys() -> None:
    new_ring = dataclasses.replace(SETTINGS, secret_keys=("f3a9c0d17be2465890acbd3714e65f28", *SETTINGS.secret_keys))
    rotated = LinkSigner.from_settings(new_ring)
    cid, uid, s = _click()
    assert rotated.verify(Purpose.CLICK, cid, uid, s, url=TARGET) is not None
    new_cid, new_uid, new_s = _click(rotated)
    assert (new_cid, new_uid) == (cid, uid)
    assert SIGNER.verify(Purpose.CLICK, new_cid, new_uid, new_s, url=TARGET) is None
    dropped = LinkSigner.from_settings(dataclasses.replace(new_ring, secret_keys=new_ring.secret_keys[:1]))
    assert dropped.verify(Purpose.CLICK, cid, uid, s, url=TARGET) is None


@given(IDS, st.sampled_from(IdKind))
def test_public_ids_are_permutations_of_a_kind(number: int, kind: IdKind) -> None:
    text = SIGNER.public_id(kind, number)
    assert SIGNER.read_public_id(text) == (kind, number)
    assert len(text) == 12
    assert text[0] == kind.value


def test_public_ids_show_no_order_and_no_kinship() -> None:
    contacts = [SIGNER.public_id(IdKind.CONTACT, n) for n in range(1, 2001)]
    assert len(set(contacts)) == 2000
    # Neighbours differ as chance would have it: eleven characters of 64 agree in 0.17 places on average.
    agreeing = sum(a == b for one, two in pairwise(contacts)
                   for a, b in zip(one[1:], two[1:], strict=True))  # fmt: skip
    assert 150 < agreeing < 600
    assert all(SIGNER.public_id(IdKind.CAMPAIGN, n)[1:] != contacts[n - 1][1:] for n in range(1, 200))


def test_a_link_holds_no_id_in_the_clear() -> None:
    owner = Owner.of(campaign_id=123456)
    link = SIGNER.click_url("https://x.example/", owner=owner, contact_id=654321, message_id=777777, made_at=MADE)
    token = urlsplit(link).query.split("s=")[1]
    for number in (123456, 654321, 777777):
        assert str(number) not in link
        assert number.to_bytes(4, "big") not in urlsafe_b64decode(token[:56])


def test_the_links_of_a_message_do_not_show_that_they_are_of_one() -> None:
    """A message is hidden in another way in each of its tokens; only the time is the same."""
    links = SIGNER.for_message(owner=OWNER, contact_id=5, message_id=99, made_at=MADE)
    raw = [urlsafe_b64decode(url.rpartition("s=")[2][:40])
           for url in (links.open(), links.click(TARGET), links.unsubscribe(), links.preferences())]  # fmt: skip
    assert len({one[:16] for one in raw}) == len({one[16:24] for one in raw}) == 4
    assert {one[24:] for one in raw} == {int(MADE.timestamp() * 1000).to_bytes(6, "big")}


def test_a_link_survives_its_way_through_mail() -> None:
    link = SIGNER.click_url(TARGET, owner=OWNER, contact_id=5, message_id=99, made_at=MADE, position=35)
    decoded = quopri.decodestring(quopri.encodestring(f'<a href="{escape(link)}">'.encode())).decode()
    assert unescape(decoded) == f'<a href="{link}">'
    cid, uid = urlsplit(link).path.split("/")[-2:]
    for glued in ("", ".", "=", ">", "),", '"', "\r\n", "..."):
        s = link.split("&s=")[1] + glued
        assert SIGNER.verify(Purpose.CLICK, cid, uid, s, url=TARGET) is not None
    assert link[-1].isalnum()


@pytest.mark.parametrize("url", [
    "mailto:a@b.example", "javascript:alert(1)", "//x.example", "https:x", "http:///x", "https://", "https://:80/",
    "https://x.example/a b", "https://x.example/\r\nA: b", "https://x\\@y.example", "file:///etc/passwd",
    "https://x.example/" + "a" * 4096,
])  # fmt: skip
def test_only_web_addresses_are_tracked(url: str) -> None:
    assert not is_web_url(url)
    with pytest.raises(InvalidInput):
        _click(url=url)


@pytest.mark.parametrize("url", ["http://x", "HTTPS://Shop.example:8443/a?b#c", "https://user:pw@x.example/",
                                 "https://münchen.example/ü", "https://[::1]/x"])  # fmt: skip
def test_ordinary_addresses_are(url: str) -> None:
    assert is_web_url(url)


def test_a_long_hostile_address_is_judged_in_linear_time() -> None:
    for text in ("https://" + "a@" * 2000 + "\\", "https://" + "a" * 4000 + " ", "https://" + "@" * 4000):
        began = time.thread_time()
        is_web_url(text)
        assert time.thread_time() - began < 0.05


def test_a_mark_is_good_for_its_target_place_and_owner_only() -> None:
    """What leads where is signed for all messages of an owner; it passes with no other URL, position or owner."""
    cid, uid, s = _click()
    mark, position = s[40:56], s[56:]
    _, _, other = _click(url="https://evil.example/")
    assert SIGNER.verify(Purpose.CLICK, cid, uid, s[:40] + other[40:56] + position, url=TARGET) is None
    assert SIGNER.verify(Purpose.CLICK, cid, uid, s[:40] + mark + "4", url=TARGET) is None
    assert SIGNER.verify(Purpose.CLICK, cid, uid, s[:40] + position, url=TARGET) is None, "a click without a mark"
    other_owner = Owner.of(campaign_id=8)
    foreign = SIGNER.click_url(TARGET, owner=other_owner, contact_id=5, message_id=99, made_at=MADE, position=3)
    assert SIGNER.verify(Purpose.CLICK, cid, uid, s[:40] + foreign.split("&s=")[1][40:], url=TARGET) is None
    opened = SIGNER.open_url(owner=OWNER, contact_id=5, message_id=99, made_at=MADE).split("?s=")[1]
    assert SIGNER.verify(Purpose.CLICK, cid, uid, opened[:40] + mark + position, url=TARGET) is None
    assert SIGNER.verify(Purpose.OPEN, cid, uid, opened[:40] + mark + "0") is None
    assert SIGNER.verify(Purpose.OPEN, cid, uid, opened[:40] + "1") is None


def test_a_million_guesses_would_not_pass() -> None:
    # A guess is 16 random octets where the MAC stands; ten thousand here, the rest is arithmetic.
    cid, uid, s = _click()
    for _ in range(10_000):
        guess = s[:19] + secrets.token_urlsafe(16)[:21] + s[40:]
        assert guess == s or SIGNER.verify(Purpose.CLICK, cid, uid, guess, url=TARGET) is None
