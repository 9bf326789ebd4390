"""Run a pipeline to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError
from runner.experiment.experiment import Experiment
from runner.experiment.run import EXIT_CODES
from runner.pipelines.pipeline import STAGES, Outcome, Pipeline
from runner.records.pipeline import PipelineManifest
from runner.session.loop import Notify, silent
from runner.session.orchestrator import orchestrator
from runner.session.sitting import sitting

if TYPE_CHECKING:
    from runner.config.schema import RunConfig

ORCHESTRATORS: dict[str, str | None] = {"none": None, "prefect": "flows.orchestrate:run_pipeline"}
"""Orchestrators by ``execution.orchestrator``: a coroutine function that calls `Pipeline.stage`."""

GATE_CLOSED = 100

Watch = Callable[[Experiment], AbstractContextManager[Any]]


class StageOutcome(msgspec.Struct, frozen=True):
    """The outcome of a stage in this sitting; `wall_s` is in seconds."""

    name: str
    status: Outcome
    wall_s: float


class PipelineResult(msgspec.Struct, frozen=True):
    """The result of `pipeline`: the folder, its manifest, and the outcome of each stage that was reached."""

    folder: Path
    manifest: PipelineManifest
    stages: list[StageOutcome]
    results: dict[str, dict[str, Any]] = {}
    problem: str | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 0 registered, 100 gain too small, 1 failed, 3 incomplete, 130 interrupted."""
        if self.manifest.status == "complete":
            return 0 if self.of("register").get("moved") else GATE_CLOSED
        return EXIT_CODES[self.manifest.status]

    def of(self, name: str) -> dict[str, Any]:
        """Return the result of a stage for its present inputs; empty if it was not done."""
        return self.results.get(name, {})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        compared, registered = self.of("compare"), self.of("register")
        return {
            "pipeline": str(self.folder),
            "status": self.manifest.status,
            "stages": msgspec.to_builtins(self.stages),
            "baseline": self.of("baseline").get("scores"),
            "tuned": self.of("tuned").get("scores"),
            "difference": compared.get("difference"),
            "verdict": "undecided" if compared.get("undecided") else compared.get("verdict"),
            "bounds": compared.get("bounds"),
            "model": self.of("train").get("model"),
            "alias": registered.get("alias"),
            "version": registered.get("version"),
            "moved": bool(registered.get("moved")),
            "reason": registered.get("reason"),
            "problem": self.problem,
        }


def pipeline(
    config: RunConfig | None = None,
    *,
    overrides: Sequence[str] = (),
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> PipelineResult:
    """Train a model and register it if it is significantly better than its base. Finished stages are skipped.

    Args:
        config: the experiment, with its section `finetune`; None composes it from the config groups and `overrides`.
        overrides: Hydra overrides, such as ``["experiment=tickets_finetune", "finetune.lr=0.001"]``.
        notify: called with each line for people.
        watch: a context manager around each run, given the Experiment: for progress displays.

    Returns:
        The record: the outcome of each stage, the comparison of the trained model with its base, and whether it was registered.

    Raises:
        ConfigError, DataError: found before anything is begun.
        RecordError: the record cannot be written, or is being played.
    """
    if config is not None and overrides:
        raise ConfigError("give a config or overrides, not both: overrides are applied while a config is composed")
    if config is None:
        from runner.config.compose import compose

        config = compose(list(overrides)).config()
    return pipeline_to_end(Pipeline.create(config, overrides), notify=notify, watch=watch)


def pipeline_to_end(pipeline: Pipeline, *, notify: Notify | None = None, watch: Watch | None = None) -> PipelineResult:
    """Run the stages that are owed, and finish the record. No orchestrator is started if none is owed."""
    pipeline.notify, pipeline.watch = notify or silent, watch
    with sitting(pipeline, pipeline.notify) as in_loop:
        if pipeline.owed:
            in_loop(_orchestrated(pipeline))
        else:
            pipeline.outcomes = dict.fromkeys(STAGES, ("skipped", 0.0))
    stages = [StageOutcome(name, *pipeline.outcomes[name]) for name in STAGES if name in pipeline.outcomes]
    results = {name: pipeline.result(name) for name in STAGES}
    problem = str(pipeline.problem) if pipeline.problem else None
    return PipelineResult(pipeline.folder, pipeline.manifest, stages, results, problem)


async def _orchestrated(pipeline: Pipeline) -> None:
    try:
        if (orchestrate := orchestrator(pipeline.config.execution.orchestrator, ORCHESTRATORS)) is not None:
            await orchestrate(pipeline, notify=pipeline.notify)
            return
        for name in STAGES:
            await pipeline.stage(name)
    finally:
        await asyncio.shield(pipeline.aclose())
