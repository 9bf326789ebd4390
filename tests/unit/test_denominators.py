"""What scores stand on: rows that failed, were refused or cut off, told alike by terminal, JSON, tables, page and exports."""

import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runner
from runner.analysis.compare import compare
from runner.analysis.export import export
from runner.cli import main
from runner.errors import ConfigError
from runner.experiment.rescore import score
from runner.records import RunFolder
from runner.records.summary import Summary
from runner.types import RowError, Sample, Score
from tests.support.server import Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

COUNT = 20


def rows(count=COUNT):
    lines = [{"id": f"r{n}", "question": f"{n}", "answer": "yes"} for n in range(count)]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=contains"]


def served(server, *more):
    config = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none"]
    return [*config, *rows(), *more]


# --- one sweep, told in every way

CELLS = ["{sampling.temperature:0}", "{sampling.temperature:0.5}", "{sampling.temperature:1}"]
TWIN = "{sampling.temperature:0.5,limits.rpm:100000}"


def four_models(call):
    """Temperature 0 fails but for one row, 0.5 answers everything, 1 refuses the rows that are hard; the last rows are hard."""
    number, heat = int(call.question), call.body["temperature"]
    if heat == 0 and number:
        return Status(400, "no such image")
    if heat == 1 and number > 17:
        return Reply(None, finish_reason="content_filter")
    right = number < 16 if heat == 0.5 else number < 15
    ending = "length" if number == 2 else "stop"
    return Reply("" if number == 19 else "yes" if right else "no", finish_reason=ending)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of the sweep, the request count of its server, and the cells by name."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch, Server(four_models) as server:
        patch.chdir(folder)
        patch.setenv("OSTINATO_HOME", str(folder / "home"))
        result = runner.sweep(served(server, f"sweep.cells=[{','.join([*CELLS, TWIN])}]", "limits.max_concurrency=1"))
    names = ("failing", "whole", "refusing", "twin")
    return result.folder, dict(zip(names, result.manifest.cells, strict=True))


def told(capsys, *words):
    code = main(list(map(str, words)))
    return code, capsys.readouterr()


def test_a_sweep_is_ranked_on_common_rows_in_every_format(swept, capsys):
    folder, cells = swept
    _, out = told(capsys, "show", folder, "--json")
    told_in_json = {row["cell"]: row for row in json.loads(out.out)["cells"]}
    assert list(told_in_json) == [cells[name] for name in ("whole", "twin", "refusing", "failing")]
    whole, refusing, failing = (told_in_json[cells[name]] for name in ("whole", "refusing", "failing"))
    # by its own rows the cell that refuses hard questions would be the best, and the one that fails even better
    assert (whole["score.contains"], refusing["score.contains"], failing["score.contains"]) == (0.8, pytest.approx(15 / 18), 1.0)
    assert whole["score.contains.common"] == pytest.approx(16 / 18)
    assert refusing["score.contains.common"] == pytest.approx(15 / 18)
    assert {row["score.contains.common.n"] for row in (whole, refusing)} == {18}
    assert (whole["best"], whole["rank"], refusing["rank"], failing["rank"]) == (True, 1, 3, None)
    assert (failing["standing"], failing["best"], failing["score.contains.common"]) == ("partial", False, None)
    assert [failing[count] for count in ("errors", "scored", "n", "score.contains.n")] == [19, 1, 20, 1]
    assert [refusing[count] for count in ("refused", "scored", "truncated")] == [2, 18, 1]
    assert [whole[count] for count in ("errors", "refused", "truncated", "empty", "scored")] == [0, 0, 1, 1, 20]
    assert (told_in_json[cells["twin"]]["same_as"], told_in_json[cells["twin"]]["same_as.n"]) == (cells["whole"], 20)

    table = {row["cell"]: row for row in csv.DictReader(io.StringIO((folder / "table.csv").read_text(), newline=""))}
    for cell, row in told_in_json.items():
        for name in (
            "rank",
            "standing",
            "score.contains",
            "score.contains.common",
            "score.contains.n",
            "scored",
            "refused",
            "same_as",
        ):
            assert table[cell][name] == ("" if row[name] is None else str(row[name]))

    _, out = told(capsys, "show", folder)
    lines = out.out.splitlines()
    assert re.search(r"on 18 rows in common.*ok.*scored.*errors.*refused.*cut off.*empty", lines[1])
    assert [line.split()[2] for line in lines[2:6]] == ["0.800", "0.800", "0.833", "1.000"]
    assert "0.889  best" in re.sub(r" +", "  ", lines[2])
    assert "0.833  tied,  2  left  out" in re.sub(r" +", "  ", lines[4])
    assert "partial" in lines[5]
    assert any(line.startswith("partial: less than nine tenths of the samples are scored") for line in lines)
    assert any(line.startswith("not independent: 20 samples of temperature=0.5") for line in lines)

    content = io.BytesIO()
    export(runner.load(folder), "md", content)
    head, _, *md = content.getvalue().decode().splitlines()
    assert "| contains | ranked by | standing | samples | scored | errors | refused | cut off | empty |" in head
    assert [re.search(r"\(n=(\d+)\)", line)[1] for line in md] == ["1", "20", "18", "20"]
    assert [re.search("(best|tied|partial)[^|]*", line)[0] for line in md] == ["partial ", "best ", "tied, 2 left out ", "tied "]

    page = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())
    page = re.sub(r"\s+", " ", page)
    assert "best contains 0.800 #2" in page
    assert "on 18 rows in common" in page
    assert "partial: less than nine tenths of the samples are scored" in page
    assert "not independent: 20 samples of #4 answer the same requests as #2" in page


