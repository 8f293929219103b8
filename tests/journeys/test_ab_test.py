"""An A/B test from end to end: real runs of `campaign_send`, a real mail server, and a clock that is moved on."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib.campaigns import experiments, launch, store
from mautolib.campaigns.experiment_assignment import part_of, variant_of
from mautolib.campaigns.experiment_contents import slices
from mautolib.campaigns.experiment_control import start
from mautolib.campaigns.experiment_model import AbStatus, NewAbTest, NewVariant
from mautolib.campaigns.model import NewCampaign, Status
from mautolib.ledger import check
from mautolib.ledger.model import AbPart
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from tests.integration.experimenting import observe
from tests.integration.mailing import add_contacts

PEOPLE = 600
VARIANTS = (NewVariant(name="Plain"), NewVariant(name="Loud", subject="SALE"))


def received(sink: MailSink) -> dict[str, list[str]]:
    """The subjects of everybody's mail."""
    found: dict[str, list[str]] = {}
    if sink.log_path.exists():
        for line in sink.log_path.read_text(encoding="utf-8").splitlines():
            mail = json.loads(line)
            found.setdefault(mail["rcpt"][0], []).append(mail["subject"])
    return found


def test_a_test_is_mailed_decided_and_its_winner_goes_to_the_rest(
    run_dag: Any, fresh_engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_engine.begin() as tx:
        people = add_contacts(tx, PEOPLE)
        new = NewCampaign(name="Autumn", subject="Hello", html_body="<p>Hello {{ contact.first_name }}</p>")
        campaign = store.create(tx, new, actor="test", now=datetime.now(UTC))
        wanted = NewAbTest(
            campaign_id=campaign.campaign_id, name="Subjects", variants=VARIANTS, test_percentage=45,
            holdout_percentage=10,
        )  # fmt: skip
        draft = experiments.create(tx, settings, wanted, actor="test", now=datetime.now(UTC))
        test = start(tx, settings, draft.test_id, now=datetime.now(UTC))
        launch.request_send(tx, settings, campaign.campaign_id, now=datetime.now(UTC))
    how = slices(test)
    kinds = {f"person{n}@mail.example": part_of(how, one) for n, one in enumerate(people, start=1)}
    names = {each.variant_id: each.subject or "Hello" for each in test.variants}
    expected = {
        f"person{n}@mail.example": [names[variant_of(how, one)]]
        for n, one in enumerate(people, start=1) if part_of(how, one) is AbPart.TEST
    }  # fmt: skip
    with MailSink(tmp_path / "sink") as sink:
        for name, value in (("SMTP_PORT", str(sink.smtp_port)), ("SMTP_SECURITY", "none"),
                            ("PUBLIC_BASE_URL", "http://127.0.0.1:8000")):  # fmt: skip
            monkeypatch.setenv(f"MAUTO_{name}", value)
        assert run_dag("campaign_send").state == "success"
        assert received(sink) == expected, "the test slice, each with its variant"
        assert state_of(fresh_engine, test.test_id) == (Status.SENDING, AbStatus.RUNNING)
        observe(fresh_engine, test, 1, opened=100)
        assert run_dag("campaign_send").state == "success"
        assert received(sink) == expected, "the deadline is not over"
        with fresh_engine.begin() as tx:
            tx.execute(text("update ab_tests set last_handover_at = last_handover_at - interval '4 hours', "
                            "deadline_at = deadline_at - interval '4 hours'"))  # fmt: skip
        assert run_dag("campaign_send").state == "success"
        assert state_of(fresh_engine, test.test_id) == (Status.SENDING, AbStatus.COMPLETED)
        assert received(sink) == expected, "this run decided, the next one sends"
        assert run_dag("campaign_send").state == "success"
        expected |= {one: ["SALE"] for one, part in kinds.items() if part is AbPart.REST}
        assert received(sink) == expected, "everybody else but the hold-outs has the winner, nobody anything twice"
        assert state_of(fresh_engine, test.test_id) == (Status.SENT, AbStatus.COMPLETED)
        with fresh_engine.begin() as tx:
            assert check.check(tx, check.read_sink_log(tmp_path / "sink")) == []
            done = experiments.get(tx, test.test_id)
    assert (done.decision, done.winner_variant_id) == ("winner", test.variants[1].variant_id)
    count = Counter(kinds.values())
    with fresh_engine.connect() as tx:
        query = "select recipients, sent, skipped, in_flight from campaign_totals"
        held_out = count[AbPart.HOLDOUT]
        assert tuple(tx.execute(text(query)).one()) == (PEOPLE, PEOPLE - held_out, held_out, 0)


def state_of(engine: Engine, test_id: int) -> tuple[Status, AbStatus]:
    with engine.begin() as tx:
        test = experiments.get(tx, test_id)
        return store.get(tx, test.campaign_id).status, test.status
