"""What programs cost: a solver that asks once beside a plain row, and dspy.Evaluate over our LM beside dspy's own.

python -m tests.bench.programs [rows]     CPU seconds, in pairs that take turns; the dspy part needs dspy
"""

from __future__ import annotations

import asyncio
import functools
import os
import statistics
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
from runner.solvers import Python
from runner.types import Row

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = 5
FLOW = "async def answer(row, lm):\n    return (await lm.acall(messages=[{'role': 'user', 'content': row['q']}]))[0]\n"


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process that `work` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def solver(rows: int, folder: Path) -> float:
    """Return the ratio of CPU: a python solver that asks once, to a plain row."""
    (folder / "flow.py").write_text(FLOW)
    slots = [(Row(str(n), {"q": f"question {n}"}), 0) for n in range(rows)]

    def play(*, program: bool, name: str) -> float:
        lm = LM("fake/x", cache=Cache(folder / name))
        asker = Asker(lm, ChatAdapter(Prompt(system=None, user="{{ q }}")), {})
        if program:
            asker.solve_with(Python(f"{folder}/flow.py:answer", {}))
        took = cpu(lambda: asyncio.run(ask(asker, slots, lambda _: None, concurrency=16, stop=Stop())))
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
        say(f"solver to plain row: {solver(rows, Path(place)):.2f}")
        try:
            evaluated(rows)
        except ImportError:
            say("dspy is not installed")


if __name__ == "__main__":
    main()
