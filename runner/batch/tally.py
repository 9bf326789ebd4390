"""The running totals of a run: fed one sample at a time, asked for at any moment by the progress display and the summary."""

from __future__ import annotations

import time
from collections import Counter

from runner.scoring import summarise_by_row
from runner.types import Sample, Score, Usage


class Tally:
    """Counts, tokens, dollars and scores of the samples so far.

    Args:
        rows: samples the run consists of.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.status: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.messages: dict[str, str] = {}
        self.cache_hits = 0
        self.requests = 0
        self.retries = 0
        self.usage = Usage()
        self.usage_cached = Usage()
        self.cost_usd: float | None = 0.0
        self.saved_usd = 0.0
        self.model_s = 0.0
        self.models: set[str] = set()
        self.fingerprints: set[str] = set()
        self._scores: dict[str, list[tuple[str, float]]] = {}
        self._playing_since: float | None = None

    @property
    def done(self) -> int:
        """Samples in the record."""
        return self.status.total()

    @property
    def commonest_error(self) -> str | None:
        """The first message of the class that most failures are of."""
        return self.messages[self.errors.most_common(1)[0][0]] if self.errors else None

    @property
    def owed(self) -> int:
        """Samples not in the record yet."""
        return max(0, self.rows - self.done)

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        self.status[sample.status] += 1
        if sample.error and sample.status == "error":
            self.errors[sample.error.code] += 1
            self.messages.setdefault(sample.error.code, sample.error.message)
        if sample.model_served:
            self.models.add(sample.model_served)
        if sample.system_fingerprint:
            self.fingerprints.add(sample.system_fingerprint)
        if sample.cache == "hit":
            self.cache_hits += 1
            self.usage_cached += sample.usage or Usage()
            self.saved_usd += sample.saved_usd or 0.0
        else:
            self.requests += sample.attempts
            self.retries += max(0, sample.attempts - 1)
            self.usage += sample.usage or Usage()
            if sample.cost_usd is None and (sample.usage or sample.status != "error"):
                self.cost_usd = None
            elif self.cost_usd is not None:
                self.cost_usd += sample.cost_usd or 0.0
        for name, value in sample.scores.items():
            self._scores.setdefault(name, []).append((sample.id, value))

    def scores(self) -> dict[str, Score]:
        """Mean, standard error (clustered by row) and n of each score. Samples that failed have none, and count for nothing."""
        return {name: summarise_by_row(pairs) for name, pairs in self._scores.items()}

    def started(self) -> None:
        """Requests are in flight from now on."""
        self._playing_since = time.perf_counter()

    def stopped(self) -> None:
        """No request is in flight any more."""
        if self._playing_since is not None:
            self.model_s += time.perf_counter() - self._playing_since
            self._playing_since = None
