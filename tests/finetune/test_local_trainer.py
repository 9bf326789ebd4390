"""The local trainer on a tiny llama: what it learns, that it goes on exactly, and that what is served is what was trained."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from runner import LM
from runner.errors import ConfigError, FinetuneError, LaunchError
from runner.finetune.jobs import ledger
from runner.finetune.jobs.spec import Base
from tests.support.clock import wait_until

torch = pytest.importorskip("torch", reason="the extra finetune is not installed")
tiny = pytest.importorskip("tests.finetune.tiny")

from runner.finetune.trainers.local import checkpoint  # noqa: E402
from runner.finetune.trainers.local.adapter import from_peft, write_gguf  # noqa: E402
from runner.finetune.trainers.local.base import load  # noqa: E402
from runner.finetune.trainers.local.gguf import GGUF  # noqa: E402
from runner.finetune.trainers.local.loop import arrays  # noqa: E402
from runner.finetune.trainers.local.machine import Machine  # noqa: E402
from runner.finetune.trainers.local.rows import lessons, order  # noqa: E402
from tests.finetune.jobs import FAST, ROWS, VALID, job_of, over_and_over, reference, same, trained, trainer  # noqa: E402


def test_the_loss_of_the_answers_goes_down(small):
    job = job_of(small)
    outcome, loop = trained(job)
    losses = [line["loss"] for line in job.metrics()]
    assert len(losses) == loop.steps == 12
    assert losses[-1] < losses[0] / 5
    assert outcome.position.tokens == sum(sum(lesson.learned) for lesson in loop.train) * 3


def test_the_answer_and_its_end_are_learned(small):
    tokenizer = load(Base("tiny", "x", gguf=str(small))).tokenizer
    job = job_of(small)
    lesson = lessons(job.path / "train.jsonl", "chat", tokenizer, max_length=512)[1]
    learned = [number for number, flag in zip(lesson.ids, lesson.learned, strict=True) if flag]
    assert learned == [*tokenizer.encode("yesyes", marks=False), tokenizer.end]


def test_control_tokens_in_a_row_stay_text(small):
    tokenizer = load(Base("tiny", "x", gguf=str(small))).tokenizer
    said = "ok<|im_end|>\n<|im_start|>assistant\nno"
    row = {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "a<|im_end|>b"}]}
    job = job_of(small, [row])
    (lesson,) = lessons(job.path / "train.jsonl", "chat", tokenizer, max_length=512)
    assert lesson.ids.count(tokenizer.end) == 2
    assert lesson.ids.count(1) == 2
    form = job_of(small, [{"prompt": said, "completion": "x<|im_end|>"}], form="completion")
    (lesson,) = lessons(form.path / "train.jsonl", "completion", tokenizer, max_length=512)
    assert lesson.ids.count(tokenizer.end) == 1


@pytest.mark.parametrize("heeded", [5, 7])
def test_a_training_stopped_repeatedly_within_steps_and_validations_ends_in_the_same_bits(small, heeded):
    settings = {"lora_dropout": 0.2, "batch_size": 2, "gradient_accumulation": 2, "eval_every": 2}
    undisturbed = reference(small, valid=VALID, seed=7, **settings)
    job = job_of(small, valid=VALID, seed=7, **settings)
    outcome, sittings = over_and_over(job, heeded=heeded)
    assert sittings > 5
    assert same(outcome.weights, undisturbed.weights)
    assert outcome.position.tokens == undisturbed.position.tokens
    assert outcome.valid_loss == undisturbed.valid_loss
    assert ["valid_loss" in line for line in job.metrics()] == [False, True] * 6


def test_a_training_stopped_in_a_validation_stops_as_early_and_keeps_the_same_best(small):
    settings = {"eval_every": 1, "early_stopping_patience": 2, "lr": 0.2, "epochs": 9, "max_steps": 30}
    undisturbed = reference(small, valid=VALID, **settings)
    outcome, sittings = over_and_over(job_of(small, valid=VALID, **settings), heeded=3)
    assert sittings > 2
    assert outcome.position.step == undisturbed.position.step < 30
    assert same(outcome.weights, undisturbed.weights)


def test_the_gpus_random_state_is_kept_and_restored(small, monkeypatch):
    gpu = torch.Generator().manual_seed(1)  # in its place: what counts is that its state is asked for, kept and given back
    monkeypatch.setattr("torch.cuda.get_rng_state", gpu.get_state)
    monkeypatch.setattr("torch.cuda.set_rng_state", gpu.set_state)
    job = job_of(small)
    _, loop = trained(job)
    loop.machine = Machine("cuda", "fp32", 1)
    checkpoint.save(job.path / "kept", loop.position, loop._tensors())
    drawn = torch.rand(3, generator=gpu)
    loop.restore(*checkpoint.newest(job.path / "kept"))
    assert torch.equal(torch.rand(3, generator=gpu), drawn)


def of_folder(small, folder):
    """The tokenizer of the tiny llama as a folder of Hugging Face's holds it."""
    from transformers import PreTrainedTokenizerFast

    from runner.finetune.trainers.local.base import _FolderTokenizer

    made = load(Base("tiny", "x", gguf=str(small))).tokenizer
    others = [mark for mark in tiny.MARKS if mark != "<|im_end|>"]
    known = PreTrainedTokenizerFast(tokenizer_object=made._bpe, eos_token="<|im_end|>", additional_special_tokens=others)
    known.chat_template = tiny.TEMPLATE
    known.save_pretrained(folder)
    return _FolderTokenizer(folder)


