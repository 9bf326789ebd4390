"""`ostinato power`: rows, repeats and differences, checked against statsmodels and by simulation."""

import math
import random

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from runner.analysis.power import plan
from runner.errors import ConfigError, RecordError
from runner.stats.power import Noise, difference_found, repeats_needed, rows_needed, variances
from runner.stats.stats import p_value
from runner.stats.units import units_of
from runner.types import Sample
from tests.support.command import ostinato
from tests.support.records import play


def samples(rows, *, name="hit", clusters=None):
    """Return samples with these scores: a list of repeats per row."""
    return [
        Sample(id=f"r{index}", repeat=repeat, output="x", scores={name: float(value)}, cluster=clusters and clusters[index])
        for index, repeats in enumerate(rows)
        for repeat, value in enumerate(repeats)
    ]


def binary(seed, rows=60, share=0.7):
    rng = random.Random(seed)
    return [[rng.random() < share] for _ in range(rows)]


@pytest.mark.parametrize("effect", [0.05, 0.1, 0.3, 0.8])
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.01, 0.9), (0.1, 0.7)])
def test_rows_equal_statsmodels(effect, alpha, power):
    exact = math.ceil(TTestPower().solve_power(effect_size=effect, alpha=alpha, power=power))
    assert rows_needed(1.0, effect, alpha=alpha, power=power) == pytest.approx(exact, abs=1)


@pytest.mark.parametrize(("difference", "variance"), [(0.05, 0.2), (0.2, 0.4)])
def test_the_difference_found_is_the_inverse(difference, variance):
    rows = rows_needed(variance, difference)
    assert difference_found(variance, rows) <= difference < difference_found(variance, rows - 1)
    assert difference_found(variance, 1) is None


def test_repeats_reduce_their_own_noise_only():
    noise = Noise(rows=0.04, repeats=0.3)
    rows = rows_needed(noise.of(5), 0.05)
    assert repeats_needed(noise, 0.05, rows) in (4, 5)
    assert repeats_needed(noise, 0.05, 20) is None  # with 20 rows not even endless repeats would do
    assert repeats_needed(noise, 0.5, 1_000) == 1


def test_variances_between_and_within_rows_equal_a_simulation():
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 2, (4_000, 1)) + rng.normal(0, 3, (4_000, 4))
    between, within = variances(rows.tolist())
    assert (between, within) == (pytest.approx(4, rel=0.1), pytest.approx(9, rel=0.05))
    assert variances([[1.0], [3.0]]) == (2.0, 0.0)
    assert variances([[1.0]]) == (0.0, 0.0)


def test_planned_rows_find_the_difference_as_often_as_planned():
    rng = np.random.default_rng(2)
    one, other = (rng.random(6_000) < share for share in (0.6, 0.75))
    found = plan(samples([[value] for value in one]), samples([[value] for value in other]), difference=0.15)
    times = 200
    hits = 0
    for _ in range(times):
        chosen = rng.integers(0, 6_000, found.rows_needed)
        hits += p_value(units_of((other[chosen].astype(float) - one[chosen]).tolist()))[0] < 0.05
    assert hits / times == pytest.approx(0.8, abs=0.1)


def test_a_second_run_measures_the_correlation():
    rows = binary(3, 200)
    nearly = [[not value if index % 20 == 0 else value] for index, (value,) in enumerate(rows)]
    alone, both = plan(samples(rows), difference=0.05), plan(samples(rows), samples(nearly), difference=0.05)
    assert (alone.correlation, alone.measured, both.measured) == (0.0, False, True)
    assert both.correlation == pytest.approx(np.corrcoef(np.ravel(rows), np.ravel(nearly))[0, 1])
    assert both.rows_needed < alone.rows_needed / 4
    assert plan(samples(rows), difference=0.05, correlation=0.9).rows_needed < alone.rows_needed / 5


def test_clusters_need_more_rows():
    rows = [[float(index // 10 % 2)] for index in range(200)]
    groups = [str(index // 10) for index in range(200)]
    found = plan(samples(rows, clusters=groups), difference=0.1)
    assert found.clusters > 8
    assert found.rows_needed > 8 * plan(samples(rows), difference=0.1).rows_needed / 1.2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"difference": 0.0}, "difference=0: give the size"),
        ({"difference": math.nan}, "difference=nan"),
        ({"difference": 0.1, "alpha": 1.0}, "alpha=1: lies between 0 and 1"),
        ({"difference": 0.1, "power": 0.0}, "power=0: lies between 0 and 1"),
        ({"difference": 0.1, "power": 0.02}, "above alpha / 2"),
        ({"difference": 0.1, "correlation": 1.0}, "between -1 and 1"),
        ({"difference": 0.1, "score": "hits"}, "there is no score 'hits' in A; did you mean 'hit'"),
    ],
)
def test_numbers_out_of_range_are_refused(given, told):
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        plan(samples(binary(1)), **given)


def test_scores_that_do_not_vary_and_single_rows_have_nothing_to_plan_with():
    with pytest.raises(ConfigError, match="does not vary"):
        plan(samples([[1.0]] * 20), difference=0.1)
    with pytest.raises(RecordError, match="fewer than two rows"):
        plan(samples([[1.0]]), difference=0.1)


def test_the_command_says_it_in_sentences_and_as_json(in_tmp):
    shown = ["data.limit=12", "scoring=regex", "scoring.pattern=a", "sampling.repeats=3", "sampling.temperature=1"]
    one, other = (play(*shown, f"model.choices={choices}") for choices in ("[a,b]", "[a,b,c]"))
    done = ostinato("power", str(one), "-d", "0.2")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("regex: 12 rows, 3 answers each; a row's difference has the variance 0.")
    assert "assumed to be correlated by 0.00; a second run would measure it" in lines[0]
    assert lines[1].startswith("To find a difference of 0.2 with a chance of 80% (two-sided at 0.05), a comparison needs ")
    assert lines[-1].startswith("With 12 rows, 3 answers each, it finds a difference of 0.")
    found = ostinato("power", str(one), str(other), "-d", "0.2", "--json").json
    assert (found["score"], found["rows"], found["repeats"], found["measured"]) == ("regex", 12, 3, True)
    assert found["runs"] == [str(one), str(other)]
    refused = ostinato("power", str(one), "-d", "0")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
