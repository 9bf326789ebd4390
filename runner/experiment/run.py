"""Run an experiment to its end: `run`, `resume`, `retry`, and the same inside a flow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.errors import ConfigError, LMError
from runner.experiment.experiment import Experiment
from runner.experiment.prepared import prepare
from runner.experiment.train_first import train_first
from runner.records import RunFolder, Summary, find_run
from runner.records.outcome import worst
from runner.records.tags import checked_tags
from runner.session.loop import Notify, silent
from runner.session.orchestrator import Orchestrate, orchestrator
from runner.session.sitting import recorded, sitting
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from runner.config.schema import RunConfig
    from runner.records.summary import RunStatus
    from runner.types import Sample

ORCHESTRATORS: dict[str, str | None] = {"none": None, "prefect": "flows.orchestrate:run_experiment"}
"""Orchestrators by ``execution.orchestrator``: a coroutine function that calls launch, ask, kill and summarise."""

EXIT_CODES: dict[RunStatus, int] = {"complete": 0, "incomplete": 3, "failed": 1, "interrupted": 130, "running": 3}

FAILED, UNDECIDED = 100, 3
"""Exit codes of a run that does not reach what is expected, or whose rows are too few to tell."""

FAILURES: tuple[str, ...] = (*(cls.code for cls in LMError.__subclasses__()), "data", "scoring")
"""Codes of row failures: those of `runner.errors`, a prompt that cannot be filled in, an answer that cannot be scored."""

Watch = Callable[["Experiment"], AbstractContextManager[Any]]


class RunResult(msgspec.Struct, frozen=True):
    """The result of `run`: the folder of the record, and its summary. `samples` reads the record each time."""

    folder: Path
    summary: Summary

    @property
    def samples(self) -> list[Sample]:
        """All samples, in the order in which they were finished."""
        return list(RunFolder.open(self.folder).samples())

    @property
    def exit_code(self) -> int:
        """The exit code of the command: see `exit_code`."""
        return exit_code(self.summary)


def exit_code(summary: Summary) -> int:
    """Return 0 complete, 3 rows failed or owed, 1 nothing was answered, 130 interrupted.

    Where something is expected of the run: 100 if it fails, and 3 if the rows are too few to tell. A run that was stopped early
    has no rows that are missing.
    """
    code, verdict = EXIT_CODES[summary.status], worst(summary.expectations)
    if verdict is None or summary.status not in ("complete", "incomplete"):
        return code
    if verdict != "pass":
        return FAILED if verdict == "fail" else UNDECIDED
    return 0 if summary.stopped_early and not summary.errors else code


def run(
    config: RunConfig | None = None,
    *,
    overrides: Sequence[str] = (),
    tags: Sequence[str] = (),
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Play one experiment and record it. Also works inside a running event loop (a notebook).

    With a section `finetune`, the model is trained first, unless it is trained already, and the trained model is asked.

    Args:
        config: the experiment; None composes it from the config groups and `overrides`.
        overrides: Hydra overrides, such as ``["model=fake", "sampling.temperature=0.5"]``.
        tags: words to find the run by, such as ``["baseline"]`` (``ostinato ls tag=baseline``).
        notify: called with each line for people.
        watch: a context manager around the run, given the Experiment: for progress displays.

    Returns:
        The record. Rows that failed are in it; ``result.summary.status`` and ``result.summary.problem`` say how it went.

    Raises:
        ConfigError, DataError, RecordError, LaunchError, FinetuneError, OrchestratorError: the run could not begin or continue;
            finished rows are recorded.
    """
    if isinstance(config, str) or isinstance(overrides, str):
        raise ConfigError('overrides are a list: run(overrides=["model=fake"])')
    if config is not None and overrides:
        raise ConfigError("give a config or overrides, not both: overrides are applied while a config is composed")
    if config is None:
        from runner.config.compose import compose

        config = compose(list(overrides)).config()
    if config.sweep.varies:
        raise ConfigError("the config has a section `sweep`: play its cells with runner.sweep(overrides)")
    facts = {"tags": found} if (found := checked_tags(tags)) else None
    prepared = train_first(prepare(config), notify or silent)
    return run_to_end(Experiment.create(prepared, overrides, facts=facts), notify=notify, watch=watch)


