"""Means and how sure they are, by the bootstrap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MIN_GROUPS = 4  # groups
RESAMPLES = 4000
_T_QUANTILES = (12.706, 4.303, 3.182, 2.776)  # Student's t at 0.975 for 1 to 4 degrees of freedom


@dataclass(frozen=True)
class Estimate:
    """A mean, and the 95 % interval of it: None where one prompt alone cannot say.

    It is over `count` pictures of `asked`; the others have no value, such as no face.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    asked: int

    def text(self) -> str:
        """``0.712 [0.655, 0.768]``, and ``5 of 6`` where pictures have no value."""
        parts = [format_score(self.mean)]
        if self.low is not None and self.high is not None:
            parts.append(f"[{format_score(self.low)}, {format_score(self.high)}]")
        if self.count < self.asked:
            parts.append(f"{self.count} of {self.asked}")
        return " ".join(parts)


def format_score(value: float) -> str:
    """Three decimals, and no sign before a zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def estimate(
    values: NDArray[np.float64], groups: NDArray[np.int64], *, independent: bool = True
) -> Estimate | None:
    """The mean of values (n,) and its bootstrap interval; None without a value.

    Whole groups are drawn with replacement, because the pictures of one prompt are not
    independent; of a single group its values, unless they are not `independent`, as those that each
    pair of pictures has in common. The same values give the same interval; of fewer than FEWEST
    groups there is none: it would hold the mean far less often than it says.
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
    """The 95 % interval of a mean from its bootstrap over `groups`, at least 2.

    The percentiles are those of Hesterberg (The American Statistician 69, 2015, section 3.2), wider
    than 2.5 and 97.5: of few groups these hold the mean far less often than they say.
    """
    ratio = math.sqrt(groups / (groups - 1))
    margin = 100 * NormalDist().cdf(-ratio * _t_quantile(groups - 1))
    low, high = np.percentile(means, [margin, 100 - margin])
    return float(low), float(high)


def _t_quantile(degrees_of_freedom: int) -> float:
    """Student's t at 0.975; from 5 degrees of freedom by Abramowitz and Stegun, 26.7.5."""
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
    """The mean of the values that are there, NaN of none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
