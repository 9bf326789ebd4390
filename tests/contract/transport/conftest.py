"""Every test of the contract runs with both transports, and where it asks, in both ways."""

import asyncio
import gc
import warnings

import pytest

from runner.transport import AutoTransport, DirectTransport, LiteLLMTransport

TYPES = ["chat", "text", "responses"]


@pytest.fixture(scope="module", autouse=True)
def tidy():
    """What litellm has left to the garbage collector is collected here, not in a test that comes later."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Call an LM once, each way; both must do the same."""

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
    """Each test twice; what the direct transport does not speak is what `auto` leaves to litellm."""
    chosen = LiteLLMTransport() if request.param is LiteLLMTransport else AutoTransport()
    monkeypatch.setattr("runner.lm.lm._transport", lambda _model: chosen)
    return chosen
