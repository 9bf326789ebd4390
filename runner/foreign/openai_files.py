"""Read OpenAI's files of requests: the input of the Batch API, and samples of OpenAI Evals. Both are JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import DataError
from runner.foreign.task import ForeignTask, Left, parameters, said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_line = msgspec.json.Decoder(dict[str, Any]).decode
_LONGER = "more than a system message and a question in words"


def is_batch(first: dict[str, Any]) -> bool:
    """Return whether a line is a request of the Batch API."""
    return "custom_id" in first and "body" in first


def is_evals(first: dict[str, Any]) -> bool:
    """Return whether a line is a sample of OpenAI Evals."""
    return "input" in first and "ideal" in first


def read_batch(path: Path) -> list[ForeignTask]:
    """Return the experiment of a file of requests. Raises DataError if there is none that can be asked."""
    rows: list[dict[str, Any]] = []
    left: list[Left] = []
    common: dict[str, Any] | None = None
    for number, line in _lines(path):
        body = dict(line.get("body") or {})
        asked = said(body.pop("messages", None))
        if asked is None:
            left.append(Left(number, str(line.get("custom_id")), _LONGER))
            continue
        common = body if common is None else common
        left += [
            Left(number, f"{line.get('custom_id')}: {name}", "differs from the first request's, which counts for all")
            for name in sorted({*common, *body})
            if common.get(name) != body.get(name)
        ]
        rows.append({"id": str(line.get("custom_id")), **asked})
    if common is None:
        raise DataError(f"{path}: has no request that is a question in words")
    model = common.pop("model", None)
    sampling, rest = parameters(common)
    params = {"params": rest} if rest else {}
    return [
        _task("OpenAI Batch", path, rows, left, sampling=sampling, model={"name": f"openai/{model}", **params} if model else {})
    ]


def read_evals(path: Path) -> list[ForeignTask]:
    """Return the experiment of samples. Raises DataError if there is none that can be asked."""
    rows: list[dict[str, Any]] = []
    left: list[Left] = []
    for number, line in _lines(path):
        given = line.get("input")
        asked = {"user": given} if isinstance(given, str) else said(given)
        if asked is None:
            left.append(Left(number, "the input", _LONGER))
            continue
        rows.append({"id": str(number), **asked, "ideal": line.get("ideal")})
    if not rows:
        raise DataError(f"{path}: has no sample that is a question in words")
    task = _task("OpenAI Evals", path, rows, left, sampling={}, model={})
    task.data, task.scoring = {"target": "ideal"}, {"kind": "exact"}
    left.append(
        Left(1, "the eval's class", "is not in this file: answers are compared with `ideal` as a whole; or scoring=contains")
    )
    return [task]


def _task(
    tool: str, path: Path, rows: list[dict[str, Any]], left: list[Left], *, sampling: dict[str, Any], model: dict[str, Any]
) -> ForeignTask:
    prompt = {"user": "{{ user }}"}
    if any("system" in row for row in rows):
        prompt["system"] = "{{ system }}"
        for row in rows:
            row.setdefault("system", "")
    name = path.stem.replace(" ", "-").strip("-.")[:60] or "batch"
    return ForeignTask(
        tool=tool,
        name=name,
        prompt=prompt,
        data={},
        scoring={"kind": "none"},
        sampling=sampling,
        model=model,
        rows=rows,
        left=left,
    )


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if text.isspace():
                continue
            try:
                yield number, _line(text)
            except msgspec.MsgspecError as error:
                raise DataError(f"{path}, line {number}: is not a JSON object: {error}") from None
