"""The parameters of a request, made from an LM's arguments, with their part of the cache key; kept while they stay the same."""

from __future__ import annotations

from operator import is_
from typing import Any, NamedTuple

from runner.cache import encoded_params
from runner.lm.arguments import as_data, check_params, is_reasoning, is_sent

_PLAIN = frozenset({str, int, float, bool})


class Parameters(NamedTuple):
    """What a request says besides what is said.

    Attributes:
        sent: by name, as `Request.params`. A request gets a copy.
        encoded: `sent` as `request_key` takes it.
    """

    sent: dict[str, Any]
    encoded: bytes


class LastParameters:
    """Those of the last call. They take as long to make as all else that a cache hit needs, and are hardly ever other ones."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[str, dict[str, Any], Parameters] | None = None  # one object: threads replace it whole

    def __deepcopy__(self, memo: dict[int, Any]) -> LastParameters:
        return LastParameters()

    def of(self, model: str, given: dict[str, Any]) -> Parameters:
        """The parameters of a call.

        Args:
            model: who is asked.
            given: the arguments of the LM and of the call; not to be changed afterwards.

        Raises:
            ConfigError: one of them has a value that it may not have, or one that is not JSON data.
        """
        if (last := self._last) is not None and last[0] == model and _same(last[1], given):
            return last[2]
        made = _made(model, given)
        if all(type(value) in _PLAIN for value in made.sent.values()):  # what can change in place is looked at each time
            self._last = (model, given, made)
        return made


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two dicts hold the same objects: 1, 1.0 and True are equal, but not the same parameter."""
    return len(one) == len(other) and all(map(is_, one, other)) and all(map(is_, one.values(), other.values()))


def _made(model: str, given: dict[str, Any]) -> Parameters:
    sent = {name: as_data(value) for name, value in given.items() if value is not None and is_sent(name)}
    if "max_tokens" in sent and is_reasoning(model):
        sent["max_completion_tokens"] = sent.pop("max_tokens")
    check_params(sent)
    return Parameters(sent, encoded_params(sent))
