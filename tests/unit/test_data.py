"""Datasets stream in a fixed order with stable ids, and errors name file and line."""

import csv
import gzip
import hashlib
import json
import os
import tracemalloc
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner.data
from runner.errors import ConfigError, DataError
from runner.types import Row
from tests.support.data import dataset

ROWS = [{"q": f"question {n}", "a": str(n), "k": f"id-{n}"} for n in range(7)]


def to_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def to_delimited(rows, delimiter):
    return "".join(delimiter.join(cells) + "\n" for cells in [list(rows[0]), *(row.values() for row in rows)]).encode()


def write(tmp_path, name, content):
    path = tmp_path / name
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


FORMS = {
    "rows.jsonl": to_jsonl(ROWS),
    "rows.jsonl.gz": to_jsonl(ROWS),
    "rows.json": json.dumps(ROWS).encode(),
    "rows.csv": to_delimited(ROWS, ","),
    "rows.csv.gz": to_delimited(ROWS, ","),
    "rows.tsv": to_delimited(ROWS, "\t"),
}


def opened(tmp_path, name, content, **options):
    kind = name.removesuffix(".gz").rpartition(".")[2]
    return dataset(kind, path=write(tmp_path, name, content), **options)


def error_of(tmp_path, name, content, **options):
    with pytest.raises(DataError) as error:
        opened(tmp_path, name, content, **options)
    return str(error.value).replace(str(tmp_path) + "/", "")


# -- every format


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_rows_each_time(tmp_path, form):
    data = opened(tmp_path, form, FORMS[form], id="k", target="a")
    expected = [Row(row["k"], row, row["a"]) for row in ROWS]
    assert list(data) == list(data) == expected
    assert list(data.ids()) == [row["k"] for row in ROWS]
    assert (len(data), data.name, data.columns) == (7, "rows", ("q", "a", "k"))
    assert data.fingerprint == dataset("inline", rows=ROWS, id="k", target="a").fingerprint


@pytest.mark.parametrize("form", FORMS)
def test_every_format_shuffles_alike_and_before_the_limit(tmp_path, form):
    shuffled = opened(tmp_path, form, FORMS[form], id="k", shuffle=True, seed=3)
    assert sorted(shuffled.ids()) == [row["k"] for row in ROWS]
    assert list(shuffled.ids()) == list(dataset("inline", rows=ROWS, id="k", shuffle=True, seed=3).ids())
    kind = form.removesuffix(".gz").rpartition(".")[2]
    limited = dataset(kind, path=f"{tmp_path}/{form}", id="k", shuffle=True, seed=3, limit=4)
    assert list(limited) == list(shuffled)[:4]
    assert len(limited) == 4


@pytest.mark.parametrize("form", FORMS)
def test_every_format_accepts_a_bom_and_windows_line_ends(tmp_path, form):
    content = b"\xef\xbb\xbf" + FORMS[form].replace(b"\n", b"\r\n")
    data = opened(tmp_path, form, content, id="k", target="a")
    assert [(row.id, row.fields) for row in data] == [(row["k"], row) for row in ROWS]
    assert list(opened(tmp_path, form, content, id="k", shuffle=True).ids())


@pytest.mark.parametrize("form", FORMS)
def test_every_format_reports_empty_data(tmp_path, form):
    assert error_of(tmp_path, form, b"") == f"{form} is empty: it has no rows"
    assert error_of(tmp_path, form, b"\xef\xbb\xbf") == f"{form} is empty: it has no rows"


@pytest.mark.parametrize("form", FORMS)
def test_every_format_reports_where_it_is_not_utf8(tmp_path, form):
    bad = FORMS[form].replace(b"question 0", b"caf\xe9 question")
    line = bad.count(b"\n", 0, bad.index(b"\xe9")) + 1
    expected = f"{form}, line {line}: byte {bad.index(0xE9)} (0xe9) is not UTF-8; save the file as UTF-8"
    assert error_of(tmp_path, form, bad) == expected


