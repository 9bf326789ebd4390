"""Resolve OmegaConf's interpolations, but leave the user's own text and references to secrets as they are written."""

from __future__ import annotations

from typing import Any

from runner.config.load import is_deferred, is_literal

ESCAPE_HINT = "`${` starts an interpolation; write `\\${` for a literal one, or put the prompt into a file (prompt.user_file=...)"


def interpolates(path: str, value: Any) -> bool:
    """Return whether `value` refers to another key of the config, or to an environment variable."""
    return isinstance(value, str) and "${" in value and not _stays(path, value)


def is_missing(path: str, value: Any) -> bool:
    """Return whether `value` stands for one that is required (``???``)."""
    return value == "???" and not _stays(path, value)


def resolve(raw: dict[str, Any]) -> dict[str, Any]:
    """Return `raw` with its interpolations resolved, except in literal text and where one could bring in a secret.

    Raises:
        OmegaConfBaseException: an interpolation refers to something that does not exist; `runner.config.mistakes` explains it.
    """
    from omegaconf import OmegaConf

    kept: dict[str, Any] = {}
    resolved = OmegaConf.to_container(OmegaConf.create(_masked(raw, kept)), resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    plain: dict[str, Any] = _unmasked(resolved, kept)
    return plain


def _stays(path: str, value: Any) -> bool:
    """Return whether `value` is left as it is written: the user's own text, and references to secrets."""
    return is_literal(path) or is_deferred(path, value)


def _masked(value: Any, kept: dict[str, Any], path: str = "") -> Any:
    """Return `value` without the parts that stay as they are. Those go into `kept`, by path."""
    if _stays(path, value):
        kept[path] = value
        return ""
    if isinstance(value, dict):
        return {key: _masked(item, kept, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, kept, f"{path}[{index}]") for index, item in enumerate(value)]
    return value


def _unmasked(value: Any, kept: dict[str, Any], path: str = "") -> Any:
    """Return `value` with the parts in `kept` put back."""
    if path in kept:
        return kept[path]
    if isinstance(value, dict):
        return {key: _unmasked(item, kept, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_unmasked(item, kept, f"{path}[{index}]") for index, item in enumerate(value)]
    return value
