"""Signals at any time in a command's life: start, play, end. `python -m tests.harness.anytime --help`."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from runner.experiment.run import resume
from runner.records import RunFolder
from tests.support.clock import wait_until
from tests.support.command import Done, Running

NUMBERS = (signal.SIGINT, signal.SIGTERM)
ROWS = 24
CODES = {signal.SIGINT: {0, 130}, signal.SIGTERM: {0, 130, -signal.SIGTERM}}
"""What a command may end with. Once it has said its last word, SIGTERM has its default action, and SIGINT none."""

_NOISE = ("Traceback", "Exception ignored", "never awaited", "warning:", "Error")


@dataclass(frozen=True)
class Moment:
    """When a signal is sent: a point in what the command does, so that a slow machine meets the same ones.

    Attributes:
        reads: system calls that read, counted from when the command handles signals.
        lines: None, or wait instead until the record has this many lines (0: until there is a record).
    """

    reads: int = 0
    lines: int | None = None


class Life:
    """One short run of the fake model, repeated, and sent a signal at a different moment each time.

    Args:
        folder: where everything goes; made here.
        orchestrator: ``none`` or ``prefect``.

    Attributes:
        reads: system calls that read between the command's first signal handler and its record.
    """

    def __init__(self, folder: Path, *, orchestrator: str = "none") -> None:
        folder.mkdir()
        self._data = folder / "rows.jsonl"
        self._data.write_text("".join(json.dumps({"id": f"r{n}", "question": f"What is {n}?"}) + "\n" for n in range(ROWS)))
        self._runs = folder / "runs"
        self._home = folder / "home"
        self._orchestrator = orchestrator
        self._played = 0
        with self._command() as running:
            _await_handlers(running)
            before = _reads(running)
            self._await_lines(running, 0)
            self.reads = _reads(running) - before
            done = running.wait()
        assert done.code == 0, done.err

    def play(self, number: signal.Signals, moment: Moment, *, twice: bool = False) -> Done:
        """Run the command, and send it the signal at this moment, or once it has ended."""
        with self._command() as running:
            _await_handlers(running)
            if moment.lines is None:
                due = _reads(running) + moment.reads
                wait_until(lambda: _ended(running) or _reads(running) >= due, f"{moment}")
            else:
                self._await_lines(running, moment.lines)
            running.signal(number)
            if twice:
                running.signal(number)
            return running.wait()

    def check(self, number: signal.Signals, done: Done) -> None:
        """It ended as it should, and said nothing that people need not see."""
        assert done.code in CODES[number], (done.code, done.err)
        assert not any(noise in done.err for noise in _NOISE), done.err
        assert done.code == 130 or "interrupted" not in done.out + done.err, done
        if done.code == 0 and done.out:
            assert json.loads(done.out)["status"] == "complete"
        elif "still owed" in done.err:
            assert json.loads(done.out)["status"] == "interrupted"

    def finish(self) -> Counter[str]:
        """Go on with every run that has not ended. Each keeps what it had. Returns how the runs were left, counted."""
        left: Counter[str] = Counter()
        for manifest in sorted(self._manifests()):
            record = RunFolder.open(manifest.parent)
            left[str(record.manifest()["status"])] += 1
            before = {sample.id: sample for sample in record.samples()}
            summary = resume(manifest.parent, ["execution.orchestrator=none"]).summary
            after = {sample.id: sample for sample in record.samples()}
            assert (summary.status, summary.ok, len(after)) == ("complete", ROWS, ROWS), summary
            assert before.items() <= after.items()
            asked = summary.requests - summary.unrecorded.requests  # without those in flight when it was stopped
            assert asked + summary.cache_hits == ROWS  # over all sittings: none was asked twice
        return left

    def _await_lines(self, running: Running, count: int) -> None:
        """Wait until the command has made its run folder, and has recorded this many lines in it."""

        def reached() -> bool:
            for manifest in self._manifests() - self._before:
                record = manifest.with_name("samples.jsonl")
                return count == 0 or (record.exists() and record.read_bytes().count(b"\n") >= count)
            return False

        wait_until(lambda: _ended(running) or reached(), f"{count} lines of the record")

    def _manifests(self) -> set[Path]:
        return set(self._runs.glob("rows/2*/manifest.json"))

    def _command(self) -> Running:
        self._played += 1  # another seed: nothing comes from the cache
        self._before = self._manifests()
        return Running(
            *(
                "run",
                "model=fake",
                "model.latency_s=0.02",
                "data=jsonl",
                f"data.path={self._data}",
                "data.id=id",
                "prompt=default",
            ),
            *("scoring=none", f"sampling.seed={self._played}", "limits.max_concurrency=4", f"runs_dir={self._runs}"),
            *(f"execution.orchestrator={self._orchestrator}", "--json", "--display", "plain"),
            OSTINATO_HOME=str(self._home),
        )


def _await_handlers(running: Running) -> None:
    """Wait until the command has set its signal handlers: until then, Python itself is starting."""
    status = Path(f"/proc/{running.process.pid}/status")

    def caught() -> bool:
        masks = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if line.startswith("Sig"))
        return bool(int(masks["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)

    wait_until(lambda: _ended(running) or caught(), "the command handles SIGTERM")


def _reads(running: Running) -> int:
    """Return how many system calls of the command have read something."""
    lines = Path(f"/proc/{running.process.pid}/io").read_text().splitlines()
    return next(int(line.removeprefix("syscr: ")) for line in lines if line.startswith("syscr: "))


def _ended(running: Running) -> bool:
    return running.process.poll() is not None


def main() -> int:
    """Send so many signals, spread over the life of the command, and print what was seen. Exit code 1 when anything was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.harness.anytime", description="Signals at any time of a command's life."
    )
    parser.add_argument("--signals", type=int, default=60, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="for what is chosen at random (default: %(default)s)")
    parser.add_argument("--orchestrator", choices=["none", "prefect"], default="none", help="(default: %(default)s)")
    args = parser.parse_args()
    chosen = random.Random(args.seed)
    ended: Counter[str] = Counter()
    problems = []
    with tempfile.TemporaryDirectory(prefix="ostinato-anytime-") as folder:
        life = Life(Path(folder) / "life", orchestrator=args.orchestrator)
        for index in range(args.signals):
            number, twice = NUMBERS[index % 2], index % 5 == 4
            reads, lines = chosen.randrange(life.reads * 11 // 10), chosen.randrange(ROWS + 2)
            moment = Moment(reads) if index * 2 < args.signals else Moment(lines=lines)
            try:
                done = life.play(number, moment, twice=twice)
                life.check(number, done)
                ended[f"{number.name}{' twice' if twice else ''}: {done.code}"] += 1
            except AssertionError as error:
                problems.append(f"{number.name} at {moment} of {life.reads} reads and {ROWS} lines: {error}")
        left = life.finish()
    sys.stdout.write(f"{args.signals} signals: {dict(ended)}; runs were left {dict(left)}, lost 0\n")
    sys.stdout.write("".join(f"BROKEN {problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith(("OSTINATO_", "PREFECT_"))]:
        del os.environ[name]
    sys.exit(main())
