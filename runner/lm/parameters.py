"""Make the parameters of a request and their part of the cache key; reuse them while they stay the same."""

from __future__ import annotations

from operator import is_
from typing import Any, NamedTuple

from runner.cache import encoded_params
from runner.lm.arguments import as_data, check_params, is_reasoning, is_sent

_PLAIN = frozenset({str, int, float, bool})


class Parameters(NamedTuple):
    """The part of a request beside its messages.

    Attributes:
        sent: by name, for `Request.params`. A request gets a copy.
        encoded: `sent`, encoded for `request_key`.
    """

    sent: dict[str, Any]
    encoded: bytes


class LastParameters:
    """The parameters of the last call. Making them takes as long as the rest of a cache hit, and they rarely change."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[str, dict[str, Any], Parameters] | None = None  # one object, so that threads replace it atomically

    def __deepcopy__(self, memo: dict[int, Any]) -> LastParameters:
        return LastParameters()

    def of(self, model: str, given: dict[str, Any]) -> Parameters:
        """Return the parameters of a call.

        Args:
            model: the model of the call.
            given: the arguments of the LM and of the call; do not change it afterwards.

        Raises:
            ConfigError: an argument has an invalid value, or one that is not JSON data.
        """
        if (last := self._last) is not None and last[0] == model and _same(last[1], given):
            return last[2]
        made = _made(model, given)
        if all(type(value) in _PLAIN for value in made.sent.values()):  # mutable values are encoded each time
            self._last = (model, given, made)
        return made


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two dicts hold the same objects: 1, 1.0 and True are equal, but different parameters."""
    return len(one) == len(other) and all(map(is_, one, other)) and all(map(is_, one.values(), other.values()))


def _made(model: str, given: dict[str, Any]) -> Parameters:
    sent = {name: as_data(value) for name, value in given.items() if value is not None and is_sent(name)}
    if "max_tokens" in sent and is_reasoning(model):
        sent["max_completion_tokens"] = sent.pop("max_tokens")
    check_params(sent)
    return Parameters(sent, encoded_params(sent))
