"""Read logs of inspect_ai: ``.eval`` (a zip with a file per sample) and ``.json``. Written for version 0.3, log format 2."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import DataError
from runner.foreign.members import Members
from runner.foreign.run import ForeignRun, Stream, ended, number, text_of
from runner.types import Row, Sample, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_MEMBER = re.compile(r"^samples/(?P<id>.*)_epoch_(?P<epoch>\d+)\.json$")
_ATTACHED = "attachment://"
_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""Values of scores that are words, as inspect's own ``value_to_float`` reads them."""

_FINISH = {"max_tokens": "length", "model_length": "length", "unknown": None}
"""Finish reasons that other servers call otherwise."""

_PARAMS = ("temperature", "max_tokens", "top_p", "seed", "presence_penalty", "frequency_penalty")


class _Dataset(msgspec.Struct, frozen=True):
    name: str | None = None
    sample_ids: list[str | int] | None = None


class _Eval(msgspec.Struct, frozen=True):
    task: str
    model: str
    created: str | None = None
    task_version: int | str | None = None
    task_id: str | None = None
    run_id: str | None = None
    eval_id: str | None = None
    dataset: _Dataset = _Dataset()
    config: dict[str, Any] = {}
    model_generate_config: dict[str, Any] = {}
    model_args: dict[str, Any] = {}
    task_args: dict[str, Any] = {}
    packages: dict[str, str] = {}


class _Headline(msgspec.Struct, frozen=True):
    score: str | None = None


class _EvalScore(msgspec.Struct, frozen=True):
    name: str


class _Results(msgspec.Struct, frozen=True):
    scores: list[_EvalScore] = []
    headline: _Headline = _Headline()


class _Stats(msgspec.Struct, frozen=True):
    started_at: str | None = None
    completed_at: str | None = None


class _Plan(msgspec.Struct, frozen=True):
    config: dict[str, Any] = {}


