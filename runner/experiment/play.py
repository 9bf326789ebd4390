"""Playing an experiment to its end: in an event loop, under signals, by the orchestrator that the config names."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import gc
import pkgutil
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.errors import BudgetExceeded, ConfigError, LMError, OrchestratorError, OstinatoError
from runner.experiment.estimate import announcement
from runner.experiment.interrupt import Interrupt
from runner.experiment.stages import Experiment, live
from runner.records import RunFolder, Summary

if TYPE_CHECKING:
    from runner.config.schema import RunConfig
    from runner.records.manifest import RunStatus
    from runner.types import Sample

ORCHESTRATORS: dict[str, str | None] = {"none": None, "prefect": "flows.orchestrate:play"}
"""Who plays what is owed, by ``execution.orchestrator``: a coroutine function that calls launch, play, kill and summarise."""

EXIT_CODES: dict[RunStatus, int] = {"complete": 0, "incomplete": 3, "failed": 1, "interrupted": 130, "running": 3}

FAILURES: tuple[str, ...] = (*(cls.code for cls in LMError.__subclasses__()), "data", "scoring")
"""What rows fail with: the codes of `runner.errors`, a prompt that cannot be filled in, an answer that cannot be scored."""

GARBAGE = 10_000
"""Objects more than before, after which Python looks for cyclic garbage while a run is played; its own default is 700."""

Notify = Callable[[str], None]
Watch = Callable[["Experiment"], AbstractContextManager[Any]]


class RunResult(msgspec.Struct, frozen=True):
    """What `run` returns: the folder of the record, and its summary. `samples` reads the record anew each time."""

    folder: Path
    summary: Summary

    @property
    def samples(self) -> list[Sample]:
        """Every sample, in the order in which they were finished."""
        return list(RunFolder.open(self.folder).samples())

    @property
    def exit_code(self) -> int:
        """What the command ends with: 0 complete, 3 rows failed or owed, 1 nothing was answered, 130 interrupted."""
        return EXIT_CODES[self.summary.status]


def run(
    config: RunConfig | None = None,
    *,
    overrides: Sequence[str] = (),
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Play one experiment and record it. Works with a running event loop too (a notebook).

    Args:
        config: the experiment; None composes it from the config groups and `overrides`.
        overrides: Hydra overrides, such as ``["model=fake", "sampling.temperature=0.5"]``.
        notify: told what happens, a line at a time.
        watch: a context manager around the playing, given the Experiment: for progress displays.

    Returns:
        The record. Rows that failed are in it; ``result.summary.status`` and ``result.summary.problem`` say how it went.

    Raises:
        ConfigError, DataError, RecordError, LaunchError, OrchestratorError: the run could not begin or go on; what was finished
            is recorded.
    """
    if isinstance(config, str) or isinstance(overrides, str):
        raise ConfigError('overrides are a list: run(overrides=["model=fake"])')
    if config is not None and overrides:
        raise ConfigError("give a config or overrides, not both: overrides are applied while a config is composed")
    if config is None:
        from runner.config.compose import compose

        config = compose(list(overrides)).config()
    return play_to_end(Experiment.create(config, overrides), notify=notify, watch=watch)


def resume(folder: Path, overrides: Sequence[str] = (), *, notify: Notify | None = None, watch: Watch | None = None) -> RunResult:
    """Go on with a run that was interrupted: ask what it still owes. Raises as `run` does.

    Args:
        folder: the run folder.
        overrides: changes of the budget, the limits, the launch or the execution.
        notify: told what happens, a line at a time.
        watch: a context manager around the playing, given the Experiment.
    """
    return play_to_end(Experiment.reopen(folder, overrides), notify=notify, watch=watch)