@pytest.mark.parametrize("form", FORMS)
def test_utf16_is_recognised(tmp_path, form):
    assert "not UTF-8; UTF-16, it seems: save the file as UTF-8" in error_of(
        tmp_path, form, FORMS[form].decode().encode("utf-16")
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_limit_ignores_errors_in_later_rows(tmp_path, form):
    if form == "rows.json":
        pytest.skip("a JSON list is read whole")
    data = opened(tmp_path, form, FORMS[form] + b"{bad\xff,", limit=7)
    assert len(data) == 7


# -- ids, targets, columns, fingerprints


def test_content_ids_are_stable_and_do_not_depend_on_the_order_of_keys_or_on_mapped_names():
    canonical = b'{"a":1,"b":"\xc3\xa9"}'
    rows = [{"b": "é", "a": 1}]
    data = dataset("inline", rows=rows)
    assert list(data.ids()) == [hashlib.sha256(canonical).hexdigest()[:16]] == ["09ad9fd2fb648cb2"]
    assert list(dataset("inline", rows=rows, columns={"c": "a"}).ids()) == list(data.ids())


def test_identical_rows_without_an_id_are_numbered():
    rows = [{"a": 1}, {"a": 2}, {"a": 1}, {"a": 1}]
    ids = list(dataset("inline", rows=rows).ids())
    assert ids == [ids[0], ids[1], f"{ids[0]}-2", f"{ids[0]}-3"]
    assert len(set(ids)) == 4


def test_integer_ids_become_strings():
    assert list(dataset("inline", rows=[{"n": 1}, {"n": "b"}], id="n").ids()) == ["1", "b"]


def test_the_fingerprint_depends_on_the_rows_used_and_their_order():
    data = dataset("inline", rows=[{"b": 1, "a": "x"}, {"b": 2, "a": None}], id="b", target="a")
    lines = b'["1",{"a":"x","b":1},"x"]\n["2",{"a":null,"b":2},null]\n'
    assert data.fingerprint == hashlib.sha256(lines).hexdigest()
    prints = {
        dataset("inline", rows=ROWS, **options).fingerprint
        for options in [
            {},
            {"limit": 3},
            {"shuffle": True},
            {"shuffle": True, "seed": 1},
            {"id": "k"},
            {"target": "a"},
            {"columns": {"c": "a"}},
        ]
    }
    assert len(prints) == 7


def test_id_and_target_may_use_mapped_column_names():
    data = dataset("inline", rows=[{"Question Text": "q", "n": 1}], columns={"question": "Question Text", "key": "n"}, id="key")
    assert list(data) == [Row("1", {"Question Text": "q", "n": 1, "question": "q", "key": 1})]
    assert data.columns == ("Question Text", "n", "question", "key")


def test_columns_are_collected_from_all_rows(tmp_path):
    assert opened(tmp_path, "x.jsonl", '{"a":1}\n{"a":1,"b":2}\n').columns == ("a", "b")


def test_data_is_named_after_its_file():
    assert dataset("inline", rows=[{"a": 1}]).name == "inline"
    assert dataset("inline", rows=[{"a": 1}], name="mine").name == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"id": "idd"},
            "x.jsonl, line 2 has no column 'idd', which data.id names; did you mean 'id'? the columns are 'id', 'answer'",
        ),
        (
            {"target": "anser"},
            "x.jsonl, line 2 has no column 'anser', which data.target names; did you mean 'answer'? the columns are",
        ),
        (
            {"columns": {"q": "zzz"}},
            "x.jsonl, line 2 has no column 'zzz', which data.columns.q names; the columns are 'id', 'answer'",
        ),
    ],
)
def test_a_missing_column_is_named_with_those_that_exist(tmp_path, options, message):
    lines = '{"idd": 1, "anser": 2, "zzz": 3}\n{"id": 1, "answer": 2}\n'
    assert error_of(tmp_path, "x.jsonl", lines, **options).startswith(message)


@pytest.mark.parametrize(
    ("value", "what"),
    [("null", "empty"), ('""', "empty"), ("1.5", "1.5, a float"), ("true", "True, a bool"), ("[1]", "[1], a list")],
)
def test_an_id_must_be_a_string_or_an_integer(tmp_path, value, what):
    message = error_of(tmp_path, "x.jsonl", f'{{"id": "a"}}\n\n{{"id": {value}}}\n', id="id")
    assert message == f"x.jsonl, line 3: the id (id) is {what}; give each row a string or an integer"


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_duplicate_id_names_both_lines(tmp_path, shuffle):
    message = error_of(tmp_path, "x.csv", 'id,t\n1,"a\nb"\n2,c\n1,d\n', id="id", shuffle=shuffle)
    lines = ("x.csv, line 2", "x.csv, line 5")
    later, earlier = lines if shuffle and message.startswith(lines[0]) else lines[::-1]
    assert message == f"{later}: the id '1' is already used in {earlier}; ids must be unique"


