"""What a response cost, in US dollars, by litellm's published price map; read as data, without importing litellm."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from runner.types import Usage


class Price(msgspec.Struct, frozen=True):
    """Dollars per token. None where the map has no such price."""

    prompt: float
    completion: float
    cached_prompt: float | None = None

    def cost(self, usage: Usage) -> float:
        """Dollars for `usage`. Cached prompt tokens are billed at their own price; reasoning tokens are completion tokens."""
        cached = usage.cached_tokens if self.cached_prompt is not None else 0
        cost = (usage.prompt_tokens - cached) * self.prompt + usage.completion_tokens * self.completion
        return cost + cached * (self.cached_prompt or 0.0)


@functools.lru_cache(maxsize=256)
def price_of(model: str) -> Price | None:
    """The price of ``provider/name``, or None when it is not in the map or is not known to be billed by the token."""
    prices = _map()
    provider, _, name = model.rpartition("/")
    found = prices.get(model) or prices.get(name)
    if found is None or (model not in prices and provider and found.get("litellm_provider") != provider):
        return None
    prompt, completion = found.get("input_cost_per_token"), found.get("output_cost_per_token")
    if not prompt and not completion:
        return None
    return Price(float(prompt or 0), float(completion or 0), found.get("cache_read_input_token_cost"))


@functools.cache
def _map() -> dict[str, dict[str, Any]]:
    spec = importlib.util.find_spec("litellm")
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        file = Path(place) / "model_prices_and_context_window_backup.json"
        if file.is_file():
            prices: dict[str, dict[str, Any]] = msgspec.json.decode(file.read_bytes())
            return prices
    return {}
