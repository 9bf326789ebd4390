"""Expectations of a run: expressions such as ``contains >= 0.8``, judged by the bounds of intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from runner.errors import ConfigError, DataError
from runner.records.outcome import Outcome, Verdict
from runner.scoring import RowMean
from runner.stats.stats import quantile
from runner.wording.numbers import mean
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from runner.types import Corrected, Row, Sample, Score

Sign = Literal[">=", ">", "<=", "<"]

_EXPRESSION = re.compile(r"\s*(.+?)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(%?)\s*")

SHARES: dict[str, str] = {
    "errors": "error",
    "refused": "refused",
    "truncated": "truncated",
    "empty": "empty",
    "invalid": "invalid",
}
"""Shares of samples that can be expected, and the status that each counts. ``invalid``: answers that do not fit the schema."""

LATENCIES: dict[str, float] = {"latency_p50_s": 0.5, "latency_p90_s": 0.9, "latency_p95_s": 0.95, "latency_p99_s": 0.99}
"""Quantiles of the latency of answers that did not come from the cache, in seconds."""

COST = "cost_usd"
"""The cost of the run, in dollars. It has no interval."""

ROWS = "rows"
"""The share of rows that meet the expectations of their own, in the column ``expect.rows``."""

TOO_CLOSE = 100.0
"""More than so many times the rows at hand are not worth an estimate."""


class Expectation(NamedTuple):
    """One expectation: a score or a measure, a sign and a threshold."""

    name: str
    sign: Sign
    threshold: float

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.threshold:g}"

    @property
    def upward(self) -> bool:
        """Return whether more is better."""
        return self.sign in (">=", ">")

    @property
    def of_every_row(self) -> bool:
        """Return whether the threshold is the end of the scale, which only all rows together can reach."""
        return (self.sign, self.threshold) in ((">=", 1.0), ("<=", 0.0))

    def met(self, value: float) -> bool:
        """Return whether a number, taken for exact, is as expected."""
        match self.sign:
            case ">=":
                return value >= self.threshold
            case ">":
                return value > self.threshold
            case "<=":
                return value <= self.threshold
            case "<":
                return value < self.threshold


ALL_ROWS = Expectation(ROWS, ">=", 1.0)
"""The meaning of ``expect.rows`` unless an expression says otherwise: each row meets its own expectations."""


def parse(text: str, scores: Mapping[str, bool], *, where: str = "expect.that", only_scores: bool = False) -> Expectation:
    """Read an expression.

    Args:
        text: such as ``contains >= 0.8``, ``invalid <= 2%`` or ``latency_p95_s < 3``.
        scores: the scores of the run by name, and whether each lies between 0 and 1.
        where: where the expression stands, for the message.
        only_scores: refuse measures of a whole run.

    Raises:
        ConfigError: it is not an expression, there is no such score or measure, or the threshold cannot be reached.
    """
    found = _EXPRESSION.fullmatch(text)
    if found is None:
        raise ConfigError(f"{where}: {text!r} is not an expectation; write a name, a sign and a number, as in 'contains >= 0.8'")
    name, sign, number, percent = found.groups()
    threshold = float(number) / (100 if percent else 1)
    known = [*scores] if only_scores else [*scores, *SHARES, *LATENCIES, COST, ROWS]
    if name not in known:
        raise ConfigError(
            f"{where}: there is no score '{name}'{suggest(name, known) or ';'} there is {', '.join(known) or 'none'}"
        )
    between = scores.get(name, name in SHARES or name == ROWS)
    one: Expectation = Expectation(name, sign, threshold)  # type: ignore[arg-type]
    reachable = between and (0 <= threshold <= 1 and (sign, threshold) not in ((">", 1.0), ("<", 0.0)))
    if (between and not reachable) or (name in (*LATENCIES, COST) and threshold < 0) or not math.isfinite(threshold):
        scale = "between 0 and 1" if between else "0 or more"
        raise ConfigError(f"{where}: '{one}' cannot tell anything: {name} is {scale}" + _hint(one, between=between))
    return one


def _hint(one: Expectation, *, between: bool) -> str:
    return f"; did you mean {one.threshold:g}%?" if between and 1 < one.threshold <= 100 else ""  # noqa: PLR2004


# --- of single rows

Check = Callable[["Row", Mapping[str, float]], "list[str] | None"]
"""Given a row and its scores: the expectations of the row that are not met; None if it has none of its own."""


def of_row(row: Row, column: str, scores: Mapping[str, bool]) -> list[Expectation]:
    """Read what a row expects of its own answer: expressions separated by ``;``, a list of them, or ``{score: at least}``.

    Raises:
        DataError: the row has no such column, or it holds something else.
    """
    if column not in row.fields:
        raise DataError(f"expect.rows: row {row.id!r} has no column '{column}'; it has {', '.join(row.fields)}")
    value = row.fields[column]
    if value is None or value == "":
        return []
    if isinstance(value, str):
        texts: Sequence[Any] = [part for part in value.split(";") if part.strip()]
    elif isinstance(value, Mapping):
        texts = [f"{name} >= {least}" for name, least in value.items()]
    else:
        texts = value if isinstance(value, list) else [value]
    where = f"expect.rows: row {row.id!r}"
    try:
        return [parse(text if isinstance(text, str) else repr(text), scores, where=where, only_scores=True) for text in texts]
    except ConfigError as error:
        raise DataError(str(error)) from None


def checker(column: str, scores: Mapping[str, bool]) -> Check:
    """Return the function that checks the answer to a row against the expectations of that row."""

    def unmet(row: Row, found: Mapping[str, float]) -> list[str] | None:
        wanted = of_row(row, column, scores)
        if not wanted:
            return None
        return [f"{one}: {found[one.name]:g}" for one in wanted if one.name in found and not one.met(found[one.name])]

    return unmet


# --- of a whole run


class Observed:
    """The numbers of a run that are not in its summary: shares of samples, latencies, rows that meet their expectations."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.latencies: list[tuple[str, float, str | None]] = []
        self._statuses: list[tuple[str, str, str | None]] = []
        self._rows: list[tuple[str, float, str | None]] = []
        for sample in samples:
            self._statuses.append((sample.id, sample.status, sample.cluster))
            if sample.unmet is not None and sample.scores:
                self._rows.append((sample.id, float(not sample.unmet), sample.cluster))
            if sample.cache != "hit" and sample.latency_s is not None:
                self.latencies.append((sample.id, sample.latency_s, sample.cluster))

    def share(self, name: str) -> Score:
        """Return the share of samples with this status, or of rows that meet their expectations, with its interval."""
        if name == ROWS:
            return share_of(self._rows)
        return share_of((row, float(status == SHARES[name]), cluster) for row, status, cluster in self._statuses)


