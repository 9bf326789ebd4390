"""`ostinato ft attach` and `ft logs`: follow a job that anyone has begun. Leaving it does not stop it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.finetune.jobs.ledger import JobFolder, State
    from runner.finetune.jobs.training import Training

_EVERY_S = 2.0
"""Seconds between two lines of progress on a pipe; a terminal's one line is rewritten at each look."""


def configure(parser: argparse.ArgumentParser, action: str) -> None:
    """Declare the action's arguments."""
    parser.add_argument("job", nargs="?", default="latest", metavar="JOB", help="its id or the beginning of it (default: latest)")
    parser.set_defaults(action=action)
    if action == "logs":
        parser.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
        parser.add_argument("-n", "--lines", type=_count, metavar="N", help="only the last N lines")
    else:
        parser.add_argument("--json", action="store_true", help="print one JSON object")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines: 0 or more")
    return int(text)


def main(args: argparse.Namespace) -> int:
    """Follow. Returns 0, or, of `attach`, how the job ended: 1 when it failed, 130 when it was left by Ctrl-C.

    Raises:
        FinetuneError: no such job, or it cannot be followed.
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
    """Show the progress of a job until it ends, and how it ended. Ctrl-C leaves it as it is, and says how to come back.

    Args:
        training: the job.
        as_json: print one JSON object.
        begin: have it begun first; with `force` in another attempt.
        force: see `begin`.
        wait: stay until it has ended.
        more: what the JSON object says beside.

    Returns:
        0 when there is a trained model, or it goes on as asked; 1 when it failed or was cancelled; 130 after Ctrl-C.
    """
    job, progress = training.folder, Progress(training.folder)
    interrupted = False
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # elsewhere it ends the process on the spot
    try:
        if begin:
            training.begin(force=force)
        if wait:
            training.follow(watch=progress)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        signal.signal(signal.SIGINT, before)
    state = job.state()
    progress.end()
    if as_json:
        print(json.dumps({**(more or {}), **outcome(job, state)}))
    elif state.model:
        print(state.model)
    if not state.status.final:
        name = job.spec.job
        ways = f"  ostinato ft attach {name}   follows it\n  ostinato ft cancel {name}   stops it"
        print(f"{name} is {state.status}, and goes on without us\n{ways}", file=sys.stderr)
        return 130 if interrupted else 0
    if state.error or not state.model:
        print(
            f"{job.spec.job} has {state.status}: {state.error}" if state.error else f"{job.spec.job} is {state.status}",
            file=sys.stderr,
        )
        return 1
    return 0


def outcome(job: JobFolder, state: State) -> dict[str, Any]:
    """How a job stands, as JSON data."""
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


class Progress:
    """Shows on stderr where a job stands: one line that is rewritten on a terminal, else a line now and then."""

    def __init__(self, job: JobFolder) -> None:
        from runner.finetune.jobs.estimate import work_of

        self._job = job
        self._steps = work_of(job.spec, 0)[0]
        self._live = sys.stderr.isatty()
        self._shown = ""
        self._next = 0.0

    def __call__(self, state: State) -> None:
        """Show `state`, and the latest loss."""
        text = f"{self._job.spec.job}: {state.status}"
        if measured := self._job.metrics():
            last = measured[-1]
            text += f", step {last['step']:,}" + (f"/{self._steps:,}" if self._steps else "")
            text += "".join(f", {name} {last[name]:.4g}" for name in _MEASURES if isinstance(last.get(name), int | float))
        if text == self._shown or (not self._live and time.monotonic() < self._next and not state.status.final):
            return
        self._shown, self._next = text, time.monotonic() + _EVERY_S
        sys.stderr.write(f"\r{text}\x1b[K" if self._live else f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line as it is."""
        if self._live and self._shown:
            sys.stderr.write("\n")


_MEASURES = ("loss", "valid_loss")


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

    attach(job).follow(watch=show_new)  # of a job that has ended, too, what was not whole before is printed
    return 0
