"""``python -m runner.finetune.local FOLDER``: carry a job through, from wherever it stands."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import msgspec

from runner.errors import OstinatoError
from runner.finetune.hyper import LocalHyper
from runner.finetune.ledger import JobFolder, put
from runner.finetune.local.merged import source_of, write_merged
from runner.finetune.spec import Spec

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
        _say(f"{error.name} is not installed: pip install 'ostinato[finetune]'")
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
    _say(f"loading {spec.base.name}")
    from runner.finetune.local import adapter, checkpoint
    from runner.finetune.local.base import load
    from runner.finetune.local.loop import Loop, arrays
    from runner.finetune.local.machine import chosen
    from runner.finetune.local.rows import lessons

    loaded = load(spec.base)
    rows = {
        name: lessons(folder / f"{name}.jsonl", spec.train_data_format, loaded.tokenizer, max_length=hyper.max_length)
        for name in ("train", "valid")
    }
    found = checkpoint.newest(folder / "checkpoints")
    machine = chosen(hyper, threads=found[0].threads if found else None)
    job = JobFolder(folder, spec)
    loop = Loop(
        loaded.model,
        hyper,
        machine,
        rows["train"],
        rows["valid"],
        report=lambda line: job.measured(**line),
        keep=lambda position, tensors: checkpoint.save(folder / "checkpoints", position, tensors),
        asked_to_stop=lambda: bool(stop),
    )
    if found:
        loop.restore(*found)
        _say(f"going on from step {found[0].step}")
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
    once = sum(len(lesson.ids) for lesson in rows["train"])
    result = {
        "format": 1,
        **made,
        "sha256": digest,
        "steps": position.step,
        "loss": position.loss,
        "valid_loss": outcome.valid_loss,
        "tokens": position.tokens,
        "tokens_read": round(once * position.step / hyper.steps_an_epoch(len(rows["train"]))),
        "train_s": position.wall_s,
        "device": machine.device,
        "dtype": machine.dtype,
        "threads": machine.threads,
        "seed": hyper.seed,
    }
    put(folder / "result.json", json.dumps(result, indent=2).encode() + b"\n")
    _say(f"done: {position.step} steps, loss {position.loss}")
    return 0


def _say(line: object) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
