"""Read the token counts and the cost that an answer names, by tables of how providers write them. Both transports use it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runner.types import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping


class Count(NamedTuple):
    """One field of ``usage``: what it counts, its path, and whether it is part of the main count or stands beside it.

    Attributes:
        counts: the field of `Usage` that it goes into.
        path: names from ``usage`` down, with a dot between them.
        place: ``inside`` the prompt or the completion, ``beside`` it, or ``either``: the total decides.
        vendor: who writes it.
        source: where that was read or seen.
    """

    counts: Literal["prompt", "completion", "total", "cached", "reasoning", "writes"]
    path: str
    place: Literal["inside", "beside", "either"]
    vendor: str
    source: str


COUNTS = (
    Count("prompt", "prompt_tokens", "inside", "OpenAI and most others", "OpenAI API, chat, 2025"),
    Count("prompt", "input_tokens", "inside", "OpenAI (responses), Anthropic", "OpenAI API, responses, 2025"),
    Count("completion", "completion_tokens", "inside", "OpenAI and most others", "OpenAI API, chat, 2025"),
    Count("completion", "output_tokens", "inside", "OpenAI (responses), Anthropic", "OpenAI API, responses, 2025"),
    Count("total", "total_tokens", "inside", "OpenAI and most others", "OpenAI API, chat, 2025"),
    Count("cached", "prompt_tokens_details.cached_tokens", "inside", "OpenAI, OpenRouter, vLLM", "OpenAI API, chat, 2025"),
    Count("cached", "input_tokens_details.cached_tokens", "inside", "OpenAI (responses)", "OpenAI API, responses, 2025"),
    Count("cached", "prompt_cache_hit_tokens", "inside", "DeepSeek", "DeepSeek API docs, context caching, 2025"),
    Count("cached", "cached_tokens", "inside", "Moonshot, Together", "Moonshot API docs, 2025"),
    Count("cached", "cache_read_input_tokens", "beside", "Anthropic", "Anthropic API docs, prompt caching, 2025"),
    Count("writes", "prompt_tokens_details.cache_write_tokens", "inside", "OpenRouter", "OpenRouter docs, prompt caching, 2026"),
    Count("writes", "input_tokens_details.cache_write_tokens", "inside", "OpenRouter (responses)", "OpenRouter docs, 2026"),
    Count("writes", "prompt_tokens_details.cache_creation_tokens", "inside", "litellm", "litellm 1.106, types/utils.py"),
    Count("writes", "prompt_tokens_details.cache_creation_input_tokens", "inside", "Qwen", "Model Studio docs, cache, 2026"),
    Count("writes", "cache_creation_input_tokens", "beside", "Anthropic", "Anthropic API docs, prompt caching, 2025"),
    Count(
        "reasoning",
        "completion_tokens_details.reasoning_tokens",
        "either",
        "OpenAI, xAI (beside)",
        "xAI, seen in 2026",
    ),
    Count("reasoning", "output_tokens_details.reasoning_tokens", "either", "OpenAI (responses)", "OpenAI API, responses, 2025"),
    Count("reasoning", "reasoning_tokens", "either", "Perplexity, SGLang", "Perplexity API docs, 2025"),
)
"""Fields of ``usage``. Of several that count the same, the largest is taken."""

_BY_NAME: dict[str, list[Count]] = {}
for _row in COUNTS:
    _BY_NAME.setdefault(_row.path.partition(".")[0], []).append(_row)


class Figure(NamedTuple):
    """A place where an answer names its cost: a field of ``usage``, or a header.

    Attributes:
        path: names from ``usage`` down, with a dot between them; for a header its name in lower case.
        per_usd: how many of its units make a dollar.
        zero: what 0 means there: ``free``, or ``unknown`` (nobody knew the price).
        vendor: who writes it; the record's ``cost_from``.
        source: where that was read or seen.
    """

    path: str
    per_usd: float
    zero: Literal["free", "unknown"]
    vendor: str
    source: str


COSTS = (
    Figure("cost", 1, "free", "openrouter", "OpenRouter docs, usage accounting, 2026"),
    Figure("cost.total_cost", 1, "free", "perplexity", "Perplexity API docs, chat completions, 2026"),
    Figure("cost_in_usd_ticks", 1e10, "free", "xai", "xAI docs, cost tracking, 2026"),
    Figure("estimated_cost", 1, "free", "deepinfra", "DeepInfra docs, chat completions, 2026"),
)
"""Fields of ``usage`` that hold the cost of the answer."""

_COST_FIELDS = {row.path.partition(".")[0] for row in COSTS}

COST_HEADERS = (Figure("x-litellm-response-cost", 1, "unknown", "litellm-proxy", "litellm 1.106: 0.0 where it has no price"),)
"""Headers that hold the cost of the answer."""

_MOST = 10**12
"""A count beyond this is not one of tokens."""

_UPSTREAM = "cost_details.upstream_inference_cost"
"""Charge of OpenRouter's upstream to the owner of the key, beside ``cost``, where ``is_byok`` (OpenRouter docs, 2026)."""


