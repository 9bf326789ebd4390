"""Schedules on a work pool of Prefect that is not ours, played by `prefect worker start` in another folder, with another home."""

import asyncio
import json
import os
import sys
from contextlib import contextmanager

import pytest

import runner
import runner.cli
from flows.schedules import contents
from runner.errors import ScheduleError
from runner.records import RunFolder
from runner.schedules.job import Job
from runner.system import processes
from tests.flows.clock import FINAL, NEVER, Clock, KeptServer, environment, listed, schedule, standing
from tests.support.clock import wait_until
from tests.support.finetuning import KEY, OpenAI
from tests.support.server import Reply, Server
from tests.support.tickets import Loop, answer

pytestmark = pytest.mark.prefect

POOL = "elsewhere"
ELSEWHERE = f"schedule.pool={POOL}"
SCORER = """from pathlib import Path

def grade(output, target, fields):
    return float(output == target or output in Path("exceptions.txt").read_text())
"""


@pytest.fixture(scope="module")
def machine(kept, kept_home, tmp_path_factory):
    """The folder that applies schedules, the server that keeps them, and the environment of both."""
    folder = tmp_path_factory.mktemp("here")
    server = KeptServer(kept, kept_home)
    clock = Clock(server, folder)
    clock.api.post("work_pools/", {"name": POOL, "type": "process", "base_job_template": {}})
    return clock, environment(server.api_url, server.home, folder)


@pytest.fixture(scope="module")
def there(machine, tmp_path_factory):
    """Prefect's own worker, on a machine of its own: its folder is empty, and so is its home. Returns that home."""
    clock, variables = machine
    folder = tmp_path_factory.mktemp("there")
    home = folder / "home"
    with standing(clock.folder, variables):
        mine = {"OSTINATO_HOME": str(home), "PREFECT_HOME": str(folder / "prefect"), "TUNING_KEY": KEY}
        with worker(folder, **mine):
            yield home


@pytest.fixture
def here(machine):
    clock, variables = machine
    with standing(clock.folder, variables):
        yield clock


@contextmanager
def worker(folder, **variables):
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        running = processes.start(command, log=folder / "worker.log", env={**os.environ, **variables})
    try:
        yield
    finally:
        running.stop(processes.GRACE_S)


def played(clock, name):
    """Have a schedule play now. Returns the state that its run ends in."""
    return clock.state(schedule("run-now", name)["flow_run"], *FINAL)


def kept_of(sample):
    """Return what of a sample must not depend on who played it."""
    plain = {
        name: getattr(sample, name)
        for name in ("id", "repeat", "status", "output", "parsed", "target", "request_key", "messages")
    }
    return {**plain, "scores": sample.scores}


def an_experiment(folder):
    """Write an experiment with data, a prompt, a scorer and what it opens. Returns its overrides."""
    rows = [{"id": f"r{n}", "question": f"{n} and 1?", "answer": f"{n + 1}"} for n in range(4)]
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "system.txt").write_text("Add.")
    (folder / "grade.py").write_text(SCORER)
    (folder / "exceptions.txt").write_text("3 4")
    return [
        *(
            "model=fake",
            "model.reply='3'",
            "cache.mode=off",
            "name=sums",
            "data=jsonl",
            "data.path=data/sums.jsonl",
            "data.id=id",
        ),
        *(
            "data.target=answer",
            "prompt=default",
            "prompt.system_file=system.txt",
            "scoring=python",
            "scoring.function=grade.py:grade",
        ),
    ]


def test_a_run_is_played_elsewhere_as_it_is_here(here, there):
    overrides = an_experiment(here.folder)
    direct = RunFolder.open(runner.run(overrides=[*overrides, "execution.orchestrator=none"]).folder)
    schedule("apply", *overrides, NEVER, ELSEWHERE, "schedule.files=[exceptions.txt]", "schedule.name=sums")
    for name in ("system.txt", "exceptions.txt", "data/sums.jsonl"):
        (here.folder / name).unlink()  # what was applied is what is played
    state = played(here, "sums")
    assert state["type"] == "COMPLETED", state["message"]
    (folder,) = [file.parent for file in there.glob("schedules/played/sums/runs/sums/2*/manifest.json")]
    record = RunFolder.open(folder)
    assert [kept_of(one) for one in record.samples()] == [kept_of(one) for one in direct.samples()]
    ours, theirs = direct.manifest(), record.manifest()
    for part in ("config_hash", "data", "files", "texts", "name", "status"):
        assert ours[part] == theirs[part]
    assert {key: ours["config"][key] for key in ours["config"] if theirs["config"][key] != ours["config"][key]}.keys() <= {
        *("schedule", "runs_dir", "execution")
    }
    assert theirs["schedule"]["content"] == listed("sums")["content"]
    assert not here.records("sums")
    deployment = here.deployment("sums")
    assert str(here.folder) not in json.dumps([deployment, *here.runs("sums")])
    assert deployment["path"] in (None, ".")


