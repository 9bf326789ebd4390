"""`LM` for dspy: a ``dspy.LM`` whose requests go through `runner.LM`, with its cache, limits, budget and retries.

dspy's own cache is never asked: it knows neither the address of a server nor its weights. What differs between dspy 2.6.27 and
the newest is at the top of this module.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any

import dspy
import msgspec
from dspy.clients import base_lm
from dspy.utils.callback import with_callbacks

from runner.dspy.bound import Bound
from runner.dspy.stream import send_blocking, send_pieces
from runner.errors import ConfigError
from runner.lm import lm as plain
from runner.lm.callbacks import new_id
from runner.lm.capabilities import capabilities
from runner.system.clock import now

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from runner.cost.budget import Budget
    from runner.lm.arguments import Inputs
    from runner.types import Completion, Request, Response

_MARK: str | None = getattr(base_lm, "LM_CLASS_STATE_KEY", None)
"""The key under which dspy (since 3.3) writes the class of an LM into a saved program; None: it would take it for an argument."""


_NEVER = contextlib.nullcontext()
_BOUNDS_HISTORIES = "max_history_size" in dspy.settings  # not in dspy 2.6
_setting = dspy.settings.__getattr__  # what `dspy.settings.NAME` comes to, after a search that takes longer


def _remember(lm: LM, entry: dict[str, Any]) -> None:
    """Add a call to the histories of all LMs, of this one, and of the modules that call it. dspy's own takes twice as long."""
    _append(base_lm.GLOBAL_HISTORY, entry, base_lm.MAX_HISTORY_SIZE)
    most = _setting("max_history_size") if _BOUNDS_HISTORIES else base_lm.MAX_HISTORY_SIZE
    if most:
        _append(lm.history, entry, most)
        for module in _setting("caller_modules") or ():
            _append(module.history, entry, most)


def _append(history: list[dict[str, Any]], entry: dict[str, Any], most: int) -> None:
    if len(history) >= most:
        del history[: len(history) - most + 1]
    history.append(entry)


@functools.cache
def _defaults() -> dict[str, Any]:
    """Return the defaults of the installed dspy's own LM, so that a program sends the same when its LM is replaced."""
    known = inspect.signature(dspy.LM.__init__).parameters
    return {name: known[name].default for name in ("temperature", "max_tokens") if name in known}


def _predictor() -> int | None:
    """Return the identity of the predictor that asks, by which dspy's listeners know its pieces."""
    asking = dspy.settings.caller_predict
    return None if asking is None else id(asking)


