"""One call of an LM: cache, retries, limits, budgets, loops and threads."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from runner import errors
from runner.cache import Cache
from runner.cost.budget import Budget
from runner.errors import BudgetExceeded, CacheError, EndpointClosedError, ServerError
from runner.limits import Endpoint, Limiter
from runner.lm.lm import LM
from runner.network.retry import RetryPolicy, without_sleeping
from runner.transport import FakeTransport
from runner.types import Choice, Response
from tests.support.scripted import ASKED, KEY, Scripted, an_lm

# --- the cache


def test_the_second_call_is_a_hit(ask):
    lm = an_lm("first", "second")
    assert ask(lm, "hi") == ask(lm, "hi") == ask(lm.copy(), "hi") == ["first"]
    assert ask(lm, "hi", cache=False) == ["second"]
    assert len(lm.transport.requests) == 2


def test_an_lm_without_a_cache_sends_every_call(ask):
    lm = an_lm("first", "second", cache=False)
    assert (ask(lm, "hi"), ask(lm, "hi")) == (["first"], ["second"])


def test_rollouts_have_separate_cache_entries_and_are_not_sent(ask):
    lm = an_lm("none", "one", "two")
    assert [ask(lm, "hi", rollout_id=rollout) for rollout in (None, 1, 2, 1, None)] == [
        ["none"],
        ["one"],
        ["two"],
        ["one"],
        ["none"],
    ]
    assert all("rollout_id" not in request.params for request in lm.transport.requests)
    assert ask(an_lm("new", rollout_id=2), "hi") == ["two"]


def test_a_given_cache_is_used(ask, tmp_path):
    own, other = Cache(tmp_path / "own"), Cache(tmp_path / "other")
    lm = an_lm("first", "second", cache=own)
    assert (ask(lm, "hi"), ask(lm, "hi")) == (["first"], ["first"])
    assert ask(lm, "hi", cache=other) == ["second"]
    assert (own.stats()["entries"], other.stats()["entries"]) == (1, 1)
    own.close()
    other.close()


def test_the_shared_cache_is_in_ostinato_home(tmp_path):
    an_lm()("hi")
    assert (tmp_path / "home" / "cache" / "cache.db").exists()


def test_without_memory_the_disk_cache_answers(ask):
    lm = an_lm("first", "second", cache_in_memory=False)
    assert ask(lm, "hi") == ask(lm, "hi") == ["first"]


def test_replay_never_sends(ask, tmp_path):
    lm = an_lm(cache=Cache(tmp_path / "own", mode="replay"))
    with pytest.raises(CacheError, match=r"replay: .* nothing was sent"):
        ask(lm, "hi")
    assert lm.transport.requests == []


@pytest.mark.parametrize("finish_reason", ["length", "content_filter", "refusal"])
def test_truncated_and_refused_answers_are_requested_again(ask, finish_reason):
    lm = an_lm(Response(choices=[Choice("no", finish_reason)]), "yes")
    assert (ask(lm, "hi"), ask(lm, "hi"), ask(lm, "hi")) == (["no"], ["yes"], ["yes"])


def test_failures_are_not_cached(ask):
    lm = an_lm(errors.ContentFilterError("no"), "yes")
    with pytest.raises(errors.ContentFilterError):
        ask(lm, "hi")
    assert ask(lm, "hi") == ["yes"]


# --- retries


def test_transient_errors_are_retried(ask):
    lm = an_lm(ServerError("busy"), errors.RateLimitError("slow down", retry_after=100), "ok")
    with without_sleeping():
        assert ask(lm, "hi") == ["ok"]
    assert len(lm.transport.requests) == 3


@pytest.mark.parametrize("where", ["constructor", "call", "policy"])
def test_num_retries_counts_attempts_after_the_first(ask, where):
    lm = an_lm(*[ServerError("busy") for _ in range(9)], num_retries=2 if where == "constructor" else 7)
    if where == "policy":
        lm.retry = RetryPolicy(max_attempts=3)
    with without_sleeping(), pytest.raises(ServerError) as caught:
        ask(lm, "hi", **({"num_retries": 2} if where == "call" else {}))
    assert len(lm.transport.requests) == caught.value.attempts == 3


def test_permanent_errors_are_not_retried(ask):
    lm = an_lm(errors.ContextWindowError("too long"))
    with pytest.raises(errors.ContextWindowError) as caught:
        ask(lm, "hi")
    assert caught.value.attempts == len(lm.transport.requests) == 1


# --- limits and budgets


async def test_concurrent_calls_stay_within_the_limit():
    lm = LM("fake/m", cache=False)
    lm.transport = FakeTransport(latency_s=0.001)
    at_once, most = 0, 0
    asked = lm.transport.acomplete

    async def watched(request, connection, hear):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await asked(request, connection)
        finally:
            at_once -= 1

    lm.transport.acomplete = watched
    lm.limiter = Limiter(Endpoint("test"), max_concurrency=4)
    outputs = await asyncio.gather(*[lm.acall(f"question {n}") for n in range(40)])
    assert len({output[0] for output in outputs}) > 35
    assert most == 4
    assert len(lm.history) == 40


async def test_a_closed_endpoint_gets_no_request_and_costs_nothing():
    lm = an_lm(errors.AuthenticationError("the key was refused"), "the key is good again", cache=False)
    lm.limiter, lm.budget = Limiter(Endpoint("test"), max_concurrency=2), Budget(requests=10)
    with lm.limiter.using():
        with pytest.raises(errors.AuthenticationError):
            await lm.acall("hi")
        for _ in range(3):
            with pytest.raises(EndpointClosedError, match="the key was refused") as caught:
                await lm.acall("hi")
            assert isinstance(caught.value.__cause__, errors.AuthenticationError)
    assert len(lm.transport.requests) == 1
    assert lm.budget.spent["requests"] == 1
    assert await lm.acall("hi") == ["the key is good again"]  # it had no users, so it forgot that it was closed


def test_calls_beyond_the_budget_are_refused(ask):
    lm = an_lm(cache=False)
    lm.budget = Budget(requests=2)
    ask(lm, "hi")
    ask(lm, "hi")
    with pytest.raises(BudgetExceeded, match=r"budget\.requests=2"):
        ask(lm, "hi")
    assert len(lm.transport.requests) == 2
    assert lm.budget.spent == {"usd": 0.0, "tokens": 14, "requests": 2}


def test_a_dollar_budget_counts_dollars(ask):
    lm = an_lm(model="openai/gpt-4o-mini", cache=False, max_tokens=100)
    lm.budget = Budget(usd=1.0)
    ask(lm, "hi")
    assert lm.budget.spent["usd"] == pytest.approx(5 * 0.15e-6 + 2 * 0.6e-6)
    lm.budget = Budget(usd=1e-6)
    with pytest.raises(BudgetExceeded):
        ask(lm, "hi")


def test_a_dollar_budget_without_a_price_is_refused(ask):
    lm = an_lm()
    lm.budget = Budget(usd=1.0)
    with pytest.raises(BudgetExceeded, match="price of this model is unknown"):
        ask(lm, "hi")
    assert lm.transport.requests == []


def test_an_answer_without_usage_is_counted_in_full(ask):
    lm = an_lm(Response(choices=[Choice("a", "stop"), Choice("b", "stop")]), cache=False, max_tokens=50)
    lm.budget = Budget(tokens=1000)
    ask(lm, "hi", n=2)
    assert 100 <= lm.budget.spent["tokens"] <= 200  # max_tokens twice, and the most tokens of the question


def test_a_failed_attempt_counts_as_a_request_without_tokens(ask):
    lm = an_lm(ServerError("busy"), "ok")
    lm.budget = Budget(tokens=5000)
    with without_sleeping():
        ask(lm, "hi")
    assert lm.budget.spent == {"usd": 0.0, "tokens": 7, "requests": 2}


def test_an_answer_that_says_that_it_has_failed_may_be_billed(ask):
    lm = an_lm(ServerError("the answer ended with finish_reason 'abort'", status=200), "ok", max_tokens=100)
    lm.budget = Budget(tokens=5000)
    with without_sleeping():
        ask(lm, "hi")
    assert lm.budget.spent["tokens"] > 100


async def test_hits_cost_nothing():
    lm = an_lm()
    lm.budget, lm.limiter = Budget(requests=1), Limiter(Endpoint("test"), max_concurrency=1)
    for _ in range(3):
        assert await lm.acall("hi") == ["ok"]


async def test_time_in_the_queue_is_not_latency(monkeypatch):
    now = 0.0
    monkeypatch.setattr("runner.lm.call.time.perf_counter", lambda: now)
    lm = an_lm(cache=False)
    lm.limiter = Limiter(Endpoint("test"), max_concurrency=1)
    answer = lm.transport.complete

    def a_second(request, connection):
        nonlocal now
        now += 1
        return answer(request, connection)

    lm.transport.complete = a_second
    made = await asyncio.gather(*[lm.acomplete(lm.request(messages=ASKED, rollout=n)) for n in range(5)])
    assert [completion.latency_s for completion in made] == [1.0] * 5


async def test_a_late_answer_is_a_timeout():
    lm = LM("fake/m", cache=False, timeout=0.01, num_retries=0)
    lm.transport = FakeTransport(latency_s=60)
    with pytest.raises(errors.LMTimeoutError, match=r"no answer within 0\.01 s"):
        await lm.acall("hi")


# --- one request


async def test_acomplete_uses_cache_limiter_and_retries():
    lm = an_lm(ServerError("busy"), "four", model="openai/gpt-4o-mini")
    request = lm.request(messages=ASKED, rollout=3, temperature=1)
    with without_sleeping():
        made = await lm.acomplete(request)
    assert (made.response.choices[0].text, made.cache, made.attempts) == ("four", "miss", 2)
    assert made.cost_usd == pytest.approx(5 * 0.15e-6 + 2 * 0.6e-6)
    assert made.started_at
    assert made.latency_s >= 0
    hit = await lm.acomplete(request)
    assert (hit.cache, hit.attempts, hit.cost_usd, hit.saved_usd, hit.key) == ("hit", 0, 0.0, made.cost_usd, made.key)
    assert lm.history == []
    lm.cache = False
    assert (await lm.acomplete(request)).cache == "off"


# --- loops and threads


async def test_sync_calls_work_inside_a_running_loop():
    assert an_lm("four")("2 + 2?") == ["four"]


def test_one_lm_serves_many_threads():
    lm = LM("fake/m")
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda n: lm(f"question {n % 20}"), range(200)))
    assert outputs == [lm(f"question {n % 20}") for n in range(200)]
    assert len(lm.history) == 400
    assert 20 <= lm.transport.sent <= 160


def test_one_lm_serves_many_loops():
    lm = LM("fake/m", cache=False)
    outputs = [asyncio.run(lm.acall("hi")) for _ in range(3)]
    assert outputs[0] == outputs[1] == outputs[2]


def test_a_fake_model_needs_no_settings(ask, monkeypatch, tmp_path):
    assert ask(LM("fake/x"), "hi") == ask(LM("fake/x", cache=False), "hi")
    assert ask(LM("fake/x"), "hi") != ask(LM("fake/x"), "ho")


# --- single flight, and local models


async def test_identical_concurrent_calls_share_one_request(tmp_path):
    started, gate = asyncio.Event(), asyncio.Event()

    class Slow(Scripted):
        async def acomplete(self, request, connection, hear=None):
            started.set()
            await gate.wait()
            return self.complete(request, connection)

    lm = LM("openai/any", api_key=KEY, cache=Cache(tmp_path))
    lm.transport = Slow("shared")
    calls = [asyncio.create_task(lm.acall("hi")) for _ in range(5)]
    await started.wait()
    gate.set()
    assert await asyncio.gather(*calls) == [["shared"]] * 5
    assert len(lm.transport.requests) == 1
    assert sorted(entry["cache_hit"] for entry in lm.history) == [False, True, True, True, True]


async def test_if_a_shared_request_is_cancelled_the_next_caller_sends_it(tmp_path):
    started, gate = asyncio.Event(), asyncio.Event()

    class Slow(Scripted):
        async def acomplete(self, request, connection, hear=None):
            started.set()
            await gate.wait()
            return self.complete(request, connection)

    lm = LM("openai/any", api_key=KEY, cache=Cache(tmp_path))
    lm.transport = Slow("mine")
    first = asyncio.create_task(lm.acall("hi"))
    await started.wait()
    second = asyncio.create_task(lm.acall("hi"))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == ["mine"]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_calls_that_are_cancelled_together_send_nothing_more(tmp_path):
    started, sent = asyncio.Event(), []

    class Slow(Scripted):
        async def acomplete(self, request, connection, hear=None):
            sent.append(request)
            started.set()
            await asyncio.Event().wait()

    lm = LM("openai/any", api_key=KEY, cache=Cache(tmp_path))
    lm.transport = Slow("never")
    calls = [asyncio.create_task(lm.acall("hi")) for _ in range(3)]
    await started.wait()
    for call in calls:
        call.cancel()
    done, pending = await asyncio.wait(calls, timeout=1)
    for call in pending:
        call.cancel()
    assert (len(sent), len(done), [call.cancelled() for call in done]) == (1, 3, [True] * 3)


async def test_identical_concurrent_calls_share_the_failure(tmp_path):
    lm = LM("openai/any", api_key=KEY, cache=Cache(tmp_path), num_retries=0)
    lm.transport = Scripted(ServerError("no"), ServerError("no"))
    failures = await asyncio.gather(*[lm.acall("hi") for _ in range(2)], return_exceptions=True)
    assert [type(failure) for failure in failures] == [ServerError, ServerError]


def test_a_local_model_that_is_not_launched_is_refused(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(errors.BadRequestError, match=r"call lm\.launch\(\) first"):
        LM("local/smollm2", cache=False)("my private question")


# --- thinking

THOUGHTFUL = "<think>2 + 2</think>\n\n4"


def test_thinking_in_the_text_is_not_part_of_an_output(ask):
    lm = an_lm(THOUGHTFUL, cache=False)
    assert ask(lm, "hi") == ["4"]
    assert lm.history[-1]["outputs"] == ["4"]
    [choice] = lm.history[-1]["response"].choices
    assert (choice.text, choice.reasoning) == ("4", "2 + 2")


def test_thinking_in_the_text_can_be_left_there(ask):
    lm = an_lm(THOUGHTFUL, cache=False)
    lm.split_thinking = False
    assert ask(lm.copy(), "hi") == [THOUGHTFUL]


def test_the_cache_keeps_the_text_as_the_server_sent_it(ask, tmp_path):
    store = Cache(tmp_path / "cache")
    lm = an_lm(THOUGHTFUL, cache=store)
    assert ask(lm, "hi") == ask(lm, "hi") == ["4"]
    lm.split_thinking = False
    assert ask(lm, "hi") == [THOUGHTFUL]
    assert len(lm.transport.requests) == 1
    store.close()


def test_thinking_that_was_cut_off_is_an_answer_without_text(ask, caplog):
    lm = an_lm("<think>2 + ", cache=False)
    assert ask(lm, "hi") == [None]
    assert "cut off" in caplog.text


def test_a_parameter_named_thinking_is_sent():
    lm = an_lm(cache=False).copy(thinking={"type": "enabled"})
    lm("hi")
    assert lm.transport.requests[-1].params["thinking"] == {"type": "enabled"}
