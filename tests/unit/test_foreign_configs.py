"""`ostinato import` of configs: they become experiments that validate and run, with a list of what could not be carried over."""

import json
from pathlib import Path

import pytest

import runner
from runner.errors import DataError, RecordError
from runner.foreign.experiment import import_config
from tests.peers.foreign import LM_EVAL_TASK, ROWS
from tests.support.command import ostinato

pytestmark = pytest.mark.usefixtures("in_tmp")

PROMPTFOO = """\
description: sums and cities
prompts:
  - "Answer in one word: {{question}} costs ${not an interpolation}"
  - '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{question}}"}]'
  - file://prompt.py
providers:
  - id: openai:chat:gpt-5.4-mini
    config: {temperature: 0.5, max_tokens: 20, apiKey: sk-1}
  - anthropic:messages:claude-sonnet-5
defaultTest:
  vars: {tone: kind}
tests:
  - vars: {question: "2 + 2?"}
    assert:
      - {type: icontains, value: "4"}
      - {type: llm-rubric, value: is kind}
  - vars: {question: "3 + 3?"}
    assert: [{type: icontains, value: 6}]
    threshold: 0.5
sharing: true
"""


def write(name, content):
    Path(name).write_text(content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content))
    return name


def plays(name, *overrides):
    """The experiment validates and runs on the fake model; return its samples by row."""
    words = [f"experiment={name}", "model=fake", "execution.orchestrator=none", *overrides]
    checked = ostinato("validate", *words)
    assert checked.code == 0, checked.err
    result = runner.run(overrides=words)
    assert result.summary.status == "complete"
    return {sample.id: sample for sample in result.samples}


def test_a_config_of_promptfoo_is_an_experiment_for_each_prompt():
    done = ostinato("import", write("promptfooconfig.yaml", PROMPTFOO))
    assert done.code == 0, done.err
    assert done.out.count("ostinato run experiment=") == 2
    left = [line.removeprefix("not carried over: ") for line in done.err.splitlines()]
    assert [line.partition(": ")[0] for line in left] == ["line 20", "line 16", "line 19", "line 9", "line 7", "line 5"]
    first = plays("sums-and-cities-1", "model.reply=four 4")
    assert first["0"].messages == [{"role": "user", "content": "Answer in one word: 2 + 2? costs ${not an interpolation}"}]
    assert [sample.scores["contains"] for sample in first.values()] == [1.0, 0.0]
    assert [message["role"] for message in plays("sums-and-cities-2")["1"].messages] == ["system", "user"]
    config = runner.load("sums-and-cities-1").config
    assert (config["sampling"]["temperature"], config["sampling"]["max_tokens"]) == (0.5, 20)
    shown = ostinato("run", "experiment=sums-and-cities-1", "--cfg", "job").out
    assert "name: openai/gpt-5.4-mini" in shown
    assert "sk-1" not in Path("conf/experiment/sums-and-cities-1.yaml").read_text()


def test_a_task_of_lm_eval_reads_its_own_data():
    write("rows.jsonl", ROWS)
    (made,) = import_config(write("sums.yaml", LM_EVAL_TASK))
    assert [str(one)[:20] for one in made.left] == ["line 12: filter_list"]
    samples = plays("sums", "model.reply='1'", "data.id=id")
    assert (samples["sum-00"].messages[0]["content"], samples["sum-00"].scores) == ("What is 0 + 1?", {"exact": 1.0})
    assert runner.load("sums").config["sampling"]["max_tokens"] == 64


def test_a_task_on_the_hub_names_its_split_and_fills_its_target():
    metrics = "metric_list: [{metric: exact_match, ignore_case: true}, {metric: f1}]\n"
    source = "task: gsm\ndataset_path: openai/gsm8k\ndataset_name: main\ntest_split: test\n"
    task = f"{source}doc_to_text: question\ndoc_to_target: '{{{{answer.split(\"####\")[-1]}}}}'\n{metrics}"
    (made,) = import_config(write("gsm.yaml", task))
    assert [one.what for one in made.left] == ["metric f1"]
    text = made.config.read_text()
    for line in ("path: hf://openai/gsm8k/main/test", "target: expected", "ignore_case: true", "user: '{{ question }}'"):
        assert line in text


def batch(id_, *messages, **body):
    said = [{"role": role, "content": content} for role, content in messages]
    return {"custom_id": id_, "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": said, **body}}


def test_input_of_the_batch_api():
    lines = [
        batch("a", ("system", "s"), ("user", "u1"), temperature=0.2, service_tier="flex"),
        batch("b", ("user", "u2"), temperature=0.9, service_tier="flex"),
        batch("c", ("user", "x"), ("assistant", "y"), ("user", "z")),
    ]
    (made,) = import_config(write("requests.jsonl", lines))
    assert [(one.line, one.what) for one in made.left] == [(2, "b: temperature"), (3, "c")]
    samples = plays("requests")
    assert samples["a"].messages == [{"role": "system", "content": "s"}, {"role": "user", "content": "u1"}]
    assert list(samples) == ["a", "b"]
    config = made.config.read_text()
    assert "name: openai/m" in config
    assert "service_tier: flex" in config


def test_samples_of_openai_evals():
    lines = [{"input": [{"role": "user", "content": f"say {n}"}], "ideal": [str(n), "n"]} for n in range(2)]
    import_config(write("samples.jsonl", lines), name="said")
    assert [sample.scores["exact"] for sample in plays("said", "model.reply='1'").values()] == [0.0, 1.0]


def test_files_that_exist_are_kept_unless_it_is_forced():
    file = write("a.jsonl", [{"input": "q", "ideal": "a"}])
    import_config(file)
    with pytest.raises(RecordError, match="exists already"):
        import_config(file)
    assert ostinato("import", file, "--force").code == 0


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.yaml", "x: [", "cannot be read as YAML"),
        ("a.yaml", "- 1\n", "holds no mapping"),
        ("a.yaml", "x: 1\n", "is neither a config of promptfoo"),
        ("a.yaml", "task: t\ndoc_to_text: q\noutput_type: multiple_choice\n", "only tasks that generate text"),
        ("a.yaml", "task: t\ndoc_to_text: !function utils.f\n", "only templates are read, and no code"),
        ("a.yaml", "prompts: [a]\ntests: file://tests.csv\n", "only tests that stand in the config"),
        ("a.jsonl", "{", "line 1: is not JSON"),
        ("a.jsonl", '{"a": 1}', "is neither input of OpenAI's Batch API"),
        ("a.jsonl", '{"custom_id": "a", "body": {"messages": []}}', "has no request that is a question"),
        ("missing.yaml", None, "cannot be read"),
    ],
    ids=range(10),
)
def test_what_is_no_experiment_says_why_and_leaves_nothing(name, content, told):
    if content is not None:
        Path(name).write_text(content)
    with pytest.raises(DataError, match=told):
        import_config(name)
    assert not Path("conf").exists()
