"""inspect_ai: the same rows, asked and not scored, as a task for `inspect eval`, which whole.py runs."""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.solver import generate


@task
def questions(data: str) -> Task:
    """Every question of a JSONL file; answers are cached, as Ostinato's are."""
    return Task(dataset=json_dataset(data, FieldSpec(input="question", id="id")), solver=generate(cache=True))
