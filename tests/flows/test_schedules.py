"""Schedules on a real server, played by a real `ostinato serve`: they fire, pause, retry, tell, and survive a restart."""

import http.server
import json
import signal
import sqlite3
import sys
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import play_fake
import pytest
from conftest import Api

import runner.cli
from flows import server
from flows.catch_up import unwanted
from runner.records import list_runs
from tests.command import Running

pytestmark = pytest.mark.prefect

FAKE = ["model=fake", "data.limit=2", "cache.mode=off"]
NEVER = "schedule.cron='0 3 1 1 *'"
SECRETS = {"THEIR_KEY": "kx7Pq2mB9vTz4LwR8sNd", "THEIR_HOOK": "w4GhY6tUe1JcXz0QaKoM"}


def schedule(*words):
    """`ostinato schedule ...` in this process, which spares its imports; its JSON."""
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("builtins.print", lambda *text, **_: said.extend(text))
        assert runner.cli.main(["schedule", *words, "--json"]) == 0
    return json.loads(said[-1])


def until(condition, what):
    """A run is a process that imports Prefect, and several may do so at once."""
    return play_fake.until(condition, what, within_s=180)


def missing(api):
    """Whether a run was due a while ago, and nothing has served it."""
    ago = (datetime.now(UTC) - timedelta(seconds=2)).isoformat()
    return api.post(
        "flow_runs/filter", {"flow_runs": {"expected_start_time": {"before_": ago}, "state": {"type": {"any_": ["SCHEDULED"]}}}}
    )


class Clock:
    """The schedules of one folder, the server that knows them and the worker that plays them."""

    def __init__(self, api, folder, worker):
        self.api, self.folder, self.worker = api, folder, worker

    def runs(self, name):
        found = self.api.post("flow_runs/filter", {"deployments": {"name": {"any_": [name]}}})
        return sorted(found, key=lambda run: run["expected_start_time"])

    def run(self, flow_run):
        (found,) = self.api.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
        return found

    def state(self, flow_run, *wanted):
        """The state of a flow run, once it is one of those wanted."""
        return until(lambda: (state := self.run(flow_run)["state"])["type"] in wanted and state, f"{wanted} of {flow_run}")

    def records(self, name):
        return [run for run in list_runs(self.folder / "runs") if run.manifest().get("schedule", {}).get("name") == name]

    def complete(self, name):
        return [run for run in self.records(name) if run.manifest()["status"] == "complete"]


@pytest.fixture(scope="module")
def environment(kept, private_runs, tmp_path_factory):
    """What every command of this module runs with, in the folder of the schedules."""
    folder = tmp_path_factory.mktemp("schedules")
    given = {
        "OSTINATO_HOME": str(private_runs.home),
        "PREFECT_API_URL": kept.api_url,
        "PREFECT_HOME": str(folder / "user-prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        **SECRETS,
    }
    return folder, given


@pytest.fixture(scope="module")
def hook():
    """A webhook on the loopback, and what was posted to it."""
    told = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever).start()
        yield f"http://127.0.0.1:{listening.server_port}", told
        listening.shutdown()


@pytest.fixture(scope="module")
def worker(environment, hook, kept):
    """`ostinato serve`, started when a schedule has missed some of its times already."""
    folder, given = environment
    api = Api(kept.api_url)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        patch.setenv("THEIR_HOOK", f"{hook[0]}/{SECRETS['THEIR_HOOK']}")
        patch.chdir(folder)
        schedule("apply", *FAKE, "schedule.name=missed", "schedule.interval_s=8", "schedule.catch_up=none", "schedule.late_s=1")
        until(lambda: missing(api), "a time that is missed")
        with Running("serve") as serving:
            yield serving


@pytest.fixture
def clock(environment, worker, api, monkeypatch):
    folder, given = environment
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return Clock(api, folder, worker)


def test_runs_that_were_missed_are_passed_over_when_the_schedule_says_so(clock):
    def passed():
        return [run for run in clock.runs("missed") if "catch_up=none" in (run["state"]["message"] or "")]

    assert {run["state_type"] for run in until(passed, "a missed run that is passed over")} == {"CANCELLED"}
    schedule("rm", "missed")
    assert "missed" not in {known["name"] for known in schedule("ls")["schedules"]}
    assert not [run for run in clock.runs("missed") if run["state_type"] == "SCHEDULED"]


