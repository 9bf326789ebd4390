"""The local trainer on a tiny llama: what it learns, that it goes on exactly, and that what is served is what was trained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from runner import LM
from runner.errors import ConfigError, FinetuneError, LaunchError
from runner.finetune import ledger
from runner.finetune.hyper import LocalHyper, whole
from runner.finetune.ledger import JobFolder
from runner.finetune.spec import Base, Spec, facts_of
from tests.command import REPOSITORY, wait_until

torch = pytest.importorskip("torch", reason="the extra finetune is not installed")
tiny = pytest.importorskip("tests.finetune.tiny")

from runner.finetune.local import checkpoint  # noqa: E402
from runner.finetune.local.adapter import from_peft, write_gguf  # noqa: E402
from runner.finetune.local.base import load  # noqa: E402
from runner.finetune.local.gguf import GGUF  # noqa: E402
from runner.finetune.local.loop import Loop, arrays  # noqa: E402
from runner.finetune.local.machine import Machine  # noqa: E402
from runner.finetune.local.rows import batches, lessons  # noqa: E402

pytestmark = [
    pytest.mark.finetune,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ROWS = [
    {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": f"q{n}"},
            {"role": "assistant", "content": "yes" * (n % 3 + 1)},
        ]
    }
    for n in range(12)
]
FAST = {
    "lr": 0.05,
    "batch_size": 3,
    "max_steps": 12,
    "epochs": 4,
    "checkpoint_every": 3,
    "threads": 1,
    "dtype": "fp32",
    "device": "cpu",
    "layers": "0-1",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def job_of(weights, rows=ROWS, valid=(), form="chat", **hyper):
    base = Base(str(weights), f"sha256:{weights.name}", gguf=str(weights))
    spec = Spec.make(
        provider="local", base=base, train_data_format=form, data=facts_of(rows, valid), hyper=whole(LocalHyper, FAST | hyper)
    )
    return JobFolder.create(spec, rows, valid)


def trainer(job):
    command = [sys.executable, "-m", "runner.finetune.local", str(job.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def trained(job, *, stop_at=None):
    """Train in this process, stopping after a step; returns the outcome and the loop. Goes on where the job's folder stands."""
    hyper = msgspec.convert(job.spec.hyper, LocalHyper)
    loaded = load(job.spec.base)
    rows = {
        name: lessons(job.path / f"{name}.jsonl", job.spec.train_data_format, loaded.tokenizer, max_length=512)
        for name in ("train", "valid")
    }
    loop = Loop(
        loaded.model,
        hyper,
        Machine("cpu", "fp32", 1),
        rows["train"],
        rows["valid"],
        report=lambda line: job.measured(**line),
        keep=lambda position, tensors: checkpoint.save(job.path / "checkpoints", position, tensors),
        asked_to_stop=lambda: loop.position.step == stop_at,
    )
    if found := checkpoint.newest(job.path / "checkpoints"):
        loop.restore(*found)
    return loop.run(), loop


def reference(weights, **hyper):
    """What comes of a training that nothing disturbs; its folder is gone afterwards."""
    job = job_of(weights, **hyper)
    outcome, _ = trained(job)
    job.remove()
    return outcome


def same(some, others):
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def test_the_loss_goes_down_on_the_answers_alone(weights):
    job = job_of(weights)
    outcome, loop = trained(job)
    losses = [line["loss"] for line in job.metrics()]
    assert len(losses) == loop.steps == 12
    assert losses[-1] < losses[0] / 5
    assert outcome.position.tokens == sum(sum(lesson.learned) for lesson in loop.train) * 3


def test_what_is_learned_is_the_answer_and_its_end(weights):
    tokenizer = load(Base("tiny", "x", gguf=str(weights))).tokenizer
    job = job_of(weights)
    lesson = lessons(job.path / "train.jsonl", "chat", tokenizer, max_length=512)[1]
    learned = [number for number, flag in zip(lesson.ids, lesson.learned, strict=True) if flag]
    assert learned == [*tokenizer.encode("yesyes", marks=False), tokenizer.end]


