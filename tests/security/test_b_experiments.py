"""Group B on A/B tests and the hold-out: who may decide, tell results or change who is held out, and what is seen.

No group of its own: an editor may send mail anyway; what remains is results made up from outside, a winner chosen by
who may not, mail parts that break a header, and drawing lots so as to win.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from mautolib.campaigns import holdout
from mautolib.campaigns.experiment_assignment import Slices, part_of, variant_of
from mautolib.db.engine import connect
from mautolib.ledger.model import AbPart
from mautolib.statistics import sample_ratio
from tests.api.test_ab_tests import TESTS, TWO, draft
from tests.builders import make_contact, make_order
from tests.integration.mailing import NOW
from tests.live_service import LiveService, as_role

#: What only figures and the decision may say.
MADE_UP: dict[str, Any] = {
    "id": "1", "status": "completed", "decision": "winner", "winner_variant_id": "1", "is_winner": True,
    "started_at": "2020-01-01T00:00:00Z", "planned_at": "2020-01-01T00:00:00Z", "version": 99, "created_by": "system",
    "deadline_at": "2020-01-01T00:00:00Z", "conversion_days": 3650, "total_sent": 1000, "total_opened": 1000,
    "total_conversions": 1000, "revenue": "1000000.00", "open_rate": 100.0, "is_control": True, "ab_part": "rest",
}  # fmt: skip


def test_b1_reading_results_is_all_a_viewer_may(
    editor: httpx.Client, viewer: httpx.Client, nobody: httpx.Client
) -> None:
    test = draft(editor)
    variant = test["variants"][0]["id"]
    for path, body in (("start", None), ("cancel", None), (f"select-winner?variant_id={variant}", None),
                       ("events", {"variant_id": variant, "event_type": "opened"})):  # fmt: skip
        assert viewer.post(f"{TESTS}{test['id']}/{path}", json=body).status_code == 403
        assert nobody.post(f"{TESTS}{test['id']}/{path}", json=body).status_code == 401
    assert nobody.get(f"{TESTS}{test['id']}/results").status_code == 401
    assert viewer.get(f"{TESTS}{test['id']}").json() == test, "nothing happened"


def test_b3_nobody_writes_figures_or_a_decision(editor: httpx.Client) -> None:
    variants = [{**each, **MADE_UP} for each in TWO]
    test = draft(editor, **{**MADE_UP, "variants": variants})
    plain = draft(editor)
    own = {"id", "campaign_id", "name", "created_at", "variants"}
    assert {k: v for k, v in test.items() if k not in own} == {k: v for k, v in plain.items() if k not in own}
    without = [{k: v for k, v in each.items() if k != "id"} for each in test["variants"]]
    assert without == [{k: v for k, v in each.items() if k != "id"} for each in plain["variants"]]
    assert editor.patch(f"{TESTS}{test['id']}", json=MADE_UP).json() == test
    body = {"variant_id": test["variants"][0]["id"], "event_type": "sent", "revenue": "9e9", "count": 1000,
            "observed_at": "2020-01-01T00:00:00Z", "conversions": 5}  # fmt: skip
    assert editor.post(f"{TESTS}{test['id']}/events", json=body).status_code == 200
    found = editor.get(f"{TESTS}{test['id']}/results").json()
    assert [(each["sent"], each["conversions"], each["revenue"]) for each in found["variants"]] == [
        (1, 0, "0.00"), (0, 0, "0.00")]  # fmt: skip


@pytest.mark.parametrize("event_type", ["converted", "ordered", "revenue", "delivered", "OPENED", "sent'; --", ""])
def test_b3_orders_and_revenue_are_never_told_from_outside(editor: httpx.Client, event_type: str) -> None:
    test = draft(editor)
    body = {"variant_id": test["variants"][1]["id"], "event_type": event_type, "value": "100.00"}
    assert editor.post(f"{TESTS}{test['id']}/events", json=body).status_code in (400, 422)


def test_b3_results_are_told_of_a_tests_own_variants(editor: httpx.Client) -> None:
    test, other = draft(editor), draft(editor)
    theirs = other["variants"][0]["id"]
    told = editor.post(f"{TESTS}{test['id']}/events", json={"variant_id": theirs, "event_type": "opened"})
    chosen = editor.post(f"{TESTS}{test['id']}/select-winner", params={"variant_id": theirs})
    assert (told.status_code, chosen.status_code) == (404, 404)
    assert editor.get(f"{TESTS}{other['id']}").json() == other


def test_b3_one_person_told_a_hundred_times_counts_once(service: LiveService, editor: httpx.Client) -> None:
    test = draft(editor)
    with service.engine.begin() as tx:
        person = make_contact(tx)
        make_order(tx, person, total="1000000")
    body = {"variant_id": test["variants"][1]["id"], "event_type": "clicked", "contact_id": str(person)}
    for _ in range(20):
        assert editor.post(f"{TESTS}{test['id']}/events", json=body).status_code == 200
    found = editor.get(f"{TESTS}{test['id']}/results").json()["variants"][1]
    assert (found["unique_clicks"], found["unique_opens"], found["conversions"], found["revenue"]) == (1, 1, 0, "0.00")


@pytest.mark.parametrize("subject", ["Sale\r\nBcc: all@shop.example", "Sale\nX: y", "Sale\x00", "Sale\u2028X"])
def test_e1_a_variant_breaks_no_header(editor: httpx.Client, subject: str) -> None:
    from tests.api.test_campaign_life import campaign

    for bad in ({"name": "B", "subject": subject}, {"name": "B", "locales": {"de": {"subject": subject}}}):
        body = {"campaign_id": campaign(editor)["id"], "name": "Test", "variants": [TWO[0], bad]}
        assert editor.post(TESTS, json=body).status_code == 422


def test_b1_results_and_views_name_nobody(service: LiveService, editor: httpx.Client, viewer: httpx.Client) -> None:
    test = draft(editor)
    with service.engine.begin() as tx:
        person = make_contact(tx, email="secret.person@shop.example", first_name="Zebedee")
        holdout.hold_out(tx, Decimal(50), by="test", now=NOW)
        salt = holdout.periods(tx)[-1].salt
    try:
        body = {"variant_id": test["variants"][0]["id"], "event_type": "opened", "contact_id": str(person)}
        editor.post(f"{TESTS}{test['id']}/events", json=body)
        views = "/api/v1/analytics/views"
        paths = [f"{TESTS}{test['id']}/results", TESTS, f"{views}/ab_test_results", f"{views}/holdout_contacts",
                 f"{views}/holdout_daily"]  # fmt: skip
        for path in paths:
            answer = viewer.get(path, params={"limit": 100})
            assert answer.status_code == 200, answer.text
            said = json.dumps(answer.json())
            assert not any(word in said for word in ("secret.person", "Zebedee", salt)), path
    finally:
        with service.engine.begin() as tx:
            tx.execute(text("delete from holdout_periods"))


@pytest.mark.parametrize("people", [range(1, 20_001), range(2, 40_001, 2), range(10**12, 10**12 + 20_000)],
                         ids=["one after another", "every second", "late"])  # fmt: skip
def test_b_whoever_picks_ids_picks_no_group(people: range) -> None:
    """Ids are given out one after another; neighbours, or every second of them, are spread like everybody else."""
    for test_id in (1, 2, 77):
        parts = Slices(test_id=test_id, variant_ids=(5, 6, 7), delays=(), test_percentage=50, holdout_percentage=10)
        mailed = [each for each in people if part_of(parts, each) is AbPart.TEST]
        counts = [sum(variant_of(parts, each) == variant for each in mailed) for variant in parts.variant_ids]
        assert not sample_ratio(counts).detected
        assert not sample_ratio([len(mailed), len(people) - len(mailed)]).detected
    drawn = [holdout.draw("00ff00ff00ff00ff", each) < holdout.DRAWS // 10 for each in people]
    assert not sample_ratio([sum(drawn), len(people) - sum(drawn)], [10, 90]).detected


def test_b_who_is_held_out_cannot_be_worked_out(tx: Connection) -> None:
    """The draw of a test is of numbers anybody could guess; that of the hold-out needs 64 random bits."""
    salts = set()
    for _ in range(5):
        made = holdout.hold_out(tx, Decimal(5), by="test", now=NOW, reshuffle=True)
        assert made is not None
        salts.add(made.salt)
    assert len(salts) == 5 and all(len(salt) == 16 for salt in salts)


@pytest.mark.parametrize("role", ["mauto_api", "mauto_worker", "mauto_tracker", "mauto_analyst", "mauto_segments"])
@pytest.mark.parametrize("statement", [
    "insert into public.holdout_periods (salt, percent, begun_at, changed_by) values ('x', 50, now(), 'me')",
    "update public.holdout_periods set ended_at = now()", "delete from public.holdout_periods",
    "truncate public.holdout_periods",
])  # fmt: skip
def test_b_only_the_owner_says_who_is_held_out(tx: Connection, role: str, statement: str) -> None:
    tx.execute(text(f"set local role {role}"))
    with pytest.raises(DBAPIError, match="permission denied"):
        tx.exec_driver_sql(statement)


def test_b_every_role_that_asks_gets_the_refusal(fresh_engine: Engine) -> None:
    """Segments are counted with fewer rights than mail is sent with; the hold-out is the same for both."""
    with fresh_engine.begin() as tx:
        people = [make_contact(tx) for _ in range(30)]
        period = holdout.hold_out(tx, Decimal(50), by="test", now=NOW)
    assert period is not None
    out = [each for each in people if holdout.draw(period.salt, each) < period.bound]
    for role in ("mauto_api", "mauto_worker", "mauto_segments"):
        with as_role(fresh_engine, role) as url:
            engine = connect(url)
            with engine.begin() as tx:
                query = "select contact_id from contact_mailability where refusal = 'global_holdout' order by 1"
                assert list(tx.scalars(text(query))) == out
            engine.dispose()


@pytest.mark.parametrize("salt", ["", "a:contact:1", "x\\000", "A", "x" * 65, "é", "a'b"])
def test_b_a_salt_cannot_forge_another_draw(tx: Connection, salt: str) -> None:
    with pytest.raises(DBAPIError, match="salt_is_1_to_64_plain_characters"):
        tx.execute(text("insert into holdout_periods (salt, percent, begun_at, changed_by)"
                        " values (:salt, 5, now(), 'x')"), {"salt": salt})  # fmt: skip
