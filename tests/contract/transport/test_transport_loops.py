"""Transports in event loops, one after another and at once; closing, and servers on this machine."""

import asyncio

import pytest

from runner import errors
from runner.transport import AutoTransport, DirectTransport, LiteLLMTransport
from tests.support.server import Hang, Reply, Server
from tests.support.transports import KEY, QUIET, served_lm

pytestmark = QUIET


# --- loops


async def test_many_requests_run_at_once(server):
    server.otherwise = Reply(lambda call: f"answer to {call.question}", delay_s=0.05)
    lm = served_lm(server)
    outputs = await asyncio.gather(*[lm.acall(f"question {n}") for n in range(12)])
    await lm.aclose()
    assert outputs == [[f"answer to question {n}"] for n in range(12)]
    assert server.count == 12
    assert server.most_at_once > 3


def test_one_lm_works_in_one_loop_after_another(server):
    lm = served_lm(server)

    async def calls():
        try:
            return [await lm.acall("hi") for _ in range(2)]
        finally:
            await lm.aclose()

    for _ in range(4):
        assert asyncio.run(calls()) == [["ok"], ["ok"]]


async def test_closing_leaves_no_client_behind(server, transport):
    import litellm

    from runner.transport import direct

    def clients():
        loop = asyncio.get_running_loop()
        if isinstance(transport, AutoTransport):
            return [origins for at, origins in direct._origins.items() if at is loop]
        return list(litellm.in_memory_llm_clients_cache.cache_dict)

    litellm.in_memory_llm_clients_cache.cache_dict.clear()  # what other tests have left
    lm = served_lm(server)
    await lm.acall("hi")
    assert clients()
    await lm.aclose()
    assert not clients()
    assert await lm.acall("hi") == ["ok"]
    await lm.aclose()


@pytest.mark.parametrize("kind", [AutoTransport, LiteLLMTransport])
async def test_closing_one_transport_does_not_cancel_requests_of_others(server, kind):
    server.otherwise = lambda call: Reply(delay_s=0.5 if call.question == "slow" else 0.0)
    slow, quick = served_lm(server), served_lm(server)
    slow.transport, quick.transport = kind(), kind()
    asking = asyncio.create_task(slow.acall("slow"))
    await asyncio.to_thread(server.wait_for, 1)
    await quick.acall("hi")
    await quick.aclose()
    assert await asking == ["ok"]
    assert server.count == 2
    await slow.aclose()


async def test_a_cancelled_call_does_not_affect_the_next(server):
    server.script(Hang())
    lm = served_lm(server)
    task = asyncio.create_task(lm.acall("hi"))
    await asyncio.to_thread(server.wait_for, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await lm.acall("hi") == ["ok"]
    await lm.aclose()


# --- the server itself


def test_the_server_counts_and_forgets():
    with Server(api_key=KEY, models=("a", "b")) as server:
        with pytest.raises(errors.AuthenticationError):
            served_lm(server, api_key="another-key-123")("hi")
        assert served_lm(server)("hi") == ["ok"]
        assert server.count == 2
        server.reset()
        assert server.count == 0


def test_litellm_is_configured_once():
    import litellm

    LiteLLMTransport()
    assert litellm.num_retries in (None, 0)
    assert litellm.cache is None
    assert litellm.telemetry is False


@pytest.mark.parametrize("transport", [DirectTransport], indirect=True)
def test_servers_on_this_machine_are_reached_without_a_proxy(server, ask, transport, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(served_lm(server), "hi") == ["ok"]
