"""Decide whether an answer is streamed, and how long an attempt at it may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from runner.errors import ConfigError
from runner.lm.capabilities import capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

Stream: TypeAlias = Literal["auto", "always", "never"]
"""Answers to stream: those that may be long, all, or none."""

LONG_ANSWER = 4_000
"""Tokens of an answer that may take long: at 40 tokens per second, 100 seconds."""

SLOWEST = 10
"""Tokens per second of the slowest server that the total of a streamed answer allows for."""

_UNBOUNDED = 32_000
"""Tokens that an answer is taken to have if nothing bounds it."""


def streams(model: str, kwargs: Mapping[str, Any], *, own_server: bool) -> bool:
    """Return whether the answers to requests with these arguments of an LM are streamed.

    With ``stream="auto"`` those are that may be long: of a model that thinks (by litellm's map of models), with a limit of
    `LONG_ANSWER` tokens or more, or with none.

    Raises:
        ConfigError: `stream` is none of ``auto``, ``always``, ``never``, True, False and None.
    """
    mode = kwargs.get("stream")
    if mode not in (None, True, False, "auto", "always", "never"):
        raise ConfigError(f"stream {mode!r}: allowed are auto, always, never")
    if mode in (False, "never") or model.startswith("fake/"):
        return False
    if mode in (True, "always"):
        return True
    limit = _limit(kwargs)
    return limit is None or limit >= LONG_ANSWER or capabilities(model, own_server=own_server).may_think(kwargs)


def total_s(timeout_s: float, model: str, kwargs: Mapping[str, Any], *, own_server: bool) -> float:
    """Return the seconds that an attempt at a streamed answer may take: `timeout_s`, and the time that its tokens take."""
    longest = None if own_server else capabilities(model).longest
    return timeout_s + (_limit(kwargs) or longest or _UNBOUNDED) / SLOWEST


def _limit(kwargs: Mapping[str, Any]) -> int | None:
    limit = kwargs.get("max_tokens") or kwargs.get("max_completion_tokens")
    return limit if isinstance(limit, int) else None
