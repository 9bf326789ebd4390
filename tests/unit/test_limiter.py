"""Limiters: endpoints, passes and their order, cancellation, threads and loops, rates."""

import asyncio
import gc
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from runner import errors
from runner.limits import Endpoint, Limiter, endpoint_of
from runner.limits.gate import START, START_EVERY_S
from tests.support.limiters import plain, settle

KEY = "sk-" + "k" * 40


# --- endpoints


def test_an_address_and_key_share_one_endpoint_until_its_last_user_is_gone():
    one = endpoint_of("http://a/v1", KEY)
    assert endpoint_of("http://a/v1", KEY) is one
    assert endpoint_of("http://a/v1", None) is not one
    assert endpoint_of("http://b/v1", KEY) is not one
    one.mark = "the first"
    del one
    gc.collect()
    assert not hasattr(endpoint_of("http://a/v1", KEY), "mark")


def test_only_a_hash_of_the_key_is_kept():
    from runner.limits import endpoint as module

    endpoint = endpoint_of("http://a/v1", KEY)
    assert KEY not in repr(list(module._endpoints.keys()))
    assert hashlib.sha256(KEY.encode()).hexdigest() in repr(list(module._endpoints.keys()))
    assert KEY not in repr(vars(endpoint))
    assert "secret" not in endpoint_of("http://user:secret@a/v1", None).address


# --- passes


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("most", [1, 3, 8])
async def test_no_more_than_max_concurrency_are_in_flight(most, adaptive):
    limiter, in_flight, seen = Limiter(Endpoint("x"), max_concurrency=most, adaptive=adaptive), 0, []

    async def one():
        nonlocal in_flight
        pass_ = await limiter.acquire()
        in_flight += 1
        seen.append(in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        pass_.succeeded(1, 0.1)

    await asyncio.wait_for(asyncio.gather(*[one() for _ in range(50)]), 20)
    assert max(seen) == most
    assert len(seen) == 50


async def test_a_new_endpoint_gets_few_requests_first_and_twice_as_many_after_each_window_of_answers(endpoint):
    limiter = Limiter(endpoint, max_concurrency=64)
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(START + 16 + 32 + 64 + 30)]
    seen = []
    for _ in range(4):
        await settle()
        seen.append(limiter.now().in_flight)
        flying = [task for task in tasks if task.done()]
        tasks = [task for task in tasks if not task.done()]
        for task in flying:
            task.result().succeeded(1, 0.0)
    assert seen == [START, 16, 32, 64]
    await settle()
    for task in tasks:
        task.result().abandoned()


@pytest.mark.parametrize("failure", [errors.ServerError("x", status=500), errors.ContextWindowError("x")])
async def test_failures_do_not_let_a_new_endpoint_have_more(endpoint, failure):
    limiter = Limiter(endpoint, max_concurrency=64)
    endpoint.join()
    for _ in range(2):
        (await limiter.acquire()).failed(failure, 0.1)
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(20)]
    await settle()
    assert limiter.now().in_flight == START
    for task in tasks:
        task.cancel()


async def test_a_new_endpoint_gets_more_after_a_second_even_if_answers_take_longer(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=64)
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(64)]
    seen = []
    for _ in range(4):
        await settle()
        seen.append(limiter.now().in_flight)
        clock.now += START_EVERY_S
        endpoint.ring()
    await settle()
    assert seen == [START, 16, 32, 64]
    for task in tasks:
        task.result().abandoned()


async def test_limiters_share_an_endpoint_and_keep_their_own_bounds():
    endpoint = Endpoint("x")
    small, large = (Limiter(endpoint, max_concurrency=n, adaptive=False) for n in (2, 5))
    held = [await small.acquire() for _ in range(2)]
    waiting = asyncio.create_task(small.acquire())
    await settle()
    others = [await asyncio.wait_for(large.acquire(), 10) for _ in range(5)]  # waiters at `small` block no others
    assert not waiting.done()
    assert small.now().in_flight == 7
    held[0].succeeded(None, 0.1)
    (await asyncio.wait_for(waiting, 10)).abandoned()
    for pass_ in [*held, *others]:
        pass_.abandoned()
    assert large.now().in_flight == 0


