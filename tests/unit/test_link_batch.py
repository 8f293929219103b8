"""Links made together are the links made one by one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mautolib.errors import InvalidInput
from mautolib.events.link_batch import CONTACT_LENGTH, TOKEN_LENGTH, LinkBatch, Wanted
from mautolib.events.links import LinkSigner, Owner, Purpose
from mautolib.settings import Settings

SIGNER = LinkSigner.from_settings(Settings(
    secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
    public_base_url="https://mail.shop.example/",
))  # fmt: skip
WHEN = datetime(2026, 11, 22, 9, 0, 0, 123456, UTC)


@hypothesis_settings(deadline=None)
@given(
    owner=st.sampled_from([Owner.of(), Owner.of(campaign_id=7), Owner.of(workflow_id=9)]),
    contact_id=st.integers(0, 2**63 - 1),
    message_id=st.integers(1, 2**63 - 1),
    paths=st.lists(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x2FFF, exclude_characters="\\\x7f\xa0"),
                           max_size=60).filter(lambda text: "".join(text.split()) == text), max_size=40),
)  # fmt: skip
def test_together_as_one_by_one(owner: Owner, contact_id: int, message_id: int, paths: list[str]) -> None:
    urls = [f"https://shop.example/{path}" for path in paths]
    wanted = [Wanted(Purpose.CLICK, url, position) for position, url in enumerate(urls)]
    others = [Purpose.OPEN, Purpose.UNSUBSCRIBE, Purpose.PREFERENCES, Purpose.CONFIRM]
    batch = LinkBatch(SIGNER, owner, [*wanted, *map(Wanted, others)])
    contact, tokens = batch.sign(contact_id, message_id, int(WHEN.timestamp() * 1000))
    assert len(tokens) == batch.token_count == (5 if urls else 4)
    assert len(contact) == CONTACT_LENGTH and {len(token) for token in tokens} == {TOKEN_LENGTH}
    made = [
        f"{form.before}{contact.decode()}{form.between}{tokens[form.token].decode()}{form.after}"
        for form in batch.forms
    ]
    links = SIGNER.for_message(owner=owner, contact_id=contact_id, message_id=message_id, made_at=WHEN)
    assert made == [*links.clicks(urls), links.open(), links.unsubscribe(), links.preferences(), links.confirm()]


def test_only_web_addresses_are_tracked() -> None:
    with pytest.raises(InvalidInput, match="http"):
        LinkBatch(SIGNER, Owner.of(), [Wanted(Purpose.CLICK, "javascript:alert(1)")])
    assert LinkBatch(SIGNER, Owner.of(), []).sign(1, 1, 1)[1] == ()
