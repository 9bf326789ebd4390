"""Have other tools write the same rows into files of each kind, and read them: the rows and their ids must be the same.

    python -m tests.peers.files [--env FOLDER] [--model GSM8K]

It makes an environment of its own with pandas, polars, duckdb and datasets (minutes, and some 700 MB; kept in FOLDER), and has it
write `ROWS` as each tool does. It exits with 1 if a file is read otherwise than the rows stand here. With ``--model``, rows of
GSM8K (its ``test.jsonl``) are asked of the embedded model from a Parquet file. Outside CI.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from runner.data import Columns, open_dataset

PACKAGES = ["pandas", "polars", "duckdb", "datasets", "pyarrow", "openpyxl"]

ROWS: list[dict[str, Any]] = [
    {"id": f"r{n}", "question": text, "score": n / 4, "count": n, "right": n % 2 == 0, "note": None if n % 3 else "seen"}
    for n, text in enumerate(
        ["What?", "Größe, über?", 'a "quoted", one', "two\nlines", "日本語", "", "012", "1e3", "NA", "true"] * 20
    )
]

NESTED: list[dict[str, Any]] = [
    {"id": f"n{n}", "answers": {"text": [f"a{n}", "b"], "start": [n, 1]}, "turns": [{"role": "user", "content": f"hi {n}"}]}
    for n in range(200)
]

WRITE = """
import json, sys
from pathlib import Path
import datasets, duckdb, pandas, polars
datasets.disable_progress_bars()
folder = Path(sys.argv[1])
for name in ("flat", "nested"):
    rows = json.loads((folder / f"{name}.json").read_text())
    frame, table = pandas.DataFrame(rows), datasets.Dataset.from_list(rows)
    other = polars.DataFrame(rows, infer_schema_length=None)
    frame.to_parquet(folder / f"{name}.pandas.parquet")
    frame.to_json(folder / f"{name}.pandas.jsonl", orient="records", lines=True, force_ascii=False)
    frame.to_json(folder / f"{name}.pandas.jsonl.gz", orient="records", lines=True)
    frame.to_json(folder / f"{name}.pandas.json", orient="records")
    frame.to_feather(folder / f"{name}.pandas.feather")
    other.write_parquet(folder / f"{name}.polars.parquet")
    other.write_ndjson(folder / f"{name}.polars.jsonl")
    other.write_ipc(folder / f"{name}.polars.arrow")
    other.write_json(folder / f"{name}.polars.json")
    duckdb.sql(f"COPY (SELECT * FROM frame) TO '{folder}/{name}.duckdb.parquet' (FORMAT parquet, COMPRESSION zstd)")
    duckdb.sql(f"COPY (SELECT * FROM frame) TO '{folder}/{name}.duckdb.jsonl' (FORMAT json)")
    table.to_parquet(folder / f"{name}.datasets.parquet")
    table.to_json(folder / f"{name}.datasets.jsonl", force_ascii=False)
    table.save_to_disk(str(folder / f"{name}.datasets"))
    if name == "flat":
        frame.to_excel(folder / "flat.pandas.xlsx", index=False)
        for tool, write in (("pandas", frame), ("polars", other)):
            text = [f"{name}.{tool}.{kind}" for kind in ("csv", "tsv")]
            for path, sign in zip(text, ",\\t"):
                if tool == "pandas":
                    frame.to_csv(folder / path, sep=sign, index=False)
                else:
                    other.write_csv(folder / path, separator=sign)
        duckdb.sql(f"COPY (SELECT * FROM frame) TO '{folder}/flat.duckdb.csv' (HEADER)")
        table.to_csv(folder / "flat.datasets.csv")
