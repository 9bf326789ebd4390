"""Scorers give the scores that their docstrings promise, and the summary follows the textbook."""

import hashlib
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner.scoring
from runner.errors import ConfigError, DataError
from runner.finetune.data.rows import normalised
from runner.scoring import F1, Choice, Contains, Exact, JsonMatch, Numeric, Python, Regex, summarise, summarise_by_row
from runner.scoring.text import words
from runner.types import Score


def score(scorer, output, target, fields=None, parsed=None):
    value = scorer.score(output, target, fields or {}, parsed)
    assert type(value) is float
    return value


@pytest.mark.parametrize(
    ("scorer", "output", "target", "expected"),
    [
        (Exact(), " Paris\n", "Paris", 1),
        (Exact(), "paris", "Paris", 0),
        (Exact(ignore_case=True), "STRASSE", "straße", 1),
        (Exact(strip=False), "Paris\n", "Paris", 0),
        (Exact(), "12", 12, 1),
        (Exact(), "Lyon", ["Paris", "Lyon"], 1),
        (Exact(), "Nice", ["Paris", "Lyon"], 0),
        (Contains(), "It is PARIS.", "paris", 1),
        (Contains(ignore_case=False), "It is PARIS.", "paris", 0),
        (Contains(), "concatenate", "cat", 1),
        (Contains(whole_word=True), "concatenate", "cat", 0),
        (Contains(whole_word=True), "the _cat_.", "cat", 1),
        (Contains(whole_word=True), "I like C++, too", "c++", 1),
        (Contains(), "a", ["b", "a"], 1),
        (Regex(r"^\d+$"), "12", None, 1),
        (Regex(r"^\d+$"), "12 eggs", None, 0),
        (Regex("yes", ignore_case=True), "YES", "ignored", 1),
        (Regex(), "code 404", r"\b40\d\b", 1),
        (Regex(), "code 404", ["x", "4+"], 1),
    ],
)
def test_text_scorers_score_as_documented(scorer, output, target, expected):
    assert score(scorer, output, target) == expected


LABELS = ["positive", "negative", "very negative"]


@pytest.mark.parametrize(
    ("options", "output", "target", "expected"),
    [
        ({}, "Positive.", "positive", 1),
        ({}, "It is **very negative**!", "very negative", 1),
        ({}, "It is very negative", "negative", 0),
        ({}, "unpositive", "positive", 0),
        ({}, "no idea", "positive", 0),
        ({}, "positive, not negative", "positive", 1),
        ({"pick": "last"}, "not positive but negative", "negative", 1),
        ({"pick": "only"}, "positive, not negative", "positive", 0),
        ({"pick": "only"}, "positive, yes: Positive", "positive", 1),
        ({}, "negative", ["positive", "Negative"], 1),
        ({"ignore_case": False}, "Positive", "positive", 0),
    ],
)
def test_choice_finds_the_label(options, output, target, expected):
    assert score(Choice(LABELS, **options), output, target) == expected


def test_choice_tells_a_letter_from_a_word_when_case_counts():
    letters = Choice(["A", "B"], ignore_case=False)
    assert letters.label("This is a hard one. (B)") == "B"
    assert Choice(["A", "B"]).label("This is a hard one. (B)") == "B"


def test_choice_refuses_bad_labels_and_targets():
    for labels in (None, [], ["one"], ["Yes", "yes"], ["", "x"]):
        with pytest.raises(ConfigError, match=r"scoring\.labels"):
            Choice(labels)
    with pytest.raises(DataError, match="'neutral' is none of the labels"):
        score(Choice(LABELS), "positive", "neutral")


GSM8K = "She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18"


@pytest.mark.parametrize(
    ("output", "target", "expected"),
    [
        ("So the answer is $18.", GSM8K, 1),
        ("16 - 3 - 4 = <<16-3-4=9>>9", "9", 1),
        ("**18**", 18, 1),
        ("__18__", 18, 1),
        ("it is 17", 18, 0),
        ("no number", 18, 0),
        ("", 18, 0),
        ("1,234,567.50 dollars", 1234567.5, 1),
        ("1, 2, 3", 3, 1),
        ("1,2345", 1.2345, 1),
        ("50%", "50 %", 1),
        ("-7", -7, 1),
        ("\N{MINUS SIGN}7", -7, 1),
        ("-$5", -5, 1),
        ("$-5", -5, 1),
        ("$ 5", 5, 1),
        ("10-3", 3, 0),
        ("10 - 3", 3, 1),
        ("+3", 3, 1),
        ("1.5e-3", 0.0015, 1),
        (".5", 0.5, 1),
        ("so...18", 18, 1),
        ("3/4.", 0.75, 1),
        ("1 1/2 cups", 1.5, 1),
        ("-1/2", -0.5, 1),
        ("5/0", 0, 0),
        ("18 (see x2 and A1.5)", 18, 1),
        ("18th", 18, 1),
        ("1e999", 18, 0),
        ("9" * 5000 + "/3", 18, 0),
        ("12", ["11", "12"], 1),
        ("0.3000001", 0.3, 1),
        ("0.30001", 0.3, 0),
    ],
)
def test_numeric_reads_numbers_in_text(output, target, expected):
    assert score(Numeric(), output, target) == expected


