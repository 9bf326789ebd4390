"""Playing a run again from its record: what has drifted is told before anything is sent, what came out otherwise afterwards."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import runner
from runner.cli import main
from runner.errors import ConfigError, RecordError
from runner.records import RunFolder, environment, find_run
from runner.reproduction.reproduce import preview, reproduce
from tests.support.server import Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

GRADE = "def grade(output, target, row):\n    return 1.0\n"


def write_rows(count=6, path="rows.jsonl", **changed):
    rows = [{"id": f"r{n}", "question": f"q{n}", "answer": "odd" if n % 2 else "even"} for n in range(count)]
    rows = [{**row, "question": changed.get(row["id"], row["question"])} for row in rows]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def play(server, *more):
    if not Path("rows.jsonl").exists():
        write_rows()
    config = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none", "prompt=default"]
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "scoring=exact"]
    return runner.run(overrides=[*config, *data, *more])


def states(found):
    return {check.what: check.state for check in found.checks}


def told(found, what):
    return next(check.told for check in found.checks if check.what == what)


def git(*words):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def server():
    with Server(Reply("odd")) as running:
        yield running


def test_reproducing_asks_the_model_again_and_leaves_the_cache_alone(server, tmp_path):
    first = play(server)
    cache = next((tmp_path / "home" / "cache").glob("cache.db"))
    before = cache.read_bytes()
    found = reproduce(first.folder)
    assert server.count == 12
    assert cache.read_bytes() == before
    assert set(states(found).values()) <= {"same", "unknown"}
    agreement = found.agreement
    assert (agreement.compared, agreement.same, agreement.differs, agreement.shown) == (6, 6, False, [])
    assert agreement.means == {"exact": {"before": 0.5, "after": 0.5, "difference": 0.0}}
    assert found.exit_code == 0
    again = RunFolder.open(found.folder)
    assert again.manifest()["reproduces"] == f"rows/{first.folder.name}"
    assert (again.manifest()["status"], again.manifest()["cache"]["mode"]) == ("complete", "off")
    assert found.folder != first.folder
    assert reproduce(found.folder).agreement.same == 6  # a reproduction can be reproduced


def test_answers_that_differ_are_counted_and_shown(server):
    first = play(server, "sampling.repeats=2", "limits.max_concurrency=1")

    def otherwise(call):
        if call.question == "q5":
            return Status(400, "maximum context length is 10 tokens")
        return Reply("even") if call.question == "q0" else Reply("odd", finish_reason="length") if call.question == "q1" else None

    server.otherwise = lambda call: otherwise(call) or Reply("odd")
    found = reproduce(first.folder)
    agreement = found.agreement
    assert (agreement.compared, agreement.same, agreement.prompts) == (12, 6, 0)
    assert (agreement.outputs, agreement.statuses, agreement.scores) == (6, 4, 4)
    assert agreement.shown[:2] == [
        'r0: output: "odd" -> "even"; scores.exact: 0.0 -> 1.0',
        'r0 (repeat 1): output: "odd" -> "even"; scores.exact: 0.0 -> 1.0',
    ]
    assert len(agreement.shown) == 5
    assert agreement.means["exact"]["before"] == 0.5
    assert agreement.means["exact"]["after"] == pytest.approx(0.6)
    assert found.exit_code == 3  # rows failed, as `run` would say
    server.otherwise = lambda call: Reply("even" if call.question == "q0" else "odd")
    assert (reproduce(first.folder).exit_code, reproduce(first.folder, strict=True).exit_code) == (0, 100)


def test_replay_proves_the_record_and_sends_nothing(server, tmp_path):
    first = play(server)
    server.otherwise = Reply("something else")
    found = reproduce(first.folder, replay=True, strict=True)
    assert server.count == 6
    assert (found.agreement.same, found.summary.cache_hits, found.exit_code) == (6, 6, 0)
    assert RunFolder.open(found.folder).manifest()["cache"]["mode"] == "replay"
    samples = first.folder / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"output":"odd"', '"output":"even"', 1))
    found = reproduce(first.folder, replay=True)
    assert (found.agreement.outputs, found.exit_code, server.count) == (1, 100, 6)
    shutil.rmtree(tmp_path / "home" / "cache")
    found = reproduce(first.folder, replay=True)
    assert (found.agreement.compared, found.agreement.gone, found.exit_code, server.count) == (0, 6, 3, 6)


def test_rows_that_failed_are_not_expected_from_a_replay(server):
    server.otherwise = lambda call: Status(400, "maximum context length is 10 tokens") if call.question == "q2" else Reply("odd")
    found = reproduce(play(server).folder, replay=True)
    assert (found.agreement.same, found.agreement.gone, found.agreement.unanswered, found.exit_code) == (5, 0, 1, 0)


def test_changed_data_is_reported_and_refused_with_strict(server, capsys):
    first = play(server)
    write_rows(7, r1="another question")
    with pytest.raises(RecordError) as caught:
        reproduce(first.folder, strict=True)
    assert server.count == 6
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("is not reproduced: something has changed, and --strict refuses that; nothing was sent:")
    assert lines[1:4] == ["  data: changed", "    rows: 6 -> 7", "    new: 'r6'"]
    assert len(list(first.folder.parent.glob("2*"))) == 1
    found = reproduce(first.folder)
    assert states(found)["data"] == "changed"
    assert (found.agreement.compared, found.agreement.prompts, found.agreement.new, found.agreement.gone) == (6, 1, 1, 0)
    assert main(["reproduce", str(first.folder)]) == 0
    out, err = capsys.readouterr()
    assert "data: changed\n  rows: 6 -> 7\n  new: 'r6'\n" in err
    assert "1 of 6 samples differ" in out
    assert re.search(r"^new +1 samples that are not in the record$", out, re.MULTILINE)


def test_missing_data_and_files_are_refused(server):
    Path("prompt.txt").write_text("{{ question }}")
    first = play(server, "prompt.user_file=prompt.txt")
    Path("rows.jsonl").unlink()
    Path("prompt.txt").unlink()
    with pytest.raises(RecordError) as caught:
        reproduce(first.folder)
    said = str(caught.value)
    assert "one of its inputs is missing; nothing was sent:" in said
    assert f"prompt.user_file: {Path.cwd() / 'prompt.txt'}: No such file or directory" in said
    assert f"{Path.cwd() / 'rows.jsonl'}: no such file" in said
    assert server.count == 6


def test_an_edited_scorer_is_reported_with_its_difference(server):
    Path("grade.py").write_text(GRADE)
    first = play(server, "scoring=python", "scoring.function=grade.py:grade")
    Path("grade.py").write_text(GRADE.replace("1.0", "0.5"))
    found = reproduce(first.folder)
    assert states(found)["files"] == "changed"
    assert "  -    return 1.0" in told(found, "files")
    assert (found.agreement.outputs, found.agreement.scores) == (0, 6)
    assert found.agreement.means["grade"]["difference"] == -0.5
    with pytest.raises(RecordError, match="files: changed"):
        reproduce(first.folder, strict=True)


def test_changed_packages_and_python_are_reported(server, monkeypatch):
    first = play(server)
    version = environment.version
    monkeypatch.setattr(environment, "version", lambda name: "9.9.9" if name == "msgspec" else version(name))
    monkeypatch.setattr(environment.platform, "python_version", lambda: "3.99.0")
    remembered = environment._version
    monkeypatch.setattr(environment, "_version", remembered.__wrapped__)  # a process asks only once: here it asks anew
    found = preview(first.folder)
    assert (states(found)["packages"], states(found)["python"], states(found)["machine"]) == ("changed", "changed", "same")
    assert told(found, "packages") == [f'msgspec: "{version("msgspec")}" -> "9.9.9"']
    assert told(found, "python")[0].endswith('-> "3.99.0"')
    assert (found.folder, server.count) == (None, 6)
    assert "up to 6 requests" in found.estimate
    with pytest.raises(RecordError, match=r"packages: changed\n.*msgspec"):
        reproduce(first.folder, strict=True)


def test_uncommitted_and_new_commits_are_reported(server, monkeypatch):
    git("init", "-q")
    Path(".gitignore").write_text("runs/\n")
    Path("code.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-qm", "one")
    clean = play(server)
    found = preview(clean.folder)  # rows.jsonl is new
    assert states(found)["code"] == "same"
    assert told(found, "code")[0].endswith(", with untracked files, then and now")
    git("add", ".")
    git("commit", "-qm", "two")
    clean = play(server)
    assert states(preview(clean.folder))["code"] == "same"
    Path("code.py").write_text("x = 2\n")
    found = preview(clean.folder)
    assert told(found, "code")[0] == "git.dirty: false -> true"
    assert told(found, "code")[1].startswith("git.diff_sha256: (nothing) -> ")
    with pytest.raises(RecordError, match="code: changed"):
        reproduce(clean.folder, strict=True)
    dirty = play(server)
    assert states(preview(dirty.folder))["code"] == "same"  # changed in the same way
    Path("code.py").write_text("x = 3\n")
    assert states(preview(dirty.folder))["code"] == "changed"
    monkeypatch.chdir("/")  # the repository is that of the run, wherever the command runs
    assert states(preview(dirty.folder))["code"] == "changed"
    assert len(told(preview(dirty.folder), "code")) == 1


def test_another_model_under_the_same_name_is_reported(server):
    server.otherwise = Reply("odd", model="test-0613", fingerprint="fp_1")
    first = play(server)
    server.otherwise = Reply("odd", model="test-1106", fingerprint="fp_2")
    found = reproduce(first.folder)
    assert told(found, "served model") == [
        'served[0]: "test-0613" -> "test-1106"',
        'fingerprints[0]: "fp_1" -> "fp_2"',
    ]
    assert found.exit_code == 0
    assert reproduce(first.folder, strict=True).exit_code == 100


def test_weights_that_were_exchanged_are_reported(server, tmp_path):
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"one")
    write_rows()
    overrides = ["model=smollm2", f"model.name={weights}", "execution.orchestrator=none", "prompt=default", "cache.mode=off"]
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "launch.timeout_s=0.1"]
    with pytest.raises(runner.errors.LaunchError):
        runner.run(overrides=[*overrides, *data])
    folder = find_run("latest", Path("runs")).path
    weights.write_bytes(b"two")
    assert states(preview(folder))["model"] == "changed"
    weights.unlink()
    with pytest.raises(RecordError, match=r"model: missing\n.*no weights at"):
        reproduce(folder)


def test_a_run_can_be_reproduced_from_any_folder_with_other_limits(server, monkeypatch, tmp_path):
    first = play(server)
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    found = reproduce(first.folder, ["limits.max_concurrency=1", "budget.requests=4"], runs_dir=Path("mine"))
    assert found.folder.parent == there / "mine" / "rows"
    assert (found.agreement.compared, found.agreement.gone, found.exit_code) == (4, 2, 3)
    assert runner.resume(found.folder, ["budget.requests=null"]).summary.ok == 6
    with pytest.raises(ConfigError, match="only limits, budget, launch, expect, execution may change"):
        reproduce(first.folder, ["sampling.temperature=1"])


def test_files_of_a_folder_tree_that_was_moved_are_found(server, monkeypatch, tmp_path, capsys):
    first = play(server)
    moved = tmp_path / "moved"
    Path.cwd().rename(moved)
    monkeypatch.chdir(moved)
    assert main(["reproduce", "rows"]) == 0
    out, err = capsys.readouterr()
    assert "byte-identical in all 6 samples" in out
    assert f"{tmp_path / 'work'}, where the run started, does not exist; its files are looked for in {moved}" in err
    assert find_run("latest", Path("runs")).manifest()["cwd"] == str(moved)
    assert not first.folder.exists()


def test_overrides_of_the_first_run_stay_on_record(server):
    found = reproduce(play(server, "sampling.max_tokens=7").folder, ["limits.max_concurrency=2"])
    text = (found.folder / "overrides.yaml").read_text()
    assert "sampling.max_tokens=7" in text
    assert text.endswith("- limits.max_concurrency=2\n")


def test_an_edited_config_is_refused(server):
    first = play(server)
    config = first.folder / "config.yaml"
    config.write_text(config.read_text().replace("temperature: 0.0", "temperature: 1.0"))
    with pytest.raises(ConfigError, match=r"has changed since this run began:\n  sampling.temperature: 0.0 -> 1.0"):
        reproduce(first.folder)


def test_a_resume_with_another_budget_is_not_a_change(server):
    first = play(server, "budget.requests=2", "limits.max_concurrency=1")
    runner.resume(first.folder, ["budget.requests=100"])
    found = reproduce(first.folder, strict=True)
    assert (found.drifted, found.agreement.same, found.exit_code) == ([], 6, 0)
    assert "by a later sitting" in told(found, "config")[0]


def test_a_record_of_an_earlier_version_can_be_reproduced(server):
    first = play(server)
    record = RunFolder.open(first.folder)
    before = record.manifest()
    for name in ("cpu", "gpus", "memory_gb", "machine"):
        del before["environment"][name]
    del before["cache"]["key_version"]
    record.write_manifest(before)
    assert reproduce(first.folder, strict=True).exit_code == 0
    del before["environment"]
    record.write_manifest(before)
    found = reproduce(first.folder, strict=True)
    assert (states(found)["packages"], found.exit_code) == ("unknown", 0)


def test_the_command(server, capsys):
    first = play(server, "model.price.prompt=1", "model.price.completion=2")
    assert main(["reproduce", "rows", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["identical"] is True
    assert told["reproduces"] == str(first.folder)
    assert (told["agreement"]["compared"], told["drift"], told["checks"]["data"]) == (6, [], "same")
    assert err.startswith("asking openai/test again, past the cache; the recorded run cost $0.000078\nup to 6 requests, about ")
    assert main(["reproduce", str(first.folder), "--dry-run"]) == 0
    assert "asking again" in capsys.readouterr().out
    assert main(["reproduce", str(first.folder), "--trust-code"]) == 2
    assert main(["reproduce", "nothing"]) == 1
    server.otherwise = Reply("[/red] \x1b[31m")
    assert main(["reproduce", str(first.folder), "--strict", "--display", "none"]) == 100
    out = capsys.readouterr().out
    assert "6 of 6 samples differ" in out
    assert 'r0: output: "odd" -> "[/red] \\u001b[31m"' in out
    assert sorted(path.name for path in Path().iterdir()) == ["rows.jsonl", "runs"]
