"""What an A/B test changes in its campaign: whose words its variants have, in which languages, and who gets them when.

Promise: a variant is its campaign with what it gives in the campaign's place, language by language; what it does not
give is the campaign's. Callers: planning, readiness, preview and test mails, explain, the release of those who waited.
It decides nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from mautolib.campaigns import experiments
from mautolib.campaigns.experiment_assignment import Slices
from mautolib.campaigns.experiment_model import AbTest, AbTestType, AbVariant
from mautolib.campaigns.model import Campaign
from mautolib.db import tables
from mautolib.errors import InvalidInput

_REPLACED: Final = ("subject", "preheader", "html_body", "text_body")


def armed_of(tx: Connection, campaign_id: int) -> AbTest | None:
    """The test the next run of a campaign takes part in; None: it has none. Whoever plans has locked the campaign."""
    found = experiments.running_of(tx, campaign_id)
    return None if found is None or found.planned_at is not None else found


def slices_of(tx: Connection, campaign_id: int) -> Slices | None:
    """How the next run of a campaign divides its audience; None: it takes part in no test."""
    found = armed_of(tx, campaign_id)
    return None if found is None else slices(found)


def slices(test: AbTest) -> Slices:
    """How a test divides an audience."""
    return Slices(
        test_id=test.test_id, variant_ids=tuple(each.variant_id for each in test.variants),
        delays=tuple(delay_of(test, each) for each in test.variants), test_percentage=test.test_percentage,
        holdout_percentage=test.holdout_percentage,
    )  # fmt: skip


def delay_of(test: AbTest, variant: AbVariant) -> timedelta:
    """How much later than the campaign a variant is due: only tests of send times shift anything."""
    return timedelta(minutes=variant.send_delay_minutes if test.test_type is AbTestType.SEND_TIME else 0)


def longest(test: AbTest) -> timedelta:
    """How long after a run is due its decision can be expected."""
    return max(delay_of(test, each) for each in test.variants) + timedelta(hours=test.wait_hours)


def variant_of(tx: Connection, campaign_id: int, variant_id: int) -> AbVariant:
    """A variant of any test of a campaign.

    Raises:
        InvalidInput: there is none.
    """
    variants, tests = tables.ab_variants.c, tables.ab_tests.c
    query = (
        select(tests.test_id)
        .join_from(tables.ab_tests, tables.ab_variants, tests.test_id == variants.test_id)
        .where(variants.variant_id == variant_id, tests.campaign_id == campaign_id)
    )
    test_id = tx.scalar(query)
    found = None if test_id is None else experiments.get(tx, test_id).variant(variant_id)
    if found is None:
        raise InvalidInput("Variant not found", path=("variant_id",))
    return found


def with_variant(campaign: Campaign, variant: AbVariant) -> Campaign:
    """The campaign in the words of one of its variants."""
    words = {name: getattr(campaign, name) for name in _REPLACED}
    words = _replaced(words, {"subject": variant.subject, "html_body": variant.html_body})
    known = {tag.lower(): tag for tag in campaign.locales}
    locales = dict(campaign.locales)
    for tag, given in variant.locales.items():
        spelled = known.get(tag.lower(), tag)
        # A language the campaign does not have says by default what the variant says elsewhere.
        locales[spelled] = _replaced(campaign.locales.get(spelled) or words, given)
    return dataclasses.replace(campaign, **words, locales=locales)


def languages_of(campaigns: Sequence[Campaign]) -> list[str]:
    """The languages some campaigns have between them, each once; "" for the default content comes first."""
    found = {"": ""}
    for campaign in campaigns:
        for tag in campaign.locales:
            found.setdefault(tag.lower(), tag)
    return list(found.values())


def _replaced(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in given.items() if name in _REPLACED and value}
    if "html_body" in values:
        # The text part is made from the HTML: that of other HTML would say something else.
        values.setdefault("text_body", "")
    return {**before, **values}
