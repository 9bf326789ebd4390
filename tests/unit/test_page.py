"""The report as text: reading records, selecting from large ones, counting and drawing."""

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner
from runner.cli import main
from runner.errors import RecordError
from runner.experiment.rescore import score
from runner.records import RunFolder
from runner.reports import render, report
from runner.reports.axes import apart, axis_of, figure, log_scale, rounds, scale
from runner.reports.differences import ranges
from runner.reports.document import embedded
from runner.reports.facts import Facts
from runner.reports.gather import gather
from runner.reports.plots import Lines, pareto
from runner.reports.text import LONGEST
from runner.types import RowError, Sample
from runner.wording.numbers import dollars, seconds, share
from tests.support.example_records import answers, record, sweep

FAKE = ["model=fake", "execution.orchestrator=none"]
KEY = "sk-abcdefghijklmnopqrstuvwx"


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def visible(page):
    """Return the page's text, without tags, styles and scripts."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script|title|desc)\b.*?</\1>", "", page, flags=re.DOTALL))


# -- of a run


def test_a_run_leaves_its_report(in_tmp):
    result = runner.run(overrides=[*FAKE, "model.fail_rate=0.2", "model.fail_with=context_window"])
    page = (result.folder / "report.html").read_text()
    assert len(data_of(page)["samples"]) == result.summary.rows == 60
    assert "context_window" in visible(page)
    assert "model.fail_rate=0.2" in visible(page)  # what was asked
    assert (result.folder / "report.html").stat().st_mode & 0o777 == 0o644
    assert score(result.folder, ["scoring=exact"]).summary.rows == 60
    assert data_of((result.folder / "report.html").read_text())["scores"] == ["exact"]


def test_charts_keep_cells_of_different_judges_apart(tmp_path):
    folder = sweep(tmp_path)
    assert "one line per model." in render(folder)
    for number, file in enumerate(sorted(folder.glob("cells/*/manifest.json"))):
        manifest = json.loads(file.read_text())
        manifest["scorers"] = {"exact": {"judge": "strict" if number % 2 else "mild"}}
        manifest["models"] = {"exact": {"requested": "openai/judge"}}
        file.write_text(json.dumps(manifest))
    parts = [part for part in gather(folder).parts if part.summary]
    lines = Lines(parts, "exact")
    assert sorted({line.rpartition(", ")[2] for line in lines.names}) == ["judge 1", "judge 2"]
    assert sum(len(lines.cells(line, parts)) for line in lines.names) == len(parts)
    page = render(folder)
    assert "one line per model and judge" in page
    assert "Scores of different judges are not compared." in page


def test_a_report_that_cannot_be_made_does_not_fail_the_run(in_tmp, monkeypatch):
    def broken(folder):
        raise ValueError(f"a bug, near {KEY}")

    monkeypatch.setattr("runner.reports.report", broken)
    with pytest.warns(UserWarning, match=r"no report was written: a bug, near \*\*\*; try again with: ostinato report /"):
        result = runner.run(overrides=FAKE)
    assert (result.summary.status, (result.folder / "report.html").exists()) == ("complete", False)


def test_a_run_without_a_summary_has_a_report(tmp_path):
    folder = record(tmp_path, "half", answers(5, seed=1, right=1, latency=0.1, price=None))
    (folder.path / "summary.json").unlink()
    page = render(folder.path)
    assert "it is being played, or was killed" in visible(page)
    assert len(data_of(page)["samples"]) == 5


def test_samples_are_in_the_order_of_the_data(tmp_path):
    samples = answers(30, seed=1, right=0.5, latency=0.1, price=None, fails=0.3)
    folder = record(tmp_path, "order", samples)
    folder.append(reversed([Sample(id=sample.id, output="later") for sample in samples]))
    assert [sample["id"] for sample in data_of(render(folder.path))["samples"]] == [sample.id for sample in samples]


def test_no_secret_is_on_the_page(tmp_path):
    messages = [{"role": "user", "content": f"line\n{KEY}"}, {"role": "user", "content": [{"type": KEY, "text": KEY}]}]
    rows = [Sample(id=f"a {KEY}", messages=messages, output=KEY, target={KEY: [KEY]}, model_served=KEY)]
    rows += [Sample(id=KEY, status="error", error=RowError(KEY, f"{'x' * (LONGEST - 10)} {KEY}"))]
    config = {"name": KEY, "model": {KEY: [KEY]}}
    folder = record(tmp_path, "secret", rows, config=config, problem=f"refused: {KEY}", model=f"https://me:{KEY}@host/v1")
    (folder.path / "overrides.yaml").write_text(f"- model.x={KEY}\n")
    page = render(folder.path)
    assert "abcdefghijkl" not in page
    assert page.count("***") > 10


def test_a_message_without_content_shows_its_tool_calls(tmp_path):
    calls = [{"id": "1", "function": {"name": "add", "arguments": "{}"}}]
    rows = [Sample(id="a", messages=[{"role": "assistant", "tool_calls": calls}, {"role": "user", "content": "go on"}])]
    first, second = data_of(render(record(tmp_path, "calls", rows).path))["messages"]
    assert first["text"] == "calls add({})"
    assert second == {"role": "user", "text": "go on"}


def test_shared_messages_are_written_once(tmp_path):
    rows = answers(50, seed=1, right=1, latency=0.1, price=None)
    page = render(record(tmp_path, "shared", rows).path)
    assert page.count("Answer in one word.") == 1
    assert len(data_of(page)["messages"]) == 51


@given(st.recursive(st.text() | st.integers() | st.none(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)))
def test_embedded_data_cannot_end_the_script_and_reads_back(value):
    try:
        text = embedded({"value": value})
    except (UnicodeEncodeError, OverflowError):
        return  # lone surrogates and integers beyond 64 bits, neither of which a record can hold
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"value": value}


# -- of a large run


def large(count, every):
    for number in range(count):
        error = RowError("server", "HTTP 503") if number % every == 0 else None
        yield Sample(id=str(number), status="error" if error else "ok", error=error, output=None if error else "x" * 10,
                     scores={} if error else {"exact": float(number % 2)})  # fmt: skip


def test_a_large_run_shows_errors_first_and_counts_everything():
    facts = Facts(large(1000, 20), most=100)
    ids = [int(sample.id) for sample in facts.shown]
    assert ids == [*range(0, 1000, 20), *[number for number in range(1000) if number % 20][:50]]
    assert (facts.total, facts.failures["server"].count, len(facts.scores["exact"])) == (1000, 50, 950)


def test_a_large_run_of_errors_shows_the_first_ones():
    facts = Facts(large(1000, 1), most=100)
    assert [int(sample.id) for sample in facts.shown] == list(range(100))
    assert facts.failures["server"].example_id == "0"


def test_the_characters_on_a_page_are_bounded():
    facts = Facts(large(1000, 20), characters=600)
    assert {sample.status for sample in facts.shown} == {"error", "ok"}
    assert sum(len(sample.output or sample.error.message) for sample in facts.shown) <= 620
    assert len(Facts([], most=0).shown) == 0


def test_the_page_says_what_it_leaves_out(tmp_path, monkeypatch):
    from runner.reports import gather

    folder = record(tmp_path, "big", list(large(300, 100)))
    facts = Facts
    monkeypatch.setattr(gather, "Facts", lambda samples, **_: facts(samples, most=40))
    page = render(folder.path)
    assert "This page holds 40 of 300 samples: errors first" in visible(page)
    assert len(data_of(page)["samples"]) == 40
    monkeypatch.undo()
    assert "This page holds" not in visible(render(folder.path))


def test_very_long_texts_are_cut(tmp_path):
    folder = record(tmp_path, "long", [Sample(id="a", output="y" * (LONGEST + 5))])
    (sample,) = data_of(render(folder.path))["samples"]
    assert sample["output"] == "y" * LONGEST + "\n… cut here: the text has 50,005 characters, and is whole in samples.jsonl"


# -- of a sweep


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return sweep(tmp_path_factory.mktemp("sweep"))


def test_the_page_of_a_sweep_shows_its_numbers(swept):
    text = re.sub(r"\s+", " ", visible(render(swept)))
    assert "cells complete 6 of 8" in text
    assert "1 failed, 1 pending" in text
    assert "#4 model=smollm2, temperature=1.2: the server did not start within 120 s" in text
    assert re.search(r"#8 openai/gpt-4o-mini 1.2 –( –)* pending", text)
    assert "model.name local/smollm2 #1–3 3 model.name openai/gpt-4o-mini #5–7 3" in text  # where the configs differ
    assert "sampling.temperature 0.3 #2, #6 2" in text
    assert "sampling.max_tokens" not in text.split("Differences between cells")[1].split("Whole config")[0]


def test_a_local_cell_has_no_cost_whatever_is_varied(swept, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "sweep")
    for file in folder.glob("cells/*/summary.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "cost_usd": 0.25}))
    text = re.sub(r"\s+", " ", visible(render(folder)))
    assert re.search(r"#1 smollm2 0.0 [^#]* complete 60 59 1 – \d+ ms", text)
    assert re.search(r"#5 openai/gpt-4o-mini 0.0 [^#]* complete 60 59 1 \$0.25 \d+ ms", text)
    assert "cost $0.75" in text  # the three that were paid for


def test_points_have_their_intervals_in_words(swept):
    page = render(swept)
    assert re.search(
        r"<title>openai/gpt-4o-mini, sampling.temperature=0.0: 0.\d{3} \[0.\d{3}, [01].\d{3}\] \(cell #5\)</title>", page
    )
    assert "Where several cells share a value" not in page


def test_cells_that_share_a_value_are_one_point(swept, tmp_path):
    """Of six cells, three each differ only in a seed: one point per prompt, and no interval is too narrow."""
    folder = shutil.copytree(swept, tmp_path / "sweep")
    manifest = json.loads((folder / "manifest.json").read_text())
    cells = {key: cell for key, cell in manifest["cells"].items() if cell["run"]}
    for number, cell in enumerate(cells.values()):
        cell["values"] = {"prompt.system": ["Be brief, and answer in one word.", None][number // 3], "sampling.seed": number % 3}
    page = render_of(folder, {**manifest, "keys": ["prompt.system", "sampling.seed"], "cells": cells})
    scores = [RunFolder.open(folder / cell["run"]).summary().scores["exact"] for cell in cells.values()][:3]
    mean = sum(score.mean for score in scores) / 3
    low, high = (sum(score.interval[end] for score in scores) / 3 for end in (0, 1))
    assert f"prompt.system=Be brief, and answer in one word.: {mean:.3f} [{low:.3f}, {high:.3f}] (cell #1, #2, #3)" in page
    assert "Where several cells share a value" in page
    assert "<b>A</b> Be brief, and answer in one word." in page  # a name too long for its tick is explained below
    assert {"exact against prompt.system", "exact against sampling.seed"} <= set(re.findall(r"<h3>(.*?)</h3>", page))


def test_cell_folders_outside_the_sweep_are_not_read(swept, tmp_path):
    manifest = json.loads((swept / "manifest.json").read_text())
    (outside,) = [
        cell for cell in manifest["cells"].values() if cell["values"] == {"model": "smollm2", "sampling.temperature": 0}
    ]
    (tmp_path / "link").symlink_to(swept / outside["run"])
    for run in (str(swept / outside["run"]), "link", "../../etc"):
        page = render_of(tmp_path, {**manifest, "cells": {"x": {**outside, "run": run}}})
        assert "is not a folder of this sweep" in visible(page)
        assert "<svg" not in page


def render_of(folder, manifest):
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return render(folder)


def test_reports_of_unfinished_empty_and_broken_sweeps(tmp_path):
    manifest = {"format": 1, "kind": "sweep", "name": "s", "status": "running", "keys": ["a"], "primary": None, "cells": {}}
    assert "Nothing is recorded yet." in visible(render_of(tmp_path, manifest))
    manifest["cells"] = {"x": {"values": {"a": 1}, "run": None, "status": "pending", "problem": None}}
    assert "0 of 1" in visible(render_of(tmp_path, manifest))
    manifest["cells"]["x"] |= {"run": "cells/gone", "status": "complete"}
    assert "is not a run folder" in visible(render_of(tmp_path, manifest))
    with pytest.raises(RecordError, match="a sweep has cells"):
        render_of(tmp_path, {**manifest, "cells": []})
    with pytest.raises(RecordError, match="its format 2 is not one"):
        render_of(tmp_path, {**manifest, "format": 2})


# -- axes


@pytest.mark.parametrize(
    ("values", "ticks", "log"),
    [
        ([0.0, 0.5, 1.0], ["0", "0.5", "1"], False),
        ([1], ["1"], False),
        ([1, 10, 100, 1000], ["1", "10", "100", "1,000"], True),
        ([0, 1e-5, 1e-3, 0.1], ["0", "1e-05", "0.001", "0.1"], False),
        (["b", "a", None], ["b", "a", "null"], False),
        ([True, False], ["true", "false"], False),
        ([[1, 2], {"a": 1}], ["[1, 2]", '{"a": 1}'], False),
        ([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"], True),
        (list(range(100)), ["0", "20", "40", "60", "80", "100"], False),
        ([], [], False),
    ],
)
def test_axes_fit_the_values_of_a_key(values, ticks, log):
    axis = axis_of(values)
    assert [name for _, name in axis.ticks] == ticks
    assert axis.log == log
    assert all(-0.001 <= axis.at(value) <= 1.001 for value in values)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_round_ticks_are_few_ordered_and_within_bounds(low, width):
    width = max(width, abs(low) * 1e-6)
    high = low + width
    ticks = rounds(low, high)
    assert len(ticks) <= 11
    assert ticks == sorted(ticks)
    assert all(low - width * 1e-6 <= tick <= high + width * 1e-6 for tick in ticks)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=30))
def test_numbers_are_placed_within_their_axis_in_order(numbers):
    for axis in (scale(numbers), log_scale(numbers)):
        places = [axis.at(number) for number in sorted(numbers)]
        assert places == sorted(places)
        assert -1e-6 <= places[0] <= places[-1] <= 1 + 1e-6


def test_ticks_do_not_overlap():
    assert apart([0, 0.01, 0.5, 0.99, 1], 0, 1) == [0, 0.5, 1]
    assert [figure(number) for number in (0, 1500, 0.25, 2e7, 1e-7)] == ["0", "1,500", "0.25", "2e7", "1e-7"]


# -- figures


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_pareto_front_is_the_undominated_points(points):
    front = set(pareto([(cost, gain, number) for number, (cost, gain) in enumerate(points)]))
    for number, (cost, gain) in enumerate(points):
        beaten = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
        if number in front:
            assert not beaten
        else:
            assert beaten or points.index((cost, gain)) < number


def test_the_distribution_of_latencies_has_its_own_axis(tmp_path):
    page = render(record(tmp_path, "fast", answers(40, seed=1, right=0.5, latency=0.01, price=None)).path)
    counted = [int(count) for count in re.findall(r"<title>[\d.]+ to [\d.]+: (\d+) requests", page)]
    assert len(counted) == 10
    assert max(counted) < sum(counted) == 40


def test_latency_quantiles_are_interpolated():
    facts = Facts(Sample(id=str(n), latency_s=float(n)) for n in range(1, 101))
    assert [facts.quantile(share) for share in (0.5, 0.95, 1.0)] == pytest.approx([50.5, 95.05, 100])
    assert Facts([Sample(id="a")]).quantile(0.5) is None


def test_numbers_are_written_for_people():
    assert [share(part, 1000) for part in (0, 1, 999, 1000)] == ["0%", "0.1%", "99.9%", "100%"]
    assert share(99_999, 100_000) == "99.9%"
    amounts = (None, 0.0, 0.00378, 0.00001, 0.9996, 0.12, -0.5, 1234.5)
    assert [dollars(amount) for amount in amounts] == [
        "unknown",
        "$0.00",
        "$0.00378",
        "$0.00001",
        "$1.00",
        "$0.12",
        "$-0.5",
        "$1,234.50",
    ]
    assert [seconds(time) for time in (None, 0.0123, 5, 125, 7300)] == ["–", "12 ms", "5.0 s", "2 min 5 s", "2 h 1 min"]
    assert ranges([4, 1, 2, 3, 7]) == "#1–4, #7"


# -- the command


def test_the_command_writes_a_report(in_tmp, capsys, monkeypatch):
    folder = runner.run(overrides=FAKE).folder
    (folder / "report.html").unlink()
    assert main(["report"]) == 0
    assert capsys.readouterr().out == f"{(folder / 'report.html').relative_to(in_tmp)}\n"
    assert main(["report", "capitals", "-o", "out.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": str(folder), "report": str(Path("out.html").absolute())}
    assert Path("out.html").read_text() == (folder / "report.html").read_text()
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["report", str(folder), "--open"]) == 0
    assert opened == [(folder / "report.html").as_uri()]
    capsys.readouterr()
    assert main(["report", "-o", "nowhere/out.html"]) == 1
    assert "out.html cannot be written: No such file or directory" in capsys.readouterr().err
    assert main(["report", "nope"]) == 1
    assert "no run matches 'nope'" in capsys.readouterr().err


def test_the_command_accepts_a_sweep(in_tmp, capsys):
    folder = sweep(in_tmp / "runs", rows=5)
    assert main(["report", f"primes/{folder.name}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(folder / "report.html")


def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = record(tmp_path, "whole", [Sample(id="a")]).path
    before = report(folder).read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RecordError, match="No space left"):
        report(folder)
    assert (folder / "report.html").read_text() == before
    assert not list(folder.glob(".*"))
    assert RunFolder.open(folder).manifest()["name"] == "whole"


def test_values_with_a_common_beginning_stay_distinct():
    one, other = "x" * 300 + "1", "x" * 300 + "2"
    axis = axis_of([one, other])
    assert axis.at(one) != axis.at(other)
    assert all(len(text) <= 200 for _, text in axis.ticks)
