"""Scores corrected for the errors of a judge, agreement of raters, and strengths from comparisons: formulas against others'."""

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from runner.analysis.load import Run
from runner.analysis.tournament import strengths
from runner.records import RunFolder
from runner.stats.agreement import agreement, kappa
from runner.stats.bradley_terry import Game, bradley_terry
from runner.stats.corrected import (
    Labelled,
    Rate,
    allocation,
    by_posterior,
    by_rates,
    by_regression,
    corrected,
    rates,
)
from runner.stats.intervals import share_interval
from runner.stats.units import spread_of, units_of
from runner.types import Sample
from tests.support.command import ostinato
from tests.support.records import record


def labels(right_right, right_wrong, wrong_right, wrong_wrong, weights=(1.0, 1.0)):
    """Labelled answers by counts, the judge's word first; weights of those judged right and wrong."""
    counts = ((1, 1, right_right), (1, 0, right_wrong), (0, 1, wrong_right), (0, 0, wrong_wrong))
    return [Labelled(float(f), float(h), weights[f == 0]) for f, h, count in counts for _ in range(count)]


def verdicts(yes, no):
    return [1.0] * yes + [0.0] * no


# --- the corrected mean


def test_verdicts_are_corrected_by_what_labels_say_of_each_verdict():
    scores, labelled = verdicts(700, 300), labels(60, 10, 6, 24)
    found = corrected(scores, None, labelled)
    assert (found.method, found.labels, found.n) == ("posterior", 100, 1000)
    assert found.mean == pytest.approx(0.7 * 60 / 70 + 0.3 * 6 / 30)
    rng = np.random.default_rng(1)  # the posteriors that the interval stands for, drawn
    q, a, b = (rng.beta(0.5 + hits, 0.5 + rest, 200_000) for hits, rest in ((700, 300), (60, 10), (6, 24)))
    drawn = np.quantile(q * a + (1 - q) * b, [0.025, 0.975])
    assert found.interval == pytest.approx(drawn, abs=0.004)
    assert found.interval[0] <= drawn[0]
    assert found.interval[1] >= drawn[1]


def test_a_judge_without_signal_is_worth_its_labels_and_a_perfect_one_is_worth_its_verdicts():
    scores = verdicts(2500, 2500)
    blind, alone = by_posterior(scores, None, labels(25, 25, 25, 25)), share_interval(spread_of(units_of(verdicts(50, 50))))
    assert blind.interval == pytest.approx(alone, abs=0.01)
    seeing = by_posterior(scores, None, labels(50, 0, 0, 50))
    assert seeing.interval[1] - seeing.interval[0] < 0.06
    assert blind.more > 200
    assert by_posterior(verdicts(50, 50), None, labels(25, 25, 25, 25)).more is None  # more than the run has


def test_labels_that_all_agree_are_not_certainty():
    found = by_posterior(verdicts(1000, 0), None, labels(50, 0, 0, 0))
    assert found.mean == found.interval[1] == 1.0
    assert 0.9 < found.interval[0] < 0.98
    unseen = by_posterior(verdicts(900, 100), None, labels(50, 0, 0, 0))  # nobody has looked at those judged wrong
    assert 0.78 < unseen.interval[0] < 0.96 < unseen.interval[1]


def test_labels_drawn_by_verdict_give_the_estimate_of_labels_drawn_at_random():
    scores = verdicts(900, 100)
    drawn = by_posterior(scores, None, labels(45, 5, 10, 40, weights=(1.8, 0.2)))
    assert drawn.mean == pytest.approx(0.9 * 0.9 + 0.1 * 0.2)
    weighted = by_regression(scores, None, labels(45, 5, 10, 40, weights=(1.8, 0.2)))
    assert weighted.mean == pytest.approx(drawn.mean)
    assert weighted.interval == pytest.approx(drawn.interval, abs=0.02)


def test_scores_of_any_kind_are_corrected_by_regression_and_that_is_ppi_with_its_best_power():
    rng = np.random.default_rng(3)
    truth = rng.normal(3, 1, 2000)
    scores = truth + rng.normal(1, 0.5, 2000)
    n = 200
    labelled = [Labelled(f, h) for f, h in zip(scores[:n].tolist(), truth[:n].tolist(), strict=True)]
    found = corrected(scores.tolist(), None, labelled)
    assert found.method == "regression"
    others = scores[n:]
    covariance = np.cov(scores[:n], truth[:n])
    power = covariance[0, 1] / covariance[0, 0] / (1 + n / len(others))
    assert found.mean == pytest.approx(truth[:n].mean() + power * (others.mean() - scores[:n].mean()))
    error = math.sqrt(np.var(truth[:n] - power * scores[:n]) / n + power**2 * np.var(others) / len(others))
    assert found.interval == pytest.approx((found.mean - 1.96 * error, found.mean + 1.96 * error), abs=0.01)
    assert found.interval[0] < 3 < found.interval[1]
    blind = by_regression([0.5] * 2000, None, [Labelled(0.5, h) for h in (0.2, 0.4, 0.9, 0.5)])
    assert blind.mean == pytest.approx(0.5)
    assert (blind.interval[0] >= 0, blind.interval[1] <= 1) == (True, True)


