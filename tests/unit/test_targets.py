"""Targets: missing ones are errors everywhere, typed ones equal their text, and all are looked at before money is spent."""

import json
from pathlib import Path

import pytest

import runner
from runner.data import Columns, open_dataset
from runner.errors import DataError
from runner.experiment import targets
from runner.scoring import F1, Choice, Contains, Exact, JsonMatch, Numeric, Regex
from runner.types import Row
from tests.support.command import ostinato
from tests.support.data import dataset
from tests.support.server import Reply, Server

pytestmark = pytest.mark.usefixtures("in_tmp")

SCORERS = [Exact(), Exact(strip=False), Contains(), Regex(), Choice(["a", "b"]), Numeric(), JsonMatch(), F1()]
FORMS = {
    "rows.csv": "q,a\n1,\n2,  \n",
    "rows.tsv": "q\ta\n1\t\n2\t  \n",
    "rows.jsonl": '{"q": 1, "a": ""}\n{"q": 2, "a": null}\n',
    "rows.json": '[{"q": 1, "a": ""}, {"q": 2, "a": null}]',
}


@pytest.mark.parametrize("name", FORMS)
def test_an_empty_target_is_an_error_in_every_scorer_and_format(name):
    Path(name).write_text(FORMS[name])
    for row in dataset(name.rpartition(".")[2], path=name, target="a"):
        for scorer in SCORERS:
            for use in (lambda: scorer.check(row.target), lambda: scorer.score("x", row.target, {}, None)):  # noqa: B023
                with pytest.raises(DataError, match=r"the target is empty|there is no target"):
                    use()


def test_a_pattern_of_the_config_needs_no_target():
    Regex("x").check(None)
    assert Regex("x").score("x", "", {}, None) == 1.0


def test_an_object_as_target_says_how_to_name_a_text_inside():
    squad = {"answer_start": [1], "text": ["Denver"]}
    for scorer in (Exact(), Contains(), Regex(), Choice(["a", "b"]), Numeric(), F1()):
        with pytest.raises(DataError, match=r"an object with the keys \['answer_start', 'text'\].* data\.target=COLUMN\.text"):
            scorer.check(squad)
    JsonMatch().check(squad)
    with pytest.raises(DataError, match="a list in a list"):
        Exact().check([["a"], "b"])


NESTED = {
    "answers.text": ({"answers": {"text": ["Denver", "The Broncos"], "answer_start": [1, 2]}}, ["Denver", "The Broncos"]),
    "answers.value": ({"answers": [{"value": "a"}, {"value": ["b", "c"]}]}, ["a", "b", "c"]),
    "answers.0.value": ({"answers": [{"value": "a"}, {"value": "b"}]}, "a"),
    "a.b.c": ({"a": {"b": {"c": 5}}}, 5),
    "a.b": ({"a.b": "a column of that name", "a": {"b": "not this"}}, "a column of that name"),
}


@pytest.mark.parametrize("path", NESTED)
def test_a_path_names_a_value_inside_a_column(path):
    record, expected = NESTED[path]
    (row,) = dataset("inline", rows=[record], target=path)
    assert row.target == expected
    assert row.fields == record


