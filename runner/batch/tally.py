"""Keep the running totals of a run, one sample at a time, for the progress display and the summary."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.answers import is_known, warn_of_unknown
from runner.scoring import RowMean
from runner.stats.pass_at import pass_at_k
from runner.types import Held, Sample, Score, Spent, Status, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

    from runner.records.folder import Counted

GROUPS = 10_000
"""The most samples that stand for others that are counted alike."""


class _Failure(NamedTuple):
    """A failure that is being retried. Its scores count until the sample that replaces it is there."""

    status: Status
    code: str
    scores: dict[str, float]
    cluster: str | None


class Tally:
    """Count samples, tokens, dollars and scores. Its size does not depend on the number of samples.

    Args:
        rows: samples of the whole run.
        repeats: samples per row.
        pass_at: the k of pass@k, which is computed of each score for rows whose samples all have it.
    """

    def __init__(self, rows: int, *, repeats: int = 1, pass_at: Sequence[int] = ()) -> None:
        self._pass_at = tuple(pass_at)
        self._passes: dict[str, RowMean] = {}
        self.rows = rows
        self.repeats = repeats
        self.status: Counter[str] = Counter()
        self.unscored: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.messages: dict[str, str] = {}
        self.unknown_endings: Counter[str] = Counter()
        self.cache_hits = 0
        self.requests = 0
        self.retries = 0
        self._used = [0] * len(Usage.__struct_fields__)
        self._used_cached = [0] * len(Usage.__struct_fields__)
        self.known_usd = 0.0
        self.held = Held()
        self.named: dict[str, Spent] = {}
        self._named_usd: dict[str, float] = {}
        self.unpriced = False
        self.saved_usd = 0.0
        self.model_s = 0.0
        self.models: set[str] = set()
        self.judged_by: dict[str, set[str]] = {}
        self.fingerprints: set[str] = set()
        self._scores: dict[str, RowMean] = {}
        self._begun: dict[str, tuple[int, str | None, dict[str, tuple[float, int]]]] = {}
        self._unknown = False
        self.unrecorded = Spent()
        self._again: dict[tuple[str, int], _Failure] = {}
        self._asking_since: float | None = None

    @property
    def done(self) -> int:
        """Samples that need not be asked: those in the record, except failures that are being retried."""
        return self.status.total() - len(self._again)

    @property
    def commonest_error(self) -> str | None:
        """The first message of the most frequent class of failures."""
        return self.messages[self.errors.most_common(1)[0][0]] if self.errors else None

    @property
    def owed(self) -> int:
        """Samples not in the record yet."""
        return max(0, self.rows - self.status.total())

    @property
    def usage(self) -> Usage:
        """Tokens of requests made."""
        return Usage(*self._used)

    @property
    def cost_usd(self) -> float | None:
        """Dollars of requests made; None if the cost of one of them is unknown (`known_usd`: of the others)."""
        return None if self._unknown or self.held.attempts else self.known_usd

    @property
    def counted(self) -> dict[str, Any]:
        """The use that a budget counts: ``usd``, ``tokens`` and ``requests``, with all that is held."""
        tokens = self._used[2] + self.held.tokens
        return {"usd": self.known_usd + self.held.usd, "tokens": tokens, "requests": self.requests}

    @property
    def counted_named(self) -> dict[str, dict[str, Any]]:
        """The same of each named model."""
        return {
            name: {
                "usd": self._named_usd[name] + spent.held.usd,
                "tokens": spent.usage.total_tokens + spent.held.tokens,
                "requests": spent.requests,
            }
            for name, spent in self.named.items()
        }

    @property
    def usage_cached(self) -> Usage:
        """Tokens of answers that came from the cache."""
        return Usage(*self._used_cached)

    def add(self, sample: Sample | Counted, times: int = 1) -> None:
        """Count one sample, or as many that are `alike` but for their ids."""
        if sample.named is not None or sample.judgements is not None:
            self._add_judging(sample)
        failure = self._again.pop((sample.id, sample.repeat), None) if self._again else None
        if failure is not None:
            self.status[failure.status] -= 1
            self.unscored[failure.status] -= not failure.scores
            if failure.status == "error":
                self.errors -= Counter([failure.code])  # drops codes that are down to none
        self._count(sample, times)
        if sample.model_served:
            self.models.add(sample.model_served)
        if not is_known(sample.finish_reason):
            self.unknown_endings[str(sample.finish_reason)] += times
            warn_of_unknown(sample.finish_reason)
        if sample.system_fingerprint:
            self.fingerprints.add(sample.system_fingerprint)
        if sample.cache == "hit":
            self.cache_hits += times
            self.saved_usd += times * (sample.saved_usd or 0.0)
            if sample.usage is not None:
                _add(self._used_cached, sample.usage, times)
        elif failure is None or failure.code != "scoring":  # else its answer is counted already
            self._spend(sample, times)
        if self.repeats > 1:
            self._add_repeat(sample)
        else:
            for name, value in sample.scores.items():
                self._score(name).add(value, 1, sample.cluster, times)

    def alike(self, sample: Sample | Counted) -> tuple[Any, ...] | None:
        """Return what a sample is counted by: samples with the same are counted at once. None: it is counted by itself."""
        if self.repeats > 1 or sample.cluster is not None or sample.error is not None or sample.held is not None:
            return None
        if sample.named is not None or sample.judgements is not None or sample.steps is not None:
            return None
        ending = sample.finish_reason, sample.model_served, sample.system_fingerprint
        money = sample.usage, sample.cost_usd, sample.saved_usd, sample.attempts
        return (sample.status, sample.cache, *ending, *money, *sample.scores.items())

    def _add_judging(self, sample: Sample | Counted) -> None:
        """Count what named models have cost, and note who judged."""
        self._spend_named(sample.named or {})
        for name, one in (sample.judgements or {}).items():
            if one.model is not None:
                self.judged_by.setdefault(name, set()).add(one.model)

    def again(self, sample: Sample | Counted) -> None:
        """Count a failure that is being retried. It stays a failure until the sample that replaces it is added."""
        assert sample.error is not None
        self._again[sample.id, sample.repeat] = _Failure(sample.status, sample.error.code, sample.scores, sample.cluster)
        self._count(sample)
        self._spend_named(sample.named or {})
        if sample.cache != "hit":
            self._spend(sample)

    def superseded(self, sample: Sample | Counted) -> None:
        """Count the cost of a sample that another one has replaced.

        Of a sample whose scoring failed, only that counts: the sample that replaced it has the same answer, and its cost.
        """
        self._spend_named(sample.named or {})
        if sample.cache != "hit" and (sample.error is None or sample.error.code != "scoring"):
            self._spend(sample)

    def charge(self, spent: Spent, model: str | None = None) -> None:
        """Count what was spent on samples that have no line in the record: on the main model, or on a named one."""
        if model is not None:
            self._spend_named({model: spent})
            return
        self.unrecorded += spent
        self.requests += spent.requests
        self.held += spent.held
        _add(self._used, spent.usage)
        self._pay(spent.cost_usd, metered=spent.usage.total_tokens > 0 and not spent.held.attempts)

    def _count(self, sample: Sample | Counted, times: int = 1) -> None:
        self.status[sample.status] += times
        self.unscored[sample.status] += 0 if sample.scores else times
        if sample.error and sample.status == "error":
            self.errors[sample.error.code] += 1
            self.messages.setdefault(sample.error.code, sample.error.message)

    def _spend_named(self, named: Mapping[str, Spent]) -> None:
        for name, spent in named.items():
            self.named[name] = self.named.get(name, Spent()) + spent
            self._named_usd[name] = self._named_usd.get(name, 0.0) + (spent.cost_usd or 0.0)

    def _spend(self, sample: Sample | Counted, times: int = 1) -> None:
        self.requests += sample.attempts * times
        made = 1 if sample.steps is None else sum(step.cache != "hit" for step in sample.steps)
        self.retries += max(0, sample.attempts - made) * times
        if sample.usage is not None:
            _add(self._used, sample.usage, times)
        if sample.held is not None:
            self.held += sample.held
        unanswered = sample.error is not None and sample.status in ("error", "refused") and sample.usage is None
        if sample.cost_usd is not None or not unanswered:
            metered = sample.usage is not None and not (sample.held and sample.held.attempts)
            self._pay(sample.cost_usd, metered=metered, times=times)

    def _pay(self, cost_usd: float | None, *, metered: bool, times: int = 1) -> None:
        """Count the dollars of answers; None is unknown, for lack of a price if their tokens are known (`metered`)."""
        if cost_usd is None:
            self._unknown = True
            self.unpriced = self.unpriced or metered
        else:
            self.known_usd += cost_usd * times

    def _add_repeat(self, sample: Sample | Counted) -> None:
        """Gather the scores of a row until all its repeats are here."""
        seen, _, totals = self._begun.pop(sample.id, (0, None, {}))
        for name, value in sample.scores.items():
            total, count = totals.get(name, (0.0, 0))
            totals[name] = (total + value, count + 1)
        if seen + 1 < self.repeats:
            self._begun[sample.id] = (seen + 1, sample.cluster, totals)
            return
        for name, (total, count) in totals.items():
            self._score(name).add(total, count, sample.cluster)
            if count == self.repeats and total.is_integer():
                self._pass(name, int(total), sample.cluster)

    def _pass(self, name: str, right: int, cluster: str | None) -> None:
        for k in self._pass_at:
            mean = self._passes.setdefault(f"{name}.pass_at_{k}", RowMean())
            mean.add(pass_at_k(self.repeats, min(right, self.repeats), k), 1, cluster)

    def passes(self) -> dict[str, Score]:
        """Return pass@k of each score of 0 and 1, as ``NAME.pass_at_K``, over the rows that are complete."""
        return {name: mean.score() for name, mean in self._passes.items()}

    def _score(self, name: str) -> RowMean:
        found = self._scores.get(name)
        if found is None:
            found = self._scores[name] = RowMean()
        return found

    def scores(self) -> dict[str, Score]:
        """Return mean, standard error, interval and n of each score, clustered by row or by the data's `cluster`.

        Samples without a score do not count.
        """
        rows = self._open_rows()
        names = dict.fromkeys([*self._scores, *(name for _, totals in rows for name in totals)])
        return {
            name: self._score(name).score((*totals[name], cluster) for cluster, totals in rows if name in totals)
            for name in names
        }

    def _open_rows(self) -> list[tuple[str | None, dict[str, tuple[float, int]]]]:
        """Return cluster, sums and numbers of scores of each row that is not complete, or has a failure that is being retried."""
        rows = {row: (cluster, dict(totals)) for row, (_, cluster, totals) in self._begun.items()}
        for (row, _), failure in self._again.items():
            _, totals = rows.setdefault(row, (failure.cluster, {}))
            for name, value in failure.scores.items():
                total, count = totals.get(name, (0.0, 0))
                totals[name] = (total + value, count + 1)
        return list(rows.values())

    def started(self) -> None:
        """Note that requests are in flight from now on."""
        self._asking_since = time.perf_counter()

    def stopped(self) -> None:
        """Note that no request is in flight any more."""
        if self._asking_since is not None:
            self.model_s += time.perf_counter() - self._asking_since
            self._asking_since = None


def _add(totals: list[int], usage: Usage, times: int = 1) -> None:
    totals[0] += usage.prompt_tokens * times
    totals[1] += usage.completion_tokens * times
    totals[2] += usage.total_tokens * times
    totals[3] += usage.cached_tokens * times
    totals[4] += usage.reasoning_tokens * times
    totals[5] += usage.cache_write_tokens * times


def grouped(samples: Iterable[Counted], alike: Callable[[Counted], Hashable | None]) -> Iterator[tuple[Counted, int]]:
    """Yield one of the samples that are alike, and how many these are; others once each. At most `GROUPS` are kept."""
    groups: dict[Hashable, tuple[Counted, int]] = {}
    for sample in samples:
        if (key := alike(sample)) is None:
            yield sample, 1
            continue
        one, times = groups.get(key, (sample, 0))
        groups[key] = one, times + 1
        if len(groups) > GROUPS:
            yield from groups.values()
            groups.clear()
    yield from groups.values()
