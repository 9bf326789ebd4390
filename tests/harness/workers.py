"""Runs on workers that are killed at random, and what must hold. `python -m tests.harness.workers --help`.

``--kills``: workers of a real Dask cluster are killed (SIGKILL) while runs play. Every row is in the record once, and only what
was in flight is asked again. ``--heads``: the command itself is killed, and the run resumed. ``--budgets``: small runs with a
budget, on workers in threads, which are lost at a random message. The server is never asked more often than the budget allows.
``--rpm``: four workers ask a server with a rate limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

import runner
from tests.harness.server import CountingServer, question
from tests.support.clock import wait_until
from tests.support.command import Running
from tests.support.dask_cluster import Cluster
from tests.support.limited import TokenBucket
from tests.support.loopback import Loopback, Request, Script, response
from tests.workers.here import workers_here

CONCURRENCY = 16


def overrides(server: CountingServer, folder: Path, rows: int, *more: str) -> list[str]:
    """Return the overrides of a run, and write its rows."""
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"id": f"r{number}", "q": question(number)}) for number in range(rows)))
    model = ["model=server", "model.name=m", f"model.api_base={server.url}", f"limits.max_concurrency={CONCURRENCY}"]
    data = ["data=jsonl", f"data.path={file}", "data.id=id", "prompt.user='{{ q }}'", "scoring=none", f"runs_dir={folder}/runs"]
    return [*model, *data, "execution.orchestrator=none", "execution.workers.kind=dask", *more]


def check(record: Path, server: CountingServer, rows: int, kills: int) -> int:
    """Check a finished run. Return how many questions were asked again."""
    lines = [json.loads(line) for line in (record / "samples.jsonl").read_text().splitlines()]
    ids = [line["id"] for line in lines]
    assert sorted(ids) == sorted(f"r{number}" for number in range(rows)), "a row is missing, or there twice"
    assert all(line["status"] == "ok" for line in lines)
    again = server.asked.total() - len(server.asked)
    most = kills * (CONCURRENCY + CONCURRENCY // 8)
    assert again <= most, f"{again} asked again, and at most {most} can have been in flight"
    return again


def worker_kills(folder: Path, *, seed: int, rows: int, kills: int) -> int:
    """Kill `kills` workers during one run."""
    dice, killed = random.Random(seed), []
    with CountingServer(seed=seed, latency_s=(0.05, 0.4)) as server, Cluster(folder) as cluster:
        server.begin()
        ended = threading.Event()

        def kill() -> None:
            for _ in range(kills):
                begun = server.asked.total()
                wait_until(lambda begun=begun: ended.is_set() or server.asked.total() > begun + rows // (2 * kills), "requests")
                if ended.wait(dice.uniform(0.0, 0.5)):
                    return
                victim = cluster.workers.pop(dice.randrange(len(cluster.workers)))
                victim.kill()
                killed.append(victim.pid)
                cluster.add()

        killing = threading.Thread(target=kill)
        killing.start()
        address = f"execution.workers.address={cluster.address}"
        result = runner.run(overrides=overrides(server, folder, rows, address, "cache.mode=off"))
        ended.set()
        killing.join()
        assert len(killed) == kills, f"{len(killed)} of {kills} workers were killed before the run had ended"
        return check(result.folder, server, rows, kills)


def head_kills(folder: Path, *, seed: int, rows: int, kills: int) -> int:
    """Kill the command `kills` times, and resume it to its end."""
    dice = random.Random(seed)
    with CountingServer(seed=seed, latency_s=(0.05, 0.4)) as server:
        server.begin()
        command = ["run", *overrides(server, folder, rows)]
        for _ in range(kills):
            begun = server.asked.total()
            with Running(*command, "--display", "plain", OSTINATO_HOME=str(folder / "home")) as running:
                at = begun + dice.randint(1, max(2, rows // (kills + 1)))
                wait_until(lambda at=at: server.asked.total() >= at or running.process.poll() is not None, "requests")
                running.signal(signal.SIGKILL)
                running.process.wait()
            record = next((folder / "runs").glob("*/2*"))
            command = ["resume", str(record), "execution.workers.kind=dask"]
        with Running(*command, "--display", "plain", OSTINATO_HOME=str(folder / "home")) as running:
            done = running.wait()
        assert done.code == 0, done.err
        return check(record, server, rows, kills)


def budget_kept(folder: Path, *, seed: int) -> tuple[int, int]:
    """Play a small run with a budget of requests, whose workers are lost at random. Return the bound, and what was sent."""
    dice = random.Random(seed)
    rows, bound = dice.randint(10, 60), dice.randint(5, 50)
    moments = sorted(dice.sample(range(1, 150), dice.randint(1, 4)))
    heard = 0

    def hear(link: object, _message: object) -> None:
        nonlocal heard
        heard += 1
        if moments and heard >= moments[0]:
            moments.pop(0)
            link.lose()  # type: ignore[attr-defined]

    with CountingServer(seed=seed) as server, workers_here(heard=hear, spare=9):
        server.begin()
        given = overrides(server, folder, rows, f"budget.requests={bound}", "cache.mode=off")
        result = runner.run(overrides=given)
        sent = server.asked.total()
        while result.summary.owed and sent < bound:
            before = sent
            result = runner.resume(result.folder)
            sent = server.asked.total()
            if sent == before:
                break
    assert sent <= bound, f"seed {seed}: {sent} requests, and the budget is {bound}"
    assert result.summary.requests >= sent, f"seed {seed}: {sent} requests were sent, {result.summary.requests} counted"
    return bound, sent


class LimitedServer(Loopback):
    """A server that lets `rpm` requests per minute through, and keeps when each request came and whether it was refused."""

    def __init__(self, rpm: float) -> None:
        super().__init__()
        self._bucket = TokenBucket(rpm, burst=20)
        self.seen: list[tuple[float, bool]] = []

    async def route(self, request: Request) -> Script:
        """Refuse, or answer after a while."""
        if request.method == "GET":
            return Script((response(b"", 404),))
        now = asyncio.get_running_loop().time()
        refused = self._bucket.decide(now) is not None
        self.seen.append((now, refused))
        if refused:
            return Script((response(b'{"error": {"message": "Rate limit reached"}}', 429),))
        message = {"role": "assistant", "content": "ok"}
        body = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": {"total_tokens": 10}}
        return Script((0.2, response(json.dumps(body).encode())))


def rate_used(folder: Path, *, rpm: int, count: int) -> tuple[float, float]:
    """Ask a limited server from `count` workers. Return the shares of its rate that were used, and of requests refused."""
    with LimitedServer(rpm) as server:
        url = type("Url", (), {"url": f"{server.address}/v1"})
        rows = rpm + rpm // 10
        runner.run(overrides=overrides(url, folder, rows, f"execution.workers.n={count}", "limits.max_concurrency=64"))  # type: ignore[arg-type]
        minute = [refused for at, refused in server.seen if at < server.seen[0][0] + 60]
    return (len(minute) - sum(minute)) / (rpm + 20), sum(minute) / len(minute)


def main() -> None:
    """Run what the arguments ask for, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="workers to kill, ten in a run")
    parser.add_argument("--heads", type=int, default=0, help="heads to kill, five in a run")
    parser.add_argument("--budgets", type=int, default=0, help="runs with a budget")
    parser.add_argument("--rpm", type=int, default=0, help="the rate of a server that four workers ask for a minute")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    for number in range(-(-given.kills // 10)):
        with tempfile.TemporaryDirectory() as folder:
            kills = min(10, given.kills - 10 * number)
            again = worker_kills(Path(folder), seed=given.seed + number, rows=given.rows, kills=kills)
            print(f"{given.rows} rows, {kills} workers killed: every row once, {again} asked again", flush=True)  # noqa: T201
    for number in range(-(-given.heads // 5)):
        with tempfile.TemporaryDirectory() as folder:
            kills = min(5, given.heads - 5 * number)
            again = head_kills(Path(folder), seed=given.seed + number, rows=given.rows, kills=kills)
            print(f"{given.rows} rows, {kills} heads killed: every row once, {again} asked again", flush=True)  # noqa: T201
    kept = []
    for number in range(given.budgets):
        with tempfile.TemporaryDirectory() as folder:
            kept.append(budget_kept(Path(folder), seed=given.seed + number))
    if kept:
        reached = sum(bound == sent for bound, sent in kept)
        print(f"{len(kept)} runs with a budget: never overshot, {reached} of them reached it")  # noqa: T201
    if given.rpm:
        with tempfile.TemporaryDirectory() as folder:
            used, refused = rate_used(Path(folder), rpm=given.rpm, count=4)
        print(f"{given.rpm} requests per minute, 4 workers: {used:.1%} used, {refused:.2%} refused in the first minute")  # noqa: T201
    print(f"{time.monotonic() - began:.0f} s")  # noqa: T201


if __name__ == "__main__":
    os.environ.setdefault("OSTINATO_HOME", tempfile.mkdtemp())
    main()
