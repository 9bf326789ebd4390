"""Run a program to its end in an event loop: it is given a text, and what it writes is returned. It dies with this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from runner.system import processes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_OUTPUT = 16 * 2**20
"""Bytes of stdout after which a program is ended."""

_TAIL = 8 * 2**10
_CHUNK = 2**16
_MOST_IN_PIPE = 2**20
_PATIENCE_S = 2.0


class Output(NamedTuple):
    """Hold what a program has left.

    Attributes:
        code: its exit code (128 + N for signal N).
        stdout: what it wrote: more than `MAX_OUTPUT` bytes if it was ended because of that.
        stderr: the end of it.
    """

    code: int
    stdout: bytes
    stderr: bytes


class _Heard:
    """Collect what is written into a pipe, as it comes.

    Args:
        loop: the event loop, which reads.
        most: bytes after which nothing more is read, or, of the `end`, the bytes that are kept.
        end: keep the end of it only.

    Attributes:
        pipe: the end to write into.
        much: set once there is too much.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int, *, end: bool = False) -> None:
        self._loop, self._most, self._keeps_end = loop, most, end
        self._said = bytearray()
        self.much: asyncio.Future[None] = loop.create_future()
        self._reading, self.pipe = os.pipe()
        os.set_blocking(self._reading, False)
        loop.add_reader(self._reading, self._read)

    def close(self) -> bytes:
        """Return what was written so far, without waiting for whoever still has the pipe."""
        for _ in range(_MOST_IN_PIPE // _CHUNK):
            if not self._read():
                break
        self._loop.remove_reader(self._reading)
        os.close(self._reading)
        return bytes(self._said)

    def _read(self) -> bool:
        """Read a part. Return False if there is none, or there is too much."""
        try:
            part = os.read(self._reading, _CHUNK)
        except BlockingIOError:
            return False
        self._said += part
        if self._keeps_end:
            del self._said[: -self._most]
        too_much = len(self._said) > self._most
        if too_much and not self.much.done():
            self.much.set_result(None)
        if too_much or not part:  # none: nobody has the pipe any more
            self._loop.remove_reader(self._reading)
        return bool(part) and not too_much


async def run(argv: Sequence[str], *, stdin: bytes, env: Mapping[str, str]) -> Output:
    """Run a program to its end, under a supervisor (`runner.system.processes`). Cancelling kills it and all that it has started.

    A process that it leaves behind keeps nobody waiting.

    Args:
        argv: the program and its arguments. No secrets: every user of the machine can read them.
        stdin: what it is given.
        env: its whole environment, secrets included.

    Raises:
        OSError: there is no room for `stdin`, or no process can be made.
    """
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        out, err = _Heard(loop, MAX_OUTPUT), _Heard(loop, _TAIL, end=True)
        try:
            code = await _ended(argv, given.fileno(), (out, err), env)
        finally:
            stdout, stderr = out.close(), err.close()
        return Output(code, stdout, stderr)


async def _ended(argv: Sequence[str], stdin: int, said: tuple[_Heard, _Heard], env: Mapping[str, str]) -> int:
    """Run the program until it ends or has written too much, and return its exit code."""
    out, err = said
    try:
        supervisor = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            processes.__file__,
            f"{os.getpid()}:{stdin}",
            *argv,
            stdin=asyncio.subprocess.PIPE,  # its other end is ours alone: when it closes, the program ends
            stdout=out.pipe,
            stderr=err.pipe,
            env=env,
            pass_fds=(stdin,),
            start_new_session=True,
        )
    finally:
        os.close(out.pipe)
        os.close(err.pipe)
    waiting = asyncio.ensure_future(supervisor.wait())
    try:
        await asyncio.wait((waiting, out.much), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        await _end(supervisor)
    assert supervisor.returncode is not None
    return supervisor.returncode


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
