"""`ostinato compare` and `runner.analysis.compare`: aligned rows, differences with their errors, reliable verdicts."""

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import runner
from runner.analysis.compare import compare, compare_all
from runner.cli import main
from runner.errors import ConfigError, DataError, RecordError
from runner.types import RowError, Sample, Usage
from tests.support.records import play, record, sweep

pytestmark = pytest.mark.usefixtures("in_tmp")


def scored(values, *, start=0, name="hit", **fields):
    """Return samples with these scores, one per row; None is a row that failed."""
    failed = {"status": "error", "error": RowError("timeout", "late")}
    return [
        Sample(
            id=f"r{index}",
            scores={} if value is None else {name: value},
            **(failed if value is None else {"output": f"says {value}"}),
            **fields,
        )
        for index, value in enumerate(values, start)
    ]


def rows(count, *, answer="yes"):
    lines = [{"id": f"r{n}", "question": f"q{n}", "answer": answer, "topic": f"t{n // 10}"} for n in range(count)]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=exact"]


# --- from Python


def test_rows_are_paired_whatever_their_order():
    rng = random.Random(1)
    a, b = [[rng.gauss(0.5, 0.2) for _ in range(50)] for _ in range(2)]
    shuffled = scored(b)
    rng.shuffle(shuffled)
    found = compare(scored(a), shuffled)
    peer = scipy.stats.ttest_rel(b, a)
    assert found.difference.mean == pytest.approx(np.mean(b) - np.mean(a))
    assert found.difference.p == pytest.approx(peer.pvalue)
    assert found.difference.ci == pytest.approx(tuple(peer.confidence_interval(0.95)))
    assert found.scores["hit"].mean_a == pytest.approx(np.mean(a))
    assert (found.a, found.b, found.primary, found.difference.n, found.difference.test) == ("A", "B", "hit", 50, "t")


@pytest.mark.parametrize(("b", "verdict"), [(0.0, "worse"), (1.0, "better")])
def test_verdicts_and_lower_is_better(b, verdict):
    found = compare(scored([1 - b] * 10), scored([b] * 10))
    assert (found.verdict, found.difference.p, found.difference.test) == (verdict, pytest.approx(2 / 2**10), "mcnemar")
    assert found.worse == (["hit"] if verdict == "worse" else [])
    upside_down = compare(scored([1 - b] * 10), scored([b] * 10), lower_is_better=["hit"])
    assert {upside_down.verdict, found.verdict} == {"better", "worse"}
    assert compare(scored([1 - b] * 5), scored([b] * 5)).verdict == "tied"  # five rows are too few to tell: p = 0.0625
    assert compare(scored([1 - b] * 5), scored([b] * 5), level=0.9).verdict == verdict


def test_failed_and_unpaired_samples_are_counted_but_not_scored():
    a = [*scored([1, None, 1, None, 0]), *scored([1, 1], start=100)]
    b = [*scored([1, 1, None, None, 1]), *scored([1], start=200)]
    found = compare(a, b)
    assert (found.answered, found.errors_a, found.errors_b) == (2, 2, 2)
    assert (found.only_a, found.only_b, found.only_a_ids, found.only_b_ids) == (2, 1, ["r100", "r101"], ["r200"])
    assert (found.difference.n, found.difference.mean, found.scores["hit"].gained, found.scores["hit"].lost) == (2, 0.5, 1, 0)


def test_repeats_are_averaged_and_rows_are_the_units():
    a = [sample for repeat in range(3) for sample in scored([0, 0, 1, 1], repeat=repeat)]
    b = [
        sample
        for repeat, values in enumerate(([1, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]))
        for sample in scored(values, repeat=repeat)
    ]
    found = compare(a, b)
    assert (found.difference.n, found.difference.units, found.scores["hit"].samples, found.only_b) == (4, 4, 12, 4)
    assert found.difference.mean == pytest.approx((2 / 3 + 0 + 0 - 1 / 3) / 4)
    assert found.difference.stderr == pytest.approx(scipy.stats.sem([2 / 3, 0, 0, -1 / 3]))
    assert found.difference.test == "sign-flip"  # the repeats of a row are not independent, as McNemar's test would have it


