"""Limiters under a clock that the test moves, and what is asked of them."""

import asyncio

import pytest

from runner.errors import EndpointClosedError
from runner.limits import Endpoint, Limiter


def plain(most, **kwargs):
    """A limiter that starts with all its places."""
    return Limiter(Endpoint("x"), max_concurrency=most, adaptive=False, **kwargs)


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def refused(limiter):
    with pytest.raises(EndpointClosedError) as caught:
        await asyncio.wait_for(limiter.acquire(), 10)
    return caught.value
