"""The language that picks samples: what it means, what it refuses and where it points, and that it runs nothing."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.where import Where
from runner.errors import ConfigError, DataError

NAMES = {"id", "status", "output", "target", "latency_s", "score."}
SAMPLE = {
    "id": "a",
    "status": "ok",
    "output": "Paris, of course",
    "target": "Paris",
    "latency_s": None,
    "score.exact": 1.0,
    "score.f-1": 0.5,
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("score.exact == 1", True),
        ("score.exact != 1", False),
        ("score.f-1 >= 0.5 and score.f-1 < 0.75", True),
        ("score.exact > -1e3", True),
        ("status in ['ok', \"truncated\"]", True),
        ("status not in ['ok']", False),
        ("'Paris' in output", True),
        ("target in output", True),
        ("'x' in output or target == 'Paris'", True),
        ("not (status == 'ok' or status == 'error')", False),
        ("not status == 'error' and score.exact == 1", True),
        ("status == 'error' and status == 'ok' or score.exact == 1", True),
        ("status == 'error' and (status == 'ok' or score.exact == 1)", False),
        ("latency_s == null", True),
        ("latency_s != null", False),
        ("latency_s < 5", False),
        ("latency_s in [1, 2]", False),
        ("'it\\'s' == \"it's\"", True),
        ("1 == 1.0", True),
    ],
)
def test_expressions_select_samples(text, wanted):
    assert Where(text, NAMES).matches(SAMPLE) is wanted


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("score.exact ==", 14, "a value or a field is missing before the end"),
        ("score.exact = 1", 12, "`=` is not a comparison; write =="),
        ("score.exact", 11, "a comparison .* is missing before the end"),
        ("status == ok", 10, "there is no field 'ok'; .*a string needs quotes"),
        ("statsu == 'ok'", 0, r"there is no field 'statsu'; did you mean 'status'\?"),
        ("score. == 1", 5, "cannot stand here"),
        ("(status == 'ok'", 15, "a closing parenthesis is missing before the end"),
        ("status == 'ok' status == 'ok'", 15, "is not expected here; join conditions with `and` or `or`"),
        ("status == 'ok", 10, "a string without its closing quote"),
        ("status in ['ok' 'no']", 16, "a comma or a closing bracket is missing"),
        ("status in [output]", 11, "a list contains strings, numbers"),
        ("status not 'ok'", 7, "a comparison"),
        ("__import__('os').system('x')", 16, "cannot stand here"),
        ("output.__class__ == 1", 0, "there is no field"),
        ("", 0, "a value or a field is missing"),
        ("1 < 2 < 3", 6, "'<' is not expected here"),
        ("not " * 60 + "1 == 1", None, "is nested too deeply"),
        ("(" * 5000 + "1 == 1", None, "is nested too deeply"),
    ],
)
def test_syntax_errors_point_at_their_place(text, at, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Where(text, NAMES)
    _, shown, caret = str(caught.value).splitlines()
    assert shown == f"  {text}"
    if at is not None:
        assert caret == f"  {' ' * at}^"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score.exact == '1'", r"compares a number, 1\.0, with a string, '1' \(in id 'a'\)"),
        ("output > 1", "compares a string"),
        ("score.exakt == 1", r"there is no score\.exakt in .*; there is score\.exact, score\.f-1"),
        ("1 in output", "compares a number"),
        ("true > false", "compares a boolean"),
    ],
)
def test_values_that_cannot_be_compared_are_errors(text, message):
    with pytest.raises(DataError, match=message):
        Where(text, NAMES).matches(SAMPLE)


@given(st.text(alphabet="score.exact status='\"()[],<>!= andornotin0123456789", max_size=40))
def test_any_text_is_parsed_or_refused(text):
    try:
        where = Where(text, NAMES)
    except ConfigError as error:
        assert re.search(r"^  \s*\^$", str(error).splitlines()[-1])  # noqa: PT017
        return
    with contextlib.suppress(DataError):
        assert where.matches(SAMPLE) in (True, False)
