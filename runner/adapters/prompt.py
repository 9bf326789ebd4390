"""Define what adapters share: the configured prompt, the formatted request, and their interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import msgspec

from runner.attachments import Kind
from runner.errors import ConfigError, OstinatoError
from runner.types import Message

if TYPE_CHECKING:
    from runner.types import Row


class ParseError(OstinatoError):
    """The model's text does not have the requested form. The message is sent to the model, so that it can correct itself."""


class Repaired(NamedTuple):
    """A value that an adapter has read after a repair of the text."""

    value: Any


class PartTemplate(msgspec.Struct, frozen=True):
    """One part of a message: what it is (None: text), the template of its text or source, and what is said of it."""

    kind: Kind | None
    source: str
    detail: str | None = None
    filename: str | None = None


class MessageTemplate(msgspec.Struct, frozen=True):
    """One message of a prompt: its role, and the template of its text or its parts."""

    role: str
    content: str | list[PartTemplate]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A configured prompt.

    Attributes:
        user: the template of the user's turn.
        system: the template of the system message; None sends none (some models then insert their own; ``""`` prevents that).
        examples: few-shot pairs ``{"user": ..., "assistant": ...}`` that come before the user's turn. Literal text.
        messages: all messages, in place of the above; or the template of a column that holds a whole conversation.

    Raises:
        ConfigError: an example has other keys.
    """

    user: str
    system: str | None = None
    examples: Sequence[Mapping[str, str]] = ()
    messages: Sequence[MessageTemplate] | str | None = None

    def __post_init__(self) -> None:
        for number, example in enumerate(self.examples, 1):
            if example.keys() != {"user", "assistant"}:
                raise ConfigError(f"prompt.examples, item {number}: give 'user' and 'assistant', not {sorted(example)}")


class Formatted(msgspec.Struct, frozen=True):
    """The text sent to the model: `messages` (chat) or `prompt` (text); the other is None.

    Messages that are the same for every row are the same objects: do not change them in place. `corrections` counts how often
    the model was asked again because its answer did not have the requested form.
    """

    messages: list[Message] | None = None
    prompt: str | None = None
    corrections: int = 0


class Adapter(Protocol):
    """Turn rows into requests and answers into values. The caller always keeps the raw answer."""

    @property
    def model_type(self) -> Literal["chat", "text"] | None:
        """The wire format that `format` makes; None fits any."""

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns that `format` needs, if rows that have all of them cannot fail; else None."""

    def params(self) -> dict[str, Any]:
        """Return the request parameters that this adapter adds, such as ``response_format``."""

    def format(self, row: Row) -> Formatted:
        """Return the request of `row`.

        Raises:
            DataError: the row lacks a column that the prompt uses.
        """

    def parse(self, text: str) -> Any:
        """Return the value in the model's `text`, `Repaired` if need be; None if the text itself is the answer.

        Raises:
            ParseError: there is no valid value. If `reask` returns None, the sample is ``invalid``.
        """

    def reask(self, formatted: Formatted, text: str, error: ParseError) -> Formatted | None:
        """Return the request to send after `formatted` was answered with `text`; None to give up."""
