"""Trains in this process, serves what came of it, and tells how far apart two served models are."""

from __future__ import annotations

import json
import urllib.request
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file

from runner import LM
from runner.finetune.jobs.hyper import LocalHyper, whole
from runner.finetune.jobs.ledger import JobFolder
from runner.finetune.jobs.spec import Recipe, Spec, facts_of
from runner.finetune.trainers.local.__main__ import train
from runner.models.bases import base_of

ROWS = [
    {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": f"q{n}"},
            {"role": "assistant", "content": said},
        ]
    }
    for n, said in enumerate(["yes", "no", "yes yes", "no no"])
]
QUICK = {"lr": 0.01, "batch_size": 2, "max_steps": 4, "threads": 1, "dtype": "fp32", "device": "cpu"}
QUESTIONS = ["q1", "q3", "what is 12345?", "yes?"]
SERVED = {"context": 256, "parallel": 1, "threads": 1}


def trained(base, **hyper):
    """A job of the ledger, trained in this process by the program that its child runs."""
    spec = Spec.make(Recipe("local", base_of(str(base)), whole(LocalHyper, QUICK | hyper)), "chat", facts_of(ROWS))
    job = JobFolder.create(spec, ROWS)
    train(job.path, [])
    return job


class Said(NamedTuple):
    """The log-probabilities of the first token's candidates, by question."""

    by_question: list[dict[str, float]]

    def apart(self, other: Said) -> float:
        """The mean difference of the candidates that both have."""
        pairs = zip(self.by_question, other.by_question, strict=True)
        return float(
            np.mean([abs(ours[token] - theirs[token]) for ours, theirs in pairs for token in ours.keys() & theirs.keys()])
        )


@contextmanager
def launched(name):
    """An LM whose server is up."""
    lm = LM(f"local/{name}", launch_kwargs=SERVED)
    lm.launch()
    try:
        yield lm
    finally:
        lm.kill()


def said(lm) -> Said:
    found = []
    for question in QUESTIONS:
        (answer,) = lm(messages=about(question), logprobs=True, top_logprobs=5, max_tokens=1, temperature=0.0, cache=False)
        found.append({each["token"]: each["logprob"] for each in answer["logprobs"]["content"][0]["top_logprobs"]})
    return Said(found)


def asked(name) -> Said:
    with launched(name) as lm:
        return said(lm)


def about(question):
    return [{"role": "system", "content": "s"}, {"role": "user", "content": question}]


def split(lm, text):
    """The tokens of a text as the server splits it."""
    request = urllib.request.Request(
        lm.kwargs["api_base"].removesuffix("/v1") + "/tokenize",
        json.dumps({"content": text, "parse_special": False}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {lm.kwargs['api_key']}"},
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)["tokens"]


def taught(job):
    return load_file(job.path / "adapter" / "adapter_model.safetensors")
