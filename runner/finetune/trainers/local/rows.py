"""Turn rows into lessons: token ids, and which of them are learned. Also the seeded order of the rows."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from runner.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runner.finetune.trainers.local.base import Tokenizer

_POOL = 16
"""Batches that are bucketed together: rows of similar length share a batch, and their order stays random."""


class Lesson(NamedTuple):
    """One row: its token ids, and for each whether it is learned."""

    ids: list[int]
    learned: list[bool]

    @property
    def length(self) -> int:
        """Tokens that are read."""
        return len(self.ids)

    @property
    def taught(self) -> int:
        """Tokens that are learned."""
        return sum(self.learned)


class Pair(NamedTuple):
    """One row of preference data: the prompt, the preferred answer, and the other one."""

    asked: list[int]
    preferred: list[int]
    other: list[int]

    @property
    def length(self) -> int:
        """Tokens that are read, with the longer answer."""
        return len(self.asked) + max(len(self.preferred), len(self.other))

    @property
    def taught(self) -> int:
        """Tokens that are learned, or unlearned."""
        return len(self.preferred) + len(self.other)


RowT = TypeVar("RowT", Lesson, Pair)


def lessons(file: Path, form: str, tokenizer: Tokenizer, *, max_length: int) -> list[Lesson]:
    """Read the rows of a file as lessons. Empty if there is no such file.

    Args:
        file: JSON lines, in `form`.
        form: ``chat`` or ``completion``.
        tokenizer: the base's tokenizer.
        max_length: the tokens a row may have; a longer one is an error, since cutting it would teach half an answer.

    Raises:
        DataError: a row is too long, or of another format.
    """
    match form:
        case "chat":
            return _made(file, max_length, lambda row: _chat(row["messages"], tokenizer))
        case "completion":
            return _made(file, max_length, lambda row: _completion(row["prompt"], row["completion"], tokenizer))
    raise DataError(f"{form} data cannot be made into lessons, only chat and completion")


def pairs(file: Path, tokenizer: Tokenizer, *, max_length: int) -> list[Pair]:
    """Read the rows of a file of preference data. Arguments and errors as for `lessons`."""
    return _made(file, max_length, lambda row: _pair(row, tokenizer))


def order(lengths: Sequence[int], size: int, *, seed: int, epoch: int, bucket: bool) -> list[list[int]]:
    """Return the batches of one epoch, as row numbers. The same arguments give the same batches."""
    drawn = random.Random(f"{seed} {epoch}")  # noqa: S311 - an order, not a secret
    rows = list(range(len(lengths)))
    drawn.shuffle(rows)
    if bucket:
        pool = size * _POOL
        rows = [row for at in range(0, len(rows), pool) for row in sorted(rows[at : at + pool], key=lambda row: lengths[row])]
    batches = [rows[at : at + size] for at in range(0, len(rows), size)]
    if bucket:
        drawn.shuffle(batches)
    return batches


def _made(file: Path, max_length: int, make: Callable[[dict[str, Any]], RowT]) -> list[RowT]:
    if not file.is_file():
        return []
    made = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            row = make(msgspec.json.decode(line))
        except DataError as error:
            raise DataError(f"{file.name}:{number}: {error}") from None
        if row.length > max_length:
            raise DataError(f"{file.name}:{number}: {row.length} tokens, and finetune.max_length is {max_length}")
        made.append(row)
    return made


def _chat(messages: list[dict[str, Any]], tokenizer: Tokenizer) -> Lesson:
    """Render a conversation by the chat template. Every turn of the assistant is learned, with the token that ends it.

    Turns with ``weight: 0`` are not learned, as at OpenAI.
    """
    said = [{**message, "content": tokenizer.quoted(literal(_text(message.get("content"))))} for message in messages]
    ids: list[int] = []
    learned: list[bool] = []
    done = ""
    for turn, message in enumerate(said):
        if message["role"] != "assistant":
            continue
        before = tokenizer.render(said[:turn], ask=True)
        after = tokenizer.render(said[: turn + 1], ask=False)
        if not before.startswith(done) or not after.startswith(before):
            raise DataError("the chat template rewrites earlier turns, so the tokens of the answer are not known")
        for piece, answer in ((before[len(done) :], False), (after[len(before) :], True)):
            new = tokenizer.encode(piece, marks=True)
            ids += new
            learned += _until_end(new, tokenizer.end) if answer and message.get("weight", 1) else [False] * len(new)
        done = after
    return _begun(Lesson(ids, learned), tokenizer.begin)


def _completion(prompt: str, completion: str, tokenizer: Tokenizer) -> Lesson:
    before = tokenizer.encode(prompt, marks=False)
    answer = [*tokenizer.encode(completion, marks=False), tokenizer.end]
    return _begun(Lesson([*before, *answer], [False] * len(before) + [True] * len(answer)), tokenizer.begin)


def _pair(row: dict[str, Any], tokenizer: Tokenizer) -> Pair:
    asked = [{**message, "weight": 0} for message in row["input"]["messages"]]
    answers = [row["preferred_output"], row["non_preferred_output"]]
    if any(len(turns) != 1 for turns in answers):
        raise DataError("an answer has more than one turn; on this machine a preference is between two single turns")
    preferred, other = (_chat([*asked, {**turn, "weight": 1}], tokenizer) for (turn,) in answers)
    begins = preferred.learned.index(True)  # both have the same ids before the answer
    return Pair(preferred.ids[:begins], _answer(preferred), _answer(other))


def _answer(lesson: Lesson) -> list[int]:
    return [number for number, learned in zip(lesson.ids, lesson.learned, strict=True) if learned]


def _begun(lesson: Lesson, begin: int | None) -> Lesson:
    """Add the token that the server puts before every text, unless the template has written it."""
    if begin is None or lesson.ids[:1] == [begin]:
        return lesson
    return Lesson([begin, *lesson.ids], [False, *lesson.learned])


def _until_end(ids: list[int], end: int) -> list[bool]:
    """Mark ids as learned up to the token that ends the turn; what a template writes after it (a line end) is not learned."""
    last = ids.index(end) if end in ids else len(ids) - 1
    return [number <= last for number in range(len(ids))]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def literal(text: str) -> str:
    """Break up the control tokens of chat templates in text, as the chat adapter does for local models."""
    return text.replace("<|", "< |")
