"""How good an address is: what its text and its domain say, as a score from 100 down and a risk.

Pure: what the network says is asked by `mail_hosts` and given to `with_hosts`. Syntax is that of `address.parse`, so
an address that passes here is one the other doors take. A check changes nothing and flags nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from mautolib.contacts import domains
from mautolib.contacts.address import MAX_CHARACTERS, parse
from mautolib.contacts.mail_hosts import MailHosts
from mautolib.errors import InvalidInput

__all__ = ["Level", "Result", "RiskLevel", "Summary", "check", "check_all", "summary", "with_hosts"]

_GENERATED = re.compile(r"[a-z]{1,2}[0-9]{5,}")
_LONG_LOCAL = 40


class Level(StrEnum):
    """How far a check goes; `full` is everything there is."""

    SYNTAX = "syntax"
    DOMAIN = "domain"
    MX = "mx"
    FULL = "full"

    @property
    def asks_dns(self) -> bool:
        """Whether the network is asked."""
        return self in (Level.MX, Level.FULL)


class RiskLevel(StrEnum):
    """How likely mail to the address does harm, least first."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is known of one address.

    Args:
        email: as it was given.
        score: 0 to 100.
        domain: in lower case and punycode.
        has_mx_records: mail has somewhere to go; without MX records the domain's own address counts (RFC 5321 5.1).
        warnings: `role_based`, `free_provider`, `plus_address`, `generated_name`, `long_local_part`, `dns_timeout`,
            `dns_failed`.
        errors: `invalid_syntax`, `disposable_domain`, `no_mail_host`; with any of them it is not valid.
    """

    email: str
    score: float = 100.0
    risk: RiskLevel = RiskLevel.LOW
    local_part: str = ""
    domain: str = ""
    tld: str = ""
    is_disposable: bool = False
    is_free_provider: bool = False
    is_role_based: bool = False
    has_mx_records: bool = False
    mx_records: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether mail may be sent there with a good conscience."""
        return not self.errors


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Many results in figures."""

    total: int
    valid: int
    invalid: int
    risk_distribution: dict[RiskLevel, int]
    avg_score: float
    disposable_count: int
    role_based_count: int


def check(email: str, level: Level, known: domains.DomainLists) -> Result:
    """What can be said without the network.

    Args:
        email: any text; spaces around it do not count.
    """
    try:
        address = parse(email)
    except InvalidInput:
        return _unreadable(email)
    found = Result(
        email=email, local_part=address.local, domain=address.domain, tld=address.domain.rpartition(".")[2]
    )
    if level is Level.SYNTAX:
        return found
    risk = domains.risk_of(address, known)
    found = replace(found, is_disposable=risk.is_disposable, is_free_provider=risk.is_free_provider,
                    is_role_based=risk.is_role_based)  # fmt: skip
    if found.is_disposable:
        return replace(found, score=5.0, risk=RiskLevel.CRITICAL, errors=("disposable_domain",))
    return _weighed(found)


def with_hosts(found: Result, hosts: Sequence[str] | str) -> Result:
    """The result with what the network said: the names of mail hosts, none, or a warning instead of an answer."""
    if isinstance(hosts, str):
        return replace(found, warnings=(*found.warnings, hosts))
    if hosts:
        return replace(found, has_mx_records=True, mx_records=tuple(hosts))
    return replace(found, score=max(0.0, found.score - 50), risk=RiskLevel.CRITICAL,
                   errors=(*found.errors, "no_mail_host"))  # fmt: skip


async def check_all(
    emails: Sequence[str], level: Level, known: domains.DomainLists, resolver: MailHosts
) -> list[Result]:
    """Check addresses, each domain asked about once; the results are in the order of the addresses.

    Bounded: 2 s a name and 20 s altogether; what was not answered by then has the warning `dns_timeout`.
    """
    found = [check(email, level, known) for email in emails]
    if not level.asks_dns:
        return found
    hosts = await resolver.look_up({one.domain for one in found if one.valid})
    return [with_hosts(one, hosts[one.domain]) if one.valid else one for one in found]


def summary(results: Sequence[Result]) -> Summary:
    """The figures of many results; the average has 2 decimals and is 0 for none."""
    risks = [one.risk for one in results]
    valid = sum(one.valid for one in results)
    return Summary(
        total=len(results), valid=valid, invalid=len(results) - valid,
        risk_distribution={level: risks.count(level) for level in RiskLevel},
        avg_score=round(sum(one.score for one in results) / max(1, len(results)), 2),
        disposable_count=sum(one.is_disposable for one in results),
        role_based_count=sum(one.is_role_based for one in results),
    )  # fmt: skip


def _unreadable(email: str) -> Result:
    local, at, domain = email.strip()[:MAX_CHARACTERS].rpartition("@")
    return Result(
        email=email, score=0.0, risk=RiskLevel.CRITICAL, local_part=local if at else "", domain=domain if at else "",
        tld=domain.rpartition(".")[2] if at and "." in domain else "", errors=("invalid_syntax",),
    )  # fmt: skip


def _weighed(found: Result) -> Result:
    """The deductions of a readable address on a lasting domain."""
    local = found.local_part
    weights = (
        (found.is_role_based, "role_based", 25, RiskLevel.HIGH),
        (found.is_free_provider, "free_provider", 10, RiskLevel.MEDIUM),
        ("+" in local, "plus_address", 5, RiskLevel.LOW),
        (_GENERATED.fullmatch(local) is not None, "generated_name", 15, RiskLevel.HIGH),
        (len(local) > _LONG_LOCAL, "long_local_part", 5, RiskLevel.LOW),
    )
    levels = list(RiskLevel)
    score, risk, warnings = found.score, found.risk, []
    for holds, warning, points, least in weights:
        if holds:
            score -= points
            risk = max(risk, least, key=levels.index)
            warnings.append(warning)
    return replace(found, score=max(0.0, score), risk=risk, warnings=tuple(warnings))
