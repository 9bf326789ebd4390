"""Real weights for the tests that ask a real model: fetched once, then found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def weights_home():
    """An `OSTINATO_HOME` that holds the weights of smollm2: `OSTINATO_TEST_HOME`, else a folder that outlives the tests."""
    from runner.providers import weights

    home = Path(os.environ.get("OSTINATO_TEST_HOME") or Path.home() / ".cache" / "ostinato-tests").absolute()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSTINATO_HOME", str(home))
        weights.pull("smollm2")
    return home


@pytest.fixture
def with_weights(weights_home, clean_environment, tmp_path, monkeypatch):
    """An `OSTINATO_HOME` of the test's own, in which smollm2 is there already."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "models").symlink_to(weights_home / "models")
    monkeypatch.setenv("OSTINATO_HOME", str(home))
    return home