def test_junit_names_experiment_and_cell_and_no_time(swept):
    folder, _ = swept
    content = io.BytesIO()
    export(runner.load(folder), "junit", content)
    classes = {case.get("classname") for case in ET.fromstring(content.getvalue()).iter("testcase")}
    assert classes == {"rows.temperature=0", "rows.temperature=0_5", "rows.temperature=1", "rows.temperature=0_5,rpm=100000"}


def test_cells_are_compared_right_in_the_terminal_and_in_json(swept, capsys):
    folder, cells = swept
    run = {name: runner.load(folder).cells[place].run.folder for place, name in enumerate(cells)}
    code, out = told(capsys, "compare", run["whole"], run["failing"], "--rows", 0)
    assert code == 3
    assert "not in contains: none in A, 19 failed in B" in out.out
    assert (
        "B - A in contains is -0.750 (worst case) to +0.200 (best case), with 0 or 1 for 19 samples that one side lacks"
        in out.out
    )
    assert "contains: undecided: what was left out can turn the verdict (on n=1 rows)" in out.out
    assert out.err.startswith(f"undecided, because what was left out can turn the verdict: {run['failing'].parent.parent.name}/")
    code, out = told(capsys, "compare", run["whole"], run["failing"], "--json")
    (found,) = json.loads(out.out)["comparisons"]
    assert (code, found["verdict"], found["scores"]["contains"]["left_out_b"]) == (3, "undecided", {"error": 19})
    assert (found["scores"]["contains"]["bounds"]["least"]["mean"], found["scores"]["contains"]["bounds"]["samples"]) == (
        -0.75,
        19,
    )
    code, out = told(capsys, "compare", run["whole"], run["refusing"], "--fail-on-regression", "--rows", 0)
    assert code == 0  # whatever the two refused rows would have scored, the difference may be chance
    assert "not in contains: none in A, 2 refused in B" in out.out
    assert "B is tied with A in contains (n=18 rows" in out.out
    code, out = told(capsys, "compare", run["whole"], run["twin"], "--rows", 0)
    assert "not independent: 20 samples of B answer the same requests as samples of A" in out.out


