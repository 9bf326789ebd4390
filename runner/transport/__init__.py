"""Send one request to a model and return its answer, in a thread or in an event loop. No transport retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.system.first_use import on_first_use

if TYPE_CHECKING:
    from runner.transport.auto import AutoTransport
    from runner.transport.base import Transport
    from runner.transport.direct import DirectTransport
    from runner.transport.fake import FakeTransport
    from runner.transport.litellm import LiteLLMTransport

_HOMES = {
    "AutoTransport": "auto",
    "DirectTransport": "direct",
    "FakeTransport": "fake",
    "LiteLLMTransport": "litellm",
    "Transport": "base",
}

__all__ = ["AutoTransport", "DirectTransport", "FakeTransport", "LiteLLMTransport", "Transport"]

__getattr__ = on_first_use(__name__, _HOMES)
