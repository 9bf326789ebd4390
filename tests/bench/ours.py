"""Ostinato's side of every measurement, one process each, through its public interface; `--profile` shows where time goes.

    python -m tests.bench.ours engine --url http://127.0.0.1:8000/v1 --rows 3000 --folder /tmp/x --profile

The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import pstats
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.peers.fanout import cpu_s, fan_out, measure_calls, measure_in_turn, prompt, report
from tests.bench.without import DEVICES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner import LM
    from runner.config.schema import RunConfig
    from runner.experiment.experiment import Experiment

FILL_BATCH = 1000
GET_BATCH = 256


def write_rows(path: Path, numbers: range) -> Path:
    """A JSONL file with one question a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f'{{"id": "{number}", "question": {json.dumps(prompt(number))}}}\n' for number in numbers)
    return path


def overrides(args: argparse.Namespace, data: Path) -> list[str]:
    """The experiment that everything here plays: one question a row, no scoring, no orchestrator."""
    return [
        "model=server",
        f"model.name={args.model}",
        f"limits.stream={args.stream}",
        f"model.transport={args.transport}",
        f"model.api_base={args.url}",
        "data=jsonl",
        f"data.path={data}",
        "data.id=id",
        "prompt=default",
        "scoring=none",
        "sampling.max_tokens=100",
        f"limits.max_concurrency={args.concurrency}",
        f"cache.dir={args.folder / 'cache'}",
        f"runs_dir={args.folder / 'runs'}",
        "execution.orchestrator=none",
    ]


# --- the engine


class _Clock:
    """Times of one `run`: a watch that notes when the plan is done and when the playing is.

    Args:
        display: how progress is shown meanwhile, as by the command's `--display`; None: not at all, and by nothing.
    """

    def __init__(self, display: str | None) -> None:
        if display is not None:
            import rich.progress  # noqa: F401 - the command prints its summary with it, whatever is shown meanwhile

        self._display = display
        self.began, self.cpu_began = time.perf_counter(), cpu_s()
        self.planned = self.played = self.cpu_planned = self.cpu_played = 0.0

    @contextlib.contextmanager
    def watch(self, experiment: Experiment) -> Iterator[None]:
        self.planned, self.cpu_planned = time.perf_counter(), cpu_s()
        try:
            if self._display in (None, "none"):
                yield
            else:
                from runner.cli.display import Display

                with Display(self._display).watch(experiment):
                    yield
        finally:
            self.played, self.cpu_played = time.perf_counter(), cpu_s()


def engine(args: argparse.Namespace) -> None:
    """A whole run: what is cached comes from the cache, the rest from the model.

    Reports `compose_s` (the config), `plan_s` (rows read, looked up, and recorded when cached), `wall_s` (the model is asked for
    the rest) and `whole_s` (all of these, and the end of the record).
    """
    from runner.experiment.run import run

    args.folder.mkdir(parents=True, exist_ok=True)
    if not args.no_warm_up:
        run(overrides=overrides(args, write_rows(args.folder / "warm.jsonl", range(-128, 0))))
    data = args.folder / f"rows-{args.rows}.jsonl"
    if not data.exists():
        write_rows(data, range(args.rows))
    with profiled(args.profile):
        clock = _Clock(args.display)
        config = _config(overrides(args, data))
        composed, cpu_composed = time.perf_counter(), cpu_s()
        result = run(config, watch=clock.watch)
        ended, cpu_ended = time.perf_counter(), cpu_s()
    summary = result.summary
    if summary.ok != args.rows or summary.cache_hits != (args.rows if args.expect == "hits" else 0):
        raise RuntimeError(
            f"{summary.ok} rows of {args.rows} ok, {summary.cache_hits} from the cache: not what is to be measured"
        )
    report(
        calls=args.rows,
        wall_s=clock.played - clock.planned,
        cpu_s=clock.cpu_played - clock.cpu_planned,
        compose_s=composed - clock.began,
        plan_s=clock.planned - composed,
        plan_cpu_s=clock.cpu_planned - cpu_composed,
        whole_s=ended - clock.began,
        whole_cpu_s=cpu_ended - clock.cpu_began,
    )


def fill_rows(args: argparse.Namespace) -> None:
    """Put an answer for every row into the cache, under the keys that `engine` looks for; nothing is sent."""
    from runner import build
    from runner.cache import request_key
    from runner.types import Choice, Response, Usage

    args.folder.mkdir(parents=True, exist_ok=True)
    config = _config(overrides(args, write_rows(args.folder / f"rows-{args.rows}.jsonl", range(args.rows))))
    lm, adapter = build.lm(config), build.adapter(config)
    stream = iter(build.dataset(config))
    answer = Response(
        choices=[Choice(text="The answer is 225.", finish_reason="stop")],
        model="bench",
        id="chatcmpl-e7dfbea1",
        usage=Usage(prompt_tokens=8, completion_tokens=5, total_tokens=13),
        system_fingerprint="fp_bench",
        created=1700000000,
    )
    began = time.perf_counter()
    while rows := list(islice(stream, FILL_BATCH)):
        asked = [lm.request(messages=adapter.format(row).messages, **adapter.params()) for row in rows]
        lm.store.put_many([(request_key(request), answer, request, None) for request in asked])
    lm.store.close()
    report(calls=args.rows, wall_s=time.perf_counter() - began)


