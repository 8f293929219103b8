"""Planning: a campaign that is due becomes ledger rows, one per candidate, with its content frozen.

Promise: one transaction per campaign; planners may run in parallel and be killed at any moment, a campaign is
planned once. Who may not be mailed becomes a skipped row at once, with the reason. A scheduled campaign that has
become impossible fails and says why. Called by the sending DAG and the pump's command line; hands nothing over.
"""

from __future__ import annotations

import logging
import zoneinfo
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, select, update

from mautolib.campaigns import experiment_steps, experiments, paces, runs, schedules, store, totals
from mautolib.campaigns.audience import audience
from mautolib.campaigns.experiment_assignment import assigned
from mautolib.campaigns.experiment_contents import (
    armed_of,
    languages_of,
    longest,
    slices,
    slices_of,
    with_variant,
)
from mautolib.campaigns.experiment_model import AbTest
from mautolib.campaigns.languages import variant_for
from mautolib.campaigns.limits import default_zone, limits_of_all, window_for
from mautolib.campaigns.model import Campaign, Status
from mautolib.campaigns.readiness import Text, problems, texts_of
from mautolib.campaigns.schedules import Schedule
from mautolib.campaigns.walltime import UTC_ZONE, local_of, moment_of, zone_or
from mautolib.campaigns.windows import next_opening
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import MautoError
from mautolib.ledger import content, queue
from mautolib.ledger.model import NewContent
from mautolib.outbox import FactName, record
from mautolib.settings import Settings
from mautolib.templates.links import rewrite_links

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What planning a campaign did; `problem` if it could not be launched."""

    campaign_id: int
    queued: int = 0
    skipped: int = 0
    problem: str | None = None
    #: Runs of its schedule that were too late, and are listed there.
    missed: int = 0


@dataclass(frozen=True, kw_only=True)
class Audience:
    """What planning a campaign would do."""

    campaign_id: int
    candidates: int
    mailable: int


def plan_due(engine: Engine, settings: Settings, now: datetime, *, campaign_id: int | None = None) -> list[Plan]:
    """Plan every campaign that is due (or only one); returns what was done."""
    plans: list[Plan] = []
    if limits_of_all(settings, now).are_none:
        with engine.begin() as tx:
            tx.execute(statement("pacing.no_common_limit"))
    while True:
        with engine.begin() as tx:
            parameters = {"now": now, "campaign_id": campaign_id, "done": [plan.campaign_id for plan in plans]}
            found = tx.execute(statement("campaigns.next_to_plan"), parameters).scalar_one_or_none()
            if found is None:
                return plans
            plan = _plan(tx, settings, store.get(tx, found, for_update=True), now)
        plans.append(plan)
        if plan.missed and not plan.queued:
            _LOG.warning("campaign %s: %s runs of its schedule were missed", plan.campaign_id, plan.missed)
        elif plan.problem is None:
            _LOG.info("campaign %s planned: %s queued, %s skipped", plan.campaign_id, plan.queued, plan.skipped)
        else:
            _LOG.error("campaign %s cannot be launched: %s", plan.campaign_id, plan.problem)


def count_due(engine: Engine, settings: Settings, now: datetime, *, campaign_id: int | None = None) -> list[Audience]:
    """The audience of every campaign that is due, without planning anything."""
    with engine.begin() as tx:
        due = tx.execute(statement("campaigns.due_to_plan"), {"now": now, "campaign_id": campaign_id}).scalars().all()
        return [count_audience(tx, settings, store.get(tx, found), now=now) for found in due]


def count_audience(tx: Connection, settings: Settings, campaign: Campaign, *, now: datetime) -> Audience:
    """The audience `campaign` would have if it were planned now."""
    parts = slices_of(tx, campaign.campaign_id)
    people = audience(tx, settings, campaign, content_ids={"": 0}, now=now, slices=parts).subquery()
    counts = select(func.count(), func.count().filter(people.c.reason.is_(None))).select_from(people)
    candidates, mailable = tx.execute(counts).one()
    return Audience(campaign_id=campaign.campaign_id, candidates=candidates, mailable=mailable)


def _plan(tx: Connection, settings: Settings, campaign: Campaign, now: datetime) -> Plan:
    due = runs.begin(tx, campaign, now) if campaign.status is Status.SCHEDULED else None
    if due is not None and due.run_at is None:
        return Plan(campaign_id=campaign.campaign_id, missed=due.skipped)
    schedule = schedules.live_of(tx, campaign.campaign_id)
    if hindrance := _hindrance(tx, settings, campaign, schedule, now):
        return _fail(tx, campaign, hindrance, now)
    occurrence = campaign.occurrence + 1 if due is None else due.occurrence
    tested = armed_of(tx, campaign.campaign_id)
    due_at = (due and due.run_at) or campaign.requested_at or campaign.scheduled_at or now
    by_zone = timings(settings, campaign, schedule, due_at=due_at, now=now)
    expires_at = min((timing.give_up_at for timing in by_zone), default=due_at + _patience(campaign))
    last_try_at = max([now, due_at, *(timing.next_try_at for timing in by_zone)])
    if tested is not None:
        last_try_at += longest(tested)
    is_paced = paces.begin(tx, settings, campaign, schedule, expires_at=expires_at)
    _set(
        tx, campaign, now, status=Status.SENDING.value, occurrence=occurrence, requested_at=due_at, planned_at=now,
        started_at=campaign.started_at or now, is_paced=is_paced,
    )  # fmt: skip
    queued = queue.queue_audience(
        tx,
        _people(tx, settings, campaign, tested, occurrence, now=now, cap_at=last_try_at),
        campaign_id=campaign.campaign_id,
        occurrence=occurrence,
        due_at=due_at,
        give_up_at=due_at + _patience(campaign),
        by_zone=by_zone,
    )
    if tested is not None:
        experiments.put(tx, tested.test_id, now, planned_at=now, planned_occurrence=occurrence)
    totals.refresh_totals(tx, campaign.campaign_id, now)
    data = {
        "campaign_id": str(campaign.campaign_id), "name": campaign.name,
        "totals": {"recipients": queued.total, "skipped": sum(queued.skipped.values())},
    }  # fmt: skip
    record(tx, FactName.CAMPAIGN_SENT, data, occurred_at=now)
    return Plan(campaign_id=campaign.campaign_id, queued=queued.queued, skipped=sum(queued.skipped.values()))


def _hindrance(
    tx: Connection, settings: Settings, campaign: Campaign, schedule: Schedule | None, now: datetime
) -> str:
    """What keeps a run from being launched; its A/B test is armed before."""
    try:
        experiment_steps.arm(tx, settings, schedule, now)
    except MautoError as error:
        return f"The A/B test of its schedule cannot be started: {error}"
    return "; ".join(problem.message for problem in problems(tx, settings, campaign))


def _people(
    tx: Connection, settings: Settings, campaign: Campaign, tested: AbTest | None, occurrence: int, *,
    now: datetime, cap_at: datetime,
) -> Select[Any]:  # fmt: skip
    """The audience with its content frozen: that of every variant where the run takes part in a test."""
    if tested is None:
        content_ids = _frozen(tx, settings, campaign, occurrence)
        return audience(tx, settings, campaign, content_ids=content_ids, now=now, cap_at=cap_at)
    campaigns = [with_variant(campaign, variant) for variant in tested.variants]
    frozen = [
        _frozen(tx, settings, one, occurrence, variant.variant_id)
        for one, variant in zip(campaigns, tested.variants, strict=True)
    ]
    languages = languages_of(campaigns)
    by_number = [
        [own[variant_for(one.locales, tag) or ""] for tag in languages]
        for one, own in zip(campaigns, frozen, strict=True)
    ]
    numbers = {tag: number for number, tag in enumerate(languages)}
    parts = slices(tested)
    people = audience(tx, settings, campaign, content_ids=numbers, now=now, cap_at=cap_at, slices=parts)
    return assigned(people, parts, by_number)


def _frozen(
    tx: Connection, settings: Settings, campaign: Campaign, occurrence: int, variant_id: int | None = None
) -> dict[str, int]:
    """The content of each language, as a run sends it."""
    return {
        text.locale: content.freeze(
            tx, replace(content_of(settings, campaign, text, occurrence), variant_id=variant_id)
        )
        for text in texts_of(tx, campaign)
    }  # fmt: skip


def _fail(tx: Connection, campaign: Campaign, reason: str, now: datetime) -> Plan:
    runs.fail(tx, campaign.campaign_id, reason, now)
    _set(tx, campaign, now, status=Status.FAILED.value, status_reason=reason)
    tx.execute(statement("ab_sending.end_of_ended"), {"now": now})
    return Plan(campaign_id=campaign.campaign_id, problem=reason)


def timings(
    settings: Settings, campaign: Campaign, schedule: Schedule | None, *, due_at: datetime, now: datetime
) -> list[queue.Timing]:
    """The times of each time zone; empty if everybody has the same and the window closes for all at once."""
    window = window_for(settings, campaign, schedule_zone=schedule.timezone_name if schedule else None)
    if not window.is_by_contact:
        return []
    shown = None
    if window.local_time and schedule is not None:
        shown = local_of(due_at, zone_or(schedule.timezone_name, UTC_ZONE))
    default = default_zone(settings)
    found = []
    for name in ("", *sorted(zoneinfo.available_timezones())):
        zone = zone_or(name, default)
        due = due_at if shown is None else moment_of(shown, zone)
        since, give_up_at = max(due, now), due + _patience(campaign)
        opening = next_opening(window, zone, since)
        is_held = opening != since
        found.append(queue.Timing(
            timezone=name, due_at=due, give_up_at=give_up_at, held_for="window" if is_held else None,
            next_try_at=min(opening or give_up_at, give_up_at) if is_held else due,
        ))  # fmt: skip
    return found


def _patience(campaign: Campaign) -> timedelta:
    return timedelta(hours=campaign.expires_after_hours)


def content_of(settings: Settings, campaign: Campaign, text: Text, occurrence: int) -> NewContent:
    """What a run of `campaign` sends: its text with the settings of sender, links and tracking."""
    return NewContent(
        subject=text.subject,
        html_body=text.html_body,
        text_body=text.text_body,
        preheader=text.preheader,
        locale=text.locale,
        from_name=campaign.from_name or settings.default_from_name,
        from_email=campaign.from_email or settings.default_from_email,
        reply_to=campaign.reply_to,
        campaign_id=campaign.campaign_id,
        template_id=text.template_id,
        template_version=text.template_version,
        occurrence=occurrence,
        track_opens=campaign.track_opens,
        track_clicks=campaign.track_clicks,
        utm=campaign.utm,
        strict=text.strict,
        links=static_links(text.html_body),
    )


def static_links(html: str) -> tuple[str, ...]:
    """The http(s) links of a template by position, as they are counted when clicked."""
    found: list[str] = []

    def keep(url: str, position: int) -> str:
        found.append(url)
        return url

    rewrite_links(html, keep)
    return tuple(found)


def _set(tx: Connection, campaign: Campaign, now: datetime, **values: object) -> None:
    table = tables.campaigns
    tx.execute(
        update(table)
        .where(table.c.campaign_id == campaign.campaign_id)
        .values(**values, version=table.c.version + 1, updated_at=now)
    )
