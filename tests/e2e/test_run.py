"""The main job on the real model, through the command: played, recorded, scored, and played again from the cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.models import weights
from runner.records import RunFolder
from runner.servers import server
from runner.system import processes
from tests.support.command import ostinato as in_process

pytestmark = pytest.mark.model
ROOT = Path(__file__).parents[2]


def ostinato(*words, cwd, **env):
    """Run the command as a user would, and return the finished process."""
    return subprocess.run(
        [sys.executable, "-m", "runner", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def played(*words, cwd, **env):
    done = ostinato("run", "--json", *words, cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def model_servers():
    """The llama.cpp servers of this test, by their command lines: other tests may run beside it."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "llamacpp.py" in line and os.environ["OSTINATO_HOME"] in line]


@pytest.fixture
def offline(with_weights, in_tmp):
    return in_tmp


def test_the_default_experiment_scores_between_chance_and_perfect_and_replays_from_the_cache(offline):
    few = "data.limit=24"  # the README's command, which the CI runs, has all 60
    before = model_servers()
    first = played(few, "execution.orchestrator=none", cwd=offline)
    assert first["rows"] == first["ok"] == first["requests"] == 24
    assert 0.4 < first["scores"]["contains"]["mean"] < 1
    assert 0.02 < first["scores"]["contains"]["stderr"] < 0.12
    assert first["scores"]["contains"]["n"] == 24
    assert first["usage"]["completion_tokens"] > 120
    assert first["cost_usd"] is None
    assert model_servers() == before

    second = played(few, cwd=offline)  # under Prefect by default: but nothing is owed, so nothing is started
    assert second["cache_hits"] == 24
    assert second["requests"] == 0
    assert second["scores"] == first["scores"]
    assert not (Path(os.environ["OSTINATO_HOME"]) / "prefect").exists()
    outputs = [{sample.id: sample.output for sample in RunFolder.open(Path(run["run"])).samples()} for run in (first, second)]
    assert outputs[0] == outputs[1]

    replayed = played(few, "cache.mode=replay", cwd=offline)
    assert replayed["cache_hits"] == 24


@pytest.mark.slow
def test_answers_of_a_shared_prefix_do_not_depend_on_what_is_in_flight(offline):
    words = ["+experiment=capitals_fewshot", "data.limit=6", "cache.mode=off", "execution.orchestrator=none"]
    runs = [
        played(*words, f"limits.max_concurrency={count}", f"launch.parallel={slots}", cwd=offline)
        for count, slots in ((1, 1), (6, 3))
    ]
    assert [run["usage"]["prompt_tokens"] - run["usage"]["cached_tokens"] <= 60 for run in runs] == [True, True]  # of 486
    outputs = [{sample.id: sample.output for sample in RunFolder.open(Path(run["run"])).samples()} for run in runs]
    assert outputs[0] == outputs[1]


def test_a_numeric_task_can_be_declared_on_the_command_line(offline):
    rows = [
        {"question": "Tom has 2 apples and gets 3 more. How many apples does he have?", "answer": "2 + 3 = 5\n#### 5"},
        {"question": "A box holds 4 pens. How many pens are in 2 boxes?", "answer": "4 * 2 = 8\n#### 8"},
    ]
    (offline / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = played(
        "execution.orchestrator=none", "data=jsonl", "data.path=sums.jsonl", "data.target=answer", "prompt.user={{ question }}",
        "prompt.system=Answer with a number.", "scoring=numeric", "sampling.max_tokens=120", cwd=offline,
    )  # fmt: skip
    assert run["name"] == "sums"
    assert run["rows"] == 2
    assert run["scores"]["numeric"]["n"] == 2


def test_chat_text_and_json_work_with_a_server_started_by_hand(offline, tmp_path):
    served = server.start("smollm2", server.Settings(parallel=2, context=512), folder=tmp_path)
    try:
        common = ["execution.orchestrator=none", "data.limit=4", "model=server", "model.name=smollm2"]
        common += [f"model.api_base={served.api_base}", "model.api_key_env=SERVED_KEY"]
        chat = played(*common, cwd=offline, SERVED_KEY=served.api_key)
        text = played(*common, "experiment=capitals_text", cwd=offline, SERVED_KEY=served.api_key)
        as_json = played(*common, "experiment=capitals_json", cwd=offline, SERVED_KEY=served.api_key)
        refused = ostinato("run", "--json", *common, "cache.mode=off", cwd=offline, SERVED_KEY="wrong-key-0000000000")
    finally:
        served.process.stop()
    assert chat["ok"] == as_json["ok"] == 4
    assert text["ok"] + text["truncated"] == 4
    assert all(isinstance(sample.parsed, dict) for sample in RunFolder.open(Path(as_json["run"])).samples())
    assert refused.returncode == 1
    assert "the key was refused" in refused.stderr
    assert "wrong-key" not in refused.stderr
    for run in (chat, text, as_json):
        everything = b"".join(file.read_bytes() for file in Path(run["run"]).iterdir())
        assert served.api_key.encode() not in everything


def test_other_weights_behind_the_same_address_are_noticed(offline, tmp_path):
    one = weights.pull("smollm2")
    other = tmp_path / "other.gguf"
    other.symlink_to(one)
    port = processes.free_port()
    hits, ends = [], []
    for path, times in ((one, 2), (other, 1)):
        served = server.start(str(path), server.Settings(parallel=1, context=256, port=port), folder=tmp_path)
        words = ["execution.orchestrator=none", "data.limit=1", "sampling.max_tokens=4", "model=server", "model.name=mine"]
        words += [f"model.api_base={served.api_base}", "model.api_key_env=SERVED_KEY"]
        try:
            runs = [in_process("run", "--json", *words, SERVED_KEY=served.api_key).json for _ in range(times)]
        finally:
            served.process.stop()
        hits += [run["cache_hits"] for run in runs]
        ends += [RunFolder.open(Path(run["run"])).manifest()["model"]["endpoint"] for run in runs]
    assert hits == [0, 1, 0]
    assert ends[0] == ends[1] != ends[2]
    assert "#other.gguf:" in ends[2]


def test_repeats_differ_by_seed_and_are_reproducible(offline):
    words = ["execution.orchestrator=none", "data.limit=2"]
    words += ["sampling.temperature=1.0", "sampling.repeats=3", "sampling.max_tokens=60"]
    run = played(*words, cwd=offline)
    samples = list(RunFolder.open(Path(run["run"])).samples())
    assert len(samples) == run["rows"] == 6
    assert len({sample.output for sample in samples}) > 2
    again = played(*words, cwd=offline)
    assert again["cache_hits"] == sum(sample.status == "ok" for sample in samples)