def test_a_pipeline_is_played_elsewhere(here, there, monkeypatch):
    monkeypatch.setenv("TUNING_KEY", KEY)
    with OpenAI() as trainer, Server(Reply(text=answer)) as server:
        trainer.outcome = "succeeded"
        loop = Loop(here.folder, trainer, server)
        schedule("apply", *loop.overrides, NEVER, ELSEWHERE, "schedule.what=pipeline")
        state = played(here, "tickets-pipeline")
        assert state["type"] == "COMPLETED", state["message"]
        assert len(trainer.jobs) == 1
    assert [*there.glob("schedules/played/tickets-pipeline/runs/tickets/pipeline-*")]
    assert not [*here.folder.glob("runs/tickets/pipeline-*")]


def test_a_canary_carries_its_reference(here, there):
    scored = ["model=fake", "scoring=regex", "scoring.pattern=Paris", "name=elsewhere"]
    runner.run(overrides=[*scored, "execution.orchestrator=none", "cache.mode=off", "model.reply=Paris"])
    canary = ["schedule.what=canary", "schedule.canary.reference=latest", "schedule.name=canary-elsewhere"]
    schedule("apply", *scored, *canary, "model.reply=Oslo", NEVER, ELSEWHERE)
    state = played(here, "canary-elsewhere")
    assert state["type"] == "FAILED"
    assert "significantly worse" in state["message"]


def test_content_that_is_too_large_is_named_or_goes_into_a_shared_folder(here, there, monkeypatch, capsys):
    overrides = [*an_experiment(here.folder), "schedule.files=[exceptions.txt]", NEVER, ELSEWHERE, "schedule.name=large"]
    (here.folder / "data" / "sums.jsonl").write_text(
        json.dumps({"id": "r", "question": os.urandom(3000).hex(), "answer": "3"}) + "\n"
    )
    monkeypatch.setattr(contents, "MAX_BYTES", 2000)
    assert runner.cli.main(["schedule", "apply", *overrides]) == 2
    told = capsys.readouterr().err
    assert "the largest files are data/sums.jsonl (6," in told
    assert "schedule.store=" in told
    shared = here.folder.parent / "shared"
    schedule("apply", *overrides, f"schedule.store={shared}")
    assert played(here, "large")["type"] == "COMPLETED"
    (file,) = shared.iterdir()
    file.unlink()
    job = Job.of(here.deployment("large")["parameters"]["job"])
    monkeypatch.setenv("OSTINATO_HOME", str(here.folder / "a-third-home"))
    with pytest.raises(ScheduleError, match=f"cannot read {file}"):
        asyncio.run(contents.fetch(None, job))  # the server is not asked


def test_a_schedule_that_was_applied_again_or_removed_leaves_nothing_that_is_not_used(here, there):
    def artifacts():
        found = here.api.post("artifacts/filter", {})
        return [one for one in found if f"`{name}`" in (one["description"] or "")]

    name = "again"
    overrides = [*an_experiment(here.folder), NEVER, ELSEWHERE, "schedule.files=[exceptions.txt]", f"schedule.name={name}"]
    schedule("apply", *overrides)
    schedule("apply", *overrides)
    assert len(artifacts()) == 1
    (here.folder / "system.txt").write_text("Add, please.")
    schedule("apply", *overrides)
    assert len(artifacts()) == 2  # runs that are planned may need the first
    schedule("rm", name)
    wait_until(lambda: not artifacts(), "the end of what it carried")


def test_a_pool_that_the_server_lacks_is_refused(here, capsys):
    assert runner.cli.main(["schedule", "apply", "model=fake", NEVER, "schedule.pool=clouds"]) == 2
    assert "the server has no work pool 'clouds'" in capsys.readouterr().err
