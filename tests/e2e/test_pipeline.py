"""The closed loop, over the API of a hosted provider and a server that answers better when it is asked for the tuned model."""

from __future__ import annotations

import pkgutil
import signal
from pathlib import Path

import pytest

from runner import run, sweep
from runner.models import aliases
from runner.pipelines.pipeline import STAGES
from runner.pipelines.run import pipeline
from tests.support.clock import wait_until
from tests.support.command import ostinato
from tests.support.finetuning import KEY, OpenAI
from tests.support.server import Reply, Server, Status
from tests.support.tickets import Loop, answer


@pytest.fixture
def loop(in_tmp):
    with OpenAI() as trainer, Server(Reply(text=answer)) as server:
        trainer.outcome = "succeeded"
        yield Loop(in_tmp, trainer, server)


def statuses(told):
    return {stage["name"]: stage["status"] for stage in told["stages"]}


def test_a_pipeline_registers_the_better_model_and_repeats_nothing(loop):
    first = loop.play()
    assert first.code == 0, first.err
    told = first.json
    assert set(statuses(told).values()) == {"done"}
    assert told["baseline"]["exact"]["mean"] == pytest.approx(1 / 3)
    assert told["tuned"]["exact"]["mean"] == 1.0
    assert told["difference"]["mean"] == pytest.approx(2 / 3)
    assert told["difference"]["ci"][0] > 0
    assert told["difference"]["p"] < 0.05
    assert (told["alias"], told["version"], told["moved"], told["status"]) == ("tickets", 1, True, "complete")
    asked = loop.server.count
    again = loop.play()
    assert again.code == 0, again.err
    assert set(statuses(again.json).values()) == {"skipped"}
    assert {key: again.json[key] for key in ("baseline", "tuned", "difference", "moved")} == {
        key: told[key] for key in ("baseline", "tuned", "difference", "moved")
    }
    assert loop.server.count == asked == 24
    assert len(loop.trainer.jobs) == 1
    plain = [override for override in loop.overrides if not override.startswith(("model", "finetune", "alias"))]
    by_alias = ostinato("run", *plain, "model=tickets@latest", "--json", TUNING_KEY=KEY)
    assert by_alias.json["scores"]["exact"]["mean"] == 1.0
    assert by_alias.json["cache_hits"] == 12


def test_a_larger_budget_and_other_limits_continue_the_same_pipeline(loop):
    small = loop.play("budget.requests=5")
    assert (small.code, small.json["status"]) == (3, "incomplete"), small.err
    larger = loop.play("budget.requests=100", "limits.max_concurrency=2")
    assert (larger.code, larger.json["pipeline"]) == (0, small.json["pipeline"]), larger.err
    assert statuses(larger.json) == dict.fromkeys(STAGES, "done") | {"data": "skipped", "validate": "skipped"}
    assert loop.server.count == 5 + 7 + 12
    for other in ("budget.requests=5", "budget.requests=200"):
        again = loop.play(other)
        assert (again.code, again.json["pipeline"]) == (0, small.json["pipeline"]), again.err
        assert set(statuses(again.json).values()) == {"skipped"}
    assert (loop.server.count, len(loop.trainer.jobs)) == (24, 1)
    elsewhere = loop.play("budget.requests=200", "sampling.max_tokens=9", "--dry-run")
    assert elsewhere.json["stages"]["baseline"] == "owed"


def test_a_closed_gate_registers_nothing(loop, monkeypatch):
    done = loop.play("gate.min_gain=0.9")
    assert done.code == 100, done.err
    assert (done.json["status"], done.json["moved"]) == ("complete", False)
    assert "gate.min_gain=0.9" in done.json["reason"]
    assert aliases.find("tickets") is None
    wider = loop.play("gate.min_gain=0.1")
    assert wider.code == 0, wider.err
    assert statuses(wider.json)["tuned"] == "skipped"
    assert statuses(wider.json)["register"] == "done"
    lineage = aliases.find("tickets").latest.lineage
    assert lineage["difference"]["mean"] == pytest.approx(2 / 3)
    assert lineage["tuned"]["scores"]["exact"]["mean"] == 1.0


