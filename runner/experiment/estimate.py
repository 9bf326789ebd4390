"""Estimate the requests, tokens and cost of an experiment before anything is sent."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.batch.engine import plan
from runner.config.schema.request import JsonAdapter
from runner.cost.tokens import estimate, most
from runner.errors import CacheError, ConfigError, DataError
from runner.experiment import targets
from runner.experiment.judging import foretold, together
from runner.experiment.served import pin
from runner.experiment.work import Estimate
from runner.wording.numbers import dollars

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.adapters import Formatted
    from runner.batch.asker import Asker, Slot
    from runner.config.schema import RunConfig
    from runner.cost.budget import Budget
    from runner.experiment.experiment import Experiment
    from runner.experiment.prepared import Prepared
    from runner.types import Row, Sample

_REASK_TOKENS = 1_000
"""Tokens that a re-ask adds to a prompt besides the bad answer: the description of the error."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The forecast of a run; made by `forecast`.

    Attributes:
        name: the experiment's name.
        model: the model.
        rows: rows of the data.
        repeats: samples per row.
        cache_hits: samples that the cache answers.
        failing: samples that fail without a request, because their prompt cannot be made.
        owed: samples that need the model.
        estimate: of the owed samples.
        budget: the bounds (None: none), ``covers`` and ``verdict``, as from `verdict`.
        missing: the key that a run needs and the environment lacks, in words; None if there is nothing to say.
        not_sent: parameters of the config that the model does not take.
        targets: the targets that cannot be scored, in words; None if all can be.
        named: of named models, such as judges, on top of `estimate`; None: only a scorer's code knows how often it asks.
    """

    name: str
    model: str
    rows: int
    repeats: int
    cache_hits: int
    failing: int
    owed: int
    estimate: Estimate
    budget: dict[str, Any]
    missing: str | None = None
    not_sent: dict[str, Any] = {}
    targets: str | None = None
    named: dict[str, Estimate | None] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data, flat except for the budget."""
        facts: dict[str, Any] = msgspec.to_builtins(self)
        work, budget = facts.pop("estimate"), facts.pop("budget")
        del work["samples"]
        if not facts["named"]:
            del facts["named"]
        return {**facts, **work, "budget": budget}

    def table(self) -> list[tuple[str, str]]:
        """Return the facts for people, as pairs of name and value."""
        work = self.estimate
        lines = [("model", self.model), ("rows", f"{self.rows:,}"), ("repeats", f"{self.repeats:,}")]
        if self.not_sent:
            lines.append(("not sent", ", ".join(f"{name}={value}" for name, value in self.not_sent.items())))
        lines.append(("cache hits", f"{self.cache_hits:,}"))
        if self.failing:
            lines.append(("without a prompt", f"{self.failing:,}; they fail without a request"))
        lines.append(("owed", f"{self.owed:,}"))
        if not self.owed:
            lines.append(("requests", "none: nothing would be sent"))
        elif work.open:
            lines.append(("requests", f"up to {work.requests:,} by a program; what they cost is not known before"))
        else:
            longest = work.completion_tokens_max
            lines += [
                ("requests", f"up to {work.requests:,}"),
                ("prompt tokens", f"about {work.prompt_tokens:,}"),
                ("completion tokens", "unbounded: set sampling.max_tokens" if longest is None else f"at most {longest:,}"),
                ("cost", "unknown" if work.cost_usd_max is None else f"at most {dollars(work.cost_usd_max)}"),
            ]
        for name, one in self.named.items():
            lines.append((f"model {name}", "as often as its scorer asks" if one is None else one.line()))
        if self.targets:
            lines.append(("targets", self.targets))
        if self.missing:
            lines.append(("before a run", self.missing))
        return [*lines, ("budget", self.budget["verdict"])]


def forecast(prepared: Prepared) -> Forecast:
    """Forecast a run of an experiment. Checks what a run checks; makes no run folder, starts nothing, sends nothing.

    No key is needed: `Forecast.missing` says if a run would lack one.

    Raises:
        ConfigError, DataError: the run could not begin.
        CacheError: the cache cannot be used, or it lacks an answer in replay mode.
    """
    config, parts = prepared.in_place, prepared.parts()
    lm, repeats = parts.lm, config.sampling.repeats
    pin(config, lm, ask=False)
    asker = parts._replace(scorers={}).asker()
    hits = failing = 0

    def keep(samples: list[Sample]) -> None:
        nonlocal hits, failing
        answered = sum(sample.cache == "hit" for sample in samples)
        hits, failing = hits + answered, failing + len(samples) - answered

    def slots() -> Iterable[Slot]:
        return ((row, repeat) for row in parts.dataset for repeat in range(repeats))

    judging = parts.asker() if parts.named else None
    unjudged = bytearray()
    try:
        due = plan(asker, slots(), (), keep)
        if judging is not None:
            unjudged = plan(judging, slots(), (), lambda _samples: None)
    finally:
        if parts.named is not None:
            parts.named.close()
        parts.close()
        if lm.store:
            lm.store.close()
    if config.cache.mode == "replay" and (missing := due.count(1)):
        raise CacheError(f"replay: the cache has no answer for {missing:,} samples; nothing was sent")
    work = expected(asker, compress(slots(), due), reasks=reasks(config))
    named = foretold(asker, parts.scorers, parts.named.lms, compress(slots(), unjudged)) if parts.named else {}
    asking = [config] * bool(work.samples) + (list(parts.named.configs.values()) if parts.named and any(unjudged) else [])
    return Forecast(
        name=prepared.name,
        model=lm.model,
        rows=len(parts.dataset),
        repeats=repeats,
        cache_hits=hits,
        failing=failing + due.count(1) - work.samples,
        owed=work.samples,
        estimate=work,
        budget=verdict(lm.budget, together(work, named.values()) if named else work),
        missing=next(filter(None, map(missing_key, asking)), None),
        not_sent=lm.not_sent,
        targets=targets.told(parts.dataset, parts.scorers),
        named=named,
    )


