"""Means with bootstrap confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MIN_GROUPS = 4  # fewer have no interval
RESAMPLES = 4000
_T_QUANTILES = (12.706, 4.303, 3.182, 2.776)  # Student's t at 0.975 for 1 to 4 degrees of freedom


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval, None if there are too few prompts.

    `count` of `asked` images have a value; the others have none, for example no face.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    asked: int

    def text(self) -> str:
        """``0.712 [0.655, 0.768]``, with ``5 of 6`` appended if some images have no value."""
        parts = [format_score(self.mean)]
        if self.low is not None and self.high is not None:
            parts.append(f"[{format_score(self.low)}, {format_score(self.high)}]")
        if self.count < self.asked:
            parts.append(f"{self.count} of {self.asked}")
        return " ".join(parts)


def format_score(value: float) -> str:
    """Three decimals, without negative zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def estimate(
    values: NDArray[np.float64], groups: NDArray[np.int64], *, independent: bool = True
) -> Estimate | None:
    """The mean of values (n,) and its bootstrap interval; None if all are NaN.

    Whole groups are resampled, because images of the same prompt are not independent. With a
    single group its values are resampled instead, unless they are not `independent`, such as
    pairwise values. The interval is deterministic. With fewer than MIN_GROUPS groups there is
    none: its coverage would be far below 95 %.
    """
    known = ~np.isnan(values)
    if not known.any():
        return None
    found, of = values[known], groups[known]
    if independent and len(set(of.tolist())) == 1:
        of = np.arange(len(found))
    low, high = _interval(found, of)
    return Estimate(float(found.mean()), low, high, int(known.sum()), len(values))


def _interval(
    values: NDArray[np.float64], groups: NDArray[np.int64]
) -> tuple[float | None, float | None]:
    _, places = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(places, values), np.bincount(places)
    if len(sums) < MIN_GROUPS:
        return None, None
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    low, high = percentile_interval(sums[drawn].sum(1) / counts[drawn].sum(1), len(sums))
    return low, high


def percentile_interval(means: NDArray[np.float64], groups: int) -> tuple[float, float]:
    """The 95 % interval of a mean from its bootstrap over `groups` >= 2 groups.

    Uses the percentiles of Hesterberg (The American Statistician 69, 2015, section 3.2), wider
    than 2.5 and 97.5, whose coverage is far too low for few groups.
    """
    ratio = math.sqrt(groups / (groups - 1))
    margin = 100 * NormalDist().cdf(-ratio * _t_quantile(groups - 1))
    low, high = np.percentile(means, [margin, 100 - margin])
    return float(low), float(high)


def _t_quantile(degrees_of_freedom: int) -> float:
    """Student's t at 0.975; from 5 degrees of freedom on by Abramowitz and Stegun, 26.7.5."""
    if degrees_of_freedom <= len(_T_QUANTILES):
        return _T_QUANTILES[degrees_of_freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    return (
        z
        + (z**3 + z) / (4 * degrees_of_freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees_of_freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees_of_freedom**3)
    )


def mean_or_nan(values: NDArray[np.float64]) -> float:
    """The mean of all values that are not NaN, or NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
