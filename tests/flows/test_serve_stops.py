"""What a signal does to `ostinato serve`, and that Prefect's own worker runs the same schedules. Each test has its own worker."""

import signal
import sys

import pytest

from flows.schedules.deployments import POOL
from runner.system import processes
from tests.flows.clock import FAKE, FINAL, NEVER, Clock, KeptServer, environment, gated, listed, schedule, serving, standing

pytestmark = pytest.mark.prefect


@pytest.fixture
def clock(kept, kept_home, tmp_path):
    server = KeptServer(kept, kept_home)
    with standing(tmp_path, environment(server.api_url, server.home, tmp_path)):
        yield Clock(server, tmp_path)


def test_a_stopped_worker_waits_for_its_runs_and_leaves_the_schedules_active(clock):
    with gated() as gate, serving(clock):
        schedule("apply", *gate.model, "schedule.name=short")
        flow_run = schedule("run-now", "short")["flow_run"]
        gate.asked()
        clock.worker.signal(signal.SIGTERM)
        clock.worker.says("waiting for current runs")
        gate.open()
        assert clock.worker.wait().code == 0
        assert clock.run(flow_run)["state_type"] == "COMPLETED"
        assert listed("short")["active"]


def test_the_second_ctrl_c_cancels_the_runs(clock):
    with gated() as gate, serving(clock):
        schedule("apply", *gate.model, "schedule.name=long")
        flow_run = schedule("run-now", "long")["flow_run"]
        gate.asked()
        clock.worker.signal(signal.SIGINT)
        clock.worker.says("waiting for current runs")
        clock.worker.signal(signal.SIGINT)
        assert clock.worker.wait().code == 130
        assert clock.run(flow_run)["state_type"] == "CANCELLED"
        assert clock.records("long")[0].manifest()["status"] == "interrupted"


def test_prefects_own_worker_runs_schedules_too(clock):
    schedule("apply", *FAKE, NEVER, "schedule.name=theirs")
    worker = processes.start(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL], log=clock.folder / "worker.log"
    )
    flow_run = schedule("run-now", "theirs")["flow_run"]
    state = clock.state(flow_run, *FINAL)
    worker.stop(processes.GRACE_S)
    assert state["type"] == "COMPLETED"
    assert flow_run in {run.manifest()["schedule"]["flow_run"] for run in clock.complete("theirs")}
