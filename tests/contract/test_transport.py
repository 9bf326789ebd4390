"""Transports, through the LM, against a real server: what goes over the wire, what comes back, and how failures are called."""

import asyncio
import email.utils
import gc
import json
import socket
import time
import warnings

import pytest

from runner import errors
from runner.lm import LM
from runner.retry import RetryPolicy, without_sleeping
from runner.transport import AutoTransport, DirectTransport, LiteLLMTransport
from runner.types import Usage
from tests.server import Hang, Raw, Reply, Reset, Server, Status

# litellm's own: pydantic complains of its types, and text completions leave each call's client to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEY = "key-of-the-house-0123456789"
TOOLS = [
    {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}}
]
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"x": 2}'}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object", "properties": {}}}}
TYPES = ["chat", "text", "responses"]


@pytest.fixture(scope="module", autouse=True)
def tidy():
    """What litellm has left to the garbage collector is collected here, not in a test that comes later."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Call an LM once, each way; both must do the same."""

    def sync(lm, *args, **kwargs):
        return lm(*args, **kwargs)

    def asynchronous(lm, *args, **kwargs):
        async def once():
            try:
                return await lm.acall(*args, **kwargs)
            finally:
                await lm.aclose()

        return asyncio.run(once())

    return sync if request.param == "sync" else asynchronous


@pytest.fixture(params=TYPES)
def model_type(request):
    return request.param


@pytest.fixture(params=[LiteLLMTransport, DirectTransport], autouse=True)
def transport(request, monkeypatch):
    """Each test twice; what the direct transport does not speak is what `auto` leaves to litellm."""
    chosen = LiteLLMTransport() if request.param is LiteLLMTransport else AutoTransport()
    monkeypatch.setattr("runner.lm._transport", lambda _model: chosen)
    return chosen


def an_lm(server, model="openai/any", **arguments):
    settings = {"api_base": server.url, "api_key": KEY, "cache": False, "num_retries": 0, "timeout": 20}
    return LM(model, **settings | arguments)


def response_of(lm):
    return lm.history[-1]["response"]


# --- what goes over the wire


def test_a_chat_request_is_exactly_this(server, ask):
    assert ask(an_lm(server), "hi") == ["ok"]
    assert server.last.path == "/v1/chat/completions"
    assert server.last.body == {
        "model": "any",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.0,
        "max_tokens": 1000,
    }


def test_a_text_request_is_exactly_this(server, ask):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert ask(an_lm(server, model_type="text"), messages=messages) == ["ok"]
    assert server.last.path == "/v1/completions"
    assert server.last.body == {
        "model": "any",
        "prompt": "Be brief.\n\nhi\n\nBEGIN RESPONSE:",
        "temperature": 0.0,
        "max_tokens": 1000,
    }


def test_a_responses_request_is_exactly_this(server, ask):
    assert ask(an_lm(server, model_type="responses"), "hi") == ["ok"]
    assert server.last.path == "/v1/responses"
    assert server.last.body == {
        "model": "any",
        "input": [{"role": "user", "content": "hi"}],
        "temperature": 0.0,
        "max_output_tokens": 1000,
    }


def test_nothing_is_sent_that_is_ours_alone(server, ask, model_type):
    lm = an_lm(server, model_type=model_type, temperature=None, max_tokens=None, cache=True, cache_in_memory=False, top_p=None)
    ask(lm, "hi", rollout_id=3, cache=False, num_retries=1)
    said = {"chat": "messages", "text": "prompt", "responses": "input"}[model_type]
    assert set(server.last.body) == {"model", said}


@pytest.mark.parametrize("model", ["openai/o3-mini", "openai/gpt-5-mini"])
def test_reasoning_models_are_sent_their_own_limit(server, ask, model):
    ask(an_lm(server, model, temperature=1.0, max_tokens=16_000), "hi")
    assert server.last.body["max_completion_tokens"] == 16_000
    assert "max_tokens" not in server.last.body
    ask(an_lm(server, model, temperature=None, max_tokens=None), "hi")
    assert set(server.last.body) == {"model", "messages"}


def test_reasoning_models_in_responses(server, ask):
    lm = an_lm(server, "openai/o3-mini", model_type="responses", temperature=None, max_tokens=16_000, reasoning_effort="low")
    ask(lm, "hi")
    assert server.last.body == {
        "model": "o3-mini",
        "input": [{"role": "user", "content": "hi"}],
        "max_output_tokens": 16_000,
        "reasoning": {"effort": "low"},
    }