class _Inner:
    """An attribute of the inner LM."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, lm: Any, owner: type) -> Any:
        return self if lm is None else getattr(lm.inner, self._name)

    def __set__(self, lm: Any, value: Any) -> None:
        setattr(lm.inner, self._name, value)


class LM(dspy.LM):  # type: ignore[misc]
    """Ask models for dspy's programs and optimisers: ``dspy.configure(lm=runner.dspy.LM("openai/gpt-5.4-mini"))``.

    Args:
        model: ``provider/name``, or a `runner.LM` to ask through.
        **kwargs: those of `runner.LM`. ``temperature`` and ``max_tokens`` have the defaults of the installed dspy's ``LM``.

    Attributes:
        inner: the `runner.LM`; its `budget`, `limiter` and `retry` apply.
        use_developer_role: whether system messages of the responses API have the role ``developer``.

    Raises:
        ConfigError: an argument is invalid.
    """

    def __init__(self, model: str | plain.LM, **kwargs: Any) -> None:
        callbacks = kwargs.pop("callbacks", None)
        self.use_developer_role = bool(kwargs.pop("use_developer_role", False))
        for name in ("engine", "async_engine", "prompt_cache"):
            if kwargs.pop(name, None) not in (None, "auto"):
                raise ConfigError(
                    f"{name}: this LM asks through runner.LM; use dspy.LM for an engine of dspy, which has its own cache"
                )
        self.inner = model if isinstance(model, plain.LM) else plain.LM(model, **{**_defaults(), **kwargs})
        self.inner.keeper = self._keep
        self.callbacks = list(callbacks or [])
        self.history: list[dict[str, Any]] = []
        self._bound: Bound | None = None
        self._warned_zero_temp_rollout = True  # our cache separates rollouts at any temperature

    model, model_type, kwargs, provider = _Inner(), _Inner(), _Inner(), _Inner()
    cache, cache_in_memory, num_retries = _Inner(), _Inner(), _Inner()
    finetuning_model, launch_kwargs, train_kwargs = _Inner(), _Inner(), _Inner()

    # --- calls

    @with_callbacks  # type: ignore[untyped-decorator]
    def __call__(self, prompt: str | None = None, messages: list[dict[str, Any]] | None = None, **kwargs: Any) -> list[Any]:
        """Ask, and return one output per answer. `dspy.streamify` gets it in pieces. Raises as `runner.LM`."""
        messages = self._sent(messages)
        with self._stopping():
            if (stream := _setting("send_stream")) is not None:
                return send_blocking(stream, self._asking(prompt, messages, kwargs), self.model, _predictor())
            return self.inner(prompt, messages, **kwargs)

    @with_callbacks  # type: ignore[untyped-decorator]
    async def acall(self, prompt: str | None = None, messages: list[dict[str, Any]] | None = None, **kwargs: Any) -> list[Any]:
        """Do as calling it, without blocking the event loop."""
        messages = self._sent(messages)
        with self._stopping():
            if (stream := _setting("send_stream")) is not None:
                return await send_pieces(stream, self._asking(prompt, messages, kwargs), self.model, _predictor())
            return await self.inner.acall(prompt, messages, **kwargs)

    @contextlib.contextmanager
    def within(self, budget: Budget) -> Iterator[Budget]:
        """Bound what this LM and its copies may spend in a ``with`` block: a spent budget ends an optimiser, and is no zero.

        After an error they keep the budget, because threads of dspy may still be asking; another `within` replaces it.

        Raises:
            BudgetExceeded: it is spent; the message says what was.
        """
        before, bound = (self.inner.budget, self._bound), Bound(budget)
        self.inner.budget, self._bound = budget, bound
        with bound.said():
            yield budget
        self.inner.budget, self._bound = before

    def _stopping(self) -> AbstractContextManager[None]:
        return _NEVER if self._bound is None else self._bound.stopping()

    def forward(self, prompt: str | None = None, messages: list[dict[str, Any]] | None = None, **kwargs: Any) -> Any:
        """Refuse: dspy's own would ask past cache, limits and budget. Raises NotImplementedError."""
        raise NotImplementedError("ask by lm(...) or `await lm.acall(...)`; runner.dspy.LM has no forward")

    async def aforward(self, prompt: str | None = None, messages: list[dict[str, Any]] | None = None, **kwargs: Any) -> Any:
        """Refuse, as `forward`."""
        return self.forward(prompt, messages, **kwargs)

    def close(self) -> None:
        """Do nothing: connections of blocking calls are shared."""

    async def aclose(self) -> None:
        """Close the connections that `acall` has left open in this event loop."""
        await self.inner.aclose()

    def _keep(self, inputs: Inputs, request: Request, completion: Completion, response: Response, outputs: list[Any]) -> None:
        """Tell dspy's usage tracker and its histories of a call."""
        usage = msgspec.to_builtins(response.usage) if response.usage else {}
        if completion.cache != "hit" and (tracker := _setting("usage_tracker")) is not None:
            tracker.add_usage(self.model, usage)
        if _setting("disable_history"):
            return
        _remember(
            self,
            {
                "prompt": inputs.prompt,
                "messages": inputs.messages,
                "kwargs": inputs.shown(),
                "response": response,
                "outputs": outputs,
                "usage": usage,
                "cost": completion.cost_usd,
                "timestamp": now(),
                "uuid": new_id(),
                "model": request.model,
                "response_model": response.model,
                "model_type": request.model_type,
                "cache_hit": completion.cache == "hit",
            },
        )

    def _sent(self, messages: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        """Return a conversation with the roles that the model is to see (dspy's `use_developer_role`)."""
        if not self.use_developer_role or self.model_type != "responses":
            return messages
        return [
            {**message, "role": "developer"} if message.get("role") == "system" else message for message in messages or ()
        ] or None

    def _asking(self, prompt: str | None, messages: list[dict[str, Any]] | None, kwargs: dict[str, Any]) -> Any:
        """Return a function that asks for a streamed answer."""
        return functools.partial(self.inner.acall, prompt, messages, **{"stream": "always", **kwargs})

    # --- what the model takes

    @property
    def supports_function_calling(self) -> bool:
        """True if the model calls tools, as far as is known."""
        return "tools" in self._taken

    @property
    def supports_reasoning(self) -> bool:
        """True if the model thinks, as far as is known."""
        return bool(capabilities(self.model).reasoning)

    @property
    def supports_response_schema(self) -> bool:
        """True if the model takes a JSON schema for its answer, as far as is known."""
        return "response_format" in self._taken

    @property
    def supported_params(self) -> set[str]:
        """The parameters that the model takes, as far as is known."""
        return set(self._taken)

    @property
    def _taken(self) -> frozenset[str]:
        return capabilities(self.model).openai_params or frozenset()

    # --- life and state

    def launch(self, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Start serving the model. Raises LaunchError."""
        self.inner.launch(launch_kwargs)

    def kill(self, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Stop what `launch` started."""
        self.inner.kill(launch_kwargs)

    def finetune(self, train_data: list[dict[str, Any]], train_data_format: Any = None, train_kwargs: Any = None) -> Any:
        """Start training, as `runner.LM.finetune`; the result of the job is an LM for dspy."""
        job = self.inner.finetune(train_data, getattr(train_data_format, "value", train_data_format), train_kwargs)
        whole = job.result
        job.result = lambda timeout=None: LM(whole(timeout))  # type: ignore[method-assign]
        return job

    def copy(self, **kwargs: Any) -> LM:
        """Return an LM with an empty history and other arguments. Cache, limiter and budget are shared."""
        callbacks = kwargs.pop("callbacks", self.callbacks)
        role = kwargs.pop("use_developer_role", self.use_developer_role)
        new = type(self)(self.inner.copy(**kwargs), callbacks=callbacks, use_developer_role=role)
        new._bound = self._bound  # noqa: SLF001 - of its own class
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> LM:
        return self.copy()

    def dump_state(self) -> dict[str, Any]:
        """Return what `load_state` needs, without secrets."""
        mark = {_MARK: f"{type(self).__module__}.{type(self).__qualname__}"} if _MARK else {}
        role = {"use_developer_role": True} if self.use_developer_role else {}
        return {**self.inner.dump_state(), **role, **mark}

    @classmethod
    def load_state(cls, state: Mapping[str, Any], **_: Any) -> LM:
        """Build an LM from the state of `dump_state`."""
        return cls(**{name: value for name, value in state.items() if name != _MARK})

    def __repr__(self) -> str:
        return f"runner.dspy.LM({self.model!r})"
