"""The only door to Hydra and OmegaConf: overrides and YAML groups in, one plain dict out, Hydra's errors in our words."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config import yaml
from runner.config.load import (
    dump,
    escape,
    is_deferred,
    is_literal,
    is_open,
    is_protected,
    is_text_field,
    load,
    unknown_key,
    walk,
)
from runner.config.schema import RunConfig
from runner.errors import ConfigError, OstinatoError
from runner.secrets import redact
from runner.system.paths import expanded, shipped_conf
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OVERRIDE = re.compile(r"^(?P<sign>~|\+{0,2})(?P<key>[\w.@/\-]+)=(?P<value>.*)$", re.DOTALL)
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*@(?:latest|[1-9]\d*)")
"""A model that was registered; which one that is, is known where the experiment is made."""
VERBATIM = frozenset({"prompt.system", "prompt.user", "scoring.pattern", "scoring.target_pattern"}) | {
    "finetune.data.where",
    "finetune.command",
}
"""Text with a syntax of its own, in which Hydra's escapes and interpolations would do harm."""
_OPTIONAL = frozenset({"finetune"})
"""Groups that a config may do without."""
_ESCAPE_HINT = (
    "`${` starts an interpolation; write `\\${` for a literal one, or put the prompt into a file (prompt.user_file=...)"
)


class Composition(msgspec.Struct, frozen=True):
    """A composed config: `raw` as written (interpolations unresolved), `plain` resolved, and which option each group took.

    `hydra` has the choices of Hydra's own groups, such as its sweeper; `params` what is varied by ``hydra.sweeper.params``.
    """

    raw: dict[str, Any]
    plain: dict[str, Any]
    choices: dict[str, str]
    overrides: list[str]
    folders: list[Path]
    name: str
    hydra: dict[str, str]
    params: dict[str, str]

    def config(self) -> RunConfig:
        """The typed config. Raises ConfigError with the file or the override that is to blame."""
        return load(self.plain, self.origin)

    def origin(self, path: str) -> str:
        """The override or the file that has set `path`; '' when nobody knows."""
        key = path.partition("[")[0]
        for override in reversed(self.overrides):
            match = _OVERRIDE.match(override)
            if match and (key == match["key"] or key.startswith(f"{match['key']}.")) and match["key"] not in self.choices:
                return f"override '{_shown(override)}'"
        group, _, inner = key.partition(".")
        chosen = {choice.partition("@")[0]: option for choice, option in self.choices.items()}
        for name, wanted in (("local", key), ("experiment", key), (group, inner)):
            if name in chosen and (file := self._file(f"{name}/{chosen[name]}")) and _sets(file, wanted):
                return _shorten(file)
        primary = self._file(self.name)
        return _shorten(primary) if primary and _sets(primary, key) else ""

    def _file(self, option: str) -> Path | None:
        found = [folder / f"{option}.yaml" for folder in self.folders]
        return next((file for file in found if file.is_file()), None)


def folders(config_dir: str | None = None) -> list[Path]:
    """Where config groups are looked for, first match wins: `-cd`, then ``./conf``, then what the package ships.

    Raises:
        ConfigError: `config_dir` is not a folder.
    """
    places = []
    if config_dir is not None:
        given = expanded(config_dir).absolute()
        if not given.is_dir():
            raise ConfigError(f"-cd {config_dir}: there is no such folder")
        places.append(given)
    own = Path("conf").absolute()
    if own.is_dir():
        places.append(own)
    places.append(shipped_conf().absolute())
    unique: list[Path] = []
    for place in places:
        if all(place.resolve() != other.resolve() for other in unique):
            unique.append(place)
    return unique