def test_parameters_of_one_call_win(server, ask):
    ask(an_lm(server, top_p=0.5, seed=1), "hi", temperature=0.7, max_tokens=5, seed=2, stop=["\n"], n=2)
    sent = server.last.body
    assert {name: sent[name] for name in ("temperature", "max_tokens", "seed", "top_p", "stop", "n")} == {
        "temperature": 0.7,
        "max_tokens": 5,
        "seed": 2,
        "top_p": 0.5,
        "stop": ["\n"],
        "n": 2,
    }


def test_tools_and_response_format_in_chat(server, ask):
    ask(an_lm(server), "hi", tools=TOOLS, tool_choice="auto", response_format=SCHEMA)
    sent = server.last.body
    assert (sent["tools"], sent["tool_choice"], sent["response_format"]) == (TOOLS, "auto", SCHEMA)
    assert set(sent) == {"model", "messages", "temperature", "max_tokens", "tools", "tool_choice", "response_format"}


def test_tools_and_response_format_in_responses(server, ask):
    ask(an_lm(server, model_type="responses"), "hi", tools=TOOLS, response_format=SCHEMA)
    assert server.last.body["tools"] == [{"type": "function", **TOOLS[0]["function"]}]
    assert server.last.body["text"] == {"format": {"type": "json_schema", **SCHEMA["json_schema"]}}


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "call_1", "content": "3"},
]


def test_a_conversation_with_parts_and_tools_in_chat(server, ask):
    ask(an_lm(server), messages=CONVERSATION)
    sent = server.last.body["messages"]
    assert sent[:3] == CONVERSATION[:3]
    assert sent[3]["tool_calls"] == CALLS
    assert sent[4] == CONVERSATION[4]


def test_a_conversation_with_parts_and_tools_in_responses(server, ask):
    ask(an_lm(server, model_type="responses"), messages=CONVERSATION)
    assert server.last.body["input"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"},
            ],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"x": 2}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "3"},
    ]


def test_keys_and_headers_arrive(server, ask, model_type):
    server.api_key = KEY
    assert ask(an_lm(server, model_type=model_type, headers={"X-Team": "blue"}), "hi") == ["ok"]
    assert server.last.headers["authorization"] == f"Bearer {KEY}"
    assert server.last.headers["x-team"] == "blue"


def test_a_local_model_is_reached_by_its_name(server, ask, monkeypatch):
    from runner.providers.base import Provider

    assert ask(an_lm(server, "local/org/model", provider=Provider()), "hi") == ["ok"]
    assert server.last.body["model"] == "org/model"


def test_unicode_goes_there_and_back(server, ask, model_type):
    server.script(Reply(lambda call: f"du sa: {call.question} 日本語 😀"))
    assert ask(an_lm(server, model_type=model_type), "Ærlig? 😀")[0].startswith("du sa: Ærlig? 😀")


# --- what comes back


def test_usage_in_all_its_parts(server, ask, model_type):
    details = {
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    server.script(Reply(usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, **details}))
    lm = an_lm(server, model_type=model_type)
    ask(lm, "hi")
    assert response_of(lm).usage == Usage(7, 5, 12, 4, 2, 1)
    assert lm.history[-1]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "cached_tokens": 4,
        "reasoning_tokens": 2,
        "cache_write_tokens": 1,
    }


def test_a_server_that_does_not_count_is_believed(server, ask):
    server.script(Reply(usage=None))
    lm = an_lm(server)
    assert ask(lm, "hi") == ["ok"]
    assert response_of(lm).usage in (None, Usage())


def test_facts_about_the_answer(server, ask, model_type):
    server.script(Reply("four", model="any-2026-01-01", fingerprint="fp_1"))
    lm = an_lm(server, model_type=model_type)
    ask(lm, "hi")
    answer = response_of(lm)
    assert (answer.model, answer.created) == ("any-2026-01-01", 1_700_000_000)
    assert answer.id
    assert [(choice.text, choice.finish_reason) for choice in answer.choices] == [("four", "stop")]
    if model_type != "responses":
        assert answer.system_fingerprint == "fp_1"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_why_it_ended(server, ask, model_type, reason):
    server.script(Reply("half", finish_reason=reason))
    lm = an_lm(server, model_type=model_type)
    assert ask(lm, "hi") == ["half"]
    assert response_of(lm).choices[0].finish_reason == reason


