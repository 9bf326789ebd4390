"""What the progress display costs: the same run with a live bar on a terminal, with plain lines, and with none, in turn.

python -m tests.bench.progress [--quick] [--record]
"""

from __future__ import annotations

import json
import os
import pty
import statistics
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.bench.harness import REPOSITORY, Column, environment, ours, parser, progress, publish, repeats, table
from tests.bench.server import Server

KINDS = ("none", "plain", "rich")
WALL = Column("playing, s", lambda one: one["wall_s"], digits=2)
CPU = Column("client CPU, s", lambda one: one["cpu_s"], digits=2)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, help="rows a run (default: 20,000)")
    args = arguments.parse_args()
    rows = args.rows or (3000 if args.quick else 20_000)
    results: dict[str, list[dict[str, Any]]] = {f"--display {kind}": [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        for repeat in range(repeats(args, full=7)):
            for turn in range(len(KINDS)):
                kind = KINDS[(turn + repeat) % len(KINDS)]  # each is first as often as the others
                progress(f"{repeat + 1} {kind}")
                place = Path(folder, f"{kind}-{repeat}")
                results[f"--display {kind}"].append(_run(server.url, rows, place, kind))
    base = "--display none"
    text = table(results, [WALL, CPU], ratio=WALL, references=[base], cost=True)
    pairs = "; ".join(f"{label} {_paired(results[label], results[base])}" for label in results if label != base)
    about = f"{rows:,} uncached rows, 64 in flight; stderr is a terminal of 120 columns.\n\n"
    publish(args, "Progress display", f"{about}{text}\n\nMedian of the pairs, against none in the same turn: {pairs}.")


def _paired(found: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    def ratio(fact: str) -> float:
        return statistics.median(one[fact] / other[fact] for one, other in zip(found, base, strict=True))

    return f"wall x {ratio('wall_s'):.3f}, CPU x {ratio('cpu_s'):.3f}"


def _run(url: str, rows: int, place: Path, kind: str) -> dict[str, Any]:
    """One run of the engine with stderr on a terminal that is read as fast as it is written."""
    terminal, end = pty.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(terminal, shown))
    command = ours("engine", "--url", url, "--rows", rows, "--folder", place, "--display", kind)
    child = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment({"TERM": "xterm-256color", "COLUMNS": "120"}), stdout=subprocess.PIPE, stderr=end
    )
    os.close(end)
    reader.start()
    said, _ = child.communicate()
    reader.join()
    os.close(terminal)
    if child.returncode:
        raise RuntimeError(f"--display {kind} ended with {child.returncode}:\n{b''.join(shown)[-2000:].decode(errors='replace')}")
    if kind == "rich" and b"rows/s" not in b"".join(shown):
        raise RuntimeError("--display rich has shown no bar: there is nothing to measure; use more --rows")
    return json.loads(said)


def _drain(terminal: int, shown: list[bytes]) -> None:
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux says EIO when the other end has closed
            return
        if not data:
            return
        shown.append(data)


if __name__ == "__main__":
    main()
