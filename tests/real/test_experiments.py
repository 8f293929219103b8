"""Statistics of A/B tests on real experiments: golden values, Hillstrom's mails, Upworthy's headlines."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mautolib import statistics as s
from mautolib.analytics.incrementality import Arm, Verdict, measure
from mautolib.campaigns.deciding import Counts, Decision, Metric, Results, decide
from mautolib.statistics import Moments, Pairs, Variance
from tests.published_statistics import close, computed, pair_figures

NOW = datetime(2026, 5, 2, tzinfo=UTC)
#: Not in the library: with continuity correction, G, odds ratios, Bayesian, ranks, z with unpooled variance.
NOT_OURS = {
    "z_unpooled", "p_z_unpooled", "chi2_yates", "p_chi2_yates", "g_stat", "p_g", "odds_ratio", "or_ci95",
    "bayes_prob_1_beats_2_uniform_prior", "mannwhitney_p",
}  # fmt: skip
#: Their golden values are themselves integrated numerically, to some six digits.
ROUGH = {"peeking false-positive rate", "group sequential"}


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def listed(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


@pytest.fixture(scope="module")
def golden(data: Path) -> Any:
    return json.loads((data / "golden" / "hillstrom.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def arms(data: Path) -> dict[str, Counts]:
    """The mails of Hillstrom, counted from the rows."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows_of(data / "hillstrom.csv.gz"):
        arm = found.setdefault(row["segment"], {"n": 0, "visits": 0, "bought": 0, "spend": Decimal(0), "squares": 0})
        spend = Decimal(row["spend"])
        arm["n"] += 1
        arm["visits"] += int(row["visit"])
        arm["bought"] += int(row["conversion"])
        arm["spend"] += spend
        arm["squares"] += spend * spend
    return {
        name: Counts(
            variant_id=name, name=name, assigned=arm["n"], attempted=arm["n"], sent=arm["n"], delivered=arm["n"],
            unique_opens=arm["visits"], unique_clicks=arm["visits"], conversions=arm["bought"], revenue=arm["spend"],
            revenue_squares=arm["squares"],
        )
        for name, arm in found.items()
    }  # fmt: skip


def spend_of(arm: Counts) -> Moments:
    return Moments(n=arm.sent, total=arm.revenue, squares=arm.revenue_squares)


def test_every_golden_value(data: Path) -> None:
    file = json.loads((data / "golden" / "ab_vectors.json").read_text(encoding="utf-8"))
    assert len(file["vectors"]) == 59
    for row in file["vectors"]:
        relative = 2e-5 if row["group"] in ROUGH else 1e-9
        assert close(computed(row), listed(row["computed"]), relative=relative), row
    for rates, sizes in file["extra"]["sample_size_formulas"].items():
        rate, other = (Decimal(each) for each in rates.split("->"))
        for name, variance in (("unpooled", Variance.UNPOOLED), ("pooled", Variance.POOLED),
                               ("evan_miller", Variance.BASELINE)):  # fmt: skip
            found = s.sample_size(float(rate), float(other - rate), variance=variance)
            assert close([found], [sizes[name]]), (rates, name)


def test_the_arms_of_hillstrom(arms: dict[str, Counts], golden: Any) -> None:
    for name, wanted in golden["arms"].items():
        arm, spend = arms[name], spend_of(arms[name])
        assert (arm.sent, arm.unique_opens, arm.conversions) == (wanted["n"], wanted["visits"], wanted["conversions"])
        assert float(arm.revenue) == wanted["spend_total"]
        assert close([spend.mean, spend.variance**0.5], [wanted["spend_mean"], wanted["spend_sd"]])
    found = s.sample_ratio([each.sent for each in arms.values()])
    assert close([found.chi2, found.p_value], [golden["srm_equal_split"]["chi2"], golden["srm_equal_split"]["p"]])


