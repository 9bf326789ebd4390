"""Say what a model takes and how long it lives: facts of litellm's map, and two small tables of what the map does not state."""

from __future__ import annotations

import functools
import re
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.cost import pricemap
from runner.cost.pricing import longest_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANY = object()
"""Equals no value: the parameter is refused whatever it is."""

SAMPLING = {"temperature": 1, "top_p": _ANY, "top_k": _ANY}
"""Parameters that models with ``supports_sampling_params: false`` refuse, and the value that they take all the same."""

_CHOICE = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs")
"""Parameters that ``supported_openai_params`` decides about, where an entry of the map has such a list."""


class Thinking(NamedTuple):
    """Parameters that a vendor's models refuse while they think. The map says which of them think, and how much by default.

    Attributes:
        vendor: who says so.
        provider: its name in the map.
        by_default: whether a model thinks if neither the request nor the map names an effort.
        refused: parameters, and the value of each that is taken all the same.
        source: where it is documented or was seen.
        seen: when.
    """

    vendor: str
    provider: str
    by_default: bool
    refused: Mapping[str, Any]
    source: str
    seen: str


THINKING = (
    Thinking(
        "OpenAI",
        "openai",
        True,
        {
            "temperature": 1,
            "top_p": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "logprobs": False,
            "top_logprobs": _ANY,
            "logit_bias": _ANY,
        },
        "learn.microsoft.com/azure/ai-services/openai/how-to/reasoning; litellm 1.106, gpt_5_transformation.py",
        "2026-11",
    ),
    Thinking(
        "xAI",
        "xai",
        True,
        {"presence_penalty": 0, "frequency_penalty": 0, "stop": _ANY},
        "docs.x.ai/docs/guides/reasoning",
        "2026-11",
    ),
    Thinking(
        "Anthropic",
        "anthropic",
        False,
        {"temperature": 1, "top_k": _ANY},
        "docs.claude.com/en/docs/build-with-claude/extended-thinking",
        "2026-11",
    ),
)
"""Rules for parameters that are refused only while a model thinks."""


class Correction(NamedTuple):
    """A fact that the map lacks or has wrong.

    Attributes:
        vendor: whose models they are: the provider's name in the map.
        names: fits their names without the provider.
        facts: fields as in the map.
        source: where it is documented or was seen.
        seen: when.
    """

    vendor: str
    names: re.Pattern[str]
    facts: Mapping[str, Any]
    source: str
    seen: str


CORRECTIONS = (
    Correction(
        "openai",
        re.compile(r"gpt-5(?:\.\d+)?-chat(?:-.*)?"),
        {"supports_reasoning": False},
        "litellm 1.106, gpt_5_transformation.py; they answer like gpt-4o, and take max_tokens",
        "2026-11",
    ),
    Correction(
        "openai",
        re.compile(r"gpt-5(?:\.\d+)?-search-.*"),
        {"supports_reasoning": True},
        "litellm 1.106, gpt_5_transformation.py",
        "2026-11",
    ),
    Correction(
        "openai",
        re.compile(r"gpt-4o(?:-mini)?-search-.*"),
        {"supports_sampling_params": False},
        "platform.openai.com/docs/guides/tools-web-search, limitations of search models",
        "2026-11",
    ),
)
"""Facts that the map of litellm 1.106.2 lacks or has wrong."""


