"""Guess what the columns of a file are for: which holds the question, which the expected answer, which identifies a row."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.types import Row

_QUESTION = ("question", "input", "prompt", "query", "instruction", "problem", "text", "sentence", "message", "user")
_TARGET = ("answer", "target", "expected", "label", "gold", "reference", "solution", "output", "completion", "response")
_ID = ("id", "uid", "uuid", "key", "qid", "index", "nr", "no", "number", "row")
_CONTEXT = ("context", "passage", "document", "article", "choices", "options")
_INSIDE = ("text", "value", "answer")
"""Where the answer is in a target that is a mapping, as in SQuAD's ``answers.text``."""

_NUMBER = re.compile(r"\s*[-+]?[$€£]?\s*\d[\d,. ]*%?\s*")
MOST_LABELS, SHORT_LABEL, LONG_WORDS = 10, 40, 12


class Guess(msgspec.Struct, frozen=True):
    """Hold what the columns are for, and how answers are scored.

    Attributes:
        question: the column that is asked; context: columns that stand above it in the prompt.
        target: the column, or the path, with the expected answer; None: there is none.
        id: the column that identifies a row; None: a hash of the row does.
        scoring: an option of the group; labels: the values of the target, if they are few.
    """

    question: str
    context: list[str]
    target: str | None
    id: str | None
    scoring: str
    labels: list[str]


def guess(columns: Sequence[str], rows: Sequence[Row], given: Mapping[str, str | None]) -> Guess:
    """Guess from the names of the columns and from their values.

    Args:
        columns: their names.
        rows: some, or all.
        given: what the user says of ``question``, ``target``, ``id`` and ``scoring``: that is not guessed; ``none``: no column.

    Raises:
        ConfigError: there is no such column, or no column that could be asked.
    """
    said = {what: None if value in (None, "none") else value for what, value in given.items()}
    for what in ("question", "target", "id"):
        name = said.get(what)
        if name is not None and name not in columns and name.partition(".")[0] not in columns:
            raise ConfigError(f"--{what} {name}: there is no such column; there are {', '.join(columns)}{suggest(name, columns)}")
    identity = said["id"] if given.get("id") else _named(columns, _ID, lambda name: _identifies(name, rows))
    target = said["target"] if given.get("target") else _target(columns, rows, {said.get("question"), identity})
    taken = {identity, target, (target or "").partition(".")[0]}
    question = said.get("question") or _question([name for name in columns if name not in taken], rows)
    if question is None:
        raise ConfigError(f"no column has text that could be asked; there are {', '.join(columns)}; name one: --question COLUMN")
    context = [name for name in columns if _plain(name) in _CONTEXT and name != question and _filled(name, rows)]
    values = [value for row in rows if (value := _at(row.fields, target)) is not None] if target else []
    labels = _labels(values)
    return Guess(question, context, target, identity, said.get("scoring") or _scoring(values, labels), labels)


def _named(columns: Sequence[str], names: Sequence[str], fits: Any) -> str | None:
    """Return the column that has the first of these names, or has it as a part: ``Question``, ``question_text``."""
    for name in names:
        for exact in (True, False):
            for column in columns:
                plain = _plain(column)
                if (plain in (name, f"{name}s") if exact else name in plain.split("_")) and fits(column):
                    return column
    return None


def _plain(column: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")


def _identifies(column: str, rows: Sequence[Row]) -> bool:
    values = [row.fields.get(column) for row in rows]
    return all(isinstance(value, str | int) and value != "" for value in values) and len(set(map(str, values))) == len(values)


def _filled(column: str, rows: Sequence[Row]) -> bool:
    return all(row.fields.get(column) not in (None, "") for row in rows)


def _target(columns: Sequence[str], rows: Sequence[Row], taken: set[str | None]) -> str | None:
    column = _named(columns, _TARGET, lambda name: name not in taken)
    if column is None:
        return None
    values = [row.fields.get(column) for row in rows]
    inside = next((key for key in _INSIDE if values and all(isinstance(one, dict) and key in one for one in values)), None)
    return f"{column}.{inside}" if inside else column


def _question(columns: Sequence[str], rows: Sequence[Row]) -> str | None:
    def text(column: str) -> list[str]:
        return [value for row in rows if isinstance(value := row.fields.get(column), str)]

    worded = [column for column in columns if any(map(str.strip, text(column)))]
    return _named(worded, _QUESTION, lambda _: True) or max(worded, key=lambda name: len("".join(text(name))), default=None)


def _at(fields: Mapping[str, Any], path: str) -> Any:
    value: Any = fields
    for part in [path] if path in fields else path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _labels(values: Sequence[Any]) -> list[str]:
    """Return the labels that targets are taken from; an empty list if they are no labels."""
    distinct = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    few = 1 < len(distinct) <= MOST_LABELS and len(values) >= 3 * len(distinct)
    short = all(len(label) <= SHORT_LABEL and not _NUMBER.fullmatch(label) for label in distinct)
    return distinct if few and short and all(isinstance(value, str) for value in values) else []


def _scoring(values: Sequence[Any], labels: Sequence[str]) -> str:
    """Return the scorer that suits the targets."""
    if not values:
        return "none"
    if all((isinstance(value, int | float) and not isinstance(value, bool)) or _is_number(value) for value in values):
        return "numeric"
    if labels:
        return "choice"
    if all(isinstance(value, dict) for value in values):
        return "json_match"
    words = sum(len(str(value).split()) for value in values) / len(values)
    return "f1" if words > LONG_WORDS else "contains"


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and _NUMBER.fullmatch(value) is not None
