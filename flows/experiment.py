"""Define the flow of one experiment: its stages as Prefect tasks, by reference to its folder. What a stage does is runner's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from prefect import flow, task  # noqa: TID253 - the home of Prefect; other modules import this one inside functions
from prefect.artifacts import acreate_table_artifact  # noqa: TID253
from prefect.cache_policies import NO_CACHE  # noqa: TID253

from flows.ahead import taken
from flows.begun import note
from flows.untagged import untagged

if TYPE_CHECKING:
    from runner.experiment.experiment import Experiment


def _attach(folder: str) -> Experiment:
    from runner.experiment.experiment import attach

    return attach(folder)


# Rows retry inside the engine and results are the record on disk, so no task caches or persists anything.
@task(name="launch", task_run_name="launch", retries=1, cache_policy=NO_CACHE, persist_result=False, on_running=[note])
async def launch(folder: str) -> dict[str, Any]:
    """Start the model server of the experiment. It may be repeated, so Prefect retries a failed start once."""
    return await taken(folder, "launch", lambda: _attach(folder).launch())


@task(name="play", task_run_name="play", retries=0, cache_policy=NO_CACHE, persist_result=False, on_running=[note])
async def play(folder: str) -> dict[str, Any]:
    """Ask the rows that are owed. Returns counts."""
    return await taken(folder, "ask", lambda: _attach(folder).ask())


@task(name="kill", task_run_name="kill", retries=0, cache_policy=NO_CACHE, persist_result=False, on_running=[note])
async def kill(folder: str) -> None:
    """Stop the model server that `launch` started."""
    await _attach(folder).kill()


@task(name="summarise", task_run_name="summarise", retries=0, cache_policy=NO_CACHE, persist_result=False, on_running=[note])
async def summarise(folder: str) -> dict[str, Any]:
    """Finish the record, and show its summary as a table artifact."""
    experiment = _attach(folder)
    summary = experiment.summarise()
    key = re.sub(r"[^a-z0-9]+", "-", f"summary-{experiment.name.lower()}").strip("-")
    await acreate_table_artifact(table=summary.table(), key=key, description=f"Record: {folder}")
    return summary.to_dict()


@flow(name="ostinato-experiment", retries=0, persist_result=False)
async def experiment_flow(folder: str, overrides: list[str]) -> None:  # noqa: ARG001 - recorded as the run's parameter
    """Run the experiment whose run folder is `folder`. The same `overrides` run it again."""
    launched = _attach(folder).needs_launch
    with untagged():
        try:
            if launched:
                await launch(folder)
            await play(folder)
        finally:
            if launched:
                await kill(folder)
        await summarise(folder)
