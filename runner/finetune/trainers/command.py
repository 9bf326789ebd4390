"""Training by a program of the user's own (axolotl, LLaMA-Factory, a script): run it, and adopt what it leaves.

Run as ``python -m runner.finetune.trainers.command FOLDER``, in the place of the local trainer. The words of the command and
the text of
its config file may hold ``{config}`` (the file), ``{train}`` and ``{valid}`` (the data), ``{base}`` (the model), ``{output}``
(where to write) and ``{folder}`` (the job). For LLaMA-Factory a ``dataset_info.json`` that describes the data as ``ostinato``
lies in ``{folder}``.

What is adopted, in this order: a ``result.json`` that the program has written itself; a GGUF adapter; a PEFT adapter; a whole
model.
Losses are read from ``trainer_state.json``, which Hugging Face's trainer writes and both programs are built on.
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
    """Run the command of the job in this folder. Returns 0 when its output was adopted, 143 after SIGTERM.

    Raises:
        FinetuneError: it failed, or has left nothing.
    """
    job = JobFolder.open(Path(argv[0]))
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))  # the command has it, too: we share a group
    began = time.monotonic()
    code = _run(job, _words(job), stopped)
    if stopped:
        return 143
    if code:
        raise FinetuneError(f"{job.spec.hyper['command'][0]} has ended with code {code}")
    if job.result() is None:
        result = _adopted(job, time.monotonic() - began)
        files.write_private(job.path / "result.json", msgspec.json.format(msgspec.json.encode(result)))
    return 0


def _words(job: JobFolder) -> list[str]:
    """The command with its places filled; writes its config file and describes the data."""
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
    """The data in LLaMA-Factory's words."""
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
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one thread; nobody would adopt the output, and two would train
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
    """Copy losses that are new from the newest ``trainer_state.json``."""
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
            seen.add(new)  # of one step, the loss and that of the evaluation are lines of their own
            job.measured(step, **values)


def _adopted(job: JobFolder, wall_s: float) -> dict[str, Any]:
    """What the command has left, copied to where it is looked for. Raises FinetuneError when that is nothing."""
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
    raise FinetuneError(f"the command has ended well, and {output} holds neither an adapter (*.gguf, {_ADAPTER}) nor a model")


def _newest(output: Path, pattern: str, fits: Callable[[Path], bool] = Path.is_file) -> Path | None:
    """The file of this name: the one highest up in the folder, and of several there the latest."""
    found = filter(fits, output.glob(f"**/{pattern}"))
    return min(found, key=lambda path: (len(path.parts), -path.stat().st_mtime), default=None)


def _is_adapter(path: Path) -> bool:
    """Whether a GGUF file is an adapter, and not a whole model that the program has exported, too."""
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
