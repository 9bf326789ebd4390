"""Limits: buckets, places in flight, endpoints that close, and budgets that hold."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from runner import errors
from runner.errors import BudgetExceeded, EndpointClosedError
from runner.limits import UNREACHED, Bucket, Budget, Limiter


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when the test says so."""

    class Clock:
        now = 1000.0

        def advance(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr("runner.limits.time.monotonic", lambda: clock.now)
    return clock


def test_a_bucket_holds_a_second_and_refills_evenly(clock):
    bucket = Bucket(600)  # ten a second
    assert [bucket.take(1) for _ in range(10)] == [0.0] * 10
    assert bucket.take(1) == pytest.approx(0.1)
    clock.advance(0.1)
    assert bucket.take(1) == pytest.approx(0.1)
    clock.advance(3600)
    assert [bucket.take(1) for _ in range(10)] == [0.0] * 10
    assert bucket.take(1) > 0


def test_debts_are_waited_off_in_turn(clock):
    bucket = Bucket(60)
    assert [bucket.take(1) for _ in range(4)] == pytest.approx([0, 1, 2, 3])


def test_a_request_larger_than_the_bucket_waits_but_not_for_ever(clock):
    bucket = Bucket(6000)  # a hundred a second
    assert bucket.take(1000) == pytest.approx(9)
    assert bucket.take(1) == pytest.approx(9.01)


def test_what_was_not_used_is_given_back_and_what_was_too_much_is_owed(clock):
    bucket = Bucket(60)
    assert bucket.take(10) == pytest.approx(9)
    bucket.give_back(9)
    assert bucket.take(1) == pytest.approx(1)
    bucket.give_back(-5)
    assert bucket.take(1) == pytest.approx(7)
    bucket.give_back(1000)
    assert bucket.take(1) == 0.0
    assert bucket.take(1) > 0


def test_a_slow_limit_still_lets_one_through(clock):
    assert Bucket(1).take(1) == 0.0


@pytest.mark.parametrize("most", [1, 3, 8])
async def test_no_more_than_max_concurrency_are_in_flight(most):
    limiter, in_flight, seen = Limiter(most), 0, []

    async def one():
        nonlocal in_flight
        async with limiter.slot(1):
            in_flight += 1
            seen.append(in_flight)
            await asyncio.sleep(0)
            in_flight -= 1

    await asyncio.gather(*[one() for _ in range(50)])
    assert max(seen) == most
    assert len(seen) == 50


async def test_a_place_is_free_again_after_a_failure_and_a_cancellation():
    limiter = Limiter(1)
    with pytest.raises(ZeroDivisionError):
        async with limiter.slot(1):
            raise ZeroDivisionError
    inside = asyncio.Event()

    async def hold():
        async with limiter.slot(1):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(5), limiter.slot(1):
        pass


async def test_requests_and_tokens_a_minute_are_waited_for(clock, monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr("runner.limits.Limiter.pause", lambda _self, seconds: sleep(seconds))
    limiter = Limiter(4, rpm=60, tpm=6000)  # one request and a hundred tokens a second
    for _ in range(3):
        async with limiter.slot(50):
            pass
        limiter.settle(50, 50)
    assert waits == pytest.approx([1, 1])
    async with limiter.slot(1000):  # the larger wait counts
        pass
    assert waits[-1] == pytest.approx(9)
    limiter.settle(1000, 10)
    waits.clear()
    async with limiter.slot(10):
        pass
    assert waits == []


@pytest.mark.parametrize(
    "cls", [errors.AuthenticationError, errors.PermissionDeniedError, errors.NotFoundError, errors.QuotaError]
)
async def test_what_would_meet_every_row_closes_the_endpoint(cls):
    limiter = Limiter(4)
    limiter.settle(1, 1)
    limiter.failed(cls("the key was refused", model="openai/m", status=401))
    with pytest.raises(EndpointClosedError, match="the key was refused") as caught:
        async with limiter.slot(1):
            pytest.fail("not reached")
    assert caught.value.model == "openai/m"
    assert isinstance(caught.value.__cause__, cls)


@pytest.mark.parametrize(
    "cls",
    [errors.RateLimitError, errors.ServerError, errors.LMTimeoutError, errors.ContextWindowError, errors.ContentFilterError],
)
async def test_what_only_meets_a_row_or_a_moment_does_not(cls):
    limiter = Limiter(4)
    for _ in range(10):
        limiter.failed(cls("x"))
    async with limiter.slot(1):
        pass


async def test_a_refused_request_closes_only_what_never_worked():
    limiter = Limiter(4)
    limiter.settle(1, 1)
    limiter.failed(errors.BadRequestError("x"))
    async with limiter.slot(1):
        pass
    untried = Limiter(4)
    untried.failed(errors.BadRequestError("x"))
    with pytest.raises(EndpointClosedError):
        async with untried.slot(1):
            pytest.fail("not reached")


async def test_an_address_where_nothing_answers_is_closed_after_a_few_failures():
    limiter = Limiter(4)
    for _ in range(UNREACHED - 1):
        limiter.failed(errors.TransportError("x"))
    limiter.failed(errors.ServerError("something answers"))
    for _ in range(UNREACHED - 1):
        limiter.failed(errors.TransportError("x"))
    async with limiter.slot(1):
        pass
    limiter.failed(errors.TransportError("x"))
    with pytest.raises(EndpointClosedError):
        async with limiter.slot(1):
            pytest.fail("not reached")


async def test_an_address_that_has_answered_is_never_closed_for_broken_connections():
    limiter = Limiter(4)
    limiter.settle(1, None)
    for _ in range(UNREACHED * 3):
        limiter.failed(errors.TransportError("x"))
    async with limiter.slot(1):
        pass


async def test_who_waits_when_the_endpoint_closes_is_refused_at_once():
    limiter = Limiter(1, rpm=1)
    async with limiter.slot(1):
        pass

    async def wait():
        async with limiter.slot(1):
            pytest.fail("not reached")

    waiting = [asyncio.create_task(wait()), asyncio.create_task(limiter.pause(3600))]
    await asyncio.sleep(0)
    limiter.failed(errors.QuotaError("spent"))
    for task in waiting:
        with pytest.raises(EndpointClosedError, match="spent"):
            await asyncio.wait_for(task, 10)


def test_a_budget_is_never_overshot_however_many_ask():
    budget = Budget(usd=1.0, tokens=2000, requests=150)
    over, refused, start = [], [], threading.Barrier(8)

    def spend(seed):
        dice = random.Random(seed)
        start.wait()
        for _ in range(60):
            tokens = dice.randint(1, 40)
            try:
                reserved = budget.reserve(usd=tokens / 1000, tokens=tokens)
            except BudgetExceeded:
                refused.append(1)
                continue
            used = dice.randint(0, tokens)
            budget.settle(reserved, usd=used / 1000, tokens=used, sent=True)
            if budget.spent["tokens"] > 2000 or budget.spent["usd"] > 1.0 + 1e-9 or budget.spent["requests"] > 150:
                over.append(dict(budget.spent))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(spend, range(8)))
    assert not over
    assert refused
    assert budget.spent["requests"] <= 150
    assert all(abs(amount) < 1e-9 for amount in budget._reserved.values())


def test_what_is_reserved_counts():
    budget = Budget(requests=2)
    first = budget.reserve(usd=None, tokens=1)
    budget.reserve(usd=None, tokens=1)
    with pytest.raises(BudgetExceeded, match=r"budget\.requests=2 .*0 spent, 2 set aside"):
        budget.reserve(usd=None, tokens=1)
    budget.settle(first, sent=False)
    budget.reserve(usd=None, tokens=1)
    assert budget.spent["requests"] == 0


def test_a_dollar_budget_needs_a_price():
    with pytest.raises(BudgetExceeded, match=r"price of this model is unknown; use budget\.tokens"):
        Budget(usd=1).reserve(usd=None, tokens=1)
    assert Budget(tokens=10).reserve(usd=None, tokens=10) == {"usd": 0.0, "tokens": 10, "requests": 1}


def test_no_bounds_allow_everything():
    Budget().reserve(usd=1e9, tokens=10**12)
