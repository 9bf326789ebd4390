"""A run of another tool, as each reader of a format gives it: its facts, and its samples in a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec

from runner.answers import ending_of
from runner.types import Row, RowError, Sample, Status

Stream: TypeAlias = Callable[[], Iterator[tuple[Row, Sample]]]

ERROR = "foreign"
"""The code of rows that failed in the other tool: its own classes of errors are not ours."""

_STATUSES: dict[str, Status] = {"cut": "truncated", "refused": "refused", "malformed": "invalid"}


class ForeignRun(msgspec.Struct, kw_only=True):
    """Describe one run of another tool.

    Attributes:
        tool, version: who made it; None: the file does not say which version.
        format: of the file, in words.
        task: what was asked, such as the name of a benchmark.
        model: as that tool names it.
        stream: yields the row and the sample of each answer. All repeats of a row have its id.
        repeats: answers per row.
        params: parameters of the request, by OpenAI's names, as far as the file says.
        scores: names of its scores, the primary one first.
        started_at, ended_at: in ISO 8601.
        wall_s: seconds that it took.
        facts: more to keep in the manifest, such as the task's version.
        unread: what of the file has no place in a record, in sentences.
    """

    tool: str
    version: str | None
    format: str
    task: str
    model: str
    stream: Stream
    repeats: int = 1
    params: dict[str, Any] = {}
    scores: list[str] = []
    started_at: str | None = None
    ended_at: str | None = None
    wall_s: float = 0.0
    facts: dict[str, Any] = {}
    unread: list[str] = []


def ended(sample: Sample, problem: str | None = None) -> Sample:
    """Return the sample with its status, by its finish reason and its text, or by the `problem` that ended it."""
    if problem is not None:
        sample.status, sample.error = "error", RowError(ERROR, problem)
        return sample
    empty = not (sample.output or "").strip() and not sample.tool_calls
    sample.status = _STATUSES.get(ending_of(sample.finish_reason), "empty" if empty else "ok")
    return sample


def number(value: Any) -> float | None:
    """Return a score as a finite number; None for anything else."""
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None


def text_of(content: Any) -> str:
    """Return the text of a message's content, whatever its form."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content if part)
    return "" if content is None else msgspec.json.encode(content).decode()
