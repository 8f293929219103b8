"""Sample-ratio mismatch: did the variants get the shares they were meant to get?

If not, something keeps recipients out of one of them, and no comparison of the rest can be trusted. Pure; called by
`campaigns.deciding`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["SRM_LEVEL", "SampleRatio", "sample_ratio", "sequential_sample_ratio"]

#: Detected below this p-value.
SRM_LEVEL: Final = 0.001


@dataclass(frozen=True, kw_only=True)
class SampleRatio:
    """Expected and observed recipients of each group, and whether they differ by more than chance."""

    expected: tuple[float, ...]
    observed: tuple[int, ...]
    chi2: float
    p_value: float
    detected: bool


def sample_ratio(
    observed: Sequence[int], shares: Sequence[float] | None = None, *, level: float = SRM_LEVEL
) -> SampleRatio:
    """Pearson's chi-square of the observed counts against `shares` (any positive weights; None: equal parts).

    K. Pearson (1900), Philosophical Magazine 50; as a check of experiments: A. Fabijan et al. (2019), Diagnosing sample
    ratio mismatch in online controlled experiments, KDD. Nobody yet, or one group: nothing is detected.

    Raises:
        ValueError: a negative count, or a share that is not positive.
    """
    from scipy.special import chdtrc

    weights = [1.0] * len(observed) if shares is None else list(shares)
    _check(observed, weights)
    whole = sum(observed)
    expected = tuple(whole * weight / math.fsum(weights) for weight in weights)
    if whole == 0 or len(observed) < 2:
        return SampleRatio(expected=expected, observed=tuple(observed), chi2=0.0, p_value=1.0, detected=False)
    chi2 = math.fsum((seen - each) ** 2 / each for seen, each in zip(observed, expected, strict=True))
    p_value = float(chdtrc(len(observed) - 1, chi2))
    return SampleRatio(
        expected=expected, observed=tuple(observed), chi2=chi2, p_value=p_value, detected=p_value < level
    )


def sequential_sample_ratio(observed: Sequence[int], shares: Sequence[float], *, weight: float = 100.0) -> float:
    """A p-value against `shares` that may be looked at after every recipient: the smallest so far stays valid.

    M. Lindon, A. Malek (2022), Anytime-valid inference for multinomial count data, NeurIPS 35: one over the Bayes
    factor of a Dirichlet prior of `weight` recipients spread as the shares.

    Raises:
        ValueError: a negative count, or a share that is not positive.
    """
    _check(observed, shares)
    whole = math.fsum(shares)
    log_factor = math.lgamma(weight) - math.lgamma(weight + sum(observed))
    for seen, share in zip(observed, shares, strict=True):
        prior = weight * share / whole
        log_factor += math.lgamma(prior + seen) - math.lgamma(prior) - seen * math.log(share / whole)
    return math.exp(min(0.0, -log_factor))


def _check(observed: Sequence[int], shares: Sequence[float]) -> None:
    if any(seen < 0 or not share > 0 for seen, share in zip(observed, shares, strict=True)):
        raise ValueError("counts are not negative, and shares are positive")