def test_a_run_says_what_its_scores_stand_on(swept, capsys):
    folder, _ = swept
    refusing = runner.load(folder).cells[2].run
    _, out = told(capsys, "show", refusing.folder)
    assert "18 of 20 samples; left out: 2 refused; among them: 1 cut off" in out.out
    _, out = told(capsys, "show", refusing.folder, "--json")
    summary = json.loads(out.out)["summary"]
    assert (summary["left_out"], summary["scored"], summary["refused"], summary["truncated"]) == ({"refused": 2}, 18, 2, 1)
    told(capsys, "report", refusing.folder)  # a cell's page is made when it is asked for
    assert "n = 18; left out: 2 refused" in re.sub(r"\s+|<[^>]+>", " ", (refusing.folder / "report.html").read_text()).replace(
        "  ", " "
    )
    _, out = told(capsys, "show", refusing.folder, "--cite")
    assert "18 of 20 samples; left out: 2 refused" in out.out


def test_a_sweep_is_scored_again_as_a_whole(swept, capsys, tmp_path):
    whole, cells = swept
    folder = shutil.copytree(whole, tmp_path / "rows" / whole.name)
    (folder.parents[1] / "rows.jsonl").write_bytes((whole.parents[2] / "rows.jsonl").read_bytes())
    code, out = told(capsys, "score", folder, "scoring.refused=zero", "scoring.errors=zero", "--json")
    rows = {row["cell"]: row for row in json.loads(out.out)["cells"]}
    assert code == 0
    means = [rows[cells[name]]["score.contains"] for name in ("failing", "whole", "refusing", "twin")]
    assert means == [pytest.approx(mean) for mean in (0.05, 0.8, 0.75, 0.8)]
    assert [row["standing"] for row in rows.values()][:1] == ["best"]
    assert rows[cells["failing"]]["rank"] == 4
    assert {row["scored"] for row in csv.DictReader(io.StringIO((folder / "table.csv").read_text()))} == {"20"}
    code, out = told(capsys, "score", folder, "scoring=exact")
    assert (code, "exact" in out.out.splitlines()[1]) == (0, True)
    assert told(capsys, "score", folder, "sampling.temperature=0")[0] == 2


# --- how samples without a whole answer count


def ending(call):
    """Row 0 is right, 1 is wrong, 2 is refused, 3 fails, 4 is right but cut off."""
    number = int(call.question)
    if number == 3:
        return Status(400, "no such image")
    return Reply("no" if number == 1 else "yes", finish_reason={2: "content_filter", 4: "length"}.get(number, "stop"))


@pytest.mark.parametrize(
    ("more", "mean", "n", "left_out"),
    [
        ([], 2 / 3, 3, {"refused": 1, "error": 1}),
        (["scoring.refused=zero"], 2 / 4, 4, {"error": 1}),
        (["scoring.errors=zero"], 2 / 4, 4, {"refused": 1}),
        (["scoring.truncated=leave_out"], 1 / 2, 2, {"refused": 1, "error": 1, "truncated": 1}),
        (["scoring.truncated=zero"], 1 / 3, 3, {"refused": 1, "error": 1}),
        (["scoring.refused=zero", "scoring.errors=zero", "scoring.truncated=zero"], 1 / 5, 5, {}),
    ],
)
def test_rules_of_the_denominator(more, mean, n, left_out, capsys):
    with Server(ending) as server:
        first = runner.run(overrides=served(server, *rows(5)[1:2], "data.limit=5"))
        sent = server.count
        again = score(first.folder, more)
        assert server.count == sent
        assert (again.summary.scores["contains"].mean, again.summary.scores["contains"].n) == (pytest.approx(mean), n)
        assert (again.summary.unscored, again.summary.status) == (left_out, "incomplete")
        anew = runner.run(overrides=served(server, "data.limit=5", *more))
    assert anew.summary.scores["contains"].mean == pytest.approx(mean)
    assert anew.summary.unscored == left_out


def test_repeats_and_retries_count_by_the_rules():
    refusing = True

    def behave(call):
        return Status(400, "no such image") if refusing and call.question == "1" else Reply("yes")

    with Server(behave) as server:
        config = served(server, "data.limit=2", "sampling.repeats=2", "scoring.errors=zero", "cache.mode=off")
        first = runner.run(overrides=config)
        assert (first.summary.scores["contains"].mean, first.summary.scores["contains"].n, first.summary.errors) == (0.5, 2, 2)
        cut = runner.retry(first.folder, ["budget.requests=4"])  # nothing is left for the retry
        assert (cut.summary.scores["contains"].mean, cut.summary.unscored) == (0.5, {})
        refusing = False
        last = runner.retry(first.folder, ["budget.requests=99"])
        assert (last.summary.scores["contains"].mean, last.summary.unscored) == (1.0, {})


