"""Why one person gets a campaign, or does not: the same questions in the same order as planning and the claim ask them.

Promise: what is said here is what planning and sending would do at this moment; a property test compares both. Where
the ledger has a row, the row speaks; only what is still open is judged. Called by the API; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, literal_column, select

from mautolib.campaigns import experiments, limits, store
from mautolib.campaigns.audience import audience
from mautolib.campaigns.experiment_assignment import part_of, variant_of
from mautolib.campaigns.experiment_contents import armed_of, slices
from mautolib.campaigns.experiment_model import AbTest
from mautolib.campaigns.limits import Check
from mautolib.campaigns.model import Campaign, Status
from mautolib.campaigns.readiness import problems
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound
from mautolib.ledger import reading as ledger
from mautolib.ledger.model import HELD_FOR_DECISION, AbPart, Kind, Skip
from mautolib.ledger.model import Status as MessageStatus
from mautolib.segments.reading import reading
from mautolib.settings import Settings


class Outcome(StrEnum):
    """What becomes of one person in one campaign."""

    WILL_SEND = "will_send"
    QUEUED = "queued"
    HANDED_OVER = "handed_over"
    SKIPPED = "skipped"
    NOT_IN_AUDIENCE = "not_in_audience"


#: States in which the audience is still ahead.
_AHEAD = frozenset({Status.DRAFT, Status.SCHEDULED, Status.SENDING, Status.PAUSED})
_WAITS = "waits for the A/B test's decision"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The outcome for one contact, the first reason for it, and every question that was asked."""

    contact_id: int
    outcome: Outcome
    reason: str
    checks: tuple[Check, ...]
    message: ledger.Message | None = None


def explain(
    engine: Engine, settings: Settings, campaign_id: int, contact_id: int, *, now: datetime
) -> Explanation:
    """What becomes of `contact_id` in the campaign, as things stand.

    Raises:
        NotFound: there is no such campaign or contact.
        InvalidInput: its segment takes too long to evaluate.
    """
    with engine.begin() as tx:
        campaign = store.get(tx, campaign_id)
        people = tables.contacts.c.contact_id
        if tx.scalar(select(people).where(people == contact_id)) is None:
            raise NotFound("Contact not found")
        message = _message(tx, campaign, contact_id)
        if message is not None:
            return _of_message(tx, settings, campaign, contact_id, message, now)
        if campaign.planned_at is not None or campaign.status not in _AHEAD:
            return _left_out(campaign, contact_id)
        found = problems(tx, settings, campaign)
        pace = limits.explain(tx, settings, campaign, contact_id, now=now)
        tested = armed_of(tx, campaign_id)
    faults = "; ".join(problem.message for problem in found)
    checks = [
        Check(check="campaign", passed=True, detail=f"{campaign.status.value}; its audience is not frozen yet"),
        Check(check="content", passed=not found, detail=faults or "it can be sent"),
    ]
    with reading(engine, path=("path", "id")) as segment_tx:
        return _ahead(segment_tx, settings, campaign, contact_id, checks, pace, tested, now)


def _ahead(
    tx: Connection, settings: Settings, campaign: Campaign, contact_id: int, checks: list[Check],
    pace: Sequence[Check], tested: AbTest | None, now: datetime,
) -> Explanation:  # fmt: skip
    """The audience is still to be frozen: its query, asked for one person."""
    numbers = {tag: number for number, tag in enumerate(("", *campaign.locales))}
    try:
        parts = None if tested is None else slices(tested)
        query = audience(tx, settings, campaign, content_ids=numbers, now=now, slices=parts)
    except (NotFound, InvalidInput):
        row = None
    else:
        row = tx.execute(query.where(literal_column("contact_mailability.contact_id") == contact_id)).one_or_none()
    whom = "all contacts" if campaign.segment_id is None else f"segment {campaign.segment_id}"
    checks.append(Check(check="audience", passed=row is not None, detail=whom))
    if row is None:
        return Explanation(
            contact_id=contact_id, outcome=Outcome.NOT_IN_AUDIENCE, reason="not_in_segment", checks=tuple(checks)
        )
    checks.append(_mailable(row.reason))
    if tested is not None and row.reason in (None, Skip.HOLDOUT):
        checks.append(_in_test(tested, contact_id))
    checks += pace
    refusal = "not_sendable" if not checks[1].passed else row.reason or _capped(pace)
    return Explanation(
        contact_id=contact_id, outcome=Outcome.WILL_SEND if refusal is None else Outcome.SKIPPED,
        reason=refusal or campaign.status.value, checks=tuple(checks),
    )  # fmt: skip


def _left_out(campaign: Campaign, contact_id: int) -> Explanation:
    frozen = campaign.planned_at is not None
    detail = "never frozen"
    if campaign.planned_at is not None:
        detail = f"frozen at {_shown(campaign.planned_at)} without this contact"
    checks = (
        Check(check="campaign", passed=campaign.status in _AHEAD, detail=campaign.status.value),
        Check(check="audience", passed=False, detail=detail),
    )
    reason = "not_in_audience_at_launch" if frozen else f"campaign_{campaign.status.value}"
    return Explanation(contact_id=contact_id, outcome=Outcome.NOT_IN_AUDIENCE, reason=reason, checks=checks)


