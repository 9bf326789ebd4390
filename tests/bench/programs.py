"""What programs cost: a Python solver that asks once beside a plain row, and dspy's programs over our LM beside dspy's own.

python -m tests.bench.programs [ROWS [PAIRS]]     ratios of runs that take turns; the dspy part needs dspy in this environment

The ratio behind "without any LM" is that of dspy's own work: the same program over an LM that returns a constant at once.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS, PAIRS, CALLS = 20_000, 5, 500
TEXT = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"
SERVER = f"""
import asyncio, json
from runner.network.serving import Answer, Listener

CHOICE = {{"index": 0, "message": {{"role": "assistant", "content": {TEXT!r}}}, "finish_reason": "stop"}}
USED = {{"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}}
HEAD = {{"id": "x", "object": "chat.completion", "created": 0, "model": "x"}}
BODY = json.dumps({{**HEAD, "choices": [CHOICE], "usage": USED}}).encode()

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
    sys.stdout.flush()


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


def solver(rows: int, pairs: int, folder: Path, address: str) -> None:
    """Print the CPU of whole processes: `ostinato run` of a Python solver that asks once, and of plain rows, cold and cached."""
    (folder / "flow.py").write_text(FLOW)
    (folder / "data.jsonl").write_text("".join(f'{{"id": "{n}", "q": "question {n}"}}\n' for n in range(rows)))
    settings = [
        *("model=server", "model.name=x", f"model.api_base={address}", "data=jsonl", f"data.path={folder}/data.jsonl"),
        *("data.id=id", "prompt.user='{{ q }}'", "scoring=none", "execution.orchestrator=none", f"runs_dir={folder}/runs"),
    ]
    kinds = {"plain": [], "program": ["solver=python", f"solver.function={folder}/flow.py:answer"]}
    ratios: dict[str, list[float]] = {"cold": [], "cached": []}
    for pair in range(pairs):
        for state, found in ratios.items():
            took = []
            for kind, more in kinds.items():
                arguments = ["run", *settings, f"cache.dir={folder}/{kind}{pair}", *more]
                before = os.times()
                subprocess.run([sys.executable, "-m", "runner", *arguments], check=True, capture_output=True)
                after = os.times()
                took.append(after.children_user + after.children_system - before.children_user - before.children_system)
            found.append(took[1] / took[0])
            say(f"{state}: plain {took[0]:.2f} s, program {took[1]:.2f} s of CPU, whole processes, {rows} rows")
    for state, found in ratios.items():
        say(f"solver to plain row, {state}: {statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})")


def programs(calls: int, pairs: int, address: str) -> None:
    """Print what bare calls, and dspy.Evaluate of a Predict in 64 threads, cost over dspy's LM, over ours and over none."""
    import dspy

    from runner import dspy as ours

    class Constant(dspy.BaseLM):  # type: ignore[misc]
        """Return the answer at once: what is left is dspy's own work."""

        def __call__(self, *_: Any, **__: Any) -> list[str]:
            return [TEXT]

    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    took: dict[str, list[list[tuple[float, float]]]] = {}
    for pair in range(pairs):
        examples = [dspy.Example(question=f"{pair} {n}", answer="yes").with_inputs("question") for n in range(calls)]
        evaluate = dspy.Evaluate(devset=examples, metric=lambda *_: 1, num_threads=64, display_progress=False)
        asked = [[{"role": "user", "content": f"{pair} {n}"}] for n in range(calls)]
        lms = [kind("openai/any", api_base=address, api_key="none", max_tokens=100) for kind in (dspy.LM, ours.LM, Constant)]
        for name in ("call, cold", "call, cached", "Evaluate, cold", "Evaluate, cached"):
            one = []
            for lm in lms:
                gc.collect()  # what others have left is none of this one's cost
                began, cpu_began = time.perf_counter(), time.process_time()
                if name.startswith("call"):
                    for messages in asked:
                        lm(messages=messages)
                else:
                    with dspy.context(lm=lm):
                        evaluate(dspy.Predict("question -> answer"))
                one.append((time.process_time() - cpu_began, time.perf_counter() - began))
            took.setdefault(name, []).append(one)
    for name, found in took.items():
        for number, unit in enumerate(("CPU", "wall")):
            theirs, own = (statistics.median(one[kind][number] for one in found) / calls * 1e6 for kind in (0, 1))
            ratio, floor = (statistics.median(one[kind][number] / one[0][number] for one in found) for kind in (1, 2))
            say(f"{name}, {unit}: dspy.LM {theirs:.0f} us, ours {own:.0f} us: {ratio:.2f}; without any LM: {floor:.2f}")


def main() -> None:
    """Measure."""
    given = [int(text) for text in sys.argv[1:]]
    rows, pairs = [*given, *(ROWS, PAIRS)[len(given) :]]
    with tempfile.TemporaryDirectory() as place, served() as address:
        os.environ |= {"OSTINATO_HOME": place, "DSPY_CACHEDIR": f"{place}/dspy"}
        solver(rows, pairs, Path(place), address)
        try:
            programs(CALLS, pairs, address)
        except ImportError:
            say("dspy is not installed")


if __name__ == "__main__":
    main()
