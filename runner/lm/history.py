"""Keep an LM's calls in dspy's form, and print them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.lm.callbacks import new_id
from runner.system.clock import now

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


def remember(
    history: list[dict[str, Any]],
    inputs: Inputs,
    request: Request,
    completion: Completion,
    response: Response,
    outputs: list[Any],
) -> None:
    """Add a call to a history, under dspy's names; drop the oldest beyond `Settings.max_history_size`."""
    history.append(
        {
            "prompt": inputs.prompt,
            "messages": inputs.messages,
            "kwargs": inputs.shown(),
            "response": response,
            "outputs": outputs,
            "usage": msgspec.to_builtins(response.usage) if response.usage else {},
            "cost": completion.cost_usd,
            "timestamp": now(),
            "uuid": new_id(),
            "model": request.model,
            "response_model": response.model,
            "model_type": request.model_type,
            "cache_hit": completion.cache == "hit",
        }
    )
    if (excess := len(history) - settings.max_history_size) > 0:
        del history[:excess]


def show(entries: Iterable[dict[str, Any]]) -> None:
    """Print the messages and answers of calls."""
    for entry in entries:
        print(f"\n[{entry['timestamp']}]  {entry['model']}")  # noqa: T201 - printing is what it is for
        for message in entry["messages"] or [{"role": "user", "content": entry["prompt"]}]:
            said = message.get("content") or message.get("tool_calls")
            print(f"\n{message['role'].capitalize()}:\n\n{said}")  # noqa: T201
        for output in entry["outputs"]:
            print(f"\nResponse:\n\n{output['text'] if isinstance(output, dict) else output}\n")  # noqa: T201
