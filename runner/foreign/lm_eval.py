"""Read ``samples_*.jsonl`` of lm-evaluation-harness, with the ``results_*.json`` beside it. Written for version 0.4."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import DataError
from runner.foreign.run import ForeignRun, ended, number, text_of
from runner.types import Choice, Row, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = re.compile(r"^samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d:.-]+)\.jsonl$")
_PLAIN = "none"
"""The filter of a task that has none of its own."""

_PARAMS = {"temperature": "temperature", "max_gen_toks": "max_tokens", "max_tokens": "max_tokens", "top_p": "top_p"}


class _Line(msgspec.Struct, frozen=True):
    """One document as one filter left it.

    `resps` holds a list for each request: of texts, or of pairs of a log-likelihood and whether it is the most likely one.
    """

    doc_id: int | str
    doc: Any = None
    target: Any = None
    arguments: Any = None
    resps: list[Any] = []
    filtered_resps: list[Any] = []
    filter: str = _PLAIN
    metrics: list[str] = []


class _Results(msgspec.Struct, frozen=True):
    configs: dict[str, dict[str, Any]] = {}
    config: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    higher_is_better: dict[str, dict[str, Any]] = {}
    model_source: str | None = None
    model_name: str | None = None
    date: float | None = None
    total_evaluation_time_seconds: float | str | None = None
    lm_eval_version: str | None = None
    git_hash: str | None = None


_decode = msgspec.json.Decoder(_Line, strict=False).decode
_plain = msgspec.json.Decoder(dict[str, Any]).decode


def is_samples(path: Path) -> bool:
    """Return whether the name of a file is that of samples of lm-eval."""
    return path.name.startswith("samples_") and path.suffix == ".jsonl"


def read(path: Path) -> list[ForeignRun]:
    """Open the samples of one task. Raises DataError if they are none, or if their results cannot be read."""
    found = _NAME.match(path.name)
    task = found["task"] if found else path.stem.removeprefix("samples_")
    results = _results(path, found["date"] if found else None)
    filters, scores = _scan(path)
    config = results.configs.get(task, {})
    sent = {**config.get("generation_kwargs", {}), **_gen_kwargs(results.config.get("gen_kwargs"))}
    lower = {name for name, higher in results.higher_is_better.get(task, {}).items() if higher is False}
    began = datetime.fromtimestamp(results.date, UTC).isoformat() if results.date else None
    names = list(dict.fromkeys(name for found in scores.values() for name in found))
    return [
        ForeignRun(
            tool="lm_eval",
            version=results.lm_eval_version,
            format="samples",
            task=task,
            model=_model(results),
            stream=lambda: _streamed(path, filters, scores, _model(results)),
            params={ours: sent[theirs] for theirs, ours in _PARAMS.items() if sent.get(theirs) is not None},
            scores=names,
            started_at=began,
            wall_s=float(results.total_evaluation_time_seconds or 0.0),
            facts={
                "task_version": results.versions.get(task),
                "output_type": config.get("output_type"),
                "filters": filters,
                "model_args": results.config.get("model_args"),
                "git_hash": results.git_hash,
                "lower_is_better": [name for name in names if name.partition(".")[0] in lower],
            },
            unread=_unread(config),
        )
    ]


def _unread(config: dict[str, Any]) -> list[str]:
    told = ["tokens and times: lm-eval does not record them"]
    if int(config.get("repeats") or 1) > 1:
        told.append("repeats are the answers of one sample: a filter of the task chose what was scored")
    if config.get("output_type") in ("multiple_choice", "loglikelihood"):
        told.append("log-likelihoods: the answer is the continuation that is the most likely one")
    return told


def _results(path: Path, date: str | None) -> _Results:
    """Read the results of the same moment; without them nothing is known but the answers."""
    beside = path.parent / f"results_{date}.json"
    if date is None or not beside.exists():
        return _Results()
    try:
        return msgspec.json.decode(beside.read_bytes(), type=_Results, strict=False)
    except msgspec.MsgspecError as error:
        raise DataError(f"{beside}: is not the results of lm-eval: {error}") from None


def _model(results: _Results) -> str:
    """Return ``backend/name``. The name is the argument of the backend that names its model."""
    given = results.config.get("model_args")
    args = given if isinstance(given, dict) else _gen_kwargs(given)
    name = results.model_name or args.get("model") or args.get("pretrained") or "unknown"
    backend = results.model_source or results.config.get("model") or "lm_eval"
    return f"{backend}/{name}"


def _gen_kwargs(given: Any) -> dict[str, Any]:
    """Return arguments in the form ``a=1,b=2`` as a dict."""
    if isinstance(given, dict):
        return given
    pairs = (part.partition("=") for part in str(given or "").split(",") if "=" in part)
    return {name.strip(): _value(value) for name, _, value in pairs}


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text


def _scan(path: Path) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Return the filters in order, and the scores of each document by all of them. The same answers stand under each filter."""
    filters: dict[str, None] = {}
    found: dict[str, dict[str, float]] = {}
    for line, plain in _lines(path):
        filters[line.filter] = None
        scores = found.setdefault(str(line.doc_id), {})
        for name in line.metrics:
            if (value := number(plain.get(name))) is not None:
                scores[name if line.filter == _PLAIN else f"{name}.{line.filter}"] = value
    return list(filters), found


