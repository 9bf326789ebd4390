"""The interface of transports, and the errors that they raise."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from runner.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionLostError,
    LMError,
    LMTimeoutError,
    MalformedError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    TransportError,
)
from runner.network.delay import retry_after
from runner.network.parameter import refused_parameter, remedy
from runner.network.refusal import Verdict, judge
from runner.network.said import Said, of_tree
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.types import Connection, Request, Response


Hear: TypeAlias = "Callable[[Mapping[str, str]], None]"


class Transport(Protocol):
    """Send one request, once, and return the answer. A transport does not retry, limit or cache.

    `complete` and `acomplete` raise LMError (and nothing else) if there is no answer. `hear` is called with the headers of every
    response, refusals included: they hold the remaining allowance.
    """

    def prepare(self, request: Request, connection: Connection) -> None:
        """Load what sending needs. The first call may take seconds, which must not count as the server's."""

    def complete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Send the request and wait for the answer."""

    async def acomplete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:
        """Do as `complete`, without blocking the event loop."""

    async def aclose(self) -> None:
        """Close the connections that calls in this event loop have left open. Call it last in a loop."""


STREAMING: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
"""Fields of a request for a streamed answer, with the tokens that it has used in its last event."""
_OK = 200
_STATUS = re.compile("[45][0-9][0-9]")
_ADVICE: dict[type[LMError], str] = {
    TransportError: "nothing answers there; check that the server runs, and model.api_base",
    ConnectionLostError: "the server took the request and closed the connection without an answer; look at its log, "
    "and at the limits of anything in between",
    AuthenticationError: "the key was refused; check the environment variable that `model.api_key_env` names",
    PermissionDeniedError: "this key may not use this model",
    NotFoundError: "no such model or address; check model.name and model.api_base",
    QuotaError: "the quota or credit of this key is used up; nothing more is sent to this endpoint",
}


def failure(
    status: int | None,
    message: str,
    *,
    request: Request,
    connection: Connection | None = None,
    kind: type[LMError] | None = None,
) -> LMError:
    """Return the error for a broken request: classified, without secrets, with advice if there is any."""
    verdict = Verdict(kind) if kind is not None else judge(status, message)
    return _error(verdict, message, request, connection, status=status)


def too_late(request: Request, connection: Connection) -> LMTimeoutError:
    """Return the error for an attempt that has taken all its time; the message names the setting."""
    why = f"no answer within {connection.timeout_s:g} s"
    if connection.stream:
        why += "; a streamed answer has limits.timeout_s, and more with sampling.max_tokens: raise limits.timeout_s"
    else:
        why += "; raise limits.timeout_s (`timeout` of an LM), or stream the answer: limits.stream=always"
    return _timeout(why, request, connection)


def silent(request: Request, connection: Connection) -> LMTimeoutError:
    """Return the error for a streamed answer that has stalled; the message names the setting."""
    why = f"nothing came for {connection.silence_s:g} s; if this server may be silent for longer, raise limits.silence_s"
    return _timeout(f"{why} (`silence` of an LM)", request, connection)


def _timeout(why: str, request: Request, connection: Connection) -> LMTimeoutError:
    error = failure(None, why, request=request, connection=connection, kind=LMTimeoutError)
    assert isinstance(error, LMTimeoutError)
    return error


def refused(
    status: int,
    body: Said,
    headers: Mapping[str, str],
    *,
    request: Request,
    connection: Connection,
    otherwise: type[LMError] | None = None,
) -> LMError:
    """Return the error for a refusal.

    Args:
        status: the HTTP status.
        body: what the body says.
        headers: names in lower case, or a mapping that ignores their case.
        request: what was sent.
        connection: where it was sent.
        otherwise: the class if the words of the body do not tell; default: that of the status.
    """
    wait = retry_after(headers)
    verdict = judge(status, body.words, otherwise)
    params = request.params | STREAMING if connection.stream else request.params
    name = refused_parameter(body.words, params) if verdict.kind is BadRequestError else None
    if name is not None:
        verdict = Verdict(BadRequestError, remedy(name, params, body.words))
    error = _error(
        verdict,
        body.message or str(status),
        request,
        connection,
        status=status,
        request_id=_line(headers.get("x-request-id") or headers.get("request-id") or "") or None,
        retry_after=wait if wait is not None else body.wait_s,
    )
    error.parameter = name
    return error


def not_an_answer(body: bytes | str, why: str, request: Request, connection: Connection) -> LMError:
    """Return the error for a body that came with 200 and is not an answer: some gateways send refusals so."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return malformed(request, why)
    if not isinstance(tree, dict) or not (tree.get("error") or tree.get("base_resp")):
        return malformed(request, why)
    found = refused_with_200(tree, MalformedError, request, connection)
    return malformed(request, why) if isinstance(found, MalformedError) else found


def refused_with_200(tree: dict[str, Any], otherwise: type[LMError], request: Request, connection: Connection) -> LMError:
    """Return the error for a refusal that came with 200: by the status in its ``code``, or by its words."""
    error = tree.get("error")
    code = str((error if isinstance(error, dict) else tree).get("code") or "")
    status = int(code) if _STATUS.fullmatch(code) else _OK
    kind = otherwise if status == _OK else None
    return refused(status, of_tree(tree, code), {}, request=request, connection=connection, otherwise=kind)


def _error(verdict: Verdict, message: str, request: Request, connection: Connection | None, **details: Any) -> LMError:
    text = _line(message)[:500]
    if connection and connection.api_base:
        text = f"{redact(connection.api_base)}: {text}"
    if advice := verdict.remedy or _ADVICE.get(verdict.kind):
        text = f"{advice} ({text})"
    return verdict.kind(text, provider=_provider(request), model=request.model, **details)


def malformed(request: Request, why: str) -> MalformedError:
    """Return the error for an answer that cannot be used."""
    return MalformedError(
        f"the server's answer cannot be used: {_line(why)[:300]}", provider=_provider(request), model=request.model
    )


def _provider(request: Request) -> str | None:
    return request.model.partition("/")[0] if "/" in request.model else None


def _line(text: str) -> str:
    """Return a server's words as one line that can be recorded: without secrets, and with ``?`` for invalid characters."""
    return redact(" ".join(text.split())).encode("utf-8", "replace").decode()
