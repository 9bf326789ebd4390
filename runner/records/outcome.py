"""The outcome of an expectation of a run."""

from __future__ import annotations

from typing import Literal

import msgspec

from runner.wording.numbers import count, mean

Verdict = Literal["pass", "fail", "undecided"]


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one expectation.

    Attributes:
        expected: the expectation, such as ``contains >= 0.8``.
        verdict: ``pass`` and ``fail`` are certain (at 95 %); ``undecided``: there are too few rows to tell.
        value: the number that was found; None: there is none.
        interval: its 95 % interval; None: it has none.
        n: rows behind it.
        more: about how many more rows would decide it if the value stays as it is; None: unknown, or not needed.
        note: why it is undecided, where rows would not help.
    """

    expected: str
    verdict: Verdict
    value: float | None
    interval: tuple[float, float] | None = None
    n: int = 0
    more: int | None = None
    note: str | None = None

    def __str__(self) -> str:
        found = f"{self.verdict}: {mean(self.value, self.interval)}"
        found += f" (n={self.n:,})" if self.n else ""
        if self.note:
            return f"{found}, {self.note}"
        if self.verdict != "undecided":
            return found
        return f"{found}, too few rows to tell" + (f": about {count(self.more, 'more row')} would" if self.more else "")


def worst(outcomes: list[Outcome]) -> Verdict | None:
    """Return ``fail`` if one fails, else ``undecided`` if one is undecided, else ``pass``; None without outcomes."""
    verdicts = {outcome.verdict for outcome in outcomes}
    for verdict in ("fail", "undecided", "pass"):
        if verdict in verdicts:
            return verdict
    return None
