"""Train with the user's own program (axolotl, LLaMA-Factory, a script): run it, and adopt its output.

Run as ``python -m runner.finetune.trainers.command FOLDER``, instead of the local trainer. The words of the command and the text
of its config file may contain ``{config}`` (the file), ``{train}`` and ``{valid}`` (the data), ``{base}`` (the model),
``{output}`` (where to write) and ``{folder}`` (the job). For LLaMA-Factory, ``{folder}`` has a ``dataset_info.json`` that
describes the data as ``ostinato``.

The first of these is adopted: a ``result.json`` that the program has written; a GGUF adapter; a PEFT adapter; a whole model.
Losses are read from ``trainer_state.json``, which is written by Hugging Face's trainer, on which both programs are built.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import FinetuneError
from runner.finetune.jobs.ledger import JobFolder
from runner.finetune.trainers.local.adapter import from_peft
from runner.finetune.trainers.local.gguf import GGUF
from runner.finetune.trainers.local.merged import source_of
from runner.system import files
from runner.system.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_S = 1.0
_ADAPTER = "adapter_model.safetensors"


def main(argv: list[str]) -> int:
    """Run the command of the job in this folder. Return 0 if its output was adopted, 143 after SIGTERM.

    Raises:
        FinetuneError: it failed, or produced nothing.
    """
    job = JobFolder.open(Path(argv[0]))
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))  # the command gets it too: it is in our process group
    began = time.monotonic()
    code = _run(job, _words(job), stopped)
    if stopped:
        return 143
    if code:
        raise FinetuneError(f"{job.spec.hyper['command'][0]} ended with code {code}")
    if job.result() is None:
        result = _adopted(job, time.monotonic() - began)
        files.write_private(job.path / "result.json", msgspec.json.format(msgspec.json.encode(result)))
    return 0


def _words(job: JobFolder) -> list[str]:
    """Fill in the command's placeholders, write its config file, and describe the data."""
    places = {
        "{config}": str(job.path / "command.yaml"),
        "{train}": str(job.path / "train.jsonl"),
        "{valid}": str(job.path / "valid.jsonl"),
        "{base}": job.spec.base.hf or job.spec.base.gguf or job.spec.base.name,
        "{output}": str(job.path / "output"),
        "{folder}": str(job.path),
    }

    def filled(text: str) -> str:
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    (job.path / "output").mkdir(exist_ok=True)
    if config := job.spec.hyper.get("config"):
        files.write_private(job.path / "command.yaml", filled(config).encode())
    files.write_private(job.path / "dataset_info.json", msgspec.json.encode({"ostinato": _described(job.spec.train_data_format)}))
    return [filled(word) for word in job.spec.hyper["command"]]


def _described(form: str) -> dict[str, Any]:
    """Describe the data in LLaMA-Factory's format."""
    if form == "completion":
        return {"file_name": "train.jsonl", "columns": {"prompt": "prompt", "response": "completion"}}
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    return {"file_name": "train.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}


def _run(job: JobFolder, words: list[str], stopped: list[int]) -> int:
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            cwd=job.path,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one thread; an orphan's output is never adopted, and two would train
        )
    except OSError as error:
        raise FinetuneError(f"cannot start {words[0]}: {error.strerror}") from None
    seen: set[tuple[Any, ...]] = set()
    while True:
        try:
            code = child.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            _harvest(job, seen)
            continue
        if not stopped:
            _harvest(job, seen)
        return code


def _harvest(job: JobFolder, seen: set[tuple[Any, ...]]) -> None:
    """Copy new losses from the newest ``trainer_state.json``."""
    states = sorted((job.path / "output").glob("**/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    if not states:
        return
    try:
        history = msgspec.json.decode(states[-1].read_bytes()).get("log_history", [])
    except (OSError, msgspec.MsgspecError, AttributeError):
        return  # it is being written
    names = {"loss": "loss", "eval_loss": "valid_loss", "learning_rate": "lr"}
    for line in history:
        values = {ours: line[theirs] for theirs, ours in names.items() if isinstance(line.get(theirs), int | float)}
        if values and isinstance(step := line.get("step"), int) and (new := (step, *values)) not in seen:
            seen.add(new)  # a step's loss and its evaluation loss are separate lines
            job.measured(step, **values)


def _adopted(job: JobFolder, wall_s: float) -> dict[str, Any]:
    """Copy the command's output to where it belongs, and return its result. Raises FinetuneError if there is none."""
    measured = job.metrics()
    last = measured[-1] if measured else {}
    unknown = dict.fromkeys(("tokens", "device", "dtype", "seed"))
    facts = {"format": 1, "steps": last.get("step"), "loss": last.get("loss"), "valid_loss": last.get("valid_loss"), **unknown}
    facts["train_s"] = round(wall_s, 3)
    output = job.path / "output"
    if found := _newest(output, "*.gguf", _is_adapter):
        shutil.copyfile(found, job.path / "adapter.gguf")
        return {**facts, "adapter": "adapter.gguf", "sha256": _digest(found)}
    if found := _newest(output, _ADAPTER):
        shutil.copytree(found.parent, job.path / "adapter", dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*"))
        try:
            digest = from_peft(job.path / "adapter", source_of(job.spec.base), job.path / "adapter.gguf")
        except FinetuneError as error:
            sys.stderr.write(f"adopted as it is; llama.cpp cannot serve it: {error}\n")
            return {**facts, "adapter": "adapter", "sha256": _digest(found)}
        return {**facts, "adapter": "adapter.gguf", "sha256": digest}
    if found := _newest(output, "*.safetensors"):
        return {**facts, "adapter": None, "model": os.path.relpath(found.parent, job.path), "sha256": _digest(found)}
    raise FinetuneError(f"the command ended with code 0, but {output} holds neither an adapter (*.gguf, {_ADAPTER}) nor a model")


def _newest(output: Path, pattern: str, fits: Callable[[Path], bool] = Path.is_file) -> Path | None:
    """Find the file of this name that is highest up in the folder; of several there, the latest."""
    found = filter(fits, output.glob(f"**/{pattern}"))
    return min(found, key=lambda path: (len(path.parts), -path.stat().st_mtime), default=None)


def _is_adapter(path: Path) -> bool:
    """Return whether a GGUF file is an adapter, and not a whole model that the program has also exported."""
    try:
        return GGUF(path).fields.get("general.type") == "adapter"
    except FinetuneError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FinetuneError as problem:
        sys.exit(str(problem))
