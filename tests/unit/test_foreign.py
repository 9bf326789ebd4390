"""`ostinato import`: runs of other tools become records. Their real files are in `foreign/`, made by tests/peers/foreign.py."""

import json
import sys
from pathlib import Path

import pytest

import runner
from runner.config.schema.finetuning import TrainingData
from runner.errors import DataError
from runner.experiment.training import read_rows
from tests.support.command import ostinato
from tests.support.records import play

if sys.version_info >= (3, 14):
    import zipfile
else:
    from backports.zstd import zipfile

pytestmark = pytest.mark.usefixtures("in_tmp")

FOLDER = Path(__file__).parent / "foreign"
INSPECT = FOLDER / "sums.eval"
LM_EVAL = next(FOLDER.glob("samples_*.jsonl"))
PROMPTFOO = FOLDER / "promptfoo.json"


def imported(file, **more):
    return runner.import_run(file, **more)[0]


@pytest.mark.parametrize(
    ("file", "tool", "model", "counts", "scores", "repeats"),
    [
        (INSPECT, "inspect_ai 0.3.285", "openai-api/local/test", (24, 22, 2), {"match": 0.818, "includes": 0.818}, 2),
        (
            LM_EVAL,
            "lm_eval 0.4.13",
            "local-chat-completions/test",
            (11, 11, 0),
            {"exact_match.strict": 0.545, "exact_match.flexible": 0.818},
            1,
        ),
        (PROMPTFOO, "promptfoo 0.121.20", "openai/test", (12, 11, 1), {"pass": 0.545, "score": 0.545}, 1),
    ],
    ids=["inspect", "lm_eval", "promptfoo"],
)
def test_a_real_run_becomes_a_record(file, tool, model, counts, scores, repeats):
    run = runner.load(imported(file).folder)
    made, summary = run.manifest["foreign"], run.summary
    assert f"{made['tool']} {made['version']}" == tool
    assert (summary.model, (summary.rows, summary.ok, summary.errors)) == (model, counts)
    assert {name: round(score.mean, 3) for name, score in summary.scores.items()} == scores
    samples = {(sample.id, sample.repeat): sample for sample in run.samples()}
    assert {repeat for _, repeat in samples} == set(range(repeats))
    first = samples[next(iter(samples))]
    assert (first.messages[-1]["role"], first.output, first.target) == ("user", "The sum is 1.", "1")
    assert "What is 0 + 1?" in first.messages[-1]["content"]
    assert (run.folder / "report.html").exists()
    assert list(run.table())


def test_runs_of_three_tools_are_compared_row_by_row():
    files = {INSPECT: None, LM_EVAL: "doc.id", PROMPTFOO: "vars.id"}
    runs = [imported(file, id=column).folder for file, column in files.items()]
    for run in runs:
        runner.score(run, ["scoring=numeric"])
    for other in runs[1:]:
        found = runner.compare(runs[0], other)
        assert (found.primary, found.answered, found.verdict) == ("numeric", 11, "tied")
        assert found.difference.mean == 0


def test_a_file_of_two_prompts_is_two_runs_that_are_compared():
    done = ostinato("import", str(PROMPTFOO), "--json")
    one, other = (made["run"] for made in done.json)
    assert ostinato("compare", one, other, "--json").json["comparisons"][0]["verdict"] == "tied"


def test_a_run_of_ours_is_compared_with_one_of_inspect():
    rows = [json.loads(line) for line in (imported(INSPECT).folder / "rows.jsonl").read_text().splitlines()]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ours = play(
        "data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=target", "prompt.user='{{ input }}'", "scoring=numeric"
    )
    theirs = runner.load("sums").folder
    runner.score(theirs, ["scoring=numeric"])
    assert runner.compare(theirs, ours).answered == 11


@pytest.mark.parametrize("verb", ["resume", "retry", "pack", "reproduce", "score"])
def test_what_needs_requests_is_refused(verb):
    done = ostinato(verb, str(imported(INSPECT).folder))
    assert done.code == 1
    assert "was made by inspect_ai, and cannot be" in done.err


def test_answers_that_were_right_are_training_data():
    folder = imported(INSPECT).folder
    found = read_rows(TrainingData(from_run=str(folder)), Path("runs"))
    assert found.located[0][1]["messages"][-1] == {"role": "assistant", "content": "The sum is 1."}


# --- what the real files do not have


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def log(*samples, **about):
    evaluated = {"task": "made", "model": "m/x", "config": {"epochs": 1}, "packages": {}, **about}
    return {"version": 2, "status": "success", "eval": evaluated, "samples": list(samples)}


def inspected(sample):
    base = {"id": 1, "epoch": 1, "input": "q", "target": ["a", "b"], "messages": [], "output": {"choices": []}}
    Path("log.json").write_text(json.dumps(log({**base, **sample})))
    return next(runner.load(imported("log.json").folder).samples())


