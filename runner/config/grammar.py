"""Read and write values in Hydra's grammar of overrides and sweeps."""

from __future__ import annotations

import functools
import re
from typing import Any

from runner.config.overrides import VERBATIM, parse, quote
from runner.config.ranges import values_of
from runner.errors import ConfigError

_BARE = re.compile(r"(?!(?:true|false|null|inf|nan)$)[A-Za-z_][\w./:@-]*", re.IGNORECASE | re.ASCII)


def parsed(override: str) -> tuple[str, Any]:
    """Return the key and the value of an override that a sweeper proposes.

    Raises:
        ConfigError: the value is not in Hydra's grammar.
    """
    key, _, text = override.partition("=")
    return key.lstrip("+"), value_of(text)


def text_of(value: Any) -> str:
    """Return a value in Hydra's grammar.

    Raises:
        ConfigError: a mapping in it has a key that the grammar cannot express, such as ``1e3`` or ``True``.
    """
    text = _text(value)
    if "{" in text and isinstance(value, dict | list) and value_of(text) != value:
        raise ConfigError(f"{value!r}: a key of this mapping cannot be written in Hydra's grammar, which sweeps use")
    return text


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else quote(value, literal=False)
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_escaped(str(key))}:{_text(item)}' for key, item in value.items())}}}"
    return repr(value)


def _escaped(key: str) -> str:
    """Return the key of a mapping; the grammar takes it without quotes alone."""
    return re.sub(r"[\\()\[\]{}:=, \t]", r"\\\g<0>", key)


@functools.lru_cache(maxsize=10_000)
def value_of(text: str) -> Any:
    """Return the value of a text in Hydra's grammar. Keys of mappings are texts, also where they look like numbers.

    Raises:
        ConfigError: it is not in the grammar.
    """
    from hydra.errors import HydraException

    try:
        return _with_text_keys(parse(f"key={text}")[1].value())
    except HydraException as error:
        raise ConfigError(f"'{text}' is not a value in Hydra's grammar: {str(error).partition(chr(10))[0]}") from None


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _text(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value


def listed(override: Any) -> list[Any]:
    """Return the values that a parsed override lists.

    Raises:
        ConfigError: it is an interval, or lists nothing.
    """
    key = override.key_or_group
    if not override.is_discrete_sweep():
        raise ConfigError(f"{key}: an interval has infinitely many values; search it with hydra/sweeper=optuna")
    found = (
        values_of(key, override.value()) if override.is_range_sweep() else list(map(value_of, override.sweep_string_iterator()))
    )
    if not found:
        raise ConfigError(f"{override.input_line or key}: has no values")
    return found


def sweep_of(override: str) -> Any:
    """Return the parsed override if it has several values, else None.

    The user's own text, such as a prompt, may contain commas. Several such texts need quotes, or `choice()`.
    """
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    if override.startswith("~") or "=" not in override:
        return None
    try:
        _, found = parse(override)
        if not found.is_sweep_override():
            return None
    except (HydraException, ValueError, RecursionError):  # not in Hydra's grammar: `compose` refuses it, or takes it literally
        return None
    value = found.value()
    if found.key_or_group in VERBATIM and getattr(value, "simple_form", False):
        return found if all(isinstance(item, QuotedString) for item in value.list) else None
    return found


def ranged(key: str, given: dict[str, list[int | float]]) -> str:
    """Return a range or an interval of a section `sweep` as an override."""
    ((kind, numbers),) = given.items()
    return f"{key}={kind}({','.join(map(repr, numbers))})"
