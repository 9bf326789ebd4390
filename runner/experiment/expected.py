"""The expectations of a run: read before anything is asked, judged at its end, or after every row with ``expect.stop_early``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from runner.analysis.expectations import (
    ALL_ROWS,
    ROWS,
    SHARES,
    Observed,
    checker,
    judge,
    judge_corrected,
    of_row,
    parse,
    rows_more,
    with_left_out,
)
from runner.batch.asker import names_of
from runner.errors import ConfigError
from runner.records.outcome import Outcome
from runner.scoring import Python
from runner.stats.sequential import SequentialTest, sequence_interval
from runner.types import Score

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runner.analysis.expectations import Check, Expectation
    from runner.config.schema import RunConfig
    from runner.data import Dataset
    from runner.records.folder import Counted
    from runner.scoring import Scorer
    from runner.types import Corrected, Sample


class Expected:
    """The expectations of a run, by the group `expect` of its config.

    Attributes:
        check: checks one answer against the expectations of its row; None without ``expect.rows``.
        early: the tests of a run that stops when they are decided; None without ``expect.stop_early``.

    Raises:
        ConfigError, DataError: an expectation cannot be read or reached, or cannot be tested while the run is asked.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, scorers: Mapping[str, Scorer]) -> None:
        group = config.expect
        scores = {
            score: not (scorer.measures or isinstance(scorer, Python))
            for name, scorer in scorers.items()
            for score in names_of(name, scorer) or (name,)
        }
        self._bounded = scores
        self._all = [parse(text, scores) for text in group.that]
        if group.rows is None and (lost := next((one for one in self._all if one.name == ROWS), None)):
            raise ConfigError(
                f"expect.that: '{lost}' is about what rows expect: name the column that says it, expect.rows=COLUMN"
            )
        self.check: Check | None = None
        if group.rows is not None:
            self.check = checker(group.rows, scores)
            if not any(of_row(row, group.rows, scores) for row in dataset):  # reads every row, so that each is checked
                raise ConfigError(f"expect.rows: no row has an expectation in the column '{group.rows}'")
        self._rows = group.rows is not None
        self.early: Early | None = None
        if group.stop_early:
            _check_early(config, self._all)
            self.early = Early(self._all, dataset.ids(), config.sampling.repeats)

    def __bool__(self) -> bool:
        return bool(self._all) or self._rows

    def outcomes(
        self,
        scores: Mapping[str, Score],
        samples: Iterable[Sample],
        cost_usd: float | None,
        left_out: tuple[int, int] = (0, 0),
        corrected: Mapping[str, Corrected] | None = None,
    ) -> list[Outcome]:
        """Judge all expectations.

        Args:
            scores: of the run.
            samples: of the run; read once, if they are needed.
            cost_usd: of the run; None: unknown.
            left_out: how many samples are in no score, of how many that were asked.
            corrected: scores that are judged as corrected for the errors of their judge.
        """
        wanted = list(self._all)
        if self._rows and not any(one.name == ROWS for one in wanted):
            wanted.append(ALL_ROWS)
        observed = Observed(samples if any(one.name not in scores for one in wanted) else ())
        found = {}
        for one in wanted:
            outcome = self.early.outcome(one) if self.early else None
            if outcome is None and corrected and one.name in corrected:
                outcome = judge_corrected(one, corrected[one.name], scores[one.name])
            outcome = outcome or judge(one, scores, observed, cost_usd)
            found[str(one)] = with_left_out(one, outcome, *left_out) if self._bounded.get(one.name) else outcome
        return list(found.values())


def _check_early(config: RunConfig, expectations: list[Expectation]) -> None:
    """Refuse what a sequential test cannot decide."""
    if not any(_testable(one) for one in expectations):
        raise ConfigError(
            "expect.stop_early: there is nothing to decide early; add an expectation of a score, such as 'contains >= 0.8'"
        )
    if config.data.cluster is not None:
        raise ConfigError("expect.stop_early: needs rows that are independent, but data.cluster is set; leave one of them out")
    if not config.data.shuffle:
        raise ConfigError("expect.stop_early: the first rows decide, so their order has to be random: add data.shuffle=true")


def _testable(one: Expectation) -> bool:
    return one.name not in ("rows", "cost_usd") and not one.name.startswith("latency_")


class Early:
    """Test expectations while a run is asked, on rows in the order of the data, each with all of its repeats.

    Answers arrive in another order, which depends on how long they are. So a row is counted only when all rows before it are.

    Attributes:
        n: rows counted.
    """

    def __init__(self, expectations: Iterable[Expectation], ids: Iterator[str], repeats: int) -> None:
        self._tests = {one: SequentialTest(one.threshold) for one in expectations if _testable(one)}
        self._values: dict[str, list[float]] = {one.name: [] for one in self._tests}
        self._ids = ids
        self._next = next(ids, None)
        self._repeats = repeats
        self._waiting: dict[str, list[dict[str, float]]] = {}
        self._beyond: set[str] = set()
        self.n = 0

    def add(self, sample: Sample | Counted) -> None:
        """Take a sample, in any order."""
        shares = {name: float(sample.status == status) for name, status in SHARES.items() if name in self._values}
        self._waiting.setdefault(sample.id, []).append({**shares, **sample.scores})
        while self._next is not None and len(self._waiting.get(self._next, ())) >= self._repeats:
            self._count(self._waiting.pop(self._next))
            self._next = next(self._ids, None)

    def _count(self, repeats: list[dict[str, float]]) -> None:
        self.n += 1
        for name, values in self._values.items():
            found = [one[name] for one in repeats if name in one]
            if not found:  # it failed, and is not in the score
                continue
            value = math.fsum(found) / len(found)
            if not 0 <= value <= 1:
                self._beyond.add(name)
                continue
            values.append(value)
            for one, test in self._tests.items():
                if one.name == name:
                    test.add(value)

    @property
    def decided(self) -> bool:
        """Return whether more rows cannot change the verdict: one test has failed, or all have passed."""
        verdicts = [self._verdict(one) for one in self._tests]
        return "fail" in verdicts or set(verdicts) == {"pass"}

    def _verdict(self, one: Expectation) -> str:
        test, values = self._tests[one], self._values[one.name]
        if one.name in self._beyond:
            return "undecided"
        if one.of_every_row:
            return (
                "fail"
                if any(not one.met(value) for value in values)
                else "pass"
                if self._next is None and values
                else "undecided"
            )
        passed, failed = (test.above, test.below) if one.upward else (test.below, test.above)
        return "pass" if passed else "fail" if failed else "undecided"

    def outcome(self, one: Expectation) -> Outcome | None:
        """Return the outcome of a tested expectation so far; None for others."""
        if one not in self._tests or one.name in self._beyond:
            return None
        found = self.score(one.name)
        verdict = self._verdict(one)
        more = rows_more(one, found) if verdict == "undecided" and found.interval else None
        return Outcome(str(one), verdict, found.mean, found.interval, found.n, more=more)  # type: ignore[arg-type]

    def score(self, name: str) -> Score:
        """Return the score of the rows counted. Its interval holds whenever the run stops: see `sequence_interval`."""
        values = self._values[name]
        if not values:
            return Score(None, None, 0)
        return Score(math.fsum(values) / len(values), None, len(values), sequence_interval(values))

    def intervals(self, scores: Mapping[str, Score]) -> dict[str, Score]:
        """Return `scores`, where tested ones have an interval that holds whenever the run stops."""
        held = {name: self.score(name).interval for name in self._values if name in scores and name not in self._beyond}
        return {name: msgspec.structs.replace(one, interval=held[name]) if name in held else one for name, one in scores.items()}
