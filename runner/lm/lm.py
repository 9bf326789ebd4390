"""The LM: make a request of a call, answer it from the cache or have a `Call` send it, and keep its history."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from runner.adapters import Adapter, ChatAdapter, Prompt, TextAdapter
from runner.answers import ending_of, is_known, warn_of_unknown, without_thinking
from runner.cache import Cache, request_key
from runner.cost.tokens import limit_of
from runner.errors import ConfigError, FinetuneError
from runner.finetune.data.formats import TrainDataFormat
from runner.lm.arguments import (
    Inputs,
    as_data,
    as_text,
    check_messages,
    check_model,
    outputs_of,
    without_secrets,
)
from runner.lm.call import Call
from runner.lm.callbacks import Callback, Observed
from runner.lm.channel import Channel
from runner.lm.connection import api_base, connection_of, normalise_url
from runner.lm.flight import SingleFlight
from runner.lm.history import History, settings, show
from runner.lm.parameters import LIMITS, AsRecorded, Form, LastParameters, Unsupported, taken_by
from runner.network.retry import RetryPolicy
from runner.providers.registry import infer
from runner.system.paths import home
from runner.transport import AutoTransport
from runner.types import Completion, Connection, Message, ModelType, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from runner.cost.account import Account
    from runner.cost.budget import Budget
    from runner.cost.pricing import Price
    from runner.finetune.jobs.future import TrainingJob
    from runner.limits import Limiter
    from runner.lm.permits import Permits
    from runner.providers.base import Provider
    from runner.transport import Transport
    from runner.types import Response

logger = logging.getLogger("ostinato")


Keeper: TypeAlias = "Callable[[Inputs, Request, Completion, Response, list[Any]], None]"
"""Keeps a call (its arguments, request, answer, and outputs) in place of the history."""


class Pinned(msgspec.Struct, frozen=True):
    """The endpoint in a record, which replaces this machine's in cache keys (see `Request.endpoint`)."""

    endpoint: str | None


