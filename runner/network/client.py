"""Send small HTTP requests: JSON to a hosted trainer, a webhook, a health check. Nothing here retries."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.errors import BadRequestError, LMError, LMTimeoutError, MalformedError, TransportError
from runner.network.delay import in_words, retry_after
from runner.network.refusal import classify
from runner.network.said import said

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.error import HTTPError
    from urllib.request import OpenerDirector


class Reply(NamedTuple):
    """A server's answer: HTTP status, reason phrase, the seconds of ``Retry-After`` as they were sent, and the body."""

    status: int
    reason: str
    retry_after: str | None
    body: bytes

    @property
    def ok(self) -> bool:
        """True if the status is one of success (2xx)."""
        return 200 <= self.status < 300  # noqa: PLR2004


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 60.0,
    proxies: bool = True,
    limit: int | None = None,
) -> Reply:
    """Send one request and return the reply, whatever its status. Redirects are followed.

    Args:
        method: an HTTP method.
        url: an ``http(s)://`` URL.
        headers: sent with it.
        body: sent as it is.
        timeout_s: seconds to wait for the connection, and for each part of the reply.
        proxies: whether the environment's proxies are used; False for servers on this machine.
        limit: the most bytes of a body that are wanted; 0 returns as soon as the status is there, with an empty body; any other
            limit reads one byte more, which says that there are more. None: all.

    Raises:
        ValueError: `url` is not an http(s) URL.
        OSError: there is no connection (URLError), no reply in time (TimeoutError), or one that is not HTTP.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, build_opener

    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is not an http(s) URL")
    sent = Request(url, body, dict(headers or {}), method=method)  # noqa: S310 - checked above
    opener = build_opener() if proxies else _without_proxies()
    try:
        with opener.open(sent, timeout=timeout_s) as reply:
            return Reply(reply.status, reply.reason, reply.headers.get("Retry-After"), _content(reply, limit))
    except HTTPError as refusal:
        with refusal:
            return Reply(refusal.code, refusal.reason, refusal.headers.get("Retry-After"), _body(refusal) if limit != 0 else b"")
    except HTTPException as error:
        raise URLError(str(error) or type(error).__name__) from error


MAX_DOWNLOAD = 64 * 2**20
"""The most bytes that `downloaded` takes."""


def downloaded(url: str) -> bytes:
    """Return the content at a URL. Raises OSError if there is none, it is cut off, or it has more than `MAX_DOWNLOAD` bytes."""
    try:
        reply = request("GET", url, headers={"Accept-Encoding": "identity", "User-Agent": "ostinato"}, limit=MAX_DOWNLOAD)
    except ValueError as error:
        raise OSError(str(error)) from None
    if not reply.ok:
        raise OSError(f"{reply.status} {reply.reason}")
    if len(reply.body) > MAX_DOWNLOAD:
        raise OSError(f"it has more than {MAX_DOWNLOAD // 2**20} MB")
    return reply.body


def send(
    provider: str, method: str, url: str, *, headers: Mapping[str, str], body: Any = None, timeout_s: float = 60.0
) -> dict[str, Any]:
    """Send `body` (bytes as they are, anything else as JSON) and return the JSON object of the reply, empty for an empty one.

    Raises:
        LMError: there is no reply, or it refuses.
    """
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    try:
        reply = request(method, url, headers={"Content-Type": kind, **headers}, body=content, timeout_s=timeout_s)
    except ValueError as error:
        raise BadRequestError(str(error), provider=provider) from None
    except TimeoutError:
        raise LMTimeoutError(f"no answer within {timeout_s:g} s", provider=provider) from None
    except OSError as error:
        raise TransportError(f"no connection: {getattr(error, 'reason', None) or error}", provider=provider) from None
    if not reply.ok:
        raise status_error(provider, reply.status, _message(reply), after=reply.retry_after)
    try:
        found = json.loads(reply.body) if reply.body.strip() else {}
    except ValueError:
        raise MalformedError(f"the answer is not JSON: {reply.body[:80]!r}", provider=provider) from None
    if not isinstance(found, dict):
        raise MalformedError("the answer is not a JSON object", provider=provider)
    return found


def status_error(provider: str, status: int, message: str, *, after: str | None = None, request_id: str | None = None) -> LMError:
    """Return the error that a reply with this status, message and ``Retry-After`` stands for."""
    wait = retry_after({"retry-after": after or ""})
    wait = in_words(message) if wait is None else wait
    return classify(status, message)(message, provider=provider, status=status, retry_after=wait, request_id=request_id)


@functools.cache
def _without_proxies() -> OpenerDirector:
    """Build the opener once: it loads the certificates of all authorities, and a server that starts is polled often."""
    from urllib.request import ProxyHandler, build_opener

    return build_opener(ProxyHandler({}))


def _content(reply: Any, limit: int | None) -> bytes:
    if not limit:
        return bytes(reply.read()) if limit is None else b""
    content = bytes(reply.read(limit + 1))
    told = reply.headers.get("Content-Length", "")
    if told.isdigit() and len(content) < min(int(told), limit):  # reading a part of a body hides that it was cut off
        raise OSError(f"the answer was cut off after {len(content)} of {told} bytes")
    return content


def _body(refusal: HTTPError) -> bytes:
    """Return the body of a refusal, or nothing if it is cut off: the status says enough."""
    from http.client import HTTPException

    try:
        return refusal.read()
    except (OSError, HTTPException):
        return b""


def _message(reply: Reply) -> str:
    """Return the message in the body of a refusal, else the body, else the reason phrase."""
    return said(reply.body).message.strip()[:300] or reply.reason or str(reply.status)