def test_marks_in_a_row_are_text(weights):
    tokenizer = load(Base("tiny", "x", gguf=str(weights))).tokenizer
    said = "ok<|im_end|>\n<|im_start|>assistant\nno"
    row = {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "a<|im_end|>b"}]}
    job = job_of(weights, [row])
    (lesson,) = lessons(job.path / "train.jsonl", "chat", tokenizer, max_length=512)
    assert lesson.ids.count(tokenizer.end) == 2
    assert lesson.ids.count(1) == 2
    form = job_of(weights, [{"prompt": said, "completion": "x<|im_end|>"}], form="completion")
    (lesson,) = lessons(form.path / "train.jsonl", "completion", tokenizer, max_length=512)
    assert lesson.ids.count(tokenizer.end) == 1


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_stopped_anywhere_it_goes_on_to_the_same_weights(weights, stop_at):
    whole_way = reference(weights, seed=7, lora_dropout=0.2)
    job = job_of(weights, seed=7, lora_dropout=0.2)
    assert trained(job, stop_at=stop_at)[0].stopped
    outcome, _ = trained(job)
    assert same(outcome.weights, whole_way.weights)
    assert outcome.position.tokens == whole_way.position.tokens


def test_seeds_decide(weights):
    first, again, other = (reference(weights, seed=seed) for seed in (1, 1, 2))
    assert same(first.weights, again.weights)
    assert not same(first.weights, other.weights)


def test_accumulated_batches_are_one_large_batch(weights):
    large, _ = trained(job_of(weights, batch_size=6, bucket=False, max_steps=4))
    small, _ = trained(job_of(weights, batch_size=3, gradient_accumulation=2, bucket=False, max_steps=4))
    for name, value in large.weights.items():
        assert torch.allclose(value, small.weights[name], atol=1e-5)


def test_early_stopping_keeps_the_best(weights):
    valid = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "never seen"}]}]
    outcome, loop = trained(job_of(weights, valid=valid, eval_every=1, early_stopping_patience=2, lr=0.2, epochs=9, max_steps=30))
    looked = [line["valid_loss"] for line in loop.report.__closure__[0].cell_contents.metrics()]
    assert outcome.position.step < 30
    assert outcome.valid_loss == min(looked)
    assert loop._valid_loss() == pytest.approx(min(looked), rel=1e-5)


def test_it_looks_once_an_epoch_unless_told_otherwise_and_once_more_at_the_end(weights):
    valid = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "never seen"}]}]
    for settings, looks in (({"epochs": 2}, 2), ({"epochs": 2, "max_steps": 1}, 0)):
        job = job_of(weights, valid=valid, **{"max_steps": None, "batch_size": 4, **settings})
        outcome, loop = trained(job)
        assert len([line for line in job.metrics() if "valid_loss" in line]) == looks
        assert outcome.valid_loss == pytest.approx(loop._valid_loss(), rel=1e-5)
    with pytest.raises(ConfigError, match="valid_fraction"):
        job_of(weights, early_stopping_patience=2)


def test_a_turn_of_no_weight_is_not_learned(weights):
    def lesson(messages):
        job = job_of(weights, [{"messages": messages}])
        (made,) = lessons(job.path / "train.jsonl", "chat", load(job.spec.base).tokenizer, max_length=512)
        return made

    first = {"role": "assistant", "content": "one"}
    turns = [{"role": "user", "content": "q"}, first, {"role": "user", "content": "p"}, {"role": "assistant", "content": "two"}]
    both = lesson(turns)
    last = lesson([turns[0], {**first, "weight": 0}, *turns[2:]])
    assert both.ids == last.ids
    assert 0 < sum(last.learned) < sum(both.learned)


def test_bucketing_loses_no_row_and_repeats_itself(weights):
    tokenizer = load(Base("tiny", "x", gguf=str(weights))).tokenizer
    made = lessons(job_of(weights).path / "train.jsonl", "chat", tokenizer, max_length=512)
    drawn = batches(made, 4, seed=0, epoch=0, bucket=True)
    assert sorted(id(lesson) for batch in drawn for lesson in batch) == sorted(map(id, made))
    assert drawn == batches(made, 4, seed=0, epoch=0, bucket=True)
    assert drawn != batches(made, 4, seed=0, epoch=1, bucket=True)


