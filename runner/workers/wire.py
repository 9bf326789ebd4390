"""Define the messages between the head of a run and its workers: MessagePack, never pickles.

A message holds content: rows, samples, errors, text of files. It never holds a key or a folder of a machine.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from runner import errors
from runner.errors import LMError, OstinatoError
from runner.types import Response, Row, Sample, Spent

Slot: TypeAlias = tuple[str, int]
"""The id of a row, and the number of the repeat."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base class of messages."""


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Hold one of Ostinato's errors: its class, its message, and its attributes."""

    kind: str
    message: str
    details: dict[str, Any] = {}

    @classmethod
    def of(cls, error: OstinatoError) -> Failure:
        """Take an error apart."""
        details = {name: value for name, value in vars(error).items() if not name.startswith("_") and name != "message"}
        return cls(type(error).__name__, str(error), details)

    def error(self) -> OstinatoError:
        """Answer the error together again. An unknown class is an `LMError`: only the head may stop a run."""
        found = getattr(errors, self.kind, None)
        cls = found if isinstance(found, type) and issubclass(found, OstinatoError) else LMError
        error = cls(self.message)
        vars(error).update(self.details)
        return error


# --- from the head


class Leased(msgspec.Struct, frozen=True, array_like=True):
    """Hold one slot of a lease; `answered` is its sample, if only its scores are owed."""

    row: Row
    repeat: int
    answered: Sample | None = None


class Lease(Message, frozen=True, array_like=True, tag=True):
    """Ask a worker to answer slots."""

    slots: list[Leased]


class Grant(Message, frozen=True, array_like=True, tag=True):
    """Permit one attempt, which a `Demand` asked for by its ticket."""

    ticket: int


class Known(Message, frozen=True, array_like=True, tag=True):
    """Answer a `Demand` with the answer that it would have paid for."""

    ticket: int
    response: Response
    cost_usd: float | None


class Refused(Message, frozen=True, array_like=True, tag=True):
    """Refuse a `Demand`."""

    ticket: int
    failure: Failure


class Judged(Message, frozen=True, array_like=True, tag=True):
    """Say whose fault the failure of a `Wrong` is."""

    ticket: int
    disposition: str


class Closed(Message, frozen=True, array_like=True, tag=True):
    """Say that a model's endpoint was closed, so that nobody waits to try again. None is the main model."""

    model: str | None
    failure: Failure


class Stop(Message, frozen=True, array_like=True, tag=True):
    """Have a worker begin no further slot, and say `Idle` when its last one has ended."""


FromHead: TypeAlias = Lease | Grant | Known | Refused | Judged | Closed | Stop

# --- from a worker


class Ready(Message, frozen=True, array_like=True, tag=True):
    """Say that the worker can answer rows."""


class Unfit(Message, frozen=True, array_like=True, tag=True):
    """Say why the worker cannot answer rows."""

    reason: str


class Demand(Message, frozen=True, array_like=True, tag=True):
    """Ask for one attempt.

    Attributes:
        ticket: names the attempt.
        slot: whose attempt it is.
        model: the name of the model; None is the main one.
        key: of the request in the cache.
        missing: whether the plan has found that the cache lacks the answer.
        tokens: an estimate of its tokens.
        most: the most that it may use; None: no budget needs to know.
        spent: what the slot has spent on the model, with this attempt held: a line of the ledger.
    """

    ticket: int
    slot: Slot
    model: str | None
    key: str
    missing: bool
    tokens: int
    most: dict[str, Any] | None
    spent: Spent


class Heard(Message, frozen=True, array_like=True, tag=True):
    """Pass on rate-limit headers of an answer."""

    ticket: int
    headers: dict[str, str]


class Wrong(Message, frozen=True, array_like=True, tag=True):
    """Say how an attempt has failed; `row` is the same for the same question."""

    ticket: int
    failure: Failure
    row: int


class Ended(Message, frozen=True, array_like=True, tag=True):
    """Say how an attempt has ended, and what it has used; None: unknown. `tokens` are those that the answer names.

    `kept` tells whether an `Answer` follows: an empty answer, or one that was cut off, is not for the cache.
    """

    ticket: int
    succeeded: bool
    kept: bool
    seconds: float
    tokens: int | None
    usd: float | None
    used: int | None
    sent: bool


class Withdrawn(Message, frozen=True, array_like=True, tag=True):
    """Take back a `Demand`: the call was cancelled before it was answered."""

    ticket: int


class Answer(Message, frozen=True, array_like=True, tag=True):
    """Hand over an answer for the cache: response and request are JSON, as the cache stores them."""

    model: str | None
    key: str
    response: bytes
    request: bytes | None
    cost_usd: float | None


class Spend(Message, frozen=True, array_like=True, tag=True):
    """State what a slot has spent on a model so far: a line of the ledger."""

    slot: Slot
    spent: Spent
    model: str | None


class Done(Message, frozen=True, array_like=True, tag=True):
    """Hand over a finished sample: JSON, as in the record."""

    line: bytes


class Owed(Message, frozen=True, array_like=True, tag=True):
    """Say that a slot stays owed, why, and what was spent on it, by model."""

    slot: Slot
    failure: Failure
    spent: list[tuple[Spent, str | None]]


class Idle(Message, frozen=True, array_like=True, tag=True):
    """Say that the last slot has ended, and how many seconds each scorer took."""

    scoring_s: dict[str, float]


FromWorker: TypeAlias = Ready | Unfit | Demand | Heard | Wrong | Ended | Withdrawn | Answer | Spend | Done | Owed | Idle

encode = msgspec.msgpack.Encoder().encode
as_json = msgspec.json.Encoder().encode
sample_of = msgspec.json.Decoder(Sample).decode
from_head = msgspec.msgpack.Decoder(list[FromHead]).decode
from_worker = msgspec.msgpack.Decoder(list[FromWorker]).decode