class Capabilities(msgspec.Struct, frozen=True):
    """Facts of what one model takes. A fact that nobody states is None, and nothing is left out for it.

    Attributes:
        vendor: the provider of the map whose rules hold; empty if unknown.
        takes_sampling: whether it takes ``temperature``, ``top_p`` and ``top_k`` at all.
        reasoning: whether it is a reasoning model.
        default_effort: how much it thinks if a request does not say; ``none`` is not at all.
        always_thinks: whether thinking cannot be turned off.
        longest: tokens of the longest answer.
        openai_params: names of parameters that it takes, where the map lists them.
    """

    vendor: str = ""
    takes_sampling: bool | None = None
    reasoning: bool | None = None
    default_effort: str | None = None
    always_thinks: bool = False
    longest: int | None = None
    openai_params: frozenset[str] | None = None

    @property
    def limit(self) -> str:
        """The name of the parameter that bounds an answer: OpenAI's reasoning models have renamed it."""
        listed = self.openai_params
        if listed and "max_completion_tokens" in listed and "max_tokens" not in listed:
            return "max_completion_tokens"
        return "max_completion_tokens" if self.reasoning and self.vendor == "openai" else "max_tokens"

    def refused(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the parameters of a request that the model does not take, with their values."""
        taken: dict[str, Any] = {}
        if self.openai_params:
            taken |= {name: _ANY for name in _CHOICE if name not in self.openai_params}
        rules = self._thinking
        if rules is not None and self.reasoning and self._effort(params, by_default=rules.by_default) != "none":
            taken |= rules.refused
        if self.takes_sampling is False:
            taken |= SAMPLING
        return {name: value for name, value in params.items() if name in taken and value != taken[name]}

    def thinks(self, params: Mapping[str, Any]) -> bool:
        """Return whether the model is known to think, within the limit of its answer, for a request with these parameters."""
        renamed = self.limit == "max_completion_tokens"  # OpenAI: the new name is for thinking and answer together
        return self.always_thinks or (renamed and self._effort(params, by_default=True) != "none")

    def may_think(self, params: Mapping[str, Any]) -> bool:
        """Return whether the model may think for a request with these parameters: it can, and neither they nor the map say no."""
        rules = self._thinking
        by_default = rules.by_default if rules is not None else True
        return self.always_thinks or (bool(self.reasoning) and self._effort(params, by_default=by_default) != "none")

    @property
    def _thinking(self) -> Thinking | None:
        return next((rules for rules in THINKING if rules.provider == self.vendor), None)

    def _effort(self, params: Mapping[str, Any], *, by_default: bool) -> str:
        """Return how much the model thinks: as the request says, else as the map says."""
        asked, thinking = params.get("reasoning_effort") or params.get("reasoning"), params.get("thinking")
        if isinstance(asked, dict):
            asked = asked.get("effort")
        if asked is None and isinstance(thinking, dict):
            asked = "none" if thinking.get("type") == "disabled" else "some"
        return str(asked or self.default_effort or ("some" if by_default else "none"))


@functools.lru_cache(maxsize=256)
def capabilities(model: str, *, own_server: bool = False) -> Capabilities:
    """Return what ``provider/name`` takes.

    Args:
        model: as litellm knows it. A model of OpenAI is recognised behind other providers, too (``openrouter/openai/o3``), and so
            is a fine-tuned one, a dated one or a deployment whose name begins with the model's.
        own_server: the address is the user's own: only the exact name of a model is taken for it.
    """
    provider, _, rest = model.rpartition("/")
    name = rest.lower().removeprefix("ft:").partition(":")[0]
    base = _of_openai(name, exactly=own_server or provider not in ("", "openai", "azure", "azure_ai"))
    own = pricemap.entry(model)
    if base is None and own is None:
        return Capabilities()
    facts = {**(base or {}), **(own or {})}
    vendor = "openai" if base is not None else str(facts.get("litellm_provider", ""))
    for row in CORRECTIONS:
        if row.vendor == vendor and row.names.fullmatch(name):
            facts |= row.facts
    listed = facts.get("supported_openai_params")
    return Capabilities(
        vendor=vendor,
        takes_sampling=facts.get("supports_sampling_params"),
        reasoning=facts.get("supports_reasoning"),
        default_effort=facts.get("default_reasoning_effort"),
        always_thinks=bool(facts.get("thinking_always_on")),
        longest=longest_answer(model),
        openai_params=frozenset(listed) if listed else None,
    )


def _of_openai(name: str, *, exactly: bool) -> dict[str, Any] | None:
    """Return the entry of OpenAI's model of this name; unless `exactly`, also of the one whose name it begins with."""
    while name:
        found = pricemap.entries().get(name)
        if found is not None and found.get("litellm_provider") == "openai":
            return found
        name = "" if exactly else name.rpartition("-")[0]
    return None


@functools.lru_cache(maxsize=256)
def last_day(model: str) -> date | None:
    """Return the last day of ``provider/name``, None if the map names none.

    A name without a date of its own lives as long as the last of its dated snapshots (``gpt-4o-mini-2024-07-18``).
    """
    key = pricemap.key_of(model)
    if key is None:
        return None
    known = pricemap.entries()
    if (told := _date(known[key])) is not None:
        return told
    dated = re.compile(re.escape(key) + r"-(?:\d{4}-\d{2}-\d{2}|\d{8})")
    ends = [_date(facts) for name, facts in known.items() if name.startswith(key) and dated.fullmatch(name)]
    return max(end for end in ends if end) if ends and all(ends) else None


def _date(facts: Mapping[str, Any]) -> date | None:
    try:
        return date.fromisoformat(facts["deprecation_date"])
    except (KeyError, TypeError, ValueError):
        return None


SOON_DAYS = 60
"""A model that ends within so many days is worth a word."""


def ending(model: str, today: date | None = None) -> str | None:
    """Return a sentence about a model that has ended or ends within `SOON_DAYS`; None if it lives longer or nobody knows.

    Args:
        model: ``provider/name``.
        today: the day to reckon from; None: today.
    """
    end = last_day(model)
    if end is None:
        return None
    left = (end - (today or date.today())).days  # noqa: DTZ011 - the user's day
    if left > SOON_DAYS:
        return None
    when = f"is gone since {end}" if left < 0 else f"ends on {end}, in {left} days"
    return f"{model} {when} (litellm's map of models); choose another model.name"
