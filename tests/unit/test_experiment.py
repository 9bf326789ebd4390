"""One experiment, played through the Python API: what is recorded, what is still owed, and what it is scored by."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import runner
from runner.config.compose import compose, read
from runner.config.load import load
from runner.config.schema import RunConfig
from runner.errors import CacheError, ConfigError, DataError, RecordError
from runner.experiment.rescore import score
from runner.experiment.run import resume
from runner.network.retry import without_sleeping
from runner.records import RunFolder
from runner.scoring import summarise
from runner.types import Score
from tests.support.server import Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

QUIET = ["execution.orchestrator=none"]
FAKE = ["model=fake", *QUIET]
KEY = "hunter2hunter2x9Qz"


def questions(count, path="rows.jsonl"):
    """A data file, and the overrides that use it; the target of row n is "even" or "odd"."""
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": "odd" if n % 2 else "even"} for n in range(count)]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    user = "prompt.user={{ question }}"
    return ["data=jsonl", f"data.path={path}", "data.id=id", "data.target=answer", "prompt=default", user, "scoring=exact"]


def served(server, *more):
    return ["model=server", "model.name=test", f"model.api_base={server.url}", *QUIET, *more]


def run(*overrides):
    return runner.run(overrides=list(overrides))


def summary_of(result):
    return json.loads((result.folder / "summary.json").read_text())


# -- what a run leaves


def test_a_run_records_samples_summary_and_manifest():
    result = run(*FAKE, *questions(6), "model.choices=[even,odd]", "sampling.seed=5", "name=parity")
    assert result.exit_code == 0
    assert result.folder.parent == Path("runs/parity").absolute()
    assert (Path("runs/parity/latest")).resolve() == result.folder
    files = {"config.yaml", "overrides.yaml", "manifest.json", "samples.jsonl", "summary.json", "report.html"}
    assert {file.name for file in result.folder.iterdir()} == files
    assert sorted(sample.id for sample in result.samples) == [f"r{n}" for n in range(6)]
    right = [sample.output == sample.target for sample in result.samples]
    assert result.summary.scores["exact"].mean == sum(right) / 6
    manifest = RunFolder.open(result.folder).manifest()
    assert manifest["status"] == "complete"
    assert manifest["data"]["ids"] == [f"r{n}" for n in range(6)]
    assert len(manifest["data"]["fingerprint"]) == 64
    assert manifest["model"].pop("endpoint").startswith("fake://")  # what it answers depends on its settings
    assert manifest["model"] == {"requested": "fake/fake", "served": ["fake/fake"], "fingerprints": ["fake"]}
    assert manifest["seeds"] == {"sampling": 5, "data": None, "rule": 2}
    assert manifest["scorers"] == {"exact": {"kind": "Exact"}}
    assert manifest["tokens"]["total_tokens"] == result.summary.usage.total_tokens > 0
    assert {"python", "os", "packages", "git"} <= set(manifest["environment"])
    assert manifest["started_at"] < manifest["ended_at"]


def test_summary_json_has_the_documented_fields():
    summary = summary_of(run(*FAKE, *questions(2)))
    promised = {"run", "status", "rows", "ok", "errors", "cache_hits", "requests", "scores", "usage", "cost_usd", "wall_s"}
    assert promised <= set(summary)
    assert summary["status"] == "complete"
    assert Path(summary["run"]).is_absolute()
    assert set(summary["scores"]["exact"]) == {"mean", "stderr", "n", "interval"}
    assert set(summary["usage"]) == {
        "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens", "cache_write_tokens",
    }  # fmt: skip
    assert summary["cost_usd"] is None  # no price is known, which is not the same as free


def test_the_recorded_config_reproduces_the_run():
    first = run(*FAKE, *questions(3), "prompt.system=costs ${x} {{ id }}", "sampling.temperature=1")
    config = read(first.folder / "config.yaml")
    assert config.name == "rows"
    again = runner.run(config)
    assert (again.summary.cache_hits, again.summary.requests) == (3, 0)
    assert [(s.id, s.output) for s in again.samples] == sorted((s.id, s.output) for s in first.samples)
    assert first.folder.name[-6:] == again.folder.name.split("-")[2]
    composed = compose(["cache.mode=off"], config_name="config", config_dir=str(first.folder)).config()
    assert composed == msgspec.structs.replace(config, cache=composed.cache)


def test_run_accepts_a_runconfig():
    rows = [{"q": "a", "want": "x"}, {"q": "b", "want": "y"}]
    plain = {
        "name": "mine", "model": {"kind": "fake", "reply": "x"}, "prompt": {"user": "{{ q }}"},
        "data": {"kind": "inline", "rows": rows, "target": "want"}, "execution": {"orchestrator": "none"},
    }  # fmt: skip
    result = runner.run(load(plain))
    assert result.summary.scores == {"exact": summarise([1.0, 0.0])}
    with pytest.raises(ConfigError, match="there is no data: choose a file"):
        runner.run(RunConfig())


async def test_run_works_inside_a_running_event_loop():
    seen = []
    result = runner.run(overrides=[*FAKE, *questions(3)], notify=seen.append)
    assert (result.summary.ok, seen) == (3, [])


def test_errors_are_found_before_a_folder_is_made():
    data = questions(3)
    for error, overrides in [
        (DataError, [*data, "data.target=anwser"]),
        (DataError, [*data, "data.path=nowhere.jsonl"]),
        (ConfigError, [*data, "scoring=python", "scoring.function=nowhere.py:f"]),
        (ConfigError, [*data, "data.target=null"]),
        (ConfigError, [*data, "prompt.user='{{ question'"]),
        (ConfigError, [*data, "prompt.user_file=nowhere.txt"]),
        (ConfigError, [*data, "adapter=text"]),
        (ConfigError, [*data, "scoring=several"]),
        (ConfigError, [*data, "model=openai/o3", "model.unsupported=error"]),
    ]:
        with pytest.raises(error):
            run(*FAKE, *overrides)
        assert not Path("runs").exists(), overrides


# -- failures


def test_failed_rows_are_recorded_and_not_scored():
    result = run(*FAKE, *questions(40), "model.fail_rate=0.3", "model.fail_with=context_window", "model.choices=[even,odd]")
    failed = [sample for sample in result.samples if sample.status == "error"]
    assert 0 < len(failed) < 40
    assert (result.summary.status, result.exit_code, result.summary.errors) == ("incomplete", 3, len(failed))
    assert result.summary.errors_by_code == {"context_window": len(failed)}
    assert result.summary.scores["exact"].n == 40 - len(failed)
    assert all((sample.scores, sample.output, sample.error.code) == ({}, None, "context_window") for sample in failed)


def test_a_run_without_answers_has_failed():
    result = run(*FAKE, *questions(3), "model.fail_rate=1", "model.fail_with=context_window")
    assert (result.summary.status, result.exit_code, result.summary.errors) == ("failed", 1, 3)
    assert result.summary.scores == {"exact": Score(None, None, 0)}


def test_failed_attempts_are_retried():
    with without_sleeping():
        result = run(*FAKE, *questions(5), "model.fail_rate=1", "model.fail_with=rate_limit", "model.fail_attempts=2")
    assert (result.summary.ok, result.summary.requests, result.exit_code) == (5, 15, 0)
    assert {sample.attempts for sample in result.samples} == {3}


def test_errors_that_fail_every_row_leave_rows_owed():
    result = run(*FAKE, *questions(30), "model.fail_rate=1", "model.fail_with=authentication")
    assert (result.summary.status, result.exit_code, result.summary.owed, result.samples) == ("failed", 1, 30, [])
    assert result.summary.problem == "fake failure (authentication)"
    assert "fake failure (authentication)" in (result.folder / "run.log").read_text()


def test_answers_survive_a_failing_scorer_and_can_be_scored_later():
    Path("mine.py").write_text("def judge(output, target, row):\n    raise ValueError('not yet')\n")
    result = run(*FAKE, *questions(4), "model.reply=even", "scoring=python", "scoring.function=mine.py:judge")
    assert {(sample.status, sample.output, sample.error.code) for sample in result.samples} == {("error", "even", "scoring")}
    Path("mine.py").write_text("def judge(output, target, row):\n    return output == target\n")
    fixed = score(result.folder)
    assert (fixed.summary.status, fixed.summary.errors) == ("complete", 0)
    assert (fixed.summary.scores["judge"].mean, fixed.summary.scores["judge"].n) == (0.5, 4)
    assert len(RunFolder.open(result.folder).manifest()["scorers"]["judge"]["file_sha256"]) == 64


# -- repeats


def test_each_repeat_is_a_sample():
    result = run(*FAKE, *questions(3), "sampling.repeats=4", "sampling.seed=10")
    assert {(sample.id, sample.repeat) for sample in result.samples} == {(f"r{n}", k) for n in range(3) for k in range(4)}
    assert (result.summary.rows, result.summary.requests) == (12, 12)
    assert len({sample.output for sample in result.samples}) > 3
    assert result.summary.scores["exact"].n == 3  # rows, not repeats, are independent
    more = run(*FAKE, *questions(3), "sampling.repeats=6", "sampling.seed=10")
    assert (more.summary.cache_hits, more.summary.requests) == (12, 6)


# -- going on


def test_resume_asks_only_owed_rows():
    with Server() as server:
        result = run(*served(server), *questions(10), "budget.requests=4", "limits.max_concurrency=2", "cache.mode=off")
        assert (result.summary.status, result.exit_code, result.summary.ok, result.summary.owed) == ("incomplete", 3, 4, 6)
        assert result.summary.problem.startswith("budget.requests=4 ")
        folder, counts = result.folder, [server.count]
        assert resume(folder).summary.owed == 6  # the budget is the whole run's, over all sittings
        for budget in (8, 12):
            result = resume(folder, [f"budget.requests={budget}"])
            counts.append(server.count)
        assert counts == [4, 8, 10]
        assert sorted(call.question for call in server.calls) == [f"What is {n}?" for n in range(10)]
    assert (result.folder, result.exit_code, result.summary.ok, result.summary.requests) == (folder, 0, 10, 10)
    assert result.summary.problem is None
    assert summary_of(result)["status"] == RunFolder.open(folder).manifest()["status"] == "complete"


def test_rows_owed_after_a_refused_key_are_asked_with_the_right_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", "wrong-key-0000")
    with Server(api_key=KEY) as server:
        result = run(*served(server, "model.api_key_env=MY_KEY"), *questions(8), "limits.max_concurrency=4")
        assert (result.exit_code, result.summary.owed, result.summary.errors) == (1, 8, 0)
        assert "the key was refused; check the environment variable that `model.api_key_env` names" in result.summary.problem
        assert server.count <= 4
        monkeypatch.setenv("MY_KEY", KEY)
        assert (resume(result.folder).exit_code, server.count <= 12) == (0, True)
    for file in [*result.folder.rglob("*"), *Path(os.environ["OSTINATO_HOME"]).rglob("*")]:
        if file.is_file():
            content = file.read_bytes()
            assert KEY.encode() not in content, file
            assert b"wrong-key-0000" not in content, file


def test_resume_does_not_retry_failed_rows():
    result = run(*FAKE, *questions(40), "model.fail_rate=0.3", "model.fail_with=context_window")
    again = resume(result.folder)
    assert (again.summary.errors, again.summary.owed) == (result.summary.errors, 0)
    times = {"wall_s": 0.0, "tokens_per_s": None}
    assert msgspec.structs.replace(again.summary, **times) == msgspec.structs.replace(result.summary, **times)


def test_the_row_of_a_torn_line_is_asked_again():
    result = run(*FAKE, *questions(5), "cache.mode=off")
    file = result.folder / "samples.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    again = resume(result.folder)
    assert (again.summary.ok, again.summary.status) == (5, "complete")
    assert sorted(sample.id for sample in again.samples) == [f"r{n}" for n in range(5)]


def test_resume_refuses_changed_data():
    result = run(*FAKE, *questions(5), "budget.requests=2")
    questions(6)
    with pytest.raises(RecordError, match=r"the data has changed since this run began; start a new one"):
        resume(result.folder)
    Path("rows.jsonl").unlink()
    with pytest.raises(DataError, match=r"rows\.jsonl: no such file"):
        resume(result.folder)


def test_resume_refuses_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(RecordError, match="is not a run folder"):
        resume(tmp_path)


# -- scoring again


def test_answers_can_be_scored_by_other_scorers():
    result = run(*FAKE, *questions(4), "model.reply=it is even", "scoring=exact")
    assert result.summary.scores["exact"].mean == 0.0
    scored = score(result.folder, ["scoring=contains"])
    assert set(scored.summary.scores) == {"contains"}
    assert scored.summary.scores["contains"].mean == 0.5
    assert {tuple(sample.scores) for sample in scored.samples} == {("contains",)}
    assert read(result.folder / "config.yaml").scoring.__struct_config__.tag == "contains"
    assert (scored.summary.requests, scored.summary.ok, scored.summary.rows) == (4, 4, 4)
    with pytest.raises(ConfigError, match="'model=fake' does not concern scoring"):
        score(result.folder, ["scoring=f1", "model=fake"])
    with pytest.raises(ConfigError, match="scoring=f2: no such option"):
        score(result.folder, ["scoring=f2"])


# -- the cache


def test_replay_needs_neither_network_nor_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with Server(Reply("even"), api_key=KEY) as server:
        config = read(run(*served(server, "model.api_key_env=MY_KEY"), *questions(4)).folder / "config.yaml")
        assert server.count == 4
    monkeypatch.delenv("MY_KEY")
    replayed = runner.run(msgspec.structs.replace(config, cache=msgspec.structs.replace(config.cache, mode="replay")))
    assert (replayed.summary.cache_hits, replayed.summary.requests, replayed.summary.cost_usd) == (4, 0, 0.0)
    with pytest.raises(ConfigError, match="model test: the environment variable MY_KEY is not set"):
        runner.run(msgspec.structs.replace(config, cache=msgspec.structs.replace(config.cache, mode="refresh")))


def test_a_miss_in_replay_mode_is_an_error_and_hits_are_kept():
    run(*FAKE, *questions(3))
    with pytest.raises(CacheError, match="replay: the cache has no answer for 2 samples, row 'r3' first"):
        run(*FAKE, *questions(5), "cache.mode=replay")
    record = RunFolder.open(Path("runs/rows/latest").resolve())
    assert (record.summary().ok, record.summary().owed, record.manifest()["status"]) == (3, 2, "incomplete")
    assert "replay: " in record.summary().problem


MODES = [("off", 0, 2), ("read", 2, 2), ("write", 0, 4), ("rw", 2, 4), ("refresh", 0, 4)]


@pytest.mark.parametrize(("mode", "hits", "stored"), MODES)
def test_each_cache_mode_reads_and_writes_as_documented(mode, hits, stored):
    run(*FAKE, *questions(2), "cache.dir=answers")
    result = run(*FAKE, *questions(4), "cache.dir=answers", f"cache.mode={mode}")
    assert (result.summary.cache_hits, result.summary.requests) == (hits, 4 - hits)
    assert run(*FAKE, *questions(4), "cache.dir=answers").summary.cache_hits == stored


def test_failures_are_not_cached():
    run(*FAKE, *questions(20), "model.fail_rate=0.5", "model.fail_with=context_window")
    assert 0 < run(*FAKE, *questions(20)).summary.cache_hits < 20


WARM = """
import sys, runner
result = runner.run(overrides=sys.argv[1:])
heavy = ["litellm", "prefect", "openai", "aiohttp", "jsonschema", "xllamacpp", "flows.orchestrate", "rich"]
print(result.summary.cache_hits, [name for name in heavy if name in sys.modules])
"""


def test_a_run_that_owes_nothing_starts_no_orchestrator():
    with Server() as server:
        overrides = ["model=server", f"model.api_base={server.url}", *questions(3)]
        run(*overrides, *QUIET)
    done = subprocess.run(
        [sys.executable, "-c", WARM, *overrides], capture_output=True, text=True, check=False, env={**os.environ, "CI": "1"}
    )
    assert (done.stdout, done.stderr) == ("3 []\n", "")


def test_truncated_answers_are_not_cached():
    with Server() as server:
        server.script(Reply("eve", finish_reason="length"), Status(400, "maximum context length is 10 tokens"))
        first = run(*served(server), *questions(3), "limits.max_concurrency=1")
        assert (first.summary.truncated, first.summary.errors, first.summary.ok, first.exit_code) == (1, 1, 1, 3)
        again = run(*served(server), *questions(3))
        assert (again.summary.cache_hits, again.summary.requests, server.count) == (1, 2, 5)


# -- nothing twice, nothing elsewhere, nothing in between


def test_a_folder_is_locked_while_it_runs(tmp_path):
    result = run(*FAKE, *questions(3))
    player = RunFolder.open(result.folder)
    player.lock()
    for use in (resume, score):
        with pytest.raises(RecordError, match="is being played"):
            use(result.folder)
    player.close()
    assert score(result.folder).summary.rows == resume(result.folder).summary.rows == 3


def test_identical_requests_are_sent_once():
    Path("same.jsonl").write_text('{"question": "why?"}\n' * 8)
    with Server(lambda _call: Reply(delay_s=0.2)) as server:
        result = run(
            *served(server), "data=jsonl", "data.path=same.jsonl", "prompt=default", "prompt.user={{ question }}", "scoring=none"
        )
        assert server.count == 1
    assert (result.summary.ok, result.summary.requests, result.summary.cache_hits) == (8, 1, 7)


def test_settings_of_the_fake_model_are_part_of_the_cache_key():
    outputs = [run(*FAKE, "data.limit=1", f"model.reply={reply}").samples[0].output for reply in ("one", "two", "one")]
    assert outputs == ["one", "two", "one"]


def test_an_unknown_cost_stays_unknown_when_scoring_fails():
    Path("bad.py").write_text("def grade(output, target, row):\n    raise RuntimeError('broken')\n")
    with Server() as server:
        result = run(*served(server), *questions(2), "scoring=python", "scoring.function=bad.py:grade")
    assert (result.summary.errors_by_code, result.summary.cost_usd) == ({"scoring": 2}, None)
    Path("bad.py").write_text("def grade(output, target, row):\n    return output == 'ok'\n")
    assert score(result.folder).summary.scores["grade"] == summarise([1.0, 1.0])


def test_run_refuses_a_config_with_overrides():
    with pytest.raises(ConfigError, match="not both"):
        runner.run(RunConfig(), overrides=["model=fake"])
    with pytest.raises(ConfigError, match="overrides are a list"):
        runner.run(overrides="model=fake")


@pytest.mark.parametrize("changed", ["prompt.txt", "score.py"])
def test_resume_refuses_changed_files(changed):
    Path("prompt.txt").write_text("{{ question }}")
    Path("score.py").write_text("def grade(output, target, row):\n    return 1.0\n")
    files = ["prompt.user_file=prompt.txt", "scoring=python", "scoring.function=score.py:grade"]
    rows = [word for word in questions(4) if not word.startswith(("prompt", "scoring"))]
    result = run(*FAKE, *rows, *files, "budget.requests=2", "limits.max_concurrency=1")
    assert result.summary.owed == 2
    Path(changed).write_text(Path(changed).read_text() + "\n")
    with pytest.raises(RecordError, match="has changed since this run began"):
        resume(result.folder, ["budget.requests=9"])


def test_resume_works_from_any_folder_and_uses_the_cache(monkeypatch, tmp_path):
    rows = questions(4)
    result = run(*FAKE, *rows, "budget.requests=2", "limits.max_concurrency=1")
    assert run(*FAKE, *rows).summary.requests == 2
    monkeypatch.chdir(tmp_path)
    resumed = resume(result.folder).summary  # its budget is spent, but nothing has to be sent
    assert (resumed.status, resumed.requests, resumed.cache_hits) == ("complete", 2, 2)


def test_resume_refuses_overrides_that_change_answers():
    result = run(*FAKE, *questions(4), "budget.requests=2")
    with pytest.raises(ConfigError, match="a resumed run keeps its config"):
        resume(result.folder, ["sampling.temperature=1"])


def test_cached_turns_of_a_re_ask_cost_nothing():
    schema = ["adapter=json", "adapter.schema={type: object, required: [n]}", "scoring=none"]
    rows = [word for word in questions(1) if not word.startswith("scoring")]
    with Server() as server:
        server.script(Reply("no json"), Reply('{"n": 1}'))
        first = run(*served(server), *rows, *schema, "adapter.retries=0")
        assert (first.summary.invalid, first.summary.usage.total_tokens) == (1, 10)
        second = run(*served(server), *rows, *schema, "adapter.retries=1")
        assert server.count == 2
    assert (second.summary.ok, second.summary.cache_hits, second.summary.requests) == (1, 0, 1)
    assert second.summary.usage.total_tokens == 10
