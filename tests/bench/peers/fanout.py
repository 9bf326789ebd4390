"""What every measured script does the same way: the same prompts, the same bounded fan-out, and one JSON line at the end."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

WARM_UP = 128
"""Calls before the clock starts: imports, connections and first-use costs are not what is measured."""


def prompt(number: int) -> str:
    """The prompt of a row. All are different, so that no cache answers."""
    return f"Question {number}: what is {number} plus {number + 1}? Answer with one number."


def cpu_s() -> float:
    """CPU seconds that this process has used, in all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def fan_out(call: Callable[[str], Awaitable[Any]], numbers: Iterable[int], concurrency: int) -> None:
    """Call with the prompt of each number, at most `concurrency` at once: workers that draw from one stream."""
    stream = iter(numbers)

    async def work() -> None:
        for number in stream:
            await call(prompt(number))

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def measure_calls(call: Callable[[str], Awaitable[Any]], calls: int, concurrency: int) -> None:
    """Warm up, time `calls` calls, and print the result."""
    await fan_out(call, range(-WARM_UP, 0), concurrency)
    cpu, began = cpu_s(), time.perf_counter()
    await fan_out(call, range(calls), concurrency)
    report(calls=calls, wall_s=time.perf_counter() - began, cpu_s=cpu_s() - cpu)


def measure_in_turn(call: Callable[[str], Any], numbers: range) -> None:
    """Time calls one after the other, and print the result."""
    cpu, began = cpu_s(), time.perf_counter()
    for number in numbers:
        call(prompt(number))
    report(calls=len(numbers), wall_s=time.perf_counter() - began, cpu_s=cpu_s() - cpu)


def report(**facts: Any) -> None:
    """Print the one JSON line, with the peak memory of this process."""
    facts["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    sys.stdout.write(f"{json.dumps(facts)}\n")
