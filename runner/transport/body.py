"""Encode the bodies of requests. What stands before and after what is said is encoded once for all requests that share it."""

from __future__ import annotations

from operator import is_
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.types import Connection, Request

_encode = msgspec.json.Encoder().encode
_NAMES = {"chat": "messages", "text": "prompt", "embedding": "input"}
_PLAIN = frozenset({str, int, float, bool, type(None)})
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class _Frame(NamedTuple):
    """The JSON around what is said, and what it was made of."""

    model: str
    model_type: str
    params: dict[str, Any]
    streaming: Mapping[str, Any]
    before: bytes
    after: bytes

    def fits(self, request: Request, streaming: Mapping[str, Any]) -> bool:
        """Return whether a request has the same parameters. 1 and 1.0 are equal and written differently: objects are compared."""
        own, params = self.params, request.params
        return (
            streaming is self.streaming
            and len(own) == len(params)
            and all(map(is_, own, params))
            and all(map(is_, own.values(), params.values()))
            and request.model == self.model
            and request.model_type == self.model_type
        )


class Bodies:
    """The bodies of requests over one connection.

    Args:
        connection: its `body` is part of each.
    """

    def __init__(self, connection: Connection) -> None:
        self._more = connection.body
        self._frame: _Frame | None = None

    def of(self, request: Request, streaming: Mapping[str, Any] = _NOTHING) -> bytes:
        """Return the body of a request, as JSON. `streaming` are the fields that ask for a streamed answer."""
        frame = self._frame
        if frame is None or not frame.fits(request, streaming):
            frame = self._frame = self._framed(request, streaming)
            if frame is None:
                return _encode(self._fields(request, streaming))
        return b"%b%b%b" % (frame.before, _encode(_said(request)), frame.after)

    def _framed(self, request: Request, streaming: Mapping[str, Any]) -> _Frame | None:
        """Return the frame; None if it may differ the next time although its parts are the same objects."""
        fields, name = self._fields(request, streaming), _NAMES[request.model_type]
        if self._more or fields[name] is not _said(request) or not all(type(one) in _PLAIN for one in request.params.values()):
            return None
        names = list(fields)
        at = names.index(name)
        before = _encode({key: fields[key] for key in names[:at]})[:-1]
        after = _encode({key: fields[key] for key in names[at + 1 :]})[1:]
        return _Frame(
            request.model,
            request.model_type,
            request.params.copy(),
            streaming,
            b'%b,"%b":' % (before, name.encode()),
            after if after == b"}" else b"," + after,
        )

    def _fields(self, request: Request, streaming: Mapping[str, Any]) -> dict[str, Any]:
        params = {key: value for key, value in request.params.items() if key != "extra_body"}
        return {
            "model": request.model.partition("/")[2],
            _NAMES[request.model_type]: _said(request),
            **params,
            **streaming,
            **request.params.get("extra_body", {}),
            **self._more,
        }


def _said(request: Request) -> Any:
    return request.messages if request.model_type == "chat" else request.prompt
