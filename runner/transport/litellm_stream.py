"""Read what litellm returns for a streamed answer.

litellm (1.106) makes a stream that broke off look whole: it adds ``stop`` where no finish reason came, counts tokens
itself where no usage came, and passes over events that it cannot parse. So the bytes of the server are read here, by
`StreamedAnswer`, wherever they are of OpenAI's format and can be reached. Of other formats litellm's chunks are read, without
what it has added.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from runner.transport.base import malformed, refused_with_200, too_late

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from runner.transport.streamed import StreamedAnswer
    from runner.types import Connection, Request

_REASONS = ("stop_reason", "finishReason", "stopReason", "finish_reason", "done_reason")
"""Fields of an event that hold the finish reason: Anthropic's, Gemini's, Bedrock's, Cohere's, Ollama's."""
_OPENAI_LIKE = "OpenAIChatCompletionStreamingHandler"
"""litellm's class for streams of OpenAI's format that its own client reads: hosted_vllm, deepseek and more."""
_ENDS = ("response.completed", "response.incomplete", "response.failed")
"""Events of the responses API that hold the whole answer, the last of a stream."""


def response_of(stream: Any) -> Any:
    """Return the HTTP response (`httpx.Response`) that a stream is read from, if it is of OpenAI's format; None if not."""
    source: Any = getattr(stream, "completion_stream", None)
    if type(source).__module__.partition(".")[0] == "openai":
        return source.response
    return source.http_response if _is_openai_like(source) else None  # None, too, where the call is not async


def lines_of(stream: Any) -> Iterator[bytes] | None:
    """Return the lines of a stream, if they are of OpenAI's format and can be reached; None if not."""
    source: Any = getattr(stream, "completion_stream", None)
    if not _is_openai_like(source) or hasattr(source.streaming_response, "__aiter__"):
        return None
    return (b"%b\n" % line.encode() for line in source.streaming_response)


def _is_openai_like(source: Any) -> bool:
    return any(cls.__name__ == _OPENAI_LIKE for cls in type(source).__mro__)


class Chunks:
    """The chunks of litellm's `CustomStreamWrapper`, read into a `StreamedAnswer`.

    Args:
        stream: the wrapper.
        answered: where the chunks go.
    """

    def __init__(self, stream: Any, answered: StreamedAnswer) -> None:
        self._answered = answered
        self._indices = {0}
        self._native: str | None = None
        self._stream = stream
        source = stream.completion_stream
        lines = getattr(source, "streaming_response", None)
        self._watched = lines is not None
        if lines is not None:
            watched = self._watch_async(lines) if hasattr(lines, "__aiter__") else self._watch(lines)
            source.streaming_response = source.response_iterator = watched

    def take(self, chunk: Any) -> None:
        """Take one chunk."""
        plain = chunk.model_dump(exclude_none=True)
        plain.pop("usage", None)
        plain["model"] = getattr(self._stream, "_provider_response_model", None) or plain.get("model")
        for choice in plain.get("choices") or ():
            choice.pop("finish_reason", None)
            self._indices.add(choice.get("index") or 0)
        self._add(plain)

    def finish(self) -> tuple[str | None, str | None]:
        """Take the usage. Return litellm's finish reason and the provider's own; (None, None): the stream has broken off.

        litellm's own reason is believed only where the provider's cannot be seen.
        """
        kept = [getattr(chunk, "usage", None) for chunk in self._stream.chunks]
        for usage in filter(None, kept):
            self._add({"usage": usage.model_dump(exclude_none=True)})
        given = self._stream.received_finish_reason
        if self._watched:
            return (
                (given or self._stream.intermittent_finish_reason or self._native, self._native) if self._native else (None, None)
            )
        return given, None

    def end(self, finish_reason: str) -> None:
        """Take the finish reason of all choices."""
        ends = [{"index": index, "delta": {}, "finish_reason": finish_reason} for index in sorted(self._indices)]
        self._add({"choices": ends})

    def _add(self, chunk: dict[str, Any]) -> None:
        self._answered.add([b"data: %b\n\n" % json.dumps(chunk, default=str).encode()])

    def _watch(self, lines: Iterator[Any]) -> Iterator[Any]:
        for line in lines:
            self._look(line)
            yield line

    async def _watch_async(self, lines: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for line in lines:
            self._look(line)
            yield line

    def _look(self, line: Any) -> None:
        """Look for the provider's finish reason, which litellm may turn into another."""
        text = line.decode(errors="replace") if isinstance(line, bytes) else str(line)
        if any(name in text for name in _REASONS):
            try:
                event = json.loads(text.removeprefix("data:"))
            except ValueError:
                return
            self._native = _reason_in(event) or self._native


def _reason_in(event: Any) -> str | None:
    """Return the finish reason of an event: its own, or that of a part of it that may have one."""
    if not isinstance(event, dict):
        return None
    parts = [event, event.get("delta"), *(event.get("candidates") or ()), *(event.get("choices") or ())]
    told = (part.get(name) for part in parts if isinstance(part, dict) for name in _REASONS)
    return next((reason for reason in told if isinstance(reason, str) and reason), None)


class Events:
    """The events of a stream of the responses API. The last one holds the answer.

    Attributes:
        answer: the answer; None: it has not come.
        first_token_s: seconds until the first token.
    """

    def __init__(self, began: float) -> None:
        self.answer: Any = None
        self.first_token_s: float | None = None
        self._began = began
        self._error: Any = None

    def take(self, event: Any) -> None:
        """Take one event."""
        kind = str(getattr(getattr(event, "type", ""), "value", getattr(event, "type", "")))
        if kind.endswith(".delta") and self.first_token_s is None:
            self.first_token_s = time.perf_counter() - self._began
        if kind in _ENDS:
            self.answer = event.response
        elif kind == "error":
            self._error = event.model_dump(exclude_none=True)

    def check(self, request: Request, connection: Connection) -> None:
        """Raise LMError if the answer has not come."""
        if self.answer is not None:
            return
        if self._error is not None:
            told = self._error.get("error") or self._error
            raise refused_with_200({"error": told}, type(malformed(request, "")), request, connection)
        raise malformed(request, "the stream ended before the answer")


def check_time(began: float, request: Request, connection: Connection) -> None:
    """Raise LMTimeoutError if the attempt has taken all its time."""
    if connection.timeout_s is not None and time.perf_counter() - began > connection.timeout_s:
        raise too_late(request, connection)
