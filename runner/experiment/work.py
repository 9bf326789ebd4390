"""The work of a run, estimated before anything is sent."""

from __future__ import annotations

import msgspec

from runner.wording.numbers import count, dollars


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The requests, tokens and cost of the owed samples. Retries of failed attempts are not counted.

    Attributes:
        samples: samples to ask for, without those whose prompt cannot be made.
        requests: the most requests: one per sample, and one for each time that the adapter may ask again.
        prompt_tokens: estimated tokens of the first prompts; None if a program asks, so that nobody knows before what.
        completion_tokens_max: the most tokens of all answers; None if they are unbounded.
        tokens_max: the most tokens of all prompts and answers; None if they are unbounded.
        cost_usd_max: the most dollars; None if the tokens are unbounded or the price is unknown.
    """

    samples: int = 0
    requests: int = 0
    prompt_tokens: int | None = 0
    completion_tokens_max: int | None = 0
    tokens_max: int | None = 0
    cost_usd_max: float | None = 0.0

    @property
    def open(self) -> bool:
        """True if a program asks."""
        return self.prompt_tokens is None

    def line(self) -> str:
        """Return the estimate for people, in one line."""
        if self.prompt_tokens is None:
            return f"up to {count(self.requests, 'request')} by a program; what they cost is not known before"
        parts = [f"up to {count(self.requests, 'request')}", f"about {count(self.prompt_tokens, 'prompt token')}"]
        if self.completion_tokens_max is None:
            parts.append("answers of any length")
        else:
            parts.append(f"at most {count(self.completion_tokens_max, 'completion token')}")
        parts.append("price unknown" if self.cost_usd_max is None else f"at most {dollars(self.cost_usd_max)}")
        return ", ".join(parts)