@pytest.mark.parametrize(
    ("record", "path", "message"),
    [
        ({"answers": {"text": "a"}}, "answers.txet", r"has nothing named 'txet'.*did you mean 'text'\?; its keys are"),
        ({"answers": "a"}, "answers.text", r"'answers' has nothing named 'text'.*it is str, without keys"),
        ({"answers": ["a"]}, "answers.3", r"'answers' has nothing named '3'"),
        ({"answers": {}}, "answer.text", r"has no column 'answer\.text'"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends(record, path, message):
    with pytest.raises(DataError, match=message):
        dataset("inline", rows=[record], target=path)


def test_a_missing_column_is_told_beside_a_path_that_leads_somewhere():
    with pytest.raises(DataError, match=r"no column 'nope', which data\.cluster names"):
        open_dataset("inline", rows=[{"a": {"b": 1}}], columns=Columns(target="a.b", cluster="nope"))


@pytest.mark.parametrize(
    ("scorer", "output", "target", "expected"),
    [
        (Exact(), "42", 42.0, 1),
        (Exact(), "42.0", 42, 1),
        (Exact(), "42.00", 42, 1),
        (Exact(), "42", "42.0", 1),
        (Exact(), "42.5", 42.0, 0),
        (Exact(), "true", True, 1),
        (Exact(), "True", True, 1),
        (Exact(), "1", True, 0),
        (Exact(), "true", "yes", 0),
        (Contains(), "It is 42.", 42.0, 1),
        (Contains(), "It is true.", True, 1),
        (Regex(), "x 42 y", 42.0, 1),
        (F1(), "42", 42.0, 1),
        (F1(), "true", True, 1),
        (Choice(["true", "false"]), "true", True, 1),
        (Choice(["1", "2"]), "2", 2.0, 1),
    ],
)
def test_numbers_and_booleans_equal_their_text(scorer, output, target, expected):
    scorer.check(target)
    assert scorer.score(output, target, {}, None) == expected


def test_a_check_counts_the_targets_that_cannot_be_used():
    rows = [Row(str(n), {}, n if n % 2 else f"none {n * 'x'}") for n in range(20)]
    found = targets.check(rows, {"numeric": Numeric(), "exact": Exact()})
    assert (found.rows, found.unusable, len(found.reasons)) == (20, 10, 5)
    assert str(found).startswith("10 of 20 targets cannot be scored:\n  row '0': there is no number in the target")
    assert str(found).endswith("... and 5 more")


def written(answers, name="rows.jsonl"):
    Path(name).write_text("".join(json.dumps({"q": str(n), "a": answer}) + "\n" for n, answer in enumerate(answers)))
    data = ["data=jsonl", f"data.path={name}", "data.target=a", "prompt=default", "prompt.user={{ q }}", "scoring=numeric"]
    return ["model=fake", "model.reply='5'", "execution.orchestrator=none", *data]


def test_validate_and_dry_run_look_at_every_target():
    job = written([*range(30), "five apples"])
    for verb in (["validate"], ["validate", "-m"]):
        done = ostinato(*verb, *job, *(["sampling.seed=1,2"] if "-m" in verb else []))
        assert (done.code, "1 of 31 targets cannot be scored" in done.err, "'five apples'" in done.err) == (1, True, True)
    assert "1 of 31 targets cannot be scored" in ostinato("run", *job, "--dry-run", "--json").json["targets"]
    assert "1 of 31 targets" in ostinato("run", *job, "--dry-run").out
    assert "1 of 31 targets" in ostinato("run", "-m", *job, "sampling.seed=1,2", "--dry-run", "--json").json["targets"]
    result = runner.run(overrides=job)  # the other rows can be scored
    assert (result.summary.ok, result.summary.errors) == (30, 1)


def test_a_run_whose_targets_are_all_unusable_does_not_begin():
    with pytest.raises(DataError, match="20 of 20 targets cannot be scored"):
        runner.run(overrides=written(["none"] * 25))
    assert not Path("runs").exists()


def test_validate_remarks_on_letters_without_case():
    job = [*written(["A"]), "scoring=choice", "scoring.labels=[A,B]"]
    assert "the labels A, B are single letters" in ostinato("validate", *job).err
    assert ostinato("validate", *job, "scoring.ignore_case=false").err == ""
    several = ["scoring=several", "scoring.scorers={mine: {kind: choice, labels: [A, B]}}"]
    assert "scoring.scorers.mine: the labels A, B" in ostinato("validate", *job[:-2], *several).err


def test_scoring_again_says_what_changed():
    result = runner.run(overrides=written([5, 5, 7]))
    samples = result.folder / "samples.jsonl"
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    for line, score in zip(lines, (0.0, 1.0, 1.0), strict=True):  # as an older version read the answers
        line["scores"] = {"numeric": score}
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = ostinato("score", str(result.folder), "--json").json["changes"]["numeric"]
    assert done == {"before": pytest.approx(2 / 3), "after": pytest.approx(2 / 3), "up": 1, "down": 1, "gained": 0, "lost": 0}
    assert ostinato("score", str(result.folder)).out.endswith("numeric: 0.667 -> 0.667, no sample changed\n")


def test_answers_without_anything_to_compare_are_marked():
    result = runner.run(overrides=[*written([5] * 20), "model.choices=[none,'7']", "model.reply=null"])
    found = {(sample.output, str(sample.unread), sample.scores["numeric"]) for sample in result.samples}
    assert found == {("none", "['numeric']", 0.0), ("7", "None", 0.0)}


GSM8K = {  # openai/grade-school-math: the form of its targets; answers as chat models give them
    "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $<<9*2=18>>18.\n#### 18": ("She makes **$18** a day.", 1),
    "It takes 2/2=<<2/2=1>>1 bolt.\nSo 2+1=<<2+1=3>>3 bolts.\n#### 3": ("\\[\\boxed{3}\\]\nI checked this twice, in 2 ways.", 1),
    "He made 200,000-80,000-50,000=<<70000>>70,000\n#### 70,000": ("Answer: 70{,}000", 1),
    "He runs 3*3*60=<<540>>540 meters\n#### 540": ("3 × 3 × 60 = 540 metres in 1 week, or 0.54 km.\n\n#### 540", 1),
    "#### 20": ("20–25", 0),
    "#### 64": ("There are 65.", 0),
}


def test_worked_solutions_are_scored_as_numbers_and_as_mathematics():
    pytest.importorskip("math_verify")
    replies = {str(n): answer for n, (answer, _) in enumerate(GSM8K.values())}
    right = sum(right for _, right in GSM8K.values()) / len(GSM8K)
    with Server(lambda call: Reply(replies[call.question])) as server:
        job = [*written(list(GSM8K))[2:], "model=server", "model.name=m", f"model.api_base={server.url}"]
        first = runner.run(overrides=job)
        assert first.summary.scores["numeric"].mean == pytest.approx(right)
        assert runner.score(first.folder, ["scoring=math"]).summary.scores["math"].mean == pytest.approx(right)
        assert server.count == len(GSM8K)


def test_the_model_is_asked_again_only_if_no_json_fits():
    replies = {"0": 'As [1] says: {"n": 5}. I hope this helps!', "1": "```python\n{'n': 5,}\n```", "2": "five"}
    again = iter(['{"n": 5}'])
    with Server(lambda call: Reply(replies.get(call.question) or next(again))) as server:
        job = [*written([{"n": 5}] * 3)[2:], "model=server", "model.name=m", f"model.api_base={server.url}", "scoring=json_match"]
        pytest.importorskip("json_repair")
        schema = "adapter.schema={type: object, required: [n]}"
        result = runner.run(overrides=[*job, "adapter=json", schema, "adapter.repair=true"])
        assert server.count == 4
    samples = sorted(result.samples, key=lambda sample: int(sample.messages[0]["content"]))
    assert [(sample.parsed, sample.repaired, sample.attempts) for sample in samples] == [
        ({"n": 5}, False, 1), ({"n": 5}, True, 1), ({"n": 5}, False, 2),
    ]  # fmt: skip
    assert result.summary.scores["json_match"].mean == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-m", "sampling.seed=1,2")], ids=["run", "sweep"])
def test_validate_says_where_a_row_stands_that_no_prompt_can_be_made_of(more):
    Path("rows.jsonl").write_text('{"q": "a"}\n{"q": null}\n')
    data = ["model=fake", "data=jsonl", "data.path=rows.jsonl", "scoring=none"]
    done = ostinato("validate", *more, *data, "prompt.user='{{ q }}'")
    assert done.code == 1, done.out
    assert "rows.jsonl, line 2: row " in done.err
    assert "prompt.user uses column 'q', which is null in this row" in done.err
    done = ostinato("validate", *data, "data.id=q", "data.where=q != null", "data.ids=[a, zebra]", "prompt.user=x")
    assert "rows has no row 'zebra'; its first id is 'a'" in done.err, done.err
