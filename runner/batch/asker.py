"""Turn one row into a sample: format, ask, parse (and ask again), score. The cache or the model answers its requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard

import msgspec

from runner.adapters import Adapter, Formatted, ParseError, Repaired
from runner.answers import Ending, ending_of, spoken, without_thinking
from runner.cache import encoded_params, request_key
from runner.cost.account import Account
from runner.errors import ContentFilterError, DataError, LMError
from runner.scoring.counting import Counting
from runner.scoring.measure import Measure
from runner.stats.seeds import RULE, seed_of
from runner.types import Choice, Completion, Request, Row, RowError, Sample, Spent, Status, Usage

if TYPE_CHECKING:
    from runner.lm.lm import LM
    from runner.scoring import Scorer

Turns: TypeAlias = Generator[Request, Completion, Sample]
SCORED: frozenset[Status] = frozenset({"ok", "truncated", "empty", "invalid"})
"""The statuses of samples that have an answer, which is scored."""
Slot: TypeAlias = tuple[Row, int]
"""A row, and the number of the repeat."""


class Asker:
    """Turn slots (row, repeat) into samples.

    Args:
        lm: the model.
        adapter: prompt in, value out.
        scorers: by name; they see answers, never failures.
        seed: the seed of repeat 0; see `runner.stats.seeds` for the others. None sends no seed.
        retry_empty: how often to ask again after an empty answer (neither text nor a tool call).
        counting: how samples without a whole answer count in the scores.
        answers: of several answers to one request (``n``): score the first, or take the mean, the highest or the lowest score.

    Attributes:
        seed_rule: how the seeds of repeats are derived; a run that has begun keeps its rule.
        keep: called with a slot and what it has spent, before each attempt is sent and after each that has brought no answer.
        check: given a row and the scores of its answer, returns what the row expects and the answer does not meet.
        on_cut: called with what was spent on a slot that stays owed because its conversation was cut off. The sample is not
            recorded.
    """

    def __init__(
        self,
        lm: LM,
        adapter: Adapter,
        scorers: Mapping[str, Scorer],
        *,
        seed: int | None = None,
        retry_empty: int = 0,
        counting: Counting = Counting(),  # noqa: B008 - it is immutable
        answers: Literal["first", "mean", "best", "worst"] = "first",
    ) -> None:
        self.answers = answers
        self.counting = counting
        self._zeros = {name: 0.0 for name, scorer in scorers.items() if not scorer.measures}
        self.lm = lm
        self.adapter = adapter
        self.scorers = scorers
        self.seed = seed
        self.seed_rule = RULE
        self.retry_empty = retry_empty
        self.keep: Callable[[tuple[str, int], Spent], None] | None = None
        self.check: Callable[[Row, Mapping[str, float]], list[str] | None] | None = None
        self.on_cut: Callable[[Spent], None] | None = None
        self._blocks = any(scorer.blocks for scorer in scorers.values())
        self._patterns: dict[int, tuple[Request, bytes]] = {}

    def request(self, formatted: Formatted, repeat: int) -> Request:
        """Make the request of one turn. Everything but the messages is the same for all rows, and made once per repeat."""
        pattern, _ = self._pattern(repeat)
        return Request(
            model=pattern.model,
            model_type=pattern.model_type,
            endpoint=pattern.endpoint,
            messages=formatted.messages,
            prompt=formatted.prompt,
            params=pattern.params,
            rollout=pattern.rollout,
        )

    def _pattern(self, repeat: int) -> tuple[Request, bytes]:
        found = self._patterns.get(repeat)
        if found is None:
            params = self.adapter.params() | ({} if self.seed is None else {"seed": seed_of(self.seed, repeat, self.seed_rule)})
            pattern = self.lm.request(rollout=repeat or None, **params)
            found = self._patterns[repeat] = (pattern, encoded_params(pattern.params))
        return found

    def from_cache(self, slots: Sequence[Slot]) -> list[Sample | None]:
        """Answer slots from the cache alone; None for those that need the model. First turns are looked up in one batch."""
        store = self.lm.store
        if store is None or not store.reads:
            return [None] * len(slots)
        begun = [(turns := self.turns(*slot), *self._first(turns, slot[1])) for slot in slots]
        found = store.get_many([key for _, key, _ in begun if key is not None])
        samples: list[Sample | None] = []
        for turns, first, ended in begun:
            key, sample = first, ended
            while key is not None and (entry := found.get(key) or (store.get(key) if key is not first else None)) is not None:
                completion = Completion.hit(key, entry.response, entry.cost_usd)
                try:
                    key = request_key(turns.send(completion))
                except StopIteration as end:
                    key, sample = None, end.value
            turns.close()
            samples.append(sample)
        return samples

    async def ask(self, slot: Slot) -> Sample:
        """Ask one slot of the model, or of the cache if it has the answer. A failure of this row is returned as its sample.

        Raises:
            LMError: every other slot would fail too (a refused key, a spent quota); the slot is still owed.
            BudgetExceeded: as above.
            CacheError: a miss in replay mode.
        """
        turns, account = self.turns(*slot, scored=not self._blocks), self._account(slot)
        encoded = self._pattern(slot[1])[1]
        try:
            request = next(turns)
            while True:
                try:
                    completion = await self.lm.acomplete(request, account, encoded=encoded)
                except BaseException as error:
                    if not _is_of_row(error):
                        self._cut(account)
                        raise
                    request = turns.throw(error)
                else:
                    request = turns.send(completion)
        except StopIteration as end:
            sample: Sample = end.value
            if self._blocks and sample.status in SCORED:
                await asyncio.to_thread(self.score, sample, slot[0])
            account.close(sample)
            return sample

    def _account(self, slot: Slot) -> Account:
        if (keep := self.keep) is None:
            return Account()
        name = slot[0].id, slot[1]
        return Account(lambda spent: keep(name, spent))

    def _first(self, turns: Turns, repeat: int) -> tuple[str | None, Sample | None]:
        """Return the key of the first request, or the sample of a row that failed before it sent one."""
        try:
            return request_key(next(turns), self._pattern(repeat)[1]), None
        except StopIteration as end:
            return None, end.value

    def _cut(self, account: Account) -> None:
        """Report what the attempts of a conversation have cost that was cut off."""
        if account.spent.requests:
            account.write()
            if self.on_cut is not None:
                self.on_cut(account.spent)

    def _answers(self, completion: Completion) -> list[Choice]:
        """Return the answers as they are parsed, scored and recorded: with thinking parted from them, unless it is kept."""
        response = completion.response
        return (without_thinking(response) if self.lm.split_thinking else response).choices

    def score(self, sample: Sample, row: Row) -> None:
        """Score a sample in place, as far as it counts, and check what its row expects.

        If a scorer fails, that becomes its error, and the answer is kept.
        """
        self._score(sample, row)
        sample.unmet = self.check(row, sample.scores) if self.check is not None and sample.scores else None

    def _score(self, sample: Sample, row: Row) -> None:
        rule = self.counting.rule_of(sample)
        sample.scores, sample.unread = self._zeros.copy() if rule == "zero" else {}, None
        if rule != "score":
            return
        output = sample.output or ""
        if not self.lm.split_thinking:
            output = spoken(output)
        try:
            for name, scorer in self.scorers.items():
                value = self._value(scorer, sample, row, output)
                if value is None:
                    continue
                sample.scores[name] = value
                if not value and not scorer.reads(output, row.target, sample.parsed):
                    sample.unread = [*(sample.unread or ()), name]
        except DataError as error:
            sample.scores, sample.unread = {}, None
            sample.status, sample.error = "error", RowError("scoring", str(error))

    def _value(self, scorer: Scorer, sample: Sample, row: Row, output: str) -> float | None:
        """Return one score; None if the sample has none of this kind."""
        if isinstance(scorer, Measure):
            return scorer.measure(sample, output)
        if self.answers == "first" or not sample.answers:
            return scorer.score(output, row.target, row.fields, sample.parsed)
        values = [scorer.score(text, row.target, row.fields, self._parsed(text)) for text in _texts(sample.answers)]
        if self.answers == "mean":
            return fmean(values)
        return max(values) if self.answers == "best" else min(values)

    def _parsed(self, text: str) -> Any:
        """Return the value in one of several answers; None if there is none."""
        try:
            found = self.adapter.parse(text)
        except ParseError:
            return None
        return found.value if isinstance(found, Repaired) else found

    def turns(self, row: Row, repeat: int, *, scored: bool = True) -> Turns:
        """Hold the conversation of one slot: yield requests, receive their completions, return the sample, perhaps `scored`."""
        sample = Sample(id=row.id, repeat=repeat, target=row.target, model_requested=self.lm.model, cluster=row.cluster)
        try:
            formatted = self.adapter.format(row)
        except DataError as error:
            sample.status, sample.error = "error", RowError("data", str(error))
            return sample
        usage: Usage | None = None
        empty = 0
        while True:
            request = self.request(formatted, repeat)
            sample.messages, sample.prompt = formatted.messages, formatted.prompt
            try:
                completion = yield request
            except LMError as error:
                sample.status = "refused" if isinstance(error, ContentFilterError) else "error"
                sample.attempts += error.attempts
                if sample.cache == "hit":  # the turns before this one cost nothing
                    sample.cache, sample.usage = "miss", None
                sample.error = RowError(error.code, error.message, error.status, error.request_id)
                self.score(sample, row)
                return sample
            usage = _record(sample, completion, usage)
            _say(sample, self._answers(completion), logprobs=bool(request.params.get("logprobs")))
            text = sample.output or ""
            if sample.status == "refused":
                self.score(sample, row)
                return sample
            if sample.status == "empty" and empty < self.retry_empty and completion.cache != "hit":
                empty += 1
                continue
            try:
                sample.parsed = self.adapter.parse(text)
                if isinstance(sample.parsed, Repaired):
                    sample.parsed, sample.repaired = sample.parsed.value, True
            except ParseError as error:
                again = self.adapter.reask(formatted, text, error)
                if again is not None and sample.status in ("ok", "empty"):
                    formatted = again
                    continue
                if sample.status == "ok":
                    sample.status = "invalid"
                sample.error = RowError("invalid", str(error))
            if scored:
                self.score(sample, row)
            return sample


def _texts(answers: list[Choice]) -> list[str]:
    return [spoken(choice.text or "") for choice in answers]


def _record(sample: Sample, completion: Completion, before: Usage | None) -> Usage | None:
    """Write one answer into the sample. Over several turns, tokens and costs add up, and the last answer counts."""
    response = completion.response
    first = sample.request_key is None
    usage = (
        _usage(before, response.usage, paid=(sample.cache != "hit", completion.cache != "hit")) if not first else response.usage
    )
    sample.usage = usage
    sample.cache = completion.cache if first or sample.cache == completion.cache else "miss"
    sample.cost_from = completion.cost_from or sample.cost_from
    sample.cost_usd = _sum(sample.cost_usd, completion.cost_usd, first=first)
    sample.saved_usd = _sum(sample.saved_usd, completion.saved_usd, first=first)
    sample.latency_s = _sum(sample.latency_s, completion.latency_s, first=first)
    sample.attempts += completion.attempts
    sample.first_token_s = completion.first_token_s
    sample.model_served = response.model
    sample.system_fingerprint = response.system_fingerprint
    sample.request_key = completion.key
    sample.started_at = sample.started_at or completion.started_at
    return usage


def _say(sample: Sample, choices: list[Choice], *, logprobs: bool) -> None:
    """Write what was said into the sample: the first answer's, and all of them if there are several."""
    choice = choices[0]
    sample.output = choice.text if choice.text is not None or not choice.tool_calls else _tool_calls(choice.tool_calls)
    sample.finish_reason = choice.finish_reason
    sample.status = status_of(choice.finish_reason, empty=not sample.output)
    sample.reasoning = choice.reasoning
    sample.tool_calls = choice.tool_calls
    sample.logprobs = choice.logprobs if logprobs else None
    sample.answers = None
    if len(choices) > 1:
        sample.answers = choices if logprobs else [msgspec.structs.replace(one, logprobs=None) for one in choices]


def _is_of_row(error: BaseException) -> TypeGuard[LMError]:
    """Return whether only this row has failed."""
    return isinstance(error, LMError) and error.disposition != "stop"


def _usage(before: Usage | None, new: Usage | None, *, paid: tuple[bool, bool]) -> Usage | None:
    """Add the tokens of two turns. If one of them came from the cache, return those of the other, which was paid for."""
    if paid == (False, True) or before is None:
        return new
    return before if paid == (True, False) or new is None else before + new


_STATUSES: dict[Ending, Status] = {"cut": "truncated", "refused": "refused"}


def status_of(finish_reason: str | None, *, empty: bool) -> Status:
    """Return the status of an answer with this finish reason; `empty`: it has neither text nor a tool call."""
    return _STATUSES.get(ending_of(finish_reason), "empty" if empty else "ok")


def _sum(before: float | None, new: float | None, *, first: bool) -> float | None:
    if first:
        return new
    return None if before is None or new is None else before + new


def _tool_calls(calls: list[dict[str, Any]]) -> str:
    return msgspec.json.encode(calls).decode()
