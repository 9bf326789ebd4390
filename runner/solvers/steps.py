"""The requests of one sample: made for its solver, bounded, counted, and recorded as steps."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import msgspec

from runner.answers import without_thinking
from runner.cache import request_key
from runner.cost.account import Account
from runner.errors import ConfigError, LMError, OstinatoError, SolverError, is_of_row
from runner.secrets import is_clean, redacted
from runner.types import Choice, Completion, RowError, Spent, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from runner.cache import Entry
    from runner.cost.account import Keep
    from runner.solvers.lm import StepLM
    from runner.solvers.solved import Bounds, Solved
    from runner.types import Message, Request, Row

Look: TypeAlias = "Callable[[Request], Entry | None]"
"""Looks up the answer to a request, in place of asking; None if it is not known."""
T = TypeVar("T")
_LATE = "it took longer than limits.deadline_s={:g} seconds"


class Unanswered(OstinatoError):  # noqa: N818 - a finding, which no user sees
    """Signal that a sample cannot be played from the answers that are known."""


class Ended(BaseException):
    """Leave a user's function in its thread, because its sample has ended. Not an Exception, so that it is not caught."""


class _Call:
    """One request, and its outcome: None while it is in flight, or if it was cancelled."""

    __slots__ = ("_choice", "account", "conversation", "kept", "key", "name", "outcome", "request", "split", "task")

    def __init__(self, lm: StepLM, request: Request, key: str) -> None:
        if request.messages is not None:  # the program may go on writing into its own list
            request = msgspec.structs.replace(request, messages=[message.copy() for message in request.messages])
        self.request = request
        self.key = key
        self.name = lm.name
        self.split = lm.split_thinking
        self.conversation: list[Message] = request.messages or [{"role": "user", "content": request.prompt}]
        self.account = Account()
        self.kept = Spent()
        self.outcome: Completion | OstinatoError | None = None
        self.task: asyncio.Task[Any] | None = None
        self._choice: Choice | None = None

    @property
    def spent(self) -> Spent:
        """The requests, tokens and dollars of it; while it is in flight, the most that these may be."""
        return self.kept if self.outcome is None else self.account.spent

    @property
    def choice(self) -> Choice | None:
        """The first answer, as it is recorded."""
        if self._choice is None and isinstance(self.outcome, Completion):
            response = self.outcome.response
            self._choice = (without_thinking(response) if self.split else response).choices[0]
        return self._choice


class _Over:
    """Take the calls of LMs whose sample has ended."""

    async def take(self, lm: StepLM, request: Request, key: str, kwargs: Mapping[str, Any]) -> Completion:
        """Refuse a request: its caller is cancelled."""
        del lm, request, key, kwargs
        raise asyncio.CancelledError

    def wait(self, asked: Coroutine[Any, Any, T]) -> T:
        """Refuse a call of a thread: the user's function is left."""
        asked.close()
        raise Ended


_OVER = _Over()


