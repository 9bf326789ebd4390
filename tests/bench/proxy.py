"""Measure what a cached request costs through `ostinato proxy`, beside the same request of `LM.acomplete` in one process.

    python -m tests.bench.proxy [--requests 5000] [--connections 16] [--litellm FOLDER]

The proxy's own CPU time is read from /proc, so that the client's does not count; requests per second of one core are its inverse.
With FOLDER, an environment with ``litellm[proxy]`` (made if it is not there), litellm's proxy answers the same requests from its
cache in memory, the fastest that it has.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.peers.proxy import environment, started
from tests.support.command import REPOSITORY
from tests.support.server import Server

DISTINCT = 200
MESSAGES = [[{"role": "user", "content": f"What is {n} + {n}?"}] for n in range(DISTINCT)]


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(url: str, key: str, requests: int, connections: int) -> None:
    """Send so many requests over so many connections, each when the one before it is answered."""
    port = int(url.removesuffix("/v1").rpartition(":")[2])
    numbers = iter(range(requests))

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            body = json.dumps({"model": "fake", "messages": MESSAGES[number % DISTINCT]}).encode()
            headers = f"Host: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n" + headers.encode() + body)
            answered = await reader.readuntil(b"\r\n\r\n")
            if not answered.startswith(b"HTTP/1.1 200"):
                raise SystemExit(answered.decode())
            length = int(answered.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))


def through_proxy(requests: int, connections: int, folder: str) -> tuple[float, float]:
    """Return CPU seconds of the proxy per cached request, and wall seconds per request."""
    command = [
        sys.executable,
        "-m",
        "runner",
        "proxy",
        "model=fake",
        f"cache.dir={folder}/cache",
        f"runs_dir={folder}/runs",
        "--json",
    ]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables, text=True) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())
        asyncio.run(ask(address["url"], address["key"], DISTINCT, connections))  # fills the cache
        before, began = cpu_s(process.pid), time.perf_counter()
        asyncio.run(ask(address["url"], address["key"], requests, connections))
        used, wall = cpu_s(process.pid) - before, time.perf_counter() - began
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    return used / requests, wall / requests


def through_litellm(requests: int, connections: int, folder: Path) -> tuple[float, float]:
    """Do as `through_proxy` with litellm's proxy, one process of it, with its cache in memory and without a database."""
    key = "sk-" + "bench"
    with Server() as server:
        reached = {"model": "openai/any", "api_base": server.url, "api_key": "none"}
        settings = {
            "model_list": [{"model_name": "fake", "litellm_params": reached}],
            "litellm_settings": {"cache": True, "cache_params": {"type": "local"}},
        }
        with started(environment(folder, None), settings, key) as (address, process):
            asyncio.run(ask(f"{address}/v1", key, DISTINCT, connections))
            before, began, sent = cpu_s(process), time.perf_counter(), server.count
            asyncio.run(ask(f"{address}/v1", key, requests, connections))
            used, wall = cpu_s(process) - before, time.perf_counter() - began
            if server.count > sent:
                raise SystemExit(f"litellm's proxy sent {server.count - sent} of {requests} requests that it should have cached")
    return used / requests, wall / requests


def direct(requests: int, folder: str) -> float:
    """Return CPU seconds per cached request of `LM.acomplete`, which the proxy calls."""
    from runner import build
    from runner.config.compose import compose

    lm = build.lm(compose(["model=fake", f"cache.dir={folder}/cache"]).config())

    async def calls() -> float:
        began = time.process_time()
        for number in range(requests):
            await lm.acomplete(lm.request(messages=MESSAGES[number % DISTINCT]))
        return time.process_time() - began

    asyncio.run(calls())
    return asyncio.run(calls()) / requests


def main() -> None:
    """Print a line of figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--litellm", type=Path, metavar="FOLDER", help="measure litellm's proxy too, from this environment")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        used, wall = through_proxy(args.requests, args.connections, folder)
        own = direct(args.requests, folder)
    print(  # noqa: T201 - a command
        f"proxy: {used * 1e3:.3f} ms CPU a request ({1 / used:,.0f} requests/s of one core; {1 / wall:,.0f}/s by the clock); "
        f"direct: {own * 1e3:.3f} ms; beyond it: {(used - own) * 1e3:.3f} ms"
    )
    if args.litellm:
        theirs, wall = through_litellm(args.requests, args.connections, args.litellm)
        print(  # noqa: T201 - a command
            f"litellm's proxy: {theirs * 1e3:.3f} ms CPU a request ({1 / theirs:,.0f} requests/s of one core; "
            f"{1 / wall:,.0f}/s by the clock): {theirs / used:.0f} times as much"
        )


if __name__ == "__main__":
    main()
