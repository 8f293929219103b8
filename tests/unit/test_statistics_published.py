"""Every statistic of the library against published values: as printed, and to 1e-9 where all digits are known."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from mautolib import statistics as s
from mautolib.statistics import Moments
from tests.published_statistics import FILE, close, computed, pair_figures

ROWS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))

#: K. Hillstrom (2008), The MineThatData e-mail analytics and data mining challenge: recipients, visits, conversions,
#: and the sum and sum of squares of their spend in dollars, by the mail they got.
MENS = (21307, 3894, 267, Moments(n=21307, total=Decimal("30311.69"), squares=Decimal("6759024.4973")))
WOMENS = (21387, 3238, 189, Moments(n=21387, total=Decimal("23038.11"), squares=Decimal("4911446.5763")))
NONE = (21306, 2262, 122, Moments(n=21306, total=Decimal("13908.33"), squares=Decimal("2870050.3621")))
ARMS = (MENS, WOMENS, NONE)
PAIRS = ((MENS, NONE), (WOMENS, NONE), (MENS, WOMENS))


def listed(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['group']}: {row['name']} {row['input']}"[:70])
def test_a_published_value(row: dict[str, Any]) -> None:
    found, wanted = computed(row), listed(row["published"])
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=row["tolerance"], rel=0), row["source"]
    if "exact" in row:
        assert close(found, listed(row["exact"])), (found, row["exact"])


def test_all_of_them_are_there() -> None:
    assert len(ROWS) == 59
    assert all(len(row["source"]) > 10 for row in ROWS)


def test_visits_of_hillstrom() -> None:
    found = pair_figures(MENS[1], MENS[0], NONE[1], NONE[0])
    for name, wanted in {
        "diff": [0.07658956365153125], "relative_lift": [0.721404616781399], "z_pooled": [22.48604082719282],
        "p_z_pooled": [5.685165482802317e-112], "chi2": [505.6220320821824], "p_fisher": [5.43735902795221e-113],
        "ci95_newcombe": [0.06995330808373154, 0.08322674127411137],
        "wilson95_1": [0.17762499082168498, 0.18800306163588704],
        "rr_ci95": [1.6403848884800003, 1.806425964714953],
    }.items():  # fmt: skip
        assert close(found[name], wanted), (name, found[name])


@pytest.mark.parametrize(
    ("at", "omnibus", "p_values", "adjusted"),
    [
        (1, 2.869178384267155e-110, [5.685165482802317e-112, 3.1824031593349214e-44, 3.802165220636663e-18],
         [1.705549644840695e-111, 6.364806318669843e-44, 3.802165220636663e-18]),
        (2, 1.0020031529493264e-12, [1.5232235005955427e-13, 0.00015710512910668448, 0.0002051537746568838],
         [4.569670501786629e-13, 0.00031421025821336897, 0.00031421025821336897]),
    ],
)  # fmt: skip
def test_three_mails_of_hillstrom(at: int, omnibus: float, p_values: list[float], adjusted: list[float]) -> None:
    table = [[arm[at] for arm in ARMS], [arm[0] - arm[at] for arm in ARMS]]
    assert close([s.chi_square(table).p_value], [omnibus])
    found = [s.z_test(one[at], one[0], other[at], other[0]).p_value for one, other in PAIRS]
    assert close(found, p_values)
    assert close(s.holm(found), adjusted)


def test_spend_of_hillstrom() -> None:
    found = [s.welch(one[3], other[3]) for one, other in PAIRS]
    assert close([each.statistic for each in found], [5.300140358411669, 3.256371576025392, 2.1640178817618563])
    assert close([each.df for each in found], [36671.15797736051, 40064.88440653067, 41584.58848320839])
    p_values = [each.p_value for each in found]
    assert close(p_values, [1.163814968225482e-07, 0.0011293971023632495, 0.03046865118529923])
    assert close([found[0].interval.low, found[0].interval.high], [0.4851397325684076, 1.0545145792206658])
    assert close(s.holm(p_values), [3.491444904676446e-07, 0.002258794204726499, 0.03046865118529923])
    assert close(s.benjamini_hochberg(p_values), [3.491444904676446e-07, 0.001694095653544874, 0.03046865118529923])
    everybody = s.analysis_of_variance([arm[3] for arm in ARMS])
    assert close([everybody.statistic, everybody.p_value], [14.016821611592883, 8.201713951512879e-07])


def test_hillstrom_was_split_evenly() -> None:
    found = s.sample_ratio([arm[0] for arm in ARMS])
    assert close([found.chi2, found.p_value], [0.20253125, 0.9036929575604196])
    assert not found.detected and found.expected == (64000 / 3,) * 3 and sum(found.observed) == 64000
