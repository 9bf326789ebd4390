"""A tuned model written whole: what is served of it is what its adapter is beside its base."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from runner.errors import ConfigError, FinetuneError, LaunchError
from runner.models import served, weights

torch = pytest.importorskip("torch", reason="the extra finetune is not installed")
tiny = pytest.importorskip("tests.finetune.tiny")

import gguf  # noqa: E402

from runner.finetune.trainers.local import merged  # noqa: E402
from runner.finetune.trainers.local.gguf import GGUF  # noqa: E402
from runner.finetune.trainers.local.write import BF16, F16, F32, Part, kept, rows, write  # noqa: E402
from runner.system import files  # noqa: E402
from tests.finetune.served import asked, taught, trained  # noqa: E402

SCALE = 2.0
Q4_1 = 3


@pytest.mark.model
def test_merged_and_adapted_smollm2_agree_and_rows_out_of_order_are_noticed(with_weights, monkeypatch):
    """Within what the base's four bits are worth: measured 0.07, and 0.7 with the rows out of order."""
    job = trained("smollm2", lora_targets=["q_proj", "k_proj"], lr=0.02)
    said = asked(f"ft-{job.spec.job}")
    assert said.apart(asked("smollm2")) > 0.3
    written = {"source": GGUF(weights.find("smollm2")), "weights": taught(job), "scale": SCALE, "heads": 9, "key_heads": 3}
    merged.write_merged(job.path / "right.gguf", **written)
    assert said.apart(asked(job.path / "right.gguf")) < 0.15
    monkeypatch.setattr("runner.finetune.trainers.local.adapter.rope_order", lambda values, heads: values)
    merged.write_merged(job.path / "wrong.gguf", **written)
    assert said.apart(asked(job.path / "wrong.gguf")) > 0.3


def test_all_projections_are_merged_with_little_loss_in_floats(small, monkeypatch):
    job = trained(small, lr=0.05, layers="0-1")
    said = asked(f"ft-{job.spec.job}")
    assert said.apart(asked(small)) > 0.5
    written = {"source": GGUF(small), "weights": taught(job), "scale": SCALE, "heads": tiny.HEADS, "key_heads": tiny.KEY_HEADS}
    merged.write_merged(job.path / "right.gguf", **written)
    assert said.apart(asked(job.path / "right.gguf")) < 0.01
    monkeypatch.setattr("runner.finetune.trainers.local.adapter.rope_order", lambda values, heads: values)
    merged.write_merged(job.path / "wrong.gguf", **written)
    assert said.apart(asked(job.path / "wrong.gguf")) > 0.05


def test_untrained_weights_equal_the_base_byte_for_byte(small, tmp_path):
    job = trained(small, lora_targets=["v_proj"], layers="1", merge=True)
    base, made = GGUF(small), GGUF(job.path / "merged.gguf")
    assert (made.fields, made.kinds) == (base.fields, base.kinds)
    assert [name for name in base.tensors if not np.array_equal(base.raw(name), made.raw(name))] == ["blk.1.attn_v.weight"]
    assert not list(job.path.glob(".*.part"))
    write(tmp_path / "same.gguf", base.fields, base.kinds, kept(base))
    assert (tmp_path / "same.gguf").read_bytes() == small.read_bytes()


@pytest.mark.parametrize(("kind", "becomes", "near"), [(F32, F32, 0.0), (F16, F16, 1e-3), (BF16, BF16, 1e-2), (Q4_1, F16, 1e-3)])
def test_floats_keep_their_type_and_four_bits_become_sixteen(small, tmp_path, kind, becomes, near):
    name, source = "blk.0.attn_v.weight", GGUF(small)
    stored = gguf.quantize(source.floats(name), gguf.GGMLQuantizationType(kind)).view(np.uint8)
    parts = kept(source) | {name: Part(source.tensors[name].shape, kind, lambda: stored)}
    write(tmp_path / "base.gguf", source.fields, source.kinds, parts)
    base = GGUF(tmp_path / "base.gguf")
    draw = np.random.default_rng(0)
    adds = {side: draw.standard_normal(shape).astype(np.float32) for side, shape in {"A": (4, 64), "B": (32, 4)}.items()}
    weights = {f"model.layers.0.self_attn.v_proj.lora_{side}.weight": values for side, values in adds.items()}
    merged.write_merged(tmp_path / "made.gguf", base, weights, scale=0.5, heads=4, key_heads=2)
    made = GGUF(tmp_path / "made.gguf")
    assert made.tensors[name].kind == becomes
    assert np.allclose(made.floats(name), base.floats(name) + 0.5 * adds["B"] @ adds["A"], atol=near * 8, rtol=near)


def test_a_number_too_large_for_sixteen_bits_is_refused():
    with pytest.raises(FinetuneError, match="w holds a value that is too large"):
        rows(np.full((1, 32), 1e6), F16, "w")


def test_a_merged_model_has_its_own_identity_and_needs_no_base(tmp_path):
    base = tiny.write(tmp_path / "base.gguf")
    beside, job = trained(base), trained(base, merge=True)
    assert beside.spec.job != job.spec.job
    name = f"ft-{job.spec.job}"
    assert job.result().items() >= {"adapter": None, "model": "merged.gguf", "steps": 4}.items()
    said = asked(f"ft-{beside.spec.job}")
    base.unlink()
    assert asked(name).apart(said) < 0.01
    assert served.pull(name) == served.Served(job.path / "merged.gguf")
    assert served.digest(name) == weights.digest(str(job.path / "merged.gguf")) == f"sha256:{job.result()['sha256']}"
    with (job.path / "merged.gguf").open("ab") as file:
        file.write(b"x")
    with pytest.raises(LaunchError, match="has changed since it was trained"):
        served.pull(name)
    (job.path / "merged.gguf").unlink()
    with pytest.raises(LaunchError, match="has changed since it was trained"):
        served.pull(name)


def test_a_model_that_is_trained_again_has_a_new_identity_at_once(small):
    job = trained(small)
    name = f"ft-{job.spec.job}"
    before = served.digest(name)
    files.write_private(job.path / "result.json", msgspec.json.encode(job.result() | {"sha256": "0" * 64}))
    assert served.digest(name) != before
    (job.path / "result.json").unlink()
    with pytest.raises(ConfigError, match=f"{name} has no model: the training is not_started"):
        served.digest(name)
    job.remove()
    with pytest.raises(ConfigError, match="is not a training job"):
        served.digest(name)


def test_a_truncated_base_is_reported(small, tmp_path):
    (tmp_path / "short.gguf").write_bytes(small.read_bytes()[:-1000])
    with pytest.raises(FinetuneError, match=r"short\.gguf ends before blk\.1\.ffn_down\.weight does"):
        GGUF(tmp_path / "short.gguf").floats("blk.1.ffn_down.weight")


def test_a_file_that_cannot_be_written_leaves_nothing(small, tmp_path):
    source = GGUF(small)

    def full():
        raise OSError(28, "No space left on device")

    parts = kept(source) | {"output_norm.weight": Part((tiny.HIDDEN,), F32, full)}
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x.gguf", source.fields, source.kinds, parts)
    assert list(tmp_path.iterdir()) == []
