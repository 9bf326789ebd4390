"""`LM` for dspy: a ``dspy.BaseLM`` whose requests go through `runner.LM`, with its cache, limits, budget and retries.

dspy's own cache is never asked: it knows neither the address of a server nor its weights.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import dspy
import msgspec
from dspy.utils.callback import with_callbacks

from runner.lm import lm as plain
from runner.lm.callbacks import new_id
from runner.lm.capabilities import capabilities
from runner.system.clock import now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.lm.arguments import Inputs
    from runner.types import Completion, Request, Response

_MARK = "_dspy_lm_class"
"""The key under which dspy writes the class of an LM into a saved program."""


@functools.cache
def _defaults() -> dict[str, Any]:
    """Return the defaults of the installed dspy's own LM, so that a program sends the same when its LM is replaced."""
    known = inspect.signature(dspy.LM.__init__).parameters
    return {name: known[name].default for name in ("temperature", "max_tokens") if name in known}


class LM(dspy.BaseLM):  # type: ignore[misc]
    """Ask models for dspy's programs and optimisers: ``dspy.configure(lm=runner.dspy.LM("openai/gpt-5.4-mini"))``.

    Args:
        model: ``provider/name``, or a `runner.LM` to ask through.
        **kwargs: those of `runner.LM`. ``temperature`` and ``max_tokens`` have the defaults of the installed dspy's ``LM``.

    Attributes:
        inner: the `runner.LM`; its `budget`, `limiter` and `retry` apply.

    Raises:
        ConfigError: an argument is invalid.
    """

    def __init__(self, model: str | plain.LM, **kwargs: Any) -> None:
        callbacks = kwargs.pop("callbacks", None)
        self.inner = model if isinstance(model, plain.LM) else plain.LM(model, **{**_defaults(), **kwargs})
        self.inner.keeper = self._keep
        self.callbacks = list(callbacks or [])
        self.history: list[dict[str, Any]] = []
        self._warned_zero_temp_rollout = True  # our cache separates rollouts at any temperature

    @property
    def model(self) -> str:
        """The model as ``provider/name``."""
        return self.inner.model

    @property
    def model_type(self) -> str:
        """The wire format."""
        return self.inner.model_type

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments of every request."""
        return self.inner.kwargs

    @property
    def cache(self) -> bool:
        """True if answers are cached: by `runner.LM`, never by dspy."""
        return self.inner.cache

    @property
    def num_retries(self) -> int:
        """The attempts after the first."""
        return self.inner.num_retries

    @property
    def provider(self) -> Any:
        """The owner of the model's life."""
        return self.inner.provider

    # --- calls

    @with_callbacks  # type: ignore[untyped-decorator]
    def __call__(self, prompt: str | None = None, messages: list[dict[str, Any]] | None = None, **kwargs: Any) -> list[Any]:
        """Ask, and return one output per answer. Raises as `runner.LM`."""
        return self.inner(prompt, messages, **kwargs)

    @with_callbacks  # type: ignore[untyped-decorator]
    async def acall(self, prompt: str | None = None, messages: list[dict[str, Any]] | None = None, **kwargs: Any) -> list[Any]:
        """Do as calling it, without blocking the event loop."""
        return await self.inner.acall(prompt, messages, **kwargs)

    def _keep(self, inputs: Inputs, request: Request, completion: Completion, response: Response, outputs: list[Any]) -> None:
        """Tell dspy's usage tracker and its histories of a call."""
        settings = dspy.settings
        usage = msgspec.to_builtins(response.usage) if response.usage else {}
        if completion.cache != "hit" and (tracker := settings.usage_tracker) is not None:
            tracker.add_usage(self.model, usage)
        if settings.disable_history:
            return
        self.update_history(
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
            }
        )

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
        return type(self)(self.inner.copy(**kwargs), callbacks=callbacks)

    def __deepcopy__(self, memo: dict[int, Any]) -> LM:
        return self.copy()

    def dump_state(self) -> dict[str, Any]:
        """Return what `load_state` needs, without secrets."""
        return {_MARK: f"{type(self).__module__}.{type(self).__qualname__}", **self.inner.dump_state()}

    @classmethod
    def load_state(cls, state: Mapping[str, Any], **_: Any) -> LM:
        """Build an LM from the state of `dump_state`."""
        return cls(**{name: value for name, value in state.items() if name != _MARK})

    def __repr__(self) -> str:
        return f"runner.dspy.LM({self.model!r})"
