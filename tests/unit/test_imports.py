"""A start costs what it imports: lists of what `--help`, `import runner` and a cached run must not import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runner.cli import main

LISTED = "\nimport sys; print(*sys.modules, file=sys.__stderr__)"
HEAVY = {
    *("litellm", "openai", "dspy", "torch", "transformers", "pandas", "polars", "pyarrow", "numpy", "prefect", "boto3"),
    *("huggingface_hub", "mcp", "jsonschema", "rich", "optuna", "xllamacpp"),
}
NEITHER = HEAVY | {
    *("hydra", "omegaconf", "antlr4", "aiohttp", "httptools", "diskcache", "jinja2", "asyncio", "sqlite3", "ssl", "email"),
    *("msgspec", "yaml", "logging", "subprocess", "importlib.metadata", "runner.config", "runner.experiment"),
    *("argparse", "pathlib", "runner.secrets"),
}
"""What neither `--help` nor `import runner` needs."""
CACHED = HEAVY | {
    *("hydra", "omegaconf", "antlr4", "aiohttp", "httptools", "importlib.metadata", "json_repair"),
    *("runner.analysis.calibration", "runner.analysis.compare", "runner.dspy", "runner.experiment.estimate"),
    *("runner.experiment.training", "runner.finetune.jobs.ledger", "runner.finetune.trainers", "runner.limits"),
    *("runner.lm.front", "runner.network.http1", "runner.network.serving", "runner.providers.local", "runner.providers.openai"),
    *(
        "runner.scoring.judge",
        "runner.scoring.math",
        "runner.servers.server",
        "runner.solvers.steps",
        "runner.solvers.conversation",
    ),
    *("runner.sweeps", "runner.tools", "runner.transport.direct", "runner.transport.litellm", "runner.data.columnar"),
}
"""What a run that the cache answers, and whose composition is kept, does not need."""


def imported(code):
    """Run code in a new process. Return the names of the modules that it has imported."""
    done = subprocess.run([sys.executable, "-c", code + LISTED], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("code", ["import runner", "from runner.cli import main; main(['--help'])"], ids=["import", "help"])
def test_neither_help_nor_an_import_loads_a_library(code):
    assert imported(code) & NEITHER == set()


def test_a_cached_run_loads_nothing_that_it_does_not_use(in_tmp, monkeypatch):
    monkeypatch.setenv("OSTINATO_HOME", str(in_tmp / "home"))
    words = ["run", "--display", "none", "model=fake", "execution.orchestrator=none"]
    assert main(words) == 0
    found = imported(f"from runner.cli import main; assert main({words}) == 0")
    assert "runner.reports.write" in found
    assert found & CACHED == set()
