"""Limiters: places and their order, cancellation, threads and loops, closing and what is forgotten, breakers, live numbers."""

import asyncio
import contextlib
import gc
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from runner import errors
from runner.errors import EndpointClosedError
from runner.limits import Endpoint, Limiter, endpoint_of
from runner.limits.breaker import PROBES, TRIP
from runner.limits.endpoint import UNREACHED
from runner.limits.gate import PATIENCE_S, START

KEY = "sk-" + "k" * 40


class Clock:
    """Time that passes when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def endpoint(clock):
    return Endpoint("http://server/v1", clock=clock, wall=clock)


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


# --- endpoints


def test_an_address_and_key_is_one_endpoint_that_goes_with_its_last_user():
    one = endpoint_of("http://a/v1", KEY)
    assert endpoint_of("http://a/v1", KEY) is one
    assert endpoint_of("http://a/v1", None) is not one
    assert endpoint_of("http://b/v1", KEY) is not one
    one.mark = "the first"
    del one
    gc.collect()
    assert not hasattr(endpoint_of("http://a/v1", KEY), "mark")


def test_the_key_is_not_kept():
    from runner.limits import endpoint as module

    endpoint = endpoint_of("http://a/v1", KEY)
    assert KEY not in repr(list(module._endpoints.keys()))
    assert hashlib.sha256(KEY.encode()).hexdigest() in repr(list(module._endpoints.keys()))
    assert KEY not in repr(vars(endpoint))
    assert "secret" not in endpoint_of("http://user:secret@a/v1", None).address


# --- places


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


async def test_a_new_endpoint_is_met_with_a_few_and_then_with_all():
    limiter = Limiter(Endpoint("x"), max_concurrency=64)
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(100)]
    await settle()
    assert START <= limiter.now().in_flight < 64
    passes = [await asyncio.wait_for(task, 10) for task in tasks[:64]]
    assert limiter.now().in_flight == 64
    assert limiter.now().waiting == 36
    for task in tasks:
        task.cancel()
    for pass_ in passes:
        pass_.succeeded(1, 0.1)


async def test_limiters_share_the_endpoint_and_each_keeps_its_own_bound():
    endpoint = Endpoint("x")
    small, large = (Limiter(endpoint, max_concurrency=n, adaptive=False) for n in (2, 5))
    held = [await small.acquire() for _ in range(2)]
    waiting = asyncio.create_task(small.acquire())
    await settle()
    others = [await asyncio.wait_for(large.acquire(), 10) for _ in range(5)]  # whoever waits at `small` holds nobody up
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
        pass_.abandoned()  # the place is given to `waiting`, which does not live to see it
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    pass_.abandoned()
    (await asyncio.wait_for(behind, 10)).abandoned()
    assert (limiter.now().in_flight, limiter.now().waiting) == (0, 0)


async def test_a_cancelled_wait_uses_up_no_rate(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=1, rpm=60, tpm=60_000)
    held = await limiter.acquire(100)
    clock.now += 1
    waiting, behind = asyncio.create_task(limiter.acquire(100)), asyncio.create_task(limiter.acquire(100))
    await settle()
    held.abandoned()  # the place and this second's request are given to `waiting`
    waiting.cancel()
    await asyncio.wait([waiting])
    (await asyncio.wait_for(behind, 10)).abandoned()


async def test_a_cancelled_first_hands_its_alarm_on():
    limiter = plain(4, rpm=1200)  # 20 a second
    held = [await limiter.acquire() for _ in range(4)]
    for pass_ in held:
        pass_.succeeded(1, 0.1)
    for _ in range(6):
        (await limiter.acquire()).succeeded(1, 0.1)
    first, second = asyncio.create_task(limiter.acquire()), asyncio.create_task(limiter.acquire())
    await settle()
    first.cancel()
    (await asyncio.wait_for(second, 20)).abandoned()


def test_a_wait_that_dies_with_its_loop_keeps_nobody_waiting():
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


async def test_the_latest_settings_count(endpoint):
    one = Limiter(endpoint, max_concurrency=4, rpm=60)
    assert one.now().rpm == 60
    two = Limiter(endpoint, max_concurrency=4, rpm=600, tpm=1000)
    assert one.now().rpm == 600
    Limiter(endpoint, max_concurrency=4)
    assert two.now().rpm == 600


@pytest.mark.parametrize("adaptive", [True, False])
async def test_requests_a_minute_are_kept(clock, endpoint, adaptive):
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


async def test_tokens_are_taken_as_an_estimate_and_settled_with_the_use(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=10, tpm=6000)
    (await limiter.acquire(1000)).succeeded(10, 0.1)
    clock.now += 0.2
    pass_ = await asyncio.wait_for(limiter.acquire(1000), 10)  # what the first did not use is there
    pass_.succeeded(None, 0.1)
    waiting = asyncio.create_task(limiter.acquire(10))
    await settle()
    assert not waiting.done()
    clock.now += 11
    endpoint.ring()
    (await asyncio.wait_for(waiting, 10)).abandoned()


async def test_nothing_is_sent_before_the_reset_that_headers_name(clock, endpoint):
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


async def test_tokens_that_headers_deny_are_waited_for(clock, endpoint):
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


# --- refusals


async def test_a_refusal_pauses_everybody_as_long_as_the_server_asks(clock, endpoint):
    one, two = Limiter(endpoint, max_concurrency=8), Limiter(endpoint, max_concurrency=8)
    endpoint.join()
    (await one.acquire()).failed(errors.RateLimitError("slow down", status=429, retry_after=7.0), 0.1)
    waiting = asyncio.create_task(two.acquire())
    await settle()
    live = two.now()
    assert (live.state, live.paused_s, live.waiting) == ("paused", 7.0, 1)
    assert str(live) == "0/6 in flight, paused 7 s (429)"
    clock.now += 6.9
    endpoint.ring()
    await settle()
    assert not waiting.done()
    clock.now += 0.1
    endpoint.ring()
    (await asyncio.wait_for(waiting, 10)).succeeded(1, 0.1)
    assert two.now().state == "open"


async def test_the_refusals_of_one_wave_are_one(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    endpoint.join()
    wave = [await limiter.acquire() for _ in range(8)]
    clock.now += 0.1
    for pass_ in wave:
        pass_.failed(errors.RateLimitError("slow down", status=429), 0.1)
    live = limiter.now()
    assert live.window == 6
    assert 0.2 <= live.paused_s <= 0.5


async def test_refusals_without_a_hint_are_met_with_growing_pauses(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        for most in (0.5, 1, 2, 4, 8, 16, 30, 30):
            (await limiter.acquire()).failed(errors.RateLimitError("slow down", status=429), 0.1)
            paused = limiter.now().paused_s
            assert most / 2 <= paused <= most
            clock.now += paused + 0.001
        assert limiter.now().window == 1
        (await limiter.acquire()).succeeded(1, 0.1)
        (await limiter.acquire()).failed(errors.RateLimitError("slow down", status=429), 0.1)
        assert limiter.now().paused_s <= 0.5


async def test_a_wait_longer_than_anybody_waits_closes_the_endpoint(endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        error = errors.RateLimitError("daily limit", status=429, retry_after=PATIENCE_S + 1)
        (await limiter.acquire()).failed(error, 0.1)
        assert "asks to wait 301 s" in (await refused(limiter)).message


@pytest.mark.parametrize(
    "error",
    [
        errors.ServerError("overloaded", status=503),
        errors.ServerError("overloaded", status=529, retry_after=3.0),
        errors.LMTimeoutError("slow"),
    ],
)
async def test_overload_shrinks_the_window(clock, endpoint, error):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        (await limiter.acquire()).failed(error, 0.1)
        assert limiter.now().window == 6
        assert limiter.now().paused_s == (error.retry_after or 0.0)


async def test_other_failures_do_not(endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        for error in (errors.ServerError("x", status=500), errors.MalformedError("x"), errors.ContextWindowError("x")):
            (await limiter.acquire()).failed(error, 0.1)
    assert limiter.now().window == 8


async def test_a_server_that_needs_no_manners_gets_none():
    limiter = plain(4)
    with limiter.using():
        for _ in range(3 * TRIP):
            (await limiter.acquire()).failed(errors.RateLimitError("x", retry_after=100.0), 0.1)
            (await limiter.acquire()).failed(errors.ServerError("x", status=503), 0.1)
        assert (limiter.now().state, limiter.now().window) == ("open", 4)


# --- the breaker


async def trip(limiter):
    for _ in range(TRIP):
        (await limiter.acquire()).failed(errors.ServerError("down", status=500), 0.1)


async def test_a_failing_server_is_probed_and_then_given_up(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        (await limiter.acquire()).succeeded(1, 0.1)
        await trip(limiter)
        assert limiter.now().state == "breaker"
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(8)]
        for cool in (1, 2, 4, 8, 16, 30):
            await settle()
            assert not any(task.done() for task in tasks)
            clock.now += cool
            endpoint.ring()
            await settle()
            (probe,) = [task for task in tasks if task.done()]
            tasks.remove(probe)
            probe.result().failed(errors.ServerError("still down", status=500), 0.1)
        for task in tasks:
            with pytest.raises(EndpointClosedError, match=r"still down; .* kept failing: .* can be resumed") as caught:
                await asyncio.wait_for(task, 10)
            assert caught.value.status == 500
        assert len(tasks) == 8 - PROBES
        assert limiter.now().state == "closed"


@pytest.mark.parametrize("answer", ["success", "refusal", "row"])
async def test_one_answer_closes_the_breaker(clock, endpoint, answer):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        await trip(limiter)
        clock.now += 1
        probe = await asyncio.wait_for(limiter.acquire(), 10)
        match answer:
            case "success":
                probe.succeeded(1, 0.1)
            case "refusal":
                probe.failed(errors.RateLimitError("x", retry_after=1.0), 0.1)
            case "row":
                probe.failed(errors.ContextWindowError("x"), 0.1)
        assert limiter.now().state == ("paused" if answer == "refusal" else "open")


async def test_a_cancelled_probe_lets_another_go(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        await trip(limiter)
        clock.now += 1
        (await asyncio.wait_for(limiter.acquire(), 10)).abandoned()
        (await asyncio.wait_for(limiter.acquire(), 10)).succeeded(1, 0.1)
        assert limiter.now().state == "open"


async def test_failures_among_successes_do_not_open_it(endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        for _ in range(5):
            for _ in range(TRIP - 1):
                (await limiter.acquire()).failed(errors.MalformedError("x"), 0.1)
            (await limiter.acquire()).succeeded(1, 0.1)
        assert limiter.now().state == "open"


# --- closing


@pytest.mark.parametrize("cls", [errors.AuthenticationError, errors.QuotaError])
async def test_what_would_meet_every_request_closes_the_endpoint_for_all(endpoint, cls):
    one, two = Limiter(endpoint, max_concurrency=2), Limiter(endpoint, max_concurrency=1)
    held = await two.acquire()
    waiting = [asyncio.create_task(two.acquire()), asyncio.create_task(two.pause(3600))]
    await settle()
    (await one.acquire()).failed(cls("no more", model="openai/m", status=401), 0.1)
    for task in waiting:
        with pytest.raises(EndpointClosedError, match="no more") as caught:
            await asyncio.wait_for(task, 10)
        assert (caught.value.model, caught.value.status) == ("openai/m", 401)
        assert isinstance(caught.value.__cause__, cls)
    await refused(one)
    assert str(one.now()) == f"1/2 in flight, closed ({cls.code})"
    held.succeeded(1, 0.1)  # what is in flight goes on


@pytest.mark.parametrize("cls", [errors.NotFoundError, errors.PermissionDeniedError, errors.BadRequestError])
async def test_what_may_be_about_the_model_closes_the_limiter_that_asked_for_it(endpoint, cls):
    one, two = Limiter(endpoint, max_concurrency=4), Limiter(endpoint, max_concurrency=4)
    with one.using():
        (await one.acquire()).failed(cls("no such model"), 0.1)
        await refused(one)
        (await two.acquire()).abandoned()


async def test_a_refused_request_is_the_rows_fault_once_something_has_worked(endpoint):
    limiter = Limiter(endpoint, max_concurrency=4)
    with limiter.using():
        (await limiter.acquire()).succeeded(1, 0.1)
        (await limiter.acquire()).failed(errors.BadRequestError("x"), 0.1)
        (await limiter.acquire()).abandoned()


@pytest.mark.parametrize("adaptive", [True, False])
async def test_an_address_that_has_never_answered_is_closed_after_a_few_failures(endpoint, adaptive):
    limiter = Limiter(endpoint, max_concurrency=4, adaptive=adaptive)
    with limiter.using():
        for _ in range(UNREACHED - 1):
            (await limiter.acquire()).failed(errors.TransportError("x"), 0.1)
        (await limiter.acquire()).failed(errors.ServerError("something answers", status=500), 0.1)
        for _ in range(UNREACHED):
            (await limiter.acquire()).failed(errors.TransportError("nobody there"), 0.1)
        assert "nobody there" in (await refused(limiter)).message


async def test_an_address_that_has_answered_is_not(endpoint):
    limiter = Limiter(endpoint, max_concurrency=4)
    with limiter.using():
        (await limiter.acquire()).succeeded(None, 0.1)
        for _ in range(UNREACHED * 2):
            (await limiter.acquire()).failed(errors.TransportError("x"), 0.1)
        (await limiter.acquire()).abandoned()


async def test_closing_does_not_outlive_its_users(clock, endpoint):
    one, two = Limiter(endpoint, max_concurrency=4), Limiter(endpoint, max_concurrency=4)
    with one.using():
        with two.using():
            (await one.acquire()).failed(errors.QuotaError("spent"), 0.1)
            await refused(two)
        await refused(one)
    (await one.acquire()).failed(errors.RateLimitError("x", retry_after=60.0), 0.1)
    (await asyncio.wait_for(two.acquire(), 10)).abandoned()  # nobody was there any more: the key may have been topped up


async def test_who_waits_or_has_a_request_out_is_a_user(endpoint):
    limiter = Limiter(endpoint, max_concurrency=4)
    held = await limiter.acquire()
    (await limiter.acquire()).failed(errors.QuotaError("spent"), 0.1)
    await refused(limiter)
    held.abandoned()
    (await asyncio.wait_for(limiter.acquire(), 10)).abandoned()


async def test_a_limiter_closed_by_its_owner_stays_closed(endpoint):
    limiter, other = Limiter(endpoint, max_concurrency=1), Limiter(endpoint, max_concurrency=2)
    held = await limiter.acquire()
    waiting = [asyncio.create_task(limiter.acquire()), asyncio.create_task(limiter.pause(3600))]
    await settle()
    limiter.close(errors.QuotaError("the budget is spent"))
    for task in waiting:
        with pytest.raises(EndpointClosedError, match="the budget"):
            await asyncio.wait_for(task, 10)
    held.succeeded(1, 0.1)
    await refused(limiter)
    (await asyncio.wait_for(other.acquire(), 10)).abandoned()


def test_threads_are_refused_like_tasks():
    limiter = plain(1)
    held = limiter.acquire_blocking()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(limiter.acquire_blocking), pool.submit(limiter.pause_blocking, 3600)]
        while limiter.now().waiting < 1:
            pass
        limiter.close(errors.QuotaError("spent"))
        for job in waiting:
            with pytest.raises(EndpointClosedError, match="spent"):
                job.result(20)
    with contextlib.suppress(EndpointClosedError):
        limiter.pause_blocking(3600)
    held.abandoned()


async def test_a_pause_ends():
    limiter = plain(1)
    await asyncio.wait_for(limiter.pause(0.01), 10)
    limiter.pause_blocking(0.01)
    task = asyncio.create_task(limiter.pause(3600))
    await settle()
    task.cancel()
    await asyncio.wait([task])
    assert not limiter._lane.sleepers