class Steps:
    """The steps of one sample.

    Args:
        lm: what the LM of the sample is made from.
        bounds: what the solver may take.
        named: the same for the named models of the run.
        keep: called as `Account` calls it, with what the sample has spent so far.
        look: in place of the cache and the model; what it does not know ends the sample with `Unanswered`.

    Attributes:
        lm: the LM of this sample.
        models: the LMs of named models.
        repeat: the number of the repeat.
    """

    def __init__(
        self,
        lm: StepLM,
        bounds: Bounds,
        named: Mapping[str, StepLM] | None = None,
        *,
        keep: Keep | None = None,
        look: Look | None = None,
    ) -> None:
        self.lm = lm.begin(self)
        self.models: dict[str, StepLM] = {name: other.begin(self) for name, other in named.items()} if named else {}
        self.repeat = lm.repeat
        self._bounds = bounds
        self._keep = keep
        self._look = look
        self._calls: list[_Call] = []
        self._ended: OstinatoError | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[Any]
        self._thread = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Steps:
        return self  # copies of an LM make steps of the same sample

    # --- for solvers

    async def complete(self, request: Request) -> Completion:
        """Answer a request that `lm.request` made. For solvers that keep their own conversation; others call `lm`."""
        return await self.take(self.lm, request, request_key(request), {})

    @property
    def last(self) -> Choice | None:
        """The first answer of the step that was begun last; None if it has none."""
        return self._calls[-1].choice if self._calls else None

    @property
    def looks(self) -> bool:
        """True if answers come from what is known alone, and nothing is to be done for the first time."""
        return self._look is not None

    # --- for the LMs of the sample

    async def take(self, lm: StepLM, request: Request, key: str, kwargs: Mapping[str, Any]) -> Completion:
        """Answer one request of `lm`, as a step. It may be called from any event loop.

        Raises:
            LMError: there is no answer, for a reason that is this row's.
            asyncio.CancelledError: the sample has ended: too many requests, or nothing can be asked any more.
        """
        if asyncio.get_running_loop() is not self._loop:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.take(lm, request, key, kwargs), self._loop))
        if self._closed or self._ended is not None:
            raise asyncio.CancelledError
        if len(self._calls) >= self._bounds.requests:
            most = self._bounds.requests
            await self._end(
                SolverError(f"it asked more than {most} times for one row; solver.max_requests={2 * most} allows more")
            )
        call = _Call(lm, request, key)
        if self._keep is not None:
            call.account = Account(functools.partial(self._kept, call), call.name)
        self._calls.append(call)
        call.task = asyncio.current_task()
        try:
            if self._look is None:
                if len(self._calls) > 1:  # a sample that is killed now asks for no answer twice
                    await self.lm.stored()
                call.outcome = await lm.complete(call.request, key, kwargs, call.account)
            else:
                call.outcome = self._known(call, self._look)
        except OstinatoError as error:
            call.outcome = error
            if not is_of_row(error):
                await self._end(error)
            raise
        finally:
            call.task = None
            call.account.settled()
        return call.outcome

    def wait(self, asked: Coroutine[Any, Any, T]) -> T:
        """Wait in a thread of the user's function for what the event loop of the run does.

        Raises:
            ConfigError: this is the thread of the event loop, which would wait for itself.
            Ended: the sample has ended.
        """
        if self._closed:
            asked.close()
            raise Ended
        if threading.get_ident() == self._thread:
            asked.close()
            raise ConfigError(
                "lm(...) would block the run: in an async function write `await lm.acall(...)`, or make the function a plain one"
            )
        try:
            return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        except BaseException as error:
            if self._closed or self._ended is not None:
                raise Ended from error
            raise

    # --- for the run

    async def run(self, solve: Callable[[Row, Steps], Awaitable[Solved]], row: Row) -> Solved:
        """Have a solver answer a row with these steps. Nothing of it is in flight afterwards.

        Raises:
            LMError, DataError, SolverError: this row has failed.
            OstinatoError: nothing can be asked any more (`is_of_row` tells); the row is still owed.
            Unanswered: `look` does not know an answer.
        """
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        task = asyncio.current_task()
        assert task is not None
        self._task, cancelling = task, task.cancelling()
        deadline = self._bounds.deadline_s
        late = None if deadline is None else self._loop.call_later(deadline, self._stop, SolverError(_LATE.format(deadline)))
        try:
            solved = await solve(row, self)
        except asyncio.CancelledError:
            if self._ended is None or task.uncancel() > cancelling:
                raise
        except Exception:
            if self._ended is None:
                raise
        finally:
            if late is not None:
                late.cancel()
            if left := self._close():
                await asyncio.wait(left)
        if self._ended is not None:
            raise self._ended
        return solved

    def account(self) -> Account:
        """Return the account of the whole sample."""
        account = Account(self._keep)
        for call in self._calls:
            (account if call.name is None else account.of(call.name)).add(call.account)
        return account

    @property
    def outcomes(self) -> list[Completion | OstinatoError]:
        """The outcomes of requests to the main model, in the order in which they were begun."""
        return [call.outcome for call in self._calls if call.outcome is not None and call.name is None]

    def record(self, model: str, *, clean: bool) -> list[Step]:
        """Return the steps as they are recorded.

        Args:
            model: the model of the run.
            clean: whether to remove what looks like a secret.
        """
        calls = [call for call in self._calls if call.outcome is not None]
        heard: list[list[Message]] = []
        steps = []
        for call in calls:
            after = _continued(heard, call.conversation) if heard else None
            heard.append([*call.conversation, *_answer(call.choice)])
            added = heard[-1] if after is None else heard[-1][len(heard[after]) :]
            steps.append(_step(call, _cleaned(added) if clean else added, after, model))
        return steps

    # --- inside

    @staticmethod
    def _known(call: _Call, look: Look) -> Completion:
        if (entry := look(call.request)) is None:
            raise Unanswered(call.key)
        return Completion.hit(call.key, entry.response, entry.cost_usd)

    def _kept(self, call: _Call, spent: Spent, name: str | None) -> None:
        """Write down what all calls to a model have spent: several may be in flight."""
        assert self._keep is not None
        call.kept = spent
        several = (one.spent for one in self._calls if one.name == name)
        self._keep(spent if len(self._calls) == 1 else functools.reduce(Spent.__add__, several), name)

    async def _end(self, error: OstinatoError) -> NoReturn:
        """End the sample: the solver is cancelled where it waits, whatever errors it catches."""
        self._stop(error)
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    def _stop(self, error: OstinatoError) -> None:
        if self._ended is None:
            self._ended = error
            self._task.cancel()

    def _close(self) -> set[asyncio.Task[Any]]:
        """Let nothing more begin. Cancel what the solver has left in flight, and return it."""
        self._closed = True
        self.lm.end(_OVER)
        for lm in self.models.values():
            lm.end(_OVER)
        left = {call.task for call in self._calls if call.task is not None and call.task is not self._task}
        for task in left:
            task.cancel()
        return left


