"""Run `ostinato ft attach` and `ft logs`: follow a job that any process has started. Leaving does not stop it."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from runner.cli.options import add_json, count
from runner.cli.progress import Progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    from runner.finetune.jobs.ledger import JobFolder, State
    from runner.finetune.jobs.training import Training

_EVERY_S = 2.0
"""Seconds between two lines of progress on a pipe; on a terminal one line is rewritten."""

_MEASURES = ("loss", "valid_loss")
"""Losses that progress shows."""


def configure(parser: argparse.ArgumentParser, action: str) -> None:
    """Declare the action's arguments."""
    parser.add_argument("job", nargs="?", default="latest", metavar="JOB", help="its id, or a prefix of it (default: latest)")
    parser.set_defaults(action=action)
    if action == "logs":
        parser.add_argument("-f", "--follow", action="store_true", help="follow the log until the job has ended")
        parser.add_argument("-n", "--lines", type=count, metavar="N", help="only the last N lines")
    else:
        add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Follow a job. Return 0; for `attach`, 1 if the job failed and 130 after Ctrl-C.

    Raises:
        FinetuneError: there is no such job, or it cannot be followed.
    """
    from runner.experiment.training import attach
    from runner.finetune.jobs.ledger import find

    job = find(args.job)
    if args.action == "logs":
        return _logs(job, lines=args.lines, on=args.follow)
    return follow(attach(job), as_json=args.json)


def follow(
    training: Training,
    *,
    as_json: bool,
    begin: bool = False,
    force: bool = False,
    wait: bool = True,
    more: Mapping[str, Any] | None = None,
) -> int:
    """Show the progress of a job until it ends, and its result. Ctrl-C leaves the job running and says how to return to it.

    Args:
        training: the job.
        as_json: print one JSON object.
        begin: begin the job first.
        force: with `begin`: make another attempt, whatever the result of the last one.
        wait: stay until the job has ended.
        more: further keys of the JSON object.

    Returns:
        0 when there is a trained model, or the job continues as requested; 1 when it failed or was cancelled; 130 after Ctrl-C.
    """
    job = training.folder
    with Progress(_EVERY_S) as show, _interruptible():
        interrupted = False
        try:
            if begin:
                training.begin(force=force)
            if wait:
                training.follow(watch=_watch(job, show))
        except KeyboardInterrupt:
            interrupted = True
    state = job.state()
    if as_json:
        print(json.dumps({**(more or {}), **outcome(job, state)}))
    elif state.model:
        print(state.model)
    if not state.status.final:
        name = job.spec.job
        ways = f"  ostinato ft attach {name}   follows it\n  ostinato ft cancel {name}   stops it"
        print(f"{name} is {state.status}, and continues in the background\n{ways}", file=sys.stderr)
        return 130 if interrupted else 0
    if state.error or not state.model:
        said = f"has {state.status}: {state.error}" if state.error else f"is {state.status}"
        print(f"{job.spec.job} {said}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt within the block; elsewhere it ends the process at once."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _watch(job: JobFolder, show: Progress) -> Callable[[State], None]:
    """Return what shows a job's state, its step and its latest losses."""
    from runner.finetune.jobs.estimate import work_of

    steps = work_of(job.spec, 0)[0]

    def watch(state: State) -> None:
        text = f"{job.spec.job}: {state.status}"
        if measured := job.metrics():
            last = measured[-1]
            text += f", step {last['step']:,}" + (f"/{steps:,}" if steps else "")
            text += "".join(f", {name} {last[name]:.4g}" for name in _MEASURES if isinstance(last.get(name), int | float))
        show(text, last=state.status.final)

    return watch


def outcome(job: JobFolder, state: State) -> dict[str, Any]:
    """Return the state of a job as JSON data."""
    measured = job.metrics()
    return {
        "job": job.spec.job,
        "status": str(state.status),
        "model": state.model,
        "error": state.error,
        "attempt": state.attempt,
        "steps": measured[-1]["step"] if measured else None,
        "loss": next((line["loss"] for line in reversed(measured) if "loss" in line), None),
        "folder": str(job.path),
    }


def _logs(job: JobFolder, *, lines: int | None, on: bool) -> int:
    if not on:
        if whole := job.log(lines):
            print(whole)
        return 0
    from runner.experiment.training import attach

    said, at = job.log_from(0)
    for line in said if lines is None else said[max(0, len(said) - lines) :]:
        print(line, flush=True)

    def show_new(_state: State) -> None:
        nonlocal at
        new, at = job.log_from(at)
        for line in new:
            print(line, flush=True)

    attach(job).follow(watch=show_new)  # prints a last line that was not whole before, even if the job has ended
    return 0
