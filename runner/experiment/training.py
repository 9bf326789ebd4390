"""Prepare the training that a config declares: read and check its rows, estimate it, and find or make its job.

Nothing is spent before `Training.begin`. Plain Python, usable in a notebook, and independent of Prefect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner import build
from runner.attachments import names_in
from runner.data.where import Where
from runner.errors import ConfigError, DataError
from runner.finetune.data.check import Located, Requirements, check, read, split
from runner.finetune.data.formats import TrainDataFormat
from runner.finetune.data.rows import normalised, questions, tokens
from runner.finetune.jobs.estimate import Estimate, estimate
from runner.finetune.jobs.ledger import JobFolder
from runner.finetune.jobs.spec import Recipe, Spec, facts_of
from runner.finetune.jobs.training import Training
from runner.finetune.trainers.openai import END_OF_NEW_JOBS
from runner.finetune.trainers.registry import backend_of
from runner.records import find_run
from runner.system.paths import in_conf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.adapters import Adapter
    from runner.config.schema import RunConfig
    from runner.config.schema.finetuning import TrainingData
    from runner.data import Dataset
    from runner.finetune.data.check import Problem
    from runner.finetune.data.rows import Row
    from runner.types import Sample

_FIELDS = (
    *("id", "repeat", "status", "output", "target", "finish_reason", "latency_s", "cost_usd", "cache", "attempts"),
    *("model_requested", "model_served", "error"),
)


class TrainingRows(NamedTuple):
    """Training rows as they were read.

    Attributes:
        located: the rows, each with the place that it comes from.
        wrong: what could not be read.
        form: the format of the rows.
        source: where they come from, for people.
    """

    located: list[Located]
    wrong: list[Problem]
    form: TrainDataFormat
    source: str


class PreparedTraining(NamedTuple):
    """A training that is ready to begin.

    Attributes:
        config: the experiment that the model is trained for.
        spec: what is trained, and its id.
        train: the rows to learn from.
        valid: the rows to validate with.
        remarks: properties of the data that are allowed but may be unintended.
        notices: what else to know before it begins.
        source: where the rows come from.
        estimate: what the training takes.
    """

    config: RunConfig
    spec: Spec
    train: list[Row]
    valid: list[Row]
    remarks: list[Problem]
    notices: list[str]
    source: str
    estimate: Estimate

    def open(self) -> Training:
        """Open its job in the ledger, or make it. Fetches the weights of a local base; begins nothing.

        Raises:
            ConfigError: a key that is needed is not set.
            LaunchError: the base cannot be fetched.
            FinetuneError: the ledger cannot be written.
        """
        backend = backend_of(self.spec)
        spec = msgspec.structs.replace(self.spec, base=build.finetuning(self.config, fetch=True).base)
        return Training(JobFolder.create(spec, self.train, self.valid), backend)


def prepare_training(
    config: RunConfig, recipe: Recipe, rows: TrainingRows, evaluation: tuple[Dataset, Adapter] | None
) -> PreparedTraining:
    """Check training rows, and estimate what the training takes. Nothing is begun, and nothing sent.

    Args:
        config: the experiment that the model is trained for.
        recipe: how the model is trained.
        rows: what it learns from.
        evaluation: the rows that the model will be measured on, and how they are asked; None: no such rows are known.

    Raises:
        DataError: the training rows are wrong, or contain questions of the evaluation.
    """
    assert config.finetune is not None
    chosen = config.finetune.data
    requirements = Requirements(
        rows.form,
        window=recipe.window,
        text_only=recipe.provider == "local",
        evaluation=_asked_in_evaluation(*evaluation) if evaluation else {},
        allow_overlap=chosen.allow_overlap,
    )
    remarks = check(rows.located, requirements, wrong=rows.wrong)
    train, valid = split([one.row for one in rows.located], chosen.valid_fraction, chosen.split_seed)
    spec = Spec.make(recipe, rows.form, facts_of(train, valid))
    work = estimate(spec, [tokens(row) for row in train], usd_per_mtokens=recipe.usd_per_mtokens)
    return PreparedTraining(config, spec, train, valid, remarks, list(_notices(recipe)), rows.source, work)


def attach(folder: JobFolder) -> Training:
    """Return a training that is in the ledger, to follow or to stop it.

    Raises:
        ConfigError: a key that is needed is not set.
    """
    return Training(folder, backend_of(folder.spec))


def read_rows(chosen: TrainingData, runs_dir: Path) -> TrainingRows:
    """Read training rows from a file, or from the answers of a run.

    Args:
        chosen: the section ``finetune.data``.
        runs_dir: the folder in which a run is looked for.

    Raises:
        ConfigError: neither is named, or the expression ``where`` is wrong.
        DataError: there is nothing to learn from, or the file cannot be read.
        RecordError: there is no such run.
    """
    if chosen.path is not None:
        located, wrong = read(in_conf(chosen.path))
        return TrainingRows(located, wrong, TrainDataFormat(chosen.format), chosen.path)
    if chosen.from_run is None:
        raise ConfigError("finetune.data: no training data is named; give path (a file of JSON lines) or from_run (a run)")
    run = find_run(chosen.from_run, runs_dir)
    where = Where(chosen.where, {*_FIELDS, "score."}) if chosen.where else None
    source = f"{run.path.parent.name}/{run.path.name}"
    summary = run.summary()
    unscored = {f"score.{name}": None for name in (summary.scores if summary else ())}
    located, seen, form = [], 0, TrainDataFormat.CHAT
    for sample in run.samples():
        if sample.output is None or not sample.output.strip():
            continue
        seen += 1
        if where is not None and not where.matches(unscored | _facts(sample)):
            continue
        if sample.messages is None:
            form = TrainDataFormat.COMPLETION
        name = f"sample {sample.id!r}" + (f" (repeat {sample.repeat})" if sample.repeat else "")
        try:
            located.append(Located(f"{source}, {name}", _row(sample)))
        except DataError as error:
            raise DataError(f"{source}, {name}: {error}") from None
    if not located:
        picked = f"finetune.data.where picks none of its {seen:,} answers" if seen else "it has no answers"
        raise DataError(f"{source}: there is nothing to learn from: {picked}")
    return TrainingRows(located, [], form, source)


def _row(sample: Sample) -> Row:
    """Turn a sample into a training row: its request, and its answer as the assistant's turn."""
    if sample.messages is None:
        return {"prompt": sample.prompt, "completion": sample.output}
    if next(names_in(sample.messages), None) is not None:
        raise DataError("it has images, sounds or files, which are not learned from; leave it out by finetune.data.where")
    return {"messages": [*sample.messages, {"role": "assistant", "content": sample.output}]}


