"""How samples without a whole answer count in the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from runner.types import Sample

Rule = Literal["score", "leave_out", "zero"]

_NOT_OF_THE_MODEL = ("data", "scoring")
"""Codes of failures that say nothing about the model: a prompt that cannot be made, a scorer that failed."""


class Counting(NamedTuple):
    """Say how refusals, failures and answers that were cut off count: scored as they are, left out of the scores, or as 0.

    Failures of the data or of a scorer are always left out. Answers that are empty or do not fit the schema are scored.
    """

    refused: Rule = "leave_out"
    errors: Rule = "leave_out"
    truncated: Rule = "score"

    def rule_of(self, sample: Sample) -> Rule:
        """Return how this sample counts."""
        match sample.status:
            case "refused":
                return self.refused
            case "truncated":
                return self.truncated
            case "error":
                return "leave_out" if sample.error and sample.error.code in _NOT_OF_THE_MODEL else self.errors
            case _:
                return "score"
