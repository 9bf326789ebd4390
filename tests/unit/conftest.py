"""What the tests of the LM have in common."""

import asyncio

import pytest


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Call an LM, once in each way; both must do the same."""

    def sync(lm, *args, **kwargs):
        return lm(*args, **kwargs)

    def asynchronous(lm, *args, **kwargs):
        return asyncio.run(lm.acall(*args, **kwargs))

    return sync if request.param == "sync" else asynchronous
