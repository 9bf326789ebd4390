"""Samples as the page's JSON: texts cut and cleaned of secrets, messages that many samples share written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.reports.text import cut, text_of
from runner.secrets import redact
from runner.types import Usage

if TYPE_CHECKING:
    from runner.types import Sample


class Shown(msgspec.Struct, omit_defaults=True):
    """A sample as the browser gets it; what it lacks is left out."""

    id: str
    status: str
    cache: str
    messages: list[int]
    repeat: int | None = None
    part: int | None = None
    output: str | None = None
    target: str | None = None
    scores: dict[str, float] | None = None
    error: dict[str, Any] | None = None
    usage: Usage | None = None
    cost: float | None = None
    saved: float | None = None
    latency: float | None = None
    first_token: float | None = None
    attempts: int | None = None
    model: str | None = None
    finish: str | None = None
    reasoning: str | None = None
    judged: str | None = None


class Rows:
    """The samples of a page: `samples` for the browser, and the `messages` that they refer to by number."""

    def __init__(self) -> None:
        self.samples: list[Shown] = []
        self.messages: list[dict[str, str]] = []
        self._numbers: dict[tuple[str, str], int] = {}

    def add(self, sample: Sample, part: int) -> None:
        """Add a sample of the cell with this number."""
        self.samples.append(
            Shown(
                id=redact(sample.id),
                repeat=sample.repeat or None,
                part=part or None,
                status=sample.status,
                messages=[self._number(message) for message in sample.asked],
                output=None if sample.output is None else cut(sample.output),
                target=None if sample.target is None else text_of(sample.target),
                scores=sample.scores or None,
                error=_error(sample),
                usage=sample.usage,
                cost=sample.cost_usd,
                saved=sample.saved_usd,
                cache=sample.cache,
                latency=sample.latency_s,
                first_token=sample.first_token_s,
                attempts=sample.attempts or None,
                model=redact(sample.model_served or sample.model_requested or "") or None,
                finish=sample.finish_reason,
                reasoning=cut(sample.reasoning) if sample.reasoning else None,
                judged=_judged(sample),
            )
        )

    def _number(self, message: dict[str, Any]) -> int:
        role, content = str(message.get("role", "")), message.get("content")
        more = {key: value for key, value in message.items() if key not in ("role", "content")}
        said = content if isinstance(content, str) and not more else text_of({"content": content, **more} if more else content)
        number = self._numbers.setdefault((role, said), len(self.messages))
        if number == len(self.messages):
            self.messages.append({"role": redact(role), "text": cut(said)})
        return number


def _judged(sample: Sample) -> str | None:
    """Return labels and reasons of judges, one verdict per paragraph."""
    if not sample.judgements:
        return None
    told = (": ".join(filter(None, (name, one.label, one.reason))) for name, one in sample.judgements.items())
    return cut("\n\n".join(told))


def _error(sample: Sample) -> dict[str, Any] | None:
    if sample.error is None:
        return None
    facts = {"code": redact(sample.error.code), "message": cut(sample.error.message), "status": sample.error.status}
    return {key: value for key, value in facts.items() if value is not None}
