"""The fast way to write a mail says what the long way says, whatever the template and the person."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mautolib.campaigns.building import Blueprint
from mautolib.errors import InvalidInput
from mautolib.events import verp
from mautolib.events.links import LinkSigner
from mautolib.ledger.model import Claimed, Kind, NewContent
from mautolib.settings import Settings

SETTINGS = Settings(
    secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e",
    public_base_url="https://mail.shop.example", default_from_email="news@shop.example",
    default_from_name="Example Shop", postal_address="Example Shop, 1 High Street, Berlin",
)  # fmt: skip
SIGNER = LinkSigner.from_settings(SETTINGS)
WHEN = datetime(2026, 11, 22, 9, 0, 0, 123456, UTC)

#: Pieces of templates; any of them may stand next to any other.
PIECES = [
    "Hello ", "\n", "\n\n", "<p>", "</p>\n", " ", ".", "..\n.", "é", "🎉", "=", "x" * 90, "  \n", "\t\n", "&amp; ",
    "From x",
    "{{ contact.first_name }}", "{{ contact.last_name }}", "{{ contact.custom_fields.city }}", "{{ contact.phone }}",
    "{{ contact.first_name|default('friend', true)|upper }}", "{{ contact.nothing }}", "{{ campaign.name }}",
    "{% if contact.first_name %}yes {{ contact.first_name }}{% else %}no{% endif %}",
    "{% for n in range(3) %}{{ n }}.\n{% endfor %}", "{{ contact.custom_fields.amount|number }}", "{{ now|date }}",
    "{# a comment #}", "{{ '{' }}", "{{ contact.custom_fields }}", "{% raw %}{{ x }}{% endraw %}",
    "<a href=\"https://shop.example/a?b=1&amp;c=2\">here</a>", "<a href='https://shop.example/{{ contact.id }}'>x</a>",
    "<a href=\"{{ contact.custom_fields.city }}\">y</a>",
    "<img src=\"https://shop.example/i.png\" alt=\"{{ contact.first_name }}\">",
    "<a href=\"{{ unsubscribe_url }}\">bye</a>", "<a href=\"{{ preferences_url }}\">settings</a>",
    "<span title={{ contact.first_name }}>t</span>", "<p style=\"color:{{ contact.last_name }}\">c</p>",
]  # fmt: skip
#: With these the pieces depend on each other, and the whole is rendered.
ENTANGLED = ["{% set x = contact.first_name %}", "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m('q') }}"]
VALUE = st.one_of(
    st.sampled_from([
        "", "Ann", "Zoë", "O'Neil <b>&", ".", ".dot", "\n", "a\n\n\nb", "end\n", " ", "x ", "=3D", "a\r\nb", "y" * 200,
        "é" * 80, "{{ contact.last_name }}", "{% if %}", "tab\t", "\u2028", "\x1c", "null\x00",
    ]),
    st.text(max_size=40),
)  # fmt: skip


def claimed(contact: dict[str, Any], **more: Any) -> Claimed:
    values = {
        "message_id": 4711, "contact_id": 12, "attempt_id": 7, "attempt_no": 1, "kind": Kind.CAMPAIGN,
        "campaign_id": 3, "workflow_id": None, "content_id": 1, "to_email": "person@mail.example",
        "rfc_message_id": "abc@shop.example", "context": None, "contact": contact, **more,
    }  # fmt: skip
    return Claimed(**values)


def blueprint(content: NewContent, settings: Settings = SETTINGS) -> Blueprint:
    return Blueprint(content, settings=settings, signer=SIGNER, campaign_name="Autumn & Co")


def both(plan: Blueprint, message: Claimed) -> tuple[bytes | str, bytes | str]:
    """What the fast way and the long way make of a message: its bytes, or what they refuse."""
    slow = blueprint(NewContent(subject="", html_body="x"))
    slow.__dict__.update(plan.__dict__)
    slow.__dict__["_assembly"] = None

    def made(by: Blueprint) -> bytes | str:
        try:
            return by.write(message, WHEN).data
        except InvalidInput as error:
            return str(error)

    return made(plan), made(slow)


def read(data: bytes) -> tuple[list[tuple[str, str]], list[str]]:
    message = message_from_bytes(data, policy=default)
    assert isinstance(message, EmailMessage) and not message.defects
    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    assert all(not part.defects for part in parts)
    payloads = [part.get_payload(decode=True) for part in parts]
    return list(message.items()), [bytes(payload).decode() for payload in payloads if isinstance(payload, bytes)]


def is_well_formed(data: bytes) -> bool:
    lines = data.split(b"\r\n")
    head_ends = lines.index(b"")
    return (
        lines[-1] == b""
        and not any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines)
        and all(len(line) <= 998 for line in lines)
        and all(len(line) <= 76 for line in lines[head_ends:])
        and data.isascii()
    )


@hypothesis_settings(deadline=None, max_examples=150, derandomize=True)
@given(
    html=st.lists(st.sampled_from(PIECES), max_size=14),
    text=st.lists(st.sampled_from(PIECES[:32]), max_size=8),
    subject=st.lists(st.sampled_from([piece for piece in PIECES[:32] if "\n" not in piece]), max_size=4),
    values=st.tuples(VALUE, VALUE, VALUE),
    strict=st.booleans(),
    language=st.sampled_from(["", "de", "ar"]),
)
@pytest.mark.thorough
def test_both_ways_say_the_same(
    html: list[str], text: list[str], subject: list[str], values: tuple[str, str, str], strict: bool, language: str
) -> None:
    first, last, city = values
    content = NewContent(
        subject="".join(subject), html_body="".join(html), text_body="".join(text), campaign_id=3, strict=strict,
        locale=language, preheader="Ten {{ contact.first_name }} things" if strict else "",
    )  # fmt: skip
    try:
        plan = blueprint(content)
    except InvalidInput:
        return
    assert plan.is_assembled
    contact = {"id": "12", "first_name": first, "last_name": last, "phone": None, "email": "person@mail.example",
               "custom_fields": {"city": city, "amount": 1234.5}}  # fmt: skip
    fast, slow = both(plan, claimed(contact))
    if isinstance(fast, str) or isinstance(slow, str):
        assert fast == slow
        return
    assert read(fast) == read(slow)
    assert is_well_formed(fast) and is_well_formed(slow)
    if plan.write(claimed(contact), WHEN).is_checked:
        assert not any(line.startswith(b".") for line in fast.split(b"\r\n"))


@pytest.mark.parametrize("piece", ENTANGLED)
def test_a_template_whose_pieces_depend_on_each_other_is_rendered_as_a_whole(piece: str) -> None:
    plan = blueprint(NewContent(subject="s", html_body=f"<p>{piece}{{{{ x }}}}</p>", campaign_id=3))
    assert not plan.is_assembled
    assert "Ann" in read(plan.write(claimed({"first_name": "Ann"}), WHEN).data)[1][1] or "macro" in piece


def test_the_bytes_are_those_of_the_person_only() -> None:
    """Two people's mails differ in their values, ids and tokens, nowhere else."""
    html = "<p>Hello {{ contact.first_name }}, <a href='https://shop.example/a'>here</a></p>"
    plan = blueprint(NewContent(subject="Hi {{ contact.first_name }}", html_body=html, campaign_id=3))
    first = plan.write(claimed({"first_name": "Ann"}), WHEN).data
    second = plan.write(claimed({"first_name": "Bob"}, contact_id=13, message_id=4712), WHEN).data
    hidden = [
        re.sub(rb"/u[\w-]{11}|s=3D[\w-]{40}|s=[\w-]{40}|Ann|Bob", b"*", re.sub(rb"=\r\n", b"", data))
        for data in (first, second)
    ]
    assert first != second and hidden[0] == hidden[1]


def test_bounces_come_back_to_an_address_that_names_the_message() -> None:
    settings = replace(SETTINGS, bounce_domain="bounces.shop.example")
    plan = blueprint(NewContent(subject="s", html_body="<p>x</p>", campaign_id=3), settings)
    outgoing = plan.write(claimed({"first_name": "Ann"}), WHEN)
    assert outgoing.sender.endswith("@bounces.shop.example") and outgoing.sender.startswith("bounces+")
    assert verp.read(settings, outgoing.sender) == 4711
    assert dict(read(outgoing.data)[0])["From"] == "Example Shop <news@shop.example>"
