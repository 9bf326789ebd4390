"""Find the parameter that a server refuses, in the words of its refusal. All rows of a run are sent with the same parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFUSES = re.compile(
    r"unsupported|not supported|not support|deprecated|not permitted|not allowed|extra_forbidden|unrecogni[sz]ed|unknown"
    r"|unexpected|incompatible|invalid[ _]value|(?:above|below)[ _](?:max|min)|supports at most|maximum allowed",
    re.IGNORECASE,
)
"""Words of refusals that are about a parameter itself: OpenAI, Anthropic, Google, Mistral, xAI, vLLM, transformers serve."""
_FIELD = re.compile(r"^(?:param|parameter|field|loc)=(.+)$", re.MULTILINE)
"""A field of the body that names the parameter (OpenAI: ``param``; FastAPI: ``loc``)."""
_SAID = re.compile(r"[`'\"]([A-Za-z_.]+)[`'\"]|supplied: ([A-Za-z_]+)|\b([a-z]+(?:_[a-z]+)+|temperature)\b")
"""A name in a message: in quotes, or by itself if it is no common word."""
_OF_SAMPLING = frozenset({"temperature", "max_tokens", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty"})
_OTHER_NAMES = (
    ("maxoutputtokens", "max_tokens"),
    ("maxoutputtokens", "max_completion_tokens"),
    ("includeusage", "stream_options"),
    ("streaming", "stream"),
)
"""Names under which a parameter is sent to some APIs."""


def refused_parameter(words: str, params: Mapping[str, Any]) -> str | None:
    """Return the parameter that a bad request is refused for, None if the words name none that was sent.

    Args:
        words: all that the body says (`runner.network.said.Said.words`).
        params: the parameters that were sent.
    """
    if _REFUSES.search(words) is None:
        return None
    sent = {_plain(name): name for name in params}
    sent |= {other: name for other, name in _OTHER_NAMES if name in params}
    found = [*_FIELD.findall(words), *(next(filter(None, said)) for said in _SAID.findall(words))]
    return next((sent[plain] for name in found if (plain := _plain(name)) in sent), None)


def remedy(name: str, params: Mapping[str, Any], words: str) -> str:
    """Return what to do about a parameter that the server refuses: the override that mends it."""
    change = without(name)
    if name == "max_tokens" and "max_completion_tokens" in words:
        change += f" +model.params.max_completion_tokens={params[name]}"
    return f"the model does not take {name}={params[name]!r:.40}: {change}"


def without(name: str) -> str:
    """Return the override that leaves a parameter out of the requests."""
    if name == "max_completion_tokens":  # made of max_tokens where the model is known to take this name
        name = "max_tokens"
    if name in ("stream", "stream_options"):
        return "limits.stream=never"
    return f"sampling.{name}=null" if name in _OF_SAMPLING else f"~model.params.{name}"


def _plain(name: str) -> str:
    """Return a name without the differences between ``top_k``, ``topK`` and ``generationConfig.top_k``."""
    return name.rpartition(".")[2].replace("_", "").lower()