def test_attachments_thinking_and_tool_calls_of_inspect():
    call = {"id": "c", "function": "add", "arguments": {"x": 1}, "type": "function"}
    said = message(
        "assistant", [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "attachment://1"}], tool_calls=[call]
    )
    asked = [
        message("user", [{"type": "text", "text": "attachment://2"}]),
        message("assistant", "", tool_calls=[call]),
        message("tool", "2", tool_call_id="c"),
    ]
    choice = {"message": said, "stop_reason": "max_tokens"}
    sample = inspected(
        {
            "messages": [*asked, said],
            "output": {"model": "served", "choices": [choice], "time": 1.5},
            "attachments": {"1": "long answer", "2": "long question"},
            "scores": {"a": {"value": "P"}, "b": {"value": {"x": 1, "y": True}}, "c": {"value": "0.5"}, "d": {"value": "words"}},
            "model_usage": {
                "m/x": {
                    "input_tokens": 2,
                    "output_tokens": 3,
                    "total_tokens": 15,
                    "input_tokens_cache_read": 10,
                    "total_cost": 0.5,
                }
            },
        }
    )
    assert (sample.output, sample.reasoning, sample.status) == ("long answer", "hm", "truncated")
    assert sample.messages[0]["content"] == [{"type": "text", "text": "long question"}]
    assert sample.messages[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"x":1}'}
    assert sample.messages[2] == message("tool", "2", tool_call_id="c")
    assert sample.scores == {"a": 0.5, "b.x": 1.0, "b.y": 1.0, "c": 0.5}
    assert (sample.usage.prompt_tokens, sample.usage.cached_tokens, sample.cost_usd, sample.target) == (12, 10, 0.5, ["a", "b"])


def test_a_log_that_was_cut_off_is_read_as_far_as_it_goes():
    """inspect_ai writes the header last; before, there is the journal. Its zip may be deflated, as older versions wrote it."""
    with zipfile.ZipFile(INSPECT) as whole, zipfile.ZipFile("cut.eval", "w", zipfile.ZIP_DEFLATED) as cut:
        for name in whole.namelist():
            if name.startswith("samples/sum-0") or name == "_journal/start.json":
                cut.writestr(name, whole.read(name))
    assert imported("cut.eval").summary.rows == 20


def samples_of(*lines):
    Path("samples_made.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return list(runner.load(imported("samples_made.jsonl").folder).samples())


def test_log_likelihoods_and_repeats_of_lm_eval():
    pair = {"gen_args_0": {"arg_0": "2+2=", "arg_1": " 4"}, "gen_args_1": {"arg_0": "2+2=", "arg_1": " 5"}}
    chosen = {
        "doc_id": 0,
        "target": 0,
        "arguments": pair,
        "resps": [[[-1.0, "True"]], [[-2.0, "False"]]],
        "filtered_resps": [["-1.0", "True"], ["-2.0", "False"]],
        "filter": "none",
        "metrics": ["acc"],
        "acc": 1.0,
    }
    many = {
        "doc_id": 1,
        "target": "x",
        "arguments": [["q", {}]],
        "resps": [["x", "y"]],
        "filtered_resps": ["x"],
        "filter": "none",
        "metrics": ["acc"],
        "acc": 0.0,
    }
    one, other = samples_of(chosen, many)
    assert (one.output, one.prompt, one.scores) == ("4", "2+2=", {"acc": 1.0})
    assert [answer.text for answer in other.answers] == ["x", "y"]


def test_repeats_of_promptfoo_are_repeats_of_a_row():
    made = json.loads(PROMPTFOO.read_text())
    again = [{**one, "testIdx": one["testIdx"] + 12} for one in made["results"]["results"]]
    made["results"]["results"] += again
    made["runtimeOptions"]["repeat"] = 2
    Path("results.json").write_text(json.dumps(made))
    summary = imported("results.json").summary
    assert (summary.rows, summary.errors, summary.scores["pass"].n) == (24, 2, 11)


# --- bad input


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.eval", b"", "cannot be read: File is not a zip file"),
        ("x.eval", INSPECT.read_bytes()[:30_000], "cannot be read: File is not a zip file"),
        ("x.json", b'{"a": 1}', "is of no format that is known"),
        ("x.json", b'{"version": 2, "eval": {"task": 1', "is not that of a log of inspect_ai"),
        ("x.json", b'{"evalId": "e", "results": {"results": []}}', "has no results"),
        ("samples_x.jsonl", b'{"doc_id": 1}\n{', "samples_x.jsonl, line 2: is not a sample of lm-eval"),
        ("samples_x.jsonl", b"", "has no samples"),
        ("x.txt", b"hello", "is of no format that is known"),
    ],
    ids=range(8),
)
def test_a_file_that_cannot_be_read_leaves_nothing(name, content, told):
    Path(name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        runner.import_run(name)
    assert not list(Path().glob("runs/*/2*"))


def test_a_broken_member_is_named():
    content = bytearray(INSPECT.read_bytes())
    at = content.index(b"samples/sum-02_epoch_1.json") + 60
    content[at : at + 40] = bytes(40)
    Path("x.eval").write_bytes(content)
    with pytest.raises(DataError, match=r"samples/sum-02_epoch_1\.json cannot be read"):
        runner.import_run("x.eval")
    assert not list(Path().glob("runs/*/2*"))


@pytest.mark.parametrize(("column", "told"), [("doc.no", "has no text and no number there"), ("doc.same", "are both 'x'")])
def test_ids_are_there_and_unique(column, told):
    lines = [{"doc_id": n, "doc": {"same": "x"}, "resps": [["a"]], "filtered_resps": ["a"], "metrics": []} for n in range(2)]
    Path("samples_made.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=told):
        runner.import_run("samples_made.jsonl", id=column)
