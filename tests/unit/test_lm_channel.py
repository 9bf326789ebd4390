"""A `Call` is sent through a `Channel`, which needs no LM."""

import pytest

from runner.cache import Cache, request_key
from runner.cost.budget import Budget
from runner.cost.pricing import Price, price_of
from runner.errors import AuthenticationError, BudgetExceeded, ServerError
from runner.limits import Endpoint, Limiter
from runner.lm.call import Call
from runner.lm.channel import Channel
from runner.lm.lm import LM
from runner.network.retry import RetryPolicy
from runner.types import Connection, Request, Usage
from tests.support.scripted import ASKED, KEY, Scripted

REQUEST = Request(model="fake/m", messages=ASKED, params={"max_tokens": 10})
PRICE = Price(prompt=1.0, completion=2.0)


@pytest.fixture(params=["sync", "async"])
def run(request):
    async def in_a_loop(call):
        return await call.arun()

    async def in_a_thread(call):
        return call.run()

    return in_a_loop if request.param == "async" else in_a_thread


def a_channel(*script, **parts):
    return Channel(**{"model": "fake/m", "transport": Scripted(*script), "connection": Connection()} | parts)


async def test_a_call_runs_without_an_lm(run, tmp_path):
    channel = a_channel(
        ServerError("busy"),
        "four",
        limiter=Limiter(Endpoint("test"), max_concurrency=1),
        budget=Budget(usd=1000),
        retry=RetryPolicy(base_s=0),
        own_price=PRICE,
    )
    store = Cache(tmp_path)
    key = request_key(REQUEST)
    completion = await run(Call(channel, REQUEST, key, store))
    assert (completion.response.choices[0].text, completion.cache, completion.attempts) == ("four", "miss", 2)
    assert completion.cost_usd == 5 * 1.0 + 2 * 2.0
    assert channel.budget.spent == {"usd": 9.0, "tokens": 7, "requests": 2}
    assert store.get(key).response == completion.response
    store.close()


async def test_a_call_without_limiter_and_budget_is_sent_once_and_not_kept(run):
    channel = a_channel(AuthenticationError("no"), "four")
    with pytest.raises(AuthenticationError):
        await run(Call(channel, REQUEST, "key", None))
    completion = await run(Call(channel, REQUEST, "key", None))
    assert (completion.cache, completion.cost_usd) == ("off", None)
    assert channel.transport.requests == [REQUEST, REQUEST]


async def test_a_call_that_the_budget_refuses_is_not_sent(run):
    channel = a_channel(budget=Budget(tokens=5))
    with pytest.raises(BudgetExceeded):
        await run(Call(channel, REQUEST, "key", None))
    assert channel.transport.requests == []


@pytest.mark.parametrize(
    ("model", "connection", "endpoint"),
    [
        ("openai/gpt-4o-mini", Connection(api_key=KEY), ("openai", KEY)),
        ("openai/gpt-4o-mini", Connection(api_base="HTTP://Host:80/v1/"), ("http://host/v1", None)),
        ("local/smollm2", Connection(), ("local/smollm2", None)),
        ("fake/m", Connection(), ("fake/m", None)),
    ],
)
def test_an_endpoint_is_an_address_and_a_key(model, connection, endpoint):
    assert a_channel(model=model, connection=connection).endpoint == endpoint


def test_an_unknown_price_gives_no_cost_and_no_bound_in_dollars():
    channel = a_channel()
    assert (channel.price, channel.longest_answer, channel.cost(Usage(5, 2, 7))) == (None, None, None)
    assert channel.most(REQUEST)["usd"] is None
    assert channel.most(REQUEST)["tokens"] > 10


def test_a_given_price_overrides_the_published_one():
    assert a_channel(model="openai/gpt-4o-mini").price == price_of("openai/gpt-4o-mini")
    channel = a_channel(model="openai/gpt-4o-mini", own_price=PRICE)
    assert channel.cost(Usage(5, 2, 7)) == 9.0
    assert channel.cost(None) is None


def test_the_address_and_service_tier_of_a_call_decide_its_price():
    lm = LM("openai/gpt-4o-mini")
    assert lm.channel().price == price_of("openai/gpt-4o-mini")
    assert lm.channel({"api_base": "http://host/v1"}).price is None
    assert lm.channel({"service_tier": "priority"}).price == price_of("openai/gpt-4o-mini", "priority") != lm.channel().price


def test_a_channel_holds_what_the_lm_sends_through():
    lm = LM("openai/gpt-4o-mini", num_retries=2, timeout=3)
    lm.limiter, lm.budget = Limiter(Endpoint("test"), max_concurrency=1), Budget(requests=1)
    channel = lm.channel()
    assert (channel.transport, channel.limiter, channel.budget) == (lm.transport, lm.limiter, lm.budget)
    assert (channel.connection.timeout_s, channel.retry.max_attempts) == (3.0, 3)
    assert lm.channel().connection is channel.connection  # transports prepare for it
    assert lm.channel({"num_retries": 0}).retry.max_attempts == 1
    lm.retry = RetryPolicy(max_attempts=5)
    assert lm.channel({"num_retries": 0}).retry is lm.retry