def test_clusters_are_the_units_of_the_test():
    rng = random.Random(2)
    a, b = [[rng.random() for _ in range(40)] for _ in range(2)]
    clusters = {f"r{index}": index // 4 for index in range(40)}
    found = compare(scored(a), scored(b), clusters=clusters)
    sums = [sum(b[4 * group + part] - a[4 * group + part] for part in range(4)) / 4 for group in range(10)]
    assert (found.difference.n, found.difference.units) == (40, 10)
    assert found.difference.stderr == pytest.approx(scipy.stats.sem(sums))
    assert found.difference.test == "sign-flip"
    with pytest.raises(ConfigError, match="row 'r39' has no cluster"):
        compare(scored(a), scored(b), clusters={key: group for key, group in clusters.items() if key != "r39"})


def test_many_comparisons_are_adjusted_together():
    a = scored([1] * 12)
    worse = [scored([0] * lost + [1] * (12 - lost)) for lost in (7, 6, 6, 0)]
    found = compare_all([a, *worse])
    raw = [comparison.difference.p for comparison in found]
    assert raw == pytest.approx([2 / 2**7, 2 / 2**6, 2 / 2**6, 1.0])
    adjusted = [comparison.scores["hit"].p_adjusted for comparison in found]
    assert adjusted == pytest.approx([4 * 2 / 2**7, 3 * 2 / 2**6, 3 * 2 / 2**6, 1.0])
    assert [comparison.verdict for comparison in found] == ["tied"] * 4
    assert compare(a, worse[0]).verdict == "worse"
    assert [comparison.b for comparison in found] == ["B", "C", "D", "E"]


def test_scores_of_one_run_are_adjusted_together_unless_one_is_chosen():
    def both(hit, other):
        return [Sample(id=f"r{n}", output="x", scores={"hit": hit[n], "f1": other[n]}) for n in range(8)]

    a, b = both([1] * 8, [0.5] * 8), both([0] * 6 + [1] * 2, [0.5] * 8)
    found = compare(a, b)
    assert (found.primary, list(found.scores), found.verdict) == ("hit", ["hit", "f1"], "tied")
    assert found.scores["hit"].p_adjusted == 2 * found.scores["hit"].difference.p
    assert compare(a, b, scores=["hit"]).verdict == "worse"
    assert compare(a, b, scores=["f1"]).primary == "f1"
    for options in ({"scores": ["nope"]}, {"lower_is_better": ["nope"]}):
        with pytest.raises(ConfigError, match="no score 'nope' in both runs: A has hit, f1, B has hit, f1"):
            compare(a, b, **options)


def test_scores_that_cannot_be_compared_are_an_error():
    a = [*scored([math.nan, math.inf, 1.0]), *scored([1.0], start=3, name="old")]
    b = [*scored([1.0, 1.0, 1.0]), *scored([1.0], start=3, name="new")]
    found = compare(a, b)
    assert (found.difference.n, found.scores["hit"].unscored, found.missing) == (1, 3, ["old", "new"])
    assert (found.difference.p, found.difference.ci, found.verdict) == (1.0, None, "tied")  # one row
    nothing = compare(scored([math.nan]), scored([1.0]))
    assert (nothing.difference.n, nothing.difference.mean, nothing.verdict, nothing.undecided) == (0, None, None, True)
    unscored = compare([Sample(id="a", output="x")], [Sample(id="a", output="y")])
    assert (unscored.primary, unscored.difference, unscored.verdict, unscored.undecided) == (None, None, None, True)
    assert (unscored.changed, [flip.id for flip in unscored.flips]) == (1, ["a"])


def test_booleans_are_scores():
    assert compare(scored([True, True, False]), scored([1.0, 0.0, 0])).difference.test == "mcnemar"


def test_runs_without_common_rows_are_an_error():
    with pytest.raises(
        RecordError, match=r"A and B have no row in common \(r0, ...; r5, ...\): were they played on the same data"
    ):
        compare(scored([1]), scored([1], start=5))
    with pytest.raises(RecordError, match="no row in common"):
        compare(scored([1]), [])
    with pytest.raises(ConfigError, match="a confidence level lies between 0 and 1"):
        compare(scored([1]), scored([1]), level=95)


def test_identical_runs_are_tied():
    found = compare(scored([1, 0, 1]), scored([1, 0, 1]))
    assert (found.verdict, found.changed, found.flips) == ("tied", 0, [])
    assert (found.difference.mean, found.difference.stderr, found.difference.p) == (0.0, 0.0, 1.0)


def test_flips_are_losses_then_gains_then_changed_answers():
    a = scored([1.0, 0.0, 0.9, 0.5, 0.5, 0.2])
    b = scored([0.0, 1.0, 0.8, 0.5, 0.5, 0.3])
    b[3].output = "something else"
    found = compare(a, b, rows=10)
    assert [flip.id for flip in found.flips] == ["r0", "r2", "r1", "r5", "r3"]
    assert [flip.id for flip in compare(a, b, rows=2).flips] == ["r0", "r2"]
    assert compare(a, b, rows=0).flips == []
    assert [flip.id for flip in compare(a, b, rows=2, lower_is_better=["hit"]).flips] == ["r1", "r5"]
    assert (found.changed, found.flips[0].score_a, found.flips[0].output_b) == (5, 1.0, "says 0.0")


def test_a_flip_shows_prompt_target_and_answers():
    asked = [
        {"role": "system", "content": "short"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "no json"},
    ]
    parts = [{"role": "user", "content": [{"type": "text", "text": "another"}]}]
    a = [Sample(id="r", messages=asked, output="x" * 10_000, target=[1, 2], scores={"hit": 1.0})]
    b = [Sample(id="r", messages=parts, output=None, scores={"hit": 0.0})]
    (flip,) = compare(a, b).flips
    assert (flip.prompt, flip.prompt_b, flip.target, flip.output_b) == ("q", "another", [1, 2], "")
    assert flip.output_a == "x" * 2_000 + " ... (8,000 characters more)"
    (same,) = compare([Sample(id="r", prompt="p", output="1")], [Sample(id="r", prompt="p", output="2")]).flips
    assert (same.prompt, same.prompt_b, same.score_a) == ("p", None, None)


def test_measures_are_of_samples_that_both_runs_answered():
    def run(tokens, cost, latency, **more):
        usage = [Usage(10, tokens + n, 10 + tokens + n) for n in range(3)]
        samples = [Sample(id=f"r{n}", output="x", usage=usage[n], cost_usd=cost, latency_s=latency * n, **more) for n in range(3)]
        return [*samples, Sample(id=f"only {tokens}", output="x", usage=Usage(999, 999, 1998), cost_usd=9.0, latency_s=99.0)]

    found = compare(run(1, 0.5, 1.0), run(5, 0.0, 2.0, cache="hit", saved_usd=0.25)).measures
    shown = {name: (measure.a, measure.b, measure.difference) for name, measure in found.items()}
    assert shown == {
        "prompt_tokens": (10, 10, 0),
        "completion_tokens": (2, 6, 4),
        "price_usd": (0.5, 0.25, -0.25),
        "latency_p50_s": (1, 2, 1),
        "latency_p95_s": (pytest.approx(1.9), pytest.approx(3.8), pytest.approx(1.9)),
    }
    unknown = compare(run(1, 0.5, 1.0), run(5, 0.0, 2.0, cache="hit")).measures["price_usd"]
    assert (unknown.a, unknown.b, unknown.difference) == (0.5, None, None)


@settings(max_examples=100)
@given(st.data())
def test_swapping_the_runs_mirrors_the_comparison(data):
    value = st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.0, 1.0, math.nan]))
    a, b = (data.draw(st.lists(value, min_size=1, max_size=25)) for _ in range(2))
    there, back = compare(scored(a), scored(b), rows=0), compare(scored(b), scored(a), rows=0)
    assert (there.only_a, there.errors_a, there.answered) == (back.only_b, back.errors_b, back.answered)
    if there.difference is None or there.difference.mean is None:
        return
    assert there.difference.mean == pytest.approx(-back.difference.mean, abs=1e-12)
    assert there.difference.p == pytest.approx(back.difference.p)
    mirrored = {"better": "worse", "worse": "better"}
    assert there.verdict == mirrored.get(back.verdict, back.verdict)
    if there.difference.ci:
        low, high = back.difference.ci
        assert there.difference.ci == pytest.approx((-high, -low), abs=1e-12)


