"""Fetch remote data whole, or find it among what was fetched before. Nothing that is half-read is ever used."""

from __future__ import annotations

import gzip
import hashlib
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.data.formats import PACKED
from runner.data.remote.door import LostError, UnreachableError, changed
from runner.data.remote.http import Http
from runner.data.remote.hub import Hub
from runner.data.remote.naming import file_name, unpinned
from runner.data.remote.s3 import S3
from runner.data.remote.store import Kept, Store
from runner.errors import DataError
from runner.secrets import from_env
from runner.wording.numbers import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import BinaryIO, TypeVar

    from runner.data.remote.door import Door, Reply

    T = TypeVar("T")

PAUSES_S = (0.5, 2.0, 5.0)
"""Seconds between attempts. An attempt that brought something makes the next ones begin with the first pause again."""


class Fetched(NamedTuple):
    """A remote file that lies on this machine.

    Attributes:
        path: where it lies.
        kept: its address, version and digest.
        remark: what people should know, if anything: it may be an old copy.
    """

    path: Path
    kept: Kept
    remark: str | None = None


def fetched(address: str, token_env: str | None = None) -> list[Fetched]:
    """Return the files that an address stands for, fetched unless this version of them is here already.

    Args:
        address: ``https://...``, ``s3://bucket/key``, ``hf://org/name[@revision]/split-or-path``; with ``#sha256=...`` at its
            end, any other content is an error, and the network is not asked for content that is here.
        token_env: the environment variable that holds a token for the server.

    Raises:
        ConfigError: the variable is not set, or a package that this kind of address needs is not installed.
        DataError: there is no such data, access is refused, it changed meanwhile, or it cannot be reached and is not here.
    """
    store = Store()
    plain, pin = unpinned(address)
    if pin and (kept := store.by_digest(plain, pin, file_name(plain))):
        return _here(store, [kept])
    try:
        door = _door(plain, token_env)
        found = [_file(door, store, one) for one in _patiently(plain, lambda: door.addresses(plain))]
    except UnreachableError as error:
        if pin or not (known := store.known(plain)):
            raise
        return _here(store, known, f"{error}; the copy that was fetched last is used")
    if pin and [kept.sha256 for kept in found] != [pin]:
        raise DataError(f"{plain} is not what it was: its SHA-256 was {pin[:12]}..., and is {found[0].sha256[:12]}... now")
    store.note(plain, found)
    return _here(store, found)


def in_place(message: str, files: Iterable[Fetched]) -> str:
    """Return a message that names files where they lie on this machine with their addresses instead."""
    for file in files:
        message = message.replace(str(file.path), file.kept.url)
    return message


def _here(store: Store, found: list[Kept], remark: str | None = None) -> list[Fetched]:
    files = []
    for kept in found:
        path = store.path(kept)
        assert path is not None
        files.append(Fetched(path, kept, remark))
    return files


def _door(address: str, token_env: str | None) -> Door:
    if address.startswith("s3://"):
        return S3()
    token = None if token_env is None else from_env(token_env, where="data.token_env")
    return Hub(token) if address.startswith("hf://") else Http(token)


def _patiently(address: str, ask: Callable[[], T]) -> T:
    """Ask until somebody answers, a few times."""
    for pause in (*PAUSES_S, None):
        try:
            return ask()
        except LostError as error:
            if pause is None:
                raise UnreachableError(f"{address} cannot be reached: {error}") from None
            time.sleep(pause)
    raise AssertionError(address)


def _opened(door: Door, url: str, **asked: Any) -> Reply | None:
    return _patiently(url, lambda: door.open(url, **asked))


def _file(door: Door, store: Store, address: str) -> Kept:
    """Return the content of one file, fetched if its version is not here."""
    url, pin = unpinned(address)
    name = file_name(url)
    if pin and (kept := store.by_digest(url, pin, name)):
        return kept
    known = store.known(f"file {url}")
    last = known[0] if known else None
    if last is not None and door.fixed(url):
        return last
    reply = _opened(door, url, unless=last.version if last else None)
    if reply is None:
        assert last is not None
        return last
    if last is not None and reply.version is not None and reply.version == last.version:
        reply.close()
        return last
    with store.part() as part:
        sha256, size = _copy(door, url, reply, part)
        if pin and sha256 != pin:
            raise DataError(f"{url}: what came has another SHA-256 than the server announced; nothing of it is used: run again")
        kept = Kept(url, reply.version, sha256, size, name)
        if reply.gzipped and not name.endswith(PACKED):
            kept = _unpacked(store, part, kept)
        else:
            store.keep(part, kept)
    store.note(f"file {url}", [kept])
    return kept


def _copy(door: Door, url: str, reply: Reply, part: BinaryIO) -> tuple[str, int]:
    """Read a reply to its end; where the connection breaks, ask for the rest. Return the digest and the size."""
    first, digest, pauses, furthest = reply, hashlib.sha256(), list(PAUSES_S), 0
    while True:
        try:
            for block in reply.blocks:
                part.write(block)
                digest.update(block)
            _refuse_short(reply, part)
            return digest.hexdigest(), part.tell()
        except LostError as error:
            if part.tell() > furthest:
                furthest, pauses = part.tell(), list(PAUSES_S)
            if not pauses:
                whole = f" of {count(first.size, 'byte')}" if first.size is not None else ""
                told = f"the connection was lost after {part.tell():,}{whole}, several times ({error})"
                raise UnreachableError(f"{url}: {told}; nothing of it is used") from None
        finally:
            reply.close()
        time.sleep(pauses.pop(0))
        start = part.tell() if first.strong and not first.gzipped else 0
        again = _opened(door, url, start=start, version=first.version if start else None)
        if again is None or again.version != first.version or again.size != first.size:
            raise changed(url)
        if again.start != part.tell():
            part.seek(again.start)
            part.truncate()
            digest = hashlib.sha256()
        reply = again


def _refuse_short(reply: Reply, part: BinaryIO) -> None:
    if reply.size is not None and part.tell() != reply.size:
        raise LostError(f"the connection ended after {part.tell():,} of {reply.size:,} bytes")


def _unpacked(store: Store, part: Any, kept: Kept) -> Kept:
    """Keep the content of a reply that the server compressed for the way."""
    digest = hashlib.sha256()
    part.seek(0)
    with store.part() as plain:
        try:
            with gzip.open(part) as packed:
                while block := packed.read(1 << 20):
                    plain.write(block)
                    digest.update(block)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{kept.url}: the server says that it is compressed, and it cannot be unpacked: {error}") from error
        whole = Kept(kept.url, kept.version, digest.hexdigest(), plain.tell(), kept.name)
        store.keep(plain, whole)
    return whole
