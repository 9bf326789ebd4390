"""Intervals of means, checked against scipy and by enumeration. How often they cover is simulated in tests/bench/coverage.py."""

import math
import random

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.scoring import RowMean, summarise, summarise_by_row
from runner.stats.distributions import beta_quantile
from runner.stats.intervals import design_effect, interval, share_interval
from runner.stats.stats import paired
from runner.stats.units import Spread, mean_and_stderr, units_of

some = settings(max_examples=100)


@some
@given(st.floats(0.001, 0.999), st.floats(0.5, 3_000), st.floats(0.5, 3_000))
def test_quantiles_of_beta_equal_scipys(share, a, b):
    assert beta_quantile(share, a, b) == pytest.approx(float(scipy.special.betaincinv(a, b, share)), rel=1e-9)


def right(hits, n):
    return summarise([1.0] * hits + [0.0] * (n - hits))


@pytest.mark.parametrize(
    ("hits", "n"), [(0, 1), (1, 1), (0, 60), (60, 60), (48, 60), (1, 20), (19, 20), (7, 300), (1_950, 2_000)]
)
def test_scores_of_0_and_1_have_the_exact_interval(hits, n):
    expected = scipy.stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert right(hits, n).interval == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("n", [20, 33, 60, 150])
def test_they_cover_every_share_by_enumeration(n):
    bounds = np.array([right(hits, n).interval for hits in range(n + 1)])
    shares = np.linspace(0.02, 0.98, 193)
    covered = [(scipy.stats.binom.pmf(range(n + 1), n, p) * ((bounds[:, 0] <= p) & (p <= bounds[:, 1]))).sum() for p in shares]
    assert min(covered) >= 0.95
    assert np.mean(covered) <= 0.98


def test_no_interval_claims_certainty():
    for value in (0.0, 0.5, 1.0):
        low, high = summarise([value] * 60).interval
        assert 0.03 < high - low < 0.2
        assert low <= value <= high


def test_the_interval_narrows_with_more_rows_and_with_less_spread():
    def width(values):
        low, high = summarise(values).interval
        return high - low

    binary = [0.0, 1.0, 1.0, 1.0] * 25
    assert width(binary * 4) == pytest.approx(width(binary) / 2, rel=0.1)
    assert width([0.7, 0.8] * 50) < width(binary) / 3


