"""Remember which weights the entries of a cache were made by, for the time when their server is not up."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import msgspec

from runner.system.files import write_private
from runner.system.paths import private

if TYPE_CHECKING:
    from pathlib import Path


class _Known(msgspec.Struct, frozen=True):
    model: str
    address: str
    endpoint: str


class LastServed:
    """The endpoints, weights included, that servers named when they were last asked: a file for each in the cache's folder.

    Args:
        folder: the folder of the cache.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "served"

    def get(self, model: str, address: str) -> str | None:
        """Return the endpoint that the server of `model` at `address` named last; None if it has never named one."""
        try:
            return msgspec.json.decode(self._file(model, address).read_bytes(), type=_Known).endpoint
        except (OSError, msgspec.MsgspecError):
            return None

    def set(self, model: str, address: str, endpoint: str) -> None:
        """Remember an endpoint. Without a difference from `address` there is nothing to remember. A full disk is ignored."""
        if self.get(model, address) == (endpoint if endpoint != address else None):
            return
        file = self._file(model, address)
        with contextlib.suppress(OSError):
            if endpoint == address:
                file.unlink(missing_ok=True)
            else:
                private(self._folder)
                write_private(file, msgspec.json.encode(_Known(model, address, endpoint)))

    def _file(self, model: str, address: str) -> Path:
        return self._folder / f"{hashlib.sha256(f'{model} {address}'.encode()).hexdigest()[:24]}.json"
