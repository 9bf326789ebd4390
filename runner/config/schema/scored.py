"""Declare what all scorers have: how samples without a whole answer count, and several answers to one request."""

from __future__ import annotations

from typing import Literal, TypeAlias

from runner.config.schema.base import Kind, Positive, Text
from runner.config.schema.running import Budget

Rule: TypeAlias = Literal["score", "leave_out", "zero"]


class Scored(Kind, frozen=True, kw_only=True):
    """Say how samples without a whole answer count, and several answers. Each kind has these fields; they apply to all scores."""

    refused: Literal["leave_out", "zero"] = "leave_out"
    errors: Literal["leave_out", "zero"] = "leave_out"
    truncated: Literal["score", "leave_out", "zero"] = "score"
    answers: Literal["first", "mean", "best", "worst"] = "first"
    pass_at: list[Positive] = []
    calibration: Text | None = None

    @property
    def counting(self) -> tuple[Rule, Rule, Rule]:
        """Return the first three fields."""
        return self.refused, self.errors, self.truncated

    def refuse_inside(self, where: str) -> None:
        """Raise ValueError if a scorer that is part of another one sets a field of this class."""
        if any(getattr(self, name) != getattr(Scored(), name) for name in Scored.__struct_fields__):
            names = ", ".join(Scored.__struct_fields__)
            raise ValueError(f"{where}: {names} apply to all scores: scoring.refused=...")
        if getattr(self, "budget", Budget()) != Budget():
            raise ValueError(f"{where}: the budget is that of all scorers: scoring.budget.usd=...")