def test_clusters_widen_every_correction():
    scores = verdicts(700, 300)
    units = [index % 20 for index in range(1000)]
    spread = [one._replace(unit=f"c{index // 10}") for index, one in enumerate(labels(60, 10, 6, 24))]
    for method in (by_posterior, by_regression):
        alone, together = method(scores, None, labels(60, 10, 6, 24)), method(scores, units, spread)
        assert together.mean == pytest.approx(alone.mean)
        assert together.interval[1] - together.interval[0] > 1.3 * (alone.interval[1] - alone.interval[0])
    loose = [one._replace(unit=index) for index, one in enumerate(labels(60, 10, 6, 24))]
    assert rates(spread)[0].n < rates(loose)[0].n == pytest.approx(66)


def test_rates_of_another_run_correct_by_rogan_and_gladen():
    hit, correct = rates(labels(90, 20, 10, 80))
    assert [*hit, *correct] == pytest.approx([0.9, 100, 0.8, 100])
    found = by_rates(verdicts(550, 450), None, hit, correct, 200)
    assert found.mean == pytest.approx((0.55 + 0.8 - 1) / 0.7)
    spread = 0.55 * 0.45 / 1000 + found.mean**2 * 0.09 / 100 + (1 - found.mean) ** 2 * 0.16 / 100
    assert found.interval == pytest.approx(
        (found.mean - 1.96 * math.sqrt(spread) / 0.7, found.mean + 1.96 * math.sqrt(spread) / 0.7), abs=0.02
    )
    chance = by_rates(verdicts(550, 450), None, Rate(0.5, 50), Rate(0.5, 50), 100)
    assert (chance.mean, chance.interval) == (None, (0.0, 1.0))
    assert by_rates(verdicts(550, 450), None, hit, Rate(0.5, 0), 100).mean is None


def test_rates_of_labels_drawn_by_verdict_undo_the_draw():
    whole = rates(labels(900, 20, 100, 80))
    drawn = rates(labels(98, 2, 56, 44, weights=(9.2, 1.8)), Rate(920 / 1100, 1100))  # a hundred of each verdict
    for one, other in zip(whole, drawn, strict=True):
        assert one.mean == pytest.approx(other.mean, abs=0.05)
        assert 10 < other.n < one.n


def test_few_labels_of_what_is_rare_are_drawn_where_they_tell_most():
    assert sum(allocation([(0.0, 50), (1.0, 950)], 100)) == 100
    few, many = allocation([(0.0, 50), (1.0, 950)], 100)
    assert few > 10  # five of a hundred would be their share
    assert few + many == 100
    assert allocation([(0.0, 3), (1.0, 5)], 100) == [3, 5]
    assert allocation([(0.0, 100), (0.5, 100), (1.0, 200)], 40) == pytest.approx([10, 10, 20], abs=1)


# --- agreement

RELIABILITY = [  # the example of Krippendorff (2011): four observers, twelve units, some missing
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743421), ("ordinal", 0.815388), ("interval", 0.849107)])
def test_alpha_is_krippendorffs(level, alpha):
    """The figures are Krippendorff's (2011), in more digits by the package krippendorff 0.9.0."""
    units = [{f"r{i}": float(row[unit]) for i, row in enumerate(RELIABILITY) if row[unit] is not None} for unit in range(12)]
    found = agreement(units, level)
    assert (found.units, found.raters) == (11, 4)
    assert found.alpha == pytest.approx(alpha, abs=1e-6)


def test_alpha_is_not_made_up_where_there_is_none():
    assert agreement([{"a": 1.0}, {"b": 0.0}, {}]).problem == "no unit has labels of two raters"
    same = agreement([{"a": 1.0, "b": 1.0}] * 5)
    assert (same.raw, same.alpha) == (1.0, None)
    assert "all labels are the same" in same.problem
    nearly = agreement([{"a": 1.0, "b": 1.0}] * 59 + [{"a": 1.0, "b": 0.0}])
    assert nearly.raw == pytest.approx(59 / 60)
    assert nearly.alpha == pytest.approx(0.0, abs=0.01)


