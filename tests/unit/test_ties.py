"""Ties: the paired test of a difference compared with scipy's interval, and its answer for few rows."""

import random

import pytest
from scipy import stats

from runner.scoring.summary import summarise
from runner.stats.ties import row_means, tied


def test_repeats_of_a_row_are_averaged():
    assert row_means([("a", 1.0), ("b", 0.0), ("a", 0.0)]) == {"a": 0.5, "b": 0.0}


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.05, 0.1, 0.3])
def test_ties_follow_the_interval_of_the_paired_differences(shift):
    noise = random.Random(3)
    one = {str(row): noise.random() for row in range(60)}
    other = {row: value + shift + noise.gauss(0, 0.2) for row, value in one.items()}
    differences = [one[row] - other[row] for row in one]
    low, high = stats.t.interval(0.95, len(differences) - 1, loc=summarise(differences).mean, scale=stats.sem(differences))
    assert tied(one, other) == (low <= 0 <= high)


def test_equal_scores_are_tied_and_constant_differences_are_not():
    one = {str(row): 0.5 + row / 20 for row in range(6)}
    assert tied(one, dict(one)) is True
    assert tied(one, {row: value - 0.5 for row, value in one.items()}) is False


def test_few_rows_are_tied_however_alike_their_differences():
    one = {"a": 1.0, "b": 1.0, "c": 1.0}
    assert tied(one, dict.fromkeys(one, 0.0)) is True  # one of four ways to flip the signs: p = 0.25, as compare says


def test_rows_of_one_run_only_are_left_out():
    one = {str(row): 1.0 for row in range(6)}
    assert tied({**one, "c": 0.0}, dict.fromkeys(one, 0.0)) is False


@pytest.mark.parametrize("other", [{}, {"a": 1.0}, {"x": 1.0, "y": 1.0}])
def test_fewer_than_two_rows_are_neither_tied_nor_different(other):
    assert tied({"a": 1.0, "b": 1.0}, other) is None
