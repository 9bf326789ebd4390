"""Many processes on one cache: started together in a folder that is not there yet, some of them killed, and what must hold then.

    python -m tests.harness.crowd --processes 32 --questions 2000 --kills 8

Half of them call an `LM`, half play a run; their questions overlap. Every process that lives has every answer, the cache is whole
and holds each answer under its own key, and no process has asked the same thing twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cache import Cache, request_key
from runner.types import Choice, Request, Response
from tests.harness.chaos import ChaosServer, Dice, answer_to
from tests.support.clock import PATIENCE_S, wait_until
from tests.support.command import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence

IN_FLIGHT = 4


def asked_by(number: int, questions: int) -> list[str]:
    """What process `number` asks: three quarters of the questions, in an order of its own."""
    dice = random.Random(number)
    return [f"question {pick}" for pick in dice.sample(range(questions), questions * 3 // 4)]


class Worker:
    """A process of the crowd. It says that it is ready, waits for the start, and writes down each answer it has.

    Args:
        folder: what the crowd shares: the cache, the start, and a folder of its own for each process.
        number: which one.
        words: what it is to do: the arguments of `_work`.
    """

    def __init__(self, folder: Path, number: int, *words: str) -> None:
        self.number = number
        self.own = folder / str(number)
        self.own.mkdir()
        self._said = (self.own / "said").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "always", "-m", "tests.harness.crowd", "--worker", str(folder), str(number), *words],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OSTINATO_HOME": str(self.own)},
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
        )

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self._said.close()

    @property
    def ready(self) -> bool:
        """Whether it waits for the start."""
        assert self.process.poll() is None, f"process {self.number} has ended before the start: {self.said}"
        return (self.own / "ready").exists()

    @property
    def said(self) -> str:
        """Everything on its stdout and stderr."""
        return (self.own / "said").read_text("utf-8")

    def answers(self) -> dict[str, str]:
        """What it was answered so far."""
        return dict(map(json.loads, self._lines()))

    def count(self) -> int:
        """How many answers it has so far."""
        return len(self._lines())

    def _lines(self) -> list[bytes]:
        file = self.own / "answers"
        return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if file.exists() else []


def crowd(folder: Path, server: ChaosServer, *, processes: int, questions: int, kills: int, seed: int = 1) -> Counter[str]:
    """Run a crowd to its end and check what must hold. Returns what was counted.

    Args:
        folder: empty; the cache is made in it by whichever process comes first.
        server: answers everything.
        processes: how many.
        questions: how many different ones there are.
        kills: how many processes are killed (-9) once they have some answers.
        seed: chooses who is killed, and when.
    """
    dice = random.Random(seed)
    workers: list[Worker] = []
    try:
        for number in range(processes):
            kind = "run" if number % 2 else "lm"
            workers.append(Worker(folder, number, kind, server.url, str(questions)))
        wait_until(lambda: all(worker.ready for worker in workers), "every process is ready")
        (folder / "start").touch()
        doomed = [(worker, dice.randrange(1, questions // 2)) for worker in dice.sample(workers, kills)]
        for worker, after in doomed:
            wait_until(lambda worker=worker, after=after: worker.count() >= after, "a process has some answers")
            worker.process.kill()
        for worker in workers:
            worker.process.wait(PATIENCE_S)
        killed = {worker.number for worker, _ in doomed if worker.process.returncode == -signal.SIGKILL}
        for worker in workers:
            if worker.number not in killed:
                assert worker.process.returncode == 0, f"process {worker.number}: {worker.said}"
                assert worker.answers().keys() == set(asked_by(worker.number, questions)), worker.number
            assert not worker.said, f"process {worker.number}: {worker.said}"
            assert all(said == answer_to(question) for question, said in worker.answers().items()), worker.number
        asked = {question for number in range(processes) if number not in killed for question in asked_by(number, questions)}
        _check_cache(folder / "cache", asked)
        twice = {who: count for who, count in server.asked_by.items() if count > 1}
        assert not twice, twice
        return Counter(
            processes=processes,
            killed=len(killed),
            questions=len(server.requests),
            answers=sum(worker.count() for worker in workers),
            requests=sum(server.requests.values()),
            most_for_one=max(server.requests.values()),
        )
    finally:
        for worker in workers:
            worker.close()


def openings(folder: Path, *, processes: int, folders: int) -> None:
    """Have processes open brand-new caches at the same instants, and check that each has what all of them put there."""
    workers = [Worker(folder, number, "open", str(folders)) for number in range(processes)]
    try:
        wait_until(lambda: all(worker.ready for worker in workers), "every process is ready")
        (folder / "instant").write_text(str(time.monotonic() + 0.2))
        (folder / "start").touch()
        for worker in workers:
            assert worker.process.wait(PATIENCE_S) == 0, worker.said
            assert not worker.said, worker.said
    finally:
        for worker in workers:
            worker.close()
    for number in range(folders):
        cache = Cache(folder / f"new-{number}")
        assert cache.check() == []
        assert len(cache.get_many([_key(worker) for worker in range(processes)])) == processes
        cache.close()


def _check_cache(folder: Path, asked: set[str]) -> None:
    cache = Cache(folder)
    assert cache.check() == []
    found = Counter()
    for key, entry in cache.entries():
        assert entry.request is not None
        assert entry.request.messages is not None
        assert request_key(entry.request) == key
        question = entry.request.messages[-1]["content"]
        assert entry.response.choices[0].text == answer_to(question)
        found[question] += 1
    assert asked <= found.keys(), f"lost: {sorted(asked - found.keys())[:5]}"
    assert set(found.values()) == {1}, "an LM and a run that ask the same have different keys"
    cache.close()


# -- inside a process of the crowd


def _work(shared: str, number: str, kind: str, *words: str) -> None:
    folder, own = Path(shared), Path(shared) / number
    if kind == "open":
        _open(folder, own, int(number), int(words[0]))
        return
    url, questions = words
    asked = asked_by(int(number), int(questions))
    answers = os.open(own / "answers", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    play = _play_lm if kind == "lm" else _play_run
    play(folder, own, url, asked, lambda question, said: os.write(answers, json.dumps([question, said]).encode() + b"\n"))


def _play_lm(folder, own, url, asked, keep) -> None:
    from runner import LM

    lm = LM("openai/default", api_base=url, api_key="none", cache=Cache(folder / "cache"), headers={"x-process": own.name})
    _wait_for_start(folder, own)
    stream = iter(asked)

    async def some() -> None:
        for question in stream:
            (said,) = await lm.acall(question)
            keep(question, said)

    async def every() -> None:
        await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
        await lm.aclose()

    asyncio.run(every())


def _play_run(folder, own, url, asked, keep) -> None:
    from runner.config.compose import compose
    from runner.experiment.experiment import Experiment
    from runner.experiment.prepared import prepare
    from runner.experiment.run import run_to_end
    from runner.records import RunFolder

    file = own / "rows.jsonl"
    file.write_text("".join(json.dumps({"id": text, "question": text}) + "\n" for text in asked))
    words = ["model=server", f"model.api_base={url}", f"model.headers={{x-process: '{own.name}'}}", "prompt=default"]
    words += ["data=jsonl", f"data.path={file}", "data.id=id", "scoring=none", "execution.orchestrator=none"]
    words += [f"limits.max_concurrency={IN_FLIGHT}", f"cache.dir={folder / 'cache'}", f"runs_dir={own / 'runs'}"]
    config = compose(words).config()
    _wait_for_start(folder, own)
    append = RunFolder.append

    def noted(record, samples) -> None:
        samples = list(samples)
        append(record, samples)
        for sample in samples:
            keep(sample.id, sample.output)

    RunFolder.append = noted  # before the run is made: what the cache knows already is recorded then
    result = run_to_end(Experiment.create(prepare(config)))
    assert (result.summary.status, result.summary.ok) == ("complete", len(asked)), result.summary


def _open(folder: Path, own: Path, number: int, folders: int) -> None:
    response = Response(choices=[Choice("yes", "stop")])
    _wait_for_start(folder, own)
    instant = float((folder / "instant").read_text())
    for turn in range(folders):
        time.sleep(max(0.0, instant + 0.05 * turn - time.monotonic()))
        cache = Cache(folder / f"new-{turn}")
        cache.put(_key(number), response)
        assert cache.get(_key(number)) is not None
        cache.close()


def _key(number: int) -> str:
    return request_key(Request(model="any", prompt=str(number)))


def _wait_for_start(folder: Path, own: Path) -> None:
    (own / "ready").touch()
    while not (folder / "start").exists():
        time.sleep(0.001)


def main(words: Sequence[str] | None = None) -> None:
    """Play on demand, and print what was counted."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.crowd", description=__doc__)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--folders", type=int, default=40, help="brand-new folders that all open at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.worker:
        _work(*args.worker)
        return
    with tempfile.TemporaryDirectory(prefix="crowd-") as folder, ChaosServer(Dice(args.seed, 0), 0.02) as server:
        places = [Path(folder) / name for name in ("crowd", "openings")]
        for place in places:
            place.mkdir()
        options = {"processes": args.processes, "questions": args.questions, "kills": args.kills, "seed": args.seed}
        for name, count in crowd(places[0], server, **options).items():
            print(f"{name:<16}{count:>10,}")  # noqa: T201 - a table is what it is for
        openings(places[1], processes=args.processes, folders=args.folders)
        print(f"{args.processes} processes opened {args.folders} new folders together: all well")  # noqa: T201 - a table is what it is for


if __name__ == "__main__":
    main()
