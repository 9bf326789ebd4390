"""Requests to a local server that has an adapter loaded name it, and no others do."""

from types import SimpleNamespace

import pytest

from runner.cache import request_key
from runner.lm.lm import LM
from runner.providers import local
from runner.providers.local import WITH_ADAPTER, LocalProvider
from tests.support.server import Server


@pytest.fixture
def served(monkeypatch):
    """A server that passes for the one that a launch starts."""
    with Server() as server:
        process = SimpleNamespace(alive=lambda: True, stop=lambda: None)
        running = SimpleNamespace(api_base=server.url, api_key="none", process=process)
        monkeypatch.setattr(local, "_start", lambda shared, *_: setattr(shared, "server", running))
        monkeypatch.setattr(local.server, "identity", lambda *_: "sha256:x")
        yield server
    local._shared.clear()


@pytest.mark.parametrize("adapter", [True, False])
def test_each_request_names_the_adapter_that_is_loaded(served, monkeypatch, adapter):
    monkeypatch.setattr(local.served, "has_adapter", lambda name: adapter)
    lm = LM("local/ft-x", cache=False)
    before = request_key(lm.request(prompt="hi"))
    lm.launch()
    assert lm("hi") == ["ok"]
    assert served.last.body.get("lora") == (WITH_ADAPTER["lora"] if adapter else None)
    assert request_key(lm.request(prompt="hi")) == before
    assert "lora" not in str(lm.history[-1]["kwargs"])
    assert "api_body" not in lm.copy(model="openai/m").kwargs
    lm.kill()
    assert "api_body" not in lm.kwargs
    assert isinstance(lm.provider, LocalProvider)