def test_failures_of_a_scorer_are_left_out_whatever_the_rule():
    config = ["model=fake", "model.reply=yes", "execution.orchestrator=none", *rows()[:1], "data.path=rows.jsonl", "data.id=id"]
    Path("rows.jsonl").write_text(
        '{"id": "a", "question": "q", "answer": "yes"}\n{"id": "b", "question": "r", "answer": "yes"}\n'
    )
    graded = "def grade(output, target, row):\n    return {'a': 1.0}[row['id']]\n"
    Path("grade.py").write_text(graded)
    result = runner.run(
        overrides=[*config, "prompt=default", "scoring=python", "scoring.function=grade.py:grade", "scoring.errors=zero"]
    )
    assert result.summary.unscored == {"error": 1}
    assert (result.summary.scores["grade"].mean, result.summary.scores["grade"].n) == (1.0, 1)


@pytest.mark.parametrize(("more", "measured"), [([], True), (["scoring.at_most=5"], False)])
def test_a_quantity_is_never_zero_for_want_of_an_answer_and_has_no_bounds(more, measured):
    words = ["data.limit=5", "cache.mode=off", "scoring=measure", "scoring.what=words", *more]
    with Server(ending) as server:
        first = runner.run(overrides=served(server, *words, "scoring.refused=zero", "scoring.errors=zero"))
        server.otherwise = Reply("yes")
        other = runner.run(overrides=served(server, *words))
    assert first.summary.scores["words"].n == (3 if measured else 5)
    assert first.summary.unscored == ({"refused": 1, "error": 1} if measured else {})
    change = compare(other.folder, first.folder).scores["words"]
    assert (change.left_out_b, change.bounds) == (first.summary.unscored, None)


def test_one_of_several_scorers_has_no_rule_of_its_own():
    with pytest.raises(ConfigError, match=r"apply to all scores: scoring\.refused="):
        runner.run(overrides=["model=fake", *rows(), "scoring=several", "scoring.scorers={a: {kind: exact, refused: zero}}"])


def test_summaries_of_earlier_versions_say_what_they_left_out():
    old = {"run": "r", "name": "n", "model": "m", "status": "complete", "rows": 9, "ok": 6, "errors": 2, "refused": 1}
    scored = Summary(**old, scores={"exact": Score(0.5, 0.1, 6)})
    assert (scored.unscored, scored.scored, scored.is_ranked) == ({"error": 2, "refused": 1}, 6, False)
    assert scored.stands_on() == "6 of 9 samples; left out: 2 failed, 1 refused"
    assert (Summary(**old).unscored, Summary(**old).scored) == ({}, None)


# --- verdicts that what was left out can turn


def samples(text, *, only=None):
    """Samples from a text: 1 right, 0 wrong, e failed, r refused, t cut off and left out."""
    kinds = {"e": "error", "r": "refused", "t": "truncated"}
    found = []
    for number, sign in enumerate(text):
        status = kinds.get(sign, "ok")
        error = RowError("timeout", "late") if sign == "e" else None
        found.append(
            Sample(
                id=f"r{number}", status=status, error=error, output=sign, scores={} if status != "ok" else {"hit": float(sign)}
            )
        )
    return found


