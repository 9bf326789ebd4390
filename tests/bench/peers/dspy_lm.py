"""dspy.LM: uncached calls, hits of its caches, and all prompts from start to end.

dspy_lm.py calls FOLDER URL CALLS CONCURRENCY       lm.acall with no cache
dspy_lm.py writes FOLDER URL CALLS CONCURRENCY      lm.acall, each answer put into the cache
dspy_lm.py whole FOLDER URL CALLS CONCURRENCY       all prompts through lm.acall and the cache; the whole process is what is timed
dspy_lm.py fill FOLDER URL CALLS CONCURRENCY        all prompts through lm(...), whose cache keys are not those of lm.acall
dspy_lm.py memory|disk FOLDER URL CALLS CONCURRENCY lm(...), found in memory, or on disk by a fresh process; `fill` comes before

FOLDER is where dspy's cache is.
"""

from __future__ import annotations

import asyncio
import os
import sys

os.environ["DSPY_CACHEDIR"] = sys.argv[2]  # read when dspy is imported

import dspy
from fanout import WARM_UP, fan_out, measure_calls, measure_in_turn, prompt, report


def model(url: str, *, cache: bool) -> dspy.LM:
    return dspy.LM("openai/bench", api_base=url, api_key="none", temperature=0.0, max_tokens=100, cache=cache, num_retries=0)


def main(what: str, url: str, calls: int, concurrency: int) -> None:
    lm = model(url, cache=what != "calls")
    if what in {"calls", "writes"}:
        asyncio.run(measure_calls(lm.acall, calls, concurrency))
    elif what == "whole":
        asyncio.run(fan_out(lm.acall, range(calls), concurrency))
        report(calls=calls)
    elif what == "fill":
        for number in range(-WARM_UP, calls):
            lm(prompt(number))
        report(calls=calls)
    else:
        for number in range(-WARM_UP, calls if what == "memory" else 0):  # what first use imports is not what is measured
            lm(prompt(number))
        measure_in_turn(lm, range(calls))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
