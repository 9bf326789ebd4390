"""Define what a solver is: it answers a row, with the requests that its steps make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from runner.solvers.solved import Bounds, Solved
    from runner.solvers.steps import Steps
    from runner.types import Row


class Solver(Protocol):
    """Answer rows. One solver answers many rows at once, so it keeps nothing about a row."""

    @property
    def bounds(self) -> Bounds:
        """The bounds of one sample."""

    @property
    def is_code(self) -> bool:
        """True if it runs code of the user: what that says may hold secrets, and it may do more than ask."""

    async def solve(self, row: Row, steps: Steps) -> Solved:
        """Answer `row`. Everything that is asked goes through `steps`: through its `lm`, or through `complete`.

        It must do the same again when it gets the same answers: a killed sample, and a replay, start again from the cache.
        It may catch an LMError, such as a prompt that is too long. What would fail every row is not raised here: it cancels
        this call.

        Raises:
            LMError, DataError, SolverError: this row cannot be answered; this becomes its error.
        """
