"""The interface of a scorer, and the check of a row's target."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from runner.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.types import Judgement, Row, Sample


class Verdict(NamedTuple):
    """Results of a scorer that gives more than one number: scores by name, and labels and reasons by the same names."""

    scores: dict[str, float]
    judgements: dict[str, Judgement] | None = None


class Asked(NamedTuple):
    """An answer to be judged.

    Attributes:
        sample: the answer, with all that is recorded of it.
        output: its text, without thinking.
        row: the row that it answers.
    """

    sample: Sample
    output: str
    row: Row


class Models(Protocol):
    """The models that a scorer may ask for one answer, by name."""

    def __call__(self, name: str) -> Any:
        """Return a model: ``await lm.acall(prompt)``."""


class Scorer(Protocol):
    """An object that scores one answer. A scorer inherits from `Comparison`, which has the defaults.

    The caller decides which samples are scored (answers are, errors and refusals never). A scorer that cannot use a target raises
    a `DataError` that says why; the caller, who knows the row, puts its id in front.

    Attributes:
        name: the metric's name in ``scores``.
        blocks: whether scoring takes so long that it is done outside the event loop.
        measures: whether the score is a quantity (a latency, a length), which has no worst value that a missing answer could get.
        asks: whether it asks models, or waits for something else: `judge` is awaited in place of calling `score`.
        timed: whether what it costs in time is worth telling.
        names: what is added to its own name for each of its scores; None: only its results say that.
    """

    name: str
    blocks: bool
    measures: bool
    asks: bool
    timed: bool

    @property
    def names(self) -> tuple[str, ...] | None:
        """Return what is added to its own name for each of its scores, after a point."""

    def check(self, target: Any) -> None:
        """Check a target before anything is sent.

        Raises:
            DataError: the target is missing, or this scorer cannot use it.
        """

    def reads(self, output: str, target: Any, parsed: Any) -> bool:
        """Return whether an answer that scored 0 holds anything of the kind that is compared: a number, a label, JSON."""

    async def judge(self, asked: Asked, models: Models) -> float | Verdict:
        """Score one answer, and ask models for it.

        Raises:
            DataError: as `score`; or what a model answers cannot be used.
            LMError, BudgetExceeded, CacheError: a model does not answer.
        """

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float | Verdict:
        """Score one answer.

        Args:
            output: the model's text, without its thinking.
            target: the expected answer; most scorers take a list as "any of these".
            fields: the row's columns.
            parsed: `output` as the adapter parsed it, or None.

        Returns:
            A score from 0.0 to 1.0; `Python` may return any finite number.

        Raises:
            DataError: the target is missing, or this scorer cannot use it.
        """


class Comparison:
    """Defaults of scorers that compare with a target."""

    name: str
    blocks = False
    measures = False
    asks = False
    timed = False

    @property
    def names(self) -> tuple[str, ...] | None:
        """Return one empty text: it has one score, of its own name."""
        return ("",)

    async def judge(self, asked: Asked, models: Models) -> float | Verdict:
        """Raise NotImplementedError: a comparison asks nothing."""
        raise NotImplementedError

    def check(self, target: Any) -> None:
        """Raise DataError if `target` is missing, empty or an object."""
        wanted(self.name, target)

    def reads(self, output: str, target: Any, parsed: Any) -> bool:  # noqa: ARG002 - Scorer
        """Return True: any text can be compared."""
        return True


class Question(Comparison):
    """Defaults of scorers that ask models."""

    asks = True
    timed = True

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float | Verdict:
        """Raise NotImplementedError: `judge` is awaited instead."""
        raise NotImplementedError


def wanted(scorer: str, target: Any) -> list[Any]:
    """Return the accepted targets, none of which is missing, empty or an object. The error names `scorer`.

    Raises:
        DataError: there is none, or one is unusable.
    """
    options = target if isinstance(target, list) else [target]
    if not options or any(option is None for option in options):
        raise DataError(f"there is no target, which the scorer {scorer!r} compares with; set data.target to its column")
    for option in options:
        if isinstance(option, str):
            if not option or option.isspace():
                raise DataError(
                    f"the target is empty text, which the scorer {scorer!r} cannot compare with; give each row a target"
                )
        elif isinstance(option, dict):
            raise DataError(
                f"the target is an object with the keys {list(option)}; name a text inside it, such as "
                f"data.target=COLUMN.{next((key for key in option if key == 'text'), next(iter(option), 'KEY'))}"
            )
        elif isinstance(option, list):
            raise DataError(f"the target has a list in a list: {short(json.dumps(option, ensure_ascii=False, default=str))}")
    return options


_WHOLE = re.compile(r"([+-]?[0-9]+)(\.0+)?")


def texts(target: Any) -> list[str]:
    """Return the ways to write a target as text.

    A number that is whole is written with and without its decimals (42 and 42.0), whether the data holds it as a number or as
    text, since CSV and spreadsheets change one into the other. A boolean is ``true`` as in JSON, or ``True`` as in Python.
    """
    if isinstance(target, bool):
        return ["true", "True"] if target else ["false", "False"]
    text = str(target)
    if (whole := _WHOLE.fullmatch(text.strip())) is None:
        return [text]
    return list(dict.fromkeys([text, whole[1], f"{whole[1]}.0"]))


def compile_pattern(key: str, pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Compile a regular expression that the config holds under `key`.

    Raises:
        ConfigError: `pattern` is not a valid regular expression.
    """
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ConfigError(f"{key}: {pattern!r} is not a valid regular expression: {error}") from error


def short(text: str) -> str:
    """Return `text` in quotes, on one line; of a long one the end, where a worked solution has its result."""
    return repr(text if len(text) <= 80 else f"...{text[-77:]}")  # noqa: PLR2004 - one line of a terminal
