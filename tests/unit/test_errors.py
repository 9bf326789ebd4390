"""Errors form one tree, have unique codes, and can be pickled."""

import copy
import pickle
import re

import pytest

from runner import errors


def descendants(cls):
    found = []
    for child in cls.__subclasses__():
        if child.__module__ == "runner.errors":
            found += [child, *descendants(child)]
    return found


EVERY = descendants(errors.OstinatoError)
LM_ERRORS = descendants(errors.LMError)


@pytest.mark.parametrize("cls", EVERY)
def test_every_error_pickles(cls):
    if issubclass(cls, errors.LMError):
        error = cls("what", provider="openai", model="openai/m", status=429, request_id="r", retry_after=2.5, attempts=3)
    else:
        error = cls("what")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert str(twin) == "what"
        assert vars(twin) == vars(error)


def test_an_error_with_a_note_pickles():
    error = errors.ServerError("what", status=500)
    error.add_note("seen at noon")
    assert pickle.loads(pickle.dumps(error)).status == 500


def test_codes_of_errors_are_unique():
    codes = [cls.code for cls in LM_ERRORS]
    assert len(set(codes)) == len(codes)
    assert "error" not in codes


def test_the_docstring_draws_the_tree_of_classes():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    assert sorted(drawn) == sorted(cls.__name__ for cls in EVERY)
    for cls in LM_ERRORS:
        line = next(line for line in errors.__doc__.splitlines() if f"── {cls.__name__} " in line)
        assert f" {cls.disposition} " in line, line


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.DataError, ValueError),
        (errors.LMTimeoutError, TimeoutError),
        (errors.TransportError, ConnectionError),
    ],
)
def test_errors_derive_from_the_matching_builtin_errors(cls, builtin):
    assert issubclass(cls, builtin)


def test_every_error_has_an_exit_code_of_the_command():
    assert errors.ConfigError.exit_code == 2
    assert errors.BudgetExceeded.exit_code == 3
    assert {cls.exit_code for cls in EVERY} - {1, 2, 3, 100} == set()
