"""Answers in the ways of real models are read rightly: numbers, labels, JSON, text and mathematics in many notations."""

import importlib.util
from fractions import Fraction

import pytest

from runner.adapters import JsonAdapter, ParseError, Prompt, Repaired
from runner.answers import spoken
from runner.scoring import F1, Choice, Contains, Exact, Math
from runner.scoring.numbers import read_number
from tests.support.readings import READINGS

SCORERS = {"exact": Exact, "contains": Contains, "f1": F1, "math": Math}
NEEDS = {"math": "math_verify", "json": "json_repair"}


def value_of(reading):
    options = dict(reading.options)
    match reading.scorer:
        case "numeric":
            found = read_number(reading.output, **options)
            return None if found is None or found.value is None else found.value
        case "choice":
            return Choice(**options).label(reading.output)
        case "json":
            try:
                parsed = JsonAdapter(Prompt(user="q"), **options).parse(spoken(reading.output))
            except ParseError:
                return None
            return parsed.value if isinstance(parsed, Repaired) else parsed
    target = options.pop("target")
    return SCORERS[reading.scorer](**options).score(reading.output, target, {}, None)


def lacks(reading):
    needed = reading.scorer == "math" or "repair" in reading.options
    return needed and importlib.util.find_spec(NEEDS[reading.scorer]) is None


def test_the_table_has_many_answers_in_many_languages():
    assert len(READINGS) >= 150
    assert len({reading.language for reading in READINGS}) >= 20
    assert all(reading.source for reading in READINGS)
    assert len({(reading.scorer, reading.output, str(reading.options)) for reading in READINGS}) == len(READINGS)


@pytest.mark.parametrize("scorer", sorted({reading.scorer for reading in READINGS}))
def test_every_answer_is_read_rightly(scorer):
    wrong = []
    for reading in READINGS:
        if reading.scorer != scorer or lacks(reading):
            continue
        expected = Fraction(reading.value) if scorer == "numeric" and reading.value is not None else reading.value
        if (found := value_of(reading)) != expected:
            wrong.append(f"{reading.output!r}: {found!r}, not {reading.value!r} ({reading.language}; {reading.source})")
    assert wrong == []