def test_numeric_tolerances_and_extraction():
    assert score(Numeric(extract="first"), "18 of 20", 18) == 1
    assert score(Numeric(tolerance=0.5), "18.4", 18) == 1
    assert score(Numeric(relative=0.1), "109", 100) == 1
    assert score(Numeric(relative=0.1), "111", 100) == 0
    assert score(Numeric(target_pattern=r"#### (\S+)"), "18", "#### 18 (of 20)") == 1
    assert score(Numeric(target_pattern=r"\d+ apples"), "3", "3 apples and 4 pears") == 1
    with pytest.raises(ConfigError, match="not a valid regular expression"):
        Numeric(target_pattern="(")
    with pytest.raises(ConfigError, match="negative"):
        Numeric(tolerance=-1)


@pytest.mark.parametrize("target", ["none here", True, math.nan, 10**400])
def test_numeric_needs_a_number_as_target(target):
    with pytest.raises(DataError, match="no number in the target"):
        score(Numeric(), "1", target)


def test_numeric_target_pattern_must_be_found():
    with pytest.raises(DataError, match="target_pattern is not found"):
        score(Numeric(target_pattern="####"), "1", "18")


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15), st.text("abc .,$%()", max_size=5))
def test_numeric_reads_back_what_python_writes(number, around):
    assert score(Numeric(relative=1e-9), f"it is {number!r} {around}", number) == 1
    assert score(Numeric(tolerance=0.01), f"it is {number:,.2f} {around}", number) == 1


@pytest.mark.parametrize(
    ("keys", "output", "target", "expected"),
    [
        (None, '{"a": 1, "b": [1, 2]}', {"b": [1, 2], "a": 1.0}, 1),
        (None, '{"a": 1}', '{"a": 1}', 1),
        (None, '{"a": true}', {"a": 1}, 0),
        (None, '{"a": [2, 1]}', {"a": [1, 2]}, 0),
        (None, 'Sure: {"a": 1} done', {"a": 1}, 1),
        (None, '```json\n{"a": 1}\n```', {"a": 1}, 1),
        (None, "{oops} [1]", [1], 1),
        (None, "nothing", {"a": 1}, 0),
        (None, "nothing", "null", 0),
        (None, "null", "null", 1),
        (None, "[" * 5000, {"a": 1}, 0),
        (["a"], '{"a": 1, "b": 2}', {"a": 1, "b": 3}, 1),
        (["a", "b"], '{"a": 1, "b": 2}', {"a": 1, "b": 3}, 0),
        (["a"], '{"b": 2}', {"a": None}, 0),
        (["a"], "[1]", {"a": 1}, 0),
    ],
)
def test_json_match_compares_values(keys, output, target, expected):
    assert score(JsonMatch(keys=keys), output, target) == expected


def test_json_match_prefers_what_the_adapter_parsed():
    assert score(JsonMatch(), "garbage", {"a": 1}, parsed={"a": 1}) == 1


def test_json_match_refuses_targets_it_cannot_compare_with():
    with pytest.raises(DataError, match="is not JSON"):
        score(JsonMatch(), "{}", "{a")
    with pytest.raises(DataError, match=r"lacks \['b'\], which scoring\.keys names"):
        score(JsonMatch(keys=["a", "b"]), "{}", {"a": 1})
    with pytest.raises(DataError, match="not an object"):
        score(JsonMatch(keys=["a"]), "{}", [1])


@pytest.mark.parametrize(
    ("output", "target", "expected"),
    [
        ("The cat sat.", "a cat, sat!", 1),
        ("the big black cat", "black dog", 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),
        ("cat cat", "cat", 2 * 0.5 / 1.5),
        ("dog", "cat", 0),
        ("", "cat", 0),
        ("the", "an", 1),
        ("cat", ["dog", "cat"], 1),
        ("1999", 1999, 1),
    ],
)
def test_f1_is_the_overlap_of_words(output, target, expected):
    assert score(F1(), output, target) == pytest.approx(expected)


SCORERS = [Exact(), Contains(), Regex(), Choice(["a", "b"]), Numeric(), JsonMatch(), F1()]


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)
def test_scorers_that_compare_need_a_target(scorer):
    with pytest.raises(DataError, match=f"there is no target, which the scorer '{scorer.name}' compares with"):
        score(scorer, "a", None)