def read(usage: Mapping[str, Any]) -> Usage | None:
    """Return the tokens that ``usage`` counts, in whatever words. None if the prompt has no tokens: nobody has counted them."""
    inside: dict[str, float] = {}
    beside: dict[str, float] = {}
    for name in usage.keys() & _BY_NAME.keys():
        for counts, path, place, _, _ in _BY_NAME[name]:
            if (number := _number(usage, path)) > 0:
                of = beside if place == "beside" else inside
                of[counts] = max(number, of.get(counts, 0))
    prompt, completion, total = (_whole(inside.get(name, 0)) for name in ("prompt", "completion", "total"))
    cached, writes = (_whole(max(inside.get(name, 0), beside.get(name, 0))) for name in ("cached", "writes"))
    apart = _whole(beside.get("cached", 0)) + _whole(beside.get("writes", 0))
    if apart and not inside.keys() & {"cached", "writes"} and total != prompt + completion:
        prompt += apart  # Anthropic's own count of the prompt is of what no cache was involved in
    return counted(prompt, completion, total, cached=cached, writes=writes, reasoning=_whole(inside.get("reasoning", 0)))


def counted(prompt: int, completion: int, total: int, *, cached: int = 0, writes: int = 0, reasoning: int = 0) -> Usage | None:
    """Return counts in which each part lies within its whole, and the total is their sum. None without tokens of a prompt.

    A total that is larger than prompt and completion says that something stands beside them: the cache's tokens (as Anthropic
    counts), or the reasoning (as xAI counts, and Gemini without a name for it). Without a total, a part that is larger than
    its whole says the same.
    """
    if 0 <= cached <= prompt - writes <= prompt > 0 <= reasoning <= completion and prompt + completion == total <= _MOST:
        return Usage(prompt, completion, total, cached, reasoning, writes)  # most answers are like this
    if not 0 < prompt <= _MOST or completion > _MOST or total > _MOST:
        return None
    completion, cached, writes, reasoning = (min(max(part, 0), _MOST) for part in (completion, cached, writes, reasoning))
    if cached + writes > prompt or (cached + writes and total == prompt + cached + writes + completion):
        prompt += cached + writes
    rest = total - prompt - completion
    if rest > 0:
        completion, reasoning = completion + rest, max(reasoning, rest)
    elif total <= 0 and reasoning > completion:
        completion += reasoning
    cached = min(cached, prompt)
    return Usage(prompt, completion, prompt + completion, cached, min(reasoning, completion), min(writes, prompt - cached))


def named_cost(usage: Mapping[str, Any] | None, headers: Mapping[str, str] | None) -> tuple[float, str] | None:
    """Return the dollars that an answer says it has cost, and who says so (`Figure.vendor`); None if it does not say."""
    if usage and not usage.keys().isdisjoint(_COST_FIELDS):
        for figure in COSTS:
            if (found := _figure(_at(usage, figure.path), figure)) is not None:
                more = _number(usage, _UPSTREAM) if figure.path == "cost" and usage.get("is_byok") is True else 0
                return found + more, figure.vendor
    if headers:
        for figure in COST_HEADERS:
            if figure.path in headers and (found := _figure(headers[figure.path], figure)) is not None:
                return found, figure.vendor
    return None


def _figure(value: Any, figure: Figure) -> float | None:
    """Return the dollars of one figure; None if there is none, or one that cannot be a cost."""
    try:
        amount = float(value) / figure.per_usd
    except (TypeError, ValueError):
        return None
    known = math.isfinite(amount) and (amount > 0 or (amount == 0 and figure.zero == "free"))
    return amount if known and not isinstance(value, bool) else None


def _at(usage: Mapping[str, Any], path: str) -> Any:
    name, _, rest = path.partition(".")
    value = usage.get(name)
    return value if not rest else _at(value, rest) if isinstance(value, dict) else None


def _number(usage: Mapping[str, Any], path: str) -> float:
    """Return a number, written as one or as text; 0 for anything that is not a count."""
    value = _at(usage, path)
    if value is None:
        return 0.0
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return number if 0 < number <= _MOST else 0.0


def _whole(number: float) -> int:
    return math.ceil(number)