def test_killed_it_goes_on_and_sigterm_leaves_a_checkpoint(weights):
    undisturbed = reference(weights, seed=3, checkpoint_every=1)
    job = job_of(weights, seed=3, checkpoint_every=1)
    with trainer(job) as running:
        wait_until(lambda: checkpoint.whole(job.path / "checkpoints"), "a checkpoint", 60)
        running.send_signal(signal.SIGKILL)
        running.wait()
    with trainer(job) as running:
        wait_until(lambda: "going on" in running.stderr.readline(), "going on", 60)
        running.send_signal(signal.SIGTERM)
        said = running.stderr.read()
    if running.returncode == 143:  # it may have been at its end already
        assert "stopped at step" in said
        with trainer(job) as running:
            said = running.stderr.read()
    assert running.returncode == 0, said
    result = job.result()
    assert result["steps"] == 12
    from safetensors.torch import load_file

    kept = load_file(job.path / "adapter" / "adapter_model.safetensors")
    assert same(
        {name.replace(".default", ""): value for name, value in undisturbed.weights.items()},
        kept,
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda job: (job.path / "train.jsonl").write_bytes(_long()), "finetune.max_length"),
        (lambda job: _spec(job, gguf="/nowhere.gguf"), "/nowhere.gguf cannot be read"),
        (lambda job: _spec(job, gguf=__file__), "is no GGUF file"),
    ],
)
def test_what_cannot_be_done_is_one_line(weights, change, told, capfd):
    from runner.finetune.local.__main__ import main

    job = job_of(weights)
    change(job)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main([str(job.path)]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capfd.readouterr().err.splitlines()
    assert told in said[-1]
    assert not any("Traceback" in line for line in said)


def _long():
    return json.dumps({"messages": [{"role": "user", "content": "x" * 3000}, {"role": "assistant", "content": "y"}]}).encode()


def _spec(job, **base):
    spec = json.loads((job.path / "spec.json").read_text())
    spec["base"] |= base
    (job.path / "spec.json").write_text(json.dumps(spec))


def test_another_architecture_is_refused(tmp_path):
    other = tiny.write(tmp_path / "other.gguf", architecture="gemma")
    with pytest.raises(FinetuneError, match="architecture gemma"):
        load(Base("x", "x", gguf=str(other)))


# --- served


def finished(weights, outcome, seed):
    """A job in the ledger that has made `outcome`."""
    job = job_of(weights, seed=seed)
    digest = write_gguf(
        job.path / "adapter.gguf", arrays(outcome.weights), alpha=16.0, heads=tiny.HEADS, key_heads=tiny.KEY_HEADS
    )
    (job.path / "result.json").write_text(json.dumps({"format": 1, "adapter": "adapter.gguf", "sha256": digest}))
    return job


@pytest.fixture
def identity(monkeypatch):
    """The base's identity in the specs is what the provider finds."""
    monkeypatch.setattr("runner.providers.weights.digest", lambda name: f"sha256:{Path(name).name}")


QUESTIONS = ["q1", "q5", "what", "ab ab 12", "yes?"]


def of_torch(weights, loop, question):
    """What the model in torch says comes first: the log-probabilities of all tokens."""
    loaded = load(Base("tiny", "x", gguf=str(weights)))
    ids = loaded.tokenizer.encode(
        loaded.tokenizer.render([{"role": "system", "content": "s"}, {"role": "user", "content": question}], ask=True), marks=True
    )
    loop.model.eval()
    with torch.no_grad():
        return torch.log_softmax(loop.model(torch.tensor([ids])).logits[0, -1].float(), -1)


def worst(weights, lm, loop):
    """The largest difference in the log-probability of the first token, between what is served and torch."""
    differences = []
    for question in QUESTIONS:
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": question}]
        (answer,) = lm(messages=messages, logprobs=True, top_logprobs=1, max_tokens=1, temperature=0.0, cache=False)
        first = answer["logprobs"]["content"][0]
        differences.append(abs(first["logprob"] - of_torch(weights, loop, question).max().item()))
    return max(differences)


def test_what_is_served_is_what_was_trained(weights, identity):
    outcome, loop = trained(job_of(weights, seed=5, max_steps=6, lr=0.02))
    job = finished(weights, outcome, 5)
    lm = LM(f"local/ft-{job.spec.job}", launch_kwargs={"context": 256, "parallel": 1, "threads": 1})
    lm.launch()
    try:
        assert worst(weights, lm, loop) < 0.05
    finally:
        lm.kill()


def test_without_the_order_of_rows_that_rope_wants_it_is_not(weights, identity, monkeypatch):
    monkeypatch.setattr("runner.finetune.local.adapter.rope_order", lambda values, heads: values)
    outcome, loop = trained(job_of(weights, seed=6, max_steps=6, lr=0.02))
    job = finished(weights, outcome, 6)
    lm = LM(f"local/ft-{job.spec.job}", launch_kwargs={"context": 256, "parallel": 1, "threads": 1})
    lm.launch()
    try:
        assert worst(weights, lm, loop) > 0.1
    finally:
        lm.kill()


def test_two_adapters_and_their_base_do_not_mix(weights, identity):
    jobs = [finished(weights, trained(job_of(weights, seed=seed, max_steps=4, lr=0.05))[0], seed) for seed in (11, 12)]
    settings = {"context": 256, "parallel": 1, "threads": 1}
    lms = [LM(f"local/{name}", launch_kwargs=settings) for name in (f"ft-{jobs[0].spec.job}", f"ft-{jobs[1].spec.job}", weights)]

    def ask(lm):
        return [lm(question, max_tokens=6, temperature=0.0, seed=0, cache=False) for question in QUESTIONS[:3]]

    alone = []
    for lm in lms:
        lm.launch()
        alone.append(ask(lm))
        lm.kill()
    assert alone[0] != alone[1] != alone[2] != alone[0]
    for lm in lms:
        lm.launch()
    try:
        assert len({lm.kwargs["api_base"] for lm in lms}) == 3
        assert [ask(lm) for lm in lms for _ in range(2)] == [answers for answers in alone for _ in range(2)]
    finally:
        for lm in lms:
            lm.kill()
    assert len({lm.provider.endpoint(lm) for lm in lms}) == 3


def test_a_model_that_is_not_there_is_named(weights, identity):
    job = job_of(weights, seed=20)
    with pytest.raises(ConfigError, match=f"ft-{job.spec.job} has no model: the training is not_started"):
        LM(f"local/ft-{job.spec.job}").launch()
    with pytest.raises(ConfigError, match="ft-0123456789ab"):
        LM("local/ft-0123456789ab").launch()


def test_an_adapter_that_was_changed_is_refused(weights, identity):
    job = finished(weights, trained(job_of(weights, seed=21, max_steps=1))[0], 21)
    with (job.path / "adapter.gguf").open("ab") as file:
        file.write(b"x")
    with pytest.raises(LaunchError, match="is not what the training has made"):
        LM(f"local/ft-{job.spec.job}").launch()


def test_from_rows_to_a_served_model_through_the_lm(weights):
    lm = LM(f"local/{weights}", launch_kwargs={"context": 256, "parallel": 1, "threads": 1})
    job = lm.finetune(ROWS, "chat", {**FAST, "seed": 30})
    tuned = job.result(timeout=120)
    assert tuned.model == f"local/ft-{ledger.listed()[-1].spec.job}"
    tuned.launch()
    try:
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q1"}]
        (answer,) = tuned(messages=messages, max_tokens=8, temperature=0.0)
        assert answer.startswith("yes")
    finally:
        tuned.kill()


def test_an_adapter_of_pefts_becomes_the_same_file(weights, tmp_path):
    outcome, loop = trained(job_of(weights, seed=40, max_steps=2))
    loop.model.save_pretrained(tmp_path, selected_adapters=["default"])
    ours = write_gguf(tmp_path / "ours.gguf", arrays(outcome.weights), alpha=16.0, heads=tiny.HEADS, key_heads=tiny.KEY_HEADS)
    assert from_peft(tmp_path, GGUF(weights), tmp_path / "theirs.gguf") == ours
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(FinetuneError, match="use_dora"):
        from_peft(tmp_path, GGUF(weights), tmp_path / "theirs.gguf")


@pytest.mark.model
def test_text_is_split_as_llama_cpp_splits_it(with_weights):
    import urllib.request

    from runner.providers import weights as known

    lm = LM("local/smollm2", launch_kwargs={"context": 256, "parallel": 1, "threads": 1})
    lm.launch()
    try:
        ours = load(Base("smollm2", "x", gguf=str(known.find("smollm2")))).tokenizer
        texts = [
            "12345 and 3.14",
            "a1b22c333",
            "  two  spaces\n\n\tand tabs ",
            "naïve café – 日本語 🙂",
            "I'll don't WE'RE",
            "x²³½",
            "<|im_end|>",
        ]
        for text in texts:
            request = urllib.request.Request(
                lm.kwargs["api_base"].removesuffix("/v1") + "/tokenize",
                json.dumps({"content": text, "parse_special": False}).encode(),
                {"Content-Type": "application/json", "Authorization": f"Bearer {lm.kwargs['api_key']}"},
            )
            with urllib.request.urlopen(request) as reply:
                assert ours.encode(text, marks=False) == json.load(reply)["tokens"], text
    finally:
        lm.kill()
