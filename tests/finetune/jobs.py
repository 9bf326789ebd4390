"""Jobs of the local trainer on a tiny llama, trained in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import torch

from runner.finetune.jobs.hyper import LocalHyper, whole
from runner.finetune.jobs.ledger import JobFolder
from runner.finetune.jobs.spec import Base, Recipe, Spec, facts_of
from runner.finetune.trainers.local.base import load
from runner.finetune.trainers.local.begin import begun
from tests.support.command import REPOSITORY

ROWS = [
    {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": f"q{n}"},
            {"role": "assistant", "content": "yes" * (n % 3 + 1)},
        ]
    }
    for n in range(12)
]
VALID = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "never seen"}]}]
FAST = {
    "lr": 0.05,
    "batch_size": 3,
    "max_steps": 12,
    "epochs": 4,
    "checkpoint_every": 3,
    "threads": 1,
    "dtype": "fp32",
    "device": "cpu",
    "layers": "0-1",
}


def job_of(weights, rows=ROWS, valid=(), form="chat", **hyper):
    base = Base(str(weights), f"sha256:{weights.name}", gguf=str(weights))
    spec = Spec.make(Recipe("local", base, whole(LocalHyper, FAST | hyper)), form, facts_of(rows, valid))
    return JobFolder.create(spec, rows, valid)


def trainer(job):
    command = [sys.executable, "-m", "runner.finetune.trainers.local", str(job.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def trained(job, *, stop=lambda: False):
    """Train in this process, stopping when told; returns the outcome and the loop. Goes on where the job's folder stands."""
    hyper = msgspec.convert(job.spec.hyper, LocalHyper)
    loop = begun(job, hyper, load(job.spec.base), asked_to_stop=stop)
    return loop.run(), loop


def over_and_over(job, *, heeded):
    """Train to the end, stopped each time it has asked so often whether to stop; the outcome, and how many sittings it took."""
    sittings = 0
    while True:
        asked = iter(range(1, heeded))
        sittings += 1
        outcome, _ = trained(job, stop=lambda asked=asked: next(asked, None) is None)
        if not outcome.stopped:
            return outcome, sittings


def reference(weights, **hyper):
    """What comes of a training that nothing disturbs; its folder is gone afterwards."""
    job = job_of(weights, **hyper)
    outcome, _ = trained(job)
    job.remove()
    return outcome


def same(some, others):
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)
