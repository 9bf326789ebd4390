"""Share the fixtures of the LM and of limiters, and mark the slow modules."""

import asyncio
from pathlib import Path

import pytest

from runner.limits import Endpoint
from tests.support.clock import Clock

SLOW = {
    *("cli", "compare", "config", "docs", "drift", "estimate", "experiment", "reproduce", "schedule", "stats", "sweep"),
    "sweep_config",
}
"""Modules that compose dozens of configs or draw thousands of samples: the quick check leaves them out."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Call an LM, once in each way; both must do the same."""

    def sync(lm, *args, **kwargs):
        return lm(*args, **kwargs)

    def asynchronous(lm, *args, **kwargs):
        return asyncio.run(lm.acall(*args, **kwargs))

    return sync if request.param == "sync" else asynchronous


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def endpoint(clock):
    return Endpoint("http://server/v1", clock=clock, wall=clock)
