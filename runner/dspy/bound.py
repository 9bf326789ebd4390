"""Stop a program or an optimiser of dspy when its budget is spent, whatever errors it catches.

dspy's evaluations score a row that fails as zero, and its optimisers go on after many errors: a spent budget would look like
a bad program.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from runner.errors import BudgetExceeded, LMError, OstinatoError
from runner.wording.numbers import count, dollars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.cost.budget import Budget


class Stopped(BaseException):
    """Leave dspy's code, because nothing more can be asked. Not an Exception, so that dspy does not catch it."""


class Bound:
    """The budget of an LM and its copies while a ``with`` block lasts.

    Args:
        budget: what may be spent.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._left = False

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """Turn an error that every further request would meet into `Stopped`, as long as the block lasts."""
        try:
            yield
        except OstinatoError as error:
            if self._left or (isinstance(error, LMError) and error.disposition != "stop"):
                raise
            raise Stopped from error

    @contextlib.contextmanager
    def said(self) -> Iterator[None]:
        """Turn `Stopped` into the error that it came from. Raises BudgetExceeded with what was spent."""
        try:
            yield
        except Stopped as stopped:
            error = stopped.__cause__
            assert error is not None
            if isinstance(error, BudgetExceeded):
                spent = self.budget.spent
                error = BudgetExceeded(
                    f"{error}; spent: {count(int(spent['requests']), 'request')}, {count(int(spent['tokens']), 'token')}, "
                    f"{dollars(spent['usd'])}"
                )
            raise error from None
        finally:
            self._left = True
