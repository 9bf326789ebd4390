"""What the tests of the trainer have in common: a tiny llama, and which warnings of others are let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.finetune)
            for warning in ("FutureWarning", "UserWarning", "DeprecationWarning"):  # of torch, transformers and TRL
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{warning}"), append=False)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The GGUF file of a llama of two layers."""
    from tests.finetune import tiny

    return tiny.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
