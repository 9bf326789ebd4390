"""Runs that are killed and go on, and what must hold whenever one has been killed. `python -m tests.harness.kill --help`."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from runner.batch.engine import AHEAD
from runner.records import RunFolder
from runner.types import Sample
from tests.harness.server import Asked, CountingServer, answer, question
from tests.support.clock import wait_until
from tests.support.command import Done, Running

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS = ("resume", "again", "retry", "repeats")
KINDS = {"-9": signal.SIGKILL, "-15": signal.SIGTERM, "ctrl-c": signal.SIGINT, "ctrl-c twice": signal.SIGINT}

_STOPPING = "stopping: what is in flight is finished and kept"
_MARK = "OSTINATO_KILL_HARNESS"
_REPEATS = 3
_TOKENS = 10
_KILLS_A_SERIES = 9

_decode = msgspec.json.Decoder(Sample).decode


@dataclass
class Seen:
    """What was seen.

    Attributes:
        kills: by kind.
        sittings: starts of the command.
        rows: samples that the runs consist of.
        requests: what the server was asked; `twice`: how many of them it had been asked before (in flight when a run was killed).
        lost: samples that were finished, and gone after a kill.
    """

    kills: Counter[str] = field(default_factory=Counter)
    sittings: int = 0
    rows: int = 0
    requests: int = 0
    twice: int = 0
    lost: int = 0

    def add(self, other: Seen) -> None:
        self.kills += other.kills
        for name in ("sittings", "rows", "requests", "twice", "lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class Shot:
    """One kill: when `count` more requests, or lines of the record, have been seen; or as soon as there is a folder."""

    kind: str
    at: Literal["request", "line", "folder"]
    count: int


class Series:
    """One experiment, killed again and again until it is complete.

    Args:
        way: how it goes on; one of `WAYS`.
        seed: chooses its size, the latencies, and when and how it is killed.
        kills: how often it is killed at the most; the sitting after that is left alone.
        folder: where everything goes; made here.
        orchestrator: ``none`` or ``prefect``.
    """

    def __init__(self, way: str, *, seed: int, kills: int, folder: Path, orchestrator: str = "none") -> None:
        self.way = way
        self.seen = Seen()
        self._random = random.Random(f"{way} {seed}")
        self._kills = kills
        self._orchestrator = orchestrator
        self._folder = folder
        self._mark = uuid.uuid4().hex
        self._server = CountingServer(seed=seed)
        self._concurrency = self._random.randint(8, 32)
        self._repeats = _REPEATS if way == "repeats" else 1
        self._questions = [question(number) for number in range(self._random.randint(100, 300) // self._repeats)]
        self._samples = {(asked, repeat) for asked in self._questions for repeat in range(self._repeats)}
        self.seen.rows = len(self._samples)

    def play(self) -> Seen:
        """Play it to its end. Raises AssertionError when something was lost, or asked again that was finished."""
        in_flight = 0
        asked: Counter[Asked] = Counter()
        with self._server:
            if self.way == "retry":
                self._fail()
            owed = self._samples - self._finished().keys()
            ended = False
            while not ended:
                before = self._finished()
                shot = self._aim(len(self._samples) - len(before)) if self.seen.kills.total() < self._kills else None
                done = self._sitting(shot)
                ended = shot is None or done.code == 0
                asked += self._server.asked
                self.seen.requests, self.seen.twice = asked.total(), asked.total() - len(asked)
                in_flight += self._check(before, shot, done)
        self._check_end(asked)
        assert asked.keys() == owed, f"asked and not owed, or owed and never asked: {asked.keys() ^ owed}"
        assert self.seen.twice <= in_flight, (
            f"{self.seen.twice} requests were paid twice; at the kills {in_flight} were in flight"
        )
        return self.seen

    # --- playing

    def _fail(self) -> None:
        """Have two thirds of the rows refused in a first run that ends."""
        self._server.broken = set(self._random.sample(self._questions, len(self._questions) * 2 // 3))
        done = self._sitting(None)
        assert done.code == 3, done.err
        assert done.json["errors_by_code"] == {"context_window": len(self._server.broken)}
        self._server.broken = set()

    def _aim(self, owed: int) -> Shot:
        """Where and how the next kill hits: mostly early, so that there are many, sometimes anywhere up to the end."""
        kind = self._random.choice(list(KINDS))
        count = self._random.randint(1, max(1, owed if self._random.random() < 0.15 else owed // 3))
        begins = self.way == "again" or not self._runs()
        at = self._random.choices(["request", "line", "folder"], [14, 5, begins])[0]
        return Shot(kind, at, count)

    def _sitting(self, shot: Shot | None) -> Done:
        """Play until the end, or until the kill."""
        self.seen.sittings += 1
        lines, folders = self._lines(), len(self._runs())
        command = self._command()
        environment = {_MARK: self._mark, "OSTINATO_HOME": str(self._folder / "home")}
        with Running(*command, "--json", "--display", "plain", **environment) as running:
            if shot is None:
                self._server.begin()
            elif shot.at == "request":
                self._server.begin(shot.count, lambda: running.signal(KINDS[shot.kind]))
                wait_until(lambda: self._server.reached or _ended(running), f"{shot}")
            else:
                self._server.begin()
                reached = (
                    (lambda: self._lines() - lines >= shot.count) if shot.at == "line" else lambda: len(self._runs()) > folders
                )
                wait_until(lambda: reached() or _ended(running), f"{shot}")
                running.signal(KINDS[shot.kind])
            if shot is not None and shot.kind == "ctrl-c twice":
                wait_until(lambda: _STOPPING in running.err or _ended(running), "the command says that it stops")
                running.signal(signal.SIGINT)
            done = running.wait()
        if shot is not None:
            self.seen.kills[shot.kind] += 1
        wait_until(lambda: not self._server.connections, "the server has read what was sent to it")
        return done

    def _command(self) -> list[str]:
        runs = self._runs()
        if runs and self.way != "again":
            return ["retry" if self.way == "retry" else "resume", str(runs[-1])]
        data = self._folder / "rows.jsonl"
        if not data.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            rows = [{"id": asked, "question": asked, "answer": answer(asked)} for asked in self._questions]
            data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [
            *("run", "model=server", "model.name=test", f"model.api_base={self._server.url}", "prompt=default", "scoring=exact"),
            *("data=jsonl", f"data.path={data}", "data.id=id", "data.target=answer", f"runs_dir={self._folder / 'runs'}"),
            *("sampling.seed=0", f"sampling.repeats={self._repeats}", f"limits.max_concurrency={self._concurrency}"),
            *("cache.mode=" + ("rw" if self.way == "again" else "off"), f"execution.orchestrator={self._orchestrator}"),
        ]

    # --- checking

    def _check(self, before: dict[Asked, Sample], shot: Shot | None, done: Done) -> int:
        """Compare what the server saw with what the records hold. Returns how many requests the kill has cost."""
        after, asked = self._finished(), self._server.asked
        lost = before.keys() - after.keys()
        self.seen.lost += len(lost)
        story = f"{self.way}, {shot}, exit code {done.code}\n{done.err}"
        assert not lost, f"finished, and lost: {lost}; {story}"
        assert not (again := before.keys() & asked.keys()), f"finished, and asked again: {again}; {story}"
        assert not (often := [what for what, count in asked.items() if count > 1]), (
            f"asked twice in one sitting: {often}; {story}"
        )
        in_flight = asked.keys() - after.keys()
        most = self._concurrency + self._concurrency // AHEAD  # answers that were being stored made place for others
        assert len(in_flight) <= most, f"{len(in_flight)} requests under way, {most} allowed; {story}"
        if self.way == "retry":
            kept = {(sample.id, sample.repeat) for sample in RunFolder.open(self._runs()[-1]).samples()}
            assert kept == self._samples, f"a retry that was killed has lost {self._samples - kept}; {story}"
        self._check_end_of_process(shot, done, unfinished=len(self._samples) - len(after), story=story)
        if done.code == 130 and _STOPPING in done.err and shot is not None and shot.kind in ("ctrl-c", "-15"):
            assert not in_flight, f"asked, stopped in good order, and not kept: {in_flight}; {story}"
        return len(in_flight)

    def _check_end_of_process(self, shot: Shot | None, done: Done, *, unfinished: int, story: str) -> None:
        number = KINDS[shot.kind] if shot else None
        codes = {0} if unfinished == 0 else {3} if shot is None and self._server.broken else set()
        if number is not None:
            codes |= {130, 0} if number == signal.SIGINT else {130, 0, -number} if number == signal.SIGTERM else {0, -number}
        assert done.code in codes, story
        assert done.code != 0 or unfinished == 0, story
        if shot is not None and shot.at == "request" and shot.kind != "-9" and unfinished:
            assert done.code == 130, story
            verb = "retry" if self.way == "retry" else "resume"
            assert f"with: ostinato {verb} {self._runs()[-1]}" in done.err, story
        if done.out:
            self._check_summary(done, story)
        for folder in self._runs():
            record = RunFolder.open(folder)
            record.lock()  # raises when it is held
            record.close()
        if self._orchestrator == "none":
            assert not _survivors(self._mark), f"processes are left over; {story}"
        else:  # a private server notices by itself that its run has gone
            wait_until(lambda: not _survivors(self._mark), f"no process is left over; {story}")

    def _check_summary(self, done: Done, story: str) -> None:
        """The counts that were printed are those of the record."""
        record = RunFolder.open(Path(done.json["run"]))
        lines = [sample for sample, _ in record.history()]
        statuses = Counter(sample.status for sample in record.samples())
        paid = [sample for sample in lines if sample.cache != "hit"]
        shown = done.json
        assert shown == record.summary().to_dict(), story
        assert (shown["rows"], shown["owed"]) == (len(self._samples), len(self._samples) - statuses.total()), story
        assert (shown["ok"], shown["errors"]) == (statuses["ok"], statuses["error"]), story
        without_line = shown["unrecorded"]  # in flight when a sitting was killed, and answered in vain
        assert shown["requests"] == sum(sample.attempts for sample in paid) + without_line.get("requests", 0), story
        in_vain = without_line.get("usage", {}).get("total_tokens", 0)
        assert shown["usage"]["total_tokens"] == _TOKENS * sum(sample.status == "ok" for sample in paid) + in_vain, story

    def _check_end(self, sent: Counter[Asked]) -> None:
        """Every sample is there, once, and right; and no request that was sent is forgotten."""
        record = RunFolder.open(self._runs()[-1])
        found = {(sample.id, sample.repeat): sample for sample in record.samples()}
        assert found.keys() == self._samples
        for (asked, _), sample in found.items():
            assert (sample.status, sample.output, sample.scores) == ("ok", answer(asked), {"exact": 1.0}), sample
        summary = record.summary()
        assert summary.status == record.manifest()["status"] == "complete"
        if self.way in ("resume", "repeats"):  # one run over all sittings, and no cache
            most = sent.total() + self.seen.kills.total() * (self._concurrency + self._concurrency // AHEAD)
            assert sent.total() <= summary.requests <= most

    # --- what there is

    def _runs(self) -> list[Path]:
        """The run folders that can be opened, oldest first."""
        found = (self._folder / "runs").glob("rows/2*/manifest.json")
        return sorted((file.parent for file in found), key=lambda run: (run / "overrides.yaml").stat().st_mtime_ns)

    def _lines(self) -> int:
        return sum(file.read_bytes().count(b"\n") for file in (self._folder / "runs").glob("rows/2*/samples.jsonl"))

    def _finished(self) -> dict[Asked, Sample]:
        """Every sample that was answered, in any of the records."""
        found: dict[Asked, Sample] = {}
        for folder in self._runs():
            seen: set[Asked] = set()
            for sample in _whole_lines(folder / "samples.jsonl"):
                if sample.status != "ok":
                    continue
                slot = sample.id, sample.repeat
                assert slot not in seen, f"{slot} was recorded twice in {folder}"
                seen.add(slot)
                found[slot] = sample
        return found


def _whole_lines(file: Path) -> Iterator[Sample]:
    """The samples of a record. Every line but a torn last one is whole."""
    *lines, torn = (file.read_bytes() if file.exists() else b"").split(b"\n")
    yield from map(_decode, lines)
    assert b"\n" not in torn


def _ended(running: Running) -> bool:
    return running.process.poll() is not None


def _survivors(mark: str) -> list[int]:
    """Processes that were started by a series and still run (where there is a /proc to look into)."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{_MARK}={mark}".encode() in file.read_bytes():
                found.append(int(file.parent.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def main() -> int:
    """Play series until so many kills are made, and print what was seen. Exit code 1 when anything was lost or asked again."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.kill", description="Kill runs, and see that nothing is lost.")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="how many kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of the first series (default: %(default)s)")
    parser.add_argument("--way", choices=WAYS, action="append", help="how killed runs go on (default: each in turn)")
    parser.add_argument("--orchestrator", choices=["none", "prefect"], default="none", help="(default: %(default)s)")
    args = parser.parse_args()
    ways = args.way or list(WAYS)
    seen: dict[str, Seen] = {way: Seen() for way in ways}
    problems: list[str] = []
    number = 0
    while (left := args.kills - sum(total.kills.total() for total in seen.values())) > 0:
        way, seed = ways[number % len(ways)], args.seed + number // len(ways)
        number += 1
        with tempfile.TemporaryDirectory(prefix="ostinato-kill-") as folder:
            kills = min(left, _KILLS_A_SERIES)
            series = Series(way, seed=seed, kills=kills, folder=Path(folder) / "series", orchestrator=args.orchestrator)
            try:
                series.play()
            except AssertionError as error:
                problems.append(f"--way {way} --seed {seed}: {error}")
            seen[way].add(series.seen)
        sys.stderr.write(f"{way} (seed {seed}): {series.seen.kills.total()} kills\n")
    sys.stdout.write("\n".join([*_table(seen), *(f"\nBROKEN {problem}" for problem in problems), ""]))
    return 1 if problems else 0


def _table(seen: dict[str, Seen]) -> list[str]:
    total = Seen()
    for some in seen.values():
        total.add(some)
    lines = [["way", *KINDS, "sittings", "rows", "requests", "paid twice", "lost"]]
    for way, some in [*seen.items(), ("all", total)]:
        counts = [*(some.kills[kind] for kind in KINDS), some.sittings, some.rows, some.requests, some.twice, some.lost]
        lines.append([way, *map(str, counts)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines]


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith(("OSTINATO_", "PREFECT_"))]:
        del os.environ[name]
    sys.exit(main())
