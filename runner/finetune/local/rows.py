"""From rows to what a model learns from: token ids, and which of them are the answer; and batches of these, in a seeded order."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.finetune.local.base import Tokenizer

_POOL = 16
"""Batches that are bucketed together: rows of like length share a batch, and their order stays a random one."""


class Lesson(NamedTuple):
    """One row: its ids, and for each whether it is learned."""

    ids: list[int]
    learned: list[bool]


def lessons(file: Path, form: str, tokenizer: Tokenizer, *, max_length: int) -> list[Lesson]:
    """The rows of a file. Empty when there is no such file.

    Args:
        file: JSON lines, in `form`.
        form: ``chat`` or ``completion``.
        tokenizer: of the base.
        max_length: the tokens a row may have; a longer one is an error, since cutting it would teach half an answer.

    Raises:
        DataError: a row is too long, or of a form that cannot be learned here.
    """
    if not file.is_file():
        return []
    made: list[Lesson] = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        row = msgspec.json.decode(line)
        match form:
            case "chat":
                lesson = _chat(row["messages"], tokenizer)
            case "completion":
                lesson = _completion(row["prompt"], row["completion"], tokenizer)
            case _:
                raise DataError(f"{form} data cannot be learned by the local trainer; it takes chat and completion")
        if len(lesson.ids) > max_length:
            raise DataError(f"{file.name}:{number}: {len(lesson.ids)} tokens, and finetune.max_length is {max_length}")
        made.append(lesson)
    return made


def batches(made: Sequence[Lesson], size: int, *, seed: int, epoch: int, bucket: bool) -> list[list[Lesson]]:
    """The batches of one epoch: the same ones for the same arguments."""
    order = random.Random(f"{seed} {epoch}")  # noqa: S311 - an order, not a secret
    rows = list(range(len(made)))
    order.shuffle(rows)
    if bucket:
        pool = size * _POOL
        rows = [
            row for at in range(0, len(rows), pool) for row in sorted(rows[at : at + pool], key=lambda row: len(made[row].ids))
        ]
    drawn = [[made[row] for row in rows[at : at + size]] for at in range(0, len(rows), size)]
    if bucket:
        order.shuffle(drawn)
    return drawn


def _chat(messages: list[dict[str, Any]], tokenizer: Tokenizer) -> Lesson:
    """A conversation by the chat template; every turn of the assistant is learned, with the token that ends it.

    But for those with ``weight: 0``, as OpenAI has it.
    """
    said = [{**message, "content": literal(_text(message.get("content")))} for message in messages]
    ids: list[int] = []
    learned: list[bool] = []
    done = ""
    for turn, message in enumerate(said):
        if message["role"] != "assistant":
            continue
        before = tokenizer.render(said[:turn], ask=True)
        after = tokenizer.render(said[: turn + 1], ask=False)
        if not before.startswith(done) or not after.startswith(before):
            raise DataError("the chat template rewrites earlier turns, so it cannot be told which tokens are the answer")
        for piece, answer in ((before[len(done) :], False), (after[len(before) :], True)):
            new = tokenizer.encode(piece, marks=True)
            ids += new
            learned += _until_end(new, tokenizer.end) if answer and message.get("weight", 1) else [False] * len(new)
        done = after
    return Lesson(ids, learned)


def _completion(prompt: str, completion: str, tokenizer: Tokenizer) -> Lesson:
    before = tokenizer.encode(prompt, marks=False)
    answer = [*tokenizer.encode(completion, marks=False), tokenizer.end]
    return Lesson([*before, *answer], [False] * len(before) + [True] * len(answer))


def _until_end(ids: list[int], end: int) -> list[bool]:
    """Learned up to the token that ends the turn; what a template writes after it (a line end) is its own."""
    last = ids.index(end) if end in ids else len(ids) - 1
    return [number <= last for number in range(len(ids))]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def literal(text: str) -> str:
    """Text in which no mark of a chat template can be read: as the chat adapter sends it to local models."""
    return text.replace("<|", "< |")


def count(made: Sequence[Lesson]) -> Iterator[int]:
    """The tokens that are learned of each row."""
    return (sum(lesson.learned) for lesson in made)
