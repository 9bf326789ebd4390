"""The summary of a run: its counts, scores, tokens, cost and time."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from runner.records.outcome import Outcome
from runner.types import Corrected, Held, Score, Spent, Usage
from runner.wording.numbers import corrected, count, dollars, listed, score_in_full, seconds
from runner.wording.statuses import counted

RunStatus = Literal["running", "complete", "incomplete", "failed", "interrupted"]

_OTHERS = ("refused", "truncated", "empty", "invalid", "owed")
_COUNTS = {"error": "errors", "refused": "refused", "truncated": "truncated", "empty": "empty", "invalid": "invalid"}

_WORTH_TELLING_S = 0.1

ENOUGH = 0.9
"""The least share of its samples that a run must have scored to be ranked with others: fewer may be a lucky choice."""


class Summary(msgspec.Struct, kw_only=True):
    """The numbers of a run. Counts are of samples (rows × repeats); unknown is None, never zero.

    Attributes:
        rows: samples of the run: `ok` + `errors` + `refused` + `truncated` + `empty` + `invalid` + `owed`.
        empty: answers with neither text nor a tool call.
        unknown_endings: finish reasons whose meaning is not known, and how many samples have each. They count as complete.
        usage: tokens of requests made; `usage_cached`: those of answers from the cache.
        unrecorded: the part of `requests`, `usage` and `cost_usd` that was spent on samples which have no line in the record:
            their conversations were cut off between two turns, or their failure would have hit every row.
        cost_usd: what the requests cost; None when the cost of one is unknown. `saved_usd`: what the cache's answers had cost.
        cost_known_usd: what those requests cost whose cost is known.
        held: bounds of what attempts may have used that brought no answer, or one without usage. Budgets count them as used.
        priced: whether the price of the model is known, or its answers name their cost.
        expectations: what became of the expectations of the run (the group `expect`).
        stopped_early: whether the rows that are owed were not asked because the verdict was certain without them.
        wall_s: seconds from start to end, over all sittings of the run.
        model_s: seconds in which requests were in flight; `tokens_per_s` is completion tokens over these.
        named: what was spent on named models (a judge, models of a scorer), by name. It is not in the numbers above.
        scoring_s: what scorers of your own and judges cost in time, by name: seconds, summed over the samples.
        left_out: samples that are in no score, by status; None: an earlier version has not recorded it (see `unscored`).
        corrected: scores corrected for the errors of their judge, by labels of this run's answers or by a calibration.
        calibration: the remarks on it: how the judge of this run differs from the one that was calibrated, for example.
    """

    run: str
    name: str
    model: str
    status: RunStatus
    rows: int = 0
    ok: int = 0
    errors: int = 0
    refused: int = 0
    truncated: int = 0
    empty: int = 0
    invalid: int = 0
    owed: int = 0
    cache_hits: int = 0
    requests: int = 0
    scores: dict[str, Score] = {}
    usage: Usage = Usage()
    usage_cached: Usage = Usage()
    cost_usd: float | None = None
    saved_usd: float | None = None
    wall_s: float = 0.0
    model_s: float = 0.0
    tokens_per_s: float | None = None
    errors_by_code: dict[str, int] = {}
    unrecorded: Spent = Spent()
    unknown_endings: dict[str, int] = {}
    held: Held = Held()
    cost_known_usd: float = 0.0
    priced: bool = False
    problem: str | None = None
    left_out: dict[str, int] | None = None
    expectations: list[Outcome] = []
    stopped_early: bool = False
    named: dict[str, Spent] = {}
    scoring_s: dict[str, float] = {}
    corrected: dict[str, Corrected] = {}
    calibration: list[str] = []

    @property
    def unscored(self) -> dict[str, int]:
        """Samples in the record that are in no score, by status; none if nothing is scored."""
        if not self.scores:
            return {}
        found = {"error": self.errors, "refused": self.refused} if self.left_out is None else self.left_out
        return {status: count for status, count in found.items() if count}

    @property
    def scored(self) -> int | None:
        """Samples that are in the scores; None if nothing is scored."""
        return self.rows - self.owed - sum(self.unscored.values()) if self.scores else None

    @property
    def is_ranked(self) -> bool:
        """Return whether enough samples are scored to compare the mean with that of other runs."""
        return bool(self.scored) and (self.scored or 0) >= ENOUGH * self.rows

    def stands_on(self) -> str:
        """Say what the scores stand on: how many samples, what is left out, and which scored answers are not whole."""
        left = self.unscored | ({"owed": self.owed} if self.owed else {})
        unusual = {status: getattr(self, name) - left.get(status, 0) for status, name in _COUNTS.items()}
        told = [f"{self.scored or 0:,} of {self.rows:,} samples"]
        for heading, counts in (("left out", left), ("among them", unusual)):
            if told_of := counted(counts):
                told.append(f"{heading}: {told_of}")
        return "; ".join(told)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, every field present, every kind of token counted."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))  # `to_builtins` leaves tuples
        for name in ("usage", "usage_cached"):
            plain[name] = {field: getattr(getattr(self, name), field) for field in Usage.__struct_fields__}
        plain["scored"] = self.scored
        if self.named:
            plain["named"] = {name: _in_full(spent) for name, spent in self.named.items()}
        for name in ("named", "scoring_s"):  # a plain run has neither
            if not plain[name]:
                del plain[name]
        return plain

    def table(self) -> list[dict[str, Any]]:
        """Return two columns for people, ``measure`` and ``value``, as the terminal and Prefect's artifact show them."""
        lines: list[tuple[str, str]] = [("model", self.model), ("rows", f"{self.rows:,}"), ("ok", f"{self.ok:,}")]
        lines.append(("errors", f"{self.errors:,}{listed(self.errors_by_code)}"))
        lines += [(name, f"{count:,}") for name in _OTHERS if (count := getattr(self, name))]
        if self.unknown_endings:
            lines.append(("unknown endings", f"{sum(self.unknown_endings.values()):,}{listed(self.unknown_endings)}"))
        for name, score in self.scores.items():
            lines.append((f"score {name}", score_in_full(score)))
            if one := self.corrected.get(name):
                lines.append((f"corrected {name}", corrected(one)))
        lines += [(f"expected {one.expected}", str(one)) for one in self.expectations]
        share = f" ({self.cache_hits / self.rows:.0%})" if self.rows else ""
        if self.scores:
            lines.append(("scores stand on", self.stands_on()))
        lines.append(("cache hits", f"{self.cache_hits:,}{share}"))
        lines.append(("requests", f"{self.requests:,}"))
        tokens = f"{self.usage.prompt_tokens:,} in, {self.usage.completion_tokens:,} out"
        lines.append(("tokens", tokens if self.requests else "none sent"))
        if self.usage.cached_tokens and self.model.startswith("local/"):
            evaluated = self.usage.prompt_tokens - self.usage.cached_tokens
            lines.append(("evaluated", f"{evaluated:,} prompt tokens, {evaluated / self.requests:,.1f} per request"))
        if self.tokens_per_s is not None:
            lines.append(("tokens/s", f"{self.tokens_per_s:,.0f}"))
        lines.append(("cost", self._cost()))
        lines += [(f"model {name}", _said(spent)) for name, spent in self.named.items()]
        lines += [(f"time of {name}", seconds(spent)) for name, spent in self.scoring_s.items() if spent >= _WORTH_TELLING_S]
        lines.append(("time", seconds(self.wall_s)))
        return [{"measure": measure, "value": value} for measure, value in lines]

    def _cost(self) -> str:
        if self.model.startswith(("local/", "fake/")):
            return "none (this machine)"
        saved = f" ({dollars(self.saved_usd)} saved by the cache)" if self.saved_usd else ""
        return self.cost_in_words() + saved

    def cost_in_words(self) -> str:
        """Return the dollars that the requests cost; if that is unknown, why, and its bounds."""
        if self.cost_usd is not None:
            return dollars(self.cost_usd)
        if not self.priced:
            return "unknown (no price for this model)"
        least, count = self.cost_known_usd, self.held.attempts
        if not count:
            return "unknown (answers without token counts)"
        bounds = [f"at least {dollars(least)}"] if least else []
        bounds += [f"at most {dollars(least + self.held.usd)}"] if self.held.usd else []
        return f"{' and '.join(bounds) or 'unknown'} (unknown for {count:,} of {self.requests:,} requests)"


def _in_full(spent: Spent) -> dict[str, Any]:
    """Return what was spent on a named model as plain JSON data, every kind of token counted."""
    usage = {field: getattr(spent.usage, field) for field in Usage.__struct_fields__}
    return {"requests": spent.requests, "usage": usage, "cost_usd": spent.cost_usd, "held": msgspec.to_builtins(spent.held)}


def _said(spent: Spent) -> str:
    """Say what was spent on a named model."""
    tokens = f"{spent.usage.prompt_tokens:,} tokens in, {spent.usage.completion_tokens:,} out"
    cost = "cost unknown" if spent.cost_usd is None or spent.held.attempts else dollars(spent.cost_usd)
    return f"{count(spent.requests, 'request')}, {tokens}, {cost}"
