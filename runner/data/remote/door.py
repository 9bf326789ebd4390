"""Share between kinds of remote data: a reply, and the ways in which there may be none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from runner.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TIMEOUT_S = 30.0
"""Seconds without any data after which a connection counts as lost."""

BLOCK = 1 << 18
"""Bytes that are read at once."""


class LostError(Exception):
    """The connection could not be made, or was lost, or the server is overloaded: worth trying again."""


class UnreachableError(DataError):
    """Nothing could be fetched, although the address may be right."""


class Reply(NamedTuple):
    """A file as a server sends it.

    Attributes:
        version: names the content (an ETag or the time of the last change); None: the server does not say.
        size: bytes of the whole file as it is sent; None: unknown, and the end is marked in another way.
        start: the offset of the first byte.
        blocks: the bytes. Raises LostError if the connection breaks.
        close: ends the connection.
        gzipped: whether the server has compressed the whole file for the way.
        strong: whether `version` names the exact bytes, so that the rest of them can be asked for.
    """

    version: str | None
    size: int | None
    start: int
    blocks: Iterator[bytes]
    close: Callable[[], None]
    gzipped: bool = False
    strong: bool = True


class Door(Protocol):
    """Opens the addresses of one kind."""

    def addresses(self, address: str) -> Sequence[str]:
        """Return the addresses of the files that `address` stands for; they name the version where there are versions.

        Raises:
            DataError: there is no such data, or access is refused.
            LostError: nobody answers.
        """

    def fixed(self, address: str) -> bool:
        """Return whether an address names a version, so that what it stands for never changes."""

    def open(self, address: str, *, start: int = 0, version: str | None = None, unless: str | None = None) -> Reply | None:
        """Begin to read a file. Return None if its version is still `unless`.

        Args:
            address: one of `addresses`.
            start: the offset of the first byte that is wanted.
            version: what the file must still be.
            unless: a version that need not be sent again.

        Raises:
            DataError: there is no such file, access is refused, or it is not `version` any more.
            LostError: nobody answers.
        """


def changed(address: str) -> DataError:
    """Return the error for a file that was replaced while it was read."""
    return DataError(f"{address} has changed while it was read; nothing of it is used: run again")


def refused(address: str, status: int, reason: str) -> DataError | LostError:
    """Return the error for a reply without content. 408, 429 and 5xx are worth trying again."""
    if status in (404, 410):
        return DataError(f"{address}: there is no such file ({status} {reason})")
    if status in (401, 403):
        return DataError(
            f"{address}: access is refused ({status} {reason}); is it spelled right, and does the token allow it? data.token_env "
            "names the environment variable that holds the token; a signed address may have expired"
        )
    if status in (412, 416):
        return changed(address)
    if status in (408, 429) or status >= 500:  # noqa: PLR2004
        return LostError(f"{status} {reason}")
    return DataError(f"{address} cannot be read: the server says {status} {reason}")
