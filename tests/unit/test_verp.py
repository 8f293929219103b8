"""Return paths: which message a bounce is about, and nobody else can say it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mautolib.channels.wire import wire_address
from mautolib.events import verp
from mautolib.events.verp import Returned, ReturnPaths
from mautolib.settings import Settings

KEYS = Settings(
    secret_keys=("8f0b7a61d5c24e93b1f6a07d3e582c49",), suppression_pepper="c1d94e27a85f3b60e7924d1fa6b0358e"
)
PATHS = ReturnPaths.from_settings(KEYS)
DOMAIN = "bounces.shop.example"


@hypothesis_settings(deadline=None, max_examples=200)
@given(message_id=st.integers(1, 2**63 - 1), attempt_id=st.integers(0, 2**48 - 1))
def test_what_is_made_is_read_in_any_case_and_with_what_relays_put_around_it(message_id: int, attempt_id: int) -> None:
    local = PATHS.make(message_id, attempt_id)
    expected = Returned(message_id, attempt_id)
    for address in (
        f"{local}@{DOMAIN}", f"<{local.upper()}@{DOMAIN}>", f"prvs=1234abcdef={local}@{DOMAIN}",
        f"SRS0=HHH=TT={DOMAIN}={local}@relay.example", local,
    ):  # fmt: skip
        assert PATHS.read(address) == expected, address


def test_a_return_path_fits_and_is_an_address() -> None:
    local = PATHS.make(2**63 - 1, 2**48 - 1)
    assert len(local) == 56
    assert wire_address(f"{local}@{DOMAIN}") == f"{local}@{DOMAIN}"


def test_nothing_of_the_ids_shows_and_attempts_differ() -> None:
    first, second = PATHS.make(1, 1), PATHS.make(1, 2)
    assert first != second and PATHS.make(1, 1) == first
    assert sum(a != b for a, b in zip(first[8:], second[8:], strict=True)) > 20


def test_what_was_not_made_here_names_nothing() -> None:
    local = PATHS.make(7, 3)
    for digit in range(8, 56):
        forged = local[:digit] + ("1" if local[digit] == "0" else "0") + local[digit + 1 :]
        assert PATHS.read(f"{forged}@{DOMAIN}") is None, digit
    for other in ("", "bounces@shop.example", "bounces+" + "0" * 48 + "@x.example", local[:-1], "x" * 2000 + local,
                  f"not{local}@{DOMAIN}", f"{local}0@{DOMAIN}"):  # fmt: skip
        assert PATHS.read(other) is None, other
    other_keys = replace(KEYS, secret_keys=("1e7f63ab90c4d25f8a61b3e07d94c582",))
    assert ReturnPaths.from_settings(other_keys).read(local) is None


def test_an_older_key_of_the_ring_still_reads() -> None:
    rotated = replace(KEYS, secret_keys=("1e7f63ab90c4d25f8a61b3e07d94c582", *KEYS.secret_keys))
    assert verp.read(rotated, f"{verp.make(KEYS, 42, 5)}@{DOMAIN}") == 42
    assert verp.read(KEYS, f"{verp.make(rotated, 42, 5)}@{DOMAIN}") is None
