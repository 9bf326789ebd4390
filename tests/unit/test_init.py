"""`ostinato init` makes a folder that runs at once, on an example or on the user's file, and changes nothing that is there."""

import errno
import json
from pathlib import Path

import jsonschema
import pytest

from runner.cli.init.columns import guess
from runner.config import yaml
from runner.types import Row
from tests.support.command import ostinato

OFFLINE = ("execution.orchestrator=none", "--json")


def guessed(rows, **given):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    found = guess(columns, [Row(str(at), row) for at, row in enumerate(rows)], {"scoring": None, **given})
    return found.question, found.target, found.id, found.scoring


SUMS = [{"id": at, "question": f"What is {at} + 1?", "answer": str(at + 1)} for at in range(9)]
TICKETS = [{"Ticket": f"t{at}", "Message text": f"Where is order {at}?", "Label": ["a", "b"][at % 2]} for at in range(9)]
SQUAD = [{"context": "Paris is in France.", "question": "Where?", "answers": {"text": ["France"], "answer_start": [12]}}] * 2


@pytest.mark.parametrize(
    ("rows", "given", "expected"),
    [
        (SUMS, {}, ("question", "answer", "id", "numeric")),
        (SUMS, {"target": "none", "id": "none"}, ("question", None, None, "none")),
        (SUMS, {"question": "answer", "target": "question"}, ("answer", "question", "id", "contains")),
        (TICKETS, {}, ("Message text", "Label", None, "choice")),
        (TICKETS, {"id": "Ticket", "scoring": "exact"}, ("Message text", "Label", "Ticket", "exact")),
        (SQUAD, {}, ("question", "answers.text", None, "contains")),
        ([{"id": 1, "input": "x", "output": text} for text in ("y", "z")], {}, ("input", "output", None, "contains")),
        ([{"a": "short", "b": "the longest text of all"}], {}, ("b", None, None, "none")),
        ([{"prompt": "x", "expected_output": {"city": "Paris"}}], {}, ("prompt", "expected_output", None, "json_match")),
    ],
)  # fmt: skip
def test_what_columns_are_for_is_guessed(rows, given, expected):
    assert guessed(rows, **given) == expected


def test_an_example_runs_and_nothing_is_overwritten(in_tmp):
    done = ostinato("init", "project")
    assert done.code == 0, done.err
    assert "Next: cd project && ostinato run experiment=questions" in done.out
    folder = Path("project")
    made = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert set(made) == {
        ".github/workflows/evaluate.yml", ".gitignore", "README.md", "conf/experiment/questions.yaml", "conf/schema.json",
        "data/questions.csv", "prompts/questions.txt",
    }  # fmt: skip
    assert b"%{" not in b"".join(made.values())
    again = ostinato("init", "project")
    assert (again.code, "is there already, and is not overwritten; choose another name: --name" in again.err) == (2, True)
    assert {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()} == made
    schema = json.loads(made["conf/schema.json"])
    assert jsonschema.Draft7Validator(schema).is_valid(yaml.read(folder / "conf/experiment/questions.yaml"))
    steps = yaml.read(folder / ".github/workflows/evaluate.yml")["jobs"]["evaluate"]["steps"]
    assert [step["run"] for step in steps if "run" in step][:2] == [
        "pip install 'ostinato[local]'", "ostinato validate experiment=questions"
    ]  # fmt: skip


def test_a_made_experiment_runs(in_tmp, monkeypatch):
    Path("My questions (1).csv").write_text(
        "Question text,Correct answer,no\n" + "".join(f"{n} + 1?,{n + 1},{n}\n" for n in range(50))
    )
    Path("README.md").write_text("mine")
    done = ostinato("init", "--from", "My questions (1).csv", "--id", "no", "--model", "fake")
    assert done.code == 0, done.err
    assert [line.split() for line in done.out.splitlines()[1:6]] == [
        ["question", "Question", "text"], ["target", "Correct", "answer"], ["id", "no"], ["scoring", "numeric"], ["model", "fake"]
    ]  # fmt: skip
    assert "kept README.md: it was there already" in done.out
    assert Path("README.md").read_text() == "mine"
    assert not Path("data").exists()  # the file is in the folder, and is used where it lies
    run = ostinato("run", "experiment=My-questions-1", *OFFLINE)
    assert run.code == 0, run.err
    assert (run.json["status"], run.json["rows"], list(run.json["scores"])) == ("complete", 50, ["numeric"])


def test_a_file_from_elsewhere_is_copied_and_labels_are_in_the_prompt(in_tmp):
    Path("in").mkdir()
    Path("in/tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TICKETS))
    assert ostinato("init", "out", "--from", "in/tickets.jsonl", "--model", "openai/gpt-5.4-mini", "--name", "queue").code == 0
    made = yaml.read(Path("out/conf/experiment/queue.yaml"))
    assert made["model"] == {"name": "openai/gpt-5.4-mini"}
    assert made["scoring"] == {"labels": ["a", "b"]}
    assert Path("out/data/tickets.jsonl").read_text() == Path("in/tickets.jsonl").read_text()
    assert "Answer with one of these: a, b." in Path("out/prompts/queue.txt").read_text()


def test_data_is_copied_whole_or_not_at_all(in_tmp, monkeypatch):
    Path("in").mkdir()
    Path("in/tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TICKETS))

    def full(source, copy):
        copy.write(source.read(40))
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="Input/output error"):
        ostinato("init", "out", "--from", "in/tickets.jsonl")
    assert list(Path("out/data").iterdir()) == []


def test_on_a_terminal_it_asks(in_tmp, monkeypatch):
    Path("sums.csv").write_text("id,question,answer\n1,2 + 3?,5\n2,4 + 4?,8\n")
    asked = []
    answers = iter(["sums.csv", "", "", "none", "exact", "fake"])
    monkeypatch.setattr("runner.cli.init._on_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", lambda said: asked.append(said) or next(answers))
    assert ostinato("init", "out").code == 0
    assert [said.rpartition("[")[2] for said in asked] == [
        "none]: ",
        "question]: ",
        "answer]: ",
        "id]: ",
        "numeric]: ",
        "smollm2]: ",
    ]
    made = yaml.read(Path("out/conf/experiment/sums.yaml"))
    assert made["data"] == {"path": "data/sums.csv", "target": "answer"}
    assert {"override /scoring": "exact"} in made["defaults"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "absent.csv"], "--from absent.csv: there is no such file"),
        (
            ["--target", "anwser"],
            "--target anwser: there is no such column; there are id, question, answer; did you mean 'answer'?",
        ),
        (["--scoring", "contain"], "--scoring contain: there is no such option; did you mean 'contains'?"),
        (["--model", "gpt"], "--model gpt: there is no such option, and a provider's model is provider/name"),
    ],
)
def test_mistakes_are_told_and_nothing_is_made(words, message, in_tmp):
    done = ostinato("init", *words)
    assert (done.code, message in done.err) == (2, True), done.err
    assert list(Path().iterdir()) == []