def test_ids_with_equal_hashes_are_not_duplicates():
    data = dataset("inline", rows=[{"id": str(n)} for n in range(3)], id="id")
    data._find_repeated(array("q", [hash("0"), hash("1"), hash("0")]))
    assert list(data.ids()) == ["0", "1", "2"]


def test_limit_must_be_positive():
    with pytest.raises(DataError, match=r"data\.limit is 0"):
        dataset("inline", rows=ROWS, limit=0)


def test_a_shuffle_depends_only_on_the_seed():
    rows = [{"n": n} for n in range(10)]
    assert list(dataset("inline", rows=rows, id="n", shuffle=True).ids()) == list("7815342096")
    orders = {seed: tuple(dataset("inline", rows=rows, id="n", shuffle=True, seed=seed).ids()) for seed in range(3)}
    assert len(set(orders.values())) == 3


# -- files


def test_a_missing_file_suggests_a_similar_name(tmp_path):
    write(tmp_path, "train.jsonl", "{}")
    with pytest.raises(DataError) as error:
        dataset("jsonl", path=f"{tmp_path}/trian.jsonl")
    assert str(error.value) == f"{tmp_path}/trian.jsonl: no such file; did you mean '{tmp_path}/train.jsonl'?"
    with pytest.raises(DataError, match=r"no such file \(looked in"):
        dataset("jsonl", path=f"{tmp_path}/no/such.jsonl")


def test_directories_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    for path, message in [
        (tmp_path, "is a directory"),
        (tmp_path / "pipe.jsonl", "not a regular file"),
        (tmp_path / "loop.jsonl", "loop"),
    ]:
        with pytest.raises(DataError, match=message):
            dataset("jsonl", path=str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path):
    path = write(tmp_path, "x.jsonl", "{}")
    Path(path).chmod(0)
    with pytest.raises(DataError, match=r"x\.jsonl cannot be read: Permission denied"):
        dataset("jsonl", path=path)


def test_a_broken_gzip_is_refused(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(b"not gzip")
    with pytest.raises(DataError, match="cannot be read: Not a gzipped file"):
        dataset("jsonl", path=str(path))
    path.write_bytes(gzip.compress(to_jsonl(ROWS * 1000))[:-20])
    with pytest.raises(DataError, match=r"x\.jsonl\.gz cannot be read"):
        dataset("jsonl", path=str(path))


def test_a_file_that_changes_while_in_use_is_refused(tmp_path):
    data = opened(tmp_path, "x.jsonl", '{"a":1}\n')
    write(tmp_path, "x.jsonl", '{"a":1}\n{"a":2}\n')
    with pytest.raises(DataError, match=r"x\.jsonl has changed since"):
        list(data)


@pytest.mark.parametrize(
    ("kind", "options"), [("inline", {}), ("inline", {"rows": [], "path": "x"}), ("csv", {}), ("csv", {"path": "x", "rows": []})]
)
def test_path_and_rows_must_fit_the_kind(kind, options):
    with pytest.raises(ConfigError, match=f"data.kind is {kind}: give"):
        dataset(kind, **options)


# -- jsonl and json


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": 1', "x.jsonl, line 3, column 8: not JSON: Expecting ',' delimiter"),
        ('{"a": nope}', "x.jsonl, line 3, column 7: not JSON: Expecting value"),
        ('{"a": 1} {"a": 2}', "x.jsonl, line 3, column 10: not JSON: Extra data"),
        ("[1, 2]", 'x.jsonl, line 3 is a list, where each line must be an object such as {"question": ...}'),
        ('"text"', 'x.jsonl, line 3 is a string, where each line must be an object such as {"question": ...}'),
        ("null", 'x.jsonl, line 3 is null, where each line must be an object such as {"question": ...}'),
        ('{"a": 1e999}', "x.jsonl, line 3, column 1: not JSON: Number out of range"),
        ('{"a": NaN}', "x.jsonl, line 3, column 1: not JSON: invalid character (byte 6) (there is no NaN or Infinity in JSON)"),
        ('{"a": ' + "[" * 100_000, "x.jsonl, line 3, column 1: nested too deeply to be read"),
    ],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_bad_line_is_named_with_its_reason(tmp_path, line, message, shuffle):
    assert error_of(tmp_path, "x.jsonl", f'{{"a": 1}}\n \n{line}\n{{"a": 2}}', shuffle=shuffle).startswith(message)