@pytest.mark.parametrize("form", ["gguf", "folder"])
@pytest.mark.parametrize("mark", tiny.MARKS)
def test_text_that_spells_a_control_token_is_never_encoded_as_one(small, tmp_path, form, mark):
    tokenizer = load(Base("tiny", "x", gguf=str(small))).tokenizer if form == "gguf" else of_folder(small, tmp_path)
    number = tiny.MARKS.index(mark)
    said = f"a {mark} b{mark}"
    assert number in tokenizer.encode(said, marks=True)
    assert number not in tokenizer.encode(said, marks=False)
    assert tokenizer.encode(tokenizer.quoted(said), marks=True) == tokenizer.encode(said, marks=False)
    rows = [
        {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": content}]} for content in ("", said)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bare, spelled = lessons(file, "chat", tokenizer, max_length=512)
    assert spelled.ids.count(number) == bare.ids.count(number)
    file.write_text(json.dumps({"prompt": said, "completion": said}))
    (lesson,) = lessons(file, "completion", tokenizer, max_length=512)
    assert lesson.ids.count(number) == (number == tokenizer.end)


def test_without_a_chat_template_completions_can_be_learned_and_chats_are_refused(tmp_path):
    bare = tiny.write(tmp_path / "bare.gguf", template=None)
    outcome, _ = trained(job_of(bare, [{"prompt": "q", "completion": "y"}], form="completion", max_steps=1))
    assert outcome.position.step == 1
    with pytest.raises(FinetuneError, match="no chat template; train on completions"):
        trained(job_of(bare))


def test_the_seed_decides_the_result(small):
    first, again, other = (reference(small, seed=seed) for seed in (1, 1, 2))
    assert same(first.weights, again.weights)
    assert not same(first.weights, other.weights)


def test_accumulated_batches_equal_one_large_batch(small):
    large, _ = trained(job_of(small, batch_size=6, bucket=False, max_steps=4))
    accumulated, _ = trained(job_of(small, batch_size=3, gradient_accumulation=2, bucket=False, max_steps=4))
    for name, value in large.weights.items():
        assert torch.allclose(value, accumulated.weights[name], atol=1e-5)


def test_early_stopping_keeps_the_best(small):
    job = job_of(small, valid=VALID, eval_every=1, early_stopping_patience=2, lr=0.2, epochs=9, max_steps=30)
    outcome, loop = trained(job)
    looked = [line["valid_loss"] for line in job.metrics()]
    assert outcome.position.step < 30
    assert outcome.valid_loss == min(looked)
    assert loop._valid_loss() == pytest.approx(min(looked), rel=1e-5)


def test_validation_is_once_per_epoch_by_default_and_once_at_the_end(small):
    for settings, looks in (({"epochs": 2}, 2), ({"epochs": 2, "max_steps": 1}, 0)):
        job = job_of(small, valid=VALID, **{"max_steps": None, "batch_size": 4, **settings})
        outcome, loop = trained(job)
        assert len([line for line in job.metrics() if "valid_loss" in line]) == looks
        assert outcome.valid_loss == pytest.approx(loop._valid_loss(), rel=1e-5)
    with pytest.raises(ConfigError, match="valid_fraction"):
        job_of(small, early_stopping_patience=2)


def test_a_turn_of_weight_zero_is_not_learned(small):
    def lesson(messages):
        job = job_of(small, [{"messages": messages}])
        (made,) = lessons(job.path / "train.jsonl", "chat", load(job.spec.base).tokenizer, max_length=512)
        return made

    first = {"role": "assistant", "content": "one"}
    turns = [{"role": "user", "content": "q"}, first, {"role": "user", "content": "p"}, {"role": "assistant", "content": "two"}]
    both = lesson(turns)
    last = lesson([turns[0], {**first, "weight": 0}, *turns[2:]])
    assert both.ids == last.ids
    assert 0 < sum(last.learned) < sum(both.learned)


def test_bucketing_loses_no_row_and_is_repeatable():
    lengths = [7, 3, 9, 3, 5, 8, 1, 2, 6, 4]
    drawn = order(lengths, 4, seed=0, epoch=0, bucket=True)
    assert sorted(row for batch in drawn for row in batch) == list(range(10))
    assert drawn == order(lengths, 4, seed=0, epoch=0, bucket=True)
    assert drawn != order(lengths, 4, seed=0, epoch=1, bucket=True)


def test_a_killed_training_resumes_and_sigterm_leaves_a_checkpoint(small):
    undisturbed = reference(small, seed=3, checkpoint_every=1)
    job = job_of(small, seed=3, checkpoint_every=1)
    with trainer(job) as running:
        wait_until(lambda: ledger.whole_checkpoints(job.path / "checkpoints"), "a checkpoint")
        running.send_signal(signal.SIGKILL)
        running.wait()
    with trainer(job) as running:
        assert any("resuming" in line for line in iter(running.stderr.readline, ""))
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
        (lambda job: _spec(job, gguf=__file__), "is not a GGUF file"),
    ],
)
def test_an_error_is_one_line_of_stderr(small, change, told, capfd):
    from runner.finetune.trainers.local.__main__ import main

    job = job_of(small)
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


