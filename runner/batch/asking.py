"""Ask the models of scorers about an answer: through the engine, or from answers that are known already."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from runner.cache import request_key
from runner.lm.lent import Complete, Lent, Patterns
from runner.types import Completion

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from runner.cache import Entry
    from runner.cost.account import Account
    from runner.lm.lm import LM
    from runner.types import Request

T = TypeVar("T")
Known: TypeAlias = "Callable[[str, Request], Entry | None]"
"""Looks an answer up that the named model has given; None if there is none."""


class NotKnown(BaseException):
    """The answer to a request is not known. Not an `Exception`, so that no scorer takes it for one."""


class Models:
    """The models of one slot, by name. Each is made when it is first asked for.

    Args:
        lms: the named models of the run.
        complete: returns what answers the requests of a named model.
        patterns: what the requests of each have in common, kept over slots.
    """

    def __init__(
        self, lms: Mapping[str, LM], complete: Callable[[str, LM], Complete], patterns: dict[str, Patterns] | None = None
    ) -> None:
        self._patterns = {} if patterns is None else patterns
        self._lms = lms
        self._complete = complete
        self._lent: dict[str, Lent] = {}

    def __call__(self, name: str) -> Lent:
        """Return a model."""
        found = self._lent.get(name)
        if found is None:
            lm = self._lms[name]
            found = self._lent[name] = Lent(lm, self._complete(name, lm), self._patterns.setdefault(name, {}))
        return found

    @classmethod
    def sending(cls, lms: Mapping[str, LM], account: Account, patterns: dict[str, Patterns]) -> Models:
        """Return models whose requests are sent; what they cost is counted on the slot's account."""

        def complete(name: str, lm: LM) -> Complete:
            own = account.of(name)
            return lambda request, encoded: lm.acomplete(request, own, encoded=encoded)

        return cls(lms, complete, patterns)

    @classmethod
    def known(cls, lms: Mapping[str, LM], look: Known) -> Models:
        """Return models that answer what is known already, and raise `NotKnown` for anything else."""

        def complete(name: str, _lm: LM) -> Complete:
            async def found(request: Request, _encoded: bytes | None) -> Completion:
                if (entry := look(name, request)) is None:
                    raise NotKnown
                return Completion.hit(request_key(request), entry.response, entry.cost_usd)

            return found

        return cls(lms, complete)


def in_cache(lms: Mapping[str, LM]) -> Known:
    """Return what looks answers up in the cache of their model."""

    def look(name: str, request: Request) -> Entry | None:
        store = lms[name].store
        return store.get(request_key(request)) if store is not None and store.reads else None

    return look


def in_own_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop and a thread of its own, also where a loop runs already. Raises what it raises."""
    ended: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            ended.append(asyncio.run(coroutine))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, name="scoring")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return ended[0]


class Clock:
    """Add up what scorers cost in time, by name, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, name: str, since: float) -> None:
        """Add the time since then, a value of `time.perf_counter`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - since
