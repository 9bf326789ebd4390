"""Statistics compared with scipy, statsmodels and published examples, and tested under the null hypothesis."""

import math
import random

import numpy as np
import pytest
import scipy.special
import scipy.stats
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as peer_mcnemar
from statsmodels.stats.multitest import multipletests

from runner.stats import stats
from runner.stats.distributions import beta_share, even_odds, t_critical, t_two_sided
from runner.stats.stats import (
    Paired,
    Units,
    bootstrap_interval,
    holm,
    mcnemar,
    mean_and_stderr,
    p_value,
    paired,
    quantile,
    sign_flip,
    units_of,
)

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Darwin's maize, crossed - self-fertilised, in eighths of an inch: Fisher (1935), "The Design of Experiments", chapter III."""

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Hours of sleep gained, Cushny & Peebles (1905), as in "Student" (1908)."""

some = settings(max_examples=200)
scores = st.floats(-5, 5).map(lambda value: round(value, 3))


# --- distributions


@some
@given(st.floats(0.1, 5e4), st.floats(0.1, 5e4), st.floats(-4, 4))
def test_the_incomplete_beta_equals_scipys(a, b, deviation):
    spread = math.sqrt(a * b / (a + b + 1)) / (a + b)
    x = min(max(a / (a + b) + deviation * spread, 0.0), 1.0)
    assert beta_share(a, b, x) == pytest.approx(float(scipy.special.betainc(a, b, x)), rel=1e-8, abs=1e-14)


@some
@given(st.integers(1, 200_000), st.floats(1e-3, 30))
def test_students_t_equals_scipys(df, t):
    assert t_two_sided(t, df) == pytest.approx(2 * float(scipy.stats.t.sf(t, df)), rel=1e-8, abs=1e-300)
    assert t_two_sided(0.0, df) == 1.0
    assert t_two_sided(-t, df) == t_two_sided(t, df)


@pytest.mark.parametrize("df", [1, 2, 9, 100, 99_999])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_bounds_of_t_equal_scipys(level, df):
    assert t_critical(level, df) == pytest.approx(float(scipy.stats.t.ppf((1 + level) / 2, df)), rel=1e-9)


@some
@given(st.integers(0, 3_000), st.integers(0, 3_000))
def test_a_fair_coin_equals_scipys_binomial_test(heads, tails):
    expected = scipy.stats.binomtest(heads, heads + tails).pvalue if heads + tails else 1.0
    assert even_odds(heads, heads + tails) == pytest.approx(expected, rel=1e-8)


# --- the paired mean


@some
@given(st.lists(scores, min_size=2, max_size=60))
def test_rows_as_units_give_the_paired_t_interval(values):
    found = paired(values, level=0.9)
    assert (found.n, found.units) == (len(values), len(values))
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.stderr == pytest.approx(scipy.stats.sem(values), abs=1e-9)
    if found.stderr > 1e-9:
        expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
        assert found.ci == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_clustered_errors_equal_statsmodels(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(8, 200))
    groups = rng.integers(0, max(2, count // 5), count)
    values = rng.normal(0.2, 1, count) + rng.normal(0, 1, count)[groups]
    fit = sm.OLS(values, np.ones(count)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    mean, stderr = mean_and_stderr(units_of(list(map(float, values)), list(groups)))
    assert mean == pytest.approx(fit.params[0], rel=1e-10)
    assert stderr == pytest.approx(fit.bse[0], rel=1e-9)
    found = paired(list(map(float, values)), list(groups))
    assert found.ci == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-7)
    if found.test == "t":
        assert found.p == pytest.approx(fit.pvalues[0], rel=1e-7)


def test_one_row_per_cluster_equals_no_clusters():
    rng = random.Random(1)
    values = [rng.gauss(0.1, 1) for _ in range(40)]
    assert paired(values, range(40)) == paired(values)


def test_the_interval_of_students_sleep_data():
    found = paired(SLEEP)
    assert found.mean == pytest.approx(1.58)
    assert found.ci == pytest.approx((0.7001142, 2.4598858), abs=1e-7)  # as R's t.test(extra ~ group, paired = TRUE) has it


# --- tests


def test_sign_flips_reproduce_fishers_result_for_darwins_maize():
    assert sign_flip(DARWIN) == 2 * 863 / 2**15  # 863 of the arrangements reach the sum that was observed, on either side
    mean, stderr = mean_and_stderr(units_of(DARWIN))
    assert mean / stderr == pytest.approx(2.148, abs=5e-4)
    p, test = p_value(units_of(DARWIN))
    assert (test, p) == ("t", pytest.approx(0.0497, abs=5e-5))


@pytest.mark.parametrize("seed", range(15))
def test_sign_flips_equal_scipys_permutation_test(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0.3, 1, int(rng.integers(2, 13))).round(int(rng.integers(0, 3)))
    expected = scipy.stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip([float(value) for value in values if value]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lost", "gained", "expected"), [(9, 2, 0.0654296875), (5, 0, 0.0625), (6, 0, 0.03125), (0, 0, 1.0), (7, 7, 1.0)]
)
def test_mcnemar_equals_values_computed_by_hand(lost, gained, expected):
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-12)


@some
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_equals_statsmodels(gained, lost):
    expected = peer_mcnemar([[10, gained], [lost, 10]], exact=True).pvalue
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, expected), rel=1e-8)


@given(st.lists(st.sampled_from([-1, 0, 0, 1]), max_size=40))
def test_flipping_binary_scores_equals_mcnemars_test(values):
    differ = [value for value in values if value]
    if len(differ) <= stats.MAX_FLIPPED:
        assert paired(values).p == pytest.approx(paired(values, binary=True).p) if values else True


def test_a_difference_without_variance_is_not_certainty():
    assert paired([0.5]) == Paired(1, 1, 0.5, p=1.0, test="sign-flip")
    assert paired([0.5, 0.5]).p == 0.5
    assert paired([0.1] * 5).p == 0.0625
    found = paired([0.1] * 20)
    assert (found.p, found.test, found.bootstrap_ci) == (2.0**-19, "t", pytest.approx((0.1, 0.1)))
    assert paired([0.0] * 20).p == 1.0


def test_without_rows_there_are_no_statistics():
    assert paired([]) == Paired(0, 0)
    assert paired([0.3, 0.2], ["one", "one"]) == Paired(2, 1, 0.25, p=1.0, test="sign-flip")
    assert bootstrap_interval(Units([0.3], [1])) is None


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_equals_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1] if p_values else []
    assert holm(p_values) == pytest.approx(list(expected))


def test_holm_equals_values_computed_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_equal_numpys(values, q):
    assert quantile(sorted(values), q) == pytest.approx(float(np.quantile(values, q)), abs=1e-6)


# --- the bootstrap


@pytest.mark.parametrize(
    "draw", [lambda rng: rng.expovariate(1), lambda rng: rng.choice((-1, 0, 0, 0, 1, 1)), lambda rng: rng.gauss(0, 2)]
)
def test_the_bootstrap_equals_scipys_bca(draw):
    rng = random.Random(4)
    values = [float(draw(rng)) for _ in range(60)]
    peer = scipy.stats.bootstrap((np.array(values),), np.mean, method="BCa", n_resamples=20_000, rng=1).confidence_interval
    ours = bootstrap_interval(units_of(values), resamples=20_000)
    width = peer.high - peer.low
    assert ours == pytest.approx((peer.low, peer.high), abs=0.03 * width)  # both draw at random
    assert bootstrap_interval(units_of(values)) == pytest.approx((peer.low, peer.high), abs=0.08 * width)


def test_a_seed_gives_the_same_interval_everywhere():
    values = [((index * 37) % 11) / 10 for index in range(50)]
    assert bootstrap_interval(units_of(values)) == bootstrap_interval(units_of(values))
    assert bootstrap_interval(units_of(values), seed=1) != bootstrap_interval(units_of(values))
    assert bootstrap_interval(units_of(values)) == pytest.approx((0.408, 0.59), abs=1e-9)


def test_the_bootstrap_draws_clusters_whole():
    rng = random.Random(2)
    groups = [index // 10 for index in range(400)]
    effects = [rng.gauss(0, 1) for _ in range(40)]
    values = [effects[group] + rng.gauss(0, 0.1) for group in groups]
    low, high = bootstrap_interval(units_of(values, groups))
    ci = paired(values, groups).ci
    assert high - low == pytest.approx(ci[1] - ci[0], rel=0.15)
    assert high - low > 2 * np.subtract(*reversed(bootstrap_interval(units_of(values))))


def test_the_bootstrap_draws_many_rows_in_groups(monkeypatch):
    rng = random.Random(3)
    units = units_of([rng.gauss(0, 1) for _ in range(3_000)])
    whole = bootstrap_interval(units)
    monkeypatch.setattr(stats, "MAX_RESAMPLED", 700)
    assert bootstrap_interval(units) == pytest.approx(whole, abs=0.1 * (whole[1] - whole[0]))


# --- under the null hypothesis: nothing differs, and a finding is a false one

SIMULATED = 2_000
ALPHA = 0.05
NOISE = 4 * math.sqrt(ALPHA * (1 - ALPHA) / SIMULATED)


def false_findings(draw, clusters=None, *, binary=False):
    rng = random.Random(20261124)
    found = 0
    for _ in range(SIMULATED):
        p, _test = p_value(units_of(draw(rng), clusters), binary=binary)
        found += p < ALPHA
    return found / SIMULATED


def binary_pairs(rows, share):
    return lambda rng: [(rng.random() < share) - (rng.random() < share) for _ in range(rows)]


@pytest.mark.parametrize("rows", [20, 60])
def test_false_findings_are_rare_for_continuous_scores(rows):
    assert false_findings(lambda rng: [rng.gauss(0, 1) for _ in range(rows)]) == pytest.approx(ALPHA, abs=NOISE)


def test_false_findings_are_rare_for_few_rows():
    assert false_findings(lambda rng: [rng.gauss(0, 1) for _ in range(9)]) == pytest.approx(ALPHA, abs=NOISE)
    assert false_findings(lambda rng: [rng.gauss(0, 1) for _ in range(5)]) == 0  # 5 rows cannot show anything at this level


@pytest.mark.parametrize(("rows", "share"), [(40, 0.9), (60, 0.5), (400, 0.7)])
def test_false_findings_are_rare_for_binary_scores(rows, share):
    assert 0.01 < false_findings(binary_pairs(rows, share), binary=True) < ALPHA + NOISE


def test_false_findings_are_rare_for_scores_that_seldom_differ():
    """Three repeats of easy rows, for which the t-test alone finds too much."""
    repeats = lambda rng: [sum((rng.random() < 0.98) - (rng.random() < 0.98) for _ in range(3)) / 3 for _ in range(50)]
    assert false_findings(repeats) < ALPHA + NOISE


def test_false_findings_are_rare_in_clusters():
    groups = [index // 5 for index in range(150)]

    def draw(rng):
        effects = [rng.gauss(0, 1) for _ in range(30)]
        return [effects[group] + rng.gauss(0, 1) for group in groups]

    assert false_findings(draw, groups) == pytest.approx(ALPHA, abs=NOISE)
    assert false_findings(draw) > 2 * ALPHA  # what taking rows for independent would have done


def test_intervals_cover_the_true_difference():
    rng = random.Random(5)
    covered = 0
    for _ in range(SIMULATED):
        units = units_of([rng.gauss(0.3, 1) for _ in range(12)])
        mean, stderr = mean_and_stderr(units)
        covered += abs(mean - 0.3) <= t_critical(0.95, 11) * stderr
    assert covered / SIMULATED == pytest.approx(0.95, abs=NOISE)


def test_holm_keeps_any_false_finding_among_many_rare():
    rng = random.Random(6)
    found = sum(min(holm([rng.random() for _ in range(8)])) < ALPHA for _ in range(SIMULATED))
    assert found / SIMULATED == pytest.approx(ALPHA, abs=NOISE)
