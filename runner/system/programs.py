"""Run a program to its end in an event loop: it is given a text, and what it writes is returned. It dies with this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from typing import IO, TYPE_CHECKING, NamedTuple

from runner.system import processes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_OUTPUT = 16 * 2**20
"""Bytes of stdout that are read; what comes after these is left out."""

_TAIL = 8 * 2**10
_PATIENCE_S = 2.0


class Output(NamedTuple):
    """Hold what a program has left: its exit code (128 + N for signal N), its stdout, and the end of its stderr."""

    code: int
    stdout: bytes
    stderr: bytes


async def run(argv: Sequence[str], *, stdin: bytes, env: Mapping[str, str]) -> Output:
    """Run a program to its end, under a supervisor (`runner.system.processes`). Cancelling kills it and all that it has started.

    Files carry what is written, so a process that it leaves behind keeps nobody waiting.

    Args:
        argv: the program and its arguments. No secrets: every user of the machine can read them.
        stdin: what it is given.
        env: its whole environment, secrets included.

    Raises:
        OSError: there is no room for its files, or no process can be made.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        supervisor = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            processes.__file__,
            f"{os.getpid()}:{given.fileno()}",
            *argv,
            stdin=asyncio.subprocess.PIPE,  # its other end is ours alone: when it closes, the program ends
            stdout=out,
            stderr=err,
            env=env,
            pass_fds=(given.fileno(),),
            start_new_session=True,
        )
        try:
            code = await supervisor.wait()
        finally:
            await _end(supervisor)
        out.seek(0)
        return Output(code, out.read(MAX_OUTPUT), _end_of(err))


async def _end(supervisor: asyncio.subprocess.Process) -> None:
    """Have the supervisor end the program: soon, and by force if it does not hear."""
    assert supervisor.stdin is not None
    for _ in range(3):
        if supervisor.returncode is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            supervisor.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(supervisor.wait(), _PATIENCE_S)
    if supervisor.returncode is None:
        supervisor.kill()
        await supervisor.wait()
    supervisor.stdin.close()


def _end_of(file: IO[bytes]) -> bytes:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    return file.read()
