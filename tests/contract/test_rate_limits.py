"""Measure how much of a server's rate limit the limiter uses, and how many of its requests are refused.

Time is simulated, so that the figures are the same on every machine: 6,000 requests per minute, for five seconds.
"""

import asyncio
import functools
import random

import pytest

from runner.limits import Endpoint, Limiter
from tests.support.clock import simulate
from tests.support.limited import FixedWindow, Limited, LimitedServer, TokenBucket, ask

RPM = 6000
SECONDS = 5.0


def limiter(endpoint=None, *, rpm=None, most=32):
    now = asyncio.get_running_loop().time
    return Limiter(endpoint or Endpoint("limited", clock=now, wall=now), max_concurrency=most, rpm=rpm)


def simulated(test):
    """Run an async test in simulated time."""

    @functools.wraps(test)
    def run():
        simulate(test())

    return run


def share(server, seconds=SECONDS, rpm=None):
    """Return the admitted share of what server and setting allow, and the refused share of all requests."""
    allowed = server.policy.allowed(seconds)
    if rpm:
        allowed = min(allowed, rpm * seconds / 60)
    return server.passed / allowed, server.refused / server.came


async def each(servers, **settings):
    """Load each of these servers equally long, each through its own limiter."""
    askers = [limiter(**settings) for _ in servers]
    await asyncio.gather(*[ask(*pair, workers=32, seconds=SECONDS) for pair in zip(servers, askers, strict=True)])
    return [asker.now() for asker in askers]


@simulated
async def test_a_configured_rate_is_used_with_hardly_any_refusal():
    servers = [
        Limited(TokenBucket(RPM, 100), latency_s=0.02, tell=True, hint=True),
        Limited(TokenBucket(RPM, 100), latency_s=0.02, hint=True),
        Limited(TokenBucket(RPM, 100), latency_s=0.02),
        Limited(FixedWindow(RPM // 60, 1.0), latency_s=0.02, hint=True),
    ]
    await each(servers, rpm=RPM)
    shares = [share(server, rpm=RPM) for server in servers]
    assert all(used >= 0.8 for used, _ in shares), shares  # 0.99 on a quiet machine
    assert all(refused <= 0.03 for _, refused in shares), shares


@simulated
async def test_an_unconfigured_rate_is_learned():
    telling, hinting, bare = servers = [
        Limited(TokenBucket(RPM, 300), latency_s=0.02, tell=True, hint=True),
        Limited(TokenBucket(RPM, 300), latency_s=0.02, hint=True),
        Limited(TokenBucket(RPM, 300), latency_s=0.02),
    ]
    lives = await each(servers)
    assert share(telling)[0] >= 0.8
    assert share(telling)[1] <= 0.02
    for server, live in zip((hinting, bare), lives[1:], strict=True):
        used, refused = share(server)
        assert used >= 0.55  # each refusal costs one second of Retry-After, of only a few
        assert refused <= 0.06
        assert live.rpm == pytest.approx(RPM, rel=0.5)


@simulated
async def test_a_window_in_headers_is_hardly_ever_exceeded():
    server = Limited(FixedWindow(100, 2.0), latency_s=0.02, tell=True, hint=True)
    await ask(server, limiter(), workers=32, seconds=SECONDS)
    assert server.passed >= 200
    assert server.refused <= 0.05 * server.came


@simulated
async def test_a_run_of_400_rows_is_hardly_refused_at_a_limit_of_1200_a_minute():
    for latency_s in (0.05, 0.3):
        server = Limited(TokenBucket(1200, 20), latency_s=latency_s)
        began = asyncio.get_running_loop().time()
        await ask(server, limiter(most=64), workers=64, rows=400)
        used, refused = (
            server.passed / server.policy.allowed(asyncio.get_running_loop().time() - began),
            server.refused / server.came,
        )
        assert used >= 0.92
        assert refused <= 0.03


@simulated
async def test_a_refusal_pauses_all_rows():
    server = Limited(FixedWindow(50, 1.5), latency_s=0.01, hint=True)
    counts = await ask(server, limiter(most=16), workers=64, rows=150)
    assert counts.ok >= 150
    assert server.refused <= 3 * 16  # one round trip per window at most; 100 independent rows would cause hundreds


@simulated
async def test_a_server_without_limits_gets_full_concurrency():
    server = Limited(latency_s=0.2)
    counts = await ask(server, limiter(most=256), workers=256, rows=2000)
    assert counts.refused == counts.failed == 0
    assert server.most_in_flight == 256


@simulated
async def test_answers_of_varying_length_do_not_shrink_the_window():
    dice = random.Random(1)
    server = Limited(latency_s=lambda _: 0.01 * 10 ** dice.random())
    asking = limiter(most=32)
    await ask(server, asking, workers=32, rows=3000)
    assert asking.now().window == 32


@simulated
async def test_a_slow_server_gets_a_smaller_window_until_it_recovers():
    slow = False

    def latency(in_flight):
        return 0.02 if not slow else max(0.02, in_flight * 0.005)  # a queue that serves 200 per second

    server = Limited(latency_s=latency)
    asking = limiter(most=32)
    with asking.using():
        await ask(server, asking, workers=32, rows=600)
        assert asking.now().window == 32
        slow = True
        await ask(server, asking, workers=32, rows=1500)
        backed_off = asking.now().window
        slow = False
        await ask(server, asking, workers=32, rows=2000)
    assert backed_off <= 24
    assert asking.now().window > backed_off


@simulated
async def test_overload_without_rate_limits_shrinks_the_window():
    class Crowded:
        """Refuse requests while ten are being served."""

        def decide(self, now):
            return 0.0 if server.in_flight >= 10 else None

        def headers(self, now):
            return {}

    server = Limited(Crowded(), latency_s=0.02, refusal=503)
    asking = limiter(most=40)
    counts = await ask(server, asking, workers=40, rows=800)
    assert counts.ok >= 800
    assert asking.now().window <= 16
    assert counts.failed <= 0.25 * counts.sent


@simulated
async def test_many_limiters_keep_one_rate():
    now = asyncio.get_running_loop().time
    endpoint = Endpoint("limited", clock=now, wall=now)
    server = Limited(TokenBucket(RPM, 100), latency_s=0.01)
    askers = [limiter(endpoint, rpm=RPM, most=8) for _ in range(3)]
    await asyncio.gather(*[ask(server, asker, workers=8, seconds=3.0) for asker in askers])
    used, refused = share(server, 3.0, RPM)
    assert used >= 0.8
    assert refused <= 0.03


async def test_many_limiters_and_event_loops_keep_one_rate():
    """Run in real time: threads share the state of a limit."""
    endpoint = Endpoint("limited")
    with LimitedServer(TokenBucket(RPM, 100), latency_s=0.01) as server:
        askers = [Limiter(endpoint, max_concurrency=8, rpm=RPM) for _ in range(3)]
        counts = await asyncio.gather(
            *[asyncio.to_thread(lambda asker=asker: asyncio.run(ask(server, asker, workers=8, rows=100))) for asker in askers]
        )
    assert all(count.ok >= 100 for count in counts)
    assert server.refused <= 0.03 * server.came
