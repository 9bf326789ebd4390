"""`ostinato serve` on the kept server: missed runs, failures, cancelled runs, schedules that others switched off or applied."""

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect import flow_engine
from prefect._internal.observers import FlowRunCancellingObserver
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

import runner
from flows.schedules.catch_up import unwanted
from flows.schedules.deployments import ENTRYPOINT, POOL
from flows.schedules.process import played_in_process
from flows.schedules.worker import Worker, patient
from tests.flows.clock import (
    FAKE,
    FINAL,
    NEVER,
    SECRETS,
    Clock,
    KeptServer,
    environment,
    listed,
    schedule,
    serving,
    standing,
)
from tests.support.clock import PATIENCE_S, wait_until
from tests.support.webhook import Webhook

pytestmark = pytest.mark.prefect

SLOW = [*FAKE, NEVER, "data.limit=1", "model.latency_s=3600", "limits.timeout_s=3600"]
TELLS = "schedule.notify.webhook_env=THEIR_HOOK"


def toggle(clock, name, *, active):
    """Switch the schedule of a deployment on or off, as Prefect's UI does."""
    known = clock.deployment(name)
    clock.api.call("PATCH", f"deployments/{known['id']}/schedules/{known['schedules'][0]['id']}", {"active": active})


def due(clock, name):
    """Return the runs that have been due for two seconds or more, and that no worker has taken."""
    ago = datetime.now(UTC) - timedelta(seconds=2)
    waiting = [run for run in clock.runs(name) if run["state_type"] == "SCHEDULED"]
    return [run["id"] for run in waiting if datetime.fromisoformat(run["expected_start_time"]) < ago]


@pytest.fixture(scope="module")
def server(kept, kept_home):
    return KeptServer(kept, kept_home)


