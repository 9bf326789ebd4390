"""What every way to train must do: the local trainer's child, a command, OpenAI's API and Databricks', by one suite.

Hosted providers are servers on loopback that speak their API; processes are killed with SIGKILL, and what was begun is counted.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from concurrent.futures import CancelledError

import pytest

from runner.errors import ConfigError, DataError, FinetuneError
from runner.finetune.jobs import ledger
from runner.finetune.jobs.status import TrainingStatus
from runner.finetune.jobs.training import Training
from runner.finetune.trainers import child
from runner.finetune.trainers.registry import backend_of
from runner.network.retry import RetryPolicy
from runner.system.processes import process_started
from tests.support.clock import wait_until
from tests.support.finetuning import KEY, ROWS, Databricks, Fault, OpenAI, Rig

MODELS = {
    "local": r"local/ft-[0-9a-f]{12}",
    "command": r"local/ft-[0-9a-f]{12}",
    "openai": r"openai/ft:base:org:ostinato-[0-9a-f]{12}-1:xftjob-1",
    "databricks": "databricks/main_tuned_tickets",
}
CREATE = {"openai": "POST /v1/fine_tuning/jobs$", "databricks": "mutation CreateFinetune"}


@pytest.fixture
def quick(monkeypatch):
    """Retries wait hundredths of seconds."""
    monkeypatch.setattr("runner.finetune.jobs.training.PATIENCE", RetryPolicy(max_attempts=20, base_s=0.01, cap_s=0.02))
    monkeypatch.setattr(Training.__init__, "__kwdefaults__", {"policy": RetryPolicy(max_attempts=20, base_s=0.01, cap_s=0.02)})


@pytest.fixture(params=["local", "command", "openai", "databricks"])
def rig(request, tmp_path, monkeypatch, quick):
    yield from made(request.param, tmp_path, monkeypatch)


@pytest.fixture(params=["local", "command"])
def here(request, tmp_path, monkeypatch):
    yield from made(request.param, tmp_path, monkeypatch)


@pytest.fixture(params=["openai", "databricks"])
def hosted(request, tmp_path, monkeypatch, quick):
    yield from made(request.param, tmp_path, monkeypatch)


def made(kind, tmp_path, monkeypatch):
    server = {"openai": OpenAI, "databricks": Databricks}.get(kind)
    if server is None:
        rig = Rig(kind, tmp_path)
        set_environment(monkeypatch, rig)
        yield rig
        for job in ledger.listed():
            kill_child(job)
    else:
        with server() as running:
            rig = Rig(kind, tmp_path, running)
            set_environment(monkeypatch, rig)
            yield rig


def set_environment(monkeypatch, rig):
    for name, value in rig.environment.items():
        monkeypatch.setenv(name, value)


def kill_child(job):
    running = job.running()
    if running and child.alive(job):
        os.killpg(running.pid, signal.SIGKILL)
        wait_until(lambda: not child.alive(job), "the child's end")


def job_of():
    (job,) = ledger.listed()
    return job


def wait_for(status):
    wait_until(lambda: ledger.listed() and job_of().state().status is status, f"status {status}")


def at_step_two(rig):
    """Wait until the training is in the middle: before step 3, or running at the provider."""
    wait_for(TrainingStatus.running)
    if not rig.hosted:
        wait_until(lambda: len(job_of().metrics()) == 2, "two steps")


def test_the_result_is_an_lm_with_the_trained_model(rig):
    job = rig.finetune()
    at_step_two(rig)
    assert job.status() is TrainingStatus.running
    rig.finish()
    tuned = job.result(30)
    assert job.status() is TrainingStatus.succeeded
    assert re.fullmatch(MODELS[rig.kind], tuned.model)
    assert tuned.history == []
    assert job.logs()
    if rig.kind != "databricks":  # which tells no losses
        assert [line["step"] for line in job.metrics()] == [1, 2, 3, 4, 5]
        assert job.metrics()[1]["loss"] == 1.0


def test_the_same_spec_is_trained_once(rig):
    rig.finish()
    first = rig.finetune().result(30)
    again = rig.finetune().result(30)
    assert first.model == again.model
    assert rig.begun() == 1
    assert rig.finetune([*ROWS[1:], ROWS[0]]).result(30)  # other rows are another job
    assert rig.begun() == 2


def test_concurrent_calls_start_one_training(rig):
    jobs = [rig.finetune() for _ in range(4)]
    at_step_two(rig)
    rig.finish()
    assert len({job.result(30).model for job in jobs}) == 1
    assert rig.begun() == 1


def test_force_makes_another_attempt_and_keeps_the_first(rig):
    rig.finish()
    rig.finetune().result(30)
    rig.finetune(force=True).result(30)
    job = job_of()
    assert (rig.begun(), job.state().attempt) == (2, 2)
    assert json.loads((job.path / "attempts/1/state.json").read_text())["status"] == "succeeded"


def test_a_running_training_cannot_be_forced(rig):
    rig.finetune()
    at_step_two(rig)
    with pytest.raises(FinetuneError, match="is running; stop it first: ostinato ft cancel"):
        rig.finetune(force=True).result(30)
    rig.finish()
    assert rig.finetune().result(30)
    assert rig.begun() == 1


def test_a_running_training_can_be_cancelled(rig):
    job = rig.finetune()
    at_step_two(rig)
    assert job.cancel()
    with pytest.raises(CancelledError, match="was cancelled"):
        job.result(30)
    assert job.status() is TrainingStatus.cancelled
    assert job.cancelled()
    assert not job.cancel()
    if rig.hosted:
        assert rig.server.jobs[0].status in ("cancelled", "STOPPED")
    else:
        assert not child.alive(job_of())


def test_a_cancelled_free_training_resumes_from_its_checkpoint(here):
    job = here.finetune()
    at_step_two(here)
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(30)
    here.finish()
    assert here.finetune().result(30)
    assert [line.split()[1] for line in (here.folder / "starts").read_text().splitlines()] == ["0", "2"]
    assert [line["step"] for line in job_of().metrics()] == [1, 2, 3, 4, 5]


def test_a_failure_states_its_reason(rig, monkeypatch):
    if rig.hosted:
        rig.server.outcome = "failed"
    else:
        monkeypatch.setenv("TRAINER_FAIL", "the loss is not a number")
    job = rig.finetune()
    with pytest.raises(FinetuneError, match="the loss is not a number"):
        job.result(30)
    assert job.status() is TrainingStatus.failed


def test_a_paid_training_is_repeated_only_by_force(hosted):
    hosted.server.outcome = "failed"
    with pytest.raises(FinetuneError):
        hosted.finetune().result(30)
    hosted.finish()
    with pytest.raises(FinetuneError, match="another attempt costs money again: use --force"):
        hosted.finetune().result(30)
    assert hosted.begun() == 1
    assert hosted.finetune(force=True).result(30)
    assert hosted.begun() == 2


def test_a_training_survives_the_process_that_started_it(rig):
    process = rig.process()
    try:
        at_step_two(rig)
    finally:
        process.kill()
        process.communicate()
    rig.finish()
    job = job_of()
    if not rig.hosted:  # nobody looks, and it comes to its end
        wait_until(lambda: job.result() is not None, "the result")
    attached = Training(job, rig_backend(rig, job))
    assert attached.follow().status is TrainingStatus.succeeded
    assert rig.begun() == 1


def rig_backend(rig, job):
    return child.ChildTrainer("tests.support.trainer") if rig.kind == "local" else backend_of(job.spec)


def test_a_killed_trainer_resumes_from_its_checkpoint(here):
    job = here.finetune()
    at_step_two(here)
    kill_child(job_of())
    with pytest.raises(FinetuneError, match=r"ended without a result.*resume from step-2"):
        job.result(30)
    here.finish()
    assert here.finetune().result(30)
    assert [line.split()[1] for line in (here.folder / "starts").read_text().splitlines()] == ["0", "2"]


def test_a_training_whose_processes_were_all_killed_is_resumed_by_the_next_run(here):
    """As after a power cut: nobody was there to write down that the training had ended."""
    process = here.process()
    at_step_two(here)
    process.kill()
    process.communicate()
    kill_child(job_of())
    assert job_of().state().status is TrainingStatus.running
    here.finish()
    assert here.finetune().result(30)
    assert job_of().state().attempt == 2


def test_killing_the_trainer_ends_its_program(here):
    job = here.finetune()
    at_step_two(here)
    os.kill(job_of().running().pid, signal.SIGKILL)
    with pytest.raises(FinetuneError, match="ended without a result"):
        job.result(30)
    program = int((here.folder / "starts").read_text().split()[0])
    wait_until(lambda: process_started(program) is None, "the program's end")


def test_another_process_with_the_same_pid_is_not_signalled(here):
    here.finetune()
    at_step_two(here)
    job = job_of()
    running = job.running()
    kill_child(job)
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        process = {"pid": stranger.pid, "started": running.started, "attempt": 1}
        (job.path / "process.json").write_text(json.dumps(process))
        child.stop(job)
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.5)
    finally:
        stranger.kill()
        stranger.wait()


# --- hosted: whatever happens on the way, one job is paid for


@pytest.mark.parametrize("kind", ["status", "before", "after"])
def test_a_failed_request_is_repeated_and_one_job_is_paid(hosted, kind):
    """Every request of a training fails once: 429, 5xx, a cut connection, before and after the server has done its work."""
    hosted.finish()
    faults = {"status": [Fault("status", 429), Fault("status", 503)]}.get(kind, [Fault(kind)])
    for pattern in (".*files", CREATE[hosted.kind], "GET|query GetFinetunes", "events|Events"):
        hosted.server.misbehave(pattern, *faults)
    assert hosted.finetune().result(30)
    assert hosted.begun() == 1
    assert hosted.server.count(CREATE[hosted.kind]) == (1 if kind == "after" else 2 if kind == "before" else 3)


def test_a_kill_between_creation_and_answer_creates_no_second_job(hosted):
    hosted.server.misbehave(CREATE[hosted.kind], Fault("hang"))
    process = hosted.process()
    wait_until(lambda: hosted.begun() == 1, "the creation")
    process.kill()
    process.communicate()
    assert "job" not in job_of().state().remote
    hosted.finish()
    assert hosted.finetune().result(30)
    assert hosted.begun() == 1
    assert any(event["kind"] == "adopted" for event in job_of().events())


def test_another_machine_adopts_the_job_of_the_same_spec(hosted, monkeypatch, tmp_path):
    """The ledger is elsewhere; the provider knows the job by our key, though it is on a later page."""
    first = hosted.finetune()
    wait_for(TrainingStatus.running)
    ours = hosted.server.jobs[0]
    asked = {**ours.asked, "metadata": None, "suffix": "x", "trainDataPath": "x", "training_file": "x"}
    hosted.server.jobs += [type(ours)(f"other-{n}", asked, ours.status) for n in range(5)]
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "another"))
    second = hosted.finetune()
    wait_for(TrainingStatus.running)
    hosted.finish()
    assert first.result(30).model == second.result(30).model
    assert hosted.begun() == 1 + 5


def test_without_metadata_the_job_is_found_by_its_file(tmp_path, monkeypatch, quick):
    with OpenAI() as server:
        server.plain = True
        rig = Rig("openai", tmp_path, server)
        set_environment(monkeypatch, rig)
        server.misbehave(CREATE["openai"], Fault("never"), Fault("after"))
        rig.finish()
        assert rig.finetune().result(30)
        assert rig.begun() == 1
        assert server.jobs[0].asked.get("metadata") is None


def test_models_of_earlier_steps_are_recorded(tmp_path, monkeypatch):
    with OpenAI() as server:
        rig = Rig("openai", tmp_path, server)
        set_environment(monkeypatch, rig)
        rig.finish()
        rig.finetune().result(30)
        assert job_of().checkpoints() == [f"ft:base:org::x:ckpt-step-{step}" for step in (1, 3, 5)]


def test_a_refused_job_costs_nothing_and_may_be_repeated(hosted):
    refused = hosted.lm("closed").finetune(ROWS, "chat", hosted.settings)
    with pytest.raises(FinetuneError, match=r"refused: .*no longer available"):
        refused.result(30)
    assert hosted.begun() == 0
    with pytest.raises(FinetuneError, match="no longer available"):
        hosted.lm("closed").finetune(ROWS, "chat", hosted.settings).result(30)


def test_a_wrong_key_does_not_end_a_training(hosted, monkeypatch):
    hosted.finetune()
    wait_for(TrainingStatus.running)
    job = job_of()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-0123456789abcdef")
    monkeypatch.setenv("DATABRICKS_TOKEN", "sk-wrong-0123456789abcdef")
    with pytest.raises(FinetuneError, match="the training continues"):
        Training(job, backend_of(job.spec)).follow()
    assert job.state().status is TrainingStatus.running
    hosted.finish()


def test_no_key_is_ever_written(hosted):
    hosted.finish()
    hosted.finetune().result(30)
    for path in job_of().path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_events_are_copied_once_and_in_order(hosted):
    job = hosted.finetune()
    wait_for(TrainingStatus.running)
    other = Training(job_of(), backend_of(job_of().spec))
    thread = threading.Thread(target=other.follow)
    thread.start()
    hosted.finish()
    job.result(30)
    thread.join()
    said = [event["message"] for event in job_of().events() if event["kind"] == "remote"]
    assert said == [
        event.get("message") or f"{event['eventType']}: {event['eventMessage']}" for event in hosted.server.jobs[0].events
    ]


# --- before anything is begun


def test_bad_rows_are_refused_before_anything_starts(rig):
    rows = [{"messages": [{"role": "user", "content": "x"}]}, {"messages": [{"role": "asistant", "content": ""}]}]
    with pytest.raises(DataError, match=r"(?s)3 problems.*row 1: the last turn is the user's.*row 2: .*did you mean 'assistant'"):
        rig.finetune(rows).result(30)
    assert rig.begun() == 0
    assert ledger.listed() == []


def test_an_unknown_setting_gets_a_suggestion(rig):
    with pytest.raises(ConfigError, match="train_kwargs: unknown setting '"):
        rig.finetune(n_epoch=3, comand=1).result(30)
    assert rig.begun() == 0
