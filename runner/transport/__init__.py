"""Send one request to a model and return its answer, in a thread or in an event loop. No transport retries."""

from runner.transport.auto import AutoTransport
from runner.transport.base import Transport
from runner.transport.direct import DirectTransport
from runner.transport.fake import FakeTransport
from runner.transport.litellm import LiteLLMTransport

__all__ = ["AutoTransport", "DirectTransport", "FakeTransport", "LiteLLMTransport", "Transport"]
