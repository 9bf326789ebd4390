"""Servers that data is fetched from: plain files over HTTP, and a Hub that speaks the Hugging Face Hub's API."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tests.support.loopback import Loopback, Request, Script, response

if TYPE_CHECKING:
    from collections.abc import Callable


class Files(Loopback):
    """Files over HTTP, with ETags, conditional requests and ranges, and with faults.

    Attributes:
        content: the files, by path without query.
        token: what a request must bear; None: nothing.
        query: what the query of a request must be; None: anything.
        faults: taken from the front, one per request for a file; each makes a script of the honest reply.
        seen: the requests.
    """

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__()
        self.content = content
        self.token: str | None = None
        self.query: str | None = None
        self.faults: list[Callable[[bytes], Script]] = []
        self.seen: list[Request] = []

    async def route(self, request: Request) -> Script:
        self.seen.append(request)
        return self.answer(request)

    def answer(self, request: Request) -> Script:
        parts = urlsplit(request.path)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return Script((response(b"who are you", 401),))
        if self.query is not None and parts.query != self.query:
            return Script((response(b"no", 403),))
        name = unquote(parts.path).lstrip("/")
        if name not in self.content:
            return Script((response(b"gone", 404),))
        honest = self._file(request, self.content[name])
        return self.faults.pop(0)(honest) if self.faults else Script((honest,))

    def _file(self, request: Request, body: bytes) -> bytes:
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == etag:
            return response(b"", 304, ETag=etag)
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if wanted and request.headers.get("if-range") == etag:
            start = int(wanted[1])
            there = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return response(body[start:], 206, ETag=etag, **{"Content-Range": there})
        return response(body, ETag=etag)


def cut(at: int) -> Callable[[bytes], Script]:
    """Break the connection `at` bytes before the end."""
    return lambda honest: Script((honest[:-at],), "reset")


def busy(_: bytes) -> Script:
    """Say that the server is overloaded."""
    return Script((response(b"busy", 503),))


def silent(honest: bytes) -> Script:
    """Send half, and then nothing."""
    return Script((honest[: -len(honest) // 4],), "hang")


def compressed_part(honest: bytes) -> Script:
    """Compress what passes for a range, as some proxies do."""
    head, _, body = honest.partition(b"\r\n\r\n")
    there = re.search(rb"Content-Range: ([^\r]+)", head)
    etag = re.search(rb"ETag: ([^\r]+)", head)
    assert there
    assert etag
    headers = {"Content-Range": there[1].decode(), "ETag": etag[1].decode(), "Content-Encoding": "gzip"}
    return Script((response(gzip.compress(body), 206, **headers),))


class Hub(Files):
    """A Hub with one data set, ``org/rows``, whose branch `main` can move.

    Attributes:
        commits: the files of each commit, by its id.
        branch: the commit of `main`.
        card: the front matter of its README.
    """

    def __init__(self, files: dict[str, bytes], card: dict | None = None) -> None:
        super().__init__({})
        self.commits: dict[str, dict[str, bytes]] = {}
        self.card = card
        self.push(files)

    def push(self, files: dict[str, bytes]) -> str:
        """Add a commit to `main`."""
        self.branch = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[self.branch] = files
        for name, body in files.items():
            self.content[f"datasets/org/rows/resolve/{self.branch}/{name}"] = body
        return self.branch

    def answer(self, request: Request) -> Script:
        asked = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/revision/([^?]+)\?blobs=true", request.path)
        if asked is None:
            return super().answer(request)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return Script((response(b"{}", 401),))
        sha = self.branch if asked[2] == "main" else asked[2]
        if asked[1] != "org/rows" or sha not in self.commits:
            return Script((response(b'{"error": "not found"}', 404),))
        siblings = [_listed(name, body) for name, body in self.commits[sha].items()]
        return Script((response(json.dumps({"sha": sha, "siblings": siblings, "cardData": self.card}).encode()),))


class Bucket(Files):
    """An S3 endpoint with objects at ``bucket/key``: what S3's API says to GetObject and HeadObject.

    Attributes:
        denied: the status and the code of the error that every request gets; None: none does.
    """

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__(content)
        self.denied: tuple[int, str] | None = None

    def answer(self, request: Request) -> Script:
        if self.denied is None:
            return super().answer(request)
        status, code = self.denied
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}, it says</Message></Error>".encode()
        return Script((self._headed(request, response(body, status, Content_Type="application/xml")),))

    def _file(self, request: Request, body: bytes) -> bytes:
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        if request.headers.get("if-none-match") == etag:
            return response(b"", 304, ETag=etag)
        if request.headers.get("if-match", etag) != etag:
            return response(b"<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>", 412)
        start = int(request.headers.get("range", "bytes=0-")[len("bytes=") : -1])
        there = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        return self._headed(request, response(body[start:], 206 if start else 200, ETag=etag, **there))

    def _headed(self, request: Request, whole: bytes) -> bytes:
        return whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.method == "HEAD" else whole


def _listed(name: str, body: bytes) -> dict:
    """What the Hub lists of a file; those in large-file storage have their digest."""
    large = {"lfs": {"sha256": hashlib.sha256(body).hexdigest()}} if name.endswith(".parquet") else {}
    return {"rfilename": name, **large}
