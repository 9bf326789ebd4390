"""Signals at any time in a command's life: start, play, end. `python -m tests.harness.anytime --help`."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
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


class Life:
    """One short run of the fake model, played over and over, and sent a signal at another moment of its life each time.

    Args:
        folder: where everything goes; made here.
        orchestrator: ``none`` or ``prefect``.
    """

    def __init__(self, folder: Path, *, orchestrator: str = "none") -> None:
        folder.mkdir()
        self._data = folder / "rows.jsonl"
        self._data.write_text("".join(json.dumps({"id": f"r{n}", "question": f"What is {n}?"}) + "\n" for n in range(ROWS)))
        self._runs = folder / "runs"
        self._home = folder / "home"
        self._orchestrator = orchestrator
        self._played = 0
        whole = self.play(None, 0.0)
        assert whole.code == 0, whole.err

    def measure(self) -> tuple[float, float]:
        """Seconds of its two parts: from when the command hears signals until there is a run folder, and from then to its end."""
        with self._command() as running:
            _await_ears(running)
            began = time.monotonic()
            self._await_folder(running)
            made = time.monotonic()
            assert running.wait().code == 0
            return made - began, time.monotonic() - made

    def play(self, number: signal.Signals | None, after_s: float, *, made: bool = False, twice: bool = False) -> Done:
        """Play it once, and send it the signal so many seconds after it can hear it, or after it has `made` its folder."""
        with self._command() as running:
            if number is not None:
                _await_ears(running)
                if made:
                    self._await_folder(running)
                time.sleep(after_s)  # the moment is what is tried here
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
        for manifest in sorted(self._runs.glob("rows/2*/manifest.json")):
            record = RunFolder.open(manifest.parent)
            left[str(record.manifest()["status"])] += 1
            before = {sample.id: sample for sample in record.samples()}
            summary = resume(manifest.parent, ["execution.orchestrator=none"]).summary
            after = {sample.id: sample for sample in record.samples()}
            assert (summary.status, summary.ok, len(after)) == ("complete", ROWS, ROWS), summary
            assert before.items() <= after.items()
            assert summary.requests + summary.cache_hits == ROWS  # over all sittings: none was asked twice
        return left

    def _await_folder(self, running: Running) -> None:
        seed = f"sampling.seed={self._played}"
        wait_until(lambda: running.process.poll() is not None or seed in self._newest(), "there is a run folder")

    def _newest(self) -> str:
        """What the newest run was asked with."""
        found = sorted(self._runs.glob("rows/2*/overrides.yaml"), key=lambda file: file.stat().st_mtime_ns)
        return found[-1].read_text() if found else ""

    def _command(self) -> Running:
        self._played += 1  # another seed: nothing comes from the cache
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


def _await_ears(running: Running) -> None:
    """Wait until the command has said what signals do to it: before, Python itself is starting."""
    status = Path(f"/proc/{running.process.pid}/status")

    def caught() -> bool:
        masks = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if line.startswith("Sig"))
        return bool(int(masks["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)

    wait_until(lambda: running.process.poll() is not None or caught(), "the command handles SIGTERM")


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
        parts = life.measure()
        for index in range(args.signals):
            number, twice, made = NUMBERS[index % 2], index % 5 == 4, index * 2 >= args.signals
            after_s = parts[made] * chosen.uniform(0, 1.1)
            try:
                done = life.play(number, after_s, made=made, twice=twice)
                life.check(number, done)
                ended[f"{number.name}{' twice' if twice else ''}: {done.code}"] += 1
            except AssertionError as error:
                problems.append(
                    f"{number.name} after {after_s:.3f} s of {parts[made]:.3f} ({'folder' if made else 'start'}): {error}"
                )
        left = life.finish()
    sys.stdout.write(
        f"{args.signals} signals in {sum(parts):.2f} s of life: {dict(ended)}; runs were left {dict(left)}, lost 0\n"
    )
    sys.stdout.write("".join(f"BROKEN {problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith(("OSTINATO_", "PREFECT_"))]:
        del os.environ[name]
    sys.exit(main())
