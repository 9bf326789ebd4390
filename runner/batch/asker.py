"""Turn one row into a sample: format, ask, parse (and ask again), score. The cache or the model answers its requests."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from runner.adapters import Adapter, Formatted, ParseError, Repaired, conversation_of
from runner.answers import spoken, without_thinking
from runner.batch.asking import Clock, Models, NotKnown, in_cache, in_own_loop
from runner.batch.entries import fail, record, say
from runner.cache import encoded_params, request_key
from runner.cost.account import Account
from runner.errors import DataError, LMError, is_of_row
from runner.scoring.calls import Calls
from runner.scoring.counting import Counting
from runner.scoring.measure import Measure
from runner.scoring.targets import Asked, Verdict
from runner.secrets import redact
from runner.stats.seeds import RULE, seed_of
from runner.types import Choice, Completion, Request, Row, RowError, Sample, Spent, Status, Usage

if TYPE_CHECKING:
    from runner.batch.asking import Known
    from runner.batch.solving import Solving
    from runner.cache import Cache
    from runner.cost.account import Keep
    from runner.lm.lent import Patterns
    from runner.lm.lm import LM
    from runner.scoring import Scorer
    from runner.solvers import Look, Solver

Turns: TypeAlias = Generator[Request, Completion, Sample]
SCORED: frozenset[Status] = frozenset({"ok", "truncated", "empty", "invalid"})
"""The statuses of samples that have an answer, which is scored."""
Slot: TypeAlias = tuple[Row, int]
"""A row, and the number of the repeat."""


class Answered(NamedTuple):
    """An answer that scorers have yet to judge.

    Attributes:
        row: the row that it answers.
        sample: the answer.
        account: what was spent on the slot.
        is_new: whether it was asked now; else it is in the record, with what it has cost.
    """

    row: Row
    sample: Sample
    account: Account
    is_new: bool = True


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
        named: the models that scorers and solvers ask beside the main one, by name.
        asks: whether scorers ask models, so that answers and judgements are asked side by side.
        answered: samples, by slot, whose answer is known and has to be scored only; each is used once.
        asks_model: whether an answer of the model was missing in `from_cache`; without one, only scorers have to ask.
        clock: what scorers cost in time, of those that tell.
        solving: answers rows by a solver; None asks once, and again as the adapter wants (`solve_with`).
        seed_rule: how the seeds of repeats are derived; a run that has begun keeps its rule.
        keep: called with a slot, what it has spent, and on which named model (None: the main one), before each attempt is sent
            and after each that has brought no answer.
        check: given a row and the scores of its answer, returns what the row expects and the answer does not meet.
        missing_since: when the cache was found to lack the first requests of slots (see `Cache.get`); None: nobody has looked.
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
        self.named: Mapping[str, LM] = {}
        self.solving: Solving | None = None
        self.answers = answers
        self.counting = counting
        self._zeros = {
            score: 0.0 for name, scorer in scorers.items() if not scorer.measures for score in names_of(name, scorer) or (name,)
        }
        self.lm = lm
        self.adapter = adapter
        self.scorers = scorers
        self.seed = seed
        self.seed_rule = RULE
        self.retry_empty = retry_empty
        self.keep: Callable[[tuple[str, int], Spent, str | None], None] | None = None
        self.check: Callable[[Row, Mapping[str, float]], list[str] | None] | None = None
        self.on_cut: Callable[[Spent, str | None], None] | None = None
        self.answered: dict[tuple[str, int], Sample] = {}
        self.asks_model = False
        self.clock = Clock()
        self.asks = any(scorer.asks for scorer in scorers.values())
        self._blocks = any(scorer.blocks for scorer in scorers.values())
        self._conversation = conversation_of(adapter)
        self._patterns: dict[int, tuple[Request, bytes]] = {}
        self._named_patterns: dict[str, Patterns] = {}
        self.missing_since: int | None = None
        self._partly_known = False

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
            pattern = self.lm.request(rollout=repeat or None, **self.adapter.params(), **self._seeded(repeat))
            found = self._patterns[repeat] = (pattern, encoded_params(pattern.params))
        return found

    def _seeded(self, repeat: int) -> dict[str, Any]:
        return {} if self.seed is None else {"seed": seed_of(self.seed, repeat, self.seed_rule)}

    def solve_with(self, solver: Solver) -> None:
        """Have a solver answer the rows, in place of asking once, and again as the adapter wants."""
        from runner.batch.solving import Solving

        self.solving = Solving(solver, self.lm, self.adapter, self._seeded)

    def from_cache(self, slots: Sequence[Slot]) -> list[Sample | None]:
        """Answer slots from the cache alone; None for those that need the model. First turns are looked up in one batch."""
        store = self.lm.store
        if store is None or not store.reads:
            samples: list[Sample | None] = [None] * len(slots)
        elif self.solving is None:
            samples = self._turned(store, slots)
        else:
            samples = in_own_loop(self._solved(self.solving, store, slots))
        if not self.asks_model:
            unknown = (slot for slot, sample in zip(slots, samples, strict=True) if sample is None)
            self.asks_model = any((row.id, repeat) not in self.answered for row, repeat in unknown)
        if self.asks and any(sample is not None for sample in samples):
            return in_own_loop(self._judged_from_cache([slot[0] for slot in slots], samples))
        return samples

    def _turned(self, store: Cache, slots: Sequence[Slot]) -> list[Sample | None]:
        if self._conversation is not None:
            self._conversation.prepare(row for row, _ in slots)
        if self.missing_since is None:
            self.missing_since = store.changes()
        begun = [(turns := self.turns(*slot, scored=not self.asks), *self._first(turns, slot[1])) for slot in slots]
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
            self._partly_known = self._partly_known or (sample is None and first in found)
        return samples

    async def _solved(self, solving: Solving, store: Cache, slots: Sequence[Slot]) -> list[Sample | None]:
        samples = [await solving.known(slot, store, self.named) for slot in slots]
        for sample, slot in zip(samples, slots, strict=True):
            if sample is not None and not self.asks and sample.status in SCORED:
                self.score(sample, slot[0])
        return samples

    async def _judged_from_cache(self, rows: Sequence[Row], samples: Sequence[Sample | None]) -> list[Sample | None]:
        """Score samples by judgements that the cache has; None for those that need a judge."""
        look = in_cache(self.named)
        return [
            sample if sample is not None and await self.score_known(sample, row, look) else None
            for row, sample in zip(rows, samples, strict=True)
        ]

    async def score_known(self, sample: Sample, row: Row, look: Known) -> bool:
        """Score a sample in place by what models have answered before. Return False if `look` lacks one of these answers."""
        try:
            await self.ascore(sample, row, Models.known(self.named, look))
        except NotKnown:
            return False
        return True

    async def ask(self, slot: Slot) -> Sample:
        """Ask one slot of the model, or of the cache if it has the answer. A failure of this row is returned as its sample.

        Raises:
            LMError: every other slot would fail too (a refused key, a spent quota); the slot is still owed.
            BudgetExceeded: as above.
            CacheError: a miss in replay mode.
        """
        answered = await self.answer(slot)
        sample = await self.judge(answered) if self.asks else answered.sample
        self.settle()
        return sample

    def settle(self) -> None:
        """Have the cache store the answers that `answer` has brought. Raises CacheError."""
        if self.lm.store is not None:
            self.lm.store.settle()

    async def judge(self, answered: Answered) -> Sample:
        """Have an answer scored by scorers that ask models. Raises as `ask`."""
        sample, account = answered.sample, answered.account
        try:
            if sample.status in SCORED:
                await self.ascore(sample, answered.row, Models.sending(self.named, account, self._named_patterns))
        except BaseException:
            self._cut(account)
            raise
        if answered.is_new:
            account.close(sample)
        else:
            account.close_named(sample)
        return sample

    async def answer(self, slot: Slot) -> Answered:
        """Do as `ask`, but leave the scores to `judge` if scorers ask models, and storing what was answered to `settle`."""
        if self.answered and (known := self.answered.pop((slot[0].id, slot[1]), None)) is not None:
            return Answered(slot[0], known, self._account(slot), is_new=False)
        if self.solving is not None:
            return await self._solve(slot, self.solving)
        if self._conversation is not None:
            await asyncio.to_thread(self._conversation.prepare, [slot[0]])
        turns, account = self.turns(*slot, scored=not (self._blocks or self.asks)), self._account(slot)
        partly_known = self._partly_known or self.asks  # so that the first answer may be there although the slot is owed
        encoded, missing_since = self._pattern(slot[1])[1], None if partly_known else self.missing_since
        acomplete = self.lm.acomplete
        try:
            request = next(turns)
            while True:
                try:
                    completion = await acomplete(request, account, encoded=encoded, missing_since=missing_since, stored=False)
                except BaseException as error:
                    if not is_of_row(error):
                        self._cut(account)
                        raise
                    request = turns.throw(error)
                else:
                    request, missing_since = turns.send(completion), None
        except StopIteration as end:
            sample: Sample = end.value
            if not self.asks:
                if self._blocks and sample.status in SCORED:
                    await asyncio.to_thread(self.score, sample, slot[0])
                account.close(sample)
            return Answered(slot[0], sample, account)

    async def _solve(self, slot: Slot, solving: Solving) -> Answered:
        steps = solving.steps(slot[1], self.named, keep=self._keeper(slot))
        try:
            sample = await solving.play(slot, steps)
        except BaseException:
            self._cut(steps.account())
            raise
        account = steps.account()
        if not self.asks:
            if sample.status in SCORED:
                await asyncio.to_thread(self.score, sample, slot[0]) if self._blocks else self.score(sample, slot[0])
            account.close(sample)
        return Answered(slot[0], sample, account)

    def replay(self, slot: Slot, look: Look, named: Known | None = None) -> Sample | None:
        """Return the scored sample of a slot, from answers that are known; None if one of them is not.

        Args:
            slot: the row and its repeat.
            look: looks up what the model has answered.
            named: looks up what named models have answered; None: nothing is known of them.
        """
        if self.solving is not None or self.asks:
            return in_own_loop(self._replayed(slot, look, named or (lambda _name, _request: None)))
        return self._played(slot, look)

    def _played(self, slot: Slot, look: Look) -> Sample | None:
        turns = self.turns(*slot, scored=not self.asks)
        try:
            request = next(turns)
            while (entry := look(request)) is not None:
                request = turns.send(Completion.hit(request_key(request), entry.response, entry.cost_usd))
        except StopIteration as end:
            sample: Sample = end.value
            return sample
        turns.close()
        return None

    async def _replayed(self, slot: Slot, look: Look, named: Known) -> Sample | None:
        sample = self._played(slot, look) if self.solving is None else await self.solving.known(slot, look, self.named)
        if sample is not None and sample.status in SCORED:
            if self.asks:
                return sample if await self.score_known(sample, slot[0], named) else None
            self.score(sample, slot[0])
        return sample

    def _account(self, slot: Slot) -> Account:
        return Account(self._keeper(slot))

    def _keeper(self, slot: Slot) -> Keep | None:
        return None if self.keep is None else functools.partial(self.keep, (slot[0].id, slot[1]))

    def _first(self, turns: Turns, repeat: int) -> tuple[str | None, Sample | None]:
        """Return the key of the first request, or the sample of a row that failed before it sent one."""
        try:
            return request_key(next(turns), self._pattern(repeat)[1]), None
        except StopIteration as end:
            return None, end.value

    def _cut(self, account: Account) -> None:
        """Report what the attempts of a conversation have cost that was cut off."""
        for name, one in ((None, account), *(account.named or {}).items()):
            if one.spent.requests:
                one.write()
                if self.on_cut is not None:
                    self.on_cut(one.total, name)

    def _answers(self, completion: Completion) -> list[Choice]:
        """Return the answers as they are parsed, scored and recorded: with thinking parted from them, unless it is kept."""
        response = completion.response
        return (without_thinking(response) if self.lm.split_thinking else response).choices

    def score(self, sample: Sample, row: Row) -> None:
        """Score a sample in place, as far as it counts, and check what its row expects.

        If a scorer fails, that becomes its error, and the answer is kept.
        """
        if (output := self._to_score(sample)) is not None:
            try:
                for name, scorer in self.scorers.items():
                    since = time.perf_counter() if scorer.timed else 0.0
                    self._enter(sample, row, output, name, self._value(scorer, sample, row, output))
                    if scorer.timed:
                        self.clock.add(name, since)
            except DataError as error:
                _not_scored(sample, error)
        sample.unmet = self.check(row, sample.scores) if self.check is not None and sample.scores else None

    async def ascore(self, sample: Sample, row: Row, models: Models) -> None:
        """Do as `score`, with scorers that ask models, or that take so long that a thread has to run them.

        Raises:
            LMError, BudgetExceeded, CacheError: no other answer could be scored either.
        """
        if (output := self._to_score(sample)) is not None:
            try:
                for name, scorer in self.scorers.items():
                    since = time.perf_counter() if scorer.timed else 0.0
                    value: float | Verdict | None
                    if scorer.asks:
                        texts = [output] if self.answers == "first" or not sample.answers else _texts(sample.answers)
                        value = self._of([await scorer.judge(Asked(sample, text, row), models) for text in texts])
                    elif scorer.blocks:
                        value = await asyncio.to_thread(self._value, scorer, sample, row, output)
                    else:
                        value = self._value(scorer, sample, row, output)
                    self._enter(sample, row, output, name, value)
                    if scorer.timed:
                        self.clock.add(name, since)
            except DataError as error:
                _not_scored(sample, error)
            except LMError as error:
                if not is_of_row(error):
                    raise
                _not_scored(sample, error)
        sample.unmet = self.check(row, sample.scores) if self.check is not None and sample.scores else None

    def _to_score(self, sample: Sample) -> str | None:
        """Return the text to score; None if the scorers do not decide. Earlier scores are dropped."""
        rule = self.counting.rule_of(sample)
        sample.scores, sample.unread = self._zeros.copy() if rule == "zero" else {}, None
        sample.judgements = None
        if rule != "score":
            return None
        output = sample.output or ""
        return output if self.lm.split_thinking else spoken(output)

    def _enter(self, sample: Sample, row: Row, output: str, name: str, value: float | Verdict | None) -> None:
        """Write what a scorer says into the sample."""
        if value is None:
            return
        if isinstance(value, Verdict):
            sample.scores |= {_named(name, part): one for part, one in value.scores.items()}
            if value.judgements:
                judgements = {_named(name, part): one for part, one in value.judgements.items()}
                sample.judgements = {**(sample.judgements or {}), **judgements}
            return
        sample.scores[name] = value
        if not value and not self.scorers[name].reads(output, row.target, sample.parsed):
            sample.unread = [*(sample.unread or ()), name]

    def _value(self, scorer: Scorer, sample: Sample, row: Row, output: str) -> float | Verdict | None:
        """Return what a scorer says; None if the sample has no score of this kind."""
        if isinstance(scorer, Measure | Calls):
            return scorer.measure(sample, output)
        if self.answers == "first" or not sample.answers:
            return scorer.score(output, row.target, row.fields, sample.parsed)
        return self._of([scorer.score(text, row.target, row.fields, self._parsed(text)) for text in _texts(sample.answers)])

    def _of(self, values: list[float | Verdict]) -> float | Verdict:
        """Return the mean, the highest or the lowest of the scores of several answers, of each score if there are several."""
        first = values[0]
        if len(values) == 1:
            return first
        if isinstance(first, Verdict):
            verdicts = [value for value in values if isinstance(value, Verdict)]
            scores = {name: self._mean([one.scores[name] for one in verdicts if name in one.scores]) for name in first.scores}
            return Verdict(scores, first.judgements)
        return self._mean([value for value in values if not isinstance(value, Verdict)])

    def _mean(self, values: list[float]) -> float:
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
            sample.status, sample.error = "error", RowError("data", redact(str(error)))
            return sample
        usage: Usage | None = None
        empty = 0
        while True:
            request = self.request(formatted, repeat)
            sample.messages, sample.prompt = formatted.messages, formatted.prompt
            try:
                completion = yield request
            except LMError as error:
                sample.attempts += error.attempts
                fail(sample, error)
                self.score(sample, row)
                return sample
            usage = record(sample, completion, usage)
            say(sample, self._answers(completion), logprobs=bool(request.params.get("logprobs")))
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
            if scored and self.scorers:
                self.score(sample, row)
            return sample


def _named(scorer: str, part: str) -> str:
    """Return the name of a score of a scorer with several: ``SCORER.PART``; an empty part is the scorer's own."""
    return f"{scorer}.{part}" if part else scorer


def names_of(name: str, scorer: Scorer) -> tuple[str, ...] | None:
    """Return the names of a scorer's scores in the record; `name` is the scorer's. None: its results say them."""
    return None if scorer.names is None else tuple(_named(name, part) for part in scorer.names)


def _not_scored(sample: Sample, error: DataError | LMError) -> None:
    """Record that a sample cannot be scored. Its answer is kept."""
    sample.scores, sample.unread, sample.judgements = {}, None, None
    sample.status, sample.error = "error", RowError("scoring", redact(str(error)))


def _texts(answers: list[Choice]) -> list[str]:
    return [spoken(choice.text or "") for choice in answers]