def test_kappa_is_cohens():
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([(1, 1)] * 4) is None
    assert kappa([]) is None
    assert kappa(pairs, [1.0] * 25 + [3.0] * 25) == pytest.approx(kappa(pairs[:25] + pairs[25:] * 3))


# --- strengths


def games(levels, rows, seed=1):
    chance = random.Random(seed)
    return [
        Game(one, other, float(chance.random() < 1 / (1 + math.exp(levels[other] - levels[one]))), f"row {row}")
        for row in range(rows)
        for one, other in itertools.combinations(levels, 2)
    ]


def test_strengths_are_those_of_a_logit():
    played = games({"a": 0.8, "b": 0.0, "c": -0.5}, 60)
    (group,) = bradley_terry(played).groups
    design = np.array([[(game.one == name) - (game.other == name) for name in "ab"] for game in played], dtype=float)
    fit = sm.Logit([game.result for game in played], design).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": [game.unit for game in played], "use_correction": False}
    )
    whole = np.append(fit.params, 0.0)
    found = {one.player: one for one in group}
    assert [found[name].log_odds for name in "abc"] == pytest.approx(whole - whole.mean(), abs=1e-6)
    spread = np.zeros((3, 3))
    spread[:2, :2] = fit.cov_params()
    middle = np.eye(3) - 1 / 3
    errors = np.sqrt(np.diag(middle @ spread @ middle) * 60 / 59)
    reach = [(found[name].interval[1] - found[name].interval[0]) / 2 for name in "abc"]
    assert reach == pytest.approx(errors * stats.t.ppf(0.975, 59), rel=1e-6)
    assert (group[0].player, group[0].games) == ("a", 120)


def test_ties_are_half_a_win_and_equal_players_are_equal():
    (group,) = bradley_terry([Game("a", "b", 0.5), Game("a", "b", 1.0), Game("b", "a", 1.0)]).groups
    assert [one.log_odds for one in group] == pytest.approx([0.0, 0.0])
    assert [one.points for one in group] == [1.5, 1.5]


@pytest.mark.parametrize(
    ("played", "groups", "told"),
    [
        ([("a", "b", 1), ("b", "c", 1), ("c", "b", 1), ("a", "c", 1)], [["b", "c"]], "a won all of its games (2)"),
        ([("a", "b", 1), ("b", "a", 1), ("a", "z", 1)], [["a", "b"]], "z lost all of its games (1)"),
        (
            [("a", "b", 0.5), ("c", "d", 0.5)],
            [["a", "b"], ["c", "d"]],
            "these groups never met, so they cannot be compared: a, b; c, d",
        ),
        ([("a", "b", 0.5), ("c", "d", 0.5), ("a", "c", 1)], [["a", "b"], ["c", "d"]], "a, b won all games against c, d"),
        ([("a", "b", 1), ("b", "c", 1)], [], "b won all games against some players and lost all against the others"),
    ],
)
def test_what_has_no_strength_is_said_and_gets_no_number(played, groups, told):
    found = bradley_terry([Game(one, other, float(result)) for one, other, result in played])
    assert [sorted(one.player for one in group) for group in found.groups] == groups
    assert any(remark.startswith(told) for remark in found.remarks), found.remarks


def test_runs_that_were_compared_in_pairs_have_a_table(in_tmp):
    names = {}
    for name, against, wins in (("base", None, 0), ("good", "base", 30), ("best", "good", 28), ("best2", "base", 40)):
        scoring = {"kind": "pairwise", "against": against} if against else {"kind": "none"}
        rows = [Sample(id=f"r{i}", scores={"pairwise": float(i < wins)} if against else {}) for i in range(40)]
        made = record("runs", rows, config={"scoring": scoring}, name=name)
        names[name] = Run(RunFolder(made))
    (table,) = strengths(list(names.values()), Path("runs")).values()
    (group,) = table.groups
    assert [one.player.partition("/")[0] for one in group] == ["best", "good", "base"]
    assert all(one.interval[0] < one.log_odds < one.interval[1] for one in group)
    assert table.remarks == [
        f"{names['best2'].name} won all of its games (40), so its strength has no upper end; it has no number"
    ]
    assert strengths([names["base"], names["good"]], Path("runs")) == {}
    told = ostinato("compare", "good", "best", "best2")
    assert "strengths by pairwise (Bradley and Terry)" in told.out
    assert "+0." in told.out
    assert "it has no number" in told.out
    assert ostinato("compare", "good", "best", "best2", "--json").json["strengths"]["pairwise"]["groups"][0][0]["points"] == 28.0