def missing_key(config: RunConfig) -> str | None:
    """Return what a run would say of a key or header that is not in the environment; None if none is missing."""
    try:
        build.access(config)
    except ConfigError as error:
        return str(error)
    return None


def expected(asker: Asker, slots: Iterable[Slot], *, reasks: int = 0) -> Estimate:
    """Estimate the cost of asking `slots`, which may be a stream. Slots of the same row should be adjacent.

    Args:
        asker: makes the requests.
        slots: rows, each with the number of its repeat.
        reasks: how often the adapter may ask again.
    """
    if asker.solving is not None and asker.solving.is_code:
        owed = sum(1 for _ in slots)
        most_each = asker.solving.bounds.requests
        return Estimate(
            samples=owed,
            requests=owed * most_each,
            completion_tokens_max=None,
            tokens_max=None,
            cost_usd_max=None,
            prompt_tokens=None if owed else 0,
        )
    channel = asker.lm.channel()
    price, longest = channel.price, channel.longest_answer
    samples = asked = prompts = answers = 0
    usd, bounded = 0.0, True
    last: Row | None = None
    for row, repeat in slots:
        if row is not last:
            last, formatted = row, _formatted(asker, row)
        if formatted is None:
            continue
        request = asker.request(formatted, repeat)
        samples += 1
        asked += estimate(request).prompt_tokens
        if (largest := most(request, longest)) is None:
            bounded = False
            continue
        for turn in range(1 + reasks):
            prompt = largest.prompt_tokens + turn * (largest.completion_tokens + _REASK_TOKENS)
            prompts += prompt
            answers += largest.completion_tokens
            usd += price.most(prompt, largest.completion_tokens) if price else 0.0
    return Estimate(
        samples=samples,
        requests=samples * (1 + reasks),
        prompt_tokens=asked,
        completion_tokens_max=answers if bounded else None,
        tokens_max=prompts + answers if bounded else None,
        cost_usd_max=usd if bounded and (price or not samples) else None,
    )


def announcement(experiment: Experiment) -> str | None:
    """Describe what a run will ask, and a budget that may not be enough. None if neither price nor budget is known."""
    lm = experiment.lm
    if not experiment.owed or (lm.channel().price is None and lm.budget is None):
        return None
    work = expected(experiment.asker, experiment.due(), reasks=reasks(experiment.config))
    doubts = verdict(lm.budget, work) if lm.budget else {"covers": True}
    return work.line() if doubts["covers"] else f"{work.line()}; budget: {doubts['verdict']}"


def reasks(config: RunConfig) -> int:
    """Return how often a row may be asked again: by the adapter, for further turns of the user, and after calls of tools."""
    prompt = config.prompt
    retries = config.adapter.retries if isinstance(config.adapter, JsonAdapter) else 0
    uses_tools = prompt.tools is not None or prompt.tool_server is not None
    turns = prompt.simulated_user.turns if prompt.simulated_user is not None else len(prompt.turns)
    return retries + (prompt.max_turns if uses_tools else 1) * (1 + turns) - 1


def verdict(budget: Budget | None, work: Estimate) -> dict[str, Any]:
    """Judge whether the budget is enough for an estimate.

    Returns:
        The bounds ``usd``, ``tokens`` and ``requests`` (None: none); ``covers``: True, False, or None if unknown; and
        ``verdict``, the same in words.
    """
    bounds = dict(budget.bounds) if budget else {"usd": None, "tokens": None, "requests": None}
    if budget is not None and work.open:
        return {**bounds, "covers": None, "verdict": "what a program asks is not known before; if it runs out, the run stops"}
    covers, said = _judged(budget, work)
    return {**bounds, "covers": covers, "verdict": said}


def _judged(budget: Budget | None, work: Estimate) -> tuple[bool | None, str]:
    if budget is None:
        return True, "none is set"
    if not work.samples:
        return True, "not needed"
    if work.tokens_max is None and (budget.bounds["usd"] is not None or budget.bounds["tokens"] is not None):
        return False, "it refuses requests whose answers are unbounded: set sampling.max_tokens"
    needed = {"usd": work.cost_usd_max, "tokens": work.tokens_max, "requests": work.requests}
    unknown = False
    for name, left in budget.left.items():
        most_needed = needed[name]
        if left is None:
            continue
        if most_needed is None:
            if budget.unknown_price == "refuse":
                return False, "budget.usd refuses a model whose price is unknown: set model.price or budget.unknown_price=allow"
            unknown = True
        elif most_needed > left:
            amounts = (dollars(left), dollars(most_needed)) if name == "usd" else (f"{left:,}", f"{most_needed:,}")
            return False, (
                f"{amounts[0]} of budget.{name} left, up to {amounts[1]} needed; if it runs out, the run stops; "
                f"continue with: ostinato resume RUN budget.{name}=..."
            )
    return (None, "the price is unknown, and budget.usd lets it pass") if unknown else (True, "it covers the maximum")


def _formatted(asker: Asker, row: Row) -> Formatted | None:
    try:
        return asker.adapter.format(row)
    except DataError:
        return None
