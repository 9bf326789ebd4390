"""Find worked examples of a prompt that are rows of the data as well: the model is shown their answers."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from runner.errors import DataError
from runner.scoring.normal import folded
from runner.wording.numbers import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.adapters import Adapter
    from runner.config.schema.request import Example
    from runner.data import Dataset
    from runner.types import Row


LOOKED_AT = 10_000
"""Rows up to which examples are looked for."""


def leaked_examples(examples: Sequence[Example], data: Dataset, adapter: Adapter) -> list[str]:
    """Return a remark if an example's question is that of a row. Costs a pass over the data where there are examples."""
    asked = {folded(example.user) for example in examples}
    leaks = [row.id for row in islice(data, LOOKED_AT) if asked & set(_questions(row, adapter))] if asked else []
    if not leaks:
        return []
    more = ", ..." if len(leaks) > 3 else ""  # noqa: PLR2004
    named = ", ".join(map(repr, leaks[:3])) + more
    return [
        f"prompt.examples show the answer of {count(len(leaks), 'row')} that {'is' if len(leaks) == 1 else 'are'} asked: {named}"
    ]


def _questions(row: Row, adapter: Adapter) -> Iterator[str]:
    """Yield what a row asks: its prompt, and each of its texts."""
    yield from (folded(value) for value in row.fields.values() if isinstance(value, str))
    try:
        messages = adapter.format(row).messages
    except DataError:  # said elsewhere
        return
    if messages and isinstance(content := messages[-1].get("content"), str):
        yield folded(content)
