"""What the tests of the LM, and those of limiters, have in common."""

import asyncio

import pytest

from runner.limits import Endpoint
from tests.support.clock import Clock


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
