"""Read, check and split training data before anything is spent. Every problem is reported with its place."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.errors import DataError
from runner.finetune.data import rows
from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.finetune.data.formats import TrainDataFormat
    from runner.finetune.data.rows import Row

SHOWN = 20
"""Problems that a message lists; it counts the others."""

_BOM = b"\xef\xbb\xbf"
_LOOSE = 5
"""Bytes per token that few texts exceed: a row that is too long even by this measure is certainly too long."""


class Problem(NamedTuple):
    """A problem with a row: `fatal` if the row must not be trained on, a `leak` if the evaluation asks the same question."""

    where: str
    what: str
    fatal: bool = True
    leak: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Located(NamedTuple):
    """A row, and its place as messages name it: ``train.jsonl, line 3``."""

    where: str
    row: Row


class Requirements(NamedTuple):
    """The requirements on training rows.

    Attributes:
        form: the format of a row.
        window: the tokens that a row may have; None: unknown.
        text_only: whether the trainer reads text alone: rows with tools or images are refused then.
        evaluation: the questions of the evaluation: normalised text to the name of the row. A row with such a question leaks.
        allow_overlap: report leaks as remarks only.
    """

    form: TrainDataFormat
    window: int | None = None
    text_only: bool = False
    evaluation: Mapping[str, str] = {}
    allow_overlap: bool = False


def read(path: str) -> tuple[list[Located], list[Problem]]:
    """Read a JSONL file. Return its rows, and the problems of lines that hold none. A BOM and blank lines are skipped.

    Raises:
        DataError: the file cannot be read, or has no rows at all.
    """
    file = expanded(path)
    try:
        content = file.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} seems to be UTF-16; save the file as UTF-8")
    found: list[Located] = []
    wrong: list[Problem] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line.decode(), parse_constant=_no_constant)
        except UnicodeDecodeError as error:
            wrong.append(Problem(where, f"byte {error.start} (0x{line[error.start]:02x}) is not UTF-8"))
        except json.JSONDecodeError as error:
            wrong.append(Problem(where, f"column {error.colno}: not JSON: {error.msg}"))
        except (ValueError, RecursionError) as error:
            wrong.append(Problem(where, f"not JSON: {str(error) or 'nested too deeply'}"))
        else:
            if isinstance(row, dict):
                found.append(Located(where, row))
            else:
                wrong.append(Problem(where, 'is not an object; each line must be one, such as {"messages": [...]}'))
    if not found and not wrong:
        raise DataError(f"{path} is empty: it has no rows")
    return found, wrong


def check(located: Sequence[Located], requirements: Requirements, *, wrong: Sequence[Problem] = ()) -> list[Problem]:
    """Check every row, and report all problems at once.

    Args:
        located: the rows.
        requirements: the requirements on them.
        wrong: problems found while they were read.

    Returns:
        Remarks: what is allowed, but perhaps not intended.

    Raises:
        DataError: there are problems; the message lists up to `SHOWN` of them.
    """
    found = list(wrong)
    good: list[Located] = []
    for one in located:
        if malformed := [*_malformed(one, requirements)]:
            found += malformed
        else:
            good.append(one)
            found += _questionable(one, requirements)
    found += _repeated(good)
    if wrong:  # the rows are from a file, where places end with the line's number
        found.sort(key=lambda problem: int(problem.where.rpartition(" ")[2]))
    if fatal := [problem for problem in found if problem.fatal]:
        raise DataError(_told(fatal, leaks=any(problem.leak for problem in fatal)))
    return found


def split(data: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows into training rows and validation rows: about `fraction` of them, drawn with `seed`.

    Rows with the same prompt stay together, or validation would test what was learned. The order of the rows is kept.

    Raises:
        DataError: no row would be left to train on.
    """
    if not fraction:
        return list(data), []
    sizes = Counter(map(rows.prompt_of, data))
    groups = sorted(sizes)
    random.Random(seed).shuffle(groups)  # noqa: S311 - a split, not a secret
    wanted, held, count = max(1, round(len(data) * fraction)), set[str](), 0
    for group in groups:
        if count >= wanted:
            break
        held.add(group)
        count += sizes[group]
    train = [row for row in data if rows.prompt_of(row) not in held]
    if not train:
        raise DataError(f"valid_fraction {fraction:g} of {len(data)} rows leaves none to train on")
    return train, [row for row in data if rows.prompt_of(row) in held]


def located(data: Sequence[Row], source: str) -> list[Located]:
    """Number rows that are in memory, from 1."""
    return [Located(f"{source}, row {number}", row) for number, row in enumerate(data, start=1)]


def _malformed(one: Located, requirements: Requirements) -> Iterator[Problem]:
    """Yield the reasons why a row is not in the format, or the trainer cannot read it."""
    wrong = [*rows.problems(one.row, requirements.form)]
    if not wrong and requirements.text_only:
        wrong = [*rows.unspoken(one.row)]
    yield from (Problem(one.where, what) for what in wrong)


def _questionable(one: Located, requirements: Requirements) -> Iterator[Problem]:
    """Yield what may be wrong with a well-formed row: its text, its length, and the questions it shares with the evaluation."""
    yield from (Problem(one.where, what, fatal=False) for what in rows.remarks(one.row))
    yield from _too_long(one, requirements.window)
    evaluation = requirements.evaluation
    for leak in dict.fromkeys(evaluation[asked] for asked in rows.questions(one.row) if asked in evaluation):
        what = f"has the question of row {leak!r} in the evaluation"
        yield Problem(one.where, what, fatal=not requirements.allow_overlap, leak=True)


def _too_long(one: Located, window: int | None) -> Iterator[Problem]:
    if window is None or (length := rows.tokens(one.row)) <= window:
        return
    certain = sum(len(text.encode()) for text in rows.texts(one.row)) > _LOOSE * window
    said = f"has about {length:,} tokens by {rows.COUNTED_BY}, and the limit is {window:,}"
    yield Problem(one.where, said if certain else f"{said}: it may be cut off", fatal=certain)


def _repeated(located: Sequence[Located]) -> Iterator[Problem]:
    first: dict[bytes, str] = {}
    asked: dict[str, str] = {}
    for one in located:
        content, prompt = msgspec.json.encode(one.row, order="deterministic"), rows.prompt_of(one.row)
        if content in first:
            yield Problem(one.where, f"is the same as {first[content]}", fatal=False)
        elif prompt in asked:
            yield Problem(one.where, f"has the same prompt as {asked[prompt]}, and another answer", fatal=False)
        first.setdefault(content, one.where)
        asked.setdefault(prompt, one.where)


def _told(problems: Sequence[Problem], *, leaks: bool) -> str:
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN:,} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
    advice = (
        "\nthe evaluation must not measure what the model has memorised: remove these rows, or allow them with "
        "finetune.data.allow_overlap=true"
        if leaks
        else ""
    )
    return "\n".join([f"the training data has {count}:", *lines]) + advice


def _no_constant(name: str) -> Any:
    raise ValueError(f"there is no {name} in JSON")