def share_of(samples: Iterable[tuple[str, float, str | None]]) -> Score:
    """Summarise numbers between 0 and 1, given as (row id, number, cluster), clustered by row or cluster."""
    rows: dict[str, tuple[float, int, str | None]] = {}
    for row, value, cluster in samples:
        total, count, _ = rows.get(row, (0.0, 0, None))
        rows[row] = (total + value, count + 1, cluster)
    mean = RowMean()
    for total, count, cluster in rows.values():
        mean.add(total, count, cluster)
    return mean.score()


def judge(one: Expectation, scores: Mapping[str, Score], observed: Observed, cost_usd: float | None) -> Outcome:
    """Judge one expectation by the 95 % interval of its number.

    It passes if the whole interval is as expected, and fails if nothing of it is; otherwise the rows are too few to tell. A
    threshold at the end of the scale (``>= 1``, ``<= 0``) is about the rows of this run: it passes if every one is as expected.
    """
    if one.name in scores:
        return _judged(one, scores[one.name])
    if one.name == COST:
        verdict: Verdict = "undecided" if cost_usd is None else "pass" if one.met(cost_usd) else "fail"
        return Outcome(str(one), verdict, cost_usd, n=0, note="the cost is unknown" if cost_usd is None else None)
    if one.name in LATENCIES:
        return _latency(one, observed)
    return _judged(one, observed.share(one.name))


