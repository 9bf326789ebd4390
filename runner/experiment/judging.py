"""Estimate what judges will be asked, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cost.tokens import estimate, most
from runner.errors import DataError
from runner.experiment.work import Estimate
from runner.scoring import Judge, Pairwise, Panel
from runner.scoring.targets import Asked
from runner.types import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runner.batch.asker import Asker, Slot
    from runner.lm.lm import LM
    from runner.scoring import Scorer

_AGAIN = 2
"""How often a judge may be asked for one verdict."""
_REASK_TOKENS = 200
"""Tokens that the description of the form adds to a prompt when a verdict does not fit."""


def foretold(
    asker: Asker, scorers: Mapping[str, Scorer], named: Mapping[str, LM], slots: Iterable[Slot]
) -> dict[str, Estimate | None]:
    """Estimate the requests of named models for these slots; None where only a scorer's code knows how often it asks.

    The answers are not known yet: each counts as the longest one that the model may give, and not at all if that is unbounded.
    """
    judges = list(_judges(scorers))
    found: dict[str, Estimate | None] = dict.fromkeys(named)
    found |= {judge.model: Estimate() for judge, _ in judges}
    longest = most(asker.lm.request(prompt=""), asker.lm.channel().longest_answer)
    answered = longest.completion_tokens if longest else 0
    for row, repeat in slots:
        try:
            formatted = asker.adapter.format(row)
        except DataError:
            continue
        sample = Sample(id=row.id, repeat=repeat, messages=formatted.messages, prompt=formatted.prompt, target=row.target)
        for judge, times in judges:
            before = found[judge.model]
            assert before is not None
            found[judge.model] = _plus(before, judge, named[judge.model], Asked(sample, "", row), answered, times)
    return found


def _judges(scorers: Mapping[str, Scorer]) -> Iterator[tuple[Judge, int]]:
    """Yield the judges among scorers, and how many verdicts each gives on an answer."""
    for scorer in scorers.values():
        if isinstance(scorer, Panel):
            yield from ((judge, 1) for judge in scorer.judges.values())
        elif isinstance(scorer, Judge):
            yield scorer, 2 if isinstance(scorer, Pairwise) else 1


def _plus(before: Estimate, judge: Judge, lm: LM, asked: Asked, answered: int, times: int) -> Estimate:
    """Add the verdicts on one more answer, which has up to `answered` tokens."""
    try:
        messages = judge.messages(asked)
    except DataError:  # a column or the target is missing: nothing is asked
        return before
    channel = lm.channel()
    said = {"prompt": str(messages)} if lm.model_type == "text" else {"messages": messages}
    request = lm.request(**said, **judge.form.params)
    likely, largest = estimate(request), most(request, channel.longest_answer)
    prompts = answers = 0
    usd: float | None = None
    if largest is not None:
        for turn in range(_AGAIN):
            prompt = largest.prompt_tokens + answered * times + turn * (largest.completion_tokens + _REASK_TOKENS)
            prompts, answers = prompts + prompt, answers + largest.completion_tokens
            if (price := channel.price) is not None:
                usd = (usd or 0.0) + price.most(prompt, largest.completion_tokens)
    bounded = largest is not None and before.tokens_max is not None
    priced = bounded and usd is not None and before.cost_usd_max is not None
    return Estimate(
        samples=before.samples + 1,
        requests=before.requests + _AGAIN * times,
        prompt_tokens=(before.prompt_tokens or 0) + times * likely.prompt_tokens,
        completion_tokens_max=(before.completion_tokens_max or 0) + answers * times if bounded else None,
        tokens_max=(before.tokens_max or 0) + (prompts + answers) * times if bounded else None,
        cost_usd_max=(before.cost_usd_max or 0.0) + (usd or 0.0) * times if priced else None,
    )


def together(main: Estimate, others: Iterable[Estimate | None]) -> Estimate:
    """Return the sum of estimates. A number that is unknown in one of them is unknown in the sum."""
    parts = [main, *(one or Estimate(tokens_max=None, cost_usd_max=None, completion_tokens_max=None) for one in others)]
    costs = [part.cost_usd_max for part in parts]
    tokens = [part.tokens_max for part in parts]
    prompts = [part.prompt_tokens for part in parts]
    answers = [part.completion_tokens_max for part in parts]
    return Estimate(
        samples=max(part.samples for part in parts),
        requests=sum(part.requests for part in parts),
        prompt_tokens=None if None in prompts else sum(count or 0 for count in prompts),
        completion_tokens_max=None if None in answers else sum(count or 0 for count in answers),
        tokens_max=None if None in tokens else sum(count or 0 for count in tokens),
        cost_usd_max=None if None in costs else sum(cost or 0.0 for cost in costs),
    )
