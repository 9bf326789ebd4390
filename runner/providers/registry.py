"""Providers by name: built-in ones, and those that other packages add through the entry point group ``ostinato.providers``."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from runner.errors import ConfigError
from runner.providers.base import Provider
from runner.providers.names import is_local, is_openai
from runner.system.packages import entry_points
from runner.wording.suggest import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "ostinato.providers"
"""The entry point group. A package with a provider declares ``name = "its.module:ItsProvider"`` there."""

# Strings, so that naming a provider imports none. The package also declares them as entry points, for tools that list these.
# Built-in names win: an entry point of the same name is ignored, so that none is loaded twice.
_BUILT_IN = {
    "local": "runner.providers.local:LocalProvider",
    "openai": "runner.providers.openai:OpenAIProvider",
    "databricks": "runner.providers.databricks:DatabricksProvider",
    "command": "runner.providers.command:CommandProvider",
}
_OWNERS = {"local": is_local, "openai": is_openai}
"""The built-in providers that own models, and whether one is theirs."""


def names() -> list[str]:
    """Return the names of all providers, in the order in which `infer` tries them."""
    return [*_BUILT_IN, *_others()]


def get(name: str) -> Provider:
    """Return the provider of this name; always the same instance.

    Raises:
        ConfigError: there is none, or its entry point does not name a provider.
    """
    if name in _BUILT_IN:
        return _built_in(name)
    if name in _others():
        return _other(name)
    raise ConfigError(f"unknown provider {name!r}{did_you_mean(name, names())}")


def infer(model: str) -> Provider:
    """Find the provider that owns `model`: the first that claims it, built-in ones first; else a plain `Provider`.

    Raises:
        ConfigError: another package's provider cannot be loaded.
    """
    for name, owns in _OWNERS.items():
        if owns(model):
            return _built_in(name)
    for name in _others():
        if _other(name).is_provider_model(model):
            return _other(name)
    return Provider()


@cache
def _built_in(name: str) -> Provider:
    module, _, attribute = _BUILT_IN[name].partition(":")
    provider: Provider = getattr(import_module(module), attribute)()
    return provider


@cache
def _others() -> dict[str, EntryPoint]:
    return {name: entry for name, entry in entry_points(GROUP).items() if name not in _BUILT_IN}


@cache
def _other(name: str) -> Provider:
    entry = _others()[name]
    where = f"provider {name!r} ({entry.value}, from {entry.dist.name if entry.dist else 'an unknown package'})"
    try:
        provider = entry.load()()
    except Exception as error:  # boundary: another package's code may raise anything; the error names the package
        raise ConfigError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(provider, Provider):
        raise ConfigError(f"{where} is not a subclass of runner.providers.base.Provider")
    return provider
