"""Labels of people: drawn, taken in, checked; what they say of a judge; and the corrected score everywhere a score is shown."""

import csv
import hashlib
import io
import itertools
import json
import re
from pathlib import Path

import pytest

import runner
from runner.analysis.calibration import calibrate
from runner.cli import main
from runner.config.roles import config_hash
from runner.config.schema import RunConfig
from runner.config.schema.scoring import ExactScoring
from runner.records.labels import read_labels
from tests.support.command import ostinato
from tests.support.records import OFFLINE
from tests.support.server import Reply, Server

pytestmark = pytest.mark.usefixtures("in_tmp")

JUDGE = '''
import hashlib

def judge(output, target, row):
    """Be wrong about one right answer in ten, and about one wrong answer in five."""
    right = output == target
    lot = int(hashlib.sha256(row["question"].encode()).hexdigest(), 16) % 100
    return not right if lot < (10 if right else 20) else right


def grade(output, target, row):
    """Give a mark of 0, 0.25, ... 1."""
    return len(row["question"]) % 5 / 4
'''
SCORERS = "scoring.scorers={judge: {kind: python, function: judge.py:judge}, truth: {kind: exact}}"
ROWS = 240


def play(*more, choices="yes, yes, no", name="answers", scoring=("scoring=several", SCORERS)):
    """A run of yes-or-no questions, scored by a judge that errs and by known targets."""
    Path("judge.py").write_text(JUDGE)
    rows = [{"id": f"r{number}", "question": f"{name} {number}?", "answer": "yes"} for number in range(ROWS)]
    Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = [f"name={name}", "data=jsonl", f"data.path={name}.jsonl", "data.id=id", "data.target=answer", "prompt=default"]
    config = [*OFFLINE, f"model.choices=[{choices}]", *data, "prompt.user='{{ question }}'", *scoring]
    return runner.run(overrides=[*config, *more])


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def write(rows, file="labels.csv"):
    with Path(file).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def labelled(run, *how, count="120"):
    """Have answers labelled by their targets."""
    done = ostinato("labels", str(run.folder), "--sample", count, "--fill", "truth", *how)
    assert done.code == 0, done.err
    Path("labels.csv").write_text(done.out)
    return ostinato("labels", str(run.folder), "--import", "labels.csv")


def test_a_corrected_score_covers_the_truth_and_is_shown_everywhere():
    run = play()
    truth, raw = (run.summary.scores[name].mean for name in ("truth", "judge"))
    drawn = ostinato("labels", "latest", "--sample", "120")
    assert (drawn.code, "fill in the column `label` (right or wrong)" in drawn.err) == (0, True)
    rows = table(drawn.out)
    assert (len(rows), len({row["id"] for row in rows})) == (120, 120)
    assert {row["label"] for row in rows} == {""}
    assert "judge" not in str([{**row, "score": ""} for row in rows])  # nobody is told the verdict
    assert ostinato("labels", "latest", "--sample", "120").out == drawn.out  # the draw is by seed
    done = labelled(run)
    assert (done.code, done.out.splitlines()[0].startswith("120 labels taken in")) == (0, True)
    summary = runner.load(run.folder).summary
    found = summary.corrected["judge"]
    assert (found.labels, found.n, found.method) == (120, ROWS, "posterior")
    assert found.interval[0] < truth < found.interval[1]
    assert abs(found.mean - truth) < abs(raw - truth)
    shown = f"corrected judge  {found.mean:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}] (120 labels of this run)"
    assert shown in ostinato("show", "latest").out
    assert f"{found.mean:.3f} \\[" in ostinato("export", "latest", "--to", "md").out
    page = (run.folder / "report.html").read_text("utf-8")
    assert "How wrong is the judge?" in page
    assert "labelled wrong" in page
    told = ostinato("calibrate", "latest", "--json").json
    assert sum(told["table"].values()) == 120
    assert told["corrected"]["interval"] == list(found.interval)
    assert told["sensitivity"]["interval"][0] < 0.9 < told["sensitivity"]["interval"][1]
    assert told["specificity"]["interval"][0] < 0.8 < told["specificity"]["interval"][1]
    printed = ostinato("calibrate", "latest").out
    for part in ("judged right", "kappa", "corrected score", "halve the interval", "Beta posteriors"):
        assert part in printed
    kept = ostinato("labels", "latest", "--sample", "1", "-o", "labels.csv")
    assert (kept.code, "perhaps with labels" in kept.err, len(table(Path("labels.csv").read_text()))) == (2, True, 120)
    again = ostinato("labels", "latest", "--sample", "200")
    assert len(table(again.out)) == ROWS - 120  # what has a label is not drawn again