def test_the_pairs_of_hillstrom(arms: dict[str, Counts], golden: Any) -> None:
    seen: set[str] = set()
    for pair, wanted in golden["tests"].items():
        one, other = (arms[name] for name in pair.split(" vs "))
        for metric, of in (("visit", "unique_opens"), ("conversion", "conversions")):
            found = pair_figures(getattr(one, of), one.sent, getattr(other, of), other.sent)
            for name, value in wanted[metric].items():
                if name in found:
                    assert close(found[name], listed(value)), (pair, metric, name)
            seen |= wanted[metric].keys() - found.keys()
        means = s.welch(spend_of(one), spend_of(other))
        spend = wanted["spend"]
        assert close([means.difference, means.statistic, means.df, means.p_value, means.interval.low,
                      means.interval.high],
                     [spend["diff"], spend["t"], spend["df"], spend["p"], *spend["ci95"]]), pair  # fmt: skip
        seen |= spend.keys() - {"diff", "t", "df", "p", "ci95", "mean1", "mean2"}
    assert seen - {"k1", "n1", "k2", "n2", "p1", "p2"} == NOT_OURS


@pytest.mark.parametrize(
    ("metric", "what"),
    [(Metric.OPEN_RATE, "visit"), (Metric.CONVERSION_RATE, "conversion"), (Metric.REVENUE_PER_RECIPIENT, "spend")],
)
def test_the_decision_on_hillstrom(arms: dict[str, Counts], golden: Any, metric: Metric, what: str) -> None:
    names = ["No E-Mail", "Womens E-Mail", "Mens E-Mail"]
    found = decide([arms[name] for name in names], metric, as_of=NOW, deadline_at=NOW)
    assert (found.decision, found.winner_variant_id) == (Decision.WINNER, "Mens E-Mail")
    assert found.omnibus_p_value is not None and close([found.omnibus_p_value], [golden[f"omnibus_{what}"]["p"]])
    several = golden[f"multiple_{what}"]
    by_pair = {f"{each.variant_id} vs {each.other_variant_id}": each for each in found.comparisons}
    for at, pair in enumerate(several["order"]):
        p_value, adjusted = by_pair[pair].p_value, by_pair[pair].p_adjusted
        assert p_value is not None and adjusted is not None
        assert close([p_value, adjusted], [several["p"][at], several["holm"][at]]), pair
    for name, correct in (("bonferroni", s.bonferroni), ("benjamini_hochberg", s.benjamini_hochberg)):
        assert close(correct(several["p"]), several[name])


def test_what_was_spent_before_says_little_of_what_hillstrom_measured(data: Path) -> None:
    """CUPED helps only as far as the past tells of the future: here it does not, and it does no harm."""
    sums: dict[str, list[Decimal]] = {}
    for row in rows_of(data / "hillstrom.csv.gz"):
        y, x = Decimal(row["spend"]), Decimal(row["history"])
        before = sums.setdefault(row["segment"], [Decimal(0)] * 6)
        sums[row["segment"]] = [one + new for one, new in zip(before, (1, y, y * y, x, x * x, x * y), strict=True)]
    mens, none = (
        Pairs(n=int(n), y=y, yy=yy, x=x, xx=xx, xy=xy)
        for n, y, yy, x, xx, xy in (sums[name] for name in ("Mens E-Mail", "No E-Mail"))
    )
    found = s.cuped(mens, none)
    print(f"theta {found.theta:.6f}, reduction {found.reduction:.6f}, {found.test.interval}")
    assert 0 < found.reduction < 0.01
    assert found.test.difference == pytest.approx(0.77, abs=0.01)


