"""Price responses in US dollars, by litellm's published price map."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import msgspec

from runner.cost import pricemap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.types import Usage


class Price(msgspec.Struct, frozen=True):
    """The price of one model, in dollars per token of text.

    Attributes:
        prompt: prompt tokens without another price.
        completion: completion tokens without another price.
        cached_prompt: prompt tokens that the provider read from its cache; None is the price of other prompt tokens.
        cache_write: prompt tokens that it wrote there (for five minutes, on Anthropic); None as above.
        reasoning: completion tokens spent on thinking; None is the price of other completion tokens.
        longer: the fewest prompt tokens from which another price applies to the whole request, with that price; ascending.
    """

    prompt: float
    completion: float
    cached_prompt: float | None = None
    cache_write: float | None = None
    reasoning: float | None = None
    longer: tuple[tuple[int, Price], ...] = ()

    def cost(self, usage: Usage) -> float:
        """Return the dollars for the `usage` of one request."""
        price = self._for(usage.prompt_tokens)
        reads, writes, thoughts = usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens
        return (
            (usage.prompt_tokens - reads - writes) * price.prompt
            + reads * _either(price.cached_prompt, price.prompt)
            + writes * _either(price.cache_write, price.prompt)
            + (usage.completion_tokens - thoughts) * price.completion
            + thoughts * _either(price.reasoning, price.completion)
        )

    def most(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the most dollars for a request of up to so many tokens, however many are cached or spent on thinking."""
        return max(
            prompt_tokens * max(price.prompt, price.cached_prompt or 0.0, price.cache_write or 0.0)
            + completion_tokens * max(price.completion, price.reasoning or 0.0)
            for price in (self, *(price for least, price in self.longer if prompt_tokens >= least))
        )

    def _for(self, prompt_tokens: int) -> Price:
        return next((price for least, price in reversed(self.longer) if prompt_tokens >= least), self)


def _either(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price


@functools.lru_cache(maxsize=256)
def price_of(model: str, service_tier: str | None = None) -> Price | None:
    """Return the price of ``provider/name``.

    Args:
        model: as litellm knows it.
        service_tier: the request parameter of that name, which some providers have other prices for.

    Returns:
        None if it is not in the map, or if the map does not give the cost of a request: prices by the hour of the day, fees per
        request or per search.
    """
    found = pricemap.entry(model)
    if found is None or any(found.get(fact) for fact in _MORE_THAN_TOKENS) or _SEARCHES.search(model):
        return None
    suffix = "" if service_tier in _STANDARD_TIERS else f"_{service_tier}"
    if found.get("tiered_pricing"):
        return None if suffix else _from_table(found["tiered_pricing"])
    prompts_from = 0 if found.get("litellm_provider") == "xai" else 1  # xAI includes the threshold itself
    thresholds = {
        int(match[1]) * (1000 if match[2] else 1): f"_above_{match[1]}{match[2]}_tokens{suffix}"
        for match in map(re.compile(rf"input_cost_per_token_above_(\d+)(k?)_tokens{suffix}").fullmatch, found)
        if match
    }
    standard = _price(found, suffix)
    longer = [(least + prompts_from, _price(found, thresholds[least], standard)) for least in sorted(thresholds)]
    if standard is None or (suffix and standard.cached_prompt is None and found.get("cache_read_input_token_cost") is not None):
        return None
    complete = tuple((least, price) for least, price in longer if price is not None)
    return msgspec.structs.replace(standard, longer=complete) if len(complete) == len(longer) else None


@functools.lru_cache(maxsize=256)
def longest_answer(model: str) -> int | None:
    """Return the tokens of the longest answer that ``provider/name`` gives, None if unknown."""
    found = (pricemap.entry(model) or {}).get("max_output_tokens")
    return int(found) if isinstance(found, int | float) and found > 0 else None


_MORE_THAN_TOKENS = (
    "off_peak_pricing",
    "input_cost_per_request",
    "input_cost_per_character",
    "output_cost_per_character",
    "citation_cost_per_token",
)
_SEARCHES = re.compile(r"^perplexity/|search-(?:preview|api)")  # every answer of these searches, for a fee
_STANDARD_TIERS = (None, "auto", "default", "standard", "standard_only")
_FIREWORKS_CACHED = 0.5
"""Fireworks' unpublished price of cached prompt tokens, as a share of the price of other prompt tokens."""


def _price(found: Mapping[str, Any], suffix: str, otherwise: Price | None = None) -> Price | None:
    """Return the prices under keys that end with `suffix`, else those of `otherwise`. None without both main prices."""
    prompt = found.get(f"input_cost_per_token{suffix}")
    completion = found.get(f"output_cost_per_token{suffix}")
    reads = found.get(f"cache_read_input_token_cost{suffix}")
    writes = found.get(f"cache_creation_input_token_cost{suffix}")
    reasoning = found.get(f"output_cost_per_reasoning_token{suffix}")
    if not suffix and reads is None and prompt and found.get("litellm_provider") == "fireworks_ai":
        reads = prompt * _FIREWORKS_CACHED
    if otherwise is not None:
        completion = completion or otherwise.completion
        reads = otherwise.cached_prompt if reads is None else reads
        writes = otherwise.cache_write if writes is None else writes
        reasoning = otherwise.reasoning if reasoning is None else reasoning
    return Price(float(prompt), float(completion), reads, writes, reasoning) if prompt and completion else None


def _from_table(tiers: list[dict[str, Any]]) -> Price | None:
    """Return the price of a model with a table by length of prompt: ``range`` holds (more than, up to) tokens."""
    ordered = sorted(tiers, key=lambda tier: float(tier["range"][0]))
    prices = [_price(tier, "") for tier in ordered]
    if prices[0] is None or ordered[0]["range"][0] != 0:
        return None
    longer = tuple((int(tier["range"][0]) + 1, price) for tier, price in zip(ordered, prices, strict=True) if price)
    return msgspec.structs.replace(prices[0], longer=longer[1:]) if len(longer) == len(prices) else None