def compose(overrides: list[str], *, config_name: str = "config", config_dir: str | None = None) -> Composition:
    """Compose the groups and apply `overrides`, in Hydra's grammar.

    Args:
        overrides: ``key=value``, ``group=option``, ``+key=value``, ``~key``. A model id may stand for a model option:
            ``model=openai/gpt-4o-mini`` is ``model=litellm model.name=openai/gpt-4o-mini``; so may the alias of a registered
            model, ``model=tickets@latest``.
        config_name: the primary config, without ``.yaml``.
        config_dir: a folder that is searched before ``./conf`` and the shipped one.

    Raises:
        ConfigError: a key, option or value that is not there or not allowed.
    """
    places = folders(config_dir)
    primary = config_name.removesuffix(".yaml")
    with hydra(overrides, places):
        composed = hydra_compose(overrides, places, primary)
        choices = {str(group): str(option) for group, option in composed.hydra.runtime.choices.items()}
        own = {group: option for group, option in choices.items() if group.startswith("hydra/")}
        composed_hydra = composed.hydra
        raw = _container(composed)
        params = {str(key): str(values) for key, values in (composed_hydra.sweeper.get("params") or {}).items()}
        return Composition(
            raw=raw,
            plain=resolve(raw),
            choices={group: option for group, option in choices.items() if group not in own},
            overrides=list(overrides),
            folders=places,
            name=primary,
            hydra=own,
            params=params,
        )


_hydra = threading.RLock()
"""What Hydra has initialised is the whole process's: one thread composes at a time."""


@contextlib.contextmanager
def hydra(overrides: Sequence[str], places: Sequence[Path]) -> Iterator[None]:
    """Have Hydra look for config groups in `places`, for the time of the block. Its errors come out as ConfigError.

    Other threads that compose wait, so that nothing long belongs into the block.

    Args:
        overrides: what errors are blamed on.
        places: from `folders`.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with _hydra, explained(overrides, places):
        token = _places.set(places)
        previous = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            _register_plugins()
            with initialize_config_dir(str(places[-1]), version_base="1.3", job_name="ostinato"):
                yield
        finally:
            GlobalHydra.instance().hydra = previous
            _places.reset(token)


@contextlib.contextmanager
def explained(overrides: Sequence[str], places: Sequence[Path]) -> Iterator[None]:
    """Have Hydra's errors come out as ConfigError. Arguments as for `hydra`."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OstinatoError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, overrides, places) from None
    except RecursionError:
        raise ConfigError("a defaults list leads back to itself, or a value is nested too deeply") from None


