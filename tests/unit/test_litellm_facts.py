"""What litellm does with money when nobody looks: second requests, invented prices, a price map that changes."""

import asyncio
import os

import pytest

from runner.cost.pricing import price_of
from runner.errors import ConnectionLostError
from runner.transport import LiteLLMTransport
from runner.transport.litellm import _litellm
from runner.types import Connection, Request
from tests.support.server import Reset, Server
from tests.support.transports import KEY, QUIET

pytestmark = QUIET

OWN_CLIENT = (
    "anthropic/claude-haiku-4-5",
    "gemini/gemini-2.5-flash",
    "hosted_vllm/m",
    "deepseek/m",
    "mistral/m",
    "ollama_chat/m",
)
"""Models that litellm reaches with a client of its own, not with OpenAI's SDK."""


@pytest.mark.parametrize("blocking", [False, True])
def test_one_attempt_is_one_request_when_the_connection_is_lost(blocking):
    """litellm (1.106) posts again over a new connection, with both of its settings of retries at 0."""
    transport, sent = LiteLLMTransport(), {}

    async def ask():
        with Server(Reset(politely=True)) as server:
            connection = Connection(api_base=server.url, api_key=KEY, timeout_s=20)
            for model in ("openai/m", *OWN_CLIENT):
                server.reset()
                request = Request(model=model, messages=[{"role": "user", "content": "hi"}])
                call = asyncio.to_thread(transport.complete, request, connection) if blocking else None
                with pytest.raises(ConnectionLostError):
                    await (call or transport.acomplete(request, connection))
                sent[model] = server.count
        await transport.aclose()

    asyncio.run(ask())
    assert sent == dict.fromkeys(("openai/m", *OWN_CLIENT), 1)


UNLISTED = (
    "openai/gpt-5-unheard-of",
    "openai/gpt-6-unheard-of",
    "anthropic/claude-unheard-of-9",
    "gemini/gemini-9-unheard-of",
    "fireworks_ai/unheard-of",
    "wandb/unheard-of",
    "huggingface/unheard-of",
    "ollama/unheard-of",
)


@pytest.mark.parametrize("model", UNLISTED)
def test_a_model_that_the_map_does_not_know_has_no_price(model):
    """litellm (1.106, 1.110) prices unknown members of these families at 0.0 without a word."""
    assert price_of(model) is None


def test_prices_do_not_change_while_a_run_goes_on(monkeypatch):
    """litellm fetches its map again in the background and exchanges it; prices here come from the file that is installed."""
    litellm = _litellm.__wrapped__()
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    before = price_of("openai/gpt-4o-mini")
    entry = {**litellm.model_cost["gpt-4o-mini"], "input_cost_per_token": 1.0}
    monkeypatch.setitem(litellm.model_cost, "gpt-4o-mini", entry)
    price_of.cache_clear()
    assert price_of("openai/gpt-4o-mini") == before
    assert before is not None
    assert before.prompt < 0.001
