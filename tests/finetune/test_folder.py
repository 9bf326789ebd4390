"""A model in a folder of Hugging Face's form: served as it is, and trained, merged and served as any other."""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np
import pytest

import runner
from runner.cli import main
from runner.errors import ConfigError, FinetuneError, LaunchError
from runner.models import served, weights
from runner.models.bases import base_of

torch = pytest.importorskip("torch", reason="the extra finetune is not installed")
tiny = pytest.importorskip("tests.finetune.tiny")

from runner.finetune.trainers.local.adapter import from_peft  # noqa: E402
from runner.finetune.trainers.local.base import load  # noqa: E402
from runner.finetune.trainers.local.folder import Folder  # noqa: E402
from runner.finetune.trainers.local.gguf import GGUF  # noqa: E402
from runner.finetune.trainers.local.write import BF16, F16, F32  # noqa: E402
from tests.finetune import folders  # noqa: E402
from tests.finetune.served import QUESTIONS, QUICK, ROWS, about, asked, launched, said, split, trained  # noqa: E402

TEXTS = [
    "12345 and 3.14",
    "a1b22c333",
    "  two  spaces\n\n\tand tabs ",
    "naïve café – 日本語 🙂",
    "I'll don't WE'RE",
    "x²³½",
    "<|im_end|>",
]


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    return folders.save(small, tmp_path_factory.mktemp("saved") / "tiny-llama", torch.float32)


@pytest.fixture
def own(saved, tmp_path):
    """A folder that the test may change."""
    return shutil.copytree(saved, tmp_path / "own")


@pytest.fixture
def beside_smollm2(weights_home, tmp_path):
    """An `OSTINATO_HOME` that has smollm2, and where what is written of folders is gone with the test."""
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    (models / "smollm2").symlink_to(weights_home / "models" / "smollm2")


def of_torch(job, name):
    """The log-probabilities that torch gives the first tokens, by question, after a training on a folder."""
    import peft

    loaded = load(base_of(str(name)))
    model = peft.PeftModel.from_pretrained(loaded.model, job.path / "adapter").eval()
    for question in QUESTIONS:
        ids = loaded.tokenizer.encode(loaded.tokenizer.render(about(question), ask=True), marks=True)
        with torch.no_grad():
            yield torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].float(), -1)


@pytest.mark.model
def test_smollm2_as_a_folder_is_served_like_smollm2_and_its_adapters_like_in_torch(beside_smollm2, tmp_path):
    """Measured: 0.05 from the file in four bits; 0.001 from torch."""
    folder = folders.save(weights.find("smollm2"), tmp_path / "smollm2-folder", torch.float16)
    with launched("smollm2") as four_bits, launched(folder) as sixteen:
        base = said(sixteen)
        assert base.apart(said(four_bits)) < 0.15
        theirs = load(base_of(str(folder))).tokenizer
        for text in TEXTS:
            assert split(four_bits, text) == split(sixteen, text) == theirs.encode(text, marks=False), text
    job = trained(folder, layers="28-29", max_steps=2)
    now = asked(f"ft-{job.spec.job}")
    assert now.apart(base) > 0.3
    for ours, all_of_them in zip(now.by_question, of_torch(job, folder), strict=True):
        assert max(ours.values()) == pytest.approx(all_of_them.max().item(), abs=0.02)


def test_a_folder_read_as_gguf_equals_the_file_it_was_saved_from(small, saved):
    folder, file = Folder(saved), GGUF(small)
    assert {name: folder.fields[name] for name in file.fields} == file.fields
    assert {name: folder.kinds[name] for name in file.kinds} == file.kinds
    assert {name: tensor.shape for name, tensor in folder.tensors.items()} == {n: t.shape for n, t in file.tensors.items()}
    assert all(np.array_equal(folder.floats(name), file.floats(name)) for name in file.tensors)


