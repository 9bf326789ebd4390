"""Find the answer to each sample of a record, and check that a replay of it gives what was recorded."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from runner.cache import ENTRY_VERSION, Entry, Stored, request_key
from runner.errors import RecordError
from runner.reproduction.agreement import changes, has_answer
from runner.types import Choice, Message, Request, Response, Sample, Step, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.batch.asker import Asker
    from runner.types import Row

Look: TypeAlias = "Callable[[Request, Sample], Entry | None]"
"""Looks up the answer to a request of a sample. Returns None if it has none."""
LookNamed: TypeAlias = "Callable[[str, Request], Entry | None]"
"""Looks up the answer of a named model, such as a judge."""

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A replayed sample, the answers that it needs by their keys, and whether they come from the cache."""

    sample: Sample
    asked: dict[str, Stored]
    cached: bool


class Answers:
    """Finds answers that replay as recorded: in the cache, else in the record.

    Args:
        record: the run folder, for messages.
        asker: replays a row.
        rows: the rows by id.
        from_cache: looks an answer up in the cache.
        named: looks an answer of a named model up in the cache. The record does not hold these answers.
    """

    def __init__(self, record: Path, asker: Asker, rows: dict[str, Row], from_cache: Look, named: LookNamed) -> None:
        self._named = named
        self._record = record
        self._asker = asker
        self._rows = rows
        self._looks = (from_cache, _from_sample)
        self._used: dict[str, bytes] = {}

    def find(self, sample: Sample) -> Answer | None:
        """Replay a sample. Returns None if it has no answer, or if another row has a different answer to its request.

        Raises:
            RecordError: it differs from the record.
        """
        if not has_answer(sample):
            return None
        row = self._rows.get(sample.id)
        if row is None:
            raise RecordError(f"{self._record}: the record has a row {sample.id!r} that is not in the data")
        told = ["it has no answer"]
        for look in self._looks:
            if (found := self._played(row, sample, look)) is None:
                continue
            played, asked = found
            if told := changes(sample, played):
                continue
            if all(self._used.get(key, _said(stored)) == _said(stored) for key, stored in asked.items()):
                return Answer(played, asked, cached=look != _from_sample)
        if not told:
            return None  # another row has a different answer to the same request, and a cache can hold only one
        raise RecordError(
            f"{self._record}: row {sample.id!r} would not be replayed as recorded: {'; '.join(told)[:500]}; "
            "its scorer or its adapter may have changed since: `ostinato score` computes the scores again"
        )

    def _played(self, row: Row, sample: Sample, look: Look) -> tuple[Sample, dict[str, Stored]] | None:
        """Replay a sample from the answers that `look` finds. Returns it and these answers by key; None if one is missing."""
        asked: dict[str, Stored] = {}

        def kept(request: Request, entry: Entry | None) -> Entry | None:
            if entry is not None:
                stored = Stored(ENTRY_VERSION, entry.created, entry.response, entry.cost_usd, request)
                asked[request_key(request)] = stored
            return entry

        played = self._asker.replay(
            (row, sample.repeat),
            lambda request: kept(request, look(request, sample)),
            lambda name, request: kept(request, self._named(name, request)),
        )
        return None if played is None else (played, asked)

    def use(self, answer: Answer) -> Iterator[Stored]:
        """Yield the parts of an answer that no earlier one used."""
        for key, stored in answer.asked.items():
            if key not in self._used:
                self._used[key] = _said(stored)
                yield stored


def _from_sample(request: Request, sample: Sample) -> Entry | None:
    """Return the answer in the record: the last one, or an earlier one of the conversation."""
    created = datetime.fromisoformat(sample.started_at).timestamp() if sample.started_at else 0.0
    if sample.steps is not None:
        return _from_steps(request, sample.steps, sample, created)
    said = sample.messages or []
    turn = len(request.messages or [])
    if turn < len(said):
        answer = Choice(text=str(said[turn].get("content")), finish_reason="stop")
        return Entry(ENTRY_VERSION, created, Response(choices=[answer], model=sample.model_served))
    calls = sample.tool_calls
    text = None if calls and sample.output == _encode(calls).decode() else sample.output
    said_last = Choice(text, sample.finish_reason, sample.logprobs, calls, sample.reasoning)
    response = Response(
        choices=sample.answers or [said_last],
        model=sample.model_served,
        usage=sample.usage or Usage(),
        system_fingerprint=sample.system_fingerprint,
    )
    return Entry(ENTRY_VERSION, created, response, sample.saved_usd if sample.cache == "hit" else sample.cost_usd)


def _from_steps(request: Request, steps: list[Step], sample: Sample, created: float) -> Entry | None:
    """Return the answer of the step that has asked the same; None if several have, and had different answers."""
    said = request.messages if request.messages is not None else [{"role": "user", "content": request.prompt}]
    heard: list[list[Message]] = []
    found: dict[bytes, Entry] = {}
    for step in steps:
        heard.append([*(heard[step.after] if step.after is not None else ()), *step.added])
        if step.error is not None or heard[-1][:-1] != said:
            continue
        answer = step.added[-1]
        choice = Choice(
            answer.get("content"), step.finish_reason, None, answer.get("tool_calls"), answer.get("reasoning_content")
        )
        response = Response(choices=[choice], model=sample.model_served, usage=step.usage or Usage())
        cost = step.saved_usd if step.cache == "hit" else step.cost_usd
        entry = Entry(ENTRY_VERSION, created, response, cost)
        found[_encode((choice.text, choice.tool_calls))] = entry
    return next(iter(found.values())) if len(found) == 1 else None


def _said(stored: Stored) -> bytes:
    """Return a digest of an answer: two answers to one request are the same if their digests are."""
    answers = [(choice.text, choice.finish_reason, choice.tool_calls) for choice in stored.response.choices]
    return hashlib.sha256(_encode(answers)).digest()
