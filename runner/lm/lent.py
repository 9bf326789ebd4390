"""Lend an LM to one slot: whoever answers or scores it asks through this, and what that costs is counted with the slot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from runner.answers import without_thinking
from runner.cache import encoded_params
from runner.errors import ConfigError
from runner.lm.arguments import as_text, check_messages, outputs_of
from runner.types import Request

if TYPE_CHECKING:
    from runner.lm.lm import LM
    from runner.types import Completion, Message, Response

Complete: TypeAlias = Callable[["Request", "bytes | None"], Awaitable["Completion"]]
"""Answers one request, by the engine or from the cache alone; its encoded parameters are given if they are known."""
Patterns: TypeAlias = dict[bytes, tuple["Request", bytes]]
"""Requests without what is said, by their arguments, with their encoded parameters: what many requests have in common."""


class Lent:
    """An LM for the time of one slot. It is called as an LM is: ``await lm.acall(prompt)``, or ``lm(prompt)`` in a thread.

    Everything that it sends goes through the run's cache, limits, budget and record.

    Args:
        lm: the LM; made in the event loop that answers its calls.
        complete: answers a request.
        patterns: what requests have in common; shared by all that lend this LM.

    Attributes:
        completions: the answers so far, with their keys and costs.
    """

    def __init__(self, lm: LM, complete: Complete, patterns: Patterns | None = None) -> None:
        self._patterns: Patterns = {} if patterns is None else patterns
        self._lm = lm
        self._complete = complete
        self._loop = asyncio.get_running_loop()
        self.completions: list[Completion] = []

    @property
    def model(self) -> str:
        """The model, ``provider/name``."""
        return self._lm.model

    async def acall(self, prompt: str | None = None, messages: list[Message] | None = None, **kwargs: Any) -> list[Any]:
        """Send a prompt or a conversation, and return one output per answer, as `LM.acall` does.

        Args:
            prompt: a user message.
            messages: a conversation, in place of `prompt`.
            **kwargs: override the model's parameters for this call; ``rollout_id=N`` asks for another answer.

        Raises:
            ConfigError: there is no prompt, or it is malformed.
            LMError, BudgetExceeded, CacheError: there is no answer, as from `LM.acomplete`.
        """
        if prompt is None and not messages:
            raise ConfigError("nothing to send: pass a prompt or messages")
        conversation = messages or [{"role": "user", "content": prompt}]
        check_messages(conversation)
        completion = await self.complete(conversation, rollout=kwargs.pop("rollout_id", None), **kwargs)
        return outputs_of(self._said(completion), wants_logprobs=bool(kwargs.get("logprobs")))

    async def complete(self, messages: list[Message], *, rollout: int | None = None, **kwargs: Any) -> Completion:
        """Send a conversation, and return the answer as it came. Raises as `acall`."""
        pattern, encoded = self._pattern(kwargs)
        is_text = pattern.model_type == "text"
        request = Request(
            model=pattern.model,
            model_type=pattern.model_type,
            endpoint=pattern.endpoint,
            messages=None if is_text else messages,
            prompt=as_text(messages) if is_text else None,
            params=pattern.params,
            rollout=rollout,
        )
        return await self.acomplete(request, encoded)

    def _pattern(self, kwargs: dict[str, Any]) -> tuple[Request, bytes]:
        key = msgspec.json.encode(kwargs)
        found = self._patterns.get(key)
        if found is None:
            pattern = self._lm.request(**kwargs)
            found = self._patterns[key] = (pattern, encoded_params(pattern.params))
        return found

    async def embed(self, text: str) -> list[float]:
        """Return the vector of a text, by the endpoint's ``/embeddings``. Raises as `acall`."""
        pattern, _ = self._pattern({})
        request = Request(model=pattern.model, model_type="embedding", endpoint=pattern.endpoint, prompt=text)
        completion = await self.acomplete(request)
        vector: list[float] = msgspec.json.decode(completion.response.choices[0].text or "[]", type=list[float])
        return vector

    def spoken(self, completion: Completion) -> str:
        """Return the text of an answer, without thinking."""
        return self._said(completion).choices[0].text or ""

    def _said(self, completion: Completion) -> Response:
        return without_thinking(completion.response) if self._lm.split_thinking else completion.response

    def __call__(self, prompt: str | None = None, messages: list[Message] | None = None, **kwargs: Any) -> list[Any]:
        """Do as `acall`, in a thread that may block. Raises ConfigError in the event loop itself."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(self.acall(prompt, messages, **kwargs), self._loop).result()
        raise ConfigError(f"{self.model} is called in an async function: write await lm.acall(...)")

    def request(self, **kwargs: Any) -> Request:
        """Return the request that a call would send, as `LM.request` does."""
        return self._lm.request(**kwargs)

    async def acomplete(self, request: Request, encoded: bytes | None = None) -> Completion:
        """Answer one request. Raises as `LM.acomplete`."""
        completion = await self._complete(request, encoded)
        self.completions.append(completion)
        return completion
