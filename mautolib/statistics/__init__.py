"""Statistics with their sources: intervals, tests and their corrections, looks at a running test, lift, power.

Pure functions over counts and sums; they know nothing of contacts, campaigns or the database. docs/statistics.md tells
which one is used where. Each is in the file of its theme, imported from here.
"""

from mautolib.statistics.corrections import benjamini_hochberg, bonferroni, holm
from mautolib.statistics.customer_value import OrderValues, Purchases, Unfit, Why, fit_order_values, fit_purchases
from mautolib.statistics.discrimination import Area, area_under_curve
from mautolib.statistics.intervals import Interval, clopper_pearson, newcombe, wald, wald_difference, wilson
from mautolib.statistics.lift import Adjusted, Lift, Pairs, cuped, lift_of_means, lift_of_rates
from mautolib.statistics.looks import crossing_probability, obrien_fleming, pocock
from mautolib.statistics.means import Moments, Welch, analysis_of_variance, mean_interval, welch
from mautolib.statistics.power import Variance, power, sample_size
from mautolib.statistics.proportions import (
    Statistic,
    binomial_test,
    chi_square,
    fisher,
    fisher_less,
    freeman_halton,
    smallest_expected,
    z_test,
)
from mautolib.statistics.ratio import SRM_LEVEL, SampleRatio, sample_ratio, sequential_sample_ratio
from mautolib.statistics.sequential import multiplier, sequential_means, sequential_rates

__all__ = [
    "Adjusted", "Area", "Interval", "Lift", "Moments", "OrderValues", "Pairs", "Purchases", "SRM_LEVEL",
    "SampleRatio", "Statistic", "Unfit", "Variance", "Welch", "Why", "analysis_of_variance", "area_under_curve",
    "benjamini_hochberg", "binomial_test", "bonferroni", "chi_square", "clopper_pearson", "crossing_probability",
    "cuped", "fisher", "fisher_less", "fit_order_values", "fit_purchases", "freeman_halton", "holm", "lift_of_means",
    "lift_of_rates", "mean_interval", "multiplier", "newcombe", "obrien_fleming", "pocock", "power", "sample_ratio",
    "sample_size", "sequential_means", "sequential_rates", "sequential_sample_ratio", "smallest_expected", "wald",
    "wald_difference", "welch", "wilson", "z_test",
]  # fmt: skip
