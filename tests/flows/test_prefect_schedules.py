"""Schedules on a real server: they fire, are paused, asked for and removed; a canary fails; nothing secret is kept."""

from __future__ import annotations

import json
import signal
import sqlite3

import pytest

from tests.command import Running, ostinato, wait_until

pytestmark = pytest.mark.prefect

WITHIN_S = 120.0


class Clock:
    """A folder with schedules, on the kept server."""

    def __init__(self, folder, url, home):
        self.folder = folder
        self.environment = {"PREFECT_API_URL": url, "OSTINATO_HOME": str(home), "PREFECT_WORKER_QUERY_SECONDS": "1"}

    def ask(self, *words):
        return ostinato("schedule", *words, **self.environment)

    def serve(self):
        return Running("serve", **self.environment)

    def runs(self, name):
        found = sorted((self.folder / "runs" / name).glob("[0-9]*/summary.json"))
        return [json.loads(file.read_text()) for file in found]

    def facts(self, name):
        (facts,) = [one for one in self.ask("ls", "--json").json["schedules"] if one["name"] == name]
        return facts


@pytest.fixture
def clock(kept, in_tmp, private_runs):
    (in_tmp / "rows.jsonl").write_text("".join(json.dumps({"id": n, "q": f"q{n}", "a": "yes"}) + "\n" for n in range(20)))
    return Clock(in_tmp, kept.api_url, private_runs.home)


def overrides(name, *more, reply="yes"):
    data = ["data=jsonl", "data.path=rows.jsonl", "data.target=a", "prompt.system=null", "prompt.user={{ q }}"]
    return [*data, "model=fake", f"model.reply={reply}", "cache.mode=off", f"name={name}", *more]


def test_an_interval_fires_is_paused_resumed_asked_for_and_removed(clock, private_runs):
    applied = clock.ask("apply", *overrides("tick"), "schedule.interval_s=5", "--json")
    assert applied.code == 0, applied.err
    assert applied.json["active"]
    with clock.serve() as serving:
        wait_until(lambda: len(clock.runs("tick")) >= 3, "three runs", WITHIN_S)
        assert {run["status"] for run in clock.runs("tick")} == {"complete"}
        assert clock.ask("pause", "tick").code == 0
        assert not clock.facts("tick")["active"]
        wait_until(lambda: clock.facts("tick")["next"] is None, "no run to come", WITHIN_S)
        before = len(clock.runs("tick"))
        assert clock.ask("run-now", "tick", "--json").json["flow_run"]
        wait_until(lambda: len(clock.runs("tick")) > before, "the run that was asked for", WITHIN_S)
        assert clock.ask("resume", "tick").code == 0
        wait_until(lambda: len(clock.runs("tick")) > before + 1, "a run after resuming", WITHIN_S)
        assert clock.ask("rm", "tick").code == 0
        assert clock.ask("ls", "--json").json["schedules"] == []
        serving.signal(signal.SIGINT)
        assert serving.wait().code == 0
    manifest = json.loads(next((clock.folder / "runs" / "tick").glob("[0-9]*/manifest.json")).read_text())
    assert manifest["schedule"]["name"] == "tick"


def test_a_canary_that_is_worse_fails_and_says_so(clock):
    reference = ostinato("run", *overrides("bird"), "execution.orchestrator=none", "--json")
    assert reference.code == 0, reference.err
    told = clock.folder / "told.json"
    watch = ["schedule.what=canary", "schedule.interval_s=3600", "schedule.canary.reference=latest"]
    command = f"schedule.notify.command=[sh,-c,'cat > {told}']"
    applied = clock.ask("apply", *overrides("bird", reply="no"), *watch, command)
    assert applied.code == 0, applied.err
    with clock.serve():
        assert clock.ask("run-now", "bird-canary").code == 0
        wait_until(told.exists, "word of the failure", WITHIN_S)
        wait_until(lambda: told.read_text().strip().endswith("}"), "all of it", WITHIN_S)
    failure = json.loads(told.read_text())
    assert (failure["event"], failure["schedule"]) == ("failed", "bird-canary")
    assert "significantly worse" in failure["problem"]
    clock.ask("rm", "bird-canary")


def test_what_cannot_be_played_is_refused_before_anything_is_made(clock):
    for more, problem in [
        (["schedule.cron='61 3 * * *'"], "schedule.cron"),
        ([], "say when"),
        (["schedule.interval_s=5", "schedule.what=nap"], "there is no 'nap'"),
        (["schedule.interval_s=5", "data.path=nowhere.jsonl"], "nowhere.jsonl"),
        (["schedule.interval_s=5", "model.params.note=sk-proj-abcdefghijklmnopqrst"], "secret"),
    ]:
        done = clock.ask("apply", *overrides("never"), *more)
        assert done.code in (1, 2), done.err
        assert problem in done.err
    assert clock.ask("ls", "--json").json["schedules"] == []


def test_the_servers_database_holds_no_secret(clock, private_runs):
    key = "sk-proj-verysecretverysecret1234"
    clock.environment["HIDDEN_KEY"] = key
    model = ["model=server", "model.name=x", "model.api_base=http://127.0.0.1:9/v1", "model.api_key_env=HIDDEN_KEY"]
    plain = [override for override in overrides("quiet") if not override.startswith("model")]
    applied = clock.ask("apply", *plain, *model, "limits.max_attempts=1", "schedule.interval_s=3600")
    assert applied.code == 0, applied.err
    with clock.serve():
        clock.ask("run-now", "quiet")
        wait_until(lambda: clock.runs("quiet"), "a run", WITHIN_S)
        wait_until(lambda: clock.facts("quiet")["last_state"] == "Failed", "its end", WITHIN_S)
    clock.ask("rm", "quiet")
    with sqlite3.connect(private_runs.home / "prefect" / "prefect.db") as database:
        dump = "\n".join(database.iterdump())
    assert "quiet" in dump
    assert key not in dump
