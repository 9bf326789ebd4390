"""`ostinato ft` as people use it: interrupted, killed, attached to; and the config and the runs that it learns from."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

import runner
from runner.cli import main
from runner.config.compose import compose
from runner.config.load import dump
from runner.config.roles import config_hash
from runner.config.schema import RunConfig
from runner.errors import ConfigError, DataError
from runner.experiment.prepared import prepare
from runner.finetune.jobs import ledger
from runner.finetune.jobs.status import TrainingStatus
from runner.finetune.trainers import child
from tests.support.clock import wait_until
from tests.support.command import REPOSITORY, Done, Running, ostinato
from tests.support.finetuning import KEY, ROWS, OpenAI

pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.fixture
def command(in_tmp, monkeypatch):
    """The words of a training by the trainer of tests/support/trainer.py, which waits before step 3 until ``go`` is there."""
    (in_tmp / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (in_tmp / "base.gguf").write_bytes(b"GGUF not really")
    for name, value in {
        "TRAINER_HOLD_AT": "3",
        "TRAINER_GO": str(in_tmp / "go"),
        "TRAINER_STARTS": str(in_tmp / "starts"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    yield [
        *("finetune=command", f"finetune.base={in_tmp / 'base.gguf'}", "finetune.data.path=train.jsonl"),
        f"finetune.command={sys.executable} -m tests.support.trainer {{folder}}",
    ]
    (in_tmp / "go").touch()
    wait_until(lambda: not any(child.alive(job) for job in ledger.listed()), "the end of all trainers")


@pytest.fixture
def here(capsys):
    """The command in this process, which is quicker; what it prints as JSON, and its exit code."""

    def call(*words):
        code = main(["ft", *words])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call


def held():
    wait_until(lambda: ledger.listed() and len(ledger.listed()[0].metrics()) == 2, "the middle of the training")
    return ledger.listed()[0]


def test_a_job_from_dry_run_to_removal(command, in_tmp, here):
    tried = here("run", *command, "--dry-run", "--json")
    assert (tried.code, tried.json["estimate"]["rows"], tried.json["estimate"]["cost_usd"]) == (0, 6, 0.0)
    assert "6 rows" in tried.err
    assert ledger.listed() == []
    (in_tmp / "go").touch()
    done = ostinato("ft", "run", *command, "--json")
    assert (done.code, done.json["status"], done.json["job"], done.json["loss"]) == (0, "succeeded", tried.json["job"], 0.4)
    again = here("run", *command)
    assert (again.code, again.out) == (0, f"local/ft-{tried.json['job']}\n")
    assert len((in_tmp / "starts").read_text().splitlines()) == 1
    assert [job["status"] for job in here("ls", "--json").json["jobs"]] == ["succeeded"]
    assert "succeeded" in here("ls").out
    shown = here("show", tried.json["job"][:5], "--json").json
    assert [line["step"] for line in shown["metrics"]] == [1, 2, 3, 4, 5]
    assert shown["result"]["adapter"] == "adapter.gguf"
    assert "from step 0" in here("logs").out
    forced = here("run", "--force", *command, "--json")
    assert (forced.code, forced.json["attempt"]) == (0, 2)
    assert here("rm", "latest", "--json").json == {"removed": [tried.json["job"]]}
    assert here("show").code == 1


def test_ctrl_c_leaves_the_job_training_and_attach_follows_it_again(command, in_tmp):
    with Running("ft", "run", *command, "--json") as run:
        job = held()
        run.signal(signal.SIGINT)
        left = run.wait()
    assert (left.code, left.json["status"]) == (130, "running")
    assert f"ostinato ft attach {job.spec.job}" in left.err
    assert child.alive(job)
    assert job.state().pid == job.running().pid
    assert os.getsid(job.running().pid) == job.running().pid  # a terminal's Ctrl-C goes to all of its own session
    with Running("ft", "logs", "-f") as logs, Running("ft", "attach", job.spec.job) as attached:
        (in_tmp / "go").touch()
        assert attached.wait().out == f"local/ft-{job.spec.job}\n"
        assert logs.wait().out == "training on 6 rows from step 0\n"
    assert len((in_tmp / "starts").read_text().splitlines()) == 1


def test_a_job_survives_a_killed_command_and_the_next_run_finds_it(command, in_tmp, here):
    with Running("ft", "run", *command) as run:
        job = held()
        run.signal(signal.SIGKILL)
    assert child.alive(job)
    (in_tmp / "go").touch()
    wait_until(lambda: not child.alive(job), "the end of the training, which nobody follows")
    assert job.state().status is TrainingStatus.running
    assert here("ls", "--json").json["jobs"][0]["status"] == "succeeded"
    assert here("run", *command).code == 0
    assert len((in_tmp / "starts").read_text().splitlines()) == 1


def test_cancel_stops_a_job_and_reports_it(command, here):
    with Running("ft", "run", *command) as run:
        job = held()
        assert here("rm", job.spec.job).err.count("stop it first: ostinato ft cancel") == 1
        assert here("cancel", "--json").json["status"] == "cancelled"
        done = run.wait()
    assert (done.code, done.out) == (1, "")
    assert "is cancelled" in done.err
    assert not child.alive(job)
    assert job.checkpoints() == ["step-1", "step-2"]


def test_a_detached_job_keeps_training(command, in_tmp, here):
    begun = here("run", "--detach", *command, "--json")
    assert (begun.code, begun.json["status"]) == (0, "running")
    held()
    (in_tmp / "go").touch()
    assert here("attach").code == 0


def test_a_command_that_fails_says_why(command, monkeypatch, here):
    monkeypatch.setenv("TRAINER_FAIL", "CUDA out of memory")
    done = here("run", *command)
    assert done.code == 1
    assert "CUDA out of memory" in done.err
    assert ledger.listed()[0].state().status is TrainingStatus.failed


ADAPTER = (
    "import gguf; w = gguf.GGUFWriter(o + '/x.gguf', 'llama'); w.add_type('adapter'); w.write_header_to_file(); "
    "w.write_kv_data_to_file(); w.close()"
)


@pytest.mark.parametrize(
    ("leaves", "adopted"),
    [
        (ADAPTER, {"adapter": "adapter.gguf"}),
        (f"{ADAPTER}; open(o + '/a-merged.gguf', 'w').write('no adapter')", {"adapter": "adapter.gguf"}),
        ("os.mkdir(o + '/a'); open(o + '/a/adapter_model.safetensors', 'w').write('x')", {"adapter": "adapter"}),
        ("open(o + '/model.safetensors', 'w').write('x')", {"adapter": None, "model": "output"}),
        ("pass", None),
    ],
)
def test_a_programs_output_is_adopted(in_tmp, leaves, adopted, here):
    (in_tmp / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (in_tmp / "base.gguf").write_bytes(b"GGUF not really")
    (in_tmp / "recipe.yaml").write_text("data: {train}\nout: {output}\nkeep: {this}\n")
    script = in_tmp / "program.py"
    state = {
        "log_history": [{"step": 1, "loss": 0.7, "learning_rate": 0.1}, {"step": 1, "eval_loss": 0.8}, {"step": 2, "loss": 0.6}]
    }
    script.write_text(
        "import json, os, sys\n"
        "config = dict(line.split(': ') for line in open(sys.argv[1]).read().splitlines())\n"
        "assert config['keep'] == '{this}' and len(open(config['data']).readlines()) == 6\n"
        "assert json.load(open('dataset_info.json'))['ostinato']['file_name'] == 'train.jsonl'\n"
        f"o = config['out']\njson.dump({state!r}, open(o + '/trainer_state.json', 'w'))\n{leaves}\n"
    )
    words = [f"finetune.base={in_tmp / 'base.gguf'}", "finetune=command", "finetune.data.path=train.jsonl"]
    done = ostinato(
        "ft", "run", *words, "finetune.config=recipe.yaml", f"finetune.command={sys.executable} '{script}' {{config}}"
    )
    job = ledger.listed()[0]
    if adopted is None:
        assert (done.code, "holds neither an adapter" in done.err) == (1, True)
        return
    assert done.code == 0, done.err
    assert adopted.items() <= job.result().items()
    assert [(line["step"], line["loss"], line.get("valid_loss")) for line in job.metrics()] == [(1, 0.7, 0.8), (2, 0.6, None)]
    assert adopted["adapter"] is None or (job.path / adopted["adapter"]).exists()


def test_openai_from_the_command_line_shows_a_notice_and_needs_a_key(in_tmp, monkeypatch, here):
    (in_tmp / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with OpenAI() as server:
        words = ["finetune=openai", "finetune.base=gpt-4o-mini", "finetune.data.path=train.jsonl", "finetune.poll_s=0.05"]
        assert "as of 2027-01-06" in here("run", *words, "--dry-run").err
        words.append(f"finetune.api_base={server.url}")
        unset = here("run", *words)
        assert (unset.code, "OPENAI_API_KEY is not set" in unset.err) == (2, True)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with Running("ft", "run", *words) as run:
            wait_until(lambda: server.jobs and server.jobs[0].status == "running", "the training")
            run.signal(signal.SIGKILL)
        server.outcome = "succeeded"
        done = here("run", *words, "--json")
        assert done.json["model"].startswith("openai/ft:gpt-4o-mini:org:ostinato-")
        assert len(server.jobs) == 1


# --- the config, and samples of a run


def test_a_config_without_finetune_is_unchanged():
    plain = {key: value for key, value in dump(RunConfig()).items() if key != "finetune"}
    assert runner.config.load.load(plain) == RunConfig()
    assert config_hash(RunConfig()) != config_hash(compose(["finetune=default"]).config())
    assert compose(["finetune=default", "finetune=null"]).config().finetune is None


def test_the_hash_of_a_config_without_finetune_is_golden():
    """Made before there was such a group: runs recorded then keep their names."""
    assert config_hash(RunConfig()) == GOLDEN


GOLDEN = "257ab26f12e1105b8a8b3449d24598198586490919e32e061f0408eeb7ac335e"


def prepared(*overrides):
    return prepare(compose(["finetune=default", "finetune.base=smollm2", *overrides]).config()).training


def run_fake(*overrides):
    return runner.run(overrides=["model=fake", "execution.orchestrator=none", "data.limit=6", *overrides])


def test_samples_of_a_run_are_selected_by_where(in_tmp):
    run_fake("model.choices=[Paris,Rome]", "sampling.repeats=2")
    empty = ["data=inline"]
    everything = prepared("finetune.data.from_run=latest", *empty)
    assert everything.spec.data.rows == 12
    right = prepared("finetune.data.from_run=latest", "finetune.data.where=score.contains == 1 and repeat in [0, 1]", *empty)
    assert 0 < right.spec.data.rows < 12
    last = right.train[0]["messages"][-1]
    assert last["role"] == "assistant"
    assert right.source.startswith("capitals/")
    assert any("is the same as" in str(remark) or "another answer" in str(remark) for remark in everything.remarks)
    with pytest.raises(DataError, match=r"where picks none of its 12 answers"):
        prepared("finetune.data.from_run=latest", "finetune.data.where=output == 'Berlin'", *empty)
    with pytest.raises(ConfigError, match=r"(?s)there is no field 'scroe'.*\n  scroe == 1\n  \^"):
        prepared("finetune.data.from_run=latest", "finetune.data.where=scroe == 1", *empty)


def test_evaluation_rows_in_the_training_data_are_refused():
    run_fake()
    with pytest.raises(DataError, match=r"(?s)6 problems.*has the question of row .* in the evaluation"):
        prepared("finetune.data.from_run=latest")
    allowed = prepared("finetune.data.from_run=latest", "finetune.data.allow_overlap=true")
    assert len(allowed.remarks) == 6


def test_the_bare_question_of_the_evaluation_is_found_as_well(in_tmp):
    (in_tmp / "test.jsonl").write_text('{"question": "How far is the moon from here?", "kind": "astronomy"}\n')
    (in_tmp / "train.jsonl").write_text('{"prompt": "how far is  the moon from here?", "completion": "far"}\n')
    words = ["data=jsonl", "data.path=test.jsonl", "prompt.user=Answer: {{ question }} ({{ kind }})", "scoring=none"]
    with pytest.raises(DataError, match=r"has the question of row .* in the evaluation"):
        prepared(*words, "finetune.data.path=train.jsonl", "finetune.data.format=completion")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "no training data is named"),
        (["finetune.data.path=x", "finetune.data.from_run=y"], "path and from_run are both given"),
        (["finetune.data.path=x", "finetune.data.where=id == 'x'"], "where selects samples of a run"),
        (["finetune.lr=0"], r"finetune\.lr"),
        (["finetune.lrr=1"], r"finetune\.lrr: unknown key"),
        (["finetune=command"], r"finetune\.command: is required"),
        (["finetune=command", "finetune.command=train 'x"], r"finetune\.command: No closing quotation"),
        (["finetune=databricks"], r"finetune\.train_data_path: is required"),
        (["finetune=openai", "finetune.base=null", "model=fake"], r"finetune\.base is not set"),
        (["finetune.base=null", "model=fake"], "this machine trains only local weights"),
        (["finetune.data.path=p.jsonl", "finetune.data.format=preference"], r"by TRL: finetune\.backend=trl"),
        (["finetune.data.path=p.jsonl", "finetune.data.format=preference", "finetune.backend=tlr"], r"finetune\.backend"),
    ],
)
def test_configs_that_cannot_be_trained_are_refused(overrides, message, in_tmp):
    said = [{"role": "assistant", "content": text} for text in "ab"]
    row = {
        "input": {"messages": [{"role": "user", "content": "x"}]},
        "preferred_output": said[:1],
        "non_preferred_output": said[1:],
    }
    (in_tmp / "p.jsonl").write_text(json.dumps(row))
    with pytest.raises(ConfigError, match=message):
        prepared(*overrides)


def test_overrides_alone_choose_finetune_default_and_a_run_says_what_is_missing(in_tmp, here):
    (in_tmp / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tried = here("run", "finetune.lr=1e-3", "finetune.data.path=train.jsonl", "--dry-run", "--json")
    assert (tried.code, tried.json["provider"], tried.json["estimate"]["steps"]) == (0, "local", 2)
    none = here("run")
    assert (none.code, "finetune=default" in none.err) == (2, True)
