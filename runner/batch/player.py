"""One row, once: format, ask, parse (and ask again), score. A generator of requests, driven by the cache or by the model."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from runner.adapters import Adapter, Formatted, ParseError
from runner.cache import request_key
from runner.errors import BadRequestError, DataError, LMError
from runner.types import Completion, Request, Row, RowError, Sample, Status, Usage

if TYPE_CHECKING:
    from runner.lm import LM
    from runner.scoring import Scorer

Turns: TypeAlias = Generator[Request, Completion, Sample]
Slot: TypeAlias = tuple[Row, int]
"""A row and which of its repeats."""


class Player:
    """Plays slots (row, repeat) to samples.

    Args:
        lm: the model.
        adapter: prompt in, value out.
        scorers: by name; they see answers, never failures.
        seed: repeat r is sent ``seed + r``; None sends no seed.
    """

    def __init__(self, lm: LM, adapter: Adapter, scorers: Mapping[str, Scorer], *, seed: int | None = None) -> None:
        self.lm = lm
        self.adapter = adapter
        self.scorers = scorers
        self.seed = seed
        self._params = adapter.params()

    def request(self, formatted: Formatted, repeat: int) -> Request:
        """The request of one turn."""
        params = self._params if self.seed is None else {**self._params, "seed": self.seed + repeat}
        return self.lm.request(messages=formatted.messages, prompt=formatted.prompt, rollout=repeat or None, **params)

    def from_cache(self, slots: Iterable[Slot]) -> list[tuple[Slot, Sample | None]]:
        """Play slots from the cache alone; None for those that need the model. First turns are looked up in one batch."""
        store = self.lm.store
        opened = [(slot, self._turns(*slot)) for slot in slots]
        if store is None or not store.reads:
            return [(slot, None) for slot, _ in opened]
        played: list[tuple[Slot, Sample | None]] = []
        keyed = [(slot, turns, *_first(turns)) for slot, turns in opened]
        found = store.get_many([key for _, _, key, _ in keyed if key])
        for slot, turns, first, ended in keyed:
            if first is None:
                played.append((slot, ended))
                continue
            key, sample = first, None
            while (entry := found.get(key) or store.get(key)) is not None:
                completion = Completion.hit(key, entry.response, entry.cost_usd)
                try:
                    key = request_key(turns.send(completion))
                except StopIteration as end:
                    sample = end.value
                    break
            turns.close()
            played.append((slot, sample))
        return played

    async def ask(self, slot: Slot) -> Sample:
        """Play one slot with the model (and the cache, where it knows an answer). Failures of this row come back as its sample.

        Raises:
            LMError: it would meet every other slot too (a refused key, a spent quota); the slot is still owed.
            BudgetExceeded: as above.
            CacheError: a miss in replay mode.
        """
        turns = self._turns(*slot)
        try:
            request = next(turns)
            while True:
                try:
                    completion = await self.lm.acomplete(request)
                except LMError as error:
                    if error.disposition == "stop" and not isinstance(error, BadRequestError):  # a bad request may be this row's
                        raise
                    request = turns.throw(error)
                else:
                    request = turns.send(completion)
        except StopIteration as end:
            sample: Sample = end.value
            return sample

    def score(self, sample: Sample, row: Row) -> None:
        """Score an answer in place; what a scorer cannot judge is the sample's error, and its answer is kept."""
        sample.scores = {}
        try:
            for name, scorer in self.scorers.items():
                sample.scores[name] = scorer.score(sample.output or "", row.target, row.fields, sample.parsed)
        except DataError as error:
            sample.scores = {}
            sample.status, sample.error = "error", RowError("scoring", str(error))

    def _turns(self, row: Row, repeat: int) -> Turns:
        sample = Sample(id=row.id, repeat=repeat, target=row.target, model_requested=self.lm.model)
        try:
            formatted = self.adapter.format(row)
        except DataError as error:
            sample.status, sample.error = "error", RowError("data", str(error))
            return sample
        usage: Usage | None = None
        while True:
            request = self.request(formatted, repeat)
            sample.messages, sample.prompt = formatted.messages, formatted.prompt
            try:
                completion = yield request
            except LMError as error:
                sample.status = "error"
                sample.attempts += error.attempts
                sample.cache = "miss" if sample.cache == "hit" else sample.cache
                sample.error = RowError(error.code, error.message, error.status, error.request_id)
                return sample
            usage = _record(sample, completion, usage)
            text = sample.output or ""
            if sample.status == "refused":
                return sample
            try:
                sample.parsed = self.adapter.parse(text)
            except ParseError as error:
                again = self.adapter.reask(formatted, text, error)
                if again is not None and sample.status == "ok":
                    formatted = again
                    continue
                if sample.status == "ok":
                    sample.status = "invalid"
                sample.error = RowError("invalid", str(error))
            self.score(sample, row)
            return sample


def _record(sample: Sample, completion: Completion, before: Usage | None) -> Usage | None:
    """Write one answer into the sample; of several turns, tokens and costs add up and the last text counts."""
    response, choice = completion.response, completion.response.choices[0]
    first = before is None
    usage = (
        _usage(before, response.usage, paid=(sample.cache != "hit", completion.cache != "hit")) if not first else response.usage
    )
    sample.output = choice.text if choice.text is not None or not choice.tool_calls else _tool_calls(choice.tool_calls)
    sample.finish_reason = choice.finish_reason
    sample.status = status_of(choice.finish_reason)
    sample.usage = usage
    sample.cache = completion.cache if first or sample.cache == completion.cache else "miss"
    sample.cost_usd = _sum(sample.cost_usd, completion.cost_usd, first=first)
    sample.saved_usd = _sum(sample.saved_usd, completion.saved_usd, first=first)
    sample.latency_s = _sum(sample.latency_s, completion.latency_s, first=first)
    sample.attempts += completion.attempts
    sample.model_served = response.model
    sample.system_fingerprint = response.system_fingerprint
    sample.request_key = completion.key
    sample.started_at = sample.started_at or completion.started_at
    return usage


def _usage(before: Usage | None, new: Usage | None, *, paid: tuple[bool, bool]) -> Usage | None:
    """Tokens of two turns; where one of them came from the cache, those of the other, which was paid for."""
    if paid == (False, True) or before is None:
        return new
    return before if paid == (True, False) or new is None else before + new


def status_of(finish_reason: str | None) -> Status:
    """The status of an answer that ended for this reason."""
    if finish_reason == "length":
        return "truncated"
    return "refused" if finish_reason in ("content_filter", "refusal") else "ok"


def _sum(before: float | None, new: float | None, *, first: bool) -> float | None:
    if first:
        return new
    return None if before is None or new is None else before + new


def _tool_calls(calls: list[dict[str, Any]]) -> str:
    return msgspec.json.encode(calls).decode()


def _first(turns: Turns) -> tuple[str | None, Sample | None]:
    """The key of the first request, or the sample of a row that ended before it asked anything."""
    try:
        return request_key(next(turns)), None
    except StopIteration as end:
        return None, end.value