def test_false_regressions_are_rare():
    """Check the whole path from samples to verdict under the null hypothesis."""
    rng = random.Random(7)
    count, found = 300, 0
    for _ in range(count):
        a, b = [[float(rng.random() < 0.7) for _ in range(40)] for _ in range(2)]
        found += compare(scored(a), scored(b), rows=0).verdict != "tied"
    assert 0 < found / count < 0.05 + 4 * math.sqrt(0.05 * 0.95 / count)


# --- of records


def test_runs_are_compared_by_name_with_their_config_changes():
    system = "prompt.system="
    a = play(*rows(12), "model.reply=yes", f"{system}one")
    b = play(*rows(12), "model.reply=no", f"{system}two", "sampling.temperature=0.5", "name=other", "runs_dir=elsewhere")
    found = compare(runner.load(a), runner.load(b))
    assert (found.a, found.b) == (f"rows/{a.name}", f"other/{b.name}")
    assert found.verdict == "worse"
    assert found.config_changes == [
        'model.reply: "yes" -> "no"',
        "sampling.temperature: 0.0 -> 0.5",
        'prompt.system: "one" -> "two"',
    ]
    assert found.data_changes == []
    assert compare(a, str(b)).difference == found.difference


def test_changes_of_data_and_prompt_files_are_reported():
    Path("prompt.txt").write_text("Say yes.\nOr no.\n")
    a = play(*rows(12), "model.reply=yes", "prompt.system_file=prompt.txt")
    Path("prompt.txt").write_text("Say yes.\nOr maybe.\n")
    b = play(*rows(10), "model.reply=yes", "prompt.system_file=prompt.txt")
    found = compare(a, b)
    assert found.config_changes == [
        "prompt.system_file:\n  --- A\n  +++ B\n  @@ -1,2 +1,2 @@\n   Say yes.\n  -Or no.\n  +Or maybe."
    ]
    assert found.data_changes[0] == "data.rows: 12 -> 10"
    assert found.data_changes[1].startswith("data.fingerprint: ")
    assert (found.only_a, found.only_a_ids) == (2, ["r10", "r11"])


