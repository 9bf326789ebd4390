"""Read litellm's published map of models: prices, limits and capabilities. It is read as data, without importing litellm."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import msgspec

FILE = "model_prices_and_context_window_backup.json"
"""The map's name in litellm's package."""


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """Return the map: facts by the name of the model. It is empty if litellm is not installed."""
    spec = importlib.util.find_spec("litellm")
    for place in spec.submodule_search_locations or [] if spec else []:
        file = Path(place) / FILE
        if file.is_file():
            found: dict[str, dict[str, Any]] = msgspec.json.decode(file.read_bytes())
            return found
    return {}


def key_of(model: str) -> str | None:
    """Return the name that the map has for ``provider/name``: the whole, or the name alone if that is of the same provider."""
    known = entries()
    if model in known:
        return model
    provider, _, name = model.rpartition("/")
    if name.startswith("ft:"):  # ft:gpt-4o-mini-2024-07-18:somebody::1a2b3c
        name = ":".join(name.split(":")[:2])
    found = known.get(name)
    return name if found and (not provider or found.get("litellm_provider") == provider) else None


def entry(model: str) -> dict[str, Any] | None:
    """Return the map's entry of ``provider/name``, None if it has none."""
    key = key_of(model)
    return None if key is None else entries()[key]
