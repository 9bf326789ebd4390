"""Make the messages of a row from a list of message templates, or take a whole conversation from a column."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runner.adapters.chat import ChatAdapter
from runner.adapters.messages import conversation
from runner.adapters.prompt import Formatted, MessageTemplate, PartTemplate, Prompt
from runner.adapters.templates import Template
from runner.attachments import Attachments, Kind, reference
from runner.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from runner.types import Message, Row

_COLUMN = re.compile(r"\s*\{\{\s*([A-Za-z_]\w*(?:\.\w+)*)\s*\}\}\s*")
_PLACES: dict[str, tuple[Kind, str]] = {
    "image_url": ("image", "url"),
    "input_audio": ("audio", "data"),
    "file": ("file", "file_data"),
}


class Cell:
    """One value of a row: ``{{ column }}`` alone is the value itself; any other template is its text.

    Args:
        source: the template.
        where: its name in messages.

    Raises:
        ConfigError: it has a syntax error.
    """

    def __init__(self, source: str, where: str) -> None:
        found = _COLUMN.fullmatch(source)
        self._path = found[1].split(".") if found else None
        self._template = Template(source, where=where)

    def of(self, row: Row) -> Any:
        """Return the value. Raises DataError if the row has none, and as `Template.render` does."""
        value: Any = row.fields if self._path else None
        for name in self._path or ():
            value = value.get(name) if isinstance(value, dict) else None
        return self._template.render(row) if value is None else value


class ConversationAdapter(ChatAdapter):
    """Messages in, text out: `Prompt.messages` says which ones.

    Args:
        prompt: its `messages`.
        attachments: finds images, sounds and files.
        literal_tokens: as in `ChatAdapter`; for texts.

    Raises:
        ConfigError: a template has a syntax error.
    """

    def __init__(self, prompt: Prompt, attachments: Attachments, *, literal_tokens: bool = False) -> None:
        super().__init__(Prompt(user=""), literal_tokens=literal_tokens)
        self.attachments = attachments
        self._whole: Cell | None = None
        self._makers: list[Callable[[Row], Message]] = []
        self._cells: list[tuple[Cell, Kind]] = []
        if isinstance(prompt.messages, str):
            self._whole = Cell(prompt.messages, "prompt.messages")
            return
        self._makers = [self._maker(template, f"prompt.messages[{n}]") for n, template in enumerate(prompt.messages or ())]

    @property
    def columns(self) -> None:
        """None: a row that has all columns may still attach what cannot be used."""
        return

    def format(self, row: Row) -> Formatted:
        """Return the messages of `row`, with references to what they attach.

        Raises:
            DataError: the row lacks a column, its conversation is malformed, or an attachment cannot be used.
        """
        if self._whole is None:
            return Formatted([make(row) for make in self._makers])
        value = self._whole.of(row)
        try:
            return Formatted([self._taken(message) for message in conversation(value)])
        except DataError as error:
            raise DataError(f"row {row.id!r}: prompt.messages: {error}") from None

    def prepare(self, rows: Iterable[Row]) -> None:
        """Fetch what `rows` attach by URL, several at a time, in a thread that may block."""
        self.attachments.find_all(source for row in rows for source in self._sources(row))

    def _sources(self, row: Row) -> Iterator[tuple[Any, Kind]]:
        try:
            for cell, kind in self._cells:
                found = cell.of(row)
                yield from ((one, kind) for one in (found if isinstance(found, list) else [found]))
            for message in conversation(self._whole.of(row)) if self._whole else ():
                parts = message["content"] if isinstance(message["content"], list) else ()
                for part in parts:
                    if (place := _PLACES.get(part["type"])) is not None:
                        yield _inner(part).get(place[1]), place[0]
        except DataError:
            return  # `format` says it

    def _maker(self, template: MessageTemplate, where: str) -> Callable[[Row], Message]:
        """Return the function that makes one message of a row."""
        role = template.role
        if isinstance(template.content, str):
            text = Template(template.content, where=f"{where}.content")
            if text.constant is not None:
                message = self.message(role, text.constant)
                return lambda _row: message
            return lambda row: self.message(role, text.render(row))
        parts = [self._part_maker(part, f"{where}.content[{number}]") for number, part in enumerate(template.content)]
        return lambda row: {"role": role, "content": [made for make in parts for made in make(row)]}

    def _part_maker(self, part: PartTemplate, where: str) -> Callable[[Row], list[dict[str, Any]]]:
        kind = part.kind
        if kind is None:
            text = Template(part.source, where=f"{where}.text")
            return lambda row: [{"type": "text", "text": self.literal(text.render(row))}]
        cell = Cell(part.source, f"{where}.{kind}")
        self._cells.append((cell, kind))

        def make(row: Row) -> list[dict[str, Any]]:
            value = cell.of(row)
            try:
                found = [self.attachments.find(one, kind) for one in (value if isinstance(value, list) else [value])]
            except DataError as error:
                raise DataError(f"row {row.id!r}: {where}.{kind}: {error}") from None
            return [reference(kind, one.name, detail=part.detail, filename=part.filename or one.filename) for one in found]

        return make

    def _taken(self, message: Message) -> Message:
        """Return a message of a row's conversation, with references to what it attaches."""
        content = message.get("content")
        if isinstance(content, str):
            return {**message, "content": self.literal(content)}
        if content is None:
            return message
        return {**message, "content": [self._attached(part) for part in content]}

    def _attached(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] == "text":
            return {**part, "text": self.literal(part["text"])}
        kind, key = _PLACES[part["type"]]
        inner = _inner(part)
        source = inner.get(key)
        if kind == "file" and source is None and inner.get("file_id"):
            raise DataError(
                "a file is given by file_id, which only its owner can read; give file_data, or a column with its path"
            )
        found = self.attachments.find(source, kind)
        return reference(kind, found.name, detail=inner.get("detail"), filename=inner.get("filename") or found.filename)


def _inner(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of an attached part as a mapping; an image may be its URL alone."""
    inner = part[part["type"]]
    if isinstance(inner, dict):
        return {key: value for key, value in inner.items() if value is not None}
    return {_PLACES[part["type"]][1]: inner}


def chat_adapter(prompt: Prompt, attachments: Attachments | None, *, literal_tokens: bool) -> ChatAdapter:
    """Return the adapter that makes the messages of `prompt`: from its `messages` if it has any, else from its two turns."""
    if prompt.messages is None or attachments is None:
        return ChatAdapter(prompt, literal_tokens=literal_tokens)
    return ConversationAdapter(prompt, attachments, literal_tokens=literal_tokens)


def conversation_of(adapter: object) -> ConversationAdapter | None:
    """Return the part of an adapter that makes conversations, with what they attach; None if it makes plain prompts."""
    inner = getattr(adapter, "chat", adapter)
    return inner if isinstance(inner, ConversationAdapter) else None