def test_a_record_without_a_summary_can_be_compared():
    a, b = (record("runs", scored(values)) for values in ([1] * 8, [0] * 8))
    assert compare(a, b).verdict == "worse"


# --- the command


@pytest.fixture
def good_and_bad():
    return [str(play(*rows(30), f"model.reply={reply}")) for reply in ("yes", "no")]


def test_a_regression_exits_with_100(good_and_bad, capsys):
    good, bad = good_and_bad
    assert main(["compare", good, bad]) == 0
    assert main(["compare", good, bad, "--fail-on-regression"]) == 100
    assert "worse than the reference: rows/" in capsys.readouterr().err
    assert main(["compare", bad, good, "--fail-on-regression"]) == 0
    assert main(["compare", good, bad, "--fail-on-regression", "--lower-is-better", "exact"]) == 0
    again = str(play(*rows(30), "model.reply=yes", "sampling.temperature=0.5"))
    assert main(["compare", good, again, "--fail-on-regression"]) == 0
    assert main(["compare", good, again, bad, "--fail-on-regression"]) == 100


def test_a_gate_without_scores_to_compare_fails(capsys):
    good = str(play(*rows(5), "model.reply=yes"))
    failed = str(play(*rows(5), "model.fail_rate=1", "model.fail_with=context_window"))
    unscored = str(play(*rows(5), "model.reply=yes", "scoring=none"))
    for other in (failed, unscored):
        assert main(["compare", good, other]) == 0
        assert main(["compare", good, other, "--fail-on-regression"]) == 3
        assert "nothing to compare, so a regression cannot be ruled out" in capsys.readouterr().err


def test_the_command_prints_scores_flips_and_a_verdict(good_and_bad, capsys):
    good, bad = good_and_bad
    assert main(["compare", good, bad, "--rows", "2"]) == 0
    text = capsys.readouterr().out
    assert re.match(
        r"A  rows/\S+\nB  rows/\S+\n\n30 down, 0 up in exact; 30 of 30 answers differ; 2 shown\n\n  r0: 1 -> 0\n", text
    )
    assert "    prompt    q0\n    target    yes\n    A         yes\n    B         no\n\n  r1: 1 -> 0\n" in text
    assert re.search(r"^exact  1\.000  0\.000  -1\.000  \[-1\.000, -0\.\d+\]  < 0\.001 \(mcnemar\)  worse$", text, re.MULTILINE)
    assert 'config, A -> B\n  model.reply: "yes" -> "no"\n' in text
    assert text.endswith("B is worse than A in exact (n=30 rows; p=<0.001)\n")


