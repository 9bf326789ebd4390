"""An endpoint with a rate limit, simulated or on loopback, and a client that asks it through a Limiter.

    server = Limited(TokenBucket(600, burst=600), latency_s=0.05)
    counts = simulate(ask(server, limiter, workers=32, seconds=60))    # simulated time: see `tests.support.clock`

It refuses at once and answers after `latency_s`, as real ones do, and counts what came and what was let through.
"""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import RateLimitError, ServerError, TransportError
from tests.support.loopback import Loopback, Request, Script, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from runner.limits import Limiter, Pass

    Send = Callable[[], Awaitable[tuple[int, dict[str, str]]]]
    """Sends a request; the status of the answer, and its headers."""

ROUND_TRIP_S = (0.001, 0.01)
"""The least and the most that the simulated network takes: requests that all took the same time would come in waves."""


class Policy(Protocol):
    """How a server limits: refuse (seconds to wait) or let through (None), and what its headers say."""

    def decide(self, now: float) -> float | None: ...

    def headers(self, now: float) -> dict[str, str]: ...

    def allowed(self, seconds: float) -> float: ...


class TokenBucket:
    """`rpm` flow in evenly; `burst` may come at once."""

    def __init__(self, rpm: float, burst: float) -> None:
        self.rpm = rpm
        self.burst = burst
        self.level = burst
        self.at: float | None = None

    def decide(self, now: float) -> float | None:
        self.level = min(self.burst, self.level + (now - (now if self.at is None else self.at)) * self.rpm / 60)
        self.at = now
        if self.level < 1:
            return (1 - self.level) * 60 / self.rpm
        self.level -= 1
        return None

    def headers(self, now: float) -> dict[str, str]:
        missing = max(0.0, self.burst - self.level)
        return {
            "x-ratelimit-limit-requests": f"{self.burst:g}",
            "x-ratelimit-remaining-requests": f"{max(0, math.floor(self.level))}",
            "x-ratelimit-reset-requests": f"{missing * 60 / self.rpm * 1000:.0f}ms",
        }

    def allowed(self, seconds: float) -> float:
        return self.burst + seconds * self.rpm / 60


class FixedWindow:
    """`limit` in each window of `period_s`; the first begins with the first request."""

    def __init__(self, limit: int, period_s: float = 60.0) -> None:
        self.limit = limit
        self.period_s = period_s
        self.ends: float | None = None
        self.left = limit

    def decide(self, now: float) -> float | None:
        if self.ends is None or now >= self.ends:
            begun = now if self.ends is None else self.ends + (now - self.ends) // self.period_s * self.period_s
            self.ends = begun + self.period_s
            self.left = self.limit
        if self.left <= 0:
            return self.ends - now
        self.left -= 1
        return None

    def headers(self, now: float) -> dict[str, str]:
        return {
            "ratelimit-limit": str(self.limit),
            "ratelimit-remaining": str(self.left),
            "ratelimit-reset": str(math.ceil((self.ends or now) - now)),
        }

    def allowed(self, seconds: float) -> float:
        return self.limit * math.ceil(seconds / self.period_s - 1e-3)


class Limited:
    """The endpoint, for tasks of one event loop.

    Args:
        policy: what it lets through; None: everything.
        latency_s: how long an answer takes: seconds, or a function of the requests in flight.
        hint: whether a refusal carries Retry-After (whole seconds, as HTTP has it).
        tell: whether everything carries the headers of `policy`.
        refusal: the status of a refusal.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        latency_s: float | Callable[[int], float] = 0.05,
        hint: bool = False,
        tell: bool = False,
        refusal: int = 429,
    ) -> None:
        self.policy = policy
        self.latency_s = latency_s
        self.hint = hint
        self.tell = tell
        self.refusal = refusal
        self.came = self.passed = self.refused = 0
        self.in_flight = self.most_in_flight = 0
        self._dice = random.Random(1)

    async def answer(self) -> tuple[int, dict[str, str]]:
        """Refuse or answer one request: the status, and the headers."""
        now = asyncio.get_running_loop().time()
        self.came += 1
        wait = self.policy.decide(now) if self.policy else None
        headers = self.policy.headers(now) if self.policy and self.tell else {}
        if wait is not None:
            self.refused += 1
            if self.hint:
                headers["Retry-After"] = str(math.ceil(wait))
            return self.refusal, headers
        self.passed += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s(self.in_flight) if callable(self.latency_s) else self.latency_s)
        finally:
            self.in_flight -= 1
        return 200, headers

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Send]:
        """Yield what sends one request."""

        async def send() -> tuple[int, dict[str, str]]:
            await asyncio.sleep(self._dice.uniform(*ROUND_TRIP_S))
            return await self.answer()

        yield send


class LimitedServer(Limited, Loopback):
    """The endpoint as an HTTP server on loopback, for clients in any thread."""

    def __init__(self, *policy: Policy, **settings: Any) -> None:
        Loopback.__init__(self)
        Limited.__init__(self, *policy, **settings)

    async def route(self, request: Request) -> Script:
        """Refuse or answer."""
        status, headers = await self.answer()
        return Script((response(b"", status, **headers),))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Send]:
        """Yield what sends one request over a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def send() -> tuple[int, dict[str, str]]:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n")
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            return int(status.split()[1]), dict(line.split(": ", 1) for line in lines)

        try:
            yield send
        finally:
            writer.close()


@dataclass
class Counts:
    """What a client saw."""

    ok: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def sent(self) -> int:
        return self.ok + self.refused + self.failed


async def ask(
    server: Limited, limiter: Limiter, *, workers: int, seconds: float | None = None, rows: int | None = None
) -> Counts:
    """Ask with so many workers for so many seconds, or until so many rows are answered, as the engine does: a row that is refused
    is asked again."""
    counts = Counts()

    async def work() -> None:
        async with server.connection() as send:
            while rows is None or counts.ok < rows:
                pass_ = await limiter.acquire()
                try:
                    await _once(pass_, send, counts)
                finally:
                    pass_.abandoned()

    with limiter.using():
        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        _, pending = await asyncio.wait(tasks, timeout=seconds)
        for task in pending:
            task.cancel()
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(done, Exception):
                raise done
    return counts


async def _once(pass_: Pass, send: Send, counts: Counts) -> None:
    now = asyncio.get_running_loop().time
    sent = now()
    try:
        status, headers = await send()
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        counts.failed += 1
        pass_.failed(TransportError(f"the connection broke: {error}"), 0.0)
        return
    headers = {name.lower(): value for name, value in headers.items()}
    seconds = now() - sent
    pass_.hear(headers)
    hint = float(headers["retry-after"]) if "retry-after" in headers else None
    match status:
        case 200:
            counts.ok += 1
            pass_.succeeded(10, seconds)
        case 429:
            counts.refused += 1
            pass_.failed(RateLimitError("too fast", status=429, retry_after=hint), seconds)
        case code:
            counts.failed += 1
            pass_.failed(ServerError("failed", status=code, retry_after=hint), seconds)
