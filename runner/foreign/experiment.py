"""Write the config of another tool as an experiment of ours: a file in ``conf/experiment``, and its rows in ``data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config import yaml
from runner.config.load import escape
from runner.errors import DataError, RecordError
from runner.foreign import lm_eval_task, openai_files, promptfoo_config
from runner.foreign.task import Left, Lines
from runner.system import files

if TYPE_CHECKING:
    from runner.foreign.task import ForeignTask


class Written(msgspec.Struct, frozen=True):
    """An experiment that was written: its name, its files, and what could not be carried over."""

    name: str
    config: Path
    data: Path | None
    left: list[Left]


def import_config(file: str | Path, *, name: str | None = None, folder: str | Path = ".", replace: bool = False) -> list[Written]:
    """Write the experiments that a config of another tool describes.

    Args:
        file: a config of promptfoo, a task of lm-eval (``generate_until``), input of OpenAI's Batch API, samples of OpenAI Evals.
        name: of the experiment; None: the file's own. A config of several prompts has ``-1``, ``-2`` after it.
        folder: what gets ``conf/experiment`` and ``data``.
        replace: whether files that exist are replaced.

    Returns:
        One for each prompt.

    Raises:
        DataError: the file cannot be read, or nothing in it is an experiment.
        RecordError: a file exists already, or cannot be written.
    """
    path, place = Path(file), Path(folder)
    tasks = _tasks(path)
    for number, task in enumerate(tasks, 1):
        task.name = (name if len(tasks) == 1 else f"{name}-{number}") if name else task.name
    return [_write(task, path, place, replace=replace) for task in tasks]


def is_config(path: Path) -> bool:
    """Return whether a file may be a config: YAML, or JSON lines of requests."""
    if path.suffix in (".yaml", ".yml"):
        return True
    return path.suffix == ".jsonl" and not path.name.startswith("samples_")


def _tasks(path: Path) -> list[ForeignTask]:
    if path.suffix in (".yaml", ".yml"):
        lines = Lines(path)
        if promptfoo_config.is_config(lines.plain):
            return promptfoo_config.read(path, lines)
        if lm_eval_task.is_task(lines.plain):
            return lm_eval_task.read(path, lines)
        raise DataError(f"{path}: is neither a config of promptfoo (prompts, tests) nor a task of lm-eval (task, doc_to_text)")
    first = _first(path)
    if openai_files.is_batch(first):
        return openai_files.read_batch(path)
    if openai_files.is_evals(first):
        return openai_files.read_evals(path)
    raise DataError(
        f"{path}: is neither input of OpenAI's Batch API (custom_id, body) nor samples of OpenAI Evals (input, ideal)"
    )


def _first(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            found = msgspec.json.decode(stream.readline())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}, line 1: is not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def _write(task: ForeignTask, path: Path, folder: Path, *, replace: bool) -> Written:
    config = folder / "conf" / "experiment" / f"{task.name}.yaml"
    data = folder / "data" / f"{task.name}.jsonl" if task.rows else None
    for file in (config, data):
        if file is not None and file.exists() and not replace:
            raise RecordError(f"{file} exists already; give another --name, or --force")
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        if data is not None:
            data.parent.mkdir(parents=True, exist_ok=True)
            files.write(data, msgspec.json.Encoder().encode_lines(task.rows))
        files.write(config, _yaml(task, path, data))
    except OSError as error:
        raise RecordError(f"{error.filename or config} cannot be written: {error.strerror}") from None
    return Written(task.name, config, data, task.left)


def _yaml(task: ForeignTask, path: Path, data: Path | None) -> str:
    """Return the experiment as YAML: what could not be carried over is in its head."""
    scoring = dict(task.scoring)
    chosen = {"data": "jsonl" if data is not None else "file", "prompt": "default", "scoring": scoring.pop("kind", "none")}
    if task.model:
        chosen["model"] = "litellm"
    where = {"path": str(data), "id": "id"} if data is not None else {}
    groups: dict[str, Any] = {
        "defaults": [{f"override /{group}": option} for group, option in chosen.items()],
        "name": task.name,
        "model": task.model,
        "prompt": {key: escape(text) for key, text in task.prompt.items()},
        "data": {**where, **task.data},
        "scoring": scoring,
        "sampling": task.sampling,
    }
    head = [f"# @package _global_\n# Imported from {path.name} ({task.tool}).\n"]
    if task.left:
        head.append("# Not carried over:\n")
        head += [f"#   {' '.join(str(one).split())}\n" for one in task.left]
    return "".join(head) + yaml.write({key: value for key, value in groups.items() if value})
