"""Know whose answers the cache holds: the weights that a server names are part of its identity, and so of every key.

A run asks its server once, before it looks into the cache, and records the endpoint with the weights, so that a resumed run, a
capsule and a replay use the same keys. A run that is answered by the cache needs no server: while that is not up, the weights
that it named last count.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from runner import build
from runner.cache.served import LastServed
from runner.config.schema.model import LiteLLMModel, ServerModel
from runner.errors import ConfigError, RecordError
from runner.lm.connection import connection_of
from runner.lm.lm import Pinned

if TYPE_CHECKING:
    from pathlib import Path

    from runner.config.schema import RunConfig
    from runner.lm.lm import LM
    from runner.servers.listing import Weights


def pin(config: RunConfig, lm: LM, *, ask: bool = True, nameless: set[tuple[str, str]] | None = None) -> None:
    """Make the weights behind the model's address part of its endpoint, if the server names them. Does nothing a second time.

    Args:
        config: the experiment.
        lm: its model.
        ask: whether the server is asked; False: what it named last counts.
        nameless: models, with their addresses, whose servers name no weights. They are not asked again; those found are added.
    """
    if lm.pinned is not None or (plain := _address(config, lm)) is None:
        return
    last = LastServed(lm.store.folder) if lm.store else None
    asked = ask and config.cache.mode != "replay"
    if asked and nameless is not None and (lm.model, plain) in nameless:
        return
    weights = _weights(config, lm) if asked else None
    if weights is not None:
        if nameless is not None and not weights.facts:
            nameless.add((lm.model, plain))
        endpoint: str | None = weights.at(plain)
        if last is not None and config.cache.mode in ("write", "rw", "refresh"):
            last.set(lm.model, plain, weights.at(plain))
    else:
        endpoint = last.get(lm.model, plain) if last is not None else None
    if endpoint is not None and endpoint != plain:
        lm.pinned = Pinned(endpoint)


def pin_recorded(lm: LM, endpoint: str | None) -> None:
    """Use the endpoint of a record, if it names weights."""
    if names_weights(endpoint):
        lm.pinned = Pinned(endpoint)


def names_weights(endpoint: str | None) -> bool:
    """Return whether an endpoint names weights besides its address."""
    return endpoint is not None and "#" in endpoint


def address_of(endpoint: str | None) -> str | None:
    """Return an endpoint without the weights that it names."""
    return endpoint.partition("#")[0] if endpoint is not None else None


def refuse_swapped(record: Path, config: RunConfig, lm: LM, recorded: str | None) -> None:
    """Raise RecordError if the server of a resumed run serves other weights than when the run began.

    A server that does not answer is no reason: what is asked of it next fails, and says why. Neither is a run that began with an
    endpoint that named no weights.
    """
    if told := swapped(config, lm, recorded):
        raise RecordError(
            f"{record}: {told}\n"
            "the rest would be answered by another model; serve the first one again, or start a new run with `ostinato run`"
        )


def swapped(config: RunConfig, lm: LM, recorded: str | None) -> str | None:
    """Ask the server again, and describe how its weights differ from those of a `recorded` endpoint. None: they do not."""
    if recorded is None or not names_weights(recorded) or (plain := _address(config, lm)) is None:
        return None
    weights = _weights(config, lm)
    if weights is None or (now := weights.at(plain)) == recorded:
        return None
    facts = ", ".join(f"{name}={value}" for name, value in weights.facts.items()) or "it does not say what it serves"
    return (
        f"{plain} serves other weights for {lm.model} than when this run began:\n"
        f"  was: {recorded.partition('#')[2]}\n  is:  {now.partition('#')[2] or '-'} ({facts})"
    )


def _address(config: RunConfig, lm: LM) -> str | None:
    """Return the address of a server that may be asked what it serves; None: a paid provider, or one that needs no question."""
    api_base = lm.channel().connection.api_base
    if not api_base:
        return None
    from runner.servers.listing import is_own, is_paid

    if is_paid(api_base):
        return None
    match config.model:
        case ServerModel():
            asked = True
        case LiteLLMModel():
            asked = is_own(api_base)
        case _:
            asked = False
    if not asked:
        return None
    endpoint = lm.request(prompt="").endpoint
    return address_of(endpoint)


def _weights(config: RunConfig, lm: LM) -> Weights | None:
    """Ask the server which weights it serves. Returns None if it cannot be asked now."""
    from runner.servers.listing import weights_of

    given = dict(lm.kwargs)
    with contextlib.suppress(ConfigError):  # a key that is not set is needed to send requests; it is missed then
        given |= build.access(config)
    connection = connection_of(lm.model, given)
    provider, _, name = lm.model.partition("/")
    api_base = str(connection.api_base).rstrip("/")
    if provider in ("ollama", "ollama_chat") and not api_base.endswith("/v1"):  # litellm speaks Ollama's own protocol there
        api_base += "/v1"
    headers = {str(key): str(value) for key, value in connection.headers.items()}
    if connection.api_key:
        headers = {"Authorization": f"Bearer {connection.api_key}", **headers}
    return weights_of(api_base, name, headers)
