"""How a request reaches a model and an answer comes back: one verb, once sync and once async. Each transport tries once."""

from runner.transport.auto import AutoTransport
from runner.transport.base import Transport
from runner.transport.direct import DirectTransport
from runner.transport.fake import FakeTransport
from runner.transport.litellm import LiteLLMTransport

__all__ = ["AutoTransport", "DirectTransport", "FakeTransport", "LiteLLMTransport", "Transport"]
