"""Map the exceptions of a litellm call to ours, by one table.

litellm wraps each exception in one of its own, whose class and status are often wrong: it calls a broken connection and an
unreadable answer a server error (500). The wrapped exception (of the SDK, httpx or Python) is reliable. So these are tried in
order: the words of the server's refusal, errors that only litellm recognises, the refusal's status, failures without an answer,
litellm's status, and last an unusable answer.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionLostError,
    ContentFilterError,
    ContextWindowError,
    LMError,
    LMTimeoutError,
    TransportError,
)
from runner.network.said import Said, of_tree, said
from runner.secrets import remember
from runner.transport.base import failure, not_an_answer, refused, silent, too_late

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.transport.base import Hear
    from runner.types import Connection, Request


class Row(NamedTuple):
    """An exception class, by its name, and the error that it stands for. Subclasses count, unless `exactly`."""

    name: str
    kind: type[LMError]
    why: str
    exactly: bool = False


BY_LITELLM = (
    Row("ContextWindowExceededError", ContextWindowError, "litellm knows how each provider says it"),
    Row("ContentPolicyViolationError", ContentFilterError, "litellm knows how each provider says it"),
    Row("Timeout", LMTimeoutError, "litellm's own limit, or a provider's status for it"),
)
"""Classes of litellm that are trusted where the words of a refusal do not tell."""

WITHOUT_ANSWER = (
    Row("TimeoutError", LMTimeoutError, "Python's"),
    Row("TimeoutException", LMTimeoutError, "httpx's"),
    Row("RemoteProtocolError", ConnectionLostError, "httpx's: the server closed the connection without an answer"),
    Row("ReadError", ConnectionLostError, "httpx's: the connection broke while the answer was awaited or read"),
    Row("WriteError", ConnectionLostError, "httpx's: the connection broke while the request was sent"),
    Row("ConnectionError", TransportError, "Python's"),
    Row("APIConnectionError", TransportError, "the SDK's"),
    Row("TransportError", TransportError, "httpx's"),
    Row("OpenAIError", AuthenticationError, "the SDK's base class: it has found no key", exactly=True),
    Row("ImportError", BadRequestError, "a package that this provider needs is not installed"),
)
"""Wrapped classes that say why the server has not answered. The first row that matches counts."""

UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError", "gaierror"})
"""Wrapped classes (httpx's and Python's) that say that there was no connection, so that nothing was sent."""

_REFUSED = 400
_UNTRUE = 500
"""litellm's default status, used where it knows no better one."""
_UNNUMBERED = 422
"""litellm's status (1.106) for a 2xx answer that holds an error without a number, as overloaded servers give."""
_PREFIX = re.compile(r"^(?:(?:litellm\.)?(?:LiteLLM|Timeout Error|[\w-]*(?:Error|Exception|Timeout))(?:: | - ))+")


def mapped(error: Exception, request: Request, connection: Connection, hear: Hear | None) -> LMError:
    """Return the error that an exception of a litellm call stands for.

    Args:
        error: what litellm raised.
        request: what was sent.
        connection: where it was sent.
        hear: told the headers of a refusal.
    """
    remember(os.environ.get(f"{request.model.partition('/')[0].upper()}_API_KEY", ""))  # litellm finds it there by itself
    causes = list(_causes(error))
    kind = _kind(BY_LITELLM, [error])
    message = _PREFIX.sub("", str(error))
    for cause in causes:
        answer: Any = getattr(cause, "response", None)
        if getattr(answer, "status_code", 0) >= _REFUSED:
            if hear is not None:
                hear(answer.headers)
            body, headers = _said(cause, answer, message), answer.headers
            return refused(answer.status_code, body, headers, request=request, connection=connection, otherwise=kind)
    if kind := kind or _kind(WITHOUT_ANSWER, causes):
        message = message or type(next(iter(causes), error)).__name__
        failed: LMError = failure(None, message, request=request, connection=connection, kind=kind)
        if kind is LMTimeoutError and (connection.stream or connection.timeout_s):
            failed = (silent if connection.stream else too_late)(request, connection)
        failed.sent = not any(type(cause).__name__ in UNSENT for cause in causes)
        return failed
    if (status := _status(error, causes)) is not None:
        return refused(status, said(message), {}, request=request, connection=connection)
    return not_an_answer(message, message or "it is empty", request, connection)


def _kind(table: Iterable[Row], raised: Iterable[BaseException]) -> type[LMError] | None:
    """Return the error of the first row that one of these exceptions matches."""
    exact = {type(error).__name__ for error in raised}
    names = {cls.__name__ for error in raised for cls in type(error).__mro__}
    return next((row.kind for row in table if row.name in (exact if row.exactly else names)), None)


def _status(error: Exception, causes: Iterable[BaseException]) -> int | None:
    """Return the status that litellm gives a refusal of its own or of an SDK; None if it is unreliable."""
    status = getattr(error, "status_code", None)
    unnumbered = any(type(cause) is Exception and getattr(cause, "status_code", 0) == _UNNUMBERED for cause in causes)
    return status if isinstance(status, int) and status >= _REFUSED and status != _UNTRUE and not unnumbered else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what litellm's exception has wrapped, from the outside in, without litellm's own classes."""
    cause: BaseException | None = error
    while cause is not None:
        if not type(cause).__module__.startswith("litellm"):
            yield cause
        cause = cause.__cause__ or cause.__context__


def _said(refusal: BaseException, answer: Any, otherwise: str) -> Said:
    """Return what the body of a refusal says; `otherwise` is litellm's message, which may hold the body."""
    try:
        content = answer.content
    except RuntimeError:  # httpx: it has not been read
        content = b""
    if content:
        return said(content)
    body = getattr(refusal, "body", None)
    return of_tree(body) if isinstance(body, dict) and body.get("message") else said(otherwise)
