"""A pipeline through Prefect: a task a stage, on the kept server; and none when nothing is owed."""

from __future__ import annotations

import pytest

from tests.support.clock import wait_until
from tests.support.command import ostinato
from tests.support.finetuning import KEY, OpenAI
from tests.support.server import Reply, Server
from tests.support.tickets import Loop, answer

pytestmark = pytest.mark.prefect


def test_a_pipeline_has_a_task_per_stage_and_starts_nothing_if_it_is_complete(kept, api, in_tmp):
    with OpenAI() as trainer, Server(Reply(text=answer)) as server:
        trainer.outcome = "succeeded"
        loop = Loop(in_tmp, trainer, server)
        more = ["execution.orchestrator=prefect"]
        done = loop.play(*more, PREFECT_API_URL=kept.api_url)
        assert done.code == 0, done.err
        name = next(in_tmp.glob("runs/tickets/pipeline-*")).name
        stages = [stage["name"] for stage in done.json["stages"]]
        assert api.settled(name, len(stages)) == dict.fromkeys(stages, "COMPLETED")
        assert api.flow_run(name)["state_type"] == "COMPLETED"
        assert KEY not in str(api.flow_run(name))
        again = loop.play(*more, PREFECT_API_URL="http://127.0.0.1:9/api")
        assert again.code == 0, again.err
        assert {stage["status"] for stage in again.json["stages"]} == {"skipped"}


def test_a_failed_training_is_a_failed_task(kept, api, in_tmp):
    with OpenAI() as trainer, Server(Reply(text=answer)) as server:
        trainer.outcome = "failed"
        done = Loop(in_tmp, trainer, server).play("execution.orchestrator=prefect", PREFECT_API_URL=kept.api_url)
        assert done.code == 1
        name = next(in_tmp.glob("runs/tickets/pipeline-*")).name
        states = api.settled(name, 4)
        assert states == {"data": "COMPLETED", "validate": "COMPLETED", "baseline": "COMPLETED", "train": "FAILED"}
        assert len(trainer.jobs) == 1


def test_a_cancelled_training_is_not_retried(kept, in_tmp):
    with OpenAI() as trainer, Server(Reply(text=answer)) as server:
        loop = Loop(in_tmp, trainer, server)
        with loop.start("execution.orchestrator=prefect", PREFECT_API_URL=kept.api_url) as running:
            wait_until(lambda: any(job.status == "running" for job in trainer.jobs), "training")
            (job,) = ostinato("ft", "ls", "--json").json["jobs"]
            ostinato("ft", "cancel", job["job"], TUNING_KEY=KEY)
            done = running.wait()
        assert done.code == 1, done.err
        assert "was cancelled" in done.err
        assert [job.status for job in trainer.jobs] == ["cancelled"]
