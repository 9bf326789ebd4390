"""Say what the user says next in a conversation: by a script, or as a model that plays the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runner.answers import without_thinking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.adapters import Template
    from runner.solvers.steps import Steps
    from runner.types import Message, Row

USER = "user"
"""The name of the model that plays the user, among the named models of a run."""
_OPENING: Message = {"role": "user", "content": "Hello! How can I help you?"}
"""Comes before what the user has said first: many chat templates want the other side to begin."""


class User(Protocol):
    """The user of a conversation.

    Attributes:
        turns: the most that the user says after the first message.
    """

    turns: int

    async def says(self, row: Row, steps: Steps, messages: Sequence[Message], turn: int) -> str | None:
        """Return what the user says after `messages`; None to end the conversation.

        Args:
            row: the row.
            steps: for users that are models.
            messages: the conversation, with the last answer.
            turn: how often the user has spoken after the first message.
        """


class Script:
    """A user who says the same for every row, but for its columns.

    Args:
        templates: what the user says after the first answer, the second, and so on.
    """

    def __init__(self, templates: Sequence[Template]) -> None:
        self._templates = templates
        self.turns = len(templates)

    async def says(self, row: Row, steps: Steps, messages: Sequence[Message], turn: int) -> str | None:  # noqa: ARG002 - User
        """Return the next line of the script."""
        return self._templates[turn].render(row) if turn < self.turns else None


class SimulatedUser:
    """A model that plays the user. It sees the texts of the conversation with the sides exchanged, and no tools.

    Args:
        prompt: who the user is and what the user wants; the system message.
        turns: the most that it says.
        stop: ends the conversation where it says this.
    """

    def __init__(self, prompt: Template, *, turns: int, stop: str) -> None:
        self._prompt = prompt
        self._stop = stop
        self.turns = turns

    async def says(self, row: Row, steps: Steps, messages: Sequence[Message], turn: int) -> str | None:
        """Ask the model; the request is a step of the sample."""
        if turn >= self.turns:
            return None
        lm = steps.models[USER]
        system: Message = {"role": "system", "content": self._prompt.render(row)}
        request = lm.request(messages=[system, _OPENING, *exchanged(messages)])
        response = (await lm.acomplete(request)).response
        said = (without_thinking(response) if lm.split_thinking else response).choices[0].text or ""
        return None if self._stop in said or not said.strip() else said


def exchanged(messages: Sequence[Message]) -> list[Message]:
    """Return the texts of a conversation as the other side sees them: the user's are the assistant's, and the reverse."""
    sides = {"user": "assistant", "assistant": "user"}
    found: list[Message] = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            content = "\n".join(str(part["text"]) for part in content if part.get("type") == "text")
        if message["role"] in sides and content:
            found.append({"role": sides[message["role"]], "content": content})
    return found
