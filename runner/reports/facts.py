"""The result of one pass over a run's samples: numbers about all of them, and the bounded selection that the page shows."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from runner.reports.text import LONGEST, cut
from runner.secrets import redact
from runner.stats.stats import quantile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.types import Sample

SAMPLES = 10_000
"""The most samples on one page."""

CHARACTERS = 10_000_000
"""The most characters of prompts and answers on one page: about what a browser filters without a pause."""


_PARTS = 8


class Failure(msgspec.Struct):
    """The samples that failed with one code: how many, and the first of them."""

    code: str
    count: int
    example_id: str
    example: str


class Facts:
    """Numbers about every sample, and the samples to show: all errors first, then the others in the order they were finished.

    Memory is bounded except for eight bytes per score and per latency, so a run of any size can be read.

    Args:
        samples: read once.
        most: samples to keep.
        characters: of text to keep, in all.
    """

    def __init__(self, samples: Iterable[Sample], *, most: int = SAMPLES, characters: int = CHARACTERS) -> None:
        self.status: Counter[str] = Counter()
        self.failures: dict[str, Failure] = {}
        self.scores: dict[str, array[float]] = {}
        self.latencies: array[float] = array("d")
        self.first_tokens: array[float] = array("d")
        self._most, self._characters = most, characters
        self._failed: list[tuple[int, Sample]] = []
        self._others: list[tuple[int, Sample]] = []
        self._used = 0
        self._said: set[int] = set()
        for sample in samples:
            self._count(sample)
            self._keep(sample)
        del self._said
        self.latencies, self.first_tokens = _in_order(self.latencies), _in_order(self.first_tokens)

    @property
    def total(self) -> int:
        """Return the number of samples."""
        return self.status.total()

    @property
    def shown(self) -> list[Sample]:
        """Return the selection: the errors, then the others, both in the order in which they were finished."""
        return [sample for _, sample in self._failed + self._others]

    def quantile(self, share: float) -> float | None:
        """Return the quantile of the answered requests' latency, in seconds; None without any."""
        return quantile(self.latencies, share) if self.latencies else None

    def _count(self, sample: Sample) -> None:
        self.status[sample.status] += 1
        for name, value in sample.scores.items():
            if name not in self.scores:
                self.scores[name] = array("d")
            self.scores[name].append(value)
        if sample.latency_s is not None:
            self.latencies.append(sample.latency_s)
        if sample.first_token_s is not None:
            self.first_tokens.append(sample.first_token_s)
        if sample.status == "error" and sample.error is not None:  # an invalid answer has an error, too, and is scored
            code = sample.error.code
            if code not in self.failures:
                self.failures[code] = Failure(redact(code), 0, redact(sample.id), cut(sample.error.message))
            self.failures[code].count += 1

    def _keep(self, sample: Sample) -> None:
        """Keep the sample while there is room; an error displaces the last of the others."""
        failed = sample.error is not None
        full = len(self._failed) + len(self._others) >= self._most or self._used >= self._characters
        if full and not (failed and self._others):
            return
        if full:
            self._used -= self._others.pop()[0]
        size = self._size(sample)
        self._used += size
        (self._failed if failed else self._others).append((size, sample))

    def _size(self, sample: Sample) -> int:
        """Return the number of characters that the sample adds to the page; messages it shares with others count once."""
        size = len(sample.output or "") + len(sample.error.message if sample.error else "")
        size += len(sample.target) if isinstance(sample.target, str) else 0
        for text in (sample.prompt, *(message.get("content") for message in sample.messages or ())):
            plain = text if isinstance(text, str) else repr(text)
            said = hash(plain)
            if said not in self._said:
                self._said.add(said)
                size += len(plain)
        return min(size, 4 * LONGEST)


def _in_order(times: array[float]) -> array[float]:
    """Sort numbers, of very many an eighth at a time: a list of them takes four times their memory."""
    bounds = sorted(times[:: max(1, len(times) // 1000)])[:: 1000 // _PARTS][1:] if len(times) > SAMPLES else []
    ordered, low = array("d"), -math.inf
    for high in (*bounds, math.inf):
        ordered.extend(sorted([time for time in times if low < time <= high]))
        low = high
    return ordered