def _facts(sample: Sample) -> dict[str, Any]:
    """Return a sample's fields by their names in an expression."""
    facts = {name: getattr(sample, name) for name in _FIELDS}
    facts["error"] = sample.error.code if sample.error else None
    return {**facts, **{f"score.{name}": value for name, value in sample.scores.items()}}


def _asked_in_evaluation(dataset: Dataset, adapter: Adapter) -> dict[str, str]:
    """Map each question of the evaluation, normalised as it is sent, to the id of its row."""
    asked: dict[str, str] = {}
    for row in dataset:
        formatted = adapter.format(row)
        said = {"messages": formatted.messages} if formatted.messages is not None else {"prompt": formatted.prompt}
        sent = next(reversed(questions(said)), "")
        asked.setdefault(sent, row.id)
        for value in row.fields.values():  # the question alone, without the text of the prompt around it
            if isinstance(value, str) and len(plain := normalised(value)) >= _LEAST and plain in sent:
                asked.setdefault(plain, row.id)
    return asked


_LEAST = 12
"""Characters from which a column in the prompt counts as the question, rather than as a word such as a category."""


def _notices(recipe: Recipe) -> Iterator[str]:
    if recipe.provider == "openai" and (
        recipe.access is None or "api.openai.com" in (recipe.access.api_base or "api.openai.com")
    ):
        yield f"OpenAI accepts no new fine-tuning jobs as of {END_OF_NEW_JOBS}"
    if recipe.provider == "databricks":
        yield "this provider was never tried against a real workspace; please report what you find"
