"""Playing an experiment to its end: in an event loop, under signals, by the orchestrator that the config names."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import pkgutil
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.errors import BudgetExceeded, ConfigError, LMError, OrchestratorError, OstinatoError
from runner.experiment.estimate import announcement
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

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Notify = Callable[[str], None]
Watch = Callable[["Experiment"], AbstractContextManager[Any]]
Orchestrate = Callable[..., Awaitable[None]]
"""Called with an Experiment and `notify`."""


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
    """Play what is owed, under the orchestrator that the config names, and finish the record. Starts nothing when nothing is."""
    with _finishing(experiment), watch(experiment) if watch else contextlib.nullcontext():
        if experiment.owed:
            if notify and (news := announcement(experiment)):
                notify(news)
            _in_new_loop(_Interrupt(experiment, notify or _silent))
    return _result(experiment)


async def play_within(experiment: Experiment, orchestrate: Orchestrate, *, notify: Notify | None = None) -> RunResult:
    """`play_to_end` for a caller that has an event loop, signals and an orchestrator of its own, such as a flow.

    Args:
        experiment: what to play; where its config says ``execution.orchestrator=none``, `orchestrate` is not called.
        orchestrate: calls launch, play, kill and summarise.
        notify: told what happens, a line at a time.

    Raises:
        asyncio.CancelledError: the caller was cancelled; what was finished is recorded, and the run is marked as interrupted.
        OstinatoError: as `run` does.
    """
    with _finishing(experiment):
        if experiment.owed:
            try:
                await _orchestrated(experiment, notify or _silent, orchestrate)
            except asyncio.CancelledError:
                experiment.stop.request()
                raise
    return _result(experiment)


@contextlib.contextmanager
def _finishing(experiment: Experiment) -> Iterator[None]:
    """Have others in this process find the experiment, and finish its record however the block ends."""
    key = str(experiment.folder)
    live[key] = experiment
    failed: OstinatoError | None = None
    try:
        yield
    except (LMError, BudgetExceeded) as error:
        experiment.problem = error
    except OstinatoError as error:
        experiment.problem = failed = error
    finally:
        del live[key]
        experiment.summary = experiment.finish(failed)
    if failed is not None:
        raise failed


def _result(experiment: Experiment) -> RunResult:
    assert experiment.summary is not None
    return RunResult(experiment.folder, experiment.summary)


class _Interrupt:
    """Ctrl-C: the first stops asking and lets what is in flight end, the second cancels that too. Called in the run's loop."""

    def __init__(self, experiment: Experiment, notify: Notify) -> None:
        self._experiment = experiment
        self._notify = notify
        self._playing: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        if self._experiment.stop.requested and self._playing is not None:
            self._playing.cancel()
        else:
            self._experiment.interrupt()
            self._notify("stopping: what is in flight is finished and kept; press Ctrl-C again to stop now")

    def from_another_thread(self) -> None:
        if self._playing is not None:
            self._playing.get_loop().call_soon_threadsafe(self)

    async def guard(self) -> None:
        """Play under the signals of this thread, where they are ours to handle."""
        self._playing = asyncio.ensure_future(_orchestrated(self._experiment, self._notify))
        with _signals(self):
            try:
                await self._playing
            except asyncio.CancelledError:
                self._experiment.stop.request()


async def _orchestrated(experiment: Experiment, notify: Notify, orchestrate: Orchestrate | None = None) -> None:
    lm = experiment.lm
    lm.kwargs.update(build.access(experiment.config))
    lm.limiter = build.limiter(experiment.config, lm)
    try:
        with lm.limiter.using():
            await _staged(experiment, notify, orchestrate)
    finally:
        await lm.aclose()


async def _staged(experiment: Experiment, notify: Notify, orchestrate: Orchestrate | None) -> None:
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
        orchestrate = orchestrate or pkgutil.resolve_name(target)
    except ImportError as error:
        raise OrchestratorError(
            f"execution.orchestrator={chosen} cannot be loaded ({error}); use execution.orchestrator=none"
        ) from None
    await orchestrate(experiment, notify=notify)


@contextlib.contextmanager
def _signals(handler: Callable[[], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `handler`, where that is ours to decide: on the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold signals back until `_signals` can handle them: an interrupt in the middle of making a loop would leave half a one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_new_loop(interrupt: _Interrupt) -> None:
    """Play to the end in an event loop of its own; in a thread of its own when this one has a loop already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with _held_back():
            asyncio.run(interrupt.guard())
        return
    errors: list[BaseException] = []
    ended = threading.Event()  # not `join`: interrupted, it takes a running thread for one that has ended (Python 3.11)

    def target() -> None:
        try:
            asyncio.run(interrupt.guard())
        except BaseException as error:  # noqa: BLE001 - boundary: carried to the thread that waits
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=target, name="ostinato").start()
    while not ended.is_set():
        try:
            ended.wait()
        except KeyboardInterrupt:
            interrupt.from_another_thread()
    if errors:
        raise errors[0]


def _silent(_line: str) -> None:
    pass
