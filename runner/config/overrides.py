"""Prepare overrides for Hydra: prompts are taken literally, and a model's id may replace a model option."""

from __future__ import annotations

import functools
import re
from os.path import isfile
from typing import TYPE_CHECKING, Any

from runner.config.folders import options
from runner.config.load import escape, is_open, is_protected, is_text_field
from runner.config.older import RENAMED
from runner.errors import ConfigError
from runner.secrets import redact
from runner.system.paths import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OVERRIDE = re.compile(r"^(?P<sign>~|\+{0,2})(?P<key>[\w.@/\-]+)=(?P<value>.*)$", re.DOTALL)

VERBATIM = frozenset({"prompt.system", "prompt.user", "scoring.pattern", "scoring.target_pattern"}) | {
    "data.where",
    "finetune.data.where",
    "finetune.command",
}
"""Keys whose text has a syntax of its own, which Hydra's escapes and interpolations would damage."""

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*@(?:latest|[1-9]\d*)")
"""The alias of a registered model. It is resolved later, when the experiment is created."""

_OPTIONAL = frozenset({"finetune"})
"""Groups that a config can do without."""

_TOKEN = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')(\s*:)?|\\.|[{}\[\],]|[^"'{}\[\],\\]+|.""", re.DOTALL)
"""A quoted text (and the colon after it), an escape, a bracket or comma, or other text."""

_ADDRESS = re.compile(r"(?:https?|s3|hf)://\S+$")

_BARE_KEY = re.compile(r"[\w./@%+*?|$-]+", re.ASCII)


def prepared(overrides: Sequence[str], places: Sequence[Path], primary: str) -> list[str]:
    """Return the overrides in a form that Hydra reads as they are meant.

    Args:
        overrides: as written on the command line.
        places: the folders with config groups, from `folders`.
        primary: the name of the primary config, without ``.yaml``.

    Raises:
        ConfigError: one is not an override, or not in Hydra's grammar.
    """
    lists_experiment = any(_lists_experiment(place / f"{primary}.yaml") for place in places)
    return [ready for override in overrides for ready in _prepared(override, places, lists_experiment=lists_experiment)]


def _prepared(override: str, places: Sequence[Path], *, lists_experiment: bool) -> list[str]:
    match = OVERRIDE.match(override)
    if match is None:
        if not override.startswith("~"):
            hint = f"; to begin with rows of your own: ostinato init --from {redact(override)}" if isfile(override) else ""  # noqa: PTH113
            raise ConfigError(f"'{redact(override)}' is not an override; write key=value, group=option, +key=value or ~key{hint}")
        return [override]
    sign, key, value = match["sign"], match["key"], match["value"]
    if key == "experiment":  # experiment=x and +experiment=x are both common; which one Hydra takes depends on the config
        return [f"{'' if lists_experiment else '+'}experiment={value}"]
    if key == "model" and (option := _stands_for(value, places)):
        return [f"model={option}", f"model.name={value}"]
    key = RENAMED.get(key, key)
    override = f"{sign}{key}={value}"
    if value == "null" and key in _OPTIONAL:
        return [f"~{key}"]
    if value == "null" and (found := options(key, places)):
        raise ConfigError(f"{key}=null: the group {key} needs an option; it has {', '.join(found)}")
    names_column = key.startswith("prompt.") and value.startswith("{{")
    if (key in VERBATIM or names_column) and not _is_quoted(value) and value != "null":
        return [f"{sign}{key}={quote(value)}"]
    if not sign and is_open(key):
        sign = "++"  # mappings such as model.params take any key
    return [_in_grammar(override, sign, key, value, places)]


def _in_grammar(override: str, sign: str, key: str, value: str, places: Sequence[Path]) -> str:
    """Return an override that Hydra's grammar accepts; text that it does not accept is quoted."""
    from hydra.errors import HydraException

    ready = f"{sign}{key}={value}"
    try:
        ready, found = parse(ready)
    except (HydraException, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        if is_text_field(key) or _ADDRESS.match(value):  # a regex, a sentence or a URL with a query, meant literally
            return f"{sign}{key}={quote(value)}"
        problem = redact(str(error).partition("\n")[0])
        raise ConfigError(f"'{shown(override)}' is not in Hydra's grammar: {problem}; put the value into quotes") from None
    _refuse_as_option(key, found.value(), places)
    return ready


def parse(override: str) -> tuple[str, Any]:
    """Parse an override in Hydra's grammar, in which keys of mappings may be quoted as well, unless the value is a text.

    Returns:
        The override as Hydra takes it, and as it is parsed.

    Raises:
        HydraException, ValueError, RecursionError: it is not in the grammar.
    """
    from hydra.errors import HydraException

    try:
        return override, parser().parse_override(override)
    except HydraException:
        bare = bare_keys(override)
        if bare == override or is_text_field(override.partition("=")[0].lstrip("+")):
            raise
        return bare, parser().parse_override(bare)


def bare_keys(text: str) -> str:
    """Return a text in which quoted keys of mappings lose their quotes, where possible: ``{"7": x}`` is ``{7: x}``."""
    said: list[str] = []
    within: list[str] = []
    at_key = False
    for found in _TOKEN.finditer(text):
        token, quoted, colon = found[0], found[1], found[2]
        if at_key and colon and within[-1] == "{" and _BARE_KEY.fullmatch(quoted[1:-1]):
            token = quoted[1:-1] + colon
        if token in ("{", "["):
            within.append(token)
        elif token in ("}", "]") and within:
            within.pop()
        at_key = bool(within) and (token in ("{", ",") or (at_key and token.isspace()))
        said.append(token)
    return "".join(said)


def _refuse_as_option(key: str, value: Any, places: Sequence[Path]) -> None:
    """Refuse a mapping, or a list of anything but names, where a group takes the name of an option."""
    names = isinstance(value, list) and all(isinstance(item, str) for item in value)  # Hydra takes several options of a group
    if isinstance(value, dict | list) and not names and (found := options(key, places)):
        raise ConfigError(f"{key}: is a group, and takes the name of an option: {', '.join(found)}; its keys are {key}.KEY=...")


def _stands_for(model: str, places: Sequence[Path]) -> str | None:
    """Return the option of the group `model` that an id or an alias stands for; None if `model` is an option itself."""
    if _ALIAS.fullmatch(model):
        return "default"
    is_id = "/" in model and not any((place / f"model/{model}.yaml").is_file() for place in places)
    return "litellm" if is_id else None


def _lists_experiment(file: Path) -> bool:
    """Return whether the defaults list of a primary config names the group experiment."""
    try:
        return file.is_file() and re.search(rb"^\s*-\s*experiment\s*:", file.read_bytes(), re.MULTILINE) is not None
    except OSError as error:
        raise ConfigError(f"{shortened(file)}: {error.strerror}") from None


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def quote(text: str, *, literal: bool = True) -> str:
    """Return `text` quoted, so that Hydra's grammar reads it as text.

    Args:
        text: any text.
        literal: escape it, too, so that OmegaConf finds no interpolation in it.
    """
    escaped = re.sub(r'(\\*)"', lambda found: found[1] * 2 + '\\"', escape(text) if literal else text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f'"{escaped}{chr(92) * trailing}"'


def shown(override: str) -> str:
    """Return the override as messages may show it: without anything that could be a secret."""
    match = OVERRIDE.match(override)
    return f"{match['key']}=..." if match and is_protected(match["key"]) else redact(override)


@functools.cache
def parser() -> Any:
    """Return Hydra's parser of overrides."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()
