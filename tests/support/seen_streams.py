"""Streams as they are seen in the wild, each with its vendor, its source and what is read from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from runner import errors
from runner.types import Choice, Usage
from tests.support.streams import DONE, event

SPENT_TOKENS = Usage(7, 3, 10)


@dataclass(frozen=True)
class Streamed:
    """One stream.

    Attributes:
        name: what is particular about it.
        vendor: who sends it.
        source: where that is documented or was seen.
        sent: the body.
        expected: the answers as they are read, or the class of the error.
        usage: the tokens that it says it has used.
        kind: ``chat`` or ``text``.
        whole: whether the body has its end.
    """

    name: str
    vendor: str
    source: str
    sent: bytes
    expected: list[Choice] | type[errors.LMError]
    usage: Usage | None = SPENT_TOKENS
    kind: str = "chat"
    whole: bool = True


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "any"}
FOUR = [Choice("4", "stop")]
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"x": 2}'}}
CALLED = [Choice(None, "tool_calls", tool_calls=[CALL])]
HTML = "html.spec.whatwg.org, server-sent events"
OPENAI = "platform.openai.com/docs/api-reference/chat-streaming"


def delta(data: Any, finish_reason: Any = None, index: Any = 0, **more: Any) -> dict[str, Any]:
    """Return a chunk with one piece of one choice."""
    return {**HEAD, "choices": [{"index": index, "delta": data, "finish_reason": finish_reason, **more}]}


def calls(*pieces: Any) -> bytes:
    """Return a stream of these pieces of tool calls."""
    return stream(*(delta({"tool_calls": [piece]}) for piece in pieces), delta({}, "tool_calls"), SPENT)


def stream(*chunks: Any, done: bool = True) -> bytes:
    """Return the body of a stream of chunks, or of bytes as they are."""
    made = b"".join(one if isinstance(one, bytes) else event(one) for one in chunks)
    return made + DONE if done else made


ROLE, TEXT, STOP = delta({"role": "assistant", "content": ""}), delta({"content": "4"}), delta({}, "stop")
SPENT = {**HEAD, "choices": [], "usage": USAGE}
PLAIN = stream(ROLE, TEXT, STOP, SPENT)
BROKEN = errors.MalformedError

FRAMES = [
    Streamed("plain", "OpenAI", OPENAI, PLAIN, FOUR),
    Streamed("lines end with CRLF", "any", HTML, PLAIN.replace(b"\n", b"\r\n"), FOUR),
    Streamed("lines end with CR", "any", HTML, PLAIN.replace(b"\n", b"\r"), FOUR),
    Streamed("a byte order mark", "any", HTML, b"\xef\xbb\xbf" + PLAIN, FOUR),
    Streamed("no space after the colon", "any", HTML, PLAIN.replace(b"data: ", b"data:"), FOUR),
    Streamed("data in several lines", "any", HTML, PLAIN.replace(b', "model"', b',\ndata: "model"'), FOUR),
    Streamed(
        "ids, retries and names of events",
        "any",
        HTML,
        b"retry: 9\n" + PLAIN.replace(b"data", b"id: 1\nevent: message\ndata"),
        FOUR,
    ),
    Streamed(
        "comments between events",
        "OpenRouter",
        "openrouter.ai/docs/api-reference/streaming",
        PLAIN.replace(b"data", b": OPENROUTER PROCESSING\n\ndata"),
        FOUR,
    ),
    Streamed("comments within events", "any", HTML, PLAIN.replace(b"data", b":\ndata"), FOUR),
    Streamed("empty events", "any", HTML, PLAIN.replace(b"\n\n", b"\n\n\n\ndata\n\ndata:\n\n"), FOUR),
    Streamed("no empty line at the end", "any", "seen behind gateways", PLAIN.rstrip(b"\n"), FOUR),
    Streamed(
        "events that are not chunks",
        "Anthropic, through gateways",
        "docs.claude.com/en/docs/build-with-claude/streaming",
        stream(b'event: ping\ndata: {"type": "ping"}\n\n', ROLE, b"data: ping\n\n", TEXT, STOP, SPENT),
        FOUR,
    ),
    Streamed(
        "no [DONE]",
        "Gemini's OpenAI API and others",
        "ai.google.dev/gemini-api/docs/openai",
        stream(ROLE, TEXT, STOP, SPENT, done=False),
        FOUR,
    ),
    Streamed(
        "the connection closes after the last chunk",
        "any",
        "seen behind proxies",
        stream(ROLE, TEXT, STOP, SPENT, done=False),
        FOUR,
        whole=False,
    ),
    Streamed("more after [DONE]", "any", "seen behind gateways", PLAIN + event(TEXT), FOUR),
    Streamed(
        "plain JSON",
        "servers that do not stream",
        "litellm's proxy with fake_stream off",
        json.dumps(
            {**HEAD, "choices": [{"index": 0, "message": {"content": "4"}, "finish_reason": "stop"}], "usage": USAGE}
        ).encode(),
        FOUR,
    ),
]

CHUNKS = [
    Streamed(
        "the role in every piece",
        "many",
        "seen in llama.cpp, Mistral and vLLM",
        stream(delta({"role": "assistant", "content": "4"}), delta({"role": "assistant", "content": "2"}), STOP, SPENT),
        [Choice("42", "stop")],
    ),
    Streamed(
        "text in many scripts",
        "any",
        OPENAI,
        stream(*(delta({"content": one}) for one in "Ærlig? 日本 😀"), STOP, SPENT),
        [Choice("Ærlig? 日本 😀", "stop")],
    ),
    Streamed(
        "text that ends streams elsewhere",
        "any",
        "litellm 1.106 takes it for the end",
        stream(delta({"content": "data: [DONE]\n\n"}), STOP, SPENT),
        [Choice("data: [DONE]\n\n", "stop")],
    ),
    Streamed(
        "a separator of lines in the text",
        "any",
        "httpx's iter_lines splits there",
        stream(b'data: {"choices": [{"index": 0, "delta": {"content": "a\xe2\x80\xa8b"}}]}\n\n', STOP, SPENT),
        [Choice("a\u2028b", "stop")],
    ),
    Streamed(
        "a first chunk without choices",
        "Azure",
        "learn.microsoft.com, content streaming",
        stream(
            {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
            ROLE,
            TEXT,
            STOP,
            SPENT,
        ),
        FOUR,
    ),
    Streamed(
        "the end in the last piece of text",
        "many",
        "seen in Mistral and Groq",
        stream(delta({"content": "4"}, "stop"), SPENT),
        FOUR,
    ),
    Streamed(
        "an empty finish reason in every piece",
        "Databricks, one-api",
        "seen behind gateways",
        stream(delta({"content": "4"}, ""), STOP, SPENT),
        FOUR,
    ),
    Streamed("null for the delta at the end", "any", "seen in TGI", stream(ROLE, TEXT, delta(None, "stop"), SPENT), FOUR),
    Streamed(
        "null for the index", "any", "seen behind gateways", stream(delta({"content": "4"}, "stop", index=None), SPENT), FOUR
    ),
    Streamed(
        "message in place of delta",
        "any",
        "seen behind gateways",
        stream(
            {**HEAD, "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}]}, SPENT
        ),
        FOUR,
    ),
    Streamed(
        "a message beside each delta",
        "Perplexity",
        "docs.perplexity.ai, streaming",
        stream(
            delta({"content": "4"}, message={"content": "4"}), delta({"content": "2"}, "stop", message={"content": "42"}), SPENT
        ),
        [Choice("42", "stop")],
    ),
    Streamed("only the role, then the end", "any", OPENAI, stream(ROLE, STOP, SPENT), [Choice("", "stop")]),
    Streamed(
        "two answers by turns",
        "OpenAI",
        OPENAI,
        stream(
            *(delta({"content": text}, index=at) for at, text in enumerate("ab")),
            *(delta({"content": text}, index=at) for at, text in ((1, "B"), (0, "A"))),
            delta({}, "length", index=1),
            delta({}, "stop", index=0),
            SPENT,
        ),
        [Choice("aA", "stop"), Choice("bB", "length")],
    ),
    Streamed(
        "two answers in one chunk",
        "vLLM",
        "docs.vllm.ai, stream_interval",
        stream(
            {
                **HEAD,
                "choices": [{"index": at, "delta": {"content": text}, "finish_reason": "stop"} for at, text in enumerate("ab")],
            },
            SPENT,
        ),
        [Choice("a", "stop"), Choice("b", "stop")],
    ),
    Streamed(
        "log probabilities in pieces",
        "OpenAI",
        OPENAI,
        stream(
            *(
                delta({"content": text}, logprobs={"content": [{"token": text, "logprob": -0.5}], "refusal": None})
                for text in "42"
            ),
            STOP,
            SPENT,
        ),
        [Choice("42", "stop", {"content": [{"token": "4", "logprob": -0.5}, {"token": "2", "logprob": -0.5}], "refusal": None})],
    ),
    Streamed(
        "log probabilities of a text completion",
        "vLLM",
        "docs.vllm.ai, completions",
        stream(
            *(
                {"choices": [{"index": 0, "text": text, "logprobs": {"tokens": [text], "token_logprobs": [-0.5]}}]}
                for text in "42"
            ),
            {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]},
            SPENT,
        ),
        [Choice("42", "length", {"tokens": ["4", "2"], "token_logprobs": [-0.5, -0.5]})],
        kind="text",
    ),
    Streamed(
        "a refusal in pieces",
        "OpenAI",
        OPENAI,
        stream(ROLE, delta({"refusal": "I "}), delta({"refusal": "cannot."}), STOP, SPENT),
        [Choice("I cannot.", "refusal")],
    ),
]

THINKING = [
    Streamed(
        "reasoning_content",
        "DeepSeek",
        "api-docs.deepseek.com, reasoning model",
        stream(
            ROLE,
            delta({"content": None, "reasoning_content": "2 "}),
            delta({"content": None, "reasoning_content": "+ 2"}),
            TEXT,
            STOP,
            SPENT,
        ),
        [Choice("4", "stop", reasoning="2 + 2")],
    ),
    Streamed(
        "reasoning",
        "vLLM 0.32",
        "docs.vllm.ai, reasoning outputs",
        stream(ROLE, delta({"reasoning": "2 "}), delta({"reasoning": "+ 2"}), TEXT, STOP, SPENT),
        [Choice("4", "stop", reasoning="2 + 2")],
    ),
    Streamed(
        "reasoning and its details",
        "OpenRouter",
        "openrouter.ai/docs/use-cases/reasoning-tokens",
        stream(
            *(
                delta(
                    {
                        "content": "",
                        "reasoning": text,
                        "reasoning_details": [{"type": "reasoning.text", "text": text, "format": "x", "index": 0}],
                    }
                )
                for text in ("2 ", "+ 2")
            ),
            TEXT,
            STOP,
            SPENT,
        ),
        [Choice("4", "stop", reasoning="2 + 2")],
    ),
    Streamed(
        "details alone",
        "OpenRouter",
        "openrouter.ai/docs/use-cases/reasoning-tokens",
        stream(
            *(
                delta({"reasoning_details": [{"type": "reasoning.text", "text": text, "format": "x", "index": 0}]})
                for text in ("2 ", "+ 2")
            ),
            TEXT,
            STOP,
            SPENT,
        ),
        [Choice("4", "stop", reasoning="2 + 2")],
    ),
    Streamed(
        "parts of content",
        "Mistral",
        "docs.mistral.ai/capabilities/reasoning",
        stream(
            ROLE,
            *(delta({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}) for text in ("2 ", "+ 2")),
            TEXT,
            STOP,
            SPENT,
        ),
        [Choice("4", "stop", reasoning="2 + 2")],
    ),
    Streamed(
        "thinking that is cut off",
        "vLLM 0.32",
        "docs.vllm.ai, reasoning outputs",
        stream(ROLE, delta({"reasoning": "2 +"}), delta({}, "length"), SPENT),
        [Choice(None, "length", reasoning="2 +")],
    ),
]

_NAME, _REST = {"function": {"name": "add", "arguments": '{"x"'}}, {"function": {"arguments": ": 2}"}}
_SECOND = {"id": "call_2", "type": "function", "function": {"name": "add", "arguments": '{"x": 3}'}}
_TWO = [Choice(None, "tool_calls", tool_calls=[CALL, _SECOND])]
_ID = {"id": "call_1", "type": "function"}
TOOLS = [
    Streamed("a call in pieces", "OpenAI", OPENAI, calls({"index": 0, **_ID, **_NAME}, {"index": 0, **_REST}), CALLED),
    Streamed(
        "an empty text before a call",
        "vLLM",
        "docs.vllm.ai, tool calling",
        stream(ROLE, delta({"tool_calls": [{"index": 0, **CALL}]}), delta({}, "tool_calls"), SPENT),
        CALLED,
    ),
    Streamed("pieces without an index", "Mistral, LM Studio", "seen in 2025", calls({**_ID, **_NAME}, _REST), CALLED),
    Streamed(
        "the id and the type in every piece",
        "TGI, Qwen",
        "seen in 2025",
        calls({"index": 0, **_ID, **_NAME}, {"index": 0, **_ID, **_REST}),
        CALLED,
    ),
    Streamed(
        "an empty id and name in later pieces",
        "Qwen, GLM",
        "seen in 2025",
        calls({"index": 0, **_ID, **_NAME}, {"index": 0, "id": "", "function": {"name": "", "arguments": ": 2}"}}),
        CALLED,
    ),
    Streamed(
        "no id at all",
        "TGI",
        "seen in 2024",
        calls({"index": 0, "type": "function", **_NAME}, {"index": 0, **_REST}),
        [Choice(None, "tool_calls", tool_calls=[CALL | {"id": None}])],
    ),
    Streamed(
        "two calls", "OpenAI", OPENAI, calls({"index": 0, **_ID, **_NAME}, {"index": 0, **_REST}, {"index": 1, **_SECOND}), _TWO
    ),
    Streamed(
        "two calls by turns",
        "any",
        OPENAI,
        calls({"index": 0, **_ID, **_NAME}, {"index": 1, **_SECOND}, {"index": 0, **_REST}),
        _TWO,
    ),
    Streamed(
        "two calls with one index",
        "Gemini's OpenAI API",
        "seen in 2025",
        calls({"index": 0, **CALL}, {"index": 0, **_SECOND}),
        _TWO,
    ),
    Streamed(
        "two calls without index and id",
        "any",
        "seen behind gateways",
        calls(*({"type": "function", "function": one["function"]} for one in (CALL, _SECOND))),
        [Choice(None, "tool_calls", tool_calls=[CALL | {"id": None}, _SECOND | {"id": None}])],
    ),
    Streamed(
        "arguments as an object",
        "Ollama",
        "github.com/ollama/ollama/blob/main/docs/api.md",
        calls({"index": 0, **_ID, "function": {"name": "add", "arguments": {"x": 2}}}),
        CALLED,
    ),
    Streamed(
        "a function call of the old form",
        "Azure",
        OPENAI,
        stream(
            delta({"function_call": {"name": "add", "arguments": '{"x"'}}),
            delta({"function_call": {"arguments": ": 2}"}}),
            delta({}, "function_call"),
            SPENT,
        ),
        [Choice(None, "function_call", tool_calls=[{"id": None, "type": "function", "function": CALL["function"]}])],
    ),
]

_SOME = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
USAGES = [
    Streamed(
        "null usage in every chunk but the last",
        "OpenAI",
        OPENAI,
        stream(*({**one, "usage": None} for one in (ROLE, TEXT, STOP)), SPENT),
        FOUR,
    ),
    Streamed(
        "usage that grows from chunk to chunk",
        "xAI, vLLM (continuous_usage_stats)",
        "docs.x.ai/docs/guides/streaming-response",
        stream(
            {**ROLE, "usage": _SOME | {"completion_tokens": 0, "total_tokens": 7}},
            {**TEXT, "usage": _SOME},
            {**STOP, "usage": USAGE},
        ),
        FOUR,
    ),
    Streamed(
        "usage in the chunk that ends",
        "Groq, DeepSeek, Mistral",
        "api-docs.deepseek.com, create chat completion",
        stream(ROLE, TEXT, {**STOP, "usage": USAGE}),
        FOUR,
    ),
    Streamed(
        "the prompt in the first chunk, the answer in the last",
        "Anthropic, through gateways",
        "docs.claude.com/en/docs/build-with-claude/streaming",
        stream(
            {**ROLE, "usage": {"prompt_tokens": 7, "completion_tokens": 0}},
            TEXT,
            {**STOP, "usage": {"prompt_tokens": 0, "completion_tokens": 3}},
        ),
        FOUR,
    ),
    Streamed("no usage", "any", OPENAI, stream(ROLE, TEXT, STOP), FOUR, None),
    Streamed("usage of a wrong type", "any", "seen behind gateways", stream(ROLE, TEXT, {**STOP, "usage": "none"}), FOUR, None),
]

FAILURES = [
    Streamed("no finish reason", "any", "seen behind gateways", stream(ROLE, TEXT, SPENT, done=False), BROKEN),
    Streamed("[DONE] without a finish reason", "one-api, new-api", "seen in 2025", stream(ROLE, TEXT), BROKEN),
    Streamed(
        "one of two answers without a finish reason",
        "any",
        OPENAI,
        stream(*(delta({"content": text}, index=at) for at, text in enumerate("ab")), STOP, SPENT),
        BROKEN,
    ),
    Streamed("a chunk that breaks off", "any", "a proxy's limit", stream(ROLE, TEXT, STOP, done=False)[:-40], BROKEN),
    Streamed(
        "a chunk that is not JSON", "any", "seen behind gateways", stream(ROLE, b"data: {oops}\n\n", TEXT, STOP, SPENT), BROKEN
    ),
    Streamed(
        "the connection closes in mid-stream",
        "any",
        "a server that dies",
        stream(ROLE, TEXT, done=False),
        errors.ConnectionLostError,
        whole=False,
    ),
    Streamed("no event", "any", "seen behind gateways", b"", BROKEN),
    Streamed("only [DONE]", "any", "seen behind gateways", DONE, BROKEN),
    Streamed("a page", "any", "captive portals", b"<html>Welcome</html>", BROKEN),
    Streamed(
        "an error in mid-stream",
        "OpenAI, vLLM",
        "docs.vllm.ai, serving_chat.py",
        stream(ROLE, TEXT, {"error": {"message": "it broke", "type": "InternalServerError", "code": 500}}),
        errors.ServerError,
    ),
    Streamed(
        "an error that is the whole event",
        "vLLM until 0.10",
        "serving_chat.py, 2025",
        stream(ROLE, TEXT, {"object": "error", "message": "it broke", "type": "BadRequestError", "code": 400}),
        errors.BadRequestError,
    ),
    Streamed(
        "an error beside a finish reason",
        "OpenRouter",
        "openrouter.ai/docs/api-reference/errors",
        stream(ROLE, TEXT, {**delta({"content": ""}, "error"), "error": {"code": 502, "message": "upstream died"}}),
        errors.ServerError,
    ),
    Streamed(
        "an error in the choice",
        "OpenRouter",
        "openrouter.ai/docs/api-reference/errors",
        stream(ROLE, delta({}, "error", error={"code": 429, "message": "Rate limit exceeded"})),
        errors.RateLimitError,
    ),
    Streamed(
        "an error after the answer",
        "any",
        "seen behind gateways",
        stream(ROLE, TEXT, STOP, {"error": {"message": "billing failed"}}),
        errors.ServerError,
    ),
    Streamed(
        "an event called error",
        "Anthropic, through gateways",
        "docs.claude.com/en/docs/build-with-claude/streaming",
        stream(
            ROLE, b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
        ),
        errors.ServerError,
    ),
    Streamed(
        "an event called error, with text", "any", HTML, stream(ROLE, b"event: error\ndata: it broke\n\n"), errors.ServerError
    ),
    Streamed(
        "a field called error",
        "llama.cpp until 2025",
        "tools/server/utils.hpp",
        stream(ROLE, TEXT, b'error: {"code": 500, "message": "it broke", "type": "server_error"}\n\n'),
        errors.ServerError,
    ),
    Streamed(
        "an error as text",
        "TGI",
        "huggingface.co/docs/text-generation-inference, streaming",
        stream(ROLE, {"error": "CUDA error", "error_type": "generation"}),
        errors.ServerError,
    ),
    Streamed(
        "an error with a status",
        "OpenRouter",
        "openrouter.ai/docs/api-reference/errors",
        stream({"error": {"code": 429, "message": "Rate limit exceeded"}}),
        errors.RateLimitError,
    ),
    Streamed(
        "a refusal as the first event",
        "MiniMax",
        "platform.minimaxi.com, error codes",
        stream({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
        errors.QuotaError,
    ),
    Streamed(
        "moderation in mid-stream",
        "DeepSeek, Qwen",
        "SERVERS: words in the wild",
        stream(ROLE, TEXT, {"error": {"code": "data_inspection_failed", "message": "Content Exists Risk"}}),
        errors.ContentFilterError,
    ),
    Streamed(
        "a request that was aborted",
        "SGLang, vLLM",
        "docs.vllm.ai",
        stream(ROLE, TEXT, delta({}, "abort"), SPENT),
        errors.ServerError,
    ),
]

STREAMS = [*FRAMES, *CHUNKS, *THINKING, *TOOLS, *USAGES, *FAILURES]
