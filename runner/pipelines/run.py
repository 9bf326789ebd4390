"""Playing a pipeline to its end: in an event loop, under signals, by the orchestrator that the config names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import BudgetExceeded, ConfigError, LMError, OstinatoError
from runner.experiment.experiment import Experiment
from runner.experiment.run import EXIT_CODES
from runner.pipelines.pipeline import STAGES, Outcome, Pipeline, live_pipelines
from runner.records.pipeline import PipelineManifest
from runner.session.interrupt import Interrupt
from runner.session.loop import Notify, collecting_less, in_new_loop, orchestrator, silent

if TYPE_CHECKING:
    from runner.config.schema import RunConfig

ORCHESTRATORS: dict[str, str | None] = {"none": None, "prefect": "flows.orchestrate:play_pipeline"}
"""Who plays the stages that are owed, by ``execution.orchestrator``: a coroutine function that calls `Pipeline.stage`."""

GATE_CLOSED = 100

Watch = Callable[[Experiment], AbstractContextManager[Any]]


class StageOutcome(msgspec.Struct, frozen=True):
    """How a stage went in this sitting; `wall_s` is seconds."""

    name: str
    status: Outcome
    wall_s: float


class PipelineResult(msgspec.Struct, frozen=True):
    """What `pipeline` returns: the folder, its manifest, and how each stage that was come to has gone."""

    folder: Path
    manifest: PipelineManifest
    stages: list[StageOutcome]
    results: dict[str, dict[str, Any]] = {}
    problem: str | None = None

    @property
    def exit_code(self) -> int:
        """What the command ends with: 0 registered, 100 too small a gain, 1 failed, 3 incomplete, 130 interrupted."""
        if self.manifest.status == "complete":
            return 0 if self.of("register").get("moved") else GATE_CLOSED
        return EXIT_CODES[self.manifest.status]

    def of(self, name: str) -> dict[str, Any]:
        """What came of a stage for what it is made from now; empty when it was not done."""
        return self.results.get(name, {})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        compared, registered = self.of("compare"), self.of("register")
        return {
            "pipeline": str(self.folder),
            "status": self.manifest.status,
            "stages": msgspec.to_builtins(self.stages),
            "baseline": self.of("baseline").get("scores"),
            "tuned": self.of("tuned").get("scores"),
            "difference": compared.get("difference"),
            "verdict": compared.get("verdict"),
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
    """Train a model and register it if it is surely better than its base. Stages that are done are skipped.

    Args:
        config: the experiment, with its section `finetune`; None composes it from the config groups and `overrides`.
        overrides: Hydra overrides, such as ``["experiment=tickets_finetune", "finetune.lr=0.001"]``.
        notify: told what happens, a line at a time.
        watch: a context manager around the playing of a run, given the Experiment: for progress displays.

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


def pipeline_to_end(played: Pipeline, *, notify: Notify | None = None, watch: Watch | None = None) -> PipelineResult:
    """Do the stages that are owed, and finish the record. Starts no orchestrator when none is."""
    key = str(played.folder)
    live_pipelines[key] = played
    played.notify, played.watch = notify or silent, watch
    with collecting_less(), Interrupt(played, played.notify) as interrupt:
        try:
            if played.owed:
                in_new_loop(interrupt.watch(_orchestrated(played)))
            else:
                played.outcomes = dict.fromkeys(STAGES, ("skipped", 0.0))
        except (LMError, BudgetExceeded, OstinatoError) as error:
            played.problem = error
        finally:
            del live_pipelines[key]
            manifest = played.finish()
    stages = [StageOutcome(name, *played.outcomes[name]) for name in STAGES if name in played.outcomes]
    results = {name: played.result(name) for name in STAGES}
    return PipelineResult(played.folder, manifest, stages, results, str(played.problem) if played.problem else None)


async def _orchestrated(played: Pipeline) -> None:
    try:
        if (orchestrate := orchestrator(played.config, ORCHESTRATORS)) is not None:
            await orchestrate(played, notify=played.notify)
            return
        for name in STAGES:
            await played.stage(name)
    finally:
        await asyncio.shield(played.aclose())
