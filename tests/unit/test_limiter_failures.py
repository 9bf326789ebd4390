"""Limiters after failures: refusals and pauses, the breaker, closing and reopening."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from runner import errors
from runner.errors import EndpointClosedError
from runner.limits import Limiter
from runner.limits.breaker import PROBES, TRIP
from runner.limits.complaints import SEVERAL
from runner.limits.endpoint import UNREACHED
from runner.limits.gate import PATIENCE_S
from tests.support.limiters import plain, refused, settle

# --- refusals


async def test_a_refusal_pauses_all_requests_for_the_retry_after(clock, endpoint):
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


async def test_refusals_within_one_round_trip_count_once(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    endpoint.join()
    wave = [await limiter.acquire() for _ in range(8)]
    clock.now += 0.1
    for pass_ in wave:
        pass_.failed(errors.RateLimitError("slow down", status=429), 0.1)
    live = limiter.now()
    assert live.window == 6
    assert 0.2 <= live.paused_s <= 0.5


async def test_refusals_without_retry_after_cause_growing_pauses(clock, endpoint):
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


async def test_a_retry_after_beyond_patience_closes_the_endpoint(endpoint):
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


async def test_other_failures_do_not_shrink_the_window(endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        for error in (errors.ServerError("x", status=500), errors.MalformedError("x"), errors.ContextWindowError("x")):
            (await limiter.acquire()).failed(error, 0.1)
    assert limiter.now().window == 8


async def test_a_limiter_that_is_not_adaptive_never_slows_down():
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


async def test_a_failing_server_is_probed_and_then_closed(clock, endpoint):
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
            with pytest.raises(EndpointClosedError, match=r"still down; .* kept failing: .* resume the run") as caught:
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


async def test_a_cancelled_probe_is_replaced_by_another(clock, endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        await trip(limiter)
        clock.now += 1
        (await asyncio.wait_for(limiter.acquire(), 10)).abandoned()
        (await asyncio.wait_for(limiter.acquire(), 10)).succeeded(1, 0.1)
        assert limiter.now().state == "open"


async def test_failures_among_successes_do_not_open_the_breaker(endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        for _ in range(5):
            for _ in range(TRIP - 1):
                (await limiter.acquire()).failed(errors.MalformedError("x"), 0.1)
            (await limiter.acquire()).succeeded(1, 0.1)
        assert limiter.now().state == "open"


# --- closing


@pytest.mark.parametrize("cls", [errors.AuthenticationError, errors.QuotaError])
async def test_errors_of_the_key_close_the_endpoint_for_all_limiters(endpoint, cls):
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
    held.succeeded(1, 0.1)  # requests in flight continue


@pytest.mark.parametrize("cls", [errors.NotFoundError, errors.PermissionDeniedError])
async def test_errors_of_the_model_close_only_its_limiter(endpoint, cls):
    one, two = Limiter(endpoint, max_concurrency=4), Limiter(endpoint, max_concurrency=4)
    with one.using():
        (await one.acquire()).failed(cls("no such model"), 0.1)
        await refused(one)
        (await two.acquire()).abandoned()


# --- whose fault: what other rows are answered tells


async def fail(limiter, error, row=None):
    """Have a request of `row` fail, and return whose fault it was."""
    (await limiter.acquire()).failed(error, 0.1, row)
    return error.disposition


def bad(message="no such parameter"):
    return errors.BadRequestError(message, status=400)


async def test_a_bad_request_is_its_rows_until_several_rows_say_the_same(endpoint):
    limiter = Limiter(endpoint, max_concurrency=4)
    with limiter.using():
        for _ in range(2 * SEVERAL):
            assert await fail(limiter, bad("no such parameter (id 77)"), "one row, and its repeats") == "row"
        for row in range(SEVERAL - 1):
            assert await fail(limiter, bad(f"no such parameter (id {row}f3)"), row) == "row"
        await refused(limiter)


@pytest.mark.parametrize("reply", ["answer", "filter", "other words"])
async def test_bad_requests_are_of_their_rows_if_a_row_is_answered_otherwise(endpoint, reply):
    limiter = Limiter(endpoint, max_concurrency=4)
    with limiter.using():
        await fail(limiter, bad(), 0)
        match reply:
            case "answer":
                (await limiter.acquire()).succeeded(1, 0.1)
            case "filter":
                await fail(limiter, errors.ContentFilterError("x", status=400), 1)
            case "other words":
                await fail(limiter, bad("the image is not a PNG"), 1)
        for row in range(2, 2 + 3 * SEVERAL):
            assert await fail(limiter, bad(), row) == "row"
        (await limiter.acquire()).abandoned()


async def test_a_bad_request_that_was_not_sent_closes_the_limiter(endpoint):
    limiter = Limiter(endpoint, max_concurrency=4)
    with limiter.using():
        await fail(limiter, errors.BadRequestError("the model is not launched"))
        await refused(limiter)


async def test_a_missing_permission_is_one_rows_while_other_rows_are_answered(endpoint):
    cls = errors.PermissionDeniedError
    limiter = Limiter(endpoint, max_concurrency=4)
    with limiter.using():
        for row in range(2 * SEVERAL):
            (await limiter.acquire()).succeeded(1, 0.1)
            assert await fail(limiter, cls("blocked by a firewall", status=403), row) == "row"
        for row in range(SEVERAL - 2):
            assert await fail(limiter, cls("blocked by a firewall", status=403), row) == "row"
        assert await fail(limiter, cls("blocked by a firewall", status=403), "the last one") == "stop"
        await refused(limiter)


@pytest.mark.parametrize("cls", [errors.ServerError, errors.LMTimeoutError, errors.MalformedError, errors.ConnectionLostError])
async def test_a_few_rows_that_always_fail_do_not_open_the_breaker(endpoint, cls):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        for _ in range(8):
            for row in range(TRIP - 1):
                await fail(limiter, cls("x", status=500), row)
        assert limiter.now().state == "open"
        await fail(limiter, cls("x", status=500), "one more row")
        assert limiter.now().state == "breaker"


@pytest.mark.parametrize(
    "error", [errors.TransportError("nothing answers"), errors.ServerError("x", status=503), errors.ServerError("x", status=529)]
)
async def test_failures_that_no_row_can_cause_open_the_breaker_whatever_the_row(endpoint, error):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        (await limiter.acquire()).succeeded(1, 0.1)
        for _ in range(TRIP):
            await fail(limiter, error, "the same row")
        assert limiter.now().state == "breaker"


async def test_a_request_that_is_too_large_leaves_the_pace_alone(endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        before = limiter.now()
        assert await fail(limiter, errors.ContextWindowError("request too large", status=429, retry_after=12.0)) == "row"
        assert limiter.now() == msgspec.structs.replace(before, last_minute=1)


async def test_a_server_that_closes_the_connection_is_not_taken_for_a_wrong_address(endpoint):
    limiter = Limiter(endpoint, max_concurrency=8)
    with limiter.using():
        for _ in range(2 * UNREACHED):
            await fail(limiter, errors.ConnectionLostError("x"), "a row")
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


async def test_an_address_that_has_answered_is_not_closed_by_failures_to_connect(endpoint):
    limiter = Limiter(endpoint, max_concurrency=4)
    with limiter.using():
        (await limiter.acquire()).succeeded(None, 0.1)
        for _ in range(UNREACHED * 2):
            (await limiter.acquire()).failed(errors.TransportError("x"), 0.1)
        (await limiter.acquire()).abandoned()


async def test_an_endpoint_without_users_forgets_that_it_was_closed(clock, endpoint):
    one, two = Limiter(endpoint, max_concurrency=4), Limiter(endpoint, max_concurrency=4)
    with one.using():
        with two.using():
            (await one.acquire()).failed(errors.QuotaError("spent"), 0.1)
            await refused(two)
        await refused(one)
    (await one.acquire()).failed(errors.RateLimitError("x", retry_after=60.0), 0.1)
    (await asyncio.wait_for(two.acquire(), 10)).abandoned()  # it had no users: the key may have credit again


async def test_waiting_and_in_flight_requests_count_as_users(endpoint):
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