def test_which_missed_runs_are_played():
    now = datetime(2026, 1, 2, tzinfo=UTC)

    def run(minutes, catch_up, **more):
        policy = {"schedule": {"catch_up": catch_up, "late_s": 60.0}}
        facts = {"auto_scheduled": True, "deployment_id": catch_up, "expected_start_time": now - timedelta(minutes=minutes)}
        return SimpleNamespace(parameters={"job": policy}, **{**facts, **more})

    waiting = [run(minutes, catch_up) for minutes in (0.5, 2, 3, 600) for catch_up in ("none", "one", "all")]
    waiting.append(run(3, "none", auto_scheduled=False))
    passed = [(run.deployment_id, (now - run.expected_start_time).seconds // 60) for run, _ in unwanted(waiting, now)]
    assert sorted(passed) == [("none", 2), ("none", 3), ("none", 600), ("one", 3), ("one", 600)]


def test_an_interval_fires_and_records_under_the_experiments_name(clock):
    schedule("apply", *FAKE, "schedule.name=ticks", "schedule.interval_s=5")
    until(lambda: len(clock.complete("ticks")) >= 3, "three runs of an interval")
    run = clock.complete("ticks")[0]
    assert run.path.parent.name == "capitals"
    manifest = run.manifest()
    facts = manifest["schedule"]
    assert datetime.fromisoformat(facts["due"]) <= datetime.fromisoformat(manifest["started_at"])
    assert clock.state(facts["flow_run"], "COMPLETED")
    (known,) = [known for known in schedule("ls")["schedules"] if known["name"] == "ticks"]
    assert known["active"]
    assert known["next"]
    assert known["config_hash"] == manifest["config_hash"]
    stages = clock.api.flow_run(run.path.name)
    assert stages["state_type"] == "COMPLETED"
    assert stages["parent_task_run_id"]
    assert set(clock.api.settled(run.path.name, 2)) == {"play", "summarise"}
    logged = clock.api.post("logs/filter", {"logs": {"flow_run_id": {"any_": [facts["flow_run"]]}}})
    assert f"ticks: complete, 2 of 2 rows ok: {run.path}" in {line["message"] for line in logged}


def test_pause_and_resume(clock):
    schedule("pause", "ticks")
    (known,) = [known for known in schedule("ls")["schedules"] if known["name"] == "ticks"]
    assert (known["active"], known["next"]) == (False, None)
    busy = {"PENDING", "RUNNING", "SCHEDULED"}
    until(lambda: not [run for run in clock.runs("ticks") if run["state_type"] in busy], "the end of what was begun")
    before = len(clock.records("ticks"))
    schedule("resume", "ticks")
    until(lambda: len(clock.complete("ticks")) > before, "a run after resuming")
    schedule("rm", "ticks")


def test_a_failure_is_tried_again_in_its_record_then_told(clock, hook):
    file = clock.folder / "told.json"
    tell = f"import sys, pathlib; pathlib.Path('{file}').write_text(sys.stdin.read())"
    program = f"schedule.notify.command=['{sys.executable}',-c,\"{tell}\"]"
    failing = ["model.fail_rate=1", "limits.max_attempts=1", "schedule.retries=1", "schedule.retry_delay_s=0"]
    schedule("apply", *FAKE, NEVER, *failing, program, "schedule.notify.webhook_env=THEIR_HOOK", "schedule.name=failing")
    flow_run = schedule("run-now", "failing")["flow_run"]
    state = clock.state(flow_run, "FAILED", "COMPLETED", "CRASHED")
    (record,) = clock.records("failing")
    assert record.manifest()["schedule"]["attempt"] == 2
    path, told = until(lambda: hook[1] and hook[1][0], "the webhook")
    assert path == f"/{SECRETS['THEIR_HOOK']}"
    assert json.loads(file.read_text()) == told
    expected = {"format": 1, "event": "failed", "schedule": "failing", "flow_run": flow_run, "tries": 2, "run": str(record.path)}
    assert expected.items() <= told.items()
    assert told["problem"] == state["message"]
    assert str(record.path) in state["message"]


def test_a_run_that_is_due_while_another_plays_is_skipped(clock):
    schedule("apply", *FAKE, NEVER, "schedule.name=slow", "model.latency_s=12", "data.limit=1")
    playing = schedule("run-now", "slow")["flow_run"]
    clock.state(playing, "RUNNING")
    until(lambda: clock.records("slow"), "the record")
    due = schedule("run-now", "slow")["flow_run"]
    assert "concurrency limit" in clock.state(due, "CANCELLED")["message"]


def test_the_run_and_the_worker_survive_a_restart_of_the_server(clock, kept):
    assert server.stop_kept()
    server.start_kept(kept.port)
    until(lambda: clock.complete("slow"), "the run")
    (run,) = clock.complete("slow")
    assert run.manifest()["schedule"]["due"] is None
    assert clock.state(run.manifest()["schedule"]["flow_run"], "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"


def test_a_stopped_worker_waits_for_what_plays_and_leaves_the_schedules(clock):
    schedule("apply", *FAKE, NEVER, "schedule.name=slow", "model.latency_s=2", "data.limit=1")
    playing = schedule("run-now", "slow")["flow_run"]
    clock.state(playing, "RUNNING")
    clock.worker.signal(signal.SIGTERM)
    done = clock.worker.wait()
    assert done.code == 0
    assert "waited for" in done.err
    assert clock.run(playing)["state_type"] == "COMPLETED"
    assert [known["active"] for known in schedule("ls")["schedules"] if known["name"] == "slow"] == [True]


def test_no_secret_is_in_the_servers_database(clock, private_runs):
    with sqlite3.connect(private_runs.home / "prefect" / "prefect.db") as database:
        everything = "\n".join(database.iterdump())
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
    assert "there are: failing, slow" in capsys.readouterr().err
