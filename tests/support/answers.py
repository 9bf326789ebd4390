"""Answers as servers send them, in OpenAI's wire format, and what is read from each.

Both transports must read the same; the proxy of litellm, in front of the same server, is asked by `tests/peers/proxy.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from runner import errors
from runner.types import Choice

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"x": 2}'}}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
TOKEN = {"token": "4", "bytes": [52], "logprob": -0.25, "top_logprobs": []}


@dataclass(frozen=True)
class Case:
    """One answer.

    Attributes:
        name: what is particular about it, and who sends it.
        body: what the server sends with status 200; bytes are sent as they are.
        expected: the first answer as it is read, or the class of the error.
        kind: ``chat`` or ``text``.
        fields: other fields of the Response that are checked.
    """

    name: str
    body: Any
    expected: Choice | type[errors.LMError]
    kind: str = "chat"
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def sent(self) -> bytes:
        """The bytes of the body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def body(message: Any = None, finish_reason: Any = "stop", *, choice: Any = None, **top: Any) -> dict[str, Any]:
    """Make the body of a chat answer; `choice` and `top` add to the choice and to the body, or replace."""
    said = {"role": "assistant", "content": "4"} | (message or {})
    made = {"index": 0, "message": said, "finish_reason": finish_reason, **(choice or {})}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "any", "usage": USAGE}
    return {**head, "choices": [made], **top}


def completion(text: Any = "4", finish_reason: Any = "stop", **top: Any) -> dict[str, Any]:
    """Make the body of a text completion."""
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1_700_000_000, "model": "any", "usage": USAGE}
    return {**head, "choices": [{"index": 0, "text": text, "finish_reason": finish_reason, "logprobs": None}], **top}


def ended(reason: str) -> Choice:
    """Return the plain answer with another finish reason."""
    return Choice("4", reason)


FOUR = Choice("4", "stop")
THOUGHT = Choice("4", "stop", reasoning="2 + 2")

FORMS = [
    Case("a plain answer", body(), FOUR, fields={"id": "chatcmpl-1", "created": 1_700_000_000, "model": "any"}),
    Case("a number as id", body(id=7), FOUR, fields={"id": "7"}),
    Case("no id", body(id=None), FOUR),
    Case("created as a float (SambaNova)", body(created=1_700_000_000.5), FOUR, fields={"created": 1_700_000_000}),
    Case("created as the text of a number", body(created="1700000000"), FOUR, fields={"created": 1_700_000_000}),
    Case("created as ISO text", body(created="2023-11-14T22:13:20+00:00"), FOUR, fields={"created": 1_700_000_000}),
    Case("created as nonsense", body(created="yesterday"), FOUR, fields={"created": None}),
    Case("a fingerprint", body(system_fingerprint="fp_1"), FOUR, fields={"system_fingerprint": "fp_1"}),
    Case("unknown fields everywhere", body({"x_new": {"a": 1}}, choice={"x_new": 1}, x_new=[1], service_tier="default"), FOUR),
    Case("text in many scripts", body({"content": "Ærlig? 日本語 😀"}), Choice("Ærlig? 日本語 😀", "stop")),
    Case("half a surrogate pair", body({"content": "cut \ud83d"}, "length"), Choice("cut ?", "length")),
    Case("white space around", body({"content": "\n 4 \n"}), Choice("\n 4 \n", "stop")),
    Case("text that looks like null", body({"content": "null"}), Choice("null", "stop")),
    Case("content as a number", body({"content": 4}), FOUR),
    Case("content as an object", body({"content": {"answer": 4}}), Choice('{"answer": 4}', "stop")),
    Case("empty content", body({"content": ""}), Choice("", "stop")),
    Case("null content", body({"content": None}), Choice(None, "stop")),
    Case("an empty error beside the answer (Apertis)", body(error={"message": "", "code": None}), FOUR),
    Case("an empty error in the choice", body(choice={"error": {}}), FOUR),
    Case("two answers", body(choices=[{"index": i, "message": {"role": "assistant", "content": t}, "finish_reason": "stop"}
                                       for i, t in enumerate("45")]), FOUR),
    Case("log probabilities", body(choice={"logprobs": {"content": [TOKEN]}}), Choice("4", "stop", {"content": [TOKEN]})),
    Case("log probabilities with nulls", body(choice={"logprobs": {"content": [TOKEN | {"bytes": None}], "refusal": None}}),
         Choice("4", "stop", {"content": [TOKEN | {"bytes": None}], "refusal": None})),
    Case("a log probability of minus infinity", body(choice={"logprobs": {"content": [TOKEN | {"logprob": float("-inf")}]}}),
         Choice("4", "stop", {"content": [TOKEN | {"logprob": -9999.0}]})),
    Case("a text completion", completion(), FOUR, "text"),
    Case("a text completion with a number as id", completion(id=7), FOUR, "text", {"id": "7"}),
    Case("a text completion with a float as created", completion(created=1.5e9 + 0.5), FOUR, "text", {"created": 1_500_000_000}),
    Case("an empty text completion", completion(""), Choice("", "stop"), "text"),
    Case("no choices", body(choices=[]), errors.MalformedError),
    Case("no choices field", {"id": "x", "object": "chat.completion"}, errors.MalformedError),
]  # fmt: skip

