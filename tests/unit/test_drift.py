"""A run goes on as it began: what has changed since is refused, and the difference is shown."""

import json
import os
import re
from pathlib import Path

import pytest

import runner
from runner.cli import main
from runner.config.compose import read
from runner.errors import ConfigError, DataError, RecordError
from runner.experiment.rescore import score
from runner.experiment.run import resume, retry
from runner.records import RunFolder

pytestmark = pytest.mark.usefixtures("in_tmp")

ROWS = [{"id": f"r{n}", "question": f"What is {n}?", "answer": "odd" if n % 2 else "even"} for n in range(5)]
ONLY = "a resumed run keeps its config; only limits, budget, launch, expect, execution may change"
DATA = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer"]


def write(rows, path="rows.jsonl"):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def begin(*overrides, rows=ROWS, data=DATA):
    """A run with two of its rows played."""
    write(rows)
    fixed = ["model=fake", "execution.orchestrator=none", "prompt=default", "budget.requests=2", "limits.max_concurrency=1"]
    folder = runner.run(overrides=[*fixed, *data, *overrides]).folder
    assert RunFolder.open(folder).summary().owed == 3
    return folder


def refused(error, folder, *overrides):
    """The message with which going on is refused; nothing in the folder changes."""
    files = {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(error) as caught:
        resume(folder, overrides)
    with pytest.raises(error):
        retry(folder, overrides)
    assert {file: file.read_bytes() for file in folder.iterdir()} == files
    return str(caught.value)


def edit(file, old, new):
    text = Path(file).read_text()
    assert text.count(old) == 1
    Path(file).write_text(text.replace(old, new))


# -- overrides


def test_overrides_that_would_change_answers_are_refused_with_a_diff():
    folder = begin()
    said = refused(
        ConfigError, folder, "limits.max_concurrency=2", "sampling.temperature=0.5", "prompt.user=Well, {{ question }}"
    )
    new = "sampling.temperature=0.5 'prompt.user=Well, {{ question }}'"
    assert said.splitlines() == [
        f"'sampling.temperature=0.5': {ONLY}, for example budget.usd=5; it would have changed",
        "  sampling.temperature: 0.0 -> 0.5",
        '  prompt.user: "{{ question }}" -> "Well, {{ question }}"',
        f"for anything else, start a new run: ostinato run -cd {folder} -cn config {new}",
    ]
    said = refused(ConfigError, folder, "model=openai/gpt-4o-mini")
    assert '  model.kind: "fake" -> "litellm"\n  model.name: "fake" -> "openai/gpt-4o-mini"\n' in said
    assert "  model.reply: null -> (nothing)\n" in said
    assert "would have changed" not in refused(ConfigError, folder, "sampling.temprature=1")
    assert "would have changed" not in refused(ConfigError, folder, "sampling.temperature=0")


def test_the_command_shows_the_diff_without_secrets(capsys):
    begin()
    assert main(["resume", "sampling.max_tokens=7"]) == 2
    assert "\n  sampling.max_tokens: 1000 -> 7\n" in capsys.readouterr().err
    assert main(["resume", "model.name=sk-ant-0123456789abcdef0123"]) == 2
    assert "0123456789" not in capsys.readouterr().err


# -- config.yaml


def test_an_edited_config_is_refused_with_a_diff():
    folder = begin("prompt.user=One\nTwo {{ question }}")
    edit(folder / "config.yaml", "temperature: 0.0", "temperature: 1")
    edit(folder / "config.yaml", "repeats: 1", "repeats: 2")
    edit(folder / "config.yaml", "One", "Three")
    edit(folder / "config.yaml", "requests: 2", "requests: 3")
    assert refused(ConfigError, folder).splitlines() == [
        f"{folder / 'config.yaml'} has changed since this run began:",
        "  sampling.temperature: 0.0 -> 1.0",
        "  sampling.repeats: 1 -> 2",
        "  prompt.user:",
        "    --- when the run began",
        "    +++ now",
        "    @@ -1,2 +1,2 @@",
        "    -One",
        "    +Three",
        "     Two {{ question }}",
        f"{ONLY}. Change it back, or play it as a new run: ostinato run -cd {folder} -cn config",
    ]


def test_changes_of_adjustable_groups_are_logged():
    folder = begin()
    log = folder / "run.log"
    log.write_text("")
    edit(folder / "config.yaml", "requests: 2", "requests: 3")
    assert resume(folder).summary.owed == 2
    assert re.fullmatch(r"\S+ resumed with budget\.requests: 2 -> 3\n.*budget.requests=3 does not allow.*\n", log.read_text())
    log.write_text("")
    assert resume(folder, ["budget.requests=null", "limits.rpm=600"]).summary.owed == 0
    assert re.fullmatch(r"\S+ resumed with limits\.rpm: null -> 600, budget\.requests: 3 -> null\n", log.read_text())
    log.write_text("")
    assert resume(folder).summary.ok == 5
    assert log.read_text() == ""
    assert (read(folder / "config.yaml").limits.rpm, read(folder / "config.yaml").budget.requests) == (600, None)


def test_a_record_without_a_config_in_its_manifest_resumes():
    folder = begin()
    record = RunFolder.open(folder)
    manifest = record.manifest()
    del manifest["config"], manifest["texts"]
    record.write_manifest(manifest)
    assert resume(folder, ["budget.requests=3"]).summary.owed == 2
    assert (read(folder / "config.yaml").budget.requests, record.manifest()["config"]["budget"]["requests"]) == (3, 3)


# -- data


def changed_data(folder, rows):
    write(rows)
    return refused(RecordError, folder).partition("or put it back")[2].removeprefix(":\n").splitlines()


def test_new_and_missing_rows_are_named():
    folder = begin()
    more = [{**ROWS[0], "id": f"new{n}"} for n in range(12)]
    listed = ", ".join(f"'new{n}'" for n in range(10))
    assert changed_data(folder, [*ROWS[1:], *more]) == ["  rows: 5 -> 16", f"  new: {listed}, and 2 more", "  gone: 'r0'"]


def test_a_changed_row_is_shown():
    folder = begin()
    question = [{**row, "question": "Why?"} if row["id"] == "r1" else row for row in ROWS]
    assert changed_data(folder, question) == ['  row \'r1\': messages[0].content: "What is 1?" -> "Why?"']
    target = [{**row, "answer": "three"} if row["id"] == "r0" else row for row in ROWS]
    assert changed_data(folder, target) == ['  row \'r0\': target: "even" -> "three"']
    unasked = [{**row, "question": "Why?"} if row["id"] == "r4" else row for row in ROWS]
    assert changed_data(folder, unasked) == ["  the same ids with another content"]
    assert changed_data(folder, [{"id": row["id"], "answer": row["answer"]} for row in ROWS])[0].startswith(
        "  row 'r0': row 'r0' has no column 'question'"
    )
    assert changed_data(folder, ROWS[::-1]) == ["  the same rows in another order"]
    write(ROWS)
    assert resume(folder, ["budget.requests=9"]).summary.ok == 5


def test_large_data_is_compared_by_its_size_and_its_first_changed_row(monkeypatch):
    monkeypatch.setattr("runner.experiment.drift.MAX_IDS", 3)
    folder = begin()
    assert "ids" not in RunFolder.open(folder).manifest()["data"]
    changed = [*ROWS[1:], {**ROWS[0], "question": "Why?"}, {**ROWS[0], "id": "r9"}]
    assert changed_data(folder, changed) == ["  rows: 5 -> 6", '  row \'r0\': messages[0].content: "What is 0?" -> "Why?"']


def test_unreadable_data_is_an_error():
    folder = begin()
    Path("rows.jsonl").unlink()
    assert "rows.jsonl: no such file" in refused(DataError, folder)


# -- files


GRADE = "KEY = 'hunter2hunter2x9Qz'\napi_token = 'q8Zr1LwT5vXk9PbM'\n\ndef grade(output, target, row):\n    return 1.0\n"


def test_an_edited_prompt_file_is_refused_with_a_diff():
    Path("prompt.txt").write_text("One\nTwo\n{{ question }}\n")
    folder = begin("prompt.user_file=prompt.txt")
    Path("prompt.txt").write_text("One\n2\n{{ question }}\n")
    assert refused(RecordError, folder).splitlines() == [
        f"{folder}: prompt.user_file ({Path('prompt.txt').absolute()}) has changed since this run began:",
        "  --- when the run began",
        "  +++ now",
        "  @@ -1,3 +1,3 @@",
        "   One",
        "  -Two",
        "  +2",
        "   {{ question }}",
        "put it back, or start a new run with `ostinato run`",
    ]
    Path("prompt.txt").write_text("{{ question")  # what it is now need not even be a prompt
    assert "+{{ question" in refused(RecordError, folder)
    Path("prompt.txt").unlink()
    assert refused(ConfigError, folder) == f"prompt.user_file: {Path('prompt.txt').absolute()}: No such file or directory"


@pytest.mark.parametrize("several", [False, True])
def test_an_edited_scorer_is_shown_without_its_secrets(several):
    Path("grade.py").write_text(GRADE)
    one = ["scoring=python", "scoring.function=grade.py:grade"]
    two = ["scoring=several", "scoring.scorers={mine: {kind: python, function: 'grade.py:grade'}, exact: {kind: exact}}"]
    folder = begin(*(two if several else one))
    key = "scoring.scorers.mine.function" if several else "scoring.function"
    assert list(RunFolder.open(folder).manifest()["files"]) == [key]
    Path("grade.py").write_text(GRADE.replace("1.0", "0.5").replace("q8Zr1LwT5vXk9PbM", "q8Zr1LwT5vXk9PbN"))
    said = refused(RecordError, folder)
    assert f"{key} ({Path('grade.py').absolute()}) has changed since this run began:\n" in said
    assert "\n  -    return 1.0\n  +    return 0.5\n" in said
    for file in folder.iterdir():
        assert b"q8Zr1LwT5vXk9" not in file.read_bytes()
    assert "q8Zr1LwT5vXk9" not in said


def test_no_diff_is_shown_of_long_or_binary_files(monkeypatch):
    monkeypatch.setattr("runner.experiment.files.MAX_TEXT", 20)
    Path("prompt.txt").write_text("{{ question }}, please, and soon")
    folder = begin("prompt.user_file=prompt.txt")
    assert RunFolder.open(folder).manifest()["texts"] == {}
    Path("prompt.txt").write_text("{{ question }}")
    changed = "has changed since this run began; put it back, or start a new run with `ostinato run`"
    assert refused(RecordError, folder).endswith(changed)


def test_a_run_resumes_with_its_replaced_scorers(monkeypatch, tmp_path):
    Path("grade.py").write_text(GRADE)
    folder = begin()
    score(folder, ["scoring=python", "scoring.function=grade.py:grade"])
    monkeypatch.chdir(tmp_path)  # from anywhere
    assert resume(folder, ["budget.requests=9"]).summary.scores["grade"].n == 5
    grade = Path(os.fspath(folder)).parents[2] / "grade.py"
    edit(grade, "1.0", "0.5")
    assert "scoring.function" in refused(RecordError, folder)
    score(folder)
    assert resume(folder).summary.scores["grade"].mean == 0.5


def test_infinity_and_environment_variables_are_not_drift(monkeypatch):
    monkeypatch.setenv("TEAM", "blue")
    folder = begin("limits.timeout_s=inf", "prompt.system=costs ${x} \\${y}", "model.reply=${oc.env:TEAM}")
    assert RunFolder.open(folder).manifest()["config"]["limits"]["timeout_s"] is None
    assert resume(folder, ["budget.requests=9"]).summary.ok == 5