def _of_message(
    tx: Connection, settings: Settings, campaign: Campaign, contact_id: int, message: ledger.Message, now: datetime
) -> Explanation:
    """The ledger has a row: what it says, and for one that waits what the claim would do."""
    checks = [
        Check(check="campaign", passed=campaign.status not in (Status.CANCELLED, Status.FAILED),
              detail=campaign.status.value),
        Check(check="audience", passed=True, detail=f"in the audience of run {message.occurrence}"),
    ]  # fmt: skip
    if message.status is MessageStatus.SKIPPED:
        checks.append(_mailable(message.reason))
        outcome, reason = Outcome.SKIPPED, message.reason or ""
    elif message.status is not MessageStatus.QUEUED:
        said = " ".join(str(part) for part in (message.last_code, message.last_error) if part is not None)
        checks.append(Check(check="handed_over", passed=message.sent_at is not None, detail=said or message.status))
        outcome, reason = Outcome.HANDED_OVER, message.status.value
    else:
        outcome, reason = _waiting(tx, settings, campaign, message, checks, now)
    return Explanation(contact_id=contact_id, outcome=outcome, reason=reason, checks=tuple(checks), message=message)


def _waiting(
    tx: Connection, settings: Settings, campaign: Campaign, message: ledger.Message, checks: list[Check],
    now: datetime,
) -> tuple[Outcome, str]:  # fmt: skip
    parameters = {
        "message_id": message.message_id, "contact_id": message.contact_id, "now": now,
        "require_consent": settings.require_consent,
    }  # fmt: skip
    row = tx.execute(statement("ledger.waiting"), parameters).one()
    if row.held_for == HELD_FOR_DECISION:
        return _undecided(tx, campaign, row.refusal, checks)
    checks += [
        Check(check="not_expired", passed=not row.is_late, detail=f"given up at {_shown(row.give_up_at)}"),
        _mailable(row.refusal),
    ]
    pace = limits.explain(tx, settings, campaign, message.contact_id or 0, now=now)
    checks += pace
    refusal = Skip.EXPIRED.value if row.is_late else row.refusal or _capped(pace)
    if refusal is not None:
        return Outcome.SKIPPED, refusal
    is_due = row.next_try_at <= now
    held = f" ({row.held_for})" if row.held_for else ""
    checks += [
        Check(check="sending", passed=campaign.status is Status.SENDING, detail=campaign.status.value),
        Check(check="due", passed=is_due, detail=f"next look at {_shown(row.next_try_at)}{held}"),
    ]
    if campaign.status is not Status.SENDING:
        return Outcome.QUEUED, campaign.status.value
    return Outcome.QUEUED, "due" if is_due else row.held_for or "waiting"


def _in_test(tested: AbTest, contact_id: int) -> Check:
    """What an A/B test does with somebody who may be mailed, before the audience is frozen."""
    parts = slices(tested)
    part = part_of(parts, contact_id)
    said = {AbPart.HOLDOUT: "kept back to be compared with those who are mailed", AbPart.REST: _WAITS}
    if part is AbPart.TEST:
        variant = tested.variant(variant_of(parts, contact_id)) or tested.control
        said[part] = f"gets variant '{variant.name}'"
    return Check(check="ab_test", passed=part is AbPart.TEST, detail=said[part])


def _undecided(
    tx: Connection, campaign: Campaign, refusal: str | None, checks: list[Check]
) -> tuple[Outcome, str]:  # fmt: skip
    """Nobody can tell yet when this goes: what else stands against it is asked when it may."""
    test = experiments.running_of(tx, campaign.campaign_id)
    until = "" if test is None or test.deadline_at is None else f"; its deadline is {_shown(test.deadline_at)}"
    checks += [
        _mailable(refusal),
        Check(check="sending", passed=campaign.status is Status.SENDING, detail=campaign.status.value),
        Check(check="ab_test", passed=False, detail=f"{_WAITS}{until}"),
    ]
    if refusal is not None:
        return Outcome.SKIPPED, refusal
    return Outcome.QUEUED, campaign.status.value if campaign.status is not Status.SENDING else HELD_FOR_DECISION


def _capped(pace: Sequence[Check]) -> str | None:
    is_full = any(check.check == Skip.FREQUENCY_CAP and not check.passed for check in pace)
    return Skip.FREQUENCY_CAP.value if is_full else None


def _mailable(reason: str | None) -> Check:
    return Check(check="mailable", passed=reason is None, detail=reason or "nothing stands against it")


def _message(tx: Connection, campaign: Campaign, contact_id: int) -> ledger.Message | None:
    if campaign.planned_at is None:
        return None
    wanted = ledger.MessageFilter(
        contact_id=contact_id, campaign_id=campaign.campaign_id, kind=Kind.CAMPAIGN, occurrence=campaign.occurrence
    )
    return next(iter(ledger.messages(tx, wanted, limit=1)), None)


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