async def test_the_window_is_that_of_the_largest_limiter_in_use(clock, endpoint):
    small = Limiter(endpoint, max_concurrency=4)
    large = Limiter(endpoint, max_concurrency=100)
    assert (small.now().window, large.now().window) == (4, 100)
    del large
    gc.collect()
    with small.using():
        pass
    assert endpoint._gate.window.size == 4


async def test_first_come_first_served_across_limiters():
    endpoint, order = Endpoint("x"), []
    one, two = (Limiter(endpoint, max_concurrency=1, adaptive=False) for _ in range(2))
    first = await one.acquire()
    second = await two.acquire()

    async def come(limiter, name):
        pass_ = await limiter.acquire()
        order.append(name)
        await asyncio.sleep(0)
        pass_.succeeded(1, 0.1)

    tasks = []
    for n in range(10):
        tasks.append(asyncio.create_task(come(one if n % 2 else two, n)))
        await settle()
    second.succeeded(1, 0.1)
    first.succeeded(1, 0.1)
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert [n for n in order if n % 2] == [1, 3, 5, 7, 9]
    assert [n for n in order if n % 2 == 0] == [0, 2, 4, 6, 8]


async def test_a_pass_ends_once():
    limiter = plain(2)
    pass_ = await limiter.acquire()
    pass_.failed(errors.ServerError("x"), 0.1)
    pass_.succeeded(1, 0.1)
    pass_.abandoned()
    assert limiter.now().in_flight == 0


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_wait_leaves_nothing_behind(granted):
    limiter = plain(1)
    pass_ = await limiter.acquire()
    waiting, behind = asyncio.create_task(limiter.acquire()), asyncio.create_task(limiter.acquire())
    await settle()
    if granted:
        pass_.abandoned()  # the pass goes to `waiting`, which is cancelled before it wakes
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    pass_.abandoned()
    (await asyncio.wait_for(behind, 10)).abandoned()
    assert (limiter.now().in_flight, limiter.now().waiting) == (0, 0)


async def test_a_cancelled_wait_uses_no_rate(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=1, rpm=60, tpm=60_000)
    held = await limiter.acquire(100)
    clock.now += 1
    waiting, behind = asyncio.create_task(limiter.acquire(100)), asyncio.create_task(limiter.acquire(100))
    await settle()
    held.abandoned()  # the pass and this second's request go to `waiting`
    waiting.cancel()
    await asyncio.wait([waiting])
    (await asyncio.wait_for(behind, 10)).abandoned()


async def test_a_cancelled_first_waiter_passes_its_timer_on():
    limiter = plain(4, rpm=1200)  # 20 per second
    held = [await limiter.acquire() for _ in range(4)]
    for pass_ in held:
        pass_.succeeded(1, 0.1)
    for _ in range(6):
        (await limiter.acquire()).succeeded(1, 0.1)
    first, second = asyncio.create_task(limiter.acquire()), asyncio.create_task(limiter.acquire())
    await settle()
    first.cancel()
    (await asyncio.wait_for(second, 20)).abandoned()


def test_a_waiter_of_a_closed_loop_blocks_no_others():
    limiter = plain(1)
    held = limiter.acquire_blocking()
    loop = asyncio.new_event_loop()
    task = loop.create_task(limiter.acquire())
    loop.run_until_complete(asyncio.sleep(0.01))
    assert limiter.now().waiting == 1
    task._log_destroy_pending = False
    loop.close()
    held.abandoned()
    limiter.acquire_blocking().abandoned()