def test_a_calibration_corrects_other_runs_and_says_whether_their_judge_is_another():
    first = play()
    labelled(first, "--by-verdict")
    assert {round(one.weight, 2) for one in read_labels(first.folder)} != {1.0}
    done = ostinato("calibrate", "answers", "-o", "judge.json")
    assert (done.code, "scoring.calibration=judge.json" in done.out) == (0, True)
    expect = ["scoring.calibration=judge.json", "expect.that=['judge >= 0.2', 'judge >= 0.95']"]
    other = play(*expect, name="others", choices="yes, no")
    truth, found = other.summary.scores["truth"].mean, other.summary.corrected["judge"]
    assert (found.method, other.summary.calibration) == ("rates", [])
    assert found.interval[0] < truth < found.interval[1]
    passed, failed = other.summary.expectations
    assert (passed.verdict, failed.verdict, passed.value) == ("pass", "fail", found.mean)
    assert "as corrected by 120 labels; raw 0." in passed.note
    assert ostinato("pack", "others", "-o", "others.ostinato").code == 0
    assert ostinato("reproduce", "others.ostinato", "--trust-code").code == 0
    assert runner.load("others").summary.corrected["judge"] == found
    Path("judge.py").write_text(JUDGE.replace("< (10", "< (11"))
    assert main(["score", "others"]) == 0
    (remark,) = runner.load(other.folder).summary.calibration
    assert remark.startswith("judge: the judge is not the one that was calibrated: scorer.file_sha256: ")
    labelled(other)
    assert runner.load(other.folder).summary.corrected["judge"].method == "posterior"


def test_compare_uses_labels_of_both_runs():
    one, other = play(), play(choices="yes, no", name="answers")
    labelled(one)
    labelled(other)
    found = ostinato("compare", str(one.folder), str(other.folder), "--json").json["comparisons"][0]
    change = found["corrected"]["judge"]
    truth = other.summary.scores["truth"].mean - one.summary.scores["truth"].mean
    assert change["interval"][0] < truth < change["interval"][1]
    assert (change["paired"], change["labels"]) == (True, 120)
    assert "judge, corrected by labels: B - A " in ostinato("compare", str(one.folder), str(other.folder)).out
    assert "corrected for the errors of the judge" in ostinato("compare", str(one.folder), str(other.folder), "--markdown").out


def test_several_people_are_compared_and_the_last_word_of_each_counts():
    run = play()
    rows = table(ostinato("labels", "latest", "--sample", "40").out)
    first = [{**row, "label": "right" if row["answer"] == row["target"] else "Wrong"} for row in rows]
    assert ostinato("labels", "latest", "--import", write(first), "--who", "first").code == 0
    second = [{**row, "label": "0" if index < 4 else row["label"]} for index, row in enumerate(first)]
    done = ostinato("labels", "latest", "--import", write(second), "--who", "second")
    assert "judge: 2 people: 9" in done.out
    assert "of pairs agree on 40 answers with several labels; Krippendorff's alpha 0." in done.out
    assert len(read_labels(run.folder)) == 80
    ostinato("labels", "latest", "--import", write(first), "--who", "second")
    found = ostinato("calibrate", "latest", "--json").json
    assert (found["people"], found["labels"], found["among_people"]["alpha"]) == (["first", "second"], 40, 1.0)
    assert all(one.when and one.format == 1 for one in read_labels(run.folder))