@pytest.mark.parametrize(("dtype", "kind", "near"), [("float32", F32, 1e-3), ("float16", F16, 0.01), ("bfloat16", BF16, 0.1)])
def test_weights_keep_their_type_and_vectors_become_float32(small, tmp_path, dtype, kind, near):
    folder = folders.save(small, tmp_path / dtype, getattr(torch, dtype))
    file = GGUF(weights.pull(str(folder)))
    assert {tensor.kind for tensor in file.tensors.values() if len(tensor.shape) == 2} == {kind}
    assert {tensor.kind for tensor in file.tensors.values() if len(tensor.shape) == 1} == {F32}
    assert asked(folder).apart(asked(small)) < near


def test_the_gguf_of_a_folder_is_written_once_per_content(own, tmp_path, capsys):
    name = str(own)
    assert base_of(name).identity == weights.digest(name) == served.digest(name)
    assert weights.find(name) is None
    file = weights.pull(name)
    written = file.stat().st_mtime_ns
    assert weights.alias(name) == "own"
    assert weights.pull(str(shutil.copytree(own, tmp_path / "copy"))) == weights.find(name) == file
    assert file.stat().st_mtime_ns == written
    assert main(["models", "ls"]) == 0
    assert name in capsys.readouterr().out
    file.write_bytes(b"damaged")
    assert weights.find(name) is None
    assert GGUF(weights.pull(name)).fields["general.architecture"] == "llama"
    before = weights.digest(name)
    (own / "chat_template.jinja").write_text("{{ messages }}")
    assert weights.digest(name) != before
    shutil.rmtree(own)
    assert main(["models", "rm", name]) == 0
    assert not file.exists()


def test_a_folder_that_changes_while_it_is_read_is_not_kept(own, monkeypatch):
    def slow(folder, file):
        write_gguf(folder, file)
        (folder / "generation_config.json").write_text("{}")

    write_gguf = weights.folders.write_gguf
    monkeypatch.setattr(weights.folders, "write_gguf", slow)
    with pytest.raises(LaunchError, match="changed while it was read"):
        weights.pull(str(own))
    assert weights.stored() == []


