"""A Dask scheduler and its workers: real processes on loopback, each with a home and a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from tests.support.clock import wait_until
from tests.support.command import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


class Cluster:
    """The cluster, as a context manager.

    Args:
        folder: where its processes live.

    Attributes:
        address: of the scheduler.
        workers: the processes of the workers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._started = 0
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        where = self._folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(where))
        wait_until(where.exists, "the scheduler")
        self.address = json.loads(where.read_text())["address"]
        for _ in range(2):
            self.add()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self) -> None:
        """Start one more worker."""
        options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--memory-limit", "0", "--host", "127.0.0.1"]
        self.workers.append(self._start("worker", self.address, *options))

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        self._started += 1
        own = self._folder / f"{kind}-{self._started}"
        own.mkdir()
        keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        with (own / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments],
                cwd=own,
                env={**keep, "HOME": str(own), "OSTINATO_HOME": str(own / "home"), "PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process
