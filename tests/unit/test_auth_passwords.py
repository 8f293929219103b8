"""Passwords: what is accepted, that all of it counts, and that nobody costs as much as somebody."""

from __future__ import annotations

import statistics
import time

import pytest

from mautolib.auth import passwords
from mautolib.auth.attempts import network_of
from mautolib.auth.roles import Role
from mautolib.auth.users import user_key
from mautolib.errors import InvalidInput


def test_the_hash_is_argon2id_with_the_parameters_we_measured() -> None:
    stored = passwords.hash_password("correct horse battery staple")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.verify(stored, "correct horse battery staple")
    assert not passwords.verify(stored, "correct horse battery stapl")
    assert not passwords.needs_rehash(stored)
    assert passwords.needs_rehash("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A")


def test_every_character_counts() -> None:
    shared = "x" * 72
    stored = passwords.hash_password(shared + "first")
    assert not passwords.verify(stored, shared + "other")


@pytest.mark.parametrize("given", ["short", "x" * 9, "x" * 129, "ten chars\0 and NUL", "lone surrogate \ud800"])
def test_a_password_nobody_should_have(given: str) -> None:
    with pytest.raises(InvalidInput):
        passwords.check_new(given)


@pytest.mark.parametrize("given", ["x" * 10, "x" * 128, "🔐" * 10, "passwort mit ä"])
def test_a_password_anybody_may_have(given: str) -> None:
    passwords.check_new(given)
    assert passwords.verify(passwords.hash_password(given), given)


def test_odd_input_is_a_wrong_password() -> None:
    stored = passwords.hash_password("correct horse battery staple")
    assert not passwords.verify(stored, "\ud800")
    assert not passwords.verify("no hash at all", "correct horse battery staple")
    assert not passwords.verify(None, "a password that belongs to nobody")


def test_an_unknown_user_costs_what_a_wrong_password_costs() -> None:
    stored = passwords.hash_password("correct horse battery staple")
    passwords.verify(None, "warm up")
    costs: dict[str | None, list[float]] = {stored: [], None: []}
    for _ in range(9):
        for given, spent in costs.items():
            began = time.thread_time()
            passwords.verify(given, "not this one")
            spent.append(time.thread_time() - began)
    known, unknown = (statistics.median(spent) for spent in costs.values())
    assert abs(known - unknown) < 0.25 * known, f"{known * 1000:.1f} ms and {unknown * 1000:.1f} ms"


def test_spellings_of_one_address_are_one_user() -> None:
    assert {user_key(given) for given in (" ANA@Shop.Example", "ana@shop.example\t", "ａｎａ@shop.example")} == {
        "ana@shop.example"
    }


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
     ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"), ("", "unknown"), ("x", "unknown")],
)  # fmt: skip
def test_an_ipv6_subscriber_is_one_caller(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_higher_role_covers_the_lower_ones() -> None:
    assert [[a.covers(b) for b in Role] for a in Role] == [
        [True, False, False], [True, True, False], [True, True, True],
    ]  # fmt: skip