def test_control_characters_of_answers_are_escaped(capsys):
    a, b = (str(record("runs", [Sample(id="r", output=text, scores={"hit": 1.0})])) for text in ("a\x1b[2Jb\nc", "d" * 5_000))
    assert main(["compare", a, b]) == 0
    text = capsys.readouterr().out
    assert "A         a\\x1b[2Jb c\n" in text
    assert f"B         {'d' * 300} ... (" in text


def test_json_output_is_one_object(good_and_bad, capsys):
    good, bad = good_and_bad
    assert main(["compare", good, bad, good, "--json", "--rows", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reference"] == good
    (comparison,) = found["comparisons"]  # a run is compared once, and not with itself
    assert (comparison["verdict"], comparison["difference"]["mean"], comparison["difference"]["n"]) == ("worse", -1.0, 30)
    assert comparison["scores"]["exact"]["verdict"] == "worse"
    assert len(comparison["flips"]) == 1


def test_the_command_takes_clusters_from_a_data_column(good_and_bad, capsys, monkeypatch, tmp_path):
    good, bad = good_and_bad
    monkeypatch.chdir(tmp_path)  # the data is where it was when the run began
    assert main(["compare", good, bad, "--cluster", "topic", "--rows", "0"]) == 0
    assert "(n=30 rows in 3 clusters by topic; p=0.250)" in capsys.readouterr().out  # three topics are three coins
    assert main(["compare", good, bad, "--cluster", "planet"]) == DataError.exit_code
    assert "has no column 'planet'; it has id, question, answer, topic" in capsys.readouterr().err
    data = tmp_path / "work" / "rows.jsonl"
    data.write_text(data.read_text().replace("t1", "t2"))
    assert main(["compare", good, bad, "--cluster", "topic"]) == 1
    assert "the data has changed since this run began" in capsys.readouterr().err
    data.unlink()
    assert main(["compare", good, bad, "--cluster", "topic"]) == 1


def test_rows_without_a_cluster_are_named(capsys):
    setup = rows(3)
    Path("rows.jsonl").write_text('{"id": "r0", "question": "q", "answer": "yes", "topic": null}\n')
    runs = [str(play(*setup, f"model.reply={reply}")) for reply in ("yes", "no")]
    assert main(["compare", *runs, "--cluster", "topic"]) == 1
    assert "row 'r0' has nothing in the column 'topic'" in capsys.readouterr().err


def test_the_command_compares_the_cells_of_a_sweep(capsys):
    runs = [play(*rows(20), f"model.reply={reply}") for reply in ("yes", "no", "maybe")]
    values = [{"model.reply": reply} for reply in ("yes", "no", "maybe")]
    folder = sweep([*zip(values, runs, strict=True), ({"model.reply": "lost"}, None)])
    assert main(["compare", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reference"] == str(folder / "cells" / runs[0].name)
    assert [(one["b"], one["verdict"]) for one in found["comparisons"]] == [
        (f"{folder.name}/{run.name}", "worse") for run in runs[1:]
    ]
    assert main(["compare", str(folder / "cells" / runs[2].name), str(folder), "--json"]) == 0
    assert [one["verdict"] for one in json.loads(capsys.readouterr().out)["comparisons"]] == ["better", "tied"]
    with pytest.raises(ConfigError, match="is a sweep: compare its cells"):
        compare(folder, runner.load(folder).cells[0].run)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["latest", "latest"], 2, "there is nothing to compare latest, latest with"),
        (["latest"], 2, "there is nothing to compare latest with"),
        (["latest", "nowhere"], 1, "no run matches 'nowhere'"),
    ],
)
def test_mistakes_have_an_exit_code_and_a_message(words, code, message, capsys):
    play(*rows(3))
    assert main(["compare", *words]) == code
    assert message in capsys.readouterr().err
