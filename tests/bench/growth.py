"""Growth: time, memory and disk of runs of 1,000 to 1,000,000 rows, of `resume` on them, and of sweeps of 10 to 1,000 cells.

python -m tests.bench.growth [--most ROWS] [--cells CELLS] [--plot FILE] [--quick] [--record]

Each command is a process of its own. The model is the fake one, which answers in the process: what grows is what Ostinato does
itself. A slope is the time that each further row (or cell) takes beyond the size before; linear is a slope that stays.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.harness import environment, parser, progress, publish
from tests.bench.ours import write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OWED = 100
"""Rows that `resume` finds unanswered."""
REFERENCE = 100_000
"""The size whose slope and memory the others are compared with."""
NONE = ("execution.orchestrator=none", "model=fake", "prompt=default", "--display", "none")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--most", type=int, help="rows of the largest run (default: 1,000,000)")
    arguments.add_argument("--cells", type=int, help="cells of the largest sweep (default: 1,000)")
    arguments.add_argument("--plot", type=Path, help="an SVG file to draw the times of runs and of `resume` in")
    args = arguments.parse_args()
    most, cells = args.most or (3_000 if args.quick else 1_000_000), args.cells or (30 if args.quick else 1_000)
    with tempfile.TemporaryDirectory() as folder:
        runs = rows(Path(folder), tens(300 if args.quick else 1_000, most))
        sweeps = swept(Path(folder), tens(3 if args.quick else 10, cells))
    parts = [table(name, runs[name], "row") for name in runs] + [table("sweeps of 5 rows per cell, uncached", sweeps, "cell")]
    publish(args, "Growth", "\n\n".join(parts))
    if args.plot:
        args.plot.write_text(drawn({name: {size: one["cpu_s"] for size, one in found.items()} for name, found in runs.items()}))


def tens(first: int, last: int) -> list[int]:
    """Return `first` and its multiples by ten, and `last`."""
    return [size for power in range(7) if (size := first * 10**power) < last] + [last]


def rows(folder: Path, sizes: Sequence[int]) -> dict[str, dict[int, dict[str, float]]]:
    """Measure a run, the same run cached, and `resume` with a few rows owed, for each size."""
    data = write_rows(folder / "rows.jsonl", range(sizes[-1]))
    found: dict[str, dict[int, dict[str, float]]] = {"uncached": {}, "cached": {}, f"resume, {OWED} rows owed": {}}
    asked = (f"data.path={data}", "data=jsonl", "data.id=id", "data.target=id", "scoring=exact")
    for size in sizes:
        home = folder / str(size)
        command = ("run", *NONE, *asked, f"data.limit={size}", f"runs_dir={home / 'runs'}")
        progress(f"{size:,} rows, uncached")
        found["uncached"][size] = measured(home, *command, "name=first") | {"disk": _bytes(home) / size}
        progress(f"{size:,} rows, cached")
        found["cached"][size] = measured(home, *command, "name=again")
        run = next(home.glob("runs/first/2*"))
        _cut(run, OWED)
        progress(f"{size:,} rows, resume")
        found[f"resume, {OWED} rows owed"][size] = measured(home, "resume", str(run), "--display", "none")
    return found


def swept(folder: Path, sizes: Sequence[int]) -> dict[int, dict[str, float]]:
    """Measure a sweep for each number of cells."""
    data = write_rows(folder / "few.jsonl", range(5))
    found = {}
    for size in sizes:
        progress(f"{size:,} cells")
        home = folder / f"cells {size}"
        words = (f"data.path={data}", "data=jsonl", "data.id=id", "scoring=none", f"runs_dir={home / 'runs'}")
        found[size] = measured(home, "run", *NONE, *words, "-m", f"sampling.seed=range({size})")
        found[size]["disk"] = _bytes(home) / size
    return found


def measured(home: Path, *words: str) -> dict[str, float]:
    """Run a command to its end. Return wall and CPU seconds, and the memory of its process in MB. Raises RuntimeError."""
    home.mkdir(parents=True, exist_ok=True)
    env = environment({"OSTINATO_HOME": str(home), "PYTHONPATH": str(Path.cwd())})
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-P", "-m", "runner", *words], cwd=home, env=env, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{said.read()[-2000:].decode()}")
    return {
        "wall_s": time.perf_counter() - began,
        "cpu_s": used.ru_utime + used.ru_stime,
        "rss_mb": used.ru_maxrss / 1024,
    }


def _cut(run: Path, lines: int) -> None:
    """Make a run's record what a kill would have left: without its last lines and its summary."""
    file = run / "samples.jsonl"
    size = file.stat().st_size
    with file.open("rb+") as stream:
        stream.seek(max(0, size - 4096 * lines))
        end = stream.read().splitlines(keepends=True)
        stream.truncate(size - sum(map(len, end[-lines:])))
    (run / "summary.json").unlink()
    manifest = run / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"status": "running"}))


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def table(title: str, found: dict[int, dict[str, float]], unit: str) -> str:
    """Return a table: times, the slope beyond the size before as a ratio to the reference's, memory likewise, and disk."""
    sizes = list(found)
    reference = REFERENCE if REFERENCE in found else sizes[-2 if len(sizes) > 2 else -1]
    slopes = dict(_slopes(found))
    heads = [f"{unit}s", "CPU, s", f"CPU per further {unit}, µs", f"of the slope at {reference:,}"]
    heads += ["memory, MB", f"of that at {reference:,}"]
    disk = all("disk" in one for one in found.values())
    heads += [f"disk per {unit}, bytes"] if disk else []
    lines = [f"{title}\n", f"| {' | '.join(heads)} |", f"|{'---:|' * len(heads)}"]
    for size, one in found.items():
        slope = [f"{slopes[size] * 1e6:,.1f}", f"{slopes[size] / slopes[reference]:.2f}"] if size in slopes else ["-", "-"]
        memory = [f"{one['rss_mb']:.0f}", f"{one['rss_mb'] / found[reference]['rss_mb']:.2f}"]
        cells = [f"{size:,}", f"{one['cpu_s']:.2f}", *slope, *memory, *([f"{one['disk']:,.0f}"] if disk else [])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _slopes(found: dict[int, dict[str, float]]) -> Iterator[tuple[int, float]]:
    for before, size in pairwise(found):
        yield size, (found[size]["cpu_s"] - found[before]["cpu_s"]) / (size - before)


# --- the plot


WIDTH, HEIGHT, LEFT, TOP = 560, 340, 70, 20
COLOURS = ("#2563eb", "#059669", "#d97706")


def drawn(lines: dict[str, dict[int, float]]) -> str:
    """Return an SVG of CPU seconds by rows, both on logarithmic axes."""
    points = [(size, value) for line in lines.values() for size, value in line.items()]
    across, up = _span([size for size, _ in points]), _span([value for _, value in points])

    def at(size: float, value: float) -> tuple[float, float]:
        x = LEFT + WIDTH * (math.log10(size) - across[0]) / (across[1] - across[0])
        return x, TOP + HEIGHT * (1 - (math.log10(value) - up[0]) / (up[1] - up[0]))

    parts = [_tick(*at(10**power, 10 ** up[0]), f"{10**power:,}", below=True) for power in range(across[0], across[1] + 1)]
    parts += [_tick(*at(10 ** across[0], 10**power), f"{10.0**power:g} s", below=False) for power in range(up[0], up[1] + 1)]
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        corners = [at(size, value) for size, value in line.items()]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in corners]
        parts.append(f'<text x="{corners[-1][0] + 8:.1f}" y="{corners[-1][1] + 4:.1f}" fill="{colour}">{name}</text>')
    size = f'viewBox="0 0 {LEFT + WIDTH + 170} {TOP + HEIGHT + 50}"'
    told = "rows; CPU seconds of the whole command, both axes logarithmic"
    title = f'<text x="{LEFT}" y="{TOP + HEIGHT + 42}" fill="#444">{told}</text>'
    style = '<rect width="100%" height="100%" fill="#fff"/>'
    body = "\n".join([style, *parts, title])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'


def _span(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten that enclose some values."""
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def _tick(x: float, y: float, text: str, *, below: bool) -> str:
    line = {"x1": x, "y1": TOP, "x2": x, "y2": TOP + HEIGHT} if below else {"x1": LEFT, "y1": y, "x2": LEFT + WIDTH, "y2": y}
    if below:
        place = f'x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle"'
    else:
        place = f'x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end"'
    attributes = " ".join(f'{name}="{value:.1f}"' for name, value in line.items())
    return f'<line {attributes} stroke="#ddd"/><text {place} fill="#444">{text}</text>'


if __name__ == "__main__":
    main()
