"""Define the flow of a pipeline: its stages as Prefect tasks, by reference to its folder. What a stage does is runner's."""

from __future__ import annotations

from prefect import flow, task  # noqa: TID253 - the home of Prefect; other modules import this one inside functions
from prefect.cache_policies import NO_CACHE  # noqa: TID253

from flows.begun import note
from flows.untagged import untagged

RETRIED = {"train": 1, "launch": 1}
"""How often Prefect retries a failed stage. These stages find what they have started. Rows retry inside the engine."""


@task(name="stage", retries=0, cache_policy=NO_CACHE, persist_result=False, on_running=[note])
async def stage(folder: str, name: str) -> None:
    """Run one stage of the pipeline, unless it is finished."""
    from runner.pipelines.pipeline import attach_pipeline

    await attach_pipeline(folder).stage(name)


@flow(name="ostinato-pipeline", retries=0, persist_result=False)
async def pipeline_flow(folder: str, overrides: list[str]) -> None:  # noqa: ARG001 - recorded as the run's parameter
    """Run the stages of the pipeline in `folder`. The same `overrides` run it again."""
    from runner.pipelines.pipeline import STAGES

    with untagged():
        for name in STAGES:
            await stage.with_options(name=name, task_run_name=name, retries=RETRIED.get(name, 0))(folder, name)