def test_marks_are_labelled_with_numbers_and_corrected_by_regression():
    marks = "scoring.scorers={grade: {kind: python, function: judge.py:grade}}"
    run = play(marks)
    rows = [{"id": sample.id, "score": "grade", "label": f"{0.8 * sample.scores['grade'] + 0.1:.2f}"} for sample in run.samples][
        :60
    ]
    assert ostinato("labels", "latest", "--import", write(rows), "--who", "me").code == 0
    found = ostinato("calibrate", "latest", "--score", "grade", "--json").json
    assert (found["corrected"]["method"], found["table"]) == ("regression", None)
    assert found["corrected"]["mean"] == pytest.approx(0.8 * run.summary.scores["grade"].mean + 0.1, abs=0.01)
    done = ostinato("labels", "latest", "--import", write([{**rows[1], "label": "good"}]), "--who", "me")
    assert "line 2, row 'r1': 'good' is not a number" in done.err
    ostinato("calibrate", "latest", "--score", "grade", "-o", "marks.json")
    other = play(marks, "scoring.calibration=marks.json", name="others")
    assert "by labels of another run only scores of 0 and 1 are" in other.summary.calibration[0]


def test_an_answer_that_has_changed_since_is_left_out():
    run = play("model.fail_rate=0.5", "model.fail_with=context_window", "cache.mode=off", "scoring.errors=zero")
    rows = [{"id": sample.id, "label": "wrong"} for sample in run.samples][:60]
    assert ostinato("labels", "latest", "--import", write(rows), "--who", "me").code == 0
    lines = (run.folder / "samples.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in lines if json.loads(line)["status"] == "error"][:1]
    for sample in changed:
        sample["output"] = "yes"
    with (run.folder / "samples.jsonl").open("a") as file:
        file.write("".join(json.dumps(sample) + "\n" for sample in changed))
    told = calibrate(runner.load(run.folder), "judge", "now")
    assert told.labels == 59
    assert "1 label left out: the answers have changed since they were labelled" in told.remarks


def test_numbers_of_a_scale_are_labels_of_a_judge_that_has_one():
    judge = ["scoring=helpfulness", "model@scoring.model=fake", "scoring.model.choices=['2','4']"]
    run = play(*judge, scoring=())
    drawn = ostinato("labels", "latest", "--sample", "40")
    assert "(a number from 1 to 5)" in drawn.err
    rows = [{**row, "label": "4", "who": "me"} for row in table(drawn.out)]
    assert ostinato("labels", "latest", "--import", write(rows)).code == 0
    assert {one.value for one in read_labels(run.folder)} == {0.75}
    wrong = ostinato("labels", "latest", "--import", write([{**rows[0], "label": "6"}]))
    assert "6 is not on the scale of the judge: a number from 1 to 5" in wrong.err


BAD = [
    ({"id": "r999"}, "has no such row"),
    ({"label": "maybe"}, "there is no label 'maybe'; there is 1, 1.0, yes"),
    ({"label": "rigt"}, "there is no label 'rigt'; did you mean 'right'?"),
    ({"answer_sha256": "0" * 16}, "the answer has changed since it was drawn; draw again"),
    ({"score": "truht"}, "there is no score 'truht'; did you mean 'truth'?"),
    ({"who": ""}, "nobody says whose label this is"),
    ({"weight": "heavy"}, "weight: 'heavy' is not a number"),
    ({"label": ""}, "no row has a label"),
]


def test_bad_labels_are_one_line_of_error_and_nothing_is_taken_in():
    run = play()
    (row,) = table(ostinato("labels", "latest", "--sample", "1").out)
    for change, told in BAD:
        rows = [{**row, "label": "right", "who": "me", **change}]
        done = ostinato("labels", "latest", "--import", write(rows))
        assert (done.code, told in done.err, len(done.err.splitlines())) == (1, True, 1), done.err
    assert not (run.folder / "labels.jsonl").exists()
    for words, told in (
        (["labels", "latest", "--import", "nowhere.csv"], "nowhere.csv: No such file"),
        (["labels", "latest", "--sample", "5", "--score", "juge"], "did you mean 'judge'?"),
        (["labels", "latest", "--sample", "5", "--fill", "nothing"], "have no such score"),
        (["calibrate", "latest"], "has no labels of the score 'judge' (labels: none)"),
    ):
        done = ostinato(*words)
        assert (done.code in (1, 2), told in done.err) == (True, True), done.err
    labelled(run, count="10")
    assert "remark: 10 labels are few" in ostinato("calibrate", "latest").out


def test_a_bad_calibration_is_an_error_before_anything_is_asked():
    play()
    Path("broken.json").write_text("{")
    Path("other.json").write_text('{"kind": "calibration", "format": 99}')
    Path("none.json").write_text('{"a": 1}')
    before = len(list(Path("runs/answers").iterdir()))
    for file, told in (
        ("broken.json", "broken.json is not a calibration"),
        ("other.json", "its format is 99, and this version of ostinato reads 1"),
        ("none.json", "`ostinato calibrate RUN -o FILE` writes one"),
        ("gone.json", "No such file"),
    ):
        done = ostinato("run", *OFFLINE, f"scoring.calibration={file}")
        assert (done.code, told in done.err) == (2, True), done.err
    labelled(runner.load("answers"), count="40")
    ostinato("calibrate", "answers", "-o", "judge.json")
    done = ostinato(
        "run", *OFFLINE, "scoring=several", "scoring.scorers={other: {kind: exact}}", "scoring.calibration=judge.json"
    )
    assert (done.code, "is of the score 'judge'; this config has other" in done.err) == (2, True), done.err
    assert len(list(Path("runs/answers").iterdir())) == before


def test_a_config_without_a_calibration_has_the_hash_that_it_had():
    assert config_hash(RunConfig(scoring=ExactScoring(calibration=None))) == config_hash(RunConfig())
    assert config_hash(RunConfig(scoring=ExactScoring(calibration="x.json"))) != config_hash(RunConfig())


# --- a model as the judge


def stub(call):
    """Judge as `JUDGE` does, a model that errs at known rates."""
    said = call.body["messages"][-1]["content"]
    question, wanted, answer = (
        re.search(rf"<{tag}-\w+>\n(.*?)\n</{tag}", said)[1] for tag in ("question", "reference", "answer")
    )
    lot = int(hashlib.sha256(question.encode()).hexdigest(), 16) % 100
    right = (answer == wanted) != (lot < (10 if answer == wanted else 20))
    return Reply(json.dumps({"reason": "so", "label": "correct" if right else "incorrect"}), model=call.body["model"])


@pytest.mark.slow
def test_the_corrected_score_of_a_judge_with_known_error_rates_covers_the_truth():
    with Server(stub) as server:
        judge = ["model@scoring.model=server", f"scoring.model.api_base={server.url}", "scoring=correctness"]
        first = play(*judge, "scoring.model.name=one", choices="yes, no, no, no", scoring=())
        right = {sample.id: sample.output == sample.target for sample in first.samples}
        truth = sum(right.values()) / ROWS
        rows = table(ostinato("labels", "answers", "--sample", "120").out)
        for row in rows:
            row["label"] = "correct" if right[row["id"]] else "incorrect"
        assert ostinato("labels", "answers", "--import", write(rows), "--who", "me").code == 0
        wrong = ostinato("labels", "answers", "--import", write([{**rows[0], "label": "right"}]), "--who", "me")
        assert "there is no label 'right'; there is correct, incorrect" in wrong.err
        found = ostinato("calibrate", "answers", "-o", "judge.json", "--json").json
        assert found["corrected"]["interval"][0] < truth < found["corrected"]["interval"][1]
        assert not first.summary.scores["judge"].interval[0] < truth < first.summary.scores["judge"].interval[1]
        assert found["judge"]["served"] == ["one"]
        more = ["scoring.calibration=judge.json", "scoring.model.name=two", "scoring.rubric=Is it right"]
        other = play(*judge, *more, choices="yes, no", name="others", scoring=())
    told = [line.removeprefix("judge: the judge is not the one that was calibrated: ") for line in other.summary.calibration]
    assert {line.partition(":")[0] for line in told} >= {"scoring.rubric", "scoring.model.name", "served[0]"}
    assert 'served[0]: "one" -> "two"' in told
    assert other.summary.corrected["judge"].method == "rates"
    checked = ostinato("validate", "scoring=correctness", "scoring.calibration=judge.json", *OFFLINE)
    assert "scoring.calibration: the judge is not the one that was calibrated" in checked.out + checked.err


CHANGES = itertools.cycle([True, False])


def wavering(call):
    """Judge by the answer at first, and the other way round every second time when asked again (which the seed shows)."""
    said = call.body["messages"][-1]["content"]
    answer, wanted = (re.search(rf"<{tag}-\w+>\n(.*?)\n</{tag}", said)[1] for tag in ("answer", "reference"))
    right = (answer == wanted) != (call.body["seed"] != 7 and next(CHANGES))
    return Reply(json.dumps({"reason": "so", "label": "correct" if right else "incorrect"}), model=call.body["model"])


def test_a_judge_that_is_asked_again_tells_how_often_it_says_the_same():
    with Server(wavering) as server:
        model = ["model@scoring.model=server", f"scoring.model.api_base={server.url}", "scoring.model.name=one"]
        priced = ["scoring.model.price={prompt: 1, completion: 1}", "scoring.sampling={temperature: 1, seed: 7}"]
        run = play(*model, *priced, "scoring=correctness", "data.limit=60", scoring=())
        assert "no labels" in ostinato("calibrate", "answers", "--again", "40").err
        before, asked = (run.folder / "samples.jsonl").read_bytes(), len(server.calls)
        drawn = table(ostinato("labels", "answers", "--sample", "40").out)
        rows = [{**row, "label": "correct" if row["answer"] == row["target"] else "incorrect"} for row in drawn]
        assert ostinato("labels", "answers", "--import", write(rows), "--who", "me").code == 0
        done = ostinato("calibrate", "answers", "--again", "40", "-o", "judge.json")
        again = json.loads(Path("judge.json").read_text())["again"]
        assert (again["asked"], again["requests"], again["same"], len(server.calls) - asked) == (40, 40, 0.5, 40)
        assert again["interval"] == pytest.approx([0.338, 0.662], abs=1e-3)  # of Clopper and Pearson
        assert again["cost_usd"] > 0
        assert "self-consistency  0.500 [" in done.out
        assert "judged again: 40 answers; 40 requests, $" in done.out
        known = ostinato("calibrate", "answers", "--again", "40", "--json").json["again"]
        assert (known["same"], known["requests"], len(server.calls) - asked) == (0.5, 0, 40)  # the cache has them
        assert (run.folder / "samples.jsonl").read_bytes() == before
        other = play(*model, *priced, "scoring=correctness", "data.limit=5", "scoring.calibration=judge.json", scoring=())
        assert other.summary.calibration == []  # a calibration with it is one like others
    computed = play(name="computed")
    labelled(computed)
    assert "it is the same each time" in ostinato("calibrate", "computed", "--score", "judge", "--again", "3").err


def test_a_sweep_over_rubrics_ranks_by_judge_and_shows_corrected_scores():
    judge = ["scoring=correctness", "model@scoring.model=fake", "scoring.model.choices=[correct,incorrect]", "data.limit=40"]
    first = play(*judge, scoring=())
    rows = table(ostinato("labels", "answers", "--sample", "30").out)
    labels = [{**row, "label": "correct" if row["answer"] == row["target"] else "incorrect"} for row in rows]
    assert ostinato("labels", str(first.folder), "--import", write(labels), "--who", "targets").code == 0
    assert ostinato("calibrate", "answers", "-o", "judge.json").code == 0
    varied = ["scoring.rubric=Is it right?,Is it the same?", "model.choices=[yes,no],[no,maybe]"]
    data = ["name=grid", "data=jsonl", "data.path=answers.jsonl", "data.id=id", "data.target=answer", "prompt=default"]
    config = [*OFFLINE, *data, *judge, "prompt.user='{{ question }}'", "scoring.calibration=judge.json"]
    done = ostinato("run", "-m", *config, *varied)
    assert done.code == 0, done.err
    assert [
        word in done.out for word in ("best by judge 1", "best by judge 2", "judge, corrected", "none is the best of all")
    ] == [True] * 4
    cells = list(runner.load("grid").table())
    assert {(cell["scoring.rubric"], cell["judge"]) for cell in cells} == {("Is it right?", 1), ("Is it the same?", 2)}
    page = (runner.load("grid").folder / "report.html").read_text("utf-8")
    assert "judge, corrected" in page
    assert "cells were judged by different judges" in page
