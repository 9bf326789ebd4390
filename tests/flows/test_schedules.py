"""Schedules on real servers, the kept one and `prefect server start` on PostgreSQL, played by a real `ostinato serve`."""

from datetime import datetime

import pytest

import runner.cli
from tests.flows import postgres
from tests.flows.clock import FAKE, NEVER, SECRETS, Clock, KeptServer, OwnServer, environment, listed, schedule, serving, standing
from tests.support.clock import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.alone]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request, tmp_path_factory):
    """A server, by the database that it keeps its schedules in."""
    if request.param == "sqlite":
        yield KeptServer(request.getfixturevalue("kept"), request.getfixturevalue("private_runs").home)
        return
    programs = postgres.programs()
    if programs is None and not postgres.REQUIRED:
        pytest.skip("there is no PostgreSQL: no initdb on PATH, and none where Debian's package `postgresql` has it")
    assert programs is not None, "OSTINATO_TEST_POSTGRES=required, and there is no PostgreSQL"
    with postgres.running(programs) as cluster:
        own = OwnServer(cluster, tmp_path_factory.mktemp("own"))
        own.start()
        yield own
        own.stop()


@pytest.fixture(scope="module")
def played(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("schedules")
    with standing(folder, environment(backend.api_url, backend.home, folder)), serving(Clock(backend, folder)) as clock:
        yield clock


@pytest.fixture
def clock(played):
    """What every test of this module goes on with, where the one before it has left off."""
    with standing(played.folder, environment(played.server.api_url, played.server.home, played.folder)):
        yield played


def test_an_interval_fires_and_records_under_the_experiments_name(clock):
    schedule("apply", *FAKE, "schedule.name=ticks", "schedule.interval_s=5")
    wait_until(lambda: len(clock.complete("ticks")) >= 2, "two runs of an interval")
    due = [datetime.fromisoformat(run.manifest()["schedule"]["due"]) for run in clock.complete("ticks")]
    assert (due[0] - due[1]).total_seconds() % 5 == 0
    run = clock.complete("ticks")[0]
    assert run.path.parent.name == "capitals"
    manifest = run.manifest()
    facts = manifest["schedule"]
    assert datetime.fromisoformat(facts["due"]) <= datetime.fromisoformat(manifest["started_at"])
    assert clock.state(facts["flow_run"], "COMPLETED")
    known = listed("ticks")
    assert known["active"]
    assert known["next"]
    assert known["config_hash"] == manifest["config_hash"]
    stages = clock.api.flow_run(run.path.name)
    assert stages["state_type"] == "COMPLETED"
    assert stages["parent_task_run_id"]
    assert set(clock.api.settled(run.path.name, 2)) == {"play", "summarise"}
    logged = clock.api.post("logs/filter", {"logs": {"flow_run_id": {"any_": [facts["flow_run"]]}}})
    assert f"ticks: complete, 2 of 2 rows ok: {run.path}" in {line["message"] for line in logged}


def test_what_is_paused_does_not_fire(clock):
    schedule("pause", "ticks")
    known = listed("ticks")
    assert (known["active"], known["next"]) == (False, None)
    busy = {"PENDING", "RUNNING", "SCHEDULED"}
    wait_until(lambda: not [run for run in clock.runs("ticks") if run["state_type"] in busy], "the end of what was begun")
    clock.paused = {run.path for run in clock.records("ticks")}
    schedule("resume", "ticks")
    assert listed("ticks")["active"]


def test_a_run_that_is_due_while_another_plays_is_skipped(clock):
    schedule("apply", *FAKE, NEVER, "schedule.name=slow", "model.latency_s=12", "data.limit=1")
    playing = schedule("run-now", "slow")["flow_run"]
    clock.state(playing, "RUNNING")
    wait_until(lambda: clock.records("slow"), "the record")
    due = schedule("run-now", "slow")["flow_run"]
    assert "concurrency limit" in clock.state(due, "CANCELLED")["message"]


def test_the_run_and_the_worker_survive_a_restart_of_the_server(clock):
    clock.server.stop()
    clock.server.start()
    wait_until(lambda: clock.complete("slow"), "the run")
    (run,) = clock.complete("slow")
    assert run.manifest()["schedule"]["due"] is None
    assert clock.state(run.manifest()["schedule"]["flow_run"], "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
    again = schedule("run-now", "slow")["flow_run"]
    assert clock.state(again, "RUNNING", "CANCELLED")["type"] == "RUNNING"  # nobody holds the schedule any more
    clock.api.post(f"flow_runs/{again}/set_state", {"state": {"type": "CANCELLING"}})
    clock.state(again, "CANCELLED")


def test_what_is_resumed_fires_again_until_it_is_removed(clock):
    wait_until(lambda: [run for run in clock.complete("ticks") if run.path not in clock.paused], "a run after resuming")
    schedule("rm", "ticks")
    assert "ticks" not in {known["name"] for known in schedule("ls")["schedules"]}
    assert not [run for run in clock.runs("ticks") if run["state_type"] == "SCHEDULED"]


def test_no_secret_is_in_the_servers_database(clock):
    schedule("apply", *FAKE, NEVER, "schedule.notify.webhook_env=THEIR_HOOK", "schedule.name=telling")
    everything = clock.server.everything()
    assert "schedule.notify.webhook_env=THEIR_HOOK" in everything
    assert not [name for name, value in SECRETS.items() if value in everything]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["schedule.cron='61 * * * *'"], "schedule.cron: Invalid cron"),
        (["schedule.cron='1 * * * *'", "schedule.timezone=Mars/Base"], "schedule.timezone: Invalid timezone"),
        (["schedule.rrule=FREQ=OFTEN"], "schedule.rrule: Invalid RRule"),
    ],
)
def test_times_that_cannot_be_understood(clock, overrides, told, capsys):
    assert runner.cli.main(["schedule", "apply", *FAKE, *overrides]) == 2
    assert told in capsys.readouterr().err


def test_a_name_belongs_to_the_folder_that_applied_it(clock, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runner.cli.main(["schedule", "apply", *FAKE, NEVER, "schedule.name=slow"]) == 2
    assert f"of {clock.folder}" in capsys.readouterr().err
    assert runner.cli.main(["schedule", "rm", "slwo"]) == 2
    _, _, names = capsys.readouterr().err.strip().partition("there are: ")
    assert {"slow", "telling"} <= set(names.split(", "))
