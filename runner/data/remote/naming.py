"""Addresses of remote data: which text is one, the content that it pins, and the name of its file."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from runner.errors import DataError

_SCHEMES = ("https://", "http://", "s3://", "hf://")
_PIN = re.compile(r"#sha256=([0-9a-f]{64})$")


def is_remote(path: str) -> bool:
    """Return whether a path is an address of remote data."""
    return path.startswith(_SCHEMES)


def pinned(address: str, sha256: str | None) -> str:
    """Return an address that stands for one content only: ``https://host/rows.csv#sha256=...``; as it is without a digest."""
    return f"{address}#sha256={sha256}" if sha256 else address


def unpinned(address: str) -> tuple[str, str | None]:
    """Return an address without its pin, and the SHA-256 (hex) that it pins; None if it pins none.

    Raises:
        DataError: it has a fragment that is not a pin.
    """
    found = _PIN.search(address)
    if found is None and "#" in address:
        raise DataError(f"{address.partition('#')[0]}: what follows # must be sha256= and 64 hex digits")
    return (address[: found.start()], found[1]) if found else (address, None)


def file_name(address: str) -> str:
    """Return the name of the file at an address, fit for a file system; ``data`` if it has none."""
    name = unquote(urlsplit(address).path).rsplit("/", 1)[-1]
    clean = re.sub(r"[^\w.+@=-]", "_", name).lstrip(".")
    return clean[-200:] or "data"


def title(address: str) -> str | None:
    """Return the name of a data set on a hub; None for other addresses, whose files have names of their own."""
    found = re.match(r"hf://(?:datasets/)?[^/@]+/([^/@]+)", address)
    return found[1] if found else None
