"""Use every public name of `runner` as a user does. Checked by mypy in strict mode, never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import runner

OVERRIDES = ["model=fake", "sampling.temperature=0.5"]


def play(config: runner.RunConfig | None) -> None:
    """Run, resume, retry and score."""
    result = runner.run(config, notify=print)
    assert_type(result, runner.RunResult)
    assert_type(runner.run(overrides=OVERRIDES).exit_code, int)
    assert_type(result.folder, Path)
    assert_type(result.summary, runner.Summary)
    assert_type(result.summary.scores["contains"], runner.Score)
    assert_type(result.summary.cost_usd, float | None)
    assert_type(result.samples, list[runner.Sample])
    assert_type(runner.resume("latest", ["budget.usd=5"]), runner.RunResult)
    assert_type(runner.retry(result.folder, only=["timeout"], runs_dir="runs"), runner.RunResult)
    rescored: runner.RunResult = runner.score("latest", ["scoring=f1"])
    assert_type(rescored.exit_code, int)
    runner.run("model=fake")  # type: ignore[arg-type]
    runner.retry("latest", onyl=["timeout"])  # type: ignore[call-arg]


def look(run: str | Path) -> None:
    """Load, compare and report."""
    record = runner.load(run, runs_dir=Path("runs"))
    assert_type(record, runner.Run | runner.Sweep)
    if isinstance(record, runner.Sweep):
        assert_type(record.cells[0].run, runner.Run | None)
    else:
        assert_type([sample.output for sample in record.samples()], list[str | None])
        assert_type(runner.compare(record, run, level=0.9, lower_is_better=["latency"]), runner.Comparison)
    compared = runner.compare_all([run, record], clusters={"row": "text"})
    assert_type(compared, list[runner.Comparison])
    if compared[0].difference is not None:
        assert_type(compared[0].difference.p, float | None)
    assert_type(runner.report(run, "page.html"), Path)
    assert_type(runner.import_run("log.eval", id="metadata.id"), list[runner.Imported])


def repeat(run: str | Path) -> None:
    """Sweep, reproduce, pack and replay."""
    swept = runner.sweep([*OVERRIDES, "sampling.seed=1,2"])
    assert_type(swept, runner.SweepResult)
    assert_type(swept.rows, list[dict[str, Any]])
    assert_type(runner.resume_sweep(swept.folder), runner.SweepResult)
    found = runner.reproduce(run, strict=True)
    assert_type(found, runner.Reproduction)
    assert_type(found.exit_code, int)
    packed = runner.pack(run, "run.ostinato")
    assert_type(packed, runner.Packed)
    replayed = runner.replay(packed.file)
    assert_type(replayed, runner.Replayed)
    assert_type(replayed.identical, bool)


def train() -> None:
    """Train, through a pipeline and through an LM."""
    trained = runner.pipeline(overrides=["experiment=tickets_finetune"])
    assert_type(trained, runner.PipelineResult)
    assert_type(trained.stages[0].wall_s, float)
    job = runner.LM("openai/gpt-4o-mini").finetune([{"messages": []}], runner.TrainDataFormat.CHAT)
    assert_type(job, runner.TrainingJob)
    assert_type(job.status(), runner.TrainingStatus)
    tuned: runner.LM = job.result(timeout=60)
    tuned("Where is my invoice?")


async def ask() -> None:
    """Ask an LM."""
    lm = runner.LM("fake/any", temperature=0.7)
    lm(prompt="What is the capital of France?")
    await lm.acall(messages=[{"role": "user", "content": "And of Spain?"}])
    assert_type(lm.history[-1]["model"], Any)
    runner.settings.disable_history = True


class Elsewhere(runner.Provider):
    """A provider of one's own."""


def fail() -> str:
    """Catch what goes wrong, and read the version."""
    try:
        runner.run(overrides=OVERRIDES)
    except runner.errors.LMError as error:
        assert_type(error.retry_after, float | None)
    except runner.errors.OstinatoError as error:
        assert_type(error.exit_code, int)
    runner.Lm  # type: ignore[attr-defined] # noqa: B018
    return runner.__version__
