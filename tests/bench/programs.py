"""What programs cost: a solver that asks once beside a plain row, and dspy.Evaluate over our LM beside dspy's own.

python -m tests.bench.programs [rows]     CPU seconds, in pairs that take turns; the dspy part needs dspy
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runner.adapters import ChatAdapter, Prompt
from runner.batch.asker import Asker
from runner.batch.engine import Stop, ask
from runner.cache import Cache
from runner.lm.lm import LM
from runner.session.loop import collecting_less
from runner.solvers import Python
from runner.types import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAIRS = 5
SERVER = """
import asyncio, json
from runner.network.serving import Answer, Listener

SAID = {"role": "assistant", "content": "yes"}
USED = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
BODY = json.dumps({"id": "x", "model": "x", "choices": [{"message": SAID, "finish_reason": "stop"}], "usage": USED}).encode()

async def answer(_):
    return Answer(200, BODY)

async def main():
    listener = Listener(answer)
    await listener.start()
    print(listener.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
FLOW = "async def answer(row, lm):\n    return (await lm.acall(messages=[{'role': 'user', 'content': row['q']}]))[0]\n"


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process that `work` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Serve one answer on loopback from a process of its own, whose CPU is not counted. Yield the address."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


def solver(rows: int, folder: Path, address: str | None) -> float:
    """Return the ratio of CPU: a python solver that asks once, to a plain row. `address`: of a server; None: no transport."""
    (folder / "flow.py").write_text(FLOW)
    slots = [(Row(str(n), {"q": f"question {n}"}), 0) for n in range(rows)]

    def play(*, program: bool, name: str) -> float:
        cache = Cache(folder / f"{name}-{'http' if address else 'fake'}")
        lm = LM("openai/x", api_base=address, api_key="none", cache=cache) if address else LM("fake/x", cache=cache)
        asker = Asker(lm, ChatAdapter(Prompt(system=None, user="{{ q }}")), {})
        if program:
            asker.solve_with(Python(f"{folder}/flow.py:answer", {}))

        async def play_all() -> None:
            await ask(asker, slots, lambda _: None, concurrency=16, stop=Stop())
            await lm.aclose()

        with collecting_less():
            took = cpu(lambda: asyncio.run(play_all()))
        assert lm.store is not None
        lm.store.close()
        return took

    play(program=False, name="warm")
    ratios = []
    for pair in range(PAIRS):
        plain, program = play(program=False, name=f"plain{pair}"), play(program=True, name=f"program{pair}")
        say(f"plain {plain / rows * 1e6:.0f} us, program {program / rows * 1e6:.0f} us of CPU a row")
        ratios.append(program / plain)
    return statistics.median(ratios)


def evaluated(rows: int) -> None:
    """Print what dspy.Evaluate of a Predict costs over dspy's LM and over ours, cold and cached."""
    import dspy

    from runner import dspy as ours
    from tests.support.server import Reply, Server

    text = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"
    for pair in range(2):
        examples = [dspy.Example(question=f"{pair} {n}", answer="yes").with_inputs("question") for n in range(rows)]
        evaluate = dspy.Evaluate(devset=examples, metric=lambda *_: 1, num_threads=64, display_progress=False)
        with Server(lambda _: Reply(text)) as server:
            for kind in (dspy.LM, ours.LM):
                lm = kind("openai/any", api_base=server.url, api_key="none", max_tokens=100)
                for state in ("cold", "cached"):
                    began = time.perf_counter()
                    with dspy.context(lm=lm):
                        took = cpu(functools.partial(evaluate, dspy.Predict("question -> answer")))
                    say(
                        f"{kind.__module__}: {state} {took:.2f} s CPU (server included), {time.perf_counter() - began:.2f} s wall"
                    )


def main() -> None:
    """Measure."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as place:
        os.environ["OSTINATO_HOME"] = place
        say(f"solver to plain row, without a transport: {solver(rows, Path(place), None):.2f}")
        with served() as address:
            say(f"solver to plain row, over HTTP: {solver(rows, Path(place), address):.2f}")
        try:
            evaluated(rows)
        except ImportError:
            say("dspy is not installed")


if __name__ == "__main__":
    main()