@pytest.mark.parametrize("merge", [False, True])
def test_a_config_can_name_and_train_a_folder(saved, in_tmp, merge):
    job = trained(saved, lr=0.05, merge=merge)
    (in_tmp / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = [f"model.name={saved}", "data.limit=2", "sampling.max_tokens=2", "launch.context=256", "execution.orchestrator=none"]
    base = runner.run(overrides=words)
    words += ["finetune=default", "finetune.data.path=train.jsonl", "finetune.lr=0.05", f"finetune.merge={merge}"]
    words += [f"finetune.{name}={value}" for name, value in QUICK.items() if name != "lr"]
    tuned = runner.run(overrides=words)
    assert (base.exit_code, tuned.exit_code) == (0, 0)
    assert [sample.model_served for sample in base.samples] == ["tiny-llama"] * 2
    assert [sample.model_served for sample in tuned.samples] == [f"ft-{job.spec.job}"] * 2


def test_the_adapter_and_the_merged_model_of_a_folder_agree(own):
    beside, alone = (trained(own, lr=0.05, layers="0-1", merge=merge) for merge in (False, True))
    now = asked(f"ft-{beside.spec.job}")
    assert now.apart(asked(own)) > 0.3
    assert asked(f"ft-{alone.spec.job}").apart(now) < 0.01
    (own / "generation_config.json").write_text("{}")
    with pytest.raises(LaunchError, match="was trained on"):
        served.pull(f"ft-{beside.spec.job}")
    assert served.pull(f"ft-{alone.spec.job}").adapter is None


def test_another_programs_adapter_of_a_folder_becomes_the_same_file(small, saved, tmp_path):
    job = trained(saved)
    by_file = from_peft(job.path / "adapter", GGUF(small), tmp_path / "a.gguf")
    assert from_peft(job.path / "adapter", Folder(saved), tmp_path / "b.gguf") == by_file == job.result()["sha256"]


def shards(folder):
    """The same weights in two files and an index."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: tensors[name] for name in names if where[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def test_weights_in_several_files_are_read(own, saved):
    shards(own)
    ours, whole = Folder(own), Folder(saved)
    assert all(np.array_equal(ours.raw(name), whole.raw(name)) for name in whole.tensors)


def test_older_forms_of_a_folder_are_read(own):
    """transformers 4 kept rope's base in the config itself, the template among the settings, and merges as text."""
    before = Folder(own).fields
    config, settings, tokenizer = (json.loads((own / f"{name}.json").read_text()) for name in NAMES)
    config |= {"rope_theta": config.pop("rope_parameters")["rope_theta"], "rope_scaling": None}
    settings["chat_template"] = (own / "chat_template.jinja").read_text()
    settings["eos_token"] = {"content": settings["eos_token"], "special": True}
    tokenizer["model"]["merges"] = ["a b"]
    tokenizer["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True}
    for name, value in zip(NAMES, (config, settings, tokenizer), strict=True):
        (own / f"{name}.json").write_text(json.dumps(value))
    (own / "chat_template.jinja").unlink()
    assert Folder(own).fields == before


NAMES = ("config", "tokenizer_config", "tokenizer")
BOS = {"type": "TemplateProcessing", "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("config", {"model_type": "qwen2"}, "its architecture is qwen2, and only llama"),
        ("config", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "its rope is scaled"),
        ("config", {"head_dim": 128}, "head_dim is 128"),
        ("config", {"attention_bias": True}, "its projections have biases"),
        ("config", {"vocab_size": 100}, "has the number 1[0-9]+, and there are 100 embeddings"),
        ("config", {"num_hidden_layers": 3}, r"it has no weight model\.layers\.2"),
        ("config", {"hidden_size": None}, "has an unknown form"),
        ("tokenizer", {"normalizer": {"type": "NFC"}}, r"\(smollm and gpt-2 are\): its normalizer is NFC"),
        ("tokenizer", {"pre_tokenizer": {"type": "Metaspace"}}, "its pre_tokenizer is Metaspace"),
        ("tokenizer", {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "its pre_tokenizer is ByteLevel"),
        ("tokenizer", {"post_processor": BOS}, "its post_processor is TemplateProcessing, which adds tokens"),
        ("tokenizer", {"model": {"type": "Unigram"}}, "its model is Unigram"),
        ("tokenizer_config", {"add_bos_token": True}, "adds tokens to every text"),
    ],
)
def test_models_that_llama_cpp_would_not_reproduce_are_refused(own, file, change, told):
    path = own / f"{file}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LaunchError, match=told) as caught:
        weights.pull(str(own))
    assert "convert_hf_to_gguf.py" in str(caught.value) or "form" in told
    assert not list(weights.folder().rglob("*.gguf"))


def test_the_other_pre_tokenizer_is_recognised(own):
    path = own / "tokenizer.json"
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": level}))
    assert Folder(own).fields["tokenizer.ggml.pre"] == "gpt-2"
    with launched(own) as lm:
        theirs = load(base_of(str(own))).tokenizer
        assert all(split(lm, text) == theirs.encode(text, marks=False) for text in TEXTS)


def test_incomplete_folders_and_other_folders_are_reported(own, saved, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"is a folder without a model: it has no config\.json"):
        weights.pull(str(tmp_path))
    os.truncate(own / "model.safetensors", (own / "model.safetensors").stat().st_size - 1)
    with pytest.raises(LaunchError, match="was it fetched whole"):
        weights.pull(str(own))
    (own / "tokenizer.json").unlink()
    with pytest.raises(FinetuneError, match=r"tokenizer\.json cannot be read: No such file"):
        trained(own, merge=True)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(LaunchError, match=r"pip install 'ostinato\[finetune\]'"):
        weights.pull(str(saved))
