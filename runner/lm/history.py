"""Keep an LM's calls in dspy's form, and print them."""

from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec

from runner.lm.callbacks import new_id
from runner.system.clock import written

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.lm.arguments import Inputs
    from runner.types import Completion, Request, Response


class Settings(msgspec.Struct):
    """Switches for every LM of the process.

    Attributes:
        disable_history: if True, calls are not added to `LM.history`.
        max_history_size: entries kept per LM; the oldest are dropped first.
    """

    disable_history: bool = False
    max_history_size: int = 10_000


settings = Settings()


_making = threading.Lock()


class History:
    """The calls of one LM. Their entries are made when they are read: most never are.

    Args:
        entries: those of earlier calls.
    """

    __slots__ = ("_calls", "_entries")

    def __init__(self, entries: list[dict[str, Any]] | None = None) -> None:
        self._entries = [] if entries is None else entries
        self._calls: list[tuple[int, Inputs, Request, Completion, Response, list[Any]]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> History:
        return History(copy.deepcopy(self.entries(), memo))

    def add(self, inputs: Inputs, request: Request, completion: Completion, response: Response, outputs: list[Any]) -> None:
        """Add a call. Beyond `Settings.max_history_size` the oldest are dropped."""
        self._calls.append((time.time_ns(), inputs, request, completion, response, outputs))
        if len(self._calls) > settings.max_history_size:
            with _making:
                _drop_beyond(settings.max_history_size, self._calls)

    def entries(self) -> list[dict[str, Any]]:
        """Return the calls under dspy's names: the same list each time, which may be changed."""
        with _making:
            count = len(self._calls)  # other threads go on adding at the end
            self._entries += [_entry(*call) for call in self._calls[:count]]
            del self._calls[:count]
            _drop_beyond(settings.max_history_size, self._entries)
        return self._entries


def _drop_beyond(most: int, items: list[Any]) -> None:
    if (excess := len(items) - most) > 0:
        del items[:excess]


def _entry(
    nanoseconds: int, inputs: Inputs, request: Request, completion: Completion, response: Response, outputs: list[Any]
) -> dict[str, Any]:
    return {
        "prompt": inputs.prompt,
        "messages": inputs.messages,
        "kwargs": inputs.shown(),
        "response": response,
        "outputs": outputs,
        "usage": msgspec.to_builtins(response.usage) if response.usage else {},
        "cost": completion.cost_usd,
        "timestamp": written(nanoseconds),
        "uuid": new_id(),
        "model": request.model,
        "response_model": response.model,
        "model_type": request.model_type,
        "cache_hit": completion.cache == "hit",
    }


def show(entries: Iterable[dict[str, Any]]) -> None:
    """Print the messages and answers of calls."""
    for entry in entries:
        print(f"\n[{entry['timestamp']}]  {entry['model']}")  # noqa: T201 - printing is what it is for
        for message in entry["messages"] or [{"role": "user", "content": entry["prompt"]}]:
            said = message.get("content") or message.get("tool_calls")
            print(f"\n{message['role'].capitalize()}:\n\n{said}")  # noqa: T201
        for output in entry["outputs"]:
            print(f"\nResponse:\n\n{output['text'] if isinstance(output, dict) else output}\n")  # noqa: T201
