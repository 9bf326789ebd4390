"""Lend an LM to one slot: whoever answers or scores it asks through this, and what that costs is counted with the slot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from runner.answers import without_thinking
from runner.errors import ConfigError
from runner.lm.arguments import as_text, check_messages, outputs_of

if TYPE_CHECKING:
    from runner.lm.lm import LM
    from runner.types import Completion, Message, Request, Response

Complete: TypeAlias = Callable[["Request"], Awaitable["Completion"]]
"""Answers one request: by the engine, or from the cache alone."""


class Lent:
    """An LM for the time of one slot. It is called as an LM is: ``await lm.acall(prompt)``, or ``lm(prompt)`` in a thread.

    Everything that it sends goes through the run's cache, limits, budget and record.

    Args:
        lm: the LM; made in the event loop that answers its calls.
        complete: answers a request.

    Attributes:
        completions: the answers so far, with their keys and costs.
    """

    def __init__(self, lm: LM, complete: Complete) -> None:
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
        if self._lm.model_type == "text":
            return await self.acomplete(self._lm.request(prompt=as_text(messages), rollout=rollout, **kwargs))
        return await self.acomplete(self._lm.request(messages=messages, rollout=rollout, **kwargs))

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

    async def acomplete(self, request: Request) -> Completion:
        """Answer one request. Raises as `LM.acomplete`."""
        completion = await self._complete(request)
        self.completions.append(completion)
        return completion