def test_blank_lines_are_skipped_and_the_last_line_may_lack_its_end(tmp_path):
    for shuffle in (False, True):
        data = opened(tmp_path, "x.jsonl", '\n{"a":1}\n\r\n\t\n{"a":2}', shuffle=shuffle)
        assert sorted(row.fields["a"] for row in data) == [1, 2]
    assert error_of(tmp_path, "x.jsonl", "\n\n") == "x.jsonl, line 1: there are no rows in x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": []}', "x.json is an object, where a list of objects is needed: [{...}, {...}]"),
        ("[]", "x.json is an empty list: it has no rows"),
        ('[{"a": 1},\n 3]', "x.json, item 2 is not an object with column names as keys: 3"),
        ('[\n{"a": 1},\n{"a": nope}\n]', "x.json, line 3, column 7: not JSON: Expecting value"),
        ('[{"a": 1}', "x.json, line 1, column 10: not JSON: Expecting ',' delimiter"),
    ],
)
def test_a_bad_json_file_is_named_with_its_reason(tmp_path, text, message):
    assert error_of(tmp_path, "x.json", text) == message


def test_inline_rows_must_be_json():
    for rows, message in [
        ([], "data.rows is an empty list"),
        ([{"a": 1}, ["b"]], "data.rows, item 2 is not an object"),
        ([{1: "a"}], "data.rows, item 1 is not an object with column names as keys"),
        ([{"a": object()}], "data.rows, item 1 holds a value that JSON cannot hold"),
    ]:
        with pytest.raises(DataError, match=message):
            dataset("inline", rows=rows)


# -- csv


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), shuffle=st.booleans())
def test_csv_reads_back_what_csv_writes(tmp_path_factory, rows, shuffle):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["a", "b"], *rows])
    data = dataset("csv", path=str(path), shuffle=shuffle)
    assert sorted((row.fields["a"], row.fields["b"]) for row in data) == sorted(rows)


def test_large_and_multiline_values_are_read(tmp_path):
    long = "x" * 300_000
    data = opened(tmp_path, "x.csv", f'a,b\n"{long}","1\n2 ""quoted"""\n\nshort,3\n', shuffle=True)
    assert sorted((len(row.fields["a"]), row.fields["b"]) for row in data) == [(5, "3"), (300_000, '1\n2 "quoted"')]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'a,b\n"1\n2",3\n4\n',
            "x.csv, line 4 has 1 values, where the header names 2 columns; a value that holds ',' must be quoted",
        ),
        ("a,b\n1,2,3\n", "x.csv, line 2 has 3 values, where the header names 2 columns; a value that holds ',' must be quoted"),
        ("a,b,a\n1,2,3\n", "x.csv, line 1: the header names 'a' more than once; rename one"),
        ("a,b\n", "x.csv, line 1: there are no rows in x"),
        ('a,b\n1,"2\n', 'x.csv, line 2: unexpected end of data; is a quote (") missing or not doubled?'),
    ],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_bad_csv_is_named_with_its_reason(tmp_path, text, message, shuffle):
    assert error_of(tmp_path, "x.csv", text, shuffle=shuffle) == message


# -- size


@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_are_streamed_and_not_kept(tmp_path, shuffle):
    rows = 20_000
    path = write(tmp_path, "big.jsonl", "".join(f'{{"id": {n}, "text": "{n:0200d}"}}\n' for n in range(rows)))
    tracemalloc.start()
    data = dataset("jsonl", path=path, id="id", shuffle=shuffle)
    assert sum(1 for _ in data) == rows
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * rows, "the rows themselves would take five times as much"


def test_the_package_exports_its_names():
    assert all(hasattr(runner.data, name) for name in runner.data.__all__)
