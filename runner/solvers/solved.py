"""Hold the answer of a solver, and what bounds the solver."""

from __future__ import annotations

from typing import Any

import msgspec

from runner.types import Choice, Message


class Bounds(msgspec.Struct, frozen=True):
    """Bound what a solver may take for one sample.

    Attributes:
        requests: the most requests; those that the cache answers count too.
        deadline_s: the most seconds; None: no bound.
    """

    requests: int = 100
    deadline_s: float | None = None


class Solved(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the answer to a row.

    Attributes:
        choices: the answer; several if the last request asked for several.
        parsed: its value, if the solver has it as data; None leaves the parsing to the adapter.
        messages: the conversation before the answer, if the answer ends one; None: the steps say all.
    """

    choices: list[Choice]
    parsed: Any = None
    messages: list[Message] | None = None
