"""`ostinato proxy`: programs get the cache, limits, budget and record of a config, through OpenAI's own client and without it."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import openai
import pytest

import runner
from runner import build
from runner.config.compose import compose
from runner.network.serving import Listener
from runner.proxy import serve
from runner.proxy.gateway import Gateway
from tests.support.clock import wait_until
from tests.support.command import Running, _content, ostinato
from tests.support.server import Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

ASKED = [{"role": "user", "content": "hi"}]
CALL = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.fixture
def server():
    with Server() as running:
        yield running


def upstream(server):
    return ["model=server", "model.name=test", f"model.api_base={server.url}", "limits.max_attempts=2"]


@contextlib.asynccontextmanager
async def proxied(*overrides):
    config = serve._recorded(compose(list(overrides)).config())
    lm = build.lm(config)
    record = serve._begin(config, lm, [])
    gateway = Gateway(lm, record, "key")
    listener = Listener(gateway.handle)
    await listener.start()
    try:
        yield openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{listener.port}/v1", api_key="key"), record
        await listener.drain()
    finally:
        listener.close()
        gateway.close()
        await lm.aclose()
        record.close()
        lm.store.close()


def samples(record):
    return {sample.id: sample for sample in record.samples()}


def plain(answer):
    return answer.model_dump(exclude={"id", "created"}, exclude_none=True)


@pytest.mark.parametrize(
    "reply",
    [
        Reply("yes"),
        Reply("", finish_reason="length"),
        Reply(None, tool_calls=CALL, finish_reason="tool_calls"),
        Reply("a", reasoning="hm"),
    ],
    ids=["text", "cut", "tools", "thinking"],
)
async def test_a_client_gets_the_servers_own_answer(server, reply):
    server.otherwise = reply
    direct = openai.AsyncOpenAI(base_url=server.url, api_key="none")
    async with direct, proxied(*upstream(server)) as (client, _), client:
        for n in (1, 2):
            asked = {"model": "test", "messages": ASKED, "n": n}
            ours, theirs = await client.chat.completions.create(**asked), await direct.chat.completions.create(**asked)
            assert plain(ours) == plain(theirs)
        said = await client.responses.create(model="test", input="hi")
        assert (said.output_text, said.usage.total_tokens) == (reply.text or "", 10)
        assert said.status == ("incomplete" if reply.finish_reason == "length" else "completed")


async def test_streams_of_all_three_formats(server):
    server.otherwise = Reply("yes", tool_calls=CALL)
    async with proxied(*upstream(server)) as (client, _), client:
        asked = {"model": "test", "messages": ASKED, "stream": True, "stream_options": {"include_usage": True}}
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked)]
        assert "".join(part.delta.content or "" for chunk in chunks for part in chunk.choices) == "yes"
        assert chunks[0].choices[0].delta.tool_calls[0].function.name == "f"
        assert (chunks[-2].choices[0].finish_reason, chunks[-1].usage.total_tokens) == ("stop", 10)
        texts = [chunk.choices[0].text async for chunk in await client.completions.create(model="test", prompt="p", stream=True)]
        assert texts == ["yes"]
        async with client.responses.stream(model="test", input="hi") as stream:
            events = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert (events[0], events[-1], final.output_text) == ("response.created", "response.completed", "yes")


async def test_conversations_of_the_responses_format_are_chats(server):
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "data:x"}]},
        call,
        {"type": "function_call_output", "call_id": "c", "output": "2"},
    ]
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    form = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}
    async with proxied(*upstream(server)) as (client, _), client:
        await client.responses.create(
            model="test", instructions="be brief", input=items, tools=[tool], text=form, max_output_tokens=5
        )
        with pytest.raises(openai.BadRequestError, match="keeps no conversations"):
            await client.responses.create(model="test", input="hi", previous_response_id="r")
    body = server.last.body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    assert body["messages"][1]["content"][1] == {"type": "image_url", "image_url": {"url": "data:x"}}
    assert body["messages"][2]["tool_calls"] == CALL
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert (body["response_format"]["json_schema"]["name"], body["max_tokens"]) == ("n", 5)


async def test_each_request_is_a_row_and_the_cache_is_that_of_runs(server):
    async with proxied(*upstream(server)) as (client, record), client:
        for name in ("a", "a", None, "2", None, "a-2"):
            named = {"X-Ostinato-Row": name} if name else {}
            await client.chat.completions.create(model="test", messages=ASKED, extra_headers=named)
    kept = samples(record)
    assert list(kept) == ["a", "a-2", "1", "2", "3", "a-2-2"]
    assert [sample.cache for sample in kept.values()] == ["miss"] + ["hit"] * 5
    assert server.count == 1
    assert "Bearer" not in "".join(file.read_text() for file in record.path.iterdir() if file.is_file())


@pytest.mark.parametrize(
    ("failure", "kind", "code"),
    [
        (Status(400, "This model's maximum context length is 10 tokens"), openai.BadRequestError, "context_length_exceeded"),
        (Status(500), openai.InternalServerError, "server"),
        (Status(401, "no"), openai.AuthenticationError, "authentication"),
    ],
    ids=["context", "server", "key"],
)
async def test_a_failure_is_openais_and_is_asked_again_by_us_alone(server, failure, kind, code):
    server.otherwise = failure
    async with proxied(*upstream(server)) as (client, record), client:
        with pytest.raises(kind) as raised:
            await client.chat.completions.create(model="test", messages=ASKED)
    assert raised.value.body["code"] == code
    assert server.count == (2 if failure.code == 500 else 1)
    assert samples(record)["1"].status == "error"


async def test_a_spent_budget_is_a_refusal_that_is_not_asked_again(server):
    async with proxied(*upstream(server), "budget.requests=1", "budget.unknown_price=allow") as (client, record), client:
        await client.chat.completions.create(model="test", messages=ASKED)
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(model="test", messages=[{"role": "user", "content": "more"}])
    assert raised.value.body["code"] == "budget_exceeded"
    assert "start it with a larger one: ostinato proxy ... budget.requests=" in raised.value.body["message"]
    assert (server.count, samples(record)["2"].error.code) == (1, "budget")


async def test_replay_sends_nothing(server):
    async with proxied(*upstream(server), "cache.mode=replay") as (client, _), client:
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(model="test", messages=ASKED)
    assert (raised.value.body["code"], server.count) == ("not_in_cache", 0)


async def test_what_is_refused_says_why():
    async with proxied("model=fake") as (client, record), client:
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").models.list()
        assert [model.id async for model in client.models.list()] == ["fake", "fake/fake"]
        for asked, told in (
            ({"model": "gpt"}, "is not served here"),
            ({"model": "fake", "messages": []}, "give a list of messages"),
            ({"model": "fake", "extra_body": {"api_base": "http://elsewhere"}}, "api_base: is not a parameter"),
            ({"model": "fake", "extra_body": {"prompt": "p"}}, "prompt: is not a parameter"),
            ({"model": "fake", "messages": ["hi"]}, "a message is an object"),
            ({"model": "fake", "n": "many"}, "n: give a whole number"),
            ({"model": "fake", "stream_options": "all"}, "does not have the form of chat"),
        ):
            with pytest.raises(openai.APIStatusError, match=told):
                await client.chat.completions.create(**{"messages": ASKED, **asked})
        for path, told in (("/embeddings", "the proxy serves"), ("/models", "takes GET")):
            with pytest.raises(openai.APIStatusError, match=told):
                await client.post(path, cast_to=object, body={})
    assert not samples(record)


async def _raw(client, sent):
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def test_requests_that_come_at_once_are_answered_in_order():
    body = json.dumps({"model": "fake", "messages": ASKED}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: %d\r\n" % len(body)
    several = (head + b"\r\n" + body) * 20 + b"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer key\r\nConnection: close\r\n\r\n"
    async with proxied("model=fake") as (client, record):
        reader, writer = await _raw(client, several)
        answered = await reader.read()
        writer.close()
        await client.close()
    assert answered.count(b"HTTP/1.1 200 OK") == 21
    assert answered.rindex(b'"object":"list"') > answered.rindex(b"chat.completion")
    assert len(samples(record)) == 20


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, b"431"),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", b"401"),
    ],
    ids=["not-http", "long-header", "no-key"],
)
async def test_what_is_not_a_request_is_refused(sent, status):
    async with proxied("model=fake") as (client, _):
        reader, writer = await _raw(client, sent)
        assert (await reader.readuntil(b"\r\n")).split()[1] == status
        writer.close()
        await client.close()


# --- the command


@contextlib.contextmanager
def command(*overrides):
    with Running("proxy", *overrides, "--json") as running:
        wait_until(lambda: "\n" in _content(running._out) or running.process.poll() is not None, "the address")
        assert running.process.poll() is None, running.err
        yield running, json.loads(_content(running._out).splitlines()[0])


def listens(address):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address["url"].removesuffix("/v1").rpartition(":")[2]))) == 0


def ask(address, content="hi"):
    with openai.OpenAI(base_url=address["url"], api_key=address["key"]) as client:
        return (
            client.chat.completions.create(model="test", messages=[{"role": "user", "content": content}])
            .choices[0]
            .message.content
        )


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_in_flight(server):
    released, got = threading.Event(), []

    def held(_call):
        released.wait(60)
        return Reply("late")

    server.otherwise = held
    with command(*upstream(server)) as (running, address):
        asking = threading.Thread(target=lambda: got.append(ask(address)))
        asking.start()
        server.wait_for(1)
        running.signal(signal.SIGINT)
        wait_until(lambda: not listens(address), "the end of listening")
        released.set()
        asking.join()
        done = running.wait()
    assert (done.code, got) == (0, ["late"])
    assert (runner.load(address["run"]).summary.ok, runner.load("proxy").manifest["status"]) == (1, "complete")
    assert address["key"] not in (runner.load("proxy").folder / "manifest.json").read_text()
    for verb in ("resume", "reproduce", "pack"):
        assert "was made by a program, through the proxy, and cannot be" in ostinato(verb, "proxy").err
    assert ostinato("score", "proxy", "scoring=regex", "scoring.pattern=late").code == 0


@pytest.mark.slow
def test_after_a_kill_the_cache_has_what_was_answered(server):
    with command(*upstream(server)) as (running, address):
        assert ask(address) == "ok"
        running.signal(signal.SIGKILL)
        running.process.wait()
    assert [sample.output for sample in runner.load(address["run"]).samples()] == ["ok"]
    with command(*upstream(server)) as (running, address):
        assert ask(address) == "ok"
        running.signal(signal.SIGTERM)
        assert running.wait().code == 0
    assert server.count == 1


NODE = """
const url = process.env.OPENAI_BASE_URL + "/chat/completions";
const headers = {"content-type": "application/json", authorization: "Bearer " + process.env.OPENAI_API_KEY};
const body = JSON.stringify({model: "fake", messages: [{role: "user", content: "hi"}], stream: true});
const answer = await fetch(url, {method: "POST", headers: {...headers, "x-ostinato-row": "node"}, body});
let text = "";
for (const line of (await answer.text()).split("\\n"))
  if (line.startsWith("data: {")) text += JSON.parse(line.slice(6)).choices[0].delta.content ?? "";
console.log(text);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node")
@pytest.mark.slow
def test_a_program_in_node(tmp_path):
    (tmp_path / "ask.mjs").write_text(NODE)
    with command("model=fake", "model.reply=bonjour") as (running, address):
        variables = {"OPENAI_BASE_URL": address["url"], "OPENAI_API_KEY": address["key"]}
        done = subprocess.run(
            ["node", tmp_path / "ask.mjs"], env=variables | {"PATH": "/usr/bin:/usr/local/bin"}, capture_output=True, check=False
        )
        running.signal(signal.SIGINT)
        assert running.wait().code == 0
    assert (done.stdout, done.stderr) == (b"bonjour\n", b"")
    assert [sample.id for sample in runner.load("proxy").samples()] == ["node"]


@pytest.mark.slow
def test_a_proxy_that_was_asked_nothing_leaves_no_record():
    with command("model=fake") as (running, address):
        running.signal(signal.SIGINT)
        assert running.wait().code == 0
    assert not Path(address["run"]).exists()
