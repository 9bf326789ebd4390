"""Send POST requests as `runner.network.http1` does, where a general client is needed. The only module that imports aiohttp.

Proxies of the environment, redirects, and user names in addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING

from runner.network.http1 import CONNECT_TIMEOUT_S, DisconnectedError, NotHTTPError, SilentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import aiohttp

_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = weakref.WeakKeyDictionary()


class Exchange:
    """A request that was sent, and its answer, with the methods of `http1.Connection`."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self._body = b""
        self.status = answer.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in answer.headers.items()}

    @property
    def ended(self) -> bool:
        """Return whether the whole answer has come."""
        return self._answer.content.is_eof()

    async def whole(self) -> None:
        """Wait for the end of the answer. Raises as `http1.Connection.whole`."""
        with _translated():
            self._body = await self._answer.read()

    async def head(self) -> None:
        """Return at once: the status and the headers are there."""

    async def more(self) -> list[bytes]:
        """Wait for a part of the body, and return it; empty at its end. Raises as `http1.Connection.more`."""
        with _translated():
            piece = await self._answer.content.readany()
        return [piece] if piece else []

    def read(self) -> bytes:
        """Return the body, after `whole`."""
        return self._body

    def end(self) -> None:
        """Keep the connection if the answer was read to the end; else close it."""
        self._answer.release() if self.ended else self._answer.close()


async def begin(url: str, headers: Mapping[str, str], body: bytes, silence_s: float | None) -> Exchange:
    """Send a request. Raises as `http1.Origin.begin`; `silence_s`: seconds in which nothing may come."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
    with _translated():
        return Exchange(await _session().post(url, data=body, headers=dict(headers), timeout=timeout))


async def close() -> None:
    """Close the connections of this event loop."""
    if (session := _sessions.pop(asyncio.get_running_loop(), None)) is not None:
        await session.close()


def _session() -> aiohttp.ClientSession:
    import aiohttp

    loop = asyncio.get_running_loop()
    if (session := _sessions.get(loop)) is None or session.closed:
        session = _sessions[loop] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the rate limiter bounds requests in flight; a second bound would hide that
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
        )
    return session


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise aiohttp's errors as those of `http1`."""
    import aiohttp

    try:
        yield
    except aiohttp.SocketTimeoutError as error:
        raise SilentError(str(error)) from None
    except aiohttp.ClientConnectorError as error:
        raise OSError(str(error)) from None
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError) as error:
        raise DisconnectedError(str(error)) from None
    except aiohttp.ClientError as error:
        raise NotHTTPError(str(error) or type(error).__name__) from None
