"""Set up every test: without the caller's settings, keys and caches, and with real weights that are fetched once."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_KEPT = {"PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "OSTINATO_TEST_HOME"}

# a slow machine is not a failure, and all examples may share the environment that a fixture sets
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("patient")

LONGEST = [Path(__file__).parent / name for name in ("flows", "contract", "harness", "e2e", "finetune", "fuzz", "browser")]
TOGETHER = "tests/flows/"
"""Files of this folder share a Prefect server, which is slow to start: one worker runs them all."""


def pytest_configure():
    """Let child processes receive Ctrl-C, even if a shell runs the tests in the background, where SIGINT is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Start with the folders whose files take longest, so that no worker is idle at the end."""
    items.sort(key=lambda item: next((at for at, folder in enumerate(LONGEST) if folder in item.path.parents), len(LONGEST)))


@pytest.fixture(autouse=True, scope="module")
def a_small_heap():
    """Keep the garbage collector away from what imports have left: a million objects, which each full pass would visit."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the workers of ``-n 3`` whole files, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return TOGETHER if file.startswith(TOGETHER) else file

    config.option.loadscopereorder = False
    return Files(config, log)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """Keep only harmless environment variables, and give the test its own OSTINATO_HOME."""
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(("PIP_", "UV_", "SSL_", "PYTEST_", "COVERAGE_", "LC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "home"))


@pytest.fixture
def in_tmp(monkeypatch, tmp_path):
    """Run in an empty folder, as a user of the installed package would."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def weights_home():
    """Return an `OSTINATO_HOME` with the weights of smollm2: `OSTINATO_TEST_HOME`, else a folder that outlives the tests."""
    from runner.models import weights

    home = Path(os.environ.get("OSTINATO_TEST_HOME") or Path.home() / ".cache" / "ostinato-tests").absolute()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSTINATO_HOME", str(home))
        weights.pull("smollm2")
    return home


@pytest.fixture
def with_weights(weights_home, clean_environment, tmp_path, monkeypatch):
    """Give the test its own `OSTINATO_HOME`, in which smollm2 is already fetched."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "models").symlink_to(weights_home / "models")
    monkeypatch.setenv("OSTINATO_HOME", str(home))
    return home