CALLS = [
    Case("a tool call", body({"content": None, "tool_calls": [CALL]}, "tool_calls"),
         Choice(None, "tool_calls", tool_calls=[CALL])),
    Case("a tool call beside text", body({"content": "Adding.", "tool_calls": [CALL]}, "tool_calls"),
         Choice("Adding.", "tool_calls", tool_calls=[CALL])),
    Case("two tool calls", body({"content": None, "tool_calls": [CALL, CALL | {"id": "call_2"}]}, "tool_calls"),
         Choice(None, "tool_calls", tool_calls=[CALL, CALL | {"id": "call_2"}])),
    Case("arguments as an object (Ollama)",
         body({"content": None, "tool_calls": [CALL | {"function": {"name": "add", "arguments": {"x": 2}}}]}, "tool_calls"),
         Choice(None, "tool_calls", tool_calls=[CALL])),
    Case("a number as the id of a call", body({"content": None, "tool_calls": [CALL | {"id": 1}]}, "tool_calls"),
         Choice(None, "tool_calls", tool_calls=[CALL | {"id": "1"}])),
    Case("arguments that are not JSON",
         body({"content": None, "tool_calls": [CALL | {"function": {"name": "add", "arguments": "{x"}}]}, "tool_calls"),
         Choice(None, "tool_calls", tool_calls=[CALL | {"function": {"name": "add", "arguments": "{x"}}])),
    Case("no arguments",
         body({"content": None, "tool_calls": [CALL | {"function": {"name": "now", "arguments": ""}}]}, "tool_calls"),
         Choice(None, "tool_calls", tool_calls=[CALL | {"function": {"name": "now", "arguments": ""}}])),
    Case("an empty list of calls", body({"tool_calls": []}), FOUR),
    Case("a function call of the old form", body({"content": None, "function_call": CALL["function"]}, "function_call"),
         Choice(None, "function_call", tool_calls=[CALL | {"id": None}])),
]  # fmt: skip

