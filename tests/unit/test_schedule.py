"""Schedules without a scheduler: what is applied, what is refused, a canary's verdict, who is notified."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import pytest

import runner
from runner.config.compose import compose
from runner.config.roles import config_hash
from runner.errors import CanaryFailed, CanaryUndecided, ConfigError, DataError, ScheduleError
from runner.schedules.canary import is_worse
from runner.schedules.content import unpack
from runner.schedules.job import Job, Turn
from runner.schedules.notify import notify
from tests.support.server import Reply, Server
from tests.support.webhook import Webhook

FAKE = ["model=fake", "cache.mode=off", "execution.orchestrator=none"]
DAILY = [*FAKE, "schedule.cron='0 3 * * *'"]

pytestmark = pytest.mark.usefixtures("in_tmp")


async def unused(*_, **__):
    raise AssertionError("execution.orchestrator=none")


def prepared(overrides):
    """Prepare a job, and bring what it carries to this machine, as a worker does."""
    job, content = Job.prepare(overrides)
    unpack(content.packed, content.sha256)
    return job


async def play(job, attempt=1, flow_run="one"):
    """Play a turn as a worker does, in the folder of what the job carries."""
    with contextlib.chdir(job.files):
        await turn(job, attempt, flow_run).run()


def turn(job, attempt=1, flow_run="one"):
    return Turn(
        job=job, config=job.config(), flow_run=flow_run, due=None, attempt=attempt, orchestrate=unused, notify=lambda _line: None
    )


def played(*overrides):
    return runner.run(overrides=[*FAKE, *overrides]).folder


def test_a_schedule_does_not_change_the_config_hash():
    assert config_hash(compose(FAKE).config()) == config_hash(compose([*DAILY, "schedule.retries=3"]).config())


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "give schedule.cron, schedule.interval_s or schedule.rrule"),
        (["schedule.cron='0 3 * * *'", "schedule.interval_s=5"], "cron and interval_s are given together"),
        (["schedule.interval_s=5", "schedule.catch_up=all"], "give overlap=queue"),
        (["schedule.interval_s=5", "schedule.what=canry"], "did you mean 'canary'"),
        (["schedule.interval_s=5", "schedule.what=canary"], "schedule.canary.reference: is required"),
        (["schedule.interval_s=5", "schedule.notify.webhook_env=https://hooks.example/T0"], "not the URL itself"),
        (["schedule.interval_s=5", "prompt.user='{{ nothing }}'"], "nothing"),
        (["schedule.interval_s=5", "prompt.system='sk-abcdefghijklmnop1234'"], "looks like a secret"),
    ],
)
def test_schedules_that_cannot_run_are_refused(overrides, told):
    with pytest.raises((ConfigError, DataError), match=told) as caught:
        Job.prepare([*FAKE, *overrides])
    assert "abcdefghijklmnop" not in str(caught.value)


def test_a_job_survives_a_round_trip_as_json(in_tmp):
    job = prepared(DAILY)
    assert Job.of(json.loads(json.dumps(job.parameters()))) == job
    assert (job.name, job.experiment, job.place, job.folder) == ("capitals", "capitals", in_tmp, None)
    assert str(in_tmp) not in json.dumps(job.parameters())


def test_what_was_applied_is_what_is_played(in_tmp):
    (in_tmp / "conf" / "prompt").mkdir(parents=True)
    prompt = in_tmp / "conf" / "prompt" / "mine.yaml"
    prompt.write_text("user: 'Capital of {{ country }}?'\n")
    job = prepared([*DAILY, "prompt=mine"])
    prompt.write_text("user: 'Which city is the capital of {{ country }}?'\n")
    assert (job.config().name, job.config().prompt.user) == ("capitals", "Capital of {{ country }}?")


def test_a_job_of_an_earlier_version_composes_again_in_its_folder(in_tmp):
    (in_tmp / "conf" / "prompt").mkdir(parents=True)
    prompt = in_tmp / "conf" / "prompt" / "mine.yaml"
    prompt.write_text("user: 'Capital of {{ country }}?'\n")
    parameters = prepared([*DAILY, "prompt=mine"]).parameters()
    kept = ("name", "experiment", "overrides", "config_hash", "schedule")
    job = Job.of({**{name: parameters[name] for name in kept}, "folder": str(in_tmp)})
    assert (job.files, job.place, job.config().name) == (in_tmp, in_tmp, "capitals")
    prompt.write_text("user: 'Which city is the capital of {{ country }}?'\n")
    with pytest.raises(ScheduleError, match="not the one that was applied"):
        job.config()


async def test_a_turn_is_recorded_with_the_hash_that_was_applied(in_tmp):
    job = prepared(DAILY)
    await play(job)
    manifest = json.loads((in_tmp / "runs" / "capitals" / "latest" / "manifest.json").read_text())
    assert manifest["config_hash"] == job.config_hash
    facts = {"name": "capitals", "what": "run", "flow_run": "one", "due": None, "attempt": 1, "content": job.content, "git": None}
    assert manifest["schedule"] == facts


async def test_a_retry_resumes_the_record_of_its_turn(in_tmp):
    job = prepared([*DAILY, "model.fail_rate=1", "limits.max_attempts=1"])
    for attempt in (1, 2):
        with pytest.raises(ScheduleError, match="the run is failed"):
            await play(job, attempt)
    with pytest.raises(ScheduleError):
        await play(job, flow_run="two")
    assert len(list((in_tmp / "runs" / "capitals").glob("2*/manifest.json"))) == 2


def test_only_a_significantly_worse_run_is_worse():
    good, bad, same = played("model.reply=Paris"), played("model.reply=Oslo"), played("model.reply=Paris")
    every = (
        played("scoring=regex", "scoring.pattern=x", "model.reply=x"),
        played("scoring=regex", "scoring.pattern=x", "model.reply=y"),
    )
    assert not is_worse(good, same, 0.95).worse
    assert not is_worse(good, bad, 0.95).worse  # one row of sixty
    verdict = is_worse(*every, 0.95)
    assert (verdict.worse, verdict.mean, verdict.rows) == (True, -1.0, 60)
    assert verdict.p == pytest.approx(2**-60)
    assert not is_worse(*reversed(every), 0.95).worse
    with pytest.raises(DataError, match="different data"):
        is_worse(good, played("data.limit=3"), 0.95)


async def test_a_canary_bypasses_the_cache_and_fails_on_a_worse_model(monkeypatch):
    scored = ["model=fake", "execution.orchestrator=none", "scoring=regex", "scoring.pattern=Paris", "schedule.interval_s=60"]
    reference = runner.run(overrides=[*scored, "model.reply=Paris"]).folder
    canary = [*scored, "schedule.what=canary", "schedule.canary.reference=latest"]
    job = prepared([*canary, "model.reply=Paris"])
    assert job.name == "capitals-canary"
    assert job.schedule.canary.reference == f"capitals/{reference.name}"
    await play(job)
    summary = json.loads((reference.parent / "latest" / "summary.json").read_text())
    assert (summary["cache_hits"], summary["requests"]) == (0, 60)
    with pytest.raises(CanaryFailed, match="significantly worse"):
        await play(prepared([*canary, "model.choices=[Oslo,Rome,Paris]"]))
    verdict = json.loads((reference.parent / "latest" / "manifest.json").read_text())["canary"]
    assert verdict["worse"]
    assert verdict["reference"] != f"capitals/{reference.name}"  # latest was pinned when it was applied


def test_a_canary_that_what_was_left_out_can_turn_is_undecided():
    """Before, the model knew the first 8 rows; now it refuses the others, which it did not know."""
    rows = [{"id": f"r{n}", "question": f"{n}", "answer": "yes"} for n in range(20)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Server(lambda call: Reply("yes" if int(call.question) < 8 else "no")) as server:
        config = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none", "name=rows"]
        config += ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=exact"]
        runner.run(overrides=config)
        server.otherwise = lambda call: Reply("no") if int(call.question) < 8 else Reply(None, finish_reason="content_filter")
        job = prepared([*config, "schedule.interval_s=60", "schedule.what=canary", "schedule.canary.reference=latest"])
        with pytest.raises(CanaryUndecided, match=r"undecided whether it is worse than the reference: exact -1\.000") as error:
            asyncio.run(play(job))
    assert error.value.exit_code == 3
    assert json.loads(Path("runs/rows/latest/manifest.json").read_text())["canary"]["undecided"]


def test_a_canary_that_replays_the_cache_is_refused():
    played()
    with pytest.raises(ConfigError, match="replay would only repeat"):
        Job.prepare([*DAILY, "schedule.what=canary", "schedule.canary.reference=latest", "cache.mode=replay"])


def test_a_command_and_a_webhook_are_notified(in_tmp, monkeypatch):
    command = [sys.executable, "-c", "import sys, pathlib; pathlib.Path('told').write_text(sys.stdin.read())"]
    with Webhook() as hook:
        monkeypatch.setenv("HOOK", f"{hook.address}/secret-path-9Xk2")
        assert notify({"format": 1, "problem": "it broke"}, command=command, webhook_env="HOOK") == []
        monkeypatch.setenv("HOOK", f"{hook.address}/broken")
        assert "500" in notify({}, webhook_env="HOOK")[0]
    assert hook.posted[0][1] == json.loads((in_tmp / "told").read_text()) == {"format": 1, "problem": "it broke"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"command": ["/no/such/program"]}, "No such file"),
        ({"command": [sys.executable, "-c", "raise SystemExit('not today')"]}, "ended with 1: not today"),
        ({"webhook_env": "UNSET"}, "UNSET is not set"),
        ({"webhook_env": "FILE"}, "not an http"),
        ({"webhook_env": "NOBODY"}, "URLError"),
    ],
)
def test_notification_errors_are_returned_without_secrets(arguments, told, monkeypatch):
    monkeypatch.setenv("FILE", "file:///etc/passwd")
    monkeypatch.setenv("NOBODY", "http://127.0.0.1:9/tokens/aVerySecretPath")
    (problem,) = notify({}, **arguments)
    assert told in problem
    assert "aVerySecretPath" not in problem
