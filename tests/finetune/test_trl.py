"""TRL as the backend of the local trainer: it comes to what the own loop comes to, goes on exactly, and learns preferences."""

from __future__ import annotations

import json
import signal
import sys

import pytest

torch = pytest.importorskip("torch", reason="the extra finetune is not installed")
tiny = pytest.importorskip("tests.finetune.tiny")

from runner.errors import DataError, FinetuneError  # noqa: E402
from runner.finetune.jobs import ledger  # noqa: E402
from runner.finetune.jobs.spec import Base  # noqa: E402
from runner.finetune.trainers.local.base import load  # noqa: E402
from runner.finetune.trainers.local.rows import pairs  # noqa: E402
from tests.finetune.jobs import VALID, job_of, over_and_over, reference, same, trained, trainer  # noqa: E402
from tests.support.clock import wait_until  # noqa: E402

PREFERENCES = [
    {
        "input": {"messages": [{"role": "user", "content": f"q{n}"}]},
        "preferred_output": [{"role": "assistant", "content": "yes"}],
        "non_preferred_output": [{"role": "assistant", "content": f"no{n % 3}"}],
    }
    for n in range(12)
]


@pytest.fixture
def trl():
    """TRL, which is no part of the extra dev."""
    return pytest.importorskip("trl", reason="the extra trl is not installed: with pyarrow and datasets it is 190 MB")


def test_both_backends_reach_the_same_result(small, trl):
    settings = {"batch_size": 2, "gradient_accumulation": 2, "weight_decay": 0.01, "lr": 0.01}
    jobs = [job_of(small, backend=backend, **settings) for backend in ("own", "trl")]
    own, trls = (trained(job)[0] for job in jobs)
    measured, theirs = (job.metrics() for job in jobs)
    assert [line["tokens"] for line in measured] == [line["tokens"] for line in theirs]
    for name in ("loss", "lr"):
        assert [line[name] for line in measured] == pytest.approx([line[name] for line in theirs], rel=1e-3)
    for name, value in own.weights.items():
        assert torch.allclose(value, trls.weights[name], atol=1e-3)
    assert jobs[1].checkpoints()


@pytest.mark.parametrize("heeded", [4, 7])
def test_a_training_stopped_repeatedly_within_steps_ends_in_the_same_bits(small, trl, heeded):
    settings = {
        "backend": "trl",
        "lora_dropout": 0.2,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "eval_every": 2,
        "valid": VALID,
    }
    whole = reference(small, **settings)
    outcome, sittings = over_and_over(job_of(small, **settings), heeded=heeded)
    assert sittings > 3
    assert same(outcome.weights, whole.weights)
    assert (outcome.position.tokens, outcome.valid_loss) == (whole.position.tokens, whole.valid_loss)


def test_a_training_stopped_anywhere_stops_as_early_and_keeps_the_same_best(small, trl):
    stopping = {"eval_every": 1, "early_stopping_patience": 2, "lr": 0.2, "epochs": 9, "max_steps": 30}
    settings = {"backend": "trl", "valid": VALID, **stopping}
    whole = reference(small, **settings)
    job = job_of(small, **settings)
    outcome, sittings = over_and_over(job, heeded=2)
    assert sittings > 2
    assert outcome.position.step == whole.position.step < 30
    assert outcome.valid_loss == whole.valid_loss == min(line["valid_loss"] for line in job.metrics())
    assert same(outcome.weights, whole.weights)


def test_a_killed_training_resumes_to_the_same_bits(small, trl):
    whole = reference(small, backend="trl", checkpoint_every=1)
    job = job_of(small, backend="trl", checkpoint_every=1)
    with trainer(job) as running:
        wait_until(lambda: ledger.whole_checkpoints(job.path / "checkpoints"), "a checkpoint")
        running.send_signal(signal.SIGKILL)
        running.wait()
    torn = job.path / "checkpoints" / "checkpoint-11"  # as a kill in the midst of writing it leaves it
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{")
    assert torn.name not in job.checkpoints()
    with trainer(job) as running:
        said = running.stderr.read()
    assert running.returncode == 0, said
    assert "resuming from step" in said
    from safetensors.torch import load_file

    kept = load_file(job.path / "adapter" / "adapter_model.safetensors")
    assert same({name.replace(".default", ""): value for name, value in whole.weights.items()}, kept)
    assert job.result()["steps"] == 12
    assert (job.path / "adapter.gguf").is_file()


def test_preferences_are_learned(small, trl):
    job = job_of(small, PREFERENCES, form="preference", backend="trl", lr=0.01, beta=0.5)
    outcome, loop = trained(job)
    losses = [line["loss"] for line in job.metrics()]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # of two answers of which neither is preferred yet: ln 2
    assert losses[-1] < 0.1
    assert all(".default." in name for name in outcome.weights)
    assert outcome.position.tokens == sum(row.taught for row in loop.train) * 3


def test_a_preference_training_stopped_repeatedly_ends_in_the_same_bits(small, trl):
    settings = {"rows": PREFERENCES, "form": "preference", "backend": "trl", "lora_dropout": 0.1}
    whole = reference(small, **settings)
    outcome, sittings = over_and_over(job_of(small, **settings), heeded=5)
    assert sittings == 3
    assert same(outcome.weights, whole.weights)


def test_a_preference_is_one_prompt_with_two_single_answers(small):
    tokenizer = load(Base("tiny", "x", gguf=str(small))).tokenizer
    earlier = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "first"}, {"role": "user", "content": "q"}]
    row = {**PREFERENCES[0], "input": {"messages": earlier}}
    job = job_of(small, [row], form="preference", backend="trl")
    (pair,) = pairs(job.path / "train.jsonl", tokenizer, max_length=512)
    assert pair.asked == tokenizer.encode(tokenizer.render(earlier, ask=True), marks=True)
    assert pair.preferred == [*tokenizer.encode("yes", marks=False), tokenizer.end]
    assert pair.other == [*tokenizer.encode("no0", marks=False), tokenizer.end]
    (job.path / "train.jsonl").write_text(json.dumps({**row, "preferred_output": row["preferred_output"] * 2}))
    with pytest.raises(DataError, match=r"train.jsonl:1: an answer has more than one turn"):
        pairs(job.path / "train.jsonl", tokenizer, max_length=512)


def test_a_loss_that_is_not_a_number_is_reported(small, trl):
    with pytest.raises(FinetuneError, match=r"the loss at step \d+ is nan; try a smaller finetune.lr"):
        trained(job_of(small, backend="trl", lr=1e30))


def carried_through(job):
    """The trainer's exit code, in this process."""
    from runner.finetune.trainers.local.__main__ import main

    before = signal.getsignal(signal.SIGTERM)
    try:
        return main([str(job.path)])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_preference_training_leaves_an_adapter_that_can_be_served(small, trl):
    from runner.finetune.trainers.local.adapter import from_peft
    from runner.finetune.trainers.local.gguf import GGUF

    job = job_of(small, PREFERENCES, form="preference", backend="trl", max_steps=2)
    assert carried_through(job) == 0
    again = from_peft(job.path / "adapter", GGUF(small), job.path / "again.gguf")
    assert again == job.result()["sha256"]
    assert {path.name for path in (job.path / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_missing_package_says_what_to_install(small, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "trl", None)
    assert carried_through(job_of(small, backend="trl")) == 1
    assert "is not installed: pip install 'ostinato[trl]'" in capfd.readouterr().err.splitlines()[-1]


def test_the_backend_is_part_of_the_jobs_id(small):
    assert job_of(small).spec.job != job_of(small, backend="trl").spec.job
    assert len(ledger.listed()) == 2