THINKING = [
    Case("thinking in reasoning_content (DeepSeek)", body({"reasoning_content": "2 + 2"}), THOUGHT),
    Case("thinking in reasoning (vLLM 0.16, OpenRouter)", body({"reasoning": "2 + 2"}), THOUGHT),
    Case("thinking in both", body({"reasoning_content": "2 + 2", "reasoning": "2 + 2"}), THOUGHT),
    Case("thinking in reasoning_details (OpenRouter)",
         body({"reasoning": None, "reasoning_details": [{"type": "reasoning.text", "text": "2 + 2", "index": 0}]}), THOUGHT),
    Case("thinking that litellm's proxy has hidden",
         body({"provider_specific_fields": {"reasoning_details": [{"type": "reasoning.text", "text": "2 + 2"}]}}), THOUGHT),
    Case("encrypted thinking", body({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}), FOUR),
    Case("thinking as an object", body({"reasoning": {"content": "2 + 2"}}), THOUGHT),
    Case("no content beside thinking", body({"content": None, "reasoning_content": "2 +"}, "length"),
         Choice(None, "length", reasoning="2 +")),
    Case("empty thinking", body({"reasoning_content": ""}), FOUR),
    Case("parts (Mistral)",
         body({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]},
                           {"type": "text", "text": "4"}]}), THOUGHT),
    Case("parts with a summary (Databricks)",
         body({"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "2 + 2"}]},
                           {"type": "text", "text": "4"}]}), THOUGHT),
    Case("two parts of text",
         body({"content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}), Choice("42", "stop")),
    Case("parts of other kinds (Mistral's references)",
         body({"content": [{"type": "text", "text": "4"}, {"type": "reference", "reference_ids": [1]}]}), FOUR),
    Case("texts as parts", body({"content": ["4", "2"]}), Choice("42", "stop")),
    Case("a part that is all thinking",
         body({"content": [{"type": "thinking", "thinking": "2 + 2"}]}, "length"), Choice(None, "length", reasoning="2 + 2")),
    Case("an empty list of parts", body({"content": []}), Choice(None, "stop")),
    Case("thinking in the text", body({"content": "<think>\n2 + 2\n</think>\n\n4"}),
         Choice("<think>\n2 + 2\n</think>\n\n4", "stop")),
    Case("thinking in the text, without the opening mark", body({"content": "2 + 2\n</think>\n\n4"}),
         Choice("2 + 2\n</think>\n\n4", "stop")),
    Case("thinking in the text that was cut off", body({"content": "<think>\n2 + "}, "length"),
         Choice("<think>\n2 + ", "length")),
    Case("thinking in the text and in its field", body({"content": "<thinking>so</thinking>4", "reasoning_content": "2 + 2"}),
         Choice("<thinking>so</thinking>4", "stop", reasoning="2 + 2")),
    Case("thinking in a text completion", completion("<think>2 + 2</think>4"), Choice("<think>2 + 2</think>4", "stop"), "text"),
]  # fmt: skip

REFUSALS = [
    Case("a refusal (OpenAI)", body({"content": None, "refusal": "I cannot."}), Choice("I cannot.", "refusal")),
    Case("a refusal beside empty content", body({"content": "", "refusal": "I cannot."}), Choice("I cannot.", "refusal")),
    Case("a refusal as a part", body({"content": [{"type": "refusal", "refusal": "I cannot."}]}), Choice("I cannot.", "refusal")),
    Case("a refusal in provider_specific_fields (litellm's proxy)",
         body({"content": None, "provider_specific_fields": {"refusal": "I cannot."}}), Choice("I cannot.", "refusal")),
    Case("a null refusal", body({"refusal": None}), FOUR),
    Case("an empty refusal", body({"refusal": ""}), FOUR),
]  # fmt: skip

ENDINGS = [
    *(Case(f"finish reason {reason}", body(finish_reason=reason), ended(reason)) for reason in (
        "length", "content_filter", "model_length", "max_tokens", "MAX_TOKENS", "model_context_window_exceeded", "end_turn",
        "stop_sequence", "eos", "eos_token", "STOP", "COMPLETE", "max_output", "safety", "SAFETY", "sensitive", "recitation",
        "refusal", "PROHIBITED_CONTENT", "BLOCKLIST", "guardrail_intervened", "ERROR_TOXIC", "pause_turn", "a_new_reason",
    )),
    *(Case(f"finish reason {reason}", body(finish_reason=reason), errors.ServerError) for reason in (
        "error", "ERROR", "abort", "cancelled", "network_error", "insufficient_system_resource", "TIMEOUT",
    )),
    *(Case(f"finish reason {reason}", body(finish_reason=reason), errors.MalformedError) for reason in (
        "MALFORMED_FUNCTION_CALL", "malformed_model_output",
    )),
    Case("a failed text completion", completion(finish_reason="abort"), errors.ServerError, "text"),
    Case("a cut text completion", completion(finish_reason="length"), ended("length"), "text"),
    Case("a finish reason that litellm's proxy has hidden",
         body(choice={"provider_specific_fields": {"native_finish_reason": "model_length"}}), ended("model_length")),
    Case("a failure that litellm's proxy has hidden",
         body(choice={"provider_specific_fields": {"native_finish_reason": "abort"}}), errors.ServerError),
    Case("an error that litellm's proxy has hidden",
         body({"content": ""}, choice={"provider_specific_fields": {"error": {"code": 429, "message": "Rate limit exceeded"}}}),
         errors.RateLimitError),
    Case("an error in the choice (OpenRouter)",
         body({"content": "4"}, "error", choice={"error": {"code": 502, "message": "upstream died"}}), errors.ServerError),
    Case("an error in a choice that says stop",
         body({"content": ""}, "stop", choice={"error": {"code": 429, "message": "Rate limit exceeded"}}), errors.RateLimitError),
    Case("an error as text in the choice", body(choice={"error": "upstream died"}), errors.ServerError),
    Case("an error beside an answer", body({"content": ""}, error={"message": "upstream died"}), errors.ServerError),
    Case("an error beside an empty list of answers", body(choices=[], error={"code": 429, "message": "Rate limit exceeded"}),
         errors.RateLimitError),
    Case("an error with a code (OpenRouter)", {"error": {"code": 502, "message": "Provider returned error"}}, errors.ServerError),
    Case("an error without a code", {"error": {"message": "overloaded"}}, errors.MalformedError),
]  # fmt: skip

CASES = [*FORMS, *CALLS, *THINKING, *REFUSALS, *ENDINGS]
