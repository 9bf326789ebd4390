"""Keep the manifest of a sweep on disk while its cells begin and end, in several threads."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from runner.records.sweep import CellRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.records import SweepFolder
    from runner.records.sweep import SweepManifest

EVERY_S = 0.5
"""Seconds between two writes while cells run, so that a sweep of many cells does not write its manifest for each of them."""


class Saved:
    """A manifest, and the file that it is written to.

    A process that is killed loses no cell that it had not written: the folder of each run says which cell it is of.

    Args:
        record: the sweep's folder.
        manifest: its content; changed by others.
    """

    def __init__(self, record: SweepFolder, manifest: SweepManifest) -> None:
        self._record = record
        self._manifest = manifest
        self._lock = threading.Lock()
        self._changed = False
        self._at = 0.0

    def add(self, cells: Mapping[str, dict[str, Any]]) -> None:
        """Add cells by id, with their values, and write those that were not there yet. Raises RecordError."""
        new = {key: CellRecord(values=values) for key, values in cells.items() if key not in self._manifest.cells}
        if new:
            with self._lock:
                self._manifest.cells.update(new)
            self.write()

    def changed(self) -> None:
        """Note a change. It is written now, or within `EVERY_S` by `keep`, or by the next `write`. Raises RecordError."""
        self._changed = True
        if time.monotonic() - self._at >= EVERY_S:
            self.write()

    def write(self) -> None:
        """Write the manifest as it is now. Raises RecordError."""
        with self._lock:
            self._changed, self._at = False, time.monotonic()
            self._record.write(self._manifest)

    async def keep(self) -> None:
        """Write what `changed` has left, until this is cancelled. Raises RecordError."""
        while True:
            await asyncio.sleep(EVERY_S)
            if self._changed:
                await asyncio.to_thread(self.write)