class _Used(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_cache_read: int | None = None
    input_tokens_cache_write: int | None = None
    reasoning_tokens: int | None = None
    total_cost: float | None = None


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: Any = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message
    stop_reason: str | None = None
    logprobs: Any = None


class _Output(msgspec.Struct, frozen=True):
    model: str | None = None
    choices: list[_Choice] = []
    time: float | None = None
    error: str | None = None


class _Score(msgspec.Struct, frozen=True):
    value: Any = None


class _Error(msgspec.Struct, frozen=True):
    message: str = ""


class _Sample(msgspec.Struct, frozen=True):
    id: str | int
    epoch: int = 1
    input: Any = None
    choices: list[str] | None = None
    target: Any = None
    messages: list[_Message] = []
    output: _Output = _Output()
    scores: dict[str, _Score] | None = None
    metadata: dict[str, Any] = {}
    model_usage: dict[str, _Used] = {}
    error: _Error | None = None
    attachments: dict[str, str] = {}
    started_at: str | None = None
    working_time: float | None = None


class _Log(msgspec.Struct, frozen=True):
    eval: _Eval
    plan: _Plan = _Plan()
    results: _Results | None = None
    stats: _Stats = _Stats()
    status: str | None = None
    samples: list[_Sample] | None = None


_log = msgspec.json.Decoder(_Log, strict=False).decode
_sample = msgspec.json.Decoder(_Sample, strict=False).decode


def is_log(head: bytes) -> bool:
    """Return whether a JSON file that begins so is a log of inspect_ai."""
    return b'"eval"' in head and b'"task"' in head


def read_eval(path: Path) -> list[ForeignRun]:
    """Open an ``.eval`` log. Its samples are read one at a time. Raises DataError if it is none."""
    with Members(path) as members:
        header = next((name for name in ("header.json", "_journal/start.json") if name in members.names), None)
        if header is None:
            raise DataError(f"{path}: is not a log of inspect_ai: it has neither header.json nor _journal/start.json")
        log = _decoded(path, header, members.read(header))
    return [_run(log, lambda: _streamed(path, log))]


def read_json(path: Path) -> list[ForeignRun]:
    """Open a log that is one JSON file. It is read whole. Raises DataError if it is none."""
    log = _decoded(path, "the log", path.read_bytes())
    return [_run(log, lambda: (_both(log.eval, one) for one in log.samples or ()))]


def _decoded(path: Path, name: str, content: bytes) -> _Log:
    try:
        return _log(content)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: {name} is not that of a log of inspect_ai: {error}") from None


def _run(log: _Log, stream: Stream) -> ForeignRun:
    about = log.eval
    sent = {**log.plan.config, **about.model_generate_config}
    results = log.results or _Results()
    names = [results.headline.score, *(score.name for score in results.scores)]
    began, ended_at = log.stats.started_at or about.created, log.stats.completed_at or None
    facts = {
        "task_version": about.task_version,
        "task_args": about.task_args,
        "dataset": about.dataset.name,
        "status": log.status,
        "eval_id": about.eval_id or about.run_id,
    }
    return ForeignRun(
        tool="inspect_ai",
        version=about.packages.get("inspect_ai"),
        format="log",
        task=about.task,
        model=about.model,
        stream=stream,
        repeats=int(about.config.get("epochs") or 1),
        params={name: sent[name] for name in _PARAMS if sent.get(name) is not None},
        scores=list(dict.fromkeys(name for name in names if name)),
        started_at=began,
        ended_at=ended_at,
        wall_s=_seconds(began, ended_at),
        facts={name: value for name, value in facts.items() if value},
        unread=["events, the store and the transcript of each sample", "metrics and reducers: means and intervals are ours"],
    )


def _seconds(began: str | None, ended_at: str | None) -> float:
    try:
        return (datetime.fromisoformat(ended_at or "") - datetime.fromisoformat(began or "")).total_seconds()
    except (ValueError, TypeError):  # one is missing, or has no time zone
        return 0.0


def _streamed(path: Path, log: _Log) -> Iterator[tuple[Row, Sample]]:
    """Yield the samples of a zip in the order of the dataset, whatever the order in which they were finished."""
    with Members(path) as members:
        for name in _in_order(members.names, log.eval.dataset.sample_ids or ()):
            try:
                sample = _sample(members.read(name))
            except msgspec.MsgspecError as error:
                raise DataError(f"{path}: {name}: {error}") from None
            yield _both(log.eval, sample)


def _in_order(names: Iterable[str], ids: Iterable[str | int]) -> list[str]:
    place = {str(id_): index for index, id_ in enumerate(ids)}
    found = [(match, name) for name in dict.fromkeys(names) if (match := _MEMBER.match(name))]
    found.sort(key=lambda one: (place.get(one[0]["id"], len(place)), int(one[0]["epoch"])))
    return [name for _, name in found]


def _both(about: _Eval, sample: _Sample) -> tuple[Row, Sample]:
    attached = sample.attachments
    asked, answer = _conversation(sample)
    output = sample.output
    choice = output.choices[0] if output.choices else None
    text, reasoning = _spoken(answer.content if answer else None, attached)
    calls = _calls(answer.tool_calls) if answer and answer.tool_calls else None
    used = sample.model_usage.get(about.model)
    reason = choice.stop_reason if choice else None
    target = sample.target[0] if isinstance(sample.target, list) and len(sample.target) == 1 else sample.target
    fields = {"input": _plain_input(sample.input, attached), "choices": sample.choices, "metadata": sample.metadata}
    row = Row(str(sample.id), {name: value for name, value in fields.items() if value not in (None, {}, [])}, target or None)
    made = Sample(
        id=row.id,
        repeat=sample.epoch - 1,
        messages=[_message(one, attached) for one in asked],
        output=text or None,
        target=row.target,
        scores=dict(_scores(sample.scores or {})),
        usage=_usage(used) if used else None,
        cost_usd=used.total_cost if used else None,
        cost_from="inspect_ai" if used and used.total_cost is not None else None,
        latency_s=output.time if output.time is not None else sample.working_time,
        attempts=1,
        model_requested=about.model,
        model_served=output.model,
        finish_reason=_FINISH.get(reason or "", reason),
        started_at=sample.started_at,
        reasoning=reasoning or None,
        tool_calls=calls,
        logprobs=choice.logprobs if choice else None,
    )
    return row, ended(made, sample.error.message if sample.error else output.error)


def _conversation(sample: _Sample) -> tuple[list[_Message], _Message | None]:
    """Return what was asked, and the last answer. A sample that failed early has the messages of its input alone."""
    messages = sample.messages
    if messages and messages[-1].role == "assistant":
        return messages[:-1], messages[-1]
    return messages, sample.output.choices[0].message if sample.output.choices else None


def _message(message: _Message, attached: dict[str, str]) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": _resolved(message.content, attached)}
    if message.tool_calls:
        plain["tool_calls"] = _calls(message.tool_calls)
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _calls(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return tool calls in OpenAI's form; inspect keeps the arguments parsed."""
    return [
        {
            "id": call.get("id"),
            "type": "function",
            "function": {"name": call.get("function"), "arguments": msgspec.json.encode(call.get("arguments") or {}).decode()},
        }
        for call in calls
    ]


def _spoken(content: Any, attached: dict[str, str]) -> tuple[str, str]:
    """Return the text and the thinking of an answer."""
    content = _resolved(content, attached)
    if not isinstance(content, list):
        return text_of(content), ""
    parts = [part for part in content if isinstance(part, dict)]
    thinking = "".join(part.get("reasoning") or "" for part in parts if part.get("type") == "reasoning")
    return text_of([part for part in parts if part.get("type") == "text"]), thinking


def _resolved(value: Any, attached: dict[str, str]) -> Any:
    """Return the value with what the log keeps apart put back in its place."""
    if isinstance(value, str):
        return attached.get(value.removeprefix(_ATTACHED), value) if value.startswith(_ATTACHED) else value
    if isinstance(value, list):
        return [_resolved(part, attached) for part in value]
    return {name: _resolved(part, attached) for name, part in value.items()} if isinstance(value, dict) else value


def _plain_input(value: Any, attached: dict[str, str]) -> Any:
    """Return the input: text as it is; of a conversation what its messages say."""
    value = _resolved(value, attached)
    if not isinstance(value, list):
        return value
    return [{"role": one.get("role"), "content": one.get("content")} for one in value if isinstance(one, dict)]


def _scores(scores: dict[str, _Score]) -> Iterator[tuple[str, float]]:
    """Yield the scores that are numbers; a score of several values is several, as ``name.part``."""
    for name, score in scores.items():
        parts = score.value.items() if isinstance(score.value, dict) else [("", score.value)]
        for part, value in parts:
            if (found := _grade(value)) is not None:
                yield (f"{name}.{part}" if part else name), found


def _grade(value: Any) -> float | None:
    if isinstance(value, str):
        if (word := _GRADES.get(value, _GRADES.get(value.lower()))) is not None:
            return word
        try:
            return number(float(value))
        except ValueError:
            return None
    return number(value)


def _usage(used: _Used) -> Usage:
    """Return the tokens; the total says whether the input counts what was read from the provider's cache and written to it."""
    prompt = max(used.input_tokens, used.total_tokens - used.output_tokens)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=used.output_tokens,
        total_tokens=prompt + used.output_tokens,
        cached_tokens=used.input_tokens_cache_read or 0,
        reasoning_tokens=used.reasoning_tokens or 0,
        cache_write_tokens=used.input_tokens_cache_write or 0,
    )
