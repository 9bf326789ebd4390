"""What every test starts from: no settings, keys or caches of the person who runs it; and real weights, fetched once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.turns import turn

_KEPT = {"PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "OSTINATO_TEST_HOME"}

# a slow machine is not a failure, and fixtures that set the environment may be shared by all examples
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("patient")

LONGEST = [Path(__file__).parent / name for name in ("flows", "contract", "harness", "e2e", "finetune", "fuzz", "browser")]
TOGETHER = "tests/flows/"
"""Files of this folder share a Prefect server, which takes long to start: one worker has them all."""


def pytest_configure():
    """Have what is started here hear Ctrl-C, also where a shell runs the tests in the background, with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Begin with the folders whose files take longest, so that no worker sits idle at the end."""
    items.sort(key=lambda item: next((at for at, folder in enumerate(LONGEST) if folder in item.path.parents), len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each worker (``-n 2``) whole files, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return TOGETHER if file.startswith(TOGETHER) else file

    config.option.loadscopereorder = False
    return Files(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Where several workers test (``-n 2``), take turns with them."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with turn(item.config.cache.mkdir("turns"), alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """Only harmless variables, and an OSTINATO_HOME of the test's own."""
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(("PIP_", "UV_", "SSL_", "PYTEST_", "COVERAGE_", "LC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "home"))


@pytest.fixture
def in_tmp(monkeypatch, tmp_path):
    """Run in an empty folder, as a user of an installed package would."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def weights_home():
    """An `OSTINATO_HOME` that holds the weights of smollm2: `OSTINATO_TEST_HOME`, else a folder that outlives the tests."""
    from runner.models import weights

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
