"""The two transports read alike: every answer of `tests/support/answers.py` gives the same Response, or the same error."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings

import pytest

from runner.answers import ending_of
from runner.errors import LMError, MalformedError, ServerError
from runner.transport import DirectTransport, LiteLLMTransport
from runner.types import Connection, Request, Response
from tests.support.answers import CASES, body
from tests.support.server import Raw, Server
from tests.support.transports import KEY, QUIET

pytestmark = QUIET

DIFFERENCES = {
    "log probabilities with nulls": (
        {"choices"},
        "OpenAI's SDK, which litellm uses, adds nulls; all are left out",
    ),
}
"""Fields that differ, by the case's name, and why."""


def request_of(case):
    if case.kind == "text":
        return Request(model="openai/any", model_type="text", prompt=case.name)
    return Request(model="openai/any", messages=[{"role": "user", "content": case.name}])


async def read(transport, case, connection):
    try:
        return await transport.acomplete(request_of(case), connection)
    except LMError as error:
        error.__context__ = None  # it holds litellm's clients, which would stay open
        return error.with_traceback(None)


@pytest.fixture(scope="module")
def read_by():
    """Ask every case through both transports at once, of one server."""
    cases = {case.name: case for case in CASES}

    async def everything(server):
        connection = Connection(api_base=server.url, api_key=KEY)
        found = {}
        for transport in (DirectTransport(), LiteLLMTransport()):
            answers = await asyncio.gather(*(read(transport, case, connection) for case in CASES))
            found[type(transport)] = dict(zip(cases, answers, strict=True))
            await transport.aclose()
        return found

    with Server(lambda call: Raw(cases[call.question].sent)) as server:
        yield asyncio.run(everything(server))
    with warnings.catch_warnings():  # collect here what litellm leaves to the garbage collector
        warnings.simplefilter("ignore")
        gc.collect()


def test_there_are_enough_cases_with_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES) >= 80
    assert set(DIFFERENCES) <= {case.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_is_read_as_it_was_meant(read_by, case):
    answer = read_by[DirectTransport][case.name]
    if isinstance(case.expected, type):
        assert type(answer) is case.expected, answer
        return
    assert isinstance(answer, Response), answer
    assert answer.choices[0] == case.expected
    assert {name: getattr(answer, name) for name in case.fields} == case.fields


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_transports_read_the_same(read_by, case):
    direct, litellm = read_by[DirectTransport][case.name], read_by[LiteLLMTransport][case.name]
    if isinstance(case.expected, type):
        assert type(litellm) is type(direct), litellm
        assert (litellm.status, litellm.disposition) == (direct.status, direct.disposition)
        return
    assert isinstance(litellm, Response), litellm
    differ = {name for name in Response.__struct_fields__ if getattr(direct, name) != getattr(litellm, name)}
    assert differ == DIFFERENCES.get(case.name, (set(), ""))[0], (direct, litellm)


# --- through litellm alone: formats that are not OpenAI's


def anthropic(*content, reason="end_turn"):
    usage = {"input_tokens": 7, "output_tokens": 3}
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "c",
        "content": content,
        "stop_reason": reason,
        "usage": usage,
    }


def gemini(*parts, reason="STOP"):
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": reason, "index": 0}
    return {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}}


TEXT = {"type": "text", "text": "4"}
OTHERS = [
    ("anthropic/c", anthropic(TEXT), "4", "complete"),
    ("anthropic/c", anthropic(TEXT, reason="max_tokens"), "4", "cut"),
    ("anthropic/c", anthropic(TEXT, reason="model_context_window_exceeded"), "4", "cut"),
    ("anthropic/c", anthropic(TEXT, reason="refusal"), "4", "refused"),
    ("anthropic/c", anthropic({"type": "thinking", "thinking": "2 + 2", "signature": "s"}, TEXT), "4", "complete"),
    ("gemini/g", gemini({"text": "4"}), "4", "complete"),
    ("gemini/g", gemini({"text": "4"}, reason="MAX_TOKENS"), "4", "cut"),
    ("gemini/g", gemini(reason="MALFORMED_FUNCTION_CALL"), MalformedError, None),
    ("mistral/m", body({"content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}, "model_length"), "42", "cut"),
    ("mistral/m", body(finish_reason="error"), ServerError, None),
    ("deepseek/d", body({"reasoning_content": "2 + 2"}, "insufficient_system_resource"), ServerError, None),
]


@pytest.mark.parametrize(("model", "sent", "text", "ending"), OTHERS)
async def test_formats_of_other_providers_are_read_through_litellm(model, sent, text, ending):
    transport = LiteLLMTransport()
    with Server(Raw(json.dumps(sent).encode())) as server:
        asked = Request(model=model, messages=[{"role": "user", "content": "hi"}])
        sending = transport.acomplete(asked, Connection(api_base=server.url, api_key=KEY))
        if ending is None:
            with pytest.raises(text):
                await sending
        else:
            [choice] = (await sending).choices
            assert (choice.text, ending_of(choice.finish_reason)) == (text, ending)
            assert choice.reasoning == ("2 + 2" if "thinking" in str(sent) else None)
    await transport.aclose()


async def test_a_failed_response_is_a_failure():
    sent = {"id": "r", "object": "response", "created_at": 1, "model": "any", "status": "failed", "output": []}
    sent["error"] = {"code": "server_error", "message": "it broke"}
    with Server(Raw(json.dumps(sent).encode())) as server:
        asked = Request(model="openai/any", model_type="responses", messages=[{"role": "user", "content": "hi"}])
        transport = LiteLLMTransport()
        with pytest.raises(ServerError):
            await transport.acomplete(asked, Connection(api_base=server.url, api_key=KEY))
        await transport.aclose()