def resume(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs_dir: str | Path = "runs",
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Resume a run that was interrupted: ask only the rows that it still owes.

    Args:
        run: a run folder, or a run's name as `load` takes it (``latest``, an experiment, ``<experiment>/<stamp>``, a prefix).
        overrides: changes of the budget, the limits, the launch or the execution, such as ``["budget.usd=5"]``.
        runs_dir: where runs are.
        notify: called with each line for people.
        watch: a context manager around the run, given the Experiment: for progress displays.

    Returns:
        The record, as `run` does.

    Raises:
        RecordError: there is no such run, it is being played, or its config, data, prompt files or scorer have changed since.
        ConfigError, DataError, LaunchError, FinetuneError, OrchestratorError: as `run` does.
    """
    return run_to_end(Experiment.reopen(_folder(run, runs_dir), overrides), notify=notify, watch=watch)


def retry(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    only: Sequence[str] | None = None,
    runs_dir: str | Path = "runs",
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Ask the failed rows of a run again, and the rows that it still owes, in the same record. Answered rows are not asked.

    A row's new line replaces its old one, which stays in ``samples.jsonl``: its cost still counts in the run's requests,
    tokens and dollars. A row whose retry is interrupted keeps its old line. An answer that could not be scored is scored again,
    not asked again.

    Args:
        run: a run folder, or a run's name as `load` takes it.
        overrides: changes of the budget, the limits, the launch or the execution.
        only: retry only the failures with these codes, such as ``["rate_limit", "timeout"]``; None: all of them.
        runs_dir: where runs are.
        notify: called with each line for people.
        watch: a context manager around the run, given the Experiment: for progress displays.

    Returns:
        The record, as `run` does.

    Raises:
        ConfigError: there is no such code.
        RecordError: as `resume` does.
        ConfigError, DataError, LaunchError, FinetuneError, OrchestratorError: as `run` does.
    """
    if isinstance(only, str):
        raise ConfigError('codes are a list: retry(run, only=["timeout"])')
    if unknown := [code for code in only or () if code not in FAILURES]:
        hint = suggest(unknown[0], FAILURES) or ";"
        raise ConfigError(f"no row fails with '{unknown[0]}'{hint} the codes are {', '.join(FAILURES)}")
    experiment = Experiment.reopen(_folder(run, runs_dir), overrides, again=FAILURES if only is None else only)
    return run_to_end(experiment, notify=notify, watch=watch)


def _folder(run: str | Path, runs_dir: str | Path) -> Path:
    """Return the folder of a run: a Path is one, text may be a name. A mistyped path must not resume another run."""
    return run if isinstance(run, Path) else find_run(run, Path(runs_dir)).path


def run_to_end(experiment: Experiment, *, notify: Notify | None = None, watch: Watch | None = None) -> RunResult:
    """Take what the cache has, ask what is owed under the orchestrator that the config names, and finish the record.

    Nothing is started if nothing is owed. Ctrl-C and SIGTERM are handled throughout (see `sitting`).
    """
    say = notify or silent
    with sitting(experiment, say) as in_loop:
        experiment.plan()
        with watch(experiment) if watch else contextlib.nullcontext():
            if experiment.owed and not experiment.stop.requested:
                from runner.experiment.estimate import announcement

                if notify and (news := announcement(experiment)):
                    notify(news)
                in_loop(_orchestrated(experiment, say))
    assert experiment.summary is not None
    return RunResult(experiment.folder, experiment.summary)


async def run_within(experiment: Experiment, orchestrate: Orchestrate, *, notify: Notify | None = None) -> RunResult:
    """Do the same as `run_to_end` for a caller with its own event loop, signals and orchestrator, such as a flow.

    Args:
        experiment: the run; if its config says ``execution.orchestrator=none``, `orchestrate` is not called.
        orchestrate: calls launch, ask, kill and summarise.
        notify: called with each line for people.

    Raises:
        asyncio.CancelledError: the caller was cancelled; finished rows are recorded, and the run is marked as interrupted.
        OstinatoError: as `run` does.
    """
    with recorded(experiment):
        await asyncio.to_thread(experiment.plan)
        if experiment.owed:
            try:
                await _orchestrated(experiment, notify or silent, orchestrate)
            except asyncio.CancelledError:
                experiment.stop.request()
                raise
    assert experiment.summary is not None
    return RunResult(experiment.folder, experiment.summary)


async def launch_and_ask(experiment: Experiment, notify: Notify) -> None:
    """Launch the model if it is a local one, ask what is owed, and stop the model. Raises as `Experiment.ask`."""
    with _access(experiment):
        try:
            if experiment.needs_launch:
                notify(f"launching {experiment.lm.model}, or sharing one that is kept")
                await experiment.launch()
            await experiment.ask()
        finally:
            await experiment.kill()
            await experiment.aclose()


async def _orchestrated(experiment: Experiment, notify: Notify, given: Orchestrate | None = None) -> None:
    orchestrate = orchestrator(experiment.config.execution.orchestrator, ORCHESTRATORS)
    if orchestrate is not None and given is not None:
        orchestrate = given
    if orchestrate is None:
        await launch_and_ask(experiment, notify)
        return
    with _access(experiment):
        try:
            await orchestrate(experiment, notify=notify)
        finally:
            await experiment.aclose()


@contextlib.contextmanager
def _access(experiment: Experiment) -> Iterator[None]:
    """Read the models' keys, and share the limiters of their endpoints with all runs of this process."""
    lm = experiment.lm
    lm.kwargs.update(build.access(experiment.config))
    lm.limiter = build.limiter(experiment.config, lm)
    experiment.named.lend(lm.budget, build.limiter)
    with lm.limiter.using(), experiment.named.using():
        yield
