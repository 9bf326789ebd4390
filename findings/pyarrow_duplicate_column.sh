#!/usr/bin/env bash
# pyarrow 26.0.1: to_pylist() of a table with two columns of one name drops the first column.
#
# Expected: an error, as from Table.column("answer"), or both values. Such tables come out of joins and of CSV files with repeated heads.
# Truth: each row is a dict that the columns are written into in order, so the last one wins; nothing is said.
# Why it matters: the expected answers of a dataset can be replaced by another column of the same name.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'pyarrow==26.0.1'
"$work/venv/bin/python" - "$work/rows.parquet" <<'PY'
import sys
from importlib.metadata import version

import pyarrow as pa
import pyarrow.parquet as pq

table = pa.Table.from_arrays([pa.array([1, 2]), pa.array([10, 20])], names=["answer", "answer"])
pq.write_table(table, sys.argv[1])
read = pq.ParquetFile(sys.argv[1]).read()
try:
    told = str(read.column("answer"))
except KeyError as error:
    told = f"KeyError: {error}"
print("pyarrow", version("pyarrow"))
print("columns:", read.schema.names, " column('answer'):", told)
print("to_pylist():", read.to_pylist())
raise SystemExit(0 if read.to_pylist() == [{"answer": 10}, {"answer": 20}] and told.startswith("KeyError") else 1)
PY
