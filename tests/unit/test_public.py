"""The public face: the names of `runner`, and what looking at it loads."""

import subprocess
import sys

import pytest

import runner

HEAVY = {"litellm", "hydra", "omegaconf", "openai", "aiohttp", "torch", "xllamacpp", "prefect", "diskcache", "rich", "jinja2"}
HEAVY |= {"httpx", "pydantic"}  # they come with those
HEAVY |= {"polars", "pandas", "numpy", "scipy"}


def test_the_public_names_are_all_and_all_are_there():
    for name in runner.__all__:
        assert getattr(runner, name) is not None
    assert set(runner.__all__) <= set(dir(runner))
    public = {name for name in vars(runner) if not name.startswith("_")}
    modules = {name for name in public if getattr(runner, name).__class__.__name__ == "module"}
    assert public - modules - {"annotations", "TYPE_CHECKING", "Any"} == set(runner.__all__) - {"__version__"}


def test_all_is_sorted_and_documented():
    assert runner.__all__ == sorted(runner.__all__)
    assert all(getattr(runner, name).__doc__ for name in runner.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'Lm'"):
        runner.Lm  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import runner",
        "from runner import LM; LM('fake/x')",
        "from runner import LM; LM('openai/gpt-4o-mini')",
        "import runner.cli\ntry: runner.cli.main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_looking_loads_nothing_heavy(code):
    check = f"import sys\n{code}\nfound = [name for name in {HEAVY} if name in sys.modules]\nassert not found, found"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