@pytest.mark.parametrize(
    ("a", "b", "verdict", "bounds"),
    [
        ("1" * 20, "0" * 20, "worse", None),
        ("1" * 20, "0" * 19 + "e", "worse", (-1.0, -0.95)),  # one row does not change it
        ("1" * 20, "0" * 8 + "r" * 12, "worse", (-1.0, -0.4)),
        ("1" * 8 + "0" * 12, "0" * 8 + "r" * 12, "undecided", (-0.4, 0.2)),
        ("0" * 8 + "1" * 12, "1" * 8 + "e" * 12, "undecided", (-0.2, 0.4)),
        ("0" * 20, "1" * 19 + "t", "better", (0.95, 1.0)),
        ("01" * 10, "01" * 10, "tied", None),
        ("01" * 10, "01" * 9 + "0e", "tied", (-0.05, 0.0)),
        ("01" * 10, "01" * 4 + "e" * 12, "undecided", (-0.3, 0.3)),
        ("e" * 10 + "1" * 10, "e" * 10 + "0" * 10, "worse", None),  # what both have left out says nothing
        ("e" * 5 + "1" * 10, "0" * 15, "worse", (-1.0, -2 / 3)),
        ("e" * 12 + "1" * 8, "1" * 12 + "0" * 8, "undecided", (-0.4, 0.2)),
    ],
)
def test_a_verdict_stands_only_if_what_was_left_out_cannot_turn_it(a, b, verdict, bounds):
    change = compare(samples(a), samples(b)).scores["hit"]
    assert change.verdict == verdict
    assert (change.bounds and (change.bounds.least.mean, change.bounds.most.mean)) == (bounds and pytest.approx(bounds))
    mirrored = compare(samples(b), samples(a)).scores["hit"]
    assert mirrored.verdict == {"worse": "better", "better": "worse"}.get(verdict, verdict)
    lower = compare(samples(a), samples(b), lower_is_better=["hit"]).scores["hit"]
    assert lower.verdict == {"worse": "better", "better": "worse"}.get(verdict, verdict)
    if change.bounds:
        assert lower.bounds.by_case(True)[0].mean == change.bounds.most.mean


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.sampled_from("01e")] * 4), min_size=1, max_size=6), st.data())
def test_no_filling_is_outside_the_bounds(rows, data):
    """Each row has two repeats in A and in B, of which some have failed."""

    def side(first, second):
        signs = "".join(sign for row in rows for sign in (row[first], row[second]))
        return [msgspec.structs.replace(one, id=f"r{n // 2}", repeat=n % 2) for n, one in enumerate(samples(signs))]

    a, b = side(0, 1), side(2, 3)
    change = compare(a, b).scores.get("hit")
    if change is None or change.bounds is None:
        return
    one_sided = [n for n, (one, other) in enumerate(zip(a, b, strict=True)) if bool(one.scores) != bool(other.scores)]
    assert change.bounds.samples == len(one_sided)
    for n in one_sided:
        (lacking,) = (one for one in (a[n], b[n]) if not one.scores)
        lacking.scores = {"hit": data.draw(st.floats(0, 1))}
    filled = compare(a, b).difference.mean
    assert change.bounds.least.mean - 1e-9 <= filled <= change.bounds.most.mean + 1e-9


def test_scores_without_bounds_keep_their_verdict():
    a, b = samples("1" * 20), samples("0" * 8 + "e" * 12)
    for sample in a:
        sample.scores = {"hit": 5.0}
    change = compare(a, b).scores["hit"]
    assert (change.verdict, change.bounds, change.left_out_b) == ("worse", None, {"error": 12})


def test_rows_that_a_run_still_owes_are_left_out(capsys):
    config = ["model=fake", "model.reply=yes", "execution.orchestrator=none", *rows()]
    whole = runner.run(overrides=config).folder
    cut = runner.run(
        overrides=[*config, "budget.requests=4", "cache.mode=off", "limits.max_concurrency=1", "model.reply=no"]
    ).folder
    found = compare(whole, cut)
    assert (found.scores["contains"].left_out_b, found.only_a) == ({"owed": 16}, 16)
    assert (found.verdict, found.turned, found.undecided) == ("undecided", ["contains"], True)
    fewer = runner.run(overrides=[*config, "data.limit=10", "model.reply=no"]).folder  # other data: nothing is owed
    assert compare(whole, fewer).verdict == "worse"
    assert RunFolder.open(cut).summary().stands_on() == "4 of 20 samples; left out: 16 owed"
