"""Data as it lies around: each kind of file gives the same rows, and a file of another kind is told by its first bytes."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import sys

import openpyxl
import polars
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from runner.data import Columns, Selection, open_dataset
from runner.data.formats import FORMATS, kind_of
from runner.errors import DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROWS = [
    {"id": f"r{number}", "question": f"What is {number}?", "score": number / 4, "tags": ["a"] * (number % 3)}
    for number in range(50)
]


def lines(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(folder, name):
    """Write `ROWS` into a file of the kind that its name says, by the tool that people use for it."""
    path, table = folder / name, pa.Table.from_pylist(ROWS)
    if name.endswith(".jsonl"):
        path.write_bytes(lines())
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines()))
    elif name.endswith(".zst"):
        path.write_bytes(zstd.compress(lines()))
    elif name == "pyarrow.parquet":
        parquet.write_table(table, path, row_group_size=7)
    elif name == "polars.parquet":
        polars.DataFrame(ROWS).write_parquet(path)
    elif name == "polars.arrow":
        polars.DataFrame(ROWS).write_ipc(path)
    else:  # files of `datasets` are streams
        with ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table, max_chunksize=11)
    return str(path)


NAMES = ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst", "pyarrow.parquet", "polars.parquet", "polars.arrow", "stream.arrow"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_each_kind_gives_the_same_rows(tmp_path, name, shuffle):
    options = {"columns": Columns(id="id"), "selection": Selection(shuffle=shuffle, seed=3)}
    found = open_dataset("file", path=write(tmp_path, name), **options)
    right = open_dataset("inline", rows=ROWS, **options)
    assert found.fingerprint == right.fingerprint
    assert list(found) == list(right)


@pytest.mark.parametrize("count", [40, 20])
def test_rows_of_a_table_in_another_order_are_held_or_put_aside(tmp_path, monkeypatch, count):
    monkeypatch.setattr("runner.data.numbered.HELD", 30)
    path = write(tmp_path, "pyarrow.parquet")
    options = {"columns": Columns(id="id"), "selection": Selection(shuffle=True, limit=count)}
    assert list(open_dataset("parquet", path=path, **options)) == list(open_dataset("inline", rows=ROWS, **options))


def test_values_of_a_table_become_what_json_has(tmp_path):
    day = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)
    columns = {
        "fine": pa.array([1_000_000_000], pa.timestamp("ns")),
        "nested": pa.array([[{"at": 1_000}]], pa.list_(pa.struct([("at", pa.timestamp("ns", "UTC"))]))),
        "day": [day.date()],
        "zoned": pa.array([day], pa.timestamp("us", "UTC")),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "word": pa.array(["red"]).dictionary_encode(),
        "price": [decimal.Decimal("1.50")],
        "bytes": [b"ab"],
        "missing": [float("nan")],
        "none": pa.array([None], pa.string()),
    }
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    (row,) = open_dataset("parquet", path=str(tmp_path / "x.parquet"))
    assert row.fields == {
        "fine": "1970-01-01T00:00:01",
        "nested": [{"at": "1970-01-01T00:00:00.000001Z"}],
        "day": "2026-11-30",
        "zoned": "2026-11-30T12:00:00Z",
        "map": {"k": 1},
        "word": "red",
        "price": "1.50",
        "bytes": "YWI=",
        "missing": None,
        "none": None,
    }


def test_a_saved_dataset_is_read_and_its_splits_are_named(tmp_path):
    for number in (0, 1):  # as `Dataset.save_to_disk` does (datasets 4)
        with ipc.new_stream(str(tmp_path / f"data-{number}.arrow"), pa.Table.from_pylist(ROWS[:2]).schema) as stream:
            stream.write_table(pa.Table.from_pylist(ROWS[number * 25 : number * 25 + 25]))
    (tmp_path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}]})
    )
    assert [row.fields for row in open_dataset("file", path=str(tmp_path))] == ROWS
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"holds several splits; name one: .*train, .*test"):
        open_dataset("arrow", path=str(tmp_path))
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="not a saved dataset"):
        open_dataset("arrow", path=str(tmp_path / "other"))


def workbook(path, *rows, title="Sheet"):
    book = openpyxl.Workbook()
    book.active.title = title
    for number, row in enumerate(rows, 1):
        for column, value in enumerate(row, 1):
            book.active.cell(number, column, value)
    book.save(path)
    return str(path)


def test_a_sheet_is_read_without_its_blank_rows(tmp_path):
    path = workbook(tmp_path / "x.xlsx", [], ["question", "n", "day"], ["a", 3, datetime.date(2026, 1, 2)], [], ["b", 2.5, None])
    found = open_dataset("file", path=path)
    first = {"question": "a", "n": 3, "day": "2026-01-02"}
    assert [row.fields for row in found] == [first, {"question": "b", "n": 2.5, "day": None}]
    assert found.remarks == ["1 blank row is left out"]


@pytest.mark.parametrize(
    ("rows", "sheet", "message"),
    [
        ([["a", None], [1, 2]], None, "column 2 has values and no name in the header"),
        ([["a", "a"], [1, 2]], None, "the header names 'a' more than once"),
        ([["a"], [1]], "Shet", r"has no sheet 'Shet'; did you mean 'Sheet'\? its sheets are 'Sheet'"),
        ([], None, "is empty: it has no rows"),
        ([["a"]], None, "there are no rows"),
    ],
)
def test_a_sheet_that_cannot_be_used_says_why(tmp_path, rows, sheet, message):
    with pytest.raises(DataError, match=message):
        open_dataset("xlsx", path=workbook(tmp_path / "x.xlsx", *rows), sheet=sheet)


def test_several_files_are_one_dataset(tmp_path):
    (tmp_path / "b.jsonl").write_bytes(lines(ROWS[20:]))
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS[:20]))
    for selection in (Selection(), Selection(shuffle=True), Selection(span=(15, 30))):
        options = {"columns": Columns(id="id"), "selection": selection}
        right = list(open_dataset("inline", rows=ROWS, **options))
        assert list(open_dataset("jsonl", path=str(tmp_path / "*.jsonl"), **options)) == right
        assert list(open_dataset("file", path=[str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], **options)) == right
    (tmp_path / "c.jsonl").write_text('{"id": "r3"}\n')
    with pytest.raises(DataError, match=r"c\.jsonl, line 1: the id 'r3' is already used in .*a\.jsonl, line 4"):
        open_dataset("file", path=str(tmp_path / "?.jsonl"), columns=Columns(id="id"))
    with pytest.raises(DataError, match=r"\*\.csv: no file matches"):
        open_dataset("file", path=str(tmp_path / "*.csv"))


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("csv", "pyarrow.parquet", "is not text: use data=parquet"),
        ("jsonl", "stream.arrow", "is not text: use data=arrow"),
        ("json", "polars.arrow", "is not text: use data=arrow"),
        ("parquet", "x.jsonl", r"is not of this kind \(data=parquet\): use data=jsonl"),
        ("arrow", "pyarrow.parquet", r"is not of this kind \(data=arrow\): use data=parquet"),
        ("xlsx", "pyarrow.parquet", r"is not of this kind \(data=xlsx\): use data=parquet"),
        ("json", "x.jsonl", "a file with one JSON object per line is data=jsonl"),
    ],
)
def test_a_file_of_another_kind_is_told(tmp_path, kind, name, message):
    with pytest.raises(DataError, match=message):
        open_dataset(kind, path=write(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'[{"a": 1}]', "a file with one JSON list is data=json"),
        ("x.jsonl", b'[\n{"a": 1}\n]', "a file with one JSON list is data=json"),
        ("x.jsonl", gzip.compress(b'{"a": 1}', mtime=0), r"is packed, and its name does not say so: let it end in \.gz"),
        ("x.jsonl.zst", zstd.compress(lines())[:-9], "cannot be read: Compressed file ended"),
        ("x.parquet", b"PAR1 and more", "is not Parquet that can be read"),
        ("x.arrow", b"ARROW1 and more", "is not Arrow that can be read"),
        ("x.xlsx", b"PK\x03\x04 and more", "is not a workbook that can be read"),
        ("x.dat", b"a,b", "its name does not say what it holds"),
    ],
)
def test_a_broken_file_says_what_to_do(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_dataset("file", path=str(tmp_path / name))


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: f"{row.kind} {row.source}")
def test_each_format_is_told_by_its_name(row):
    assert [kind_of(f"some.thing{ending.upper()}.gz") for ending in row.endings] == [row.kind] * len(row.endings)


LEVELS = [{"id": number, "level": "hard" if number % 4 == 0 else "easy", "answers": {"length": number}} for number in range(40)]


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({"where": 'level == "hard" and answers.length > 20'}, range(24, 40, 4)),
        ({"where": "id in [3, 1]"}, [1, 3]),
        ({"ids": frozenset({"7", "2"})}, [2, 7]),
        ({"span": (5, 8)}, [5, 6, 7]),
        ({"shard": (2, 10)}, [1, 11, 21, 31]),
        ({"where": 'level == "hard"', "span": (1, 9), "shard": (1, 2), "limit": 2}, [4, 12]),
    ],
)
def test_rows_are_selected(chosen, ids):
    rows = open_dataset("inline", rows=LEVELS, columns=Columns(id="id"), selection=Selection(**chosen))
    assert list(rows.ids()) == [str(one) for one in ids]


def test_shards_are_all_rows_once():
    parts = [
        open_dataset("inline", rows=LEVELS, columns=Columns(id="id"), selection=Selection(shard=(n, 7))) for n in range(1, 8)
    ]
    assert sorted(int(one) for part in parts for one in part.ids()) == list(range(40))


def test_a_sample_is_drawn_by_its_seed_and_keeps_the_shares_of_a_column():
    drawn = [
        [row.fields for row in open_dataset("inline", rows=LEVELS, columns=Columns(id="id"), selection=Selection(**chosen))]
        for chosen in ({"sample": 10}, {"sample": 10, "seed": 1}, {"sample": 20, "stratify": "level"})
    ]
    assert drawn[0] != drawn[1]
    assert [len(rows) for rows in drawn] == [10, 10, 20]
    assert all(rows == sorted(rows, key=lambda row: row["id"]) for rows in drawn)
    assert [row["level"] for row in drawn[2]].count("hard") == 5


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"where": 'level == "none"'}, "picks none of the 40 rows"),
        ({"where": "levl == 1"}, "there is no field 'levl'; did you mean 'level'"),
        ({"ids": frozenset({"99"})}, "has no row '99'"),
        ({"span": (50, 60)}, "leaves none of the 40 rows"),
        ({"span": (3, 3)}, "with start before end"),
        ({"shard": (6, 5)}, "i/n with i from 1 to n"),
        ({"sample": 3, "stratify": "levels"}, "no column 'levels', which data.stratify names; did you mean 'level'"),
        ({"stratify": "level"}, "data.stratify needs data.sample"),
    ],
)
def test_a_selection_that_cannot_be_made_says_why(chosen, message):
    with pytest.raises(Exception, match=message):
        open_dataset("inline", rows=LEVELS, columns=Columns(id="id"), selection=Selection(**chosen))


def test_columns_reach_into_values_and_are_made_by_functions():
    rows = [{"qa": {"answers": [{"text": "a"}, {"text": "b"}]}, "n": 2}]
    mapping = {"all": "qa.answers.text", "first": "qa.answers.0.text", "twice": lambda fields: fields["n"] * 2}
    (row,) = open_dataset("inline", rows=rows, columns=Columns(target="all", mapping=mapping))
    assert (row.target, row.fields["first"], row.fields["twice"]) == (["a", "b"], "a", 4)
    with pytest.raises(DataError, match=r"'qa' has nothing named 'answer', which data.columns.all=qa.answer.text names"):
        open_dataset("inline", rows=rows, columns=Columns(mapping={"all": "qa.answer.text"}))


def test_repeated_rows_are_remarked_on():
    found = open_dataset("inline", rows=[{"a": 1}, {"a": 2}, {"a": 1}, {"a": 1}])
    assert found.remarks == ["2 rows are the same as an earlier one"]