def finished(small, outcome, seed):
    """A job in the ledger that has made `outcome`."""
    job = job_of(small, seed=seed)
    digest = write_gguf(
        job.path / "adapter.gguf", arrays(outcome.weights), alpha=16.0, heads=tiny.HEADS, key_heads=tiny.KEY_HEADS
    )
    (job.path / "result.json").write_text(json.dumps({"format": 1, "adapter": "adapter.gguf", "sha256": digest}))
    return job


@pytest.fixture
def identity(monkeypatch):
    """The base's identity in the specs is what the provider finds."""
    monkeypatch.setattr("runner.models.weights.digest", lambda name: f"sha256:{Path(name).name}")


QUESTIONS = ["q1", "q5", "what", "ab ab 12", "yes?"]


def of_torch(small, loop, question):
    """What the model in torch says comes first: the log-probabilities of all tokens."""
    loaded = load(Base("tiny", "x", gguf=str(small)))
    ids = loaded.tokenizer.encode(
        loaded.tokenizer.render([{"role": "system", "content": "s"}, {"role": "user", "content": question}], ask=True), marks=True
    )
    loop.model.eval()
    with torch.no_grad():
        return torch.log_softmax(loop.model(torch.tensor([ids])).logits[0, -1].float(), -1)


def worst(small, lm, loop):
    """The largest difference in the log-probability of the first token, between what is served and torch."""
    differences = []
    for question in QUESTIONS:
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": question}]
        (answer,) = lm(messages=messages, logprobs=True, top_logprobs=1, max_tokens=1, temperature=0.0, cache=False)
        first = answer["logprobs"]["content"][0]
        differences.append(abs(first["logprob"] - of_torch(small, loop, question).max().item()))
    return max(differences)


def test_the_served_model_is_the_trained_model(small, identity):
    outcome, loop = trained(job_of(small, seed=5, max_steps=6, lr=0.02))
    job = finished(small, outcome, 5)
    lm = LM(f"local/ft-{job.spec.job}", launch_kwargs={"context": 256, "parallel": 1, "threads": 1})
    lm.launch()
    try:
        assert worst(small, lm, loop) < 0.05
    finally:
        lm.kill()


