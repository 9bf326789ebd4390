"""A bounded pool of child processes that compare formulas, each comparison within a time limit of our own."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from runner.errors import ConfigError

PROGRAM = Path(__file__).with_name("verifier.py")
_MOST_KNOWN = 16_384
_START_S = 120.0
"""Seconds that a child may take to import sympy: 2 on an idle machine."""


class Verdict(NamedTuple):
    """The outcome of a comparison.

    Attributes:
        gold: whether the target could be parsed.
        answer: whether the answer could be parsed.
        equal: whether both are equal.
        timed_out: whether it took too long, and nothing is known.
    """

    gold: bool
    answer: bool
    equal: bool
    timed_out: bool = False


TIMED_OUT = Verdict(gold=True, answer=False, equal=False, timed_out=True)


class _Child:
    """One child process. Used by one thread at a time."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._read = b""
        if self._line(_START_S) is None:
            self.close()
            raise ConfigError("scoring 'math': math-verify cannot be started; does `python -c 'import math_verify'` work?")

    def ask(self, gold: str, answer: str | None, limit_s: float) -> Verdict | None:
        """Compare. Return None if the child is gone, or has not answered in time."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"gold": gold, "answer": answer}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return None
        line = self._line(limit_s)
        return None if line is None else Verdict(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _line(self, limit_s: float) -> bytes | None:
        assert self._process.stdout is not None
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                block = os.read(self._process.stdout.fileno(), 65536)
                if not block:
                    return None
                self._read += block
        line, _, self._read = self._read.partition(b"\n")
        return line


class Pool:
    """Children that compare formulas: started when needed, at most `size` at once, and used again.

    Args:
        size: the most children at once.
        limit_s: seconds for one comparison; a child that takes longer is ended.
        program: what a child runs.
    """

    def __init__(self, size: int, limit_s: float, program: Path = PROGRAM) -> None:
        self._limit_s = limit_s
        self._program = program
        self._free = threading.BoundedSemaphore(size)
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._known: dict[tuple[str, str | None], Verdict] = {}

    def compare(self, gold: str, answer: str | None) -> Verdict:
        """Compare two formulas; without an answer, only parse the target. What is known already is not computed again."""
        if (known := self._known.get((gold, answer))) is not None:
            return known
        verdict = self._compared(gold, answer)
        if not verdict.timed_out:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[gold, answer] = verdict
        return verdict

    def _compared(self, gold: str, answer: str | None) -> Verdict:
        with self._free:
            try:
                child = self._idle.get_nowait()
            except queue.Empty:
                child = _Child(self._program)
            verdict = child.ask(gold, answer, self._limit_s)
            if verdict is None:
                child.close()
                return TIMED_OUT
            self._idle.put(child)
            return verdict

    def close(self) -> None:
        """End all idle children."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return


@lru_cache
def pool(limit_s: float) -> Pool:
    """Return the pool of this process for a time limit.

    Raises:
        ConfigError: math-verify is not installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise ConfigError("scoring 'math' needs the package math-verify: pip install 'ostinato[math]'")
    made = Pool(min(4, os.cpu_count() or 1), limit_s)
    atexit.register(made.close)
    return made
