"""``python -m runner.finetune.trainers.local FOLDER``: carry a job through, from wherever it stands."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import msgspec

from runner.errors import OstinatoError
from runner.finetune.jobs.hyper import LocalHyper
from runner.finetune.jobs.ledger import JobFolder
from runner.finetune.jobs.spec import Spec
from runner.finetune.trainers.local.merged import source_of, write_merged
from runner.system import files

STOPPED = 128 + signal.SIGTERM


def main(argv: list[str]) -> int:
    """Train. Returns 0 when ``result.json`` is there, 143 when SIGTERM has ended it at a checkpoint, 1 when it cannot be done."""
    stop: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    try:
        return _train(Path(argv[0]), stop)
    except OstinatoError as error:
        _say(error)
    except ModuleNotFoundError as error:
        _say(_missing(error.name))
    except MemoryError:
        _say("there is not enough memory; a smaller finetune.batch_size or finetune.max_length needs less")
    except OSError as error:
        _say(f"{error.filename or 'a file'}: {error.strerror or error}")
    return 1


def _train(folder: Path, stop: list[bool]) -> int:
    if (folder / "result.json").is_file():
        return 0
    spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=Spec)
    hyper = msgspec.convert(spec.hyper, LocalHyper)
    base = source_of(spec.base) if hyper.merge else None  # what cannot be written whole is refused before it is trained
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU is used; TRL refuses to begin where it sees more
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # TRL would tell what is trained with which settings
    _say(f"loading {spec.base.name}")
    from runner.finetune.trainers.local import adapter
    from runner.finetune.trainers.local.base import load
    from runner.finetune.trainers.local.begin import begun
    from runner.finetune.trainers.local.loop import arrays

    loaded = load(spec.base)
    job = JobFolder(folder, spec)
    loop = begun(job, hyper, loaded, asked_to_stop=lambda: bool(stop))
    if loop.position.step:
        _say(f"going on from step {loop.position.step}")
    machine = loop.machine
    _say(f"{loop.steps} steps on {machine.device} in {machine.dtype}, {machine.threads} threads")
    outcome = loop.run()
    if outcome.stopped:
        _say(f"stopped at step {outcome.position.step}")
        return STOPPED
    loop.model.save_pretrained(folder / "adapter", selected_adapters=["default"])
    with contextlib.suppress(OSError):  # PEFT writes a card with nothing to say
        (folder / "adapter" / "README.md").unlink()
    weights, heads = arrays(outcome.weights), {"heads": loaded.heads, "key_heads": loaded.key_heads}
    if base is None:
        made: dict[str, str | None] = {"adapter": "adapter.gguf"}
        digest = adapter.write_gguf(folder / "adapter.gguf", weights, alpha=hyper.lora_alpha, **heads)
    else:
        made = {"adapter": None, "model": "merged.gguf"}
        digest = write_merged(folder / "merged.gguf", base, weights, scale=hyper.lora_alpha / hyper.lora_r, **heads)
    position = outcome.position
    once = sum(row.length for row in loop.train)
    result = {
        "format": 1,
        **made,
        "sha256": digest,
        "steps": position.step,
        "loss": position.loss,
        "valid_loss": outcome.valid_loss,
        "tokens": position.tokens,
        "tokens_read": round(once * position.step / hyper.steps_an_epoch(len(loop.train))),
        "train_s": position.wall_s,
        "device": machine.device,
        "dtype": machine.dtype,
        "threads": machine.threads,
        "seed": hyper.seed,
    }
    files.write_private(folder / "result.json", json.dumps(result, indent=2).encode() + b"\n")
    _say(f"done: {position.step} steps, loss {position.loss}")
    return 0


def _missing(name: str | None) -> str:
    """What to install for a module that is not there."""
    extra = "finetune" if name in ("torch", "transformers", "peft", "gguf", "safetensors", "tokenizers") else "trl"
    return f"{name} is not installed: pip install 'ostinato[{extra}]'"


def _say(line: object) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
