"""Run every test of the contract with both transports, and with `ask` both sync and async."""

import asyncio
import gc
import warnings

import pytest

from runner.transport import AutoTransport, DirectTransport, LiteLLMTransport

TYPES = ["chat", "text", "responses"]


@pytest.fixture(scope="module", autouse=True)
def tidy():
    """Collect what litellm leaves to the garbage collector here, not in a later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Call an LM once, sync or async; both must do the same."""

    def sync(lm, *args, **kwargs):
        return lm(*args, **kwargs)

    def asynchronous(lm, *args, **kwargs):
        async def once():
            try:
                return await lm.acall(*args, **kwargs)
            finally:
                await lm.aclose()

        return asyncio.run(once())

    return sync if request.param == "sync" else asynchronous


@pytest.fixture(params=TYPES)
def model_type(request):
    return request.param


@pytest.fixture(params=[LiteLLMTransport, DirectTransport], autouse=True)
def transport(request, monkeypatch):
    """Run each test with both transports; `auto` leaves to litellm what the direct one does not speak."""
    chosen = LiteLLMTransport() if request.param is LiteLLMTransport else AutoTransport()
    monkeypatch.setattr("runner.lm.lm._transport", lambda _model: chosen)
    return chosen