def retry(
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    only: Sequence[str] | None = None,
    notify: Notify | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Play the rows of a run again that failed, and those it still owes, in the same record. Nothing that was answered is asked.

    A row's new line supersedes its old one, which stays in ``samples.jsonl``: what it cost still counts in the run's requests,
    tokens and cost. A row whose retry does not come to its end keeps its old line. An answer that could not be scored is
    scored again, not asked again.

    Args:
        folder: the run folder.
        overrides: changes of the budget, the limits, the launch or the execution.
        only: play only the failures with these codes again, such as ``["rate_limit", "timeout"]``; None: all of them.
        notify: told what happens, a line at a time.
        watch: a context manager around the playing, given the Experiment.

    Raises:
        ConfigError: there is no such code; and whatever `run` raises.
    """
    if isinstance(only, str):
        raise ConfigError('codes are a list: retry(folder, only=["timeout"])')
    if unknown := [code for code in only or () if code not in FAILURES]:
        near = difflib.get_close_matches(unknown[0], FAILURES, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"no row fails with '{unknown[0]}'; {hint}the codes are {', '.join(FAILURES)}")
    return play_to_end(Experiment.reopen(folder, overrides, again=FAILURES if only is None else only), notify=notify, watch=watch)


def play_to_end(experiment: Experiment, *, notify: Notify | None = None, watch: Watch | None = None) -> RunResult:
    """Take what the cache has, play what is owed under the orchestrator that the config names, and finish the record.

    Nothing is started when nothing is owed. Ctrl-C and SIGTERM are handled all the while (see `Interrupt`).
    """
    key = str(experiment.folder)
    live[key] = experiment
    failed: OstinatoError | None = None
    with _collecting_less(), Interrupt(experiment, notify or _silent) as interrupt:
        try:
            experiment.plan()
            with watch(experiment) if watch else contextlib.nullcontext():
                if experiment.owed and not experiment.stop.requested:
                    if notify and (news := announcement(experiment)):
                        notify(news)
                    _in_new_loop(interrupt.watch(_orchestrated(experiment, notify or _silent)))
        except (LMError, BudgetExceeded) as error:
            experiment.problem = error
        except OstinatoError as error:
            experiment.problem = failed = error
        finally:
            del live[key]
            summary = experiment.finish(failed)
    if failed is not None:
        raise failed
    return RunResult(experiment.folder, summary)


@contextlib.contextmanager
def _collecting_less() -> Iterator[None]:
    """Have Python look for cyclic garbage less often: it would do so for each two rows, which is a sixth of a run's CPU."""
    before = gc.get_threshold()
    gc.set_threshold(max(GARBAGE, before[0]) if before[0] else 0, *before[1:])  # 0: somebody has switched it off
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _orchestrated(experiment: Experiment, notify: Notify) -> None:
    lm = experiment.lm
    lm.kwargs.update(build.access(experiment.config))
    lm.limiter = build.limiter(experiment.config, lm)
    try:
        with lm.limiter.using():
            await _staged(experiment, notify)
    finally:
        await lm.aclose()


async def _staged(experiment: Experiment, notify: Notify) -> None:
    chosen = experiment.config.execution.orchestrator
    target = ORCHESTRATORS[chosen]
    if target is None:
        try:
            if experiment.needs_launch:
                notify(f"launching {experiment.lm.model}, or sharing one that is kept")
                await experiment.launch()
            await experiment.play()
        finally:
            await experiment.kill()
        return
    try:
        orchestrate = pkgutil.resolve_name(target)
    except ImportError as error:
        raise OrchestratorError(
            f"execution.orchestrator={chosen} cannot be loaded ({error}); use execution.orchestrator=none"
        ) from None
    await orchestrate(experiment, notify=notify)


def _in_new_loop(playing: Coroutine[Any, Any, None]) -> None:
    """Play to the end in an event loop of its own; in a thread of its own when this one has a loop already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(playing)
        return
    errors: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(playing)
        except BaseException as error:  # noqa: BLE001 - boundary: carried to the thread that waits
            errors.append(error)

    thread = threading.Thread(target=target, name="ostinato")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _silent(_line: str) -> None:
    pass