def judge_corrected(one: Expectation, found: Corrected, raw: Score) -> Outcome:
    """Judge an expectation of a score by its mean as corrected for the errors of its judge; the note has the raw one."""
    told = f"as corrected by {found.labels:,} labels; raw {mean(raw.mean, raw.interval)}"
    if found.mean is None:
        return Outcome(str(one), "undecided", None, n=0, note="the judge of this score is no better than chance")
    low, high = found.interval
    first, last = (low, high) if one.upward else (high, low)
    verdict: Verdict = "pass" if one.met(first) else "undecided" if one.met(last) else "fail"
    return Outcome(str(one), verdict, found.mean, found.interval, found.n, note=told)


def with_left_out(one: Expectation, outcome: Outcome, left_out: int, samples: int) -> Outcome:
    """Return the outcome, undecided if the samples in no score could turn it, whatever they would have scored between 0 and 1.

    Manski (1990), "Nonparametric Bounds on Treatment Effects", as `ostinato compare` does it.

    Args:
        one: an expectation of a score that lies between 0 and 1.
        outcome: by the samples that have the score.
        left_out: samples that were asked and are in no score.
        samples: all that were asked.
    """
    if outcome.verdict == "undecided" or not left_out or outcome.interval is None:
        return outcome
    share = (samples - left_out) / samples
    low, high = outcome.interval[0] * share, outcome.interval[1] * share + 1 - share
    end = low if one.upward == (outcome.verdict == "pass") else high
    if one.met(end) == (outcome.verdict == "pass"):
        return outcome
    note = f"but {left_out:,} of {samples:,} samples are in no score, and could turn it"
    return msgspec.structs.replace(outcome, verdict="undecided", note=note)


def _judged(one: Expectation, found: Score) -> Outcome:
    if found.mean is None or not found.n:
        return Outcome(str(one), "undecided", None, n=0, note="no sample could be scored")
    if one.of_every_row and found.interval is not None and 0 <= found.mean <= 1:
        return Outcome(str(one), "pass" if one.met(found.mean) else "fail", found.mean, found.interval, found.n)
    if found.interval is None:
        return Outcome(str(one), "undecided", found.mean, n=found.n, note="one row gives no interval")
    low, high = found.interval
    first, last = (low, high) if one.upward else (high, low)
    if one.met(first):
        return Outcome(str(one), "pass", found.mean, found.interval, found.n)
    if not one.met(last):
        return Outcome(str(one), "fail", found.mean, found.interval, found.n)
    return Outcome(str(one), "undecided", found.mean, found.interval, found.n, more=rows_more(one, found))


def rows_more(one: Expectation, found: Score) -> int | None:
    """Return about how many more rows would decide it if the mean stays as it is; None: too many to say.

    An interval shrinks with the root of the number of rows.
    """
    assert found.mean is not None
    assert found.interval is not None
    gap = found.mean - one.threshold
    reach = found.mean - found.interval[0] if gap > 0 else found.interval[1] - found.mean
    if not gap or (times := (reach / gap) ** 2) > TOO_CLOSE:
        return None
    return max(1, math.ceil(found.n * (times - 1)))


def _latency(one: Expectation, observed: Observed) -> Outcome:
    """Judge a quantile of the latency: it is at most t if the share of answers within t is at least q."""
    q = LATENCIES[one.name]
    if not observed.latencies:
        return Outcome(str(one), "undecided", None, n=0, note="every answer came from the cache")
    within = share_of((row, float(seconds <= one.threshold), cluster) for row, seconds, cluster in observed.latencies)
    share = _judged(Expectation(one.name, "<" if one.upward else ">=", q), within)
    value = quantile(sorted(seconds for _, seconds, _ in observed.latencies), q)
    return Outcome(str(one), share.verdict, value, n=share.n, more=share.more)
