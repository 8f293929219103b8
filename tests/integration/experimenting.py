"""A/B tests for tests of sending."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from mautolib.campaigns import experiment_steps, experiments, launch, planning
from mautolib.campaigns.experiment_model import AbStatus, AbTest, NewAbTest, NewVariant
from mautolib.campaigns.experiment_steps import Steps
from mautolib.settings import Settings
from tests.integration.mailing import NOW, add_campaign, add_contacts, rows

SUBJECTS = (NewVariant(name="Plain"), NewVariant(name="Loud", subject="SALE {{ contact.first_name }}"))


def armed(
    tx: Connection, settings: Settings, campaign_id: int, *, variants: tuple[NewVariant, ...] = SUBJECTS,
    now: datetime = NOW, **changes: Any,
) -> AbTest:  # fmt: skip
    """A test that is started; its mail goes when the campaign is sent."""
    new = NewAbTest(campaign_id=campaign_id, name="Which one", variants=variants, **changes)
    made = experiments.create(tx, settings, new, actor="test", now=now)
    return experiments.put(tx, made.test_id, now, status=AbStatus.RUNNING.value, started_at=now)


def planned(
    engine: Engine, settings: Settings, count: int, *, now: datetime = NOW, campaign: dict[str, Any] | None = None,
    variants: tuple[NewVariant, ...] = SUBJECTS, **changes: Any,
) -> AbTest:  # fmt: skip
    """A campaign to `count` contacts with a test, requested and planned."""
    with engine.begin() as tx:
        add_contacts(tx, count)
        made = add_campaign(tx, **(campaign or {}))
        test = armed(tx, settings, made.campaign_id, variants=variants, **changes)
        launch.request_send(tx, settings, made.campaign_id, now=now)
    (plan,) = planning.plan_due(engine, settings, now)
    assert plan.problem is None
    return again(engine, test)


def again(engine: Engine, test: AbTest) -> AbTest:
    """The test as it is now."""
    with engine.begin() as tx:
        return experiments.get(tx, test.test_id)


def step(engine: Engine, settings: Settings, *, later: timedelta = timedelta(0), **more: Any) -> Steps:
    return experiment_steps.step(engine, settings, NOW + later, **more)


def parts(engine: Engine, test: AbTest) -> dict[str, int]:
    """How many messages of its run are in each part, state and variant (by its name)."""
    query = """
        select concat_ws(' ', coalesce(ab_part, 'none'), status, reason, ab_variants.name) as what, count(*) as n
        from messages left join ab_variants on ab_variants.variant_id = messages.variant_id
        where campaign_id = :id and kind = 'campaign' group by 1
    """
    return {row.what: row.n for row in rows(engine, query, id=test.campaign_id)}


def observe(engine: Engine, test: AbTest, position: int, opened: int) -> None:
    """People of the test slice who open the variant at `position`: as the tracker and its verdicts tell."""
    with engine.begin() as tx:
        tx.execute(
            text("""
                with opened as (
                    insert into hits (occurred_at, kind, contact_id, campaign_id, message_id)
                    select sent_at + interval '1 minute', 'open', contact_id, campaign_id, message_id
                    from messages
                    where variant_id = :variant and ab_part = 'test' and sent_at is not null
                    order by contact_id limit :opened
                    returning hit_id
                )
                insert into hit_verdicts (hit_id, rule_version, verdict) select hit_id, 1, 'human' from opened
            """),
            {"variant": test.variants[position].variant_id, "opened": opened},
        )
