"""Any bytes in a data file give rows, the same ones each time, or a DataError that names the file."""

import gzip
import json
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.errors import DataError
from tests.fuzz.depth import examples
from tests.fuzz.values import json_values
from tests.support.data import dataset

pytestmark = pytest.mark.usefixtures("in_tmp")

KINDS = ["jsonl", "json", "csv", "tsv"]
cells = st.text(max_size=6) | st.sampled_from(["a,b", "a\tb", '"', '""', "\r", "\n", "\x00", "id", "question"])
tables = st.lists(st.lists(cells, min_size=1, max_size=3), max_size=4)
rows = st.lists(
    st.dictionaries(st.sampled_from(["id", "question", ""]) | st.text(max_size=4), json_values(), max_size=3), max_size=4
)


def torn(data, seed):
    """Draw `data` with bytes cut off, changed or inserted."""
    dice = random.Random(seed)
    for _ in range(dice.randint(0, 2)):
        at = dice.randrange(len(data) + 1)
        data = dice.choice([data[:at], data[at:], data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]])
    return data


def packed(data, seed):
    return torn(gzip.compress(data, mtime=0), seed)


whole = st.one_of(
    rows.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    rows.map(lambda value: b"\n".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") for row in value)),
    tables.map(lambda table: "\n".join(",".join(row) for row in table).encode("utf-8", "surrogatepass")),
    tables.map(lambda table: "\r\n".join("\t".join(row) for row in table).encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
)
files = st.builds(torn, whole, st.integers(0, 2**32))


@examples(400)
@given(
    st.sampled_from(KINDS),
    files,
    st.sampled_from([None, "id", ""]),
    st.sampled_from([None, "question", ""]),
    st.booleans(),
    st.none() | st.integers(0, 2**32),
)
@example("jsonl", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, None, False, None)
@example("json", b"[" * 100_000 + b"]" * 100_000, None, None, False, None)
@example("jsonl", b'{"a": 1e400}', None, None, False, None)
@example("json", b'[{"a": ' + b"9" * 5000 + b"}]", None, None, False, None)
@example("jsonl", b'{"a": "\\ud83d"}', None, None, False, None)
@example("jsonl", b'{"\\ud83d": 1}', None, None, True, None)
@example("csv", b"a\n\x00\n", None, None, False, None)
@example("csv", b'a\n"', None, None, True, None)
@example("csv", b"\r\r\r", None, None, True, None)
@example("csv", b"a\rb\rc", None, None, True, None)
@example("tsv", b"\xef\xbb\xbf", None, None, False, None)
@example("jsonl", b"\xef\xbb\xbf\n", None, None, False, None)
@example("jsonl", b"x" * 40, None, None, True, 7)
def test_any_file_gives_rows_or_an_error(kind, content, id_column, target, shuffle, gzipped):
    file = Path(f"data.{kind}") if gzipped is None else Path(f"data.{kind}.gz")
    file.write_bytes(content if gzipped is None else packed(content, gzipped))
    said = ""
    try:
        data = dataset(kind, path=str(file), id=id_column, target=target, shuffle=shuffle)
        read = list(data)
    except DataError as error:
        said = str(error)
    if said:
        assert str(file) in said
        said.encode()
        return
    assert len(read) == len(data) > 0
    assert len({row.id for row in read}) == len(read)
    assert list(data) == read
    again = dataset(kind, path=str(file), id=id_column, target=target, shuffle=shuffle)
    assert (again.fingerprint, list(again)) == (data.fingerprint, read)
    for row in read:
        msgspec.json.encode([row.id, row.fields, row.target])  # as the record writes it
