"""Rows: how fast a million rows are planned from Parquet and from JSON lines, and how much memory it takes.

python -m tests.bench.rows [--quick] [--record]
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.harness import Column, Contender, interleaved, parser, publish, repeats, table

FLAT = {"question": "What is {} + {}? " * 4, "answer": "It is a sum. " * 9, "level": 3}
NESTED = {"question": "What is {} + {}? " * 4, "context": {"title": "sums", "parts": ["one", "two", "three"]}, "level": 3}

RATE = Column("rows/s", lambda one: one["calls"] / one["cpu_s"])
MEMORY = Column("peak memory, MB", lambda one: one["rss_mb"])
CPU = Column("client CPU, s", lambda one: one["cpu_s"], digits=2)


def main() -> None:
    """Measure and print; called with a file, read it in this process."""
    if len(sys.argv) == 3 and sys.argv[1] == "--read":
        sys.stdout.write(json.dumps(read(sys.argv[2])))
        return
    args = parser(__doc__).parse_args()
    publish(args, "Rows of files", measured(10_000 if args.quick else 1_000_000, repeats(args, full=3)))


def measured(rows: int, times: int) -> str:
    """Plan runs on the same rows from files of both kinds."""
    with tempfile.TemporaryDirectory() as folder:
        for name, row in (("flat", FLAT), ("nested", NESTED)):
            write(Path(folder), name, row, rows)
        kinds = {"JSON lines": "jsonl", "Parquet": "parquet"}
        files = {f"{label}, {name}": f"{name}.{kind}" for name in ("flat", "nested") for label, kind in kinds.items()}
        here = [sys.executable, "-m", "tests.bench.rows", "--read"]
        contenders = [Contender(label, [*here, f"{folder}/{file}"]) for label, file in files.items()]
        results = interleaved(contenders, times)
    return f"{rows:,} rows; one process each.\n\n" + table(
        results, [CPU, RATE, MEMORY], ratio=RATE, references=["JSON lines, flat", "JSON lines, nested"], cost=False
    )


def write(folder: Path, name: str, row: dict[str, Any], rows: int) -> None:
    """Write both files of a kind of row, a batch at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    writer = None
    with (folder / f"{name}.jsonl").open("w") as lines:
        for start in range(0, rows, 10_000):
            batch = [{"id": f"r{n}", **row, "question": row["question"].format(*[n] * 8)} for n in range(start, start + 10_000)]
            lines.writelines(json.dumps(row) + "\n" for row in batch)
            whole = pa.Table.from_pylist(batch)
            writer = writer or parquet.ParquetWriter(folder / f"{name}.parquet", whole.schema)
            writer.write_table(whole)
    assert writer is not None
    writer.close()


def read(path: str) -> dict[str, float]:
    """Plan a run on the rows of a file: open and check them, and look each one up in an empty cache."""
    from runner.config.compose import compose
    from runner.experiment.experiment import Experiment
    from runner.experiment.prepared import prepare

    with tempfile.TemporaryDirectory() as folder:
        where = [f"runs_dir={folder}/runs", f"cache.dir={folder}/cache", "data=file", f"data.path={path}", "data.id=id"]
        config = compose(["model=fake", "prompt.user={{ question }}", "scoring=none", *where]).config()
        began = time.process_time()
        experiment = Experiment.create(prepare(config))
        experiment.plan()
        cpu = time.process_time() - began
        owed = experiment.owed
        experiment.record.close()
    return {"calls": owed, "cpu_s": cpu, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    main()