class LM:
    """A language model: the API of ``dspy.LM``, with a cache, retries and errors that experiments can rely on.

    Signature, names and semantics follow dspy 2.6.0. From dspy 3 come ``model_type="responses"``, ``rollout_id``, and None for
    `temperature` and `max_tokens`. Differences from dspy: a parameter that the model does not take is left out with a warning
    (``lm.unsupported``: ``warn``, ``drop`` without one, or ``error``); errors are those of `runner.errors`; answers that were
    refused, or cut off before `max_tokens`, are not cached; a custom ``api_base`` is part of the cache key (dspy ignores it); a
    failed fine-tuning job raises its error from ``result()`` (dspy returns it); thinking in the text (``<think>...</think>``) is
    not part of an output, and is `reasoning` in the history's response (``lm.split_thinking = False`` leaves it in the text).

    Args:
        model: ``provider/name`` as litellm knows it, ``local/NAME`` (weights that `launch` serves), or ``fake/NAME``.
        model_type: ``chat``, ``text`` (a prompt to continue) or ``responses`` (OpenAI's responses API).
        temperature: sampling temperature; None is not sent.
        max_tokens: tokens of one answer, thinking included; None is not sent. Models that think need 16,000 and more.
        cache: True for the shared cache on disk, False for none, or a `Cache`.
        cache_in_memory: whether answers are also kept in memory.
        callbacks: objects with ``on_lm_start`` and ``on_lm_end``.
        num_retries: attempts after the first, with exponential backoff.
        provider: what launches and fine-tunes the model; None infers it from `model`.
        finetuning_model: the model to fine-tune, if it is not `model`.
        launch_kwargs: settings of `launch`.
        train_kwargs: settings of `finetune`.
        **kwargs: sent with every request (``top_p``, ``seed``, ``stop``, ``tools``, ``response_format``, ...), or about the
            connection: ``api_base``, ``api_key``, ``headers``, ``timeout`` (seconds) and other ``api_*``; these are not in the
            history, and keys, headers and timeouts are not in the cache key; no secret is in the dumped state. So are ``stream``
            (``auto``, ``always`` or True, ``never`` or False; default: auto, answers that may be long) and ``silence`` (seconds
            without a byte after which a streamed answer is given up, 300): a streamed answer is the same answer, and is
            returned when it is whole.

    Raises:
        ConfigError: an argument is invalid.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - dspy's signature
        self,
        model: str,
        model_type: ModelType = "chat",
        temperature: float | None = 0.0,
        max_tokens: int | None = 1000,
        cache: bool | Cache = True,
        cache_in_memory: bool = True,
        callbacks: Sequence[Callback] | None = None,
        num_retries: int = 8,
        provider: Provider | None = None,
        finetuning_model: str | None = None,
        launch_kwargs: dict[str, Any] | None = None,
        train_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_model(model, model_type)
        self.model = model
        self.model_type: ModelType = model_type
        self.cache = cache is not False
        self.cache_in_memory = cache_in_memory
        self.callbacks: list[Callback] = list(callbacks or [])
        self.num_retries = num_retries
        self.finetuning_model = finetuning_model
        self.launch_kwargs = launch_kwargs or {}
        self.train_kwargs = train_kwargs or {}
        self._history = History()
        self.kwargs: dict[str, Any] = {"temperature": temperature, taken_by(model, kwargs).limit: max_tokens, **kwargs}
        self.provider = provider or self.infer_provider()
        self.store = cache if isinstance(cache, Cache) else None
        self.transport = _transport(model)
        self.limiter: Limiter | None = None
        self.budget: Budget | None = None
        self.permits: Permits | None = None
        self.retry: RetryPolicy | None = None
        self.price_override: Price | None = None
        self.split_thinking = True
        self.unsupported: Unsupported = "warn"
        self.recorded: AsRecorded | None = None
        self.pinned: Pinned | None = None
        self.keeper: Keeper | None = None
        self.flights: SingleFlight[Completion] = SingleFlight()
        self._shared: tuple[bool, Cache] | None = None
        self._reached: tuple[dict[str, Any], Connection] | None = None
        self._parameters = LastParameters()

    # --- calls

    def __call__(self, prompt: str | None = None, messages: list[Message] | None = None, **kwargs: Any) -> list[Any]:
        """Send a prompt or a conversation, and return one output per answer.

        Args:
            prompt: a user message (for ``text`` models: the text to continue).
            messages: a conversation, in place of `prompt`.
            **kwargs: override those of the LM for this call; also ``cache=False`` and ``rollout_id=N``.

        Returns:
            A list of strings, or of dicts with ``text`` and ``logprobs`` or ``tool_calls`` if those were asked for.

        Raises:
            ConfigError: there is no prompt, or it is malformed.
            LMError: there is no answer after all attempts.
            CacheError: a miss in replay mode.
        """
        inputs = Inputs(prompt, messages, kwargs)
        if not self._is_seen:
            return self._call(inputs)
        with self._asking(), Observed(self, self.callbacks, inputs) as seen:
            seen.outputs = self._call(inputs)
        return seen.outputs

    async def acall(self, prompt: str | None = None, messages: list[Message] | None = None, **kwargs: Any) -> list[Any]:
        """Do as calling the LM, without blocking the event loop."""
        inputs = Inputs(prompt, messages, kwargs)
        if not self._is_seen:
            return await self._acall(inputs)
        with self._asking(), Observed(self, self.callbacks, inputs) as seen:
            seen.outputs = await self._acall(inputs)
        return seen.outputs

    def request(
        self, *, messages: list[Message] | None = None, prompt: str | None = None, rollout: int | None = None, **kwargs: Any
    ) -> Request:
        """Return the request that a call would send. `prompt` is sent verbatim (``text``); `messages` are a conversation.

        For code that sends many requests at once, together with `acomplete`.

        Raises:
            ConfigError: an argument has an invalid value, or one that is not JSON data.
        """
        given = {**self.kwargs, **kwargs}
        params = self._parameters.of(self.model, given, self._form).sent.copy()
        return self._request(given, params, messages=messages, prompt=prompt, rollout=rollout)

    def parameters(self, **kwargs: Any) -> dict[str, Any]:
        """Return the parameters that a call with these arguments sends. Raises ConfigError as `request` does."""
        return self._parameters.of(self.model, {**self.kwargs, **kwargs}, self._form).sent.copy()

    @property
    def not_sent(self) -> dict[str, Any]:
        """The parameters of this LM that its requests leave out, because the model does not take them, with their values."""
        return self._parameters.of(self.model, self.kwargs.copy(), self._form).not_sent

    @property
    def recorded_form(self) -> dict[str, Any]:
        """The form of its requests, for a record: ``not_sent``, and ``limit``, the name of the answer's limit."""
        made = self._parameters.of(self.model, self.kwargs.copy(), self._form)
        limit = next((name for name in LIMITS if name in made.sent), None)
        facts = {"not_sent": made.not_sent, "limit": None if self.model.startswith(("local/", "fake/")) else limit}
        return {name: value for name, value in facts.items() if value}

    @property
    def _form(self) -> Form:
        return self.unsupported if self.recorded is None else self.recorded

    def as_recorded(self, model: Mapping[str, Any]) -> None:
        """Send requests in the form that a record's manifest says in ``model``, whatever is known of the model today."""
        self.recorded = AsRecorded(frozenset(model.get("not_sent", {})), model.get("limit"))

    async def acomplete(
        self,
        request: Request,
        account: Account | None = None,
        *,
        encoded: bytes | None = None,
        missing_since: int | None = None,
        stored: bool = True,
    ) -> Completion:
        """Answer one request: cache, limiter, budget, transport, retries. It is not in the history, and callbacks are not called.

        Args:
            request: made by `request`.
            account: adds up what the attempts use, failed ones included.
            encoded: the `encoded_params` of the request, for callers with many requests that share them.
            missing_since: when the cache was found to lack the answer (see `Cache.get`).
            stored: whether the answer is in the cache when this returns; else it is a moment later (see `Cache.put_soon`).

        Raises:
            LMError: there is no answer after all attempts.
            CacheError: a miss in replay mode.
            BudgetExceeded: the budget does not allow it.
        """
        return await self._complete(request, request_key(request, encoded), {}, account, missing_since, stored)

    async def aclose(self) -> None:
        """Close the connections that `acall` and `acomplete` have left open in this event loop. Call it before the loop ends."""
        await self.transport.aclose()

    # --- life

    def launch(self, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Start serving the model, through its provider. Raises LaunchError."""
        self.provider.launch(self, launch_kwargs)

    def kill(self, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Stop what `launch` started. Does nothing if nothing runs."""
        self.provider.kill(self, launch_kwargs)

    def finetune(
        self,
        train_data: list[dict[str, Any]],
        train_data_format: TrainDataFormat | str | None = None,
        train_kwargs: dict[str, Any] | None = None,
    ) -> TrainingJob:
        """Start training on `train_data` and return at once.

        The job is in the ledger (``ostinato ft ls``) and outlives this process. The same model, data and settings are one job:
        a second call follows it, or returns its model if it has ended.

        Args:
            train_data: the rows.
            train_data_format: the format of a row; None is the provider's choice (chat).
            train_kwargs: the provider's settings, in place of those of the LM.

        Returns:
            A future whose ``result()`` is this LM with the trained model.

        Raises:
            FinetuneError: the provider cannot train.
            ConfigError: the format is unknown.
        """
        if not self.provider.finetunable:
            raise FinetuneError(f"{type(self.provider).__name__} cannot fine-tune {self.finetuning_model or self.model!r}")
        if train_data_format and train_data_format not in list(TrainDataFormat):
            raise ConfigError(f"train_data_format {train_data_format!r}: allowed are {', '.join(TrainDataFormat)}")
        thread = threading.Thread(target=lambda: self._train(job), name=f"finetune {self.model}", daemon=True)
        job = self.provider.TrainingJob(
            thread=thread,
            model=self.finetuning_model or self.model,
            train_data=train_data,
            train_data_format=TrainDataFormat(train_data_format) if train_data_format else None,
            train_kwargs=train_kwargs or self.train_kwargs,
        )
        job.connection = {name: self.kwargs[name] for name in ("api_base", "api_key") if self.kwargs.get(name)}
        thread.start()
        return job

    def _train(self, job: TrainingJob) -> None:
        if not job.set_running_or_notify_cancel():
            return
        try:
            trained = self.provider.finetune(
                job, job.model or self.model, job.train_data or [], job.train_data_format, job.train_kwargs
            )
            job.set_result(self.copy(model=trained))
        except Exception as error:  # noqa: BLE001 - boundary: whatever training raises belongs to the future
            job.set_exception(error)

    def infer_provider(self) -> Provider:
        """Return the provider of `model`, by its name; a plain one if there is none."""
        return infer(self.model)

    def infer_adapter(self) -> Adapter:
        """Return the adapter for plain prompts that fits `model_type` (dspy 2.6.0)."""
        prompt = Prompt(system=None, user="{{ prompt }}")
        return TextAdapter(prompt) if self.model_type == "text" else ChatAdapter(prompt)

    # --- state

    def copy(self, **kwargs: Any) -> LM:
        """Return an independent LM with an empty history; attributes and request arguments are updated (dspy 2.6).

        The cache, transport, limiter and budget are shared: each stands for one thing outside the LM. With another `model`, the
        copy is reached, launched and priced as that model is.
        """
        if isinstance(cache := kwargs.get("cache"), Cache):
            kwargs |= {"cache": True, "store": cache}
        new = copy.deepcopy(self)
        new._history = History()  # noqa: SLF001 - of its own class
        for key, value in kwargs.items():
            if hasattr(self, key):
                setattr(new, key, value)
            if key in self.kwargs or not hasattr(self, key):
                new.kwargs[key] = value
        if new.model != self.model:
            _replace_what_the_model_decides(new, self, kept=kwargs.keys())
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> LM:
        shared = {
            "provider",
            "store",
            "transport",
            "limiter",
            "budget",
            "permits",
            "callbacks",
            "flights",
            "keeper",
            "_shared",
            "_reached",
        }
        new = object.__new__(type(self))
        for key, value in vars(self).items():
            setattr(new, key, value if key in shared else copy.deepcopy(value, memo))
        new.callbacks = list(self.callbacks)
        return new

    def dump_state(self) -> dict[str, Any]:
        """Return what `load_state` needs to build this LM again: JSON data, without keys and headers."""
        names = (
            "model",
            "model_type",
            "cache",
            "cache_in_memory",
            "num_retries",
            "finetuning_model",
            "launch_kwargs",
            "train_kwargs",
        )
        kwargs = without_secrets({key: as_data(value) for key, value in self.kwargs.items()})
        limit = kwargs.pop(taken_by(self.model, self.kwargs).limit, None)
        facts = without_secrets({name: getattr(self, name) for name in names})
        return copy.deepcopy({**facts, "max_tokens": limit, **kwargs})

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> LM:
        """Build an LM from the state of `dump_state`; keys are read from the environment again."""
        return cls(**state)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The calls, the oldest first, in dspy's form."""
        return self._history.entries()

    @history.setter
    def history(self, entries: list[dict[str, Any]]) -> None:
        self._history = History(entries)

    def inspect_history(self, n: int = 1) -> None:
        """Print the messages and answers of the last `n` calls."""
        show(self.history[-n:])

    def __repr__(self) -> str:
        return f"LM({self.model!r}, model_type={self.model_type!r})"

    # --- one call

    @property
    def _is_seen(self) -> bool:
        """True if callbacks or a limiter are told when a call begins and ends."""
        return bool(self.callbacks) or self.limiter is not None

    def _asking(self) -> AbstractContextManager[None]:
        """Use the endpoint for the whole call, so that what one attempt learns applies to the next."""
        return self.limiter.using() if self.limiter else contextlib.nullcontext()

    def _call(self, inputs: Inputs) -> list[Any]:
        request, key = self._prepare(inputs)
        store = self._store(inputs.kwargs)
        completion = self._cached(key, store)
        if completion is None:
            completion = Call(self.channel(inputs.kwargs), request, key, store).run()
        return self._finish(inputs, request, completion)

    async def _acall(self, inputs: Inputs) -> list[Any]:
        request, key = self._prepare(inputs)
        completion = await self._complete(request, key, inputs.kwargs)
        return self._finish(inputs, request, completion)

    def _prepare(self, inputs: Inputs) -> tuple[Request, str]:
        """Return what a call sends, and its key."""
        prompt, messages, kwargs = inputs.prompt, inputs.messages, inputs.kwargs
        if prompt is None and not messages:
            raise ConfigError("nothing to send: pass a prompt or messages")
        conversation = messages or [{"role": "user", "content": prompt}]
        check_messages(conversation)
        given = {**self.kwargs, **kwargs}
        params = self._parameters.of(self.model, given, self._form)
        said: dict[str, Any] = {"prompt": as_text(conversation)} if self.model_type == "text" else {"messages": conversation}
        request = self._request(given, params.sent.copy(), rollout=given.get("rollout_id"), **said)
        return request, request_key(request, params.encoded)

    def _request(
        self,
        given: Mapping[str, Any],
        params: dict[str, Any],
        *,
        messages: list[Message] | None = None,
        prompt: str | None = None,
        rollout: int | None = None,
    ) -> Request:
        return Request(
            model=self.model,
            model_type=self.model_type,
            endpoint=self._endpoint(given),
            messages=messages,
            prompt=prompt,
            params=params,
            rollout=rollout,
        )

    async def _complete(
        self,
        request: Request,
        key: str,
        kwargs: Mapping[str, Any],
        account: Account | None = None,
        missing_since: int | None = None,
        stored: bool = True,
    ) -> Completion:
        """Answer a request from the cache, or send it; while the same request is in flight, wait for its answer."""
        store = self._store(kwargs)
        if (cached := self._cached(key, store, missing_since)) is not None:
            return cached
        call = Call(self.channel(kwargs), request, key, store, account)
        if store is None or not (store.reads and store.writes):
            return await call.arun(stored)
        made, shared = await self.flights.run(key, call.arun, stored)
        if not shared:
            return made
        return Completion.hit(made.key, made.response, made.cost_usd)

    def _cached(self, key: str, store: Cache | None, missing_since: int | None = None) -> Completion | None:
        """Return the cached answer, if any. Raises CacheError for a miss in replay mode."""
        if store is None:
            return None
        if (entry := store.get(key, missing_since=missing_since)) is not None:
            return Completion.hit(key, entry.response, entry.cost_usd)
        store.refuse_miss(key)
        return None

    def _finish(self, inputs: Inputs, request: Request, completion: Completion) -> list[Any]:
        response = without_thinking(completion.response) if self.split_thinking else completion.response
        outputs = outputs_of(response, wants_logprobs=bool(request.params.get("logprobs")))
        for choice in response.choices:
            if not is_known(choice.finish_reason):
                warn_of_unknown(choice.finish_reason)
        if completion.cache != "hit" and any(ending_of(choice.finish_reason) == "cut" for choice in response.choices):
            logger.warning("the answer was cut off at max_tokens=%s; pass a larger value", limit_of(request))
        if self.keeper is not None:
            self.keeper(inputs, request, completion, response, outputs)
        elif not settings.disable_history:
            self._history.add(inputs, request, completion, response, outputs)
        return outputs

    # --- what a call needs

    def _store(self, kwargs: Mapping[str, Any]) -> Cache | None:
        if not kwargs and self.store is not None and self.cache is True:
            return self.store
        chosen = kwargs.get("cache", self.cache)
        if isinstance(chosen, Cache):
            return chosen
        if not chosen:
            return None
        in_memory = bool(kwargs.get("cache_in_memory", self.cache_in_memory))
        if self.store is not None:
            return self.store
        if self._shared is None or self._shared[0] != in_memory:
            self._shared = (in_memory, _shared_store(home() / "cache", in_memory))
        return self._shared[1]

    def _endpoint(self, kwargs: Mapping[str, Any]) -> str | None:
        if self.pinned is not None:
            return self.pinned.endpoint
        served = self.provider.endpoint(self)
        return served or normalise_url(api_base(self.model, kwargs))

    def channel(self, kwargs: Mapping[str, Any] | None = None) -> Channel:
        """Return what a call with these arguments is sent through: transport, connection, limiter, budget, retries and price."""
        merged = {**self.kwargs, **kwargs} if kwargs else self.kwargs
        retries = kwargs.get("num_retries", self.num_retries) if kwargs else self.num_retries
        return Channel(
            model=self.model,
            transport=self.transport,
            connection=self._connection(merged),
            limiter=self.limiter,
            budget=self.budget,
            permits=self.permits,
            retry=self.retry or _patience(int(retries)),
            own_price=self.price_override,
            service_tier=merged.get("service_tier"),
        )

    def _connection(self, merged: dict[str, Any]) -> Connection:
        """Return how to reach the model: the same object while nothing about it changes, because transports prepare for it."""
        reached = self._reached
        if reached is None or reached[0] != merged or reached[1].api_base != api_base(self.model, merged):
            reached = self._reached = (merged.copy(), connection_of(self.model, merged))
        return reached[1]


def _replace_what_the_model_decides(new: LM, old: LM, kept: Collection[str]) -> None:
    """Replace the attributes of a copied LM that depend on its model's name, except those in `kept`."""
    if "price_override" not in kept:
        new.price_override = None
    if "provider" not in kept and type(old.provider) is type(old.infer_provider()):
        new.provider = new.infer_provider()
    if "transport" not in kept and type(_transport(old.model)) is not type(_transport(new.model)):
        new.transport = _transport(new.model)
    if "api_body" not in kept:
        new.kwargs.pop("api_body", None)
    new.recorded = None
    was, now = (taken_by(lm.model, lm.kwargs).limit for lm in (old, new))
    if was != now and was in new.kwargs and not {was, now} & set(kept):
        new.kwargs[now] = new.kwargs.pop(was)
    if new.model.startswith("local/"):  # its own server, and so its address and key, come with `launch`
        for name in {"api_base", "api_key"}.difference(kept):
            new.kwargs.pop(name, None)


def _transport(model: str) -> Transport:
    if not model.startswith("fake/"):
        return AutoTransport()
    from runner.transport import FakeTransport

    return FakeTransport()


@functools.lru_cache(maxsize=8)
def _patience(retries: int) -> RetryPolicy:
    return RetryPolicy(max_attempts=retries + 1)


@functools.lru_cache(maxsize=8)
def _shared_store(folder: Path, in_memory: bool) -> Cache:
    return Cache(folder, memory_entries=10_000 if in_memory else 0)