def test_a_gate_that_what_was_left_out_can_turn_is_undecided(loop):
    """The tuned model refuses a third of the rows: whether it gains enough depends on what they would have scored."""

    def refusing(call):
        refused = call.body["model"].startswith("ft:") and "returns" in call.question
        return Reply(None, finish_reason="content_filter") if refused else Reply(text=answer)

    loop.server.otherwise = refusing
    done = loop.play("gate.min_gain=0.05")
    assert done.code == 3, done.err
    assert "undecided: the lower bound of the gain is -0.004, but -0.020 to +0.253 in the worst and the best case" in done.err
    assert (done.json["status"], done.json["verdict"], done.json["moved"]) == ("incomplete", "undecided", False)
    assert [case["n"] for case in done.json["bounds"]] == [12, 12]
    assert aliases.find("tickets") is None
    assert loop.play("gate.min_gain=0.05").code == 3  # nothing has changed
    tuned = next(run.parent for run in Path("runs/tickets").glob("2*/config.yaml") if "name: ft:" in run.read_text())
    assert ostinato("score", str(tuned), "scoring.refused=zero").code == 0
    decided = loop.play("gate.min_gain=0.05")
    assert decided.code == 100, decided.err
    assert decided.json["bounds"] is None


@pytest.mark.parametrize("where", ["baseline", "train", "tuned"])
def test_a_killed_pipeline_resumes_and_pays_for_nothing_twice(loop, where):
    if where == "train":
        loop.trainer.outcome = None
    slow = Server(Reply(text=answer, delay_s=0.15))
    with slow:
        overrides = [o.replace(loop.server.url, slow.url) for o in loop.overrides] + ["limits.max_concurrency=2"]
        loop.overrides = overrides
        with loop.start() as running:
            if where == "train":
                wait_until(lambda: any(job.status == "running" for job in loop.trainer.jobs), "training")
            else:
                slow.wait_for(4 if where == "baseline" else 16)
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
        loop.trainer.outcome = "succeeded"
        done = loop.play()
    assert done.code == 0, done.err
    assert len(loop.trainer.jobs) == 1
    assert slow.count <= 24 + 2  # what was in flight
    if where == "tuned":
        assert [statuses(done.json)[name] for name in ("baseline", "train", "tuned")] == ["skipped", "skipped", "done"]


def test_a_failed_training_is_reported_and_not_retried(loop):
    loop.trainer.outcome = "failed"
    done = loop.play()
    assert done.code == 1
    assert statuses(done.json)["train"] == "failed"
    assert "the loss is not a number" in done.err
    assert done.json["moved"] is False
    assert done.json["tuned"] is None


def test_failed_rows_leave_the_pipeline_incomplete(loop):
    loop.server.otherwise = lambda call: Reply(text=answer) if "ticket 5" not in call.question else Status(500)
    done = loop.play("limits.max_attempts=1")
    assert done.code == 3, done.err
    assert statuses(done.json)["baseline"] == "failed"
    loop.server.otherwise = Reply(text=answer)
    again = loop.play("limits.max_attempts=1")
    assert again.code == 0, again.err
    assert loop.server.count == 12 + 1 + 12


def test_a_run_whose_config_trains_asks_the_trained_model(loop):
    planned = ostinato("run", *loop.overrides, "--dry-run", "--json", TUNING_KEY=KEY)
    assert planned.json["owed"] == 12, planned.err
    done = ostinato("run", *loop.overrides, "--json", TUNING_KEY=KEY)
    assert done.json["scores"]["exact"]["mean"] == 1.0, done.err
    again = ostinato("run", *loop.overrides, "--json", TUNING_KEY=KEY)
    assert again.json["cache_hits"] == 12
    assert len(loop.trainer.jobs) == 1


