"""The LM that a solver asks: a `runner.LM` whose calls are steps of one sample."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from runner.lm.history import History
from runner.lm.lm import LM
from runner.lm.parameters import LastParameters

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from contextlib import AbstractContextManager

    from runner.cost.account import Account
    from runner.lm.arguments import Inputs
    from runner.types import Completion, Connection, Message, Request

T = TypeVar("T")


class Taker(Protocol):
    """Take the calls of a `StepLM`, as `runner.solvers.steps.Steps` does."""

    async def take(self, lm: StepLM, request: Request, key: str, kwargs: Mapping[str, Any]) -> Completion:
        """Answer one request."""

    def wait(self, asked: Coroutine[Any, Any, T]) -> T:
        """Run a call of a thread."""


class StepLM(LM):
    """An LM under a run's cache, limiter, budget and retries, whose calls are steps of one sample. Made by `of` and `begin`.

    `lm(...)` blocks, so it is for plain functions, which run in a thread; `await lm.acall(...)` is for async ones. Copies of it
    (``lm.copy(temperature=1)``) make steps of the same sample.
    """

    _steps: Taker
    _repeat: int
    _name: str | None
    _origin: StepLM

    @classmethod
    def of(cls, lm: LM, repeat: int, params: Mapping[str, Any], name: str | None = None) -> StepLM:
        """Return what the LMs of all samples of one repeat are made from.

        Args:
            lm: an LM of the run.
            repeat: separates the cache entries of repeats, as for plain rows.
            params: request parameters of this repeat, such as its ``seed``.
            name: its name among the named models; None: it is the main one.
        """
        new = object.__new__(cls)
        vars(new).update(vars(lm))
        new.kwargs = {**lm.kwargs, **params}
        new.callbacks = list(lm.callbacks)
        new._parameters = LastParameters()
        new._repeat, new._name = repeat, name
        return new

    @property
    def repeat(self) -> int:
        """The number of the repeat."""
        return self._repeat

    @property
    def name(self) -> str | None:
        """The name among the named models; None: it is the main one."""
        return self._name

    def begin(self, steps: Taker) -> StepLM:
        """Return the LM of one sample, with its own history and arguments."""
        new = object.__new__(type(self))
        new.__dict__ = vars(self).copy()  # half the time of an update
        new.kwargs, new._history, new._steps, new._origin = self.kwargs.copy(), History(), steps, self
        return new

    def end(self, over: Taker) -> None:
        """Let go of the sample, which has ended, so that nothing of it is kept; `over` takes what is asked from now on."""
        self._steps = over

    def complete(
        self, request: Request, key: str, kwargs: Mapping[str, Any], account: Account | None
    ) -> Coroutine[Any, Any, Completion]:
        """Answer a request as an LM does that makes no steps, but the run's cache stores the answer a moment later (`stored`)."""
        own = self._name is None and "cache" not in kwargs and self.store is self._origin.store
        return super()._complete(request, key, kwargs, account, stored=not own)

    async def stored(self) -> None:
        """Return when the run's cache has the answers so far. Raises CacheError."""
        if self.store is not None:
            await self.store.stored()

    def _complete(
        self,
        request: Request,
        key: str,
        kwargs: Mapping[str, Any],
        account: Account | None = None,
        missing_since: int | None = None,
        stored: bool = True,
    ) -> Coroutine[Any, Any, Completion]:
        del account, missing_since, stored  # of whoever calls `acomplete`: the sample has its own
        return self._steps.take(self, request, key, kwargs)

    def _connection(self, merged: dict[str, Any]) -> Connection:
        found = super()._connection(merged)
        # the LM of the next sample uses the connection that this one has prepared
        self._origin._reached = self._reached  # noqa: SLF001 - of its own class
        return found

    def _call(self, inputs: Inputs) -> list[Any]:
        return self._steps.wait(self._acall(inputs))

    def _asking(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()  # the run uses the endpoint as long as it lasts

    @property
    def _is_seen(self) -> bool:
        return bool(self.callbacks)

    def _request(
        self,
        given: Mapping[str, Any],
        params: dict[str, Any],
        *,
        messages: list[Message] | None = None,
        prompt: str | None = None,
        rollout: int | None = None,
    ) -> Request:
        own = (self._repeat << 32) + rollout if self._repeat and rollout else rollout or self._repeat or None
        return super()._request(given, params, messages=messages, prompt=prompt, rollout=own)
