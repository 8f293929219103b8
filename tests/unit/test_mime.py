"""Headers and bodies made by hand are read back by the standard parser exactly as they were meant."""

from __future__ import annotations

import quopri
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mautolib.campaigns.mime import mailbox_header, plain_header, quoted_printable, text_header
from mautolib.errors import InvalidInput

PRINTABLE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\x7f"), max_size=400)
ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=600)


def parsed(header: bytes) -> EmailMessage:
    message = message_from_bytes(header + b"X-End: 1\r\n\r\n", policy=default)
    assert isinstance(message, EmailMessage)
    assert len(message.keys()) == 2 and message["X-End"] == "1", "the value made a header of its own"
    return message


def lines_are_short(block: bytes) -> bool:
    return all(len(line) <= 76 for line in block.split(b"\r\n"))


@given(PRINTABLE)
@example("x" * 300)
@example("word " * 60 + "end")
@example("=?utf-8?q?not_encoded?=")
@example(" leading and trailing ")
@example("two  spaces")
@example("🎉" * 100)
@example("עברית وعربية")
@example("é" * 33)
def test_a_subject_comes_back(value: str) -> None:
    header = text_header("Subject", value)
    assert header.isascii() and header.endswith(b"\r\n") and lines_are_short(header)
    # The standard parser strips blanks around a value that is not encoded; ours are encoded, so nothing is lost.
    assert parsed(header)["Subject"] == value


@given(PRINTABLE)
@example('Quote " and \\ backslash')
@example("Müller, GmbH & Co. <news>")
@example("x" * 200)
@example("a, b")
def test_a_sender_name_comes_back(value: str) -> None:
    header = mailbox_header("From", value, "news@shop.example")
    assert header.isascii() and lines_are_short(header)
    (address,) = parsed(header)["From"].addresses
    assert address.addr_spec == "news@shop.example"
    # The standard parser leaves a blank between encoded words of a phrase (RFC 2047 6.2 says it belongs to neither).
    assert "".join(address.display_name.split()) == "".join(value.split())


CONTROLS = ["\r", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\0"]


@pytest.mark.parametrize("control", CONTROLS)
def test_a_value_cannot_end_its_line(control: str) -> None:
    value = f"Hello{control}Bcc: evil@mail.example"
    for make in (
        lambda: text_header("Subject", value),
        lambda: mailbox_header("From", value, "news@shop.example"),
        lambda: mailbox_header("From", "Shop", f"news{control}@shop.example"),
        lambda: plain_header("Reply-To", value),
    ):
        with pytest.raises(InvalidInput, match="control character"):
            make()


@given(ANY)
@example("x" * 74 + " \nnext")
@example("x" * 75 + " ")
@example("x" * 75 + "\t\r\n")
@example("-- \nsignature")
@example(".\n..\n.\r\n")
@example("é" * 500)
@example("=" * 300)
@example("line\rline\r\nline\n")
def test_a_body_comes_back(text: str) -> None:
    encoded = quoted_printable(text)
    assert encoded.isascii() and lines_are_short(encoded)
    bare = encoded.replace(b"\r\n", b"")
    assert encoded.endswith(b"\r\n") and b"\n" not in bare and b"\r" not in bare
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    found = quopri.decodestring(encoded.replace(b"\r\n", b"\n")).decode()
    assert found == wanted or found == wanted + "\n"


def test_a_header_of_ours_stays_on_one_line_of_legal_length() -> None:
    assert plain_header("List-Unsubscribe", f"<https://x.example/{'a' * 300}>").count(b"\r\n") == 1
    with pytest.raises(InvalidInput, match="longer"):
        plain_header("List-Unsubscribe", "x" * 1000)
