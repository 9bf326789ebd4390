"""Judged runs that are killed and resumed: no answer and no judgement is asked twice but what was in flight.

`python -m tests.harness.judged --kills 20`
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from runner.batch.engine import AHEAD
from runner.records import RunFolder
from tests.harness.server import CountingServer, answer, question
from tests.support.clock import wait_until
from tests.support.command import Done, Running
from tests.support.loopback import Request, Script, response

CONCURRENCY = 8
ROWS = 80
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_VERDICT = json.dumps({"reason": "r", "label": "correct"})


class BothServer(CountingServer):
    """Answer questions, and judge answers. `asked` counts each request by its model and its last words."""

    async def route(self, request: Request) -> Script:
        """Count the request, and answer it after a while."""
        if request.method == "GET":
            return Script((response(b"", 404),))
        body = json.loads(request.body)
        model, said = body["model"], str(body["messages"][-1]["content"])
        self.asked[f"{model} {said}", 0] += 1
        if self.asked.total() == self._at:
            self._call()
            self.reached = True
        text = _VERDICT if model == "judge" else answer(said)
        reply = {
            "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
        return Script((self._random.uniform(*self._latency_s), response(json.dumps(reply).encode())))


def play(folder: Path, *, seed: int, kills: int) -> Counter[str]:
    """Kill one judged run up to `kills` times, and resume it each time. Return what was seen.

    Raises:
        AssertionError: something was lost, or asked twice that was not in flight.
    """
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    rows = [{"id": str(number), "question": question(number), "answer": answer(question(number))} for number in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: Counter[str] = Counter()
    asked: Counter[tuple[str, int]] = Counter()
    with BothServer(seed=seed) as server:
        code = None
        while code != 0:
            last = seen["kills"] >= kills
            done = _sitting(server, folder, None if last else chance.randint(1, ROWS), chance.choice(_SIGNALS))
            code = done.code
            assert not last or code == 0, done.err
            seen["kills"] += code != 0
            seen["sittings"] += 1
            often = [what for what, count in server.asked.items() if count > 1]
            assert not often, f"asked twice in one sitting: {often}"
            asked += server.asked
    seen["requests"], seen["twice"] = asked.total(), asked.total() - len(asked)
    most = 2 * (CONCURRENCY + CONCURRENCY // AHEAD)  # answers, and judgements
    assert len(asked) == 2 * ROWS, f"{len(asked)} requests"
    assert seen["twice"] <= most * seen["kills"], f"{seen['twice']} asked twice, {most} may be in flight at each kill"
    _check(_run(folder), seen)
    return seen


def _sitting(server: BothServer, folder: Path, at: int | None, number: signal.Signals) -> Done:
    """Play, or resume, until the end or until the request at which the run is killed."""
    environment = {"OSTINATO_HOME": str(folder / "home")}
    with Running(*_command(server, folder), "--json", "--display", "plain", **environment) as running:
        server.begin(at, lambda: running.signal(number))
        done = running.wait()
    wait_until(lambda: not server.connections, "the server has read what was sent to it")
    return done


def _command(server: BothServer, folder: Path) -> list[str]:
    if (folder / "runs").exists():
        return ["resume", str(_run(folder).path)]
    return [
        *("run", "model=server", "model.name=answerer", f"model.api_base={server.url}", "prompt=default"),
        *(
            "scoring=correctness",
            "model@scoring.model=server",
            "scoring.model.name=judge",
            f"scoring.model.api_base={server.url}",
        ),
        *("data=jsonl", f"data.path={folder / 'rows.jsonl'}", "data.id=id", "data.target=answer"),
        *(f"runs_dir={folder / 'runs'}", f"limits.max_concurrency={CONCURRENCY}", "execution.orchestrator=none"),
    ]


def _run(folder: Path) -> RunFolder:
    """Return the run; there is one."""
    (manifest,) = (folder / "runs").glob("rows/2*/manifest.json")
    return RunFolder.open(manifest.parent)


def _check(record: RunFolder, seen: Counter[str]) -> None:
    """Check that each row is there once, answered and judged, and that what was sent is counted."""
    samples = list(record.samples())
    assert sorted(int(sample.id) for sample in samples) == list(range(ROWS))
    for sample in samples:
        assert (sample.status, sample.output) == ("ok", answer(question(int(sample.id)))), sample
        assert sample.scores == {"judge": 1.0}, sample
        assert sample.judgements is not None, sample
        assert sample.judgements["judge"].label == "correct", sample
    summary = record.summary()
    assert summary is not None
    assert summary.status == "complete"
    counted = summary.requests + summary.named["judge"].requests
    most = seen["requests"] + seen["kills"] * 2 * (CONCURRENCY + CONCURRENCY // AHEAD)
    assert seen["requests"] <= counted <= most, f"{seen['requests']} sent, {counted} counted"


def main() -> int:
    """Kill judged runs so many times, and print what was seen. Exit code 1 if something was lost or asked again."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.judged", description="Kill judged runs, and resume them.")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="how many kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of the first run (default: %(default)s)")
    args = parser.parse_args()
    total: Counter[str] = Counter()
    number = args.seed
    while total["kills"] < args.kills:
        with tempfile.TemporaryDirectory(prefix="ostinato-judged-") as folder:
            total += play(Path(folder) / "series", seed=number, kills=min(5, args.kills - total["kills"]))
        number += 1
    sys.stdout.write(", ".join(f"{name} {count}" for name, count in total.items()) + "\n")
    return 0


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith(("OSTINATO_", "PREFECT_"))]:
        del os.environ[name]
    sys.exit(main())
