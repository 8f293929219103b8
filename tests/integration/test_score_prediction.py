"""Scores of a past day against what followed: counted by hand, without a look into the future."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.errors import InvalidInput
from mautolib.scoring import NewRule, recalculate_within, validate
from mautolib.scoring.prediction import predict
from mautolib.scoring.rules import create_rule
from mautolib.settings import Settings
from mautolib.statistics import wilson
from tests.builders import make_contact, make_event, make_order
from tests.unit.test_statistics import by_pairs

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NOW = AS_OF + 40 * DAY


def a_rule(tx: Connection, points: int = 10) -> None:
    create_rule(tx, NewRule(name="Form", event_type="form_submitted", points=points), actor="test", now=AS_OF)


def people_with_forms(tx: Connection, numbers: list[int]) -> list[int]:
    """A contact for each number, with that many forms 95 days before: 4 points and 10 for each form."""
    made = []
    for number in numbers:
        made.append(make_contact(tx, created_at=AS_OF - 100 * DAY))
        for _ in range(number):
            make_event(tx, made[-1], "form_submitted", AS_OF - 95 * DAY)
    return made


def found(tx: Connection, **options: Any) -> Any:
    return predict(tx, **{"as_of": AS_OF, "days": 30, "now": NOW, **options})


def test_lift_grades_and_area_by_hand(tx: Connection) -> None:
    a_rule(tx)
    forms = [0] * 50 + [2] * 30 + [9] * 20
    people = people_with_forms(tx, forms)
    buyers = [0, 1, 2, 3, 4, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, *range(80, 98)]
    for n in buyers:
        make_order(tx, people[n], AS_OF + (1 + n % 29) * DAY)
    result = found(tx)
    assert (result.contacts, result.outcomes, result.basis, result.outcome) == (100, 33, "recomputed", "order")
    assert [(band.name, band.contacts, band.outcomes, band.low, band.high) for band in result.bands] == [
        ("2", 20, 18, 94, 94), ("4", 30, 10, 24, 24), ("8", 50, 5, 4, 4)]  # fmt: skip
    assert [round(band.lift, 4) for band in result.bands] == [2.7273, 1.0101, 0.303]
    assert [(band.name, band.contacts, band.rate) for band in result.grades] == [("A+", 20, 0.9), ("F", 80, 15 / 80)]
    assert result.grades[1].interval == wilson(15, 80)
    area, error = by_pairs([forms[n] for n in buyers], [forms[n] for n in range(100) if n not in set(buyers)])
    assert (result.area.area, result.area.standard_error) == (pytest.approx(area), pytest.approx(error))
    assert result.verdict.startswith("Yes, a higher score means more. Of two contacts, one who ordered within 30 days")
    assert "2.7 times as often as everybody" in result.verdict


@pytest.mark.thorough
def test_tenths_of_many_different_scores_are_tenths(tx: Connection) -> None:
    a_rule(tx, points=1)
    people = people_with_forms(tx, list(range(60)))
    for n in range(30, 60):
        make_order(tx, people[n], AS_OF + DAY)
    bands = found(tx).bands
    assert [band.contacts for band in bands] == [6] * 10
    assert [band.name for band in bands] == [str(n) for n in range(1, 11)]
    assert [(bands[0].low, bands[0].high), (bands[9].low, bands[9].high)] == [(58, 63), (4, 9)]


def test_only_what_happened_within_the_days_counts(tx: Connection) -> None:
    a_rule(tx)
    one, other, third, nobody = people_with_forms(tx, [1, 1, 1, 1])
    make_order(tx, one, AS_OF)
    make_order(tx, other, AS_OF + 30 * DAY)
    make_order(tx, other, AS_OF + 2 * DAY)
    make_order(tx, third, AS_OF + 30 * DAY + timedelta(seconds=1))
    make_order(tx, 0, AS_OF + DAY)
    make_event(tx, nobody, "webinar_attended", AS_OF + DAY)
    assert found(tx).outcomes == 1
    assert found(tx, days=31).outcomes == 2
    assert found(tx, outcome="webinar_attended").outcomes == 1
    make_event(tx, one, "email_opened", AS_OF + DAY)
    assert found(tx, outcome="opened").outcomes == 1, "synonyms of types are understood"


def test_scores_know_nothing_of_what_came_later(tx: Connection) -> None:
    a_rule(tx)
    (one,) = people_with_forms(tx, [0])
    make_event(tx, one, "form_submitted", AS_OF + DAY)
    make_event(tx, one, "form_submitted", AS_OF - 95 * DAY, received_at=AS_OF + 5 * DAY)
    make_contact(tx, created_at=AS_OF + DAY)
    assert [(band.low, band.contacts) for band in found(tx).grades] == [(4, 1)]
    assert [band.low for band in found(tx, basis="history").grades] == [14], "imported history, on request"


def test_snapshots_are_taken_where_everybody_was_scored(tx: Connection) -> None:
    a_rule(tx)
    people_with_forms(tx, [1, 2, 3])
    recalculate_within(tx, as_of=AS_OF, bucket=0, buckets=2)
    assert found(tx).basis == "recomputed", "half a night is none"
    recalculate_within(tx, as_of=AS_OF, bucket=1, buckets=2)
    a_rule(tx, points=1)
    recalculate_within(tx, as_of=AS_OF, known_at=AS_OF, source="recomputed")
    asked = found(tx)
    assert (asked.basis, asked.rule_version, [band.low for band in asked.grades]) == ("snapshots", 2, [34, 14])
    newer = found(tx, basis="recomputed")
    assert (newer.rule_version, max(band.high for band in newer.grades)) == (3, 37)
    older = found(tx, rule_version=2)
    assert (older.basis, older.rule_version, max(band.high for band in older.grades)) == ("recomputed", 2, 34)


def test_too_little_data_says_so(tx: Connection) -> None:
    a_rule(tx)
    people = people_with_forms(tx, [1] * 20 + [0] * 100)
    for one in people[:29]:
        make_order(tx, one, AS_OF + DAY)
    short = found(tx)
    assert short.area is None
    assert short.verdict == ("Not enough data: 29 of 120 contacts ordered within 30 days; at least 30 who did and 30 "
                             "who did not are needed.")  # fmt: skip
    make_order(tx, people[29], AS_OF + DAY)
    assert found(tx).area is not None
    for one in people[:91]:
        make_order(tx, one, AS_OF + DAY)
    assert found(tx).area is None, "29 who did not"


def test_chance_and_a_turned_order_are_called_so(tx: Connection) -> None:
    a_rule(tx)
    numbers = [n % 7 for n in range(200)]
    people = people_with_forms(tx, numbers)
    for one in random.Random(4).sample(people, 90):
        make_event(tx, one, "joined_by_chance", AS_OF + DAY)
    for one, number in zip(people, numbers, strict=True):
        if number < 2:
            make_event(tx, one, "gave_up", AS_OF + DAY)
    chance = found(tx, outcome="joined_by_chance")
    assert chance.area.interval.low < 0.5 < chance.area.interval.high
    assert chance.verdict.startswith("Cannot be told from chance. Of two contacts, one who had joined_by_chance")
    assert found(tx, outcome="gave_up").verdict.startswith("No, on the contrary.")


def test_a_little_is_called_a_little(tx: Connection) -> None:
    a_rule(tx)
    people = people_with_forms(tx, [1] * 150 + [0] * 150)
    for one in [*people[:90], *people[150:220]]:
        make_order(tx, one, AS_OF + DAY)
    little = found(tx)
    assert 0.5 < little.area.interval.low < little.area.area < 0.6
    assert little.verdict.startswith("Yes, but only a little more. Of two contacts")


def test_an_empty_installation_has_an_answer(tx: Connection) -> None:
    nothing = found(tx)
    assert (nothing.contacts, nothing.bands, nothing.rule_version) == (0, (), None)
    assert nothing.verdict.startswith("Not enough data: 0 of 0 contacts ordered")
    assert "0 contacts, 0 with the outcome." in validate.report(nothing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"days": 0}, "1 to 366"), ({"days": 367}, "1 to 366"), ({"days": 41}, "not over"),
        ({"basis": "dreams"}, "none of auto"), ({"outcome": "score_changed"}, "cannot prove"),
        ({"rule_version": 99}, "99"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(tx: Connection, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        found(tx, **options)


def test_the_command_prints_tables_json_and_what_is_wrong(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fresh_engine.begin() as tx:
        a_rule(tx)
        people = people_with_forms(tx, [1] * 40 + [0] * 60)
        for one in people[:35]:
            make_order(tx, one, AS_OF + DAY)
    monkeypatch.setattr(Settings, "from_env", lambda: settings)
    assert validate.main(["--as-of", "2026-03-01", "--days", "20"]) == 0
    shown = capsys.readouterr().out
    assert "Scores as of 2026-03-01 00:00 UTC (recomputed, rule version 2) against 'order' in the 20 days" in shown
    assert "100 contacts, 35 with the outcome (35.00%)." in shown
    assert "AUC 0.9615" in shown and "(DeLong)" in shown
    assert shown.rstrip().endswith("2.5 times as often as everybody.")
    assert validate.main(["--as-of", "2026-03-01T00:00+00:00", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["outcomes"], told["as_of"], told["bands"][0]["outcomes"]) == (35, "2026-03-01T00:00:00+00:00", 35)
    assert told["verdict"].startswith("Yes")
    assert validate.main(["--days", "0"]) == 2
    assert capsys.readouterr().err == "not validated: days is 0; it takes 1 to 366\n"
    for wrong in ("yesterday", "2026-03-01T00:00"):
        with pytest.raises(SystemExit):
            validate.main(["--as-of", wrong])


def test_the_command_has_a_help() -> None:
    done = subprocess.run([sys.executable, "-m", "mautolib.scoring.validate", "--help"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert "--outcome TYPE" in done.stdout and "Does a higher score mean more later orders?" in done.stdout


def test_nothing_is_written(tx: Connection) -> None:
    a_rule(tx)
    people_with_forms(tx, [1])
    tx.execute(text("set transaction read only"))
    assert found(tx).contacts == 1
