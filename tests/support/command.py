"""The command `ostinato`: called in this process, or run as people run it, by `python -m runner ...` in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import pytest

from runner.cli import main
from tests.support.clock import PATIENCE_S, wait_until

if TYPE_CHECKING:
    import signal

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)


class Running:
    """A command that runs, as a context manager that leaves nothing running; what it has said so far can be read while it does.

    Args:
        arguments: of `ostinato`.
        environment: set in addition to the test's own.
        stdout, stderr: where they go; None keeps them for `out` and `err`.
    """

    def __init__(self, *arguments: str, stdout: int | None = None, stderr: int | None = None, **environment: str) -> None:
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._out if stdout is None else stdout,
            stderr=self._err if stderr is None else stderr,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()

    @property
    def err(self) -> str:
        """What it has written to stderr."""
        return _content(self._err)

    def says(self, words: str) -> None:
        """Wait until it has written these words to stderr.

        Raises:
            AssertionError: it ended before it did.
        """
        wait_until(lambda: words in self.err or self.process.poll() is not None, f"the words {words!r}")
        assert words in self.err, f"ended with {self.process.returncode} and did not say {words!r}:\n{self.err}"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, as a terminal or a supervisor would."""
        self.process.send_signal(number)

    def wait(self) -> Done:
        """Wait for its end. However it ends, it shows no traceback."""
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {PATIENCE_S:g} s\n{self.err}") from None
        done = Done(self.process.returncode, _content(self._out), self.err)
        assert "Traceback" not in done.out + done.err, done.out + done.err
        return done


def ostinato(*arguments: str, **environment: str) -> Done:
    """Run `ostinato` with these arguments in this process, which saves a second of imports.

    A test about a process (signals, kills, closed pipes, full disks) takes `Running`.

    Args:
        arguments: of `ostinato`.
        environment: set in addition to the test's own, for this command alone.
    """
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        for name, value in environment.items():
            patch.setenv(name, value)
        warnings.simplefilter("default", UserWarning)  # the command shows its warnings; pytest makes errors of them
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse
            code = end.code
    return Done(code, _written(out), _written(err))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()


def _content(file: IO[bytes]) -> str:
    """All of it, without moving the position that the child writes at."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()
