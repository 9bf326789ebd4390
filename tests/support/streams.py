"""Write any answer in events, as servers of several APIs stream it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE = b"data: [DONE]\n\n"
SIZE = 2
"""Characters of one piece of a text."""


def event(data: Any) -> bytes:
    """Return one event with this data, as JSON."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunked(steps: tuple[bytes | float, ...], ends: bool = True, **headers: str) -> tuple[bytes | float, ...]:
    """Return an HTTP response in chunks; pauses are kept, and `ends` says whether it has its last chunk."""
    named = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
    named |= {name if "-" in name else name.replace("_", "-"): value for name, value in headers.items()}
    head = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in named.items()) + "\r\n"
    body = [step if isinstance(step, float) else b"%x\r\n%b\r\n" % (len(step), step) for step in steps if step]
    return (head.encode(), *body, *([b"0\r\n\r\n"] if ends else []))


def events_of(body: dict[str, Any]) -> list[bytes]:
    """Return a chat or a text answer in events, as OpenAI streams it: texts in pieces, the usage in the last event."""
    plain = {name: value for name, value in body.items() if name not in ("choices", "usage", "error")}
    head = plain | ({"object": "chat.completion.chunk"} if body.get("object") == "chat.completion" else {})
    made = []
    choices = body.get("choices")
    rows = [list(_pieces(choice)) for choice in choices or ()]
    for number in range(max(map(len, rows), default=0)):  # choices take turns
        made += [event({**head, "choices": [row[number]]}) for row in rows if number < len(row)]
    last = {name: body[name] for name in ("usage", "error") if name in body}
    return [*made, event({**head, **({} if choices is None else {"choices": []}), **last})] if last or choices is None else made


def _pieces(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pieces of one choice."""
    index = {"index": choice.get("index", 0)}
    ends = {name: value for name, value in choice.items() if name not in ("message", "text")}
    if "text" in choice:
        yield from ({**index, "text": part, "finish_reason": None, "logprobs": None} for part in _cut(choice["text"]))
        yield {**ends, "text": ""}
        return
    for name, value in choice["message"].items():
        pieces = _of_calls(value) if name == "tool_calls" and value else _cut(value)
        yield from ({**index, "delta": {name: piece}, "finish_reason": None} for piece in pieces)
    yield {**ends, "delta": {}}


def _cut(value: Any) -> list[Any]:
    """Return a text or a list in pieces, any other value whole."""
    if isinstance(value, str) and value:
        return [value[at : at + SIZE] for at in range(0, len(value), SIZE)]
    return [[item] for item in value] if isinstance(value, list) and value else [value]


def _of_calls(calls: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for number, call in enumerate(calls):
        function = call["function"]
        first, *others = _cut(function["arguments"])
        yield [{"index": number, **call, "function": {**function, "arguments": first}}]
        yield from ([{"index": number, "function": {"arguments": piece}}] for piece in others)


def of_responses(body: dict[str, Any]) -> list[bytes]:
    """Return an answer of the responses API in events."""
    text = next((part["text"] for item in body["output"] if item["type"] == "message" for part in item["content"]), "")
    kind = "response.incomplete" if body["status"] == "incomplete" else "response.completed"
    place = {"item_id": "msg_test", "output_index": 0, "content_index": 0}
    made: list[dict[str, Any]] = [{"type": "response.created", "response": {**body, "status": "in_progress", "output": []}}]
    made += [{"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []} for piece in _cut(text) if piece]
    made.append({"type": kind, "response": body})
    numbered = [{**one, "sequence_number": number} for number, one in enumerate(made)]
    return [b"event: %b\n%b" % (one["type"].encode(), event(one)) for one in numbered]


def of_anthropic(*blocks: tuple[str, str, list[str]], reason: str = "end_turn", ends: bool = True) -> list[bytes]:
    """Return an answer of Anthropic's API in events: each block is its type, its field and the pieces of that field."""
    usage = {"input_tokens": 7, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "c-1", "content": [], "usage": usage}
    made: list[dict[str, Any]] = [{"type": "message_start", "message": message}, {"type": "ping"}]
    for index, (kind, field, pieces) in enumerate(blocks):
        empty = {"id": "call_1", "name": "add", "input": {}} if kind == "tool_use" else {field: ""}
        made.append({"type": "content_block_start", "index": index, "content_block": {"type": kind, **empty}})
        of = "input_json_delta" if kind == "tool_use" else f"{field}_delta"
        made += [{"type": "content_block_delta", "index": index, "delta": {"type": of, field: piece}} for piece in pieces]
        made.append({"type": "content_block_stop", "index": index})
    made.append({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 3}})
    made.append({"type": "message_stop"})
    return [b"event: %b\n%b" % (one["type"].encode(), event(one)) for one in (made if ends else made[:-3])]


def of_gemini(*texts: str, reason: str = "STOP", ends: bool = True) -> list[bytes]:
    """Return an answer of Gemini's API in events."""
    made = []
    for number, text in enumerate(texts, 1):
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        if number == len(texts) and ends:
            candidate["finishReason"] = reason
        counts = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
        made.append(event({"candidates": [candidate], "usageMetadata": counts, "modelVersion": "g-1"}))
    return made
