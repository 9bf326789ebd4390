"""What the chat models of four providers refuse, by litellm's map read anew, and a server that refuses it.

It is written from the providers' documentation, apart from `runner.lm.capabilities`, which it tests.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from runner.cost.pricemap import entries
from tests.support.loopback import Loopback, Script, response
from tests.support.streams import DONE, chunked, events_of, of_anthropic, of_gemini

if TYPE_CHECKING:
    from tests.support.loopback import Request

PROVIDERS = ("openai", "anthropic", "gemini", "mistral")


def chat_models() -> list[str]:
    """Return ``provider/name`` of every chat model of `PROVIDERS` in the map."""
    found = [
        name if name.startswith(f"{facts['litellm_provider']}/") else f"{facts['litellm_provider']}/{name}"
        for name, facts in entries().items()
        if facts.get("litellm_provider") in PROVIDERS and facts.get("mode") == "chat"
    ]
    return sorted(set(found))


def facts_of(model: str) -> dict[str, Any]:
    """Return the map's entry."""
    known = entries()
    return known.get(model) or known[model.partition("/")[2]]


def refusal(model: str, sent: dict[str, Any]) -> str | None:
    """Return why a model refuses a request with these parameters (of OpenAI's chat API); None if it takes them."""
    facts = facts_of(model)
    warm = sent.get("temperature") not in (None, 1)
    if facts.get("supports_sampling_params") is False and (warm or "top_p" in sent):
        return "`temperature` is deprecated for this model."
    if model.startswith("openai/") and re.search(r"(gpt-4o|gpt-4o-mini|gpt-5)-search-", model) and "temperature" in sent:
        return "Model incompatible request argument supplied: temperature"
    if model.startswith("openai/") and facts.get("supports_reasoning") and "-chat" not in model:
        if "max_tokens" in sent:
            return "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        if warm and sent.get("reasoning_effort", facts.get("default_reasoning_effort")) != "none":
            return "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
    limit = sent.get("max_completion_tokens", sent.get("max_tokens", 0))
    longest = facts.get("max_output_tokens") or limit
    return f"max_tokens is too large: {limit}. This model supports at most {longest} tokens" if limit > longest else None


class Providers(Loopback):
    """The four providers' chat APIs at one address, with the rules of each model.

    Attributes:
        asked: the models that have answered, as ``provider/name``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def address_of(self, model: str) -> str:
        """Return the ``api_base`` for a model."""
        provider = model.partition("/")[0]
        return {
            "openai": f"{self.address}/openai/v1",
            "mistral": f"{self.address}/mistral/v1",
            "anthropic": f"{self.address}/anthropic/v1/messages",
            "gemini": f"{self.address}/gemini",
        }[provider]

    async def route(self, request: Request) -> Script:
        """Answer, or refuse."""
        body = json.loads(request.body)
        _, provider, rest = request.path.split("/", 2)
        model = f"{provider}/{body['model'] if provider != 'gemini' else rest.partition(':')[0].rpartition('/')[2]}"
        why = refusal(model, _generation(body) if provider == "gemini" else body)
        if why is not None:
            return Script((response(json.dumps({"error": {"message": why, "type": "invalid_request_error"}}).encode(), 400),))
        self.asked.append(model)
        if body.get("stream") or ":stream" in rest:
            return Script(chunked(tuple(_events(provider))))
        return Script((response(json.dumps(_answer(provider)).encode()),))


def _generation(body: dict[str, Any]) -> dict[str, Any]:
    config = body.get("generationConfig", {})
    names = {"temperature": "temperature", "max_output_tokens": "max_tokens", "top_p": "top_p"}
    return {ours: config[theirs] for theirs, ours in names.items() if theirs in config}


def _events(provider: str) -> list[bytes]:
    if provider == "anthropic":
        return of_anthropic(("text", "text", ["ok"]))
    return of_gemini("ok") if provider == "gemini" else [*events_of(_answer(provider)), DONE]


def _answer(provider: str) -> dict[str, Any]:
    if provider == "anthropic":
        usage = {"input_tokens": 5, "output_tokens": 2}
        said = [{"type": "text", "text": "ok"}]
        whole = {"id": "m", "type": "message", "role": "assistant", "model": "served", "content": said}
        return {**whole, "stop_reason": "end_turn", "usage": usage}
    if provider == "gemini":
        candidate = {"content": {"role": "model", "parts": [{"text": "ok"}]}, "finishReason": "STOP"}
        counts = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
        return {"candidates": [candidate], "usageMetadata": counts}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "served", "choices": [choice], "usage": usage}
