"""Intervals of means, against exact quantiles of Student's t."""

from statistics import NormalDist

import numpy as np
import pytest
from likeness.comparison.estimates import _t_quantile, percentile_interval

# At 0.975, from the closed form of its distribution (Abramowitz and Stegun, 26.7.3 and 26.7.4).
T_QUANTILES = {
    1: 12.706205,
    2: 4.302653,
    3: 3.182446,
    4: 2.776445,
    5: 2.570582,
    6: 2.446912,
    7: 2.364624,
    8: 2.306004,
    9: 2.262157,
    10: 2.228139,
    12: 2.178813,
    15: 2.13145,
    20: 2.085963,
    30: 2.042272,
    60: 2.000298,
    120: 1.97993,
    1000: 1.962339,
}


@pytest.mark.parametrize(("degrees", "exact"), T_QUANTILES.items())
def test_a_wrong_term_of_students_t_was_not_noticed(degrees, exact):
    if degrees < 5:
        assert _t_quantile(degrees) == pytest.approx(exact, abs=5e-4)
        return
    z = NormalDist().inv_cdf(0.975)
    next_term = 79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z  # left out, of 26.7.5
    close = _t_quantile(degrees) + next_term / (92160 * degrees**4)
    assert close == pytest.approx(exact, abs=0.2 / degrees**4 + 1e-6)


@pytest.mark.parametrize("groups", [4, 5, 6, 7, 31])
def test_percentiles_of_an_interval_are_those_of_its_number_of_groups(groups):
    means = np.linspace(0, 1, 100_001)  # each its own percentile
    low, high = percentile_interval(means, groups)
    margin = NormalDist().cdf(-((groups / (groups - 1)) ** 0.5) * T_QUANTILES[groups - 1])
    assert (low, high) == pytest.approx((margin, 1 - margin), abs=5e-5)
