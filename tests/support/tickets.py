"""A closed loop on loopback: a provider that trains, a server that answers better for the tuned model, and their data."""

from __future__ import annotations

import json

from tests.support.command import Done, Running, ostinato
from tests.support.finetuning import KEY

QUEUES = ("billing", "shipping", "returns")


def queue_of(question):
    return next(queue for queue in QUEUES if queue in question)


class Loop:
    """A provider that trains, a server that answers, and the pipeline's files."""

    def __init__(self, folder, trainer, server):
        self.trainer, self.server = trainer, server
        rows = [{"id": f"r{n}", "text": f"ticket {n} about {queue}", "queue": queue} for n, queue in enumerate(QUEUES * 4)]
        train = [
            {"messages": [*said(f"lesson {n} on {queue}"), {"role": "assistant", "content": queue}]}
            for n, queue in enumerate(QUEUES * 2)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
        self.overrides = [
            *("model=server", "model.name=base", f"model.api_base={server.url}", "model.api_key_env=TUNING_KEY"),
            *("data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=queue", "name=tickets", "alias=tickets"),
            *("prompt.system=Route it.", "prompt.user={{ text }}", "scoring=exact", "execution.orchestrator=none"),
            *("finetune=openai", f"finetune.api_base={trainer.url}", "finetune.data.path=train.jsonl", "finetune.poll_s=0.05"),
        ]

    def play(self, *more: str, **environment: str) -> Done:
        return ostinato("pipeline", *self.overrides, *more, "--json", TUNING_KEY=KEY, **environment)

    def start(self, *more: str, **environment: str) -> Running:
        return Running("pipeline", *self.overrides, *more, "--json", TUNING_KEY=KEY, **environment)


def said(text):
    return [{"role": "system", "content": "Route it."}, {"role": "user", "content": text}]


def answer(call):
    """The base knows one queue in three, the tuned model all of them."""
    return queue_of(call.question) if call.body["model"].startswith("ft:") else "billing"
