"""Address checks: what can be known of an address before anything is sent to it."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Query, Response
from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from api.calls import MIB, Call, Outcome
from api.errors import Refused
from api.routing import CurrentCall, Router, allow, problems
from api.values import Answer, Model
from mautolib.auth.roles import Role
from mautolib.contacts import checks, domains
from mautolib.contacts.checks import Level, Result, RiskLevel
from mautolib.contacts.mail_hosts import MailHosts

router = Router("Address checks")
MOST_EMAILS = 1000
TOO_MANY = f"Maximum {MOST_EMAILS} emails per batch"
_LEVEL = "How far to look: `syntax`, `domain` (lists of domains), `mx` and `full` (the DNS, too)."


class CheckedAddress(Answer):
    """What is known of one address. The score begins at 100; a risk is the worst thing found."""

    email: str = Field(description="As it was given.")
    valid: bool
    risk: RiskLevel
    score: float = Field(ge=0, le=100)
    local_part: str
    domain: str = Field(description="In lower case and punycode.")
    tld: str
    is_disposable: bool
    is_free_provider: bool
    is_role_based: bool
    has_mx_records: bool = Field(description="Mail has somewhere to go; false where the DNS was not asked.")
    mx_records: list[str] = Field(description="Hosts, best first; without MX records the domain itself.")
    warnings: list[str] = Field(
        description="`role_based`, `free_provider`, `plus_address`, `generated_name`, `long_local_part`, "
        "`dns_timeout`, `dns_failed`"
    )
    errors: list[str] = Field(description="`invalid_syntax`, `disposable_domain`, `no_mail_host`")


class RiskDistribution(Answer):
    """How many addresses have each risk."""

    low: int
    medium: int
    high: int
    critical: int


class CheckedAddresses(Answer):
    """Many addresses in figures, and each of them in the order given."""

    total: int
    valid: int
    invalid: int
    risk_distribution: RiskDistribution
    avg_score: float
    disposable_count: int
    role_based_count: int
    results: list[CheckedAddress]


class AddressesBody(Model):
    """Addresses to check."""

    model_config = ConfigDict(
        title="AddressList",
        json_schema_extra={"example": {"emails": ["ana@shop.example", "info@gmail.com"], "level": "domain"}}
    )

    emails: list[str] = Field(description=f"At most {MOST_EMAILS}.")
    level: Annotated[Level, Field(strict=False, description=_LEVEL)] = Level.DOMAIN


@router.post("/validate/email", response_model=CheckedAddress, responses=problems(401, 422))
@allow(Role.VIEWER, action="address.check")
async def validate_email(
    call: CurrentCall,
    email: Annotated[str, Query(description="Any text.", examples=["ana@shop.example"])],
    level: Annotated[Level, Query(description=_LEVEL)] = Level.DOMAIN,
) -> Response:
    """Check one address.

    Nothing is sent and nothing is kept. DNS answers are remembered for an hour; a name that takes longer than 2 s
    has the warning `dns_timeout` and loses nothing.
    """
    (found,) = await _checked(call, [email], level)
    return await _answer(call, CheckedAddress.model_validate(found), {"level": level})


@router.post(
    "/validate/emails/bulk", response_model=CheckedAddresses, responses=problems(401, 413, 415, 422, s400=TOO_MANY)
)
@allow(Role.VIEWER, action="address.check_many", body_limit=5 * MIB)
async def validate_emails(call: CurrentCall, body: AddressesBody) -> Response:
    """Check many addresses.

    At most 1000, 5 MiB. The DNS is asked about each domain once, for 20 s altogether.
    """
    if len(body.emails) > MOST_EMAILS:
        raise Refused(400, TOO_MANY)
    results = await _checked(call, body.emails, body.level)
    figures = checks.summary(results)
    shown = CheckedAddresses(
        total=figures.total, valid=figures.valid, invalid=figures.invalid, avg_score=figures.avg_score,
        risk_distribution=RiskDistribution.model_validate(figures.risk_distribution),
        disposable_count=figures.disposable_count, role_based_count=figures.role_based_count,
        results=[CheckedAddress.model_validate(one) for one in results],
    )  # fmt: skip
    return await _answer(call, shown, {"level": body.level, "emails": figures.total})


async def _checked(call: Call, emails: list[str], level: Level) -> list[Result]:
    known = await run_sync(domains.lists, call.settings)
    state = call.request.app.state
    if not hasattr(state, "mail_hosts"):
        state.mail_hosts = MailHosts(call.settings.dns_servers)
    return await checks.check_all(emails, level, known, state.mail_hosts)


async def _answer(call: Call, shown: Answer, log: dict[str, object]) -> Response:
    def effect(tx: Connection) -> Outcome:
        return Outcome(body=shown, changes=log)

    return await call.commit(effect)
