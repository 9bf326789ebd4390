"""Read files over http(s). What is sent is asked for as it is, because parts of a compressed reply pass for ranges."""

from __future__ import annotations

import functools
import re
import ssl
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from runner.data.remote import door
from runner.data.remote.door import BLOCK, LostError, Reply, changed, refused
from runner.errors import ConfigError, DataError
from runner.secrets import redact, revealed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.client import HTTPResponse
    from urllib.request import OpenerDirector

_SINCE = "modified "
"""Begins the version of a file whose server sends the time of its last change, and no ETag."""

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Http:
    """Files at ``http(s)://`` addresses.

    Args:
        token: sent to the host of each address; None: none is.

    Raises:
        ConfigError: an address with a token is not https.
    """

    def __init__(self, token: str | None = None) -> None:
        self._token = token

    def addresses(self, address: str) -> list[str]:
        """Return the address itself."""
        return [address]

    def fixed(self, address: str) -> bool:  # noqa: ARG002 - as all doors have it
        """Return False: the file at an address may change."""
        return False

    def open(self, address: str, *, start: int = 0, version: str | None = None, unless: str | None = None) -> Reply | None:
        """Begin to read a file. See `Door`."""
        url = revealed(address)
        if url is None:
            raise DataError(
                f"{address}: what follows the ? is a secret that was not recorded, and its content is not on this machine: "
                "begin a new run with the whole address"
            )
        return self.read(address, url, start=start, version=version, unless=unless)

    def read(
        self, shown: str, url: str, *, start: int = 0, version: str | None = None, unless: str | None = None
    ) -> Reply | None:
        """Begin to read the file at `url`, which messages call `shown`. See `Door`."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "ostinato", **self._authorization(url)}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": version or ""}
        if unless is not None:
            since = unless.startswith(_SINCE)
            headers["If-Modified-Since" if since else "If-None-Match"] = unless.removeprefix(_SINCE)
        reply = _sent(shown, Request(url, headers=headers))  # noqa: S310 - the scheme was checked
        if reply is None:
            return None
        try:
            return _understood(shown, reply, start)
        except BaseException:
            reply.close()
            raise

    def _authorization(self, url: str) -> Mapping[str, str]:
        if self._token is None:
            return {}
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ConfigError(f"{redact(url)}: a token is sent over https only")
        return {"Authorization": f"Bearer {self._token}"}


class _Redirects(HTTPRedirectHandler):
    """Follow redirects. Another host does not get the token."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            new.remove_header("Authorization")
        return new


@functools.cache
def _opener() -> OpenerDirector:
    return build_opener(_Redirects())


def _sent(shown: str, request: Request) -> HTTPResponse | None:
    """Send a request. Return the reply of a success; None for 304."""
    try:
        reply: HTTPResponse = _opener().open(request, timeout=door.TIMEOUT_S)
    except HTTPError as refusal:
        with refusal:
            if refusal.code == 304:  # noqa: PLR2004
                return None
            raise refused(shown, refusal.code, refusal.reason) from None
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DataError(f"{shown}: its certificate cannot be trusted: {reason.verify_message}") from None
        raise LostError(_said(reason)) from None
    return reply


def _understood(shown: str, reply: HTTPResponse, start: int) -> Reply:
    headers = reply.headers
    size = headers.get("Content-Length")
    encoding = headers.get("Content-Encoding", "identity").lower()
    partial = reply.status == 206  # noqa: PLR2004
    if encoding not in ("identity", "gzip") or (partial and encoding != "identity"):
        what = "a part of it" if partial else "it"
        raise DataError(f"{shown}: the server compresses {what} ({encoding}) although it was asked not to; fetch it by hand")
    if size is None and not reply.chunked:
        raise DataError(f"{shown}: the server does not say how long it is, so that a part would pass for all; fetch it by hand")
    whole = None if size is None else int(size)
    if partial:
        found = _RANGE.match(headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise changed(shown)
        whole = None if found[2] == "*" else int(found[2])
    etag, last = headers.get("ETag"), headers.get("Last-Modified")
    return Reply(
        version=etag or (f"{_SINCE}{last}" if last else None),
        size=whole,
        start=start if partial else 0,
        blocks=_blocks(reply),
        close=reply.close,
        gzipped=encoding == "gzip",
        strong=bool(etag) and not str(etag).startswith("W/"),
    )


def _blocks(reply: HTTPResponse) -> Iterator[bytes]:
    try:
        while block := reply.read1(BLOCK):
            yield block
    except (HTTPException, OSError) as error:
        raise LostError(_said(error)) from None
    finally:
        reply.close()


def _said(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {door.TIMEOUT_S:g} s"
    return redact(str(getattr(error, "strerror", None) or error)) or type(error).__name__