def _answer(choice: Choice | None) -> list[Message]:
    """Return an answer as a message of the conversation; none if there is none."""
    if choice is None:
        return []
    message: Message = {"role": "assistant", "content": choice.text}
    return [message | {"tool_calls": choice.tool_calls} if choice.tool_calls else message]


def _cleaned(messages: list[Message]) -> list[Message]:
    """Return messages without what looks like a secret. Most are a role and a text, and need one look."""
    texts = [text for one in messages if len(one) == 2 and type(text := one.get("content")) is str]  # noqa: PLR2004
    if len(texts) == len(messages) and is_clean("\n".join(texts)):
        return messages
    cleaned: list[Message] = redacted(messages)
    return cleaned


def _continued(heard: Sequence[list[Message]], conversation: list[Message]) -> int | None:
    """Return which of the earlier conversations this one continues: the longest."""
    starts = [number for number, said in enumerate(heard) if said == conversation[: len(said)]]
    return max(starts, key=lambda number: len(heard[number]), default=None)


def _step(call: _Call, added: list[Message], after: int | None, model: str) -> Step:
    outcome = call.outcome
    other = call.request.model if call.request.model != model else None
    if not isinstance(outcome, Completion):
        told = str(outcome)
        code = outcome.code if isinstance(outcome, LMError) else "error"
        return Step(request_key=call.key, added=added, after=after, model=other, error=RowError(code, redacted(told)))
    choice = call.choice
    assert choice is not None
    if choice.reasoning:
        added = [*added[:-1], {**added[-1], "reasoning_content": choice.reasoning}]
    return Step(
        request_key=call.key,
        added=added,
        after=after,
        model=other,
        finish_reason=choice.finish_reason,
        usage=outcome.response.usage,
        cost_usd=outcome.cost_usd,
        saved_usd=outcome.saved_usd,
        latency_s=outcome.latency_s,
        cache=outcome.cache,
    )
