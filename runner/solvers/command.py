"""The command solver: a program in any language answers a row, and its requests are steps of the sample."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError, SolverError
from runner.secrets import redact
from runner.solvers.argv import is_path
from runner.solvers.endpoint import Endpoint
from runner.solvers.python import answer_of
from runner.solvers.solved import Bounds, Solved
from runner.system import programs
from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.solvers.endpoint import Door
    from runner.solvers.steps import Steps
    from runner.types import Row

_NOT_STARTED = 127
_SIGNALLED = 128
_TOLD = 500
"""Characters of what it has said last that its error repeats."""


class Command:
    """Answer a row by running a program: the row comes as JSON on its stdin, and its stdout is the answer.

    Its environment has OPENAI_BASE_URL and OPENAI_API_KEY, which OpenAI's clients read, and OPENAI_MODEL. Stdout is a text, or a
    JSON object with ``output``, which is a text or JSON data.

    Args:
        argv: the program and its arguments. A program without a slash is looked up in PATH.
        timeout_s: seconds after which it is ended.
        bounds: what it may take for a row.

    Raises:
        ConfigError: there is no such program.
    """

    is_code = True

    def __init__(self, argv: Sequence[str], timeout_s: float, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - it is immutable
        self.bounds = bounds
        self._argv = [str(expanded(argv[0]).absolute()) if is_path(argv[0]) else argv[0], *argv[1:]]
        self._timeout_s = timeout_s
        self._endpoint = Endpoint()
        self._name = f"the program {Path(argv[0]).name!r}"
        if shutil.which(self._argv[0]) is None:
            there = is_path(argv[0]) and Path(self._argv[0]).exists()
            why = "is not a program: it cannot be executed" if there else "is not found"
            raise ConfigError(f"solver.argv: {argv[0]} {why}")

    async def solve(self, row: Row, steps: Steps) -> Solved:
        """Run the program. Raises as `Solver.solve`."""
        given = json.dumps(dict(row.fields), ensure_ascii=False, default=str).encode()
        try:
            async with self._endpoint.door(steps) as door, asyncio.timeout(self._timeout_s) as late:
                ended = await programs.run(self._argv, stdin=given, env=self._environment(door, steps.lm.model))
        except TimeoutError:
            if not late.expired():
                raise
            raise SolverError(f"{self._name} took longer than solver.timeout_s={self._timeout_s:g} seconds") from None
        except OSError as error:
            raise SolverError(f"{self._name} cannot be run: {error.strerror or error}") from None
        if len(ended.stdout) > programs.MAX_OUTPUT:
            raise SolverError(f"{self._name} was ended: it wrote more than {programs.MAX_OUTPUT // 2**20} MiB to stdout")
        if ended.code != 0:
            raise SolverError(self._failure(ended, door))
        return self._answer(ended.stdout, steps)

    def _environment(self, door: Door, model: str) -> dict[str, str]:
        own = {"OPENAI_BASE_URL": door.url, "OPENAI_API_KEY": self._endpoint.key, "OPENAI_MODEL": model}
        direct = {name: ",".join(filter(None, [os.environ.get(name), "127.0.0.1"])) for name in ("NO_PROXY", "no_proxy")}
        return {**os.environ, **own, **direct}

    def _failure(self, ended: programs.Output, door: Door) -> str:
        said = redact(ended.stderr.decode(errors="replace")).strip()
        if ended.code == _NOT_STARTED and said.startswith("cannot start"):
            return f"{self._name} {said}"
        code = ended.code - _SIGNALLED
        how = f"was ended by {signal.Signals(code).name}" if code in set(signal.Signals) else f"ended with status {ended.code}"
        request = f" after a request had failed ({redact(str(door.failed))})" if door.failed is not None else ""
        return f"{self._name} {how}{request}" + (f": {said[-_TOLD:]}" if said else "; it said nothing on stderr")

    def _answer(self, stdout: bytes, steps: Steps) -> Solved:
        try:
            text = stdout.decode().strip()
        except UnicodeDecodeError as error:
            raise SolverError(f"{self._name} wrote what is not UTF-8 to stdout: {error.reason} at byte {error.start}") from None
        value = _output_of(text)
        if value is None or value == "":
            raise SolverError(f"{self._name} wrote nothing to stdout, where its answer belongs")
        return answer_of(value, steps)


def _output_of(text: str) -> Any:
    """Return what a JSON object has as ``output``; the text itself if it is not one that has it."""
    if text.startswith("{"):
        try:
            found = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
        if isinstance(found, dict) and "output" in found:
            return found["output"]
    return text