def test_scores_beyond_0_and_1_have_students_interval():
    values = [0.5, 3.0, -1.0, 7.5, 2.0]
    expected = scipy.stats.t.interval(0.95, 4, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert summarise(values).interval == pytest.approx(expected)
    assert summarise([7.0]).interval is None
    assert summarise([math.nan, 1.0]).interval is None
    assert summarise([math.inf, 1.0]).interval is None


def test_repeats_tell_less_than_rows():
    rows = summarise([float(index < 30) for index in range(40)]).interval
    alike = summarise_by_row((str(index), float(index < 30)) for index in range(40) for _ in range(5)).interval
    assert alike == pytest.approx(rows, abs=0.02)  # the repeats of a row all agree: they add nothing
    rng = random.Random(1)
    noisy = summarise_by_row((str(index), float(rng.random() < 0.75)) for index in range(40) for _ in range(5)).interval
    assert noisy[1] - noisy[0] < 0.7 * (rows[1] - rows[0])


def clustered(values, clusters):
    mean = RowMean()
    for value, cluster in zip(values, clusters, strict=True):
        mean.add(value, 1, cluster)
    return mean.score()


def test_clusters_are_the_units():
    values = [float(index < 90) for index in range(120)]
    clusters = [str(index // 10) for index in range(120)]
    found = clustered(values, clusters)
    mean, stderr = mean_and_stderr(units_of(values, clusters))
    assert (found.mean, found.stderr, found.n) == (mean, pytest.approx(stderr), 120)
    few = scipy.stats.t.ppf(0.975, [119, 11])
    effective = 120 / design_effect(Spread(mean, stderr, 120, 12, 10.0)) * (few[0] / few[1]) ** 2
    right, wrong = 0.75 * effective, 0.25 * effective
    low, high = scipy.stats.beta.ppf([0.025, 0.975], [right, right + 1], [wrong + 1, wrong])
    assert found.interval == pytest.approx((low, high))
    alone = summarise(values).interval
    assert high - low > 2 * (alone[1] - alone[0])
    assert clustered(values, range(120)).interval == pytest.approx(alone)


def test_one_cluster_tells_as_much_as_one_row():
    assert clustered([1.0, 1.0], ["a"] * 2).interval == pytest.approx(right(1, 1).interval)
    assert clustered([1.0, 1.0], ["a"] * 2).stderr is None


def test_clusters_of_unequal_size_have_fewer_degrees_of_freedom():
    values = [float(index % 4 < 3) for index in range(120)]
    equal = clustered(values, [str(index // 12) for index in range(120)]).interval
    unequal = clustered(values, [str(min(index // 4, 9)) for index in range(120)]).interval
    assert unequal[1] - unequal[0] > 1.5 * (equal[1] - equal[0])


def test_rows_of_one_cluster_may_come_in_any_order_and_be_summed_up_at_any_time():
    mean = RowMean()
    for value, cluster in ((1.0, "a"), (0.0, "b"), (0.0, "a")):
        mean.add(value, 1, cluster)
    before = mean.score()
    assert mean.score([(1.0, 1, "b")]) == clustered([1.0, 0.0, 0.0, 1.0], ["a", "b", "a", "b"])
    assert mean.score() == before


# --- differences


def test_the_interval_of_a_binary_difference_is_joined_from_gains_and_losses():
    """By the paper's formula; of exclusive outcomes, the correlation is known exactly."""
    differences = [1.0] * 6 + [-1.0] * 3 + [0.0] * 31
    (gain_low, gain_high), (loss_low, loss_high) = (
        scipy.stats.binomtest(k, 40).proportion_ci(0.95, method="exact") for k in (6, 3)
    )
    gain, loss = 6 / 40, 3 / 40
    related = -math.sqrt(gain * loss / ((1 - gain) * (1 - loss)))

    def reach(a, b):
        return math.sqrt(a * a + b * b - 2 * related * a * b)

    expected = (
        gain - loss - reach(gain - gain_low, loss_high - loss),
        gain - loss + reach(gain_high - gain, loss - loss_low),
    )
    assert paired(differences, bounded=True).ci == pytest.approx(expected)


def test_runs_that_never_differ_are_not_certain_to_be_equal():
    low, high = paired([0.0] * 60, binary=True, bounded=True).ci
    assert low == pytest.approx(-high)
    assert 0.03 < high < 0.1


def test_a_difference_stays_within_its_scale():
    assert paired([1.0] * 5, bounded=True).ci[1] == 1.0
    assert paired([-1.0] * 5, bounded=True).ci[0] == -1.0


def test_clusters_widen_the_interval_of_a_difference():
    rng = random.Random(3)
    groups = [index // 10 for index in range(200)]
    effects = [rng.choice((-1.0, 0.0, 0.0, 1.0)) for _ in range(20)]
    differences = [effects[group] for group in groups]
    alone, together = paired(differences, bounded=True).ci, paired(differences, groups, bounded=True).ci
    assert together[1] - together[0] > 2.5 * (alone[1] - alone[0])


def test_unbounded_differences_have_students_interval():
    found = interval(Spread(0.2, 0.1, 30, 30), bounded=False)
    assert found == pytest.approx(scipy.stats.t.interval(0.95, 29, loc=0.2, scale=0.1))


@some
@given(st.floats(0, 1), st.floats(0, 0.5), st.integers(2, 500), st.integers(2, 20))
def test_intervals_hold_their_mean_and_stay_in_their_scale(mean, stderr, units, size):
    low, high = share_interval(Spread(mean, stderr, units * size, units, float(size)))
    assert 0 <= low <= mean <= high <= 1


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=2, max_size=40))
def test_the_interval_of_a_difference_holds_its_mean(values):
    low, high = paired(values, bounded=True).ci
    assert -1 <= low <= sum(values) / len(values) <= high <= 1
