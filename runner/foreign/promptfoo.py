"""Read results of promptfoo (``promptfoo eval -o results.json``). Written for version 0.12x, results of version 3."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import DataError
from runner.foreign.run import ForeignRun, ended, number, text_of
from runner.types import Row, Sample, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROVIDER_FAILED = 2
"""``failureReason``: 0 none, 1 an assertion failed, 2 the provider did (promptfoo's ``ResultFailureReason``)."""

_KINDS = ("chat", "completion", "responses")
"""Words in the name of one of promptfoo's providers that say which API it calls: ``openai:chat:gpt-5.4-mini``."""


class _Used(msgspec.Struct, frozen=True, rename="camel"):
    prompt: int = 0
    completion: int = 0
    total: int = 0
    cached: int = 0
    completion_details: dict[str, Any] | None = None


class _Response(msgspec.Struct, frozen=True, rename="camel"):
    output: Any = None
    token_usage: _Used | None = None
    cached: bool = False
    cost: float | None = None
    finish_reason: str | None = None
    error: str | None = None


class _Provider(msgspec.Struct, frozen=True):
    id: str = "unknown"
    label: str | None = None


class _Prompt(msgspec.Struct, frozen=True):
    raw: str = ""
    label: str | None = None


class _Result(msgspec.Struct, frozen=True, rename="camel"):
    test_idx: int = 0
    prompt_idx: int = 0
    provider: _Provider = _Provider()
    prompt: _Prompt = _Prompt()
    vars: dict[str, Any] = {}
    test_case: dict[str, Any] = {}
    response: _Response | None = None
    success: bool = False
    score: float = 0.0
    named_scores: dict[str, Any] = {}
    latency_ms: float | None = None
    cost: float | None = None
    error: str | None = None
    failure_reason: int = 0


class _Column(msgspec.Struct, frozen=True):
    raw: str = ""
    label: str | None = None
    provider: str = ""


class _Results(msgspec.Struct, frozen=True):
    version: int = 0
    timestamp: str | None = None
    prompts: list[_Column] = []
    results: list[_Result] = []


class _File(msgspec.Struct, frozen=True, rename="camel"):
    results: _Results
    eval_id: str | None = None
    config: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    runtime_options: dict[str, Any] = {}


def is_results(head: bytes) -> bool:
    """Return whether a JSON file that begins so is the results of promptfoo."""
    return b'"evalId"' in head and b'"results"' in head


def read(path: Path) -> list[ForeignRun]:
    """Open the results of an evaluation: one run for each provider × prompt. The file is read whole.

    Raises:
        DataError: it is not the results of promptfoo.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File, strict=False)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: is not a file of `promptfoo eval -o results.json`: {error}") from None
    columns: dict[int, list[_Result]] = {}
    for result in file.results.results:
        columns.setdefault(result.prompt_idx, []).append(result)
    if not columns:
        raise DataError(f"{path}: has no results")
    return [_run(path, file, columns[index]) for index in sorted(columns)]


def _run(path: Path, file: _File, results: list[_Result]) -> ForeignRun:
    first = results[0]
    repeats = _repeats(file, results)
    names = ["pass", "score", *dict.fromkeys(name for one in results for name in one.named_scores)]
    prompts = {one.prompt.label for one in file.results.results}
    return ForeignRun(
        tool="promptfoo",
        version=file.metadata.get("promptfooVersion"),
        format="results",
        task=str(file.config.get("description") or path.stem),
        model=model_of(first.provider.id),
        stream=lambda: _streamed(results, repeats),
        repeats=repeats,
        scores=names,
        started_at=file.results.timestamp,
        facts={
            "eval_id": file.eval_id,
            "provider": first.provider.label,
            "prompt": first.prompt.label if len(prompts) > 1 else None,
        },
        unread=["reasons and parts of assertions: `pass` is whether all passed, `score` is their weighted mean"],
    )


def model_of(provider: str) -> str:
    """Return ``vendor/name`` of a provider such as ``openai:chat:gpt-5.4-mini``."""
    vendor, _, rest = provider.partition(":")
    kind, _, name = rest.partition(":")
    return f"{vendor}/{name if kind in _KINDS and name else rest}" if rest else provider


def _repeats(file: _File, results: list[_Result]) -> int:
    """Return how often each test was asked (``--repeat``): it stands in the file as so many tests with the same variables."""
    options = {**(file.config.get("evaluateOptions") or {}), **file.runtime_options}
    if (options.get("repeat") or 1) == 1:
        return 1
    return max(Counter(map(_key, results)).values())


def _key(result: _Result) -> bytes:
    return msgspec.json.encode([result.vars, result.test_case.get("description")], order="sorted")


def _streamed(results: list[_Result], repeats: int) -> Iterator[tuple[Row, Sample]]:
    """Yield the results in the order of the tests. With repeats, tests of the same variables are one row."""
    seen: dict[bytes, tuple[int, int]] = {}
    for result in sorted(results, key=lambda one: one.test_idx):
        row, repeat = result.test_idx, 0
        if repeats > 1:
            row, before = seen.get(_key(result), (result.test_idx, -1))
            repeat = before + 1
            seen[_key(result)] = row, repeat
        yield _both(result, str(row), repeat)


def _both(result: _Result, id_: str, repeat: int) -> tuple[Row, Sample]:
    response = result.response or _Response()
    failed = result.failure_reason == _PROVIDER_FAILED or result.response is None
    messages = _messages(result.prompt.raw)
    row = Row(id_, {"input": result.prompt.raw, "vars": result.vars}, _target(result.test_case))
    sample = Sample(
        id=id_,
        repeat=repeat,
        messages=messages,
        output=None if failed else text_of(response.output) or None,
        target=row.target,
        scores={} if failed else _scores(result),
        usage=_usage(response.token_usage),
        cost_usd=_either(response.cost, result.cost),
        latency_s=None if result.latency_ms is None or response.cached else result.latency_ms / 1000,
        attempts=0 if response.cached else 1,
        cache="hit" if response.cached else "off",
        model_requested=model_of(result.provider.id),
        finish_reason=response.finish_reason,
    )
    if sample.cache == "hit":
        sample.cost_usd, sample.saved_usd = 0.0, sample.cost_usd
    return row, ended(sample, response.error or result.error or "the provider failed" if failed else None)


def _either(one: float | None, other: float | None) -> float | None:
    """Return what a result cost; promptfoo writes 0 where it knows no price."""
    return one or other or None


def _messages(raw: str) -> list[dict[str, Any]]:
    """Return the conversation that a prompt is: promptfoo takes JSON for messages, and any other text for what the user says."""
    if raw.lstrip().startswith("["):
        try:
            found = msgspec.json.decode(raw)
        except msgspec.MsgspecError:
            found = None
        if isinstance(found, list) and all(isinstance(one, dict) and "role" in one for one in found):
            return found
    return [{"role": "user", "content": raw}]


def _scores(result: _Result) -> dict[str, float]:
    named = {name: found for name, value in result.named_scores.items() if (found := number(value)) is not None}
    return {"pass": float(result.success), "score": number(result.score) or 0.0, **named}


def _target(case: dict[str, Any]) -> Any:
    """Return the value of the first assertion that names what is expected."""
    for assertion in case.get("assert") or ():
        if isinstance(assertion, dict) and str(assertion.get("type")) in ("equals", "icontains", "contains"):
            return assertion.get("value")
    return None


def _usage(used: _Used | None) -> Usage | None:
    if used is None or not (used.prompt or used.completion):
        return None  # of an answer from its cache, promptfoo only knows how many tokens there were
    reasoning = (used.completion_details or {}).get("reasoning") or 0
    return Usage(used.prompt, used.completion, used.prompt + used.completion, reasoning_tokens=int(reasoning))
