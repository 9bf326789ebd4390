#!/usr/bin/env bash
# polars 2.1.0 with fastexcel 0.21.0: a text below a hundred numbers is read as null.
#
# Expected: a column of text, or an error, where a spreadsheet has "n/a" or "12 kg" in one cell of a column of numbers.
# Truth: the type is taken from the first 100 rows, and cells that do not fit it are null, without a warning.
# Why it matters: rows of a dataset lose their expected answers, and the rows at the top look right.
# Seen on 2026-11-30. Exits 1 if it is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'polars==2.1.0' 'fastexcel==0.21.0' 'openpyxl==3.1.5'
"$work/venv/bin/python" - "$work/rows.xlsx" <<'PY'
import sys
from importlib.metadata import version

import openpyxl
import polars

book = openpyxl.Workbook()
book.active.append(["id", "answer"])
for number in range(150):
    book.active.append([f"r{number}", number])
book.active.append(["r150", "12 kg"])
book.save(sys.argv[1])
guessed = polars.read_excel(sys.argv[1])["answer"]
whole = polars.read_excel(sys.argv[1], infer_schema_length=None)["answer"]
print("polars", version("polars"), "fastexcel", version("fastexcel"))
print("last cell:", repr(guessed[-1]), " with infer_schema_length=None:", repr(whole[-1]))
raise SystemExit(0 if guessed[-1] is None and whole[-1] == "12 kg" else 1)
PY