def test_threads_and_loops_share_one_endpoint():
    limiter, lock = Limiter(Endpoint("x"), max_concurrency=3, rpm=60_000_000), threading.Lock()
    state = {"now": 0, "most": 0, "done": 0}

    def enter():
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])

    def leave(pass_):
        with lock:
            state["now"] -= 1
            state["done"] += 1
        pass_.succeeded(5, 0.01)

    def threaded():
        for _ in range(200):
            pass_ = limiter.acquire_blocking(5)
            enter()
            leave(pass_)

    async def task():
        for _ in range(50):
            pass_ = await limiter.acquire(5)
            enter()
            await asyncio.sleep(0)
            leave(pass_)

    async def tasks():
        await asyncio.gather(*[task() for _ in range(4)])

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(threaded) for _ in range(4)] + [pool.submit(lambda: asyncio.run(tasks())) for _ in range(2)]
        for job in jobs:
            job.result(60)
    assert state == {"now": 0, "most": 3, "done": 1200}
    assert limiter.now().in_flight == 0


# --- rates


async def test_the_latest_settings_apply(endpoint):
    one = Limiter(endpoint, max_concurrency=4, rpm=60)
    assert one.now().rpm == 60
    two = Limiter(endpoint, max_concurrency=4, rpm=600, tpm=1000)
    assert one.now().rpm == 600
    Limiter(endpoint, max_concurrency=4)
    assert two.now().rpm == 600


@pytest.mark.parametrize("adaptive", [True, False])
async def test_requests_per_minute_stay_within_the_limit(clock, endpoint, adaptive):
    limiter = Limiter(endpoint, max_concurrency=1000, rpm=60, adaptive=adaptive)
    (await limiter.acquire()).succeeded(1, 0.1)
    waiting = asyncio.create_task(limiter.acquire())
    await settle()
    assert not waiting.done()
    clock.now += 0.5
    endpoint.ring()
    await settle()
    assert not waiting.done()
    clock.now += 0.5
    endpoint.ring()
    (await asyncio.wait_for(waiting, 10)).succeeded(1, 0.1)
    assert limiter.now().last_minute == 2
    clock.now += 120
    assert limiter.now().last_minute == 0


async def test_tokens_are_estimated_first_and_corrected_by_usage(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=10, tpm=6000)
    (await limiter.acquire(1000)).succeeded(10, 0.1)
    clock.now += 0.2
    pass_ = await asyncio.wait_for(limiter.acquire(1000), 10)  # the unused tokens of the first are available
    pass_.succeeded(None, 0.1)
    waiting = asyncio.create_task(limiter.acquire(10))
    await settle()
    assert not waiting.done()
    clock.now += 11
    endpoint.ring()
    (await asyncio.wait_for(waiting, 10)).abandoned()


async def test_nothing_is_sent_before_the_reset_in_headers(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=10)
    pass_ = await limiter.acquire()
    pass_.hear({"ratelimit-limit": "100", "ratelimit-remaining": "0", "ratelimit-reset": "30"})
    pass_.succeeded(1, 0.1)
    waiting = asyncio.create_task(limiter.acquire())
    clock.now += 29.9
    await settle()
    endpoint.ring()
    await settle()
    assert not waiting.done()
    clock.now += 0.1
    endpoint.ring()
    (await asyncio.wait_for(waiting, 10)).abandoned()


async def test_requests_wait_for_tokens_that_headers_report_as_used_up(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=10)
    limiter.hear(
        {
            "anthropic-ratelimit-tokens-limit": "1000",
            "anthropic-ratelimit-tokens-remaining": "50",
            "anthropic-ratelimit-tokens-reset": "1970-01-01T00:17:10Z",  # 30 s after the clock's 1000
        }
    )
    (await limiter.acquire(40)).abandoned()
    waiting = asyncio.create_task(limiter.acquire(40))
    await settle()
    assert not waiting.done()
    clock.now += 30
    endpoint.ring()
    (await asyncio.wait_for(waiting, 10)).abandoned()
