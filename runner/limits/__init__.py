"""Rate limiters: how many requests are in flight, how fast they are sent, and when to stop sending.

    limiter = Limiter(endpoint_of("https://api.example.com/v1", key), max_concurrency=32, rpm=600)
    pass_ = await limiter.acquire(tokens)          # waits its turn; raises EndpointClosedError when sending is useless
    ...one request...
    pass_.hear(headers)                            # learns the allowance that the server reports
    pass_.succeeded(tokens_used, seconds)          # or .failed(error, seconds), or .abandoned()

`bucket`, `window`, `trend`, `pace`, `mirror` and `breaker` each hold one idea, and `headers` parses rate-limit headers. `gate`
combines them. All of these are pure: the time is passed in. `endpoint` shares one gate between all limiters with the same address
and key, `waiting` wakes tasks and threads, and `limiter` is what one run uses. State is per process: two processes with one key
learn from the server's refusals, not from each other.
"""

from __future__ import annotations

from runner.limits.endpoint import Endpoint, endpoint_of
from runner.limits.lane import Pass
from runner.limits.limiter import Limiter, Live

__all__ = ["Endpoint", "Limiter", "Live", "Pass", "endpoint_of"]
