"""Keeping A/B tests: create, read, list, change and delete them, and write down what became of them.

Promise: a campaign has at most one running test; a test is edited only as a draft and deleted only when it does not
run; whoever changes one locks its campaign first, then the test. Callers: `experiment_control`, the sending of tests,
the API. It counts nothing and decides nothing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from mautolib.campaigns import store
from mautolib.campaigns.deciding import Decision, Metric
from mautolib.campaigns.experiment_model import (
    CHANGEABLE,
    AbStatus,
    AbTest,
    AbTestType,
    AbVariant,
    NewAbTest,
    NoWinnerAction,
)
from mautolib.campaigns.model import EDITABLE
from mautolib.db import tables
from mautolib.errors import DomainError, NotFound
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_TESTS, _VARIANTS = tables.ab_tests, tables.ab_variants
MISSING: Final = "A/B test not found"
_MOST_DAYS: Final = 3650
_FIELDS: Final = tuple(item.name for item in dataclasses.fields(AbTest) if item.name != "variants")
_WORDS: Final[Mapping[str, Any]] = {
    "test_type": AbTestType, "status": AbStatus, "winner_metric": Metric, "no_winner_action": NoWinnerAction,
    "decision": Decision,
}  # fmt: skip


def create(tx: Connection, settings: Settings, new: NewAbTest, *, actor: str, now: datetime) -> AbTest:
    """Make a draft; the first variant is the control.

    Raises:
        NotFound: there is no such campaign.
        DomainError: the campaign is no longer in draft or scheduled status.
    """
    campaign = store.get(tx, new.campaign_id, for_update=True)
    if campaign.status not in EDITABLE:
        raise DomainError("Campaign must be in draft or scheduled status", code="invalid_state")
    values = {item.name: getattr(new, item.name) for item in dataclasses.fields(new) if item.name != "variants"}
    values |= {"created_by": actor, "created_at": now, "conversion_days": conversion_days(settings)}
    test_id = tx.execute(insert(_TESTS).values(**values).returning(_TESTS.c.test_id)).scalar_one()
    rows = [
        {"test_id": test_id, "position": position, **dataclasses.asdict(variant)}
        for position, variant in enumerate(new.variants)
    ]
    if rows:
        tx.execute(insert(_VARIANTS), rows)
    _LOG.info("A/B test %s of campaign %s created", test_id, new.campaign_id)
    return get(tx, test_id)


def conversion_days(settings: Settings) -> int:
    """The days in which an order counts, as a test keeps them from when it is armed: settings may change under way."""
    return min(settings.attribution_click_days, _MOST_DAYS)


def get(tx: Connection, test_id: int) -> AbTest:
    """The test with its variants.

    Raises:
        NotFound: there is none.
    """
    found = _read(tx, select(_TESTS).where(_TESTS.c.test_id == test_id))
    if not found:
        raise NotFound(MISSING)
    return found[0]


def lock(tx: Connection, test_id: int) -> AbTest:
    """The test; nobody else changes it or its campaign until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    campaign_id = tx.scalar(select(_TESTS.c.campaign_id).where(_TESTS.c.test_id == test_id))
    if campaign_id is None:
        raise NotFound(MISSING)
    try:
        store.get(tx, campaign_id, for_update=True)
    except NotFound:
        # Deleted meanwhile, and the test with it.
        raise NotFound(MISSING) from None
    found = _read(tx, select(_TESTS).where(_TESTS.c.test_id == test_id).with_for_update())
    if not found:
        raise NotFound(MISSING)
    return found[0]


def running_of(tx: Connection, campaign_id: int) -> AbTest | None:
    """The running test of a campaign."""
    query = select(_TESTS).where(_TESTS.c.campaign_id == campaign_id, _TESTS.c.status == AbStatus.RUNNING.value)
    return next(iter(_read(tx, query)), None)


def list_tests(
    tx: Connection, *, campaign_id: int | None = None, status: AbStatus | None = None, skip: int = 0, limit: int = 50,
    before: int | None = None,
) -> list[AbTest]:  # fmt: skip
    """Tests, newest first; with `before` those older than that id."""
    query = _filtered(select(_TESTS), campaign_id, status).order_by(_TESTS.c.test_id.desc()).offset(skip).limit(limit)
    return _read(tx, query if before is None else query.where(_TESTS.c.test_id < before))


def count(tx: Connection, *, campaign_id: int | None = None, status: AbStatus | None = None) -> int:
    """How many tests there are."""
    return int(tx.scalar(_filtered(select(func.count()).select_from(_TESTS), campaign_id, status)) or 0)


def change(tx: Connection, test_id: int, changes: Mapping[str, Any], *, now: datetime) -> AbTest:
    """Change fields of a draft.

    Args:
        changes: fields in `CHANGEABLE` with checked values.
    Raises:
        NotFound: there is none.
        DomainError: it is no draft.
    """
    unknown = changes.keys() - CHANGEABLE
    if unknown:
        raise ValueError(f"not to be changed: {sorted(unknown)}")
    before = lock(tx, test_id)
    if before.status is not AbStatus.DRAFT:
        raise DomainError("Can only update A/B tests in draft status", code="invalid_state")
    wanted = {name: value for name, value in changes.items() if getattr(before, name) != value}
    return put(tx, test_id, now, **wanted) if wanted else before


def remove(tx: Connection, test_id: int) -> None:
    """Delete a test; messages keep the numbers of its variants.

    Raises:
        NotFound: there is none.
        DomainError: it is running.
    """
    test = lock(tx, test_id)
    # While somebody still waits to be given what was decided it runs, too.
    if test.status is AbStatus.RUNNING or (test.planned_at is not None and test.released_at is None):
        raise DomainError("Cannot delete a running test", code="invalid_state")
    tx.execute(delete(_TESTS).where(_TESTS.c.test_id == test_id))
    _LOG.info("A/B test %s deleted", test_id)


def put(tx: Connection, test_id: int, now: datetime, **values: Any) -> AbTest:
    """Write columns of a test the caller has locked."""
    tx.execute(
        update(_TESTS)
        .where(_TESTS.c.test_id == test_id)
        .values(**values, version=_TESTS.c.version + 1, updated_at=now)
    )
    return get(tx, test_id)


def _filtered(query: Select[Any], campaign_id: int | None, status: AbStatus | None) -> Select[Any]:
    if campaign_id is not None:
        query = query.where(_TESTS.c.campaign_id == campaign_id)
    return query if status is None else query.where(_TESTS.c.status == status.value)


def _read(tx: Connection, query: Select[Any]) -> list[AbTest]:
    rows = tx.execute(query).mappings().all()
    variants = _variants_of(tx, [row["test_id"] for row in rows])
    found = []
    for row in rows:
        values = {name: row[name] for name in _FIELDS}
        values |= {name: word(values[name]) for name, word in _WORDS.items() if values[name] is not None}
        found.append(AbTest(**values, variants=tuple(variants.get(row["test_id"], ()))))
    return found


def _variants_of(tx: Connection, test_ids: Iterable[int]) -> dict[int, list[AbVariant]]:
    query = select(_VARIANTS).where(_VARIANTS.c.test_id.in_(list(test_ids)))
    found: dict[int, list[AbVariant]] = {}
    for row in tx.execute(query.order_by(_VARIANTS.c.test_id, _VARIANTS.c.position)).mappings():
        values = {item.name: row[item.name] for item in dataclasses.fields(AbVariant)}
        found.setdefault(row["test_id"], []).append(AbVariant(**values))
    return found
