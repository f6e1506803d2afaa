"""Intervals hold what they say, and one seed tells nothing."""

from __future__ import annotations

from math import gamma, inf, pi, sqrt

import numpy as np
import pytest

from axon_compose.learn.race._statistics import interval, quantile, within


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 29])
@pytest.mark.parametrize("t", [0.3, 1.0, 2.5, 9.0])
def test_the_distribution_is_the_integral_of_its_density(freedom: int, t: float) -> None:
    x = np.linspace(0, t, 200_001)
    scale = gamma((freedom + 1) / 2) / (sqrt(freedom * pi) * gamma(freedom / 2))
    density = scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2)
    assert within(t, freedom) == pytest.approx(2 * np.trapezoid(density, x), abs=1e-9)


def test_quantiles_are_those_of_the_tables() -> None:
    found = [round(quantile(0.975, freedom), 3) for freedom in (1, 2, 3, 4, 10)]
    assert found == [12.706, 4.303, 3.182, 2.776, 2.228]


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("level", [0.05, 0.2])
def test_an_interval_holds_the_truth_as_often_as_it_says(seeds: int, level: float) -> None:
    drawn = np.random.default_rng(seeds).normal(0.3, 2.0, size=(4000, seeds))
    hits = [low <= 0.3 <= high for low, high in (interval(list(row), 0.0, level) for row in drawn)]
    assert np.mean(hits) == pytest.approx(1 - level, abs=0.015)


def test_fewer_than_two_seeds_tell_nothing() -> None:
    assert interval([0.5]) == (-inf, inf)
    assert interval([]) == (-inf, inf)


def test_the_error_of_measurement_widens_it() -> None:
    """Three models that all answer alike have no spread, but a finite number of answers."""
    assert interval([0.1, 0.1, 0.1]) == pytest.approx((0.1, 0.1))
    low, high = interval([0.1, 0.1, 0.1], error=0.05)
    assert low < 0 < 0.2 < high
