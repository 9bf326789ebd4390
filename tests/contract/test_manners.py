"""Manners, against real servers that enforce limits: how much of a limit is used, and how much is refused. A minute is scaled to
seconds: 6,000 requests a minute, for five."""

import asyncio
import random

import pytest

from runner.limits import Endpoint, Limiter
from tests.support.limited import FixedWindow, LimitedServer, TokenBucket, ask

pytestmark = pytest.mark.alone

RPM = 6000
SECONDS = 5.0


def limiter(*, rpm=None, most=32):
    return Limiter(Endpoint("limited"), max_concurrency=most, rpm=rpm)


def share(server, seconds=SECONDS, rpm=None):
    """How much of what the server and the setting allow was let through, and how much of what came was refused."""
    allowed = server.policy.allowed(seconds)
    if rpm:
        allowed = min(allowed, rpm * seconds / 60)
    return server.passed / allowed, server.refused / server.came


async def at_once(servers, **settings):
    """Ask each of these servers for as long, all at the same time, each through a limiter and an event loop of its own."""

    def one(server):
        with server:
            asking = limiter(**settings)
            asyncio.run(ask(server, asking, workers=32, seconds=SECONDS))
            return asking.now()

    return await asyncio.gather(*[asyncio.to_thread(one, server) for server in servers])


async def test_a_configured_rate_is_used_and_hardly_ever_refused():
    servers = [
        LimitedServer(TokenBucket(RPM, 100), latency_s=0.02, tell=True, hint=True),
        LimitedServer(TokenBucket(RPM, 100), latency_s=0.02, hint=True),
        LimitedServer(TokenBucket(RPM, 100), latency_s=0.02),
        LimitedServer(FixedWindow(RPM // 60, 1.0), latency_s=0.02, hint=True),
    ]
    await at_once(servers, rpm=RPM)
    shares = [share(server, rpm=RPM) for server in servers]
    assert all(used >= 0.8 for used, _ in shares), shares  # 0.99 on a quiet machine
    assert all(refused <= 0.03 for _, refused in shares), shares


async def test_a_rate_that_nobody_configured_is_found():
    telling, hinting, bare = servers = [
        LimitedServer(TokenBucket(RPM, 300), latency_s=0.02, tell=True, hint=True),
        LimitedServer(TokenBucket(RPM, 300), latency_s=0.02, hint=True),
        LimitedServer(TokenBucket(RPM, 300), latency_s=0.02),
    ]
    lives = await at_once(servers)
    assert share(telling)[0] >= 0.8
    assert share(telling)[1] <= 0.02
    for server, live in zip((hinting, bare), lives[1:], strict=True):
        used, refused = share(server)
        assert used >= 0.55  # each refusal costs a second of Retry-After, of these few
        assert refused <= 0.06
        assert live.rpm == pytest.approx(RPM, rel=0.5)


async def test_a_window_that_headers_tell_is_never_overrun():
    with LimitedServer(FixedWindow(100, 2.0), latency_s=0.02, tell=True, hint=True) as server:
        await ask(server, limiter(), workers=32, seconds=SECONDS)
    assert server.passed >= 200
    assert server.refused <= 0.05 * server.came


async def test_everybody_pauses_not_only_the_row_that_was_refused():
    with LimitedServer(FixedWindow(50, 1.5), latency_s=0.01, hint=True) as server:
        counts = await ask(server, limiter(most=16), workers=64, rows=150)
    assert counts.ok >= 150
    assert server.refused <= 3 * 16  # one wave a window at the very most; 100 rows that each ask on their own would be hundreds


async def test_a_server_that_refuses_nothing_gets_all_that_was_asked_for():
    with LimitedServer(latency_s=0.2) as server:
        counts = await ask(server, limiter(most=256), workers=256, rows=2000)
    assert counts.refused == counts.failed == 0
    assert server.most_in_flight == 256


async def test_answers_of_all_lengths_do_not_shrink_the_window():
    dice = random.Random(1)
    with LimitedServer(latency_s=lambda _: 0.01 * 10 ** dice.random()) as server:
        asking = limiter(most=32)
        await ask(server, asking, workers=32, rows=3000)
    assert asking.now().window == 32


async def test_a_server_that_slows_down_is_backed_off_from_and_taken_up_again():
    slow = False

    def latency(in_flight):
        return 0.02 if not slow else max(0.02, in_flight * 0.005)  # a queue that serves 200 a second

    with LimitedServer(latency_s=latency) as server:
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


async def test_overload_without_a_word_about_rates_shrinks_the_window():
    class Crowded:
        """Refuses whoever comes when ten are being served."""

        def decide(self, now):
            return 0.0 if server.in_flight >= 10 else None

        def headers(self, now):
            return {}

    with LimitedServer(Crowded(), latency_s=0.02, refusal=503) as server:
        asking = limiter(most=40)
        counts = await ask(server, asking, workers=40, rows=800)
    assert counts.ok >= 800
    assert asking.now().window <= 16
    assert counts.failed <= 0.25 * counts.sent


async def test_many_limiters_and_event_loops_keep_one_rate():
    endpoint = Endpoint("limited")
    with LimitedServer(TokenBucket(RPM, 100), latency_s=0.01) as server:
        limiters = [Limiter(endpoint, max_concurrency=8, rpm=RPM) for _ in range(3)]
        jobs = [asyncio.to_thread(lambda one=one: asyncio.run(ask(server, one, workers=8, seconds=3.0))) for one in limiters]
        await asyncio.gather(*jobs)
    used, refused = share(server, 3.0, RPM)
    assert used >= 0.8
    assert refused <= 0.03
