"""Declare what the head needs of a distributed engine: workers that join, and a way to speak to each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection


class Lost(Exception):  # noqa: N818 - what has happened to a worker
    """Signal that a worker cannot be reached any more; the message says why."""


class UnfitError(Exception):
    """Signal that a worker cannot play this run; the message says why, and what to do."""


class Link(Protocol):
    """Speak to the player of one worker. Each method raises Lost.

    Attributes:
        name: the worker's name, for people.
    """

    name: str

    async def begin(self, packed: bytes) -> None:
        """Start a player. Raises UnfitError if the worker has another version of the code, or lacks it."""

    async def listen(self) -> bytes:
        """Return the player's next messages. It returns within seconds even if there are none."""

    async def tell(self, messages: bytes) -> None:
        """Hand messages to the player."""

    async def end(self) -> None:
        """End the player, whatever it is doing."""


class Engine(Protocol):
    """A cluster of workers."""

    async def open(self) -> None:
        """Start the cluster, or connect to it. Raises LaunchError."""

    async def joined(self, known: Collection[str]) -> Link:
        """Wait for a worker whose name is not among those that are `known`."""

    async def close(self) -> None:
        """End the cluster if it was started here, and the connection to it."""