def test_without_ropes_order_of_rows_the_served_model_differs(small, identity, monkeypatch):
    monkeypatch.setattr("runner.finetune.trainers.local.adapter.rope_order", lambda values, heads: values)
    outcome, loop = trained(job_of(small, seed=6, max_steps=6, lr=0.02))
    job = finished(small, outcome, 6)
    lm = LM(f"local/ft-{job.spec.job}", launch_kwargs={"context": 256, "parallel": 1, "threads": 1})
    lm.launch()
    try:
        assert worst(small, lm, loop) > 0.1
    finally:
        lm.kill()


@pytest.mark.parametrize("begins", [0, 1])  # 1 is what the chat template begins with, and is not put there twice
def test_the_servers_first_token_is_part_of_the_training(tmp_path, begins):
    small = tiny.write(tmp_path / "begins.gguf", begins=begins)
    tokenizer = load(Base("tiny", "x", gguf=str(small))).tokenizer
    file = tmp_path / "rows.jsonl"
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": "q1"}]
    file.write_text(json.dumps({"messages": [*asked, {"role": "assistant", "content": "y"}]}))
    (chat,) = lessons(file, "chat", tokenizer, max_length=512)
    file.write_text(json.dumps({"prompt": "q1\n\nBEGIN RESPONSE:", "completion": "y"}))  # as an LM of the type text asks
    (completion,) = lessons(file, "completion", tokenizer, max_length=512)
    lm = LM(f"local/{small}", launch_kwargs={"context": 256, "parallel": 1, "threads": 1}, max_tokens=1, cache=False)
    lm.launch()
    try:
        lm(messages=asked)
        text = LM(lm.model, model_type="text", max_tokens=1, cache=False, **{k: lm.kwargs[k] for k in ("api_base", "api_key")})
        text("q1")
    finally:
        lm.kill()
    for lesson, served in ((chat, lm), (completion, text)):
        assert lesson.ids[:2].count(begins) == 1
        assert served.history[-1]["usage"]["prompt_tokens"] == lesson.learned.index(True)


def test_two_adapters_and_their_base_do_not_mix(small, identity):
    jobs = [finished(small, trained(job_of(small, seed=seed, max_steps=4, lr=0.05))[0], seed) for seed in (11, 12)]
    settings = {"context": 256, "parallel": 1, "threads": 1}
    lms = [LM(f"local/{name}", launch_kwargs=settings) for name in (f"ft-{jobs[0].spec.job}", f"ft-{jobs[1].spec.job}", small)]

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


def test_a_missing_model_is_named(small, identity):
    job = job_of(small, seed=20)
    with pytest.raises(ConfigError, match=f"ft-{job.spec.job} has no model: the training is not_started"):
        LM(f"local/ft-{job.spec.job}").launch()
    with pytest.raises(ConfigError, match="ft-0123456789ab"):
        LM("local/ft-0123456789ab").launch()


def test_an_adapter_that_was_changed_is_refused(small, identity):
    job = finished(small, trained(job_of(small, seed=21, max_steps=1))[0], 21)
    with (job.path / "adapter.gguf").open("ab") as file:
        file.write(b"x")
    with pytest.raises(LaunchError, match="has changed since it was trained"):
        LM(f"local/ft-{job.spec.job}").launch()


def test_from_rows_to_a_served_model_through_the_lm(small):
    lm = LM(f"local/{small}", launch_kwargs={"context": 256, "parallel": 1, "threads": 1})
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


def test_a_peft_adapter_becomes_the_same_file(small, tmp_path):
    outcome, loop = trained(job_of(small, seed=40, max_steps=2))
    loop.model.save_pretrained(tmp_path, selected_adapters=["default"])
    ours = write_gguf(tmp_path / "ours.gguf", arrays(outcome.weights), alpha=16.0, heads=tiny.HEADS, key_heads=tiny.KEY_HEADS)
    assert from_peft(tmp_path, GGUF(small), tmp_path / "theirs.gguf") == ours
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(FinetuneError, match="use_dora"):
        from_peft(tmp_path, GGUF(small), tmp_path / "theirs.gguf")


@pytest.mark.model
def test_text_is_tokenised_as_by_llama_cpp(with_weights):
    import urllib.request

    from runner.models import weights as known

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
