"""Training data, read and checked before anything is spent: every problem with its place, the split, and what is in the way."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.errors import DataError
from runner.finetune.data import rows as rules
from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runner.finetune.data.formats import TrainDataFormat
    from runner.finetune.data.rows import Row

SHOWN = 20
"""Problems that a message lists; of the others it says how many there are."""

_BOM = b"\xef\xbb\xbf"
_LOOSE = 5
"""Bytes a token that few texts exceed: a row that is too long even so is too long for certain."""


class Problem(NamedTuple):
    """What is wrong with a row: `fatal` if it must not be trained on."""

    where: str
    what: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Located(NamedTuple):
    """A row and where it stands, as messages call that: ``train.jsonl, line 3``."""

    where: str
    row: Row


class Tokens(NamedTuple):
    """How tokens are counted: by the model's tokenizer, or by an estimate. `by` says which."""

    count: Callable[[str], int] = rules.estimated
    by: str = "estimate (one token for three bytes)"
    exact: bool = False


class Checked(NamedTuple):
    """Data that may be trained on.

    Attributes:
        rows: in their order.
        tokens: of each.
        counted_by: how they were counted.
        remarks: what is allowed, and may not be meant.
    """

    rows: list[Row]
    tokens: list[int]
    counted_by: str
    remarks: list[Problem]


def read(path: str) -> tuple[list[Located], list[Problem]]:
    """The rows of a JSONL file, and the lines that hold none. A BOM and blank lines are passed over.

    Raises:
        DataError: the file cannot be read, or holds no rows at all.
    """
    file = expanded(path)
    try:
        content = file.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: is UTF-16, it seems; save the file as UTF-8")
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
                wrong.append(Problem(where, 'is no object; each line has to be one, such as {"messages": [...]}'))
    if not found and not wrong:
        raise DataError(f"{path} is empty: it has no rows")
    return found, wrong


def check(
    located: Sequence[Located],
    form: TrainDataFormat,
    *,
    wrong: Sequence[Problem] = (),
    window: int | None = None,
    tokens: Tokens | None = None,
    evaluation: Mapping[str, str] | None = None,
    allow_overlap: bool = False,
    text_only: bool = False,
) -> Checked:
    """Look at every row, for everything.

    Args:
        located: the rows.
        form: what a row has to look like.
        wrong: what was found wrong already.
        window: the tokens that a row may have; None is not known.
        tokens: how they are counted; by default by an estimate.
        evaluation: what the model will be measured on: normalised text to the name of the row. A row that asks the same leaks.
        allow_overlap: have leaks as remarks only.
        text_only: whether the trainer reads text alone: rows with tools or images are wrong then.

    Raises:
        DataError: something is wrong; the message lists it, up to `SHOWN` problems.
    """
    counting = tokens or Tokens()
    found = list(wrong)
    lengths: list[int] = []
    good: list[Located] = []
    for one in located:
        broken = [Problem(one.where, what) for what in rules.problems(one.row, form)]
        if text_only and not broken:
            broken = [Problem(one.where, what) for what in rules.unspoken(one.row)]
        found += broken
        if broken:
            continue
        good.append(one)
        found += [Problem(one.where, what, fatal=False) for what in rules.remarks(one.row)]
        lengths.append(rules.tokens(one.row, counting.count))
        found += _too_long(one, lengths[-1], window, counting)
        leaks = {evaluation[asked]: None for asked in rules.questions(one.row) if asked in evaluation} if evaluation else ()
        found += [Problem(one.where, f"asks what the evaluation asks in row {row!r}", fatal=not allow_overlap) for row in leaks]
    found += _repeated(good)
    if wrong:  # of a file, whose places end with the line
        found.sort(key=lambda problem: int(problem.where.rpartition(" ")[2]))
    if fatal := [problem for problem in found if problem.fatal]:
        raise DataError(_told(fatal, leaks=any("the evaluation asks" in problem.what for problem in fatal)))
    return Checked([one.row for one in located], lengths, counting.by, found)


def split(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to learn from, and rows to validate with: about `fraction` of them, drawn with `seed`.

    Rows that ask the same stay together, or the validation would be of what was learned. The order of the rows is kept.
    """
    if not fraction:
        return list(rows), []
    groups = sorted({rules.prompt_of(row) for row in rows})
    random.Random(seed).shuffle(groups)  # noqa: S311 - a split, not a secret
    wanted, held, taken = max(1, round(len(rows) * fraction)), set[str](), 0
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[rules.prompt_of(row)] = sizes.get(rules.prompt_of(row), 0) + 1
    for group in groups:
        if taken >= wanted:
            break
        held.add(group)
        taken += sizes[group]
    train = [row for row in rows if rules.prompt_of(row) not in held]
    if not train:
        raise DataError(f"valid_fraction {fraction:g} of {len(rows)} rows leaves none to learn from")
    return train, [row for row in rows if rules.prompt_of(row) in held]


def located(rows: Sequence[Row], source: str) -> list[Located]:
    """Rows that are in memory, with places counted from 1."""
    return [Located(f"{source}, row {number}", row) for number, row in enumerate(rows, start=1)]


def _too_long(one: Located, length: int, window: int | None, counting: Tokens) -> Iterator[Problem]:
    if window is None or length <= window:
        return
    size = sum(len(text.encode()) for text in rules.texts(one.row))
    certain = counting.exact or size > _LOOSE * window
    said = f"has {'' if counting.exact else 'about '}{length:,} tokens by {counting.by}, and {window:,} are its limit"
    yield Problem(one.where, said if certain else f"{said}: it may be cut off", fatal=certain)


def _repeated(located: Sequence[Located]) -> Iterator[Problem]:
    first: dict[bytes, str] = {}
    asked: dict[str, str] = {}
    for one in located:
        content, prompt = msgspec.json.encode(one.row, order="deterministic"), rules.prompt_of(one.row)
        if content in first:
            yield Problem(one.where, f"is the same as {first[content]}", fatal=False)
        elif prompt in asked:
            yield Problem(one.where, f"asks the same as {asked[prompt]}, and answers otherwise", fatal=False)
        first.setdefault(content, one.where)
        asked.setdefault(prompt, one.where)


def _told(problems: Sequence[Problem], *, leaks: bool) -> str:
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN:,} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
    advice = (
        "\na model that has learned the rows of the evaluation is measured on what it knows by heart: take them out, or say "
        "that it is meant: finetune.data.allow_overlap=true"
        if leaks
        else ""
    )
    return "\n".join([f"the training data has {count}:", *lines]) + advice


def _no_constant(name: str) -> Any:
    raise ValueError(f"there is no {name} in JSON")
