"""Seconds a training step: the local trainer beside a bare torch + peft loop on the same rows, step by step in turn.

python -m tests.bench.train [--quick] [--device cuda] [--record]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.harness import parser, publish

if TYPE_CHECKING:
    from argparse import Namespace


def main() -> None:
    """Train with both, a step each in turn, and print the ratio of the steps."""
    arguments = parser(__doc__)
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--steps", type=int, help="steps of each (default: 30)")
    arguments.add_argument("--gguf", type=Path, help="the weights (default: smollm2's, which are fetched)")
    arguments.add_argument("--layers", default="15-29", help="those that are adapted (default: %(default)s)")
    args = arguments.parse_args()
    steps = args.steps or (4 if args.quick else 30)
    ours, bare, facts = measured(steps, args)
    ratios = [mine / other for mine, other in zip(ours, bare, strict=True)]
    rows = [
        ("bare torch + peft", statistics.median(bare), min(bare), max(bare), 1.0),
        ("Ostinato", statistics.median(ours), min(ours), max(ours), statistics.median(ratios)),
    ]
    text = "".join(f"| {name} | {middle:.3f} ({low:.3f}–{high:.3f}) | {ratio:.2f} |\n" for name, middle, low, high, ratio in rows)
    head = f"|  | s a step | times bare's (median of {steps} pairs) |\n|---|---|---|\n"
    about = f"{args.gguf or 'SmolLM2-135M'}, LoRA r 8 on layers {args.layers}, batches of 4 tickets, AdamW; {facts}.\n\n"
    publish(args, "Training", about + head + text)


def measured(steps: int, args: Namespace) -> tuple[list[float], list[float], str]:
    """Seconds of each step of both, after one that warms up; and what they were computed with."""
    import torch

    from runner.finetune.jobs.hyper import LocalHyper
    from runner.finetune.jobs.spec import Base
    from runner.finetune.trainers.local.base import load
    from runner.finetune.trainers.local.loop import Loop
    from runner.finetune.trainers.local.machine import chosen
    from runner.finetune.trainers.local.recipe import Plan
    from runner.finetune.trainers.local.rows import lessons
    from runner.models import weights
    from runner.system.paths import shipped_conf

    hyper = LocalHyper(batch_size=4, layers=args.layers, device=args.device, bucket=False, max_steps=steps + 1, epochs=steps + 1)
    base = Base("smollm2", "smollm2", gguf=str(args.gguf or weights.pull("smollm2")))
    loaded, other = load(base), load(base)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.jsonl"
        file.write_bytes((shipped_conf() / "finetune" / "tickets.jsonl").read_bytes())
        rows = lessons(file, "chat", loaded.tokenizer, max_length=512)
    machine = chosen(hyper)
    loop = Loop(loaded.model, Plan(hyper, machine, rows, []), report=_forget, keep=_forget, asked_to_stop=lambda: False)
    bare = Bare(other.model, hyper, machine)
    ours, theirs = [], []
    for number, groups in enumerate(loop._groups()):
        took = [
            timed(lambda groups=groups: loop._step(groups), args.device),
            timed(lambda groups=groups: bare.step(groups[0]), args.device),
        ]
        if number:
            ours.append(took[0])
            theirs.append(took[1])
    return ours, theirs, f"{machine.device}, {machine.dtype}, {machine.threads} threads, torch {torch.__version__}"


class Bare:
    """The loop that everybody writes: transformers' own loss, all positions of the output layer, nothing else."""

    def __init__(self, model: Any, hyper: Any, machine: Any) -> None:
        import torch

        from runner.finetune.trainers.local.recipe import adapted

        self.machine = machine
        self.model = adapted(model, hyper).to(machine.device)
        self.parameters = [value for value in self.model.parameters() if value.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=hyper.lr, weight_decay=0.0)

    def step(self, batch: list[Any]) -> None:
        import torch

        longest = max(len(lesson.ids) for lesson in batch)
        ids, seen = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(2))
        labels = torch.full((len(batch), longest), -100)
        for row, lesson in enumerate(batch):
            length = len(lesson.ids)
            ids[row, :length], seen[row, :length] = torch.tensor(lesson.ids), 1
            labels[row, :length] = torch.where(torch.tensor(lesson.learned), ids[row, :length], -100)
        device = self.machine.device
        self.model.train()
        with self.machine.arithmetic():
            loss = self.model(input_ids=ids.to(device), attention_mask=seen.to(device), labels=labels.to(device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        loss.item()


def timed(step: Any, device: str) -> float:
    import torch

    began = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _forget(*_: Any) -> None:
    pass


if __name__ == "__main__":
    main()