def test_the_hold_out_report_on_hillstrom(data: Path, golden: Any) -> None:
    """Its "No E-Mail" arm is a hold-out: mailed and not mailed, two to one, as the golden file compares the arms."""
    for name in ("Mens E-Mail", "Womens E-Mail"):
        groups: dict[bool, list[tuple[Decimal, Decimal, int]]] = {True: [], False: []}
        for row in rows_of(data / "hillstrom.csv.gz"):
            if row["segment"] in (name, "No E-Mail"):
                values = (Decimal(row["spend"]), Decimal(row["history"]), int(row["conversion"]))
                groups[row["segment"] == name].append(values)
        arms = {
            is_mailed: Arm(contacts=len(rows), customers=sum(row[2] for row in rows), orders=0, pairs=Pairs(
                n=len(rows), y=sum(y for y, _, _ in rows), yy=sum(y * y for y, _, _ in rows),
                x=sum(x for _, x, _ in rows), xx=sum(x * x for _, x, _ in rows), xy=sum(x * y for y, x, _ in rows)))
            for is_mailed, rows in groups.items()
        }  # fmt: skip
        found = measure(arms[True], arms[False], shares=(1, 1), from_at=NOW, to_at=NOW, percent=Decimal(50),
                        before=(NOW, NOW))  # fmt: skip
        assert found.verdict is Verdict.MEASURED and found.srm is not None and found.srm.p_value > 0.5
        assert found.revenue is not None and found.conversion is not None and found.adjusted is not None
        wanted = golden["tests"][f"{name} vs No E-Mail"]
        spend, bought = wanted["spend"], wanted["conversion"]
        assert close([found.revenue.difference, found.revenue.p_value, found.revenue.low, found.revenue.high],
                     [spend["diff"], spend["p"], *spend["ci95"]])  # fmt: skip
        effect = found.conversion
        assert effect.lift is not None
        assert close([effect.difference / 100, effect.low / 100, effect.high / 100, effect.p_value, effect.lift],
                     [bought["diff"], *bought["ci95_newcombe"], bought["p_z_pooled"], bought["relative_lift"]])
        assert found.total == found.adjusted.difference * arms[True].contacts
        assert abs(found.adjusted.difference - found.revenue.difference) < 0.01


def alarms(data: Path) -> dict[str, list[Results]]:
    """What is decided of each headline test at its end, by week."""
    tests: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(data / "upworthy_dev.csv.gz"):
        tests.setdefault(row["clickability_test_id"], []).append(row)
    found: dict[str, list[Results]] = {}
    for rows in tests.values():
        variants = [
            Counts(variant_id=str(at), name=row["headline"], assigned=0, attempted=0, sent=int(row["impressions"]),
                   delivered=0, unique_opens=0, unique_clicks=int(row["clicks"]))
            for at, row in enumerate(rows)
        ]  # fmt: skip
        results = decide(variants, Metric.CLICK_RATE, as_of=NOW, deadline_at=NOW)
        found.setdefault(rows[0]["test_week"], []).append(results)
    return found


def test_the_sample_ratio_check_finds_the_broken_weeks_of_upworthy(data: Path) -> None:
    """Assignment was broken from 25 June 2013 to 10 January 2014 (J. N. Matias et al., 2024, Scientific Data 11).

    By ISO weeks these are 26 of 2013 to 2 of 2014. The file counts weeks from Sundays, so that its week 25 of 2013
    is broken too and its week 2 of 2014 is not: by its own weeks the check tells both apart even better.
    """
    by_week = alarms(data)
    assert sum(map(len, by_week.values())) == 2491

    def shares(first: str, last: str) -> list[tuple[int, int]]:
        inside = [each.srm for week, tests in by_week.items() for each in tests if first <= week <= last]
        outside = [each.srm for week, tests in by_week.items() for each in tests if not first <= week <= last]
        return [(sum(each.p_value < 0.0005 for each in lot), len(lot)) for lot in (inside, outside)]

    assert shares("201326", "201402") == [(343, 530), (23, 1961)]  # 64.7 % and 1.2 %
    assert shares("201325", "201401") == [(360, 537), (6, 1954)]  # 67.0 % and 0.3 %
    decided = [each for tests in by_week.values() for each in tests]
    assert all((each.decision is Decision.SRM_DETECTED) == (each.srm.p_value < 0.001) for each in decided)
    print({decision.value: sum(each.decision is decision for each in decided) for decision in Decision})