def test_a_sweep_trains_each_setting_once(loop):
    varied = ["finetune.learning_rate_multiplier=1,2", "sampling.temperature=0,1"]
    done = ostinato("run", "-m", *loop.overrides, *varied, "--json", TUNING_KEY=KEY)
    assert done.code == 0, done.err
    assert len(loop.trainer.jobs) == 2
    assert loop.server.count == 4 * 12
    again = ostinato("run", "-m", *loop.overrides, *varied, "--json", TUNING_KEY=KEY)
    assert again.code == 0, again.err
    assert (len(loop.trainer.jobs), loop.server.count) == (2, 48)


def test_a_dry_run_lists_owed_stages_and_sends_nothing(loop):
    told = ostinato("pipeline", *loop.overrides, "--dry-run", "--json", TUNING_KEY=KEY).json
    assert set(told["stages"].values()) == {"owed"}
    assert loop.server.count == 0
    assert loop.trainer.requests == []
    folder = Path(loop.play().json["pipeline"])
    damaged = folder.parent / "pipeline-20990101-000000-aaaaaa"  # the newest, but another pipeline: it is in nobody's way
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{")
    told = ostinato("pipeline", *loop.overrides, "--dry-run", "--json", TUNING_KEY=KEY).json
    assert set(told["stages"].values()) == {"done"}
    larger = ostinato("pipeline", *loop.overrides, "budget.requests=900", "--dry-run", "--json", TUNING_KEY=KEY).json
    assert set(larger["stages"].values()) == {"done"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["finetune=null"], "finetune is not set"),
        (["scoring=none"], "a pipeline compares scores"),
        (["gate.metric=f1"], "there is no score 'f1'"),
        (["finetune.data.path=nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_errors_are_found_before_anything_begins(loop, more, told):
    overrides = [o for o in loop.overrides if more != ["finetune=null"] or not o.startswith("finetune")]
    done = ostinato("pipeline", *overrides, *more, TUNING_KEY=KEY)
    assert done.code in (1, 2)
    assert told in done.err
    assert loop.server.count == 0


def test_a_cancelled_training_stays_cancelled(loop):
    loop.trainer.outcome = None
    with loop.start() as running:
        wait_until(lambda: any(job.status == "running" for job in loop.trainer.jobs), "training")
        (job,) = ostinato("ft", "ls", "--json", TUNING_KEY=KEY).json["jobs"]
        assert ostinato("ft", "cancel", job["job"], TUNING_KEY=KEY).code in (0, 1)
        done = running.wait()
    assert done.code == 1, done.err
    assert "was cancelled" in done.err
    assert done.json["status"] == "failed"
    assert len(loop.trainer.jobs) == 1


@pytest.fixture
def reads(monkeypatch):
    """How often the evaluation data was opened, and the training rows were read, in this process."""
    counts = {"opened": 0, "read": 0}

    def counted(what, target):
        real = pkgutil.resolve_name(target)

        def call(*args):
            counts[what] += 1
            return real(*args)

        monkeypatch.setattr(target.replace(":", "."), call)

    counted("opened", "runner.build:dataset")
    counted("read", "runner.experiment.training:read")
    monkeypatch.setenv("TUNING_KEY", KEY)
    return counts


def test_a_pipeline_reads_its_data_once(loop, reads):
    assert pipeline(overrides=loop.overrides).exit_code == 0
    assert reads == {"opened": 1, "read": 1}


def test_a_run_that_trains_reads_its_data_once(loop, reads):
    assert run(overrides=loop.overrides).exit_code == 0
    assert reads == {"opened": 1, "read": 1}


def test_a_sweep_that_trains_reads_its_data_once(loop, reads):
    varied = ["finetune.learning_rate_multiplier=1,2", "sampling.temperature=0,1"]
    assert sweep([*loop.overrides, *varied]).exit_code == 0
    assert len(loop.trainer.jobs) == 2
    assert reads == {"opened": 1, "read": 1}
