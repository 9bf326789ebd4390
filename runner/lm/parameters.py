"""Make the parameters of a request and their part of the cache key; reuse them while they stay the same."""

from __future__ import annotations

import functools
import logging
from operator import is_
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from runner.cache import encoded_params
from runner.errors import ConfigError
from runner.lm.arguments import as_data, check_params, is_sent
from runner.lm.capabilities import Capabilities, capabilities
from runner.lm.connection import api_base
from runner.network.parameter import without

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("ostinato")

Unsupported: TypeAlias = Literal["warn", "drop", "error"]
"""Treatment of a parameter that the model does not take: leave it out and say so, leave it out, or raise an error."""

ENOUGH_TO_THINK = 16_000
"""Tokens of an answer in which a thinking model can be expected to come to its end (dspy 3 asks for as many)."""

LIMITS = ("max_tokens", "max_completion_tokens")
"""Names of the parameter that bounds an answer."""

_PLAIN = frozenset({str, int, float, bool})


class AsRecorded(NamedTuple):
    """The form that a record's requests have, whatever is known of the model today.

    Attributes:
        not_sent: names of the parameters that they leave out.
        limit: their name for the parameter that bounds an answer; None: not recorded.
    """

    not_sent: frozenset[str]
    limit: str | None


Form: TypeAlias = Unsupported | AsRecorded
"""Treatment of parameters that the model does not take, or the form of a record's requests."""


class Parameters(NamedTuple):
    """The part of a request beside its messages.

    Attributes:
        sent: by name, for `Request.params`. A request gets a copy.
        encoded: `sent`, encoded for `request_key`.
        not_sent: what was asked for and left out, because the model does not take it.
    """

    sent: dict[str, Any]
    encoded: bytes
    not_sent: dict[str, Any]


class LastParameters:
    """The parameters of the last call. Making them takes as long as the rest of a cache hit, and they rarely change."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[str, Form, dict[str, Any], Parameters] | None = None  # one object: threads replace it atomically

    def __deepcopy__(self, memo: dict[int, Any]) -> LastParameters:
        return LastParameters()

    def of(self, model: str, given: dict[str, Any], form: Form = "warn") -> Parameters:
        """Return the parameters of a call.

        Args:
            model: the model of the call.
            given: the arguments of the LM and of the call; do not change it afterwards.
            form: what happens to those that the model does not take, or the form of a record's requests.

        Raises:
            ConfigError: an argument has an invalid value, one that is not JSON data, or (``error``) one that the model does not
                take.
        """
        if (last := self._last) is not None and last[0] == model and last[1] == form and _same(last[2], given):
            return last[3]
        made = _made(model, given, form)
        if all(type(value) in _PLAIN for value in made.sent.values()):  # mutable values are encoded each time
            self._last = (model, form, given, made)
        return made


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two dicts hold the same objects: 1, 1.0 and True are equal, but different parameters."""
    return len(one) == len(other) and all(map(is_, one, other)) and all(map(is_, one.values(), other.values()))


def _made(model: str, given: dict[str, Any], form: Form) -> Parameters:
    sent = {name: as_data(value) for name, value in given.items() if value is not None and is_sent(name)}
    takes = taken_by(model, given)
    recorded = form if isinstance(form, AsRecorded) else None
    if recorded is None or recorded.limit is None:
        if "max_tokens" in sent and takes.limit != "max_tokens":
            sent[takes.limit] = sent.pop("max_tokens")
    elif recorded.limit not in sent:
        _rename_limit(sent, recorded.limit)
    check_params(sent)
    refused = takes.refused(sent) if recorded is None else recorded.not_sent
    not_sent = {name: value for name, value in sent.items() if name in refused}
    if not_sent and form == "error":
        name, value = next(iter(not_sent.items()))
        raise ConfigError(
            f"{model} does not take {name}={_shown(value)}; leave it out with {without(name)}, or choose model.unsupported=warn"
        )
    for name in not_sent:
        del sent[name]
    if form == "warn":
        _say(model, takes, sent, not_sent)
    return Parameters(sent, encoded_params(sent), not_sent)


def _rename_limit(sent: dict[str, Any], name: str) -> None:
    """Give the parameter that bounds the answer this name, if there is one."""
    for other in LIMITS:
        if other in sent:
            sent[name] = sent.pop(other)


def taken_by(model: str, given: Mapping[str, Any]) -> Capabilities:
    """Return what a model takes at the address that these arguments of an LM name."""
    own_server = model.partition("/")[0] in ("openai", model) and api_base(model, given) is not None
    return capabilities(model, own_server=own_server)


def _say(model: str, takes: Capabilities, sent: Mapping[str, Any], not_sent: Mapping[str, Any]) -> None:
    for name, value in not_sent.items():
        _say_once(
            f"{model} does not take {name}={_shown(value)}: it is not sent. {without(name)} leaves it out; "
            "model.unsupported=error makes it an error"
        )
    limit = next((sent[name] for name in LIMITS if name in sent), None)
    if limit is not None and takes.longest is not None and limit > takes.longest:
        _say_once(
            f"the longest answer of {model} has {takes.longest} tokens, and some providers refuse more: "
            f"set sampling.max_tokens={takes.longest} rather than {limit}"
        )
    if limit is not None and limit < ENOUGH_TO_THINK and takes.thinks(sent):
        _say_once(
            f"{model} thinks before it answers, and its thinking counts as part of max_tokens={limit}: answers may be cut off. "
            f"Allow more, for example sampling.max_tokens={ENOUGH_TO_THINK}, or have it think less"
        )


@functools.lru_cache(maxsize=1024)
def _say_once(text: str) -> None:
    logger.warning(text)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