def _lines(path: Path) -> Iterator[tuple[_Line, dict[str, Any]]]:
    with path.open("rb") as file:
        for count, text in enumerate(file, 1):
            try:
                yield _decode(text), _plain(text)
            except msgspec.MsgspecError as error:
                raise DataError(f"{path}, line {count}: is not a sample of lm-eval: {error}") from None


def _streamed(path: Path, filters: list[str], scores: dict[str, dict[str, float]], model: str) -> Iterator[tuple[Row, Sample]]:
    for line, _ in _lines(path):
        if line.filter == filters[0]:
            yield _both(line, scores[str(line.doc_id)], model)


def _both(line: _Line, scores: dict[str, float], model: str) -> tuple[Row, Sample]:
    requests = _requests(line.arguments)
    asked = requests[0][0] if requests else ""
    messages = _messages(asked)
    row = Row(str(line.doc_id), {"input": asked, "doc": line.doc}, line.target)
    sample = Sample(
        id=row.id,
        messages=messages,
        prompt=None if messages else text_of(asked),
        target=row.target,
        scores=scores,
        attempts=1,
        model_requested=model,
    )
    answers = line.resps[0] if len(line.resps) == 1 and isinstance(line.resps[0], list) else []
    if answers and all(isinstance(answer, str) for answer in answers):
        sample.output = answers[0] or None
        sample.answers = [Choice(text=answer) for answer in answers] if len(answers) > 1 else None
    else:
        sample.output = _likeliest(requests, line.filtered_resps)
    return row, ended(sample)


def _requests(arguments: Any) -> list[tuple[Any, Any]]:
    """Return the arguments of each request: ``{"gen_args_0": {"arg_0": ...}}`` since 0.4.3, lists before."""
    several = arguments.values() if isinstance(arguments, dict) else arguments or []
    pairs = (list(one.values()) if isinstance(one, dict) else list(one) for one in several)
    return [(pair[0] if pair else "", pair[1] if len(pair) > 1 else None) for pair in pairs]


def _messages(asked: Any) -> list[dict[str, Any]] | None:
    """Return the conversation that a prompt is, if it is one: chat models get theirs as JSON text."""
    if isinstance(asked, list) and len(asked) == 1 and isinstance(asked[0], str):
        asked = asked[0]
    if isinstance(asked, str) and asked.startswith('[{"role"'):
        try:
            asked = msgspec.json.decode(asked)
        except msgspec.MsgspecError:
            return None
    return asked if isinstance(asked, list) and all(isinstance(one, dict) and "role" in one for one in asked) else None


def _likeliest(requests: list[tuple[Any, Any]], found: list[Any]) -> str | None:
    """Return the continuation with the greatest log-likelihood."""
    known = [number(_first(one)) for one in found]
    if len(known) != len(requests) or not known or None in known:
        return None
    best = max(range(len(known)), key=lambda index: known[index] or 0.0)
    return text_of(requests[best][1]).strip() or None


def _first(value: Any) -> Any:
    if isinstance(value, list) and value:
        value = value[0]
    return float(value) if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", value) else value
