"""How well servers that enforce 600 requests a minute are used, and how many requests they refuse. A minute per case.

    python -m tests.bench.manners [--seconds 60] [--latency 0.05] [--concurrency 32] [--record] [CASE ...]

Cases: (a) token bucket that tells what is left in x-ratelimit headers, (b) token bucket with Retry-After only, (c) token bucket
with bare 429s, (d) fixed window of a minute with Retry-After; each with and without rpm=600 configured. A bucket holds a minute
(what "limit 600, remaining 599" means), a second, or one request (nginx without a burst: nothing is saved up). All run at
once, each against a server of its own; --seconds 180 shows the later minutes apart from the first, in which a limit is found.
"""

from __future__ import annotations

import asyncio
import threading
import time

from runner.limits import Endpoint, Limiter
from tests.bench.harness import parser, publish
from tests.support.limited import FixedWindow, LimitedServer, TokenBucket, ask

RPM = 600
APART_S = 0.25
"""Between the starts of two cases: each begins with a burst, and they share one interpreter."""


def cases() -> dict[str, LimitedServer]:
    made: dict[str, LimitedServer] = {}
    for name, burst in (("minute", RPM), ("second", RPM // 60), ("request", 1)):
        made[f"a headers, bucket of a {name}"] = LimitedServer(TokenBucket(RPM, burst), tell=True, hint=True)
        made[f"b Retry-After, bucket of a {name}"] = LimitedServer(TokenBucket(RPM, burst), hint=True)
        made[f"c bare 429, bucket of a {name}"] = LimitedServer(TokenBucket(RPM, burst))
    made["d Retry-After, fixed window"] = LimitedServer(FixedWindow(RPM), hint=True)
    return made


async def measure(server: LimitedServer, rpm: int | None, seconds: float, concurrency: int) -> list[tuple[float, int, int]]:
    limiter = Limiter(Endpoint("bench"), max_concurrency=concurrency, rpm=rpm)
    snapshots: list[tuple[float, int, int]] = []

    async def watch() -> None:
        elapsed = 0.0
        while elapsed < seconds:
            step = min(60.0, seconds - elapsed)
            await asyncio.sleep(step - 0.01)
            elapsed += step
            snapshots.append((elapsed, server.passed, server.refused))

    watcher = asyncio.create_task(watch())
    await ask(server, limiter, workers=concurrency, seconds=seconds)
    await watcher
    return snapshots


def main() -> None:
    """Run the cases, and print what came of them."""
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--latency", type=float, default=0.05, help="seconds of an answer")
    arguments.add_argument("--concurrency", type=int, default=32)
    arguments.add_argument("cases", nargs="*", help="letters; all when none")
    args = arguments.parse_args()
    rows: list[str] = []

    def run(name: str, server: LimitedServer, rpm: int | None) -> None:
        server.latency_s = args.latency
        with server:
            before = (0.0, 0, 0)
            for elapsed, passed, refused in asyncio.run(measure(server, rpm, args.seconds, args.concurrency)):
                since, passed_before, refused_before = before
                assert server.policy is not None
                allowed = server.policy.allowed(elapsed) - (server.policy.allowed(since) if since else 0)
                if rpm is not None:
                    allowed = min(allowed, rpm * (elapsed - since) / 60)
                ok, no = passed - passed_before, refused - refused_before
                rows.append(
                    f"| {name} | {rpm or '-'} | {since:.0f}-{elapsed:.0f} | {allowed:.0f} | {ok + no} | {no} "
                    f"| {100 * ok / allowed:.1f} | {100 * no / max(1, ok + no):.2f} |"
                )
                before = (elapsed, passed, refused)

    threads = [
        threading.Thread(target=run, args=(name, server, rpm))
        for rpm in (None, RPM)
        for name, server in cases().items()
        if not args.cases or name[0] in args.cases
    ]
    for thread in threads:
        thread.start()
        time.sleep(APART_S)
    for thread in threads:
        thread.join()
    about = (
        f"{args.concurrency} places, answers after {args.latency:g} s; allowed is what the server and the setting let through."
    )
    head = (
        "| server | rpm configured | seconds | allowed | sent | 429s | used, % of allowed | 429s, % of sent |\n"
        + "|---" * 8
        + "|"
    )
    publish(args, "Manners", "\n".join([f"{about}\n", head, *sorted(rows)]))


if __name__ == "__main__":
    main()
