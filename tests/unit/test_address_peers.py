"""Our reading of addresses beside the library email-validator: where they differ is written down, and nowhere else."""

from __future__ import annotations

import random
import re
import unicodedata

from email_validator import EmailNotValidError, validate_email

from mautolib.contacts.address import is_address

_PIECES = ("a", "b", "anna", "x1", "-", "_", "+", ".", "..", "!", "#", "'", "%", '"', "(", ")", " ", "\t", "ä", "é",
           "日本", "ﬁ", "Ａ", "\u200b", "\u0301", "@", "<", ">", ",", ";", ":", "[", "]", "\\", "0", "999")  # fmt: skip
_DOMAINS = (
    "shop.example.com", "x.co", "bücher.de", "xn--bcher-kva.de", "-x.co", "x-.co", "a..b.co", "x.co.", "x_y.co",
    "127.0.0.1", "[127.0.0.1]", "localhost", "x.1", "日本.jp", "shop。jp", "SHOP.co", "a" * 63 + ".co",
    "a" * 64 + ".co", "x.test", "x.local", "x.invalid", "☃.net", "x.c-", "faß.de", "a.b.c.d.e.co",
)  # fmt: skip


def peer(text: str, *, is_public: bool = False) -> bool:
    """What email-validator says of the syntax; `is_public` as it is called by default: no names for private use."""
    try:
        validate_email(
            text, check_deliverability=False, test_environment=not is_public, globally_deliverable=is_public
        )
    except EmailNotValidError:
        return False
    return True


def is_known_difference(text: str) -> bool:
    """Whether docs/contact-import.md names this difference."""
    local, _, domain = text.rpartition("@")
    if is_address(text):
        # Spaces at the edges are tidied away; names nobody can register are names all the same; a local part may begin
        # with a combining mark.
        reserved = domain.endswith((".invalid", ".local"))
        return text != text.strip(" ") or reserved or unicodedata.combining(local.strip()[0]) > 0
    # A last label of digits is an IP address or a slip, not a name.
    return re.search(r"\.\d+$", domain) is not None


def test_every_difference_is_a_known_one() -> None:
    draw = random.Random(7)
    agreed = differing = 0
    for _ in range(40_000):
        local = "".join(draw.choices(_PIECES, k=draw.choice([1, 2, 3, 4])))
        text = f"{local}@{draw.choice(_DOMAINS)}"
        if is_address(text) == peer(text):
            agreed += is_address(text)
        else:
            assert is_known_difference(text), text
            differing += 1
    assert agreed > 4_000 and differing > 1_000, "both kinds were tried"