def hydra_compose(overrides: Sequence[str], places: Sequence[Path], primary: str) -> Any:
    """The groups put together as Hydra's own config, its node ``hydra`` included. Called within `hydra`.

    Raises:
        ConfigError: as `compose`.
    """
    from hydra import compose as put_together
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    file = next((file for place in places if (file := place / f"{primary}.yaml").is_file()), None)
    if file is None:
        raise ConfigError(f"-cn {primary}: no such config in {', '.join(map(_shorten, places))}")
    if primary.startswith("experiment/") and "@package _global_" in file.read_text("utf-8"):
        raise ConfigError(f"-cn {primary}: this says what it changes: add it to the config, +{primary.replace('/', '=', 1)}")
    try:
        return put_together(primary, overrides=_prepare(overrides, places, primary), return_hydra_config=True)
    except (ConfigError, HydraException, OmegaConfBaseException, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - boundary: on a defaults list that is none, Hydra raises what it runs into
        raise ConfigError(f"the defaults lists and the chosen options cannot be put together: {error}") from None


def read(path: Path) -> RunConfig:
    """The config that a run folder holds (``config.yaml``, already resolved).

    Raises:
        ConfigError: it is not there, is not YAML, or is not a config.
    """
    plain = yaml.read(path)
    if any(interpolates(at, value) for at, value in walk(plain)):
        from omegaconf.errors import OmegaConfBaseException

        try:
            plain = resolve(plain)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{_shorten(path)}: {_explain(error, [], [])}") from None
    return load(plain, lambda _path: _shorten(path))


def to_yaml(value: Any) -> str:
    """Plain data, or a RunConfig, as YAML that both `read` and Hydra take back."""
    return yaml.write(dump(value) if isinstance(value, RunConfig) else value)


_places: ContextVar[Sequence[Path]] = ContextVar("ostinato_config_places", default=())


@functools.cache
def _register_plugins() -> None:
    """Have Hydra read our folders: all of them, in order, for the primary config too, and as `runner.config.yaml` reads.

    Hydra's own door takes one folder and finds the primary config only there; its search path takes as many as are wanted.
    """
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class OstinatoSearchPath(SearchPathPlugin):  # type: ignore[misc]
        def manipulate_search_path(self, search_path: Any) -> None:
            for place in reversed(_places.get()):
                search_path.prepend("ostinato", f"ostinato://{place}")

    Plugins.instance().register(_config_source())
    Plugins.instance().register(OstinatoSearchPath)


def _config_source() -> Any:
    """A Hydra plugin that reads ``ostinato://FOLDER``."""
    from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError

    class OstinatoConfigSource(ConfigSource):  # type: ignore[misc]
        @staticmethod
        def scheme() -> str:
            return "ostinato"

        def load_config(self, config_path: str) -> ConfigResult:
            file = self._file(config_path)
            if not file.is_file():
                raise ConfigLoadError(f"Config not found : {file}")
            try:
                config = OmegaConf.create(yaml.read(file))
            except GrammarParseError as error:
                problem = str(error).partition("\n")[0]
                raise ConfigError(f"{_shorten(file)}: {error.full_key}: {problem}; {_ESCAPE_HINT}") from None
            header = self._get_header_dict(file.read_text("utf-8-sig"))
            return ConfigResult(config=config, path=f"{self.scheme()}://{self.path}", provider=self.provider, header=header)

        def available(self) -> bool:
            return self.is_group("")

        def is_group(self, config_path: str) -> bool:
            return (Path(self.path) / config_path).is_dir()

        def is_config(self, config_path: str) -> bool:
            return self._file(config_path).is_file()

        def list(self, config_path: str, results_filter: Any) -> list[str]:
            found: list[str] = []
            for entry in (Path(self.path) / config_path).iterdir():
                self._list_add_result(found, f"{config_path}/{entry.name}", entry.name, results_filter)
            return sorted(set(found))

        def _file(self, config_path: str) -> Path:
            name: str = self._normalize_file_name(config_path)
            return Path(self.path) / name

    return OstinatoConfigSource


def _container(composed: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf, open_dict

    with open_dict(composed):
        del composed["hydra"]
    container = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def resolve(raw: dict[str, Any]) -> dict[str, Any]:
    """`raw` with interpolations resolved, except in literal text and where one could bring in a secret."""
    from omegaconf import OmegaConf

    kept: dict[str, Any] = {}
    resolved = OmegaConf.to_container(OmegaConf.create(_masked(raw, kept)), resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    plain: dict[str, Any] = _replace(resolved, kept)
    return plain


def interpolates(path: str, value: Any) -> bool:
    """Whether `value` takes something from elsewhere in the config, or from the environment."""
    return isinstance(value, str) and "${" in value and not _stays(path, value)


def _stays(path: str, value: Any) -> bool:
    """Whether `value` is left as it is written: the user's own text, and what would bring a secret in."""
    return is_literal(path) or is_deferred(path, value)


def _masked(value: Any, kept: dict[str, Any], path: str = "") -> Any:
    """`value` without the parts that stay as they are, which go into `kept` by their paths."""
    if _stays(path, value):
        kept[path] = value
        return ""
    if isinstance(value, dict):
        return {key: _masked(item, kept, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, kept, f"{path}[{index}]") for index, item in enumerate(value)]
    return value


def _replace(value: Any, new: dict[str, Any], path: str = "") -> Any:
    if path in new:
        return new[path]
    if isinstance(value, dict):
        return {key: _replace(item, new, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, new, f"{path}[{index}]") for index, item in enumerate(value)]
    return value


def _prepare(overrides: Sequence[str], places: Sequence[Path], primary: str) -> list[str]:
    """The overrides as Hydra can read them: prompts taken literally, model ids allowed where a model option stands."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    chosen = any(_chooses_experiment(place / f"{primary}.yaml") for place in places)
    ready: list[str] = []
    for override in overrides:
        match = _OVERRIDE.match(override)
        if match is None:
            ready.append(_removal(override))
            continue
        key, value = match["key"], match["value"]
        if not match["sign"] and is_open(key):
            override = f"++{override}"  # noqa: PLW2901 - mappings such as model.params take any key
        if key == "experiment":  # experiment=x and +experiment=x are both common; which one Hydra takes depends on the config
            ready.append(f"{'' if chosen else '+'}experiment={value}")
            continue
        if key == "model" and (option := _stands_for(value, places)):
            ready += [f"model={option}", f"model.name={value}"]
            continue
        if key in _OPTIONAL and value == "null":
            ready.append(f"~{key}")
            continue
        if value == "null" and (found := options(key, places)):
            raise ConfigError(f"{key}=null: the group {key} needs an option; it has {', '.join(found)}")
        if key in VERBATIM and not _is_quoted(value) and value != "null":
            ready.append(f"{match['sign']}{key}={quote(value)}")
            continue
        try:
            parsed = parser.parse_override(override).value()
        except (HydraException, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
            if not is_text_field(key):
                problem = str(error).partition("\n")[0]
                raise ConfigError(
                    f"'{_shown(override)}' is not in Hydra's grammar: {redact(problem)}; put the value into quotes"
                ) from None
            override = f"{match['sign']}{key}={quote(value)}"  # noqa: PLW2901 - a regex or a sentence, meant literally
        else:
            _refuse_as_option(key, parsed, places)
        ready.append(override)
    return ready


def _stands_for(model: str, places: Sequence[Path]) -> str | None:
    """The option of the group `model` that a model's id or alias stands for; None when `model` is an option itself."""
    if _ALIAS.fullmatch(model):
        return "default"
    is_id = "/" in model and not any((place / f"model/{model}.yaml").is_file() for place in places)
    return "litellm" if is_id else None


def _removal(override: str) -> str:
    if not override.startswith("~"):
        raise ConfigError(f"'{redact(override)}' is not an override; write key=value, group=option, +key=value or ~key")
    return override


def _refuse_as_option(key: str, value: Any, places: Sequence[Path]) -> None:
    """Refuse a mapping, or a list of other things than names, where a group takes the name of an option."""
    names = isinstance(value, list) and all(isinstance(item, str) for item in value)  # Hydra takes several options of a group
    if isinstance(value, dict | list) and not names and (found := options(key, places)):
        raise ConfigError(f"{key}: is a group, and takes the name of an option: {', '.join(found)}; its keys are {key}.KEY=...")


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def quote(text: str, *, literal: bool = True) -> str:
    """`text` so that Hydra's grammar reads it as text; `literal`: and OmegaConf finds nothing to interpolate in it."""
    escaped = re.sub(r'(\\*)"', lambda found: found[1] * 2 + '\\"', escape(text) if literal else text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f'"{escaped}{chr(92) * trailing}"'


def _explain(error: Exception, overrides: Sequence[str], places: Sequence[Path]) -> ConfigError:  # noqa: PLR0911 - one return a mistake
    cause = error.__cause__
    text = str(error) or str(cause)
    first = text.splitlines()[0]
    if found := re.search(r"Could not override '([^']+)'", text):
        path = found[1].split("@")[0].replace("/", ".")
        key = getattr(cause, "full_key", None) or path  # of a dict that was given whole, the key in it
        return ConfigError(f"{unknown_key(str(key))} (in override '{_blamed(path, overrides)}')")
    if found := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return ConfigError(f"{found[1]}: is already there; write {found[1]}=... without the +")
    if told := _explain_choice(text, places):
        return told
    if found := re.search(r"Ambiguous value for argument '([^=']+)=(.*?)'(?:; |\n|$)", text):
        return ConfigError(
            f"{found[1]}: several values; to play a cell for each: ostinato run -m {found[1]}={redact(found[2])}; "
            "a list is written [a,b], and text with commas in quotes"
        )
    if found := re.search(r"Sweep parameters '([^']+)' requires --multirun", text):
        return ConfigError(f"{found[1]}: give one value, or have several played: ostinato run -m")
    if "Could not override" in text and "No match in the defaults list" in text:
        return ConfigError(first)
    if "GrammarParseError" in type(error).__name__ or "GrammarParseError" in type(cause).__name__:
        key = getattr(error, "full_key", "")
        return ConfigError(f"{key + ': ' if key else ''}{first}; {_ESCAPE_HINT}")
    if found := re.search(r"Environment variable '([^']+)' not found", text):
        return ConfigError(
            f"the environment variable {found[1]} is not set, and a config value asks for it by ${{oc.env:{found[1]}}}"
        )
    if found := re.search(r"Interpolation key '([^']+)' not found", text):
        return ConfigError(f"${{{found[1]}}}: no such key to take the value from; {_ESCAPE_HINT}")
    if text.startswith("Missing mandatory value"):
        key = getattr(error, "full_key", "") or text.split(":", 1)[1].split(maxsplit=1)[0]
        return ConfigError(f"{key}: is required; give it as {key}=...")
    return ConfigError(re.sub(r"\s*\n\s*", "; ", text.split("\nSee https", maxsplit=1)[0].strip()))


def _explain_choice(text: str, places: Sequence[Path]) -> ConfigError | None:
    """What Hydra means when it cannot find an option; None when it means something else."""
    if found := re.search(r"Could not find '(hydra/[^']+)/([^/']+)'", text):
        fix = "; install it: pip install 'ostinato[optuna]'" if found[2] == "optuna" else ""
        return ConfigError(f"{found[1]}={found[2]}: no such option{fix}")
    if found := re.search(r"In '([^']+/[^']+)': Could not (?:load|find) '([^']+)'", text):
        return ConfigError(f"{found[1]}.yaml: its defaults name '{found[2]}', and there is no such option")
    if found := re.search(r"Could not find '([^']+)'", text):
        group, _, option = found[1].rpartition("/")
        there = options(group, places)
        listed = f"; {group} has {', '.join(there)}" if there else ""
        near = suggest(option, there) or ("; a provider's model is model=provider/name" if group == "model" else "")
        return ConfigError(f"{group or 'config'}={option}: no such option{listed}{near}")
    return None


def _blamed(path: str, overrides: Sequence[str]) -> str:
    return next((_shown(override) for override in overrides if override.lstrip("+~").startswith(path)), path)


def _shown(override: str) -> str:
    """The override as messages may show it: without what could be a secret."""
    match = _OVERRIDE.match(override)
    return f"{match['key']}=..." if match and is_protected(match["key"]) else redact(override)


def options(group: str, places: Sequence[Path]) -> list[str]:
    """The options of a config group; none for what is no group."""
    return sorted({file.stem for place in places for file in (place / group).glob("*.yaml")})


def _sets(file: Path, path: str) -> bool:
    value: Any = yaml.read(file)
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _chooses_experiment(file: Path) -> bool:
    """Whether the defaults list of a primary config has the group experiment."""
    try:
        return file.is_file() and re.search(rb"^\s*-\s*experiment\s*:", file.read_bytes(), re.MULTILINE) is not None
    except OSError as error:
        raise ConfigError(f"{_shorten(file)}: {error.strerror}") from None


def _shorten(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
