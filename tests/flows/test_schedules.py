"""Schedules on real servers, the kept one and `prefect server start` on PostgreSQL, run by a real `ostinato serve`."""

from datetime import datetime

import pytest

import runner.cli
from tests.flows import postgres
from tests.flows.clock import (
    FAKE,
    NEVER,
    SECRETS,
    Clock,
    KeptServer,
    OwnServer,
    environment,
    gated,
    listed,
    pause,
    schedule,
    serving,
    standing,
)
from tests.support.clock import wait_until

pytestmark = pytest.mark.prefect


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request, tmp_path_factory):
    """A server, by the database that it keeps its schedules in."""
    if request.param == "sqlite":
        yield KeptServer(request.getfixturevalue("kept"), request.getfixturevalue("kept_home"))
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
def served(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("schedules")
    with standing(folder, environment(backend.api_url, backend.home, folder)), serving(Clock(backend, folder)) as clock:
        yield clock


@pytest.fixture
def clock(served):
    """A folder without schedules of its own, whose schedules a worker runs."""
    with standing(served.folder, environment(served.server.api_url, served.server.home, served.folder)):
        yield served


def assert_recorded(clock, name, run):
    """Check what a run of an interval leaves: its record, its flow runs, its line in the log."""
    assert run.path.parent.name == "capitals"
    manifest = run.manifest()
    facts = manifest["schedule"]
    assert datetime.fromisoformat(facts["due"]) <= datetime.fromisoformat(manifest["started_at"])
    assert clock.state(facts["flow_run"], "COMPLETED")
    known = listed(name)
    assert known["active"]
    assert known["next"]
    assert known["config_hash"] == manifest["config_hash"]
    stages = clock.api.flow_run(run.path.name)
    assert stages["state_type"] == "COMPLETED"
    assert stages["parent_task_run_id"]
    assert set(clock.api.settled(run.path.name, 2)) == {"play", "summarise"}
    logged = clock.api.post("logs/filter", {"logs": {"flow_run_id": {"any_": [facts["flow_run"]]}}})
    assert f"{name}: complete, 2 of 2 rows ok: {run.path}" in {line["message"] for line in logged}


def test_an_interval_fires_unless_it_is_paused_until_it_is_removed(clock):
    schedule("apply", *FAKE, "schedule.name=ticks", "schedule.interval_s=3")
    wait_until(lambda: len(clock.complete("ticks")) >= 2, "two runs of an interval")
    due = [datetime.fromisoformat(run.manifest()["schedule"]["due"]) for run in clock.complete("ticks")]
    assert (due[0] - due[1]).total_seconds() % 3 == 0
    assert_recorded(clock, "ticks", clock.complete("ticks")[0])

    pause("ticks")
    assert not listed("ticks")["active"]
    busy = {"PENDING", "RUNNING", "SCHEDULED"}
    wait_until(lambda: not [run for run in clock.runs("ticks") if run["state_type"] in busy], "the end of what was started")
    before = {run.path for run in clock.records("ticks")}

    schedule("resume", "ticks")
    assert listed("ticks")["active"]
    wait_until(lambda: [run for run in clock.complete("ticks") if run.path not in before], "a run after resuming")

    schedule("rm", "ticks")
    assert "ticks" not in {known["name"] for known in schedule("ls")["schedules"]}
    assert not [run for run in clock.runs("ticks") if run["state_type"] == "SCHEDULED"]


@pytest.mark.parametrize(
    "times",
    [
        ["schedule.interval_s=900"],
        ["schedule.cron='30 2 * * *'", "schedule.timezone=Europe/Berlin"],
        ["schedule.rrule='DTSTART:20991231T030000 RRULE:FREQ=DAILY;COUNT=2'"],
    ],
)
def test_the_dates_that_are_told_are_those_of_the_server(clock, times):
    told = schedule("apply", *FAKE, *times, "schedule.name=dated")
    dates = [datetime.fromisoformat(date) for date in told["dates"]]
    planned = [datetime.fromisoformat(run["expected_start_time"]) for run in clock.runs("dated")]
    if "2099" in times[0]:  # too far ahead to be planned
        assert [date.isoformat() for date in dates] == ["2099-12-31T03:00:00+00:00", "2100-01-01T03:00:00+00:00"]
        assert not planned
    else:
        assert dates == planned[:3]
    known = listed("dated")
    assert (known["next"], known["problem"], known["ended"]) == (known["next"], None, False)
    assert datetime.fromisoformat(known["next"]) == dates[0].replace(microsecond=0)
    schedule("rm", "dated")


def test_a_schedule_that_cannot_be_planned_is_listed_as_failed(clock, capsys):
    schedule("apply", *FAKE, NEVER, "schedule.name=doomed")
    known = clock.deployment("doomed")
    never = {"schedules": [{"schedule": {"cron": "0 3 31 2 *", "timezone": "UTC"}, "active": True}]}
    clock.api.call("PATCH", f"deployments/{known['id']}", never)  # as an earlier version of Ostinato would have applied it
    told = listed("doomed")
    assert told["problem"].startswith("Prefect cannot plan it")
    assert told["next"] is None
    capsys.readouterr()
    assert runner.cli.main(["schedule", "ls"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("doomed ")]
    assert "failed (Prefect cannot plan it" in line
    schedule("rm", "doomed")


def test_a_run_survives_a_restart_of_the_server_and_others_are_skipped_meanwhile(clock):
    with gated() as gate:
        schedule("apply", *gate.model, NEVER, "schedule.name=slow")
        first = schedule("run-now", "slow")["flow_run"]
        gate.asked()
        second = schedule("run-now", "slow")["flow_run"]
        assert "concurrency limit" in clock.state(second, "CANCELLED")["message"]

        clock.server.stop()
        clock.server.start()
        gate.open()
        wait_until(lambda: clock.complete("slow"), "the run")
        (run,) = clock.complete("slow")
        assert run.manifest()["schedule"]["due"] is None
        assert run.manifest()["schedule"]["flow_run"] == first
        assert clock.state(first, "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"

        gate.close()
        third = schedule("run-now", "slow")["flow_run"]
        assert clock.state(third, "RUNNING", "CANCELLED")["type"] == "RUNNING"  # nobody holds the schedule any more
        gate.asked(times=2)
        clock.api.post(f"flow_runs/{third}/set_state", {"state": {"type": "CANCELLING"}})
        clock.state(third, "CANCELLED")


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
def test_times_that_cannot_be_parsed_are_refused(clock, overrides, told, capsys):
    assert runner.cli.main(["schedule", "apply", *FAKE, *overrides]) == 2
    assert told in capsys.readouterr().err


def test_a_name_belongs_to_the_folder_that_applied_it(clock, capsys, tmp_path, monkeypatch):
    for name in ("mine", "other"):
        schedule("apply", *FAKE, NEVER, f"schedule.name={name}")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    assert runner.cli.main(["schedule", "apply", *FAKE, NEVER, "schedule.name=mine"]) == 2
    assert f"already exists, for {clock.folder}" in capsys.readouterr().err
    assert runner.cli.main(["schedule", "rm", "mnie"]) == 2
    _, _, names = capsys.readouterr().err.strip().partition("there are: ")
    assert {"mine", "other"} <= set(names.split(", "))
