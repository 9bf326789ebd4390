"""Budgets: never exceeded, served in order, and refused only if nothing in flight can free enough."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import build
from runner.config import schema
from runner.cost.budget import Budget
from runner.errors import BudgetExceeded, EndpointClosedError, QuotaError
from tests.support.clock import wait_until

AMOUNT = st.integers(0, 40)


async def started(coroutine):
    """Return a task of `coroutine` that has run until it waits."""
    task = asyncio.create_task(coroutine)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_a_request_that_fits_is_reserved_at_once_and_settled():
    budget = Budget(usd=1.0, tokens=100, requests=3)
    one = await budget.reserve(usd=0.6, tokens=60)
    assert budget.spent == {"usd": 0.0, "tokens": 0, "requests": 0}
    one.settle(usd=0.25, tokens=20)
    one.settle(usd=9.0, tokens=9)  # the second call has no effect
    assert budget.spent == {"usd": 0.25, "tokens": 20, "requests": 1}
    assert budget.left == {"usd": 0.75, "tokens": 80, "requests": 2}
    budget.reserve_blocking(usd=0.75, tokens=80).settle(sent=False)
    assert budget.spent == {"usd": 0.25, "tokens": 20, "requests": 1}


async def test_unknown_usage_counts_in_full():
    budget = Budget(usd=1.0)
    (await budget.reserve(usd=0.5, tokens=70)).settle()
    assert budget.spent == {"usd": 0.5, "tokens": 70, "requests": 1}


async def test_a_request_waits_for_requests_in_flight():
    budget = Budget(tokens=100)
    first = await budget.reserve(usd=None, tokens=80)
    waiting = await started(budget.reserve(usd=None, tokens=80))
    assert not waiting.done()
    first.settle(tokens=20)
    (await asyncio.wait_for(waiting, 10)).settle(tokens=80)
    assert budget.spent["tokens"] == 100


async def test_a_waiting_request_is_refused_once_nothing_in_flight_can_free_enough():
    budget = Budget(tokens=100)
    first = await budget.reserve(usd=None, tokens=80)
    waiting = await started(budget.reserve(usd=None, tokens=80))
    first.settle(tokens=21)
    with pytest.raises(BudgetExceeded, match=r"^budget\.tokens=100 .* 21 spent, up to 80 needed; make .*: Budget\(tokens="):
        await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("key", ["budget", "scoring.budget"])
async def test_the_budget_of_a_run_says_how_the_run_is_resumed(key):
    budget = build.budget(schema.running.Budget(tokens=1), key)
    with pytest.raises(BudgetExceeded, match=rf"needed; resume with .*: ostinato resume RUN {key}\.tokens="):
        await budget.reserve(usd=None, tokens=2)


async def test_a_request_that_can_never_fit_is_refused_at_once_even_in_a_queue():
    budget = Budget(tokens=100)
    first = await budget.reserve(usd=None, tokens=80)
    waiting = await started(budget.reserve(usd=None, tokens=30))
    with pytest.raises(BudgetExceeded, match="up to 101 needed"):
        await budget.reserve(usd=None, tokens=101)
    first.settle(tokens=0)
    assert await asyncio.wait_for(waiting, 10)


async def test_first_come_first_served():
    budget = Budget(tokens=100)
    first = await budget.reserve(usd=None, tokens=90)
    large = await started(budget.reserve(usd=None, tokens=50))
    small = await started(budget.reserve(usd=None, tokens=5))  # it would fit, but must not overtake
    assert not small.done()
    first.settle(tokens=10)
    assert await asyncio.wait_for(large, 10)
    assert await asyncio.wait_for(small, 10)


async def test_a_cancelled_wait_frees_its_place():
    budget = Budget(tokens=100)
    await budget.reserve(usd=None, tokens=90)
    large = await started(budget.reserve(usd=None, tokens=50))
    small = await started(budget.reserve(usd=None, tokens=5))
    large.cancel()
    reservation = await asyncio.wait_for(small, 10)
    with pytest.raises(asyncio.CancelledError):
        await large
    reservation.settle(tokens=5)
    assert budget.spent["tokens"] == 5


async def test_a_reservation_granted_during_cancellation_is_returned():
    budget = Budget(requests=1)
    first = await budget.reserve(usd=None, tokens=0)
    waiting = await started(budget.reserve(usd=None, tokens=0))
    first.settle(sent=False)  # the place is granted now
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    (await asyncio.wait_for(budget.reserve(usd=None, tokens=0), 10)).settle()
    assert budget.spent["requests"] == 1


async def test_a_closed_budget_refuses_waiting_and_new_requests():
    budget = Budget(tokens=10)
    first = await budget.reserve(usd=None, tokens=10)
    waiting = [await started(budget.reserve(usd=None, tokens=5)) for _ in range(2)]
    budget.close(QuotaError("the run was asked to stop", provider="openai"))
    for refused in (*waiting, budget.reserve(usd=None, tokens=0)):
        with pytest.raises(EndpointClosedError, match="asked to stop") as caught:
            await asyncio.wait_for(refused, 10)
        assert isinstance(caught.value.__cause__, QuotaError)
        assert caught.value.provider == "openai"
    first.settle(tokens=7)
    assert budget.spent["tokens"] == 7


def test_threads_and_event_loops_wait_for_each_other():
    budget = Budget(requests=1)
    first = budget.reserve_blocking(usd=None, tokens=0)
    with ThreadPoolExecutor(2) as pool:
        blocked = pool.submit(budget.reserve_blocking, usd=None, tokens=0)
        wait_until(lambda: len(budget._waiting) == 1, "the thread waits")
        looped = pool.submit(lambda: asyncio.run(budget.reserve(usd=None, tokens=0)))
        wait_until(lambda: len(budget._waiting) == 2, "the loop waits")
        first.settle(sent=False)
        blocked.result(10).settle(sent=False)
        looped.result(10).settle()
    assert budget.spent["requests"] == 1


@pytest.mark.parametrize("bound", ["usd", "tokens"])
async def test_an_unbounded_answer_is_refused_under_a_bound(bound):
    with pytest.raises(BudgetExceeded, match=rf"budget\.{bound} is set, .* set sampling\.max_tokens"):
        await Budget(**{bound: 100}).reserve(usd=None, tokens=None)
    assert await Budget(requests=1).reserve(usd=None, tokens=None)


async def test_a_dollar_bound_refuses_unknown_prices_unless_allowed():
    with pytest.raises(BudgetExceeded, match=r"price of this model is unknown; .*budget\.unknown_price=allow"):
        await Budget(usd=1.0).reserve(usd=None, tokens=1)
    budget = Budget(usd=1.0, requests=1, unknown_price="allow")
    (await budget.reserve(usd=None, tokens=5)).settle(tokens=5)
    assert budget.spent == {"usd": 0.0, "tokens": 5, "requests": 1}
    with pytest.raises(BudgetExceeded, match=r"budget\.requests=1 "):
        await budget.reserve(usd=None, tokens=5)


async def test_usage_of_earlier_sittings_counts():
    budget = Budget(usd=1.0, requests=10)
    budget.charge(usd=0.9, tokens=5000, requests=4)
    assert budget.left == {"usd": pytest.approx(0.1), "tokens": None, "requests": 6}
    with pytest.raises(BudgetExceeded, match=r"budget\.usd=1 .* 0\.9 spent, up to 0\.2 needed"):
        await budget.reserve(usd=0.2, tokens=1)


async def test_rounding_of_dollars_causes_no_refusal():
    budget = Budget(usd=0.3)
    for _ in range(3):
        (await budget.reserve(usd=0.1, tokens=0)).settle(usd=0.1)
    with pytest.raises(BudgetExceeded):
        await budget.reserve(usd=0.000001, tokens=0)


async def test_large_bounds_are_exact_to_the_token():
    budget = Budget(tokens=10**12)
    (await budget.reserve(usd=None, tokens=10**12)).settle()
    with pytest.raises(BudgetExceeded, match=r"budget\.tokens=1000000000000 "):
        await budget.reserve(usd=None, tokens=1)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(AMOUNT, st.integers(0, 100), st.integers(0, 4)), min_size=1, max_size=300),
    st.integers(0, 3000),
    st.integers(0, 300),
)
def test_256_concurrent_requests_never_overshoot_hang_or_are_refused_wrongly(costs, tokens, requests):
    budget = Budget(usd=tokens / 1000, tokens=tokens, requests=requests)
    at_once = most = 0

    async def play():
        nonlocal at_once, most
        stream, refused = iter(costs), []

        async def work():
            nonlocal at_once, most
            for asked, share, pause in stream:
                try:
                    reservation = await budget.reserve(usd=asked / 1000, tokens=asked)
                except BudgetExceeded:
                    spent = budget.spent  # a refused request does not fit even if all in flight use nothing
                    assert spent["tokens"] + asked > tokens or spent["requests"] + 1 > requests
                    refused.append(asked)
                    continue
                at_once += asked
                most = max(most, at_once + budget.spent["tokens"])
                for _ in range(pause):
                    await asyncio.sleep(0)
                used = asked * share // 100
                at_once -= asked
                reservation.settle(usd=used / 1000, tokens=used)
                spent = budget.spent
                assert spent["tokens"] <= tokens
                assert spent["requests"] <= requests
                assert spent["usd"] <= tokens / 1000 + 1e-9

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for _ in range(256):
                group.create_task(work())
        return refused

    refused = asyncio.run(play())
    assert most <= tokens
    assert budget.spent["requests"] == len(costs) - len(refused)
    assert not budget._waiting
    assert all(amount == 0 for amount in budget._reserved.values())


def test_many_threads_and_loops_share_one_budget():
    budget = Budget(usd=1.0, tokens=1000, requests=120)
    let, refused, over, start = [], [], [], threading.Barrier(8)

    def settle(reservation, dice, tokens):
        used = dice.randint(0, tokens)
        reservation.settle(usd=used / 1000, tokens=used)
        spent = budget.spent
        if spent["tokens"] > 1000 or spent["requests"] > 120 or spent["usd"] > 1.0 + 1e-9:
            over.append(spent)
        let.append(used)

    def in_a_thread(seed):
        dice = random.Random(seed)
        start.wait()
        for _ in range(40):
            tokens = dice.randint(1, 40)
            try:
                settle(budget.reserve_blocking(usd=tokens / 1000, tokens=tokens), dice, tokens)
            except BudgetExceeded:
                refused.append(tokens)

    def in_a_loop(seed):
        async def one(dice):
            tokens = dice.randint(1, 40)
            try:
                reservation = await budget.reserve(usd=tokens / 1000, tokens=tokens)
            except BudgetExceeded:
                refused.append(tokens)
                return
            await asyncio.sleep(0)
            settle(reservation, dice, tokens)

        async def all_of_them():
            dice = random.Random(seed)
            await asyncio.gather(*[one(dice) for _ in range(40)])

        start.wait()
        asyncio.run(all_of_them())

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(in_a_thread if seed % 2 else in_a_loop, seed) for seed in range(8)]
        for each in done:
            each.result(30)
    assert not over
    assert refused
    assert budget.spent["requests"] == len(let)
    assert budget.spent["tokens"] == sum(let)
    assert not budget._waiting
