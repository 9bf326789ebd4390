"""Turn the errors of Hydra and OmegaConf into messages that say which key, option or file is wrong, and what to write."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, NamedTuple

from runner.config.folders import options
from runner.config.interpolation import ESCAPE_HINT
from runner.config.load import unknown_key
from runner.config.overrides import shown
from runner.errors import ConfigError, OstinatoError
from runner.secrets import redact
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class _Case(NamedTuple):
    """Hold what a message may use in addition to the text of the error.

    Attributes:
        key: the dotted key that OmegaConf names; '' if it names none.
        overrides: what was asked.
        places: the folders with config groups.
    """

    key: str
    overrides: Sequence[str]
    places: Sequence[Path]

    @property
    def at(self) -> str:
        """Begin a message with the key, if it is known."""
        return f"{self.key}: " if self.key else ""


@contextlib.contextmanager
def explained(overrides: Sequence[str], places: Sequence[Path]) -> Iterator[None]:
    """Raise the errors of Hydra and OmegaConf in this block as ConfigError.

    Args:
        overrides: those that messages may blame.
        places: the folders with config groups, from `folders`.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OstinatoError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(told(error, overrides, places)) from None
    except RecursionError:
        raise ConfigError("a defaults list refers to itself, or a value is nested too deeply") from None


def told(error: Exception, overrides: Sequence[str] = (), places: Sequence[Path] = ()) -> str:
    """Return the message for an error of Hydra or OmegaConf: that of the first row of `MESSAGES` that matches."""
    text = text_of(error)
    case = _Case(getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None) or "", overrides, places)
    for pattern, message in MESSAGES:
        if found := re.search(pattern, text):
            return message(found, case)
    plain = re.split(r"\n\s*full_key:|\nSee https", str(error) or str(error.__cause__), maxsplit=1)[0]
    return case.at + re.sub(r"\s*\n\s*", "; ", plain.strip())


def text_of(error: Exception) -> str:
    """Return what the patterns are searched in: the types of the error and of its cause, and the text."""
    return f"{type(error).__name__} {type(error.__cause__).__name__} {str(error) or error.__cause__}"


def _unknown_key(found: re.Match[str], case: _Case) -> str:
    path = found["path"].split("@")[0].replace("/", ".")
    blamed = next((shown(override) for override in case.overrides if override.lstrip("+~").startswith(path)), path)
    if "@" in found["path"] and (there := options(path, case.places)):
        return f"{path}: is a group; write {path}=OPTION, with one of {', '.join(there)} (in override '{blamed}')"
    return f"{unknown_key(case.key or path)} (in override '{blamed}')"  # case.key: a key in a mapping that was given whole


def _unknown_plugin(found: re.Match[str], _case: _Case) -> str:
    fix = "; install it: pip install 'ostinato[optuna]'" if found["option"] == "optuna" else ""
    return f"{found['group']}={found['option']}: no such option{fix}"


def _unknown_option(found: re.Match[str], case: _Case) -> str:
    *group, option = found["path"].split("/", 1)
    if not group:
        return f"config={option}: no such option"
    there = options(group[0], case.places)
    listed = f"; {group[0]} has {', '.join(there)}" if there else ""
    if group[0] == "data" and "." in option:
        return f"data={option}: no such option{listed}; a file of rows is data=file data.path={option}"
    near = suggest(option, there) or ("; a provider's model is model=provider/name" if group[0] == "model" else "")
    return f"{group[0]}={option}: no such option{listed}{near}"


def _several_values(found: re.Match[str], _case: _Case) -> str:
    return (
        f"{found['key']}: several values; to run a cell for each: ostinato run -m {found['key']}={redact(found['value'])}; "
        "a list is written [a,b], and text with commas in quotes"
    )


def _missing(found: re.Match[str], case: _Case) -> str:
    key = case.key or found["key"]
    return f"{key}: is required; give it as {key}=..."


MESSAGES: list[tuple[str, Callable[[re.Match[str], _Case], str]]] = [
    (r"Could not override '(?P<path>[^']+)'", _unknown_key),
    (
        r"Could not append to config\. An item is already at '(?P<key>[^']+)'",
        lambda found, _: f"{found['key']}: already exists; write {found['key']}=... without the +",
    ),
    (
        r"Could not delete (?:from config\. )?'(?P<key>[^'=]+)",
        lambda found, _: f"~{found['key']}: there is no such key, or it has another value",
    ),
    (
        r"looks like a config group override, but config group '(?P<group>[^']+)' does not exist",
        lambda found, _: f"{found['group']}: there is no such group",
    ),
    (
        r"(?P<group>\S+) appears more than once in the final defaults list",
        lambda found, _: f"{found['group']}: already has an option; write {found['group']}=OPTION without the +",
    ),
    (r"Could not find '(?P<group>hydra/[^']+)/(?P<option>[^/']+)'", _unknown_plugin),
    (
        r"In '(?P<file>[^']+/[^']+)': Could not (?:load|find) '(?P<option>[^']+)'",
        lambda found, _: f"{found['file']}.yaml: its defaults list names '{found['option']}', but there is no such option",
    ),
    (r"Could not find '(?P<path>[^']+)'", _unknown_option),
    (r"Ambiguous value for argument '(?P<key>[^=']+)=(?P<value>.*?)'(?:; |\n|$)", _several_values),
    (
        r"Sweep parameters '(?P<override>[^']+)' requires --multirun",
        lambda found, _: f"{redact(found['override'])}: give one value, or run a cell for each: ostinato run -m",
    ),
    (r"GrammarParseError", lambda _, case: f"{case.at}is not an interpolation; {ESCAPE_HINT}"),
    (
        r"Environment variable '(?P<name>[^']+)' not found",
        lambda found, case: f"{case.at}the environment variable {found['name']} is not set; set it, or give a value",
    ),
    (
        r"Interpolation key '(?P<key>[^']+)' not found",
        lambda found, case: f"{case.at}${{{found['key']}}} refers to a key that does not exist; {ESCAPE_HINT}",
    ),
    (
        r"Unsupported interpolation type (?P<name>\S+)",
        lambda found, case: f"{case.at}${{{found['name']}:...}} is not an interpolation; {ESCAPE_HINT}",
    ),
    (r"Recursive interpolation detected", lambda _, case: f"{case.at}refers to itself; give it a value"),
    (
        r"raised while resolving interpolation: (?P<problem>[^\n]+)",
        lambda found, case: f"{case.at}cannot be resolved: {redact(found['problem'])}; {ESCAPE_HINT}",
    ),
    (r"Missing mandatory value: (?P<key>\S+)", _missing),
]
"""Patterns in the text of an error (`text_of`), and the message for each. The first that matches counts."""
