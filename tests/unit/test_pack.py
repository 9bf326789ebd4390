"""Capsules: a run in one file, played again elsewhere to the same bytes, with nothing in it of the machine it was packed on."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

import runner
from runner.cli import main
from runner.errors import RecordError
from runner.experiment.parts import Parts
from runner.experiment.rescore import score
from runner.records import RunFolder
from runner.reproduction.pack import pack
from runner.reproduction.replay import replay
from runner.types import Choice, Response
from tests.support.server import Reply, Server, Status, unlike_any_other

pytestmark = pytest.mark.usefixtures("in_tmp")

KEY = "q8Zr1LwT5vXk9PbMq8Zr1LwT5vXk"
GRADE = "def grade(output, target, row):\n    return len(output) / 100\n"
JSON = ["adapter=json", "adapter.schema={type: object, required: [n]}", "adapter.retries=2", "scoring=none"]
SERVED = ["model=server", "model.name=test", "execution.orchestrator=none", "prompt=default"]
DATA = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "scoring=contains"]


def write_rows(count=7, path="rows.jsonl"):
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": f"about {n}"} for n in range(count)]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def play(*more, behaviour=None):
    if not Path("rows.jsonl").exists():
        write_rows()
    with Server(behaviour or unlike_any_other()) as server:
        return runner.run(overrides=[*SERVED, f"model.api_base={server.url}", *DATA, *more])


def elsewhere(monkeypatch, tmp_path, *gone):
    """Another machine, as far as a capsule can tell: another folder and home, and nothing of what was."""
    for path in gone:
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink(missing_ok=True)
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "other home"))
    return there


def content(file):
    """All that a capsule holds, unpacked, as bytes by name."""
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["cache.mode=off"],
        ["sampling.repeats=3", "sampling.temperature=1"],
        ["data.shuffle=true", "data.limit=4", "data.columns={q: question}", "prompt.user={{ q }}!"],
        ["data.id=null"],
        [*JSON, "sampling.repeats=2"],
        [*JSON, "cache.mode=off"],
        ["prompt.system=costs ${x} \\${y} {{ '{{' }}", "limits.timeout_s=inf"],
        ["scoring=several", "scoring.scorers={a: {kind: exact}, b: {kind: f1}}"],
        ["name=again", "adapter=text", "model.model_type=text"],
    ],
    ids=lambda more: " ".join(more)[:40],
)
def test_a_capsule_replays_to_the_same_bytes_elsewhere(more, monkeypatch, tmp_path):
    count = iter(range(1000))

    def mostly_wrong(call):
        turn = len(call.body.get("messages", ()))
        return Reply(f'{{"n": {next(count)}}}' if (next(count) + turn) % 3 == 0 or turn > 4 else f"no json {next(count)}")

    result = play(*more, behaviour=mostly_wrong if "adapter=json" in more else None)
    packed = pack(result.folder, tmp_path / "run.ostinato")
    assert packed.facts.answers == packed.facts.rows == result.summary.rows
    assert packed.facts.from_record == (result.summary.rows if "cache.mode=off" in more else 0)
    there = elsewhere(monkeypatch, tmp_path, "rows.jsonl", "runs", tmp_path / "home")
    replayed = replay(packed.file)
    assert (replayed.identical, replayed.exit_code, replayed.environment) == (True, 0, [])
    assert replayed.outputs == result.summary.rows
    assert replayed.scores == result.summary.rows * len(result.summary.scores)
    assert list(there.iterdir()) == []
    assert not (tmp_path / "other home").exists()


def test_the_same_run_makes_the_same_bytes(tmp_path):
    result = play()
    first, second = (pack(result.folder, tmp_path / f"{name}.ostinato") for name in "ab")
    assert first.file.read_bytes() == second.file.read_bytes()
    assert first.sha256 == second.sha256
    write_rows(3, "other.jsonl")
    assert pack(play("data.path=other.jsonl").folder, tmp_path / "c.ostinato").sha256 != first.sha256


def test_a_capsule_is_a_run_folder_in_a_zip_with_a_usable_config(tmp_path, monkeypatch, capsys):
    Path("prompt.txt").write_text("Well, {{ question }}")
    result = play("prompt.user_file=prompt.txt")
    file = pack(result.folder, tmp_path / "run.ostinato").file
    there = elsewhere(monkeypatch, tmp_path)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(there / "run")
    unpacked = RunFolder.open(there / "run")
    assert [sample.output for sample in unpacked.samples()] == [sample.output for sample in result.samples]
    assert unpacked.summary().scores == result.summary.scores
    assert main(["show", "run", "--json"]) == 0
    capsys.readouterr()
    monkeypatch.chdir(there / "run")
    assert main(["validate", "-cd", ".", "-cn", "config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 7


def test_a_capsule_holds_no_secret_and_no_path_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    (tmp_path / "data").mkdir()
    write_rows(path=str(tmp_path / "data" / "rows.jsonl"))
    Path("prompt.txt").write_text("Well, {{ question }}")
    Path("grade.py").write_text(GRADE)
    more = ["model.api_key_env=SOME_KEY", f"data.path={tmp_path}/data/rows.jsonl", f"prompt.user_file={Path.cwd()}/prompt.txt"]
    more += ["scoring=python", "scoring.function=grade.py:grade", f"cache.dir={tmp_path}/cache", f"runs_dir={tmp_path}/records"]
    result = play(*more)
    record = RunFolder.open(result.folder)
    record.write_manifest({**record.manifest(), "note": f"see {Path.cwd()}/notes.txt and {tmp_path}/data/rows.jsonl"})
    packed = pack(result.folder, tmp_path / "run.ostinato")
    assert json.loads(content(packed.file)["manifest.json"])["note"] == "see ./notes.txt and data.jsonl"
    raw = packed.file.read_bytes() + b"".join(content(packed.file).values())
    for never in (KEY, str(tmp_path), str(Path.home()) + "/", "/tmp/"):
        assert never.encode() not in raw, never
    config = content(packed.file)["config.yaml"].decode()
    assert "path: data.jsonl" in config
    assert "function: files/2-scorer.py:grade" in config
    assert replay(packed.file, trust_code=True).scores == 7


@pytest.mark.parametrize("where", ["data", "prompt", "scorer", "answer", "known"])
def test_a_run_that_holds_a_secret_is_not_packed(where, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    Path("prompt.txt").write_text(f"{{{{ question }}}} {KEY if where == 'prompt' else ''}")
    write_rows()
    if where == "data":
        Path("rows.jsonl").write_text(Path("rows.jsonl").read_text().replace("What is 3?", f"What is {KEY}?"))
    Path("grade.py").write_text(("api_token = 'u7Wq2NxR9cVt4LzB'\n" if where == "scorer" else "") + GRADE)
    said = {"answer": KEY, "known": "sk-ant-0123456789abcdef0123"}.get(where, "fine")
    more = ["prompt.user_file=prompt.txt", "scoring=python", "scoring.function=grade.py:grade", "model.api_key_env=SOME_KEY"]
    result = play(*more, behaviour=Reply(said))
    with pytest.raises(RecordError, match="secret") as caught:
        pack(result.folder, tmp_path / "run.ostinato")
    assert KEY not in str(caught.value)
    assert not (tmp_path / "run.ostinato").exists()


def test_failed_rows_have_no_answer_and_are_not_replayed(tmp_path, monkeypatch):
    def behaviour(call):
        if call.question == "What is 2?":
            return Status(400, "maximum context length is 10 tokens")
        if call.question == "What is 5?":
            return Status(403, "Content violates usage guidelines")
        return (
            Reply("sorry", finish_reason="content_filter")
            if call.question == "What is 4?"
            else Reply("cut", finish_reason="length")
        )

    result = play(behaviour=behaviour)
    assert (result.summary.errors, result.summary.refused, result.summary.truncated) == (1, 2, 4)
    packed = pack(result.folder, tmp_path / "run.ostinato")
    assert (packed.facts.without_answer, packed.facts.answers, packed.facts.from_record) == ([("r2", 0), ("r5", 0)], 5, 5)
    elsewhere(monkeypatch, tmp_path, "runs")
    replayed = replay(packed.file)
    assert (replayed.identical, replayed.outputs, replayed.scores) == (True, 5, 4)
    with pytest.raises(RecordError, match="no sample of this run has an answer"):
        pack(play("data.limit=2", "cache.mode=off", behaviour=Status(400, "maximum context length is 10 tokens")).folder)


def test_a_row_whose_request_has_another_answer_is_left_out(tmp_path):
    rows = [{"id": f"r{n}", "question": "Why?", "answer": "so"} for n in range(3)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    packed = pack(play("cache.mode=off", "limits.max_concurrency=1").folder, tmp_path / "run.ostinato")
    assert (packed.facts.answers, packed.facts.without_answer) == (1, [("r1", 0), ("r2", 0)])
    assert replay(packed.file).outputs == 1


def test_answers_that_the_cache_lost_or_replaced_come_from_the_record(tmp_path):
    with Server(Reply("one")) as server:
        config = [*SERVED, f"model.api_base={server.url}", *DATA]
        write_rows()
        result = runner.run(overrides=config)
        server.otherwise = Reply("two")
        runner.run(overrides=[*config, "cache.mode=refresh", "data.limit=3"])
    packed = pack(result.folder, tmp_path / "run.ostinato")
    assert packed.facts.from_record == 3
    assert replay(packed.file).outputs == 7
    shutil.rmtree(tmp_path / "home" / "cache")
    packed = pack(result.folder, tmp_path / "run.ostinato")
    assert packed.facts.from_record == 7
    assert not (tmp_path / "home" / "cache").exists()
    assert replay(packed.file).outputs == 7


@pytest.mark.parametrize("name", ["smollm2", "model.gguf"])
def test_a_local_model_needs_no_weights_elsewhere(name, tmp_path, monkeypatch):
    """Which weights answered is part of the key: it comes from the record."""
    weights = Path("weights").absolute()
    weights.mkdir()
    (weights / "model.gguf").write_bytes(b"pretend weights")
    named = name if name == "smollm2" else str(weights / name)
    write_rows()
    overrides = ["model=smollm2", f"model.name={named}", "execution.orchestrator=none", "prompt=default", *DATA]
    from runner.config.compose import compose

    parts = Parts.of(compose(overrides).config())
    for row in parts.dataset:
        request = parts.lm.request(messages=parts.adapter.format(row).messages)
        parts.lm.store.put(
            runner.cache.request_key(request), Response(choices=[Choice(text=f"about {row.id[1:]}")]), request=request
        )
    parts.lm.store.close()
    result = runner.run(overrides=[*overrides, "cache.mode=replay"])
    packed = pack(result.folder, tmp_path / "run.ostinato")
    assert packed.facts.from_record == 0
    assert str(weights).encode() not in b"".join(content(packed.file).values())
    monkeypatch.setattr("runner.models.weights.digest", lambda name: pytest.fail("weights were looked at"))
    elsewhere(monkeypatch, tmp_path, weights, "runs", tmp_path / "home")
    replayed = replay(packed.file)
    assert (replayed.identical, replayed.outputs, replayed.scores) == (True, 7, 7)


def test_code_in_a_capsule_runs_only_if_it_is_trusted(tmp_path, monkeypatch, capsys):
    Path("grade.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n" + GRADE)
    scoring = ["scoring=several", "scoring.scorers={mine: {kind: python, function: 'grade.py:grade'}, exact: {kind: exact}}"]
    packed = pack(play(*scoring).folder, tmp_path / "run.ostinato")
    elsewhere(monkeypatch, tmp_path)
    (tmp_path / "ran").unlink()
    assert main(["reproduce", str(packed.file)]) == 3
    assert not (tmp_path / "ran").exists()
    out = capsys.readouterr().out
    assert "byte-identical: 7 outputs, 7 scores" in out
    assert "mine: code inside the capsule; --trust-code runs it" in out
    assert main(["reproduce", str(packed.file), "--trust-code", "--json"]) == 0
    assert (tmp_path / "ran").exists()
    told = json.loads(capsys.readouterr().out)
    assert (told["outputs"], told["scores"], told["identical"], told["not_scored"]) == (7, 14, True, [])


def test_answers_whose_scorer_failed_are_replayed(tmp_path):
    fails = "if row['id'] == 'r3':\n        raise ValueError('the key is ' + 'sk-proj-' + 'abcdefghijklmnop1234')"
    Path("grade.py").write_text(f"def grade(output, target, row):\n    {fails}\n    return 1\n")
    result = play("scoring=python", "scoring.function=grade.py:grade")
    assert result.summary.errors_by_code == {"scoring": 1}
    packed = pack(result.folder, tmp_path / "run.ostinato")
    raw = b"".join(content(packed.file).values())
    assert (str(tmp_path).encode() in raw, b"sk-proj-abc" in raw, b"the key is ***" in raw) == (False, False, True)
    assert (replay(packed.file).exit_code, replay(packed.file).outputs) == (3, 7)
    trusted = replay(packed.file, trust_code=True)
    assert (trusted.exit_code, trusted.outputs, trusted.scores) == (0, 7, 6)


def test_runs_whose_data_or_files_changed_are_not_packed(tmp_path):
    Path("grade.py").write_text(GRADE)
    folder = play("scoring=python", "scoring.function=grade.py:grade").folder
    Path("grade.py").write_text(GRADE.replace("100", "10"))
    with pytest.raises(RecordError, match=r"scoring.function .* has changed since this run began"):
        pack(folder)
    score(folder)
    assert replay(pack(folder, tmp_path / "a.ostinato").file, trust_code=True).identical
    write_rows(5)
    with pytest.raises(RecordError, match="the data has changed since this run began"):
        pack(folder)
    write_rows()
    samples = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(samples.replace('"scores":{"grade":', '"scores":{"grade":1'))
    with pytest.raises(RecordError, match=r"would not be replayed as recorded: scores.grade: 1"):
        pack(folder)
    assert not list(Path.cwd().glob("*.ostinato*"))


def test_an_interrupted_run_is_packed_with_the_answers_it_has(tmp_path):
    result = play("budget.requests=3", "limits.max_concurrency=1")
    packed = pack(result.folder, tmp_path / "run.ostinato")
    assert (packed.facts.rows, packed.facts.answers, replay(packed.file).outputs) == (7, 3, 3)
    (result.folder / "summary.json").unlink()  # as after kill -9
    record = RunFolder.open(result.folder)
    facts = record.manifest()
    record.write_manifest({key: value for key, value in facts.items() if key not in ("environment", "cache", "ended_at")})
    packed = pack(result.folder, tmp_path / "run.ostinato")
    assert "summary.json" not in content(packed.file)
    assert replay(packed.file).outputs == 3


def test_the_command(tmp_path, capsys):
    folder = play().folder
    assert main(["pack", "rows", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["capsule"] == f"rows-{folder.name}.ostinato"
    assert (told["answers"], told["bytes"]) == (7, Path(told["capsule"]).stat().st_size)
    assert main(["pack", "rows", "-o", told["capsule"]]) == 0
    assert f"ostinato reproduce {told['capsule']}" in capsys.readouterr().out
    Path("mine.txt").write_text("precious")
    assert main(["pack", "rows", "-o", "mine.txt"]) == 1
    assert capsys.readouterr().err == "error: mine.txt already exists and is not a capsule; give another name\n"
    assert Path("mine.txt").read_text() == "precious"
    assert main(["reproduce", told["capsule"], "--strict"]) == 2
    assert main(["reproduce", "nowhere.ostinato"]) == 1
    assert capsys.readouterr().err.endswith("error: nowhere.ostinato: No such file or directory\n")


def test_a_sweep_is_packed_cell_by_cell(tmp_path, capsys):
    folder = Path("runs/x/sweep-20260101-000000-abcdef")
    folder.mkdir(parents=True)
    cells = {"0123456789ab": {"values": {}, "run": "cells/one", "status": "complete", "problem": None}}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "kind": "sweep", "cells": cells}))
    for verb in ("pack", "reproduce"):
        assert main([verb, str(folder)]) == 1
        assert f"is a sweep, and a run is needed here; name one of {folder.absolute() / 'cells'}" in capsys.readouterr().err
