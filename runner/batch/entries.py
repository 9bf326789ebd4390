"""Write answers and errors into a sample: over several requests, tokens and costs add up, and the last answer counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.answers import Ending, ending_of
from runner.errors import ContentFilterError, LMError
from runner.secrets import redact
from runner.types import RowError

if TYPE_CHECKING:
    from runner.errors import OstinatoError
    from runner.types import Choice, Completion, Sample, Status, Usage


def record(sample: Sample, completion: Completion, before: Usage | None) -> Usage | None:
    """Write one answer into the sample. Over several turns, tokens and costs add up, and the last answer counts."""
    response, usage = completion.response, completion.response.usage
    if sample.request_key is None:
        sample.cache, sample.started_at = completion.cache, completion.started_at
        sample.cost_usd, sample.saved_usd = completion.cost_usd, completion.saved_usd
        sample.latency_s = completion.latency_s
    else:
        usage = _usage(before, usage, paid=(sample.cache != "hit", completion.cache != "hit"))
        sample.cache = completion.cache if sample.cache == completion.cache else "miss"
        sample.started_at = sample.started_at or completion.started_at
        sample.cost_usd = _sum(sample.cost_usd, completion.cost_usd)
        sample.saved_usd = _sum(sample.saved_usd, completion.saved_usd)
        sample.latency_s = _sum(sample.latency_s, completion.latency_s)
    sample.usage = usage
    sample.cost_from = completion.cost_from or sample.cost_from
    sample.attempts += completion.attempts
    sample.first_token_s = completion.first_token_s
    sample.model_served = response.model
    sample.system_fingerprint = response.system_fingerprint
    sample.request_key = completion.key
    return usage


def say(sample: Sample, choices: list[Choice], *, logprobs: bool) -> None:
    """Write what was said into the sample: the first answer's, and all of them if there are several."""
    choice = choices[0]
    sample.output = choice.text if choice.text is not None or not choice.tool_calls else _tool_calls(choice.tool_calls)
    sample.finish_reason = choice.finish_reason
    sample.status = status_of(choice.finish_reason, empty=not sample.output)
    sample.reasoning = choice.reasoning
    sample.tool_calls = choice.tool_calls
    sample.logprobs = choice.logprobs if logprobs else None
    sample.answers = None
    if len(choices) > 1:
        sample.answers = choices if logprobs else [msgspec.structs.replace(one, logprobs=None) for one in choices]


def fail(sample: Sample, error: OstinatoError, code: str = "error") -> None:
    """Write the error of a row into its sample; `code` is for errors that are no LMError."""
    sample.status = "refused" if isinstance(error, ContentFilterError) else "error"
    if sample.cache == "hit":  # the turns before this one cost nothing
        sample.cache, sample.usage = "miss", None
    if isinstance(error, LMError):
        sample.error = RowError(error.code, error.message, error.status, error.request_id)
    else:
        sample.error = RowError(code, redact(str(error)))


def _usage(before: Usage | None, new: Usage | None, *, paid: tuple[bool, bool]) -> Usage | None:
    """Add the tokens of two turns. If one of them came from the cache, return those of the other, which was paid for."""
    if paid == (False, True) or before is None:
        return new
    return before if paid == (True, False) or new is None else before + new


_STATUSES: dict[Ending, Status] = {"cut": "truncated", "refused": "refused"}


def status_of(finish_reason: str | None, *, empty: bool) -> Status:
    """Return the status of an answer with this finish reason; `empty`: it has neither text nor a tool call."""
    return _STATUSES.get(ending_of(finish_reason), "empty" if empty else "ok")


def _sum(before: float | None, new: float | None) -> float | None:
    return None if before is None or new is None else before + new


def _tool_calls(calls: list[dict[str, Any]]) -> str:
    return msgspec.json.encode(calls).decode()
