"""Address checks: the score and risk of an address, and what the DNS says of its domain, within bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mautolib.contacts import checks, domains, mail_hosts
from mautolib.contacts.address import is_address
from mautolib.contacts.checks import Level, RiskLevel
from mautolib.contacts.mail_hosts import MailHosts
from tests.name_server import NameServer, serve_names

_T = TypeVar("_T")
LONG = "x" * 41
RECORDS = {
    "shop.example": {"MX": ("20 second.shop.example.", "10 first.shop.example.", "20 other.shop.example.")},
    "four.example": {"A": ("192.0.2.1",)},
    "six.example": {"AAAA": ("2001:db8::1",)},
    "text.example": {"TXT": ('"hello"',)},
    "null.example": {"MX": ("0 .",), "A": ("192.0.2.1",)},
}


def checked(email: str, level: Level = Level.DOMAIN) -> checks.Result:
    return checks.check(email, level, domains.lists())


@pytest.fixture
def names() -> Iterator[NameServer]:
    silent, failing = frozenset({"slow.example"}), frozenset({"broken.example"})
    with serve_names(NameServer(RECORDS, silent=silent, failing=failing)) as server:
        yield server


def run(work: Callable[[], Awaitable[_T]]) -> _T:
    async def outer() -> _T:
        return await work()

    return asyncio.run(outer())


def look_up(server: NameServer, *wanted: str) -> dict[str, Any]:
    return run(lambda: MailHosts([server.address]).look_up(wanted))


@pytest.mark.parametrize(
    ("email", "score", "risk", "warnings", "errors"),
    [
        ("ana@shop.example", 100, "low", (), ()),
        ("nonsense", 0, "critical", (), ("invalid_syntax",)),
        ("ana@mailinator.com", 5, "critical", (), ("disposable_domain",)),
        ("admin+a12345@mailinator.com", 5, "critical", (), ("disposable_domain",)),
        ("info@shop.example", 75, "high", ("role_based",), ()),
        ("I.n.f.o+news@shop.example", 70, "high", ("role_based", "plus_address"), ()),
        ("ana@gmail.com", 90, "medium", ("free_provider",), ()),
        ("sales@gmail.com", 65, "high", ("role_based", "free_provider"), ()),
        ("ana+news@shop.example", 95, "low", ("plus_address",), ()),
        ("a12345@shop.example", 85, "high", ("generated_name",), ()),
        ("ab1234567@gmail.com", 75, "high", ("free_provider", "generated_name"), ()),
        ("a1234@shop.example", 100, "low", (), ()),
        ("abc12345@shop.example", 100, "low", (), ()),
        ("ab12345x@shop.example", 100, "low", (), ()),
        (f"{LONG}@shop.example", 95, "low", ("long_local_part",), ()),
        (f"{LONG[:40]}@shop.example", 100, "low", (), ()),
        (f"{LONG}+y@gmail.com", 80, "medium", ("free_provider", "plus_address", "long_local_part"), ()),
    ],
)
def test_each_finding_costs_what_it_costs(
    email: str, score: float, risk: str, warnings: tuple[str, ...], errors: tuple[str, ...]
) -> None:
    found = checked(email)
    assert (found.score, found.risk, found.warnings, found.errors) == (score, risk, warnings, errors)
    assert found.valid is (risk != "critical")


def test_the_parts_are_told() -> None:
    found = checked(" Ana@Mail.BÜCHER.example ")
    assert (found.email, found.local_part, found.domain, found.tld) == (
        " Ana@Mail.BÜCHER.example ", "ana", "mail.xn--bcher-kva.example", "example")  # fmt: skip
    broken = checked("a..b@c.example")
    assert (broken.local_part, broken.domain, broken.tld, broken.valid) == ("a..b", "c.example", "example", False)
    assert (checked("@").domain, checked("x" * 100_000).local_part) == ("", "")


def test_syntax_looks_at_nothing_else() -> None:
    found = checked("info+x@mailinator.com", Level.SYNTAX)
    assert (found.valid, found.score, found.risk, found.warnings) == (True, 100, RiskLevel.LOW, ())
    assert (found.is_disposable, found.is_role_based) == (False, False)
    assert checked("info@", Level.SYNTAX).score == 0


@pytest.mark.parametrize(
    ("email", "is_good"),
    [
        ("x" * 64 + "@shop.example", True), ("x" * 65 + "@shop.example", False), (".a@shop.example", False),
        ("a.@shop.example", False), ("a..b@shop.example", False), ("a@shop", False), ("a@-shop.example", False),
        ("a@shop-.example", False), ("a@shop.example-", False), ("a@" + "b" * 63 + ".example", True),
        ("a@" + "b" * 64 + ".example", False), ("a@" + "b." * 124 + "example", False), ("a b@shop.example", False),
        ("a@shop.example\n", False), ("a@b@shop.example", False), ("", False), ("a@.example", False),
        ("a@shop..example", False), ("o'hara@shop.example", True), ("ü@shop.example", True),
    ],
)  # fmt: skip
def test_syntax(email: str, is_good: bool) -> None:
    assert checked(email, Level.SYNTAX).valid is is_good


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[a-z+.]{1,9}[0-9]{0,9}@[a-z.\-]{1,20}", fullmatch=True)))
def test_any_text_has_a_result_within_bounds(email: str) -> None:
    for level in (Level.SYNTAX, Level.DOMAIN):
        found = checked(email, level)
        assert 0 <= found.score <= 100
        assert found.valid == (found.risk is not RiskLevel.CRITICAL) == (not found.errors)
        assert level is Level.DOMAIN or found.valid == is_address(email)
        assert found.email == email
        nowhere = checks.with_hosts(found, ()) if found.valid else found
        assert (nowhere.risk, nowhere.valid) == (RiskLevel.CRITICAL, False)
        assert not found.valid or nowhere.score == max(0, found.score - 50)


def test_hosts_come_by_preference_and_an_address_record_will_do(names: NameServer) -> None:
    found = look_up(names, *RECORDS, "missing.example")
    assert found == {
        "shop.example": ("first.shop.example", "other.shop.example", "second.shop.example"),
        "four.example": ("four.example",), "six.example": ("six.example",), "text.example": (), "null.example": (),
        "missing.example": (),
    }  # fmt: skip
    assert ("missing.example", "A") not in names.asked
    assert {kind for name, kind in names.asked if name == "text.example"} == {"MX", "A", "AAAA"}


def test_a_name_without_hosts_costs_fifty_and_one_without_an_answer_nothing(names: NameServer) -> None:
    emails = ["info@shop.example", "ana@missing.example", "ana@broken.example", "bad", "x@mailinator.com",
              "ana@shop.example"]  # fmt: skip
    resolver = run(lambda: _check(names, emails))
    shop, missing, broken, bad, disposable, again = resolver
    assert (shop.has_mx_records, shop.mx_records[0], shop.score) == (True, "first.shop.example", 75)
    assert (missing.score, missing.risk, missing.valid, missing.errors) == (50, "critical", False, ("no_mail_host",))
    assert (broken.score, broken.valid, broken.warnings) == (100, True, ("dns_failed",))
    assert (bad.score, disposable.score, again.score) == (0, 5, 100)
    assert [name for name, _ in names.asked].count("shop.example") == 1
    assert "mailinator.com" not in {name for name, _ in names.asked}


async def _check(names: NameServer, emails: list[str]) -> list[checks.Result]:
    return await checks.check_all(emails, Level.FULL, domains.lists(), MailHosts([names.address]))


def test_silence_is_a_warning_within_its_time(names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_hosts, "NAME_SECONDS", 0.2)
    began = time.monotonic()
    slow, quick = run(lambda: _check(names, ["a@slow.example", "a@shop.example"]))
    assert time.monotonic() - began < 2
    assert (slow.warnings, slow.score, slow.valid, slow.has_mx_records) == (("dns_timeout",), 100, True, False)
    assert quick.has_mx_records


def test_a_call_ends_in_its_time_whatever_it_was_asked(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_hosts, "NAME_SECONDS", 0.3)
    monkeypatch.setattr(mail_hosts, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(mail_hosts, "MOST_AT_ONCE", 2)
    names.silent = frozenset(f"s{number}.example" for number in range(40))
    began = time.monotonic()
    found = look_up(names, *sorted(names.silent))
    assert time.monotonic() - began < 2
    assert set(found.values()) == {"dns_timeout"}
    assert len({name for name, _ in names.asked}) <= 8


def test_answers_are_remembered_for_an_hour_and_silence_is_not(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_hosts, "NAME_SECONDS", 0.3)
    monkeypatch.setattr(mail_hosts, "MOST_REMEMBERED", 2)
    now = [1000.0]

    async def work() -> None:
        hosts = MailHosts([names.address], clock=lambda: now[0])
        for wanted, questions in (
            (("shop.example", "missing.example"), 2), (("shop.example", "missing.example"), 0),
            (("slow.example",), 1), (("slow.example",), 1), (("four.example",), 1),
            (("missing.example",), 0), (("shop.example",), 1),
        ):  # fmt: skip
            before = len({*names.asked}), len(names.asked)
            names.asked.clear()
            await hosts.look_up(wanted)
            assert len({name for name, _ in names.asked}) == questions, (wanted, before)
        now[0] += mail_hosts.REMEMBERED_SECONDS
        names.asked.clear()
        await hosts.look_up(["shop.example"])
        assert names.asked == [("shop.example", "MX")]

    run(work)


def test_names_that_lead_nowhere_by_definition_are_not_asked_about(names: NameServer) -> None:
    wanted = ("a.invalid", "x.localhost", "printer.local", "abc.onion")
    assert look_up(names, *wanted) == dict.fromkeys(wanted, ())
    assert names.asked == []


def test_the_search_list_of_the_machine_is_not_used(names: NameServer) -> None:
    look_up(names, "missing.example")
    assert names.asked == [("missing.example", "MX")]


def test_a_summary_counts() -> None:
    emails = ("ana@shop.example", "a@gmail.com", "info@shop.example", "bad", "x@mailinator.com")
    found = [checked(one) for one in emails]
    figures = checks.summary(found)
    assert (figures.total, figures.valid, figures.invalid) == (5, 3, 2)
    assert figures.risk_distribution == {"low": 1, "medium": 1, "high": 1, "critical": 2}
    assert (figures.avg_score, figures.disposable_count, figures.role_based_count) == (54.0, 1, 1)
    assert checks.summary([]).avg_score == 0