@pytest.fixture(scope="module")
def given(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    return folder, environment(server.api_url, server.home, folder)


@pytest.fixture(scope="module")
def hook():
    with Webhook() as hook:
        yield hook


@pytest.fixture(scope="module")
def served(server, given, hook):
    """`ostinato serve`, with a history.

    When it starts, two schedules have missed some of their times and were switched off, and one was applied by a version whose
    flow was elsewhere.
    """
    folder, variables = given
    clock = Clock(server, folder)
    with standing(folder, variables):
        every = [*FAKE, "schedule.interval_s=2", "schedule.late_s=1"]
        schedule("apply", *every, "schedule.name=passed", "schedule.catch_up=none")
        schedule("apply", *every, "schedule.name=caught", "schedule.catch_up=all", "schedule.overlap=queue")
        wait_until(lambda: len(due(clock, "caught")) >= 2, "two times that are missed")
        missed = ("passed", "caught")
        for name in missed:
            toggle(clock, name, active=False)
        apply_elsewhere(clock)
        for name in missed:  # once more: Prefect's scheduler may have read it before, and written runs of it since
            toggle(clock, name, active=False)
        clock.missed = {name: [run["id"] for run in clock.runs(name)] for name in missed}
        with serving(clock, THEIR_HOOK=f"{hook.address}/{SECRETS['THEIR_HOOK']}"):
            wait_until(lambda: clock.deployment("moved")["entrypoint"] == ENTRYPOINT, "the start of the worker")
            yield clock


def apply_elsewhere(clock):
    """Apply a schedule as an earlier version, whose flow was elsewhere and whose schedules named a folder, and wait until
    Prefect's scheduler has seen it.
    """
    schedule("apply", *FAKE, NEVER, "schedule.name=moved")
    assert clock.deployment("moved")["entrypoint"] == ENTRYPOINT
    wait_until(lambda: clock.runs("moved"), "the scheduler")
    known = clock.deployment("moved")
    job = {name: value for name, value in known["parameters"]["job"].items() if name not in ("content", "origin", "runs_dir")}
    job |= {"folder": str(clock.folder), "config_name": "config", "config_dir": None}
    old = {"entrypoint": "flows.schedule.scheduled", "parameters": {"job": job}}
    clock.api.call("PATCH", f"deployments/{known['id']}", old)


@pytest.fixture
def clock(served, given):
    with standing(*given):
        yield served


def test_a_schedule_whose_flow_was_elsewhere_runs_here(clock):
    assert clock.state(schedule("run-now", "moved")["flow_run"], *FINAL)["type"] == "COMPLETED"
    assert len(clock.complete("moved")) == 1


def test_missed_runs_are_cancelled_with_catch_up_none(clock):
    states = [clock.state(run, "CANCELLED", "COMPLETED") for run in clock.missed["passed"]]
    assert states
    assert {state["type"] for state in states} == {"CANCELLED"}
    assert "catch_up=none" in states[0]["message"]


def test_catch_up_decides_which_missed_runs_run():
    now = datetime(2026, 1, 2, tzinfo=UTC)

    def run(minutes, catch_up, **more):
        policy = {"schedule": {"catch_up": catch_up, "late_s": 60.0}}
        facts = {"auto_scheduled": True, "deployment_id": catch_up, "expected_start_time": now - timedelta(minutes=minutes)}
        return SimpleNamespace(parameters={"job": policy}, **{**facts, **more})

    waiting = [run(minutes, catch_up) for minutes in (0.5, 2, 3, 600) for catch_up in ("none", "one", "all")]
    waiting.append(run(3, "none", auto_scheduled=False))
    passed = [(run.deployment_id, (now - run.expected_start_time).seconds // 60) for run, _ in unwanted(waiting, now)]
    assert sorted(passed) == [("none", 2), ("none", 3), ("none", 600), ("one", 3), ("one", 600)]


def test_a_schedule_that_is_switched_off_in_prefect_is_not_active(clock):
    assert not listed("passed")["active"]
    wait_until(lambda: listed("passed")["next"] is None, "the end of what was missed")
    schedule("apply", *FAKE, NEVER, "schedule.name=switched")
    toggle(clock, "switched", active=False)
    assert not listed("switched")["active"]
    schedule("resume", "switched")
    assert listed("switched")["active"]
    known = clock.deployment("switched")["id"]
    clock.api.post(f"deployments/{known}/pause_deployment")
    assert not listed("switched")["active"]
    clock.api.post(f"deployments/{known}/resume_deployment")
    assert listed("switched")["active"]


def said(hook, flow_run):
    """Wait until the webhook is told of a flow run. Returns what it was told."""
    told = hook.posted
    path, payload = wait_until(lambda: next((one for one in told if one[1]["flow_run"] == flow_run), None), "the webhook")
    assert path == f"/{SECRETS['THEIR_HOOK']}"
    return payload


def test_a_failure_is_retried_in_its_record_then_reported(clock, hook):
    file = clock.folder / "told.json"
    tell = f"import sys, pathlib; pathlib.Path('{file}').write_text(sys.stdin.read())"
    program = f"schedule.notify.command=['{sys.executable}',-c,\"{tell}\"]"
    failing = ["model.fail_rate=1", "limits.max_attempts=1", "schedule.retries=1", "schedule.retry_delay_s=0"]
    schedule("apply", *FAKE, NEVER, *failing, program, TELLS, "schedule.name=failing")
    flow_run = schedule("run-now", "failing")["flow_run"]
    state = clock.state(flow_run, *FINAL)
    (record,) = clock.records("failing")
    assert record.manifest()["schedule"]["attempt"] == 2
    told = said(hook, flow_run)
    assert json.loads(file.read_text()) == told
    expected = {"format": 1, "event": "failed", "schedule": "failing", "flow_run": flow_run, "tries": 2, "run": str(record.path)}
    assert expected.items() <= told.items()
    assert told["problem"] == state["message"]
    assert str(record.path) in state["message"]


def test_a_canary_of_a_worse_model_fails_and_is_reported(clock, hook):
    scored = ["model=fake", "scoring=regex", "scoring.pattern=Paris"]
    reference = runner.run(overrides=[*scored, "execution.orchestrator=none", "model.reply=Paris"]).folder
    canary = ["schedule.what=canary", f"schedule.canary.reference={reference}", "schedule.retries=1", "schedule.name=canary"]
    schedule("apply", *scored, *canary, TELLS, "model.choices=[Oslo,Rome,Paris]", NEVER)
    flow_run = schedule("run-now", "canary")["flow_run"]
    state = clock.state(flow_run, *FINAL)
    (first,) = clock.records("canary")
    assert state["type"] == "FAILED"
    assert "significantly worse" in state["message"]
    assert first.manifest()["canary"]["worse"]
    expected = {"event": "failed", "what": "canary", "tries": 1, "run": str(first.path), "problem": state["message"]}
    assert expected.items() <= said(hook, flow_run).items()


def test_a_run_whose_process_is_killed_is_reported_as_crashed(clock, hook):
    schedule("apply", *SLOW, TELLS, "schedule.name=killed")
    flow_run = schedule("run-now", "killed")["flow_run"]
    wait_until(lambda: clock.records("killed"), "the record")
    os.kill(int(clock.run(flow_run)["infrastructure_pid"]), signal.SIGKILL)
    assert clock.state(flow_run, *FINAL)["type"] == "CRASHED"
    told = said(hook, flow_run)
    assert (told["event"], told["run"]) == ("crashed", str(clock.records("killed")[0].path))


def test_missed_runs_are_caught_up_one_after_the_other(clock):
    assert len(clock.missed["caught"]) >= 2
    assert {clock.state(run, *FINAL)["type"] for run in clock.missed["caught"]} == {"COMPLETED"}
    times = sorted((run["start_time"], run["end_time"]) for run in map(clock.run, clock.missed["caught"]))
    assert all(ended <= began for (_, ended), (began, _) in pairwise(times))
    assert not listed("caught")["active"]


def test_a_run_can_be_cancelled_after_a_restart_of_the_server(clock, hook):
    schedule("apply", *SLOW, TELLS, "schedule.name=cancelled")
    flow_run = schedule("run-now", "cancelled")["flow_run"]
    wait_until(lambda: clock.records("cancelled"), "the record")
    for run in [*clock.missed["passed"], *clock.missed["caught"]]:
        clock.state(run, *FINAL)  # a process that starts while the server is away would crash
    clock.server.stop()
    clock.server.start()
    clock.api.post(f"flow_runs/{flow_run}/set_state", {"state": {"type": "CANCELLING"}})
    assert clock.state(flow_run, *FINAL)["type"] == "CANCELLED"
    (record,) = clock.records("cancelled")
    assert record.manifest()["status"] == "interrupted"
    assert not [told for _, told in hook.posted if told["flow_run"] == flow_run]


async def test_a_run_continues_when_the_server_has_forgotten_its_lease(server):
    told = []
    with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        async with asyncio.timeout(PATIENCE_S):
            with played_in_process(told.append):
                async with flow_engine.amaintain_concurrency_lease(uuid4(), 300, raise_on_lease_renewal_failure=True):
                    while not told:  # noqa: ASYNC110 - a thread of Prefect's tells
                        await asyncio.sleep(0.02)
    assert "the run continues" in told[0]


async def test_an_error_in_one_run_ends_no_other_run(server, monkeypatch):
    ended = []

    async def plays():
        await asyncio.sleep(0.1)
        ended.append("well")

    async def away(_):
        raise httpx.ConnectError("away")

    with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        async with Worker(work_pool_name=POOL, limit=2) as worker:
            monkeypatch.setattr(worker.client, "read_deployment", away)
            due = FlowRun(id=uuid4(), name="due", flow_id=uuid4(), deployment_id=uuid4())
            await worker._submit_scheduled_flow_runs([SimpleNamespace(flow_run=due)])
            worker._runs_task_group.start_soon(plays)
    assert ended == ["well"]
    assert not worker._submitting_flow_run_ids


async def test_cancelled_runs_are_looked_for_however_long_the_server_is_away(monkeypatch):
    looks = []

    async def away(*_, **__):
        looks.append("in vain")
        raise httpx.ConnectError("away")

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), patient():
        async with FlowRunCancellingObserver(on_cancelling=looks.append, polling_interval=0.01) as observer:
            observer._client = SimpleNamespace(read_flow_runs=away)
            observer.add_in_flight_flow_run_id(uuid4())
            async with asyncio.timeout(PATIENCE_S):
                while len(looks) < 10:  # noqa: ASYNC110 - Prefect's loop looks
                    await asyncio.sleep(0.01)