def get_many(args: argparse.Namespace) -> None:
    """The cache alone: keys in, entries out, a batch at a time, from disk. `fill-rows` comes before."""
    from runner import build
    from runner.cache import request_key

    config = _config(overrides(args, args.folder / f"rows-{args.rows}.jsonl"))
    lm, adapter = build.lm(config), build.adapter(config)
    keys = [request_key(lm.request(messages=adapter.format(row).messages, **adapter.params())) for row in build.dataset(config)]
    lm.store.get_many(keys[:1])
    cpu, began = cpu_s(), time.perf_counter()
    with profiled(args.profile):
        found = sum(len(lm.store.get_many(keys[start : start + GET_BATCH])) for start in range(0, len(keys), GET_BATCH))
    wall, cpu = time.perf_counter() - began, cpu_s() - cpu
    if found != len(keys):
        raise RuntimeError(f"the cache has {found} of {len(keys)} answers: fill it first, with as many --rows")
    report(calls=len(keys), wall_s=wall, cpu_s=cpu)


# --- the LM


def acall(args: argparse.Namespace) -> None:
    """LM.acall, concurrently, with a new cache or with none."""
    lm = _lm(args, cached=args.cached)

    async def measured() -> None:
        try:
            with profiled(args.profile):
                await measure_calls(lm.acall, args.rows, args.concurrency)
        finally:
            await lm.aclose()

    asyncio.run(measured())


def fill(args: argparse.Namespace) -> None:
    """Ask all prompts once through LM.acall, so that the cache on disk has them."""
    lm = _lm(args, cached=True)

    async def filled() -> None:
        await fan_out(lm.acall, range(args.rows), args.concurrency)
        await lm.aclose()

    asyncio.run(filled())
    report(calls=args.rows)


def disk(args: argparse.Namespace) -> None:
    """LM.__call__ on a filled cache, each prompt for the first time in this process."""
    lm = _lm(args, cached=True)
    for number in range(args.rows // 10 + 1):
        lm(prompt(number))
    lm.store.close()
    lm = _lm(args, cached=True)  # a new memory: all below come from disk
    with profiled(args.profile):
        measure_in_turn(lm, range(args.rows))


def memory(args: argparse.Namespace) -> None:
    """LM.__call__ on prompts that this process has seen."""
    lm = _lm(args, cached=True)
    for number in range(args.rows):
        lm(prompt(number))
    with profiled(args.profile):
        measure_in_turn(lm, range(args.rows))


def _lm(args: argparse.Namespace, *, cached: bool) -> LM:
    from runner import LM
    from runner.cache import Cache

    cache = Cache(args.folder / "cache") if cached else False
    settings = {"api_base": args.url, "api_key": "none", "temperature": 0.0, "max_tokens": 100, "num_retries": 0}
    return LM(f"openai/{args.model}", cache=cache, stream=args.stream, **settings)


def _config(changes: list[str]) -> RunConfig:
    from runner.config.compose import compose

    return compose(changes).config()


@contextlib.contextmanager
def profiled(wanted: bool) -> Iterator[None]:
    """Print the twenty costliest functions, by their own time, on stderr."""
    if not wanted:
        yield
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(20)


SUBJECTS: dict[str, Any] = {
    "engine": engine,
    "fill-rows": fill_rows,
    "get-many": get_many,
    "acall": acall,
    "fill": fill,
    "disk": disk,
    "memory": memory,
}


def main() -> None:
    """Run one subject."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument(
        "--url", default="http://127.0.0.1:9/v1", help="the bench server; subjects that only read the cache need none"
    )
    parser.add_argument("--rows", type=int, default=1000, help="rows, or calls")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--folder", type=Path, required=True, help="where data, cache and records are; kept")
    parser.add_argument("--expect", choices=["calls", "hits"], default="calls", help="engine: what every row has to be")
    parser.add_argument("--display", choices=["none", "plain", "rich"], help="engine: progress on stderr")
    parser.add_argument("--no-warm-up", action="store_true", help="engine: no small run before the measured one")
    parser.add_argument("--cached", action="store_true", help="acall: with a cache, which has no answer yet")
    parser.add_argument("--transport", default="auto", help="engine: how requests travel (default: auto, which is direct)")
    parser.add_argument("--model", default="bench", help="events-N answers with 100 tokens, in N events if they are streamed")
    parser.add_argument("--stream", choices=["always", "never"], default="never")
    parser.add_argument("--without", choices=DEVICES, help="a device to take away (see tests/bench/without.py)")
    parser.add_argument("--profile", action="store_true", help="where time goes, on stderr; figures are then slower")
    args = parser.parse_args()
    args.folder = args.folder.absolute()
    if args.without:
        DEVICES[args.without]()
    SUBJECTS[args.subject](args)


if __name__ == "__main__":
    main()
