"""A/B tests among languages, windows, limits, caps and schedules: the rest waits for nothing but its decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib.campaigns import (
    experiment_control,
    experiments,
    explaining,
    finishing,
    launch,
    planning,
    preview,
    retrying,
    scheduling,
    single,
    store,
)
from mautolib.campaigns.experiment_model import AbStatus, AbTestType, NewAbTest, NewVariant
from mautolib.campaigns.explaining import Outcome
from mautolib.campaigns.schedules import NewSchedule, ScheduleType
from mautolib.errors import DomainError, InvalidInput
from mautolib.ledger.model import Result, Stage, Verdict
from mautolib.ledger.model import Status as MessageStatus
from mautolib.settings import Settings
from tests.integration.experimenting import SUBJECTS, again, armed, parts, planned, step
from tests.integration.mailing import NOW, add_campaign, add_contacts, null, rows, run_pump

LATER = timedelta(hours=4, minutes=1)


def speaking(engine: Engine, *languages: str) -> None:
    """Contacts speak these, in turn."""
    with engine.begin() as tx:
        tx.execute(text("update contacts set language = (cast(:tags as text[]))[1 + contact_id % :n]"),
                   {"tags": list(languages), "n": len(languages)})  # fmt: skip


def test_everybody_reads_a_variant_in_their_language(fresh_engine: Engine, settings: Settings) -> None:
    german = {"de": {"subject": "Hallo", "html_body": "<p>Hallo</p>", "preheader": "vor"}}
    variants = (
        NewVariant(name="A"), NewVariant(name="B", subject="Sale", locales={"DE": {"subject": "Ausverkauf"},
                                                                            "fr": {"subject": "Soldes"}}),
    )  # fmt: skip
    with fresh_engine.begin() as tx:
        add_contacts(tx, 200)
    speaking(fresh_engine, "en", "de_AT", "fr", "fr-CA")
    with fresh_engine.begin() as tx:
        campaign = add_campaign(tx, locales=german)
        test = armed(tx, settings, campaign.campaign_id, variants=variants, auto_select_winner=False,
            test_percentage=50,
        )  # fmt: skip
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    planning.plan_due(fresh_engine, settings, NOW)
    query = """
        select distinct ab_part, contacts.language, ab_variants.name, message_contents.subject, message_contents.locale,
            message_contents.html_body, message_contents.preheader
        from messages inner join message_contents using (content_id)
        inner join contacts on contacts.contact_id = messages.contact_id
        left join ab_variants on ab_variants.variant_id = messages.variant_id
        where ab_part = :part
    """
    hello, page = "Hello {{ contact.first_name }}", campaign.html_body
    says = {
        ("A", "en"): (hello, "", page, ""), ("A", "fr"): (hello, "", page, ""), ("A", "fr-CA"): (hello, "", page, ""),
        ("A", "de_AT"): ("Hallo", "de", "<p>Hallo</p>", "vor"),
        ("B", "en"): ("Sale", "", page, ""), ("B", "fr"): ("Soldes", "fr", page, ""),
        ("B", "fr-CA"): ("Soldes", "fr", page, ""), ("B", "de_AT"): ("Ausverkauf", "de", "<p>Hallo</p>", "vor"),
    }  # fmt: skip

    def seen(part: str) -> dict[tuple[str, str], tuple[str, ...]]:
        found = rows(fresh_engine, query, part=part)
        return {(row.name, row.language): (row.subject, row.locale, row.html_body, row.preheader) for row in found}

    assert seen("test") == says
    with fresh_engine.begin() as tx:
        # What the campaign says now is not what was frozen.
        tx.execute(text("update campaigns set subject = 'edited', html_body = '<p>edited</p>'"))
        tx.execute(text("update ab_variants set subject = 'edited'"))
        experiment_control.select_winner(tx, test.test_id, test.variants[1].variant_id, now=NOW)
    step(fresh_engine, settings)
    assert seen("rest") == {key: words for key, words in says.items() if key[0] == "B"}


def test_limits_hold_for_test_and_rest_together(fresh_engine: Engine, settings: Settings) -> None:
    test = planned(fresh_engine, settings, 100, campaign={"max_per_hour": 30}, test_percentage=50)
    sent, at = [], timedelta(0)
    while len(sent) < 12 and (not sent or sum(sent) < 100):
        sent.append(run_pump(fresh_engine, settings, later=at).counts.get("sent", 0))
        step(fresh_engine, settings, later=at + timedelta(minutes=1))
        at += timedelta(minutes=62)
    assert max(sent) == 30 and sum(sent) == 100
    assert again(fresh_engine, test).status is AbStatus.COMPLETED
    assert 0 in sent, "between test and decision nobody is mailed"


def test_the_rest_does_not_expire_while_it_waits_but_afterwards(fresh_engine: Engine, settings: Settings) -> None:
    test = planned(fresh_engine, settings, 60, campaign={"expires_after_hours": 1, "max_per_hour": 1000})
    waiting = parts(fresh_engine, test)["rest queued"]
    run_pump(fresh_engine, settings)
    step(fresh_engine, settings)
    assert run_pump(fresh_engine, settings, later=timedelta(hours=3)).counts == {}
    assert step(fresh_engine, settings, later=LATER).released == waiting
    assert run_pump(fresh_engine, settings, later=LATER + timedelta(minutes=61)).counts == {"skipped": waiting}
    assert parts(fresh_engine, test)["rest skipped expired Plain"] == waiting


def test_test_mail_that_expires_is_through(fresh_engine: Engine, settings: Settings) -> None:
    test = planned(fresh_engine, settings, 60, campaign={"expires_after_hours": 1})
    run_pump(fresh_engine, settings, later=timedelta(hours=2))
    step(fresh_engine, settings, later=timedelta(hours=2))
    test = again(fresh_engine, test)
    assert (test.last_handover_at, test.deadline_at) == (NOW, NOW + timedelta(hours=4)), "nothing was sent"


def test_an_edited_window_lets_nobody_out(fresh_engine: Engine, settings: Settings) -> None:
    test = planned(fresh_engine, settings, 60, campaign={"send_window": {"start": "08:00", "end": "20:00"}})
    before = parts(fresh_engine, test)
    with fresh_engine.begin() as tx:
        store.change(tx, test.campaign_id, {"send_window": {"start": "08:00", "end": "21:00"}}, now=NOW)
    run_pump(fresh_engine, settings)
    found = parts(fresh_engine, test)
    assert found["rest queued"] == before["rest queued"]
    assert found["test sent Plain"] == before["test queued Plain"]


def test_the_cap_is_asked_when_each_part_goes(fresh_engine: Engine, settings: Settings) -> None:
    capped = replace(settings, frequency_cap=1, frequency_cap_days=7)
    with fresh_engine.begin() as tx:
        people = add_contacts(tx, 40, prefix="earlier")
        tx.execute(text("""
            with words as (insert into message_contents (subject, html_body) values ('s', 'h') returning content_id)
            insert into messages (contact_id, kind, content_id, dedupe_key, status, due_at, next_try_at, give_up_at,
                sent_at, attempt_no)
            select contact_id, 'workflow', content_id, 'old:' || contact_id, 'sent', :at, :at, :at, :at, 1
            from words, contacts
        """), {"at": NOW - timedelta(days=7) + timedelta(hours=1)})  # fmt: skip
    test = planned(fresh_engine, capped, 0, test_percentage=50)
    found = parts(fresh_engine, test)
    waiting = found["rest queued"]
    assert sum(found.values()) == len(people) and set(found) == {"rest queued", "test queued Plain", "test queued Loud"}
    run_pump(fresh_engine, capped)
    assert set(parts(fresh_engine, test)) == {
        "rest queued", "test skipped frequency_cap Plain", "test skipped frequency_cap Loud",
    }  # fmt: skip
    step(fresh_engine, capped)
    assert step(fresh_engine, capped, later=LATER).released == waiting
    run_pump(fresh_engine, capped, later=LATER)
    assert parts(fresh_engine, test)["rest sent Plain"] == waiting


def test_where_each_clock_decides_the_rest_goes_at_its_hour(fresh_engine: Engine, settings: Settings) -> None:
    zones = ("Asia/Tokyo", "Europe/Berlin", "America/Los_Angeles")
    send_at = datetime(2026, 11, 25, 9, 0, tzinfo=NOW.tzinfo)
    with fresh_engine.begin() as tx:
        add_contacts(tx, 90)
        tx.execute(text("update contacts set timezone = (cast(:names as text[]))[1 + contact_id % 3]"),
                   {"names": list(zones)})  # fmt: skip
        campaign = add_campaign(tx, send_window={"local_time": True})
        test = armed(tx, settings, campaign.campaign_id, test_percentage=50)
        new = NewSchedule(campaign_id=campaign.campaign_id, send_at=send_at, timezone_name="UTC")
        scheduling.create(tx, new, actor="test", now=NOW)
    begins = send_at - timedelta(hours=14)
    (plan,) = planning.plan_due(fresh_engine, settings, begins)
    assert plan.problem is None
    times = "select distinct timezone, due_at from messages join contacts using (contact_id) where ab_part = :part"
    first = {"Asia/Tokyo": 0, "Europe/Berlin": 8, "America/Los_Angeles": 17}
    midnight = datetime(2026, 11, 25, 0, 0, tzinfo=NOW.tzinfo)
    expected = {zone: midnight + timedelta(hours=hour) for zone, hour in first.items()}
    assert {row.timezone: row.due_at for row in rows(fresh_engine, times, part="test")} == expected
    for hour in (0, 8, 17):
        run_pump(fresh_engine, settings, later=midnight + timedelta(hours=hour) - NOW)
    last = midnight + timedelta(hours=17)
    step(fresh_engine, settings, later=last - NOW)
    deadline = again(fresh_engine, test).deadline_at
    assert deadline is not None and timedelta(0) <= deadline - last - timedelta(hours=4) < timedelta(minutes=1)
    assert step(fresh_engine, settings, later=last + LATER - NOW).decided == 1
    next_day = {zone: moment + timedelta(days=1) for zone, moment in expected.items()}
    assert {row.timezone: row.due_at for row in rows(fresh_engine, times, part="rest")} == next_day


def test_test_mail_sent_again_puts_the_deadline_off(fresh_engine: Engine, settings: Settings) -> None:
    test = planned(fresh_engine, settings, 40, test_percentage=50)
    refused = Result(verdict=Verdict.FAILED, stage=Stage.DOT, code=554)
    run_pump(fresh_engine, settings, null(dict.fromkeys(range(1, 41), refused)))
    step(fresh_engine, settings)
    assert again(fresh_engine, test).deadline_at == NOW + timedelta(hours=4)
    later = timedelta(hours=3)
    with fresh_engine.begin() as tx:
        retrying.retry(tx, test.campaign_id, [MessageStatus.FAILED], now=NOW + later)
    step(fresh_engine, settings, later=LATER)
    assert (again(fresh_engine, test).deadline_at, again(fresh_engine, test).status) == (None, AbStatus.RUNNING)
    run_pump(fresh_engine, settings, later=LATER)
    step(fresh_engine, settings, later=LATER)
    deadline = again(fresh_engine, test).deadline_at
    assert deadline is not None and deadline >= NOW + LATER + timedelta(hours=4)


def test_a_draft_test_is_ignored(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 5)
        campaign = add_campaign(tx)
        new = NewAbTest(campaign_id=campaign.campaign_id, name="Later", variants=SUBJECTS)
        made = experiments.create(tx, settings, new, actor="test", now=NOW)
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    planning.plan_due(fresh_engine, settings, NOW)
    assert parts(fresh_engine, made) == {"none queued": 5}
    assert again(fresh_engine, made).planned_at is None


def scheduled(engine: Engine, settings: Settings, **changes: Any) -> tuple[int, int]:
    """A recurring schedule that names a test in draft: the numbers of campaign and test."""
    with engine.begin() as tx:
        add_contacts(tx, 40)
        campaign = add_campaign(tx)
        variants = changes.pop("variants", SUBJECTS)
        new = NewAbTest(campaign_id=campaign.campaign_id, name="First", variants=variants, auto_select_winner=False)
        test = experiments.create(tx, settings, new, actor="test", now=NOW)
        schedule = NewSchedule(
            campaign_id=campaign.campaign_id, send_at=NOW + timedelta(hours=1), schedule_type=ScheduleType.RECURRING,
            recurrence_rule={"interval": "daily"}, ab_test_id=test.test_id, **changes,
        )  # fmt: skip
        scheduling.create(tx, schedule, actor="test", now=NOW)
        return campaign.campaign_id, test.test_id


def test_a_schedule_arms_its_test_at_the_first_run_alone(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id, test_id = scheduled(fresh_engine, settings, auto_pick_winner=True, winner_wait_hours=2)
    begun = NOW + timedelta(hours=1)
    planning.plan_due(fresh_engine, settings, begun)
    with fresh_engine.begin() as tx:
        test = experiments.get(tx, test_id)
    assert (test.status, test.auto_select_winner, test.wait_hours, test.planned_occurrence) == (
        AbStatus.RUNNING, True, 2, 1
    )  # fmt: skip
    run_pump(fresh_engine, settings, later=timedelta(hours=1))
    step(fresh_engine, settings, later=timedelta(hours=1))
    waiting = parts(fresh_engine, test)["rest queued"]
    assert step(fresh_engine, settings, later=timedelta(hours=3, minutes=1)).released == waiting
    run_pump(fresh_engine, settings, later=timedelta(hours=3, minutes=2))
    assert finishing.finish(fresh_engine, NOW + LATER) == [campaign_id]
    planning.plan_due(fresh_engine, settings, begun + timedelta(days=1))
    second = rows(fresh_engine, "select distinct ab_part, status from messages where occurrence = 2")
    assert [tuple(row) for row in second] == [(None, "queued")]


def test_a_test_that_cannot_start_fails_its_schedule(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id, _ = scheduled(fresh_engine, settings, variants=(NewVariant(name="A"), NewVariant(name="B")))
    (plan,) = planning.plan_due(fresh_engine, settings, NOW + timedelta(hours=1))
    assert plan.problem is not None and "have the same subject" in plan.problem
    with fresh_engine.begin() as tx:
        assert store.get(tx, campaign_id).status_reason == plan.problem


def test_a_schedule_takes_only_a_test_of_its_campaign_that_is_ahead(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        one, other = add_campaign(tx), add_campaign(tx)
        test = armed(tx, settings, other.campaign_id)
        over = armed(tx, settings, one.campaign_id)
        experiment_control.cancel(tx, over.test_id, now=NOW)
    for test_id in (test.test_id, over.test_id, 999_999):
        new = NewSchedule(campaign_id=one.campaign_id, send_at=NOW + timedelta(hours=1), ab_test_id=test_id)
        with pytest.raises(InvalidInput) as refused, fresh_engine.begin() as tx:
            scheduling.create(tx, new, actor="test", now=NOW)
        assert refused.value.path == ("body", "ab_test_id")


def test_a_faulty_variant_is_said_before_launch(fresh_engine: Engine, settings: Settings) -> None:
    faulty = (NewVariant(name="Good"), NewVariant(name="Bad", html_body="<p>{{ nobody }}</p>"))
    with fresh_engine.begin() as tx:
        add_contacts(tx, 3)
        campaign = add_campaign(tx)
        armed(tx, settings, campaign.campaign_id, variants=faulty, test_type=AbTestType.CONTENT)
    with pytest.raises(InvalidInput) as refused, fresh_engine.begin() as tx:
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    ((path, message),) = refused.value.problems
    assert path[:2] == ("variants", 1) and message.startswith("Variant 'Bad': Undefined variable: nobody")


def test_a_look_before_knows_the_test(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        people = add_contacts(tx, 60)
        campaign = add_campaign(tx)
        test = armed(tx, settings, campaign.campaign_id, test_percentage=30, holdout_percentage=30)
        elsewhere = add_campaign(tx)
    loud = test.variants[1].variant_id
    found = preview.preview(fresh_engine, settings, campaign.campaign_id, now=NOW, variant_id=loud)
    assert found.rendered is not None and found.rendered.subject == "SALE"
    with fresh_engine.begin() as tx:
        (message_id,) = single.send_test(tx, settings, campaign, ["team@shop.example"], now=NOW, variant_id=loud)
    (sent,) = rows(fresh_engine, "select subject, messages.variant_id, ab_part from messages join message_contents"
                   " using (content_id) where message_id = :id", id=message_id)  # fmt: skip
    assert tuple(sent) == ("SALE {{ contact.first_name }}", loud, None)
    for wrong in (999_999, loud):
        with pytest.raises(InvalidInput, match="Variant not found"):
            preview.preview(fresh_engine, settings, elsewhere.campaign_id, now=NOW, variant_id=wrong)
    before = {one: explaining.explain(fresh_engine, settings, campaign.campaign_id, one, now=NOW) for one in people}
    with fresh_engine.begin() as tx:
        launch.request_send(tx, settings, campaign.campaign_id, now=NOW)
    planning.plan_due(fresh_engine, settings, NOW)
    made = {row.contact_id: row for row in rows(fresh_engine, "select * from messages where kind = 'campaign'")}
    assert found.counts.excluded == {"holdout": sum(row.ab_part == "holdout" for row in made.values())}
    said = {"test": {"gets variant 'Plain'", "gets variant 'Loud'"}, "rest": {"waits for the A/B test's decision"},
            "holdout": {"kept back to be compared with those who are mailed"}}  # fmt: skip
    for one, row in made.items():
        told = before[one]
        assert told.outcome is (Outcome.SKIPPED if row.ab_part == "holdout" else Outcome.WILL_SEND)
        assert {check.detail for check in told.checks if check.check == "ab_test"} <= said[row.ab_part]
        after = explaining.explain(fresh_engine, settings, campaign.campaign_id, one, now=NOW)
        reason = {"test": "due", "rest": "ab_test", "holdout": "holdout"}[row.ab_part]
        assert (after.reason, after.outcome) == (
            reason, Outcome.SKIPPED if row.ab_part == "holdout" else Outcome.QUEUED
        )  # fmt: skip
        if row.ab_part == "rest":
            assert after.checks[-1].detail.startswith("waits for the A/B test's decision")


def test_a_test_somebody_waits_for_is_not_deleted(fresh_engine: Engine, settings: Settings) -> None:
    test = planned(fresh_engine, settings, 20)
    with fresh_engine.begin() as tx:
        experiment_control.cancel(tx, test.test_id, now=NOW)
    with pytest.raises(DomainError, match="Cannot delete a running test"), fresh_engine.begin() as tx:
        experiments.remove(tx, test.test_id)
    step(fresh_engine, settings)
    with fresh_engine.begin() as tx:
        experiments.remove(tx, test.test_id)