"""

AS_TEXT = {
    "pandas": {True: "True", False: "False", None: ""},
    "datasets": {True: "True", False: "False", None: ""},
    "polars": {True: "true", False: "false", None: ""},
    "duckdb": {True: "true", False: "false", None: ""},
}
"""How each tool writes what CSV has no type for. Numbers are compared as numbers."""


def main() -> None:
    """Write, read and compare."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--env", type=Path, default=Path.home() / ".cache" / "ostinato-peers-files")
    arguments.add_argument("--model", type=Path, metavar="GSM8K", help="its test.jsonl")
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, rows in (("flat", ROWS), ("nested", NESTED)):
            (folder / f"{name}.json").write_text(json.dumps(rows))
        subprocess.run([made(args.env), "-c", WRITE, folder], check=True)
        wrong = [problem for path in sorted(folder.iterdir()) for problem in compared(path)]
    print("\n".join(wrong) or "all files are read alike")  # noqa: T201 - a command
    if args.model:
        asked(args.model)
    sys.exit(bool(wrong))


def made(env: Path) -> Path:
    """Return the Python of the environment, made if need be."""
    python = env / "bin" / "python"
    if not python.exists():
        venv.create(env, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def compared(path: Path) -> list[str]:
    """Return how a file is read otherwise than its rows stand here."""
    name, tool = path.name.split(".")[0], path.name.split(".")[1]
    if tool == "json":
        return []
    rows = ROWS if name == "flat" else NESTED
    try:
        data = open_dataset("file", path=str(path), columns=Columns(id="id"))
        found = list(data.records())
    except Exception as error:  # noqa: BLE001 - boundary: reported beside the others
        return [f"{path.name}: {type(error).__name__}: {error}"]
    expected = [as_text(row, tool) for row in rows] if path.suffix in (".csv", ".tsv") else rows
    if path.suffix == ".xlsx":  # a cell without text is empty, whoever wrote it
        expected = [{key: None if value == "" else value for key, value in row.items()} for row in rows]
    alike = [alike_in(one, other) for one, other in zip(found, expected, strict=False)]
    told = [f"{path.name}, row {number}: {found[number]} for {expected[number]}" for number, same in enumerate(alike) if not same]
    if len(found) != len(rows):
        told.append(f"{path.name}: {len(found)} rows for {len(rows)}")
    if not told and path.suffix not in (".csv", ".tsv", ".xlsx"):
        mine = open_dataset("inline", rows=rows)  # ids of content, which every bit of a row decides
        if list(open_dataset("file", path=str(path)).ids()) != list(mine.ids()):
            told.append(f"{path.name}: other ids")
    print(f"{path.name}: {len(found)} rows, {'alike' if not told else f'{len(told)} differ'}")  # noqa: T201 - a command
    return told[:3]


def as_text(row: dict[str, Any], tool: str) -> dict[str, Any]:
    """Return a row as CSV has it."""
    return {
        key: AS_TEXT[tool].get(value, value) if not isinstance(value, int | float) or value is True or value is False else value
        for key, value in row.items()
    }


def alike_in(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Compare a row; what CSV writes of a number is compared as a number."""

    def same(one: Any, other: Any) -> bool:
        if isinstance(one, str) and isinstance(other, int | float) and not isinstance(other, bool):
            return float(one) == other
        return bool(one == other and (type(one) is type(other) or not isinstance(other, bool)))

    return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)


def asked(source: Path) -> None:
    """Ask the embedded model for rows of GSM8K that lie in a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    import runner

    with tempfile.TemporaryDirectory() as place:
        rows = [json.loads(line) for line in source.read_text().splitlines()]
        parquet.write_table(pa.Table.from_pylist(rows), f"{place}/gsm8k.parquet")
        data = [
            "data=file",
            f"data.path={place}/gsm8k.parquet",
            "data.target=answer",
            "data.sample=8",
            "prompt.user={{ question }}",
        ]
        more = [
            "model=smollm2",
            "scoring=numeric",
            "sampling.max_tokens=200",
            "execution.orchestrator=none",
            f"runs_dir={place}/runs",
        ]
        summary = runner.run(overrides=[*data, *more]).summary
        print(f"GSM8K as Parquet: {summary.status}, {summary.rows} rows, {summary.ok} answered, {summary.truncated} truncated")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