@pytest.mark.parametrize("scorer", [s for s in SCORERS if s.name != "json_match"], ids=lambda scorer: scorer.name)
def test_an_empty_list_is_no_target(scorer):
    with pytest.raises(DataError, match="no target"):
        score(scorer, "a", [])


def test_contains_refuses_an_empty_target():
    with pytest.raises(DataError, match="empty"):
        score(Contains(), "a", "")


def test_invalid_regular_expressions_are_errors():
    with pytest.raises(ConfigError, match=r"scoring\.pattern: '\(' is not a valid regular expression"):
        Regex("(")
    with pytest.raises(DataError, match="the target '\\(' is not a valid regular expression"):
        score(Regex(), "a", "(")


CODE = """
from dataclasses import dataclass

def length(output, target, row):
    return len(output) / row["longest"]

def agrees(output, target, row):
    return output == target

def words(output, target, row):
    return "many"

def infinite(output, target, row):
    return float("inf")

def fails(output, target, row):
    return row["nope"]

async def later(output, target, row):
    return 1
"""


@pytest.fixture
def code(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    return file


def test_python_calls_the_users_function(code):
    length = Python(f"{code}:length")
    assert (length.name, length.file_sha256) == ("length", hashlib.sha256(code.read_bytes()).hexdigest())
    assert score(length, "four", None, {"longest": 2}) == 2.0
    assert score(Python(f"{code}:agrees"), "a", "a") == 1.0
    assert [entry.name for entry in code.parent.iterdir()] == ["mine.py"]  # no __pycache__


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("words", "must return a bool or a finite number, not 'many'"),
        ("infinite", "must return a bool or a finite number, not inf"),
        ("fails", r"the scorer 'fails' failed at .*mine\.py, line 17: KeyError: 'nope'"),
    ],
)
def test_python_reports_errors_of_the_function(code, function, message):
    with pytest.raises(DataError, match=message):
        score(Python(f"{code}:{function}"), "a", "a")


def test_python_refuses_functions_that_cannot_be_loaded(code, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:")
    for function, message in [
        (f"{code}:lenght", "has no function 'lenght'; did you mean 'length'?"),
        (f"{code}", "is not of the form"),
        (f"{tmp_path}/none.py:f", "cannot be read: No such file"),
        (f"{broken}:f", "cannot be run: SyntaxError"),
    ]:
        with pytest.raises(ConfigError) as error:
            Python(function)
        assert message in str(error.value)


# -- summary


VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50)


@given(VALUES)
def test_summary_is_the_mean_and_its_standard_error(values):
    summary = summarise(iter(values))
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert summary.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-6)


def test_the_summary_of_fewer_than_two_scores_has_no_error():
    assert summarise([]) == summarise_by_row([]) == Score(None, None, 0)
    assert summarise([5.0]) == Score(5.0, None, 1)
    assert summarise_by_row([("a", 0.0), ("a", 10.0)]) == Score(5.0, None, 1)


@given(VALUES)
def test_one_sample_per_row_gives_the_plain_summary(values):
    plain, by_row = summarise(values), summarise_by_row((str(i), value) for i, value in enumerate(values))
    assert (by_row.mean, by_row.stderr, by_row.n) == (
        pytest.approx(plain.mean, abs=1e-6),
        pytest.approx(plain.stderr, abs=1e-6),
        plain.n,
    )


def test_repeats_are_clustered_by_row():
    pairs = [(row, value) for row, values in {"a": (1, 1, 0), "b": (0, 0, 0), "c": (1, 1, 1)}.items() for value in values]
    means = [2 / 3, 0, 1]
    summary = summarise_by_row(pairs)
    assert summary.n == 3
    assert summary.mean == pytest.approx(statistics.fmean(means))
    assert summary.stderr == pytest.approx(statistics.stdev(means) / math.sqrt(3))
    assert summary.stderr > summarise(value for _, value in pairs).stderr


def test_missing_repeats_weigh_less():
    summary = summarise_by_row([("a", 1.0), ("b", 0.0), ("b", 0.0), ("b", 0.0)])
    assert summary.mean == 0.25
    assert summary.stderr == pytest.approx(math.sqrt(2 * ((1 - 0.25) ** 2 + (0 - 0.75) ** 2)) / 4)


def test_the_package_exports_its_scorers():
    assert all(hasattr(runner.scoring, name) for name in runner.scoring.__all__)


def test_scorers_and_the_check_of_training_rows_share_one_normal_form():
    for one, other in [
        ("It’s  “Here”", 'it\'s "here"'),
        ("ﬁne", "FINE"),
        ("Cafe\u0301", "CAFÉ"),
        ("１２", "12"),
        ("Straße", "STRASSE"),
    ]:
        assert normalised(one) == normalised(other)
        assert words(one) == words(other)
    assert normalised("not 5") != normalised("not -5")
    assert words("-5") != words("5")
