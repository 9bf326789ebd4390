"""``python -m runner.finetune.trainers.local FOLDER``: train a job, or resume it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import OstinatoError
from runner.finetune.jobs.hyper import LocalHyper
from runner.finetune.jobs.ledger import JobFolder
from runner.finetune.trainers.local.merged import source_of, write_merged
from runner.system import files

if TYPE_CHECKING:
    from runner.finetune.trainers.local.base import Loaded
    from runner.finetune.trainers.local.gguf import Source
    from runner.finetune.trainers.local.loop import Loop, Outcome
    from runner.finetune.trainers.local.trl import TRL

STOPPED = 128 + signal.SIGTERM


def main(argv: list[str]) -> int:
    """Train. Return 0 if ``result.json`` is there, 143 if SIGTERM stopped it at a checkpoint, 1 on an error."""
    stop: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    try:
        return train(Path(argv[0]), stop)
    except OstinatoError as error:
        _say(error)
    except ModuleNotFoundError as error:
        _say(_missing(error.name))
    except MemoryError:
        _say("there is not enough memory; reduce finetune.batch_size or finetune.max_length")
    except OSError as error:
        _say(f"{error.filename or 'a file'}: {error.strerror or error}")
    return 1


def train(folder: Path, stop: list[bool]) -> int:
    """Train the job in `folder`, or resume it, until it is done or `stop` is not empty. Return the exit code."""
    if (folder / "result.json").is_file():
        return 0
    job = JobFolder.open(folder)
    hyper = msgspec.convert(job.spec.hyper, LocalHyper)
    # A base that cannot be merged is refused before it is trained.
    source = source_of(job.spec.base) if hyper.merge else None
    _set_environment()
    _say(f"loading {job.spec.base.name}")
    from runner.finetune.trainers.local.base import load
    from runner.finetune.trainers.local.begin import begun

    loaded = load(job.spec.base)
    loop = begun(job, hyper, loaded, asked_to_stop=lambda: bool(stop))
    if loop.position.step:
        _say(f"resuming from step {loop.position.step}")
    _say(f"{loop.steps} steps on {loop.machine.device} in {loop.machine.dtype}, {loop.machine.threads} threads")
    outcome = loop.run()
    position = outcome.position
    if outcome.stopped:
        _say(f"stopped at step {position.step}")
        return STOPPED
    loop.model.save_pretrained(folder / "adapter", selected_adapters=["default"])
    with contextlib.suppress(OSError):  # PEFT writes a model card without content
        (folder / "adapter" / "README.md").unlink()
    result = {"format": 1, **_write_model(folder, source, outcome, loaded, hyper), **_facts(loop, outcome)}
    files.write_private(folder / "result.json", json.dumps(result, indent=2).encode() + b"\n")
    _say(f"done: {position.step} steps, loss {position.loss}")
    return 0


def _set_environment() -> None:
    """Set what transformers, tokenizers and TRL read when they are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU is used; TRL refuses to start if it sees more
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # TRL would report what is trained with which settings


def _write_model(
    folder: Path, source: Source | None, outcome: Outcome, loaded: Loaded, hyper: LocalHyper
) -> dict[str, str | None]:
    """Write the file that llama.cpp serves: an adapter, or, given `source`, the whole model. Return its name and SHA-256."""
    from runner.finetune.trainers.local import adapter
    from runner.finetune.trainers.local.loop import arrays

    weights, heads = arrays(outcome.weights), {"heads": loaded.heads, "key_heads": loaded.key_heads}
    if source is None:
        digest = adapter.write_gguf(folder / "adapter.gguf", weights, alpha=hyper.lora_alpha, **heads)
        return {"adapter": "adapter.gguf", "sha256": digest}
    scale = hyper.lora_alpha / hyper.lora_r
    digest = write_merged(folder / "merged.gguf", source, weights, scale=scale, **heads)
    return {"adapter": None, "model": "merged.gguf", "sha256": digest}


def _facts(loop: Loop | TRL, outcome: Outcome) -> dict[str, Any]:
    """Return the facts about the training for ``result.json``."""
    position, machine = outcome.position, loop.machine
    once, steps_an_epoch = sum(row.length for row in loop.train), loop.hyper.steps_an_epoch(len(loop.train))
    return {
        "steps": position.step,
        "loss": position.loss,
        "valid_loss": outcome.valid_loss,
        "tokens": position.tokens,
        "tokens_read": round(once * position.step / steps_an_epoch),
        "train_s": position.wall_s,
        "device": machine.device,
        "dtype": machine.dtype,
        "threads": machine.threads,
        "seed": loop.hyper.seed,
    }


def _missing(name: str | None) -> str:
    """Say what to install for a missing module."""
    extra = "finetune" if name in ("torch", "transformers", "peft", "gguf", "safetensors", "tokenizers") else "trl"
    return f"{name} is not installed: pip install 'ostinato[{extra}]'"


def _say(line: object) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
