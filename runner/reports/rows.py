"""Samples as the page's JSON: texts cut and cleaned of secrets, messages that many samples share written once."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from runner.attachments import names_in, said
from runner.attachments.media import media_type
from runner.attachments.store import FOLDER
from runner.reports.text import cut, text_of
from runner.secrets import redact
from runner.types import Usage

if TYPE_CHECKING:
    from pathlib import Path

    from runner.types import Sample


_SHOWN = {"role", "content", "tool_calls", "tool_call_id"}
"""Keys of a message that are written as a text; others as JSON."""
_LARGEST, _ROOM = 500_000, 8_000_000
"""Bytes of one image that is shown, and of all of them; the others are named, and are in the record."""


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
    """The samples of a page: `samples` for the browser, the `messages` that they refer to by number, and `images` of these."""

    def __init__(self) -> None:
        self.samples: list[Shown] = []
        self.messages: list[dict[str, Any]] = []
        self.images: dict[str, str] = {}
        self._room = _ROOM
        self._numbers: dict[tuple[str, str], int] = {}

    def add(self, sample: Sample, part: int, folder: Path | None = None) -> None:
        """Add a sample of the cell with this number, whose record is in `folder`."""
        self.samples.append(
            Shown(
                id=redact(sample.id),
                repeat=sample.repeat or None,
                part=part or None,
                status=sample.status,
                messages=[self._number(message, folder) for message in sample.asked],
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

    def _number(self, message: dict[str, Any], folder: Path | None) -> int:
        role, more = str(message.get("role", "")), message.keys() - _SHOWN
        text = text_of({key: value for key, value in message.items() if key != "role"}) if more else said(message)
        number = self._numbers.setdefault((role, text), len(self.messages))
        if number == len(self.messages):
            shown: dict[str, Any] = {"role": redact(role), "text": cut(text)}
            if isinstance(message.get("content"), list) and (images := self._images(message, folder)):
                shown["images"] = images
            self.messages.append(shown)
        return number

    def _images(self, message: dict[str, Any], folder: Path | None) -> list[str]:
        """Return the images of a message that the page has room for, by name."""
        names = [name for kind, name in names_in([message]) if kind == "image"]
        for name in names:
            file = folder / FOLDER / name if folder is not None else None
            if name in self.images or file is None or not file.is_file():
                continue
            size = file.stat().st_size
            if size <= _LARGEST and self._room >= size:
                self._room -= size
                self.images[name] = f"data:{media_type(name)};base64,{b64encode(file.read_bytes()).decode()}"
        return [name for name in names if name in self.images]


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
