"""Adapters that are not plain LoRA are recognised by their ``adapter_config.json``."""

import pytest

from runner.finetune.trainers.local.kinds import KINDS, other_than_lora

PLAIN = {
    "r": 8,
    "lora_alpha": 16,
    "bias": "none",
    "use_dora": False,
    "use_qalora": False,
    "lora_bias": False,
    "init_lora_weights": True,
    "rank_pattern": {},
    "alpha_pattern": {},
    "loftq_config": {},
    "layer_replication": None,
    "modules_to_save": None,
}
SET = {"bias": "all", "layer_replication": [[0, 4], [2, 5]], "alora_invocation_tokens": [1, 2]}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}-{kind.field}")
def test_each_kind_is_recognised(kind):
    value = kind.words[0] if kind.words else SET.get(kind.field, {"some": 1})
    assert other_than_lora(PLAIN | {kind.field: value}) == kind


def test_variants_of_an_initialisation_are_recognised():
    for value in ("pissa_niter_16", "PiSSA", "olora", "loftq"):
        assert other_than_lora(PLAIN | {"init_lora_weights": value}) is not None


@pytest.mark.parametrize("value", [True, False, "gaussian", "eva", "orthogonal"])
def test_plain_lora_is_plain_however_it_was_initialised(value):
    assert other_than_lora(PLAIN | {"init_lora_weights": value}) is None