def test_an_answer_that_was_all_thinking(server, ask):
    for model_type in ("chat", "responses"):
        server.script(Reply(None, finish_reason="length", reasoning="Let me see"))
        lm = an_lm(server, model_type=model_type)
        assert ask(lm, "hi") == [None]
        assert response_of(lm).choices[0].reasoning == "Let me see"


def test_a_refusal_in_words(server, ask):
    message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "any"}
    server.script(Raw(json.dumps({**body, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()))
    lm = an_lm(server)
    assert ask(lm, "hi") == ["I cannot."]
    assert response_of(lm).choices[0].finish_reason == "refusal"


def test_several_answers(server, ask):
    for model_type in ("chat", "text"):
        assert ask(an_lm(server, model_type=model_type), "hi", n=3) == ["ok", "ok", "ok"]


def test_logprobs(server, ask):
    logprobs = {"content": [{"token": "ok", "bytes": [111, 107], "logprob": -0.25, "top_logprobs": []}]}
    server.script(Reply(logprobs=logprobs))
    [output] = ask(an_lm(server), "hi", logprobs=True, top_logprobs=1)
    assert output["text"] == "ok"
    assert output["logprobs"]["content"][0]["logprob"] == -0.25
    assert (server.last.body["logprobs"], server.last.body["top_logprobs"]) == (True, 1)
    json.dumps(output)


def test_tool_calls_look_the_same_in_both_formats(server, ask):
    for model_type in ("chat", "responses"):
        server.script(Reply(None, finish_reason="tool_calls", tool_calls=CALLS))
        assert ask(an_lm(server, model_type=model_type), "hi", tools=TOOLS) == [{"text": None, "tool_calls": CALLS}]


def test_half_a_character_does_not_break_what_is_written(server, ask, model_type, tmp_path):
    server.script(Reply("cut \ud83d"))
    lm = an_lm(server, model_type=model_type, cache=True)
    assert ask(lm, "hi") == ask(lm, "hi") == ["cut ?"]
    assert server.count == 1


# --- failures: each by its name, each after one request

FAILURES = [
    (Status(400, "'foo' is not a parameter"), errors.BadRequestError, 400),
    (Status(400, "This model's maximum context length is 4096 tokens."), errors.ContextWindowError, 400),
    (Status(400, "Too long.", error_code="context_length_exceeded"), errors.ContextWindowError, 400),
    (Status(413, "the request exceeds the available context size"), errors.ContextWindowError, 413),
    (Status(400, "The response was filtered.", error_code="content_filter"), errors.ContentFilterError, 400),
    (Status(400, "Rejected by our content policy."), errors.ContentFilterError, 400),
    (Status(400, "Your credit balance is too low to access the API."), errors.QuotaError, 400),
    (Status(401, "Incorrect API key provided", error_code="invalid_api_key"), errors.AuthenticationError, 401),
    (Status(402, "Insufficient balance"), errors.QuotaError, 402),
    (Status(403, "Country not supported"), errors.PermissionDeniedError, 403),
    (Status(404, "The model does not exist", error_code="model_not_found"), errors.NotFoundError, 404),
    (Status(405, "Method not allowed"), errors.NotFoundError, 405),
    (Status(408, "Request timeout"), errors.LMTimeoutError, 408),
    (Status(422, "Unprocessable"), errors.BadRequestError, 422),
    (Status(429, "Rate limit reached for requests per min (RPM): Limit 3"), errors.RateLimitError, 429),
    (
        Status(429, "Rate limit reached. Add a payment method at https://platform.openai.com/account/billing to increase it."),
        errors.RateLimitError,
        429,
    ),
    (Status(429, "You exceeded your current quota: GenerateRequestsPerMinutePerProject"), errors.RateLimitError, 429),
    (
        Status(429, "You exceeded your current quota, please check your plan.", error_code="insufficient_quota"),
        errors.QuotaError,
        429,
    ),
    (Status(429, "Rate limit reached on tokens per day (TPD)"), errors.QuotaError, 429),
    (Status(500, "The server had an error"), errors.ServerError, 500),
    (Status(502, body=b"<html>Bad gateway: connection refused</html>"), errors.ServerError, 502),
    (Status(503, "Overloaded"), errors.ServerError, 503),
    (Status(504, "Gateway timeout"), errors.LMTimeoutError, 504),
    (Status(529, "Overloaded"), errors.ServerError, 529),
    (Status(418, "A teapot"), errors.BadRequestError, 418),
    (Reset(), errors.TransportError, None),
    (Reset(after=40), errors.TransportError, None),
    (Raw(b"this is not JSON"), errors.MalformedError, None),
    (Raw(b'{"choices": [{"mess'), errors.MalformedError, None),
    (Raw(b""), errors.MalformedError, None),
    (Raw(b"{}"), errors.MalformedError, None),
    (Raw(b"[]"), errors.MalformedError, None),
    (Raw(b"null"), errors.MalformedError, None),
    (Raw(b'{"choices": []}'), errors.MalformedError, None),
    (Raw(b'{"error": {"message": "overloaded"}}'), errors.MalformedError, None),
    (Raw(b"<html>Welcome to our portal</html>", content_type="text/html"), errors.MalformedError, None),
]


@pytest.mark.parametrize(("behaviour", "cls", "status"), FAILURES, ids=lambda value: str(value)[:60])
def test_failures(server, ask, model_type, behaviour, cls, status):
    server.script(behaviour)
    with pytest.raises(errors.LMError) as caught:
        ask(an_lm(server, model_type=model_type), "hi")
    error = caught.value
    assert type(error) is cls, error
    assert (error.status, error.model, error.provider, error.attempts) == (status, "openai/any", "openai", 1)
    assert server.count == 1
    assert "litellm" not in str(error).lower()
    assert "\n" not in str(error)
    if isinstance(behaviour, Status) and behaviour.body is None:
        assert behaviour.message in str(error)
        assert server.url in str(error)


def test_no_answer_in_time(server, ask, model_type):
    for behaviour in (Hang(), Hang(after=40)):
        server.reset()
        server.script(behaviour)
        with pytest.raises(errors.LMTimeoutError, match=r"no answer within 0\.3 s"):
            ask(an_lm(server, model_type=model_type, timeout=0.3), "hi")
        assert server.count == 1


def test_nothing_answers_there(ask, model_type):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        lm = LM("openai/any", model_type, api_base=url, api_key=KEY, cache=False, num_retries=0, timeout=20)
        with pytest.raises(errors.TransportError, match="nothing answers there; check that the server runs"):
            ask(lm, "hi")


def test_a_host_that_is_not_there(ask):
    lm = LM("openai/any", api_base="http://no-such-host.invalid/v1", api_key=KEY, cache=False, num_retries=0, timeout=20)
    with pytest.raises(errors.TransportError):
        ask(lm, "hi")


def test_a_path_that_is_not_there(server, ask):
    with pytest.raises(errors.NotFoundError, match=r"check model\.name and model\.api_base"):
        ask(an_lm(server, api_base=server.url.replace("/v1", "/v2/x")), "hi")


def test_a_provider_that_litellm_does_not_know(ask):
    with pytest.raises(errors.BadRequestError) as caught:
        ask(LM("nobody/any", api_key=KEY, cache=False, num_retries=0), "hi")
    assert "nobody" in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Mon, 99 Foo 2026"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(server, ask, headers, seconds):
    for status in (429, 503):
        server.script(Status(status, headers=headers))
        with pytest.raises(errors.LMError) as caught:
            ask(an_lm(server), "hi")
        assert caught.value.retry_after == seconds
    assert server.count == 2


def test_how_long_to_wait_as_a_date(server, ask):
    for after, least, most in ((100, 90, 100), (-100, 0, 0)):
        date = email.utils.formatdate(time.time() + after, usegmt=True)
        server.script(Status(429, retry_after=date))
        with pytest.raises(errors.RateLimitError) as caught:
            ask(an_lm(server), "hi")
        assert least <= caught.value.retry_after <= most


@pytest.mark.parametrize("header", ["x-request-id", "request-id"])
def test_the_requests_name_at_the_provider(server, ask, model_type, header):
    server.script(Status(500, headers={header: "req_42"}))
    with pytest.raises(errors.ServerError) as caught:
        ask(an_lm(server, model_type=model_type), "hi")
    assert caught.value.request_id == "req_42"


@pytest.mark.parametrize("key", [KEY, "sk-abcdefghijklmnopqrstuvwx"])
def test_no_message_shows_the_key(server, ask, model_type, key):
    for behaviour in (
        Status(401, f"Incorrect API key provided: {key}."),
        Status(500, f"{key} failed"),
        Raw(f"echo {key}".encode()),
    ):
        server.script(behaviour)
        lm = an_lm(server, model_type=model_type, api_key=key, headers={"X-Auth-Token": "token-of-the-house-987"})
        with pytest.raises(errors.LMError) as caught:
            ask(lm, "hi")
        assert key not in str(caught.value)
    server.script(Status(403, "token-of-the-house-987 may not"))
    with pytest.raises(errors.PermissionDeniedError, match=r"\*\*\* may not"):
        ask(lm, "hi")


def test_no_message_shows_a_key_from_the_environment(server, ask, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-in-the-environment-5")
    server.script(Status(401, "bad key: key-in-the-environment-5"))
    with pytest.raises(errors.AuthenticationError) as caught:
        ask(an_lm(server, api_key=None), "hi")
    assert server.last.headers["authorization"] == "Bearer key-in-the-environment-5"
    assert "bad key: ***" in str(caught.value)


def test_a_missing_key_is_said_before_anything_is_sent(server, ask):
    with pytest.raises(errors.AuthenticationError, match=r"model\.api_key_env"):
        ask(an_lm(server, api_key=None), "hi")
    assert server.count == 0


# --- attempts


def test_one_owner_of_retries(server, ask, model_type):
    lm = an_lm(server, model_type=model_type, num_retries=3)
    server.script(Raw(b"junk"), Status(429, retry_after=0), Status(503))
    with without_sleeping():
        assert ask(lm, "hi") == ["ok"]
    assert server.count == 4
    server.script(*[Status(500)] * 9)
    with without_sleeping(), pytest.raises(errors.ServerError) as caught:
        ask(lm, "hi")
    assert server.count == 8
    assert caught.value.attempts == 4


def test_a_retry_after_is_waited_for(server, ask):
    lm = an_lm(server)
    lm.retry = RetryPolicy(base_s=0, cap_s=0)
    server.script(Status(429, headers={"retry-after-ms": "300"}))
    began = time.monotonic()
    assert ask(lm, "hi") == ["ok"]
    assert time.monotonic() - began >= 0.3
    assert server.count == 2


def test_every_attempt_is_the_same_request(server, ask):
    server.script(Status(503), Status(503))
    with without_sleeping():
        ask(an_lm(server, num_retries=2), "hi")
    assert server.calls[0].body == server.calls[1].body == server.calls[2].body


# --- loops


async def test_many_at_once(server):
    server.otherwise = Reply(lambda call: f"answer to {call.question}", delay_s=0.05)
    lm = an_lm(server)
    outputs = await asyncio.gather(*[lm.acall(f"question {n}") for n in range(12)])
    await lm.aclose()
    assert outputs == [[f"answer to question {n}"] for n in range(12)]
    assert server.count == 12
    assert server.most_at_once > 3


def test_a_loop_after_a_loop(server):
    lm = an_lm(server)

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
            return [session for at, session in direct._sessions.items() if at is loop]
        return [key for key in litellm.in_memory_llm_clients_cache.cache_dict if key.endswith(f"-{id(loop)}")]

    lm = an_lm(server)
    await lm.acall("hi")
    assert clients()
    await lm.aclose()
    assert not clients()
    assert await lm.acall("hi") == ["ok"]
    await lm.aclose()


@pytest.mark.parametrize("kind", [AutoTransport, LiteLLMTransport])
async def test_closing_one_leaves_the_requests_of_others_alone(server, kind):
    server.otherwise = lambda call: Reply(delay_s=0.5 if call.question == "slow" else 0.0)
    slow, quick = an_lm(server), an_lm(server)
    slow.transport, quick.transport = kind(), kind()
    asking = asyncio.create_task(slow.acall("slow"))
    await asyncio.to_thread(server.wait_for, 1)
    await quick.acall("hi")
    await quick.aclose()
    assert await asking == ["ok"]
    assert server.count == 2
    await slow.aclose()


async def test_a_call_that_is_given_up_leaves_the_next_one_alone(server):
    server.script(Hang())
    lm = an_lm(server)
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
            an_lm(server, api_key="another-key-123")("hi")
        assert an_lm(server)("hi") == ["ok"]
        assert server.count == 2
        server.reset()
        assert server.count == 0


def test_litellm_is_told_once_what_not_to_do():
    import litellm

    LiteLLMTransport()
    assert litellm.num_retries in (None, 0)
    assert litellm.cache is None
    assert litellm.telemetry is False


@pytest.mark.parametrize("transport", [DirectTransport], indirect=True)
def test_what_is_on_this_machine_is_asked_without_a_proxy(server, ask, transport, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(an_lm(server), "hi") == ["ok"]
