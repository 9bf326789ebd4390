"""Manners towards endpoints: how many requests are in flight, how fast they go out, and when to stop asking.

    limiter = Limiter(endpoint_of("https://api.example.com/v1", key), max_concurrency=32, rpm=600)
    pass_ = await limiter.acquire(tokens)          # waits its turn; EndpointClosedError when asking is of no use
    ...one request...
    pass_.hear(headers)                            # what the server says is left
    pass_.succeeded(tokens_used, seconds)          # or .failed(error, seconds), or .abandoned()

`bucket`, `window`, `trend`, `pace`, `mirror` and `breaker` are single ideas; `headers` reads what servers say; `gate` puts them
together, and like them is pure, with the time passed in; `endpoint` shares a gate among all who ask one address with one key;
`waiting` wakes tasks and threads; `limiter` is one run's way through an endpoint. All of it is in this process: two processes
with one key learn from the server's refusals, not from each other.
"""

from __future__ import annotations

from runner.limits.endpoint import Endpoint, endpoint_of
from runner.limits.lane import Pass
from runner.limits.limiter import Limiter, Live

__all__ = ["Endpoint", "Limiter", "Live", "Pass", "endpoint_of"]
