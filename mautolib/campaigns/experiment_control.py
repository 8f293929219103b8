"""Starting, ending and feeding A/B tests: arm one, give it up, choose its winner, tell what was seen elsewhere.

Promise: every verb locks the campaign, then the test, so that of two at a time one finds what the other did; each fact
is told once. Whoever waits for a decision is released by the sender, which the database wakes. Callers: the API, the
automatic decision (`complete`), schedules that arm a test.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from itertools import combinations
from typing import Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from mautolib.campaigns import experiment_contents, experiments, store
from mautolib.campaigns.deciding import Decision, Results
from mautolib.campaigns.experiment_model import AbStatus, AbTest, AbTestType, AbVariant, Observed, require
from mautolib.campaigns.experiment_results import evaluate
from mautolib.campaigns.languages import variant_for
from mautolib.campaigns.model import EDITABLE
from mautolib.campaigns.readiness import Text, texts_of
from mautolib.db import tables
from mautolib.errors import Conflict, DomainError, InvalidInput, InvalidTransition, NotFound
from mautolib.outbox import FactName, record
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
NO_VARIANT: Final = "Variant not found"
_FEWEST: Final = 2


def start(tx: Connection, settings: Settings, test_id: int, *, now: datetime) -> AbTest:
    """Arm a draft: the next sending of its campaign takes part in it.

    Raises:
        NotFound: there is none.
        DomainError: it is no draft, or has fewer than two variants.
        Conflict: its campaign is sending already or was sent, or another test of it is running.
        InvalidInput: two variants are equal in what is tested.
    """
    test = experiments.lock(tx, test_id)
    if test.status is not AbStatus.DRAFT:
        raise DomainError(f"Cannot start test in '{test.status.value}' status", code="invalid_state")
    if len(test.variants) < _FEWEST:
        raise DomainError("Need at least 2 variants to start a test", code="invalid_state")
    campaign = store.get(tx, test.campaign_id)
    if campaign.status not in EDITABLE:
        raise InvalidTransition(f"Cannot start a test of a campaign in '{campaign.status.value}' status")
    if experiments.running_of(tx, test.campaign_id) is not None:
        raise Conflict("Another test of this campaign is running")
    _refuse_equal(tx, test)
    started = experiments.put(
        tx, test_id, now, status=AbStatus.RUNNING.value, started_at=now,
        conversion_days=experiments.conversion_days(settings),
    )  # fmt: skip
    _tell(tx, FactName.AB_TEST_STARTED, started, now)
    _LOG.info("A/B test %s of campaign %s started", test_id, test.campaign_id)
    return started


def cancel(tx: Connection, test_id: int, *, now: datetime) -> AbTest:
    """Give up a test that is not over; who waited for its decision gets the control.

    Raises:
        NotFound: there is none.
        InvalidTransition: it is completed or cancelled.
    """
    test = experiments.lock(tx, test_id)
    require(test.status, AbStatus.CANCELLED, "cancel a test")
    _LOG.info("A/B test %s cancelled", test_id)
    return experiments.put(tx, test_id, now, status=AbStatus.CANCELLED.value, completed_at=now)


def select_winner(tx: Connection, test_id: int, variant_id: int | None, *, now: datetime) -> AbTest:
    """Complete a test by hand: with a variant of one's choice, or with the winner the figures name.

    Raises:
        NotFound: there is no such test, or it has no such variant.
        DomainError: `Test already completed`.
        InvalidTransition: it was cancelled.
        Conflict: no variant is given and the figures name none; the code is their decision.
    """
    test = experiments.lock(tx, test_id)
    if variant_id is not None and test.variant(variant_id) is None:
        raise NotFound(NO_VARIANT)
    if test.status is AbStatus.COMPLETED:
        raise DomainError("Test already completed", code="invalid_state")
    require(test.status, AbStatus.COMPLETED, "select the winner of a test")
    found = evaluate(tx, test, now=now)
    if variant_id is None:
        if found.winner_variant_id is None:
            raise Conflict(found.reason, code=found.decision.value)
        return complete(tx, test, found, now=now)
    return complete(tx, test, found, chosen=test.variant(variant_id), now=now)


def complete(
    tx: Connection, test: AbTest, found: Results, *, now: datetime, chosen: AbVariant | None = None
) -> AbTest:
    """End a test the caller has locked, with what its figures say, and tell of it.

    Args:
        chosen: the winner whatever the figures say; None: theirs, if they name one.
    """
    winner_id = None if found.winner_variant_id is None else int(found.winner_variant_id)
    reason = found.reason
    if chosen is not None and chosen.variant_id != winner_id:
        winner_id, reason = chosen.variant_id, f"{chosen.name} was chosen by hand; the figures said: {found.reason}"
    completed = experiments.put(
        tx, test.test_id, now, status=AbStatus.COMPLETED.value, completed_at=now, winner_variant_id=winner_id,
        decision=found.decision.value, decision_reason=reason,
    )  # fmt: skip
    _tell(tx, FactName.AB_TEST_COMPLETED, completed, now)
    if winner_id is not None:
        _tell(tx, FactName.AB_TEST_WINNER_SELECTED, completed, now)
    _LOG.info("A/B test %s completed: %s, winner %s", test.test_id, found.decision.value, winner_id)
    return completed


def observe(
    tx: Connection, test_id: int, variant_id: int | None, event_type: str, *, now: datetime,
    contact_id: int | None = None,
) -> AbVariant:  # fmt: skip
    """Add a result that was seen elsewhere; returns the variant.

    Args:
        contact_id: who it was: counts once per variant and type. None: somebody nobody names, counted every time.
    Raises:
        NotFound: there is no such test, or it has no such variant.
        DomainError: `Unknown event type: ...`.
        InvalidInput: there is no such contact.
    """
    test = experiments.get(tx, test_id)
    variant = None if variant_id is None else test.variant(variant_id)
    if variant is None:
        raise NotFound(NO_VARIANT)
    if event_type not in {each.value for each in Observed}:
        raise DomainError(f"Unknown event type: {event_type}")
    # Neither goes between this look and our commit.
    held = select(tables.ab_variants.c.variant_id).where(tables.ab_variants.c.variant_id == variant.variant_id)
    if tx.scalar(held.with_for_update(read=True, key_share=True)) is None:
        raise NotFound(experiments.MISSING)
    people = tables.contacts.c.contact_id
    if contact_id is not None:
        known = select(people).where(people == contact_id).with_for_update(read=True, key_share=True)
        if tx.scalar(known) is None:
            raise InvalidInput("Contact not found", path=("body", "contact_id"))
    values = {"variant_id": variant.variant_id, "event_type": event_type, "contact_id": contact_id, "observed_at": now}
    tx.execute(insert(tables.ab_test_observations).values(**values).on_conflict_do_nothing())
    return variant


def _refuse_equal(tx: Connection, test: AbTest) -> None:
    """Refuse variants that are equal in what is tested, as their recipients would see them.

    A subject test compares subject and preheader, a content test the bodies, in every language one of both has; a test
    of send times the delays.
    """
    offers = _offers(tx, test)
    for one, other in combinations(range(len(test.variants)), 2):
        if _alike(offers[one], offers[other]):
            names = " and ".join(f"'{test.variants[each].name}'" for each in (one, other))
            what = test.test_type.value.replace("_", " ")
            message = f"Variants {one + 1} and {other + 1} ({names}) have the same {what}: nothing to compare"
            raise InvalidInput(message, path=("variants", other), code="variants_equal")


def _offers(tx: Connection, test: AbTest) -> list[Mapping[str, Any]]:
    if test.test_type is AbTestType.SEND_TIME:
        return [{"": each.send_delay_minutes} for each in test.variants]
    campaign = store.get(tx, test.campaign_id)
    is_subject = test.test_type is AbTestType.SUBJECT

    def offered(text: Text) -> tuple[str, str]:
        return (text.subject, text.preheader) if is_subject else (text.html_body, text.text_body)

    return [
        {text.locale: offered(text) for text in texts_of(tx, experiment_contents.with_variant(campaign, variant))}
        for variant in test.variants
    ]


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[variant_for(one, tag) or ""] == other[variant_for(other, tag) or ""] for tag in (*one, *other))


def _tell(tx: Connection, name: FactName, test: AbTest, now: datetime) -> None:
    winner = None if test.winner_variant_id is None else str(test.winner_variant_id)
    decision = None if test.decision is None else Decision(test.decision).value
    data = {"test_id": str(test.test_id), "decision": decision, "variant_id": winner}
    record(tx, name, data, occurred_at=now)
